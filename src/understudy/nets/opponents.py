"""What each agent expects the others to do, from what it sees itself."""

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from understudy.core.types import EnvSpec, View
from understudy.maths.heads import make_head
from understudy.nets.mlp import AgentMLP, Normaliser, sharing_groups


class Opponents(nn.Module):
    """A likelihood of every other agent's action for each agent, and draws of them.

    Axes [*batch, me, other, ...]. What an agent expects of itself is neither learnt nor drawn: there its own action
    stands. Others' illegal moves are not known to it.
    """

    def __init__(self, spec: EnvSpec, generator: torch.Generator, hidden: int = 64, share: str = "role"):
        super().__init__()
        self.spec, self.head = spec, make_head(spec.action)
        self.normaliser = Normaliser(spec.obs)
        groups, outputs = sharing_groups(spec, share), spec.agents * self.head.params
        self.net = AgentMLP(spec.obs, outputs, groups, generator, hidden, gain=0.01)

    def params(self, view: View) -> Float[Tensor, "*batch me other param"]:
        return self.net(self.normaliser(view.obs)).unflatten(-1, (self.spec.agents, self.head.params))

    def log_prob(self, view: View, actions: Shaped[Tensor, "..."]) -> Float[Tensor, "*batch me other"]:
        """Of what the others did, in nats; 0 of the own action."""
        params = self.params(view)
        done = actions.unsqueeze(view.obs.dim() - 2)  # a place for `me` before the others
        done = done.expand(*params.shape[:-1], *done.shape[view.obs.dim() :])
        others = ~torch.eye(self.spec.agents, dtype=torch.bool, device=params.device)
        return self.head.log_prob(params, done).where(others, 0.0)

    @torch.no_grad()
    def imagine(self, view: View, actions: Shaped[Tensor, "..."], generator: torch.Generator) -> Shaped[Tensor, "..."]:
        """Joint actions as each agent imagines them: its own as it is, the others' drawn."""
        params = self.params(view)
        noise = torch.rand(*params.shape[:-1], self.head.noise, generator=generator, device=params.device)
        drawn = self.head.sample(params, noise, None)
        own = torch.eye(self.spec.agents, dtype=torch.bool, device=params.device)
        own = own.reshape(*own.shape, *[1] * (drawn.dim() - params.dim() + 1))
        return torch.where(own, actions.unsqueeze(view.obs.dim() - 2), drawn)
