"""Every format gives back the bits it was given, and refuses what is damaged, foreign or hostile."""

import math

import numpy as np
import pytest
import torch

from understudy.core.errors import DemosError
from understudy.core.random import generator
from understudy.core.types import Continuous, Discrete, EnvSpec, MultiDiscrete, action_shape, legal_size
from understudy.demos import About, Demos, Episode
from understudy.demos.formats import minari, npz, tables

ACTIONS = {
    "discrete": Discrete(5),
    "multi_discrete": MultiDiscrete((3, 2, 4)),
    "continuous": Continuous(2, -math.inf, math.inf),
}
ABOUT = About(title="made up", licence="CC0", units={"time": "s"}, env={"name": "none", "size": 3}, notes="ünï\ncode")


def made_up(kind: str, seed: int = 0, full: bool = True, agents: int = 3, obs: int = 4) -> Demos:
    """Random episodes of unequal lengths with everything an episode can have, or (`full` false) with the least."""
    g = generator(seed, kind)
    action = ACTIONS[kind]
    names = ("left wing", "right,wing", '"keeper"')[:agents]
    spec = EnvSpec(agents, obs, action, horizon=9, whole=2 if full else 0, names=names, dt=0.1, title="made up")
    episodes = []
    for i, steps in enumerate((1, 7, 3)):
        shape = (steps, agents, *action_shape(action))
        if kind == "continuous":
            actions = torch.randn(shape, generator=g)
        else:
            choices = torch.tensor(action.choices)
            actions = (torch.rand(shape, generator=g) * choices).long()
        present = torch.rand(steps + 1, agents, generator=g) < 0.8
        here = present if full else torch.ones_like(present)
        episode = Episode(
            obs=torch.randn(steps + 1, agents, obs, generator=g) * here.unsqueeze(-1),
            actions=actions * here[:-1].reshape(steps, agents, *[1] * (len(shape) - 2)),
            terminated=i == 0,
            truncated=i != 0,
        )
        if full:
            legal = torch.ones(steps + 1, agents, legal_size(action), dtype=torch.bool)
            legal[-1] = torch.rand(legal.shape[1:], generator=g) < 0.5
            episode.rewards = torch.randn(steps, agents, generator=g)
            episode.legal = legal if legal_size(action) else None
            episode.present = present
            episode.whole = torch.randn(steps + 1, 2, generator=g)
            episode.times = torch.rand(steps + 1, generator=g, dtype=torch.float64).cumsum(0) + 0.1
            goal = (torch.rand(steps, agents, generator=g) * 5).long()
            episode.labels = {"goal": goal, "phase": torch.rand(steps, generator=g) < 0.5}
            episode.name, episode.weight = f"e/{i}, é", 1 / (i + 3)
            episode.info = {"players": "a,b", "score": 0.1 + i, "number": i, "held": i == 1}
        episodes.append(episode)
    return Demos.from_episodes(spec, episodes, ABOUT)


def assert_same(got: Demos, wanted: Demos, names: bool = True) -> None:
    """Equal to the last bit: spec, about, and every tensor with its dtype."""
    assert got.spec == wanted.spec
    assert got.about == wanted.about
    if names:
        assert got.fingerprint() == wanted.fingerprint()
    assert len(got) == len(wanted)
    for ours, theirs in zip(got, wanted, strict=True):
        assert (ours.terminated, ours.truncated) == (theirs.terminated, theirs.truncated)
        for part in ("obs", "actions", "rewards", "legal", "present", "whole", "times"):
            a, b = getattr(ours, part), getattr(theirs, part)
            assert (a is None) == (b is None), part
            assert a is None or (a.dtype == b.dtype and torch.equal(a, b)), part
        assert ours.labels.keys() == theirs.labels.keys()
        for name, label in ours.labels.items():
            assert label.dtype == theirs.labels[name].dtype and torch.equal(label, theirs.labels[name]), name


def by_npz(demos, folder):
    npz.write_npz(demos, folder / "demos.npz")
    return npz.read_npz(folder / "demos.npz")


def by_csv(demos, folder):
    tables.write_csv(demos, folder / "demos.csv")
    return tables.read_csv(folder / "demos.csv")


def by_parquet(demos, folder):
    tables.write_parquet(demos, folder / "demos.parquet")
    return tables.read_parquet(folder / "demos.parquet")


def by_pandas(demos, folder):
    pytest.importorskip("pandas")
    return tables.from_table(tables.to_pandas(demos))


def by_minari(demos, folder):
    pytest.importorskip("h5py")
    minari.write_minari(demos, folder / "minari")
    return minari.read_minari(folder / "minari")


ROUND = [by_npz, by_csv, by_parquet, by_pandas, by_minari]


@pytest.mark.parametrize("full", [True, False], ids=["full", "least"])
@pytest.mark.parametrize("kind", ACTIONS)
@pytest.mark.parametrize("there_and_back", ROUND)
def test_a_round_trip_gives_the_same_bits(there_and_back, kind, full, tmp_path):
    demos = made_up(kind, full=full)
    assert_same(there_and_back(demos, tmp_path), demos)


# ---- Minari


def test_what_we_write_minari_loads(tmp_path):
    peer = pytest.importorskip("minari")
    for kind in ACTIONS:
        for agents in (1, 3):
            demos = made_up(kind, agents=agents)
            folder = tmp_path / f"{kind}-{agents}"
            minari.write_minari(demos, folder)
            loaded = peer.MinariDataset(folder)
            assert loaded.total_episodes == 3
            assert loaded.total_steps == 11
            for ours, theirs in zip(demos, loaded.iterate_episodes(), strict=True):
                assert (theirs.terminations[-1], theirs.truncations[-1]) == (ours.terminated, ours.truncated)
                np.testing.assert_allclose(theirs.rewards, ours.rewards.sum(1), rtol=1e-6)
                for i, name in enumerate(demos.spec.names):
                    obs, actions = theirs.observations, theirs.actions
                    obs, actions = (obs, actions) if agents == 1 else (obs[name], actions[name])
                    np.testing.assert_array_equal(obs, ours.obs[:, i])
                    np.testing.assert_array_equal(actions, ours.actions[:, i])
                    space = loaded.observation_space if agents == 1 else loaded.observation_space[name]
                    assert space.contains(obs[0])
