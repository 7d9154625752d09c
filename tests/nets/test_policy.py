import itertools

import pytest
import torch

from understudy.core.errors import ConfigError
from understudy.core.random import generator, uniform
from understudy.core.tree import tree_leaves, tree_map, tree_take
from understudy.core.types import Continuous, Discrete, EnvSpec, MultiDiscrete, Policy, View
from understudy.nets import NetConfig, build_policy
from understudy.nets.policy import drop, stack_frames

KINDS = {
    "mlp": NetConfig(hidden=16),
    "per agent": NetConfig(hidden=16, share="none"),
    "gru": NetConfig(body="gru", hidden=16, layers=1),
    "gru with its own action": NetConfig(body="gru", hidden=16, own_action=True, share="none"),
    "frames": NetConfig(hidden=16, frames=3, own_action=True),
    "attention": NetConfig(body="attention", hidden=16),
    "history": NetConfig(body="history", hidden=16, layers=1),
    "scene": NetConfig(body="scene", hidden=16, own_action=True),
    "joint": NetConfig(hidden=16, joint=True),
    "members": NetConfig(body="gru", hidden=16, layers=1, members=3),
    "joint members": NetConfig(hidden=16, joint=True, members=2),
    "joint gru": NetConfig(body="gru", hidden=16, joint=True, own_action=True),
}
ACTIONS = [Discrete(4), MultiDiscrete((3, 2)), Continuous(2)]


def make(config, action=None, agents=3, seed=0):
    spec = EnvSpec(agents=agents, obs=5, action=action or Discrete(4), roles=("cook",) * agents)
    policy = build_policy(config, spec, generator(seed, "weights"))
    for out in policy.outs:
        out.weight.data.mul_(50)  # far from uniform, so that differences show
    return policy


def views(envs, steps, agents=3, seed=1):
    return View(torch.randn(envs, steps, agents, 5, generator=generator(seed)))


def at(view, t):
    return tree_take(view, (slice(None), t))


@pytest.mark.parametrize("action", ACTIONS, ids=lambda a: type(a).__name__)
@pytest.mark.parametrize("kind", KINDS)
def test_playing_step_by_step_is_what_the_likelihood_of_the_whole_sees(kind, action):
    """Density of each drawn action, read off the step it was drawn at, equals that of the whole segment at once."""
    if KINDS[kind].members > 1 and isinstance(action, Continuous):
        pytest.skip("only discrete actions can be averaged")
    policy, envs, steps = make(KINDS[kind], action), 4, 6
    view = views(envs, steps)
    starts = torch.rand(envs, steps, generator=generator(2)) < 0.3
    noise = uniform((steps, envs, 3, policy.noise), generator(3))
    memory, drawn, begun = policy.start(envs), [], policy.start(envs)
    with torch.no_grad():
        for t in range(steps):
            fresh = starts[:, t]
            memory = tree_map(lambda m, keep=~fresh: m * keep.reshape(-1, *[1] * (m.dim() - 1)), memory)
            actions, memory = policy.act(at(view, t), memory, noise[t])
            drawn.append(actions)
        drawn = torch.stack(drawn, dim=1)
        params, after = policy.params(view, drawn, begun, starts)
        again = policy.head.sample(params, noise.transpose(0, 1))
        torch.testing.assert_close(again, drawn)
        for mine, theirs in zip(tree_leaves(after), tree_leaves(memory), strict=True):
            torch.testing.assert_close(mine, theirs)
        whole = policy.log_prob(view, drawn, begun, starts)
        head, _ = policy.params(tree_take(view, (slice(None), slice(2))), drawn[:, :2], begun, starts[:, :2])
        torch.testing.assert_close(policy.head.log_prob(head, drawn[:, :2]), whole[:, :2])
    assert isinstance(policy, Policy)


@pytest.mark.parametrize("kind", KINDS)
def test_envs_do_not_touch_each_other(kind):
    policy, view = make(KINDS[kind]), views(5, 4)
    actions = torch.randint(0, 4, (5, 4, 3), generator=generator(4))
    together = policy.log_prob(view, actions)
    for e in range(5):
        alone = policy.log_prob(tree_take(view, slice(e, e + 1)), actions[e : e + 1])
        torch.testing.assert_close(alone, together[e : e + 1])


@pytest.mark.parametrize("kind", ["mlp", "gru", "attention", "history", "scene"])
def test_agents_that_share_weights_are_interchangeable(kind):
    policy, view = make(KINDS[kind]), views(2, 4)
    actions, order = torch.randint(0, 4, (2, 4, 3), generator=generator(4)), torch.tensor([2, 0, 1])
    swapped = policy.log_prob(View(view.obs[:, :, order]), actions[:, :, order])
    torch.testing.assert_close(swapped, policy.log_prob(view, actions)[:, :, order])


def test_agents_of_their_own_weights_do_not_learn_from_each_other():
    policy, view = make(KINDS["per agent"]), views(2, 1)
    policy.log_prob(view, torch.zeros(2, 1, 3, dtype=torch.long))[:, :, 1].sum().backward()
    for parameter in policy.parameters():
        assert parameter.grad[1].abs().sum() > 0
        assert parameter.grad[[0, 2]].abs().sum() == 0


@pytest.mark.parametrize("kind", ["attention", "scene"])
def test_an_absent_agent_is_neither_seen_nor_counted_by_attention(kind):
    policy, view = make(KINDS[kind]), views(2, 3)
    present = torch.tensor([True, True, False]).expand(2, 3, 3)
    moved = view.obs.clone()
    moved[:, :, 2] += 7.0
    actions = torch.zeros(2, 3, 3, dtype=torch.long)
    here = policy.log_prob(View(view.obs, present=present), actions)[:, :, :2]
    torch.testing.assert_close(policy.log_prob(View(moved, present=present), actions)[:, :, :2], here)
    assert not torch.allclose(policy.log_prob(View(moved), actions)[:, :, :2], here)


def test_the_recurrent_unit_equals_the_equations_of_a_gated_recurrent_unit():
    policy, view = make(NetConfig(body="gru", hidden=8, layers=0)), views(2, 5)
    cell = torch.nn.GRUCell(5, 8)
    body = policy.bodies[0]
    cell.weight_ih.data, cell.weight_hh.data = body.into.weight[0].data, body.back.weight[0].data
    cell.bias_ih.data, cell.bias_hh.data = body.into.bias[0].data, body.back.bias[0].data
    ours, _ = body(view.obs, body.start(2), None, None)
    h = torch.zeros(6, 8)
    for t in range(5):
        h = cell(view.obs[:, t].flatten(0, 1), h)
        torch.testing.assert_close(ours[:, t, :, :8].flatten(0, 1), h)


def test_a_joint_policy_draws_later_agents_given_the_earlier_ones():
    policy, view = make(KINDS["joint"]), views(1, 1)
    actions = torch.zeros(1, 1, 3, dtype=torch.long)
    changed = actions.clone()
    changed[..., 1] = 2
    before, after = policy.params(view, actions)[0], policy.params(view, changed)[0]
    torch.testing.assert_close(before[:, :, :2], after[:, :, :2])
    assert not torch.allclose(before[:, :, 2], after[:, :, 2])


def test_the_joint_density_sums_to_one_over_all_joint_actions():
    policy, view = make(KINDS["joint"], agents=3), views(1, 1)
    every = torch.tensor(list(itertools.product(range(4), repeat=3))).unsqueeze(1)  # [64, 1, 3]
    total = policy.log_prob(View(view.obs.expand(64, 1, 3, 5)), every).sum(dim=-1).exp().sum()
    torch.testing.assert_close(total, torch.tensor(1.0))


def test_members_are_averaged_as_probabilities_and_learn_apart():
    policy, view = make(KINDS["members"]), views(2, 3)
    actions = torch.randint(0, 4, (2, 3, 3), generator=generator(4))
    each, _ = policy.of_members(view, actions)
    assert not torch.allclose(each[0], each[1])
    blended, _ = policy.params(view, actions)
    torch.testing.assert_close(blended.softmax(-1), each.softmax(-1).mean(0))
    each[1].sum().backward()
    assert all(p.grad is None or not p.grad.any() for p in policy.bodies[0].parameters())
    assert any(p.grad.any() for p in policy.bodies[1].parameters())


def test_members_agree_with_the_rules_on_what_is_legal():
    policy = make(KINDS["joint members"], MultiDiscrete((3, 2)))
    legal = torch.tensor([True, False, True, True, False]).expand(64, 3, 5)
    view = View(views(64, 1).obs[:, 0], legal)
    actions, _ = policy.act(view, policy.start(64), uniform((64, 3, policy.noise), generator(3)))
    assert not (actions[..., 0] == 1).any()
    assert not actions[..., 1].any()


def test_dropout_hides_a_share_and_keeps_the_mean():
    x = torch.ones(200, 200)
    hidden = drop(x, 0.3, generator(6))
    assert abs((hidden == 0).float().mean() - 0.3) < 5 * (0.3 * 0.7 / 40_000) ** 0.5  # five standard errors
    assert abs(hidden.mean() - 1) < 5 * (0.3 / 0.7 / 40_000) ** 0.5
    policy = make(NetConfig(hidden=16, dropout=0.5))
    view, actions = views(2, 3), torch.zeros(2, 3, 3, dtype=torch.long)
    sure, _ = policy.of_members(view, actions)
    assert not torch.allclose(policy.of_members(view, actions, chance=generator(1))[0], sure)
    torch.testing.assert_close(policy.params(view, actions)[0], sure[0])


def test_stacked_frames_are_the_earlier_ones_of_the_same_episode():
    x, earlier = (
        torch.arange(1.0, 13.0).reshape(2, 6, 1, 1),
        torch.tensor([-2.0, -1.0]).reshape(1, 2, 1, 1).repeat(2, 1, 1, 1),
    )
    starts = torch.zeros(2, 6, dtype=torch.bool)
    starts[0, 3] = starts[1, 5] = True
    stacked, after = stack_frames(x, earlier, starts)
    assert stacked[0, :, 0].tolist() == [[1, -1, -2], [2, 1, -1], [3, 2, 1], [4, 0, 0], [5, 4, 0], [6, 5, 4]]
    assert stacked[1, 5, 0].tolist() == [12, 0, 0]
    assert after[:, :, 0, 0].tolist() == [[5, 6], [0, 12]]


def test_the_normaliser_knows_mean_and_deviation_of_all_it_has_seen():
    policy = make(KINDS["mlp"])
    rows = torch.randn(1000, 5, generator=generator(5)) * torch.tensor([1.0, 5.0, 0.01, 0.0, 2.0]) + 3
    for part in rows.split(137):
        policy.normaliser.observe(part)
    torch.testing.assert_close(policy.normaliser.mean, rows.mean(0))
    scaled = policy.normaliser(rows)
    torch.testing.assert_close(scaled.std(0, correction=0), torch.tensor([1.0, 1.0, 1.0, 0.0, 1.0]))
    assert policy.normaliser(rows + 1e9).max() <= 10


def test_shapes_that_make_no_policy_are_refused():
    with pytest.raises(ConfigError, match="multiple of 4"):
        NetConfig(body="attention", hidden=10)
    with pytest.raises(ConfigError, match="only discrete"):
        make(NetConfig(members=2), Continuous(2))
    with pytest.raises(ConfigError, match="frames"):
        NetConfig(frames=0)
    with pytest.raises(ValueError, match="obs: expected"):
        make(KINDS["mlp"]).log_prob(views(2, 3, agents=2), torch.zeros(2, 3, 2, dtype=torch.long))
