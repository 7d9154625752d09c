"""What is a state worth to each agent: seen by itself (IPPO) or with what everybody sees (MAPPO)."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from understudy.core.types import EnvSpec, View
from understudy.nets.mlp import AgentMLP, Normaliser, sharing_groups


class Values(nn.Module):
    """Expected return of each agent, in the reward's own unit.

    Args:
        central: the agent's own observation and who it is, then the whole state (every agent's observation where the
            env offers no `whole`); else its own observation alone.

    The network works in standard deviations of the returns seen so far (`observe_returns`), so that one learning rate
    serves rewards of any size. Source of both: Yu et al. 2022, arXiv:2103.01955.
    """

    mean: Tensor
    std: Tensor
    seen: Tensor

    def __init__(
        self,
        spec: EnvSpec,
        generator: torch.Generator,
        central: bool,
        hidden: int = 64,
        layers: int = 2,
        activation: str = "tanh",
        share: str = "role",
    ):
        super().__init__()
        self.spec, self.central = spec, central
        everything = spec.whole or spec.agents * spec.obs
        width = spec.obs + (everything + spec.agents if central else 0)
        groups = sharing_groups(spec, share)
        self.normaliser = Normaliser(width)
        self.net = AgentMLP(width, 1, groups, generator, hidden, layers, activation)
        for name in ("mean", "std", "seen"):
            self.register_buffer(name, torch.ones(()) if name == "std" else torch.zeros(()))

    def features(self, view: View) -> Float[Tensor, "*batch agent feature"]:
        """What the network reads, before it is normalised."""
        if not self.central:
            return view.obs
        everything = view.obs.flatten(-2) if view.whole is None else view.whole
        agents = self.spec.agents
        shared = everything.unsqueeze(-2).expand(*view.obs.shape[:-1], everything.shape[-1])
        who = torch.eye(agents, device=view.obs.device, dtype=view.obs.dtype).expand(*view.obs.shape[:-1], agents)
        return torch.cat([view.obs, who, shared], dim=-1)

    def normalised(self, inputs: Float[Tensor, "*batch agent feature"]) -> Float[Tensor, "*batch agent"]:
        """Of normalised features, in standard deviations of the returns: what the loss compares."""
        return self.net(inputs).squeeze(-1)

    def worth(self, inputs: Float[Tensor, "*batch agent feature"]) -> Float[Tensor, "*batch agent"]:
        """Of normalised features, in the reward's unit."""
        return self.normalised(inputs) * self.std + self.mean

    def forward(self, view: View) -> Float[Tensor, "*batch agent"]:
        return self.worth(self.normaliser(self.features(view)))

    @torch.no_grad()
    def observe_returns(self, returns: Float[Tensor, "*batch agent"], rate: float = 0.05) -> None:
        """Follow the returns' mean and deviation, and rewrite the last layer so that no value changes (PopArt).

        Source: van Hasselt et al. 2016, arXiv:1602.07714, section 2.2.
        """
        rate = max(rate, 1.0 / (float(self.seen) + 1.0))
        mean = torch.lerp(self.mean, returns.mean(), rate)
        apart = rate * (1 - rate) * (returns.mean() - self.mean).square()  # the variance between the two means
        var = torch.lerp(self.std.square(), returns.var(correction=0), rate) + apart
        std = var.clamp(min=1e-8).sqrt()
        last = self.net.last
        last.weight.mul_(self.std / std)
        last.bias.mul_(self.std).add_(self.mean - mean).div_(std)
        self.mean.copy_(mean)
        self.std.copy_(std)
        self.seen.add_(1)
