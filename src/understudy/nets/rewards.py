"""Learned rewards: what adversarial and inverse methods believe that the demonstrators were paid for, as an object.

It can be called on any steps, saved beside the policy, compared with a true reward (`evaluation.rewards`), and train a
new team (`envs.rewarded`).
"""

from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from understudy.core import config as settings
from understudy.core.errors import ConfigError
from understudy.core.random import generator
from understudy.core.types import EnvSpec, View
from understudy.maths.adversarial import REWARDS
from understudy.nets.discriminators import Judge, JudgeConfig
from understudy.nets.saved import load_net, save_net


class LearnedReward(nn.Module):
    """reward_i = form(judge_i + shift) - level: what each agent is paid for what was seen and done.

    `level` is what the absorbing state pays. It is taken off, so that after the game is over 0 is paid, as in any env,
    and a sum over an episode can be compared with a return.
    """

    shift: Tensor
    level: Tensor

    def __init__(self, judge: Judge, form: str = "logit", shift: float = 0.0, level: float = 0.0):
        super().__init__()
        if form not in REWARDS:
            raise ConfigError(f"form: got {form!r}; one of {', '.join(REWARDS)} is meant.")
        self.judge, self.form = judge, form
        self.register_buffer("shift", torch.tensor(shift))
        self.register_buffer("level", torch.tensor(level))

    @property
    def spec(self) -> EnvSpec:
        """Of the env whose steps it was learnt from."""
        return self.judge.spec

    def forward(self, view: View, actions: Shaped[Tensor, "..."]) -> Float[Tensor, "*batch agent"]:
        return REWARDS[self.form](self.judge(view, actions) + self.shift) - self.level


def save_reward(reward: LearnedReward, folder: Path | str) -> None:
    """Write `reward-HASH.safetensors`, then `reward.json`, into `folder`. Raises RunError on a full disk."""
    told = {
        "judge": settings.to_dict(reward.judge.config),
        "form": reward.form,
        "spec": settings.to_dict(reward.spec.to_json()),
    }
    save_net(reward, folder, "reward", told)


def load_reward(folder: Path | str) -> LearnedReward:
    """The reward that `save_reward` wrote into `folder`.

    Raises:
        RunError: there is none, it is damaged, or of a newer format.
    """

    def make(told: dict[str, Any], path: str) -> LearnedReward:
        config, spec = settings.from_dict(JudgeConfig, told["judge"], path), EnvSpec.from_json(told["spec"])
        return LearnedReward(Judge(config, spec, generator(0, "weights that are replaced")), told["form"])

    return load_net(folder, "reward", make)
