"""Layers whose weights are shared by groups of agents: all agents in one product, whoever shares with whom."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from understudy.core.types import EnvSpec
from understudy.nets import fused


def sharing_groups(spec: EnvSpec, share: str) -> tuple[int, ...]:
    """Which set of weights each agent uses. `share`: all | role (agents of one role share) | none."""
    if share == "all":
        return (0,) * spec.agents
    if share == "none":
        return tuple(range(spec.agents))
    order = list(dict.fromkeys(spec.roles))
    return tuple(order.index(role) for role in spec.roles)


class AgentLinear(nn.Module):
    """y[agent] = W[groups[agent]] x[agent] + b[groups[agent]], with weights orthogonal at first and biases zero.

    Args:
        groups: which of the weight sets each agent uses; all alike: one plain product.
        gain: of the orthogonal start. Source: Saxe et al. 2014, arXiv:1312.6120.
    """

    index: Tensor

    def __init__(self, inputs: int, outputs: int, groups: tuple[int, ...], gain: float, generator: torch.Generator):
        super().__init__()
        sets = max(groups) + 1
        self.weight = nn.Parameter(torch.empty(sets, outputs, inputs))
        self.bias = nn.Parameter(torch.zeros(sets, outputs))
        self.register_buffer("index", torch.tensor(groups), persistent=False)
        for weight in self.weight.data:
            nn.init.orthogonal_(weight, gain, generator=generator)

    def forward(self, x: Float[Tensor, "*batch agent input"]) -> Float[Tensor, "*batch agent output"]:
        return fused.linear(x, self.weight, self.bias, self.index)


def through(
    layers: Sequence[AgentLinear] | nn.ModuleList,
    x: Float[Tensor, "*batch agent input"],
    activation: str,
    closed: bool = False,
) -> Float[Tensor, "*batch agent output"]:
    """`x` through one layer after another, with the activation between them; `closed`: after the last one too."""
    each: Any = list(layers)
    if not each:
        return x
    return fused.mlp(x, [a.weight for a in each], [a.bias for a in each], activation, each[0].index, closed)


class AgentMLP(nn.Module):
    """Hidden layers of one width, then a linear one. `gain` is of the last layer: small for policies' logits."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        groups: tuple[int, ...],
        generator: torch.Generator,
        hidden: int = 64,
        layers: int = 2,
        activation: str = "tanh",
        gain: float = 1.0,
    ):
        super().__init__()
        widths = [inputs] + [hidden] * layers
        self.hidden = nn.ModuleList(AgentLinear(a, b, groups, math.sqrt(2), generator) for a, b in pairwise(widths))
        self.last = AgentLinear(widths[-1], outputs, groups, gain, generator)
        self.activation = activation

    def forward(self, x: Float[Tensor, "*batch agent input"]) -> Float[Tensor, "*batch agent output"]:
        return through([*self.hidden, self.last], x, self.activation)


class Normaliser(nn.Module):
    """Features less their mean, in standard deviations, cut off at 10. Constant features become zero."""

    mean: Tensor
    std: Tensor
    count: Tensor

    def __init__(self, features: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("std", torch.ones(features))
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))

    def forward(self, x: Float[Tensor, "*batch feature"]) -> Float[Tensor, "*batch feature"]:
        return ((x - self.mean) / self.std).clamp(-10.0, 10.0)

    @torch.no_grad()
    def observe(self, x: Float[Tensor, "row feature"], as_many: float | None = None) -> None:
        """Take `x` into the running mean and deviation (parallel variance of Chan et al. 1979).

        `as_many`: how many rows it counts as. None: as many as it has.
        """
        if not len(x):
            return
        x = x.double()
        batch_mean = x.mean(dim=0)
        batch_var = (x - batch_mean).square_().mean(dim=0)  # `var` takes three times as long over a first axis
        seen, new = self.count, float(len(x)) if as_many is None else as_many
        old_mean, old_var = self.mean.double(), self.std.double().square() * (seen > 0)
        total = seen + new
        delta = batch_mean - old_mean
        mean = old_mean + delta * (new / total)
        var = (old_var * seen + batch_var * new + delta.square() * (seen * new / total)) / total
        std = var.sqrt()
        self.mean.copy_(mean)
        # what never moved tells nothing; dividing by its rounding error would
        self.std.copy_(torch.where(std > 1e-6 * (1 + mean.abs()), std, torch.ones_like(std)))
        self.count.copy_(total)
