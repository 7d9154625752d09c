"""An env that pays another reward: to train a new team on what was learnt from an old one."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from understudy.core.types import Continuous, Env, View


@dataclass(frozen=True)
class Rewarded:
    """`env` with all its rules, where each step pays `reward(view, actions)`: a `nets.rewards.LearnedReward`, say.

    `view` is what the agents see before the step, with all that the env offers, `actions` what they do, within their
    bounds. Who is away is paid nothing.
    """

    env: Env
    reward: Callable[[View, Tensor], Tensor]

    @property
    def spec(self) -> Any:
        return self.env.spec

    def reset(self, noise: Float[Tensor, "env noise"]) -> Any:
        return self.env.reset(noise)

    def observe(self, state: Any) -> Float[Tensor, "env agent obs"]:
        return self.env.observe(state)

    @torch.no_grad()
    def step(
        self, state: Any, actions: Tensor, noise: Float[Tensor, "env noise"]
    ) -> tuple[Any, Float[Tensor, "env agent"], Bool[Tensor, "env"]]:
        action = self.spec.action
        done = actions.clamp(action.low, action.high) if isinstance(action, Continuous) else actions
        parts = {
            name: getattr(self.env, name)(state) for name in ("legal", "present", "whole") if hasattr(self.env, name)
        }
        view = View(self.env.observe(state), **parts)
        paid = self.reward(view, done)
        paid = paid if view.present is None else paid * view.present
        after, _, terminated = self.env.step(state, actions, noise)
        return after, paid, terminated

    def __getattr__(self, name: str) -> Any:
        """`legal`, `present`, `whole`, `draw` and what else the env offers."""
        if name.startswith("__") or name == "env":
            raise AttributeError(name)
        return getattr(self.env, name)
