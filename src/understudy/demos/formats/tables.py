"""Long tables, one row for each agent at each moment: pandas, polars, Arrow, CSV and Parquet.

| column | | |
|---|---|---|
| `episode`, `t`, `agent` | who and when | `t` counts steps 0, 1, 2 ... in each episode; rows may stand in any order |
| `obs_0`, `obs_1` ... | seen at that moment | |
| `action`, or `action_0`, `action_1` ... | done then | empty at an episode's last moment, which only shows what came |
| `reward` | of that step | empty at the last moment |
| `terminated`, `truncated` | of that step | true at most at an episode's end |
| `present` | | an agent without a row is absent too |
| `legal_0` ... , `whole_0` ... , `time` | at that moment | |
| `label_NAME` | of that step | |

Only the first three, the observations and the actions must be there. Other names are given by `Columns`. A column
that has no place is refused, never dropped: name it in `Columns.ignore`.

What has no column (spec, about, an episode's name, weight and info) goes into the Parquet file's metadata, into
`NAME.csv.json` beside a CSV, and into `frame.attrs` of pandas; polars has no place for it.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from understudy.core.errors import DemosError, missing_extra, nearest
from understudy.core.types import Continuous, Discrete, EnvSpec, action_shape, legal_size
from understudy.demos.demos import LABEL, MOMENTS, Demos, pack
from understudy.demos.episode import About
from understudy.demos.formats.common import (
    MAX_BYTES,
    Header,
    from_arrays,
    infer_action,
    noted,
    refusing,
)
from understudy.demos.formats.rows import Rows

_META = b"understudy"


@dataclass(frozen=True)
class Columns:
    """Which column holds what. A group left empty is found by its beginning (`obs_`, `action_`, ...), by number."""

    episode: str = "episode"
    t: str = "t"
    agent: str = "agent"
    obs: tuple[str, ...] = ()
    actions: tuple[str, ...] = ()
    reward: str = "reward"
    terminated: str = "terminated"
    truncated: str = "truncated"
    present: str = "present"
    time: str = "time"
    legal: tuple[str, ...] = ()
    whole: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()

    def found_in(self, names: Sequence[str], where: str) -> dict[str, list[str]]:
        """The columns of each part that `names` offer. Refuses a named one that is missing and one without a place."""
        if len(set(names)) < len(names):
            raise DemosError(f"{where}: the column `{next(n for n in names if names.count(n) > 1)}` is there twice.")
        found: dict[str, list[str]] = {}
        for part in ("episode", "t", "agent"):
            found[part] = [getattr(self, part)]
        for part in ("reward", "terminated", "truncated", "present", "time"):
            name = getattr(self, part)
            asked = name != type(self).__dataclass_fields__[part].default
            found[part] = [name] if asked or name in names else []
        for part, stem in (("obs", "obs"), ("actions", "action"), ("legal", "legal"), ("whole", "whole")):
            found[part] = list(getattr(self, part)) or _numbered(names, stem)
        found["labels"] = list(self.labels) or [n for n in names if n.startswith("label_")]
        wanted = [name for group in found.values() for name in group]
        for name in (*wanted, *self.ignore):
            if name not in names:
                raise DemosError(f"{where}: there is no column `{name}`.{nearest(name, names)}")
        for name in names:
            if name not in wanted and name not in self.ignore:
                raise DemosError(
                    f"{where}: the column `{name}` has no place. Name it in `Columns`, or in its `ignore`."
                )
        for part in ("obs", "actions"):
            if not found[part]:
                raise DemosError(f"{where}: no columns for {part}; there are {', '.join(names) or 'none'}.")
        return found


def _numbered(names: Sequence[str], stem: str) -> list[str]:
    numbered = [(int(m[1]), name) for name in names if (m := re.fullmatch(rf"{stem}_(\d+)", name))]
    return [stem] if stem in names else [name for _, name in sorted(numbered)]


# ------------------------------------------------------------------------------------------------------- writing


def to_table(demos: Demos) -> pa.Table:
    """All of `demos` as one Arrow table, the header in its metadata. Rows are ordered by episode, t, agent."""
    if not len(demos):
        raise DemosError("there is no episode to write, and a table without rows has no columns.")
    spec = demos.spec
    parts = {name: column.numpy() for name, column in pack(list(demos)).items()}  # [moment, ...], the last closing
    lengths = demos.lengths.numpy()
    episode_of = np.repeat(np.arange(len(demos)), lengths + 1)
    moment_of = np.concatenate([np.arange(t + 1) for t in lengths])
    agents, moments = spec.agents, len(moment_of)
    acts = np.repeat(moment_of < lengths[episode_of], agents)  # false at an episode's last moment
    columns: dict[str, pa.Array] = {
        "episode": pa.array(np.repeat(episode_of, agents)),
        "t": pa.array(np.repeat(moment_of, agents)),
        "agent": pa.DictionaryArray.from_arrays(
            pa.array(np.tile(np.arange(agents, dtype=np.int32), moments)), pa.array(spec.names)
        ).cast(pa.string()),
    }

    def add(stem: str, array: np.ndarray, *, step: bool = False, numbered: bool = True) -> None:
        rows = array.reshape(moments * agents, -1)
        for k in range(rows.shape[1]):
            name = f"{stem}_{k}" if numbered else stem
            columns[name] = pa.array(np.ascontiguousarray(rows[:, k]), mask=~acts if step else None)

    for name, array in parts.items():
        if name in ("whole", "times"):  # one for all agents: repeated on each row
            array = np.repeat(array[:, None], agents, axis=1)
        if name == "actions":
            add("action", array, step=True, numbered=not isinstance(spec.action, Discrete))
        elif name == "rewards":
            add("reward", array, step=True, numbered=False)
        elif name in ("present", "times"):
            add(name.removesuffix("s"), array, numbered=False)
        elif name.startswith(LABEL):
            if array.ndim == 1:
                array = np.repeat(array[:, None], agents, axis=1)
            add("label_" + name.removeprefix(LABEL), array, step=True, numbered=False)
        else:
            add(name, array)
    last = (moment_of == lengths[episode_of] - 1)[:, None].repeat(agents, 1)
    for name in ("terminated", "truncated"):
        flags = np.array([getattr(e, name) for e in demos])
        add(name, last & flags[episode_of][:, None], step=True, numbered=False)
    table = pa.table(columns)
    return table.replace_schema_metadata({_META: Header.of(demos).to_text().encode()})


def write_parquet(demos: Demos, path: Path | str) -> None:
    """One Parquet file; `read_parquet` gives the same bits back."""
    pa.parquet.write_table(to_table(demos), path)


def write_csv(demos: Demos, path: Path | str) -> None:
    """One CSV and its header `PATH.json` beside it; together they give the same bits back.

    Numbers are written in the fewest digits that read back to the same float.
    """
    table = to_table(demos)
    pa.csv.write_csv(table, path)
    Path(f"{path}.json").write_bytes(table.schema.metadata[_META])


def to_pandas(demos: Demos) -> Any:
    """A pandas DataFrame, the header in its `attrs`. Columns with empty cells are of pandas' nullable kinds."""
    try:
        import pandas as pd
    except ImportError:
        raise missing_extra("pandas", "tables", "a pandas table") from None
    table = to_table(demos)
    frame = table.to_pandas(types_mapper=pd.ArrowDtype)
    frame.attrs["understudy"] = table.schema.metadata[_META].decode()
    return frame


def to_polars(demos: Demos) -> Any:
    """A polars DataFrame. It has no place for the header: keep `demos.spec` and `demos.about` to read it back."""
    try:
        import polars as pl
    except ImportError:
        raise missing_extra("polars", "tables", "a polars table") from None
    return pl.from_arrow(to_table(demos))


# ------------------------------------------------------------------------------------------------------- reading


def read_parquet(
    path: Path | str,
    spec: EnvSpec | None = None,
    about: About | None = None,
    columns: Columns | None = None,
    last: Literal["refuse", "drop"] = "refuse",
    max_bytes: int = MAX_BYTES,
) -> Demos:
    """The demos in a Parquet file. Arguments and errors as `from_table`."""
    with refusing(path, "a Parquet table") as where:
        with pa.parquet.ParquetFile(path) as file:
            claimed = file.metadata.num_rows * file.metadata.num_columns * 8
            if claimed > max_bytes:
                raise DemosError(
                    f"{where}: {claimed:,} bytes unpacked, more than the limit of {max_bytes:,}. "
                    "If you trust the file, raise `max_bytes`."
                )
            table = file.read()
        table.validate(full=True)
        return _unchanged(from_table(table, spec, about, columns, last, where), table, where)


def read_csv(
    path: Path | str,
    spec: EnvSpec | None = None,
    about: About | None = None,
    columns: Columns | None = None,
    last: Literal["refuse", "drop"] = "refuse",
) -> Demos:
    """The demos in a CSV with a line of names, and in `PATH.json` where it stands beside. As `from_table`."""
    with refusing(path, "a CSV table") as where:
        with open(path, "rb") as file:
            names = pa.csv.read_csv(pa.py_buffer(file.readline())).column_names
        table = pa.csv.read_csv(
            path,  # all cells as text: a bad one can then be named, and floats are read at their own width
            parse_options=pa.csv.ParseOptions(newlines_in_values=True),
            convert_options=pa.csv.ConvertOptions(
                column_types={name: pa.string() for name in names}, strings_can_be_null=True, null_values=[""]
            ),
        )
        beside = Path(f"{path}.json")
        if beside.exists():
            table = table.replace_schema_metadata({_META: beside.read_bytes()})
        return _unchanged(from_table(table, spec, about, columns, last, where), table, where)


def from_table(
    table: Any,
    spec: EnvSpec | None = None,
    about: About | None = None,
    columns: Columns | None = None,
    last: Literal["refuse", "drop"] = "refuse",
    where: str = "table",
) -> Demos:
    """The demos in an Arrow, pandas or polars table with one row for each agent at each moment.

    An episode's last moment has no action: it shows what the last step led to. Where a recording lacks it, the last
    step cannot be kept, and `last` says what to do. An empty cell and NaN are the same: nothing was recorded.

    Args:
        spec: inferred where None: agents in the order of their numbers or names, integer actions as choices (a move
            that nobody made cannot be inferred), other actions as unbounded real numbers. The header of a table
            written by this library wins over `spec` and `about`; of its episodes some may have been taken out.
        last: where an episode ends with an action, "refuse" the table, or "drop" that action, its reward and its
            labels: the moment becomes the last observation, the episode `truncated`, and the notes say so.
        where: what messages call the table.

    Raises:
        DemosError: naming the row (the first is 1), episode, agent and t: a cell that is no number or is missing, a
            row that is there twice, a step that is missing, an end before the end.
    """
    with refusing(where, "a long table"):
        rows = Rows(_as_arrow(table), where)
        columns = columns or Columns()
        found = columns.found_in(rows.table.column_names, where)
        meta = (rows.table.schema.metadata or {}).get(_META)
        header = Header.from_text(meta, where) if meta else None
        if len(rows.table) == 0:
            raise DemosError(f"{where}: has no rows.")
        spec = header.spec if header else spec
        keys = [found[part][0] for part in ("episode", "t", "agent")]
        rows.place(keys, spec.names if spec else None, found["present"][0] if found["present"] else None)
        rows.close(found["actions"], give_up=last == "drop")
        if header is None:
            entries = [{"name": name, "weight": 1.0, "info": {}} for name in rows.episode_names]
            spec = spec or _infer_spec(rows, found)
            header = Header(spec, about or About(), entries)
            numbers = list(range(len(entries)))
        else:  # of which some episodes may have been taken out
            numbers = [int(name) for name in rows.episode_names]
        _expect_width(header.spec, found, where)
        parts = _parts(rows, found, header)
        ends = _ends(rows, found)
        episodes = []
        for i, (first, end) in enumerate(zip(rows.first[:-1], rows.first[1:], strict=True)):
            pieces = {name: array[first : end if name in MOMENTS else end - 1] for name, array in parts.items()}
            episodes.append(from_arrays(pieces, header.entry(numbers[i], where), *(bool(e[i]) for e in ends)))
        about = header.about
        if rows.given_up.any():
            about = noted(about, f"The last action of {rows.given_up.sum()} of {len(episodes)} episodes was given up.")
        return Demos.from_episodes(header.spec, episodes, about)


def _unchanged(demos: Demos, table: pa.Table, where: str) -> Demos:
    """The demos of a file, if they are what its header says. A table in memory may have been changed on purpose."""
    meta = (table.schema.metadata or {}).get(_META)
    if meta:
        Header.from_text(meta, where).expect_unchanged(demos, where)
    return demos


def _as_arrow(table: Any) -> pa.Table:
    if isinstance(table, pa.Table):
        return table
    if hasattr(table, "to_arrow"):  # polars
        return table.to_arrow()
    if not hasattr(table, "attrs"):
        raise DemosError(f"a table of pyarrow, pandas or polars is wanted, got {type(table).__name__}.")
    arrow = pa.Table.from_pandas(table, preserve_index=False)
    header = table.attrs.get("understudy")
    return arrow.replace_schema_metadata({_META: header.encode()} if header else None)


def _infer_spec(rows: Rows, found: dict[str, list[str]]) -> EnvSpec:
    kinds = {rows.natural_dtype(name) for name in found["actions"]}
    dtype = np.int64 if kinds == {np.int64} else np.float32
    if dtype is np.float32 and all(rows.is_whole(name) for name in found["actions"]):
        raise DemosError(
            f"{rows.where}: the actions are whole numbers in columns of real numbers, so they may be choices or not. "
            "Say it with `spec`."
        )
    actions = rows.block(found["actions"], dtype, acting=True)[rows.steps]
    single = len(found["actions"]) == 1 and dtype is np.int64
    action = infer_action(actions[..., 0] if single else actions)
    names = tuple(rows.agent_names)
    return EnvSpec(agents=len(names), obs=len(found["obs"]), action=action, names=names)


def _expect_width(spec: EnvSpec, found: dict[str, list[str]], where: str) -> None:
    wanted = {"obs": spec.obs, "actions": int(np.prod(action_shape(spec.action))), "legal": legal_size(spec.action)}
    for part, width in wanted.items():
        if len(found[part]) != width and (found[part] or part != "legal"):
            said = ", ".join(found[part][:8])
            raise DemosError(f"{where}: the spec asks for {width} columns of {part}, got {len(found[part])}: {said}")


def _parts(rows: Rows, found: dict[str, list[str]], header: Header) -> dict[str, np.ndarray]:
    """Every tensor, all episodes end to end, each on [moment, ...]."""
    spec, kept = header.spec, header.dtypes
    narrow = None if isinstance(spec.action, Discrete) else spec.action_sizes
    choice = np.float32 if isinstance(spec.action, Continuous) else np.int64
    parts = {
        "obs": rows.block(found["obs"], kept.get("obs", rows.obs_dtype(found["obs"])), sizes=spec.obs_sizes),
        "actions": rows.block(found["actions"], kept.get("actions", choice), acting=True, sizes=narrow),
    }
    if isinstance(spec.action, Discrete):
        parts["actions"] = parts["actions"][..., 0]
    if found["reward"]:
        parts["rewards"] = rows.block(found["reward"], kept.get("rewards", np.float32), acting=True)[..., 0]
    if found["present"] or not rows.full:
        parts["present"] = rows.present
    if found["legal"]:
        parts["legal"] = rows.block(found["legal"], bool)
    if found["whole"]:
        parts["whole"] = rows.shared(found["whole"], kept.get("whole", np.float32))
    if found["time"]:
        parts["times"] = rows.shared(found["time"], np.float64)[..., 0]
    for name in found["labels"]:
        key = LABEL + name.removeprefix("label_")
        read = rows.shared if key in header.joint else rows.block
        parts[key] = read([name], kept.get(key, rows.natural_dtype(name)), acting=True)[..., 0]
    return parts


def _ends(rows: Rows, found: dict[str, list[str]]) -> list[np.ndarray]:
    """`terminated` and `truncated` of each episode. Where the table is silent, the recording's end cut it off."""
    ends = []
    for part in ("terminated", "truncated"):
        flags = np.zeros(len(rows.moments), bool)
        for name in found[part]:
            raised = rows.cells(name, bool)[0]
            early = np.nonzero(raised & (rows.t < rows.moments[rows.episode] - 2))[0]
            if len(early):
                raise DemosError(f"{rows.spot(early[0])}: `{name}` before the episode's end.")
            flags[rows.episode[raised]] = True
        ends.append(flags)
    terminated, truncated = ends
    if not found["truncated"]:
        truncated = ~terminated
    return [terminated & ~rows.given_up, truncated | rows.given_up]  # the step that ended them is the one given up
