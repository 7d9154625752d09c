"""Networks. All take [*batch, agent, feature]; memory comes in and goes out."""

from understudy.nets.mlp import AgentLinear, AgentMLP, Normaliser, sharing_groups
from understudy.nets.policy import AgentPolicy, NetConfig, build_policy
from understudy.nets.values import Values

__all__ = [
    "AgentLinear",
    "AgentMLP",
    "AgentPolicy",
    "NetConfig",
    "Normaliser",
    "Values",
    "build_policy",
    "sharing_groups",
]
