"""A set of demos as a folder: shards of Arrow, and one index that says what is in them.

    index.json               schema, spec, about, columns, statistics, shards, and the episodes column by column
    shard-00000042.arrow     an uncompressed Arrow IPC file of one record batch: a row for each moment
    lock                     who is writing

Whatever is written is written beside, flushed, then renamed, and the index comes last: a folder is at every moment the
old set or the new one, on a disk that may lose whatever was not flushed. Shards that no index names (a writer was
killed) are ignored, and removed by the next writer. The index has a checksum of its own and one of each file and each
episode. Nothing in a file is ever run: it is plain JSON, and numbers of the columns that the index declares.
"""

import hashlib
import json
import math
import os
import re
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, fields, replace
from itertools import count
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor

from understudy.core.config import say, to_dict
from understudy.core.errors import DemosError
from understudy.core.files import TEMPORARY, from_json, fsync_folder, refusal, sha256, write_atomically
from understudy.core.types import EnvSpec, action_shape
from understudy.demos.demos import About, Columns, Demos, Episode, Kinds, Table, kinds, pack
from understudy.demos.episode import HEAVIEST, expect_plain, findings, refuse
from understudy.demos.statistics import expect_figures, measure, merge

SCHEMA = 2
INDEX = "index.json"
LOCK = "lock"
SHARD = re.compile(r"shard-\d{8}\.arrow")
TOLD = b"understudy"  # key of what a shard says of itself
SHARD_BYTES = 2**25  # of columns; a longer episode has a shard of its own
END = 79  # bytes at the end of an index, its checksum: they tell it from every other
SIZE = 32  # bytes of a digest
PATIENCE = 30.0  # seconds that a writer waits for another
DTYPES = ("float16", "float32", "float64", "uint8", "int8", "int16", "int32", "int64", "bool")


@dataclass(frozen=True)
class Shard:
    """One file of moments, whose episodes follow on those of the shard before."""

    file: str
    bytes: int
    sha256: str
    moments: int
    episodes: int

    def __post_init__(self) -> None:
        for f in fields(self):
            if type(getattr(self, f.name)) is not f.type:
                raise TypeError(f"{f.name} of a shard: {say(getattr(self, f.name))}")


@dataclass(frozen=True, eq=False)
class Index:
    """What `index.json` says."""

    spec: EnvSpec
    about: About
    columns: Kinds = field(default_factory=dict)
    shards: tuple[Shard, ...] = ()
    episodes: Table = field(default_factory=lambda: Table.of(()))
    digests: bytes = b""  # `Demos.digest` of each episode, end to end
    statistics: dict[str, Any] | None = None
    number: int = 0  # of the next shard: no two ever share a name

    def to_json(self) -> dict[str, Any]:
        """Plain data that `from_json` reads. Columns of many episodes take a tenth of the memory of as many objects."""
        table = self.episodes
        return {
            "schema": SCHEMA,
            "spec": to_dict(self.spec.to_json()),
            "about": self.about.to_json(),
            "columns": self.columns,
            "statistics": self.statistics,
            "number": self.number,
            "shards": [vars(s) for s in self.shards],
            "episodes": {
                "name": table.names,
                "length": table.lengths.tolist(),
                "terminated": table.terminated.tolist(),
                "truncated": table.truncated.tolist(),
                "weight": table.weights.tolist(),
                "info": table.infos,
                "sha256": self.digests.hex(),
            },
        }

    @staticmethod
    def from_json(data: dict[str, Any]) -> "Index":
        """The index that plain `data` describes. Raises ValueError, TypeError or KeyError where it describes none."""
        table, digests = _episodes(data["episodes"])
        if type(data["number"]) is not int or not 0 <= data["number"] < 10**8:  # it names the next shard
            raise ValueError(f"number {say(data['number'])} of the next shard")
        made = Index(
            spec=EnvSpec.from_json(data["spec"]),
            about=About.from_json(data["about"]),
            columns={k: (str(dtype), tuple(map(int, shape))) for k, (dtype, shape) in data["columns"].items()},
            shards=tuple(Shard(**s) for s in data["shards"]),
            episodes=table,
            digests=digests,
            statistics=data["statistics"],
            number=data["number"],
        )
        made.prove()
        return made

    def prove(self) -> None:
        """Raise ValueError unless the parts fit together: the episodes must tile the shards."""
        agents, action = self.spec.agents, action_shape(self.spec.action)
        for name, wanted in {"obs": (agents, self.spec.obs), "actions": (agents, *action)}.items():
            if len(self.episodes) and (name not in self.columns or self.columns[name][1] != wanted):
                raise ValueError(f"column {name} is not the spec's, of {list(wanted)} a row")
        for name, (dtype, shape) in self.columns.items():
            if dtype not in DTYPES or min(shape, default=0) < 0:
                raise ValueError(f"column {name} of {dtype} {list(shape)}")
        if any(s.episodes < 1 for s in self.shards) or sum(s.episodes for s in self.shards) != len(self.episodes):
            raise ValueError(f"{len(self.episodes)} episodes, and another number in the shards")
        moments = (self.episodes.lengths + 1).split([s.episodes for s in self.shards])
        for shard, filled in zip(self.shards, moments, strict=True):
            if not SHARD.fullmatch(shard.file) or shard.bytes < 1 or shard.moments != int(filled.sum()):
                raise ValueError(f"shard {shard.file!r} of {shard.moments} moments holds episodes of another number")
        if self.statistics is not None:
            expect_figures(self.spec, self.columns, self.episodes, self.statistics)


ROW: dict[str, set[type]] = {
    "name": {str},
    "length": {int},
    "terminated": {bool},
    "truncated": {bool},
    "weight": {int, float},
    "info": {dict},
}
LONGEST = 2**40  # steps of an episode


def _episodes(data: dict[str, Any]) -> tuple[Table, bytes]:
    """The table of episodes, and their digests, of columns of plain data."""
    told = {name: data[name] for name in ROW}
    for name, types in ROW.items():
        if type(told[name]) is not list or not set(map(type, told[name])) <= types:
            raise TypeError(f"column {name} of the episodes")
    digests = bytes.fromhex(data["sha256"])
    if len({len(values) for values in told.values()} | {len(digests) // SIZE}) > 1 or len(digests) % SIZE:
        raise ValueError("columns of the episodes that differ in length")
    if not 1 <= min(told["length"], default=1) <= max(told["length"], default=1) <= LONGEST:
        raise ValueError("an episode without a step, or of more than there are")
    if not 0 <= min(told["weight"], default=0) <= max(told["weight"], default=0) <= HEAVIEST:
        raise ValueError("a weight that is none")
    for info in told["info"]:
        expect_plain(info)
    table = Table.lying(
        lengths=torch.tensor(told["length"], dtype=torch.long),
        terminated=torch.tensor(told["terminated"], dtype=torch.bool),
        truncated=torch.tensor(told["truncated"], dtype=torch.bool),
        weights=torch.tensor(told["weight"], dtype=torch.float64),
        names=tuple(told["name"]),
        infos=tuple(told["info"]),
    )
    return table, digests


def of_this_schema(data: dict[str, Any]) -> dict[str, Any]:
    """Plain data of an index that may be of schema 1, which had an object for each episode, with its place."""
    if data["schema"] == SCHEMA:
        return data
    if data["schema"] != 1:
        raise LaterSchema(f"schema {say(data['schema'])} came, and this version reads schemas 1 and {SCHEMA}.")
    entries, filled = data["episodes"], [0] * len(data["shards"] or [0])
    counts = [0] * len(filled)
    for number, e in enumerate(entries):
        if any(counts[e["shard"] + 1 :]) or e["offset"] != filled[e["shard"]]:
            raise ValueError(f"episode {number} does not begin where the one before it ends")
        filled[e["shard"]] += e["length"] + 1
        counts[e["shard"]] += 1
    shards = [{**s, "episodes": count} for s, count in zip(data["shards"], counts, strict=False)]
    episodes: dict[str, Any] = {name: [e[name] for e in entries] for name in ROW}
    episodes["sha256"] = "".join(e["sha256"] for e in entries)
    return data | {"schema": SCHEMA, "shards": shards, "episodes": episodes}


class LaterSchema(DemosError):
    """A set that a later version wrote: nothing is wrong with it."""


# ---- reading


def load(folder: Path, *, verify: bool = True, memory: int = 2**28) -> Demos:
    """See `Demos.load`."""
    while True:
        text = _read(folder)
        end, index = text[-END:], _sound(text, folder)
        del text  # of many episodes it is large
        try:
            blocks = [read_shard(folder, s, index.columns, verify=verify) for s in index.shards]
            break
        except FileNotFoundError as error:
            if _end(folder / INDEX) == end:  # else a writer has just replaced the set: read the new one
                raise DemosError(f"{error.filename}: the index names this shard, and it is not there.") from None
    if len(blocks) > 1 and sum(s.bytes for s in index.shards) <= memory:
        blocks = [{k: torch.cat([b[k] for b in blocks]) for k in index.columns}]
    elif blocks and sum(s.bytes for s in index.shards) <= memory:
        blocks = [{k: v.clone() for k, v in blocks[0].items()}]
    return Demos(index.spec, index.about, blocks, index.episodes)


def read_index(folder: Path) -> Index:
    """The index of the set in `folder`.

    Raises:
        DemosError: there is none, it is damaged, or it was written by a later version.
    """
    return _sound(_read(folder), folder)


def _read(folder: Path) -> bytes:
    try:
        return (folder / INDEX).read_bytes()
    except (OSError, ValueError) as error:  # a name with a zero in it is a ValueError
        why = getattr(error, "strerror", None) or error
        raise DemosError(f"{folder}: no demos here; a set is a folder with an {INDEX} ({why}).") from None


def _sound(text: bytes, folder: Path) -> Index:
    index, sound = parse_index(text, folder / INDEX)
    if not sound:
        raise DemosError(f"{folder / INDEX}: its checksum does not fit, so it was changed or damaged. {MEND}")
    return index


MEND = "`understudy demos check FOLDER` tells what is wrong; with `--fix NEW` it saves what is sound."


def parse_index(text: bytes, path: Path) -> tuple[Index, bool]:
    """The index in `text`, and whether its own checksum fits."""
    try:
        data = of_this_schema(from_json(text))
        index = Index.from_json(data)
        if index.statistics is None and len(index.episodes):
            raise ValueError("no statistics of its episodes")
        return index, text[-END:] == _seal(memoryview(text)[:-END])
    except LaterSchema as error:
        raise LaterSchema(f"{path}: {error}") from None
    except (ValueError, TypeError, KeyError, AttributeError, IndexError, OverflowError, RecursionError) as error:
        raise DemosError(f"{path}: damaged, it does not read as an index ({error}). {MEND}") from None


def signed(data: dict[str, Any]) -> bytes:
    """The bytes of an index: plain data, then the checksum of the bytes before it."""
    body = _text(data).encode()[:-1]
    return body + _seal(body)


def _seal(body: bytes | memoryview) -> bytes:
    digest = hashlib.sha256(body)
    digest.update(b"}")  # of the data alone, as they would be without it
    return f', "sha256": "{digest.hexdigest()}"}}'.encode()


def _text(data: dict[str, Any]) -> str:
    try:
        return json.dumps(data, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise DemosError(f"what is said about the set must be plain data that JSON can hold: {error}.") from None


def read_shard(folder: Path, shard: Shard, columns: Kinds, *, verify: bool = True) -> Columns:
    """The columns of a shard, memory-mapped: nothing is read before it is used, and writing to them changes no file.

    Raises:
        DemosError: the file is damaged; FileNotFoundError: it is not there.
    """
    path = folder / shard.file
    size = path.stat().st_size
    if size != shard.bytes:
        raise DemosError(f"{path}: it has {size:,} bytes, and was written with {shard.bytes:,}. {MEND}")
    raw = torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8)
    if verify and hashlib.sha256(raw.numpy().data).hexdigest() != shard.sha256:
        raise DemosError(f"{path}: its checksum does not fit, so a part of it was changed or damaged. {MEND}")
    return parse_shard(raw, shard.moments, columns, path)


def parse_shard(raw: Tensor, moments: int, columns: Kinds, path: Path) -> Columns:
    """The columns in the bytes of a shard, as views. A file of any other schema is refused before it is read."""
    try:
        reader = pa.ipc.open_file(pa.py_buffer(raw.numpy()))
        if not reader.schema.equals(_schema(columns)) or reader.num_record_batches != 1:
            raise DemosError(f"{path}: its columns are {reader.schema.names}, not those of the index. {MEND}")
        batch = reader.get_batch(0)
        batch.validate(full=True)
        if batch.num_rows != moments:
            raise DemosError(f"{path}: it has {batch.num_rows} moments, and the index says {moments}. {MEND}")
        return {name: _view(raw, batch, name, *kind) for name, kind in columns.items()}
    except (pa.ArrowException, OSError, ValueError, TypeError, KeyError, OverflowError) as error:
        if isinstance(error, DemosError):
            raise
        raise DemosError(f"{path}: damaged, it does not read as Arrow ({error}). {MEND}") from None


def _view(raw: Tensor, batch: pa.RecordBatch, name: str, dtype: str, shape: tuple[int, ...]) -> Tensor:
    """A column as a view of the file's bytes."""
    kind = getattr(torch, dtype)
    if 0 in shape:
        return torch.empty(batch.num_rows, *shape, dtype=kind)
    values = batch.column(name).flatten()
    buffer, bytes_ = values.buffers()[1], len(values) * kind.itemsize
    start = buffer.address - raw.data_ptr() + values.offset * kind.itemsize
    if values.null_count or not 0 <= start <= len(raw) - bytes_ or start % kind.itemsize:
        raise ValueError(f"column {name} is compressed, has gaps or lies askew")
    column = raw[start : start + bytes_]
    if kind == torch.bool and bytes_ and column.max() > 1:
        raise ValueError(f"column {name} has truth values other than 0 and 1")
    return column.view(kind).reshape(batch.num_rows, *shape)


def _schema(columns: Kinds) -> pa.Schema:
    def one(name: str, dtype: str, shape: tuple[int, ...]) -> pa.Field:
        kind = pa.uint8() if dtype == "bool" else getattr(pa, dtype)()  # Arrow packs bits, and a view cannot
        return pa.field(name, pa.list_(pa.field("item", kind, nullable=False), math.prod(shape)), nullable=False)

    return pa.schema([one(k, *v) for k, v in sorted(columns.items()) if 0 not in v[1]])


# ---- writing


def save(
    folder: str | Path, spec: EnvSpec, episodes: Iterable[Episode], about: About | None = None, *, replace: bool = False
) -> None:
    """Write `episodes` to `folder`, whole or not at all. They are taken one by one and may be more than fit in memory.

    Raises:
        DemosError: the folder holds a set (unless `replace`), an episode is unsound, or another process is writing.
        RunError: it cannot be written, such as on a full disk; what was in the folder is as it was.
    """

    def start(old: Index | None) -> tuple[Index, Iterable[Episode]]:
        if old is not None and not replace:
            raise DemosError(
                f"{folder}: a set of {len(old.episodes)} episodes is here. Choose another folder, append to this one, "
                "or say replace=True."
            )
        return Index(spec, about or About(), number=old.number if old else 0), episodes

    _write_set(Path(folder), start)


def append(folder: str | Path, episodes: Iterable[Episode]) -> None:
    """Add `episodes` to the set in `folder`, all or none. Errors as `save`."""

    def start(old: Index | None) -> tuple[Index, Iterable[Episode]]:
        if old is None:
            raise DemosError(f"{folder}: no demos here to append to.")
        return old, episodes

    _write_set(Path(folder), start)


def compact(folder: str | Path) -> None:
    """Write the set in `folder` anew in as few shards as it needs, such as after recording. Its fingerprint stays.

    Whoever has it memory-mapped reads on in the old files.
    """

    def start(old: Index | None) -> tuple[Index, Iterable[Episode]]:
        if old is None:
            raise DemosError(f"{folder}: no demos here to compact.")
        return Index(old.spec, old.about, number=old.number), load(Path(folder), memory=0)

    _write_set(Path(folder), start)


class Recorder:
    """Adds episodes to a folder one by one as they are played; several may add to one folder.

    What `add` has returned for survives a crash, of the process or of the machine. A shard holds one episode, so
    `compact` the folder when the recording is over.
    """

    def __init__(self, folder: str | Path, spec: EnvSpec, about: About | None = None):
        """A new set in `folder`, or the one that is there, whose spec must be this one."""
        self.folder = Path(folder)
        self.spec = spec
        self.about = about
        self._known: dict[bytes, Index] = {}

        def start(old: Index | None) -> tuple[Index, Iterable[Episode]]:
            return self._index(old), []

        _write_set(self.folder, start, self._known)

    def add(self, episode: Episode) -> int:
        """Write `episode` and return its number when it is durable.

        Raises:
            DemosError: the episode is unsound. RunError: it cannot be written. The set is then as it was.
        """

        def start(old: Index | None) -> tuple[Index, Iterable[Episode]]:
            return self._index(old), [episode]

        return len(_write_set(self.folder, start, self._known).episodes) - 1

    def _index(self, old: Index | None) -> Index:
        if old is None:
            return Index(self.spec, self.about or About())
        if old.spec != self.spec:
            raise DemosError(f"{self.folder}: the set here has another spec:\n  {old.spec}\nnot\n  {self.spec}")
        return old if self.about in (None, old.about) else replace(old, about=self.about)


def _write_set(
    folder: Path,
    start: Callable[[Index | None], tuple[Index, Iterable[Episode]]],
    known: dict[bytes, Index] | None = None,
) -> Index:
    """The index after the episodes of `start` were added to the index of `start`, which is told what is there.

    `known` spares a writer of many episodes from reading each time what it wrote: the last index by the file's end.
    """
    known = {} if known is None else known
    written: list[Path] = []
    try:
        _make_folder(folder)
        with _locked(folder):
            end = _end(folder / INDEX)
            old = None if end is None else known[end] if end in known else read_index(folder)
            if old is None and (lost := sorted(name for name in os.listdir(folder) if SHARD.fullmatch(name))):
                raise DemosError(
                    f"{folder}: {INDEX} is not here, and {len(lost)} shards are, such as {lost[0]}. `understudy demos "
                    f"check {folder} --fix NEW` saves what they hold; choose another folder, or delete this one."
                )
            _sweep(folder, old)
            index, episodes = start(old)
            for group in _groups(index, episodes):
                index = _add_shard(folder, index, group, written)
            if index is not old:
                text = signed(index.to_json())
                written.clear()  # from here on the new index may be there, and name them
                write_atomically(folder / INDEX, text)
                known.clear()
                known[text[-END:]] = index
            if old is not None and set(old.shards) - set(index.shards):
                _sweep(folder, index)
        return index
    except OSError as error:
        raise refusal(folder, error) from error
    finally:
        for path in written:
            with suppress(OSError):
                os.unlink(path)


def _end(path: Path) -> bytes | None:
    """The end of an index, where its checksum is."""
    with suppress(FileNotFoundError), path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - END))
        return file.read()
    return None


def _groups(index: Index, episodes: Iterable[Episode]) -> Iterator[list[Episode]]:
    """Sound episodes, as many together as make a shard."""
    group: list[Episode] = []
    size = 0
    for number, episode in zip(count(len(index.episodes)), episodes, strict=False):
        refuse(findings(index.spec, episode, number))
        group.append(episode)
        size += sum(v.nbytes for v in vars(episode).values() if isinstance(v, Tensor))
        if size >= SHARD_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


def _add_shard(folder: Path, index: Index, group: Sequence[Episode], written: list[Path]) -> Index:
    """The index with one more shard, which is on the disk."""
    columns = pack(group, index.columns or None, len(index.episodes))
    table = Table.of(group)
    block = Demos(index.spec, index.about, [columns], table)
    digests = b"".join(block.digest(i) for i in range(len(group)))
    own = Index(index.spec, index.about, kinds(columns), episodes=table, digests=digests)
    data = _arrow(columns, _text(own.to_json()))
    path = folder / f"shard-{index.number:08d}.arrow"
    written.append(path)
    write_atomically(path, data)
    figures = measure(index.spec, columns, table)
    return replace(
        index,
        columns=kinds(columns),
        shards=(*index.shards, Shard(path.name, len(data), sha256(data), len(columns["obs"]), len(group))),
        episodes=index.episodes.joined(table),
        digests=index.digests + digests,
        statistics=merge(index.statistics, figures) if index.statistics else figures,
        number=index.number + 1,
    )


def _arrow(columns: Columns, said: str) -> memoryview:
    """The bytes of a shard. It says itself what is in it, for the day the index is lost; `load` does not ask it."""
    schema = _schema(kinds(columns)).with_metadata({TOLD: said})
    arrays = []
    for column in schema:
        values = columns[column.name].reshape(-1)
        numbers = values.view(torch.uint8) if values.dtype == torch.bool else values
        arrays.append(pa.FixedSizeListArray.from_arrays(pa.array(numbers.numpy()), type=column.type))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, schema) as writer:
        writer.write_batch(pa.record_batch(arrays, schema=schema))
    return memoryview(sink.getvalue())


# ---- the disk


def _make_folder(folder: Path) -> None:
    if not folder.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        fsync_folder(folder.parent)


def _sweep(folder: Path, index: Index | None) -> None:
    """Remove what killed writers left, and shards that are no longer named."""
    named = {s.file for s in index.shards} if index else set()
    for name in os.listdir(folder):
        left = SHARD.fullmatch(name) and name not in named
        if left or (name.endswith(TEMPORARY) and (SHARD.match(name, 1) or name.startswith(f".{INDEX}"))):
            os.unlink(folder / name)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Be the only writer. The system lets go of the lock when its owner ends, however it ends: none is ever stale."""
    import fcntl  # not on every system, and only writers need it

    file = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        end = time.monotonic() + PATIENCE
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > end:
                    owner = os.read(file, 200).decode(errors="replace").strip() or "another process"
                    raise DemosError(f"{folder}: {owner} is writing here. Wait for it, or end it.") from None
                time.sleep(0.005)
        owner = f"process {os.getpid()} of {socket.gethostname()}, since {time.strftime('%F %T')},"
        os.write(file, owner.ljust(200).encode())
        yield
    finally:
        os.close(file)
