"""Judges: one number for each agent from what it saw and did, or from what everybody did.

The same module serves as a discriminator (its numbers are logits), as a learned reward and as the shaping potential of
one: they differ in what they are taught, and in what they may see.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from understudy.core.errors import ConfigError
from understudy.core.types import Continuous, EnvSpec, View
from understudy.maths.heads import action_features, one_hot
from understudy.nets.fused import ACTIVATIONS
from understudy.nets.mlp import AgentLinear, AgentMLP, Normaliser, sharing_groups

STEEPEST = {"silu": 1.1}  # the slope that an activation reaches, where that is above 1
SIGHTS = ("own", "actions", "joint", "team")


@dataclass(frozen=True)
class JudgeConfig:
    """The shape of a judge."""

    sees: Literal["own", "actions", "joint", "team"] = "own"  # own: o_i, a_i; actions: o_i and everybody's actions;
    # joint: everybody's observations and actions, a number for each agent; team: the same, one number for all
    state_only: bool = False  # no actions
    share: Literal["role", "all", "none"] = "role"  # which agents use the same weights
    hidden: int = 128  # width of every hidden layer
    layers: int = 2
    activation: Literal["tanh", "relu", "silu"] = "tanh"

    def __post_init__(self) -> None:
        if self.hidden < 1 or self.layers < 0:
            raise ConfigError(f"hidden={self.hidden}, layers={self.layers}: a width of 1 or more, layers of 0 or more.")
        if self.sees not in SIGHTS or self.activation not in ACTIVATIONS or self.share not in ("role", "all", "none"):
            raise ConfigError(f"unknown sight, activation or sharing in {self}.")
        if self.state_only and self.sees == "actions":
            raise ConfigError("sees='actions', state_only=True: that leaves the own observation. Say sees='own'.")


class Judge(nn.Module):
    """One number for each agent. What it sees is normalised by its own `normaliser`."""

    def __init__(self, config: JudgeConfig, spec: EnvSpec, generator: torch.Generator):
        super().__init__()
        self.config, self.spec = config, spec
        acted = 0 if config.state_only else action_features(spec.action)
        own, all_seen, all_acted = spec.obs + acted, spec.agents * spec.obs, spec.agents * acted
        who = spec.agents
        self.width = {
            "own": own,
            "actions": own + who + all_acted,
            "joint": own + who + all_seen + all_acted,
            "team": all_seen + all_acted,
        }[config.sees]
        self.normaliser = Normaliser(self.width)
        groups = sharing_groups(spec, "all" if config.sees == "team" else config.share)
        self.net = AgentMLP(self.width, 1, groups, generator, config.hidden, config.layers, config.activation, gain=0.1)

    def features(
        self, view: View, actions: Shaped[Tensor, "..."], imagined: Shaped[Tensor, "..."] | None = None
    ) -> Float[Tensor, "*batch agent feature"]:
        """What is seen, before it is normalised.

        Continuous actions count as the env takes them, within their bounds: recordings hold them so, and a learner
        whose draws go beyond would be told by that alone. Of those who are away nothing is shown but that they are
        (-1 where `actions` and `joint` say who is asked): recordings hold fillers there, and play draws.

        Args:
            imagined: [*batch me other ...], joint actions as each agent imagines them, in place of what everybody did.
        """
        agents = self.spec.agents
        there = torch.ones_like(view.obs[..., 0]) if view.present is None else view.present.to(view.obs.dtype)
        obs = view.obs * there.unsqueeze(-1)
        own, everybody = [obs], []
        if self.config.sees in ("joint", "team"):
            everybody.append(_to_all(obs))
        if not self.config.state_only:
            own.append(self._acted(actions, there))
            others = _to_all(own[1]) if imagined is None else self._acted(imagined, there.unsqueeze(-2)).flatten(-2)
            everybody.append(others)
        if self.config.sees == "own":
            return torch.cat(own, dim=-1)
        told = torch.cat(everybody, dim=-1)
        if self.config.sees == "team":
            return told
        who = torch.eye(agents, dtype=obs.dtype, device=obs.device) - (1 - there).unsqueeze(-2)
        return torch.cat([*own, who.clamp(min=-1).expand(*obs.shape[:-1], agents), told], dim=-1)

    def _acted(self, actions: Tensor, there: Tensor) -> Tensor:
        """Actions as features, of those who are there."""
        action = self.spec.action
        if isinstance(action, Continuous):
            actions = actions.clamp(action.low, action.high)
        return one_hot(actions, action).to(there.dtype) * there.unsqueeze(-1)

    def inputs(self, view: View, actions: Shaped[Tensor, "..."]) -> Float[Tensor, "*batch agent feature"]:
        """What the network reads: the features in standard deviations."""
        return self.normaliser(self.features(view, actions))

    def judge(self, inputs: Float[Tensor, "*batch agent feature"]) -> Float[Tensor, "*batch agent"]:
        return self.net(inputs).squeeze(-1)

    def forward(
        self, view: View, actions: Shaped[Tensor, "..."], imagined: Shaped[Tensor, "..."] | None = None
    ) -> Float[Tensor, "*batch agent"]:
        return self.judge(self.normaliser(self.features(view, actions, imagined)))

    @torch.no_grad()
    def observe(self, view: View, actions: Shaped[Tensor, "..."]) -> None:
        """Let the normaliser follow these steps."""
        self.normaliser.observe(self.features(view, actions).flatten(0, -2))

    @torch.no_grad()
    def confine(self) -> None:
        """Shorten layers so that no output is steeper than 1: to a largest singular value of at most 1.

        Hidden layers under silu, whose slope reaches 1.1, to 1 / 1.1. To be called after each gradient step. Source of
        the bound: Miyato et al. 2018, arXiv:1802.05957.
        """
        steepest = STEEPEST.get(self.config.activation, 1.0)
        for layer in self.net.modules():
            if isinstance(layer, AgentLinear):
                bent = 1.0 if layer is self.net.last else steepest
                largest = torch.linalg.matrix_norm(layer.weight, 2) * bent
                layer.weight.div_(largest.clamp(min=1)[:, None, None])


def _to_all(x: Float[Tensor, "*batch agent feature"]) -> Float[Tensor, "*batch agent all"]:
    """Everybody's features, told to every agent."""
    together = x.flatten(-2).unsqueeze(-2)
    return together.expand(*x.shape[:-1], together.shape[-1])
