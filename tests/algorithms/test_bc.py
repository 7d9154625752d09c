"""Cloning reaches the likelihood that it can reach, and nobody counts who is not to."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from understudy.algorithms import bc
from understudy.core.errors import ConfigError, DemosError
from understudy.core.random import generator
from understudy.core.tree import tree_map
from understudy.core.types import Continuous, Discrete, EnvSpec, MultiDiscrete, Segment, View
from understudy.demos import Demos, Episode
from understudy.envs import tabular
from understudy.nets import NetConfig, build_policy
from understudy.rollout import Scripted, record, score

QUICK = {"rate": 3e-2, "weight_decay": 0.0, "held_out": 0.0, "batch": 4096}
SMALL = NetConfig(hidden=16)


def fit(demos, net=SMALL, steps=80, seed=0, **settings):
    return bc.clone(bc.Config(net=net, limit=steps, **(QUICK | settings)), demos, generator(seed, "train"))


def loss_on(policy, demos):
    """Nats for each agent and step."""
    return -score(policy, demos).mean.item()


def single_steps(spec, actions, obs=None, **columns):
    """An episode of one step for each row of `actions`, all seeing the same unless told."""
    obs = torch.ones(len(actions), 2, spec.agents, spec.obs) if obs is None else obs
    rows = [{k: v[i] for k, v in columns.items()} for i in range(len(actions))]
    return Demos.from_episodes(
        spec, [Episode(o, a.unsqueeze(0), **row) for o, a, row in zip(obs, actions, rows, strict=True)]
    )


# ---- answers known on paper


@pytest.mark.parametrize("conventions", [2, 3])
@pytest.mark.parametrize("joint", [False, True])
def test_only_a_joint_clone_keeps_a_convention(conventions, joint):
    """Each by itself: agreement 1/K, 2 log K nats a step. Jointly: agreement 1, log K nats."""
    game = tabular.coordination(conventions)
    moves = torch.arange(conventions).repeat(20)
    demos = single_steps(game.spec, torch.stack([moves, moves], dim=-1))
    policy = fit(demos, replace(SMALL, joint=joint), rate=0.1)
    agreed = torch.arange(conventions).reshape(-1, 1, 1).expand(-1, 1, 2)
    chances = policy.log_prob(View(torch.ones(conventions, 1, 2, 1)), agreed).sum(dim=-1).exp()
    assert chances.sum().item() == pytest.approx(1.0 if joint else 1 / conventions, abs=0.02)
    assert 2 * loss_on(policy, demos) == pytest.approx((1 if joint else 2) * math.log(conventions), abs=0.02)


def conditional_entropy(demos):
    """Of each agent's move given the one-hot state it saw, by counting; nats for each agent and step."""
    total, count = 0.0, 0
    seen, moves = (torch.cat([x(e) for e in demos]) for x in (lambda e: e.obs[:-1].argmax(-1), lambda e: e.actions))
    for agent in range(demos.spec.agents):
        for state in seen.unique():
            tally = torch.bincount(moves[seen[:, agent] == state, agent]).double()
            total -= torch.special.xlogy(tally, tally / tally.sum()).sum().item()
            count += int(tally.sum())
    return total / count


def test_a_clone_without_memory_plays_with_the_frequencies_that_were_recorded():
    states, source = 4, generator(1)
    play = torch.rand(states, 6, generator=source, dtype=torch.float64) ** 2
    game = tabular.MarkovGame(
        transition=torch.full((states, 6, states), 1 / states, dtype=torch.float64),
        reward=torch.zeros(2, states, 6, dtype=torch.float64),
        start=torch.full((states,), 1 / states, dtype=torch.float64),
        choices=(2, 3),
        horizon=10,
        play=play / play.sum(-1, keepdim=True),
    )
    demos = record(game, Scripted(game, tabular.expert), 60, source)
    least = conditional_entropy(demos)
    policy = fit(demos)
    assert least - 1e-5 < loss_on(policy, demos) < least + 1e-3
    params, _ = policy.params(game_views(states), torch.zeros(states, 1, 2, dtype=torch.long))
    seen, moves = (torch.cat([x(e) for e in demos]) for x in (lambda e: e.obs[:-1, 0].argmax(-1), lambda e: e.actions))
    for state in range(states):
        frequency = torch.bincount(moves[seen == state, 1], minlength=3) / (seen == state).sum()
        torch.testing.assert_close(params[state, 0, 1].softmax(-1), frequency, atol=0.02, rtol=0)


def game_views(states):
    return View(torch.eye(states).reshape(states, 1, 1, states).expand(-1, -1, 2, -1))


def test_a_clone_of_real_numbers_reaches_their_entropy():
    spec = EnvSpec(agents=2, obs=1, action=Continuous(2, -9.0, 9.0), roles=("a", "b"))
    actions = torch.randn(400, 2, 2, generator=generator(2)) * torch.tensor([0.3, 1.0]) + torch.tensor([[1.0], [-2.0]])
    demos = single_steps(spec, actions)
    least = 0.5 * (2 * math.pi * math.e * actions.var(0, correction=0)).log().sum(-1).mean().item()
    assert least - 1e-4 < loss_on(fit(demos), demos) < least + 1e-2


STEPS = 12


def echoing():
    """Plays the bit that it saw the step before, 0 at first."""
    spec = EnvSpec(agents=2, obs=1, action=Discrete(2))
    bits = torch.randint(2, (64, STEPS + 1, 2), generator=generator(3))
    moves = torch.cat([torch.zeros(64, 1, 2, dtype=torch.long), bits[:, : STEPS - 1]], dim=1)
    return Demos.from_episodes(spec, [Episode(b[..., None].float(), m) for b, m in zip(bits, moves, strict=True)])


def alternating():
    """Begins with either move, each by itself, then alternates; there is nothing to see."""
    spec = EnvSpec(agents=2, obs=1, action=Discrete(2))
    first = torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]]).repeat(8, 1)
    moves = (first.unsqueeze(1) + torch.arange(STEPS).reshape(1, -1, 1)) % 2
    return Demos.from_episodes(spec, [Episode(torch.ones(STEPS + 1, 2, 1), m) for m in moves])


BLIND = math.log(2)  # half of each move, whatever is seen
ECHO_BLIND = -sum(p * math.log(p) for p in (0.5 - 0.5 / STEPS, 0.5 + 0.5 / STEPS))  # the first move is always 0


@pytest.mark.parametrize(
    ("demos", "net", "nats"),
    [
        (echoing, SMALL, ECHO_BLIND),
        (echoing, replace(SMALL, own_action=True), BLIND * (1 - 1 / STEPS)),
        (echoing, replace(SMALL, frames=2), 0.0),
        (echoing, replace(SMALL, body="gru"), 0.0),
        (alternating, SMALL, BLIND),
        (alternating, replace(SMALL, frames=3), BLIND),
        (alternating, replace(SMALL, own_action=True), BLIND / STEPS),
        (alternating, replace(SMALL, body="gru", own_action=True), BLIND / STEPS),
    ],
)
def test_what_lies_in_the_past_is_learnt_by_those_who_have_one(demos, net, nats):
    """Only the first move of the alternating ones is open: log 2 nats in one of all steps."""
    demos = demos()
    assert loss_on(fit(demos, net, window=STEPS, burn_in=0, steps=100), demos) == pytest.approx(nats, abs=0.02)


def test_windows_that_begin_in_the_middle_teach_what_the_past_tells():
    """With the first steps of such windows left out of the loss, half as long a window is enough."""
    demos = echoing()
    policy = fit(demos, replace(SMALL, body="gru"), window=STEPS // 2, burn_in=2, steps=100)
    assert loss_on(policy, demos) < 0.02


def test_episodes_count_by_their_weights():
    """Moves 0, 1, 2 in 10, 20 and 30 episodes of weight 3, 1 and 0: chances 3/5, 2/5 and none."""
    moves = torch.tensor([0] * 10 + [1] * 20 + [2] * 30)
    spec = EnvSpec(agents=2, obs=1, action=Discrete(3))
    demos = single_steps(spec, torch.stack([moves, moves], dim=-1))
    policy = fit(demos.reweighted(torch.tensor([3.0, 1.0, 0.0])[moves]))
    params, _ = policy.params(View(torch.ones(1, 1, 2, 1)), torch.zeros(1, 1, 2, dtype=torch.long))
    torch.testing.assert_close(params[0, 0, 0].softmax(-1), torch.tensor([0.6, 0.4, 0.0]), atol=0.02, rtol=0)


@pytest.mark.parametrize("strength", [0.0, 0.5, 2.0])
def test_weighing_by_return_leans_towards_the_better_episodes(strength):
    """Returns of -1 and 1 in equal shares, so z = -1 and 1: chance of the better move sigmoid(2 strength)."""
    moves = torch.tensor([0, 1]).repeat(20)
    spec = EnvSpec(agents=2, obs=1, action=Discrete(2))
    rewards = (2.0 * moves - 1).reshape(-1, 1, 1).expand(-1, 1, 2)
    demos = single_steps(spec, torch.stack([moves, moves], dim=-1), rewards=rewards)
    policy = fit(demos, by_return=strength)
    better = policy.log_prob(View(torch.ones(1, 1, 2, 1)), torch.ones(1, 1, 2, dtype=torch.long)).exp()
    torch.testing.assert_close(better, torch.full_like(better, 1 / (1 + math.exp(-2 * strength))), atol=0.02, rtol=0)


def test_weights_by_return_multiply_the_episodes_own():
    spec = EnvSpec(agents=1, obs=1, action=Discrete(2))
    demos = single_steps(
        spec, torch.zeros(3, 1, dtype=torch.long), rewards=torch.tensor([0.0, 1.0, 5.0]).reshape(3, 1, 1)
    )
    weighed = bc.weigh_by_return(demos.reweighted([2.0, 1.0, 1.0]), 0.7).weights
    z = (np.array([0.0, 1.0, 5.0]) - 2) / np.sqrt(14 / 3)
    expected = np.array([2.0, 1.0, 1.0]) * np.exp(0.7 * z)
    np.testing.assert_allclose(weighed, expected / expected.mean(), rtol=1e-6)


# ---- the loss


def random_part(spec, source, envs=5, steps=7):
    """A segment with every mask and weight, whose absent agents do what is not legal."""
    choices = spec.action.choices
    legal = torch.rand(envs, steps, spec.agents, choices, generator=source) < 0.6
    present = torch.rand(envs, steps, spec.agents, generator=source) < 0.7
    actions = torch.randint(choices, (envs, steps, spec.agents), generator=source)
    legal.scatter_(-1, actions.unsqueeze(-1), present.unsqueeze(-1))
    legal[~legal.any(-1)] = True
    obs = torch.randn(envs, steps, spec.agents, spec.obs, generator=source, dtype=torch.float64)
    starts = torch.zeros(envs, steps, dtype=torch.bool)
    starts[::2, 0] = True
    return Segment(
        view=View(obs, legal, present),
        actions=actions,
        starts=starts,
        valid=torch.arange(steps) < torch.randint(2, steps + 1, (envs, 1), generator=source),
        weight=torch.rand(envs, 1, generator=source, dtype=torch.float64).expand(envs, steps),
    )


def slow_loss(policy, part, burn_in):
    """-log pi step by step in NumPy: one agent, one member, one layer of weights after another."""
    x = part.obs.numpy()
    total = weights = 0.0
    bodies = [[(m.weight.detach().numpy(), m.bias.detach().numpy()) for m in b.layers] for b in policy.bodies]
    outs = [(o.weight.detach().numpy(), o.bias.detach().numpy()) for o in policy.outs]
    for e, t, a in np.ndindex(*x.shape[:3]):
        counts = bool(part.valid[e, t]) and bool(part.view.present[e, t, a])
        counts = counts and int(part.view.legal[e, t, a].sum()) > 1  # a forced move is no evidence
        if burn_in is not None:
            counts = counts and (bool(part.starts[e, 0]) or t >= burn_in)
        if not counts:
            continue
        mean = 0.0
        for layers, (w_out, b_out) in zip(bodies, outs, strict=True):
            h = x[e, t, a]
            for w, b in layers:
                h = np.tanh(w[a] @ h + b[a])
            logits = (w_out[a] @ h + b_out[a])[part.view.legal[e, t, a].numpy()]
            own = (w_out[a] @ h + b_out[a])[part.actions[e, t, a]]
            mean += (own - np.log(np.exp(logits - logits.max()).sum()) - logits.max()) / len(outs)
        weight = float(part.weight[e, t])
        total, weights = total - weight * mean, weights + weight
    return total / weights


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("members", [1, 3])
def test_the_loss_agrees_with_adding_up_one_step_after_another(seed, members):
    source, spec = generator(seed, "twin"), EnvSpec(agents=3, obs=4, action=Discrete(3))
    policy = build_policy(NetConfig(hidden=6, share="none", members=members), spec, source).double()
    for out in policy.outs:
        out.weight.data.mul_(100)
    part = random_part(spec, source)
    assert bc.clone_loss(policy, part, bc.Config(), source).item() == pytest.approx(
        slow_loss(policy, part, None), abs=1e-10
    )
    # a past that is there but weighs nothing: the first steps of a window that begins in the middle do not count
    config = bc.Config(net=NetConfig(frames=2), window=7, burn_in=3)
    assert bc.clone_loss(policy, part, config, source).item() == pytest.approx(slow_loss(policy, part, 3), abs=1e-10)


def test_absent_agents_padding_and_burnt_in_steps_get_no_gradient():
    source, spec = generator(7), EnvSpec(agents=3, obs=4, action=Discrete(3))
    config = bc.Config(net=NetConfig(body="gru", hidden=8), window=7, burn_in=3)
    policy, part = build_policy(config.net, spec, source).double(), random_part(spec, source)
    params = []

    def keep(module, inputs, output):
        output.retain_grad()
        params.append(output)

    policy.outs[0].register_forward_hook(keep)
    bc.clone_loss(policy, part, config, source).backward()
    learnt = params[0].grad.abs().sum(-1) > 0  # [env, time, agent]
    late = part.starts[:, :1] | (torch.arange(7) >= 3)
    choice = part.view.legal.sum(-1) > 1  # who has but one move learns nothing from it
    assert torch.equal(learnt, (part.valid & late).unsqueeze(-1) & part.view.present & choice)


@pytest.mark.parametrize("action", [Discrete(3), MultiDiscrete((2, 2))], ids=["discrete", "multi"])
def test_what_absent_agents_are_said_to_have_done_changes_nothing(action):
    """Not even where it was against the rules several times over."""
    spec = EnvSpec(agents=2, obs=1, action=action)
    policy = build_policy(NetConfig(hidden=8, members=3), spec, generator(0))
    shape = (2, 1, 2) if isinstance(action, Discrete) else (2, 1, 2, 2)
    legal = torch.zeros(2, 1, 2, 3 if isinstance(action, Discrete) else 4, dtype=torch.bool)
    legal[..., 0] = legal[..., 2] = True
    present = torch.tensor([[[True, False]], [[False, True]]])
    view = View(torch.randn(2, 1, 2, 1, generator=generator(1)), legal, present)
    losses = []
    for move in (0, 1):
        done = torch.zeros(shape, dtype=torch.long)
        done[~present] = move
        loss = bc.clone_loss(policy, Segment(view, done), bc.Config(), generator(0))
        policy.zero_grad()
        loss.backward()
        assert all(p.grad.isfinite().all() for p in policy.parameters())
        losses.append(loss.item())
    assert losses[0] == losses[1] and math.isfinite(losses[0])


def test_members_learn_each_as_if_they_were_alone():
    source, spec = generator(8), EnvSpec(agents=2, obs=4, action=Discrete(3))
    crew = build_policy(NetConfig(hidden=6, members=2), spec, source).double()
    part = random_part(spec, source)
    bc.clone_loss(crew, part, bc.Config(), source).backward()
    for number in range(2):
        alone = build_policy(NetConfig(hidden=6), spec, source).double()
        alone.bodies[0].load_state_dict(crew.bodies[number].state_dict())
        alone.outs[0].load_state_dict(crew.outs[number].state_dict())
        bc.clone_loss(alone, part, bc.Config(), source).backward()
        for mine, theirs in ((alone.bodies[0], crew.bodies[number]), (alone.outs[0], crew.outs[number])):
            for p, q in zip(mine.parameters(), theirs.parameters(), strict=True):
                torch.testing.assert_close(p.grad / 2, q.grad)


# ---- when to stop


def noisy_signs(episodes):
    """Moves by the sign of the first of eight numbers, three in ten of them turned round."""
    spec, source = EnvSpec(agents=1, obs=8, action=Discrete(2)), generator(9)
    obs = torch.randn(episodes, 2, 1, 8, generator=source)
    flipped = torch.rand(episodes, 1, generator=source) < 0.3
    return single_steps(spec, ((obs[:, 0, :, 0] > 0) ^ flipped).long(), obs=obs)


def test_the_weights_that_made_the_held_out_episodes_likeliest_are_kept():
    demos, draws = noisy_signs(120), generator(10)
    config = bc.Config(net=NetConfig(hidden=64), batch=64, rate=3e-3, held_out=0.25, patience=6, steps=4, limit=5000)
    state, looks = bc.init(config, demos, None, draws), []
    while not bc.finished(config, state):
        looks.append(bc.update(config, state, demos, None, draws)["held_out"].item())
    assert state.position < config.limit
    best = min(range(len(looks)), key=looks.__getitem__)
    assert best > 0 and len(looks) - 1 - best == config.patience
    _, held = bc._parts(demos, config, state.seed)
    assert len(held) == 30
    assert loss_on(bc.result(state), held) == pytest.approx(looks[best], abs=1e-6)
    assert loss_on(state.policy, held) > looks[best] + 0.02  # it went on to learn the noise by heart


def test_a_run_that_ends_before_its_first_look_gives_what_it_has_learnt():
    demos, config, draws = noisy_signs(400), bc.Config(net=SMALL, batch=8, steps=5), generator(11)
    state = bc.init(config, demos, None, draws)
    fresh = loss_on(bc.result(state), demos)
    bc.update(config, state, demos, None, draws)
    assert math.isinf(state.best_loss)  # a pass is 45 minibatches
    assert loss_on(bc.result(state), demos) < fresh


def test_three_episodes_are_all_learnt_from_and_the_latest_weights_kept():
    demos, config, draws = noisy_signs(3), bc.Config(net=SMALL, steps=1, limit=30, rate=1e-2), generator(12)
    state, looks = bc.init(config, demos, None, draws), []
    while not bc.finished(config, state):
        looks.append(bc.update(config, state, demos, None, draws)["held_out"].item())
    assert state.position == 30 and all(math.isnan(x) for x in looks)
    assert loss_on(bc.result(state), demos) == loss_on(state.policy, demos) < 0.3


@pytest.mark.parametrize("seed", range(6))
def test_episodes_of_one_name_are_never_parted_and_one_stands_for_them(seed):
    """An episode and its mirror images: held out of learning together, or the held-out likelihood flatters."""
    plain = list(noisy_signs(20))
    names = ["a", "b", "c", "d"] * 4 + [""] * 4  # four families of four; an episode without a name is one by itself
    told = [replace(e, name=name, info={"number": n}) for n, (e, name) in enumerate(zip(plain, names, strict=True))]
    demos = Demos.from_episodes(noisy_signs(1).spec, told)
    learnt, held = bc._parts(demos, bc.Config(held_out=0.5), seed)
    assert not {name for name in learnt.names if name} & set(held.names)
    assert len(held) == 4, "half of eight families, each by its first episode"
    families = {info["number"] for name, info in zip(held.names, held.infos, strict=True) if name}
    assert families <= {0, 1, 2, 3}
    away = 4 * sum(name != "" for name in held.names) + sum(name == "" for name in held.names)
    assert len(learnt) == 20 - away
    assert not {i["number"] for i in learnt.infos} & {i["number"] for i in held.infos}


def test_what_is_seen_is_normalised_by_the_episodes_learnt_from():
    demos, config = noisy_signs(100), bc.Config(net=SMALL, held_out=0.5)
    state = bc.init(config, demos, None, generator(13))
    train, _ = bc._parts(demos, config, state.seed)
    seen = torch.cat([e.obs[:-1] for e in train]).flatten(0, 1)
    torch.testing.assert_close(state.policy.normaliser.mean, seen.mean(0))
    torch.testing.assert_close(state.policy.normaliser.std, seen.std(0, correction=0))


def test_a_rate_that_decays_rises_and_ends_near_nothing():
    config = bc.Config(net=SMALL, decay=True, rate=0.1, limit=120, steps=10, batch=64, held_out=0.0)
    demos, draws, rates = noisy_signs(50), generator(15), []
    state = bc.init(config, demos, None, draws)
    while not bc.finished(config, state):
        bc.update(config, state, demos, None, draws)
        rates.append(state.optimizer.param_groups[0]["lr"])
    done = torch.tensor([9.0, 59.0, 119.0]).double() / 120  # float32 is coarse beside pi
    cosine = 0.05 * (1 + (math.pi * done).cos()) * torch.tensor([1 / 3, 1.0, 1.0])
    assert [rates[0], rates[5], rates[11]] == pytest.approx(cosine.tolist(), rel=1e-6)


# ---- refusals


def test_settings_that_cannot_learn_are_refused():
    for name in ("batch", "window", "steps", "limit", "patience"):
        with pytest.raises(ConfigError, match=f"{name}: got 0"):
            bc.Config(**{name: 0, "burn_in": 0})
    with pytest.raises(ConfigError, match="held_out: got 1"):
        bc.Config(held_out=1.0)
    with pytest.raises(ConfigError, match="burn_in: got 8 of a window of 8"):
        bc.Config(window=8, burn_in=8)


def test_nothing_to_learn_from_is_refused():
    with pytest.raises(DemosError, match="give it a recording"):
        bc.init(bc.Config(), None, None, generator(0))
    with pytest.raises(DemosError, match="no rewards"):
        bc.init(bc.Config(by_return=1.0), echoing(), None, generator(0))


def test_dropout_hides_from_the_learner_alone():
    demos = noisy_signs(50)
    config = bc.Config(net=NetConfig(hidden=32, dropout=0.5))
    state = bc.init(config, demos, None, generator(14))
    state.policy.outs[0].weight.data.mul_(100)
    part = tree_map(lambda x: x.unsqueeze(1), demos.batch(0, 50, 0))
    losses = {bc.clone_loss(state.policy, part, config, generator(s)).item() for s in range(3)}
    assert len(losses) == 3
    assert loss_on(state.policy, demos) == loss_on(state.policy, demos)
