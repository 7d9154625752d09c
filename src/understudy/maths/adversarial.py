"""What a discriminator is taught, what it pays, and what an episode that is over is worth. 1 is the expert everywhere.

D = sigmoid(logit) is the probability that a step was the demonstrators'. At its best the logit is
log(expert's density) - log(learner's density) of the step: the density ratio that all rewards here are made of.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

REWARDS: dict[str, Callable[[Tensor], Tensor]] = {
    "softplus": F.softplus,  # -log(1 - D), above 0: without absorbing states it pays for not finishing
    "logD": lambda logits: -F.softplus(-logits),  # below 0: it pays for finishing
    "logit": lambda logits: logits,  # log D - log(1 - D): of either sign, and as large as the logit
    "tanh": lambda logits: torch.tanh(logits / 2),  # 2 D - 1, within -1 and 1
}
ONE_SIGN = ("softplus", "logD")  # whoever is paid so wants episodes longer, or shorter, whatever else is in them


def discriminator_loss(
    expert: Float[Tensor, "expert agent"],
    learner: Float[Tensor, "learner agent"],
    expert_weight: Float[Tensor, "expert agent"] | None = None,
    learner_weight: Float[Tensor, "learner agent"] | None = None,
) -> Float[Tensor, ""]:
    """Cross-entropy of the logits in nats, 1 = expert: the mean of both sides, however many steps each has.

        1/2 E_expert[ -log D ] + 1/2 E_learner[ -log(1 - D) ]

    log 2 = 0.693 is guessing. The least that any discriminator reaches is log 2 - JSD(expert, learner), in what it
    sees. Source: Goodfellow et al. 2014, arXiv:1406.2661, theorem 1.
    """
    return 0.5 * (
        weighted_mean(F.softplus(-expert), expert_weight) + weighted_mean(F.softplus(learner), learner_weight)
    )


def weighted_mean(x: Tensor, weight: Tensor | None) -> Tensor:
    """Of all numbers alike where no weights are given."""
    return x.mean() if weight is None else (x * weight).sum() / weight.sum().clamp(min=1e-12)


def slopes(
    function: Callable[[Tensor], Tensor], inputs: Float[Tensor, "step agent feature"]
) -> Float[Tensor, "step agent"]:
    """Length of the gradient of each agent's output with respect to its own inputs; it can be learnt from."""
    inputs = inputs.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(function(inputs).sum(), inputs, create_graph=True)
    return (gradient.square().sum(dim=-1) + 1e-12).sqrt()


def slope_penalty(slope: Float[Tensor, "step agent"], most: float) -> Float[Tensor, ""]:
    """Mean of max(0, slope - most)^2: a steeper function is called back, a flat one left alone.

    The usual penalty, (slope - 1)^2, also asks a discriminator that should be flat, where learner and expert agree, to
    have slope 1; what it then pays is noise. Source: Petzka et al. 2018, arXiv:1709.08894, equation 8; the usual one
    Gulrajani et al. 2017, arXiv:1704.00028.
    """
    return (slope - most).clamp(min=0).square().mean()


def between(
    expert: Float[Tensor, "*expert_step agent feature"],
    learner: Float[Tensor, "*learner_step agent feature"],
    generator: torch.Generator,
) -> Float[Tensor, "step agent feature"]:
    """Points on the lines from steps of one side to steps of the other, as many as the side with fewer has."""
    expert, learner = expert.flatten(0, -3), learner.flatten(0, -3)
    count = min(len(expert), len(learner))
    share = torch.rand(count, 1, 1, generator=generator, device=expert.device, dtype=expert.dtype)
    return torch.lerp(expert[:count], learner[:count], share)


def airl_logits(
    f: Float[Tensor, "*batch agent"], log_prob: Float[Tensor, "*batch agent"]
) -> Float[Tensor, "*batch agent"]:
    """Logit of D = exp f / (exp f + pi(a|o)), which is f - log pi.

    Source: Fu et al. 2018, arXiv:1710.11248, section 5.
    """
    return f - log_prob


# ---- episodes that are over


def ages(starts: Bool[Tensor, "env time"], first: Int[Tensor, "env"]) -> Int[Tensor, "env time"]:
    """Steps of its episode before each step. `first`: those before the segment's first step."""
    time = torch.arange(starts.shape[1], device=starts.device).expand(starts.shape)
    begun = torch.where(starts, time, -1).cummax(dim=1).values  # when the episode began, -1: before the segment
    return torch.where(begun >= 0, time - begun, time + first.unsqueeze(1))


def steps_remaining(
    terminated: Bool[Tensor, "*batch"], age: Int[Tensor, "*batch"], horizon: int | None, discount: float
) -> Float[Tensor, "*batch"]:
    """Steps in the absorbing state that follow a step: up to the horizon where the game was over with it, else none.

    An env without a horizon has discount / (1 - discount) of them, what they weigh for the learner.
    """
    if horizon is None:
        return terminated.float() * discount / (1 - discount)
    return terminated * (horizon - 1 - age).clamp(min=0).float()


def absorbing_payoff(
    reward: Float[Tensor, "*agent"], discount: float, steps: float = float("inf")
) -> Float[Tensor, "*agent"]:
    """What staying in the absorbing state for `steps` steps is worth at the step that leads there.

        discount * r + discount^2 r + ... = r * discount * (1 - discount^steps) / (1 - discount)

    For ever is right for a learner to whom a time limit is no end (`gae` goes on with the value there): then a
    constant reward is worth the same to who finishes early, late or never, and says nothing about when to.
    Source of absorbing states: Kostrikov et al. 2019, arXiv:1809.02925, section 4.2; there sampled, here summed up.
    """
    if discount == 1:
        return reward * steps
    return reward * (discount * (1 - discount**steps) / (1 - discount))


def ends_logits(
    expert_gone: Float[Tensor, ""], learner_gone: Float[Tensor, ""], least: float = 0.01
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """What the ends of games alone say for the expert: of a step that was played, and of one in the absorbing state.

        played:     log (1 - expert_gone) - log (1 - learner_gone)
        absorbing:  log expert_gone - log learner_gone

    A discriminator of steps that were played, as many of each side, gives the ratio of densities among them; with the
    first added it is that among all steps. The second is the best logit of the absorbing state, which has no features:
    a count, with nothing to be learnt. Shares below `least` (or that near to 1) count as `least`.
    """
    expert, learner = expert_gone.clamp(least, 1 - least), learner_gone.clamp(least, 1 - least)
    return torch.log((1 - expert) / (1 - learner)), torch.log(expert / learner)


def gone_together(gone: Float[Tensor, "part"], weight: Float[Tensor, "part"] | None = None) -> Float[Tensor, ""]:
    """Share of time in the absorbing state of several parts together.

    Who finishes early plays fewer steps in as much time, and few segments hold an end: time after ends and steps played
    are added up apart, and divided then. A mean of the shares would be too low, however many parts there are: of ten
    segments of 32 steps one with 320 steps after its ends makes 0.5, and its share of 0.91 a mean of 0.09.

    Args:
        weight: shares of the steps that are played; None: all parts have as many.
    """
    after = gone / (1 - gone).clamp(min=1e-6)  # for each step that is played
    mean = after.mean() if weight is None else (after * weight).sum() / weight.sum()
    return mean / (1 + mean)


# ---- how well a discriminator does


def calibration_error(
    expert: Float[Tensor, "*expert agent"],
    learner: Float[Tensor, "*learner agent"],
    expert_weight: Float[Tensor, "*expert agent"] | None = None,
    learner_weight: Float[Tensor, "*learner agent"] | None = None,
    bins: int = 10,
) -> Float[Tensor, ""]:
    """Mean distance between D and the share of experts among the steps that it judges so, in `bins` alike wide bins.

    Both sides weigh the same. 0: of what it calls 70 % expert, 70 % is.
    """
    judged = torch.cat([expert.flatten(), learner.flatten()]).sigmoid()
    truth = torch.cat([torch.ones_like(expert.flatten()), torch.zeros_like(learner.flatten())])
    sides = ((expert, expert_weight), (learner, learner_weight))
    weights = [(torch.ones_like(side) if weight is None else weight).flatten() for side, weight in sides]
    weight = torch.cat([0.5 * each / each.sum().clamp(min=1e-12) for each in weights])
    place = (judged.nan_to_num() * bins).long().clamp(max=bins - 1)  # NaN has no bin: it comes out as NaN
    gap = torch.zeros(bins, dtype=judged.dtype, device=judged.device)
    return gap.index_add(0, place, weight * (judged - truth)).abs().sum()
