import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from understudy import api
from understudy.algorithms import maxent
from understudy.core.errors import ConfigError, DemosError
from understudy.core.random import generator
from understudy.core.types import View
from understudy.demos.tables import count_table
from understudy.envs import tabular
from understudy.maths import games, soft
from understudy.maths.games import game_of

QUIET = api.Habits(show=False)
LEFT, RIGHT, UP, DOWN = range(4)


def numbers(*rows):
    return torch.tensor(rows, dtype=torch.float64)


def grid(side=5, horizon=12):
    """One agent on a grid; moves succeed with 0.8, else it stays. State rewards drawn once."""
    cells = side * side
    transition = torch.zeros(cells, 4, cells, dtype=torch.float64)
    for cell in range(cells):
        for move in range(4):
            transition[cell, move, tabular._walk(cell, move, side)] += 0.8
            transition[cell, move, cell] += 0.2
    worth = torch.randn(cells, 1, generator=generator(5), dtype=torch.float64).expand(1, -1, 4)
    start = torch.full((cells,), 1 / cells, dtype=torch.float64)
    return tabular.MarkovGame(transition, worth.reshape(1, cells, 4), start, (4,), horizon)


def played_softly(env, concept, discount, temperature=1.0, others=None):
    """The env with softly best play as its expert's: what perfect recordings are of."""
    game = replace(game_of(env), horizon=None)
    found = soft.soft_play(game, concept, others, discount, temperature)
    return replace(env, play=found.play), found


def fitted(config, game, counts, rewards):
    """The largest entry of the gradient that is left after learning from counts as good as perfect recordings."""
    optimizer = maxent.make_optimizer(config, rewards)
    for _ in range(12):
        _, gradient = maxent.improve(config, rewards, optimizer, game, counts)
        if gradient < 1e-8:
            break
    return gradient


def test_the_gradient_is_the_difference_of_feature_counts_on_a_grid():
    """And both are the difference quotient of the likelihood; counts that no play has made (any numbers will do)."""
    game = replace(game_of(grid()), horizon=None)
    counts = torch.rand(25, 4, generator=generator(2), dtype=torch.float64)
    config = maxent.Config(features="joint", discount=0.9)
    rewards = torch.randn(1, 25, 4, generator=generator(3), dtype=torch.float64).requires_grad_()

    def loss(table):
        return maxent.minus_likelihood(maxent.solve(config, game, table, counts), counts)

    (gradient,) = torch.autograd.grad(loss(rewards), rewards)
    with torch.no_grad():  # soft play that sets out where the demonstrators did: in * what they did not come to
        play = maxent.solve(config, game, rewards, counts).play
        out_of_thin_air = counts.sum(-1) - 0.9 * torch.einsum("sj,sjn->n", counts, game.transition)
        often = games.occupancy(replace(game, start=out_of_thin_air), play, 0.9)
        apart = counts - often.unsqueeze(-1) * play
        torch.testing.assert_close(gradient[0], -apart / counts.sum(), rtol=0, atol=1e-12)
        for state, move in ((0, 1), (12, 3), (24, 0)):
            step = torch.zeros_like(rewards)
            step[0, state, move] = 1e-5
            difference = (loss(rewards + step) - loss(rewards - step)) / 2e-5
            assert gradient[0, state, move] == pytest.approx(float(difference), abs=1e-9)


def slow_likelihood(transition, rewards, counts, others, discount):
    """Independent agents one at a time, by 2,000 sweeps over numbers."""
    total, (agents, states, _) = 0.0, rewards.shape
    moves = [(a, b) for a in range(2) for b in range(2)]
    for i in range(agents):
        chance = others.reshape(states, 2, 2).sum(1 + i)  # of the other's move
        value = np.zeros(states)
        for _ in range(600):
            q = np.zeros((states, 2))
            for j, joint in enumerate(moves):
                worth = rewards[i, :, j] + discount * transition[:, j] @ value
                q[:, joint[i]] += chance[:, joint[1 - i]] * worth
            value = np.log(np.exp(q).sum(1))
        log_policy = q - value[:, None]
        total += sum(counts[s, j] * log_policy[s, joint[i]] for s in range(states) for j, joint in enumerate(moves))
    return -total / counts.sum()


def test_loss_and_gradient_are_those_of_a_slow_twin():
    source = generator(4)
    transition = torch.rand(3, 4, 3, generator=source, dtype=torch.float64)
    transition = transition / transition.sum(-1, keepdim=True)
    rewards, counts = (torch.rand(s, generator=source, dtype=torch.float64) for s in ((2, 3, 4), (3, 4)))
    env = tabular.MarkovGame(transition, rewards, torch.full((3,), 1 / 3, dtype=torch.float64), (2, 2))
    game, config = game_of(env), maxent.Config(discount=0.8)
    others = (counts / counts.sum(-1, keepdim=True)).numpy()

    def slow(table):
        return slow_likelihood(transition.numpy(), table, counts.numpy(), others, 0.8)

    table = rewards.clone().requires_grad_()
    loss = maxent.minus_likelihood(maxent.solve(config, game, table, counts), counts)
    assert loss.item() == pytest.approx(slow(rewards.numpy()), abs=1e-10)
    (gradient,) = torch.autograd.grad(loss, table)
    for place in ((0, 0, 0), (1, 2, 3), (0, 1, 2)):
        step = np.zeros((2, 3, 4))
        step[place] = 1e-5
        difference = (slow(rewards.numpy() + step) - slow(rewards.numpy() - step)) / 2e-5
        assert gradient[place].item() == pytest.approx(difference, abs=1e-8)


@pytest.mark.parametrize(
    ("concept", "prize"), [("independent", 1.0), ("independent", -0.7), ("quantal", 1.0), ("logistic", -0.7)]
)
def test_the_prize_of_two_rooms_is_read_off_perfect_recordings(concept, prize):
    """S6: r1 - r0 = logit(pi) / discount, for one agent and for two who do not touch one another."""
    for agents in (1, 2):
        env = tabular.two_rooms(agents, prize=prize)
        game = replace(game_of(env), horizon=None)
        config = maxent.Config(concept=concept, features="state", discount=0.9, penalty=0.0)
        rewards = maxent.Rewards(config, game, generator(0))
        gradient = fitted(config, game, env.play, rewards)
        found = rewards()[..., 0].detach()  # [agent, state]
        assert gradient < 1e-8
        rooms = torch.tensor([[s // 2, s % 2][2 - agents :] for s in range(2**agents)])
        to_one = 1 / (1 + math.exp(-0.9 * prize))
        for agent in range(agents):  # mean over where the other goes: no play tells more
            apart = found[agent][rooms[:, agent] == 1] - found[agent][rooms[:, agent] == 0]
            often = numbers(1 - to_one, to_one) if agents == 2 else numbers(1.0)
            assert float(apart @ often) == pytest.approx(prize, abs=1e-6)
        mine = games.marginals_of(maxent.solve(config, game, rewards(), env.play).play, game.choices)
        torch.testing.assert_close(mine.detach(), games.marginals_of(env.play, game.choices), rtol=0, atol=1e-6)


@pytest.mark.parametrize("concept", ["independent", "quantal", "logistic"])
def test_counts_of_the_play_that_was_found_are_those_that_were_demonstrated(concept):
    env, _ = played_softly(random_env(), concept, 0.8, others=random_env().play)
    if concept == "independent":  # a play that is softly best against itself
        for _ in range(60):
            env, _ = played_softly(env, concept, 0.8, others=env.play)
    game = replace(game_of(env), horizon=None)
    config = maxent.Config(concept=concept, discount=0.8, penalty=0.0)
    counts = games.occupancy(game, env.play, 0.8).unsqueeze(-1) * env.play
    rewards = maxent.Rewards(config, game, generator(0))
    gradient = fitted(config, game, counts, rewards)
    found = maxent.solve(config, game, rewards(), counts)
    assert gradient < 1e-8
    ours = games.occupancy(game, found.play.detach(), 0.8).unsqueeze(-1) * found.play.detach()
    theirs, mine = (games.marginals_of(x, game.choices) for x in (counts, ours))
    assert (theirs - mine).abs().max() < 1e-6
    if concept == "logistic":  # jointly too: correlated play is found again
        assert (counts - ours).abs().max() < 1e-6


def random_env():
    source = generator(21)

    def rows(*shape):
        table = torch.rand(shape, generator=source, dtype=torch.float64)
        return table / table.sum(-1, keepdim=True)

    reward = torch.randn(2, 3, 6, generator=source, dtype=torch.float64)
    return tabular.MarkovGame(rows(3, 6, 3), reward, rows(3), (2, 3), 30, play=rows(3, 6))


def test_of_matching_pennies_only_mean_differences_come_back():
    """S9: from perfect quantal play, (A[0] - A[1]) . (q, 1 - q) = 3.180775, 2.127804, 0.452563 by precision."""
    env = tabular.matching_pennies()
    game = replace(game_of(env), horizon=None)
    for precision, mean_difference in ((0.5, 3.180775), (1, 2.127804), (3, 0.452563)):
        play = soft.quantal_response(game.reward, game.choices, 1 / precision)
        config = maxent.Config(concept="quantal", discount=0.0, temperature=1 / precision, penalty=0.0)
        rewards = maxent.Rewards(config, game, generator(0))
        fitted(config, game, play, rewards)
        found = rewards()[0, 0].detach().reshape(2, 2)
        q = games.marginals_of(play, game.choices)[1, 0]
        assert float((found[0] - found[1]) @ q) == pytest.approx(mean_difference, abs=2e-6)
        told = maxent.identify(config, game, maxent.solve(config, game, rewards(), play), play, 0)
        assert (told.features, told.known, told.others, told.shaping, told.unvisited) == (4, 1, 2, 1, 0)
        truth = game.reward[0, 0] - found.flatten()  # what was lost lies in the unknown directions
        torch.testing.assert_close(told.unknown @ (told.unknown.T @ truth), truth, rtol=0, atol=1e-6)


@pytest.mark.parametrize("concept", ["independent", "quantal", "logistic"])
@pytest.mark.parametrize("features", ["state", "own", "joint"])
def test_what_is_called_unknown_changes_no_play_and_the_rest_does(concept, features):
    """The rank test beside derivatives of the play itself, others' play held."""
    env, found = played_softly(random_env(), concept, 0.8, others=random_env().play)
    game = replace(game_of(env), horizon=None)
    config = maxent.Config(concept=concept, features=features, discount=0.8)
    others = random_env().play if concept == "independent" else found.play
    counts = others.clone()
    counts[2] = 0  # never visited
    for agent in range(2):
        told = maxent.identify(config, game, found, counts if concept != "independent" else others, agent)
        rewards = maxent.Rewards(config, game, generator(0))
        sizes = rewards.weights[agent, :, : int(rewards.columns[agent].max()) + 1].shape
        assert told.features == sizes.numel() == told.known + told.others + told.shaping + told.unvisited
        assert told.unknown.shape == (told.features, told.features - told.known)
        if concept == "logistic" and features == "joint":
            continue  # its joint play moves with the values: the derivative with the others held is the definition
        for direction in told.unknown.T:
            changed = game.reward.clone()
            step = torch.zeros(sizes, dtype=torch.float64).reshape(sizes)
            step += 1e-3 * direction.reshape(sizes)
            changed[agent] += step.gather(1, rewards.columns[agent].expand(3, -1))
            known = others if concept != "logistic" else None
            if concept == "logistic":
                again = soft.soft_play(replace(game, reward=changed), "logistic", None, 0.8)
            else:
                again = soft.soft_play(replace(game, reward=changed), "independent", known, 0.8)
            before = found.log_chance[agent]
            seen = slice(0, 3) if concept == "independent" else slice(0, 2)
            assert (again.log_chance[agent] - before)[seen].abs().max() < 1e-5


def test_states_never_seen_and_moves_never_made_are_counted():
    env = tabular.crossing()
    demos = api.record(env, episodes=4)
    run = api.train("maxent", demos, env, updates=2, habits=QUIET)
    said = maxent.explain(run.config, run.state, demos, env)
    one = said.identified[0]
    assert one.features == 16 * int((~env.over).sum()) and one.never_made == 3 * 4  # 4 states on the way, 1 move each
    assert one.known == 3 * 4 and one.unvisited == 3 * (int((~env.over).sum()) - 4)
    assert f"{one.known} of {one.features} numbers are known" in str(said)
    assert (said.rewards[:, env.over] == 0).all()


@pytest.mark.parametrize("reward", ["linear", "network"])
def test_the_policy_of_a_run_is_the_soft_play_of_its_rewards(reward):
    env = tabular.two_rooms(2, horizon=20)
    demos = api.record(env, episodes=100)
    config = maxent.Config(features="own", reward=reward, discount=0.9, limit=8)
    run = api.train("maxent", demos, env, config=config, habits=QUIET)
    said = maxent.explain(config, run.state, demos, env)
    counts = count_table(demos, game_of(env)).sum(0)
    shares = games.marginals_of(counts / counts.sum(-1, keepdim=True), env.choices)
    state = tabular.State(torch.arange(4))
    params, _ = run.policy.params(View(env.observe(state).unsqueeze(1)), torch.zeros(4, 1, 2, dtype=torch.long))
    ours = params.softmax(-1).squeeze(1).transpose(0, 1).double()  # [agent, state, choice]
    assert (ours - shares).abs().max() < (0.03 if reward == "network" else 2e-3)
    assert said.likelihood == pytest.approx(-run.metrics[-1]["loss"], abs=2e-3)


def test_agents_who_watch_the_clock_are_explained_step_by_step():
    """Paid once at the end for being in room 1: with the clock they hurry at the last step alone."""
    transition = torch.zeros(2, 2, 2, dtype=torch.float64)
    transition[:, 0, 0] = transition[:, 1, 1] = 1
    reward = numbers([0.0, 0.0], [1.5, 1.5]).unsqueeze(0)
    env = tabular.MarkovGame(transition, reward, numbers(0.5, 0.5), (2,), horizon=3)
    game = game_of(env)
    play = soft.soft_play(game, "quantal").play  # [time, state, joint]
    counts = games.occupancy(game, play).unsqueeze(-1) * play
    config = maxent.Config(features="state", timed=True, discount=1.0, penalty=0.0)
    rewards = maxent.Rewards(config, game, generator(0))
    fitted(config, game, counts, rewards)
    weights = rewards.weights[0, :, 0].detach()
    assert float(weights[1] - weights[0]) == pytest.approx(1.5, abs=1e-6)
    chance = play[:, 0, 1]
    assert float(chance[-1]) == pytest.approx(0.5) and chance[1] == pytest.approx(1 / (1 + math.exp(-1.5)))
    lasting = maxent.lasting(game, play)
    often = games.occupancy(game, play)
    torch.testing.assert_close(lasting[0], (often[:, :1] * play[:, 0]).sum(0) / often[:, 0].sum())


def test_settings_that_have_no_end_or_no_meaning_are_refused():
    env = tabular.two_rooms()
    demos = api.record(env, episodes=2)
    with pytest.raises(ConfigError, match="timed=True"):
        maxent.Config(discount=1.0)
    with pytest.raises(ConfigError, match="temperature"):
        maxent.Config(temperature=0.0)
    for name in ("temperature", "penalty", "tolerance"):
        with pytest.raises(ConfigError, match=f"{name}: got inf"):
            maxent.Config(**{name: float("inf")})
    with pytest.raises(ConfigError, match="steps"):
        maxent.Config(steps=0)
    with pytest.raises(DemosError, match="give it demos and env"):
        maxent.init(maxent.Config(), None, env, generator(0))
    with pytest.raises(ConfigError, match="no horizon"):
        maxent.init(maxent.Config(timed=True), demos, replace(env, horizon=None), generator(0))
    with pytest.raises(DemosError, match="one-hot states of a game of 3"):
        maxent.init(maxent.Config(), demos, tabular.on_off(), generator(0))
    with pytest.raises(DemosError, match="horizon is 10"):
        maxent.init(maxent.Config(timed=True), demos, tabular.two_rooms(horizon=10), generator(0))
    run = api.train("maxent", demos, env, config={"timed": True, "limit": 1}, habits=QUIET)
    with pytest.raises(ConfigError, match="look at the clock"):
        maxent.explain(run.config, run.state, demos, env)
