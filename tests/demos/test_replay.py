"""Play that is kept, and recordings thinned out: nothing is moved to where it did not happen."""

from dataclasses import replace

import pytest
import torch

from tests.demos.common import demos
from understudy.core.errors import DemosError
from understudy.core.random import generator
from understudy.core.tree import tree_leaves
from understudy.core.types import Segment, View
from understudy.demos.replay import Replay, batch_of
from understudy.demos.subsample import subsampled


def played(first, rows=2, steps=3):
    """obs[row, t] = action = a number of its own, counted from `first`."""
    numbers = first + torch.arange(rows * steps).reshape(rows, steps, 1)
    ends = torch.zeros(rows, steps, dtype=torch.bool)
    view = View(numbers.unsqueeze(-1).float())
    return Segment(view, numbers, None, ends, ends, View(view.obs + 0.5), ends)


def test_the_oldest_rows_are_overwritten_and_the_size_stays():
    replay = Replay.of(played(0), steps=15)  # five rows
    assert replay.kept.actions.flatten().tolist() == list(range(6)) and len(replay.rows.obs) == 5
    for first in (6, 12):
        replay.put(played(first))
    assert replay.filled == 5 and replay.next == 1
    assert sorted(replay.kept.actions.flatten().tolist()) == list(range(3, 18))  # the first row is gone


def test_what_is_drawn_was_kept_and_its_parts_belong_together():
    replay = Replay.of(played(0), steps=30)
    steps = replay.draw(500, 1, generator(0))
    assert steps.actions.shape == (500, 1, 1) and sorted(set(steps.actions.flatten().tolist())) == list(range(6))
    torch.testing.assert_close(steps.obs[..., 0], steps.actions.float())
    torch.testing.assert_close(steps.next_view.obs[..., 0], steps.actions + 0.5)
    rows = replay.draw(30, 3, generator(0))
    assert rows.actions.shape == (10, 3, 1)
    assert (rows.actions[:, 1:] - rows.actions[:, :-1] == 1).all()


def test_minibatches_have_a_time_axis_for_any_window():
    assert batch_of(demos([4, 7]), 0, 5, seed=0).actions.shape[1:] == (1, 2)
    assert batch_of(demos([4, 7]), 0, 6, seed=0, window=3).actions.shape[1:] == (3, 2)


@pytest.mark.parametrize("every", [1, 2, 3])
def test_a_thinned_recording_keeps_true_steps_alone(every):
    """obs of a moment is (episode, time, agent): time tells which step is held, and what it led to."""
    whole, kept = demos([5, 9]), subsampled(demos([5, 9]), every, seed=1)
    times = [[], []]
    for one in kept:
        number, t = int(one.obs[0, 0, 0]), int(one.obs[0, 0, 1])
        times[number].append(t)
        assert len(one) == 1 and int(one.obs[1, 0, 1]) == t + 1
        original = whole[number]
        assert torch.equal(one.actions[0], original.actions[t]) and torch.equal(one.legal[1], original.legal[t + 1])
        assert torch.equal(one.labels["phase"][0], original.labels["phase"][t])
        over = original.terminated and t == len(original) - 1
        assert (one.terminated, one.truncated) == (over, not over)
        assert (one.name, one.weight) == (original.name, original.weight)
    for found, steps in zip(times, (5, 9), strict=True):
        assert found == list(range(found[0], steps, every)) and found[0] < every


@pytest.mark.parametrize("every", [0, 6])
def test_a_stride_that_leaves_nothing_is_refused(every):
    with pytest.raises(DemosError, match="at most the shortest"):
        subsampled(demos([5, 9]), every, seed=0)


def test_a_batch_without_what_follows_is_the_same_otherwise():
    recorded = demos([4, 3, 5])
    whole, part = (batch_of(recorded, 1, 4, 5, following=following) for following in (True, False))
    assert whole.next_view is not None and part.next_view is None
    left, right = (list(tree_leaves(each)) for each in (replace(whole, next_view=None), part))
    assert len(left) == len(right) > 4
    assert all(torch.equal(a, b) for a, b in zip(left, right, strict=True))
