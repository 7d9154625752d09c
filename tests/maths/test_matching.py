"""Kernels and couplings against what can be written out, and against slow twins."""

import math

import numpy as np
import pytest
import torch

from understudy.core.random import generator
from understudy.maths.divergence import mmd2_biased, rbf
from understudy.maths.matching import closeness, couple, likeness, median_squares, squared_distances


def points(count, who=2, features=3, seed=0):
    return torch.randn(count, who, features, generator=generator(seed), dtype=torch.float64)


def test_distances_and_kernels_are_those_of_each_pair():
    x, y = points(7), points(5, seed=1)
    squares = torch.tensor([[0.5, 2.0], [1.0, 8.0]], dtype=torch.float64)
    apart, alike = squared_distances(x, y), likeness(x, y, squares)
    for w in range(2):
        for i in range(7):
            for j in range(5):
                d = float(((x[i, w] - y[j, w]) ** 2).sum())
                assert apart[w, i, j].item() == pytest.approx(d, abs=1e-12)
                mean = sum(math.exp(-d / float(s)) for s in squares[w]) / 2
                assert alike[w, i, j].item() == pytest.approx(mean, abs=1e-12)


def test_what_is_dense_is_close_in_blocks_of_any_size():
    x, y = points(9), points(6, seed=1)
    weight = torch.rand(6, 2, generator=generator(2), dtype=torch.float64)
    squares = torch.full((2, 2), 3.0, dtype=torch.float64)
    slow = (likeness(x, y, squares) * weight.T.unsqueeze(1)).sum(-1).T
    for block in (2, 9, 100):
        torch.testing.assert_close(closeness(x, y, weight, squares, block), slow, atol=1e-12, rtol=0)


def test_the_mean_of_the_witness_there_less_here_is_the_mmd():
    x, y, square = points(30, who=1), points(20, who=1, seed=1) + 0.5, 4.0
    squares = torch.full((1, 2), square, dtype=torch.float64)
    even = [torch.full((n, 1), 1 / n, dtype=torch.float64) for n in (30, 20)]

    def witness(at):
        return closeness(at, x, even[0], squares) - closeness(at, y, even[1], squares)

    found = (witness(x).mean() - witness(y).mean()).item()
    assert found == pytest.approx(mmd2_biased(x[:, 0], y[:, 0], rbf(math.sqrt(square / 2))).item(), abs=1e-12)


def test_widths_are_medians_of_squared_distances():
    x, y = points(40), points(30, seed=1) * 3
    found = median_squares(x, y)
    for w in range(2):
        cross = np.square(x[:, w, None].numpy() - y[None, :, w].numpy()).sum(-1)
        own = np.square(x[:, w, None].numpy() - x[None, :, w].numpy()).sum(-1)[np.triu_indices(40, 1)]
        for got, all_of in ((found[w, 0], cross.ravel()), (found[w, 1], own)):
            assert got.item() == pytest.approx(np.sort(all_of)[(len(all_of) - 1) // 2], rel=1e-9)
    assert (median_squares(torch.zeros(3, 1, 2), torch.zeros(3, 1, 2)) == 1).all()


def test_a_step_is_carried_to_the_nearest_places_that_are_free():
    """Loads of 1/2 to places of 1/4 at 0, 1, 2 and 10: to 0 and 1; what is left are 2 and 10."""
    places = torch.full((1, 4), 0.25)
    far = torch.tensor([[0.0, 1.0, 2.0, 10.0]])
    first, left = couple(places, 0.5, far)
    second, none = couple(left, 0.5, far)
    assert first.item() == pytest.approx(0.25) and second.item() == pytest.approx(0.25 * 2 + 0.25 * 10)
    assert left.tolist() == [[0, 0, 0.25, 0.25]] and none.sum() == 0
    assert couple(none, 0.5, far)[0].item() == math.inf, "there is no place left"
    assert places.sum() == 1, "what was handed in stays as it was"


def twin(left, mass, far):
    """One row at a time."""
    left, cost = left.copy(), 0.0
    for j in np.argsort(far, kind="stable"):
        moved = min(mass, left[j])
        cost, mass, left[j] = cost + moved * far[j], mass - moved, left[j] - moved
    return (cost if mass < 1e-9 else math.inf), left


@pytest.mark.parametrize("steps", [3, 8, 50])
def test_couplings_are_those_of_a_slow_twin_and_cost_at_least_the_wasserstein_distance(steps):
    places, source = 20, generator(5)
    at = torch.randn(places, dtype=torch.float64, generator=source)
    left = torch.full((6, places), 1 / places, dtype=torch.float64)
    mine, total = left.clone().numpy(), np.zeros(6)
    played = torch.randn(6, steps, dtype=torch.float64, generator=source)
    costs = torch.zeros(6, dtype=torch.float64)
    for t in range(steps):
        far = (played[:, t : t + 1] - at).abs()
        cost, left = couple(left, 1 / steps, far)
        costs += cost
        for row in range(6):
            slow, mine[row] = twin(mine[row], 1 / steps, far[row].numpy())
            assert cost[row].item() == pytest.approx(slow, abs=1e-6)
            total[row] += slow
    from understudy.maths.divergence import wasserstein

    for row in range(6):
        assert costs[row].item() >= wasserstein(played[row], at).item() - 1e-6
