"""A transformer over agents x time, for whole scenes: who did what before, and who stands how to whom.

A block is attention over time (each agent to its own past), attention over agents (at each moment, to all who are
there), and a small feed-forward net, each added to what it reads (pre-norm):

    x += Time(norm(x));   x += Agents(norm(x), pairs);   x += MLP(norm(x))

Weights are shared by all agents and nothing knows their order: permuted agents give permuted outputs. Time enters by
rotary positions, so only differences of time matter. How two agents stand to each other (`pairs`) is added to the
attention's logits and, weighted by the attention, to its outcome:

    a_ij = softmax_j( q_i k_j / sqrt(d) + b(pairs_ij) ),    out_i = sum_j a_ij (v_j + W pairs_ij)

Sources: Vaswani et al. 2017, arXiv:1706.03762; rotary positions: Su et al. 2021, arXiv:2104.09864.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from understudy.core.config import at_least_one, share
from understudy.core.errors import ConfigError

Present = Bool[Tensor, "scene time agent"]
Pairs = Float[Tensor, "scene time agent agent pair"]


@dataclass(frozen=True)
class TrunkConfig:
    hidden: int = 96
    layers: int = 3
    heads: int = 4
    pair: int = 16  # features of how two agents stand to each other
    window: int = 128  # frames back that attention over time reaches, the present one counted; no more than are learnt
    dropout: float = 0.0
    social: bool = True  # agents attend to each other; False: each to itself alone

    def __post_init__(self) -> None:
        at_least_one(self, "hidden", "layers", "heads", "pair", "window")
        if self.hidden % (2 * self.heads):
            raise ConfigError(
                f"hidden, heads: got {self.hidden} and {self.heads}; rotary positions turn pairs of numbers, so hidden "
                f"is a multiple of twice the heads, such as {2 * self.heads * max(1, self.hidden // 2 // self.heads)}."
            )
        share(self, "dropout", below=True)


@dataclass
class Memory:
    """What the trunk keeps of the past while it goes on frame by frame: the latest `room` frames, at most `window`."""

    keys: Float[Tensor, "layer scene agent head room part"]
    values: Float[Tensor, "layer scene agent head room part"]
    present: Bool[Tensor, "scene agent room 1"]
    seen: int = 0  # frames so far; frame n lies in slot n modulo room


class Trunk(nn.Module):
    """[scene, time, agent, hidden] to the same, causal in time or (`causal=False`) with all times seeing each other."""

    def __init__(self, config: TrunkConfig, generator: torch.Generator, causal: bool = True):
        super().__init__()
        self.config, self.causal = config, causal
        self.blocks = nn.ModuleList(_Block(config, generator, causal) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.hidden)

    def start(self, scenes: int, agents: int, frames: int) -> Memory:
        """Memory of nothing, for scenes of at most `frames` frames."""
        room, heads = min(frames, self.config.window), self.config.heads
        shape = (self.config.layers, scenes, agents, heads, room, self.config.hidden // heads)
        like = self.norm.weight
        there = torch.zeros(scenes, agents, room, 1, dtype=torch.bool, device=like.device)
        return Memory(like.new_zeros(shape), like.new_zeros(shape), there)

    def forward(
        self,
        x: Float[Tensor, "scene time agent hidden"],
        pairs: Pairs,
        present: Present | None = None,
        memory: Memory | None = None,
        chance: torch.Generator | None = None,
    ) -> Float[Tensor, "scene time agent hidden"]:
        """Features of every agent at every moment; of who is not present they mean nothing, and nobody sees them.

        Args:
            pairs: of agent i (first) looking at agent j (second).
            present: None: all are there.
            memory: goes on from it, and keeps in it what came: any number of frames at first, then one by one.
            chance: draws the dropout; None: none is dropped.
        """
        begin = memory.seen if memory else 0
        if begin and x.shape[1] != 1:
            raise ValueError(f"after the first frames a memory takes one frame at a time, got {x.shape[1]}")
        positions = torch.arange(begin, begin + x.shape[1], device=x.device)
        turn = _turns(positions, self.config.hidden // self.config.heads, x.dtype)
        others = None if present is None else _with_oneself(present)
        if memory is not None:
            there = torch.ones_like(x[..., 0], dtype=torch.bool) if present is None else present
            _put(memory.present, there.transpose(1, 2).unsqueeze(-1), begin)
        earlier = [_recall(memory)] if memory is not None and begin else self._earlier(positions, present)
        for i, block in enumerate(self.blocks):
            kept = None if memory is None else (memory.keys[i], memory.values[i], begin)
            x = block(x, pairs, turn, earlier, others, kept, chance)
        if memory is not None:
            memory.seen = begin + x.shape[1]
        return self.norm(x)

    def _earlier(self, positions: Int[Tensor, "time"], present: Present | None) -> list[Tensor]:
        """Who may be attended to, of each block: [block, near]; [scene, agent, 1, block, near] where some are absent.

        More frames than two windows are cut into blocks of one window. A block attends to itself and to those next to
        it, so that work and memory grow with the frames and not with their square.
        """
        size = len(positions) if len(positions) <= 2 * self.config.window else self.config.window
        blocks = positions.split(size)
        return [self._seen(mine, _near(blocks, i, self.causal), present) for i, mine in enumerate(blocks)]

    def _seen(self, mine: Int[Tensor, "block"], near: Int[Tensor, "near"], present: Present | None) -> Tensor:
        back = mine.unsqueeze(-1) - near
        reach = (back >= 0) & (back < self.config.window) if self.causal else back.abs() < self.config.window
        if present is None:
            return reach
        return (reach & present[:, near].transpose(1, 2)[:, :, None, None]) | (back == 0)


class _Block(nn.Module):
    def __init__(self, config: TrunkConfig, generator: torch.Generator, causal: bool):
        super().__init__()
        width, self.heads, self.social, self.causal = config.hidden, config.heads, config.social, causal
        less = 1 / math.sqrt(2 * config.layers)  # what blocks add grows with their number, so each begins smaller
        self.norm = nn.LayerNorm(width)
        self.time_in, self.time_out = linear(width, 3 * width, generator), linear(width, width, generator, less)
        if config.social:
            self.agents = AgentBlock(width, self.heads, config.pair, config.dropout, generator, less)
        else:
            self.feed = Feed(width, config.dropout, generator, less)
        self.drop = Dropout(config.dropout)

    def forward(
        self,
        x: Tensor,
        pairs: Tensor,
        turn: tuple[Tensor, Tensor],
        earlier: Sequence[Tensor | None],
        others: Tensor | None,
        kept: tuple[Tensor, Tensor, int] | None,
        chance: torch.Generator | None,
    ) -> Tensor:
        x = x + self.drop(self._over_time(self.norm(x), turn, earlier, kept), chance)
        return self.agents(x, pairs, others, chance) if self.social else self.feed(x, chance)

    def _over_time(
        self,
        x: Tensor,
        turn: tuple[Tensor, Tensor],
        earlier: Sequence[Tensor | None],
        kept: tuple[Tensor, Tensor, int] | None,
    ) -> Tensor:
        parts = self.time_in(x).unflatten(-1, (3, self.heads, -1)).permute(3, 0, 2, 4, 1, 5)
        query, key, value = rotate(parts[0], turn), rotate(parts[1], turn), parts[2]  # [scene, agent, head, time, part]
        if kept is not None:
            keys, values, begin = kept
            _put(keys, key.detach(), begin)  # what is remembered is learnt from no more
            _put(values, value.detach(), begin)
            if begin:
                filled = min(begin + 1, keys.shape[-2])
                key, value = keys[..., :filled, :], values[..., :filled, :]
        shape = query.shape[:2]
        query, key, value = (part.flatten(0, 1) for part in (query, key, value))
        masks = [mask.flatten(0, 1) if mask is not None and mask.dim() == 5 else mask for mask in earlier]
        if len(masks) == 1 or masks[0] is None:
            mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=masks[0])
        else:
            blocks, keys, values = (part.split(masks[0].shape[-2], dim=-2) for part in (query, key, value))
            near = [(_near(keys, i, self.causal), _near(values, i, self.causal)) for i in range(len(blocks))]
            parts = zip(blocks, near, masks, strict=True)
            each = [F.scaled_dot_product_attention(q, k, v, attn_mask=mask) for q, (k, v), mask in parts]
            mixed = torch.cat(each, dim=-2)
        return self.time_out(mixed.unflatten(0, shape).permute(0, 3, 1, 2, 4).flatten(-2))


class AgentBlock(nn.Module):
    """Attention over agents of one moment, by how they stand to each other, then a small net; each added."""

    def __init__(self, width: int, heads: int, pair: int, dropout: float, generator: torch.Generator, less: float):
        super().__init__()
        self.heads, self.norm, self.drop = heads, nn.LayerNorm(width), Dropout(dropout)
        self.gather, self.give = linear(width, 3 * width, generator), linear(width, width, generator, less)
        self.bias, self.told = linear(pair, heads, generator), linear(pair * heads, width, generator, less)
        self.feed = Feed(width, dropout, generator, less)

    def forward(
        self,
        x: Float[Tensor, "*batch agent hidden"],
        pairs: Float[Tensor, "*batch agent agent pair"],
        others: Bool[Tensor, "*#batch agent agent"] | None,
        chance: torch.Generator | None,
    ) -> Float[Tensor, "*batch agent hidden"]:
        """`others`: whom each hears, itself at least; None: all."""
        parts = self.gather(self.norm(x)).unflatten(-1, (3, self.heads, -1)).transpose(-4, -2)
        query, key, value = parts.unbind(-3)  # [*batch, head, agent, part]
        logits = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1]) + self.bias(pairs).movedim(-1, -3)
        if others is not None:
            logits = logits.masked_fill(~others.unsqueeze(-3), -torch.inf)
        weights = logits.softmax(dim=-1)  # [*batch, head, me, other]
        told = torch.einsum("...hij,...ijp->...ihp", weights, pairs)
        heard = self.give((weights @ value).transpose(-2, -3).flatten(-2)) + self.told(told.flatten(-2))
        return self.feed(x + self.drop(heard, chance), chance)


class Feed(nn.Module):
    """x + a small net of x, for each by itself."""

    def __init__(self, width: int, dropout: float, generator: torch.Generator, less: float):
        super().__init__()
        self.norm, self.drop = nn.LayerNorm(width), Dropout(dropout)
        self.wide = linear(width, 4 * width, generator, math.sqrt(2))
        self.narrow = linear(4 * width, width, generator, less)

    def forward(self, x: Tensor, chance: torch.Generator | None) -> Tensor:
        return x + self.drop(self.narrow(F.gelu(self.wide(self.norm(x)))), chance)


class Dropout(nn.Module):
    """Whole features of an agent are dropped for a whole scene (Gal & Ghahramani 2016, arXiv:1512.05287)."""

    def __init__(self, share: float):
        super().__init__()
        self.share = share

    def forward(self, x: Float[Tensor, "scene time *rest"], chance: torch.Generator | None) -> Tensor:
        """None of `chance`: none is dropped."""
        if chance is None or not self.share:
            return x
        shape = (x.shape[0], 1, *x.shape[2:])
        keep = torch.rand(shape, generator=chance, device=x.device, dtype=x.dtype) >= self.share
        return x * keep / (1 - self.share)


def linear(inputs: int, outputs: int, generator: torch.Generator, gain: float = 1.0) -> nn.Linear:
    """y = W x + b, W orthogonal at first times `gain`, b zero; the same for all agents."""
    made = nn.utils.skip_init(nn.Linear, inputs, outputs)
    nn.init.orthogonal_(made.weight, gain, generator=generator)
    nn.init.zeros_(made.bias)
    return made


class Table(nn.Module):
    """One learned vector for each of `rows` things that stand in a row; called, it gives them all.

    Args:
        period: things so far apart are alike, such as notes an octave apart (12): a part of their vectors is shared.
            0: none are.
    """

    turn: Tensor

    def __init__(self, rows: int, width: int, generator: torch.Generator, std: float = 0.5, period: int = 0):
        super().__init__()
        self.period = period
        self.each = nn.Parameter(std * torch.randn(rows, width, generator=generator))
        if period:
            self.shared = nn.Parameter(std * torch.randn(period, width, generator=generator))
            self.register_buffer("turn", torch.arange(rows) % period, persistent=False)

    def forward(self) -> Float[Tensor, "row width"]:
        return self.each + self.shared[self.turn] if self.period else self.each


def rotate(
    x: Float[Tensor, "*batch time part"], turn: tuple[Float[Tensor, "time half"], Float[Tensor, "time half"]]
) -> Float[Tensor, "*batch time part"]:
    """The first half of the numbers and the second, as points of planes, turned by the angles of their times."""
    cos, sin = turn
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)


def _near(blocks: Sequence[Tensor], number: int, causal: bool) -> Tensor:
    """A block of frames (last axis but one, or the only one) with those next to it, later ones unless `causal`."""
    next_to = blocks[max(0, number - 1) : number + (1 if causal else 2)]
    return torch.cat(list(next_to), dim=max(-2, -blocks[0].dim()))


def _turns(positions: Int[Tensor, "time"], part: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Cosine and sine of position times frequency; wavelengths grow from 2 pi frames to 10,000 times that."""
    speed = 10_000.0 ** (-torch.arange(0, part, 2, device=positions.device, dtype=torch.float64) / part)
    angle = positions.unsqueeze(-1) * speed
    return angle.cos().to(dtype), angle.sin().to(dtype)


def _with_oneself(present: Present) -> Bool[Tensor, "scene time agent agent"]:
    """Whom each may attend to at a moment: who is present, and oneself, so that no row is empty."""
    myself = torch.eye(present.shape[-1], dtype=torch.bool, device=present.device)
    return present.unsqueeze(-2) | myself


def _put(kept: Tensor, new: Tensor, begin: int = 0) -> None:
    """Write frames `begin` on (last axis but one) into their slots; of more than there is room for, the latest."""
    room, frames = kept.shape[-2], new.shape[-2]
    first = max(0, frames - room)
    slots = torch.arange(begin + first, begin + frames, device=new.device) % room
    kept.index_copy_(-2, slots, new.narrow(-2, first, frames - first))


def _recall(memory: Memory) -> Tensor | None:
    """Which slots the latest frame may attend to, [scene, agent, 1, 1, room]; None: all that are filled."""
    filled = min(memory.seen + 1, memory.present.shape[-2])
    seen = memory.present[..., :filled, 0]
    if bool(seen.all()):
        return None
    oneself = torch.arange(filled, device=seen.device) == memory.seen % memory.present.shape[-2]
    return (seen | oneself)[:, :, None, None]
