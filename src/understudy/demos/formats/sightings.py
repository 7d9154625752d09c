"""Sightings: who was seen where and when, row by row, as most files of tracks have them; and their place on a grid.

What is wrong with rows is refused in one line that names the file, the row, the agent and the time, and the word by
which `mend` allows it to be mended:

| word | what is mended |
|---|---|
| `sort` | an agent's rows that do not stand in the order of time are sorted |
| `twice` | of several rows of one agent at one time the first is kept |
| `ragged` | times off the grid: positions are interpolated linearly between sightings at most 2.5 frames apart |
| `teleports` | sightings that could only be reached faster than `fastest` are left out |
| `absent` | agents that are named, and never seen, are left out |

All that is left out is counted in the set's `omissions`.
"""

import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from understudy.core.errors import ConfigError, DemosError, nearest
from understudy.demos.episode import About, Info
from understudy.demos.tracks import Omission, Tracks, TrackSet, TrackSpec
from understudy.demos.transforms import leaps

MENDS = ("sort", "twice", "ragged", "teleports", "absent")
SLACK = 0.25  # of a frame: how far a time may be off the grid, being rounded
MAX_BYTES = 2**31
FEW = 10  # gaps between rows that tell nothing of a frame rate
REACH = 2.5  # frames between two sightings that are interpolated


@dataclass(frozen=True)
class Sightings:
    """Rows of one recording. `line` counts rows of the file from 1, for messages."""

    where: str
    names: tuple[str, ...]
    time: np.ndarray  # float64 [row]
    agent: np.ndarray  # int64 [row], into names
    position: np.ndarray  # float64 [row, dim], nan where nobody was seen
    line: np.ndarray  # int64 [row]
    labels: dict[str, np.ndarray] = field(default_factory=dict)  # [row] each

    def take(self, rows: np.ndarray) -> "Sightings":
        """Some of the rows, by number or by mask."""
        labels = {name: values[rows] for name, values in self.labels.items()}
        return Sightings(
            self.where, self.names, self.time[rows], self.agent[rows], self.position[rows], self.line[rows], labels
        )

    def spot(self, row: int | np.integer) -> str:
        """Where a row stands: file, row, agent and time."""
        k = int(row)
        return f"{self.where}: row {self.line[k]} (agent {self.names[self.agent[k]]}, time {self.time[k]:.10g})"


@dataclass(frozen=True)
class Placing:
    """How rows become frames."""

    step: int | float | None = None  # what the column of times grows by from one frame to the next; None: found out
    dt: int | float | None = None  # how long that is; None: as much as the column says
    unit: str = "m"
    fastest: int | float | None = None  # in units per second (or beat); None: nothing is too fast
    mend: Collection[str] = ()
    max_bytes: int = MAX_BYTES  # of the grid that the rows are placed on

    def __post_init__(self) -> None:
        for word in self.mend:
            if word not in MENDS:
                raise ConfigError(f"mend: got {word!r}.{nearest(word, MENDS)}")
        for name in ("step", "dt", "fastest"):
            if getattr(self, name) is not None and not 0 < getattr(self, name) < np.inf:
                raise ConfigError(f"{name}: got {getattr(self, name)}; it is a number above 0.")


@dataclass(frozen=True)
class Placed:
    """A recording on its grid."""

    tracks: Tracks
    names: tuple[str, ...]
    dt: float
    omissions: tuple[Omission, ...]


def place(seen: Sightings, how: Placing, name: str = "", info: Info | None = None) -> Placed:
    """The recording that rows tell of. Raises DemosError where they tell none, or several (see the module's table)."""
    rows = len(seen.time)
    seen, left_out = _mended(seen, how)
    step, frame, start = _on_grid(seen, how)
    dt = step if how.dt is None else float(how.dt)
    if how.fastest is not None and "teleports" not in how.mend:
        _expect_no_leap(seen, frame, how.fastest * dt, how)
    values, present, labels = _spread(seen, frame)
    if how.fastest is not None and "teleports" in how.mend:
        far = leaps(values, present, how.fastest * dt)
        why = f"out of reach at {how.fastest:.4g} {how.unit} a second"
        left_out.append(Omission(int(far.sum()), rows, "rows", why))
        present &= ~far
    told = {"start": start * dt / step, **(info or {})}
    tracks = Tracks(values, present, labels, name, told)
    return Placed(tracks, seen.names, dt, tuple(o for o in left_out if o.count))


def frame_step(times: np.ndarray) -> float:
    """What times grow by from one frame to the next, where most differ by one frame: rounded times average out.

    `times` are sorted and differ. One moment alone has the step 1.
    """
    gaps = np.diff(times)
    if not len(gaps):
        return 1.0
    step = float(np.quantile(gaps, 0.1))
    for near in (1.5, 5.5, np.inf):  # a long gap tells more exactly, once the step is nearly known
        frames = np.maximum(np.round(gaps / step), 1)
        kept = gaps <= near * step
        step = float(gaps[kept].sum() / frames[kept].sum())
    return float(f"{step:.12g}")


def cells(column: pa.ChunkedArray | pa.Array, name: str, where: str) -> np.ndarray:
    """A column of text or numbers as float64, nan where a cell is empty. Raises DemosError naming one that is none."""
    try:
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            column = pc.utf8_trim_whitespace(column)
            column = pc.if_else(pc.equal(column, ""), pa.scalar(None, column.type), column)
        return np.asarray(column.cast(pa.float64()).to_numpy(), dtype=np.float64)
    except pa.ArrowException:
        for row, cell in enumerate(column.to_pylist(), 1):
            try:
                float(cell if cell is not None else 0)
            except (TypeError, ValueError):
                raise DemosError(f"{where}: row {row}: `{name}` is {cell!s:.60}, and a number is meant.") from None
        raise


def whole_or_not(values: np.ndarray) -> np.ndarray:
    """Labels as int64 where all that are known are whole numbers (-1 where unknown), else as they are."""
    known = values[~np.isnan(values)]
    if len(known) and (known == np.round(known)).all() and np.abs(known).max() < 2**53:
        return np.where(np.isnan(values), -1, values).astype(np.int64)
    return values


def mended(word: str) -> str:
    """The tail of a message: how the reader may be told to go on."""
    return f'mend=("{word}",) does that.'


def _mended(seen: Sightings, how: Placing) -> tuple[Sightings, list[Omission]]:
    """Rows by agent and time, one for each; and what had to go for that."""
    rows = len(seen.time)
    if (~np.isfinite(seen.time)).any():
        raise DemosError(f"{seen.spot(np.argmin(np.isfinite(seen.time)))}: there is no time.")
    if np.isinf(seen.position).any():
        raise DemosError(f"{seen.spot(np.argmax(np.isinf(seen.position).any(1)))}: the position is infinite.")
    blank = np.isnan(seen.position).any(1)
    seen = seen.take(~blank)
    if not len(seen.time):
        raise DemosError(f"{seen.where}: nobody is seen in it.")
    seen, twice = _once(_in_order(seen, how), how)
    seen = _without_absent(seen)
    left_out = [
        Omission(int(blank.sum()), rows, "rows", "no position in them"),
        Omission(twice, rows, "rows", "a row of the same agent and time stands before it"),
    ]
    if "ragged" in how.mend:
        seen, unused = regular(seen, how.step)
        left_out.append(Omission(unused, rows, "rows", "not beside a moment of the grid that was interpolated on"))
    return seen, left_out


def _spread(seen: Sightings, frame: np.ndarray) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """(positions [time agent dim], who is there [time agent], labels [time agent])."""
    at, shape = (frame, seen.agent), (int(frame.max()) + 1, len(seen.names))
    values, present = np.zeros((*shape, seen.position.shape[1]), np.float32), np.zeros(shape, bool)
    values[at], present[at] = seen.position, True
    labels = {}
    for name, column in seen.labels.items():
        whole = column.dtype.kind in "iu"
        spread = np.full(shape, -1 if whole else np.nan, np.int64 if whole else np.float32)
        spread[at] = column
        labels[name] = torch.from_numpy(spread)
    return torch.from_numpy(values), torch.from_numpy(present), labels


def _in_order(seen: Sightings, how: Placing) -> Sightings:
    """Rows by agent, then time, then place in the file."""
    by_agent = np.argsort(seen.agent, kind="stable")
    back = (np.diff(seen.agent[by_agent]) == 0) & (np.diff(seen.time[by_agent]) < 0)
    if back.any() and "sort" not in how.mend:
        row = by_agent[1:][back][0]
        before = by_agent[:-1][back][0]
        raise DemosError(
            f"{seen.spot(row)}: the agent's row before it, {seen.line[before]}, is later, at {seen.time[before]:.10g}. "
            f"Are two tracks in one? If only the order is wrong, sort the rows: {mended('sort')}"
        )
    return seen.take(np.lexsort((seen.line, seen.time, seen.agent)))


def _once(seen: Sightings, how: Placing) -> tuple[Sightings, int]:
    """One row for each agent and time, of rows in order; and how many were too many."""
    again = np.concatenate([[False], (np.diff(seen.agent) == 0) & (np.diff(seen.time) == 0)])
    if again.any() and "twice" not in how.mend:
        row = int(np.argmax(again))
        more = f", and there are {again.sum() - 1:,} more such rows" if again.sum() > 1 else ""
        raise DemosError(
            f"{seen.spot(row)}: row {seen.line[row - 1]} is of the same agent and time{more}. "
            f"Keep the first of each: {mended('twice')}"
        )
    return seen.take(~again), int(again.sum())


def _without_absent(seen: Sightings) -> Sightings:
    """Without the names of agents who have no row here."""
    there = np.bincount(seen.agent, minlength=len(seen.names)) > 0
    names = tuple(name for name, seen_once in zip(seen.names, there, strict=True) if seen_once)
    return replace(seen, names=names, agent=(np.cumsum(there) - 1)[seen.agent])


def _on_grid(seen: Sightings, how: Placing) -> tuple[float, np.ndarray, float]:
    """(step, frame of each row, time of frame 0)."""
    times = np.unique(seen.time)
    step = float(how.step or frame_step(times))
    start = float(times[0])
    exact = (seen.time - start) / step
    size = (exact.max() + 1) * len(seen.names) * (4 * seen.position.shape[1] + 1 + 8 * len(seen.labels))
    if size > how.max_bytes:
        order = np.argsort(exact, kind="stable")
        late = order[np.argmax(np.diff(exact[order], prepend=0))]
        raise DemosError(
            f"{seen.spot(late)}: {exact.max():.4g} frames of {step:.6g} for {len(seen.names):,} agents are {size:.4g} "
            f"bytes, more than {how.max_bytes:,}; the widest gap ends here. Part the file, or raise `max_bytes`."
        )
    frame = np.round(exact).astype(np.int64)
    off = np.abs(exact - frame) > SLACK
    if not off.any():
        same = np.nonzero((np.diff(frame) == 0) & (np.diff(seen.agent) == 0))[0]
        off[same + 1] = True
    way_out = f"Say the `step` of the frames, or interpolate onto one grid: {mended('ragged')}"
    if off.any():
        row = int(np.argmax(off))
        raise DemosError(
            f"{seen.spot(row)}: it lies {abs(exact[row] - frame[row]):.2f} frames off a grid of {step:.6g} that begins "
            f"at {start:.10g}, as do {off.sum() - 1} rows more: frame rates differ. {way_out}"
        )
    apart = np.diff(frame)[np.diff(seen.agent) == 0]
    if how.step is None and len(apart) >= FEW and np.median(apart) > 1:
        raise DemosError(
            f"{seen.spot(0)}: frames seem to be {step:.6g} apart, but an agent's rows {np.median(apart):g} of them: "
            f"agents were seen at different times. {way_out}"
        )
    return step, frame, start


def _expect_no_leap(seen: Sightings, frame: np.ndarray, reach: float, how: Placing) -> None:
    """Refuse a step of more than `reach` for each of its frames; rows are by agent and time."""
    way = np.linalg.norm(np.diff(seen.position, axis=0), axis=1)
    frames = np.diff(frame)
    leap = (np.diff(seen.agent) == 0) & (way > reach * frames)
    if leap.any():
        k = int(np.argmax(leap))
        assert how.fastest is not None
        speed = way[k] / frames[k] / reach * how.fastest
        raise DemosError(
            f"{seen.spot(k + 1)}: the agent moved {way[k]:.4g} {how.unit} since row {seen.line[k]}, at {speed:.4g} "
            f"{how.unit} a second; {how.fastest:.4g} is the most (`fastest`), and {leap.sum() - 1} rows more break it. "
            f"Leave such rows out: {mended('teleports')}"
        )


def regular(seen: Sightings, step: int | float | None = None) -> tuple[Sightings, int]:
    """Sightings on one grid of times, by linear interpolation within REACH frames; and how many rows were of no use.

    `step` is the middle one of all agents' gaps where None. Rows must be by agent and time. Labels are those of the
    row before.
    """
    gaps = np.diff(seen.time)[np.diff(seen.agent) == 0]
    step = step or (float(np.median(gaps)) if len(gaps) else 1.0)
    start, nearly = seen.time.min(), 1e-6 * step
    made, used = [], np.zeros(len(seen.time), bool)
    for k in range(len(seen.names)):
        rows = np.nonzero(seen.agent == k)[0]
        own = seen.time[rows]
        first, last = np.ceil((own[0] - start - nearly) / step), np.floor((own[-1] - start + nearly) / step)
        grid = start + np.arange(first, last + 1) * step
        before = (np.searchsorted(own, grid + nearly, side="right") - 1).clip(0)
        after = (before + 1).clip(max=len(own) - 1)
        exact = np.abs(own[before] - grid) <= nearly
        kept = exact | (own[after] - own[before] <= REACH * step)
        grid, before, after = grid[kept], rows[before[kept]], rows[np.where(exact, before, after)[kept]]
        used[before] = used[after] = True
        share = ((grid - seen.time[before]) / np.where(before == after, 1.0, seen.time[after] - seen.time[before]))[
            :, None
        ]
        position = (1 - share) * seen.position[before] + share * seen.position[after]
        made.append(replace(seen.take(before), time=grid, position=position))
    time, agent, position, line = (
        np.concatenate([getattr(m, column) for m in made]) for column in ("time", "agent", "position", "line")
    )
    labels = {name: np.concatenate([m.labels[name] for m in made]) for name in seen.labels}
    return Sightings(seen.where, seen.names, time, agent, position, line, labels), int((~used).sum())


def gathered(
    pieces: Sequence[tuple[str, Sightings]],
    how: Placing,
    *,
    anonymous: bool = False,
    clock: str = "s",
    field: tuple[tuple[float, ...], tuple[float, ...]] = ((), ()),
    teams: Mapping[str, str] | None = None,
    roles: Mapping[str, str] | None = None,
    title: str = "",
    about: About | None = None,
    infos: Sequence[Info] | None = None,
) -> TrackSet:
    """The set of several recordings, each a name and its rows.

    Args:
        anonymous: agents of one recording have nothing to do with those of another: slots are given in the order of
            the agents' numbers in each, and the label `id` keeps who it was. Otherwise slots go by name.
        field: the lower and upper bounds.
        teams, roles: of agents by name.
    """
    if not pieces:
        raise DemosError("no recording came.")
    placed = [place(s, how, name, infos[k] if infos else None) for k, (name, s) in enumerate(pieces)]
    for (name, seen), each in zip(pieces, placed, strict=True):
        if abs(each.dt / placed[0].dt - 1) > 1e-3:
            raise DemosError(
                f"{seen.where}: recording {name or '1'} has frames {each.dt:.6g} apart, the first {placed[0].dt:.6g}. "
                "Read them one by one and `resample` them (demos.transforms), or say the `step`."
            )
    known = {name for each in placed for name in each.names}
    listed = list(dict.fromkeys(name for _, seen in pieces for name in seen.names))
    if (never := [name for name in listed if name not in known]) and "absent" not in how.mend:
        raise DemosError(
            f"{pieces[0][1].where}: agent {never[0]} never appears, nor do {len(never) - 1} more of {len(listed)}. "
            f"Leave them out: {mended('absent')}"
        )
    names = tuple(name for name in listed if name in known)
    slots = max(len(each.names) for each in placed) if anonymous else len(names)
    spec = TrackSpec(
        agents=slots,
        dims=placed[0].tracks.values.shape[-1],
        dt=placed[0].dt,
        clock=clock,
        unit=how.unit,
        low=field[0],
        high=field[1],
        names=() if anonymous else names,
        teams=() if anonymous or not teams else tuple(teams.get(name, "") for name in names),
        roles=() if anonymous or not roles else tuple(roles.get(name, "agent") for name in names),
        title=title,
    )
    place_of = {name: i for i, name in enumerate(names)}
    tracks = []
    for each in placed:
        slot = torch.arange(len(each.names)) if anonymous else torch.tensor([place_of[name] for name in each.names])
        tracks.append(_widened(each, slot, slots, anonymous))
    left_out = [o for each in placed for o in each.omissions]
    return TrackSet.of(spec, tracks, about, summed(left_out)).noted(
        Omission(len(never), len(listed), "agents", "named, and never seen")
    )


def with_joint(tracks: TrackSet, *names: str) -> TrackSet:
    """The set with labels that are known of some agents of a frame, and the same for all, made one for the frame."""

    def joint(label: Tensor) -> Tensor:
        if not label.is_floating_point():
            return label.amax(-1)
        most = label.nan_to_num(-math.inf).amax(-1)
        return torch.where(most == -math.inf, math.nan, most)

    return replace(tracks, labels={k: joint(v) if k in names else v for k, v in tracks.labels.items()})


def summed(omissions: Sequence[Omission]) -> list[Omission]:
    """Omissions of several recordings, those of one kind added up."""
    made: dict[tuple[str, str], Omission] = {}
    for each in omissions:
        key = (each.what, each.why)
        old = made.get(key, Omission(0, 0, *key))
        made[key] = Omission(old.count + each.count, old.of + each.of, *key)
    return list(made.values())


def _widened(placed: Placed, slot: Tensor, slots: int, anonymous: bool) -> Tracks:
    """The recording with so many slots, its agents in those of `slot`."""
    tracks = placed.tracks
    labels = dict(tracks.labels)
    if anonymous:
        numbers = [int(n) if re.fullmatch(r"-?\d{1,18}", n) else k for k, n in enumerate(placed.names)]
        labels["id"] = torch.where(tracks.present, torch.tensor(numbers), -1)

    def wide(x: Tensor, blank: float | int | bool) -> Tensor:
        out = x.new_full((len(x), slots, *x.shape[2:]), blank)
        out[:, slot] = x
        return out

    labels = {k: wide(v, math.nan if v.is_floating_point() else -1) for k, v in labels.items()}
    return replace(tracks, values=wide(tracks.values, 0), present=wide(tracks.present, False), labels=labels)


def numbered(values: Sequence[str]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Each text as a number, in the order of first appearance, and the texts."""
    coded = pa.array(values, pa.string()).dictionary_encode()
    return coded.indices.to_numpy().astype(np.int64), tuple(coded.dictionary.to_pylist())
