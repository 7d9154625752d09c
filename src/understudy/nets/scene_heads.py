"""What a scene model says of the next frame: distributions over what all agents do at once, with exact likelihood.

`MoveHead`, for positions: a mixture over whole scenes, in each of whose components every agent has its own mixture,

    p(x_1 .. x_N) = sum_m w_m  prod_i  sum_k w_imk  Normal(x_i; mean_imk, S_imk),

with a full covariance S for each agent. The scene's index m couples the agents (all turn left, or all right), without
an order among them; the agent's own index k lets each hesitate by itself.

`SymbolHead`, for symbols: agents in the order of their slots, each told what those before it chose,

    p(y_1 .. y_N) = prod_i p(y_i | y_1 .. y_{i-1}).

Chance is handed in as uniform numbers, as to all heads of this library (`maths.heads`).
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from understudy.maths.heads import Categorical, standard_normal
from understudy.nets.echo import Echo
from understudy.nets.trunk import AgentBlock, Table, TrunkConfig, linear

Present = Bool[Tensor, "*batch agent"] | None


class Moves(NamedTuple):
    """Parameters of a `MoveHead`, [*batch] being [scene, time]."""

    scene: Float[Tensor, "*batch m"]  # log of the weights of the scene's components
    own: Float[Tensor, "*batch agent m k"]  # log of the weights of the agent's own components
    mean: Float[Tensor, "*batch agent m k dim"]
    root: Float[Tensor, "*batch agent m k dim dim"]  # lower triangular, S = root root^T


class MoveHead(nn.Module):
    """Features of agents to a joint density of their moves.

    Args:
        together, alone: components of the scene, and of each agent in each of them. together=1: agents are independent
            given the past; alone=1: all that is undecided is decided together.
        least: smallest standard deviation, in the unit of the moves. Without it a likelihood of moves that follow
            from the past without chance (or that were rounded) has no bound.
    """

    def __init__(self, hidden: int, dims: int, together: int, alone: int, least: float, generator: torch.Generator):
        super().__init__()
        self.dims, self.together, self.alone, self.least = dims, together, alone, least
        self.scene = linear(hidden, together, generator, 0.1)
        self.each = linear(hidden, together * alone * (1 + dims + dims * (dims + 1) // 2), generator, 0.3)

    @property
    def noise(self) -> int:
        """Uniform numbers of one agent for one move. The scene needs one more."""
        return self.dims

    def forward(self, h: Float[Tensor, "*batch agent hidden"], present: Present = None) -> Moves:
        there = h.new_ones(h.shape[:-1]) if present is None else present.to(h.dtype)
        pooled = (h * there.unsqueeze(-1)).sum(dim=-2) / there.sum(dim=-1, keepdim=True).clamp(min=1)
        own, mean, diagonal, below = (
            self.each(h)
            .unflatten(-1, (self.together, self.alone, -1))
            .split([1, self.dims, self.dims, self.dims * (self.dims - 1) // 2], dim=-1)
        )
        root = torch.diag_embed(F.softplus(diagonal) + self.least)
        row, column = torch.tril_indices(self.dims, self.dims, -1, device=h.device)
        root[..., row, column] = below
        return Moves(self.scene(pooled).log_softmax(-1), own.squeeze(-1).log_softmax(-1), mean, root)

    def log_prob(
        self, moves: Moves, x: Float[Tensor, "*batch agent dim"], present: Present = None
    ) -> Float[Tensor, "*batch"]:
        """Of what all who are present do at once, in nats (a density, per unit of the moves)."""
        off = x[..., None, None, :] - moves.mean
        z: list[Tensor] = []  # S^-1/2 off, one number after another: there are two or three
        for i in range(self.dims):
            told = sum((moves.root[..., i, j] * z[j] for j in range(i)), torch.zeros_like(off[..., i]))
            z.append((off[..., i] - told) / moves.root[..., i, i])
        scale = moves.root.diagonal(dim1=-2, dim2=-1).log().sum(dim=-1)
        normal = -0.5 * torch.stack(z).square().sum(dim=0) - scale - 0.5 * self.dims * math.log(2 * math.pi)
        each = torch.logsumexp(moves.own + normal, dim=-1)  # [*batch, agent, m]
        if present is not None:
            each = each.where(present.unsqueeze(-1), 0.0)
        return torch.logsumexp(moves.scene + each.sum(dim=-2), dim=-1)

    def sample(
        self, moves: Moves, noise: Float[Tensor, "*batch agent draw"], scene_noise: Float[Tensor, "*batch 1"]
    ) -> Float[Tensor, "*batch agent dim"]:
        """One joint move: a component of the scene, then number after number of each agent given those before it.

        Each is the inverse of its own cumulative distribution, p_k being the agent's components' weights given the
        numbers before it, so a move is a continuous function of noise and parameters, and grows with its noise:

            sum_k p_k Phi((x_i - mean_k) / std_k) = noise_i
        """
        m = Categorical(self.together).sample(moves.scene, scene_noise)
        log_p, mean, root = _pick(moves.own, m, -2), _pick(moves.mean, m, -3), _pick(moves.root, m, -4)
        z: list[Tensor] = []  # the numbers so far as each component measures them
        made = []
        for i in range(self.dims):
            told = sum((root[..., i, j] * z[j] for j in range(i)), torch.zeros_like(log_p))
            centre, std = mean[..., i] + told, root[..., i, i]
            x = quantile(log_p.softmax(-1), centre, std, noise[..., i])
            z.append((x.unsqueeze(-1) - centre) / std)
            log_p = log_p - 0.5 * z[i].square() - std.log()
            made.append(x)
        return torch.stack(made, dim=-1)

    def mean(self, moves: Moves) -> Float[Tensor, "*batch agent dim"]:
        """What is expected of each agent."""
        weight = (moves.scene[..., None, :, None] + moves.own).exp()
        return (weight.unsqueeze(-1) * moves.mean).sum(dim=(-3, -2))


class SymbolHead(nn.Module):
    """Features of agents to logits of their symbols, agent after agent.

    Where they choose in order, `within` layers of attention (`trunk.AgentBlock`) first read the frame as far as it is
    decided: agent i stands there with its features and what the agent before it chose, and hears those before it.

    Of every agent the latest symbol is known: this frame's of those that chose already, the last frame's of the
    others. With it agent i gets one message from every agent j (itself among them),

        m_ij = relu(A h_i + B h_j + C[latest_j] + D[latest_j - last_i] + E[j has chosen]),

    and scores symbol s by itself and by how far it lies from what each sounds now, so that an interval that was learnt
    anywhere on the scale is known everywhere:

        logit_i(s) = (W MLP(h_i, sum_j m_ij) + b)_s  +  sum_j  V m_ij . R[s - latest_j].

    Where that is not wanted (`relative=False`) D and R are left out: a model that is shown recordings at many places of
    the scale then has to learn each place, and knows them less soon by heart.

    Args:
        symbols: how many; `latest` may also be `symbols`, which stands for none yet.
        ordered: False: all choose at once, from what was before (no order of agents matters).
        social: False: an agent hears itself alone.
        trunk: how the layers within a frame are made.
        within: how many they are.
        echo: frames up to which earlier moments are told apart by how alike they are (`nets.echo`); 0: what sounded
            before is not looked for.
        relative: whether it is told how far symbols lie apart.
        period: symbols and intervals so far apart are alike; 0: none are (`trunk.Table`).
    """

    noise = 1

    def __init__(
        self,
        trunk: TrunkConfig,
        symbols: int,
        ordered: bool,
        generator: torch.Generator,
        within: int = 0,
        echo: int = 0,
        relative: bool = True,
        period: int = 0,
        rank: int = 16,
    ):
        super().__init__()
        hidden, social = trunk.hidden, trunk.social
        self.symbols, self.ordered, self.social, self.relative = symbols, ordered and social, social, relative
        self.within = nn.ModuleList()
        if self.ordered and within:
            self.before = Table(symbols + 1, hidden, generator, period=period)
            rows, fold = (2 * symbols + 1, period) if relative else (1, 0)
            self.far = nn.ModuleList(
                Table(rows, trunk.pair, generator, period=fold) for _ in range(2)
            )  # of what each is heard with, from what one sounded last and from what the one before one chose
            less = 1 / math.sqrt(2 * within)
            self.within.extend(
                AgentBlock(hidden, trunk.heads, 2 * trunk.pair, trunk.dropout, generator, less) for _ in range(within)
            )
        self.me, self.other = linear(hidden, hidden, generator), linear(hidden, hidden, generator)
        self.latest = Table(symbols + 1, hidden, generator, period=period)
        if relative:
            self.interval = Table(2 * symbols + 1, hidden, generator, period=period)
            self.likes = linear(hidden, rank, generator, 0.3)
            self.steps = Table(2 * symbols + 1, rank, generator, 0.1, period)
        self.chosen = Table(2, hidden, generator)
        self.gather = linear(hidden, hidden, generator, 0.5)
        self.inner = linear(hidden, 2 * hidden, generator, math.sqrt(2))
        self.outer = linear(2 * hidden, hidden, generator, 0.5)
        self.norm = nn.LayerNorm(hidden)
        self.score = Table(symbols, hidden, generator, 0.01, period)
        self.common = nn.Parameter(torch.zeros(symbols))
        self.echo = Echo(hidden, echo, trunk.window, social, generator) if echo else None

    def forward(
        self,
        h: Float[Tensor, "*batch agent hidden"],
        last: Int[Tensor, "*batch agent"],
        now: Int[Tensor, "*batch agent"],
        present: Present = None,
        agent: int | None = None,
        chance: torch.Generator | None = None,
        earlier: Int[Tensor, "scene earlier agent"] | None = None,
        alike: Float[Tensor, "scene time whole agent"] | None = None,
    ) -> Float[Tensor, "*batch asked symbol"]:
        """Logits; of `agent` alone where one is named. Of `now`, only what stands before an agent reaches its logits.

        Args:
            last: symbols of the frame before, `symbols` where there is none.
            chance: draws the dropout; None: none is dropped.
            earlier: symbols of the frames before these, `symbols` where there is none; None: there are no such frames.
                An echo wants a batch of [scene, time].
            alike: of `echo.alike`, where it is known already.
        """
        agents = h.shape[-2]
        order = torch.arange(agents, device=h.device)
        mine = order if agent is None else order[agent : agent + 1]
        chosen = (order < mine.unsqueeze(-1)) & self.ordered  # [me, other]
        latest = torch.where(chosen, now.unsqueeze(-2), last.unsqueeze(-2))  # [*batch, me, other]
        known = latest < self.symbols
        if not self.social:
            known = known & (order == mine.unsqueeze(-1))
        if present is not None:
            known = known & present.unsqueeze(-2)
        first = slice(None if agent is None else agent + 1)  # nobody reads those after it
        there = None if present is None else present[..., first]
        read = self._read(h[..., first, :], last[..., first], now[..., first], there, chance)
        ours, own = read if agent is None else read[..., agent:, :], last[..., mine]
        message = (
            self.me(ours).unsqueeze(-2)
            + self.other(h).unsqueeze(-3)
            + F.embedding(latest, self.latest())
            + F.embedding(chosen.long(), self.chosen())
        )
        if self.relative:
            far = torch.where(own.unsqueeze(-1) < self.symbols, latest - own.unsqueeze(-1), 0) + self.symbols
            message = message + F.embedding(far, self.interval())
        message = F.relu(message) * known.unsqueeze(-1)
        h = ours + self.gather(message.sum(dim=-2))
        h = self.norm(h + self.outer(F.gelu(self.inner(h))))
        logits = F.linear(h, self.score(), self.common)
        if self.relative:
            liked = (self.likes(message) * known.unsqueeze(-1)) @ self.steps().T  # [*batch, me, other, interval]
            symbol = torch.arange(self.symbols, device=h.device)
            far = (symbol - latest.unsqueeze(-1) + self.symbols).clamp(0, 2 * self.symbols)
            logits = logits + liked.gather(-1, far).sum(dim=-2)
        if self.echo is None:
            return logits
        earlier = last[:, :0] if earlier is None else earlier
        given = now if present is None else torch.where(present, now, self.symbols)
        # `last` tells of all frames but the latest, also of one that is known and not asked for
        given = torch.cat([last[:, 1:], given[:, -1:]], dim=1)
        return self.echo(h, logits, earlier, given, mine, self.ordered, alike)

    def _read(
        self, h: Tensor, last: Tensor, now: Tensor, present: Present, chance: torch.Generator | None
    ) -> Float[Tensor, "*batch agent hidden"]:
        """The features of each, having read what those before it chose."""
        if not self.within:
            return h
        order = torch.arange(h.shape[-2], device=h.device)
        there = torch.ones_like(now, dtype=torch.bool) if present is None else present
        who = F.pad(torch.where(there, order, -1).cummax(dim=-1).values[..., :-1], (1, 0), value=-1)  # chose before
        before = torch.where(who < 0, self.symbols, now.gather(-1, who.clamp(min=0)))
        towards = [apart(own, before, self.symbols) for own in (last, before)]
        towards = towards if self.relative else [torch.zeros_like(far) for far in towards]
        pairs = torch.cat([F.embedding(far, table()) for far, table in zip(towards, self.far, strict=True)], dim=-1)
        heard = (order <= order.unsqueeze(-1)) & there.unsqueeze(-2) | (order == order.unsqueeze(-1))  # [me, other]
        h = h + F.embedding(before, self.before())
        for block in self.within:
            h = block(h, pairs, heard, chance)
        return h

    def log_prob(
        self,
        h: Float[Tensor, "*batch agent hidden"],
        last: Int[Tensor, "*batch agent"],
        now: Int[Tensor, "*batch agent"],
        present: Present = None,
        chance: torch.Generator | None = None,
    ) -> Float[Tensor, "*batch agent"]:
        """Of each agent's symbol given those before it, in nats; 0 for who is absent. Their sum is the frame's."""
        found = Categorical(self.symbols).log_prob(self(h, last, now, present, chance=chance), now)
        return found if present is None else found.where(present, 0.0)

    def sample(
        self,
        h: Float[Tensor, "*batch agent hidden"],
        last: Int[Tensor, "*batch agent"],
        noise: Float[Tensor, "*batch agent 1"],
        present: Present = None,
        forced: Int[Tensor, "*batch agent"] | None = None,
        earlier: Int[Tensor, "scene earlier agent"] | None = None,
    ) -> Int[Tensor, "*batch agent"]:
        """One frame. Agents after one whose symbol is `forced` (where not negative) hear it as they hear any other."""
        head, now = Categorical(self.symbols), last.clamp(max=self.symbols - 1).clone()
        alike = None
        if self.echo is not None:
            earlier = last[:, :0] if earlier is None else earlier
            alike = self.echo.alike(earlier, now)
        for i in range(h.shape[-2]):  # an order among agents is what this head is
            drawn = head.sample(
                self(h, last, now, present, i, earlier=earlier, alike=alike).squeeze(-2), noise[..., i, :]
            )
            now[..., i] = drawn if forced is None else torch.where(forced[..., i] >= 0, forced[..., i], drawn)
        return now


def apart(
    mine: Int[Tensor, "*batch agent"], theirs: Int[Tensor, "*batch agent"], symbols: int
) -> Int[Tensor, "*batch agent agent"]:
    """How far j's symbol lies from i's, from 0 (`symbols` below it) on; 2 `symbols` where either sounds none."""
    silent = (mine == symbols).unsqueeze(-1) | (theirs == symbols).unsqueeze(-2)
    return torch.where(silent, 2 * symbols, theirs.unsqueeze(-2) - mine.unsqueeze(-1) + symbols)


def quantile(
    weight: Float[Tensor, "*row k"],
    mean: Float[Tensor, "*row k"],
    std: Float[Tensor, "*row k"],
    noise: Float[Tensor, "*row"],
) -> Float[Tensor, "*row"]:
    """Where the cumulative distribution of a mixture of normals is `noise`, to the last bits of the dtype.

    By halving: it lies between the least and the greatest of the components' own quantiles.
    """
    each = mean + std * standard_normal(noise).unsqueeze(-1)
    low, high = each.amin(dim=-1), each.amax(dim=-1)
    for _ in range(24 if each.dtype == torch.float32 else 53):
        middle = (low + high) / 2
        below = (weight * torch.special.ndtr((middle.unsqueeze(-1) - mean) / std)).sum(dim=-1) < noise
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return (low + high) / 2


def _pick(x: Tensor, index: Tensor, axis: int) -> Tensor:
    """`x` with its (negative) `axis` gone: at [*batch] or [*batch, agent] the entry that `index` names."""
    while index.dim() < x.dim():
        index = index.unsqueeze(-1)
    return torch.take_along_dim(x, index, axis).squeeze(axis)
