"""The trunk of scene models as the body of a policy: what everybody saw and did before, frame by frame.

`history`: each agent attends to its own past alone, so that it can act by itself. `scene`: at every moment agents
attend to each other too, so that what one does hangs on the pasts of all: a causal model of the scene, given what is
observed, that acts. Both remember the latest `REACH` frames and read them from what they kept (`nets.trunk.Memory`).
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from understudy.nets.mlp import AgentLinear
from understudy.nets.trunk import Memory, Trunk, TrunkConfig

REACH = 128  # frames back that attention reaches, the present one counted


class Kept(NamedTuple):
    """`nets.trunk.Memory` with the axis of envs first, as memories of policies have it."""

    keys: Float[Tensor, "env layer agent head room part"]
    values: Float[Tensor, "env layer agent head room part"]
    present: Bool[Tensor, "env agent room 1"]
    seen: Int[Tensor, "env"]


class Attentive(nn.Module):
    """See the module; a body as `nets.bodies` has them, whose number of `layers` is of blocks, after an embedding."""

    def __init__(
        self,
        inputs: int,
        hidden: int,
        layers: int,
        groups: tuple[int, ...],
        activation: str,
        generator: torch.Generator,
        social: bool,
    ):
        super().__init__()
        self.agents, self.outputs = len(groups), hidden
        self.embed = AgentLinear(inputs, hidden, groups, 1.0, generator)
        self.trunk = Trunk(TrunkConfig(hidden, layers, pair=2, window=REACH, social=social), generator)

    def start(self, envs: int) -> Kept:
        memory = self.trunk.start(envs, self.agents, REACH)
        seen = torch.zeros(envs, dtype=torch.long, device=memory.keys.device)
        return Kept(memory.keys.transpose(0, 1), memory.values.transpose(0, 1), memory.present, seen)

    def forward(
        self,
        x: Float[Tensor, "env time agent feature"],
        memory: Kept,
        starts: Bool[Tensor, "env time"] | None,
        present: Bool[Tensor, "env time agent"] | None,
        last: AgentLinear | None = None,
    ) -> tuple[Float[Tensor, "env time agent output"], Kept]:
        x = self.embed(x)
        # whose episode began since then remembers nobody in older slots, so one clock serves all
        kept = Memory(memory.keys.transpose(0, 1).clone(), memory.values.transpose(0, 1).clone(),
                      memory.present.clone(), int(memory.seen.max()))  # fmt: skip
        myself = torch.eye(self.agents, device=x.device, dtype=x.dtype)
        pairs = torch.stack([myself, 1 - myself], dim=-1).expand(*x.shape[:3], -1, -1)
        if kept.seen == 0:
            made = self.trunk(x, pairs, present, kept, starts=starts)
        else:
            steps = []
            for t in range(x.shape[1]):
                if starts is not None:
                    kept.present &= ~starts[:, t, None, None, None]
                here = None if present is None else present[:, t : t + 1]
                steps.append(self.trunk(x[:, t : t + 1], pairs[:, t : t + 1], here, kept))
            made = torch.cat(steps, dim=1)
        there = kept.present[:, None, :, None]  # who was not there is forgotten: zeros are an episode's start
        keys, values = kept.keys.transpose(0, 1) * there, kept.values.transpose(0, 1) * there
        after = Kept(keys, values, kept.present, torch.full_like(memory.seen, kept.seen))
        return made if last is None else last(made), after
