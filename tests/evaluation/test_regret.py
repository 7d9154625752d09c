import math
from dataclasses import replace

import pytest
import torch

from understudy import api
from understudy.core.errors import ConfigError, EnvError
from understudy.core.random import generator
from understudy.core.tree import tree_leaves
from understudy.core.types import View
from understudy.envs import tabular
from understudy.envs.particles import Spread
from understudy.evaluation.regret import Against, coordination, exact, learned, play_table
from understudy.maths import games
from understudy.maths.games import game_of
from understudy.nets import NetConfig, build_policy
from understudy.nets.tables import policy_of
from understudy.rollout import Scripted, Uniform, play


def one_way(env, *moves):
    """A policy that makes `moves[agent][state]` for certain."""
    return policy_of(torch.nn.functional.one_hot(torch.tensor(moves), max(env.choices)).double(), env.spec)


def test_a_policy_of_value_gap_zero_is_told_its_whole_regret():
    env = tabular.on_off(10)
    clone = one_way(env, (0, 0, 0), (0, 0, 1))  # as the expert but for state 2
    found = api.regret(clone, env)
    assert (found["value gap"].value, found["regret gap"].value) == (0, 9)
    assert [found[f"gain/agent_{i}"].value for i in range(2)] == [9, 0]
    assert found["demonstrated regret"].value == 0 and "Exact" in found.note
    line = next(line for line in str(found).splitlines() if line.startswith("regret  "))
    assert line.split() == ["regret", "9", "0"]
    with pytest.raises(ConfigError, match="Did you mean `regret gap`"):
        found["regrt gap"]
    assert api.regret(api.expert_of(env), env)["regret gap"].value == 0


def test_chicken_has_a_value_gap_of_a_third_and_no_regret():
    env = tabular.chicken()
    alone = policy_of(games.marginals_of(env.play, env.choices), env.spec)
    found = api.regret(alone, env)
    assert found["value gap"].value == pytest.approx(1 / 3, abs=1e-6)
    assert found["regret gap"].value == pytest.approx(0, abs=1e-6)
    assert found["total correlation"].value == pytest.approx(0, abs=1e-12)
    told = -math.log(1 / 3) + 2 * (1 / 3 * math.log(1 / 3) + 2 / 3 * math.log(2 / 3))  # H(joint) is log 3
    assert found["demonstrated total correlation"].value == pytest.approx(-told, abs=1e-12)


@pytest.mark.parametrize(("conventions", "agents"), [(2, 2), (3, 2), (2, 3)])
def test_conventions_carry_their_logarithm_in_nats(conventions, agents):
    env = tabular.coordination(conventions, agents, repeats=3)
    carried = coordination(game_of(env), env.play)
    torch.testing.assert_close(carried, torch.tensor((agents - 1) * math.log(conventions), dtype=torch.float64))


def test_tables_of_every_kind_and_time_are_measured():
    env = replace(tabular.rock_paper_scissors(), horizon=3)
    table = torch.full((3, 1, 9), 1 / 9, dtype=torch.float64)
    table[1] = torch.eye(9, dtype=torch.float64)[0]  # both show rock in the second step: either gains 1
    found = exact(table, env)
    assert found["regret"].value == pytest.approx(1) and found["exploitability"].value == pytest.approx(2)
    torch.testing.assert_close(play_table(Uniform(env.spec), env), table[:1, 0])
    endless = exact(table[0], replace(env, horizon=None), discount=0.5)
    assert endless["regret"].value == pytest.approx(0, abs=1e-12)


def test_one_agent_plays_on_among_others_who_follow_the_policy():
    env = tabular.crossing()
    alone = Against(env, api.expert_of(env), agent=1)
    assert alone.spec.agents == 1 and alone.spec.names == ("agent_1",)
    up_then_left = Scripted(alone, lambda env, view, noise: torch.where(view.obs[..., 2 * 9 :].sum(-1) > 0, 2, 2))
    played = play(alone, up_then_left, 5, generator(0))
    assert played.rewards.shape[-1] == 1 and played.obs.shape[2] == 1
    # the first agent arrives after 4 steps whatever the second does: the game is over then
    assert played.valid.sum(1).tolist() == [4] * 5 and played.terminated[:, 3].all()


def test_what_one_agent_earns_alone_is_what_the_tables_say():
    env = tabular.on_off(6)
    clone = one_way(env, (0, 0, 0), (0, 0, 1))
    leaving = one_way(env, (1, 0, 0), (0, 0, 0))
    alone = Against(env, clone, agent=0)
    reply = policy_of(torch.nn.functional.one_hot(torch.tensor([[1, 0, 0]]), 2).double(), alone.spec)
    earned = play(alone, reply, 8, generator(1)).rewards.sum((1, 2))
    assert earned.tolist() == [5.0] * 8  # and the policy's own: 0
    assert play(env, leaving, 8, generator(1)).rewards.sum() == 0  # the second agent as it should be


def test_learned_replies_bound_the_gain_from_below_and_say_their_budget():
    env = tabular.on_off(6)
    clone = one_way(env, (0, 0, 0), (0, 0, 1))
    moves = {0: [[1, 0, 0]], 1: [[0, 0, 0]]}

    def train(alone, seed):
        best = moves[alone.agent] if seed == 1 else [[0, 0, 0]]  # of three seeds one finds it
        return policy_of(torch.nn.functional.one_hot(torch.tensor(best), 2).double(), alone.spec)

    found = learned(clone, env, train, generator(0), "a look", seeds=3, episodes=20)
    assert found["gain/agent_0"].value == 5 and found["gain/agent_1"].value == 0
    assert found["regret"].value == 5 and found["exploitability"].value == 5
    assert "3 replies were trained with a look" in found.note and "Lower bounds" in found.note
    worse = learned(clone, env, lambda alone, seed: train(alone, 0), generator(0), "nothing", episodes=20)
    assert worse["regret"].value == 0


def test_ppo_finds_what_the_tables_know():
    env = tabular.on_off(6)
    clone = one_way(env, (0, 0, 0), (0, 0, 1))
    small = {"envs": 64, "segment": 12, "net": {"hidden": 16}, "rate": 1e-2, "value_hidden": 16}
    found = api.regret(clone, env, exact=False, config=small, updates=15, episodes=200)
    assert 4 < found["gain/agent_0"].value <= 5 == api.regret(clone, env)["gain/agent_0"].value
    assert "15 updates of ppo (11,520 steps)" in found.note


def test_others_with_memory_go_on_remembering_until_their_episode_ends():
    env, source = Spread(agents=3, horizon=4), generator(3)
    team = build_policy(NetConfig(body="gru", hidden=4), env.spec, source)
    alone = Against(env, team, agent=1)
    reset = torch.rand(6, env.spec.reset_noise, generator=source)
    inner, memory, state = env.reset(reset), team.start(6), alone.reset(reset)
    for _ in range(3):
        noise = torch.rand(6, alone.spec.step_noise, generator=source)
        chance = noise[:, env.spec.step_noise :].reshape(6, 3, team.noise)
        joint, memory = team.act(View(env.observe(inner)), memory, chance)
        joint[:, 1] = 2
        inner, rewards, _ = env.step(inner, joint, noise[:, : env.spec.step_noise])
        state, mine, _ = alone.step(state, torch.full((6, 1), 2), noise)
        assert torch.equal(alone.observe(state), env.observe(inner)[:, 1:2]) and torch.equal(mine, rewards[:, 1:2])

    class Simulator:
        spec, copies = env.spec, 6

        def restart(self, state, ended, noise):
            return state

    ended = torch.tensor([True, False, False, True, False, False])
    again = Against(Simulator(), team, agent=1).restart(state, ended, reset)
    for now, before in zip(tree_leaves(again.memory), tree_leaves(state.memory), strict=True):
        assert (now[ended] == 0).all() and torch.equal(now[~ended], before[~ended]) and (before[~ended] != 0).any()
    assert Against(Simulator(), team, agent=1).copies == 6 and not hasattr(alone, "restart")


def test_evaluation_tells_the_regret_of_tabular_play():
    env = tabular.on_off(5)
    measured = api.evaluate(one_way(env, (0, 0, 0), (0, 0, 1)), env, episodes=8)
    assert measured["regret"].value == 4 and measured["demonstrated regret"].value == 0
    assert measured["random regret"].value == pytest.approx(1)  # leave at once for 4 / 2, less half of that
    assert "regret" in str(measured)


def test_what_cannot_be_exact_is_refused():
    env = tabular.on_off()
    with pytest.raises(EnvError, match="its chances cannot be read"):
        exact(Scripted(env, lambda env, view, noise: noise[..., 0].long()), env)
    with pytest.raises(EnvError, match="has no tables"):
        api.regret(Uniform(Spread().spec), Spread(), exact=True)
    with pytest.raises(ConfigError, match="gaps are told of exact figures alone"):
        api.regret(Uniform(env.spec), env, expert=api.expert_of(env), exact=False)
    with pytest.raises(ConfigError, match="two episodes"):
        learned(Uniform(env.spec), env, lambda alone, seed: Uniform(alone.spec), generator(0), "", episodes=1)
