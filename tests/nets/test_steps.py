"""A step by the compiled functions is the step that torch takes: the same losses, gradients, and optimizer's state."""

import copy
import weakref
from dataclasses import replace
from functools import partial

import pytest
import torch

from tests.nets.test_fused import compiled
from understudy.algorithms import bc, ppo
from understudy.core import native
from understudy.core.errors import DemosError
from understudy.core.random import generator
from understudy.core.tree import tree_map, tree_take
from understudy.core.types import Continuous, Discrete, EnvSpec, MultiDiscrete, Segment, View, legal_size, to_device
from understudy.nets import NetConfig, Values, build_policy, fused, steps

ACTIONS = [Discrete(5), MultiDiscrete((3, 2, 4)), Continuous(2)]
NETS = [
    NetConfig(hidden=64),
    NetConfig(hidden=33, layers=3, activation="relu"),
    NetConfig(hidden=16, activation="silu"),
]
BARE = NetConfig(layers=0)  # nothing but the head


def spec_of(action, agents=3):
    return EnvSpec(agents=agents, obs=7, action=action, roles=("a", "b", "a")[:agents])


def some_moments(spec, source, *shape, masked=True):
    """What was seen and done, with everything masked that can be."""
    action, agents = spec.action, spec.agents
    legal = present = None
    if isinstance(action, Continuous):
        done = torch.randn(*shape, agents, action.size, generator=source)
    else:
        choices = (action.choices,) if isinstance(action, Discrete) else action.choices
        moves = [torch.randint(n, (*shape, agents), generator=source) for n in choices]
        done = moves[0] if isinstance(action, Discrete) else torch.stack(moves, dim=-1)
        if masked:
            legal = torch.rand(*shape, agents, legal_size(action), generator=source) < 0.4
            for first, move in zip(torch.tensor((0, *choices[:-1])).cumsum(0).tolist(), moves, strict=True):
                legal.scatter_(-1, (first + move).unsqueeze(-1), True)
    if masked:
        present = torch.rand(*shape, agents, generator=source) < 0.8
    return Segment(View(3 * torch.randn(*shape, agents, spec.obs, generator=source), legal, present), done)


def a_policy(net, spec, source):
    """One that has seen something, and whose head is not alike for all moves."""
    policy = build_policy(net, spec, source)
    policy.normaliser.observe(torch.randn(100, spec.obs, generator=source) * 2 + 1)
    policy.outs[0].weight.data.mul_(100)
    return policy


def by_torch(policy, optimizer, config, recorded, rows, weight):
    part = tree_take(recorded, rows)
    part = replace(tree_map(lambda x: x.unsqueeze(1), part), weight=weight.unsqueeze(1))
    loss = bc.clone_loss(policy, part, config, generator(0))
    ppo.descend(optimizer, loss, config.max_grad_norm)
    return loss.detach()


def adam_of(config, policy):
    """One that does not blow up the rounding of gradients next to zero."""
    return torch.optim.AdamW(policy.parameters(), lr=config.rate, weight_decay=0.1, eps=1e-3, fused=True)


def expect_alike(one, other, tolerance):
    for (name, a), b in zip(one.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=tolerance, msg=lambda m, name=name: f"{name}: {m}")


def expect_alike_states(one, other, tolerance):
    mine, theirs = one.state_dict()["state"], other.state_dict()["state"]
    assert list(mine) == list(theirs)
    for number, kept in theirs.items():
        assert list(mine[number]) == list(kept)
        for name, tensor in kept.items():
            torch.testing.assert_close(mine[number][name], tensor, rtol=tolerance, atol=1e-6)


# ---- cloning ----


@compiled
@pytest.mark.parametrize("share", ["all", "role", "none"])
@pytest.mark.parametrize("net", [*NETS, BARE], ids=lambda net: f"{net.layers}{net.activation}")
@pytest.mark.parametrize("action", ACTIONS, ids=lambda action: type(action).__name__)
def test_steps_of_cloning_are_those_of_torch(action, net, share):
    """Five of them, of 700 agents' choices; and the state of the optimizer, so that either kind may go on."""
    source, spec = generator(0, "twin"), spec_of(action)
    config = bc.Config(net=replace(net, share=share), max_grad_norm=0.5)
    ours = a_policy(config.net, spec, source)
    theirs, recorded = copy.deepcopy(ours), some_moments(spec, source, 400)
    mine, its = adam_of(config, ours), adam_of(config, theirs)
    step = steps.cloning(ours, mine, config.max_grad_norm)
    for number in range(5):
        rows, weight = torch.randint(400, (233,), generator=source), torch.rand(233, generator=source)
        if number == 3:  # torch goes on where we stopped, and we where it did
            loss = by_torch(ours, mine, config, recorded, rows, weight)
        else:
            loss = step(recorded, rows, weight).float()
        torch.testing.assert_close(loss, by_torch(theirs, its, config, recorded, rows, weight), rtol=2e-5, atol=1e-6)
    expect_alike(ours, theirs, 2e-5)  # of steps of 1e-3
    expect_alike_states(mine, its, 1e-3)


@compiled
@pytest.mark.parametrize("action", ACTIONS, ids=lambda action: type(action).__name__)
def test_gradients_of_cloning_are_those_of_float64(action):
    source, spec = generator(1, "twin"), spec_of(action)
    policy = a_policy(NetConfig(hidden=64, share="none"), spec, source)
    recorded = some_moments(spec, source, 1000)
    net, kept = steps._of_policy(policy), steps._Kept()
    seen = steps._steps(recorded.obs, policy.normaliser, kept)
    seen.count = 1000
    net.find_gradients("likelihood", seen, steps._Likelihood(steps._head(policy.head, recorded, kept), None))
    exact = copy.deepcopy(policy).double()
    part = tree_map(lambda x: x.double() if x.is_floating_point() else x, recorded)
    bc.clone_loss(exact, tree_map(lambda x: x.unsqueeze(1), part), bc.Config(), generator(0)).backward()
    for (name, parameter), true in zip(policy.named_parameters(), exact.parameters(), strict=True):
        scale = float(true.grad.abs().max())
        torch.testing.assert_close(
            net.gradients[parameter].double(), true.grad, rtol=0, atol=3e-6 * scale, msg=lambda m, n=name: f"{n}: {m}"
        )


@compiled
def test_nothing_that_counts_gives_no_gradient_and_what_is_not_a_number_is_passed_on():
    spec, source = spec_of(Discrete(5)), generator(2)
    policy = build_policy(NetConfig(hidden=8), spec, source)
    before = copy.deepcopy(policy)
    recorded = replace(some_moments(spec, source, 9, masked=False))
    nobody = replace(recorded, view=replace(recorded.view, present=torch.zeros(9, 3, dtype=torch.bool)))
    optimizer = torch.optim.AdamW(policy.parameters(), weight_decay=0.0)
    step = steps.cloning(policy, optimizer, 1.0)
    assert step(nobody, None, None) == 0
    expect_alike(policy, before, 0.0)
    recorded.obs[4, 1, 2] = torch.nan
    assert step(recorded, None, None).isnan()
    assert all(p.isnan().any() for p in policy.parameters())


@compiled
def test_recordings_on_another_device_are_refused():
    spec, source = spec_of(Discrete(5)), generator(2)
    policy = build_policy(NetConfig(hidden=8), spec, source)
    step = steps.cloning(policy, adam_of(bc.Config(), policy), 1.0)
    with pytest.raises(DemosError, match="recordings are on meta, and the policy on the CPU"):
        step(to_device(some_moments(spec, source, 9), "meta"), None, None)


@compiled
def test_a_step_has_the_same_bits_with_any_number_of_threads_and_wherever_rows_lie():
    spec, found = spec_of(Discrete(5)), []
    before = torch.get_num_threads()
    try:
        for threads, copied in ((1, False), (2, False), (3, False), (1, True)):
            torch.set_num_threads(threads)
            source = generator(3)
            policy = a_policy(NetConfig(hidden=32, share="none"), spec, source)
            recorded, rows = some_moments(spec, source, 5000), torch.randperm(5000, generator=source)[:4000]
            optimizer = adam_of(bc.Config(), policy)
            step = steps.cloning(policy, optimizer, 1.0)
            weight = torch.rand(4000, generator=source)
            taken = (tree_take(recorded, rows), None) if copied else (recorded, rows)
            told = [step(*taken, weight) for _ in range(3)]
            found.append([*told, *policy.parameters()])
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for other in found[1:] for a, b in zip(found[0], other, strict=True))


@compiled
def test_what_cloning_tells_and_learns_is_alike_by_either_way(monkeypatch):
    """`bc` itself, with symmetric worlds and without, and with a rate that changes from step to step."""
    from understudy import api

    env = api.make_env("spread")
    demos = api.record(env, episodes=12)
    for more in ({"symmetric": False}, {"symmetric": True}, {"decay": True, "limit": 8}):
        results = []
        for library in (steps._library, lambda: None):
            monkeypatch.setattr(steps, "_library", library)
            config = bc.Config(batch=64, steps=6, net=NetConfig(hidden=32), **more)
            source = generator(4)
            state = bc.init(config, demos, env, source)
            told = bc.update(config, state, demos, env, source)
            results.append((told, state.policy))
        for name, value in results[0][0].items():
            torch.testing.assert_close(value, results[1][0][name], rtol=1e-5, atol=1e-6, equal_nan=True)
        expect_alike(results[0][1], results[1][1], 2e-5)


# ---- improving ----


def improved(net, action, central, besides, compiled_too, monkeypatch, frozen=False, threads=1):
    """Policies, values, optimizer and figures after two updates on drawn steps."""
    monkeypatch.setattr(steps, "climbing", CLIMBING if compiled_too else lambda *given: None)
    source, spec = generator(5), spec_of(action)
    config = ppo.Config(envs=10, segment=9, passes=3, minibatches=3, net=net, max_grad_norm=0.5, bonus=0.1, rate=3e-3)
    policy = a_policy(net, spec, source)
    values = Values(spec, source, central, hidden=24, share=net.share)
    optimizer = ppo.make_optimizer(config, policy, values)
    anchor = (lambda number: 0.1 * sum(p.square().sum() for p in policy.parameters())) if besides else None
    for _ in range(2):
        seen = [some_moments(spec, source, 10, 9) for _ in range(2)]
        over, cut = (torch.rand(10, 9, generator=source) < 0.1 for _ in range(2))
        played = replace(seen[0], terminated=over, truncated=cut & ~over, next_view=seen[1].view, starts=over)
        rewards = torch.randn(10, 9, spec.agents, generator=source)
        told = ppo.improve(config, policy, values, optimizer, played, rewards, source, frozen=frozen, anchor=anchor)
    return policy, values, optimizer, told


CLIMBING = steps.climbing


@compiled
@pytest.mark.parametrize("besides", [False, True])
@pytest.mark.parametrize(("share", "central"), [("all", False), ("role", True), ("none", True)])
@pytest.mark.parametrize("action", ACTIONS, ids=lambda action: type(action).__name__)
def test_improvements_are_those_of_torch(action, share, central, besides, monkeypatch):
    """Eighteen steps of far too high a rate, so that many ratios are beyond the clip."""
    net = NetConfig(hidden=32, share=share)
    ours, theirs = (improved(net, action, central, besides, on, monkeypatch) for on in (True, False))
    for name, value in theirs[3].items():
        torch.testing.assert_close(ours[3][name], value, rtol=1e-3, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")
    expect_alike(ours[0], theirs[0], 3e-4)  # of eighteen steps of 3e-3
    expect_alike(ours[1], theirs[1], 3e-4)
    expect_alike_states(ours[2], theirs[2], 2e-2)


@compiled
def test_what_an_improvement_had_to_copy_lives_as_long_as_its_steps(monkeypatch):
    made, found, climbing = [], [], CLIMBING

    class Kept(steps._Kept):
        def __init__(self):
            made.append(weakref.ref(self))

    def watched(*given):
        step = climbing(*given)
        found.append(step is not None and made[-1]() is not None)
        return step

    monkeypatch.setattr(steps, "_Kept", Kept)
    monkeypatch.setitem(globals(), "CLIMBING", watched)
    improved(NETS[0], Discrete(5), False, False, True, monkeypatch)
    assert found == [True, True]


@compiled
def test_policies_that_stand_still_stand_still(monkeypatch):
    net = NetConfig(hidden=8)
    ours, theirs = (improved(net, Discrete(5), True, True, on, monkeypatch, frozen=True) for on in (True, False))
    expect_alike(ours[0], theirs[0], 0.0)
    expect_alike(ours[1], theirs[1], 0.0)


# ---- where torch does it ----


def to_double(policy):
    return policy.double()


def first_layer_stays(policy):
    policy.bodies[0].layers[0].weight.requires_grad_(False)
    return policy


@pytest.mark.parametrize(
    ("net", "change"),
    [
        (NetConfig(body="gru"), None),
        (NetConfig(body="attention"), None),
        (NetConfig(frames=2), None),
        (NetConfig(own_action=True), None),
        (NetConfig(joint=True), None),
        (NetConfig(members=2), None),
        (NetConfig(dropout=0.1), None),
        (NetConfig(input_dropout=0.1), None),
        (NetConfig(hidden=fused.WIDEST + 1), None),
        (NetConfig(), to_double),
        (NetConfig(), first_layer_stays),
    ],
)
def test_other_policies_are_left_to_torch(net, change):
    policy = build_policy(net, spec_of(Discrete(5)), generator(0))
    policy = change(policy) if change else policy
    assert steps.cloning(policy, torch.optim.AdamW(policy.parameters()), 1.0) is None


@pytest.mark.parametrize("head", ["squashed", "mixture"])
def test_other_heads_are_left_to_torch(head):
    policy = build_policy(NetConfig(head=head), spec_of(Continuous(2)), generator(0))
    assert steps.cloning(policy, torch.optim.AdamW(policy.parameters()), 1.0) is None


@pytest.mark.parametrize(
    "optimizer",
    [
        torch.optim.SGD,
        partial(torch.optim.Adam, weight_decay=0.1),
        partial(torch.optim.AdamW, amsgrad=True),
        partial(torch.optim.AdamW, maximize=True),
        partial(torch.optim.AdamW, lr=torch.tensor(1e-3)),
        lambda parameters: torch.optim.AdamW(list(parameters)[1:]),
        lambda parameters: torch.optim.AdamW([*parameters, torch.nn.Parameter(torch.zeros(2))]),
    ],
)
def test_other_optimizers_are_left_to_torch(optimizer):
    policy = build_policy(NetConfig(), spec_of(Discrete(5)), generator(0))
    assert steps.cloning(policy, optimizer(policy.parameters()), 1.0) is None


def test_an_optimizer_that_counted_its_steps_in_another_dtype_is_left_to_torch():
    policy = build_policy(NetConfig(), spec_of(Discrete(5)), generator(0))
    optimizer = torch.optim.AdamW(policy.parameters())
    sum(p.sum() for p in policy.parameters()).backward()
    optimizer.step()
    assert (steps.cloning(policy, optimizer, 1.0) is None) == (fused.status() != "in use")
    for state in optimizer.state.values():
        state["step"] = state["step"].double()
    assert steps.cloning(policy, optimizer, 1.0) is None


def test_switched_off_torch_does_it(monkeypatch):
    monkeypatch.setenv("UNDERSTUDY_FUSED", "0")
    policy = build_policy(NetConfig(), spec_of(Discrete(5)), generator(0))
    assert steps.cloning(policy, torch.optim.AdamW(policy.parameters()), 1.0) is None


@compiled
def test_without_a_compiler_torch_does_it(monkeypatch):
    def refuse(source):
        raise native.Unavailable("none")

    policy = build_policy(NetConfig(), spec_of(Discrete(5)), generator(0))
    optimizer = torch.optim.AdamW(policy.parameters())
    assert steps.cloning(policy, optimizer, 1.0) is not None
    steps._library.cache_clear()
    monkeypatch.setattr(native, "library", refuse)
    assert steps.cloning(policy, optimizer, 1.0) is None
    steps._library.cache_clear()
