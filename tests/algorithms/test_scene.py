"""Learning scenes: it finds known likelihoods, uses what agents do together, and augments without inventing."""

import math

import pytest
import torch

from understudy.algorithms import scene
from understudy.core.errors import ConfigError, DemosError
from understudy.core.random import generator
from understudy.demos.tracks import Clips, TrackSet, TrackSpec
from understudy.nets.scene import SceneNet
from understudy.nets.trunk import TrunkConfig
from understudy.runs import loop

TRUNK = TrunkConfig(hidden=16, layers=1, heads=2, pair=4)


def song_set(recordings=8, frames=30, seed=0, symbols=4):
    """Two voices: the second repeats what the first gave a frame ago; the first is drawn evenly."""
    first = torch.randint(symbols, (recordings, frames + 1, 1), generator=generator(seed))
    values = torch.cat([first[:, 1:], first[:, :-1]], dim=-1)
    return TrackSet.stacked(TrackSpec(2, dims=0, symbols=symbols), values)


def walk_set(recordings=8, frames=20, seed=0):
    """Two walkers whose changes of step have deviation 0.1 and are those of each other, mirrored."""
    change = 0.1 * torch.randn(recordings, frames, 1, 2, generator=generator(seed))
    step = torch.cat([change, -change], dim=2).cumsum(dim=1)
    return TrackSet.stacked(TrackSpec(2), step.cumsum(dim=1))


def learn(tracks, seed=0, **settings):
    config = scene.Config(**{"net": SceneNet(TRUNK), "length": 20, "batch": 8, **settings})
    state, chance = scene.init(config, tracks, None, generator(seed, "init")), generator(seed, "train")
    while not scene.finished(config, state):
        scene.update(config, state, tracks, None, chance)
    return scene.result(state)


def test_it_comes_near_the_entropy_of_songs_that_follow_a_rule():
    """log 4 nats for the first voice, none for the second, which follows from the past."""
    model = learn(song_set(32), limit=300, rate=1e-2)
    fresh = song_set(16, seed=1).clips(30)
    with torch.no_grad():
        found = -model(fresh).frames[:, 1:].mean().item()
    assert math.log(4) <= found + 0.02
    assert found < math.log(4) + 0.15  # knowing each voice alone: 2 log 4


@pytest.mark.slow
def test_it_comes_near_the_entropy_of_walks_and_knows_that_walkers_mirror_each_other():
    """Alone each number costs log(0.1 sqrt(2 pi e)) nats. A mixture over scenes can say that one mirrors the other."""
    alone = learn(walk_set(64), limit=400, net=SceneNet(TRUNK, together=1, alone=1), rate=1e-2)
    coupled = learn(walk_set(64), limit=400, net=SceneNet(TRUNK, together=8, alone=1), rate=1e-2)
    fresh = walk_set(32, seed=1).clips(20)
    entropy = 4 * math.log(0.1 * math.sqrt(2 * math.pi * math.e))
    with torch.no_grad():
        apart, together = (-model(fresh).frames[:, 3:].mean().item() for model in (alone, coupled))
    assert apart == pytest.approx(entropy, abs=0.15)
    assert together < apart - 0.5


def test_a_run_broken_and_resumed_ends_with_the_same_weights(tmp_path):
    config = scene.Config(net=SceneNet(TRUNK, goal_dropout=0.5), length=10, batch=4, steps=2, limit=100, goals=("key",))
    tracks = song_set().labelled(key=lambda each, spec: each.values[:, 0] // 2)
    habits = loop.Habits(show=False, log_every=1)
    whole = loop.run(scene, config, tracks, budget=loop.Budget(6), habits=habits)
    loop.run(scene, config, tracks, budget=loop.Budget(2), habits=habits, folder=tmp_path)
    broken = loop.run(scene, config, tracks, budget=loop.Budget(6), habits=habits, folder=tmp_path)
    for name, weight in whole.state.model.state_dict().items():
        assert torch.equal(weight, broken.state.model.state_dict()[name])
    for name, weight in scene.result(whole.state).state_dict().items():
        assert torch.equal(weight, scene.result(broken.state).state_dict()[name])


def test_transposed_songs_keep_their_intervals_and_rests_and_stay_on_the_scale():
    alphabet = ("rest", *map(str, range(60, 71)))
    spec = TrackSpec(2, dims=0, symbols=12, alphabet=alphabet)
    values = torch.tensor([[[3, 0], [5, 4], [3, 9]]]).expand(500, -1, -1)
    present = torch.ones_like(values, dtype=torch.bool)
    present[:, 0, 0] = False
    config = scene.Config(transpose=4)
    made = scene.augmented(Clips(values, present), config, spec, torch.zeros(0), generator(1)).values
    shift = made[:, 1, 0] - 5
    assert sorted(set(shift.tolist())) == [-2, -1, 0, 1, 2]  # 3 to 9 in 1 to 11, and no further than 4
    counts = torch.bincount(shift + 2)
    assert ((counts - 100).abs() < 5 * math.sqrt(500 * 0.2 * 0.8)).all()
    assert torch.equal(made[:, 1:, :] - shift[:, None, None], values[:, 1:])
    assert (made[:, 0] == torch.tensor([3, 0])).all()  # who is absent, and who rests, stays


def test_turned_and_mirrored_scenes_keep_all_distances():
    tracks = walk_set()
    config = scene.Config(net=SceneNet(TRUNK), augment=("rotate", "mirror"))
    state = scene.init(config, tracks, None, generator(0))
    clips = tracks.clips(20)
    made = scene.augmented(clips, config, tracks.spec, state.model.middle, generator(1))

    def distances(values):
        points = values.double().flatten(1, 2)
        return torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist")

    torch.testing.assert_close(distances(made.values), distances(clips.values), atol=1e-4, rtol=1e-4)
    assert (made.values - clips.values).abs().amax(dim=(1, 2, 3)).min() > 1e-3
    area = made.values[:, 1:3, 0] - made.values[:, :1, 0]
    was = clips.values[:, 1:3, 0] - clips.values[:, :1, 0]
    turns = torch.linalg.det(area) / torch.linalg.det(was)
    assert set(turns.sign().tolist()) == {-1.0, 1.0}  # some are mirrored, some not
    torch.testing.assert_close(turns.abs(), torch.ones_like(turns), atol=1e-2, rtol=0)


def test_a_crowd_is_seen_a_neighbourhood_at_a_time():
    """Agents stand in a row; the second half of the clip agent 3 is gone."""
    place = torch.arange(7).float()
    values = torch.stack([place, torch.zeros(7)], dim=-1).expand(400, 6, 7, 2)
    present = torch.ones(400, 6, 7, dtype=torch.bool)
    present[:, 3:, 3] = False
    who = torch.arange(7).expand(400, 6, 7)
    spec, config = TrackSpec(7), scene.Config(crowd=3)
    made = scene.augmented(Clips(values, present, {"who": who}), config, spec, torch.zeros(2), generator(0))
    assert made.values.shape == (400, 6, 3, 2)
    assert torch.equal(made.slots, made.labels["who"][:, 0]) and torch.equal(made.slots, made.values[:, 0, :, 0].long())
    assert ((made.slots[:, 1:] - made.slots[:, :-1]) == 1).all()
    assert torch.equal(made.present[:, 5], made.slots != 3)
    firsts = torch.bincount(made.slots[:, 0]) / 400
    assert firsts.tolist() == pytest.approx([2 / 7, 1 / 7, 1 / 7, 1 / 7, 2 / 7], abs=5 * math.sqrt(0.25 / 400))


def test_what_it_cannot_learn_from_is_refused():
    with pytest.raises(DemosError, match="recorded tracks alone"):
        scene.init(scene.Config(), None, None, generator(0))
    keyed = song_set().labelled(key=lambda each, spec: each.values[:, 0])
    with pytest.raises(DemosError, match=r"label `kye`.*Did you mean `key`"):
        scene.init(scene.Config(goals=("kye",)), keyed, None, generator(0))
    halves = song_set().labelled(key=lambda each, spec: each.values[:, 0] / 2)
    with pytest.raises(DemosError, match="whole numbers"):
        scene.init(scene.Config(goals=("key",)), halves, None, generator(0))
    with pytest.raises(ConfigError, match=r"goals, given: \['key'\] are in both"):
        scene.Config(goals=("key",), given=("key",))
    with pytest.raises(ConfigError, match="averaging"):
        scene.Config(averaging=1.0)
