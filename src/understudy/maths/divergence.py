"""How far apart two distributions are: from their probabilities, or from samples of each.

From samples there are three families. Kernel distances (`mmd2`, and `energy_distance`, which is the MMD of the kernel
-|x - y|) see every difference and have unbiased estimates. Transport distances (`wasserstein`, `sliced_wasserstein`)
are in the data's own unit. Histograms are for one number at a time.

Steps of one episode depend on each other. `episode_pairs` therefore sums a kernel over pairs of whole episodes, once;
`episode_mmd2` and `episode_test` then compare pairs of different episodes only and permute whole episodes.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from understudy.core.errors import DemosError
from understudy.core.random import generator as named_generator
from understudy.maths.stats import permutation_p, shuffled_groups

Kernel = Callable[[Tensor], Tensor]  # of distances, entry by entry


# --- probabilities ---------------------------------------------------------------------------------------------------


def kl(p: Float[Tensor, "*batch choice"], q: Float[Tensor, "*batch choice"]) -> Float[Tensor, "*batch"]:
    """sum p log(p / q) in nats, of probabilities that sum to 1. Infinite where p has weight and q has none."""
    return (torch.xlogy(p, p) - torch.xlogy(p, q)).sum(-1)


def js(p: Float[Tensor, "*batch choice"], q: Float[Tensor, "*batch choice"]) -> Float[Tensor, "*batch"]:
    """Jensen-Shannon divergence in nats: 0 where p = q, log 2 where they share nothing, never infinite."""
    middle = (p + q) / 2
    return (kl(p, middle) + kl(q, middle)) / 2


def entropy(p: Float[Tensor, "*batch choice"]) -> Float[Tensor, "*batch"]:
    """-sum p log p in nats."""
    return -torch.xlogy(p, p).sum(-1)


def total_correlation(joint: Float[Tensor, "..."]) -> Float[Tensor, ""]:
    """What the agents' choices say about each other, in nats: sum_i H(a_i) - H(a_1 ... a_n) = KL(joint || product).

    `joint` is a table of probabilities with one axis for each agent. With two agents this is their mutual
    information. 0 where they choose independently, log K where K agreed conventions are equally common.
    """
    axes = range(joint.dim())
    alone = [joint.sum([other for other in axes if other != axis]) if joint.dim() > 1 else joint for axis in axes]
    return torch.stack([entropy(p) for p in alone]).sum() - entropy(joint.flatten())


def entropy_of_counts(counts: Float[Tensor, "*batch cell"]) -> Float[Tensor, "*batch"]:
    """Entropy in nats of whatever was counted: that of the shares, plus (cells seen - 1) / (2 * total).

    Without the second term rare cells make the entropy too small, joint ones more than single ones, and independent
    choices look like agreement.

    Source: Miller 1955, "Note on the bias of information estimates".
    """
    total = counts.sum(-1)
    return entropy(counts / total.unsqueeze(-1)) + ((counts > 0).sum(-1) - 1) / (2 * total)


def total_correlation_gaussian(covariance: Float[Tensor, "*batch width width"], agents: int) -> Float[Tensor, "*batch"]:
    """Total correlation in nats of Gaussian actions with this covariance, those of agent 0 first.

        1/2 * (sum_i log det C_ii - log det C)

    Of other actions it sees linear dependence only. Infinite where an action is a linear function of the others'.
    """
    size = covariance.shape[-1] // agents
    blocks = covariance.unflatten(-1, (agents, size)).unflatten(-3, (agents, size)).diagonal(dim1=-4, dim2=-2)
    return (torch.logdet(blocks.movedim(-1, -3)).sum(-1) - torch.logdet(covariance)) / 2


# --- one number at a time --------------------------------------------------------------------------------------------


def histogram(values: Float[Tensor, "sample"], edges: Float[Tensor, "edge"]) -> Float[Tensor, "bin"]:
    """Share of the values in each bin [edge_k, edge_k+1). What lies outside is counted in the first or last bin."""
    bins = len(edges) - 1
    index = (torch.bucketize(values, edges, right=True) - 1).clamp(0, bins - 1)
    return torch.bincount(index, minlength=bins).to(edges.dtype) / len(values)


def histogram_js(x: Float[Tensor, "x"], y: Float[Tensor, "y"], bins: int = 50) -> Float[Tensor, ""]:
    """Jensen-Shannon divergence in nats of two histograms on `bins` equal bins that span both samples.

    Biased upward by about bins / (8 min(x, y)) where both samples come from one distribution.
    """
    low, high = torch.minimum(x.min(), y.min()).item(), torch.maximum(x.max(), y.max()).item()
    if low == high:
        return x.new_zeros(())
    edges = torch.linspace(low, high, bins + 1, dtype=x.dtype, device=x.device)
    return js(histogram(x, edges), histogram(y, edges))


def wasserstein(x: Float[Tensor, "*batch x"], y: Float[Tensor, "*batch y"], order: int = 1) -> Float[Tensor, "*batch"]:
    """Exact W_p of one-dimensional samples along the last axis, in the samples' unit; they may differ in number.

    W_p = (integral over t in [0, 1] of |F^-1(t) - G^-1(t)|^p)^(1/p)
    """
    n, m = x.shape[-1], y.shape[-1]
    # The quantile functions step at i / n and at j / m: counted in whole numbers of 1 / (n m), so nothing is rounded.
    ends = torch.cat([torch.arange(1, n + 1) * m, torch.arange(1, m + 1) * n]).unique().to(x.device)
    starts = torch.cat([ends.new_zeros(1), ends[:-1]])
    gap = x.sort(-1).values[..., starts // m] - y.sort(-1).values[..., starts // n]
    return (gap.abs() ** order * ((ends - starts).to(x.dtype) / (n * m))).sum(-1) ** (1 / order)


# --- samples of vectors ----------------------------------------------------------------------------------------------


def sliced_wasserstein(
    x: Float[Tensor, "x feature"],
    y: Float[Tensor, "y feature"],
    generator: torch.Generator,
    directions: int = 128,
    order: int = 2,
) -> Float[Tensor, ""]:
    """(mean over random unit directions of W_p^p of the projections)^(1/p), in the samples' unit.

    Of two points the distance |m| apart it is |m| sqrt(1 / features) for p = 2.

    Source: Rabin et al. 2011 / Bonneel et al. 2015, doi:10.1007/s10851-014-0506-3.
    """
    axes = torch.randn(x.shape[1], directions, generator=generator, device=generator.device).to(x)
    axes = axes / axes.norm(dim=0)
    return (wasserstein((x @ axes).T, (y @ axes).T, order) ** order).mean() ** (1 / order)


def kept_rows(rows: int, most: int) -> Int[Tensor, "kept"]:
    """Which of so many rows to keep, at most `most`, in their order: always the same ones for the same two numbers.

    Drawn, not evenly spaced: an even step could fall in with a rhythm of the data.
    """
    if rows <= most:
        return torch.arange(rows)
    return torch.randperm(rows, generator=named_generator(0, "kept_rows", rows, most))[:most].sort().values


def median_distance(x: Float[Tensor, "x feature"], y: Float[Tensor, "y feature"], most: int = 1000) -> float:
    """Median distance between different rows of both samples together: the usual width of an RBF kernel.

    From at most `most` rows of each (see `kept_rows`). 1 where more than half of the rows are the same.

    Source: Gretton et al. 2012, JMLR 13, section 8.
    """
    kept = [side[kept_rows(len(side), most).to(side.device)] for side in (x, y)]
    distance = torch.nn.functional.pdist(torch.cat(kept))
    median = distance.median().item() if len(distance) else 0.0
    return median or 1.0


def rbf(*scales: float) -> Kernel:
    """The mean of exp(-d^2 / (2 l^2)) over the widths l in `scales`."""

    def kernel(distance: Tensor) -> Tensor:
        square = distance.square()
        total = torch.zeros_like(square)
        for scale in scales:  # one after the other: a mixture holds no more than one width
            total += torch.exp(square * (-0.5 / scale**2))
        return total / len(scales)

    return kernel


def rbf_of(x: Float[Tensor, "x feature"], y: Float[Tensor, "y feature"]) -> Kernel:
    """A mixture of RBF kernels, from a quarter to four times the median distance: sees coarse and fine differences."""
    median = median_distance(x, y)
    return rbf(*(median * factor for factor in (0.25, 0.5, 1.0, 2.0, 4.0)))


def minus_distance(distance: Tensor) -> Tensor:
    """The kernel -d, whose MMD^2 is the energy distance."""
    return -distance


def pair_sums(
    x: Float[Tensor, "x feature"],
    y: Float[Tensor, "y feature"],
    kernel: Kernel,
    x_group: Int[Tensor, "x"] | None = None,
    y_group: Int[Tensor, "y"] | None = None,
    block: int = 2**21,
) -> Float[Tensor, "x_groups y_groups"]:
    """sum of kernel(|x_i - y_j|) over the pairs of each group of x with each group of y; float64.

    Without groups all rows are one. At most `block` pairs are held at a time (or one row of x against all of y):
    50,000 by 50,000 rows need some tens of megabytes and not 20 gigabytes.
    """
    x_group = torch.zeros(len(x), dtype=torch.long, device=x.device) if x_group is None else x_group
    y_group = torch.zeros(len(y), dtype=torch.long, device=y.device) if y_group is None else y_group
    x_groups, y_groups = int(x_group.max()) + 1, int(y_group.max()) + 1
    sums = torch.zeros(x_groups, y_groups, dtype=torch.float64, device=x.device)
    for rows, group in zip(x.split(max(1, block // len(y))), x_group.split(max(1, block // len(y))), strict=True):
        # The usual |x|^2 + |y|^2 - 2 xy loses half of the digits where points are close: differences are exact.
        values = kernel(torch.cdist(rows, y, compute_mode="donot_use_mm_for_euclid_dist"))
        if y_groups == 1:
            by_group = values.sum(1, keepdim=True, dtype=torch.float64)
        else:
            by_group = sums.new_zeros(len(rows), y_groups).index_add_(1, y_group, values.double())
        sums = sums.index_add(0, group, by_group)
    return sums


def mmd2(x: Float[Tensor, "x feature"], y: Float[Tensor, "y feature"], kernel: Kernel) -> Float[Tensor, ""]:
    """Unbiased squared maximum mean discrepancy; may come out below 0 where the distributions are close.

        1/(n(n-1)) sum_{i != j} k(x_i, x_j) + 1/(m(m-1)) sum_{i != j} k(y_i, y_j) - 2/(nm) sum_ij k(x_i, y_j)

    Unbiased for independent rows. Steps of one episode are not: see `episode_mmd2`.

    Source: Gretton et al. 2012, JMLR 13, equation 3.
    """
    n, m = len(x), len(y)
    if min(n, m) < 2:
        raise DemosError(f"mmd2: got {n} and {m} rows, but an unbiased estimate needs two of each.")
    alike = kernel(torch.zeros((), dtype=torch.float64))  # a row with itself
    within = (pair_sums(x, x, kernel) - n * alike) / (n * (n - 1)) + (pair_sums(y, y, kernel) - m * alike) / (
        m * (m - 1)
    )
    return (within - 2 * pair_sums(x, y, kernel) / (n * m)).squeeze()


def mmd2_biased(x: Float[Tensor, "x feature"], y: Float[Tensor, "y feature"], kernel: Kernel) -> Float[Tensor, ""]:
    """Squared MMD of the two samples as they are: never below 0, 0 only where they are the same.

    Above the unbiased estimate by about (k(0) - E k)(1/n + 1/m).

    Source: Gretton et al. 2012, JMLR 13, equation 5.
    """
    n, m = len(x), len(y)
    within = pair_sums(x, x, kernel) / n**2 + pair_sums(y, y, kernel) / m**2
    return (within - 2 * pair_sums(x, y, kernel) / (n * m)).squeeze()


def energy_distance(x: Float[Tensor, "x feature"], y: Float[Tensor, "y feature"]) -> Float[Tensor, ""]:
    """Unbiased 2 E|X - Y| - E|X - X'| - E|Y - Y'|, in the samples' unit (no square root is taken).

    Source: Szekely and Rizzo 2013, doi:10.1016/j.jspi.2013.03.018.
    """
    return mmd2(x, y, minus_distance)


def energy_distance_biased(x: Float[Tensor, "x feature"], y: Float[Tensor, "y feature"]) -> Float[Tensor, ""]:
    """The energy distance of the two samples as they are: never below 0, 0 only where they are the same."""
    return mmd2_biased(x, y, minus_distance)


# --- whole episodes --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class EpisodePairs:
    """A kernel summed over the pairs of steps of every two episodes; those of x come first, then those of y."""

    sums: Float[Tensor, "episode episode"]
    lengths: Float[Tensor, "episode"]  # steps
    first: int  # episodes of x


def episode_pairs(
    x: Float[Tensor, "x_episode x_time feature"],
    y: Float[Tensor, "y_episode y_time feature"],
    kernel: Kernel,
    x_valid: Bool[Tensor, "x_episode x_time"] | None = None,
    y_valid: Bool[Tensor, "y_episode y_time"] | None = None,
) -> EpisodePairs:
    """What `episode_mmd2` and `episode_test` need, in one pass over all pairs of steps. Steps not `valid` are left out.

    Raises:
        DemosError: where a side has fewer than two episodes: nothing could then be told apart from chance.
    """
    if min(len(x), len(y)) < 2:
        raise DemosError(
            f"x, y: got {len(x)} and {len(y)} episodes. Steps of one episode depend on each other, so two episodes of "
            "each are the least that can be compared."
        )
    x_valid = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device) if x_valid is None else x_valid
    y_valid = torch.ones(y.shape[:2], dtype=torch.bool, device=y.device) if y_valid is None else y_valid
    steps = torch.cat([x[x_valid], y[y_valid]])
    group = torch.cat([x_valid.nonzero()[:, 0], y_valid.nonzero()[:, 0] + len(x)])
    lengths = torch.cat([x_valid.sum(1), y_valid.sum(1)]).double()
    if (lengths == 0).any():
        raise DemosError(f"x, y: episode {int(lengths.argmin())} has no valid step. Leave such episodes out.")
    return EpisodePairs(pair_sums(steps, steps, kernel, group, group), lengths, len(x))


def episode_mmd2(
    pairs: EpisodePairs,
    x_weight: Float[Tensor, "*draw episode"] | None = None,
    y_weight: Float[Tensor, "*draw episode"] | None = None,
) -> Float[Tensor, "*draw"]:
    """Squared MMD from pairs of steps of DIFFERENT episodes, each step weighing the same.

    Unbiased however strongly the steps of an episode depend on each other (`mmd2` on the same steps is not: it
    takes the likeness of neighbouring steps for a difference between the samples).

    Args:
        x_weight, y_weight: how often each episode counts on either side, over all episodes; the plain estimate where
            None. Counts of a bootstrap sample, or a permutation's choice, many at once. An episode never meets itself,
            so a resampled estimate is not pulled up by doubles.
    """
    if x_weight is None or y_weight is None:
        x_weight = (torch.arange(len(pairs.lengths), device=pairs.sums.device) < pairs.first).double()
        y_weight = 1 - x_weight
    own = pairs.sums.diagonal()
    x_steps, y_steps = x_weight * pairs.lengths, y_weight * pairs.lengths

    def within(weight: Tensor, steps: Tensor) -> Tensor:
        sums = ((weight @ pairs.sums) * weight).sum(-1) - (weight.square() * own).sum(-1)
        return sums / (steps.sum(-1).square() - steps.square().sum(-1))

    between = ((x_weight @ pairs.sums) * y_weight).sum(-1) / (x_steps.sum(-1) * y_steps.sum(-1))
    return within(x_weight, x_steps) + within(y_weight, y_steps) - 2 * between


def episode_test(pairs: EpisodePairs, generator: torch.Generator, permutations: int = 999) -> float:
    """p-value of "x and y come from one distribution of episodes": whole episodes are permuted between the sides.

    Permuting single steps would be wrong: they depend on each other, so the p-value is far too small. With few
    episodes only few p-values are possible: 4 against 4 have 70 splits, so none is below 1/70.
    """
    chosen = shuffled_groups(pairs.first, len(pairs.lengths), permutations, generator).double().to(pairs.sums.device)
    return permutation_p(episode_mmd2(pairs).item(), episode_mmd2(pairs, chosen, 1 - chosen))
