"""Labels from programs: what agents are after, or how they go about it, as functions of a recording.

A label is a function of a recording and its spec that gives [time agent], or [time] for all agents together: whole
numbers with -1, or real numbers with nan, where it is not known. Those here are made by naming what they need,

    tracks.labelled(goal=stationary_cell(HALF_COURT), pace=binned(average_speed(frames=25), (1.0, 3.0, 5.0)))

and a user's own is any function of the kind. An agent's label is unknown where the agent is absent.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from understudy.core.errors import ConfigError, nearest
from understudy.demos.tracks import Tracks, TrackSpec
from understudy.demos.transforms import velocities

Label = Callable[[Tracks, TrackSpec], Tensor]


@dataclass(frozen=True)
class Grid:
    """Equal cells over a part of the field, numbered with the second coordinate running fastest."""

    low: tuple[float, float]
    high: tuple[float, float]
    cells: tuple[int, int]

    def __post_init__(self) -> None:
        if min(self.cells) < 1 or not all(a < b for a, b in zip(self.low, self.high, strict=True)):
            raise ConfigError(f"a grid of {self.cells} cells from {self.low} to {self.high} has no cell.")

    @staticmethod
    def of(spec: TrackSpec, cells: tuple[int, int]) -> "Grid":
        """Cells over the whole field. Raises ConfigError where the spec has no bounds."""
        if not spec.low:
            raise ConfigError("spec: its field has no bounds (`low`, `high`); make a Grid with some.")
        return Grid((spec.low[0], spec.low[1]), (spec.high[0], spec.high[1]), cells)

    def __len__(self) -> int:
        return self.cells[0] * self.cells[1]

    def cell(self, position: Float[Tensor, "*batch dim"]) -> Int[Tensor, "*batch"]:
        """The cell of each position; of those beyond the grid the nearest one."""
        low, high = torch.tensor(self.low), torch.tensor(self.high)
        count = torch.tensor(self.cells)
        place = ((position[..., :2] - low) / (high - low) * count).floor().long()
        place = torch.minimum(place.clamp(min=0), count - 1)
        return place[..., 0] * self.cells[1] + place[..., 1]

    def middle(self, cell: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch 2"]:
        """The middle of each cell."""
        low, high = torch.tensor(self.low), torch.tensor(self.high)
        place = torch.stack([cell // self.cells[1], cell % self.cells[1]], dim=-1)
        return low + (place + 0.5) / torch.tensor(self.cells) * (high - low)

    def goal(self, x: int | float, y: int | float) -> int:
        """The cell of a goal that somebody sets. Raises ConfigError where it lies outside the grid."""
        if not (self.low[0] <= x <= self.high[0] and self.low[1] <= y <= self.high[1]):
            raise ConfigError(f"goal: ({x:g}, {y:g}) lies outside the field from {self.low} to {self.high}.")
        return int(self.cell(torch.tensor([float(x), float(y)])))


HALF_COURT = Grid((0.0, 0.0), (45.0, 50.0), (9, 10))  # feet: 5 ft x 5 ft over the left half of a court, 90 goals


def stationary_cell(grid: Grid, slow: int | float = 0.5) -> Label:
    """Where the agent next comes to rest: the cell of the next frame that is slow while the one after it is not.

    A frame is slow if the way to the next is shorter than `slow`, in the set's unit for one FRAME. Going backwards the
    label changes at such frames and is that of the frame after elsewhere; the last frame is always a goal, and so is
    the last one before a gap.

    Source: Zhan et al. 2019, arXiv:1803.07612; `slow` is 0.5 ft a frame there, the grid HALF_COURT.
    """

    def label(tracks: Tracks, spec: TrackSpec) -> Int[Tensor, "time agent"]:
        follows = torch.zeros_like(tracks.present)  # the agent is there in the next frame too
        follows[:-1] = tracks.present[:-1] & tracks.present[1:]
        moving = torch.zeros_like(tracks.present)
        moving[:-1] = (tracks.values.diff(dim=0).norm(dim=-1) >= slow) & follows[:-1]
        goes = torch.zeros_like(moving)  # in the next frame
        goes[:-1] = moving[1:]
        rests = tracks.present & (~follows | (~moving & goes))
        return _next(grid.cell(tracks.values), rests, tracks.present)

    return label


def window_cell(grid: Grid, frames: int) -> Label:
    """Where the agent is at the end of each window of `frames`, or last seen in it. Source: as `stationary_cell`."""

    def label(tracks: Tracks, spec: TrackSpec) -> Int[Tensor, "time agent"]:
        last = _last(tracks.present, frames)
        return torch.where(tracks.present, grid.cell(tracks.values).gather(0, last), -1)

    return label


def destination(grid: Grid) -> Label:
    """The cell in which the agent is seen last in the recording."""

    def label(tracks: Tracks, spec: TrackSpec) -> Int[Tensor, "time agent"]:
        return window_cell(grid, len(tracks))(tracks, spec)

    return label


def average_speed(frames: int | None = None) -> Label:
    """Mean speed over each window of `frames` (None: the recording), in the unit a second; of steps that are known."""

    def label(tracks: Tracks, spec: TrackSpec) -> Float[Tensor, "time agent"]:
        way, known = velocities(tracks.values, tracks.present, spec.dt)
        speed = _total(way.norm(dim=-1), known, frames) / _total(known.float(), known, frames)
        return torch.where(tracks.present, speed, math.nan)  # nan too where no step is known: 0 / 0

    return label


def displacement(frames: int | None = None) -> Label:
    """How far it is from the agent's first place in each window of `frames` to its last, in the set's unit."""

    def label(tracks: Tracks, spec: TrackSpec) -> Float[Tensor, "time agent"]:
        return torch.where(tracks.present, _way(tracks, frames).norm(dim=-1), math.nan)

    return label


def direction(frames: int | None = None, sectors: int | None = None) -> Label:
    """Which way it is from the agent's first place in each window of `frames` to its last.

    In radians from the x axis, anticlockwise, in (-pi, pi]; or the number of one of so many `sectors`, whose first is
    centred on the x axis. Unknown where the two places are one.
    """

    def label(tracks: Tracks, spec: TrackSpec) -> Float[Tensor, "time agent"] | Int[Tensor, "time agent"]:
        way = _way(tracks, frames)
        angle = torch.atan2(way[..., 1], way[..., 0])
        known = tracks.present & (way[..., :2] != 0).any(-1)
        if sectors is None:
            return torch.where(known, angle, math.nan)
        return torch.where(known, (angle / (2 * math.pi) * sectors).round().long() % sectors, -1)

    return label


def curvature(frames: int | None = None, still: int | float = 1e-6) -> Label:
    """All turning in each window of `frames` over the length of the way, in radians for one unit of length.

    Turning is the angle between a step and the next, without its sign; a step shorter than `still` has no direction.
    Unknown where there is no way. A circle of radius r has the curvature 1 / r.
    """

    def label(tracks: Tracks, spec: TrackSpec) -> Float[Tensor, "time agent"]:
        step, known = velocities(tracks.values, tracks.present, 1.0)
        length = step.norm(dim=-1)
        goes = known & (length > still)
        turn, turns = torch.zeros_like(length), torch.zeros_like(goes)
        cosine = torch.nn.functional.cosine_similarity(step[1:].double(), step[:-1].double(), dim=-1)
        turn[1:] = cosine.clamp(-1, 1).arccos().float()
        turns[1:] = goes[1:] & goes[:-1]
        bent = _total(turn, turns, frames) / _total(length, known, frames)
        return torch.where(tracks.present & bent.isfinite(), bent, math.nan)

    return label


def possession(ball: str, reach: int | float, hold: bool = True) -> Label:
    """Who has the ball, for all agents together: the slot of whoever is nearest to it and within `reach`.

    Args:
        ball: the ball's name.
        hold: while nobody is within reach, or the ball is not seen, it is whose it was; otherwise nobody's, -1.
    """

    def label(tracks: Tracks, spec: TrackSpec) -> Int[Tensor, "time"]:
        if ball not in spec.names:
            raise ConfigError(f"ball: nobody is called {ball!r}.{nearest(ball, spec.names)}")
        slot = spec.names.index(ball)
        away = (tracks.values - tracks.values[:, slot : slot + 1]).norm(dim=-1)
        away = torch.where(tracks.present & tracks.present[:, slot : slot + 1], away, math.inf)
        away[:, slot] = math.inf
        least, who = away.min(-1)
        who = torch.where(least <= reach, who, -1)
        if not hold:
            return who
        frame = torch.arange(len(who))
        last = torch.where(who >= 0, frame, -1).cummax(0).values
        return torch.where(last >= 0, who[last.clamp(min=0)], -1)

    return label


def cadence(hold: int) -> Label:
    """Frames until all voices next rest on their notes for `hold` frames or more, as at the end of a phrase.

    0 within such a rest, for all agents together; -1 after the last one.
    """

    def label(tracks: Tracks, spec: TrackSpec) -> Int[Tensor, "time"]:
        frame = torch.arange(len(tracks))
        changes = torch.ones(len(tracks), dtype=torch.bool)
        changes[1:] = (tracks.values[1:] != tracks.values[:-1]).reshape(len(tracks) - 1, -1).any(-1)
        chord = changes.cumsum(0) - 1
        rests = chord.bincount()[chord] >= hold
        soon = torch.where(rests, frame, len(tracks)).flip(0).cummin(0).values.flip(0)
        return torch.where(soon < len(tracks), soon - frame, -1)

    return label


def next_known(name: str) -> Label:
    """What the label `name` says next, now or later: the next object that is taken, the next pass, the next goal.

    For labels in whole numbers that are -1 but where something happens.
    """

    def label(tracks: Tracks, spec: TrackSpec) -> Tensor:
        if name not in tracks.labels:
            raise ConfigError(f"no label is called {name!r}.{nearest(name, tracks.labels)}")
        said = tracks.labels[name]
        there = tracks.present if said.dim() == 2 else torch.ones_like(said, dtype=torch.bool)
        return _next(said, said >= 0, there)

    return label


def binned(label: Label, edges: Sequence[float]) -> Label:
    """A label in real numbers as whole ones: how many of the `edges`, which must rise, lie at or below it."""
    if not edges or any(a >= b for a, b in pairwise(edges)):
        raise ConfigError(f"edges: got {tuple(edges)}; numbers that rise are meant.")

    def number(tracks: Tracks, spec: TrackSpec) -> Tensor:
        said = label(tracks, spec)
        place = torch.searchsorted(torch.tensor(edges, dtype=said.dtype), said.nan_to_num(), right=True)
        return torch.where(said.isnan(), -1, place)

    return number


# ---- over windows of a recording


def _windows(frames: int | None, length: int) -> Int[Tensor, "time"]:
    """The window of each frame: `frames` long each, end to end; None: one."""
    if frames is not None and frames < 1:
        raise ConfigError(f"frames: got {frames}; a window has 1 or more.")
    return torch.arange(length) // (frames or length)


def _total(
    values: Float[Tensor, "time agent"], known: Bool[Tensor, "time agent"], frames: int | None
) -> Float[Tensor, "time agent"]:
    """The sum of what is known in each frame's window."""
    window = _windows(frames, len(values))
    total = values.new_zeros(int(window[-1]) + 1, values.shape[1]).index_add(0, window, values * known)
    return total[window]


def _last(present: Bool[Tensor, "time agent"], frames: int | None) -> Int[Tensor, "time agent"]:
    """The last frame of each frame's window in which the agent is there; its own where there is none."""
    window, frame = _windows(frames, len(present)), torch.arange(len(present)).unsqueeze(-1)
    where = window.unsqueeze(-1).expand_as(present)
    found = torch.full((int(window[-1]) + 1, present.shape[1]), -1)
    last = found.scatter_reduce(0, where, torch.where(present, frame, -1), "amax")[window]
    return torch.where(last >= 0, last, frame)


def _way(tracks: Tracks, frames: int | None) -> Float[Tensor, "time agent dim"]:
    """From the first place in each window to the last."""
    windows = int(_windows(frames, len(tracks))[-1]) + 1
    pad = windows * (frames or len(tracks)) - len(tracks)  # in the mirror windows must begin at the same frames
    back = torch.cat([tracks.present, tracks.present.new_zeros(pad, tracks.present.shape[1])]).flip(0)
    first = (len(back) - 1 - _last(back, frames)).flip(0)[: len(tracks)]
    places = [i.unsqueeze(-1).expand_as(tracks.values) for i in (_last(tracks.present, frames), first)]
    return tracks.values.gather(0, places[0]) - tracks.values.gather(0, places[1])


def _next(said: Tensor, happens: Tensor, there: Tensor) -> Tensor:
    """What is said at the next frame, now or later, in which it happens; -1 where there is none or nobody."""
    frames = len(said)
    frame = torch.arange(frames).reshape(-1, *[1] * (said.dim() - 1))
    soon = torch.where(happens, frame, frames).flip(0).cummin(0).values.flip(0)
    return torch.where(there & (soon < frames), said.gather(0, soon.clamp(max=frames - 1)), -1)
