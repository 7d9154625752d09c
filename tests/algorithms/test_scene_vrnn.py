"""Learning the published recurrent models: known entropies, two stages, the same means as all models of scenes."""

import math
from dataclasses import replace

import pytest
import torch

from understudy.algorithms import scene, scene_vrnn
from understudy.core.errors import ConfigError, DemosError
from understudy.core.random import generator
from understudy.demos.tracks import TrackSet, TrackSpec
from understudy.nets.vrnn import FAMILIES, RecurrentNet
from understudy.runs import loop

NET = {"hidden": 16, "memory": 16, "latent": 2, "goal_memory": 8}


def walk_set(recordings=16, frames=10, seed=0):
    """Two walkers, who go the way that their scene's label says, each with a deviation of 0.1 a step."""
    way = torch.randint(2, (recordings, 1), generator=generator(seed, "way"))
    noise = 0.1 * torch.randn(recordings, frames, 2, 2, generator=generator(seed, "noise"))
    step = noise + torch.tensor([0.5, 0.0]) * (2 * way - 1)[..., None, None]
    aim = way.expand(-1, frames)
    return TrackSet.stacked(
        TrackSpec(2), step.cumsum(dim=1), labels={"aim": aim, "mine": aim.unsqueeze(-1).repeat(1, 1, 2)}
    )


def config_for(kind, **settings):
    goals = {"none": (), "scene": ("aim",), "agent": ("mine",)}[FAMILIES[kind].goals]
    schedule = {"length": 10, "batch": 8, "steps": 2, "limit": 8, "weight_decay": 0.0, "goals": goals}
    own = {k: settings.pop(k) for k in ("goals_first", "information") if k in settings}
    net = RecurrentNet(kind, **{**NET, **settings.pop("net", {})})
    return scene_vrnn.Config(net=net, schedule=scene.Config(**{**schedule, **settings}), **own)


def learn(config, tracks, updates=None):
    state, chance = scene_vrnn.init(config, tracks, None, generator(0, "init")), generator(0, "train")
    done = 0
    while not scene_vrnn.finished(config, state) and done != updates:
        scene_vrnn.update(config, state, tracks, None, chance)
        done += 1
    return state


@pytest.mark.parametrize("kind", ["rnn_gauss", pytest.param("vrnn_indep", marks=pytest.mark.slow)])
def test_it_comes_near_the_entropy_of_walks(kind):
    """Each number of a step costs log(0.1 sqrt(2 pi e)) nats where the way is known: after a step or two."""
    config = config_for(kind, limit=120, batch=32, rate=2e-2, held_out=0.0, net={"steps": True})
    model = scene_vrnn.result(learn(config, walk_set(128)))
    with torch.no_grad():
        found = -model(walk_set(64, seed=1).clips(10), samples=4).frames[:, 3:].mean().item()
    entropy = 4 * math.log(0.1 * math.sqrt(2 * math.pi * math.e))
    assert found == pytest.approx(entropy, abs=0.4)


@pytest.mark.parametrize("kind", FAMILIES)
def test_a_run_broken_and_resumed_ends_with_the_same_weights(kind, tmp_path):
    config, tracks = config_for(kind), walk_set()
    habits = loop.Habits(show=False, log_every=1)
    whole = loop.run(scene_vrnn, config, tracks, budget=loop.Budget(3), habits=habits)
    loop.run(scene_vrnn, config, tracks, budget=loop.Budget(1), habits=habits, folder=tmp_path)
    broken = loop.run(scene_vrnn, config, tracks, budget=loop.Budget(3), habits=habits, folder=tmp_path)
    for name, weight in scene_vrnn.result(whole.state).state_dict().items():
        assert torch.equal(weight, scene_vrnn.result(broken.state).state_dict()[name])


def test_goals_are_learnt_first_and_then_not_any_more():
    config, tracks = config_for("macro_shared_vrnn", goals_first=0.5, limit=4), walk_set()
    start = scene_vrnn.init(config, tracks, None, generator(0, "init")).model.state_dict()
    start = {name: weight.clone() for name, weight in start.items()}
    moved = []
    for updates in (1, 2):
        after = learn(config, tracks, updates).model.state_dict()
        moved.append({name for name, weight in after.items() if not torch.equal(weight, start[name])})
        start = {name: weight.clone() for name, weight in after.items()}
    goals = {name for name in start if name.startswith(("aim", "goal_memory"))}
    assert moved[0] <= goals and moved[0] and moved[1] and not moved[1] & goals


@pytest.mark.slow
def test_the_latent_of_a_scene_is_told_by_it_where_that_is_asked_for():
    """With the bound in the loss the net that reads a z from a scene does better than knowing its prior."""
    found = {}
    for weight in (0.0, 4.0):
        config = config_for("vrae_mi", limit=150, rate=1e-2, information=weight, held_out=0.0)
        model = scene_vrnn.result(learn(config, walk_set(64)))
        with torch.no_grad():
            found[weight] = model.information(walk_set(64).clips(10), generator(3)).mean().item()
    ignorant = -0.5 * 2 * math.log(2 * math.pi * math.e)  # minus the entropy of z
    assert found[4.0] > ignorant + 0.1 and found[4.0] > found[0.0] + 0.1


def test_what_these_models_cannot_learn_from_is_refused():
    tracks = walk_set()
    with pytest.raises(DemosError, match="length: clips of 20 frames, of recordings of 10"):
        scene_vrnn.init(config_for("rnn_gauss", length=20), tracks, None, generator(0))
    gone = replace(tracks, present=tracks.present & (torch.rand(tracks.present.shape, generator=generator(0)) < 0.9))
    with pytest.raises(DemosError, match="know no absence"):
        scene_vrnn.init(config_for("rnn_gauss"), gone, None, generator(0))
    songs = TrackSet.stacked(TrackSpec(2, dims=0, symbols=3), torch.zeros(4, 10, 2, dtype=torch.long))
    with pytest.raises(DemosError, match="agents give symbols"):
        scene_vrnn.init(config_for("rnn_gauss"), songs, None, generator(0))
    with pytest.raises(ConfigError, match="goals_first"):
        config_for("rnn_gauss", goals_first=1.0)
    with pytest.raises(ConfigError, match="know of goals alone"):
        scene_vrnn.Config(schedule=scene.Config(crowd=3))
