"""Returns and advantages along segments. `terminated` and `truncated` are two things in every one of them."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def gae(
    rewards: Float[Tensor, "env time agent"],
    values: Float[Tensor, "env time agent"],
    next_values: Float[Tensor, "env time agent"],
    terminated: Bool[Tensor, "env time"],
    truncated: Bool[Tensor, "env time"],
    discount: float,
    mix: float,
) -> Float[Tensor, "env time agent"]:
    """Advantage of each step, by generalised advantage estimation.

        delta[t]     = r[t] + discount * (1 - terminated[t]) * next_v[t] - v[t]
        advantage[t] = delta[t] + discount * mix * (1 - terminated[t] - truncated[t]) * advantage[t+1]

    `mix` = 0 is the one-step error; `mix` = 1 is the discounted return less the baseline.

    Args:
        rewards: reward of step t, in the reward's own unit.
        values: return expected from what was seen before step t.
        next_values: return expected from what step t led to, BEFORE any reset: values[t+1] only within an episode.
        terminated: the game was over with step t, so nothing would have followed.
        truncated: a time limit stopped it with step t. Something would have followed: `next_values` stands for it.
        discount: weight of the next step, 0 to 1 (no unit, per step).
        mix: the lambda of the paper, 0 to 1.

    Source: Schulman et al. 2016, arXiv:1506.02438, equation 16.
    """
    follows = (~terminated).unsqueeze(-1).to(rewards.dtype)  # [env, time, 1]
    goes_on = (~(terminated | truncated)).unsqueeze(-1).to(rewards.dtype)
    delta = rewards + discount * follows * next_values - values
    carried = discount * mix * goes_on
    advantages = torch.empty_like(delta)
    running = torch.zeros_like(delta[:, 0])
    for t in range(delta.shape[1] - 1, -1, -1):
        running = delta[:, t] + carried[:, t] * running
        advantages[:, t] = running
    return advantages


def discounted(
    rewards: Float[Tensor, "env time agent"],
    ended: Bool[Tensor, "env time"],
    after: Float[Tensor, "env time agent"],
    discount: float,
) -> Float[Tensor, "env time agent"]:
    """Discounted sum of the rewards from each step on, to the end of its episode or of the segment.

        return[t] = r[t] + discount * (after[t] if ended[t] or t is last else return[t+1])

    Args:
        ended: the episode ended with step t, terminated or truncated.
        after: what is expected to follow where the sum stops: zero where the game was over, a value elsewhere.
        discount: weight of the next step, 0 to 1.
    """
    returns = torch.empty_like(rewards)
    running = after[:, -1]
    for t in range(rewards.shape[1] - 1, -1, -1):
        running = rewards[:, t] + discount * torch.where(ended[:, t].unsqueeze(-1), after[:, t], running)
        returns[:, t] = running
    return returns


def n_step(
    rewards: Float[Tensor, "env time agent"],
    next_values: Float[Tensor, "env time agent"],
    terminated: Bool[Tensor, "env time"],
    truncated: Bool[Tensor, "env time"],
    discount: float,
    steps: int,
) -> Float[Tensor, "env time agent"]:
    """Return of each step from `steps` rewards and then a value; fewer rewards where an episode or the segment ends.

        R[t] = r[t] + discount * r[t+1] + ... + discount^(k-1) * r[t+k-1] + discount^k * next_v[t+k-1]

    with k = `steps` or what is left; the value is dropped where step t+k-1 terminated.
    """
    ended = (terminated | truncated).unsqueeze(-1)
    bootstrap = next_values * (~terminated).unsqueeze(-1).to(rewards.dtype)
    returns = rewards + discount * bootstrap
    for _ in range(steps - 1):
        longer = rewards + discount * torch.cat([returns[:, 1:], bootstrap[:, -1:]], dim=1)
        returns = torch.where(ended, rewards + discount * bootstrap, longer)
    return returns
