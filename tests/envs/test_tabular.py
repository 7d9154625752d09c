import math

import pytest
import torch

from understudy.core.errors import EnvError, ShapeError
from understudy.core.random import generator
from understudy.core.tree import tree_leaves
from understudy.core.types import View, to_device
from understudy.envs import tabular
from understudy.envs.tabular import MarkovGame, State, expert, matrix_game

GAMES = {
    "rock_paper_scissors": tabular.rock_paper_scissors(),
    "matching_pennies": tabular.matching_pennies(),
    "chicken": tabular.chicken(),
    "stag_hunt": tabular.stag_hunt(),
    "coordination": tabular.coordination(3, agents=3),
    "on_off": tabular.on_off(),
    "slip_chain": tabular.slip_chain(agents=2),
    "two_rooms": tabular.two_rooms(agents=2),
    "crossing": tabular.crossing(),
    "thicket": tabular.thicket(slip=0.1),
}


def returns(game: MarkovGame, play: torch.Tensor, steps: int) -> torch.Tensor:
    """Each agent's expected sum of rewards under a stationary joint play [state, joint]: the tables, multiplied out."""
    chance, total = game.start, torch.zeros(len(game.choices), dtype=torch.float64)
    for _ in range(steps):
        both = chance.unsqueeze(-1) * play
        total = total + (game.reward * both).sum((1, 2))
        chance = torch.einsum("sj,sjn->n", both, game.transition)
    return total


def played(game: MarkovGame, envs: int, steps: int, seed: int, act=expert) -> tuple[torch.Tensor, torch.Tensor]:
    """States [env, time] and rewards [env, time, agent] of simulated play."""
    source = generator(seed)
    state = game.reset(torch.rand(envs, 1, generator=source))
    states, rewards = [], []
    for _ in range(steps):
        noise = torch.rand(envs, len(game.choices), 1, generator=source)
        actions = act(game, View(game.observe(state)), noise)
        states.append(state.index)
        state, reward, _ = game.step(state, actions, torch.rand(envs, 1, generator=source))
        rewards.append(reward)
    return torch.stack(states, 1), torch.stack(rewards, 1)


def one(*moves: int) -> torch.Tensor:
    return torch.tensor([moves])


def test_evenly_spread_noise_brings_every_outcome_exactly_as_often_as_its_probability_says():
    probability = torch.tensor([0.0, 0.25, 0.0, 0.625, 0.125, 0.0], dtype=torch.float64)
    noise = torch.arange(64) / 64
    drawn = tabular.draw(probability.expand(64, -1), noise)
    assert torch.equal(drawn.bincount(minlength=6), torch.tensor([0, 16, 0, 40, 8, 0]))


def test_rounding_never_brings_an_outcome_of_probability_zero():
    probability = torch.tensor([1 / 41] * 41 + [0.0])
    largest = torch.tensor(1 - 2**-24)
    assert probability.cumsum(-1)[-1] <= largest  # in float32 the shares end a little short of 1
    for shift in range(42):
        rolled = probability.roll(shift)
        assert rolled[tabular.draw(rolled, largest)] > 0


def test_a_step_draws_the_next_state_from_its_row_of_the_table():
    source = generator(5)
    transition = torch.rand(3, 4, 3, generator=source, dtype=torch.float64)
    game = MarkovGame(
        transition / transition.sum(-1, keepdim=True),
        torch.rand(2, 3, 4, generator=source, dtype=torch.float64),
        torch.tensor([0.2, 0.0, 0.8], dtype=torch.float64),
        choices=(2, 2),
    )
    noise, count = torch.arange(10_000).unsqueeze(-1) / 10_000, 10_000
    start = game.reset(noise).index.bincount(minlength=3)
    assert start.tolist() == [2000, 0, 8000]
    for s in range(3):
        for joint in range(4):
            state = State(torch.full((count,), s))
            after, rewards, terminated = game.step(state, game.moves[joint].expand(count, -1), noise)
            share = after.index.bincount(minlength=3) / count
            assert (share - game.transition[s, joint]).abs().max() <= 1 / count  # as even as 10,000 points can be
            assert torch.equal(rewards[0], game.reward[:, s, joint].float())
            assert not terminated.any()


def test_joint_actions_and_moves_are_one_anothers_inverse():
    game = matrix_game(torch.rand(3, 2, 4, 3, generator=generator(1)))
    assert game.spec.action_sizes == (2, 4, 3)
    assert torch.equal(game.joint(game.moves), torch.arange(24))
    assert game.moves[17].tolist() == [1, 1, 2]  # 1 * 12 + 1 * 3 + 2
    assert game.legal(State(torch.zeros(1, dtype=torch.long)))[0].sum(-1).tolist() == [2, 4, 3]


@pytest.mark.parametrize(
    ("name", "paid"),
    [
        ("rock_paper_scissors", [0.0, 0.0]),
        ("matching_pennies", [0.9, 0.5]),
        ("chicken", [5.0, 5.0]),
        ("stag_hunt", [4.0, 4.0]),
        ("coordination", [1.0, 1.0, 1.0]),
    ],
)
def test_the_expert_is_paid_what_paper_says(name, paid):
    game = GAMES[name]
    play = game.play if game.play is not None else torch.full((1, 9), 1 / 9, dtype=torch.float64)
    torch.testing.assert_close(returns(game, play, 1), torch.tensor(paid, dtype=torch.float64))
    _, rewards = played(game, 20_000, 1, seed=3)
    deviation = rewards[:, 0].std(0)
    assert ((rewards[:, 0].mean(0) - torch.tensor(paid)).abs() <= 5 * deviation / math.sqrt(20_000)).all()


@pytest.mark.parametrize("name", ["rock_paper_scissors", "matching_pennies", "chicken", "stag_hunt", "coordination"])
def test_nobody_gains_by_leaving_the_experts_advice(name):
    game = GAMES[name]
    play = game.play[0] if game.play is not None else torch.full((9,), 1 / 9, dtype=torch.float64)
    play = play.reshape(game.choices)
    for agent in range(len(game.choices)):
        reward = game.reward[agent, 0].reshape(game.choices)
        told = play.movedim(agent, 0).flatten(1)  # [told to me, the others' moves]
        paid = reward.movedim(agent, 0).flatten(1)  # [what I do, the others' moves]
        gain = told @ paid.T - (told * paid).sum(-1, keepdim=True)  # [told, done]
        assert gain.max() < 1e-12


def test_yielding_independently_two_times_in_three_costs_a_third_at_chicken():
    third = torch.tensor([1 / 3, 2 / 3], dtype=torch.float64)
    alone = torch.outer(third, third).reshape(1, 4)
    torch.testing.assert_close(returns(GAMES["chicken"], alone, 1), torch.full((2,), 14 / 3, dtype=torch.float64))


@pytest.mark.parametrize(("conventions", "share"), [(2, 1 / 2), (3, 1 / 3), (4, 1 / 4)])
def test_agents_cloned_one_by_one_agree_only_by_luck(conventions, share):
    game = tabular.coordination(conventions)
    even = torch.full((1, conventions**2), 1 / conventions**2, dtype=torch.float64)
    torch.testing.assert_close(returns(game, even, 1), torch.full((2,), share, dtype=torch.float64))
    actions = expert(game, View(torch.ones(900, 2, 1)), (torch.arange(900) / 900).reshape(-1, 1, 1).expand(-1, 2, 1))
    assert torch.equal(actions[:, 0], actions[:, 1])
    assert (actions[:, 0].bincount() - 900 / conventions).abs().max() <= 1  # as even as 900 points can be


@pytest.mark.parametrize("horizon", [5, 10, 20])
def test_what_is_never_seen_can_be_worth_the_whole_game(horizon):
    game = tabular.on_off(horizon)
    torch.testing.assert_close(returns(game, game.play, horizon), torch.zeros(2, dtype=torch.float64))
    learner, gain = game.play.clone(), game.play.clone()
    learner[2] = torch.tensor([0.0, 1.0, 0.0, 0.0])  # the second agent moves 1 where the expert never is
    torch.testing.assert_close(returns(game, learner, horizon), torch.zeros(2, dtype=torch.float64))
    gain[0], gain[2] = torch.tensor([0.0, 0.0, 1.0, 0.0]), learner[2]  # ... and the first agent deviates
    assert returns(game, gain, horizon).tolist() == [horizon - 1, 0]


def test_who_guards_must_do_off_the_path_what_it_never_does_on_it():
    game = tabular.on_off(10, guarded=True)
    assert game.play[:2, 0].tolist() == [1, 1] and game.play[2, 1] == 1
    habit, leave = game.play[:1].repeat(3, 1), game.play.clone()
    leave[0], leave[2] = torch.tensor([0.0, 0.0, 1.0, 0.0]), habit[2]
    for play, paid in ((game.play, 0), (habit, 0), (leave, 9)):
        assert returns(game, play, 10).tolist() == [paid, 0]


def test_in_the_thicket_the_expert_pays_nobody_and_who_errs_leaves_the_others_paid():
    game = tabular.thicket(slip=0.1, agents=3, moves=2)
    right = game.moves[game.play.argmax(-1)]  # [state, agent]
    assert returns(game, game.play, 20).tolist() == [0, 0, 0]
    torch.testing.assert_close(
        (game.transition[:4, :, 4:].sum(-1) * game.play[:4]).sum(-1), torch.full((4,), 0.1).double()
    )
    errs = (game.moves != right.unsqueeze(1)).sum(-1)  # [state, joint]
    assert (game.transition[:, :, :4].sum(-1)[errs > 0] == 0).all()  # off the path, and for good
    assert (game.transition[4:, :, :4] == 0).all() and (game.reward[:, :4] == 0).all()
    alone = (game.moves[:, 0] != right[:, :1]) & (errs == 1)  # the first agent alone errs: both others are paid
    assert (game.reward[:, 4:][:, alone[4:]] == torch.tensor([[0.0], [1.0], [1.0]]).double()).all()
    assert torch.equal(game.transition, tabular.thicket(slip=0.1, agents=3, moves=2).transition)


@pytest.mark.parametrize(
    ("agents", "error", "back", "horizon", "cost"),
    [
        (1, 0.01, 0.0, 10, 0.533825),
        (1, 0.01, 0.5, 10, 0.177255),
        (1, 0.01, 0.99, 10, 0.1),
        (1, 0.001, 0.0, 100, 4.887355),
        (1, 0.001, 0.5, 100, 0.197613),
        (1, 0.01, 0.0, 50, 10.895601),
        (2, 0.01, 0.0, 50, 18.7763),
        (4, 0.01, 0.0, 50, 28.8880),
    ],
)
def test_errors_add_up_as_the_closed_form_says(agents, error, back, horizon, cost):
    game = tabular.slip_chain(agents, horizon)
    right = torch.tensor([1 - error, back ** (1 / agents)], dtype=torch.float64).unsqueeze(-1)  # [state, 1]
    moves = game.moves.unsqueeze(0)  # [1, joint, agent]
    play = torch.where(moves == 0, right.unsqueeze(-1), 1 - right.unsqueeze(-1)).prod(-1)
    assert returns(game, play, horizon)[0].item() == pytest.approx(-cost, rel=1e-5)
    assert returns(game, game.play, horizon)[0] == 0


def test_the_two_rooms_are_visited_as_often_as_the_soft_optimum_says():
    game = tabular.two_rooms(agents=2)
    states, rewards = played(game, 2000, 20, seed=7)
    probability = 1 / (1 + math.exp(-0.9))
    assert probability == pytest.approx(0.7109495026)
    rooms = torch.stack([states[:, 1:] // 2, states[:, 1:] % 2], -1).double()  # from the first choice on: independent
    assert torch.equal(rewards[:, 1:], rooms.float())
    spread = math.sqrt(probability * (1 - probability) / (2000 * 19))
    assert (rooms.mean((0, 1)) - probability).abs().max() < 5 * spread
    both = probability**2
    assert abs((states[:, 1:] == 3).double().mean() - both) < 5 * math.sqrt(both * (1 - both) / (2000 * 19))


def test_the_two_rooms_expert_satisfies_the_soft_bellman_equation():
    game = tabular.two_rooms(discount=0.9)
    value = torch.zeros(2, dtype=torch.float64)
    for _ in range(400):
        q = game.reward[0] + 0.9 * game.transition @ value
        value = q.logsumexp(-1)
    torch.testing.assert_close(value, torch.tensor([12.411539, 13.411539]).double(), atol=1e-6, rtol=0)
    torch.testing.assert_close(q.softmax(-1), game.play)


@pytest.mark.parametrize("side", [2, 3, 4])
def test_both_cross_in_the_fewest_steps(side):
    game = tabular.crossing(side)
    state = game.reset(torch.zeros(1, 1))
    total = torch.zeros(1, 2)
    for step in range(2 * (side - 1)):
        actions = expert(game, View(game.observe(state)), torch.zeros(1, 2, 1))
        state, rewards, terminated = game.step(state, actions, torch.zeros(1, 1))
        total += rewards
        assert terminated.item() == (step == 2 * (side - 1) - 1)
    assert total.tolist() == [[100.0, 100.0]]


def test_two_who_make_for_one_cell_stay_and_pay():
    game = tabular.crossing()
    state, rewards, _ = game.step(game.reset(torch.zeros(1, 1)), one(1, 0), torch.zeros(1, 1))
    assert state.index.item() == 0 * 9 + 2 and rewards.tolist() == [[-1.0, -1.0]]


def test_agents_share_a_cell_at_most_in_a_corner_that_ends_the_game():
    game = tabular.crossing()
    reached = game.start > 0
    for _ in range(81):
        reached = reached | ((game.transition.sum(1) > 0) & reached.unsqueeze(-1)).any(0)
    same = torch.arange(9) * 10
    assert reached.sum() > 40 and not (reached[same] & ~game.over[same]).any()


@pytest.mark.parametrize("game", GAMES.values(), ids=GAMES.keys())
def test_what_an_expert_plays_by_tables_is_what_the_tables_say(game):
    play = game.play if game.play is not None else torch.full_like(game.reward[0], 1 / len(game.moves))
    steps = min(game.horizon, 6)
    _, rewards = played(game, 5000, steps, seed=11)
    total = rewards.sum(1)
    bound = 5 * total.std(0) / math.sqrt(5000) + 1e-5
    assert ((total.mean(0) - returns(game, play, steps)).abs() <= bound).all()


def test_a_game_is_shown_in_a_line_and_not_by_its_tables():
    assert repr(GAMES["crossing"]) == "MarkovGame('crossing', states=81, choices=(4, 4), horizon=50)"


def test_agents_paid_alike_form_a_team_and_each_has_its_role():
    assert GAMES["coordination"].spec.roles == ("agent_0", "agent_1", "agent_2")
    assert GAMES["coordination"].spec.teams == ("team_0", "team_0", "team_0")
    assert GAMES["rock_paper_scissors"].spec.teams == ("team_0", "team_1")


def test_a_game_moves_to_another_device_with_all_its_tables():
    moved = to_device(GAMES["crossing"], "cpu")
    assert moved is not GAMES["crossing"] and moved.spec == GAMES["crossing"].spec
    assert all(torch.equal(a, b) for a, b in zip(tree_leaves(moved), tree_leaves(GAMES["crossing"]), strict=True))
    assert len(list(tree_leaves(moved))) == 5  # transition, reward, start, over, play


def test_tables_that_cannot_be_a_game_are_refused():
    fine = GAMES["two_rooms"]
    with pytest.raises(EnvError, match="transition: each row"):
        MarkovGame(fine.transition * 0.9, fine.reward, fine.start, (2, 2))
    with pytest.raises(EnvError, match="play: each row"):
        MarkovGame(fine.transition, fine.reward, fine.start, (2, 2), play=torch.zeros(4, 4))
    with pytest.raises(EnvError, match="over: a state"):
        MarkovGame(fine.transition, fine.reward, fine.start, (2, 2), over=torch.tensor([False, True, False, False]))
    with pytest.raises(ShapeError, match="reward"):
        MarkovGame(fine.transition, fine.reward[:1], fine.start, (2, 2))
    with pytest.raises(EnvError, match="2 agents need axes"):
        matrix_game([[1.0, 0.0], [0.0, 1.0]])
    with pytest.raises(ShapeError, match="actions"):
        fine.step(fine.reset(torch.zeros(3, 1)), torch.zeros(3, 4, dtype=torch.long), torch.zeros(3, 1))
