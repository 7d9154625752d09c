"""What each method descends on, or pays, against slow twins in NumPy: losses, gradients to 1e-8, in double precision.

Of `dagger`, `maxent`, `iq` and `ppo` the twins stand in their own tests.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch

from understudy import api
from understudy.algorithms import adversary, bc, blades, gmmil, maairl, magail, malice, matching, ppo, pwil, sqil
from understudy.core.random import generator
from understudy.core.tree import tree_map
from understudy.core.types import Continuous, Discrete, EnvSpec, Segment, View
from understudy.envs import tabular
from understudy.envs.particles import Navigation
from understudy.maths import games
from understudy.maths.adversarial import ends_logits
from understudy.nets import NetConfig, build_policy
from understudy.nets.discriminators import JudgeConfig
from understudy.nets.soft_q import SoftQ
from understudy.nets.tables import log_table
from understudy.rollout import Queried, play

LINEAR = NetConfig(layers=0)
LEARNER = ppo.Config(envs=4, segment=4, net=LINEAR, value_hidden=8, max_grad_norm=1e9)


def expect_gradients(parameters, loss, step=1e-5):
    """That `.grad` of each of them is the central difference of `loss(arrays)`."""
    arrays = [p.detach().numpy().copy() for p in parameters]
    for number, parameter in enumerate(parameters):
        for index in np.ndindex(arrays[number].shape):
            ends = []
            for sign in (1, -1):
                moved = [a.copy() for a in arrays]
                moved[number][index] += sign * step
                ends.append(loss(moved))
            assert parameter.grad[index].item() == pytest.approx((ends[0] - ends[1]) / (2 * step), abs=1e-8)


def softplus(x):
    return np.logaddexp(0, x)


def log_softmax(x):
    return x - np.log(np.exp(x - x.max(-1, keepdims=True)).sum(-1, keepdims=True)) - x.max(-1, keepdims=True)


# ---- cloning


@pytest.mark.parametrize("action", [Discrete(3), Continuous(2, -9.0, 9.0)], ids=["discrete", "gaussian"])
def test_bc(action):
    source, spec = generator(0), EnvSpec(agents=2, obs=3, action=action)
    policy = build_policy(LINEAR, spec, source).double()
    obs = torch.randn(6, 2, 2, 3, generator=source, dtype=torch.float64)
    drawn = torch.randn(6, 2, 2, 2, generator=source, dtype=torch.float64)
    acted = drawn if isinstance(action, Continuous) else torch.randint(3, (6, 2, 2), generator=source)
    weight = torch.rand(6, 1, generator=source, dtype=torch.float64).expand(6, 2)
    part = Segment(View(obs), acted, weight=weight, valid=torch.ones(6, 2, dtype=torch.bool))
    loss = bc.clone_loss(policy, part, bc.Config(), source)
    loss.backward()

    def slow(arrays):
        weights, biases = arrays
        logits = obs.numpy() @ weights[0].T + biases[0]
        if isinstance(action, Discrete):
            each = np.take_along_axis(log_softmax(logits), acted.numpy()[..., None], -1)[..., 0]
        else:
            mean, log_std = logits[..., :2], logits[..., 2:]
            z = (acted.numpy() - mean) / np.exp(log_std)
            each = (-0.5 * z**2 - log_std - 0.5 * np.log(2 * np.pi)).sum(-1)
        w = np.broadcast_to(weight.numpy()[..., None], each.shape)
        return -(w * each).sum() / w.sum()

    out = policy.outs[0]
    assert loss.item() == pytest.approx(slow([out.weight.detach().numpy(), out.bias.detach().numpy()]), abs=1e-8)
    expect_gradients([out.weight, out.bias], slow)


# ---- discriminators


def sides(module, **settings):
    """A discriminator that is linear in what it sees, its demonstrations, and a learner's steps."""
    env = Navigation(horizon=8)
    demos = api.record(env, episodes=6)
    config = module.Config(start="fresh", batch=24, learner=LEARNER, **settings)
    state = module.init(config, demos, env, generator(1))
    played = play(env, state.policy, 6, generator(2))
    if module is maairl:
        with torch.no_grad():
            played = replace(played, labels={"log_prob": state.policy.log_prob(played.view, played.actions)})
    return config, state, demos, adversary.side_of(played, torch.tensor(0.3), 48, generator(3))


def drawn(config, pool, demos, state, draws):
    """The batches and the points between them that `discriminate` draws next."""
    theirs = demos.batch(0, config.batch, state.seed)
    rows = torch.randint(len(pool.gone), (config.batch,), generator=draws)
    share = torch.rand(min(config.batch, len(theirs.obs)), 1, 1, generator=draws, dtype=torch.float64).numpy()
    return theirs, tree_map(lambda x: x[rows], pool.steps), share


def penalty_of(weights, free):
    """Of a function that is linear in its inputs: its slope is the length of its weights, wherever it is asked."""
    return np.maximum(0, np.sqrt((weights**2).sum() + 1e-12) - free) ** 2


@pytest.mark.parametrize("sees", ["own", "joint"])
def test_magail(sees):
    config, state, demos, pool = sides(
        magail, judge=JudgeConfig(sees=sees, layers=0), penalty=0.7, slope=0.05, symmetric=False
    )
    judge = state.judge.double()
    judge.net.last.weight.data.mul_(20)
    theirs, ours, _ = drawn(config, pool, demos, state, generator(4))
    x, y = (judge.inputs(side.view, side.actions).detach().numpy() for side in (theirs, ours))
    start = [p.detach().clone() for p in judge.parameters()]
    state.judge_optimizer = torch.optim.SGD(judge.parameters(), lr=0.0)
    told = magail.discriminate(config, state, demos, pool, generator(4))

    def slow(arrays):
        w, b = arrays
        expert, learner = x @ w[0, 0] + b[0, 0], y @ w[0, 0] + b[0, 0]
        return 0.5 * softplus(-expert).mean() + 0.5 * softplus(learner).mean() + 0.7 * penalty_of(w[0, 0], 0.05)

    loss = told["discriminator/loss"] + told["discriminator/penalty"]
    assert loss.item() == pytest.approx(slow([p.numpy() for p in start]), abs=1e-8)
    expect_gradients([judge.net.last.weight, judge.net.last.bias], slow)


def test_magail_where_slopes_change_with_what_is_seen_and_some_are_away():
    config, state, demos, pool = sides(
        magail, judge=JudgeConfig(sees="own", hidden=2, layers=1), penalty=0.7, slope=0.05, symmetric=False
    )
    judge = state.judge.double()
    away = torch.rand(len(pool.gone), 3, generator=generator(9)) < 0.3
    pool = replace(pool, steps=replace(pool.steps, view=replace(pool.steps.view, present=~away)))
    theirs, ours, share = drawn(config, pool, demos, state, generator(4))
    x, y = (judge.inputs(side.view, side.actions).detach().numpy() for side in (theirs, ours))
    there = ours.view.present.numpy()
    parts = [p for layer in (judge.net.hidden[0], judge.net.last) for p in (layer.weight, layer.bias)]
    start = [p.detach().numpy().copy() for p in parts]
    state.judge_optimizer = torch.optim.SGD(judge.parameters(), lr=0.0)
    told = magail.discriminate(config, state, demos, pool, generator(4))

    def slow(arrays):
        w, b, v, c = (a[0] for a in arrays)

        def judged(seen):
            return np.tanh(seen @ w.T + b) @ v[0] + c[0]

        mixed = x + share * (y - x)
        slope = ((1 - np.tanh(mixed @ w.T + b) ** 2) * v[0]) @ w
        steep = np.maximum(0, np.sqrt((slope**2).sum(-1) + 1e-12) - 0.05) ** 2
        learner = (softplus(judged(y)) * there).sum() / there.sum()
        return 0.5 * softplus(-judged(x)).mean() + 0.5 * learner + 0.7 * steep.mean()

    loss = told["discriminator/loss"] + told["discriminator/penalty"]
    assert 0.5 < there.mean() < 0.9
    assert loss.item() == pytest.approx(slow(start), abs=1e-8)
    expect_gradients(parts, slow)


def test_maairl():
    config, state, demos, pool = sides(
        maairl, judge=JudgeConfig(sees="own", layers=0), penalty=0.7, slope=0.05, contrast=0.0
    )
    f = state.shaped.double()
    for judge in (f.reward, f.potential):
        judge.net.last.weight.data.mul_(20)
    theirs, ours, _ = drawn(config, pool, demos, state, generator(4))
    theirs = maairl._scored(state.policy, theirs)
    of_play, _ = ends_logits(torch.tensor(0.4), torch.tensor(0.1))

    def seen(side):
        goes_on = (~side.terminated).double()[:, None, None]
        parts = (
            f.reward.inputs(side.view, side.actions),
            f.potential.inputs(side.view, side.actions),
            f.potential.inputs(side.next_view, side.actions),
        )
        return [p.detach().numpy() for p in parts], goes_on[..., 0].numpy(), side.labels["log_prob"].numpy()

    batches = [seen(side) for side in (theirs, ours)]
    state.judge_optimizer = torch.optim.SGD(f.parameters(), lr=0.0)
    told = maairl.discriminate(config, state, demos, pool, of_play, generator(4))

    def slow(arrays):
        wg, bg, wh, bh = (a[0, 0] for a in arrays)
        total = 0.7 * (penalty_of(wg, 0.0) + penalty_of(wh, 0.05))
        for sign, ((now, here, there), goes_on, log_pi) in zip((-1, 1), batches, strict=True):
            shaped = now @ wg + bg + config.learner.discount * goes_on * (there @ wh + bh) - (here @ wh + bh)
            total += 0.5 * softplus(sign * (shaped - log_pi - of_play.item())).mean()
        return total

    parts = [f.reward.net.last.weight, f.reward.net.last.bias, f.potential.net.last.weight, f.potential.net.last.bias]
    loss = told["discriminator/loss"] + 0.7 * told["discriminator/penalty"]
    assert any(bool((~goes_on.astype(bool)).any()) for _, goes_on, _ in batches)  # some of the games are over
    assert loss.item() == pytest.approx(slow([p.detach().numpy() for p in parts]), abs=1e-8)
    expect_gradients(parts, slow)


# ---- soft Q


def test_sqil():
    """Through the values: what a Q linear in the observation says of the demonstrators' steps and of play."""
    source = generator(0)
    spec = EnvSpec(agents=2, obs=3, action=Discrete(3))
    soft, old = (SoftQ(LINEAR, spec, "none", generator(seed)).double() for seed in (1, 2))
    rest, discount, reward = torch.tensor([0.4, -0.2]).double(), 0.9, 1.5

    def part():
        obs, following = torch.randn(2, 7, 1, 2, 3, generator=source, dtype=torch.float64)
        over = torch.rand(7, 1, generator=source) < 0.4
        moves = torch.randint(3, (7, 1, 2), generator=source)
        return Segment(View(obs), moves, None, over, ~over, View(following), torch.ones_like(over))

    parts, valued = [part(), part()], []
    for each in parts:
        with torch.no_grad():
            after = old.value(each, rest, source).after
        valued.append(replace(soft.value(each, rest, source), after=after))
    loss = sqil.sqil_loss(*valued, discount, reward)
    loss.backward()
    fixed = [p.detach().numpy() for p in (old.policy.outs[0].weight, old.policy.outs[0].bias)]

    def slow(arrays):
        total = 0.0
        for each, paid in zip(parts, (reward, 0.0), strict=True):
            q = each.obs.numpy() @ arrays[0][0].T + arrays[1][0]
            q = np.take_along_axis(q, each.actions.numpy()[..., None], -1)[..., 0]
            ahead = np.exp(each.next_view.obs.numpy() @ fixed[0][0].T + fixed[1][0]).sum(-1)
            ahead = np.where(each.terminated.numpy()[..., None], rest.numpy(), np.log(ahead))
            total += 0.5 * ((q - paid - discount * ahead) ** 2).mean()
        return total

    out = soft.policy.outs[0]
    assert loss.item() == pytest.approx(slow([out.weight.detach().numpy(), out.bias.detach().numpy()]), abs=1e-8)
    expect_gradients([out.weight, out.bias], slow)


# ---- regret


@pytest.mark.parametrize("module", [malice, blades])
def test_malice_and_blades(module):
    """Minus the log-likelihood of what was told, each state weighing as deviations have visited it."""
    env = tabular.thicket(path=2, off=3, horizon=6, slip=0.3)
    asked = Queried(env, api.expert_of(env), "its own") if module is blades else env
    config = module.Config(net=LINEAR, steps=1, max_grad_norm=1e9)
    demos = api.record(env, episodes=6)
    state = module.init(config, demos, asked, generator(1))
    for _ in range(2):
        module.update(config, state, demos, asked, generator(2))
    told = state.told if module is blades else malice._told(demos, env)
    policy, choices, visits = state.policy.double(), env.choices, state.visits.numpy()
    policy.zero_grad()
    loss = games.visited_loss(log_table(policy, choices, env.spec.obs, torch.float64), told, state.visits)
    loss.backward()

    def slow(arrays):
        each = [
            log_softmax(np.eye(5) @ arrays[0][i].T + arrays[1][i]) for i in range(2)
        ]  # of each agent: [state, move]
        counts = told.numpy()
        covered = counts.sum(-1) > 0
        total = 0.0
        for s in np.flatnonzero(covered):
            for joint, said in enumerate(counts[s]):
                likely = each[0][s, joint // 3] + each[1][s, joint % 3]
                total -= visits[s] / visits[covered].sum() * said / counts[s].sum() * likely
        return total

    out = policy.outs[0]
    assert loss.item() == pytest.approx(slow([out.weight.detach().numpy(), out.bias.detach().numpy()]), abs=1e-8)
    expect_gradients([out.weight, out.bias], slow)


# ---- kernels and transport: no loss of their own, so what they pay


def matched(module, match):
    """Demonstrators' points in double precision, and a segment of play in which games end and begin."""
    env = Navigation(horizon=8)
    demos = api.record(env, episodes=5)
    config = module.Config(match=match, start="fresh", learner=LEARNER)
    state = module.init(config, demos, env, generator(1))
    state.points = tree_map(lambda x: x.double(), state.points)
    played = play(env, state.learner.policy, 4, generator(2))
    over = torch.zeros(4, 8, dtype=torch.bool)
    over[:2, 3] = True
    played = replace(played, terminated=over, starts=torch.roll(over, 1, 1) | (torch.arange(8) == 0))
    raw = matching.features(match, env.spec, played).double()
    return env, config, state, played, ((raw - state.points.mean) / state.points.std).numpy()


@pytest.mark.parametrize("match", ["own", "joint"])
def test_gmmil(match):
    env, config, state, played, x = matched(gmmil, match)
    everybody = torch.ones(played.obs.shape[:3], dtype=torch.bool)
    played = replace(played, view=View(played.obs.double(), present=everybody))
    gone = torch.tensor(0.2)
    rewards, _ = gmmil.rewards_of(config, state, env, played, gone, generator(3))
    there, weight = state.points.at.numpy(), state.points.weight.numpy()
    ours, squares = x.reshape(-1, *x.shape[2:]), state.squares.numpy()
    expert_gone, end = state.points.gone.item(), config.learner.discount / (1 - config.learner.discount)
    for e, t, who in np.ndindex(*x.shape[:3]):

        def like(point, at=x[e, t, who], square=squares[who]):
            return np.exp(-((at - point) ** 2).sum() / square).mean()

        close = sum(w * like(p) for p, w in zip(there[:, who], weight[:, who], strict=True))
        others = [like(p) for k, p in enumerate(ours[:, who]) if k != e * 8 + t]  # not compared with itself
        meant = (1 - expert_gone) * close - (1 - gone.item()) * np.mean(others)
        meant += bool(played.terminated[e, t]) * (expert_gone - gone.item()) * end
        agent = slice(None) if match == "joint" else who
        np.testing.assert_allclose(rewards[e, t, agent].numpy(), meant, atol=1e-8)


@pytest.mark.parametrize("match", ["own", "joint"])
def test_pwil(match):
    env, config, state, played, x = matched(pwil, match)
    state.left = pwil.places(state.points).expand(4, -1, -1).clone()
    played = replace(played, view=View(played.obs.double()))
    rewards, _ = pwil.rewards_of(config, state, env, played, torch.zeros(4, dtype=torch.long), 8)
    points, discount = state.points, config.learner.discount
    at, places, moving = points.at.numpy(), pwil.places(points).numpy(), points.moving.numpy()
    for e, who in np.ndindex(4, x.shape[2]):
        for t in range(8):
            if played.starts[e, t]:
                left, age = places[who].copy(), 0
            far = np.sqrt(((x[e, t, who] - at[:, who]) ** 2).sum(-1))
            mass, cost = 1 / 8, 0.0
            for j in np.argsort(far, kind="stable"):
                moved = min(mass, left[j])
                mass, cost, left[j] = mass - moved, cost + moved * far[j], left[j] - moved
            pay = 0.0 if mass > 1e-4 / 8 else config.alpha * np.exp(-config.beta * 8 / np.sqrt(moving[who]) * cost)
            if played.terminated[e, t]:
                remain = 7 - age
                rest = config.alpha * min(1.0, points.gone.item() * 8 / max(1, remain)) if remain else pay
                pay += rest * discount / (1 - discount)
            age += 1
            found = rewards[e, t, slice(None) if match == "joint" else who].numpy()
            np.testing.assert_allclose(found, pay, atol=2e-5)  # what is left of a place counts down to 1e-4 of a step
