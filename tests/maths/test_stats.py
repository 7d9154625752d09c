"""Interval and test machinery: exact small cases, NumPy twins, the peer where it can be imported, and coverage."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.stats import kstest, mannwhitneyu, sem, trim_mean, ttest_ind
from scipy.stats import t as student_t

from understudy.core.errors import ConfigError
from understudy.core.random import generator
from understudy.maths.stats import (
    Estimate,
    estimate,
    holm,
    improvement,
    interval,
    iqm,
    over_seeds,
    paired_test,
    permutation_test,
    probability_of_improvement,
    stratified_bootstrap,
    t_test,
)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=generator(seed, "test"), dtype=torch.float64)


def test_the_interquartile_mean_drops_a_quarter_at_each_end():
    assert iqm(torch.tensor([-100.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 900.0])).item() == 3.5
    assert iqm(torch.tensor([7.0, 9.0])).item() == 8.0  # too few to cut any


@pytest.mark.parametrize("samples", [1, 3, 4, 10, 47, 100])
def test_the_interquartile_mean_is_scipys_trimmed_mean(samples):
    scores = normal(5, samples)
    np.testing.assert_allclose(iqm(scores), trim_mean(scores.numpy(), 0.25, axis=-1), atol=1e-12)


def test_the_bootstrap_resamples_within_tasks_only():
    scores = torch.tensor([[0.0, 100.0], [1.0, 200.0], [2.0, 300.0]])
    draws = stratified_bootstrap(scores, generator(0), lambda x: x.sort(-1).values[..., 2:4].sum(-1), repeats=500)
    # Three of the six come from each task, so the third and fourth smallest are one of either: 0..2 plus 100..300.
    assert {round(d) for d in draws.tolist()} <= {a + b for a in (0, 1, 2) for b in (100, 200, 300)}
    assert draws.unique().numel() > 5


def test_the_bootstraps_spread_of_a_mean_is_the_standard_error():
    scores = normal(200, 1)
    draws = stratified_bootstrap(scores, generator(1), repeats=20_000)
    error = scores.std(correction=0).item() / math.sqrt(200)
    assert draws.std().item() == pytest.approx(error, rel=5 / math.sqrt(2 * 20_000))
    assert draws.mean().item() == pytest.approx(scores.mean().item(), abs=5 * error / math.sqrt(20_000))


def test_95_percent_intervals_cover_the_truth_about_95_times_in_100():
    covered = 0
    for seed in range(300):
        found = estimate(normal(40, seed=seed), generator(seed, "bootstrap"), repeats=500)
        covered += found.low <= 0 <= found.high
    # Binomial(300, 0.94): the percentile interval of 40 samples is slightly narrow. Five standard errors are 0.07.
    assert 0.87 < covered / 300 < 1.0


def test_intervals_repeat_with_their_generator():
    scores = normal(30, 4)
    assert estimate(scores, generator(3), iqm) == estimate(scores, generator(3), iqm)
    assert estimate(scores, generator(3), iqm) != estimate(scores, generator(4), iqm)


def test_probability_of_improvement_counts_wins_and_half_of_ties():
    ours, theirs = torch.tensor([[1.0], [2.0]]), torch.tensor([[0.0], [2.0], [3.0]])
    assert probability_of_improvement(ours, theirs).item() == pytest.approx((1 + 0 + 0 + 1 + 0.5 + 0) / 6)
    assert probability_of_improvement(theirs, ours).item() == pytest.approx(1 - 2.5 / 6)


def test_probability_of_improvement_is_mann_whitneys_u_per_task():
    ours, theirs = normal(9, 3, seed=1).mul(3).round(), normal(12, 3, seed=2).mul(3).round()
    u = [mannwhitneyu(ours[:, t].numpy(), theirs[:, t].numpy()).statistic / (9 * 12) for t in range(3)]
    assert probability_of_improvement(ours, theirs).item() == pytest.approx(np.mean(u), abs=1e-12)
    found = improvement(ours + 0.5, theirs, generator(0))
    assert found.low < found.value < found.high and found.n == 9


@pytest.fixture(scope="session")
def rliable():
    try:
        from rliable import library, metrics
    except (ImportError, TypeError) as error:  # its dependency `arch` calls an older pandas
        pytest.skip(f"rliable cannot be imported here: {error}")
    return library, metrics


def test_point_estimates_and_intervals_agree_with_rliable(rliable):
    library, metrics = rliable
    ours, theirs = normal(10, 4, seed=3), normal(8, 4, seed=4)
    assert iqm(ours.flatten()).item() == pytest.approx(metrics.aggregate_iqm(ours.numpy()), abs=1e-12)
    probability = metrics.probability_of_improvement(ours.numpy(), theirs.numpy())
    assert probability_of_improvement(ours, theirs).item() == pytest.approx(probability, abs=1e-12)
    scores = {"ours": ours.numpy()}
    _, ends = library.get_interval_estimates(scores, lambda x: np.array([metrics.aggregate_iqm(x)]), reps=4000)
    found = estimate(ours, generator(0), iqm, repeats=4000)
    width = found.high - found.low
    assert found.low == pytest.approx(ends["ours"][0, 0], abs=0.1 * width)
    assert found.high == pytest.approx(ends["ours"][1, 0], abs=0.1 * width)


def test_a_stratified_bootstrap_written_again_in_numpy_gives_the_same_interval():
    scores, chance = normal(10, 4, seed=3), np.random.default_rng(0)
    rows = chance.integers(10, size=(8000, 10, 4))
    again = np.take_along_axis(np.broadcast_to(scores.numpy(), rows.shape), rows, axis=1).reshape(8000, -1)
    ends = np.percentile(trim_mean(again, 0.25, axis=1), [2.5, 97.5])
    found = estimate(scores, generator(0), iqm, repeats=8000)
    # An end of a 95 % interval has a standard error near 0.009 widths at 8,000 draws; two of them, five times.
    np.testing.assert_allclose([found.low, found.high], ends, atol=0.07 * (found.high - found.low))


def test_the_permutation_test_is_close_to_all_permutations_of_a_small_case():
    x, y = torch.tensor([1.0, 4.0, 6.0]).double(), torch.tensor([0.0, 2.0, 3.0, 3.5]).double()
    together = torch.cat([x, y]).numpy()
    observed = abs(x.mean().item() - y.mean().item())
    splits = [set(s) for s in itertools.combinations(range(7), 3)]
    gaps = [abs(together[list(s)].mean() - together[list(set(range(7)) - s)].mean()) for s in splits]
    exact = np.mean(np.array(gaps) >= observed - 1e-9)
    found = permutation_test(x, y, generator(0), permutations=20_000)
    assert found == pytest.approx(exact, abs=5 * math.sqrt(exact * (1 - exact) / 20_000))


def test_p_values_are_uniform_where_there_is_no_difference_and_small_where_there_is():
    none = [permutation_test(normal(8, seed=2 * s), normal(8, seed=2 * s + 1), generator(s), 199) for s in range(200)]
    assert kstest(none, "uniform").pvalue > 0.001
    assert permutation_test(normal(20), normal(20, seed=1) + 3, generator(0), 999) == 1 / 1000


def test_pairs_that_share_their_chance_show_a_difference_that_separate_samples_hide():
    chance = 10 * normal(30)
    ours, theirs = chance + 0.5 + 0.1 * normal(30, seed=1), chance
    assert permutation_test(ours, theirs, generator(0), 999) > 0.3
    assert paired_test(ours - theirs, generator(0), 999) == 1 / 1000


def test_the_sign_flips_of_three_equal_differences_reach_a_quarter_and_no_less():
    found = paired_test(torch.ones(3), generator(0), permutations=20_000)  # 2 of the 8 sign patterns are as large
    assert found == pytest.approx(0.25, abs=5 * math.sqrt(0.25 * 0.75 / 20_000))


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (Estimate(-39.2137, -39.61, -38.79, 100), "-39.21 ± 0.41"),
        (Estimate(1234.56, 1200.0, 1270.0, 9), "1235 ± 35"),
        (Estimate(0.96, 0.71, 0.99, 9), "0.96 [0.71, 0.99]"),
        (Estimate(2.0, 2.0, 2.0, 9), "2"),
        (Estimate(0.5, -math.inf, math.inf, 1), "0.5 (n = 1)"),
        (Estimate(0.0000003, 0.0000001, 0.0000005, 9), "3.00e-07 ± 2.00e-07"),
        (Estimate(0.156, 0.156 - 3e-17, 0.156 + 3e-17, 2), "0.156"),
    ],
)
def test_an_estimate_prints_as_many_figures_as_its_interval_bears_out(found, said):
    assert str(found) == said


def test_one_run_has_no_interval_and_none_is_refused():
    assert estimate(torch.tensor([3.0]), generator(0)) == Estimate(3.0, -math.inf, math.inf, 1)
    with pytest.raises(ConfigError, match="at least one run"):
        estimate(torch.zeros(0), generator(0))
    with pytest.raises(ConfigError, match="confidence: got 95"):
        interval(torch.zeros(3), confidence=95.0)


@pytest.mark.parametrize("runs", [2, 3, 5, 30, 40, 200])
def test_the_interval_over_seeds_is_students(runs):
    values = np.random.default_rng(runs).normal(size=runs)
    low, high = student_t.interval(0.95, runs - 1, values.mean(), sem(values))
    found = over_seeds(values.tolist())
    assert found.high - found.low == pytest.approx(high - low, rel=1e-3) and found.n == runs
    assert found.value == pytest.approx((low + high) / 2)


def test_one_seed_says_nothing_of_others():
    assert over_seeds([3.0]) == Estimate(3.0, -math.inf, math.inf, 1)


# ---- several comparisons


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("n", "m"), [(2, 2), (3, 3), (3, 8), (40, 25)])
def test_the_test_of_two_means_is_scipys_welch(n, m, seed):
    source = generator(seed)
    x, y = torch.randn(n, generator=source).double(), 2 * torch.randn(m, generator=source).double() + 1.5
    meant = ttest_ind(x.numpy(), y.numpy(), equal_var=False).pvalue
    assert t_test(x, y) == pytest.approx(meant, rel=1e-4)


def test_means_without_spread_are_the_same_or_not_and_one_run_says_nothing():
    assert t_test([1.0, 1.0], [1.0, 1.0]) == 1
    assert t_test([1.0, 1.0], [2.0, 2.0]) == 0
    assert t_test([1.0], [2.0, 2.1]) == 1
    assert t_test([0.0, 2.0], [0.0, 2.0]) == pytest.approx(1)  # Student's t at 0


def test_holms_correction_of_a_case_by_hand():
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03}) == pytest.approx({"a": 0.03, "c": 0.06, "b": 0.06})
    assert holm({"a": 0.5, "b": 0.9}) == {"a": 1.0, "b": 1.0} and holm({}) == {}


def test_of_many_comparisons_of_the_same_one_in_twenty_families_finds_anything():
    source, found = generator(0), 0
    for _ in range(400):
        sides = torch.randn(4, 5, generator=source).double()
        pairs = {(i, j): t_test(sides[i], sides[j]) for i in range(4) for j in range(i)}
        found += min(holm(pairs).values()) < 0.05
    assert found / 400 < 0.05 + 3 * math.sqrt(0.05 * 0.95 / 400)
