"""An env whose step, and all that is seen after it, is one compiled function: the same game, several times faster.

It is `torch.compile`'s, so it is made anew in every process (seconds, of which a second process finds most in a cache),
and numbers may differ from the eager ones in their last bits. Learning and playing go through it unseen: it is an env.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from understudy.core.types import Env, View
from understudy.rollout import look


@dataclass(frozen=True)
class Moment:
    """A state of the game, and what is seen in it."""

    state: Any
    view: View


@dataclass(frozen=True)
class Compiled:
    """`eager` with all of its contract; what its states are for others is a `Moment`.

    One number of envs is compiled, the first that is stepped: to compile for each that comes along would take longer
    than it saves. Others are played eagerly, and all are where torch finds no compiler; the log `understudy` tells the
    reason once.
    """

    eager: Env
    _turns: dict[int, Callable[..., Any]] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def spec(self) -> Any:
        return self.eager.spec

    def reset(self, noise: Float[Tensor, "env noise"]) -> Moment:
        state = self.eager.reset(noise)
        return Moment(state, look(self.eager, state))

    def look(self, moment: Moment) -> View:
        return moment.view

    def observe(self, moment: Moment) -> Float[Tensor, "env agent obs"]:
        return moment.view.obs

    def step(
        self, moment: Moment, actions: Tensor, noise: Float[Tensor, "env noise"]
    ) -> tuple[Moment, Float[Tensor, "env agent"], Bool[Tensor, "env"]]:
        given, envs = (moment.state, actions, noise), len(noise)
        if not self._turns:
            self._turns[envs], result = _first(self._turn, given)
        else:
            result = self._turns.get(envs, self._turn)(*given)
        state, view, rewards, terminated = result
        return Moment(state, view), rewards, terminated

    def _turn(self, state: Any, actions: Tensor, noise: Tensor) -> tuple[Any, View, Tensor, Tensor]:
        state, rewards, terminated = self.eager.step(state, actions, noise)
        return state, look(self.eager, state), rewards, terminated

    def __getattr__(self, name: str) -> Any:
        """What else the env offers; what it sees of a state is seen in a `Moment`."""
        if name == "eager" or name.startswith("__"):  # asked before there is one, by those who copy
            raise AttributeError(name)
        found = getattr(self.eager, name)
        if name in ("legal", "present", "whole"):
            return lambda moment: getattr(moment.view, name)
        return found


def compiled(env: Env, device: torch.device | str = "cpu") -> Env:
    """`env` as `Compiled`, to be played on `device`.

    As it is where it cannot be, since foreign simulators keep state that no compiler sees, and where it would only be
    slower: an env that is `native` has compiled functions of its own, on the CPU.
    """
    name = env.spec.title or type(env).__name__
    if hasattr(env, "restart"):
        _tell(f"{name} keeps its state inside")
        return env
    if getattr(env, "native", False) and torch.device(device).type == "cpu":
        _tell(f"{name} has compiled functions of its own")
        return env
    return Compiled(env)


def _first(turn: Callable[..., Any], given: tuple[Any, ...]) -> tuple[Callable[..., Any], Any]:
    """A compiled `turn` and what it makes of `given`; `turn` itself where it cannot be compiled."""
    guards = torch.compiler.keep_tensor_guards_unsafe  # an env is frozen: nothing but sizes and strides may change
    made = torch.compile(turn, dynamic=False, fullgraph=True, options={"guard_filter_fn": guards})
    try:
        return made, made(*given)
    except Exception as error:  # whatever a compiler, or the lack of one, may raise; the env's own errors come again
        result = turn(*given)
        _tell(str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__)
        return turn, result


@cache
def _tell(reason: str) -> None:
    """Each reason once."""
    logging.getLogger("understudy").info("the env is played eagerly: %s", reason)
