"""Played steps kept in fixed memory, the oldest overwritten: what learners that look back draw from."""

from dataclasses import dataclass

import torch
from torch import Tensor

from understudy.core.tree import tree_map, tree_put, tree_take
from understudy.core.types import Segment


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

    def steps(self, count: int, generator: torch.Generator) -> Segment:
        """`count` steps drawn at random, each a row of one step: [row, 1, agent, ...]."""
        row = self._draw(self.filled, count, generator)
        time = self._draw(self.rows.obs.shape[1], count, generator)
        return tree_map(lambda x: x.unsqueeze(1), tree_take(self.rows, (row, time)))

    def windows(self, count: int, generator: torch.Generator) -> Segment:
        """`count` whole rows drawn at random."""
        return tree_take(self.rows, self._draw(self.filled, count, generator))

    def _draw(self, below: int, count: int, generator: torch.Generator) -> Tensor:
        return torch.randint(below, (count,), generator=generator, device=generator.device)
