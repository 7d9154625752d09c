from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch

from understudy.core.errors import ConfigError, EnvError, ShapeError
from understudy.core.random import generator
from understudy.envs import tabular
from understudy.maths import games
from understudy.maths.games import game_of


def numbers(*rows):
    return torch.tensor(rows, dtype=torch.float64)


def random_game(seed, states=3, choices=(2, 3), horizon=None):
    """Dense tables, and correlated play that changes with time where there is a horizon."""
    source, joints = generator(seed), int(np.prod(choices))

    def rows(*shape):
        table = torch.rand(shape, generator=source, dtype=torch.float64)
        return table / table.sum(-1, keepdim=True)

    reward = torch.randn(len(choices), states, joints, generator=source, dtype=torch.float64)
    env = tabular.MarkovGame(rows(states, joints, states), reward, rows(states), choices, horizon)
    return game_of(env), rows(*(() if horizon is None else (horizon,)), states, joints)


def slow_values(game, play, discount, steps):
    """Each agent's return by following every path, one state and one joint action at a time."""
    transition, reward = game.transition.numpy(), game.reward.numpy()

    def worth(t, s):
        total = np.zeros(game.agents)
        if t < steps:
            now = play[t].numpy() if play.dim() == 3 else play.numpy()
            for j in range(now.shape[-1]):
                ahead = sum(transition[s, j, n] * worth(t + 1, n) for n in range(game.states))
                total += now[s, j] * (reward[:, s, j] + discount * ahead)
        return total

    return sum(game.start[s].item() * worth(0, s) for s in range(game.states))


@pytest.mark.parametrize("horizon", [5, 10, 20])
@pytest.mark.parametrize(("off_path", "share"), [((0.0, 1.0), 1.0), ((0.5, 0.5), 0.5)])
def test_a_learner_of_the_experts_value_may_leave_a_regret_as_long_as_the_game(horizon, off_path, share):
    env = tabular.on_off(horizon)
    game, expert = game_of(env), env.play
    each = games.marginals_of(expert, env.choices)
    each[1, 2] = numbers(*off_path)  # what the second agent does where the expert never was
    learner = games.product_of(each, env.choices)
    assert games.value_gap(game, expert, learner) == 0
    assert games.regret(game, expert) == 0
    for deviations in ("swap", "external"):
        assert games.gains(game, learner, deviations).tolist() == [share * (horizon - 1), 0]
    assert games.regret_gap(game, expert, learner) == share * (horizon - 1)


@pytest.mark.parametrize(
    ("error", "horizon", "never", "half"),
    [
        (0.01, 10, 0.533825, 0.177255),
        (0.01, 50, 10.895601, 0.961553),
        (0.01, 100, 37.237202, 1.941945),
        (0.001, 10, 0.054835, 0.017974),
        (0.001, 50, 1.254423, 0.097812),
        (0.001, 100, 4.887355, 0.197613),
    ],
)
def test_slips_cost_as_paper_says_by_how_often_one_returns(error, horizon, never, half):
    """S2: who never returns, who does every other time, and who errs alike everywhere: error * horizon."""
    game = game_of(tabular.slip_chain(horizon=horizon))
    for back, cost in ((0.0, never), (0.5, half), (1 - error, error * horizon)):
        paid = games.value(game, numbers([1 - error, error], [back, 1 - back]))
        torch.testing.assert_close(paid, numbers(-cost), rtol=0, atol=6e-7)
    assert never <= error * horizon * (horizon + 1) / 2


@pytest.mark.parametrize(("agents", "cost"), [(1, 10.8956), (2, 18.7763), (4, 28.8880)])
def test_slips_of_several_agents_cost_what_their_joint_slip_does(agents, cost):
    """S2: n agents who slip by themselves with 0.01 and never return, horizon 50."""
    game = game_of(tabular.slip_chain(agents))
    each = numbers(0.99, 0.01).expand(agents, 2, -1).clone()
    each[:, 1] = numbers(0.0, 1.0)
    paid = games.value(game, games.product_of(each, game.choices))
    torch.testing.assert_close(paid, torch.full_like(paid, -cost), rtol=0, atol=6e-5)


def test_half_rock_is_exploited_by_a_quarter_and_even_play_by_nothing():
    game = game_of(tabular.rock_paper_scissors())
    even, rock = torch.full((3,), 1 / 3, dtype=torch.float64), numbers(0.5, 0.25, 0.25)
    for first, second, gain in ((even, even, [0, 0]), (rock, even, [0, 0.25]), (rock, rock, [0.25, 0.25])):
        play = games.product_of(torch.stack([first, second]).unsqueeze(1), game.choices)
        assert games.gains(game, play, "external").tolist() == pytest.approx(gain, abs=1e-15)
        assert games.exploitability(game, play) == pytest.approx(sum(gain), abs=1e-15)


def test_chicken_mirrors_the_two_chains_value_is_lost_and_no_regret_gained():
    env = tabular.chicken()
    game, advised = game_of(env), env.play
    alone = games.product_of(games.marginals_of(advised, game.choices), game.choices)
    torch.testing.assert_close(games.value(game, advised), numbers(5.0, 5.0))
    torch.testing.assert_close(games.value(game, alone), numbers(14 / 3, 14 / 3))
    torch.testing.assert_close(games.value_gap(game, advised, alone), torch.tensor(1 / 3, dtype=torch.float64))
    for play in (advised, alone):
        for deviations in ("swap", "external"):
            assert games.regret(game, play, deviations) == pytest.approx(0, abs=1e-12)


def test_who_does_not_listen_gains_less_than_who_does():
    """Told to dare or to yield, both alike, half of the time each."""
    game = game_of(tabular.chicken())
    together = numbers([0.5, 0.0, 0.0, 0.5])  # both dare (0 each) or both yield (6 each): 3 each
    # told to dare: yield for 2; told to yield: dare for 7. Without listening: always dare for 3.5, always yield for 4
    torch.testing.assert_close(games.gains(game, together, "swap"), numbers(1.5, 1.5))
    torch.testing.assert_close(games.gains(game, together, "external"), numbers(1.0, 1.0))


@pytest.mark.parametrize("seed", range(3))
def test_values_are_those_of_every_path_followed(seed):
    game, play = random_game(seed, states=2, choices=(2, 2), horizon=3)
    np.testing.assert_allclose(games.value(game, play, 0.9).numpy(), slow_values(game, play, 0.9, 3), atol=1e-12)
    endless, lasting = random_game(seed, states=2, choices=(2, 1))
    found, long = games.value(endless, lasting, 0.3), slow_values(endless, lasting, 0.3, 6)
    assert abs(found.numpy() - long).max() < 0.3**6 * endless.reward.abs().max() / 0.7


@pytest.mark.parametrize(("seed", "deviations", "count"), [(0, "swap", 4), (1, "swap", 4), (0, "external", 2)])
def test_no_deviation_of_all_that_there_are_beats_the_best_reply(seed, deviations, count):
    game, play = random_game(seed, states=2, choices=(2, 2), horizon=2)
    maps = [numbers(*rows) for rows in product(([1.0, 0.0], [0.0, 1.0]), repeat=2)]  # [told, done], deterministic
    maps = maps if deviations == "swap" else [maps[0], maps[3]]
    for agent in range(2):
        reply = games.best_reply(game, play, agent, deviations)
        every = [torch.stack(four).reshape(2, 2, 2, 2) for four in product(maps, repeat=4)]  # [time, state, told, done]
        assert len(every) == count**4
        paid = [games.value(game, games.deviated(play, one, agent, game.choices))[agent] for one in every]
        torch.testing.assert_close(reply.value, torch.stack(paid).max(), rtol=0, atol=1e-12)
        achieved = games.value(game, games.deviated(play, reply.deviation, agent, game.choices))[agent]
        torch.testing.assert_close(achieved, reply.value, rtol=0, atol=1e-12)


@pytest.mark.parametrize("deviations", ["swap", "external"])
def test_no_lasting_deviation_beats_the_lasting_best_reply(deviations):
    game, play = random_game(7, states=2, choices=(2, 2))
    maps = [numbers(*rows) for rows in product(([1.0, 0.0], [0.0, 1.0]), repeat=2)]
    maps = maps if deviations == "swap" else [maps[0], maps[3]]
    for agent in range(2):
        every = [torch.stack(two) for two in product(maps, repeat=2)]
        paid = [games.value(game, games.deviated(play, one, agent, game.choices), 0.9)[agent] for one in every]
        reply = games.best_reply(game, play, agent, deviations, 0.9)
        torch.testing.assert_close(reply.value, torch.stack(paid).max(), rtol=0, atol=1e-9)


@pytest.mark.parametrize("choices", [(3,), (2, 3), (2, 2, 3)])
def test_swaps_gain_no_less_than_external_deviations_and_as_much_of_independent_play(choices):
    game, play = random_game(3, choices=choices, horizon=4)
    swap, external = (games.gains(game, play, kind) for kind in ("swap", "external"))
    assert (swap >= external).all() and (external >= 0).all()
    alone = games.product_of(games.marginals_of(play, choices), choices)
    torch.testing.assert_close(games.gains(game, alone, "swap"), games.gains(game, alone, "external"))


def test_play_and_its_marginals_and_what_each_faces_are_forms_of_one_table():
    choices = (2, 3, 2)
    _, play = random_game(5, choices=choices)
    alone = games.marginals_of(play, choices)
    assert alone[0].shape == (3, 3) and (alone[[0, 2], :, 2] == 0).all()  # two moves, padded to three
    again = games.marginals_of(games.product_of(alone, choices), choices)
    torch.testing.assert_close(again, alone)
    for agent in range(3):
        told = games.facing(play, agent, choices)
        assert torch.equal(games.unfaced(told, agent, choices), play)
        torch.testing.assert_close(told.sum(-2), alone[agent, :, : choices[agent]])
        stay = torch.eye(3, dtype=torch.float64).expand(3, -1, -1)
        torch.testing.assert_close(games.deviated(play, stay, agent, choices), play)


def test_rewards_times_occupancies_are_the_value():
    for horizon, discount in ((6, 0.8), (6, 1.0), (None, 0.8)):
        game, play = random_game(2, horizon=horizon)
        often = games.occupancy(game, play, discount)
        axes = "ts,tsj,isj->i" if horizon else "s,sj,isj->i"
        by_counts = torch.einsum(axes, often, play, game.reward)
        torch.testing.assert_close(by_counts, games.value(game, play, discount))


def test_a_long_horizon_comes_near_to_none():
    game, play = random_game(4)
    long = replace(game, horizon=200)
    torch.testing.assert_close(games.value(long, play, 0.9), games.value(game, play, 0.9), rtol=0, atol=1e-7)
    torch.testing.assert_close(games.gains(long, play, "swap", 0.9), games.gains(game, play, "swap", 0.9))


def test_play_that_never_ends_needs_a_discount():
    env = replace(tabular.chicken(), horizon=None)
    with pytest.raises(ConfigError, match=r"discount: got 1\.0"):
        games.values(game_of(env), env.play)


def test_play_for_another_horizon_is_refused():
    game, play = random_game(0, horizon=3)
    with pytest.raises(ShapeError, match="time=4"):
        games.value(replace(game, horizon=4), play)


def test_games_without_tables_are_refused():
    from understudy.envs.particles import Spread

    with pytest.raises(EnvError, match="spread has no tables"):
        game_of(Spread())
