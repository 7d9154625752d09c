"""How sure a figure is: interquartile means, bootstrap intervals, probability of improvement, permutation tests.

Every draw comes from the generator that is handed in, so an interval repeats to the last bit.

Source: Agarwal et al. 2021, arXiv:2108.13264 (interquartile mean, stratified bootstrap, probability of improvement).
"""

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from understudy.core.errors import ConfigError

Statistic = Callable[[Tensor], Tensor]  # [*batch, sample] -> [*batch]
Test = TypeVar("Test", bound=Hashable)  # what a test is called by


@dataclass(frozen=True)
class Estimate:
    """A figure, the interval it lies in, and how many independent things (runs, episodes) it was made of.

    The interval is infinite where there are too few of them to say anything, and a point where the figure is exact.
    """

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        """`-39.2 ± 0.4` where the interval lies about evenly round the value, else `0.96 [0.71, 0.99]`."""
        if not math.isfinite(self.high - self.low):
            return f"{self.value:.3g} (n = {self.n})"
        half = (self.high - self.low) / 2
        if half <= 1e-12 * abs(self.value):  # equal figures, but for the last bits of their mean
            return _rounded(self.value, 0.0)
        if abs(self.value - (self.high + self.low) / 2) > 0.2 * half:
            return self.bracketed
        return f"{_rounded(self.value, half)} ± {_rounded(half, half)}"

    @property
    def bracketed(self) -> str:
        """`-39.2 [-39.6, -38.8]`."""
        half = (self.high - self.low) / 2
        return f"{_rounded(self.value, half)} [{_rounded(self.low, half)}, {_rounded(self.high, half)}]"


def _rounded(value: float, half: float) -> str:
    """Two figures of the half width decide how many decimals are worth printing."""
    if half == 0 or not math.isfinite(half):
        return f"{value:.4g}"
    decimals = max(0, 1 - math.floor(math.log10(half)))
    return f"{value:.{decimals}f}" if decimals <= 6 else f"{value:.2e}"


def mean(scores: Float[Tensor, "*batch sample"]) -> Float[Tensor, "*batch"]:
    """The plain mean over the last axis."""
    return scores.mean(-1)


def iqm(scores: Float[Tensor, "*batch sample"]) -> Float[Tensor, "*batch"]:
    """Interquartile mean over the last axis: the mean of what is left when a quarter is cut off at either end.

    Of n samples n // 4 are cut at each end, none weighted by a fraction (`scipy.stats.trim_mean(scores, 0.25)`).
    It moves less than the mean when a single run fails, and wastes less than the median.
    """
    samples = scores.shape[-1]
    cut = samples // 4
    return scores.sort(-1).values[..., cut : samples - cut].mean(-1)


def resample(count: int, repeats: int, generator: torch.Generator) -> Int[Tensor, "repeat count"]:
    """Rows of so many bootstrap samples: `count` indices below `count`, drawn with replacement."""
    return torch.randint(count, (repeats, count), generator=generator, device=generator.device)


def interval(draws: Float[Tensor, "draw"], confidence: float = 0.95) -> tuple[float, float]:
    """The middle `confidence` of bootstrap draws (percentile interval)."""
    if not 0 < confidence < 1:
        raise ConfigError(f"confidence: got {confidence}; it is a probability, for example 0.95.")
    tail = (1 - confidence) / 2
    ends = torch.tensor([tail, 1 - tail], dtype=torch.float64, device=draws.device)
    low, high = torch.quantile(draws.double(), ends).tolist()
    return low, high


def stratified_bootstrap(
    scores: Float[Tensor, "run task"], generator: torch.Generator, statistic: Statistic = mean, repeats: int = 2000
) -> Float[Tensor, "repeat"]:
    """`statistic` of all scores together, once for each bootstrap sample of the runs.

    The runs of each task are resampled apart from those of other tasks (the task is the stratum), so every sample
    holds every task equally often. Episodes of one policy are the case of a single task.
    """
    runs, tasks = scores.shape
    rows = torch.randint(runs, (repeats, runs, tasks), generator=generator, device=generator.device).to(scores.device)
    return statistic(scores.expand(repeats, runs, tasks).gather(1, rows).flatten(1))


def estimate(
    scores: Float[Tensor, "run *task"],
    generator: torch.Generator,
    statistic: Statistic = mean,
    repeats: int = 2000,
    confidence: float = 0.95,
) -> Estimate:
    """`statistic` of the scores with its stratified bootstrap interval.

    Args:
        scores: one number for each run (or episode) and, where there are several, each task. Rows must be independent:
            steps of one episode are not.
        statistic: `mean` or `iqm`, or any function of [*batch, sample] that gives [*batch].
        repeats: bootstrap samples. 2,000 fix the ends of a 95 % interval to about 5 % of its width.
    """
    if len(scores) == 0:
        raise ConfigError("scores: got none; an estimate needs at least one run or episode.")
    table = scores.reshape(len(scores), -1).double()
    value = statistic(table.flatten()).item()
    if len(table) == 1:
        return Estimate(value, -math.inf, math.inf, 1)
    return Estimate(
        value, *interval(stratified_bootstrap(table, generator, statistic, repeats), confidence), len(table)
    )


def over_seeds(values: Sequence[float] | Tensor) -> Estimate:
    """Mean of a few runs that differ in chance alone, with Student's 95 % interval: mean ± t s / sqrt(n).

    Of three to ten values a bootstrap resamples so few that its intervals hold the truth in 67 to 90 % of cases rather
    than 95 (`estimate` is for episodes, of which there are many); this is exact where runs spread normally.
    """
    found = torch.as_tensor(values, dtype=torch.float64)
    if not len(found):
        raise ConfigError("values: got none; a mean over seeds needs at least one run.")
    mean, n = found.mean().item(), len(found)
    if n == 1:
        return Estimate(mean, -math.inf, math.inf, 1)
    half = student(n - 1) * found.std().item() / math.sqrt(n)
    return Estimate(mean, mean - half, mean + half, n)


def student(freedom: int) -> float:
    """The 97.5 % quantile of Student's t. Beyond the table the first term of its expansion, right to 0.001."""
    z = 1.959964
    return _STUDENT[freedom - 1] if freedom <= len(_STUDENT) else z + (z**3 + z) / (4 * freedom)


_STUDENT = (
    12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281,
    2.2010, 2.1788, 2.1604, 2.1448, 2.1314, 2.1199, 2.1098, 2.1009, 2.0930, 2.0860,
    2.0796, 2.0739, 2.0687, 2.0639, 2.0595, 2.0555, 2.0518, 2.0484, 2.0452, 2.0423,
)  # fmt: skip


def t_test(ours: Sequence[float] | Tensor, theirs: Sequence[float] | Tensor) -> float:
    """Two-sided p-value of "both have the same mean", whatever their spreads; 1 where a side has fewer than two runs.

        t = (mean_x - mean_y) / sqrt(v_x + v_y),  v = s^2 / n,  freedom = (v_x + v_y)^2 / sum v^2 / (n - 1)

    Source: Welch 1947, doi:10.1093/biomet/34.1-2.28.
    """
    sides = [torch.as_tensor(side, dtype=torch.float64) for side in (ours, theirs)]
    if min(len(side) for side in sides) < 2:
        return 1.0
    apart = abs(sides[0].mean().item() - sides[1].mean().item())
    spreads = [side.var().item() / len(side) for side in sides]
    if not sum(spreads):
        return 1.0 if apart == 0 else 0.0
    freedom = sum(spreads) ** 2 / sum(v * v / (len(x) - 1) for v, x in zip(spreads, sides, strict=True))
    return _beyond(apart / math.sqrt(sum(spreads)), freedom)


def _beyond(t: float, freedom: float) -> float:
    """P(|T| > t) of Student's t, by its angle: that of T = sqrt(freedom) / tan has the density sin^(freedom - 1)."""
    angle = math.atan2(math.sqrt(freedom), t)
    share = torch.linspace(0, 1, 4001, dtype=torch.float64) ** 4  # close together where the density may be steep
    area = torch.trapezoid((angle * share).sin() ** (freedom - 1), angle * share).item()
    whole = math.exp(math.lgamma(freedom / 2) - math.lgamma((freedom + 1) / 2)) * math.sqrt(math.pi) / 2
    return min(1.0, area / whole)


def holm(p_values: Mapping[Test, float]) -> dict[Test, float]:
    """P-values of several tests made one: below 0.05 with 5 % chance at most for any of those with nothing to find.

    The k-th smallest of n is multiplied by n + 1 - k, and none is below one before it.

    Source: Holm 1979, A simple sequentially rejective multiple test procedure.
    """
    adjusted, most = {}, 0.0
    for k, name in enumerate(sorted(p_values, key=lambda test: p_values[test])):
        most = max(most, min(1.0, (len(p_values) - k) * p_values[name]))
        adjusted[name] = most
    return adjusted


def probability_of_improvement(
    ours: Float[Tensor, "*batch our_run task"], theirs: Float[Tensor, "*batch their_run task"]
) -> Float[Tensor, "*batch"]:
    """P(a run of ours beats a run of theirs), ties counted half, averaged over tasks. At 1/2 neither is better.

        mean over tasks of  1 / (N M) * sum_ij 1{x_i > y_j} + 1/2 * 1{x_i = y_j}

    Source: Agarwal et al. 2021, arXiv:2108.13264, section 4.3 (Mann-Whitney U over N M).
    """
    gap = ours.unsqueeze(-2) - theirs.unsqueeze(-3)  # [*batch, our run, their run, task]
    return ((gap.sign() + 1) / 2).mean((-3, -2, -1))


def improvement(
    ours: Float[Tensor, "our_run task"],
    theirs: Float[Tensor, "their_run task"],
    generator: torch.Generator,
    repeats: int = 2000,
    confidence: float = 0.95,
) -> Estimate:
    """`probability_of_improvement` with its interval; the runs of both sides are resampled within each task."""
    sides = []
    for scores in (ours, theirs):
        runs, tasks = scores.shape
        rows = torch.randint(runs, (repeats, runs, tasks), generator=generator, device=generator.device)
        sides.append(scores.expand(repeats, runs, tasks).gather(1, rows.to(scores.device)))
    value = probability_of_improvement(ours, theirs).item()
    return Estimate(value, *interval(probability_of_improvement(*sides), confidence), min(len(ours), len(theirs)))


def shuffled_groups(first: int, total: int, repeats: int, generator: torch.Generator) -> Bool[Tensor, "repeat total"]:
    """So many random choices of `first` out of `total` things: true for the chosen."""
    order = torch.rand(repeats, total, generator=generator, device=generator.device).argsort(-1)
    return order < first


def permutation_p(observed: float, permuted: Float[Tensor, "permutation"]) -> float:
    """Share of permutations with a statistic at least as large, the observed order counted as one of them.

        p = (1 + #{permuted >= observed}) / (1 + permutations)

    Never 0, and at most as often below any level as the level says. Sums that differ by rounding alone count as
    equal.

    Source: Phipson and Smyth 2010, doi:10.2202/1544-6115.1585.
    """
    as_large = (permuted >= observed - 1e-12 * max(1.0, abs(observed))).sum().item()
    return (1 + int(as_large)) / (1 + len(permuted))


def permutation_test(
    x: Float[Tensor, "x"], y: Float[Tensor, "y"], generator: torch.Generator, permutations: int = 9999
) -> float:
    """Two-sided p-value of "x and y come from one distribution", by the difference of their means.

    Each number must stand for an independent thing: a run or an episode, not a step.
    """
    together = torch.cat([x, y]).double()
    chosen = shuffled_groups(len(x), len(together), permutations, generator).to(together.device)
    ours = chosen.double() @ together
    gaps = ours / len(x) - (together.sum() - ours) / len(y)
    return permutation_p(abs(x.double().mean() - y.double().mean()).item(), gaps.abs())


def paired_test(differences: Float[Tensor, "pair"], generator: torch.Generator, permutations: int = 9999) -> float:
    """Two-sided p-value of "no difference" for pairs that shared their chance, by flipping the sign of each pair.

    Two policies played on the same noise give pairs; that sees far smaller differences than two separate samples.
    """
    d = differences.double()
    signs = torch.randint(2, (permutations, len(d)), generator=generator, device=generator.device).to(d) * 2 - 1
    return permutation_p(abs(d.mean()).item(), (signs @ d / len(d)).abs())
