"""Scenes in a few calls: learn, keep, score, sample, steer."""

import pytest
import torch

from understudy import scenes
from understudy.core.errors import ConfigError, DemosError, RunError
from understudy.core.random import generator
from understudy.demos.tracks import TrackSet, TrackSpec
from understudy.runs.loop import Habits

TINY = {"net": {"trunk": {"hidden": 8, "layers": 1, "heads": 2, "pair": 4}}, "length": 8, "batch": 4, "steps": 2}
QUIET = Habits(show=False)


def walks():
    step = 0.1 * torch.randn(8, 12, 2, 2, generator=generator(0))
    tracks = TrackSet.stacked(TrackSpec(2, roles=("dog", "cat")), step.cumsum(1).cumsum(1))
    return tracks.labelled(east=lambda each, spec: (each.values[..., 0] > 0).long())


def songs():
    values = torch.randint(5, (6, 12, 3), generator=generator(1))
    return TrackSet.stacked(TrackSpec(3, dims=0, symbols=5), values)


@pytest.fixture(scope="module")
def learned():
    return scenes.train(walks(), TINY | {"goals": ("east",)}, updates=2, habits=QUIET)


def test_a_model_is_kept_and_found_again_as_it_was(tmp_path):
    for k, (tracks, config) in enumerate([(walks(), TINY | {"goals": ["east"]}), (songs(), TINY)]):
        made = scenes.train(tracks, config, updates=2, folder=tmp_path / str(k), habits=QUIET)
        found = scenes.load(tmp_path / str(k))
        assert found.spec == tracks.spec and found.net.shape == made.net.shape
        again, before = scenes.score(found, tracks), scenes.score(made, tracks)
        assert again == before
        resumed = scenes.train(tracks, config, updates=2, folder=tmp_path / str(k), habits=QUIET)
        assert scenes.score(resumed, tracks) == before
    with pytest.raises(RunError, match="holds no scene"):
        scenes.load(tmp_path)


def test_samples_of_one_past_stand_together_and_begin_with_it(learned):
    past = walks().clips(4)
    made = scenes.sample(learned, past, 6, samples=3, seed=1)
    assert made.values.shape == (3 * len(past), 10, 2, 2)
    futures = made.values.unflatten(0, (len(past), 3))
    torch.testing.assert_close(futures[:, :, :4], past.values.unsqueeze(1).expand(-1, 3, -1, -1, -1))
    assert (futures[:, 0, 4:] - futures[:, 1, 4:]).abs().min(dim=0).values.max() > 0
    again = scenes.sample(learned, past, 6, samples=3, seed=1)
    assert torch.equal(made.values, again.values)
    assert not torch.equal(made.values, scenes.sample(learned, past, 6, samples=3, seed=2).values)


def test_a_wish_is_for_chosen_agents_from_a_chosen_frame_on(learned):
    past = walks().clips(4)
    wish = scenes.wish(learned, past, 6, "east", 1, agents=[1], begin=2)
    assert wish[:, 2:, 1].eq(1).all() and wish[:, :2].eq(-1).all() and wish[:, :, 0].eq(-1).all()
    free, steered = (scenes.sample(learned, past, 6, seed=3, goals=g) for g in ({}, {"east": wish}))
    assert torch.equal(free.values[:, :6], steered.values[:, :6])
    assert (free.values[:, 6:, 1] != steered.values[:, 6:, 1]).any()
    with pytest.raises(ConfigError, match=r"none called 'eats'; it has east"):
        scenes.wish(learned, past, 6, "eats", 1)
    with pytest.raises(ConfigError, match="east: got 2; it is from 0 to 1"):
        scenes.wish(learned, past, 6, "east", 2)


def test_songs_begin_from_nothing_and_walks_do_not(learned):
    singer = scenes.train(songs(), TINY, updates=1, habits=QUIET)
    made = scenes.sample(singer, scenes.nothing(singer, 7), 5)
    assert made.values.shape == (7, 5, 3) and made.values.max() < 5
    with pytest.raises(DemosError, match="begin at recorded ones"):
        scenes.nothing(learned, 7)


def test_recordings_of_something_else_are_refused(learned):
    with pytest.raises(DemosError, match="agents is 3, and the model learnt from 2"):
        scenes.score(learned, songs())
    with pytest.raises(ConfigError, match=r"unknown setting `lenght` for scene.*length"):
        scenes.train(walks(), {"lenght": 3})
    with pytest.raises(ConfigError, match="frames, samples"):
        scenes.sample(learned, walks().clips(4), 0)
