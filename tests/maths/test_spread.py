"""Chance that is shared out: each series as random as ever, all of them better spread."""

import math

import pytest
import torch

from understudy.core.random import generator, uniform
from understudy.maths.heads import standard_normal
from understudy.maths.spread import shared_out

PASTS, SAMPLES, FRAMES = 3_000, 20, 6


@pytest.fixture(scope="module")
def noise():
    return uniform((PASTS, SAMPLES, FRAMES, 1, 2), generator(0), torch.float64)


@pytest.fixture(scope="module")
def shared(noise):
    return shared_out(noise, generator(1))


def test_each_series_by_itself_is_uniform_and_independent_from_frame_to_frame(shared):
    one = shared[:, 3, :, 0].flatten(1)  # [past, frame * draw]
    assert shared.min() >= 0 and shared.max() < 1
    share = torch.arange(1, 10, dtype=torch.float64) / 10
    found = (one.unsqueeze(-1) < share).double().mean(dim=0)  # the cumulative distribution at nine places
    assert (found - share).abs().max() < 5 * math.sqrt(0.25 / PASTS)
    correlation = torch.corrcoef(standard_normal(one).T) - torch.eye(one.shape[1])
    assert correlation.abs().max() < 5 / math.sqrt(PASTS)
    squares = torch.corrcoef(standard_normal(one).square().T) - torch.eye(one.shape[1])
    assert squares.abs().max() < 5 / math.sqrt(PASTS)


def _walked(noise):
    """Where one is whose changes of step are these normal numbers."""
    return standard_normal(noise)[:, :, :, 0].cumsum(dim=2).cumsum(dim=2)[:, :, -1]


def test_the_nearest_of_shared_ends_is_a_sixth_nearer_than_that_of_independent_ones(noise, shared):
    came = _walked(uniform((PASTS, 1, FRAMES, 1, 2), generator(2), torch.float64))
    nearest = [(_walked(x) - came).norm(dim=-1).amin(dim=1).mean().item() for x in (noise, shared)]
    assert nearest[1] < nearest[0] * 5 / 6


def test_pasts_and_agents_are_shared_out_apart_from_each_other():
    noise = uniform((400, 8, 4, 2, 2), generator(3), torch.float64)
    z = standard_normal(shared_out(noise, generator(4)))
    across = (z[:, :, :, 0] * z[:, :, :, 1]).mean()
    assert across.abs() < 5 / math.sqrt(z[:, :, :, 0].numel())
    assert torch.equal(shared_out(noise[:, :1], generator(4)), noise[:, :1])  # one sample has nothing to share
