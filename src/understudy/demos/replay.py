"""Played steps kept in fixed memory, the oldest overwritten; and minibatches of demonstrations in the same form."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from understudy.core.tree import tree_map, tree_put, tree_take
from understudy.core.types import Segment
from understudy.demos.demos import Demos


@dataclass
class Replay:
    """`rows` of played steps, [row, time, agent, ...], of which `filled` hold something and `next` is overwritten next.

    Tensors and numbers alone, so a checkpoint keeps it exactly.
    """

    rows: Segment
    filled: int = 0
    next: int = 0

    @staticmethod
    def of(played: Segment, steps: int) -> "Replay":
        """Holding `played`, with room for about `steps` steps: whole rows, and `played` at least."""
        rows = max(len(played.obs), steps // played.obs.shape[1])
        made = Replay(tree_map(lambda x: x.new_zeros(rows, *x.shape[1:]), played))
        made.put(played)
        return made

    def put(self, played: Segment) -> None:
        """Keep all rows of `played`."""
        count, size = len(played.obs), len(self.rows.obs)
        where = (self.next + torch.arange(count, device=played.obs.device)) % size
        self.rows = tree_put(self.rows, where, played)
        self.next, self.filled = (self.next + count) % size, min(self.filled + count, size)

    @property
    def kept(self) -> Segment:
        """All that is held."""
        return tree_take(self.rows, slice(self.filled))

    def draw(self, steps: int, window: int, generator: torch.Generator) -> Segment:
        """`steps` steps drawn at random, [row, 1, agent, ...]; with a `window` above 1 whole rows of about as many."""
        time = self.rows.obs.shape[1]
        count = steps if window == 1 else max(1, steps // time)
        row = _draw(self.filled, count, generator)
        if window > 1:
            return tree_take(self.rows, row)
        step = row * time + _draw(time, count, generator)
        return tree_map(lambda x: x.flatten(0, 1).index_select(0, step).unsqueeze(1), self.rows)


def batch_of(demos: Demos, position: int, steps: int, seed: int, window: int = 1, *, following: bool = True) -> Segment:
    """The minibatch at `position` of about `steps` steps of demonstrations, [row, time, agent, ...] for any window."""
    part = demos.batch(position, max(1, steps // window), seed, window, following=following)
    return part if window > 1 else tree_map(lambda x: x.unsqueeze(1), part)


def looks(demos: Demos, seed: int, most: int | None = 64) -> Iterator[Segment]:
    """Single steps of demonstrations, 4,096 at a time, one pass or `most` batches: for means and deviations.

    64 of them are a quarter of a million steps.
    """
    batches = demos.batches_per_epoch(4096)
    for position in range(batches if most is None else min(batches, most)):
        yield demos.batch(position, 4096, seed)


def _draw(below: int, count: int, generator: torch.Generator) -> Tensor:
    return torch.randint(below, (count,), generator=generator, device=generator.device)
