"""Policies as tables, and tables as policies: for games whose states are few and seen as one-hot vectors."""

import copy
from math import prod
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from understudy.core.errors import EnvError, expect_shape
from understudy.core.tree import tree_leaves
from understudy.core.types import EnvSpec, View
from understudy.nets.policy import AgentPolicy, NetConfig

IMPOSSIBLE = -1e4  # logit of what is never done: in float32 its probability is exactly 0


@torch.no_grad()
def table_of(policy: Any, choices: tuple[int, ...], states: int) -> Float[Tensor, "state joint"]:
    """Probability of each joint action in each state, in float64: of any policy that tells likelihoods.

    Raises:
        EnvError: the policy remembers, so that what it does in a state depends on how it came there.
    """
    policy = copy.deepcopy(policy).double() if isinstance(policy, nn.Module) else policy
    return log_table(policy, choices, states, torch.float64).double().exp()


def log_table(
    policy: Any, choices: tuple[int, ...], states: int, dtype: torch.dtype = torch.float32
) -> Float[Tensor, "state joint"]:
    """Log-probability of each joint action in each state, with its gradient. Raises EnvError as `table_of` does."""
    if next(tree_leaves(policy.start(1)), None) is not None:
        raise EnvError("the policy remembers earlier steps, so it has no table of states. Use one that does not.")
    joints = prod(choices)
    seen = torch.eye(states, dtype=dtype)[:, None, None, :].expand(-1, joints, len(choices), -1)
    moves = torch.stack(torch.unravel_index(torch.arange(joints), choices), dim=-1).expand(states, -1, -1)
    legal = own_moves(choices)
    every = None if bool(legal.all()) else legal.expand(states, joints, -1, -1)
    return policy.log_prob(View(seen, legal=every), moves).sum(-1)


def policy_of(each: Float[Tensor, "agent state choice"], spec: EnvSpec) -> AgentPolicy:
    """The policy of agents who choose independently, with the probabilities `each`: linear in the one-hot state."""
    expect_shape("each", each, "agent state choice", agent=spec.agents, state=spec.obs)
    policy = AgentPolicy(NetConfig(layers=0, share="none"), spec, torch.Generator())
    write_table(policy, each)
    return policy


@torch.no_grad()
def write_table(policy: AgentPolicy, each: Float[Tensor, "agent state choice"]) -> None:
    """Give a policy that `policy_of` made other probabilities."""
    policy.outs[0].weight.copy_(each.log().clamp(min=IMPOSSIBLE).mT)  # type: ignore[union-attr, operator]


def own_moves(choices: tuple[int, ...]) -> Bool[Tensor, "agent choice"]:
    """Which moves are an agent's own: those with fewer than others have the first ones."""
    return torch.arange(max(choices)) < torch.tensor(choices).unsqueeze(-1)
