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


def iq_rest(
    expert: Float[Tensor, "*agent"], played: Float[Tensor, "*agent"], discount: float, penalty: float
) -> Float[Tensor, "*agent"]:
    """What it is worth to rest for ever after a game is over, in `iq_loss` with steps played.

        V = min(r / (1 - discount), 1 / (2 penalty)),    r = (e - p) / (2 penalty (e + p)),

    with e and p the shares of steps after which the expert and the player rest. It is what `iq_loss` itself would give
    a state that leads only to itself: there Q = V and r = V - discount * V, the expert's steps gain e (r - r / 2) -
    penalty e r^2 / 2, the player's - p r / 2 - penalty p r^2 / 2, and the sum is largest at this r.

    A rest that repels is worth all of that, -1 / (2 penalty (1 - discount)) where the player alone rests: no less keeps
    it below whatever a life unlike the expert's is worth. One that draws is worth a single step's best reward. More
    would have to be carried by the expert's last steps, whose reward is Q - discount * V: hundreds below 0 until Q
    has climbed as high, and their price drowns all else that is to be learnt.

    Leaving it at 0 says that the dead are paid more than whoever plays unlike the expert, who is paid less than 0: then
    learners die as fast as they can. Offline e alone counts, twice with opposite signs, and 0 is right.
    """
    best = 1 / (2 * penalty)
    rest = best / (1 - discount) * (expert - played) / (expert + played).clamp(min=1e-12)
    return rest.clamp(max=best)


def sqil_loss(expert: Valued, played: Valued, discount: float, reward: float) -> Float[Tensor, ""]:
    """Mean of the squared soft Bellman errors: the expert's steps are paid `reward` (in temperatures), those played 0.

        (E_expert[(Q(s, a) - reward - discount V(s'))^2] + E_played[(Q(s, a) - discount V(s'))^2]) / 2

    Source: Reddy et al. 2020, arXiv:1905.11108, equation 5, both sides weighed alike.
    """
    errors = (implied_reward(expert, discount) - reward).square(), implied_reward(played, discount).square()
    return (weighted_mean(errors[0], expert.weight) + weighted_mean(errors[1], played.weight)) / 2


def sqil_rest(
    expert: Float[Tensor, "*agent"], played: Float[Tensor, "*agent"], discount: float, reward: float
) -> Float[Tensor, "*agent"]:
    """What it is worth to rest for ever after a game is over, in `sqil_loss`: V = reward e / (e + p) / (1 - discount).

    e and p are the shares of steps after which the expert and the player rest: an expert at rest is paid on, a player
    is not. At 0 a learner that gets `reward` for a step on the expert's way would rather walk it for ever than arrive.
    """
    return expert / (expert + played).clamp(min=1e-12) * (reward / (1 - discount))


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
