"""The learner climbs what it is said to climb, values what follows and no more, and finds what is best."""

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from understudy.algorithms import ppo
from understudy.core.errors import ConfigError
from understudy.core.random import generator
from understudy.core.tree import tree_leaves
from understudy.core.types import Discrete, EnvSpec, Segment, View
from understudy.envs import tabular
from understudy.envs.particles import Navigation
from understudy.nets import NetConfig, Values, build_policy
from understudy.rollout import Uniform, begin, collect, play

NET = NetConfig(hidden=16, layers=1)
QUICK = ppo.Config(envs=32, segment=8, minibatches=1, rate=2e-2, net=NET, value_hidden=16)


def learn(env, updates, seed=0, **settings):
    config, draws = replace(QUICK, **settings), generator(seed, "train")
    state = ppo.init(config, None, env, draws)
    stats = [ppo.update(config, state, None, env, draws) for _ in range(updates)]
    return state, stats


# ---- what is climbed


def test_the_gain_is_cut_off_where_it_would_reward_going_further():
    ratio, advantages = torch.tensor([1.5, 0.5, 1.5, 0.5, 1.0]), torch.tensor([1.0, 1.0, -1.0, -1.0, 3.0])
    log_ratio = ratio.log().requires_grad_()
    gain = ppo.clipped_gain(log_ratio, advantages, 0.2)
    torch.testing.assert_close(gain, torch.tensor([1.2, 0.5, -1.5, -0.8, 3.0]))
    gain.sum().backward()
    torch.testing.assert_close(log_ratio.grad, torch.tensor([0.0, 0.5, -1.5, 0.0, 3.0]))


def test_the_gain_agrees_with_the_papers_equation_one_number_after_another():
    log_ratio, advantages = (torch.randn(500, generator=generator(s), dtype=torch.float64) for s in (0, 1))
    for clip in (0.1, 0.2, 0.5):
        slow = [
            min(math.exp(x) * a, min(max(math.exp(x), 1 - clip), 1 + clip) * a)
            for x, a in zip(log_ratio.tolist(), advantages.tolist(), strict=True)
        ]
        np.testing.assert_allclose(ppo.clipped_gain(log_ratio, advantages, clip), slow, rtol=1e-12)


def random_segment(spec, source, envs=4, steps=5):
    def view(*shape):
        obs = torch.randn(*shape, spec.agents, spec.obs, generator=source, dtype=torch.float64)
        legal = torch.rand(*shape, spec.agents, 3, generator=source) < 0.7
        legal[..., 0] = True
        present = torch.rand(*shape, spec.agents, generator=source) < 0.8
        return View(obs, legal, present)

    before, terminated = view(envs, steps), torch.rand(envs, steps, generator=source) < 0.2
    drawn = torch.rand(envs, steps, spec.agents, 3, generator=source).masked_fill(~before.legal, -1.0)
    return Segment(
        view=before,
        actions=drawn.argmax(-1),
        rewards=None,
        terminated=terminated,
        truncated=~terminated & (torch.rand(envs, steps, generator=source) < 0.2),
        next_view=view(envs, steps),
        starts=torch.zeros(envs, steps, dtype=torch.bool),
    )


def slow_improve(config, policy, values, optimizer, played, rewards):
    """Two groups of plain gradient steps on the whole segment, every sum written out."""
    envs, steps, agents = rewards.shape
    with torch.no_grad():
        now, following = values(played.view), values(played.next_view)
        advantages = torch.zeros_like(rewards)
        for e in range(envs):
            for a in range(agents):
                for t in reversed(range(steps)):
                    over, cut, last = bool(played.terminated[e, t]), bool(played.truncated[e, t]), t == steps - 1
                    after = 0.0 if over else following[e, t, a] if cut or last else now[e, t + 1, a]
                    later = 0.0 if over or cut or last else advantages[e, t + 1, a]
                    error = rewards[e, t, a] + config.discount * after - now[e, t, a]
                    advantages[e, t, a] = error + config.discount * config.mix * later
        returns = advantages + now
        mean, std = returns.mean(), returns.std(correction=0)
        values.net.last.weight /= std  # the values' unit becomes the returns', and no value changes
        values.net.last.bias.sub_(mean).div_(std)
        for a in range(agents):
            there = played.view.present[..., a]
            own = advantages[..., a][there]
            advantages[..., a] = (advantages[..., a] - own.mean()) / own.std(correction=0)

    def log_probs():
        params, _ = policy.params(played.view, played.actions)
        return torch.where(played.view.legal, params, -math.inf).log_softmax(-1)

    old = log_probs().detach()
    for _ in range(config.passes):
        new, guess = log_probs(), values.normalised(values.normaliser(values.features(played.view)))
        loss, count = 0.0, int(played.view.present.sum())
        for e in range(envs):
            for t in range(steps):
                for a in range(agents):
                    target = (returns[e, t, a] - mean) / std
                    loss = loss + (guess[e, t, a] - target) ** 2 / (envs * steps * agents)
                    if not played.view.present[e, t, a]:
                        continue
                    move, gain = played.actions[e, t, a], advantages[e, t, a]
                    ratio = torch.exp(new[e, t, a, move] - old[e, t, a, move])
                    better = min(ratio * gain, ratio.clamp(1 - config.clip, 1 + config.clip) * gain)
                    legal = new[e, t, a][played.view.legal[e, t, a]]
                    loss = loss - (better - config.bonus * (legal.exp() * legal).sum()) / count
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@pytest.mark.parametrize("central", [True, False])
def test_an_improvement_agrees_with_adding_up_one_step_after_another(central):
    """Two passes, so that the second meets ratios beyond the clip; every weight afterwards, in double precision."""
    spec, results = EnvSpec(agents=2, obs=3, action=Discrete(3)), []
    config = replace(QUICK, envs=4, passes=2, minibatches=1, target_kl=0.0, bonus=0.1, max_grad_norm=1e9)
    for improve in (ppo.improve, slow_improve):
        source = generator(3, "twin")
        policy = build_policy(replace(NET, share="none"), spec, source).double()
        policy.outs[0].weight.data.mul_(100)
        values = Values(spec, source, central, hidden=8).double()
        optimizer = torch.optim.SGD([{"params": policy.parameters()}, {"params": values.parameters()}], lr=0.5)
        played = random_segment(spec, source)
        rewards = torch.randn(4, 5, 2, generator=source, dtype=torch.float64)
        chance = (source,) if improve is ppo.improve else ()
        improve(config, policy, values, optimizer, played, rewards, *chance)
        results.append(dict(policy.named_parameters()) | {"v" + k: v for k, v in values.named_parameters()})
    for name, weight in results[0].items():
        torch.testing.assert_close(weight, results[1][name], atol=1e-7, rtol=0, msg=lambda m, name=name: f"{name}: {m}")


def test_a_step_shortens_the_gradient_of_policies_and_values_each_by_itself():
    a, b = torch.nn.Parameter(torch.zeros(2)), torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([{"params": [a]}, {"params": [b]}], lr=1.0)
    ppo.descend(optimizer, (a * torch.tensor([30.0, 40.0])).sum() + 0.25 * b.sum(), max_norm=1.0)
    torch.testing.assert_close(a.data, torch.tensor([-0.6, -0.8]), atol=1e-5, rtol=0)
    torch.testing.assert_close(b.data, torch.tensor([-0.25]), atol=1e-5, rtol=0)


# ---- memory, absence


def test_minibatches_of_whole_envs_keep_each_memory_with_its_env():
    """Before any step the likelihoods are those of the play: bit for bit the same memory, ratio 1, no divergence."""
    env, source = tabular.two_rooms(agents=2, horizon=7), generator(4)
    policy = build_policy(replace(NET, body="gru", own_action=True), env.spec, source)
    policy.outs[0].weight.data.mul_(100)
    behaved, blended = [], policy._blended

    def watched(each, legal):
        behaved.append(blended(each, legal))
        return behaved[-1]

    _, live = collect(env, policy, begin(env, policy, 12, source), 4, source)  # into the middle of an episode
    policy._blended = watched
    played, _ = collect(env, policy, live, 10, source)
    del policy._blended
    acted = torch.stack(behaved, dim=1)
    params, _ = policy.params(played.view, played.actions, live.memory, played.starts)
    torch.testing.assert_close(params, acted, atol=1e-5, rtol=1e-5)
    forgetful, _ = policy.params(played.view, played.actions, (), played.starts)
    assert (forgetful - acted).abs().max() > 0.1

    config = replace(QUICK, envs=12, minibatches=5, passes=2, bonus=0.0)
    values = Values(env.spec, source, central=True, hidden=8)
    still = torch.optim.SGD([{"params": policy.parameters()}, {"params": values.parameters()}], lr=0.0)
    config = replace(config, target_kl=0.0)
    stats = ppo.improve(config, policy, values, still, played, played.rewards, source, memory=live.memory)
    assert stats["kl"].abs() < 1e-8  # of sums that were rounded otherwise
    assert stats["loss/policy"].abs() < 0.05  # the mean of normalised advantages, over minibatches of unequal size


def test_absent_agents_move_no_policy():
    """Agent 1 is never there: its own weights stay, and what it does or is paid changes no bit of agent 0's."""
    spec, results = EnvSpec(agents=2, obs=3, action=Discrete(3)), []
    for change in (False, True):
        source = generator(5)
        policy = build_policy(replace(NET, share="none"), spec, source)
        values = Values(spec, source, central=False, hidden=8, share="none")
        before = [p.detach().clone() for p in policy.parameters()]
        view = View(torch.randn(8, 5, 2, 3, generator=source), present=torch.tensor([True, False]).expand(8, 5, 2))
        actions = torch.randint(3, (8, 5, 2), generator=source)
        rewards, never = torch.randn(8, 5, 2, generator=source), torch.zeros(8, 5, dtype=torch.bool)
        if change:
            actions[..., 1] = (actions[..., 1] + 1) % 3
            rewards[..., 1] += 100
        played = Segment(view, actions, rewards, never, never, view, never)
        config = replace(QUICK, envs=8, minibatches=2)
        optimizer = ppo.make_optimizer(config, policy, values)
        ppo.improve(config, policy, values, optimizer, played, rewards, source)
        for old, new in zip(before, policy.parameters(), strict=True):
            assert torch.equal(old[1], new[1]) and not torch.equal(old[0], new[0])
        results.append([p.detach() for p in policy.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


# ---- values


@dataclass(frozen=True)
class Clock:
    """Pays 1 a step to whoever is there. `over`: the game ends after five steps; otherwise a time limit stops it."""

    over: bool
    leaves: int | None = None  # agent 1 is gone after so many steps, and is paid no more

    @property
    def spec(self):
        return EnvSpec(agents=2, obs=5, action=Discrete(2), horizon=5, roles=("stays", "leaves"))

    def reset(self, noise):
        return torch.zeros(len(noise), dtype=torch.long)

    def observe(self, state):
        return torch.nn.functional.one_hot(state.clamp(max=4), 5).float().unsqueeze(1).expand(-1, 2, -1)

    def present(self, state):
        gone = torch.zeros_like(state, dtype=torch.bool) if self.leaves is None else state >= self.leaves
        return torch.stack([torch.ones_like(gone), ~gone], dim=-1)

    def step(self, state, actions, noise):
        after = state + 1
        over = (after == 5) & self.over
        return after, self.present(state).float(), over


def values_by_age(state):
    ages = View(torch.eye(5).unsqueeze(1).expand(5, 2, 5))
    return state.values(ages).detach()


@pytest.mark.parametrize("central", [True, False])
def test_a_time_limit_ends_no_reward_and_the_end_of_a_game_does(central):
    """1 a step, discounted by 0.9: 10 for ever, 1 + 0.9 + ... where five steps are all."""
    settings = {"discount": 0.9, "envs": 16, "segment": 15, "central": central}
    state, stats = learn(Clock(over=True), 40, **settings)
    finite = torch.tensor([(1 - 0.9 ** (5 - age)) / 0.1 for age in range(5)])
    torch.testing.assert_close(values_by_age(state), finite.unsqueeze(-1).expand(5, 2), atol=0.01, rtol=0)
    assert stats[-1]["explained"] > 0.99
    state, _ = learn(Clock(over=False), 40, **settings)
    torch.testing.assert_close(values_by_age(state)[:4], torch.full((4, 2), 10.0), atol=0.4, rtol=0)


def test_who_leaves_has_nothing_to_expect():
    """Agent 1 is gone after two steps: 1.9, then 1, then nothing, though the game goes on."""
    state, _ = learn(Clock(over=True, leaves=2), 40, discount=0.9, envs=16, segment=15)
    torch.testing.assert_close(values_by_age(state)[:, 1], torch.tensor([1.9, 1.0, 0, 0, 0]), atol=0.01, rtol=0)


# ---- the learning rate


def test_the_learning_rate_follows_the_divergence_it_causes():
    config = ppo.Config(rate=1e-3, target_kl=0.01, rate_range=(8e-4, 2e-3))
    for kl, expected in ((0.021, 8e-4), (0.019, 1e-3), (0.006, 1e-3), (0.004, 1.5e-3)):
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1e-3)
        ppo._follow(config, optimizer, torch.tensor(kl))
        assert optimizer.param_groups[0]["lr"] == pytest.approx(expected)
    ppo._follow(config, optimizer, torch.tensor(0.0))
    assert optimizer.param_groups[0]["lr"] == pytest.approx(2e-3)
    ppo._follow(replace(config, target_kl=0.0), optimizer, torch.tensor(9.0))
    assert optimizer.param_groups[0]["lr"] == pytest.approx(2e-3)


def test_divergence_is_kept_near_what_is_meant():
    """From a rate a hundred times too high the updates come down to the target within a few of them."""
    game = tabular.matrix_game(torch.rand(2, 6, 6, generator=generator(6)), repeats=8)
    _, stats = learn(game, 12, rate=0.1, rate_range=(1e-5, 1.0), target_kl=0.01)
    rate = 0.1
    for row in stats:
        kl = float(row["kl"])
        rate = rate / 1.5 if kl > 0.02 else rate * 1.5 if kl < 0.005 else rate
        assert float(row["rate"]) == pytest.approx(min(rate, 1.0), rel=1e-5)


# ---- it finds what is best


def chances(state, game):
    """Each agent's chance of move 0 in every state."""
    count, agents = len(game.start), len(game.choices)
    view = View(torch.eye(count).reshape(count, 1, 1, count).expand(-1, -1, agents, -1))
    moves = torch.zeros(count, 1, agents, dtype=torch.long)
    return state.policy.log_prob(view, moves).exp().detach()[:, 0]


@pytest.mark.parametrize("central", [True, False])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_hunters_go_where_even_odds_point(central, seed):
    """At even odds the stag is worth half its price: 4 < 3 for a stag of 8, so both hunt it, and not one of 4."""
    for stag, hunts in ((8.0, 1.0), (4.0, 0.0)):
        game = tabular.stag_hunt(stag=stag, hare=3.0)
        state, stats = learn(game, 20, seed, central=central, segment=2)
        torch.testing.assert_close(chances(state, game), torch.full((1, 2), hunts), atol=0.05, rtol=0)
        assert stats[-1]["return"] > 0.9 * (stag if hunts else 3.0)


@pytest.mark.parametrize("central", [True, False])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_two_who_want_the_same_agree_on_a_convention(central, seed):
    _, stats = learn(tabular.coordination(2), 30, seed, central=central, segment=4)
    assert stats[-1]["return"] > 0.9


@pytest.mark.parametrize("central", [True, False])
def test_reward_that_comes_a_step_later_is_found(central):
    """Naming room 1 pays from the next step on: all but the first of ten steps are paid."""
    game = tabular.two_rooms(agents=2, horizon=10)
    state, stats = learn(game, 30, central=central, segment=20, discount=0.9)
    assert (chances(state, game) < 0.05).all()
    assert stats[-1]["return"] > 9.0  # 9 and the half of the first


def test_the_bonus_weighs_nats_against_deviations_of_the_advantage():
    """Two moves for 0 and 1: the chance p of the better one rests where logit p = 1 / (bonus sqrt(p (1 - p)))."""
    game = tabular.matrix_game([[0.0, 1.0]])
    state, _ = learn(game, 60, bonus=2.0, envs=512, segment=2, passes=1, target_kl=0.0, rate=3e-2)
    p = 1 - chances(state, game).item()
    assert math.log(p / (1 - p)) * 2.0 * math.sqrt(p * (1 - p)) == pytest.approx(1.0, abs=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_navigation_is_learnt_from_the_defaults(seed):
    """Chance moves get -382, the scripted expert -38; seed 0 came to -45 after 136 updates, two minutes."""
    env, draws = Navigation(), generator(seed, "train")
    state = ppo.init(ppo.Config(), None, env, draws)

    def mean_return(policy):
        played = play(env, policy, 300, generator(1, "play"))
        return (played.rewards * played.valid.unsqueeze(-1)).sum(1).mean().item()

    assert mean_return(Uniform(env.spec)) < -350
    for _ in range(100):
        ppo.update(ppo.Config(), state, None, env, draws)
    assert mean_return(state.policy) > -120


# ---- the rest


def test_the_same_seed_gives_the_same_bits():
    game = tabular.two_rooms(agents=2, horizon=5)

    def bits(seed):
        state, stats = learn(game, 3, seed, net=replace(NET, body="gru"))
        return [x.detach() for x in tree_leaves((state.live, dict(state.policy.state_dict()), stats))]

    assert all(torch.equal(a, b) for a, b in zip(bits(0), bits(0), strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(bits(0), bits(1), strict=True))


def test_the_return_is_that_of_whole_episodes_whatever_the_segments():
    """Episodes of five steps in segments of three: 1 a step, so 5."""
    _, stats = learn(Clock(over=True), 5, segment=3)
    ended = [2, 4, 5]  # segments, from 1 on, in which a multiple of five steps falls
    for number, row in enumerate(stats, 1):
        assert float(row["return"]) == 5.0 if number in ended else math.isnan(row["return"])


def test_settings_that_cannot_learn_are_refused():
    for name in ("envs", "segment", "passes", "minibatches", "value_hidden"):
        with pytest.raises(ConfigError, match=f"{name}: got 0"):
            ppo.Config(**{name: 0})
    with pytest.raises(ConfigError, match="minibatches: got 4 for 2 envs"):
        ppo.Config(envs=2)
    with pytest.raises(ConfigError, match=r"discount: got 1\.5"):
        ppo.Config(discount=1.5)
    with pytest.raises(ConfigError, match="give it an env"):
        ppo.init(QUICK, None, None, generator(0))
