"""The cells of a long table, checked one by one and placed on [moment, agent, column]."""

import re
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from understudy.core.errors import DemosError, nearest


class Rows:
    """Rows of a table, each of one agent at one moment. A moment is a step, or the end of an episode.

    Attributes, once the rows are placed:
        episode, t, agent: Int[row], numbers from 0.
        moments: Int[episode], how many each episode has: its steps and one.
        acting: Bool[row], the row is of a step, not of an episode's end.
        present: Bool[moment, agent], all episodes end to end.
        full: every agent has a row at every moment.
        steps: Bool[moment], false at the end of each episode.
        given_up: Bool[episode], its last action is left out, since what that led to is not recorded.
    """

    def __init__(self, table: pa.Table, where: str):
        self.table, self.where = table, where

    # ------------------------------------------------------------------------------------------------ placing

    def place(self, keys: Sequence[str], names: Sequence[str] | None, present: str | None) -> None:
        """Find out which episode, t and agent each row is of, and refuse rows that are there twice or not at all.

        Args:
            keys: the columns of episode, t and agent.
            names: of the agents; None: whoever comes.
            present: a column that tells whether the agent is there; None: whoever has a row is.
        """
        ones, ts, agents = (self._column(name) for name in keys)
        self._keys: dict[str, pa.Array] = dict(zip(("episode", "agent", "t"), (ones, agents, ts), strict=True))
        for name, column in zip(keys, (ones, ts, agents), strict=True):
            if column.null_count:
                row = np.nonzero(column.is_null().to_numpy(zero_copy_only=False))[0][0]
                raise DemosError(f"{self.spot(row)}: the cell of `{name}` is empty.")
        self.episode, self.episode_names = _numbered(ones)
        self.agent, self.agent_names = self._agents(agents, names)
        self.t = self.cells(keys[1], np.int64)[0]
        self._expect_all_moments()
        self.first = np.concatenate([[0], np.cumsum(self.moments)])
        self.acting = self.t < self.moments[self.episode] - 1
        self.steps = np.ones(self.first[-1], bool)
        self.steps[self.first[1:] - 1] = False
        at = (self.first[self.episode] + self.t) * len(self.agent_names) + self.agent
        self._grid = np.full(self.first[-1] * len(self.agent_names), -1)  # the row that fills a place, -1: none
        self._grid[at] = np.arange(len(at))
        twice = np.nonzero(self._grid[at] != np.arange(len(at)))[0]
        if len(twice):
            raise DemosError(f"{self.spot(twice[0])}: row {self._grid[at[twice[0]]] + 1} is of the same moment.")
        self.here = np.ones(len(at), bool)  # [row]
        if present:
            self.here, there = self.cells(present, np.bool_)
            self._expect(there, present, np.ones_like(there))
        self.present, self.full = self._spread(self.here), bool((self._grid >= 0).all())
        self.given_up = np.zeros(len(self.moments), bool)

    def _agents(self, column: pa.Array, names: Sequence[str] | None) -> tuple[np.ndarray, list[str]]:
        """The number of each row's agent, and the agents' names. Agents may be given by name or by number."""
        code, seen = _numbered(column)
        if names is None:
            names = seen if seen != [str(i) for i in range(len(seen))] else [f"agent_{i}" for i in range(len(seen))]
        number = {str(i): i for i in range(len(names))} | {name: i for i, name in enumerate(names)}
        for i, name in enumerate(seen):
            if name not in number:
                row = np.nonzero(code == i)[0][0]
                raise DemosError(f"{self.spot(row)}: no agent of the spec is called {name!r}.{nearest(name, names)}")
        return np.array([number[name] for name in seen], np.int64)[code], list(names)

    def _expect_all_moments(self) -> None:
        """Every episode counts t from 0 on without a gap, so the memory it needs is bounded by the rows there are."""
        if (self.t < 0).any():
            raise DemosError(f"{self.spot(np.argmin(self.t))}: t counts steps from 0 on.")
        order = np.lexsort((self.t, self.episode))
        episode, t = self.episode[order], self.t[order]
        opens = np.concatenate([[True], episode[1:] != episode[:-1]])
        before = np.where(opens, -1, np.concatenate([[-1], t[:-1]]))
        gaps = np.nonzero(t > before + 1)[0]
        if len(gaps):
            g = gaps[0]
            raise DemosError(
                f"{self.spot(order[g])}: no row has t={before[g] + 1} in this episode; t counts steps 0, 1, 2, ..."
            )
        closes = np.concatenate([opens[1:], [True]])
        self.moments = t[closes] + 1
        if (self.moments < 2).any():
            raise DemosError(f"{self.where}: episode {self.episode_names[int(np.argmin(self.moments))]} has no step.")
        places = int(self.moments.sum()) * len(self.agent_names)
        if places > 100 * len(self.t) + 10**6:
            raise DemosError(
                f"{self.where}: {len(self.t):,} rows for {places:,} places of {len(self.agent_names):,} agents. Are "
                "agents numbered anew in each episode? Who plays the same part must have the same number."
            )

    def close(self, actions: Sequence[str], give_up: bool) -> None:
        """Refuse episodes that end with an action, or mark them to have it given up."""
        acted = np.any([self.cells(name, np.float64)[1] for name in actions], axis=0)
        over = np.nonzero(acted & ~self.acting)[0]
        if len(over) and not give_up:
            raise DemosError(
                f"{self.spot(over[0])}: the episode ends with an action, and what it led to is not recorded. Add a "
                'last row without action for each agent, or give the last actions up with last="drop".'
            )
        self.given_up[self.episode[over]] = True

    # ------------------------------------------------------------------------------------------------ reading

    def block(
        self, names: Sequence[str], dtype: Any, acting: bool = False, sizes: Sequence[int] | None = None
    ) -> np.ndarray:
        """Columns as [moment, agent, column], zero where there is no row.

        Args:
            acting: the cells are of steps: none is needed at an episode's last moment.
            sizes: how many of the columns each agent needs; None: all. The others may be empty.
        """
        blocks = []
        for k, name in enumerate(names):
            values, there = self.cells(name, dtype)
            needed = self.here & self.acting if acting else self.here
            self._expect(there, name, needed if sizes is None else needed & (k < np.asarray(sizes)[self.agent]))
            left = np.nonzero(acting & (values != 0) & ~self.acting & ~self.given_up[self.episode])[0]
            if len(left):
                raise DemosError(
                    f"{self.spot(left[0])}: `{name}` has a value where the episode has no action any more."
                )
            blocks.append(self._spread(values))
        return np.stack(blocks, axis=-1)

    def shared(self, names: Sequence[str], dtype: Any, acting: bool = False) -> np.ndarray:
        """Columns that say the same for all agents of a moment, as [moment, column]."""
        blocks = []
        for name in names:
            values, there = self.cells(name, dtype)
            self._expect(there, name, self.acting if acting else np.ones_like(there))
            moment = self.first[self.episode] + self.t
            joint = np.zeros(self.first[-1], values.dtype)
            joint[moment] = values
            odd = np.nonzero(joint[moment] != values)[0]
            if len(odd):
                raise DemosError(f"{self.spot(odd[0])}: `{name}` differs between the agents of one moment.")
            blocks.append(joint)
        return np.stack(blocks, axis=-1)

    def cells(self, name: str, dtype: Any) -> tuple[np.ndarray, np.ndarray]:
        """Values of a column as `dtype` (zero where empty), and whether there is one. NaN counts as empty."""
        column, kind = self._column(name), pa.from_numpy_dtype(np.dtype(dtype))
        if pa.types.is_floating(column.type):
            column = pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)
        try:
            column = _cast(column, kind)
        except pa.ArrowException:
            raise DemosError(self._first_misfit(name, column, kind)) from None
        there = column.is_valid().to_numpy(zero_copy_only=False)
        return column.fill_null(False if pa.types.is_boolean(kind) else 0).to_numpy(zero_copy_only=False), there

    def natural_dtype(self, name: str) -> Any:
        """What a column's cells are: bool, int64 or float32. Text is what all of it can be read as."""
        column = self._column(name)
        for dtype, fits in ((np.bool_, pa.types.is_boolean), (np.int64, pa.types.is_integer)):
            if fits(column.type):
                return dtype
            if _is_text(column.type) and (dtype is not np.bool_ or _only_words(column)):
                with suppress(pa.ArrowInvalid):
                    pc.utf8_trim_whitespace(column).cast(pa.from_numpy_dtype(np.dtype(dtype)))
                    return dtype
        return np.float32

    def is_whole(self, name: str) -> bool:
        """A column of real numbers has whole ones only, at least one."""
        values, there = self.cells(name, np.float64)
        return bool(there.any() and (values == np.round(values)).all())

    def obs_dtype(self, names: Sequence[str]) -> Any:
        """Of columns that nothing else is known of: bytes stay bytes (pictures), all else becomes float32."""
        return np.uint8 if all(pa.types.is_uint8(self.table[name].type) for name in names) else np.float32

    def spot(self, row: int | np.integer) -> str:
        """Where a row stands: file, row, episode, agent and t."""
        said = ", ".join(f"{name} {column[int(row)]}" for name, column in self._keys.items())
        return f"{self.where}: row {int(row) + 1} ({said})"

    def _expect(self, there: np.ndarray, name: str, needed: np.ndarray) -> None:
        missing = np.nonzero(needed & ~there)[0]
        if len(missing):
            raise DemosError(f"{self.spot(missing[0])}: the cell of `{name}` is empty.")

    def _spread(self, values: np.ndarray) -> np.ndarray:
        placed = np.where(self._grid >= 0, values[self._grid], np.zeros((), values.dtype))
        return placed.reshape(-1, len(self.agent_names))

    def _column(self, name: str) -> pa.Array:
        column = self.table[name].combine_chunks()
        if isinstance(column, pa.ChunkedArray):
            column = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
        return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column

    def _first_misfit(self, name: str, column: pa.Array, kind: pa.DataType) -> str:
        for row in range(len(column)):
            try:
                _cast(column.slice(row, 1), kind)
            except pa.ArrowException:
                wanted = {"bool": "true or false", "int64": "a whole number"}.get(str(kind), f"a number ({kind})")
                return f"{self.spot(row)}: `{name}` is {column[row]!s:.60}, but it must be {wanted}."
        raise AssertionError("a column misfits though each of its cells fits")


def _numbered(column: pa.Array) -> tuple[np.ndarray, list[str]]:
    """Each cell as a number from 0, and the names that the numbers stand for, e2 before e10."""
    coded = column.dictionary_encode()
    names = [str(name) for name in coded.dictionary.to_pylist()]
    rank = sorted(range(len(names)), key=lambda i: _by_number(names[i]))
    code = np.empty(len(names), np.int64)
    code[rank] = np.arange(len(names))
    return code[coded.indices.to_numpy()], [names[i] for i in rank]


def _by_number(name: str) -> list[tuple[int, str]]:
    """A key that sorts numbers within names by their size."""
    pieces = re.split(r"([0-9]+)", name)
    return [(len(p.lstrip("0")), p) if k % 2 else (0, p) for k, p in enumerate(pieces)]


def _cast(column: pa.Array, kind: pa.DataType) -> pa.Array:
    if _is_text(column.type):
        column = pc.utf8_trim_whitespace(column)
        if pa.types.is_integer(kind):
            try:
                return column.cast(kind)
            except pa.ArrowInvalid:  # 3.0 is a whole number too: so do tables with empty cells write it
                column = column.cast(pa.float64())
    if pa.types.is_boolean(kind) and not pa.types.is_boolean(column.type) and not _is_text(column.type):
        numbers = column.cast(pa.float64())
        if pc.any(pc.and_(pc.not_equal(numbers, 0), pc.not_equal(numbers, 1))).as_py():
            raise pa.ArrowInvalid("neither 0 nor 1")
    return column.cast(kind)


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def _only_words(column: pa.Array) -> bool:
    """No cell is a number: 0 and 1 can be read as false and true, but more likely count something."""
    return not pc.any(pc.match_substring_regex(column, r"^\s*[-+.\d]")).as_py()
