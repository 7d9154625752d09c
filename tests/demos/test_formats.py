"""Every format gives back the bits it was given, and refuses what is damaged, foreign or hostile."""

import json
import math
import random
import shutil
import zipfile
from collections import Counter
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

from understudy.core.errors import DemosError
from understudy.core.random import generator
from understudy.core.types import Continuous, Discrete, EnvSpec, MultiDiscrete, action_shape, legal_size
from understudy.demos import About, Demos, Episode, formats
from understudy.demos.formats import minari, npz, overcooked, pettingzoo, tables, trajectories
from understudy.demos.formats.tables import Columns, from_table
from understudy.recordings import COOKING

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


@pytest.mark.parametrize("there_and_back", ROUND)
def test_agents_of_different_sizes_and_odd_widths_come_back_as_they_were(there_and_back, tmp_path):
    sizes = {"obs_sizes": (1, 3), "action_sizes": (2, 1)}
    spec = EnvSpec(agents=2, obs=4, action=Continuous(2, -1.0, 1.0), **sizes)  # wider than it need be
    obs = torch.arange(1.0, 13.0, dtype=torch.float64).reshape(3, 1, 4).repeat(1, 2, 1) / 3
    obs *= torch.tensor([[1, 0, 0, 0], [1, 1, 1, 0]])
    actions = torch.tensor([[[0.1, -0.2], [0.3, 0]]] * 2, dtype=torch.float64)
    demos = Demos.from_episodes(spec, [Episode(obs, actions, rewards=torch.ones(2, 2, dtype=torch.float64))])
    assert demos[0].obs.dtype == torch.float64
    assert_same(there_and_back(demos, tmp_path), demos)
    pictures = EnvSpec(agents=2, obs=4, action=Discrete(2))
    bytes_ = torch.arange(24, dtype=torch.uint8).reshape(3, 2, 4) * 10
    demos = Demos.from_episodes(pictures, [Episode(bytes_, torch.ones(2, 2, dtype=torch.long))])
    folder = tmp_path / "pictures"
    folder.mkdir()
    assert_same(there_and_back(demos, folder), demos)


# ---- Minari


def test_numbers_beyond_an_agents_own_width_are_not_lost_but_refused(tmp_path):
    spec = EnvSpec(agents=2, obs=2, action=Discrete(2), obs_sizes=(1, 2))
    demos = Demos.from_episodes(spec, [Episode(torch.ones(2, 2, 2), torch.ones(1, 2, dtype=torch.long))])
    with pytest.raises(DemosError, match="episode 0: obs of agent_0 has numbers beyond its 1"):
        minari.write_minari(demos, tmp_path / "new")
    assert not (tmp_path / "new").exists()


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


def test_what_minari_writes_we_read(tmp_path, monkeypatch):
    peer = pytest.importorskip("minari")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    rng = np.random.default_rng(0)
    seen = spaces.Dict({"far": spaces.Box(-1, 1, (2, 2), np.float64), "near": spaces.Discrete(3, start=5)})
    far, near, moves = rng.uniform(-1, 1, (4, 2, 2)), np.array([5, 7, 6, 5]), np.array([-1, 0, 1])
    buffer = peer.data_collector.episode_buffer.EpisodeBuffer(
        observations={"far": list(far), "near": list(near)},
        actions=list(moves),
        rewards=[1.0, 2.0, 3.0],
        terminations=[False, False, True],
        truncations=[False, False, False],
        infos={"luck": [0, 1, 2, 3]},
    )
    create = peer.create_dataset_from_buffers
    with pytest.warns(UserWarning, match="is set to None"):
        create(
            "made/up-v1", [buffer], observation_space=seen, action_space=spaces.Discrete(3, start=-1), author="A. B."
        )
    demos = minari.read_minari(tmp_path / "made" / "up-v1")
    assert (demos.spec.obs, demos.spec.action, demos.about.title) == (7, Discrete(3), "made/up-v1")
    assert demos.about.author == "A. B."
    assert demos.about.notes == "Left out: infos luck."
    (episode,) = demos
    flat = np.stack([spaces.flatten(seen, {"far": f, "near": n}) for f, n in zip(far, near, strict=True)])
    np.testing.assert_array_equal(episode.obs[:, 0], flat.astype(np.float32))
    assert episode.actions[:, 0].tolist() == [0, 1, 2]  # counted from the space's start
    assert episode.rewards[:, 0].tolist() == [1, 2, 3]
    assert episode.terminated
    assert not episode.truncated


def test_minari_spaces_by_agent_become_agents_padded_to_the_widest(tmp_path, monkeypatch):
    peer = pytest.importorskip("minari")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    seen = spaces.Tuple([spaces.Box(-9, 9, (1,)), spaces.Box(-9, 9, (2,))])
    done = spaces.Tuple([spaces.Discrete(2), spaces.Discrete(4)])
    buffer = peer.data_collector.episode_buffer.EpisodeBuffer(
        observations=(list(np.float32([[1], [2]])), list(np.float32([[3, 4], [5, 6]]))),
        actions=([1], [3]),
        rewards=[7.0],
        terminations=[False],
        truncations=[True],
    )
    with pytest.warns(UserWarning, match="is set to None"):
        peer.create_dataset_from_buffers("made/two-v0", [buffer], observation_space=seen, action_space=done)
    demos = minari.read_minari(tmp_path / "made" / "two-v0" / "data" / "main_data.hdf5")
    assert (demos.spec.obs_sizes, demos.spec.action_sizes) == ((1, 2), (2, 4))
    (episode,) = demos
    assert episode.obs.tolist() == [[[1, 0], [3, 4]], [[2, 0], [5, 6]]]
    assert episode.actions.tolist() == [[1, 3]]
    assert episode.rewards.tolist() == [[7, 7]]  # one reward a step: the team's
    assert episode.legal[0].tolist() == [[True, True, False, False], [True] * 4]


def test_a_minari_file_that_leads_out_of_itself_is_refused(tmp_path):
    h5py = pytest.importorskip("h5py")
    minari.write_minari(made_up("discrete"), tmp_path / "a")
    minari.write_minari(made_up("discrete"), tmp_path / "b")
    with h5py.File(tmp_path / "a" / "main_data.hdf5", "a") as file:
        del file["episode_1"]
        file["episode_1"] = h5py.ExternalLink("../b/main_data.hdf5", "episode_1")
    with pytest.raises(DemosError, match="episode_1` is a link"):
        minari.read_minari(tmp_path / "a")
    with pytest.raises(DemosError, match="max_bytes"):
        minari.read_minari(tmp_path / "b", max_bytes=100)


# ---- long tables


def small(**changes) -> dict:
    """Two agents, one step and what came of it, as the columns of a long table."""
    table = {
        "episode": ["a"] * 4,
        "t": [0, 0, 1, 1],
        "agent": [0, 1, 0, 1],
        "obs_0": [1.0, 2.0, 3.0, 4.0],
        "action": [0, 2, None, None],
        "reward": [0.5, 1.5, None, None],
        "terminated": [True, True, None, None],
    }
    return table | changes


def test_a_plain_table_is_read_as_it_says():
    demos = from_table(pa.table(small()))
    assert demos.spec == EnvSpec(agents=2, obs=1, action=Discrete(3))
    (episode,) = demos
    assert episode.name == "a"
    assert episode.obs[..., 0].tolist() == [[1, 2], [3, 4]]
    assert episode.actions.tolist() == [[0, 2]]
    assert episode.rewards.tolist() == [[0.5, 1.5]]
    assert (episode.terminated, episode.truncated, episode.present) == (True, False, None)


def test_the_order_of_rows_says_nothing():
    table = tables.to_table(made_up("multi_discrete"))
    shuffled = table.take(torch.randperm(len(table), generator=generator(3)).tolist())
    assert_same(from_table(shuffled), made_up("multi_discrete"))


def test_episodes_may_be_taken_out_of_a_frame():
    pytest.importorskip("pandas")
    demos = made_up("discrete")
    frame = tables.to_pandas(demos)
    got = from_table(frame[frame.episode != 1])
    assert_same(got, demos.select([0, 2]))


def test_agents_numbered_anew_in_each_episode_are_refused():
    count = 2000
    table = {"episode": np.arange(count).repeat(2), "t": [0, 1] * count, "agent": np.arange(count).repeat(2)}
    table |= {"obs_0": np.zeros(2 * count), "action": [0, None] * count}
    with pytest.raises(DemosError, match=r"Are agents numbered anew in each episode"):
        from_table(pa.table(table))


def test_polars_keeps_the_numbers_but_not_the_header():
    polars = pytest.importorskip("polars")
    demos = made_up("continuous")
    frame = tables.to_polars(demos)
    assert isinstance(frame, polars.DataFrame)
    frame = frame.drop("label_phase")  # joint or not, only the header tells
    got = from_table(frame, demos.spec, demos.about)
    for ours, theirs in zip(got, demos, strict=True):
        theirs.labels.pop("phase")
        for part in ("obs", "actions", "rewards", "present", "whole", "times"):
            assert torch.equal(getattr(ours, part), getattr(theirs, part)), part
        assert torch.equal(ours.labels["goal"], theirs.labels["goal"])


def test_a_missing_row_is_a_missing_agent():
    without = {name: column[:3] for name, column in small().items()}
    (episode,) = from_table(pa.table(without), EnvSpec(agents=2, obs=1, action=Discrete(3)))
    assert episode.present.tolist() == [[True, True], [True, False]]
    assert episode.obs[..., 0].tolist() == [[1, 2], [3, 0]]


def test_other_names_are_given_and_a_column_without_a_place_is_refused():
    table = small()
    table["frame"], table["x"] = table.pop("t"), table.pop("obs_0")
    table = pa.table(table | {"comment": ["", "", "", "late"]})
    columns = Columns(t="frame", obs=("x",), ignore=("comment",))
    assert from_table(table, columns=columns)[0].obs[..., 0].tolist() == [[1, 2], [3, 4]]
    with pytest.raises(DemosError, match="the column `comment` has no place"):
        from_table(table, columns=Columns(t="frame", obs=("x",)))
    with pytest.raises(DemosError, match=r"no column `fram`. Did you mean `frame`"):
        from_table(table, columns=Columns(t="fram", obs=("x",)))


def test_an_episode_that_ends_with_an_action_is_refused_or_gives_it_up():
    table = pa.table(small(action=[0, 2, 1, 1], reward=[0.5, 1.5, 9.0, 9.0], terminated=[False, False, True, True]))
    with pytest.raises(DemosError, match=r"row 3 \(episode a, agent 0, t 1\): the episode ends with an action"):
        from_table(table)
    demos = from_table(table, last="drop")
    assert demos[0].actions.tolist() == [[0, 2]]
    assert demos[0].rewards.tolist() == [[0.5, 1.5]]
    assert (demos[0].terminated, demos[0].truncated) == (False, True)
    assert demos.about.notes == "The last action of 1 of 1 episodes was given up."


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"obs_0": ["1", "2", "three", "4"]}, r"row 3 \(episode a, agent 0, t 1\): `obs_0` is three"),
        ({"obs_0": [1.0, None, 3.0, 4.0]}, r"row 2 \(episode a, agent 1, t 0\): the cell of `obs_0` is empty"),
        ({"obs_0": [1.0, math.nan, 3.0, 4.0]}, "row 2.*the cell of `obs_0` is empty"),
        ({"obs_0": [1.0, 2.0, math.inf, 4.0]}, "finite"),
        ({"obs_0": [[1.0], [2.0], [3.0], [4.0]]}, "row 1.*must be a number"),
        ({"action": [0, None, None, None]}, r"row 2 \(episode a, agent 1, t 0\): the cell of `action` is empty"),
        ({"action": [0, -1, None, None]}, "choice from 0 on, got -1"),
        ({"action": [0.0, 1.0, None, None]}, "whole numbers in columns of real numbers"),
        ({"t": [0, 0, 1, 0]}, r"row 2 \(episode a, agent 1, t 0\): row 4 is of the same moment"),
        ({"t": [0, 0, 2, 2]}, r"row 3 \(episode a, agent 0, t 2\): no row has t=1"),
        ({"t": [1, 1, 2, 2]}, "no row has t=0"),
        ({"t": [0, 0, -1, 1]}, "row 3.*from 0 on"),
        ({"t": [0, 0, 10**15, 10**15]}, "no row has t=1"),
        ({"t": [0, 0, 1.5, 1.5]}, "row 3.*`t` is 1.5.*whole number"),
        ({"t": [0, 0, None, 1]}, "row 3.*`t` is empty"),
        ({"t": [0, 0, 0, 0], "agent": [0, 1, 2, 3]}, "episode a has no step"),
        ({"reward": [0.5, 1.5, 1.0, None]}, "row 3.*`reward` has a value where"),
        ({"terminated": [True, True, None, "perhaps"]}, "`terminated` is"),
        ({"present": [1, 1, 1, 2]}, "row 4.*`present` is 2.*true or false"),
        ({"time": [0.0, 0.0, 1.0, 1.5]}, "`time` differs between the agents"),
        ({"time": [1.0, 1.0, 0.5, 0.5]}, "backwards"),
        ({"legal_0": [True] * 4}, "the spec asks for 3 columns of legal, got 1"),
    ],
)
def test_a_bad_table_is_refused_where_it_is_bad(changes, message):
    rows = [dict(zip(small(), row, strict=True)) for row in zip(*small().values(), strict=True)]
    for i, row in enumerate(rows):
        row.update({name: column[i] for name, column in changes.items()})
    mixed = {name: [row[name] for row in rows] for name in rows[0]}
    try:
        table = pa.table(mixed)
    except (pa.ArrowInvalid, pa.ArrowTypeError):  # cells of several kinds: as text, as a CSV has them
        table = pa.table({n: [None if v is None else str(v) for v in c] for n, c in mixed.items()})
    with pytest.raises(DemosError, match=message):
        from_table(table)


def test_an_early_end_and_an_unknown_agent_are_refused():
    longer = {name: column * 2 for name, column in small().items()} | {"t": [0, 0, 1, 1, 2, 2, 3, 3]}
    longer |= {"action": [0] * 6 + [None] * 2, "reward": [0.0] * 6 + [None] * 2}
    with pytest.raises(DemosError, match=r"row 1 \(episode a, agent 0, t 0\): `terminated` before"):
        from_table(pa.table(longer))
    spec = EnvSpec(agents=2, obs=1, action=Discrete(3), names=("lead", "wing"))
    with pytest.raises(DemosError, match=r"row 2.*called 'wind'. Did you mean `wing`"):
        from_table(pa.table(small(agent=["lead", "wind", "lead", "wing"])), spec)


def test_a_csv_without_header_is_read_by_its_cells(tmp_path):
    path = tmp_path / "plain.csv"
    path.write_text("episode,t,agent,obs_0,action_0,action_1\n1,0,7,0.1,0,2\n1,1,7,0.3,,\n")
    demos = formats.read(path)
    assert demos.spec == EnvSpec(agents=1, obs=1, action=MultiDiscrete((1, 3)), names=("7",))
    assert demos[0].obs[0].item() == np.float32(0.1)
    assert demos[0].truncated  # nothing says that the game was over
    path.write_text("episode,t,agent,obs_0,action\n1,0,7,0.1,1.0\n1,1,7,0.1,\n")
    with pytest.raises(DemosError, match="whole numbers in columns of real numbers"):
        formats.read(path)
    spec = EnvSpec(agents=1, obs=1, action=Discrete(2), names=("7",))
    assert formats.read(path, spec=spec)[0].actions.tolist() == [[1]]
    path.write_text("episode,t,agent,obs_0,action\n1,0,7,0.1\n")
    with pytest.raises(DemosError, match=r"plain\.csv"):
        formats.read(path)


def test_a_file_that_was_edited_is_refused_until_its_header_lets_it(tmp_path):
    path = tmp_path / "edited.csv"
    formats.write(made_up("discrete"), path)
    first, rest = path.read_text().split("\n", 1)
    path.write_text(f"{first}\n{rest.replace(',1,', ',2,', 1)}")
    with pytest.raises(DemosError, match='set "fingerprint" to ""'):
        formats.read(path)
    header = json.loads(Path(f"{path}.json").read_text())
    Path(f"{path}.json").write_text(json.dumps(header | {"fingerprint": ""}))
    assert formats.read(path).fingerprint() != made_up("discrete").fingerprint()


def test_pandas_with_its_own_kinds_of_empty_cells():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(small())  # actions become floats, ends become objects
    (episode,) = from_table(frame, EnvSpec(agents=2, obs=1, action=Discrete(3)))
    assert episode.actions.tolist() == [[0, 2]]
    assert episode.terminated


# ---- NumPy archives


def test_an_archive_of_another_making_is_read(tmp_path):
    path = tmp_path / "other.npz"
    obs, actions = np.arange(12.0).reshape(6, 1, 2), np.array([[0], [1], [3], [1]], np.int32)
    np.savez(path, lengths=[3, 1], obs=obs, actions=actions, terminated=[True, False])
    demos = npz.read_npz(path)
    assert demos.spec == EnvSpec(agents=1, obs=2, action=Discrete(4))
    assert demos.lengths.tolist() == [3, 1]
    assert torch.equal(demos[1].obs, torch.tensor(obs[4:], dtype=torch.float32))
    assert [(e.terminated, e.truncated) for e in demos] == [(True, False), (False, True)]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"obs": np.zeros((3, 1, 2))}, "`obs` has the shape .3, 1, 2., but `lengths` ask for 2 rows"),
        ({"lengths": [0, 1]}, "whole numbers of 1 or more"),
        ({"lengths": [2**62, 2**62]}, "an episode of 4,611,686,018,427,387,904 steps"),
        ({"goals": [1]}, "the array `goals` has no place"),
        ({"obs": np.array([[["a", "b"]], [["c", "d"]]])}, "numbers are meant"),
        ({"obs": np.array([[[None, 1]], [[2, 3]]])}, "holds Python objects, which are never loaded"),
        ({"obs": np.full((2, 1, 2), np.nan)}, "not a finite number"),
        ({"actions": np.zeros((1, 3))}, "cannot|actions|shape"),
        ({"terminated": [2]}, "true or false"),
    ],
)
def test_a_bad_archive_is_refused(arrays, message, tmp_path):
    good = {"lengths": [1], "obs": np.zeros((2, 1, 2)), "actions": np.zeros((1, 1), np.int64)}
    np.savez(tmp_path / "bad.npz", **(good | arrays))
    with pytest.raises(DemosError, match=message):
        npz.read_npz(tmp_path / "bad.npz")


def test_a_small_archive_that_unpacks_to_much_is_refused_unopened(tmp_path):
    np.savez_compressed(tmp_path / "bomb.npz", obs=np.zeros(10_000_000))
    assert (tmp_path / "bomb.npz").stat().st_size < 100_000
    with pytest.raises(DemosError, match="more than the limit of 1,000,000"):
        npz.load_arrays(tmp_path / "bomb.npz", max_bytes=1_000_000)


def test_an_array_that_claims_more_than_it_has_is_refused(tmp_path):
    path = tmp_path / "liar.npz"
    with zipfile.ZipFile(path, "w") as archive, archive.open("obs.npy", "w") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f8", "fortran_order": False, "shape": (10**13,)})
    with pytest.raises(DemosError, match="claims the shape"):
        npz.load_arrays(path)


# ---- PettingZoo


class Tag:
    """A game for two that a third joins at step 2 and the first leaves, terminated, at step 3; over at step 5."""

    possible_agents = ("a", "b", "c")

    def observation_space(self, agent):
        return spaces.Box(-9, 99, (2 if agent == "a" else 1,))

    def action_space(self, agent):
        return spaces.Discrete(3 if agent == "c" else 2)

    def _seen(self):
        return {a: np.full(2 if a == "a" else 1, self.t, np.float32) for a in self.agents}

    def reset(self, seed=None, options=None):
        self.t, self.agents = 0, ["a", "b"]
        return self._seen(), {a: {"luck": 1} for a in self.agents}

    def step(self, actions):
        self.t += 1
        if self.t == 2:
            self.agents.append("c")
        over = {a: a == "a" and self.t == 3 for a in self.agents}
        cut = {a: self.t == 5 for a in self.agents}
        result = self._seen(), {a: float(self.t) for a in self.agents}, over, cut, {a: {} for a in self.agents}
        self.agents = [a for a in self.agents if not (over[a] or cut[a])]
        return result


def play(env, steps: int = 9):
    env.reset(seed=1)
    for _ in range(steps):
        if not env.agents:
            break
        env.step({agent: 1 for agent in env.agents})


def test_agents_that_come_and_go_are_recorded_as_they_did():
    env = pettingzoo.RecordingParallel(Tag())
    play(env)
    (episode,) = env.demos()
    here = [[1, 1, 0], [1, 1, 0], [1, 1, 1], [0, 1, 1], [0, 1, 1], [0, 1, 1]]
    assert episode.present.int().tolist() == here
    assert episode.actions.tolist() == here[:-1]
    assert episode.obs[:, 0].tolist() == [[0, 0], [1, 1], [2, 2], [3, 3], [0, 0], [0, 0]]  # it saw its own end
    assert episode.obs[:, 1].tolist() == [[t, 0] for t in range(6)]
    assert episode.rewards.tolist() == [[1, 1, 0], [2, 2, 2], [3, 3, 3], [0, 4, 4], [0, 5, 5]]
    assert (episode.terminated, episode.truncated) == (False, True)
    assert episode.labels["agent_terminated"].nonzero().tolist() == [[2, 0]]
    assert episode.labels["agent_truncated"].nonzero().tolist() == [[4, 1], [4, 2]]
    assert episode.legal[0].tolist() == [[True, True, False]] * 2 + [[True] * 3]


def test_an_episode_that_was_left_is_truncated_and_what_came_before_stays():
    env = pettingzoo.RecordingParallel(Tag())
    play(env, steps=2)
    play(env)
    env.reset()
    demos = env.demos()
    assert demos.lengths.tolist() == [2, 5]
    assert demos[0].truncated
    assert demos[0].obs[:, 1, 0].tolist() == [0, 1, 2]


def test_an_agent_in_the_game_without_an_action_is_refused():
    env = pettingzoo.RecordingParallel(Tag())
    env.reset()
    env.step({"a": 1})
    with pytest.raises(DemosError, match="episode 0, step 0: b is in the game, but no action"):
        env.demos()


def test_particles_of_the_peer_are_recorded_bit_for_bit():
    env = pettingzoo.RecordingParallel(
        pytest.importorskip("mpe2.simple_speaker_listener_v4").parallel_env(max_cycles=4)
    )
    obs, _ = env.reset(seed=3)
    seen, paid = [obs], []
    while env.agents:
        obs, rewards, *_ = env.step({"speaker_0": 2, "listener_0": 4})
        seen.append(obs)
        paid.append(rewards)
    demos = env.demos()
    (episode,) = demos
    assert (demos.spec.obs_sizes, demos.spec.action_sizes) == ((3, 11), (3, 5))
    assert (episode.present, episode.terminated, episode.truncated, episode.labels) == (None, False, True, {})
    for i, name in enumerate(demos.spec.names):
        wide = demos.spec.obs_sizes[i]
        np.testing.assert_array_equal(episode.obs[:, i, :wide], np.stack([now[name] for now in seen]))
        np.testing.assert_array_equal(episode.rewards[:, i], np.float32([now[name] for now in paid]))


def test_a_game_of_turns_has_one_agent_a_step_and_its_masks():
    env = pettingzoo.RecordingAEC(pytest.importorskip("pettingzoo.classic.tictactoe_v3").env())
    env.reset(seed=0)
    for agent in env.agent_iter():
        _, _, terminated, truncated, _ = env.last()
        free = env.observe(agent)["action_mask"].nonzero()[0]
        env.step(None if terminated or truncated else int(free[0]))
    demos = env.demos()
    (episode,) = demos
    assert episode.actions.sum(1).tolist() == [0, 1, 2, 3, 4, 5, 6]  # each takes the first free field
    assert episode.present.int().tolist() == [[1, 0], [0, 1]] * 3 + [[1, 0], [1, 1]]
    assert episode.rewards[-1].tolist() == [1, -1]
    assert episode.rewards[:-1].abs().sum() == 0
    assert episode.legal[3, 1].tolist() == [False] * 3 + [True] * 6
    assert episode.terminated
    assert not episode.truncated


def test_who_leaves_a_game_of_turns_has_no_more_turns():
    conversions = pytest.importorskip("pettingzoo.utils.conversions")
    tag = Tag()
    tag.metadata, tag.render_mode, tag.unwrapped = {}, None, tag
    env = pettingzoo.RecordingAEC(conversions.parallel_to_aec_wrapper(tag))
    env.reset()
    for _ in env.agent_iter():
        _, _, terminated, truncated, _ = env.last()
        env.step(None if terminated or truncated else 1)
    (episode,) = env.demos()
    turns = episode.present[:-1].int().argmax(1)
    assert (episode.present[:-1].sum(1) == 1).all()
    assert turns.tolist() == [0, 1, 0, 1, 0, 1, 2, 1, 2, 1, 2]  # c is there from the third round, a until it
    assert episode.labels["agent_terminated"].nonzero().tolist() == [[6, 0]]
    assert episode.labels["agent_truncated"].nonzero().tolist() == [[10, 1], [10, 2]]
    assert episode.truncated


# ---- lists of trajectories


def test_trajectories_go_there_and_back():
    for kind in ("discrete", "continuous"):
        demos = made_up(kind, full=False, agents=1)
        got = trajectories.from_trajectories(trajectories.to_trajectories(demos), demos.spec, demos.about)
        assert_same(got, demos, names=False)


def test_trajectories_say_what_they_leave_out():
    class Given:
        obs, acts, terminal, infos = np.zeros((3, 2)), np.zeros(2, int), True, [{}, {}]

    demos = trajectories.from_trajectories([Given, Given])
    assert demos.about.notes == "Left out: infos."
    Given.acts = np.zeros(3, int)
    with pytest.raises(DemosError, match="obs must be one longer"):
        trajectories.from_trajectories([Given])
    with pytest.raises(DemosError, match="missing for a while"):
        trajectories.to_trajectories(made_up("discrete"))


# ---- people cooking


def eyes(trial: overcooked.Trial) -> dict:
    """A stand-in for an env's features: where the two stand."""
    return {"obs": trial.positions.float()}


SPEC = EnvSpec(agents=2, obs=2, action=Discrete(6), dt=0.15)


def test_all_recordings_of_cooking_are_read():
    trials = overcooked.read_trials(COOKING)
    assert len(trials) == 76
    for split, count, steps in (("train", 39, 46_729), ("test", 37, 44_373)):
        of_split = [trial for trial in trials if trial.info["split"] == split]
        assert (len(of_split), sum(len(t.actions) for t in of_split)) == (count, steps)
    for trial in trials:
        assert trial.rewards.sum() == trial.info["score"]
        paid = trial.rewards > 0  # for what is done at that moment: a soup in hand is put on the counter
        assert ((trial.held == 3) & (trial.actions == overcooked.INTERACT))[paid].any(1).all()
        there = torch.tensor([[cell != "X" for cell in row] for row in trial.grid])
        assert there[trial.positions[..., 1], trial.positions[..., 0]].all()


def test_recordings_of_cooking_become_demos():
    demos = overcooked.read_overcooked(COOKING, SPEC, eyes, layout="cramped_room", split="train")
    trials = overcooked.read_trials(COOKING, "cramped_room", "train")
    assert demos.steps == sum(len(trial.actions) - 1 for trial in trials)  # the last one's end is not recorded
    assert demos.infos[0]["layout"] == "cramped_room"
    played_on = overcooked.read_overcooked(
        COOKING, SPEC, lambda t: {"obs": torch.cat([eyes(t)["obs"], torch.zeros(1, 2, 2)])}, "cramped_room", "train"
    )
    assert played_on.steps == sum(len(trial.actions) for trial in trials)
    assert played_on.returns()[:, 0].tolist() == [trial.info["score"] for trial in trials]
    with pytest.raises(DemosError, match="featurise gave 1 moments"):
        overcooked.read_overcooked(COOKING, SPEC, lambda t: {"obs": torch.zeros(1, 2, 2)}, "cramped_room")
    with pytest.raises(DemosError, match=r"layout 'cramped_rom'. Did you mean `cramped_room`"):
        overcooked.read_trials(COOKING, "cramped_rom")


def test_recordings_of_cooking_go_there_and_back(tmp_path):
    trials = overcooked.read_trials(COOKING)
    overcooked.write_trials(trials, tmp_path)
    for ours, theirs in zip(overcooked.read_trials(tmp_path), trials, strict=True):
        assert (ours.name, ours.grid, ours.info) == (theirs.name, theirs.grid, theirs.info)
        for part in ("positions", "facing", "held", "objects", "actions", "rewards"):
            assert torch.equal(getattr(ours, part), getattr(theirs, part)), part


def cooking(old: bool = True, inside: str = "onion") -> dict:
    """Two moments in the JSON of Overcooked-AI, in its form of 2019 or of today."""
    soup = {"name": "soup", "position": [2, 0]}
    if old:
        soup["state"] = [inside, 3, 7]
    else:
        soup |= {"_ingredients": [{"name": n, "position": [2, 0]} for n in ("onion", inside)], "_cooking_tick": -1}
    cooks = [
        {"position": [1, 2], "orientation": [0, -1], "held_object": {"name": "dish", "position": [1, 2]}},
        {"position": [3, 1], "orientation": [-1, 0], "held_object": None},
    ]
    state = {"players": cooks, "objects": [soup]}
    params = {"layout_name": "cramped_room", "terrain": ["XXPXX", "O   O", "X   X", "XDXSX"]}
    return {
        "ep_observations" if old else "ep_states": [[state, state | {"objects": []}]],
        "ep_actions": [[[[0, 1], "interact"], [[0, 0], "INTERACT"]]],
        "ep_rewards": [[0, 20]],
        "mdp_params": [params | {"start_player_positions": [[1, 2], [3, 1]]}],
    }


@pytest.mark.parametrize(("old", "soup"), [(True, [2, 0, 3, 3, 7]), (False, [2, 0, 3, 2, 0])])
def test_trajectories_of_the_game_itself_are_read(old, soup, tmp_path):
    path = tmp_path / "play.json"
    path.write_text(json.dumps(cooking(old)))
    (trial,) = overcooked.read_json(path)
    assert trial.grid == ("XXPXX", "O  2O", "X1  X", "XDXSX")
    assert trial.positions[0].tolist() == [[1, 2], [3, 1]]
    assert trial.facing[0].tolist() == [0, 3]
    assert trial.held[0].tolist() == [2, 0]
    assert trial.objects.tolist() == [[soup], [[-1] * 5]]
    assert trial.actions.tolist() == [[1, 5], [4, 5]]
    assert overcooked.read_overcooked(path, SPEC, eyes).steps == 1
    path.write_text(json.dumps(cooking(old, inside="tomato")))
    with pytest.raises(DemosError, match="a soup with tomatoes"):
        overcooked.read_json(path)


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        ("ep_rewards", [[0]], "2 states, 2 actions and 1 rewards"),
        ("ep_actions", [[[[0, 1], [2, 2]], [[0, 0], "interact"]]], "KeyError"),
        ("ep_observations", [], "0 episodes of states, but 1 of `ep_actions`"),
        ("mdp_params", [{"layout_name": "x", "terrain": ["X"], "start_player_positions": [[5, 5]]}], "IndexError"),
    ],
)
def test_a_bad_trajectory_of_the_game_is_refused(part, value, message, tmp_path):
    (tmp_path / "play.json").write_text(json.dumps(cooking() | {part: value}))
    with pytest.raises(DemosError, match=message):
        overcooked.read_json(tmp_path / "play.json")


def test_a_trial_beyond_its_codes_is_refused():
    place = torch.zeros(2, 2, dtype=torch.long)
    parts = {"positions": torch.ones(2, 2, 2, dtype=torch.long), "facing": place, "held": place, "actions": place}
    parts |= {"objects": torch.zeros(2, 0, 5, dtype=torch.long), "rewards": torch.zeros(2)}
    assert overcooked.Trial("t", ("XX",), **parts).info == {}
    with pytest.raises(DemosError, match="t: held must be from 0 to 4, got 0 to 5"):
        overcooked.Trial("t", ("XX",), **parts | {"held": place + torch.tensor([0, 5])})


# ---- the door


def test_every_format_converts_into_every_other(tmp_path):
    demos = made_up("multi_discrete")
    source = tmp_path / "start.npz"
    formats.write(demos, source)
    for target in ("a.csv", "b.parquet", "c/main_data.hdf5", "d", "e.npz"):
        formats.convert(source, tmp_path / target)
        source = tmp_path / target
        assert_same(formats.read(source), demos)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("play.pickle", "a pickle runs whatever code it holds"),
        ("play.csw", r"unknown format '.csw'. Did you mean `.csv`"),
        ("play.csv", "there is no such file"),
        ("play", "there is no such folder"),
        (".", "the folder holds neither"),
        ("play.json", "`read_overcooked`"),
        ("play.h5", "a Minari data set is a folder with main_data.hdf5"),
    ],
)
def test_the_door_says_what_it_does_not_know(path, message, tmp_path):
    with pytest.raises(DemosError, match=message):
        formats.read(tmp_path / path)
    with pytest.raises(DemosError, match=r"unknown format 'cvs'. Did you mean `csv`"):
        formats.read(tmp_path / path, format="cvs")


# ---- what comes from outside may be anything


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    """One sound file of each format."""
    folder = tmp_path_factory.mktemp("sound")
    for name in ("demos.csv", "demos.parquet", "demos.npz", "minari/main_data.hdf5"):
        formats.write(made_up("discrete"), folder / name)
    return folder


FILES = ("demos.csv", "demos.csv.json", "demos.parquet", "demos.npz", "main_data.hdf5", "metadata.json")


def read_damaged(files: Path, folder: Path, name: str, kind: str, where: float, noise: bytes) -> str:
    """Read a copy of the sound files with one of them damaged: "refused", or "same" if it gives the same bits."""
    shutil.copytree(files, folder, dirs_exist_ok=True)
    path = next(folder.rglob(name))
    data = bytearray(path.read_bytes())
    at = int(where * (len(data) - 1))
    if kind == "cut":
        del data[at:]
    elif kind == "insert":
        data[at:at] = noise
    elif kind == "swap":
        data[at], data[-at] = data[-at], data[at]
    elif kind == "flip":
        data[at] ^= 1 << (noise[0] % 8)
    else:
        data[at : at + len(noise)] = bytes(len(data[at : at + len(noise)]))
    path.write_bytes(data)
    try:
        read = formats.read(folder / "minari" if path.parent.name == "minari" else str(path).removesuffix(".json"))
    except DemosError:
        return "refused"
    assert_same(read, made_up("discrete"))
    return "same"


@pytest.mark.parametrize("name", FILES)
@settings(max_examples=40, deadline=None)
@given(
    kind=st.sampled_from(["flip", "cut", "zero", "insert", "swap"]),
    where=st.floats(0, 1),
    noise=st.binary(min_size=1, max_size=9),
)
def test_a_damaged_file_is_refused_or_gives_the_same_bits(files, tmp_path_factory, name, kind, where, noise):
    assert read_damaged(files, tmp_path_factory.mktemp("damaged"), name, kind, where, noise) in ("refused", "same")


@pytest.mark.slow
def test_of_many_damaged_files_none_is_read_as_something_else(files, tmp_path):
    rng, counts = random.Random(0), Counter()
    for name in FILES:
        for _ in range(800):
            kind, noise = rng.choice(["flip", "cut", "zero", "insert", "swap"]), rng.randbytes(rng.randint(1, 9))
            counts[read_damaged(files, tmp_path, name, kind, rng.random(), noise)] += 1
    print(dict(counts))
    assert counts.total() == 4800


@settings(max_examples=60, deadline=None)
@given(st.floats(0, 1), st.binary(min_size=1, max_size=9))
def test_a_damaged_trajectory_of_the_game_is_read_or_refused(tmp_path_factory, where, noise):
    data = bytearray(json.dumps(cooking()).encode())
    at = int(where * (len(data) - 1))
    data[at : at + len(noise)] = noise
    path = tmp_path_factory.mktemp("damaged") / "play.json"
    path.write_bytes(data)
    with suppress(DemosError):
        overcooked.read_json(path)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(*[st.sampled_from([None, "", "0", "1", "2", "-1", "x", "1.5", "nan", "1e400", "true"])] * 6)))
def test_no_table_of_text_does_anything_but_be_read_or_refused(rows):
    names = ("episode", "t", "agent", "obs_0", "action", "terminated")
    table = pa.table({name: pa.array([row[k] for row in rows], pa.string()) for k, name in enumerate(names)})
    refusal = None
    try:
        from_table(table)
    except DemosError as error:
        refusal = error.__cause__
    assert refusal is None  # by a rule, not by an accident
