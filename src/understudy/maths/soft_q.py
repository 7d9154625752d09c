"""Soft Q-learning as pure functions: soft values, the rewards that a Q implies, the losses of IQ-Learn and SQIL.

All is counted in temperatures: Q here is Q / alpha of the papers, so that a policy's logits are its Q, and

    pi(a|s) = exp(Q(s, a) - V(s)),    V(s) = log sum_a exp Q(s, a).

What steps look like to a Q is a `Valued`: one number for each agent, or for each team whose agents are mixed.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from understudy.core.types import Discrete, MultiDiscrete
from understudy.maths.heads import one_hot


@dataclass(frozen=True)
class Valued:
    """Steps as a soft Q values them, in temperatures. The last axis is of agents, or of teams."""

    chosen: Float[Tensor, "*step group"]  # Q of what was done
    now: Float[Tensor, "*step group"]  # soft value before the step
    after: Float[Tensor, "*step group"]  # soft value of what the step led to: 0 where the game was over
    weight: Float[Tensor, "*step group"]  # how much each counts; 0 where there is no step, or nobody there


def chosen_q(
    q: Float[Tensor, "*batch choice"], actions: Shaped[Tensor, "..."], action: Discrete | MultiDiscrete
) -> Float[Tensor, "*batch"]:
    """Q of what was done. The Q of several moves at once is the sum of theirs."""
    return (q * one_hot(actions, action).to(q.dtype)).sum(dim=-1)


def soft_value(
    q: Float[Tensor, "*batch choice"],
    action: Discrete | MultiDiscrete,
    legal: Bool[Tensor, "*batch choice"] | None = None,
) -> Float[Tensor, "*batch"]:
    """log sum exp Q over the legal moves; over all of them where none is legal (an absent agent).

    Of several moves at once it is the sum of the parts' own, exactly: sums of Q are products of exp Q.
    """
    sizes = (action.choices,) if isinstance(action, Discrete) else action.choices
    parts = q.split(sizes, dim=-1)
    if legal is not None:
        masks = (m | ~m.any(dim=-1, keepdim=True) for m in legal.split(sizes, dim=-1))
        parts = tuple(p.masked_fill(~m, torch.finfo(q.dtype).min) for p, m in zip(parts, masks, strict=True))
    return torch.stack([p.logsumexp(dim=-1) for p in parts]).sum(dim=0)


def implied_reward(steps: Valued, discount: float) -> Float[Tensor, "*step group"]:
    """The reward under which this Q is the soft-optimal one: r = Q(s, a) - discount * V(s').

    Source: Garg et al. 2021, arXiv:2106.12142, the inverse soft Bellman operator.
    """
    return steps.chosen - discount * steps.after


def iq_loss(
    expert: Valued, played: Valued | None, discount: float, penalty: float
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Minus the objective of IQ-Learn with the chi-square penalty, and the expert's mean implied reward.

        J = E_expert[ r ] - E[ V(s) - discount V(s') ] - penalty E[ r^2 ],    r = Q(s, a) - discount V(s')

    The second and third mean are over the expert's steps (played None: offline) or over these and those played, half
    and half. Offline J is E[Q - V] - penalty E[r^2] = E[log pi(a|s)] - penalty E[r^2]: cloning, and a price on rewards.

    Args:
        penalty: 1 / (4 alpha) of the paper, times the temperature (rewards are counted in temperatures here).

    Source: Garg et al. 2021, arXiv:2106.12142, section 5, phi(x) = x - x^2 / (4 alpha).
    """
    reward = implied_reward(expert, discount)
    sides = [expert] if played is None else [expert, played]
    drops = torch.stack([weighted_mean(side.now - discount * side.after, side.weight) for side in sides]).mean()
    squares = torch.stack(
        [weighted_mean(implied_reward(side, discount).square(), side.weight) for side in sides]
    ).mean()
    mean = weighted_mean(reward, expert.weight)
    return drops - mean + penalty * squares, mean.detach()


def discounted(steps: Valued, discount: float) -> Valued:
    """The steps of whole episodes [episode, time, group], the step t weighed by discount^t.

    Then the mean of V(s) - discount * V(s') telescopes: it is the mean over episodes of V(s_0), less what a time limit
    left of it, over the sum of the weights, (1 - discount) V(s_0) where episodes are long.
    """
    time = torch.arange(steps.weight.shape[1], device=steps.weight.device)
    return replace(steps, weight=steps.weight * (discount**time).unsqueeze(-1))


def weighted_mean(x: Float[Tensor, "*step group"], weight: Float[Tensor, "*step group"]) -> Float[Tensor, ""]:
    """0 where nothing has weight."""
    return (x * weight).sum() / weight.sum().clamp(min=1e-8)
