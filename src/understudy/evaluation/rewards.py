"""How a learned reward agrees with the true one.

A reward is known only up to its unit and its zero, and up to what shaping adds: Pearson's correlation does not see the
unit and the zero, Spearman's no monotone change either, both see shaping. So they are told of single steps and of
returns-to-go, and of the plays that they were measured on: learners see few bad states, and there all is alike.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from understudy.core.errors import DemosError, EnvError
from understudy.core.tree import tree_map
from understudy.core.types import Continuous, Segment, View, action_shape
from understudy.evaluation.metrics import acting
from understudy.maths.returns import discounted
from understudy.maths.stats import Estimate, interval, resample
from understudy.rollout import look


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


@torch.no_grad()
def landscape(
    reward: Callable[[View, Tensor], Tensor], env: Any, whole: Float[Tensor, "feature"], agent: int, cells: int = 40
) -> Float[Tensor, "row column"]:
    """What `agent` would be paid wherever it might stand in the picture of a moment, all else being as it is.

    Asked is the middle of each of `cells` by `cells` places, rows from the bottom. Where the reward sees actions,
    everybody's are the first move, or numbers of 0.

    Raises:
        EnvError: the env cannot be set to a moment (`unpack`), or its agents have no `position` in the plane.
    """
    scene, state = env.draw(whole), env.unpack(whole.unsqueeze(0)) if hasattr(env, "unpack") else None
    if state is None or getattr(state, "position", torch.empty(0)).shape[-1] != 2:
        raise EnvError(
            f"{env.spec.title or type(env).__name__} has no map of rewards: it is for envs that can be set to a moment "
            "(`unpack(whole)`) in which agents have a `position` in the plane."
        )
    middle = (torch.arange(cells) + 0.5) / cells
    up, across = torch.meshgrid(
        torch.lerp(torch.tensor(scene.bottom), torch.tensor(scene.top), middle),
        torch.lerp(torch.tensor(scene.left), torch.tensor(scene.right), middle),
        indexing="ij",
    )
    state = tree_map(lambda x: x.expand(cells * cells, *x.shape[1:]), state)
    position = state.position.clone()
    position[:, agent] = torch.stack([across, up], dim=-1).flatten(0, 1).to(position.dtype)
    view = look(env, replace(state, position=position))
    kind = torch.float32 if isinstance(env.spec.action, Continuous) else torch.long
    still = torch.zeros(cells * cells, env.spec.agents, *action_shape(env.spec.action), dtype=kind)
    return reward(view, still)[:, agent].reshape(cells, cells)


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
