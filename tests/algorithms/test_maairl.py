"""A reward is what is learnt: of the right form, of the right size at the optimum, and it can be kept and used."""

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from understudy import api
from understudy.algorithms import adversary, bc, maairl, ppo
from understudy.core.errors import ConfigError, RunError
from understudy.core.random import generator
from understudy.core.types import Continuous, Discrete, EnvSpec, Segment, View
from understudy.envs import tabular
from understudy.envs.particles import Navigation
from understudy.envs.rewarded import Rewarded
from understudy.maths.adversarial import airl_logits, discriminator_loss
from understudy.maths.returns import discounted
from understudy.nets import NetConfig
from understudy.nets.discriminators import JudgeConfig
from understudy.nets.rewards import load_reward, save_reward
from understudy.rollout import Uniform, play

SMALL = maairl.Config(
    start="fresh", warmup=0, batch=256, judge_rate=0.02, penalty=0.0, judge=JudgeConfig(hidden=16, state_only=True),
    learner=ppo.Config(envs=32, segment=16, minibatches=1, net=NetConfig(layers=0), value_hidden=16, bonus=0.0),
)  # fmt: skip


def begun(env, demos, seed=0, **settings):
    config, draws = replace(SMALL, **settings), generator(seed, "train")
    return config, maairl.init(config, demos, env, draws), draws


@dataclass(frozen=True)
class Turns:
    """One of two agents is there at a time, and may only do as it did."""

    spec = EnvSpec(agents=2, obs=1, action=Discrete(2), horizon=4)

    def reset(self, noise):
        return torch.zeros(len(noise), dtype=torch.long)

    def observe(self, state):
        return torch.ones(len(state), 2, 1)

    def present(self, state):
        return torch.stack([state % 2 == 0, state % 2 == 1], dim=-1)

    def legal(self, state):
        return torch.tensor([True, False]).expand(len(state), 2, 2)

    def step(self, state, actions, noise):
        return state + 1, torch.zeros(len(state), 2), torch.zeros(len(state), dtype=torch.bool)


@dataclass(frozen=True)
class Pushing:
    """Two agents push, each with a number from -1 to 1."""

    spec = EnvSpec(agents=2, obs=1, action=Continuous(1), horizon=4)

    def reset(self, noise):
        return torch.zeros(len(noise))

    def observe(self, state):
        return torch.ones(len(state), 2, 1)

    def step(self, state, actions, noise):
        return state, torch.zeros(len(state), 2), torch.zeros(len(state), dtype=torch.bool)


# ---- the discriminator


@pytest.mark.parametrize("seed", range(4))
def test_at_the_optimum_f_is_the_experts_log_probability_whoever_the_learner_is(seed):
    """One state. The gradient of the expected loss vanishes at f = log pi_E, and nowhere near it."""
    source = generator(seed)
    expert, learner = (torch.rand(5, generator=source, dtype=torch.float64).log_softmax(0) for _ in range(2))

    def gradient(f):
        f = f.clone().requires_grad_()
        logits = airl_logits(f, learner).unsqueeze(-1)
        discriminator_loss(logits, logits, expert.exp().unsqueeze(-1), learner.exp().unsqueeze(-1)).backward()
        return f.grad

    torch.testing.assert_close(gradient(expert), torch.zeros(5).double(), atol=1e-12, rtol=0)
    assert gradient(expert + 0.1).abs().min() > 1e-3


@pytest.mark.parametrize("seed", range(3))
def test_the_papers_loss_and_gradient_by_a_loop_over_numbers(seed):
    source = generator(seed)
    f = torch.randn(6, 2, generator=source, dtype=torch.float64).requires_grad_()
    log_pi = -3 * torch.rand(6, 2, generator=source, dtype=torch.float64)
    loss = discriminator_loss(airl_logits(f[:4], log_pi[:4]), airl_logits(f[4:], log_pi[4:]))
    loss.backward()
    total, slow = 0.0, np.zeros((6, 2))
    for i in range(6):
        for j in range(2):
            top, pi = math.exp(f[i, j].item()), math.exp(log_pi[i, j].item())
            d, share = top / (top + pi), 0.5 / (8 if i < 4 else 4)
            total += share * -math.log(d if i < 4 else 1 - d)
            slow[i, j] = share * (d - (i < 4))
    assert loss.item() == pytest.approx(total, abs=1e-8)
    np.testing.assert_allclose(f.grad, slow, atol=1e-8)


def test_a_state_is_paid_for_itself_where_actions_are_not_seen():
    env = Navigation()
    demos = api.record(env, episodes=4)
    _, state, _ = begun(env, demos)
    played = play(env, state.policy, 3, generator(0))
    other = (played.actions + 1) % 5
    assert torch.equal(state.shaped.reward(played.view, played.actions), state.shaped.reward(played.view, other))
    _, seeing, _ = begun(env, demos, judge=JudgeConfig(hidden=16))
    assert not torch.equal(seeing.shaped.reward(played.view, played.actions), seeing.shaped.reward(played.view, other))


@pytest.mark.parametrize("symmetric", [True, False])
def test_a_place_and_its_mirror_image_are_worth_the_same(symmetric):
    """The demonstrators' landmarks all lie north-east or south-west; to a mirror that is where the learners' lie."""
    env = api.make_env("simple", horizon=1)
    demos = api.record(env, Uniform(env.spec), episodes=600, seed=1)
    demos = demos.select([i for i, e in enumerate(demos) if e.obs[0, 0, 2:].prod() > 0])
    config, state, draws = begun(env, demos, symmetric=symmetric, judge_steps=30)
    maairl.update(config, state, demos, env, draws)
    (mirror,) = env.symmetries()[1]
    steps = demos.batch(0, 256, seed=0)
    with torch.no_grad():
        here, there = (state.shaped.reward(View(x), steps.actions) for x in (steps.obs, mirror.obs(steps.obs)))
    assert ((here - there).abs().mean().item() < 0.3) is symmetric


def test_shaping_adds_what_does_not_hang_on_the_play():
    """Discounted over an episode that is over, f sums to g less the potential of where the episode began."""
    env = Navigation()
    config, state, _ = begun(env, api.record(env, episodes=8))
    played = api.record(env, episodes=8).padded()
    assert played.valid is not None and bool(played.terminated.any(dim=1).all())
    count = played.valid.unsqueeze(-1)
    with torch.no_grad():
        parts = [state.shaped(played), state.shaped.reward(played.view, played.actions)]
        begins = state.shaped.potential(played.view, played.actions)[:, 0]
    never, none = torch.zeros(count.shape[:2], dtype=torch.bool), torch.zeros_like(parts[0])
    f, g = (discounted(x * count, never, none, config.learner.discount)[:, 0] for x in parts)
    torch.testing.assert_close(f, g - begins, atol=1e-4, rtol=1e-4)


def test_where_a_time_limit_stopped_the_potential_goes_on():
    env = Navigation(horizon=4, fixed_horizon=True)
    _, state, _ = begun(env, api.record(env, episodes=3))
    last = play(env, state.policy, 3, generator(0))
    assert bool(last.truncated[:, -1].all())
    over = replace(last, terminated=torch.ones_like(last.terminated))
    with torch.no_grad():
        gap = state.shaped(last) - state.shaped(over)
        after = state.shaped.potential(last.next_view, last.actions)
    torch.testing.assert_close(gap, SMALL.learner.discount * after, atol=1e-5, rtol=1e-5)


def test_the_learner_is_paid_less_for_what_it_does_already_where_the_reward_is_flat():
    """With f = 0 the pay is -log pi: entropy. The likelier of two moves pays less, and f alone pays both alike."""
    env = tabular.matching_pennies()
    demos = api.record(env, episodes=50)
    for pays, likelier_pays_less in (("ratio", True), ("level", False)):
        config, state, draws = begun(env, demos, pays=pays, judge_rate=0.0, anchor=0.0)
        for weight in state.shaped.parameters():
            weight.data.zero_()
        state.policy.outs[0].weight.data.zero_()
        state.policy.outs[0].bias.data[:] = torch.tensor([2.0, 0.0])
        for _ in range(8):
            maairl.update(config, state, demos, env, draws)
        params, _ = state.policy.params(View(torch.ones(1, 1, 2, 1)), torch.zeros(1, 1, 2, dtype=torch.long))
        gap = (params[..., 0] - params[..., 1]).mean().item()
        assert (gap < 1.8) is likelier_pays_less, (pays, gap)


def test_who_is_paid_for_its_entropy_on_average_is_paid_alike_for_finishing_early_late_or_never():
    """The bias probe: where f is log pi, as for a discriminator that says 1/2, a step pays 0 on average, as ends do."""
    env = Navigation()
    demos = api.record(env, episodes=8)
    config, state, _ = begun(env, demos)
    played = play(env, state.policy, 200, generator(0))
    params, _ = state.policy.params(played.view, played.actions)
    f = state.policy.head.log_prob(params, played.actions)
    counts = played.valid.unsqueeze(-1).expand_as(f)
    paid = maairl.pay_of(config, state, played, f, params, generator(1))[counts]
    assert abs(paid.mean().item()) < 4 * paid.std().item() / math.sqrt(len(paid)) + 1e-3
    unpaid = maairl.pay_of(replace(config, pays="shaped"), state, played, f, params, generator(1))[counts]
    assert unpaid.mean().item() < -1  # below 0: it would pay for finishing


def test_the_potential_of_who_has_left_is_0():
    env = Navigation(horizon=4, fixed_horizon=True)
    _, state, _ = begun(env, api.record(env, episodes=3))
    played = play(env, state.policy, 3, generator(0))
    there = torch.ones(played.obs.shape[:3], dtype=torch.bool)
    there[..., 1] = False
    left = replace(played, next_view=replace(played.next_view, present=there))
    with torch.no_grad():
        paid, worth = state.shaped(left)[..., 1], state.shaped.reward(played.view, played.actions)[..., 1]
        torch.testing.assert_close(paid, worth - state.shaped.potential(played.view, played.actions)[..., 1])


def test_play_at_random_is_told_from_the_demonstrators_too():
    """With contrast the reward knows a state that neither learners nor demonstrators go to."""
    transition = torch.zeros(3, 2, 3, dtype=torch.float64)
    transition[:, 0, 1] = transition[:, 1, 2] = 1  # move 0 leads to state 1, move 1 to state 2
    play_first = torch.tensor([[1.0, 0.0]] * 3, dtype=torch.float64)
    start = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
    env = tabular.MarkovGame(
        transition, torch.zeros(1, 3, 2).double(), start, (2,), 8, play=play_first, title="two ways"
    )
    demos = api.record(env, episodes=30)
    known = []
    learner = replace(SMALL.learner, envs=8)
    for contrast in (0.0, 0.5):
        config, state, draws = begun(env, demos, contrast=contrast, learner=learner, batch=128)
        state.policy.outs[0].weight.data.zero_()
        state.policy.outs[0].bias.data[:] = torch.tensor([12.0, -12.0])  # it does as the demonstrators did
        config = replace(config, warmup=1000)
        for _ in range(5):
            maairl.update(config, state, demos, env, draws)
        worth = state.shaped.reward(View(torch.eye(3).unsqueeze(1)), torch.zeros(3, 1, dtype=torch.long)).detach()[:, 0]
        known.append((worth[1] - worth[2]).item())
    assert known[1] > known[0] + 0.5


def test_however_much_is_at_random_some_of_the_steps_are_the_learners():
    env = Navigation(horizon=4)
    demos = api.record(env, episodes=4)
    config, state, draws = begun(env, demos, contrast=0.999, batch=3)
    seen = []
    of = maairl._some

    def some(side, count, generator):
        seen.append((side is state.random, count))
        return of(side, count, generator)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(maairl, "_some", some)
        maairl.update(config, state, demos, env, draws)
    assert set(seen) == {(True, 2), (False, 1)}


def test_what_comes_out_is_the_mean_of_the_latest_policies():
    env = Navigation(horizon=4)
    demos = api.record(env, episodes=4)
    config, state, draws = begun(env, demos, average=0.5)
    weight = state.policy.outs[0].weight
    mean = weight.detach().clone()
    assert config.warmup < 4
    for update in range(config.warmup + 4):
        maairl.update(config, state, demos, env, draws)
        mean = mean.lerp(weight.detach(), 1 / (1 + 0.5 * max(0, update - config.warmup)))
    torch.testing.assert_close(maairl.result(state).outs[0].weight, mean)
    assert not torch.equal(mean, weight)
    assert torch.equal(maairl.result(state).normaliser.mean, state.policy.normaliser.mean)


@pytest.mark.slow
def test_two_rooms_that_differ_by_a_prize_are_told_apart_and_play_rests_where_the_demonstrators_is():
    """State-only, paid by the theory: the prize is found, and the expert's soft play is a fixed point."""
    env = tabular.two_rooms(prize=2.0, horizon=20)
    demos = api.record(env, episodes=100)
    learner = replace(SMALL.learner, discount=0.9, segment=20)
    config, state, draws = begun(env, demos, learner=learner, pays="ratio", contrast=0.0)
    rooms = View(torch.eye(2).unsqueeze(1))
    seen = []
    for at in range(120):
        maairl.update(config, state, demos, env, draws)
        if at >= 60:
            worth = maairl.learned_reward(SMALL, state)(rooms, torch.zeros(2, 1, dtype=torch.long)).detach()[:, 0]
            seen.append([to_one(state.averaged, rooms), (worth[1] - worth[0]).item()])
    shown = 1 / (1 + math.exp(-0.9 * 2.0))
    assert np.abs(np.array(seen)[:, 0] - shown).max() < 0.06
    assert np.mean(seen, axis=0)[1] == pytest.approx(2.0, abs=0.4)


@pytest.mark.slow
def test_who_is_paid_level_goes_on_sharpening_beyond_the_demonstrators_and_the_anchor_holds_some_of_it_up():
    env = tabular.two_rooms(prize=2.0, horizon=20)
    demos = api.record(env, episodes=100)
    came = []
    for anchor in (0.0, 0.2, 1.0):
        learner = replace(SMALL.learner, discount=0.9, segment=20)
        config, state, draws = begun(env, demos, learner=learner, anchor=anchor)
        for _ in range(120):
            maairl.update(config, state, demos, env, draws)
        came.append(to_one(state.averaged, View(torch.eye(2).unsqueeze(1))))
    assert came[0] > came[1] > came[2] > 0.9  # shown: 0.858


def to_one(policy, rooms):
    params, _ = policy.params(View(rooms.obs.unsqueeze(1)), torch.zeros(2, 1, 1, dtype=torch.long))
    return params.softmax(-1)[..., 1].mean().item()


def test_with_contrast_f_is_not_quite_log_pi_where_learner_and_demonstrators_agree():
    """One state, both play (0.7, 0.3), a quarter of the learners' side is at random: where the loss is least."""
    pi, half = torch.tensor([0.7, 0.3], dtype=torch.float64), torch.tensor([0.5, 0.5], dtype=torch.float64)
    for contrast, least in ((0.0, [0.7, 0.3]), (0.25, [0.731, 0.283])):
        f = half.log().requires_grad_()
        seek = torch.optim.LBFGS([f], max_iter=100, line_search_fn="strong_wolfe")

        def loss(f=f, contrast=contrast, seek=seek):
            seek.zero_grad()
            expert = airl_logits(f, pi.log()).unsqueeze(-1)
            other = torch.cat([expert, airl_logits(f, half.log()).unsqueeze(-1)])
            weight = torch.cat([(1 - contrast) * pi, contrast * half]).unsqueeze(-1)
            value = discriminator_loss(expert, other, pi.unsqueeze(-1), weight)
            value.backward()
            return value

        seek.step(loss)
        torch.testing.assert_close(f.detach().exp(), torch.tensor(least).double(), atol=1e-3, rtol=0)


def test_draws_beyond_the_bounds_are_as_likely_as_the_bound_that_recordings_hold():
    env = Pushing()
    demos = api.record(env, Uniform(env.spec), episodes=8)
    config, state, draws = begun(env, demos, replay=1)
    state.policy.outs[0].bias.data[:] = torch.tensor([0.0, 1.0])  # a wide Gaussian: most draws are beyond
    maairl.update(config, state, demos, env, draws)
    steps = state.replay.steps
    assert (steps.actions.abs() > 1).float().mean() > 0.5
    beyond, within = (
        maairl._scored(state.policy, replace(steps, actions=a)) for a in (steps.actions, steps.actions.clamp(-1, 1))
    )
    assert torch.equal(beyond.labels["log_prob"], within.labels["log_prob"])
    played = play(env, state.policy, 20, generator(0))
    params, _ = state.policy.params(played.view, played.actions)
    f = torch.zeros(played.obs.shape[:3])
    clipped = replace(played, actions=played.actions.clamp(-1, 1))
    paid = [maairl.pay_of(replace(config, pays="ratio"), state, p, f, params, draws) for p in (played, clipped)]
    assert torch.equal(*paid)


@pytest.mark.parametrize("head", ["gaussian", "squashed", "mixture"])
def test_whatever_the_head_a_step_pays_0_on_average_where_f_is_log_pi(head):
    env = Pushing()
    demos = api.record(env, Uniform(env.spec), episodes=8)
    learner = replace(SMALL.learner, net=NetConfig(layers=0, head=head))
    config, state, draws = begun(env, demos, learner=learner)
    last = state.policy.outs[0].bias.data  # wide; the mixture's components lie on top of one another
    last.zero_()
    last[..., -5 if head == "mixture" else -1 :] = 0.7
    played = play(env, state.policy, 2000, generator(0))
    params, _ = state.policy.params(played.view, played.actions)
    f = adversary.likelihood(state.policy, params, played.actions, None)
    paid = maairl.pay_of(config, state, played, f, params, draws)
    assert abs(paid.mean().item()) < 4 * paid.std().item() / math.sqrt(paid.numel()) + 1e-3
    side = adversary.side_of(played, torch.tensor(0.0), 8000, draws)
    assert abs(adversary.alignment(state.policy, side, draws, 8000)["alignment"].item()) < 0.05


@pytest.mark.parametrize("net", [NetConfig(body="gru", hidden=8), NetConfig(own_action=True, hidden=8)])
def test_policies_with_a_past_are_asked_for_likelihoods_along_windows(net):
    env = Navigation(horizon=6)
    demos = api.record(env, episodes=8)
    learner = replace(SMALL.learner, net=net, envs=4, segment=5)
    config, state, draws = begun(env, demos, learner=learner, clone=bc.Config(window=4, burn_in=1), batch=8)
    stats = [maairl.update(config, state, demos, env, draws) for _ in range(2)][-1]
    assert all(torch.isfinite(x).all() for name, x in stats.items() if name != "return")
    part = maairl._demonstrated(config, state, demos)
    assert (part.weight > 0).any()
    with pytest.raises(ConfigError, match="replay"):
        begun(env, demos, learner=learner, replay=1)


def test_older_steps_are_judged_by_the_present_policy():
    env = tabular.matching_pennies()
    demos = api.record(env, episodes=50)
    config, state, draws = begun(env, demos, replay=3)
    for _ in range(2):
        maairl.update(config, state, demos, env, draws)
    assert len(state.replay.gone) == 2 * 32 * 16
    scored = maairl._scored(state.policy, state.replay.steps).labels["log_prob"]
    again = state.policy.log_prob(View(torch.ones(1, 1, 2, 1)), state.replay.steps.actions[:1].unsqueeze(1))
    torch.testing.assert_close(scored[:1], again[0])


# ---- the reward as an object


def test_a_reward_is_read_back_bit_for_bit_and_a_damaged_one_is_refused(tmp_path):
    env = Navigation()
    _, state, _ = begun(env, api.record(env, episodes=4))
    reward = maairl.learned_reward(SMALL, state)
    save_reward(reward, tmp_path)
    played = api.record(env, episodes=2).padded()
    again = load_reward(tmp_path)
    assert torch.equal(again(played.view, played.actions), reward(played.view, played.actions))
    (weights,) = tmp_path.glob("reward-*.safetensors")
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(bytes(data))
    with pytest.raises(RunError, match=r"reward-[0-9a-f]{16}.safetensors is damaged"):
        load_reward(tmp_path)
    with pytest.raises(RunError, match="holds no reward"):
        load_reward(tmp_path / "nowhere")


def test_a_new_team_learns_from_a_learned_reward_as_from_the_true_one():
    env = tabular.two_rooms(prize=1.0, horizon=10)
    true = env.reward[:, :, 0].T.float()  # [room, agent]

    def reward(view, actions):
        return view.obs[:, 0] @ true

    paid = Rewarded(env, reward)
    own, other = (play(e, api.as_policy(env, None), 20, generator(0)) for e in (env, paid))
    torch.testing.assert_close(own.rewards, other.rewards)
    config = ppo.Config(envs=32, segment=10, discount=0.9, net=NetConfig(hidden=8), value_hidden=8)
    runs = [api.train("ppo", None, e, config=config, updates=6, habits=api.Habits(show=False)) for e in (env, paid)]
    for a, b in zip(runs[0].policy.state_dict().values(), runs[1].policy.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b)


def test_an_env_that_pays_another_reward_offers_all_that_it_did():
    env = api.make_env("tag")
    other = Rewarded(env, lambda view, actions: torch.zeros(view.obs.shape[:2]))
    assert other.spec == env.spec
    assert hasattr(other, "whole") == hasattr(env, "whole")
    assert not hasattr(other, "nonsense")
    played = play(other, api.as_policy(env, None), 2, generator(0))
    assert float(played.rewards.abs().sum()) == 0


def test_a_reward_is_shown_what_agents_see_and_pays_nothing_to_who_is_away():
    seen = []

    def reward(view, actions):
        seen.append(view)
        return torch.ones(view.obs.shape[:2])

    env = Rewarded(Turns(), reward)
    played = play(env, Uniform(env.spec), 3, generator(0))
    assert torch.equal(played.rewards, played.view.present.float())
    for t, view in enumerate(seen):
        assert torch.equal(view.present, played.view.present[:, t]) and torch.equal(view.legal, played.view.legal[:, t])


def test_what_an_episode_that_is_over_pays_is_the_zero_of_a_reward():
    env = Navigation()
    _, state, _ = begun(env, api.record(env, episodes=4))
    state.expert_gone, state.learner_gone = torch.tensor(0.8), torch.tensor(0.4)
    played: Segment = api.record(env, episodes=2).padded()
    reward = maairl.learned_reward(SMALL, state)
    raw = state.shaped.reward(played.view, played.actions)
    torch.testing.assert_close(reward(played.view, played.actions), raw - math.log(2))


def test_what_cannot_be_meant_is_refused():
    for name, value in (("penalty", -1.0), ("judge_steps", 0), ("l2", math.nan)):
        with pytest.raises(ConfigError, match=name):
            replace(SMALL, **{name: value})
    with pytest.raises(ConfigError, match="discount: 1"):
        replace(SMALL, learner=replace(SMALL.learner, discount=1.0))
