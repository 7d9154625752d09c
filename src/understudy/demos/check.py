"""What is wrong with a set on disk, and saving what is sound.

`check` looks at everything and changes nothing; `fix` writes the sound episodes to a new folder and says what it left
behind. Nothing is mended in place, and nothing silently.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import torch

from understudy.core.errors import DemosError, printable
from understudy.core.files import from_json, sha256
from understudy.core.types import EnvSpec
from understudy.demos.demos import Demos, Episode
from understudy.demos.episode import Finding, findings, places
from understudy.demos.store import (
    INDEX,
    SHARD,
    SIZE,
    TOLD,
    Index,
    Shard,
    of_this_schema,
    parse_index,
    parse_shard,
    read_shard,
    save,
)

GAP = 1.5  # time steps between two moments from which on one is missing


def check(folder: str | Path) -> list[Finding]:
    """All that is wrong with the set in `folder`, in the order of its episodes; empty for a sound one.

    Kinds of findings, besides those of a recording (shape, dtype, length, empty, finite, range, legal, times, info):

        index       `index.json` is missing, cannot be read, or does not fit its own checksum
        shard       a file is missing, has another size or another checksum, or cannot be read
        content     an episode is not the one that was written
        gap         by their times, steps are missing between two moments (where the spec has a `dt`)
        duplicate   an episode is the same as an earlier one, in everything but its name
    """
    found, _ = _examined(Path(folder))
    return found


def fix(folder: str | Path, new_folder: str | Path) -> list[str]:
    """Write the sound episodes of `folder` to `new_folder`, unchanged, and return what was left behind and why.

    An episode is left behind for any finding but a gap or a duplicate. Where the index is damaged or lost, what the
    shards say of themselves takes its place. `folder` stays as it is.

    Raises:
        DemosError: not one episode can be saved, or `new_folder` holds a set.
    """
    folder = Path(folder)
    if Path(new_folder).resolve() == folder.resolve():
        raise DemosError(f"{new_folder}: what is sound goes into a new folder, and this is where it comes from.")
    found, scan = _examined(folder)
    grave = [f for f in found if f.kind not in ("gap", "duplicate")]
    bad = {f.episode for f in grave}
    kept = [i for i in sorted(scan.episodes) if i not in bad] if scan else []
    if scan is None or not kept:
        raise DemosError("\n".join([f"{folder}: not one episode can be saved.", *map(str, grave)]))
    save(new_folder, scan.index.spec, (scan.episodes[i] for i in kept), scan.index.about)
    dropped = [f"left behind: {f}" if f.episode is not None else str(f) for f in grave]
    return [*dropped, f"{len(kept)} of {len(scan.index.episodes)} episodes were saved"]


def show(folder: str | Path) -> str:
    """A summary of the set in `folder` for reading: where it comes from, what it holds, its figures."""
    folder = Path(folder)
    demos = Demos.load(folder, verify=False)
    index, _ = parse_index((folder / INDEX).read_bytes(), folder / INDEX)
    about, spec = demos.about, demos.spec
    lines = [f"{about.title or spec.title or folder.name}: {len(demos)} episodes, {demos.steps:,} steps"]
    lines += [f"  {name}: {value}" for name, value in about.to_json().items() if value and name != "title"]
    roles = ", ".join(f"{name} ({role})" for name, role in zip(spec.names, spec.roles, strict=True))
    lines += [f"  agents: {roles}", f"  actions: {spec.action}"]
    lines += [f"  column {name}: {dtype} {list(shape)} a moment" for name, (dtype, shape) in index.columns.items()]
    size = sum(s.bytes for s in index.shards)
    lines += [f"  files: {len(index.shards)} shards, {size / 2**20:,.1f} MiB"]
    if len(demos):
        lines += [f"  steps in an episode: {int(demos.lengths.min())} to {int(demos.lengths.max())}"]
    if len(demos) and "rewards" in index.columns:
        returns = demos.returns().double()
        for name, mean, std in zip(spec.names, returns.mean(0), returns.std(0, correction=0), strict=True):
            lines += [f"  return of {name}: {mean:.3f}, standard deviation {std:.3f}"]
    return "\n".join(map(printable, lines))


@dataclass
class _Scan:
    """What could be read of a set."""

    index: Index
    episodes: dict[int, Episode]  # those that are as they were written, by number
    contents: dict[int, bytes]  # checksums of all but their names


def _examined(folder: Path) -> tuple[list[Finding], _Scan | None]:
    index, found = _index(folder)
    if index is None:
        return found, None
    scan = _Scan(index, {}, {})
    after = 0
    for shard in index.shards:
        before, after = after, after + shard.episodes
        found += _shard(folder, scan, shard, range(before, after))
    first: dict[bytes, int] = {}
    for number, episode in sorted(scan.episodes.items()):
        found += findings(index.spec, episode, number)
        found += _gaps(index.spec, episode, number)
        if (earlier := first.setdefault(scan.contents[number], number)) != number:
            found.append(
                Finding("duplicate", f"it is episode {earlier} once more, in all but perhaps its name.", number)
            )
    return sorted(found, key=lambda f: -1 if f.episode is None else f.episode), scan


def _index(folder: Path) -> tuple[Index | None, list[Finding]]:
    """The index; or, where it is not what was written, the one that the shards themselves give."""
    path = folder / INDEX
    try:
        index, sound = parse_index(path.read_bytes(), path)
        if sound:
            return index, []
        said = f"{path}: its checksum does not fit, so it was changed or damaged."
    except OSError as error:
        said = f"{path}: it cannot be read ({error.strerror})."
    except DemosError as error:
        said = str(error)
    rebuilt, found = _rebuilt(folder)
    told = "What follows is told by the shards themselves." if rebuilt else "No shard tells more: no demos are here."
    return rebuilt, [Finding("index", f"{said} {told}"), *found]


def _rebuilt(folder: Path) -> tuple[Index | None, list[Finding]]:
    """An index of all that the shards in `folder` say of themselves."""
    index, found = None, []
    for path in sorted(p for p in folder.glob("*.arrow") if SHARD.fullmatch(p.name)):
        try:
            own = _own_index(path)
        except (pa.ArrowException, OSError, ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
            found.append(Finding("shard", f"{path}: it does not say what is in it ({error})."))
            continue
        if index is not None and (own.spec, own.columns) != (index.spec, index.columns):
            found.append(Finding("shard", f"{path}: it is of another set."))
        elif index is None:
            index = own
        else:
            index = replace(
                index,
                shards=index.shards + own.shards,
                episodes=index.episodes.joined(own.episodes),
                digests=index.digests + own.digests,
            )
    return index, found


def _own_index(path: Path) -> Index:
    """What a shard says of itself; errors are those of `Index.from_json` and of Arrow."""
    text = path.read_bytes()
    data = of_this_schema(from_json((pa.ipc.open_file(pa.py_buffer(text)).schema.metadata or {})[TOLD]))
    lengths = data["episodes"]["length"]
    shard = Shard(path.name, len(text), sha256(text), sum(lengths) + len(lengths), len(lengths))
    return Index.from_json(data | {"shards": [vars(shard)]})


def _shard(folder: Path, scan: _Scan, shard: Shard, numbers: range) -> list[Finding]:
    """Read the episodes of a shard into `scan`; of a damaged one those that are whole."""
    path, found = folder / shard.file, []
    try:
        try:
            columns = read_shard(folder, shard, scan.index.columns)
        except DemosError as error:
            found.append(Finding("shard", str(error)))
            raw = torch.frombuffer(bytearray(path.read_bytes()), dtype=torch.uint8)
            columns = parse_shard(raw, shard.moments, scan.index.columns, path)
    except (OSError, ValueError) as error:
        return found + [Finding("shard", f"it is lost with {path}: {error}", i) for i in numbers]
    table = scan.index.episodes.take(numbers)
    table = replace(table, first=table.first - table.first[0])
    demos = Demos(scan.index.spec, scan.index.about, [columns], table)
    nameless = Demos(demos.spec, demos.about, [columns], replace(table, names=("",) * len(table)))
    for i, number in enumerate(numbers):
        if demos.digest(i) == scan.index.digests[number * SIZE : (number + 1) * SIZE]:
            scan.episodes[number], scan.contents[number] = demos[i], nameless.digest(i)
        else:
            found.append(Finding("content", f"it is not what was written to {path}.", number))
    return found


def _gaps(spec: EnvSpec, episode: Episode, number: int) -> Iterator[Finding]:
    if spec.dt is not None and episode.times is not None:
        gaps = episode.times.diff() > GAP * spec.dt
        yield from places("gap", f"more than {GAP} times dt = {spec.dt} s pass, so steps are missing", gaps, number)
