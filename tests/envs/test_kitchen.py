"""The kitchen against what people's recordings say happened, and against the game's rules on paper."""

import json

import numpy as np
import pytest
import torch

from understudy.core.random import generator, uniform
from understudy.core.tree import tree_cat, tree_map, tree_take
from understudy.envs.kitchen import Kitchen, State, state_from_arrays
from understudy.envs.kitchen_board import LAYOUTS, rows_of

FIELDS = ("pos", "ori", "held", "obj", "act", "reward")


@pytest.fixture(scope="module")
def recordings(data_folder):
    """Per layout, the trials as dicts of arrays."""
    folder = data_folder / "overcooked_human"
    arrays = np.load(folder / "overcooked_hh_2019.npz")
    layouts = {}
    for trial in json.loads((folder / "trials.json").read_text()):
        layouts.setdefault(trial["layout"], []).append(
            {name: torch.from_numpy(arrays[f"{trial['key']}/{name}"]) for name in FIELDS}
        )
    return layouts


def differences(one: State, two: State):
    """Moments at which any field differs."""
    different = torch.zeros(len(one.age), dtype=torch.bool)
    for a, b in zip(vars(one).values(), vars(two).values(), strict=True):
        different |= (a != b).flatten(1).any(-1) if a.dim() > 1 else a != b
    return different


@pytest.fixture(scope="module")
def steps(recordings):
    """Per layout, all recorded steps: states before, actions, rewards, states after."""
    found = {}
    for layout, trials in recordings.items():
        played = [state_from_arrays(Kitchen(layout), **trial) for trial in trials]
        found[layout] = (
            tree_cat([tree_map(lambda x: x[:-1], states) for states in played]),
            torch.cat([trial["act"][:-1].long() for trial in trials]),
            torch.cat([trial["reward"][:-1] for trial in trials]),
            tree_cat([tree_map(lambda x: x[1:], states) for states in played]),
        )
    return found


def play(env: Kitchen, envs: int, length: int, seed: int = 0):
    """States along random play, interacts as common as all other moves together."""
    source = generator(seed, "kitchen")
    state = env.reset(uniform((envs, env.spec.reset_noise), source))
    for _ in range(length):
        yield state
        actions = torch.randint(0, 10, (envs, env.spec.agents), generator=source).clamp(max=5)
        state, _, _ = env.step(state, actions, torch.empty(envs, 0))


def test_each_recorded_step_of_people_comes_out_as_recorded(steps):
    for layout, (before, actions, rewards, after) in steps.items():
        state, earned, terminated = Kitchen(layout).step(before, actions, torch.empty(len(actions), 0))
        assert not differences(state, after).any()
        assert torch.equal(earned, rewards[:, None].expand(-1, 2))
        assert not terminated.any()
    assert sum(len(rewards) for _, _, rewards, _ in steps.values()) == 91_026


def test_whole_trials_rolled_from_their_first_moment_stay_on_the_recording(recordings):
    for layout, trials in recordings.items():
        env, length = Kitchen(layout), max(len(trial["act"]) for trial in trials)
        played = [state_from_arrays(env, **trial) for trial in trials]
        actions = torch.full((length, len(trials), 2), 4)
        for i, trial in enumerate(trials):
            actions[: len(trial["act"]), i] = trial["act"].long()
        state = tree_cat([tree_map(lambda x: x[:1], states) for states in played])
        for t in range(1, length):
            state, _, _ = env.step(state, actions[t - 1], torch.empty(len(trials), 0))
            goes_on = [i for i, trial in enumerate(trials) if t < len(trial["act"])]
            recorded = tree_cat([tree_map(lambda x, t=t: x[t : t + 1], played[i]) for i in goes_on])
            assert not differences(tree_take(state, torch.tensor(goes_on)), recorded).any()


def test_the_layouts_are_those_of_the_recordings(recordings, data_folder):
    for trial in json.loads((data_folder / "overcooked_human" / "trials.json").read_text()):
        assert rows_of(trial["layout"], None) == tuple(trial["grid"])


@pytest.mark.parametrize("rules", ["2019", "current"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_whole_state_is_flattened_without_loss(layout, rules):
    env = Kitchen(layout, rules=rules, starts="random")
    for state in play(env, envs=64, length=200):
        whole = env.whole(state)
        assert whole.shape == (64, env.spec.whole)
        assert not differences(env.unpack(whole), state).any()


def test_recorded_states_are_flattened_without_loss(steps):
    for layout, (before, *_) in steps.items():
        env = Kitchen(layout)
        assert not differences(env.unpack(env.whole(before)), before).any()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_observations_are_named_bounded_and_finite(layout):
    env = Kitchen(layout, starts="random")
    assert len(env.feature_names) == len(set(env.feature_names)) == env.spec.obs
    for state in play(env, envs=64, length=100):
        obs = env.observe(state)
        assert obs.shape == (64, 2, env.spec.obs)
        assert obs.abs().max() <= 1
