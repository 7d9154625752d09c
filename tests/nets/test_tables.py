import pytest
import torch

from understudy.core.errors import EnvError, ShapeError
from understudy.core.random import generator
from understudy.envs import tabular
from understudy.maths import games
from understudy.nets import NetConfig, build_policy
from understudy.nets.tables import policy_of, table_of
from understudy.rollout import Uniform, play

UNLIKE = tabular.matrix_game(torch.rand(3, 2, 4, 3, generator=generator(0)))


def random_each(choices, states, seed=0):
    each = torch.zeros(len(choices), states, max(choices), dtype=torch.float64)
    for agent, count in enumerate(choices):
        rows = torch.rand(states, count, generator=generator(seed, agent), dtype=torch.float64)
        each[agent, :, :count] = rows / rows.sum(-1, keepdim=True)
    return each


@pytest.mark.parametrize("env", [tabular.on_off(), tabular.two_rooms(3), UNLIKE], ids=["on_off", "three", "unlike"])
def test_a_table_written_into_a_policy_is_read_back(env):
    each = random_each(env.choices, env.spec.obs)
    each[0, 0] = torch.nn.functional.one_hot(torch.tensor(1), each.shape[-1])  # nothing else is ever done there
    policy = policy_of(each, env.spec)
    table = table_of(policy, env.choices, env.spec.obs)
    torch.testing.assert_close(table, games.product_of(each, env.choices), rtol=0, atol=1e-6)
    assert (table[0][env.moves[:, 0] != 1] == 0).all()  # exactly
    torch.testing.assert_close(table.sum(-1), torch.ones_like(table[:, 0]), rtol=0, atol=1e-12)


def test_joint_policies_and_even_ones_have_tables():
    env = tabular.crossing()
    joint = build_policy(NetConfig(hidden=8, joint=True), env.spec, generator(1))
    for out in joint.outs:
        torch.nn.init.normal_(out.weight, generator=generator(2))  # far from even
    table = table_of(joint, env.choices, env.spec.obs)
    torch.testing.assert_close(table.sum(-1), torch.ones_like(table[:, 0]), rtol=0, atol=1e-12)
    alone = games.product_of(games.marginals_of(table, env.choices), env.choices)
    assert (table - alone).abs().max() > 0.01  # correlated, and told as it is
    even = table_of(Uniform(UNLIKE.spec), UNLIKE.choices, 1)
    torch.testing.assert_close(even, torch.full((1, 24), 1 / 24, dtype=torch.float64))


def test_a_table_tells_how_often_a_policy_moves():
    env = tabular.on_off(4)
    policy = policy_of(random_each(env.choices, 3, seed=4), env.spec)
    played = play(env, policy, 4000, generator(5))
    states, joint = played.obs[:, :, 0].argmax(-1).flatten(), env.joint(played.actions).flatten()
    table = table_of(policy, env.choices, 3)
    for state in range(3):
        here = joint[states == state].bincount(minlength=4) / (states == state).sum()
        assert (here - table[state]).abs().max() < 5 * 0.5 / float((states == state).sum()) ** 0.5


def test_who_remembers_has_no_table():
    env = tabular.on_off()
    with pytest.raises(EnvError, match="remembers"):
        table_of(build_policy(NetConfig(body="gru", hidden=4), env.spec, generator(0)), env.choices, 3)
    with pytest.raises(ShapeError, match="each"):
        policy_of(torch.ones(2, 4, 2), env.spec)
