"""Losses and rewards of discriminators against slow twins and cases solved on paper, and episodes that are over."""

import math

import numpy as np
import pytest
import torch

from understudy.core.random import generator
from understudy.maths.adversarial import (
    REWARDS,
    absorbing_payoff,
    ages,
    airl_logits,
    between,
    calibration_error,
    discriminator_loss,
    ends_logits,
    gone_together,
    slope_penalty,
    slopes,
    steps_remaining,
)


def logits_and_weights(seed, rows=(7, 5), agents=3):
    source = generator(seed)
    draw = [torch.randn(n, agents, generator=source, dtype=torch.float64) * 3 for n in rows]
    weights = [torch.rand(n, agents, generator=source, dtype=torch.float64) for n in rows]
    return draw, weights


@pytest.mark.parametrize("seed", range(5))
def test_the_loss_and_its_gradient_are_those_of_a_loop_over_numbers(seed):
    (expert, learner), (wide, narrow) = logits_and_weights(seed)
    expert.requires_grad_(), learner.requires_grad_()
    loss = discriminator_loss(expert, learner, wide, narrow)
    loss.backward()

    total, gradients = 0.0, []
    for logits, weights, sign in ((expert, wide, 1), (learner, narrow, -1)):
        x, w = logits.detach().numpy(), weights.numpy()
        for row, weight in zip(x.ravel(), w.ravel(), strict=True):
            judged = 1 / (1 + math.exp(-row))
            total += 0.5 * weight / w.sum() * -math.log(judged if sign > 0 else 1 - judged)
        judged = 1 / (1 + np.exp(-x))
        gradients.append(0.5 * w / w.sum() * (judged - (sign > 0)))
    assert loss.item() == pytest.approx(total, abs=1e-8)
    np.testing.assert_allclose(expert.grad, gradients[0], atol=1e-8)
    np.testing.assert_allclose(learner.grad, gradients[1], atol=1e-8)


def test_both_sides_weigh_the_same_however_many_steps_each_has():
    expert, learner = torch.full((1, 2), 2.0), torch.full((50, 2), -1.0)
    meant = 0.5 * (math.log1p(math.exp(-2)) + math.log1p(math.exp(-1)))
    assert discriminator_loss(expert, learner).item() == pytest.approx(meant)
    assert discriminator_loss(torch.zeros(3, 1), torch.zeros(4, 1)).item() == pytest.approx(math.log(2))


def test_what_weighs_nothing_teaches_nothing():
    (expert, learner), _ = logits_and_weights(0)
    weight = torch.ones_like(expert)
    weight[2] = 0
    other = expert.clone()
    other[2] = 99.0
    assert torch.equal(discriminator_loss(expert, learner, weight), discriminator_loss(other, learner, weight))


def test_the_best_discriminator_loses_log_2_less_the_jensen_shannon_divergence():
    p, q = np.array([0.7, 0.2, 0.1]), np.array([0.1, 0.3, 0.6])
    mid = (p + q) / 2
    jsd = 0.5 * (p * np.log(p / mid)).sum() + 0.5 * (q * np.log(q / mid)).sum()
    logits = torch.tensor(np.log(p / q)).unsqueeze(-1)
    loss = discriminator_loss(logits, logits, torch.tensor(p).unsqueeze(-1), torch.tensor(q).unsqueeze(-1))
    assert loss.item() == pytest.approx(math.log(2) - jsd, abs=1e-12)
    for k in range(3):  # no other is better
        for step in (-0.1, 0.1):
            worse = logits.clone()
            worse[k] += step
            there = discriminator_loss(worse, worse, torch.tensor(p).unsqueeze(-1), torch.tensor(q).unsqueeze(-1))
            assert there > loss


def test_rewards_are_the_functions_of_d_that_they_are_called():
    logits = torch.linspace(-5, 5, 21, dtype=torch.float64)
    d = logits.sigmoid()
    for form, meant in {
        "softplus": -(1 - d).log(), "logD": d.log(), "logit": d.log() - (1 - d).log(), "tanh": 2 * d - 1,
    }.items():  # fmt: skip
        torch.testing.assert_close(REWARDS[form](logits), meant, msg=form)


# ---- slopes


def test_the_slope_of_a_linear_function_is_the_length_of_its_weights():
    weights = torch.tensor([[3.0, 4.0], [0.0, 0.5]], dtype=torch.float64)
    slope = slopes(lambda x: (x * weights).sum(-1), torch.randn(6, 2, 2, generator=generator(0), dtype=torch.float64))
    torch.testing.assert_close(slope, torch.tensor([5.0, 0.5], dtype=torch.float64).expand(6, 2))
    assert slope_penalty(slope, 1.0).item() == pytest.approx((4.0**2 + 0) / 2)
    assert slope_penalty(slope, 0.0).item() == pytest.approx((25 + 0.25) / 2)


def test_the_penalty_and_its_gradient_are_those_of_finite_differences():
    source = generator(3)
    x = torch.randn(4, 2, 3, generator=source, dtype=torch.float64)
    a = torch.randn(3, 5, generator=source, dtype=torch.float64)
    b = torch.randn(5, generator=source, dtype=torch.float64)

    def penalty_by_hand(first):
        total = 0.0
        for row in x.reshape(-1, 3).numpy():
            hidden = np.tanh(row @ first)
            gradient = first @ ((1 - hidden**2) * b.numpy())
            total += max(0.0, np.sqrt((gradient**2).sum() + 1e-12) - 0.3) ** 2
        return total / 8

    a.requires_grad_()
    penalty = slope_penalty(slopes(lambda z: torch.tanh(z @ a) @ b, x), 0.3)
    penalty.backward()
    assert penalty.item() == pytest.approx(penalty_by_hand(a.detach().numpy()), abs=1e-8)
    for i in range(3):
        for j in range(5):
            up, down = a.detach().numpy().copy(), a.detach().numpy().copy()
            up[i, j] += 1e-6
            down[i, j] -= 1e-6
            numeric = (penalty_by_hand(up) - penalty_by_hand(down)) / 2e-6
            assert a.grad[i, j].item() == pytest.approx(numeric, abs=1e-7)


def test_points_between_lie_on_lines_from_one_side_to_the_other():
    expert, learner = torch.zeros(5, 2, 3), torch.ones(9, 2, 3)
    mixed = between(expert, learner, generator(0))
    assert mixed.shape == (5, 2, 3)
    assert torch.equal(mixed, mixed[:, :1, :1].expand_as(mixed))  # one share for a whole step, all agents of it
    assert ((mixed > 0) & (mixed < 1)).all()


# ---- episodes that are over


def test_ages_count_from_each_start_and_go_on_from_before():
    starts = torch.tensor([[False, False, True, False], [True, False, False, True]])
    assert ages(starts, torch.tensor([7, 0])).tolist() == [[7, 8, 0, 1], [0, 1, 2, 0]]


def test_what_remains_is_the_way_to_the_horizon_and_nothing_where_the_game_goes_on():
    terminated, age = torch.tensor([True, False, True, True]), torch.tensor([0, 3, 9, 4])
    assert steps_remaining(terminated, age, 10, 0.9).tolist() == [9, 0, 0, 5]
    assert steps_remaining(terminated, age, None, 0.9).tolist() == pytest.approx([9, 0, 9, 9])


@pytest.mark.parametrize("steps", [0.0, 1.0, 7.0, math.inf])
def test_the_payoff_is_the_sum_that_it_stands_for(steps):
    reward = torch.tensor([0.7, -2.0], dtype=torch.float64)
    summed = sum(0.9**k * reward for k in range(1, int(min(steps, 500)) + 1))
    torch.testing.assert_close(absorbing_payoff(reward, 0.9, steps), torch.zeros(2).double() + summed)
    torch.testing.assert_close(absorbing_payoff(reward, 1.0, 7.0), 7 * reward)


@pytest.mark.parametrize("form", REWARDS)
@pytest.mark.parametrize("logit", [-1.5, 0.0, 2.0])
def test_a_constant_discriminator_does_not_say_when_to_finish(form, logit):
    """The bias probe: who knows nothing pays alike for finishing at once, late, or never."""
    paid = REWARDS[form](torch.tensor(logit, dtype=torch.float64))
    after, discount = absorbing_payoff(paid, 0.9), 0.9
    worth = [sum(discount**k * paid for k in range(t + 1)) + discount**t * after for t in (0, 3, 20, 400)]
    torch.testing.assert_close(torch.stack(worth), (paid / (1 - discount)).expand(4))


def test_what_ends_say_makes_the_ratio_among_steps_that_among_all_time():
    """Densities by hand: 3 places where games go on, and one where they are over."""
    expert = torch.tensor([0.1, 0.1, 0.2, 0.6], dtype=torch.float64)
    learner = torch.tensor([0.3, 0.2, 0.2, 0.3], dtype=torch.float64)
    among_steps = torch.log((expert[:3] / expert[:3].sum()) / (learner[:3] / learner[:3].sum()))
    of_play, of_ends = ends_logits(expert[3], learner[3])
    torch.testing.assert_close(among_steps + of_play, torch.log(expert[:3] / learner[:3]))
    torch.testing.assert_close(of_ends, torch.log(expert[3] / learner[3]))


def test_two_sides_together_are_over_as_often_as_their_steps_and_ends_say():
    """By hand: 30 steps and 70 ends beside 10 steps and 2.5 ends make a quarter of the steps the other's."""
    sides = torch.tensor([0.7, 0.2])
    together = gone_together(sides, torch.tensor([0.75, 0.25]))
    assert together.item() == pytest.approx((70 + 2.5) / (100 + 12.5), abs=1e-6)
    assert gone_together(sides, torch.tensor([1.0, 0.0])).item() == pytest.approx(0.7)


def test_rare_ends_weigh_by_their_time_and_not_by_the_segments_that_hold_one():
    """Of ten segments of 32 steps one ends with 320 to go: half of all time. The mean of the shares says 0.09."""
    shares = torch.tensor([0.0] * 9 + [320 / 352])
    assert gone_together(shares).item() == pytest.approx(0.5)
    assert shares.mean().item() == pytest.approx(0.0909, abs=1e-4)


def test_ends_that_never_came_count_as_rare():
    of_play, of_ends = ends_logits(torch.tensor(0.8), torch.tensor(0.0))
    assert of_ends.item() == pytest.approx(math.log(0.8 / 0.01))
    assert of_play.item() == pytest.approx(math.log(0.2 / 0.99))
    assert [x.item() for x in ends_logits(torch.tensor(0.0), torch.tensor(0.0))] == [0, 0]


# ---- inverse reinforcement learning


def test_f_less_log_pi_is_the_logit_of_the_papers_discriminator():
    source = generator(0)
    f, log_prob = torch.randn(9, 2, generator=source).double(), -torch.rand(9, 2, generator=source).double()
    d = f.exp() / (f.exp() + log_prob.exp())
    torch.testing.assert_close(airl_logits(f, log_prob).sigmoid(), d)


# ---- how well it does


def test_calibration_is_exact_on_a_case_by_hand():
    near = math.log(0.75 / 0.25)
    expert, learner = torch.full((3, 1), near), torch.tensor([[near], [-near], [-near]])
    # judged 0.75: weights 3/6 expert, 1/6 learner: share 0.75. judged 0.25: 2/6 learners: share 0, off by 0.25
    assert calibration_error(expert, learner).item() == pytest.approx(0.25 * 2 / 6, abs=1e-6)
    assert calibration_error(torch.zeros(4, 2), torch.zeros(9, 2)).item() == pytest.approx(0, abs=1e-6)


def test_a_discriminator_that_has_diverged_has_no_calibration():
    assert calibration_error(torch.tensor([[0.0], [math.nan]]), torch.zeros(2, 1)).isnan()
