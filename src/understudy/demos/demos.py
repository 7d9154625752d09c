"""Recordings to learn from: many episodes of several agents, in memory or memory-mapped.

The columns of a set (obs, actions, rewards ...) are long tensors whose rows are *moments*: an episode of T steps has
T + 1 of them, one after another. Step t of an episode stands in its t-th row and led to what is seen in the next; the
closing row holds no step, zeros. So what a step led to is one row further, in every column, and drawing a minibatch is
one `index_select` a column: agents of one moment share a row and cannot come apart.
"""

import ctypes
import hashlib
import json
import mmap
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import TypeVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from understudy.core.errors import DemosError
from understudy.core.random import generator
from understudy.core.tree import tree_cat, tree_map, tree_take
from understudy.core.types import EnvSpec, Segment, View, to_device
from understudy.demos.episode import HEAVIEST, About, Episode, Info, findings, refuse
from understudy.demos.order import CHUNK_BYTES, Order, first_windows, window_counts, windows

__all__ = ["About", "Columns", "Demos", "Episode", "Info", "Kinds", "Table", "kinds", "pack"]

Columns = dict[str, Tensor]  # name -> [moment ...]; a label's name is "label:" and its own
Kinds = dict[str, tuple[str, tuple[int, ...]]]  # name -> dtype and shape of a row
LABEL = "label:"
MOMENTS = ("obs", "legal", "present", "whole", "times")  # the closing row counts
MASKS = {"legal", "present"}  # an episode without them means: all true
KEPT = 4  # of what is remembered, for readers that take turns
FAR = 1000  # rows that are left out of a read: where more lie between, there are two reads
KEPT_COPIES = 2  # of buffers whose rows were copied from a mapped set, which fill memory
Key, Made = TypeVar("Key"), TypeVar("Made")


@dataclass(frozen=True)
class Table:
    """What is known of each episode: where its rows are, and all that is not a column."""

    first: Int[Tensor, "episode"]  # row of its first moment
    lengths: Int[Tensor, "episode"]  # in steps
    terminated: Bool[Tensor, "episode"]
    truncated: Bool[Tensor, "episode"]
    weights: Float[Tensor, "episode"]
    names: tuple[str, ...]
    infos: tuple[Info, ...]

    @staticmethod
    def lying(
        lengths: Int[Tensor, "episode"],
        terminated: Bool[Tensor, "episode"],
        truncated: Bool[Tensor, "episode"],
        weights: Float[Tensor, "episode"],
        names: tuple[str, ...],
        infos: tuple[Info, ...],
    ) -> "Table":
        """The table of episodes whose rows follow one another."""
        first = (lengths + 1).cumsum(0) - (lengths + 1)
        return Table(first, lengths, terminated, truncated, weights, names, infos)

    @staticmethod
    def of(episodes: Sequence[Episode]) -> "Table":
        """The table of episodes whose rows follow one another."""
        terminated = torch.tensor([e.terminated for e in episodes], dtype=torch.bool)
        return Table.lying(
            lengths=torch.tensor([len(e) for e in episodes], dtype=torch.long),
            terminated=terminated,
            truncated=torch.tensor([e.truncated for e in episodes], dtype=torch.bool) | ~terminated,
            weights=torch.tensor([e.weight for e in episodes], dtype=torch.float64),
            names=tuple(e.name for e in episodes),
            infos=tuple(dict(e.info) for e in episodes),
        )

    def __len__(self) -> int:
        return len(self.names)

    def joined(self, after: "Table") -> "Table":
        """The table of these episodes and those `after`, whose rows follow one another."""
        return Table.lying(
            lengths=torch.cat([self.lengths, after.lengths]),
            terminated=torch.cat([self.terminated, after.terminated]),
            truncated=torch.cat([self.truncated, after.truncated]),
            weights=torch.cat([self.weights, after.weights]),
            names=self.names + after.names,
            infos=self.infos + after.infos,
        )

    def take(self, indices: Sequence[int]) -> "Table":
        """The rows of some episodes."""
        index = torch.tensor(indices, dtype=torch.long)
        taken = tree_map(lambda x: x[index], self)
        return replace(taken, names=tuple(self.names[i] for i in indices), infos=tuple(self.infos[i] for i in indices))


class Demos:
    """A set of recorded episodes. What it holds does not change; every method that changes something makes a new set.

    `spec` says what the agents are, see and do; `about` where the recordings come from.
    """

    def __init__(self, spec: EnvSpec, about: About, blocks: list[Columns], table: Table):
        """Of `blocks` of rows, counted through in `table`. Most callers want `from_episodes` or `load`."""
        self.spec = spec
        self.about = about
        self._blocks = blocks
        self._table = table
        rows = torch.tensor([0, *(len(b["obs"]) for b in blocks)], dtype=torch.long)
        self._starts: Int[Tensor, "block+1"] = rows.cumsum(0)
        self._counts: dict[
            int, tuple[Int[Tensor, "episode"], int]
        ] = {}  # by window; these only remember what is a function
        self._orders: dict[tuple[int, int, int], Order] = {}  # by seed, epoch, window
        self._firsts: dict[tuple[int, int, int], Int[Tensor, "episode"]] = {}
        self._turns: dict[tuple[int, int, int], tuple[Tensor, Tensor]] = {}  # by seed, epoch, number
        self._buffers: dict[tuple[int, int, int, int], _Buffer] = {}  # and by number

    @staticmethod
    def from_episodes(spec: EnvSpec, episodes: Iterable[Episode], about: About | None = None) -> "Demos":
        """A set in memory. Every episode is looked through on its way in.

        Raises:
            DemosError: an episode does not fit `spec`, is not finite, acts against its rules ...; it names the episode,
                and the agent and the step where there is one.
        """
        episodes = list(episodes)
        for number, episode in enumerate(episodes):
            refuse(findings(spec, episode, number))
        return Demos(spec, about or About(), [pack(episodes)] if episodes else [], Table.of(episodes))

    @staticmethod
    def load(folder: str | Path, *, verify: bool = True, memory: int = 2**28) -> "Demos":
        """The set in `folder`: up to `memory` bytes are read into memory, a larger set is memory-mapped.

        Args:
            verify: compare every file with its checksum (about 1.7 GiB/s). Without it only sizes and the index are
                compared, and a flipped bit in a shard goes unseen.

        Raises:
            DemosError: there is no set, or it is damaged; it says which file.
        """
        from understudy.demos.store import load

        return load(Path(folder), verify=verify, memory=memory)

    def save(self, folder: str | Path, *, replace: bool = False) -> None:
        """Write the set to `folder`, whole or not at all. A set that is there is kept unless `replace`.

        Raises:
            DemosError: the folder holds a set, or another process is writing to it.
            RunError: the disk is full; what was in the folder is as it was.
        """
        from understudy.demos.store import save

        save(folder, self.spec, self, self.about, replace=replace)

    def __len__(self) -> int:
        return len(self._table.names)

    def __iter__(self) -> Iterator[Episode]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: int) -> Episode:
        """The episode at `index`; its tensors are views of the set's own."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"episode {index} of {len(self)}")
        i = index % len(self)
        table = self._table
        columns = self._episode_columns(i)
        steps = int(table.lengths[i])
        during = {k: v[:steps] for k, v in columns.items() if k not in MOMENTS}
        return Episode(
            obs=columns["obs"],
            actions=during.pop("actions"),
            rewards=during.pop("rewards", None),
            terminated=bool(table.terminated[i]),
            truncated=bool(table.truncated[i]),
            **{k: columns.get(k) for k in MOMENTS[1:]},
            labels={k.removeprefix(LABEL): v for k, v in during.items()},
            name=table.names[i],
            weight=float(table.weights[i]),
            info=dict(table.infos[i]),
        )

    def __repr__(self) -> str:
        title = self.about.title or self.spec.title or "untitled"
        return f"Demos({title!r}, {len(self)} episodes, {self.steps} steps, {self.spec.agents} agents)"

    @property
    def steps(self) -> int:
        """Joint steps in all episodes: one step of four agents counts once."""
        return int(self._table.lengths.sum())

    @property
    def lengths(self) -> Int[Tensor, "episode"]:
        """Steps in each episode."""
        return self._table.lengths

    @property
    def names(self) -> tuple[str, ...]:
        """Name of each episode."""
        return self._table.names

    @property
    def infos(self) -> tuple[Info, ...]:
        """What is noted of each episode."""
        return self._table.infos

    @property
    def weights(self) -> Float[Tensor, "episode"]:
        """Weight of each episode."""
        return self._table.weights

    def returns(self) -> Float[Tensor, "episode agent"]:
        """Undiscounted sum of each agent's rewards in each episode.

        Raises:
            DemosError: the recordings have no rewards.
        """
        if self._blocks and "rewards" not in self._blocks[0]:
            raise DemosError("these recordings have no rewards, so they have no returns.")
        sums = [self._episode_columns(i)["rewards"].sum(0) for i in range(len(self))]  # the closing row is zero
        return torch.stack(sums) if sums else torch.zeros(0, self.spec.agents)

    def select(self, indices: Iterable[int] | Int[Tensor, "wanted"]) -> "Demos":
        """The episodes at `indices`, in that order. Nothing is copied."""
        wanted = [int(i) for i in indices]
        for i in wanted:
            if not -len(self) <= i < len(self):
                raise DemosError(f"indices: episode {i} was asked for, and there are {len(self)}.")
        return Demos(self.spec, self.about, self._blocks, self._table.take([i % len(self) for i in wanted]))

    def where(self, holds: Callable[[Info], bool]) -> "Demos":
        """The episodes whose `info` satisfies `holds`: `demos.where(lambda info: info["layout"] == "ring")`."""
        return self.select(i for i, info in enumerate(self._table.infos) if holds(info))

    def split(self, share: float, seed: int) -> tuple["Demos", "Demos"]:
        """(rest, held out): `share` of the episodes, drawn by `seed`, are held out. Steps of one are never parted.

        Raises:
            DemosError: one of the two would be empty.
        """
        held = round(share * len(self))
        if not 0 < held < len(self):
            raise DemosError(f"share: {share} of {len(self)} episodes is {held}, and both parts need an episode.")
        order = torch.randperm(len(self), generator=generator(seed, "split")).tolist()
        return self.select(sorted(order[held:])), self.select(sorted(order[:held]))

    def reweighted(self, weights: Sequence[float] | Tensor) -> "Demos":
        """The same episodes with other weights, one each, 0 or positive."""
        given = torch.as_tensor(weights, dtype=torch.float64)
        if given.shape != (len(self),) or not ((given >= 0) & (given <= HEAVIEST)).all():
            raise DemosError(f"weights: {len(self)} numbers from 0 to {HEAVIEST:g} are meant, one for each episode.")
        return Demos(self.spec, self.about, self._blocks, replace(self._table, weights=given))

    def to(self, device: torch.device | str) -> "Demos":
        """The same set with its columns on `device`, where batches are then drawn."""
        return Demos(self.spec, self.about, [to_device(b, device) for b in self._blocks], self._table)

    def batches_per_epoch(self, size: int, window: int = 1) -> int:
        """Batches of at most `size` that one pass over the set takes."""
        if size < 1 or window < 1:
            raise DemosError(f"size, window: got {size} and {window}; both must be 1 or more.")
        if not len(self):
            raise DemosError("there is no episode in this set, so nothing to learn from.")
        return -(-self._windows(window)[1] // size)

    def batch(
        self,
        position: int,
        size: int,
        seed: int,
        window: int = 1,
        device: torch.device | str | None = None,
        following: bool = True,
    ) -> Segment:
        """The minibatch at `position` of an endless shuffled stream: a function of (seed, position), nothing else.

        The epoch is `position // batches_per_epoch`. In each, every step comes once, in ceil(items / batches) items to
        a batch, at most `size`; the last may have fewer. A stream goes on from its position alone.

        Args:
            window: 1 gives single steps, axes [step, agent, ...]. More gives runs of neighbours in one episode,
                [window, time, agent, ...]; where a run is shorter, its last step repeats and `valid` is false. Where
                the episodes are cut moves from epoch to epoch.
            device: where to put the batch; None leaves it where the set is.
            following: whether what is seen after each step is wanted too.

        Returns:
            A Segment with `next_view`, if it is wanted, and with `weight` from the episodes' weights. `starts` is true
            at an episode's first step, `terminated` and `truncated` at its last. Observations of bytes come as floats,
            0 to 255.
        """
        parts = self._parts(position, size, seed, window)
        pieces = [self._buffer(seed, epoch, window, b).segment(items, window, following) for epoch, b, items in parts]
        batch = pieces[0] if len(pieces) == 1 else tree_cat(pieces)
        return batch if device is None else to_device(batch, device)

    def drawn(self, position: int, size: int, seed: int) -> "Drawn":
        """The steps of `batch` where they lie: for those who take them row by row.

        What is spread over several blocks, or not of floats, is copied.
        """
        if len(self._blocks) != 1 or self._blocks[0]["obs"].dtype != torch.float32:
            copied = self.batch(position, size, seed, following=False)
            return Drawn(copied, None, copied.weight)
        parts = [(self._rows(seed, epoch, b), items) for epoch, b, items in self._parts(position, size, seed, 1)]
        rows, weight = ([of[k][items] for of, items in parts] for k in (0, 1))
        if len(parts) == 1:
            return Drawn(self._moments, rows[0], weight[0])
        return Drawn(self._moments, torch.cat(rows), torch.cat(weight))

    def padded(self, indices: Iterable[int] | Int[Tensor, "wanted"] | None = None) -> Segment:
        """Whole episodes side by side, [episode, time, agent, ...], each padded to the longest by its last step.

        `valid` is false on the padding, `starts` true at the first step of each.
        """
        chosen = self if indices is None else self.select(indices)
        if not len(chosen):
            raise DemosError("there is no episode to set side by side.")
        lengths = chosen.lengths
        buffer = chosen._fetch(chosen._items(torch.arange(len(chosen)), torch.zeros_like(lengths), lengths))
        device = buffer.columns["obs"].device
        buffer = replace(buffer, items=to_device(buffer.items, device))
        return buffer.segment(slice(None), int(lengths.max()), time=True)

    def fingerprint(self) -> str:
        """SHA-256 of what is recorded: the spec and every episode in order, however the set is cut into files."""
        whole = hashlib.sha256(json.dumps(self.spec.to_json(), sort_keys=True).encode())
        for i in range(len(self)):
            whole.update(self.digest(i))
        return whole.hexdigest()

    def digest(self, index: int) -> bytes:
        """SHA-256 of one episode: every column, its name, weight, ends and info."""
        table = self._table
        columns = self._episode_columns(index)
        said = {
            "columns": {k: [str(v.dtype), list(v.shape)] for k, v in columns.items()},
            "ends": [bool(table.terminated[index]), bool(table.truncated[index])],
            "name": table.names[index],
            "weight": float(table.weights[index]),
            "info": dict(table.infos[index]),
        }
        digest = hashlib.sha256(json.dumps(said, sort_keys=True).encode())
        for name in sorted(columns):
            digest.update(columns[name].cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
        return digest.digest()

    # ---- rows

    def _parts(self, position: int, size: int, seed: int, window: int) -> list[tuple[int, int, slice]]:
        """What makes a batch: epoch, number of a buffer, and which of its items."""
        batches = self.batches_per_epoch(size, window)
        if position < 0:
            raise DemosError(f"position: got {position}; the stream begins at 0.")
        epoch, number = divmod(position, batches)
        order = self._order(seed, epoch, window)
        each = -(-order.items // batches)
        start, stop = number * each, min((number + 1) * each, order.items)
        parts = []
        while start < stop:
            b = bisect_right(order.bounds, start) - 1
            low, high = order.bounds[b], min(stop, order.bounds[b + 1])
            parts.append((epoch, b, slice(start - low, high - low)))
            start = high
        return parts

    def _episode_columns(self, index: int) -> Columns:
        """Views of the rows of one episode, the closing row included."""
        first, moments = int(self._table.first[index]), int(self._table.lengths[index]) + 1
        block = int(torch.searchsorted(self._starts, first, right=True)) - 1
        first -= int(self._starts[block])
        return {k: v[first : first + moments] for k, v in self._blocks[block].items()}

    def _windows(self, window: int) -> tuple[Int[Tensor, "episode"], int]:
        """Items of each episode, and of all."""

        def made() -> tuple[Tensor, int]:
            counts = window_counts(self._table.lengths, window)
            return counts, int(counts.sum())

        return _remembered(self._counts, window, made)

    def _order(self, seed: int, epoch: int, window: int) -> Order:
        def made() -> Order:
            row = sum(v[0].numel() * v.element_size() for v in self._blocks[0].values())
            return Order(self._windows(window)[1], max(1, CHUNK_BYTES // (row * window)), seed, epoch)

        return _remembered(self._orders, (seed, epoch, window), made)

    @cached_property
    def _moments(self) -> Segment:
        """The columns that a learner of single steps looks at, where they lie in one block."""
        columns = self._blocks[0]
        seen = {name: columns.get(name) for name in ("obs", "legal", "present")}
        return Segment(View(**seen), columns["actions"])  # type: ignore[arg-type]

    @cached_property
    def _steps(self) -> tuple[Int[Tensor, "step"], Float[Tensor, "step"]]:
        """Row and weight of each step, in the order of the recordings."""
        lengths = self._table.lengths
        jumps = self._table.first - (lengths.cumsum(0) - lengths)  # from the number of a step to its row
        rows = torch.arange(self.steps) + jumps.repeat_interleave(lengths)
        return rows, self._table.weights.float().repeat_interleave(lengths)

    def _rows(self, seed: int, epoch: int, number: int) -> tuple[Int[Tensor, "step"], Float[Tensor, "step"]]:
        """Row and weight of each step of a buffer, in the order in which they are taken."""

        def made() -> tuple[Tensor, Tensor]:
            items, turns = self._order(seed, epoch, 1).buffer(number)
            rows, weights = tree_take(self._steps, items.index_select(0, turns))
            return rows, weights

        return _remembered(self._turns, (seed, epoch, number), made)

    def _buffer(self, seed: int, epoch: int, window: int, number: int) -> "_Buffer":
        """One buffer of the stream, in the order in which it is taken."""

        def lying(number: int) -> _Items:
            lengths, key = self._table.lengths, (seed, epoch, window)
            items = self._order(*key).buffer(number)[0]
            firsts = _remembered(self._firsts, key, lambda: first_windows(lengths, window, seed, epoch))
            return self._items(*windows(items, self._windows(window)[0], firsts, lengths, window))

        def made() -> _Buffer:
            fetched = self._fetch(lying(number))
            order = self._order(seed, epoch, window)
            if len(self._blocks) > 1 and number + 2 < len(order.bounds):
                self._read_ahead(self._needed(lying(number + 1))[0])
            turns, device = order.buffer(number)[1], fetched.columns["obs"].device
            return replace(fetched, items=tree_map(lambda x: x[turns].to(device), fetched.items))

        kept = KEPT if len(self._blocks) == 1 else KEPT_COPIES
        return _remembered(self._buffers, (seed, epoch, window, number), made, kept)

    def _items(self, episode: Int[Tensor, "item"], start: Int[Tensor, "item"], length: Int[Tensor, "item"]) -> "_Items":
        table = self._table
        return _Items(
            rows=table.first[episode] + start,
            start=start,
            length=length,
            left=table.lengths[episode] - start,
            terminated=table.terminated[episode],
            truncated=table.truncated[episode],
            weight=table.weights[episode].float(),
        )

    def _fetch(self, items: "_Items") -> "_Buffer":
        """A buffer of items. One block is left where it lies; of several, the rows that are needed are copied."""
        if len(self._blocks) == 1:
            return _Buffer(self._blocks[0], items)
        needed, local = self._needed(items)
        self._read_ahead(needed)
        columns = {k: v.new_empty(len(needed), *v.shape[1:]) for k, v in self._blocks[0].items()}
        place = 0
        for b, count in self._by_block(needed):
            here = slice(place, place + count)
            index = needed[here] - self._starts[b]
            for name, column in columns.items():
                torch.index_select(self._blocks[b][name], 0, index, out=column[here])
            place += count
        return _Buffer(columns, replace(items, rows=local))

    def _needed(self, items: "_Items") -> tuple[Int[Tensor, "moment"], Int[Tensor, "item"]]:
        """The rows that items need, in their order, and which of these is the first of each item."""
        rows, length = items.rows, items.length
        follows = torch.cat([rows[1:] == rows[:-1] + length[:-1], torch.tensor([False])])
        kept = length + (~follows).long()  # a run of neighbours shares its moments and ends with one more
        local = kept.cumsum(0) - kept
        return torch.repeat_interleave(rows - local, kept) + torch.arange(int(kept.sum())), local

    def _by_block(self, needed: Int[Tensor, "moment"]) -> list[tuple[int, int]]:
        """(block, number of rows in it) for each run of rows in one block."""
        block = torch.searchsorted(self._starts, needed, right=True) - 1
        ids, counts = block.unique_consecutive(return_counts=True)
        return list(zip(ids.tolist(), counts.tolist(), strict=True))

    def _read_ahead(self, needed: Int[Tensor, "moment"]) -> None:
        """Ask the system to read these rows of mapped files, all at once, before they are waited for one by one."""
        place = 0
        for b, count in self._by_block(needed):
            rows = needed[place : place + count] - int(self._starts[b])
            place += count
            jumps = (rows.diff() > FAR).nonzero().flatten() + 1
            for run in rows.tensor_split(jumps):
                for column in self._blocks[b].values():
                    will_need(column[int(run.min()) : int(run.max()) + 1])


def _remembered(cache: dict[Key, Made], key: Key, make: Callable[[], Made], kept: int = KEPT) -> Made:
    """What `make` makes, made once for a key while it is one of the last few."""
    if key not in cache:
        while len(cache) >= kept:
            del cache[next(iter(cache))]
        cache[key] = make()
    return cache[key]


@dataclass(frozen=True)
class Drawn:
    """Single steps that were drawn: `rows` of `among`, [row, agent, ...]; None: all of them, in their order."""

    among: Segment
    rows: Int[Tensor, "step"] | None
    weight: Float[Tensor, "step"] | None  # of each step drawn


@dataclass(frozen=True)
class _Items:
    """Steps, or windows of steps: all that a batch wants to know of them."""

    rows: Int[Tensor, "*item"]  # of the first step
    start: Int[Tensor, "*item"]  # steps before it in its episode
    length: Int[Tensor, "*item"]
    left: Int[Tensor, "*item"]  # steps from it to the episode's end
    terminated: Bool[Tensor, "*item"]
    truncated: Bool[Tensor, "*item"]
    weight: Float[Tensor, "*item"]


@dataclass(frozen=True)
class _Buffer:
    """Items to cut batches from, and the columns that their rows are rows of."""

    columns: Columns
    items: _Items

    def segment(self, items: slice, window: int, following: bool = True, *, time: bool = False) -> Segment:
        """The Segment of some items; with a time axis if `window` is more than 1, or if `time` asks for it."""
        these = tree_take(self.items, items)
        rows, valid = these.rows, None
        after = torch.zeros((), dtype=torch.long, device=rows.device)
        if window > 1 or time:
            these = tree_map(lambda x: x.unsqueeze(-1), these)
            after = torch.arange(window, device=rows.device)
            valid = after < these.length
            rows = these.rows + torch.minimum(after, these.length - 1)  # padding: finite and legal, `valid` masks it
        first, last = these.start + after == 0, these.left == after + 1
        if valid is not None:
            last = last & valid
        columns = self.columns

        def take(column: Tensor, index: Tensor) -> Tensor:
            return column.index_select(0, index.flatten()).unflatten(0, index.shape)

        def view(index: Tensor) -> View:
            seen = {k: take(columns[k], index) for k in MOMENTS[:-1] if k in columns}
            return View(**{k: v.float() if v.dtype == torch.uint8 else v for k, v in seen.items()})

        return Segment(
            view=view(rows),
            actions=take(columns["actions"], rows),
            rewards=take(columns["rewards"], rows) if "rewards" in columns else None,
            terminated=last & these.terminated,
            truncated=last & these.truncated,
            next_view=view(rows + 1) if following else None,
            starts=first,
            valid=valid,
            weight=these.weight.expand(rows.shape),
            labels={k.removeprefix(LABEL): take(v, rows) for k, v in columns.items() if k.startswith(LABEL)},
        )


def will_need(rows: Tensor) -> None:
    """Tell the system that mapped `rows` will be read soon. It may heed it or not: nothing else changes."""
    start = rows.data_ptr() // mmap.PAGESIZE * mmap.PAGESIZE
    size = rows.data_ptr() + rows.nbytes - start
    if advise := _system_advice():
        advise(ctypes.c_void_p(start), ctypes.c_size_t(size), ctypes.c_int(mmap.MADV_WILLNEED))


@cache
def _system_advice() -> Callable[..., int] | None:
    return getattr(ctypes.CDLL(None), "madvise", None)


def kinds(columns: Columns) -> Kinds:
    """Dtype and shape of a row of each column."""
    return {name: (str(v.dtype).removeprefix("torch."), tuple(v.shape[1:])) for name, v in columns.items()}


def pack(episodes: Sequence[Episode], wanted: Kinds | None = None, first: int = 0) -> Columns:
    """One block of the rows of sound episodes, in order. A mask that only some have is filled up with true.

    Args:
        wanted: the columns of the set that they join; None where they are the first.
        first: number of the first of them, for messages.

    Raises:
        DemosError: one lacks a column that others have, or has another kind of it.
    """
    rows = [_columns(e) for e in episodes]
    if wanted is None:
        wanted = {}
        for columns in rows:
            wanted = kinds(columns) | wanted
    for number, columns in enumerate(rows, first):
        for name in MASKS & (wanted.keys() - columns.keys()):
            columns[name] = torch.ones(len(columns["obs"]), *wanted[name][1], dtype=torch.bool)
        here = kinds(columns)
        for name in sorted(wanted.keys() | here.keys()):
            if here.get(name) != wanted.get(name):
                said, meant = (
                    f"of {k[0]} {list(k[1])} a row" if k else "missing" for k in (here.get(name), wanted.get(name))
                )
                raise DemosError(f"episode {number}: {name} is {said}, and in the others {meant}: one set, one kind.")
    return {name: torch.cat([columns[name] for columns in rows]) for name in sorted(wanted)}


def _columns(episode: Episode) -> Columns:
    """The columns of one episode, the closing row included."""
    during = {"actions": episode.actions, "rewards": episode.rewards}
    during |= {LABEL + name: values for name, values in episode.labels.items()}
    moments: dict[str, Tensor | None] = {name: getattr(episode, name) for name in MOMENTS}
    closed = {k: torch.cat([v, torch.zeros_like(v[:1])]) for k, v in during.items() if v is not None}
    if not closed["actions"].is_floating_point():
        closed["actions"] = closed["actions"].long()
    return {k: v.detach().cpu() for k, v in (moments | closed).items() if v is not None}
