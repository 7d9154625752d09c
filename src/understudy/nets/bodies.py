"""What stands between features and a head: feed-forward, recurrent, attention over agents and what each remembers.

A body maps [env, time, agent, feature] and its memory to [env, time, agent, hidden] and the memory after. Memory is
`()` where nothing is remembered; zeros are the memory of an episode's start, and it is zeroed wherever `starts`. With
`last`, a linear layer after the body, what comes out is that layer's. `chance` draws what the `dropout` inside a body
hides while it learns; None: nothing is hidden.
"""

import math
from collections.abc import Callable
from functools import partial
from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from understudy.nets.fused import ACTIVATIONS
from understudy.nets.mlp import AgentLinear, through
from understudy.nets.trunk import AgentBlock, Dropout, Feed

Starts = Bool[Tensor, "env time"] | None
Present = Bool[Tensor, "env time agent"] | None
Last = AgentLinear | None
Chance = torch.Generator | None


class Feedforward(nn.Module):
    """`layers` hidden layers; every step by itself."""

    def __init__(
        self,
        inputs: int,
        hidden: int,
        layers: int,
        groups: tuple[int, ...],
        activation: str,
        generator: torch.Generator,
    ):
        super().__init__()
        widths = [inputs] + [hidden] * layers
        self.layers = nn.ModuleList(AgentLinear(a, b, groups, math.sqrt(2), generator) for a, b in pairwise(widths))
        self.activation = activation
        self.outputs = widths[-1]

    def start(self, envs: int) -> tuple[()]:
        return ()

    def forward(
        self,
        x: Float[Tensor, "env time agent feature"],
        memory: tuple[()],
        starts: Starts,
        present: Present,
        last: Last = None,
        chance: Chance = None,
    ) -> tuple[Float[Tensor, "env time agent output"], tuple[()]]:
        if last is None:
            return through(self.layers, x, self.activation, closed=True), ()
        return through([*self.layers, last], x, self.activation), ()


class Recurrent(nn.Module):
    """Hidden layers, then a gated recurrent unit per agent; its output is joined to the layers' own.

        r, z = sigmoid(W x + U h),  n = tanh(W_n x + r * (U_n h)),  h' = (1 - z) * n + z * h

    Source: Cho et al. 2014, arXiv:1406.1078, in the form with the reset gate after the product.
    """

    def __init__(
        self,
        inputs: int,
        hidden: int,
        layers: int,
        groups: tuple[int, ...],
        activation: str,
        generator: torch.Generator,
    ):
        super().__init__()
        self.agents, self.hidden = len(groups), hidden
        self.before = Feedforward(inputs, hidden, layers, groups, activation, generator)
        self.into = AgentLinear(self.before.outputs, 3 * hidden, groups, 1.0, generator)
        self.back = AgentLinear(hidden, 3 * hidden, groups, 1.0, generator)
        self.outputs = hidden + self.before.outputs

    def start(self, envs: int) -> Float[Tensor, "env agent hidden"]:
        return self.into.weight.new_zeros(envs, self.agents, self.hidden)

    def forward(
        self,
        x: Float[Tensor, "env time agent feature"],
        memory: Tensor,
        starts: Starts,
        present: Present,
        last: Last = None,
        chance: Chance = None,
    ) -> tuple[Float[Tensor, "env time agent output"], Tensor]:
        x, _ = self.before(x, (), starts, present)
        inputs = self.into(x)  # all steps in one product: only U h must wait for the step before
        keeps = None if starts is None else (~starts).to(x.dtype)[..., None, None].unbind(1)
        gates, width, seen = inputs.unbind(1), 2 * self.hidden, []
        for t in range(x.shape[1]):
            if keeps is not None:
                memory = memory * keeps[t]
            fed, kept = gates[t], self.back(memory)
            reset, stay = torch.sigmoid(fed[..., :width] + kept[..., :width]).chunk(2, dim=-1)
            fresh = torch.tanh(torch.addcmul(fed[..., width:], reset, kept[..., width:]))
            memory = torch.lerp(fresh, memory, stay)
            seen.append(memory)
        hidden = torch.cat([torch.stack(seen, dim=1), x], dim=-1)
        return hidden if last is None else last(hidden), memory


class AttentionOverAgents(nn.Module):
    """Every agent's features attend to those of all present agents of the same step (so it acts centrally).

    Nothing depends on the order or the number of agents, but for shared weights per role. Two-layer pre-norm blocks
    with four heads. Source: Vaswani et al. 2017, arXiv:1706.03762.
    """

    HEADS = 4

    def __init__(
        self,
        inputs: int,
        hidden: int,
        layers: int,
        groups: tuple[int, ...],
        activation: str,
        generator: torch.Generator,
    ):
        super().__init__()
        self.embed = AgentLinear(inputs, hidden, groups, math.sqrt(2), generator)
        one = (0,) * len(groups)  # who attends to whom must not hang on who is who
        self.mix = nn.ModuleList(AgentLinear(hidden, 3 * hidden, one, 1.0, generator) for _ in range(layers))
        self.out = nn.ModuleList(AgentLinear(hidden, hidden, one, 0.5, generator) for _ in range(layers))
        self.wide = nn.ModuleList(AgentLinear(hidden, 2 * hidden, one, math.sqrt(2), generator) for _ in range(layers))
        self.narrow = nn.ModuleList(AgentLinear(2 * hidden, hidden, one, 0.5, generator) for _ in range(layers))
        self.activation = ACTIVATIONS[activation]
        self.outputs = hidden

    def start(self, envs: int) -> tuple[()]:
        return ()

    def forward(
        self,
        x: Float[Tensor, "env time agent feature"],
        memory: tuple[()],
        starts: Starts,
        present: Present,
        last: Last = None,
        chance: Chance = None,
    ) -> tuple[Float[Tensor, "env time agent output"], tuple[()]]:
        x = self.activation(self.embed(x))
        mask = None
        if present is not None:
            myself = torch.eye(x.shape[-2], dtype=torch.bool, device=x.device)
            mask = (present.unsqueeze(-2) | myself).unsqueeze(-3)  # [env, time, 1, me, other]: never an empty row
        for mix, out, wide, narrow in zip(self.mix, self.out, self.wide, self.narrow, strict=True):
            parts = mix(F.layer_norm(x, x.shape[-1:])).unflatten(-1, (3, self.HEADS, -1))
            query, key, value = (p.transpose(-2, -3) for p in parts.unbind(-3))  # [env, time, head, agent, part]
            mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
            x = x + out(mixed.transpose(-2, -3).flatten(-2))
            x = x + narrow(self.activation(wide(F.layer_norm(x, x.shape[-1:]))))
        return x if last is None else last(x), ()


class Remembered(nn.Module):
    """A recurrent unit keeps each agent's past, and a block of the trunk of scene models reads what is kept.

        m = Recurrent(x),   m += Agents(norm(m), pairs),   m += MLP(norm(m))

    `social`: agents attend to each other's memories, so that what one does hangs on the pasts of all. Without: each
    reads its own alone, so that it can act by itself.
    """

    HEADS = 4

    def __init__(
        self,
        inputs: int,
        hidden: int,
        layers: int,
        groups: tuple[int, ...],
        activation: str,
        generator: torch.Generator,
        social: bool,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.own, self.drop = Recurrent(inputs, hidden, layers, groups, activation, generator), Dropout(dropout)
        self.read: AgentBlock | Feed
        if social:
            self.read = AgentBlock(hidden, self.HEADS, 2, dropout, generator, 0.5)
        else:
            self.read = Feed(hidden, dropout, generator, 0.5)
        self.outputs = self.own.outputs

    def start(self, envs: int) -> Float[Tensor, "env agent hidden"]:
        return self.own.start(envs)

    def forward(
        self,
        x: Float[Tensor, "env time agent feature"],
        memory: Tensor,
        starts: Starts,
        present: Present,
        last: Last = None,
        chance: Chance = None,
    ) -> tuple[Float[Tensor, "env time agent output"], Tensor]:
        x, memory = self.own(x, memory, starts, present)
        kept, now = x.tensor_split([self.own.hidden], dim=-1)
        kept = self.drop(kept, chance)
        if isinstance(self.read, AgentBlock):
            myself = torch.eye(x.shape[-2], dtype=torch.bool, device=x.device)
            pairs = torch.stack([myself, ~myself], dim=-1).to(x.dtype).expand(*x.shape[:3], -1, -1)
            others = None if present is None else present.unsqueeze(-2) | myself
            kept = self.read(kept, pairs, others, chance)
        else:
            kept = self.read(kept, chance)
        hidden = torch.cat([kept, now], dim=-1)
        return hidden if last is None else last(hidden), memory


BODIES: dict[str, Callable[..., nn.Module]] = {
    "mlp": Feedforward,
    "gru": Recurrent,
    "attention": AttentionOverAgents,
    "history": partial(Remembered, social=False),
    "scene": partial(Remembered, social=True),
}
READ = ("history", "scene")  # which read what they remember
REMEMBER = ("gru", *READ)  # what they make of a step depends on the steps before
