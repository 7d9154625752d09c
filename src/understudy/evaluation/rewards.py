"""How a learned reward agrees with the true one.

A reward is known only up to its unit and its zero, and up to what shaping adds: Pearson's correlation does not see the
unit and the zero, Spearman's no monotone change either, both see shaping. So they are told of single steps and of
returns-to-go, and of the plays that they were measured on: learners see few bad states, and there all is alike.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from understudy.core.errors import DemosError
from understudy.core.types import Segment, View
from understudy.evaluation.metrics import acting
from understudy.maths.returns import discounted
from understudy.maths.stats import Estimate, interval, resample


@dataclass(frozen=True)
class Agreement:
    """Correlations of one agent's learned reward with its true one, each with an interval over episodes."""

    pearson: Estimate
    spearman: Estimate
    pearson_to_go: Estimate
    spearman_to_go: Estimate


def agreement(
    reward: Callable[[View, Tensor], Tensor],
    played: Segment,
    generator: torch.Generator,
    discount: float = 0.99,
) -> list[Agreement]:
    """Of each agent, on whole episodes as `rollout.play` gives them.

    Args:
        reward: learned; what it would pay after the end of a game must be 0 (`nets.rewards.LearnedReward`).
        discount: of the returns-to-go, which run to the end of the episode.
    """
    if played.rewards is None:
        raise DemosError("segment: it has no rewards, so there is nothing to compare a learned one with.")
    with torch.no_grad():
        learned = reward(played.view, played.actions)
    counts = acting(played)
    true, learned = (x.double().where(counts, 0.0) for x in (played.rewards, learned))
    ended = torch.zeros(true.shape[:2], dtype=torch.bool, device=true.device)
    blank = torch.zeros_like(true)
    to_go = [discounted(x, ended, blank, discount) for x in (learned, true)]
    return [
        Agreement(
            *(
                correlation(x[..., i], y[..., i], counts[..., i], generator, ranks)
                for x, y in ((learned, true), to_go)
                for ranks in (False, True)
            )
        )
        for i in range(true.shape[-1])
    ]


def correlation(
    x: Float[Tensor, "episode time"],
    y: Float[Tensor, "episode time"],
    where: Bool[Tensor, "episode time"],
    generator: torch.Generator,
    ranks: bool = False,
    repeats: int = 500,
) -> Estimate:
    """Pearson's correlation of `x` and `y` where `where` is true, or Spearman's: that of their `ranks`.

    The interval resamples episodes. NaN where one of the two never changes.
    """
    x, y = x.double(), y.double()
    if ranks:
        x, y = (torch.zeros_like(z).masked_scatter(where, ranked(z[where])) for z in (x, y))
    x, y = ((z - z[where].mean()).where(where, 0.0) for z in (x, y))
    parts = torch.stack([where.double(), x, y, x * x, y * y, x * y]).sum(dim=-1)  # [sum, episode]

    def of(sums: Tensor) -> Tensor:
        n, sx, sy, xx, yy, xy = sums
        return (n * xy - sx * sy) / ((n * xx - sx * sx) * (n * yy - sy * sy)).clamp(min=0).sqrt()

    rows = resample(parts.shape[1], repeats, generator)
    return Estimate(of(parts.sum(-1)).item(), *interval(of(parts[:, rows].sum(-1))), parts.shape[1])


def ranked(x: Float[Tensor, "sample"]) -> Float[Tensor, "sample"]:
    """Rank of each number from 1, the mean rank where several are equal."""
    _, place, counts = x.unique(return_inverse=True, return_counts=True)
    last = counts.cumsum(0).to(x.dtype)
    return (last - (counts.to(x.dtype) - 1) / 2)[place]
