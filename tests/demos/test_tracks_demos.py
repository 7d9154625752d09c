"""Tracks as demos and back."""

import pytest
import torch

from tests.demos.common import DISCRETE, demos
from tests.demos.test_tracks import SPEC, recording, tracks
from understudy.core.errors import DemosError
from understudy.demos.tracks import Tracks, TrackSet, TrackSpec
from understudy.demos.tracks_demos import actions_of, positions_of, to_demos


def test_positions_come_back_from_demos_where_someone_went_on():
    made = TrackSet.of(SPEC, [Tracks(r.values, r.present, name=r.name) for r in (recording(0, 7), recording(1, 5))])
    played = to_demos(made)
    assert (len(played), played.steps, played.spec.dt) == (2, 10, 0.4)
    again = positions_of(played, unit="m")
    torch.testing.assert_close(again.values, made.values)
    one = played[0]
    torch.testing.assert_close(one.actions[-1, :, 0], torch.tensor([1.0, 1.0, 1.0]))
    assert not one.actions[0, 1:].any() and one.present[:, 2].tolist() == [False] * 4 + [True] * 3


def test_a_gap_is_no_step():
    values = torch.arange(4.0).reshape(4, 1, 1).expand(4, 1, 2)
    present = torch.tensor([[True], [True], [False], [True]])
    episode = to_demos(TrackSet.of(TrackSpec(agents=1), [Tracks(values, present)]))[0]
    assert episode.actions[:, 0, 0].tolist() == [1.0, 0.0, 0.0]
    assert episode.present[:, 0].tolist() == [True, False, False, True]


def test_symbols_are_the_next_choice():
    spec = TrackSpec(agents=1, dims=0, symbols=3, clock="beat")
    episode = to_demos(TrackSet.of(spec, [Tracks(torch.tensor([[0], [2], [1]]), torch.ones(3, 1).bool())]))[0]
    assert episode.obs[:, 0].tolist() == [[1, 0, 0], [0, 0, 1], [0, 1, 0]]
    assert episode.actions.tolist() == [[2], [1]]


def test_what_was_done_can_be_read_as_symbols():
    played = demos([4, 3])
    made = actions_of(played)
    assert (made.spec.symbols, made.frames, made.spec.dt) == (DISCRETE.action.choices, 7, 0.1)
    assert torch.equal(made[1].values, played[1].actions)
    with pytest.raises(DemosError, match="Discrete"):
        actions_of(demos([3], full=False))


def test_positions_may_be_any_function_of_an_episode():
    made = positions_of(demos([4]), lambda episode: episode.whole.unsqueeze(1).expand(-1, 2, -1))
    torch.testing.assert_close(made[0].values[:, 1], demos([4])[0].whole)
    assert made[0].labels["goal"][-1].tolist() == [-1, -1]


def test_recordings_without_a_step_are_counted():
    assert "1 of 2 recordings of one frame left out" in to_demos(tracks(1, 5)).about.notes
    with pytest.raises(DemosError, match="no recording has two frames"):
        to_demos(tracks(1))
