"""Distances with answers on paper (Gaussians, matrix games), their float64 twins in NumPy, and calibrated tests."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import ndtr
from scipy.stats import kstest, wasserstein_distance

from understudy.core.errors import DemosError
from understudy.core.random import generator
from understudy.maths.divergence import (
    energy_distance,
    energy_distance_biased,
    entropy_of_counts,
    episode_mmd2,
    episode_pairs,
    episode_test,
    histogram,
    histogram_js,
    js,
    kept_rows,
    kl,
    median_distance,
    minus_distance,
    mmd2,
    mmd2_biased,
    pair_sums,
    rbf,
    rbf_of,
    sliced_wasserstein,
    total_correlation,
    total_correlation_gaussian,
    wasserstein,
)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=generator(seed, "test"), dtype=torch.float64)


# --- probabilities ---


def cells(mean: float, deviation: float) -> torch.Tensor:
    """What N(mean, deviation^2) puts into 20,000 narrow bins over [-12, 14]."""
    z = (np.linspace(-12, 14, 20_001) - mean) / deviation
    return torch.from_numpy(np.where(z[1:] < 0, np.diff(ndtr(z)), -np.diff(ndtr(-z))))  # exact in both tails


def test_kl_of_finely_cut_gaussians_is_the_closed_form():
    p, q = cells(0, 1), cells(1, 2)
    assert kl(p, q).item() == pytest.approx(math.log(2) + 2 / 8 - 0.5, abs=1e-5) == pytest.approx(0.443147, abs=1e-5)
    reverse = pytest.approx(-math.log(2) + 5 / 2 - 0.5, abs=1e-5)
    assert kl(q, p).item() == reverse == pytest.approx(1.306853, abs=1e-5)


def test_kl_is_infinite_and_js_is_log_2_where_nothing_is_shared():
    p, q = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    assert kl(p, q).item() == math.inf
    assert js(p, q).item() == pytest.approx(math.log(2))
    assert js(p, p).item() == 0 and kl(p, p).item() == 0


@pytest.mark.parametrize(("conventions", "expected"), [(2, 0.215762), (3, 0.318257), (4, 0.380396)])
def test_js_of_a_convention_and_the_product_of_its_marginals(conventions, expected):
    together = torch.eye(conventions, dtype=torch.float64) / conventions
    apart = torch.full_like(together, 1 / conventions**2)
    assert js(together.flatten(), apart.flatten()).item() == pytest.approx(expected, abs=1e-6)
    assert total_correlation(together).item() == pytest.approx(math.log(conventions))
    assert kl(together.flatten(), apart.flatten()).item() == pytest.approx(math.log(conventions))
    assert total_correlation(apart).item() == pytest.approx(0, abs=1e-12)


def test_total_correlation_of_three_agents_that_agree_counts_twice():
    joint = torch.zeros(2, 2, 2)
    joint[0, 0, 0] = joint[1, 1, 1] = 0.5
    assert total_correlation(joint).item() == pytest.approx(2 * math.log(2))


def counts_of_pairs(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    return torch.bincount(3 * one + other, minlength=9).double().reshape(3, 3)


def test_entropies_of_counts_do_not_take_scarcity_for_agreement():
    source = generator(0, "choices")
    few = []
    for _ in range(200):
        table = counts_of_pairs(torch.randint(3, (60,), generator=source), torch.randint(3, (60,), generator=source))
        few.append(
            entropy_of_counts(table.sum(0)) + entropy_of_counts(table.sum(1)) - entropy_of_counts(table.flatten())
        )
    found = torch.stack(few)
    # The plain estimate is off by (9 - 1 - 2 * 2) / (2 * 60) = 0.033.
    assert abs(found.mean().item()) < 5 * found.std().item() / math.sqrt(200) < 0.02
    one = torch.arange(3).repeat(2000)
    agreed = counts_of_pairs(one, one)
    total = 2 * entropy_of_counts(agreed.sum(0)) - entropy_of_counts(agreed.flatten())
    assert total.item() == pytest.approx(math.log(3), abs=2e-3)


def test_total_correlation_of_gaussians_is_the_closed_form_whatever_the_units():
    covariance = torch.tensor([[1.0, 0.6], [0.6, 1.0]], dtype=torch.float64)
    assert total_correlation_gaussian(covariance, 2).item() == pytest.approx(-0.5 * math.log(1 - 0.36))
    mix = normal(4, 4)
    covariance, units = mix @ mix.T, torch.block_diag(normal(2, 2, seed=1), normal(2, 2, seed=2))
    scaled = units @ covariance @ units.T
    both = total_correlation_gaussian(torch.stack([covariance, scaled]), agents=2)
    torch.testing.assert_close(both[0], both[1])
    assert both[0] > 0


# --- one number at a time ---


def test_a_histogram_counts_what_numpy_counts_and_keeps_what_lies_outside():
    values, edges = normal(500), torch.linspace(-1, 1, 11, dtype=torch.float64)
    shares = histogram(values, edges)
    inside = np.histogram(values.numpy(), edges.numpy())[0]
    np.testing.assert_allclose(shares[1:-1] * 500, inside[1:-1])
    assert shares.sum().item() == pytest.approx(1)
    assert shares[0].item() * 500 == pytest.approx((values < -0.8).sum().item())


def test_histogram_js_is_0_for_the_same_log_2_for_the_distant_and_between_for_the_rest():
    x = normal(2000)
    assert histogram_js(x, x).item() == 0
    assert histogram_js(x, x + 100).item() == pytest.approx(math.log(2))
    assert histogram_js(x, x.new_full((5,), 0.3)).item() < math.log(2)
    assert histogram_js(torch.ones(3), torch.ones(4)).item() == 0


@given(st.integers(1, 30), st.integers(1, 30), st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_w1_of_samples_of_any_sizes_is_scipys(n, m, seed):
    x, y = normal(n, seed=seed), normal(m, seed=seed + 1) + 0.3
    assert wasserstein(x, y).item() == pytest.approx(wasserstein_distance(x.numpy(), y.numpy()), abs=1e-10)


def test_w2_of_gaussians_is_the_closed_form():
    quantiles = torch.special.ndtri((torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000)
    assert wasserstein(quantiles, 1 + 2 * quantiles, order=2).item() ** 2 == pytest.approx(2, abs=1e-3)
    assert wasserstein(normal(50_000), 1 + 2 * normal(40_000, seed=1), order=2).item() ** 2 == pytest.approx(2, abs=0.1)


# --- samples of vectors ---


def absolute_mean(mean: float, variance: float) -> float:
    """E|N(mean, variance)|."""
    s = math.sqrt(variance)
    return s * math.sqrt(2 / math.pi) * math.exp(-(mean**2) / (2 * variance)) + mean * (1 - 2 * ndtr(-mean / s))


def gaussian_energy(mean: float, x_variance: float, y_variance: float) -> float:
    return (
        2 * absolute_mean(mean, x_variance + y_variance)
        - absolute_mean(0, 2 * x_variance)
        - absolute_mean(0, 2 * y_variance)
    )


def gaussian_mmd2(mean: float, x_variance: float, y_variance: float, scale: float = 1) -> float:
    def expected(gap: float, variance: float) -> float:
        wide = scale**2 + variance
        return math.sqrt(scale**2 / wide) * math.exp(-(gap**2) / (2 * wide))

    return expected(0, 2 * x_variance) + expected(0, 2 * y_variance) - 2 * expected(mean, x_variance + y_variance)


def test_the_closed_forms_of_gaussians_have_the_published_values():
    assert gaussian_energy(1, 1, 4) == pytest.approx(0.534105, abs=1e-6)
    assert gaussian_mmd2(1, 1, 4) == pytest.approx(0.159470, abs=1e-6)
    assert gaussian_mmd2(1, 1, 1) == pytest.approx(0.177268, abs=1e-6)


@pytest.mark.parametrize(("mean", "deviation"), [(1.0, 2.0), (1.0, 1.0), (0.0, 1.0)])
def test_unbiased_estimates_average_to_the_closed_form(mean, deviation):
    energies, mmds = [], []
    for seed in range(200):  # many small samples: a bias of order 1 / n would show
        x, y = normal(30, 1, seed=2 * seed), mean + deviation * normal(40, 1, seed=2 * seed + 1)
        energies.append(energy_distance(x, y).item())
        mmds.append(mmd2(x, y, rbf(1.0)).item())
    for draws, exact in (
        (energies, gaussian_energy(mean, 1, deviation**2)),
        (mmds, gaussian_mmd2(mean, 1, deviation**2)),
    ):
        error = np.std(draws) / math.sqrt(len(draws))
        assert np.mean(draws) == pytest.approx(exact, abs=5 * error)
        assert error < 0.03


def test_estimates_converge_to_the_closed_form():
    x, y = normal(4000, 1), 1 + 2 * normal(4000, 1, seed=1)
    assert energy_distance(x, y).item() == pytest.approx(0.534105, abs=0.06)
    assert mmd2(x, y, rbf(1.0)).item() == pytest.approx(0.159470, abs=0.015)


def test_the_biased_estimate_is_above_the_unbiased_one_by_what_the_diagonal_adds():
    bias = []
    for seed in range(100):
        x, y = normal(30, 2, seed=2 * seed), normal(30, 2, seed=2 * seed + 1)
        biased = mmd2_biased(x, y, rbf(1.0)).item()
        assert biased > 0
        bias.append(biased - mmd2(x, y, rbf(1.0)).item())
    assert np.mean(bias) == pytest.approx((1 - 1 / 3) * 2 / 30, rel=0.02)  # E k = (l^2 / (l^2 + 2))^(2/2) = 1/3
    assert energy_distance_biased(x, x).item() == pytest.approx(0, abs=1e-12)


@given(st.integers(2, 25), st.integers(2, 25), st.integers(1, 6), st.integers(0, 1000))
@settings(max_examples=25, deadline=None)
def test_kernel_distances_equal_their_numpy_twins(n, m, features, seed):
    x, y = normal(n, features, seed=seed), normal(m, features, seed=seed + 1) * 1.5 + 0.2
    a, b = x.numpy(), y.numpy()

    def twin(kernel) -> float:
        xx, yy, xy = (kernel(np.linalg.norm(p[:, None] - q[None], axis=-1)) for p, q in ((a, a), (b, b), (a, b)))
        within = (xx.sum() - np.trace(xx)) / (n * (n - 1)) + (yy.sum() - np.trace(yy)) / (m * (m - 1))
        return within - 2 * xy.mean()

    def mixture(d):
        return (np.exp(-(d**2) / 2 / 0.5**2) + np.exp(-(d**2) / 2 / 2.0**2)) / 2

    assert energy_distance(x, y).item() == pytest.approx(twin(lambda d: -d), abs=1e-10)
    assert mmd2(x, y, rbf(0.5, 2.0)).item() == pytest.approx(twin(mixture), abs=1e-10)


def test_sliced_distance_of_two_points_and_of_shifted_clouds():
    shift = torch.tensor([3.0, 0.0, 4.0], dtype=torch.float64)
    x = normal(300, 3)
    found = sliced_wasserstein(x, x + shift, generator(0), directions=4000)
    # cos^2 of a random direction has mean 1/3 and variance 4/45: five standard errors of the mean of 4,000.
    assert found.item() ** 2 == pytest.approx(25 / 3, abs=25 * 5 * math.sqrt(4 / 45 / 4000))
    assert sliced_wasserstein(x, x[torch.randperm(300, generator=generator(1))], generator(0)).item() < 1e-12


def test_a_sliced_distance_equals_its_numpy_twin():
    x, y = normal(20, 3), normal(20, 3, seed=1) + 1
    axes = torch.randn(3, 16, generator=generator(5)).double().numpy()
    axes /= np.linalg.norm(axes, axis=0)
    gaps = np.sort(x.numpy() @ axes, axis=0) - np.sort(y.numpy() @ axes, axis=0)
    found = sliced_wasserstein(x, y, generator(5), directions=16).item()
    assert found == pytest.approx(math.sqrt((gaps**2).mean()), abs=1e-10)


def test_a_rotation_of_both_changes_no_distance():
    x, y = normal(40, 3), normal(50, 3, seed=1) + 0.5
    turn = torch.linalg.qr(normal(3, 3, seed=2))[0]
    torch.testing.assert_close(energy_distance(x @ turn, y @ turn), energy_distance(x, y))
    torch.testing.assert_close(mmd2(x @ turn, y @ turn, rbf(1.0)), mmd2(x, y, rbf(1.0)))


def test_the_median_distance_of_gaussians_and_of_what_does_not_vary():
    # |X - Y|^2 / 2 is chi-squared with 2 degrees: the median of |X - Y| is sqrt(2 * 2 log 2).
    assert median_distance(normal(500, 2), normal(500, 2, seed=1)) == pytest.approx(
        2 * math.sqrt(math.log(2)), abs=0.05
    )
    assert median_distance(torch.zeros(5, 2), torch.zeros(5, 2)) == 1


def test_the_stated_number_of_rows_is_kept_and_always_the_same():
    kept = kept_rows(1000, 100)
    assert kept.shape == (100,) and (kept.diff() > 0).all() and kept.min() >= 0 and kept.max() < 1000
    assert torch.equal(kept, kept_rows(1000, 100)) and torch.equal(kept_rows(7, 100), torch.arange(7))


def test_blocks_do_not_change_a_sum_of_pairs():
    x, y = normal(37, 3), normal(23, 3, seed=1)
    x_group, y_group = torch.arange(37) // 8, torch.arange(23) % 4
    whole = pair_sums(x, y, minus_distance, x_group, y_group)
    torch.testing.assert_close(pair_sums(x, y, minus_distance, x_group, y_group, block=50), whole)
    torch.testing.assert_close(whole.sum(), -torch.cdist(x, y).sum())
    torch.testing.assert_close(whole[2, 1], -torch.cdist(x[16:24], y[1::4]).sum())


class Peak:
    """A kernel that remembers the largest block it saw."""

    def __init__(self) -> None:
        self.most = 0

    def __call__(self, distance: torch.Tensor) -> torch.Tensor:
        self.most = max(self.most, distance.numel())
        return -distance


def test_many_rows_against_many_are_summed_in_blocks():
    kernel, x = Peak(), normal(20_000, 1).float()
    pair_sums(x, x[:10_000], kernel)
    assert 2**20 < kernel.most <= 2**21


# --- whole episodes ---


def wandering(episodes: int, steps: int, seed: int, memory: float = 0.95) -> torch.Tensor:
    """Stationary AR(1): neighbouring steps are alike, episodes are independent. [episode, time, 1]"""
    noise = normal(episodes, steps, 1, seed=seed)
    values = [noise[:, 0]]
    for t in range(1, steps):
        values.append(memory * values[-1] + math.sqrt(1 - memory**2) * noise[:, t])
    return torch.stack(values, 1)


def test_sums_over_episodes_leave_padding_out_and_split_the_whole():
    x, y = normal(3, 5, 2), normal(4, 6, 2, seed=1)
    x_valid = torch.arange(5) < torch.tensor([[5], [2], [4]])
    pairs = episode_pairs(x, y, minus_distance, x_valid)
    assert pairs.lengths.tolist() == [5, 2, 4, 6, 6, 6, 6] and pairs.first == 3
    garbage = torch.where(x_valid.unsqueeze(-1), x, 1e6)
    torch.testing.assert_close(episode_pairs(garbage, y, minus_distance, x_valid).sums, pairs.sums)
    torch.testing.assert_close(pairs.sums[1, 4], -torch.cdist(x[1, :2], y[1]).sum())


def test_episodes_of_one_step_give_the_unbiased_estimate():
    x, y = normal(12, 1, 3), normal(15, 1, 3, seed=1)
    found = episode_mmd2(episode_pairs(x, y, minus_distance))
    torch.testing.assert_close(found, energy_distance(x[:, 0], y[:, 0]))


def test_only_pairs_of_different_episodes_are_unbiased_when_steps_depend_on_each_other():
    by_episode, by_step = [], []
    for seed in range(150):
        x, y = wandering(8, 30, 2 * seed), wandering(8, 30, 2 * seed + 1)
        by_episode.append(episode_mmd2(episode_pairs(x, y, minus_distance)).item())
        by_step.append(energy_distance(x.flatten(0, 1), y.flatten(0, 1)).item())
    error = np.std(by_episode) / math.sqrt(150)
    assert abs(np.mean(by_episode)) < 4 * error
    assert np.mean(by_step) > 10 * error


def test_p_values_by_episode_are_uniform_and_those_by_step_are_not():
    by_episode, by_step = [], []
    for seed in range(150):
        x, y = wandering(8, 25, 2 * seed), wandering(8, 25, 2 * seed + 1)
        by_episode.append(episode_test(episode_pairs(x, y, minus_distance), generator(seed), 199))
        steps = episode_pairs(x.flatten(0, 1).unsqueeze(1), y.flatten(0, 1).unsqueeze(1), minus_distance)
        by_step.append(episode_test(steps, generator(seed), 199))
    assert kstest(by_episode, "uniform").pvalue > 0.01
    assert kstest(by_step, "uniform").pvalue < 1e-6
    assert np.mean(np.array(by_step) <= 0.05) > 0.5  # a level of 5 % that errs most of the time


def test_the_test_finds_a_difference_that_marginals_cannot_show():
    angle = 6.28 * torch.rand(60, 1, generator=generator(0)).double()
    x = torch.cat([angle.cos(), angle.cos()], 1).unsqueeze(1)  # two agents that move together ...
    y = torch.cat([angle.cos(), angle.cos().roll(7, 0)], 1).unsqueeze(1)  # ... and two that do not
    assert episode_test(episode_pairs(x, y, rbf_of(x[:, 0], y[:, 0])), generator(1), 199) <= 0.01
    alone = episode_pairs(x[..., 1:], y[..., 1:], rbf(0.5))
    assert episode_test(alone, generator(1), 199) > 0.5


def test_a_side_with_one_episode_or_an_empty_one_is_refused():
    with pytest.raises(DemosError, match="1 and 3 episodes"):
        episode_pairs(normal(1, 5, 2), normal(3, 5, 2), minus_distance)
    valid = torch.ones(3, 5, dtype=torch.bool)
    valid[1] = False
    with pytest.raises(DemosError, match="episode 1 has no valid step"):
        episode_pairs(normal(3, 5, 2), normal(3, 5, 2), minus_distance, valid)
    with pytest.raises(DemosError, match="two of each"):
        mmd2(normal(1, 2), normal(5, 2), rbf(1.0))
