"""From every agent's Q to what is valued together: each agent by itself, a team's sum, or a monotone mixture.

A mixer maps [*batch, agent] to [*batch, group]. It is used alike for Q and for V.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from understudy.core.errors import ConfigError, DemosError
from understudy.core.types import EnvSpec, View
from understudy.nets.mlp import AgentMLP, Normaliser


class Mixer(nn.Module):
    """Q of each agent (`none`), of each team as the sum over its agents (`sum`), or that and more (`monotone`).

    With the sum the best joint reply is everybody's own, and the joint soft value is the sum of their own, exactly:
    logsumexp over joint moves of sum_i Q_i = sum_i logsumexp Q_i. A monotone mixture adds to the sum

        w2(s) . elu(W1(s) q + b1(s)) + b2(s),    W1, w2 >= 0,

    its weights made from the whole state (all agents' observations where the env has none). It keeps every agent's
    order of moves, but the joint soft value is no longer the mixture of their own.

    The sum must stay in it: as each Q_i(a_i) <= V_i, a monotone M has M(Q) <= M(V) with equality where M is constant,
    and a mixture free to become constant would be the best answer to "raise M(Q) - M(V)" with nothing learnt.

    Sources: Sunehag et al. 2018, arXiv:1706.05296; Rashid et al. 2018, arXiv:1803.11485; in the inverse setting
    Bui et al. 2024, arXiv:2310.06801.
    """

    member: Tensor

    def __init__(self, kind: str, spec: EnvSpec, generator: torch.Generator, width: int = 32):
        super().__init__()
        if kind not in ("none", "sum", "monotone"):
            raise ConfigError(f"mixer: got {kind!r}, but it is one of none, sum and monotone.")
        self.kind, self.width, self.spec = kind, width, spec
        names = list(spec.names if kind == "none" else dict.fromkeys(spec.teams))
        belongs = spec.names if kind == "none" else spec.teams
        member = torch.tensor([[float(name == own) for own in belongs] for name in names])
        self.register_buffer("member", member, persistent=False)  # [group, agent]
        if kind == "monotone":
            features, groups = spec.whole or spec.agents * spec.obs, tuple(range(len(names)))
            self.normaliser = Normaliser(features)
            outputs = width * (spec.agents + 2) + 1
            self.hyper = AgentMLP(
                features, outputs, groups, generator, hidden=64, layers=1, activation="relu", gain=0.1
            )

    def observe(self, view: View) -> None:
        """Let `view` set the scale of what the mixture is made from."""
        if self.kind == "monotone":
            self.normaliser.observe(self._everything(view).flatten(0, -2))

    def sum(self, q: Float[Tensor, "*batch agent"]) -> Float[Tensor, "*batch group"]:
        return F.linear(q, self.member)

    def forward(self, q: Float[Tensor, "*batch agent"], view: View) -> Float[Tensor, "*batch group"]:
        """What each group is worth at the moments `view`; only the monotone kind looks at them."""
        if self.kind != "monotone":
            return self.sum(q)
        everything = self.normaliser(self._everything(view)).unsqueeze(-2)
        agents = self.member.shape[1]
        made = self.hyper(everything.expand(*everything.shape[:-2], len(self.member), -1))  # [*batch, group, weight]
        inner, outer, bias, level = made.split([self.width * agents, self.width, self.width, 1], dim=-1)
        inner = inner.unflatten(-1, (self.width, agents)).abs() * self.member.unsqueeze(-2)
        hidden = F.elu((inner @ q[..., None, :, None]).squeeze(-1) + bias)
        return self.sum(q) + (outer.abs() * hidden).sum(dim=-1) / math.sqrt(self.width) + level.squeeze(-1)

    def _everything(self, view: View) -> Float[Tensor, "*batch feature"]:
        if not self.spec.whole:
            return view.obs.flatten(-2)
        if view.whole is None:
            raise DemosError(
                f"mixer: 'monotone' is made from the whole state, {self.spec.whole} numbers in "
                f"{self.spec.title or 'this env'}, and these steps came without it (`whole`). "
                "Record with it, or use mixer='sum'."
            )
        return view.whole
