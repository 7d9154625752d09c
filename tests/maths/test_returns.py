import numpy as np
import torch

from understudy.core.random import generator
from understudy.maths.returns import discounted, gae, n_step


def random_case(seed, envs=3, steps=11, agents=2):
    draw = generator(seed)
    rewards, values, after = torch.randn(3, envs, steps, agents, generator=draw, dtype=torch.float64)
    ends = torch.randint(0, 8, (envs, steps), generator=draw)
    return rewards, values, after, ends == 0, ends == 1


def test_an_exact_critic_sees_no_advantage_truncated_or_not():
    rewards, forever = torch.ones(2, 9, 1), torch.full((2, 9, 1), 1 / (1 - 0.9))  # 1 + 0.9 + 0.81 + ...
    never, truncated = torch.zeros(2, 9, dtype=torch.bool), torch.zeros(2, 9, dtype=torch.bool)
    truncated[:, 4] = True
    advantages = gae(rewards, forever, forever, never, truncated, discount=0.9, mix=0.95)
    torch.testing.assert_close(advantages, torch.zeros(2, 9, 1), atol=1e-5, rtol=0)


def test_gae_equals_the_sum_of_its_definition():
    for seed in range(20):
        rewards, values, after, terminated, truncated = random_case(seed)
        ours = gae(rewards, values, after, terminated, truncated, discount=0.93, mix=0.7)
        r, v, w, d, u = (x.numpy() for x in (rewards, values, after, terminated, truncated))
        delta = r + 0.93 * w * ~d[..., None] - v
        for e, t in np.ndindex(r.shape[:2]):
            total, weight = 0.0, 1.0
            for k in range(t, r.shape[1]):
                total = total + weight * delta[e, k]
                weight *= 0.93 * 0.7
                if d[e, k] or u[e, k]:
                    break
            np.testing.assert_allclose(ours[e, t], total, rtol=0, atol=1e-12)


def test_a_full_mix_is_the_discounted_return_less_the_baseline():
    rewards, values, after, terminated, truncated = random_case(3)
    ended = terminated | truncated
    # for the sum to telescope, the value of what a step led to is that of the next step, but at an end
    same = torch.cat([values[:, 1:], after[:, -1:]], dim=1)
    chained = torch.where(ended.unsqueeze(-1), after, same)
    advantages = gae(rewards, values, chained, terminated, truncated, discount=0.9, mix=1.0)
    returns = discounted(rewards, ended, torch.where(terminated.unsqueeze(-1), 0.0, chained), discount=0.9)
    torch.testing.assert_close(advantages, returns - values)


def test_many_steps_are_the_whole_return_and_one_step_is_the_bootstrap():
    rewards, _, after, terminated, truncated = random_case(5)
    follows = torch.where(terminated.unsqueeze(-1), 0.0, after)
    one = n_step(rewards, after, terminated, truncated, discount=0.9, steps=1)
    torch.testing.assert_close(one, rewards + 0.9 * follows)
    all_of_them = n_step(rewards, after, terminated, truncated, discount=0.9, steps=50)
    torch.testing.assert_close(all_of_them, discounted(rewards, terminated | truncated, follows, discount=0.9))


def test_three_steps_by_hand():
    rewards = torch.tensor([[[1.0], [2.0], [3.0], [4.0]]])
    after = torch.full((1, 4, 1), 10.0)
    no, end = torch.zeros(1, 4, dtype=torch.bool), torch.tensor([[False, False, True, False]])
    assert n_step(rewards, after, no, no, 0.5, 2).flatten().tolist() == [4.5, 6.0, 7.5, 9.0]
    assert n_step(rewards, after, end, no, 0.5, 2).flatten().tolist() == [4.5, 3.5, 3.0, 9.0]
    assert n_step(rewards, after, no, end, 0.5, 2).flatten().tolist() == [4.5, 6.0, 8.0, 9.0]
