"""Soft values and the losses of IQ-Learn and SQIL: answers known on paper, and twins in NumPy."""

import math

import numpy as np
import pytest
import torch

from understudy.core.random import generator
from understudy.core.types import Discrete, MultiDiscrete
from understudy.maths import soft_q
from understudy.maths.soft_q import Valued

SHARES = torch.tensor([0.7, 0.3], dtype=torch.float64)  # of the two moves of a bandit's expert


def bandit(q, weight=SHARES):
    """Every move done once, with its share as weight, in a game that is then over."""
    value = soft_q.soft_value(q, Discrete(2)).expand(2)
    return Valued(q.unsqueeze(-1), value.unsqueeze(-1), torch.zeros(2, 1, dtype=q.dtype), weight.unsqueeze(-1))


def least(loss, q, steps=300):
    """The `q` at which `loss` is least, by Newton's method where it is strictly convex, damped where it is not."""
    for _ in range(steps):
        slope = torch.func.grad(loss)(q)
        bend = torch.func.hessian(loss)(q) + 1e-6 * torch.eye(len(q), dtype=q.dtype)
        q = q - torch.linalg.solve(bend, slope)
    return q


def test_without_a_price_the_bandit_is_cloned_exactly():
    q = least(lambda q: soft_q.iq_loss(bandit(q), None, 0.9, 0.0)[0], torch.zeros(2, dtype=torch.float64))
    torch.testing.assert_close(q.softmax(-1), SHARES, atol=1e-6, rtol=0)
    torch.testing.assert_close(q - q.mean(), torch.tensor([0.423649, -0.423649]).double(), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("alpha", "likely", "values"),
    [(0.5, 0.607909, (0.131559, -0.306971)), (0.05, 0.521265, None), (5.0, 0.683803, None)],
)
def test_the_price_on_rewards_draws_the_bandit_towards_even_play(alpha, likely, values):
    """At the least loss  p_expert - softmax(Q) - p_expert Q / (2 alpha) = 0."""
    q = least(lambda q: soft_q.iq_loss(bandit(q), None, 0.9, 1 / (4 * alpha))[0], torch.zeros(2, dtype=torch.float64))
    assert q.softmax(-1)[0].item() == pytest.approx(likely, abs=1e-6)
    torch.testing.assert_close(SHARES - q.softmax(-1), SHARES * q / (2 * alpha), atol=1e-9, rtol=0)
    if values:
        torch.testing.assert_close(q, torch.tensor(values, dtype=torch.float64), atol=1e-6, rtol=0)


def test_against_play_the_best_reward_weighs_the_experts_share_with_the_players():
    """r = (e - p) / (2 penalty (e + p)) for every move, where Q is free: each step's V is held apart from its Q."""
    expert, player, penalty = torch.tensor([0.7, 0.3]).double(), torch.tensor([0.2, 0.8]).double(), 0.3

    def loss(r):
        sides = [Valued(r[:, None], r[:, None], torch.zeros(2, 1).double(), w[:, None]) for w in (expert, player)]
        return soft_q.iq_loss(sides[0], sides[1], 0.9, penalty)[0]

    best = least(loss, torch.zeros(2, dtype=torch.float64))
    expected = (expert - player) / (2 * penalty * (expert + player))
    torch.testing.assert_close(best, expected, atol=1e-6, rtol=1e-6)
    rests = soft_q.iq_rest(expert, player, discount=0.9, penalty=penalty)
    torch.testing.assert_close(rests, torch.minimum(expected / (1 - 0.9), torch.tensor(1 / (2 * penalty)).double()))


def test_who_alone_never_or_alike_often_rests_is_worth_the_worst_nothing_and_the_best():
    shares = torch.tensor([0.0, 0.1, 0.1, 0.0]), torch.tensor([0.1, 0.1, 0.0, 0.0])
    iq = soft_q.iq_rest(*shares, discount=0.9, penalty=0.25)
    torch.testing.assert_close(iq, torch.tensor([-20.0, 0.0, 2.0, 0.0]))  # of what draws, one step's best reward
    torch.testing.assert_close(
        soft_q.sqil_rest(*shares, discount=0.9, reward=2.0), torch.tensor([0.0, 10.0, 20.0, 0.0])
    )


@pytest.mark.parametrize("action", [Discrete(4), MultiDiscrete((2, 3)), MultiDiscrete((3, 1, 2))])
def test_the_value_of_several_moves_at_once_is_that_of_all_their_combinations(action):
    sizes = (action.choices,) if isinstance(action, Discrete) else action.choices
    q = torch.randn(5, 2, sum(sizes), generator=generator(0), dtype=torch.float64)
    legal = torch.rand(q.shape, generator=generator(1)) < 0.6
    legal[..., [sum(sizes[:i]) for i in range(len(sizes))]] = True
    for mask in (None, legal):
        parts = q if mask is None else q.masked_fill(~mask, -math.inf)
        joint = torch.zeros(5, 2, 1, dtype=torch.float64)
        for part in parts.split(sizes, dim=-1):
            joint = (joint.unsqueeze(-1) + part.unsqueeze(-2)).flatten(-2)
        torch.testing.assert_close(soft_q.soft_value(q, action, mask), joint.logsumexp(-1))


def test_where_no_move_is_legal_the_value_is_finite():
    q = torch.zeros(1, 3, requires_grad=True)
    value = soft_q.soft_value(q, Discrete(3), torch.zeros(1, 3, dtype=torch.bool))
    value.sum().backward()
    assert value.item() == pytest.approx(math.log(3))
    assert q.grad is not None and q.grad.isfinite().all()


def test_values_weighed_by_discounts_telescope_to_that_of_the_first_moment():
    """Sum over t of discount^t (V_t - discount V_{t+1}) = V_0, less discount^T V_T where a time limit stopped it."""
    value = torch.randn(3, 8, 2, generator=generator(2), dtype=torch.float64)
    after = value[:, 1:].clone()
    after[0, -1] = 0  # over, and worth nothing
    zero, one = torch.zeros_like(after), torch.ones_like(after)
    steps = soft_q.discounted(Valued(zero, value[:, :-1], after, one), 0.9)
    drops = ((steps.now - 0.9 * steps.after) * steps.weight).sum(dim=1)
    torch.testing.assert_close(drops, value[:, 0] - 0.9**7 * after[:, -1])
    mean = soft_q.weighted_mean(steps.now - 0.9 * steps.after, steps.weight)
    torch.testing.assert_close(mean, drops.mean() * (1 - 0.9) / (1 - 0.9**7))


# ---- twins


def random_valued(seed, rows=6, groups=2):
    numbers = torch.randn(3, rows, groups, generator=generator(seed), dtype=torch.float64)
    weight = torch.rand(rows, groups, generator=generator(seed, "weight"), dtype=torch.float64)
    weight[0, 0] = 0
    return Valued(*numbers, weight)


def slow_iq(expert, played, discount, penalty):
    """The objective of IQ-Learn step by step."""

    def mean(side, term):
        total = count = 0.0
        for q, v, w, weight in zip(*(c.flatten() for c in side), strict=True):
            total, count = total + weight * term(q, v, w), count + weight
        return total / count

    sides = [expert] if played is None else [expert, played]
    first = mean(expert, lambda q, v, w: q - discount * w)
    second = sum(mean(side, lambda q, v, w: v - discount * w) for side in sides) / len(sides)
    third = sum(mean(side, lambda q, v, w: (q - discount * w) ** 2) for side in sides) / len(sides)
    return -(first - second - penalty * third)


def slow_sqil(expert, played, discount, reward):
    totals = []
    for side, paid in ((expert, reward), (played, 0.0)):
        total = count = 0.0
        for q, _, w, weight in zip(*(c.flatten() for c in side), strict=True):
            total, count = total + weight * (q - paid - discount * w) ** 2, count + weight
        totals.append(total / count)
    return sum(totals) / 2


def slow_gradient(function, sides, which, column, h=1e-5):
    """Central differences of `function(expert, played)` by one column of one side."""
    base = sides[which][column]
    found = np.zeros_like(base)
    for index in np.ndindex(base.shape):
        ends = []
        for sign in (1, -1):
            moved = [list(side) for side in sides]
            moved[which][column] = base.copy()
            moved[which][column][index] += sign * h
            ends.append(function(*moved))
        found[index] = (ends[0] - ends[1]) / (2 * h)
    return found


TWINS = {
    "iq": (lambda e, p: soft_q.iq_loss(e, p, 0.93, 0.2)[0], lambda e, p: slow_iq(e, p, 0.93, 0.2)),
    "iq offline": (lambda e, p: soft_q.iq_loss(e, None, 0.93, 0.2)[0], lambda e, p: slow_iq(e, None, 0.93, 0.2)),
    "sqil": (lambda e, p: soft_q.sqil_loss(e, p, 0.93, 1.5), lambda e, p: slow_sqil(e, p, 0.93, 1.5)),
}


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("name", TWINS)
def test_losses_and_their_gradients_equal_slow_twins(name, seed):
    fast, slow = TWINS[name]
    sides = [random_valued(seed), random_valued(seed + 100)]
    for side in sides:
        for column in (side.chosen, side.now, side.after):
            column.requires_grad_()
    loss = fast(*sides)
    loss.backward()
    plain = [[c.detach().numpy() for c in (s.chosen, s.now, s.after, s.weight)] for s in sides]
    np.testing.assert_allclose(loss.item(), slow(*plain), rtol=0, atol=1e-12)
    for which, side in enumerate(sides):
        for number, column in enumerate((side.chosen, side.now, side.after)):
            ours = np.zeros(column.shape) if column.grad is None else column.grad.numpy()
            np.testing.assert_allclose(ours, slow_gradient(slow, plain, which, number), rtol=0, atol=1e-8)
