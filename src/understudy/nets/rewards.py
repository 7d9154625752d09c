"""Learned rewards: what adversarial and inverse methods believe that the demonstrators were paid for, as an object.

It can be called on any steps, saved beside the policy, compared with a true reward (`evaluation.rewards`), and train a
new team (`envs.rewarded`).
"""

from pathlib import Path

import safetensors.torch
import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from understudy.core import config as settings
from understudy.core.errors import ConfigError, RunError, UnderstudyError
from understudy.core.files import sha256, to_json, write_atomically
from understudy.core.random import generator
from understudy.core.types import EnvSpec, View
from understudy.maths.adversarial import REWARDS
from understudy.nets.discriminators import Judge, JudgeConfig

VERSION = 1


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
    """Write `reward.safetensors`, then `reward.json`, into `folder`. Raises RunError on a full disk."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in reward.state_dict().items()}
    data = safetensors.torch.save(weights)
    told = {
        "version": VERSION,
        "judge": settings.to_dict(reward.judge.config),
        "form": reward.form,
        "spec": settings.to_dict(reward.judge.spec.to_json()),
        "weights": sha256(data),
    }
    write_atomically(folder / "reward.safetensors", data)
    write_atomically(folder / "reward.json", to_json(told, indent=1))


def load_reward(folder: Path | str) -> LearnedReward:
    """The reward that `save_reward` wrote into `folder`.

    Raises:
        RunError: there is none, it is damaged, or of a newer format.
    """
    path, beside = Path(folder) / "reward.json", Path(folder) / "reward.safetensors"
    if not path.exists():
        raise RunError(f"{folder} holds no reward: {path.name} is not there.")
    told = settings.read(path)
    if told.get("version") != VERSION:
        raise RunError(f"{path} is of format {told.get('version')}, and this understudy reads {VERSION}.")
    try:
        data = beside.read_bytes()
        if sha256(data) != told["weights"]:
            raise RunError(f"{beside} is damaged: its sha256 is not the one in {path.name}.")
        config = settings.from_dict(JudgeConfig, told["judge"], str(path))
        spec = EnvSpec.from_json(told["spec"])
        reward = LearnedReward(Judge(config, spec, generator(0, "weights that are replaced")), told["form"])
        reward.load_state_dict(safetensors.torch.load(data))
    except (OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
        if isinstance(error, UnderstudyError):
            raise
        raise RunError(f"{path}: no reward can be made of it: {' '.join(str(error).split())}") from None
    return reward
