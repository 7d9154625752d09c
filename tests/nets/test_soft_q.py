"""What a soft Q says of steps: ends, time limits, absence, pasts, and actors that follow it."""

import math
from dataclasses import replace

import pytest
import torch

from understudy.core.errors import ConfigError
from understudy.core.random import generator
from understudy.core.tree import tree_map
from understudy.core.types import Continuous, Discrete, EnvSpec, MultiDiscrete, Segment, View
from understudy.nets import NetConfig
from understudy.nets.soft_q import SoftQ, leaving

SPEC = EnvSpec(agents=3, obs=2, action=Discrete(4), teams=("red", "blue", "red"), whole=5)
NET = NetConfig(hidden=8)
REST = torch.tensor([-1.0, -2.0, -3.0])


def segment(spec=SPEC, envs=4, steps=6, seed=0, present=False, ends=True):
    """A run of play, an episode ending here and there and another going on."""
    source = generator(seed)

    def view():
        obs = torch.randn(envs, steps, spec.agents, spec.obs, generator=source)
        whole = torch.randn(envs, steps, spec.whole, generator=source) if spec.whole else None
        there = torch.rand(envs, steps, spec.agents, generator=source) < 0.7 if present else None
        return View(obs, present=there, whole=whole)

    before, after = view(), view()
    over = torch.rand(envs, steps, generator=source) < (0.4 if ends else 0.0)
    terminated = over & (torch.rand(envs, steps, generator=source) < 0.5)
    starts = torch.cat([torch.ones(envs, 1, dtype=torch.bool), over[:, :-1]], dim=1)

    def led_to(now, later):  # a step leads to the next, but at an end
        goes_on = ~over[:, :-1].reshape(envs, -1, *[1] * (now.dim() - 2))
        return torch.cat([torch.where(goes_on, now[:, 1:], later[:, :-1]), later[:, -1:]], dim=1)

    action = spec.action
    if isinstance(action, Continuous):
        actions = torch.rand(envs, steps, spec.agents, action.size, generator=source) * 2 - 1
    elif isinstance(action, Discrete):
        actions = torch.randint(action.choices, (envs, steps, spec.agents), generator=source)
    else:
        parts = [torch.randint(n, (envs, steps, spec.agents), generator=source) for n in action.choices]
        actions = torch.stack(parts, dim=-1)
    return Segment(before, actions, None, terminated, over & ~terminated, tree_map(led_to, before, after), starts)


def made(net=NET, spec=SPEC, mixer="none", seed=3):
    soft = SoftQ(net, spec, mixer, generator(seed))
    for p in soft.policy.outs.parameters():
        p.data.mul_(30)  # logits that differ
    return soft


def apart(part):
    """Every step by itself."""
    return tree_map(lambda x: x.flatten(0, 1).unsqueeze(1), part)


@pytest.mark.parametrize("mixer", ["none", "sum", "monotone"])
def test_steps_in_a_row_are_valued_as_each_by_itself_but_for_those_that_a_time_limit_cut_off(mixer):
    soft, part = made(mixer=mixer), segment(present=True)
    row, single = soft.value(part, REST, generator(0)), soft.value(apart(part), REST, generator(0))
    lost = part.truncated.clone()
    lost[:, -1] = False  # at the end of the window what it led to is looked at
    assert lost.any() and not row.weight[lost].any()
    for name in ("chosen", "now", "after", "weight"):
        ours, theirs = getattr(row, name)[~lost], getattr(single, name).reshape(*lost.shape, -1)[~lost]
        torch.testing.assert_close(ours, theirs)


def test_q_and_value_are_those_of_the_policys_logits():
    """Q - V is the log-probability of what was done."""
    soft, part = made(), segment()
    steps = soft.value(part, REST, generator(0))
    log_prob = soft.policy.log_prob(part.view, part.actions, (), part.starts)
    torch.testing.assert_close(steps.chosen - steps.now, log_prob)
    spec = replace(SPEC, action=MultiDiscrete((2, 3)), action_sizes=())
    soft, part = made(spec=spec), segment(spec)
    steps = soft.value(part, REST, generator(0))
    torch.testing.assert_close(steps.chosen - steps.now, soft.policy.log_prob(part.view, part.actions))


def test_who_is_gone_rests():
    part = segment(present=True)
    steps, there = made().value(part, REST, generator(0)), part.view.present
    gone = part.terminated.unsqueeze(-1) | ~part.next_view.present
    goes_on = ~part.truncated.unsqueeze(-1).expand(gone.shape).clone()
    rest = REST.expand(gone.shape)
    torch.testing.assert_close(steps.after[gone & goes_on], rest[gone & goes_on])
    assert not (steps.after == rest)[~gone].any()
    torch.testing.assert_close(steps.now[~there], rest[~there])
    torch.testing.assert_close(steps.chosen[~there], rest[~there])
    assert not steps.weight[~there].any()


def test_leaving_counts_ends_and_departures_of_those_who_were_there():
    there = torch.tensor([[1, 1], [1, 1], [1, 0], [1, 0]]).bool().unsqueeze(0)
    after = torch.tensor([[1, 1], [1, 0], [1, 0], [1, 0]]).bool().unsqueeze(0)
    over = torch.tensor([[False, False, False, True]])
    views = [View(torch.zeros(1, 4, 2, 1), present=p) for p in (there, after)]
    part = Segment(views[0], torch.zeros(1, 4, 2).long(), terminated=over, next_view=views[1])
    torch.testing.assert_close(leaving(part), torch.tensor([0.25, 0.5]))
    padded = replace(part, valid=torch.tensor([[True, True, True, False]]))
    torch.testing.assert_close(leaving(padded), torch.tensor([0.0, 0.5]))
    light = replace(part, weight=torch.tensor([[0.5, 0.5, 0.5, 0.0]]))
    torch.testing.assert_close(leaving(light), torch.tensor([0.0, 0.5]))


def test_a_teams_rest_is_divided_among_its_agents():
    torch.testing.assert_close(made(mixer="sum").shared(torch.full((3,), -6.0)), torch.tensor([-3.0, -6.0, -3.0]))
    torch.testing.assert_close(made().shared(REST), REST)


def test_a_past_is_followed_and_windows_from_the_middle_burn_in():
    soft, part = made(replace(NET, body="gru")), segment(ends=False)
    steps = soft.value(part, REST, generator(0), burn_in=2)
    assert steps.weight.all()  # these windows begin where an episode does
    whole = soft.policy.params(part.view, part.actions, (), part.starts)[0]
    torch.testing.assert_close(steps.now, whole.logsumexp(-1))
    torch.testing.assert_close(steps.after[:, :-1], steps.now[:, 1:])
    late = tree_map(lambda x: x[:, 1:], part)
    steps = soft.value(late, REST, generator(0), burn_in=2)
    assert steps.weight[:, 2:].all() and not steps.weight[:, :2].any()


def test_no_step_is_moved_by_what_lies_beyond_its_episode():
    soft, part = made(replace(NET, body="gru"), mixer="sum"), segment(seed=5)
    first = part.ended.long().cumsum(1) - part.ended.long() == 0
    other = segment(seed=6)
    mixed = tree_map(
        lambda x, y: torch.where(first.reshape(*first.shape, *[1] * (x.dim() - 2)), x, y), part.view, other.view
    )
    ours = soft.value(part, REST, generator(0))
    theirs = soft.value(replace(part, view=mixed), REST, generator(0))
    for name in ("chosen", "now", "weight"):
        torch.testing.assert_close(getattr(ours, name)[first], getattr(theirs, name)[first])


@pytest.mark.parametrize("spec", [SPEC, EnvSpec(agents=2, obs=2, action=Continuous(1, -2.0, 2.0))])
def test_what_a_step_led_to_may_be_valued_by_a_slower_copy(spec):
    """As the copy values it, with no gradient of the copy's; all else as without one."""
    soft, slow, part = made(spec=spec), made(spec=spec, seed=4), segment(spec)
    rest = REST[: spec.agents]
    ours, theirs = soft.value(part, rest, generator(1)), slow.value(part, rest, generator(1))
    source = generator(1)
    steps = soft.ahead(slow, part, rest, source)
    torch.testing.assert_close(steps.after, theirs.after)
    torch.testing.assert_close((steps.chosen, steps.weight), (ours.chosen, ours.weight))
    assert not steps.after.requires_grad
    torch.testing.assert_close(soft.ahead(None, part, rest, generator(1)).after, ours.after)


def test_a_copy_goes_a_share_of_the_way():
    fast, slow = made(), made(seed=4)
    ends = [(a.detach().clone(), b.detach().clone()) for a, b in zip(slow.parameters(), fast.parameters(), strict=True)]
    slow.follow(fast, 0.25)
    for (mine, other), now in zip(ends, slow.parameters(), strict=True):
        torch.testing.assert_close(now.data, 0.75 * mine + 0.25 * other)


# ---- continuous moves


SMOOTH = EnvSpec(agents=2, obs=2, action=Continuous(1, -2.0, 2.0))


def test_actors_that_follow_a_known_q_find_its_soft_policy():
    """Q(a) = -a^2 / (2 s^2), far from the bounds: V = log of its integral = log s + log(2 pi) / 2."""
    spread = 0.2
    soft = SoftQ(NetConfig(hidden=16), SMOOTH, "none", generator(0))
    soft._q = lambda view, actions, frozen=False: -(actions / spread).square().sum(-1) / 2  # type: ignore[method-assign]
    part = tree_map(lambda x: torch.zeros_like(x), segment(SMOOTH, envs=256, steps=1, ends=False))
    optimizer = torch.optim.Adam(soft.policy.parameters(), lr=1e-2)
    source = generator(1)
    for _ in range(300):
        optimizer.zero_grad()
        soft.chase(part, source).backward()
        optimizer.step()
    value = math.log(spread) + math.log(2 * math.pi) / 2
    assert soft.chase(part, source).item() == pytest.approx(-value, abs=0.05)
    assert soft.value(part, torch.zeros(2), source).now.mean().item() == pytest.approx(value, abs=0.05)


def test_actors_and_critics_each_have_a_gradient_of_their_own():
    soft, part = SoftQ(NET, SMOOTH, "sum", generator(0)), segment(SMOOTH)
    actors = list(soft.policy.parameters())
    critics = [p for group in soft.groups(1e-3, 0.1, 5.0)[:4] for p in group["params"]]
    soft.chase(part, generator(0)).backward()
    assert all(p.grad is None for p in critics) and all(p.grad is not None for p in actors)
    soft.zero_grad()
    steps = soft.value(part, torch.zeros(2), generator(0))
    (steps.chosen + steps.now + steps.after).sum().backward()
    assert all(p.grad is not None for p in critics) and all(p.grad is None for p in actors)


# ---- where it begins


@pytest.mark.parametrize("action", [Discrete(4), MultiDiscrete((2, 3))])
def test_q_begins_at_how_often_each_move_is_made_and_is_worth_nothing_by_itself(action):
    """log((made + 1/2) / (all + choices / 2)), counted by the weights of steps and over all who share a network."""
    spec = EnvSpec(agents=3, obs=2, action=action, roles=("a", "b", "a"))
    soft, part = SoftQ(NET, spec, "none", generator(0)), segment(spec, present=True)
    part = replace(part, weight=torch.rand(4, 6, generator=generator(5)))
    soft.observe([part, part])
    weight = 2 * part.weight.unsqueeze(-1) * part.view.present
    sizes = (4,) if isinstance(action, Discrete) else action.choices
    moves = part.actions.unsqueeze(-1) if isinstance(action, Discrete) else part.actions
    bias = soft.policy.outs[0].bias.detach().split(sizes, dim=-1)
    for number, role in enumerate(([0, 2], [1])):
        for k, size in enumerate(sizes):
            counts = [(weight * (moves[..., k] == m))[..., role].sum() for m in range(size)]
            expected = (torch.stack(counts) + 0.5) / (sum(counts) + 0.5 * size)
            torch.testing.assert_close(bias[k][number].exp(), expected)


@pytest.mark.parametrize(("spec", "last"), [(SPEC, "policy.outs.0."), (SMOOTH, "critic.last.")])
def test_the_last_layer_of_q_learns_faster_and_biases_do_not_decay(spec, last):
    """A step of AdamW without a gradient shrinks a weight by rate * decay, in the last layer no more than elsewhere."""
    soft = SoftQ(NET, spec, "monotone", generator(0))
    of = {id(p): group for group in soft.groups(1e-2, 0.1, 5.0) for p in group["params"]}
    assert len(of) == len(list(soft.parameters()))
    for name, p in soft.named_parameters():
        rate, decay = of[id(p)]["initial_lr"], of[id(p)]["weight_decay"]
        assert rate == pytest.approx(5e-2 if name.startswith(last) else 1e-2), name
        assert rate * decay == pytest.approx(0.0 if name.endswith("bias") else 1e-3), name


# ---- refusals


@pytest.mark.parametrize("setting", [{"joint": True}, {"members": 3}, {"dropout": 0.1}])
def test_nets_that_are_no_q_of_one_agent_are_refused(setting):
    with pytest.raises(ConfigError, match="one network for each agent's own moves"):
        SoftQ(replace(NET, **setting), SPEC, "none", generator(0))


@pytest.mark.parametrize("setting", [{"body": "gru"}, {"frames": 2}, {"own_action": True}, {"head": "mixture"}])
def test_nets_that_no_critic_can_follow_are_refused(setting):
    with pytest.raises(ConfigError, match="sees the present alone"):
        SoftQ(replace(NET, **setting), SMOOTH, "none", generator(0))
