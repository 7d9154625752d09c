"""Tables of tracks: CSV files, pandas, polars and Arrow, with a row for each sighting (long) or each frame (wide).

Long, one row for each agent at each time:

| column | usual names | |
|---|---|---|
| time | `t`, `time`, `timestamp`, `seconds`; `frame` (then say `dt`) | rows of one agent stand in the order of time |
| agent | `agent`, `agent_id`, `id`, `track_id`, `player_id`, `player` | a number or a name |
| position | `x`, `y`, and `z` where there is one | empty where the agent was not seen |
| recording | `recording`, `scene`, `match`, `session` | may be missing |
| team, role | `team`, `role` | may be missing; one of each for each agent |
| labels | `label_NAME` | may be missing; numbers |

Wide, one row for each frame: a time, and `NAME_x`, `NAME_y` for each agent. Other names are said with `Columns`. A
column that has no place is refused, never dropped: name it in `ignore`.
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv

from understudy.core.errors import DemosError, missing_extra, nearest
from understudy.core.files import write_atomically
from understudy.demos.episode import About
from understudy.demos.formats.common import refusing
from understudy.demos.formats.sightings import MAX_BYTES, Placing, Sightings, cells, gathered, numbered, whole_or_not
from understudy.demos.tracks import METRES, TrackSet

FASTEST = 100.0  # m/s: nobody on foot, on wheels or on wings; what is faster is a slip of the file
USUAL = {
    "time": ("t", "time", "timestamp", "seconds", "frame", "frame_id"),
    "agent": ("agent", "agent_id", "id", "track_id", "player_id", "player"),
    "recording": ("recording", "recording_id", "scene", "match", "session"),
    "team": ("team", "team_id"),
    "role": ("role",),
}
COUNTS = ("frame", "frame_id")  # columns that count frames
LABEL = "label_"


@dataclass(frozen=True)
class Columns:
    """Which column holds what, where it is not called as usual."""

    time: str = ""
    agent: str = ""
    position: tuple[str, ...] = ()
    recording: str = ""
    team: str = ""
    role: str = ""
    labels: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()


def read_tracks_csv(path: Path | str, *, delimiter: str = "", **options: Any) -> TrackSet:
    """The tracks in a CSV file with a line of names. `options` are those of `tracks_from_table`.

    Args:
        delimiter: between cells; "": the one of `,` `;` tab `|` that the first line has most of.
    """
    with refusing(path, "a table of tracks") as where:
        with open(path, encoding="utf-8-sig") as file:
            first = file.readline()
        delimiter = delimiter or max(",;\t|", key=first.count)
        parse = pa.csv.ParseOptions(delimiter=delimiter)
        names = pa.csv.read_csv(pa.py_buffer(first.encode()), parse_options=parse).column_names
        convert = pa.csv.ConvertOptions(  # all cells as text: a bad one can then be named
            column_types=dict.fromkeys(names, pa.string()),
            strings_can_be_null=True,
            null_values=["", "nan", "NaN", "NA"],
        )
        table = pa.csv.read_csv(path, parse_options=parse, convert_options=convert)
    return tracks_from_table(table, where=where, title=Path(path).stem, **options)


def tracks_from_table(
    table: Any,
    *,
    columns: Columns | None = None,
    step: int | float | None = None,
    dt: int | float | None = None,
    clock: str = "s",
    unit: str = "m",
    low: Sequence[int | float] = (),
    high: Sequence[int | float] = (),
    fastest: int | float | None = None,
    mend: Collection[str] = (),
    anonymous: bool = False,
    about: About | None = None,
    title: str = "",
    where: str = "table",
    max_bytes: int = MAX_BYTES,
) -> TrackSet:
    """The tracks in a table of pandas, polars or Arrow, long where it has a column of agents, else wide.

    Args:
        step: what the column of times grows by from one frame to the next, found out where None: any number, such as
            1 / 29.97, also where times are rounded.
        dt: how long a frame takes, where the column counts frames.
        unit: of positions, a key of METRES, "px", "cell" or "share".
        low, high: bounds of the field.
        fastest: the greatest speed, in units a second; None: 100 m/s where the unit is one of length.
        mend: what may be mended, see `sightings`.
        anonymous: agents of one recording have nothing to do with those of another, see `sightings.gathered`.

    Raises:
        DemosError: naming file, row, agent and time: a cell that is no number, a row that is there twice or in the
            wrong place, times off the grid, a leap, an agent who never appears, a column without a place ...
    """
    if fastest is None and unit in METRES and clock == "s":
        fastest = FASTEST / METRES[unit]
    how = Placing(step, dt, unit, fastest, mend, max_bytes)
    field = tuple(map(float, low)), tuple(map(float, high))
    with refusing(where, "a table of tracks"):
        arrow = _as_arrow(table)
        if not arrow.num_rows:
            raise DemosError(f"{where}: has no rows.")
        found = _found(arrow.column_names, columns or Columns(), where)
        if found["time"] in COUNTS and dt is None:
            raise DemosError(f"{where}: `{found['time']}` counts frames. Say `dt`, the seconds from one to the next.")
        read = _long if found["agent"] else _wide
        seen, teams, roles = read(arrow, found, where)
        pieces = _by_recording(arrow, found["recording"], seen)
    return gathered(
        pieces, how, anonymous=anonymous, clock=clock, field=field, teams=teams, roles=roles, title=title, about=about
    )


def _as_arrow(table: Any) -> pa.Table:
    if isinstance(table, pa.Table):
        return table.combine_chunks()
    if hasattr(table, "to_arrow"):  # polars
        return table.to_arrow().combine_chunks()
    if not hasattr(table, "attrs"):
        raise DemosError(f"a table of pyarrow, pandas or polars is wanted, got {type(table).__name__}.")
    return pa.Table.from_pandas(table, preserve_index=False)


def _found(names: Sequence[str], given: Columns, where: str) -> dict[str, Any]:
    """The column of each part; "" where there is none."""
    if len(set(names)) < len(names):
        raise DemosError(f"{where}: the column `{next(n for n in names if names.count(n) > 1)}` is there twice.")
    lower = {name.strip().lower(): name for name in reversed(names)}
    found: dict[str, Any] = {}
    for part, usual in USUAL.items():
        known = [lower[name] for name in usual if name in lower and lower[name] not in given.ignore]
        found[part] = getattr(given, part) or (known[0] if known else "")
    found["labels"] = list(given.labels) or [name for name in names if name.startswith(LABEL)]
    if found["agent"]:
        found["position"] = list(given.position) or [
            name for axis in "xyz" if (name := lower.get(axis)) and name not in given.ignore
        ]
    else:
        found["position"] = [name for name in names if _axis_of(name) and name not in given.ignore]
    named = [found[part] for part in USUAL if found[part]] + found["position"] + found["labels"]
    for name in (*named, *given.ignore):
        if name not in names:
            raise DemosError(f"{where}: there is no column `{name}`.{nearest(name, names)}")
    for name in names:
        if name not in named and name not in given.ignore:
            raise DemosError(f"{where}: the column `{name}` has no place. Name it in `Columns`, or in its `ignore`.")
    if not found["time"]:
        raise DemosError(f"{where}: no column of times. Say which it is: columns=Columns(time=...)")
    if found["agent"] and len(found["position"]) not in (2, 3):
        raise DemosError(f"{where}: the columns of positions are {found['position']}; two or three are meant.")
    if not found["position"]:
        raise DemosError(f"{where}: there is neither a column of agents nor columns such as `7_x` and `7_y`.")
    return found


def _long(table: pa.Table, found: dict[str, Any], where: str) -> tuple[Sightings, dict[str, str], dict[str, str]]:
    """Rows as they stand, and the team and the role of each agent."""
    who = _texts(table, found["agent"], where)
    agent, names = numbered(who)
    position = np.stack([cells(table[name], name, where) for name in found["position"]], axis=1)
    labels = {name.removeprefix(LABEL): whole_or_not(cells(table[name], name, where)) for name in found["labels"]}
    line = np.arange(1, table.num_rows + 1)
    seen = Sightings(where, names, cells(table[found["time"]], found["time"], where), agent, position, line, labels)
    parts = []
    for part in ("team", "role"):
        said: dict[str, str] = {}
        if found[part]:
            for row, (name, value) in enumerate(zip(who, _texts(table, found[part], where), strict=True)):
                if said.setdefault(name, value) != value:
                    raise DemosError(f"{seen.spot(row)}: `{found[part]}` is {value!r}, and was {said[name]!r} before.")
        parts.append(said)
    return seen, parts[0], parts[1]


def _wide(table: pa.Table, found: dict[str, Any], where: str) -> tuple[Sightings, dict[str, str], dict[str, str]]:
    """A row for each agent of each row."""
    if found["labels"] or found["team"] or found["role"]:
        raise DemosError(f"{where}: labels, teams and roles belong in a table with a row for each agent (long).")
    axes: dict[str, dict[str, str]] = {}
    for name in found["position"]:
        if pair := _axis_of(name):
            axes.setdefault(pair[0], {})[pair[1]] = name
    names, kinds = tuple(axes), {"".join(sorted(each)) for each in axes.values()}
    if len(kinds) > 1 or not kinds <= {"xy", "xyz"}:
        odd = next(name for name, each in axes.items() if "".join(sorted(each)) not in ("xy", "xyz") or len(kinds) > 1)
        raise DemosError(
            f"{where}: agent {odd} has columns for {', '.join(sorted(axes[odd]))}; x and y are meant for all."
        )
    columns = [
        [cells(table[axes[name][axis]], axes[name][axis], where) for axis in sorted(axes[name])] for name in names
    ]
    position = np.stack([np.stack(each, -1) for each in columns], axis=1)  # [row, agent, dim]
    rows, agents = position.shape[:2]
    time = cells(table[found["time"]], found["time"], where).repeat(agents)
    agent, line = np.tile(np.arange(agents), rows), np.arange(1, rows + 1).repeat(agents)
    return Sightings(where, names, time, agent, position.reshape(rows * agents, -1), line), {}, {}


def _by_recording(table: pa.Table, column: str, seen: Sightings) -> list[tuple[str, Sightings]]:
    if not column:
        return [("", seen)]
    code, names = numbered(_texts(table, column, seen.where))
    code = code[seen.line - 1]
    return [(name, seen.take(code == k)) for k, name in enumerate(names)]


def _texts(table: pa.Table, name: str, where: str) -> list[str]:
    values = table[name].to_pylist()
    if None in values:
        raise DemosError(f"{where}: row {values.index(None) + 1}: the cell of `{name}` is empty.")
    return [str(value).strip() for value in values]


def _axis_of(name: str) -> tuple[str, str] | None:
    """The agent and the axis of a column such as `7_x` or `home.x`."""
    match = re.fullmatch(r"(.+?)[_. ]([xyzXYZ])", name)
    return (match[1], match[2].lower()) if match else None


# ------------------------------------------------------------------------------------------------------- writing


def tracks_to_table(tracks: TrackSet) -> pa.Table:
    """A long Arrow table: a row for each agent that is there, by recording, time and agent.

    Times are `info["start"]` of a recording (0 where it has none) and `dt` for each frame. Symbols stand in `symbol`
    by their names. Labels of a frame stand in each of its rows.
    """
    spec, frames = tracks.spec, tracks.frames
    lengths = tracks.lengths.numpy()
    recording = np.arange(len(tracks)).repeat(lengths)
    first = (tracks.ends - tracks.lengths).numpy().repeat(lengths)
    starts = np.array([float(info.get("start", 0.0)) for info in tracks.infos]).repeat(lengths)
    frame, agent = tracks.present.nonzero(as_tuple=True)
    rows = frame.numpy()
    names = np.array([name or str(k) for k, name in enumerate(tracks.names)], object)
    columns: dict[str, Any] = {
        "recording": names[recording[rows]],
        "t": np.round(starts[rows] + (np.arange(frames) - first)[rows] * spec.dt, 9),
        "agent": np.array(spec.names, object)[agent],
        "team": np.array(spec.teams, object)[agent],
        "role": np.array(spec.roles, object)[agent],
    }
    values = tracks.values[frame, agent]
    if spec.dims:
        columns |= {axis: values[:, k].numpy() for k, axis in enumerate("xyz"[: spec.dims])}
    else:
        alphabet = spec.alphabet or tuple(map(str, range(spec.symbols)))
        columns["symbol"] = np.array(alphabet, object)[values.numpy()]
    for name, label in tracks.labels.items():
        columns[LABEL + name] = (label[frame, agent] if label.dim() == 2 else label[frame]).numpy()
    return pa.table({name: pa.array(column) for name, column in columns.items()})


def write_tracks_csv(tracks: TrackSet, path: Path | str) -> None:
    """Write the table of `tracks_to_table`; `read_tracks_csv` reads it where agents have positions.

    A table has no rows for frames in which nobody is there, no field and no unit, and a label of frames becomes one of
    agents: `TrackSet.save` keeps everything.
    """
    sink = pa.BufferOutputStream()
    pa.csv.write_csv(tracks_to_table(tracks), sink)
    write_atomically(Path(path), memoryview(sink.getvalue()))


def tracks_to_pandas(tracks: TrackSet) -> Any:
    """The table of `tracks_to_table` as a pandas DataFrame. Raises MissingExtra without the extra `tables`."""
    try:
        import pandas  # noqa: F401
    except ImportError:
        raise missing_extra("pandas", "tables", "a pandas table") from None
    return tracks_to_table(tracks).to_pandas()


def tracks_to_polars(tracks: TrackSet) -> Any:
    """The table of `tracks_to_table` as a polars DataFrame. Raises MissingExtra without the extra `tables`."""
    try:
        import polars
    except ImportError:
        raise missing_extra("polars", "tables", "a polars table") from None
    return polars.from_arrow(tracks_to_table(tracks))
