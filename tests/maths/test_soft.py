import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.maths.test_games import numbers, random_game
from understudy.core.errors import ConfigError
from understudy.core.random import generator
from understudy.envs import tabular
from understudy.maths import games, soft
from understudy.maths.games import game_of


def endless(env):
    return replace(game_of(env), horizon=None)


def test_two_rooms_are_chosen_as_paper_says():
    """S6: pi(1) = sigmoid(discount * prize), V = (12.411539, 13.411539), whatever the solution concept."""
    for agents in (1, 2):
        env = tabular.two_rooms(agents)
        for concept in ("independent", "quantal", "logistic"):
            found = soft.soft_play(endless(env), concept, env.play, discount=0.9)
            torch.testing.assert_close(found.play, env.play, rtol=0, atol=1e-10)
            last = found.values[-1].reshape(-1, 2)[0]  # by the last agent's room
            torch.testing.assert_close(last, numbers(12.411539, 13.411539), rtol=0, atol=5e-7)


@pytest.mark.parametrize(
    ("precision", "row", "column"),
    [(0.5, 0.830671, 0.418077), (1, 0.893576, 0.312780), (3, 0.795384, 0.145256)],
)
def test_quantal_responses_to_asymmetric_matching_pennies(precision, row, column):
    """S9. Only row's *average* reward difference over column's play can be read off its own: logit(p) / precision."""
    game = game_of(tabular.matching_pennies())
    play = soft.quantal_response(game.reward, game.choices, 1 / precision)
    p, q = games.marginals_of(play, game.choices)[:, 0, 0]
    torch.testing.assert_close(torch.stack([p, q]), numbers(row, column), rtol=0, atol=6e-7)
    torch.testing.assert_close(p.logit() / precision, 9 * q - (1 - q), rtol=0, atol=1e-10)


def test_replying_in_turn_and_replying_at_once_are_two_things():
    """S5: in a game of common pay the one rests at exp(r) / Z, the other is even less sure to meet."""
    r = numbers([1.0, 0.0], [0.0, 0.5])
    game = game_of(tabular.matrix_game(torch.stack([r, r])))
    gibbs = soft.logistic_response(game.reward, game.choices)
    torch.testing.assert_close(gibbs[0], r.flatten().softmax(0), rtol=0, atol=1e-14)
    torch.testing.assert_close(gibbs[0], numbers(0.426933, 0.157060, 0.157060, 0.258948), rtol=0, atol=6e-7)
    apart = games.facing(gibbs, 0, (2, 2))[0].log()
    torch.testing.assert_close(apart[:, 0] - apart[:, 1], numbers(1.0, -0.5))  # exact differences of the reward
    even = games.marginals_of(soft.quantal_response(game.reward, game.choices), game.choices)
    torch.testing.assert_close(even[:, 0, 0], torch.full((2,), 0.597948, dtype=torch.float64), rtol=0, atol=6e-7)


def test_three_agents_of_common_pay_rest_at_the_boltzmann_distribution():
    r = torch.randn(5, 12, generator=generator(1), dtype=torch.float64)
    rest = soft.logistic_response(r.expand(3, -1, -1), (2, 3, 2), temperature=0.7)
    torch.testing.assert_close(rest, (r / 0.7).softmax(-1))


def slow_soft(transition, reward, over, steps, discount):
    """Soft backward induction of one agent, a number at a time."""
    states, moves, _ = transition.shape
    later, policy = np.zeros(states), np.zeros((steps, states, moves))
    for t in reversed(range(steps)):
        now = np.zeros(states)
        for s in range(states):
            q = [reward[s, a] + discount * sum(transition[s, a] * later) for a in range(moves)]
            total = sum(math.exp(x) for x in q)
            policy[t, s] = [math.exp(x) / total for x in q]
            now[s] = 0 if over[s] else math.log(total)
        later = now
    return policy, later


@pytest.mark.parametrize("concept", ["independent", "quantal", "logistic"])
def test_for_one_agent_every_concept_is_maximum_causal_entropy(concept):
    game, play = random_game(6, states=4, choices=(3,), horizon=5)
    over = torch.tensor([False, False, False, True])
    game = replace(game, over=over)
    found = soft.soft_play(game, concept, play[0], discount=0.95)
    policy, first = slow_soft(game.transition.numpy(), game.reward[0].numpy(), over.numpy(), 5, 0.95)
    np.testing.assert_allclose(found.play.numpy(), policy, atol=1e-12)
    np.testing.assert_allclose(found.values[0, 0].numpy(), first, atol=1e-12)
    torch.testing.assert_close(found.log_chance.squeeze(1).exp(), found.play)


@pytest.mark.parametrize("horizon", [4, None])
def test_soft_play_earns_more_return_and_entropy_than_play_beside_it(horizon):
    game, other = random_game(8, choices=(4,), horizon=horizon)
    best = soft.soft_play(game, "quantal", discount=0.9, temperature=0.5).play

    def worth(play):
        return games.value(game, play, 0.9)[0] + 0.5 * soft.causal_entropy(game, play, 0.9)

    for share in (0.01, 0.1, 1.0):
        assert worth(best) > worth(torch.lerp(best, other, share))


@pytest.mark.parametrize("concept", ["quantal", "logistic"])
@pytest.mark.parametrize("horizon", [3, None])
def test_soft_play_is_a_fixed_point_of_its_own_definition(concept, horizon):
    """Each agent's chances are the softmax of its own action values, counted anew from the play."""
    game, _ = random_game(9, choices=(2, 3), horizon=horizon)
    found = soft.soft_play(game, concept, discount=0.8, temperature=0.6)
    later = found.values if horizon is None else torch.cat([found.values[1:], torch.zeros_like(found.values[:1])])
    for t in range(horizon or 1):
        now = found if horizon is None else soft.Soft(found.log_chance[t], found.values[t], found.play[t])
        q = games.action_values(game, later if horizon is None else later[t], 0.8) / 0.6
        for agent in range(2):
            told = games.facing(now.play, agent, game.choices)
            mine = games.facing(q[agent], agent, game.choices)
            chance = games.facing(now.log_chance[agent], agent, game.choices)
            if concept == "quantal":
                mine = (told.sum(-1, keepdim=True) * mine).sum(-2, keepdim=True)
                assert torch.allclose(now.play, games.product_of(games.marginals_of(now.play, (2, 3)), (2, 3)))
            torch.testing.assert_close(chance, mine.log_softmax(-1).expand_as(chance), rtol=0, atol=1e-9)
            paid = (told.sum(-1) * 0.6 * mine.logsumexp(-1)).sum(-1)
            torch.testing.assert_close(now.values[agent], paid, rtol=0, atol=1e-9)
        if concept == "logistic":  # one more reply in turn changes nothing
            total = torch.zeros_like(now.play)
            for agent in range(2):
                others = games.facing(now.play, agent, game.choices).sum(-1, keepdim=True)
                reply = games.facing(now.log_chance[agent].exp(), agent, game.choices)
                total += games.unfaced(others * reply, agent, game.choices) / 2
            torch.testing.assert_close(total, now.play, rtol=0, atol=1e-12)


@pytest.mark.parametrize("concept", ["independent", "quantal", "logistic"])
@pytest.mark.parametrize("horizon", [3, None])
def test_the_gradient_of_soft_play_is_that_of_differences(concept, horizon):
    game, _ = random_game(10, states=2, choices=(2, 2), horizon=horizon)
    others = random_game(11, states=2, choices=(2, 2))[1]
    weights = torch.randn(2, 4, generator=generator(12), dtype=torch.float64)

    def score(reward):
        return (soft.soft_play(replace(game, reward=reward), concept, others, 0.9).log_chance * weights).sum()

    reward = game.reward.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(score(reward), reward)
    for agent, state, joint in ((0, 0, 1), (1, 1, 2), (0, 1, 3)):
        step = torch.zeros_like(reward)
        step[agent, state, joint] = 1e-5
        difference = (score(game.reward + step) - score(game.reward - step)) / 2e-5
        torch.testing.assert_close(gradient[agent, state, joint], difference, rtol=0, atol=1e-7)


@pytest.mark.parametrize("temperature", [0.6, 0.5, 0.25])
def test_where_the_branch_forks_quantal_play_goes_straight_on(temperature):
    """Two conventions: below temperature 1/2 each can hold itself, and at 1/2 the equations have no inverse."""
    game = game_of(tabular.coordination(2))
    play = soft.quantal_response(game.reward, game.choices, temperature)
    torch.testing.assert_close(play, torch.full_like(play, 1 / 4), rtol=0, atol=1e-12)


def test_a_search_that_finds_nothing_says_so():
    with pytest.raises(ConfigError, match="no soft equilibrium"):
        soft._fixed_point(lambda x: x + 1, torch.zeros(1, 2, dtype=torch.float64))


@pytest.mark.parametrize("concept", ["independent", "quantal", "logistic"])
def test_shaping_changes_no_play(concept):
    """S5: r + discount E h(s') - h(s) for any h, of each agent its own (Ng et al. 1999)."""
    game, others = random_game(13, choices=(2, 3))
    h = torch.randn(2, 3, generator=generator(14), dtype=torch.float64)
    shaped = replace(game, reward=games.action_values(game, h, 0.8) - h.unsqueeze(-1))
    plain, found = (soft.soft_play(one, concept, others, 0.8) for one in (game, shaped))
    torch.testing.assert_close(found.play, plain.play, rtol=0, atol=1e-9)
    torch.testing.assert_close(found.values, plain.values - h, rtol=0, atol=1e-9)


def test_sums_without_end_and_play_without_softness_are_refused():
    game = endless(tabular.two_rooms())
    with pytest.raises(ConfigError, match="discount: got 1"):
        soft.soft_play(game)
    with pytest.raises(ConfigError, match="temperature: got 0"):
        soft.soft_play(game, discount=0.9, temperature=0.0)
    with pytest.raises(ConfigError, match="others: independent agents"):
        soft.soft_play(game, "independent", discount=0.9)
