"""Tracks: where agents were, or which symbols they gave, moment after moment. No actions, no rewards, no simulator.

A set is kept as long tensors whose rows are frames, one recording after another: a batch of clips is one indexing.
Who is not there has `present` false and zeros for values, so nothing hangs on what stood in a gap.
"""

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from understudy.core import config
from understudy.core.errors import ConfigError, DemosError, ShapeError, nearest, printable
from understudy.core.random import generator, uniform
from understudy.core.types import MOST, MOST_AGENTS, to_device
from understudy.demos.episode import About, Info, expect_plain

REST = "rest"  # the symbol of a voice that is silent
METRES = {"m": 1.0, "cm": 0.01, "mm": 0.001, "km": 1000.0, "ft": 0.3048, "yd": 0.9144, "in": 0.0254}
UNITS = (*METRES, "px", "cell", "share", "")  # pixels, cells of a grid, shares of a field's sides, or none
CLOCKS = ("s", "beat", "step")


@dataclass(frozen=True)
class TrackSpec:
    """What all recordings of a set share. Agents either have positions (`dims`) or give symbols (`symbols`)."""

    agents: int  # slots; an agent keeps its slot within one recording
    dims: int = 2  # numbers of a position, 2 or 3; 0 where agents give symbols
    symbols: int = 0  # how many different ones; 0 where agents have positions
    dt: int | float = 1.0  # from one frame to the next, in `clock`; any number above 0
    clock: str = "s"  # unit of time: "s", "beat" or "step"
    unit: str = "m"  # of positions, one of UNITS
    low: tuple[int | float, ...] = ()  # bounds of the field, `dims` of them; empty where there are none
    high: tuple[int | float, ...] = ()
    names: tuple[str, ...] = ()  # agent_0, agent_1, ... where empty
    teams: tuple[str, ...] = ()  # all "team" where empty
    roles: tuple[str, ...] = ()  # all "agent" where empty
    alphabet: tuple[str, ...] = ()  # what the symbols are called; in music "rest" and pitches as MIDI numbers them
    title: str = ""

    def __post_init__(self) -> None:
        if not 1 <= self.agents <= MOST_AGENTS:
            raise ConfigError(f"agents: got {self.agents:,}; a set has from 1 to {MOST_AGENTS:,} slots.")
        if self.dims not in (0, 2, 3) or (self.dims == 0) == (self.symbols == 0):
            raise ConfigError(
                f"dims, symbols: got {self.dims} and {self.symbols}; agents have positions of 2 or 3 numbers "
                "(symbols=0), or give symbols (dims=0)."
            )
        if self.symbols < 0 or self.symbols > MOST or self.symbols == 1:
            raise ConfigError(f"symbols: got {self.symbols:,}; there are from 2 to {MOST:,}, or none.")
        if not 0 < self.dt < math.inf:
            raise ConfigError(f"dt: got {self.dt}; it is the time between two frames, above 0.")
        object.__setattr__(self, "dt", float(self.dt))  # so that 1 and 1.0 have one fingerprint
        for name in ("low", "high"):
            object.__setattr__(self, name, tuple(map(float, getattr(self, name))))
        for name, known in {"unit": UNITS, "clock": CLOCKS}.items():
            if getattr(self, name) not in known:
                raise ConfigError(f"{name}: got {getattr(self, name)!r}.{nearest(getattr(self, name), known)}")
        if len(self.low) != len(self.high) or len(self.low) not in (0, self.dims):
            raise ConfigError(f"low, high: got {self.low} and {self.high}; {self.dims} numbers each, or none.")
        if not all(-math.inf < a < b < math.inf for a, b in zip(self.low, self.high, strict=True)):
            raise ConfigError(f"low, high: got {self.low} and {self.high}; each low must be below its high.")
        if len(self.alphabet) not in (0, self.symbols) or len(set(self.alphabet)) < len(self.alphabet):
            raise ConfigError(f"alphabet: got {len(self.alphabet)} names; each of {self.symbols} symbols has its own.")
        defaults = {
            "names": tuple(f"agent_{i}" for i in range(self.agents)),
            "teams": ("team",) * self.agents,
            "roles": ("agent",) * self.agents,
        }
        for name, default in defaults.items():
            value = tuple(getattr(self, name)) or default
            if len(value) != self.agents:
                raise ConfigError(f"{name}: got {len(value)} of them for {self.agents} agents.")
            object.__setattr__(self, name, value)
        if len(set(self.names)) < self.agents:
            raise ConfigError("names: every agent needs a name of its own.")

    @property
    def shape(self) -> tuple[int, ...]:
        """Axes of all agents' values at one moment: (agents, dims), or (agents,) of symbols."""
        return (self.agents, self.dims) if self.dims else (self.agents,)

    @property
    def dtype(self) -> torch.dtype:
        return torch.float32 if self.dims else torch.long

    def to_json(self) -> dict[str, Any]:
        """Plain data that `from_json` reads."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    @staticmethod
    def from_json(data: Any) -> "TrackSpec":
        """The spec that plain `data` describes. Raises DemosError where it describes none."""
        try:
            return config.from_dict(TrackSpec, data, "a spec of tracks")
        except ConfigError as error:
            raise DemosError(str(error)) from None


@dataclass(frozen=True)
class Tracks:
    """One unbroken recording: frame t + 1 is `dt` after frame t, also where nobody is there."""

    values: Float[Tensor, "time agent dim"] | Int[Tensor, "time agent"]  # zero where absent
    present: Bool[Tensor, "time agent"]
    labels: dict[str, Tensor] = field(default_factory=dict)  # [time agent] or [time]; -1 or nan where unknown
    name: str = ""
    info: Info = field(default_factory=dict)  # such as the match, the split, `start`: when in its source it began

    def __len__(self) -> int:
        return len(self.values)


@dataclass(frozen=True)
class Clips:
    """A batch of equally long pieces: what models take. Past a recording's end nobody is present."""

    values: Float[Tensor, "scene time agent dim"] | Int[Tensor, "scene time agent"]
    present: Bool[Tensor, "scene time agent"]
    labels: dict[str, Tensor] = field(default_factory=dict)  # [scene time agent] or [scene time]
    slots: Int[Tensor, "scene agent"] | None = None  # whose each row is, -1: nobody's; None: slot i is agent i
    recording: Int[Tensor, "scene"] | None = None  # where each piece was cut from, and the first frame of it there
    start: Int[Tensor, "scene"] | None = None

    def __len__(self) -> int:
        return len(self.values)

    def to(self, device: torch.device | str) -> "Clips":
        """The same clips on `device`."""
        return to_device(self, device)


@dataclass(frozen=True)
class Omission:
    """What a reader or a transform left out: how many, of how many, of what, and why."""

    count: int
    of: int
    what: str  # "rows", "frames", "agents"
    why: str

    def __str__(self) -> str:
        share = f" ({self.count / self.of:.1%})" if self.of else ""
        return printable(f"{self.count:,} of {self.of:,} {self.what}{share} left out: {self.why}")


@dataclass(frozen=True, eq=False)
class TrackSet:
    """Many recordings of one spec. It does not change: what changes something makes a new set.

    Made by `TrackSet.of`, `TrackSet.stacked`, `TrackSet.load` or a reader of `demos.formats`.
    """

    spec: TrackSpec
    values: Float[Tensor, "frame agent dim"] | Int[Tensor, "frame agent"]  # recordings one after another
    present: Bool[Tensor, "frame agent"]
    labels: dict[str, Tensor]  # [frame agent] or [frame]
    lengths: Int[Tensor, "recording"]  # in frames
    names: tuple[str, ...]
    infos: tuple[Info, ...]
    about: About = field(default_factory=About)
    omissions: tuple[Omission, ...] = ()

    @staticmethod
    def of(
        spec: TrackSpec, tracks: Iterable[Tracks], about: About | None = None, omissions: Sequence[Omission] = ()
    ) -> "TrackSet":
        """A set of recordings, each looked through on its way in.

        Raises:
            DemosError: one does not fit `spec`, is not finite where somebody is present, has a label of another length
                ...; it names the recording, the agent and the frame.
        """
        tracks = [_sound(spec, each, number) for number, each in enumerate(tracks)]
        kinds = [{k: (v.dtype, v.dim()) for k, v in each.labels.items()} for each in tracks]
        for number, kind in enumerate(kinds):
            if kind != kinds[0]:
                raise DemosError(
                    f"recording {number}: its labels are {_said(kind)}; those of the first {_said(kinds[0])}."
                )
        return TrackSet(
            spec,
            torch.cat([t.values for t in tracks]) if tracks else torch.zeros(0, *spec.shape, dtype=spec.dtype),
            torch.cat([t.present for t in tracks]) if tracks else torch.zeros(0, spec.agents, dtype=torch.bool),
            {k: torch.cat([t.labels[k] for t in tracks]) for k in (kinds[0] if kinds else ())},
            torch.tensor([len(t) for t in tracks], dtype=torch.long),
            tuple(t.name for t in tracks),
            tuple(dict(t.info) for t in tracks),
            about or About(),
            tuple(omissions),
        )

    @staticmethod
    def stacked(
        spec: TrackSpec,
        values: Float[Tensor, "scene time agent dim"] | Int[Tensor, "scene time agent"],
        present: Bool[Tensor, "scene time agent"] | None = None,
        labels: Mapping[str, Tensor] | None = None,
        about: About | None = None,
    ) -> "TrackSet":
        """A set of equally long recordings: what a generator or a model gives. Everybody is present where None."""
        scenes, frames = values.shape[:2]
        present = torch.ones(scenes, frames, spec.agents, dtype=torch.bool) if present is None else present
        whole = Tracks(
            values.flatten(0, 1), present.flatten(0, 1), {k: v.flatten(0, 1) for k, v in (labels or {}).items()}
        )
        joined = TrackSet.of(spec, [whole], about)
        return replace(joined, lengths=torch.full((scenes,), frames), names=("",) * scenes, infos=({},) * scenes)

    @staticmethod
    def load(folder: Path | str) -> "TrackSet":
        """The set in `folder`. Raises DemosError: there is none, or it is damaged; it says which file."""
        from understudy.demos.tracks_store import load

        return load(Path(folder))

    def save(self, folder: Path | str, *, replace: bool = False) -> None:
        """Write the set to `folder`, whole or not at all. A set that is there is kept unless `replace`.

        Raises:
            DemosError: the folder holds a set. RunError: the disk is full; what was in the folder is as it was.
        """
        from understudy.demos.tracks_store import save

        save(self, Path(folder), replace=replace)

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[Tracks]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: int) -> Tracks:
        """The recording at `index`; its tensors are views of the set's own."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"recording {index} of {len(self)}")
        i = index % len(self)
        stop = int(self.ends[i])
        here = slice(stop - int(self.lengths[i]), stop)
        labels = {k: v[here] for k, v in self.labels.items()}
        return Tracks(self.values[here], self.present[here], labels, self.names[i], self.infos[i])

    def __repr__(self) -> str:
        title = self.about.title or self.spec.title or "untitled"
        return f"TrackSet({title!r}, {len(self)} recordings, {self.frames} frames, {self.spec.agents} agents)"

    @property
    def frames(self) -> int:
        """Frames in all recordings."""
        return len(self.values)

    @cached_property
    def ends(self) -> Int[Tensor, "recording"]:
        """The row after the last one of each recording."""
        return self.lengths.cumsum(0)

    def select(self, indices: Iterable[int]) -> "TrackSet":
        """The recordings at `indices`, in that order."""
        wanted = [int(i) for i in indices]
        for i in wanted:
            if not -len(self) <= i < len(self):
                raise DemosError(f"indices: recording {i} was asked for, and there are {len(self)}.")
        kept = torch.tensor(wanted, dtype=torch.long) % max(1, len(self))
        lengths = self.lengths[kept]
        first = (self.ends - self.lengths)[kept]
        within = torch.arange(int(lengths.sum())) - (lengths.cumsum(0) - lengths).repeat_interleave(lengths)
        rows = first.repeat_interleave(lengths) + within
        return replace(
            self,
            values=self.values[rows],
            present=self.present[rows],
            labels={k: v[rows] for k, v in self.labels.items()},
            lengths=lengths,
            names=tuple(self.names[i] for i in kept.tolist()),
            infos=tuple(self.infos[i] for i in kept.tolist()),
        )

    def where(self, holds: Callable[[Info], bool]) -> "TrackSet":
        """The recordings whose `info` satisfies `holds`: `tracks.where(lambda info: info["split"] == "train")`."""
        return self.select(i for i, info in enumerate(self.infos) if holds(info))

    def split(self, share: float, seed: int) -> tuple["TrackSet", "TrackSet"]:
        """(rest, held out): `share` of the recordings, drawn by `seed`, are held out. None is parted in two.

        Raises:
            DemosError: one of the two would be empty.
        """
        held = round(share * len(self))
        if not 0 < held < len(self):
            raise DemosError(
                f"share: {share} of {len(self)} recordings is {held}, and both parts need one. `segment` and `cut` of "
                "demos.transforms make several of a long one."
            )
        order = torch.randperm(len(self), generator=generator(seed, "split")).tolist()
        return self.select(sorted(order[held:])), self.select(sorted(order[:held]))

    def map(self, change: Callable[[Tracks], Tracks | Iterable[Tracks]], spec: TrackSpec | None = None) -> "TrackSet":
        """The set of what `change` makes of each recording: one, or several, or none."""
        made: list[Tracks] = []
        for each in self:
            given = change(each)
            made += [given] if isinstance(given, Tracks) else given
        return TrackSet.of(spec or self.spec, made, self.about, self.omissions)

    def labelled(self, **functions: Callable[[Tracks, TrackSpec], Tensor]) -> "TrackSet":
        """The set with more labels, [time agent] or [time], each a function of a recording.

        Raises:
            DemosError: a label has another length than its recording.
        """
        return self.map(
            lambda each: replace(each, labels={**each.labels, **{k: f(each, self.spec) for k, f in functions.items()}})
        )

    def clips(
        self,
        length: int,
        stride: int | None = None,
        *,
        complete: bool = False,
        least_present: int = 1,
        agents: int | None = None,
    ) -> Clips:
        """All pieces of `length` frames, `stride` apart (None: end to end) within each recording, in order.

        Args:
            complete: who is not there in every frame of a piece is taken as absent from it.
            least_present: pieces in which fewer agents appear are left out.
            agents: None keeps slots. A number moves those who appear to the front, in the order of their slots, and
                gives so many rows; 0 gives as many as the fullest piece needs. `slots` says who they are.

        Raises:
            DemosError: more agents appear in a piece than there are rows.
        """
        _expect_length(length)
        step = length if stride is None else stride
        if step < 1:
            raise DemosError(f"stride: got {stride}; it is 1 or more.")
        counts = ((self.lengths - length) // step + 1).clamp(min=0)
        recording = torch.arange(len(self)).repeat_interleave(counts)
        number = torch.arange(len(recording)) - (counts.cumsum(0) - counts).repeat_interleave(counts)
        start = number * step
        rows = ((self.ends - self.lengths)[recording] + start).unsqueeze(-1) + torch.arange(length)
        there = self.present[rows]  # [scene, time, agent]
        here = there.all(1) if complete else there.any(1)
        kept = here.sum(-1) >= least_present
        return self._pieces(rows[kept], here[kept], recording[kept], start[kept], agents)

    def batches_per_epoch(self, rows: int, length: int) -> int:
        """Batches of at most `rows` clips that one pass over the set takes."""
        _expect_length(length)
        if rows < 1:
            raise DemosError(f"rows: got {rows}; a batch has 1 clip or more.")
        if not self.frames:
            raise DemosError("there is no frame in this set, so nothing to learn from.")
        return -(-int(self._counts(length).sum()) // rows)

    def batch(self, position: int, rows: int, seed: int, length: int, agents: int | None = None) -> Clips:
        """The clips at `position` of an endless shuffled stream: a function of (seed, position), nothing else.

        The epoch is `position // batches_per_epoch`. In each, a recording of T frames gives ceil(T / length) clips,

            start[k] = floor((k + u) (T - length + 1) / ceil(T / length)),   u in [0, 1) drawn anew in each epoch,

        so that every place comes equally often and none is cut short. A recording shorter than `length` comes whole,
        and nobody is present after its end.

        Args:
            rows: the most clips of a batch; they are spread evenly over the batches of an epoch.
            agents: as of `clips`.
        """
        batches = self.batches_per_epoch(rows, length)
        if position < 0:
            raise DemosError(f"position: got {position}; the stream begins at 0.")
        epoch, number = divmod(position, batches)
        counts = self._counts(length)
        items = int(counts.sum())
        each = -(-items // batches)
        turns = _turns(items, seed, epoch)[number * each : (number + 1) * each]
        recording = torch.searchsorted(counts.cumsum(0), turns, right=True)
        k = turns - (counts.cumsum(0) - counts)[recording]
        offset = _offsets(len(self), seed, epoch)[recording]
        places = (self.lengths[recording] - length + 1).clamp(min=1)
        start = ((k + offset) * places / counts[recording]).long()
        frames = start.unsqueeze(-1) + torch.arange(length)
        left = frames < self.lengths[recording].unsqueeze(-1)
        index = (self.ends - self.lengths)[recording].unsqueeze(-1) + torch.where(left, frames, 0)
        here = (self.present[index] & left.unsqueeze(-1)).any(1)
        return self._pieces(index, here, recording, start, agents, left)

    def fingerprint(self) -> str:
        """SHA-256 of what is recorded: the spec and every frame, name and label in order."""
        told = {
            "spec": self.spec.to_json(),
            "lengths": self.lengths.tolist(),
            "names": self.names,
            "infos": [dict(info) for info in self.infos],
        }
        whole = hashlib.sha256(json.dumps(told, sort_keys=True).encode())
        for name, column in sorted(self.columns().items()):
            whole.update(f"{name} {column.dtype} {list(column.shape)}".encode())
            whole.update(column.cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
        return whole.hexdigest()

    def columns(self) -> dict[str, Tensor]:
        """All tensors with a row for each frame, by name; a label's is `label:` and its own."""
        return {"values": self.values, "present": self.present} | {f"label:{k}": v for k, v in self.labels.items()}

    def noted(self, *omissions: Omission) -> "TrackSet":
        """The set with more that was left out on the way to it; what leaves out nothing is not noted."""
        return replace(self, omissions=self.omissions + tuple(each for each in omissions if each.count))

    def _counts(self, length: int) -> Int[Tensor, "recording"]:
        return (self.lengths + length - 1) // length

    def _pieces(
        self,
        rows: Int[Tensor, "scene time"],
        here: Bool[Tensor, "scene agent"],  # who takes part in each
        recording: Int[Tensor, "scene"],
        start: Int[Tensor, "scene"],
        agents: int | None,
        left: Bool[Tensor, "scene time"] | None = None,  # false past a recording's end
    ) -> Clips:
        slots: Tensor | None = None
        pick: tuple[Tensor, ...] = (rows,)
        if agents is not None:
            most = int(here.sum(-1).max()) if len(here) else 0
            if 0 < agents < most:
                crowd = int(here.sum(-1).argmax())
                raise DemosError(
                    f"agents: {agents} rows were asked for, and in recording {int(recording[crowd])} from frame "
                    f"{int(start[crowd])} on there are {most} agents. Ask for {most}, or 0 for as many as it takes."
                )
            order = (~here).int().argsort(dim=-1, stable=True)[:, : agents or max(1, most)]  # [scene, row]
            here = here.gather(1, order)
            slots = torch.where(here, order, -1)
            pick = (rows.unsqueeze(-1), order.unsqueeze(1))
        present = self.present[pick] & here.unsqueeze(1)
        values = self.values[pick]
        labels = {k: v[pick if v.dim() == 2 else (rows,)] for k, v in self.labels.items()}
        if left is not None:
            present = present & left.unsqueeze(-1)
            labels = {k: torch.where(_like(left, v), v, _unknown(v)) for k, v in labels.items()}
        values = values * _like(present, values).to(values.dtype)
        return Clips(values, present, labels, slots, recording, start)


@lru_cache(maxsize=4)
def _turns(items: int, seed: int, epoch: int) -> Int[Tensor, "item"]:
    """The order of an epoch's clips."""
    return torch.randperm(items, generator=generator(seed, "clips", epoch))


@lru_cache(maxsize=4)
def _offsets(recordings: int, seed: int, epoch: int) -> Float[Tensor, "recording"]:
    """How far the clips of each recording are moved in an epoch."""
    return uniform((recordings,), generator(seed, "starts", epoch), dtype=torch.float64)


def _like(mask: Tensor, x: Tensor) -> Tensor:
    """`mask` with as many axes as `x`, the missing ones last."""
    return mask.reshape(*mask.shape, *[1] * (x.dim() - mask.dim()))


def _unknown(label: Tensor) -> Tensor:
    return label.new_tensor(math.nan if label.is_floating_point() else -1)


def _expect_length(length: int) -> None:
    if length < 1:
        raise DemosError(f"length: got {length}; a clip has 1 frame or more.")


def _said(kind: Mapping[str, tuple[torch.dtype, int]]) -> str:
    return ", ".join(f"{name} ({dtype}, {axes} axes)" for name, (dtype, axes) in kind.items()) or "none"


def _sound(spec: TrackSpec, tracks: Tracks, number: int) -> Tracks:
    """The recording as a set keeps it: zeros where absent, one dtype. Raises DemosError where it does not fit."""
    where = f"recording {number}" + (f" ({tracks.name})" if tracks.name else "")
    values, present = tracks.values.detach().cpu(), tracks.present.detach().cpu()
    frames = len(values)
    if tuple(values.shape[1:]) != spec.shape:
        raise ShapeError(f"{where}: values are {list(values.shape)}, and the spec's are {['time', *spec.shape]}.")
    if tuple(present.shape) != (frames, spec.agents) or present.dtype != torch.bool:
        raise ShapeError(
            f"{where}: present is {present.dtype} {list(present.shape)}; bool {[frames, spec.agents]} is meant."
        )
    if not frames:
        raise DemosError(f"{where}: it has no frame; leave it out.")
    if values.is_floating_point() != bool(spec.dims):
        meant = "positions are floats" if spec.dims else "symbols are whole numbers"
        raise DemosError(f"{where}: values are {values.dtype}; {meant}.")
    values = values.to(spec.dtype)
    bad = ~values.isfinite().all(-1) if spec.dims else (values < 0) | (values >= spec.symbols)
    if (bad & present).any():
        t, agent = (bad & present).nonzero()[0].tolist()
        said = "is not finite" if spec.dims else f"is no symbol from 0 to {spec.symbols - 1}"
        raise DemosError(f"{where}, agent {spec.names[agent]}, frame {t}: {values[t, agent].tolist()} {said}.")
    for name, label in tracks.labels.items():
        if len(label) != frames or tuple(label.shape[1:]) not in ((), (spec.agents,)):
            raise DemosError(
                f"{where}: label `{name}` is {list(label.shape)}; {[frames, spec.agents]} or {[frames]} is meant."
            )
    try:
        expect_plain(tracks.info)
    except ValueError as error:
        raise DemosError(f"{where}: {error}") from None
    values = torch.where(_like(present, values), values, values.new_zeros(()))
    labels = {k: v.detach().cpu() for k, v in tracks.labels.items()}
    labels = {k: v if v.is_floating_point() else v.long() for k, v in labels.items()}
    return Tracks(values, present, labels, tracks.name, tracks.info)


def omission_of(data: Any) -> Omission:
    """The omission that plain `data` tells of. Raises ConfigError where it tells of none."""
    return config.from_dict(Omission, data, "an omission")


def plain(omission: Omission) -> dict[str, Any]:
    """Plain data that `omission_of` reads."""
    return asdict(omission)
