import hashlib
import json
import math
import os
import shutil
import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from tests.demos.common import ABOUT, DISCRETE, demos, episode
from understudy.core.errors import DemosError
from understudy.core.random import generator
from understudy.core.tree import tree_leaves
from understudy.core.types import Continuous, Discrete, EnvSpec, MultiDiscrete, action_shape
from understudy.demos import About, Demos, Episode, statistics, store
from understudy.demos.check import check, fix
from understudy.demos.demos import Table
from understudy.demos.store import Recorder


def same(a: Demos, b: Demos, window: int, count: int = 12) -> None:
    for position in range(count):
        here, there = (x.batch(position, 5, seed=3, window=window) for x in (a, b))
        for x, y in zip(tree_leaves(here), tree_leaves(there), strict=True):
            assert torch.equal(x, y)


@pytest.mark.parametrize("full", [True, False])
@pytest.mark.parametrize("memory", [0, 2**28])
def test_a_set_comes_back_from_disk_bit_for_bit_and_draws_the_same_batches(tmp_path, monkeypatch, full, memory):
    monkeypatch.setattr(store, "SHARD_BYTES", 2000)
    made = demos([7, 1, 12, 30, 5, 9, 9], full=full)
    made.save(tmp_path / "set")
    back = Demos.load(tmp_path / "set", memory=memory)
    assert len(list((tmp_path / "set").glob("*.arrow"))) > 1
    assert (back.spec, back.about, back.names, back.infos) == (made.spec, made.about, made.names, made.infos)
    assert back.fingerprint() == made.fingerprint()
    for window in (1, 4):
        same(back, made, window)
        same(back.select([5, 0, 3, 3]), made.select([5, 0, 3, 3]), window)


def test_what_is_appended_or_recorded_one_by_one_is_the_same_set(tmp_path):
    lengths = [7, 1, 12, 30, 5]
    whole = demos(lengths)
    store.save(tmp_path / "a", DISCRETE, [episode(n, lengths[n]) for n in range(2)], ABOUT)
    store.append(tmp_path / "a", [episode(n, lengths[n]) for n in range(2, 5)])
    recorder = Recorder(tmp_path / "b", DISCRETE, ABOUT)
    assert len(Demos.load(tmp_path / "b")) == 0
    assert [recorder.add(episode(n, steps)) for n, steps in enumerate(lengths)] == [0, 1, 2, 3, 4]
    assert len(list((tmp_path / "b").glob("*.arrow"))) == 5
    for name in "ab":
        assert Demos.load(tmp_path / name).fingerprint() == whole.fingerprint()
    mapped = Demos.load(tmp_path / "b", memory=0)
    store.compact(tmp_path / "b")
    assert len(list((tmp_path / "b").glob("*.arrow"))) == 1
    assert Demos.load(tmp_path / "b").fingerprint() == whole.fingerprint()
    same(mapped, whole, 1)  # who had it open reads on


def test_the_figures_are_those_of_numpy_however_the_set_was_written(tmp_path, monkeypatch):
    monkeypatch.setattr(statistics, "AT_ONCE", 7)
    lengths = [7, 1, 12, 30, 5]
    recorder = Recorder(tmp_path / "set", DISCRETE)
    episodes = [episode(n, steps) for n, steps in enumerate(lengths)]
    for e in episodes:
        e.present[: len(e) // 2, 1] = False
        recorder.add(e)
    figures = store.read_index(tmp_path / "set").statistics
    assert (figures["episodes"], figures["steps"], figures["shortest"], figures["longest"]) == (5, 55, 1, 30)
    for agent in range(2):
        obs = np.concatenate([e.obs[e.present[:, agent], agent].numpy() for e in episodes]).astype(np.float64)
        rewards = np.concatenate([e.rewards[e.present[:-1, agent], agent].numpy() for e in episodes])
        actions = np.concatenate([e.actions[e.present[:-1, agent], agent].numpy() for e in episodes])
        for name in ("mean", "std", "min", "max"):
            np.testing.assert_allclose(figures["obs"][name][agent], getattr(obs, name)(0), atol=1e-12)
            np.testing.assert_allclose(figures["rewards"][name][agent], [getattr(rewards.astype(float), name)()])
        assert figures["obs"]["count"][agent] == len(obs)
        assert figures["actions"]["chosen"][agent] == np.bincount(actions, minlength=4).tolist()


@pytest.mark.parametrize(
    "action", [Continuous(2), Continuous(1, -math.inf, math.inf), Discrete(3), MultiDiscrete((3, 2))]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.uint8])
def test_every_kind_of_action_and_number_keeps_its_bits(tmp_path, action, dtype):
    spec = EnvSpec(agents=2, obs=3, action=action)
    obs = (torch.rand(5, 2, 3, generator=generator(0)) * 200).to(dtype)
    shape = (4, 2, *action_shape(action))
    actions = torch.rand(shape, generator=generator(1)) if isinstance(action, Continuous) else torch.ones(shape).long()
    made = Demos.from_episodes(spec, [Episode(obs, actions)])
    made.save(tmp_path / "set")
    back = Demos.load(tmp_path / "set")
    assert back.spec == spec
    assert back[0].obs.dtype == dtype and torch.equal(back[0].obs, obs)
    assert torch.equal(back[0].actions, actions)
    assert back.batch(0, 4, 0).obs.is_floating_point()
    chosen = store.read_index(tmp_path / "set").statistics["actions"]
    if isinstance(action, MultiDiscrete):
        assert chosen == {"chosen": [[0, 4, 0, 0, 4]] * 2}


def test_a_set_is_not_overwritten_unasked(tmp_path):
    demos([3]).save(tmp_path / "set")
    with pytest.raises(DemosError, match="a set of 1 episodes is here"):
        demos([4]).save(tmp_path / "set")
    demos([4]).save(tmp_path / "set", replace=True)
    assert Demos.load(tmp_path / "set").lengths.tolist() == [4]
    assert len(list((tmp_path / "set").glob("*.arrow"))) == 1


def test_what_does_not_belong_to_a_set_is_refused_and_leaves_it_as_it_was(tmp_path):
    folder = tmp_path / "set"
    demos([3, 4]).save(folder)
    before = {p.name: p.read_bytes() for p in folder.iterdir() if p.name != store.LOCK}
    with pytest.raises(DemosError, match="another spec"):
        Recorder(folder, EnvSpec(agents=2, obs=4, action=Discrete(4)))
    bad = episode(2, 3)
    bad.rewards = None
    with pytest.raises(DemosError, match="episode 2: rewards is missing"):
        store.append(folder, [bad])
    bad = episode(3, 3)
    bad.obs[1, 1] = math.nan
    with pytest.raises(DemosError, match="episode 3, agent 1, step 1: obs is not a finite number"):
        store.append(folder, [episode(2, 3), bad])
    with pytest.raises(DemosError, match="plain data"):
        store.save(tmp_path / "other", DISCRETE, [episode(0, 3)], About(env={"rules": object()}))
    assert before == {p.name: p.read_bytes() for p in folder.iterdir() if p.name != store.LOCK}


def test_a_mask_that_the_set_has_is_filled_in_and_means_all(tmp_path):
    store.save(tmp_path / "set", DISCRETE, [episode(0, 3)], ABOUT)
    plain = episode(1, 4)
    plain.present = plain.legal = None
    store.append(tmp_path / "set", [plain])
    assert Demos.load(tmp_path / "set")[1].legal.all()


def test_writing_to_a_mapped_tensor_changes_no_file(tmp_path):
    made = demos([3, 4])
    made.save(tmp_path / "set")
    Demos.load(tmp_path / "set", memory=0)[0].obs.zero_()
    assert Demos.load(tmp_path / "set").fingerprint() == made.fingerprint()


def test_a_folder_without_a_set_and_a_later_version_are_named(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path, tmp_path / "file", tmp_path / "nowhere", "a\0b", "n" * 5000):
        with pytest.raises(DemosError, match="no demos here"):
            Demos.load(path)
    demos([3]).save(tmp_path / "set")
    index = tmp_path / "set" / store.INDEX
    index.write_text(index.read_text().replace('"schema": 2', '"schema": 3'))
    with pytest.raises(DemosError, match="schema 3 came, and this version reads schemas 1 and 2"):
        Demos.load(tmp_path / "set")


def test_a_second_writer_waits_and_is_told_who_writes(tmp_path, monkeypatch):
    demos([3]).save(tmp_path / "set")
    monkeypatch.setattr(store, "PATIENCE", 0.05)
    with store._locked(tmp_path / "set"), pytest.raises(DemosError, match=f"process {os.getpid()} of .* is writing"):
        store.append(tmp_path / "set", [episode(1, 2)])
    store.append(tmp_path / "set", [episode(1, 2)])
    assert len(Demos.load(tmp_path / "set")) == 2


def hostile(folder: Path, change) -> None:
    """Write an index that `change` made evil, with a checksum that fits."""
    data = json.loads((folder / store.INDEX).read_text())
    del data["sha256"]
    change(data)
    (folder / store.INDEX).write_bytes(store.signed(data))


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d["shards"][0].update(file="../../etc/passwd"),
        lambda d: d["shards"][0].update(moments=10**30),
        lambda d: d["shards"][0].update(episodes=True),
        lambda d: d["shards"][0].update(run="import os"),
        lambda d: d["episodes"]["length"].__setitem__(0, 10**30),
        lambda d: d["episodes"]["length"].__setitem__(0, -1),
        lambda d: d["episodes"]["length"].__setitem__(0, True),
        lambda d: d["episodes"]["length"].append(1),
        lambda d: d["episodes"]["terminated"].__setitem__(0, "yes"),
        lambda d: d["episodes"]["weight"].__setitem__(0, -1.0),
        lambda d: d["episodes"]["weight"].__setitem__(0, 1e308),
        lambda d: d["episodes"]["name"].__setitem__(0, 7),
        lambda d: d["episodes"]["info"].__setitem__(0, {"players": ["a", "b"]}),
        lambda d: d["episodes"].update(sha256=d["episodes"]["sha256"][2:]),
        lambda d: d["episodes"].update(sha256="x" * 128),
        lambda d: d["episodes"].update(name="ab"),
        lambda d: d.update(statistics=None),
        lambda d: d["statistics"].update(steps=8),
        lambda d: d["statistics"].update(evil=1),
        lambda d: d["statistics"]["obs"].update(mean=[[0, 0, "x"], [0, 0, 0]]),
        lambda d: d["statistics"]["obs"].update(mean=[[0, 0], [0, 0]]),
        lambda d: d["statistics"]["rewards"].update(std=[[1e999], [0]]) or d["statistics"]["rewards"].pop("std"),
        lambda d: d["statistics"]["actions"].update(chosen=[[10**40] * 4] * 2),
        lambda d: d["statistics"]["actions"].update(chosen=5),
        lambda d: d["columns"].update(obs=["float32", [2, 2**40]]),
        lambda d: d["columns"].update(obs=["complex64", [2, 3]]),
        lambda d: d["columns"].update(obs=["float64", [2, 3]]),
        lambda d: d["columns"].update(extra=["float32", [1]]),
        lambda d: d["columns"].pop("obs"),
        lambda d: d["spec"].update(agents=3),
        lambda d: d["spec"].update(run="import os"),
        lambda d: d["spec"]["action"].update(kind="os.system"),
        lambda d: d.update(episodes=[]),
        lambda d: d.update(shards={"a": 1}),
        lambda d: d.pop("about"),
    ],
)
def test_an_index_that_lies_is_refused(tmp_path, change):
    demos([3, 4]).save(tmp_path / "set")
    hostile(tmp_path / "set", change)
    with pytest.raises(DemosError):
        Demos.load(tmp_path / "set")


@pytest.mark.parametrize("kind", ["compressed", "gaps", "batches", "truth", "dictionary", "extension"])
def test_an_arrow_file_of_another_making_is_refused(tmp_path, kind):
    folder = tmp_path / "set"
    demos([3, 4]).save(folder)
    path = folder / "shard-00000000.arrow"
    batch = pa.ipc.open_file(path.read_bytes()).get_batch(0)
    options, batches = None, [batch]
    if kind == "compressed":
        options = pa.ipc.IpcWriteOptions(compression="zstd")
    elif kind == "batches":
        batches = [batch.slice(0, 4), batch.slice(4)]
    else:
        name = "legal" if kind == "truth" else "whole"
        column = batch.column(name)
        size = column.type.list_size
        if kind == "truth":
            new = pa.FixedSizeListArray.from_arrays(pa.array(np.full(len(batch) * size, 7, np.uint8)), type=column.type)
        elif kind == "gaps":
            new = pa.array([None, *column.to_pylist()[1:]], type=pa.list_(pa.float32(), size))
        elif kind == "dictionary":
            new = pa.array(["a"] * len(batch)).dictionary_encode()
        else:
            new = pa.ExtensionArray.from_storage(pa.uuid(), pa.array([b"0" * 16] * len(batch), pa.binary(16)))
        batches = [batch.set_column(batch.schema.get_field_index(name), name, new)]
        if kind == "truth":
            batches = [pa.record_batch(batches[0].columns, schema=batch.schema)]
    with pa.ipc.new_file(str(path), batches[0].schema, options=options) as writer:
        for b in batches:
            writer.write_batch(b)
    text = path.read_bytes()
    hostile(folder, lambda d: d["shards"][0].update(bytes=len(text), sha256=hashlib.sha256(text).hexdigest()))
    with pytest.raises(DemosError, match="shard-00000000"):
        Demos.load(folder)


def test_sets_of_the_first_schema_stay_readable_and_can_be_added_to(tmp_path):
    kept = Path(__file__).parent / "data" / "schema_1"
    assert Demos.load(kept).fingerprint() == demos([3, 1, 2]).fingerprint()
    assert check(kept) == []
    shutil.copytree(kept, tmp_path / "set")
    store.append(tmp_path / "set", [episode(3, 4)])
    assert Demos.load(tmp_path / "set").fingerprint() == demos([3, 1, 2, 4]).fingerprint()
    (tmp_path / "set" / store.INDEX).unlink()
    assert fix(tmp_path / "set", tmp_path / "mended")[-1] == "4 of 4 episodes were saved", "shards of both schemas"
    assert Demos.load(tmp_path / "mended").fingerprint() == demos([3, 1, 2, 4]).fingerprint()
    text = (kept / store.INDEX).read_bytes()[: -store.END].replace(b'"offset": 4', b'"offset": 3')
    (tmp_path / "set" / store.INDEX).write_bytes(text + store._seal(text))
    with pytest.raises(DemosError, match="episode 1 does not begin where the one before it ends"):
        Demos.load(tmp_path / "set")


def test_an_index_of_many_short_episodes_stays_small(tmp_path):
    """With an object for each episode it took 1,500 bytes of memory and 220 of disk for each."""
    count, plain = 10_000, Episode(torch.zeros(6, 2, 3), torch.zeros(5, 2).long())
    store.save(tmp_path / "set", DISCRETE, [plain])
    told = {"terminated": torch.ones(count).bool(), "truncated": torch.zeros(count).bool()}
    table = Table.lying(
        lengths=torch.full((count,), 5), weights=torch.ones(count).double(), infos=({},) * count,
        names=tuple(f"e{n}" for n in range(count)), **told,
    )  # fmt: skip
    shard = store.Shard("shard-00000000.arrow", 1, "", 6 * count, count)
    columns = {"obs": ("float32", (2, 3)), "actions": ("int64", (2,))}
    figures = store.read_index(tmp_path / "set").statistics | {"episodes": count, "steps": 5 * count}
    text = store.signed(store.Index(DISCRETE, ABOUT, columns, (shard,), table, bytes(32 * count), figures, 1).to_json())
    tracemalloc.start()
    index, sound = store.parse_index(text, tmp_path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert sound and index.episodes.names == table.names and index.digests == bytes(32 * count)
    assert len(text) < 130 * count and peak < 700 * count
