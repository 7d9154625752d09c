"""How a step is paid for being where demonstrators' steps are, without a discriminator: kernels, and transport."""

import torch
from jaxtyping import Float
from torch import Tensor


def squared_distances(x: Float[Tensor, "x who feature"], y: Float[Tensor, "y who feature"]) -> Float[Tensor, "who x y"]:
    """|x - y|^2 of all pairs, for each `who` by itself."""
    x, y = x.transpose(0, 1), y.transpose(0, 1)
    products = torch.baddbmm(x.square().sum(-1, keepdim=True), x, y.transpose(1, 2), alpha=-2)
    return (products + y.square().sum(-1).unsqueeze(1)).clamp(min=0)


def median_squares(
    expert: Float[Tensor, "expert who feature"], learner: Float[Tensor, "learner who feature"]
) -> Float[Tensor, "who 2"]:
    """Median squared distance between the demonstrators' steps and the learner's, and among the demonstrators' own.

    1 where more than half of the pairs are the same point. Source: Kim and Park 2018 (AAAI), section 5: the widths of
    the two kernels, the first taken with the untrained policy's steps.
    """
    apart = squared_distances(expert, learner).flatten(1).median(dim=1).values
    i, j = torch.triu_indices(len(expert), len(expert), offset=1)
    among = squared_distances(expert, expert)[:, i, j]
    among = among.median(dim=1).values if among.shape[1] else torch.zeros_like(apart)
    both = torch.stack([apart, among], dim=-1)
    return torch.where(both > 1e-8, both, 1.0)


def likeness(
    x: Float[Tensor, "x who feature"], y: Float[Tensor, "y who feature"], squares: Float[Tensor, "who width"]
) -> Float[Tensor, "who x y"]:
    """Mean over the widths of exp(-|x - y|^2 / square): 1 for a point with itself."""
    apart = squared_distances(x, y)
    total = torch.zeros_like(apart)
    for square in squares.unbind(-1):
        total += torch.exp(apart / -square[:, None, None])
    return total / squares.shape[-1]


def closeness(
    x: Float[Tensor, "x who feature"],
    points: Float[Tensor, "point who feature"],
    weight: Float[Tensor, "point who"],
    squares: Float[Tensor, "who width"],
    block: int = 4096,
) -> Float[Tensor, "x who"]:
    """sum_j w_j k(x, point_j): how dense the points are around x. At most `block` rows of pairs are held at a time."""
    columns = weight.T.unsqueeze(-1)
    return torch.cat([(likeness(part, points, squares) @ columns).squeeze(-1).T for part in x.split(block)])


ROUNDING = 1e-4  # of the mass moved in a step: less is nothing


def couple(
    left: Float[Tensor, "row point"], mass: float, distances: Float[Tensor, "row point"]
) -> tuple[Float[Tensor, "row"], Float[Tensor, "row point"]]:
    """Move `mass` in each row to the nearest points that have something `left`: what it costs, and what is left then.

    The greedy coupling of one step: cost = sum of mass moved * distance; infinite where less than `mass` is left.

    Source: Dadashi et al. 2021, arXiv:2006.04678, algorithm 1.
    """
    left, rows, least = left.clone(), torch.arange(len(left), device=left.device), ROUNDING * mass
    waits, cost = left.new_full((len(left),), mass), left.new_zeros(len(left))  # mass that is still to be moved
    reach = distances.masked_fill(left <= least, torch.inf)
    while len(rows):
        apart, nearest = reach[rows].min(dim=1)
        there = left[rows, nearest]
        moved = torch.minimum(waits[rows], there)
        cost[rows] += torch.where(torch.isinf(apart), apart, moved * apart)
        waits[rows] -= moved
        left[rows, nearest] = there - moved
        reach[rows, nearest] = apart.masked_fill(there - moved <= least, torch.inf)
        rows = rows[(waits[rows] > least) & ~torch.isinf(apart)]
    return cost, left
