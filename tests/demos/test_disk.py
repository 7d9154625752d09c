"""What the folder of a set survives: kills, damage, a full disk, power cuts, and company."""

import errno
import math
import os
import random
import resource
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import combinations
from pathlib import Path

import pytest
import torch

from tests.demos.common import ABOUT, DISCRETE, demos, episode
from understudy.core import files
from understudy.core.errors import DemosError, RunError
from understudy.demos import Demos, formats, store
from understudy.demos.check import check, fix
from understudy.demos.store import INDEX, Recorder

LENGTHS = [3, 1, 4, 2, 5]


def nth(number: int) -> store.Episode:
    """The `number`-th episode of an endless recording."""
    return episode(number, 1 + number % 5)


def child(work: Callable[[], None]) -> int:
    """Start `work` in a copy of this process, which has everything imported."""
    pid = os.fork()
    if pid == 0:
        try:
            torch.set_num_threads(1)
            work()
            os._exit(0)
        except BaseException as error:
            os.write(2, f"{error!r}\n".encode())
            os._exit(1)
    return pid


# ---- killed writers


def kills(folder: Path, count: int, seed: int) -> tuple[int, int]:
    """Kill `count` recorders at random moments; (episodes reported saved, episodes lost)."""
    chance = random.Random(seed)
    reported = lost = 0
    digests = [Demos.from_episodes(DISCRETE, [nth(n)]).digest(0) for n in range(600)]
    for kill in range(count):
        place = folder / str(kill // 40)  # recordings go on after a kill, for forty of them
        begun = len(Demos.load(place)) if (place / INDEX).exists() else 0
        reading, writing = os.pipe()

        def record(place: Path = place, begun: int = begun, writing: int = writing) -> None:
            recorder = Recorder(place, DISCRETE, ABOUT)
            for n in range(begun, 600):
                recorder.add(nth(n))
                os.write(writing, b".")

        pid = child(record)
        os.close(writing)
        said = len(b"".join(os.read(reading, 1) for _ in range(chance.randrange(4))))  # so many are waited for
        time.sleep(chance.uniform(0, 0.05))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        said += len(os.read(reading, 1000))
        os.close(reading)
        reported += said
        if said or (place / INDEX).exists():
            back = Demos.load(place)
            assert len(back) <= begun + said + 1, "more than the one in progress"
            lost += sum(n >= len(back) or back.digest(n) != digests[n] for n in range(begun + said))
            assert [back.digest(n) for n in range(len(back))] == digests[: len(back)]
    return reported, lost


def test_no_episode_that_was_reported_saved_is_lost_to_a_kill(tmp_path):
    reported, lost = kills(tmp_path, 20, seed=1)
    assert reported > 20 and lost == 0


@pytest.mark.slow
def test_no_episode_that_was_reported_saved_is_lost_to_a_thousand_kills(tmp_path, monkeypatch):
    monkeypatch.undo()  # the real flushes: a kill may come while one is waited for
    reported, lost = kills(tmp_path, 1000, seed=2)
    print(f"1000 kills: {reported} episodes reported saved, {lost} lost")
    assert reported > 1000 and lost == 0


# ---- damaged files


def damage(folder: Path, chance: random.Random) -> str:
    """Do one thing to one file of `folder` that should not happen, and say what."""
    files = sorted(p for p in folder.iterdir() if p.name != store.LOCK)
    path, other = chance.sample(files, 2)
    text = bytearray(path.read_bytes())
    kind = chance.choice(["flip", "cut", "extend", "swap files", "zero", "swap parts", "copy over", "remove", "noise"])
    start = chance.randrange(len(text))
    size = min(chance.choice([1, 8, 64, 512]), len(text) - start)
    if kind == "flip":
        text[start] ^= 1 << chance.randrange(8)
    elif kind == "cut":
        del text[start:]
    elif kind == "extend":
        text += chance.choice([b"\0" * size, chance.randbytes(size), bytes(text[:size]), b" "])
    elif kind == "zero":
        text[start : start + size] = bytes(size)
    elif kind == "noise":
        text[start : start + size] = chance.randbytes(size)
    elif kind == "swap parts":
        to = chance.randrange(len(text) - size + 1)
        text[start : start + size], text[to : to + size] = text[to : to + size], text[start : start + size]
    elif kind == "swap files":
        both = path.read_bytes(), other.read_bytes()
        other.write_bytes(both[0])
        text = bytearray(both[1])
    elif kind == "copy over":
        text = bytearray(other.read_bytes())
    path.write_bytes(text)
    if kind == "remove":
        path.unlink()
    return f"{kind} {path.name} {start} {size}"


def mutants(folder: Path, count: int, seed: int, mended: int = 1) -> dict[str, int]:
    """Damage a set `count` times; how often it was refused, was read as it had been, and read as something else.

    Each `mended`-th of those that were refused is checked and mended as well.
    """
    chance = random.Random(seed)
    with pytest.MonkeyPatch.context() as small:
        small.setattr(store, "SHARD_BYTES", 700)
        made = demos(LENGTHS)
        made.save(folder / "sound")
    want = made.fingerprint(), made.about
    tally = {"refused": 0, "the same": 0, "silent": 0}
    for number in range(count):
        shutil.copytree(folder / "sound", folder / "bad")
        said = damage(folder / "bad", chance)
        try:
            back = Demos.load(folder / "bad", memory=chance.choice([0, 2**28]))
            same = (back.fingerprint(), back.about) == want
            tally["the same" if same else "silent"] += 1
            assert same, f"mutant {number} of seed {seed}: {said}"
        except DemosError:
            tally["refused"] += 1
            if tally["refused"] % mended == 0:
                assert check(folder / "bad"), said
                saved(folder, made)
        shutil.rmtree(folder / "bad")
        shutil.rmtree(folder / "mended", ignore_errors=True)
    return tally


def saved(folder: Path, made: Demos) -> None:
    """Whatever `fix` saves is what was recorded."""
    try:
        fix(folder / "bad", folder / "mended")
    except DemosError:
        return
    sound = {made.digest(i) for i in range(len(made))}
    back = Demos.load(folder / "mended")
    assert {back.digest(i) for i in range(len(back))} <= sound


def test_damage_is_never_silent(tmp_path):
    tally = mutants(tmp_path, 500, seed=1, mended=10)
    assert tally["silent"] == 0 and tally["refused"] > 400


@pytest.mark.slow
def test_damage_is_never_silent_ten_thousand_times(tmp_path):
    tally = mutants(tmp_path, 10_000, seed=2)
    print(f"10000 mutants: {tally}")
    assert tally["silent"] == 0 and tally["refused"] > 8000


# ---- a disk that fails


class Disk:
    """`os`, which writes down what is asked of it, and fails at the n-th operation."""

    def __init__(self, fails: int | None = None):
        self.fails = fails
        self.count = 0
        self.room: float = math.inf  # bytes that one write finds
        self.trace: list[tuple] = []  # (what, name, data or new name)
        self.names: dict[int, str] = {}

    def __getattr__(self, name: str):
        return getattr(os, name)

    def _failing(self) -> bool:
        self.count += 1
        return self.count == self.fails

    def open(self, path, flags, mode=0o777):
        if self._failing():
            raise OSError(errno.ENOSPC, "no space", str(path))
        file = os.open(path, flags, mode)
        self.names[file] = "" if Path(path).is_dir() else Path(path).name
        if flags & os.O_TRUNC:
            self.trace.append(("create", self.names[file], None))
        return file

    def write(self, file, data):
        if self._failing() or len(data) > self.room:
            os.write(file, bytes(data)[: len(data) // 2])
            raise OSError(errno.ENOSPC, "no space")
        if self.names[file] != store.LOCK:
            self.trace.append(("write", self.names[file], bytes(data)))
        return os.write(file, data)

    def fsync(self, file):
        if self._failing():
            raise OSError(errno.EIO, "input/output error")
        self.trace.append(("fsync", self.names[file], None))

    def close(self, file):
        os.close(file)
        if self._failing():
            raise OSError(errno.EIO, "input/output error")

    def replace(self, old, new):
        if self._failing():
            raise OSError(errno.ENOSPC, "no space")
        self.trace.append(("replace", Path(old).name, Path(new).name))
        os.replace(old, new)

    def unlink(self, path):
        if self._failing():
            raise OSError(errno.EIO, "input/output error")
        self.trace.append(("unlink", Path(path).name, None))
        os.unlink(path)

    def listdir(self, path):
        if self._failing():
            raise OSError(errno.EIO, "input/output error")
        return os.listdir(path)


def install(monkeypatch, disk) -> None:
    """Let all that writes a set ask `disk`."""
    for module in (store, files):
        monkeypatch.setattr(module, "os", disk)


def old_set(folder: Path) -> None:
    """Two shards, one of them of one episode, and what a killed writer left."""
    store.save(folder, DISCRETE, [nth(0), nth(1)], ABOUT)
    store.append(folder, [nth(2)])
    (folder / "shard-00000002.arrow").write_bytes(b"left")
    (folder / ".index.json.1.part").write_bytes(b"left")


CHANGES: dict[str, tuple[Callable[[Path], object], list[int]]] = {  # what is done, and the episodes there are then
    "append": (lambda folder: store.append(folder, [nth(3), nth(4)]), [0, 1, 2, 3, 4]),
    "record": (lambda folder: Recorder(folder, DISCRETE).add(nth(3)), [0, 1, 2, 3]),
    "compact": (lambda folder: store.compact(folder), [0, 1, 2]),
    "replace": (lambda folder: store.save(folder, DISCRETE, [nth(7), nth(8)], replace=True), [7, 8]),
}


def numbers(folder: Path) -> list[int]:
    """The episodes that are in the set, which must be whole."""
    return [info["number"] for info in Demos.load(folder).infos]


@pytest.mark.parametrize("name", CHANGES)
def test_whichever_operation_fails_the_set_is_the_old_or_the_new_one(tmp_path, monkeypatch, name):
    change, after = CHANGES[name]
    old_set(tmp_path / "old")
    for n in range(1, 100):
        folder = tmp_path / str(n)
        shutil.copytree(tmp_path / "old", folder)
        disk = Disk(fails=n)
        install(monkeypatch, disk)
        with suppress(RunError):
            change(folder)
        install(monkeypatch, os)
        assert numbers(folder) in ([0, 1, 2], after)
        if disk.count < n:
            break
        assert [p for p in folder.glob(".*.part") if "index.json.1." not in p.name] == []
        if numbers(folder) == [0, 1, 2]:
            change(folder)
        assert numbers(folder)[: len(after)] == after
        store.compact(folder)
        assert len(list(folder.iterdir())) == 3, "the index, the lock and one shard"
    assert 15 < n < 99


def test_a_full_disk_is_said_with_the_bytes_that_it_takes(tmp_path, monkeypatch):
    old_set(tmp_path)
    disk = Disk()
    disk.room = 500
    install(monkeypatch, disk)
    with pytest.raises(RunError, match=r"[\d,]{4,} bytes \([\d,]+ are free\) could not be written: the disk is full"):
        store.append(tmp_path, [nth(3)])
    install(monkeypatch, os)
    assert numbers(tmp_path) == [0, 1, 2] and not list(tmp_path.glob(".*.part"))


@pytest.mark.parametrize("suffix", [".csv", ".npz", ".parquet"])
def test_what_stands_in_a_place_stays_where_writing_fails(tmp_path, suffix):
    made, path = demos([40] * 40), tmp_path / f"play{suffix}"
    formats.write(demos([3, 4]), path)
    before = {p.name: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(RunError, match="could not be written"):
            formats.write(made, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert before == {p.name: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}


# ---- a power cut


def crash_states(before: dict[str, bytes], trace: list[tuple]) -> Iterator[dict[str, bytes]]:
    """All that a disk may hold if the power goes after the operations of `trace`.

    A file holds what it held when it was last flushed, or nothing, half of what came since, noise, or all of it.
    Names that were made, moved or removed since the folder was last flushed are so on the disk or not, each by itself.
    """
    flushed = {i: text for i, text in enumerate(before.values())}  # content by file, whatever its name
    written = dict(flushed)
    entries = {name: i for i, name in enumerate(before)}  # what the folder surely says
    names = dict(entries)  # what the running system says
    pending: list[Callable[[dict[str, int]], object]] = []
    for what, name, more in trace:
        if what == "create":
            made = len(written)
            written[made], flushed[made], names[name] = b"", b"", made
            pending.append(lambda e, name=name, made=made: e.update({name: made}))
        elif what == "write":
            written[names[name]] += more
        elif what == "fsync" and name:
            flushed[names[name]] = written[names[name]]
        elif what == "fsync":
            entries, pending = dict(names), []
        elif what == "replace":
            moved = names.pop(name)
            names[more] = moved
            pending.append(lambda e, a=name, b=more, moved=moved: (e.pop(a, None), e.update({b: moved})))
        elif what == "unlink":
            del names[name]
            pending.append(lambda e, name=name: e.pop(name, None))
    loose = [i for i in written if written[i] != flushed[i]]
    for some in (s for k in range(len(pending) + 1) for s in combinations(pending, k)):
        folder = dict(entries)
        for apply in some:
            apply(folder)
        for torn in range(4 if loose else 1):
            content = dict(flushed)
            for i in loose:
                half = written[i][: len(written[i]) // 2]
                content[i] = [flushed[i], half, half + b"\xff" * (len(written[i]) - len(half)), written[i]][torn]
            yield {name: content[i] for name, i in folder.items()}


def violations(folder: Path, before: dict[str, bytes], trace: list[tuple], after: list[int]) -> int:
    """States that a power cut may leave and that are not the old set or the new; or not the new after the last step."""
    bad, seen = 0, set()
    for stop in range(len(trace) + 1):
        for state in crash_states(before, trace[:stop]):
            key = (stop == len(trace), frozenset(state.items()))
            if key in seen:
                continue
            seen.add(key)
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            for name, text in state.items():
                (folder / name).write_bytes(text)
            try:
                allowed = [after] if stop == len(trace) else [[0, 1, 2], after]
                bad += numbers(folder) not in allowed
            except DemosError:
                bad += 1
    return bad


@pytest.mark.parametrize("name", CHANGES)
def test_a_power_cut_leaves_the_old_set_or_the_new_one(tmp_path, monkeypatch, name):
    change, after = CHANGES[name]
    folder = tmp_path / "set"
    old_set(folder)
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    disk = Disk()
    install(monkeypatch, disk)
    change(folder)
    install(monkeypatch, os)
    assert violations(tmp_path / "crashed", before, disk.trace, after) == 0
    without_files = [t for t in disk.trace if t[0] != "fsync" or not t[1]]
    without_folders = [t for t in disk.trace if t[0] != "fsync" or t[1]]
    index_first = sorted(disk.trace, key=lambda t: INDEX not in t[1])
    for careless in (without_files, without_folders, index_first):  # so the test would see it
        assert violations(tmp_path / "crashed", before, careless, after) > 0


# ---- several writers and readers


def company(folder: Path, writers: int, adds: int) -> None:
    """`writers` processes record, one compacts and one reads; each episode must be there once, and reads be whole."""
    Recorder(folder, DISCRETE, ABOUT)

    def write(w: int) -> None:
        recorder = Recorder(folder, DISCRETE)
        for n in range(adds):
            recorder.add(nth(w * adds + n))

    def tidy() -> None:
        for _ in range(adds):
            store.compact(folder)

    def read() -> None:
        least = 0
        for _ in range(adds * 2):
            now = len(Demos.load(folder))
            assert now >= least
            least = now

    running = [child(lambda w=w: write(w)) for w in range(writers)] + [child(tidy), child(read)]
    assert [os.waitpid(pid, 0)[1] for pid in running] == [0] * len(running)
    assert sorted(numbers(folder)) == list(range(writers * adds))
    assert check(folder) == []


def test_writers_and_readers_keep_out_of_each_others_way(tmp_path):
    company(tmp_path, writers=2, adds=6)


@pytest.mark.slow
def test_eight_processes_keep_out_of_each_others_way(tmp_path):
    company(tmp_path, writers=6, adds=150)
