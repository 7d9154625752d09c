"""The order in which recordings are learnt from: pure functions of a seed and an epoch, of whole numbers alone.

What is drawn is an *item*: a step, or a window of steps. One epoch is one pass over all items:

    1. the items lie in the order of the recordings and are cut into chunks of neighbours;
    2. the chunks are shuffled, and every `CHUNKS` of them make a buffer;
    3. the items of a buffer are shuffled.

A set that fits one buffer is shuffled evenly. A larger one is read a chunk at a time, which a disk likes, and a batch
still mixes hundreds of places. The order does not ask where the data lie: in memory and on disk it is the same.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Int
from torch import Tensor

from understudy.core.random import generator, uniform

CHUNK_BYTES = 2**17  # of neighbouring items: what one read of a disk should bring
CHUNKS = 128  # in a buffer, so a buffer is 16 MiB


@dataclass(frozen=True)
class Order:
    """One epoch over `items`, in chunks of `chunk`."""

    items: int
    chunk: int
    seed: int
    epoch: int

    @cached_property
    def chunks(self) -> Int[Tensor, "chunk"]:
        """The chunks, shuffled."""
        count = -(-self.items // self.chunk)
        return torch.randperm(count, generator=generator(self.seed, "chunks", self.epoch))

    @cached_property
    def bounds(self) -> list[int]:
        """Where each buffer begins in the epoch, and at last where the epoch ends."""
        sizes = torch.full_like(self.chunks, self.chunk)
        sizes[self.chunks == len(self.chunks) - 1] -= len(self.chunks) * self.chunk - self.items
        ends = sizes.cumsum(0)[CHUNKS - 1 :: CHUNKS].tolist()
        return [0, *ends] if ends and ends[-1] == self.items else [0, *ends, self.items]

    def buffer(self, number: int) -> tuple[Int[Tensor, "item"], Int[Tensor, "item"]]:
        """The items of a buffer as they lie in the recordings, and the order in which to take them."""
        chunks = self.chunks[number * CHUNKS : (number + 1) * CHUNKS].sort().values
        items = (chunks.unsqueeze(-1) * self.chunk + torch.arange(self.chunk)).flatten()
        items = items[items < self.items]
        return items, torch.randperm(len(items), generator=generator(self.seed, "buffer", self.epoch, number))


def window_counts(lengths: Int[Tensor, "episode"], window: int) -> Int[Tensor, "episode"]:
    """Windows that an episode is cut into: the same number in every epoch, although the cuts move.

    An episode of T = q * window + r steps (1 <= r <= window) whose first window has p steps makes q + 1 windows where
    p >= r, and q + 2 where p < r. Of the two, the number that leaves more choices of p is kept, so there are always at
    least window / 2 of them. An episode that fits a window stays whole.
    """
    _, _, counts = _cuts(lengths, window)
    return counts


def first_windows(lengths: Int[Tensor, "episode"], window: int, seed: int, epoch: int) -> Int[Tensor, "episode"]:
    """Steps in the first window of each episode: all later cuts follow `window` apart."""
    low, high, _ = _cuts(lengths, window)
    share = uniform((len(lengths),), generator(seed, "windows", epoch), dtype=torch.float64)
    return low + (share * (high - low + 1)).long()


def _cuts(lengths: Tensor, window: int) -> tuple[Tensor, Tensor, Tensor]:
    """The fewest and most steps of a first window, and the number of windows."""
    rest = (lengths - 1) % window + 1
    early = rest - 1 > window - rest + 1  # more choices below r than from r on
    whole = lengths <= window
    low = torch.where(whole, lengths, torch.where(early, 1, rest))
    high = torch.where(whole, lengths, torch.where(early, rest - 1, window))
    return low, high, torch.where(whole, 1, (lengths - 1) // window + 1 + early.long())


def windows(
    items: Int[Tensor, "item"],
    counts: Int[Tensor, "episode"],
    firsts: Int[Tensor, "episode"],
    lengths: Int[Tensor, "episode"],
    window: int,
) -> tuple[Int[Tensor, "item"], Int[Tensor, "item"], Int[Tensor, "item"]]:
    """Episode, first step and number of steps of each item, counted through all episodes in their order."""
    ends = counts.cumsum(0)
    episode = torch.searchsorted(ends, items, right=True)
    number = items - (ends - counts)[episode]
    stop = torch.minimum(firsts[episode] + number * window, lengths[episode])
    start = (firsts[episode] + (number - 1) * window).clamp(min=0) * (number > 0)
    return episode, start, stop - start
