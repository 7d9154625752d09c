"""Learning to fill in: masks of all ways, and fewer errors than straight lines."""

import pytest
import torch

from understudy.algorithms import masked_scene, scene
from understudy.core.errors import ConfigError
from understudy.core.random import generator
from understudy.demos.tracks import TrackSet, TrackSpec
from understudy.nets.masked_scene import first_guess
from understudy.nets.scene import SceneNet
from understudy.nets.trunk import TrunkConfig
from understudy.runs import loop

NET = SceneNet(TrunkConfig(hidden=16, layers=1, heads=2, pair=4))


def mirrored(recordings, seed):
    """Two walkers, each the other's mirror image: who is hidden can be known from the other."""
    step = torch.randn(recordings, 12, 1, 2, generator=generator(seed))
    path = (0.3 * step.cumsum(1)).cumsum(1)
    return TrackSet.stacked(TrackSpec(2, names=("a", "b")), torch.cat([path, -path], dim=2))


def learn(tracks, **settings):
    config = scene.Config(**{"net": NET, "length": 12, "batch": 32, **settings})
    state, chance = masked_scene.init(config, tracks, None, generator(0)), generator(1)
    while not masked_scene.finished(config, state):
        masked_scene.update(config, state, tracks, None, chance)
    return masked_scene.result(state)


def test_masks_hide_in_every_way_and_never_everything():
    present = torch.rand(2_000, 10, 3, generator=generator(0)) < 0.8
    known = masked_scene.hidden_by_chance(present, generator(1))
    assert not (known & ~present).any()
    assert known.flatten(1).any(dim=1).all()
    share = known.sum() / present.sum()
    assert 0.4 < share < 0.6
    whole = (present & ~known).sum(1) == present.sum(1)  # agents of whom nothing is known
    assert 0.1 < whole.float().mean() < 0.4


@pytest.mark.slow
def test_a_hidden_walker_is_found_from_its_mirror_image():
    model = learn(mirrored(256, 0), limit=1_500, rate=5e-3)
    fresh = mirrored(64, 1).clips(12)
    known = fresh.present.clone()
    known[:, 2:, 1] = False
    filled = [model.fill(fresh, known, model.noise(64, 12, 2, generator(k)), 8) for k in range(8)]
    ours = (torch.stack(filled).mean(0) - fresh.values)[:, 2:, 1].norm(dim=-1).mean()
    straight = (first_guess(fresh.values, known).place - fresh.values)[:, 2:, 1].norm(dim=-1).mean()
    assert ours < 0.5 * straight


@pytest.mark.slow
def test_hidden_symbols_are_found_from_those_they_repeat():
    def unison(recordings, seed):
        values = torch.randint(4, (recordings, 12, 1), generator=generator(seed)).expand(-1, -1, 2)
        return TrackSet.stacked(TrackSpec(2, dims=0, symbols=4, names=("a", "b")), values)

    model, fresh = learn(unison(128, 0), limit=300, rate=1e-2), unison(32, 1).clips(12)
    known = fresh.present.clone()
    known[..., 1] = torch.rand(known[..., 1].shape, generator=generator(2)) < 0.3
    filled = model.fill(fresh, known, model.noise(32, 12, 2, generator(3)), 4)
    assert (filled == fresh.values).float().mean() > 0.97  # by chance: 0.74


def test_a_run_broken_and_resumed_ends_with_the_same_weights(tmp_path):
    config = scene.Config(net=NET, length=8, batch=4, steps=2, limit=100)
    habits = loop.Habits(show=False, log_every=1)
    whole = loop.run(masked_scene, config, mirrored(8, 0), budget=loop.Budget(5), habits=habits)
    loop.run(masked_scene, config, mirrored(8, 0), budget=loop.Budget(2), habits=habits, folder=tmp_path)
    broken = loop.run(masked_scene, config, mirrored(8, 0), budget=loop.Budget(5), habits=habits, folder=tmp_path)
    for name, weight in masked_scene.result(whole.state).state_dict().items():
        assert torch.equal(weight, masked_scene.result(broken.state).state_dict()[name])


def test_goals_are_refused():
    with pytest.raises(ConfigError, match="a masked model has none"):
        masked_scene.init(scene.Config(goals=("aim",)), mirrored(4, 0), None, generator(0))
