"""That a discriminator learns from pairs that happened, and that learners finish as the demonstrators do."""

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from understudy import api
from understudy.algorithms import adversary, bc, magail, ppo
from understudy.core.errors import ConfigError, DemosError, EnvError
from understudy.core.random import generator
from understudy.core.symmetry import symmetries_of
from understudy.core.tree import tree_take
from understudy.core.types import Continuous, Discrete, EnvSpec, Segment, View
from understudy.demos.demos import Episode
from understudy.envs import tabular
from understudy.envs.particles import Navigation
from understudy.maths.adversarial import calibration_error
from understudy.nets import NetConfig, build_policy
from understudy.nets.discriminators import Judge, JudgeConfig
from understudy.nets.saved import save_policy
from understudy.rollout import Uniform, play


def slow(*values):
    return pytest.param(*values, marks=pytest.mark.slow)


TABLE = NetConfig(layers=0)  # on a one-hot observation: a table of probabilities
SMALL = magail.Config(
    start="fresh", warmup=0, batch=256, judge_rate=0.02, penalty=0.0, judge=JudgeConfig(hidden=16),
    learner=ppo.Config(envs=32, segment=16, minibatches=1, net=TABLE, value_hidden=16, bonus=0.0),
)  # fmt: skip


def begun(env, demos, seed=0, **settings):
    config, draws = replace(SMALL, **settings), generator(seed, "train")
    return config, magail.init(config, demos, env, draws), draws


def sides_of(env, rows, demos=None):
    """A pool of a learner's steps as `update` makes it."""
    played = (demos or api.record(env, episodes=rows)).padded()
    return adversary.side_of(played, torch.tensor(0.0), rows, generator(1))


def shuffled(pool, agent):
    """The actions of one agent, or of all (slice), moved to other steps."""
    actions = pool.steps.actions.clone()
    order = torch.randperm(len(actions), generator=generator(5))
    actions[:, agent] = actions[order][:, agent]
    return replace(pool, steps=replace(pool.steps, actions=actions))


def follow_the_state(states, agents=1):
    """The state is drawn anew in each step; the expert's moves name it."""
    joints = states**agents
    transition = torch.full((states, joints, states), 1 / states, dtype=torch.float64)
    play = torch.zeros(states, joints, dtype=torch.float64)
    for s in range(states):
        play[s, sum(s * states**k for k in range(agents))] = 1
    reward = torch.zeros(agents, states, joints, dtype=torch.float64)
    start = torch.full((states,), 1 / states, dtype=torch.float64)
    return tabular.MarkovGame(transition, reward, start, (states,) * agents, horizon=1, play=play, title="follow")


# ---- what is seen


@pytest.mark.parametrize("share", ["role", "all", "none"])
@pytest.mark.parametrize("sees", ["own", "actions", "joint", "team"])
def test_a_judge_of_an_agent_sees_what_it_may_and_no_more(sees, share):
    spec = EnvSpec(agents=3, obs=4, action=Continuous(2), horizon=9)
    judge = Judge(JudgeConfig(sees=sees, share=share, hidden=8), spec, generator(0))
    obs, actions = torch.randn(5, 3, 4, generator=generator(1)), torch.rand(5, 3, 2, generator=generator(2))
    for other_obs, other_actions, blind in (
        (1.0, 0.0, sees in ("own", "actions")),  # the last agent saw something else
        (0.0, 0.1, sees == "own"),  # ... or did
    ):
        a, b = obs.clone(), actions.clone()
        a[:, 2] += other_obs
        b[:, 2] -= other_actions
        before, after = judge(View(obs), actions), judge(View(a), b)
        assert torch.allclose(before[:, :2], after[:, :2], atol=1e-6) is blind
        assert not torch.allclose(before[:, 2], after[:, 2], atol=1e-6)
    together = judge(View(obs), actions)
    assert (sees == "team") == torch.allclose(together, together[:, :1].expand_as(together), atol=1e-6)


def test_actions_beyond_the_bounds_count_as_the_env_takes_them():
    spec = EnvSpec(agents=1, obs=1, action=Continuous(2), horizon=9)
    judge = Judge(JudgeConfig(hidden=8), spec, generator(0))
    beyond = judge(View(torch.ones(1, 1, 1)), torch.tensor([[[3.0, -7.0]]]))
    assert torch.equal(beyond, judge(View(torch.ones(1, 1, 1)), torch.tensor([[[1.0, -1.0]]])))


@pytest.mark.parametrize(
    ("sees", "state_only"),
    [("own", False), ("actions", False), ("joint", False), ("joint", True), ("team", False), ("team", True)],
)
def test_of_those_who_are_away_nothing_is_seen_but_that_they_are(sees, state_only):
    """Recordings hold fillers there and play random draws: who saw them would tell the two sides apart by them."""
    spec = EnvSpec(agents=3, obs=4, action=Continuous(2), horizon=9)
    judge = Judge(JudgeConfig(sees=sees, hidden=8, state_only=state_only), spec, generator(0))
    obs, actions = torch.randn(5, 3, 4, generator=generator(1)), torch.rand(5, 3, 2, generator=generator(2))
    there = torch.tensor([True, True, False]).expand(5, 3)
    filled, drawn, blank = obs.clone(), actions.clone(), torch.cat([obs[:, :2], torch.zeros(5, 1, 4)], dim=1)
    filled[:, 2], drawn[:, 2] = 7.0, -0.3
    imagined, other = (x.unsqueeze(1).expand(5, 3, 3, 2) for x in (actions, drawn))
    assert torch.equal(
        judge.features(View(obs, present=there), actions), judge.features(View(filled, present=there), drawn)
    )
    if sees == "actions":
        told = (judge.features(View(obs, present=there), actions, x) for x in (imagined, other))
        assert torch.equal(*told)
    if sees in ("actions", "joint"):  # away is not the same as nothing seen and nothing done
        still = torch.cat([actions[:, :2], torch.zeros(5, 1, 2)], dim=1)
        assert not torch.equal(judge.features(View(blank), still), judge.features(View(obs, present=there), actions))
    everybody = judge.features(View(obs, present=torch.ones_like(there)), actions)
    assert torch.equal(everybody, judge.features(View(obs), actions))


def told_apart_by_where(symmetric):
    """|logit| of images of a demonstrated step, where demonstrators and learner do the same in different quarters."""
    env = api.make_env("simple", horizon=1)
    demos, ours = (api.record(env, Uniform(env.spec), episodes=600, seed=seed) for seed in (1, 2))
    demos, ours = (
        d.select([i for i, e in enumerate(d) if (e.obs[0, 0, 2:].prod() > 0) == side])
        for d, side in ((demos, True), (ours, False))
    )  # a landmark to the north-east or south-west is the demonstrators': a mirror makes it the learner's
    config, state, draws = begun(env, demos, judge_rate=0.02, symmetric=symmetric)
    pool, groups = sides_of(env, 300, ours), symmetries_of(env) if symmetric else ()
    for _ in range(60):
        magail.discriminate(config, state, demos, pool, draws, groups)
    steps = demos.batch(0, 256, seed=0)
    return state.judge(steps.view, steps.actions).detach().abs().mean().item()


def test_a_discriminator_does_not_tell_a_step_from_its_image():
    """What differs by a symmetry alone is no difference; without images it is all that there is to see."""
    assert told_apart_by_where(symmetric=True) < 0.3
    assert told_apart_by_where(symmetric=False) > 2


def test_images_are_the_default_where_the_env_declares_them_and_one_setting_switches_them_off(monkeypatch):
    asked = []
    monkeypatch.setattr(magail, "elsewhere", lambda groups, part, draws: (asked.append(bool(groups)), part)[1])
    for env, symmetric in ((api.make_env("simple"), True), (api.make_env("simple"), False), (exits(0.3), True)):
        demos = api.record(env, episodes=6)
        config, state, draws = begun(env, demos, symmetric=symmetric)
        asked.clear()
        magail.update(config, state, demos, env, draws)
        assert set(asked) == {symmetric and hasattr(env, "symmetries")}


# ---- pairs that happened


def test_the_alignment_probe_is_0_for_played_steps_and_below_for_shuffled_ones():
    env = follow_the_state(3)
    policy = bc.clone(bc.Config(net=TABLE, limit=150, rate=0.1), api.record(env, episodes=100), generator(0))
    pool = sides_of(env, 600, api.record(env, policy, episodes=600))
    assert abs(adversary.alignment(policy, pool, generator(2))["alignment"].item()) < 0.05
    assert adversary.alignment(policy, shuffled(pool, slice(None)), generator(2))["alignment"].item() < -1


# ---- when to finish


def exits(share, horizon=12):
    """One may stay (move 0) or exit (1) in each step; the expert exits with `share`."""
    transition = torch.zeros(2, 2, 2, dtype=torch.float64)
    transition[0, 0, 0] = transition[0, 1, 1] = transition[1, :, 1] = 1
    play = torch.tensor([[1 - share, share], [1.0, 0.0]], dtype=torch.float64)
    over, start = torch.tensor([False, True]), torch.tensor([1.0, 0.0], dtype=torch.float64)
    return tabular.MarkovGame(transition, torch.zeros(1, 2, 2).double(), start, (2,), horizon, over, play, "exits")


@pytest.mark.parametrize("form", ["softplus", slow("logD"), slow("logit"), slow("tanh")])
def test_learners_leave_as_often_as_the_demonstrators_whatever_the_reward(form):
    env = exits(0.3)
    demos = api.record(env, episodes=1000)
    config, state, draws = begun(env, demos, reward=form, judge_rate=0.01)
    left = []
    for _ in range(40):
        magail.update(config, state, demos, env, draws)
        params, _ = state.policy.params(View(torch.tensor([[[[1.0, 0.0]]]])), torch.zeros(1, 1, 1, dtype=torch.long))
        left.append(params.softmax(-1)[..., 1].item())
    assert abs(left[0] - 0.5) < 0.1
    assert np.mean(left[-15:]) == pytest.approx(0.3, abs=0.08)


def test_demonstrators_time_after_the_end_is_counted_by_hand():
    env = exits(0.3)
    demos = api.record(env, episodes=40)
    after = sum(12 - len(e.actions) if e.terminated else 0 for e in demos)
    gone = adversary.demonstrators_gone(demos, 12, 0.9)
    assert gone.item() == pytest.approx(after / (after + demos.steps))
    weights = torch.arange(40).double()
    after = sum((12 - len(e.actions)) * e.terminated * w for e, w in zip(demos, weights, strict=True))
    steps = sum(len(e.actions) * w for e, w in zip(demos, weights, strict=True))
    gone = adversary.demonstrators_gone(demos.reweighted(weights), 12, 0.9)
    assert gone.item() == pytest.approx(float(after / (after + steps)), abs=1e-6)


def cut(demos, steps):
    """The same, where every episode stops after so many steps at most."""
    made = [
        Episode(e.obs[: steps + 1], e.actions[:steps], terminated=e.terminated and len(e.actions) <= steps)
        for e in demos
    ]
    return type(demos).from_episodes(demos.spec, made)


def test_recordings_of_another_horizon_are_refused_where_games_end():
    env = exits(0.3)
    demos = api.record(env, episodes=40)
    for given, horizon in ((cut(demos, 7), 12), (demos, 7), (demos, 20)):
        with pytest.raises(DemosError, match=f"another horizon than the env's {horizon} steps"):
            adversary.demonstrators_gone(given, horizon, 0.9)
    endless = api.record(exits(0.0), episodes=4)
    for given, horizon in ((endless, 7), (cut(endless, 7), 12)):
        assert adversary.demonstrators_gone(given, horizon, 0.9).item() == 0
    assert adversary.demonstrators_gone(demos, None, 0.9).item() > 0
    unlike = cut(demos, 7)
    with pytest.raises(DemosError, match="another horizon"):
        begun(env, unlike)
    begun(env, unlike, absorbing=False)  # ends are left out of account


@pytest.mark.parametrize("name", ["magail", "maairl", "gmmil", "pwil"])
def test_they_are_refused_before_a_clone_of_minutes_is_made(name, monkeypatch):
    env = exits(0.3)
    demos = cut(api.record(env, episodes=40), 7)
    monkeypatch.setattr(bc, "clone", lambda *_: pytest.fail("a clone was made first"))
    with pytest.raises(DemosError, match="another horizon"):
        api.train(name, demos, env, updates=1)
    if name == "magail":
        with pytest.raises(ConfigError, match="two teams are needed"):
            api.train(name, api.record(env, episodes=4), env, config={"zero_sum": True}, updates=1)


def test_learners_time_after_the_end_nears_the_demonstrators_when_they_play_alike():
    env = exits(0.3)
    demos = api.record(env, episodes=1000)
    config, state, draws = begun(env, demos, learner=replace(SMALL.learner, envs=256, segment=60))
    probability = torch.tensor([0.7, 0.3]).log()
    state.policy.outs[0].weight.data.zero_()
    state.policy.outs[0].bias.data[:] = probability
    stats = magail.update(config, state, demos, env, draws)
    assert stats["gone/learner"].item() == pytest.approx(state.expert_gone.item(), abs=0.02)


# ---- the reward


def test_zero_sum_pays_each_team_what_it_looks_like_less_what_the_other_does():
    env = api.make_env("tag")  # three adversaries and one agent
    config, state, _ = begun(env, api.record(env, episodes=2), zero_sum=True)
    played = play(env, state.policy, 3, generator(0))
    half = torch.tensor(0.5)
    own = magail.rewards_of(replace(config, zero_sum=False), state.judge, played, half, half)
    paid = magail.rewards_of(config, state.judge, played, half, half)
    gain = own[..., :3].mean(-1) - own[..., 3]
    torch.testing.assert_close(paid, torch.stack([gain, gain, gain, -gain], dim=-1))
    there = torch.ones_like(own, dtype=torch.bool)
    there[..., 1] = False
    left = replace(played, view=replace(played.view, present=there))
    own = magail.rewards_of(replace(config, zero_sum=False), state.judge, left, half, half)
    gain = own[..., [0, 2]].mean(-1) - own[..., 3]  # who is away is paid nothing and stands for nobody
    paid = magail.rewards_of(config, state.judge, left, half, half)
    torch.testing.assert_close(paid, torch.stack([gain, 0 * gain, gain, -gain], dim=-1))


def test_what_is_told_of_a_discriminator_leaves_out_who_is_away():
    there = torch.tensor([[True, False], [True, True], [False, True]])
    steps = Segment(View(torch.zeros(3, 2, 1), present=there), torch.zeros(3, 2, dtype=torch.long))
    expert, learner = torch.tensor([[1.0, 9], [1, -1], [9, 1]]), torch.tensor([[-1.0, 9], [-1, 8], [9, -1]])
    told = adversary.told(expert, learner, steps, steps, torch.tensor(0.0), torch.tensor(0.0))
    rates = [told[f"discriminator/{name}"].item() for name in ("expert", "learner", "saturated")]
    assert rates == pytest.approx([3 / 4, 3 / 4, 1 / 8])
    seen = calibration_error(expert[there].unsqueeze(1), learner[there].unsqueeze(1))
    torch.testing.assert_close(told["discriminator/calibration"], seen)


def test_the_envs_own_reward_is_added_as_much_as_is_asked_for():
    env = Navigation(horizon=5)
    demos = api.record(env, episodes=4)
    spreads = []
    for weight in (0.0, 1e6):
        config, state, draws = begun(env, demos, env_reward=weight, judge_rate=0.0)
        magail.update(config, state, demos, env, draws)
        spreads.append(state.values.std.item())
    assert spreads[1] > 1e5 > spreads[0]


def test_while_they_warm_up_the_policies_stand_still_and_values_and_discriminators_learn():
    env = Navigation(horizon=5)
    demos = api.record(env, episodes=4)
    config, state, draws = begun(env, demos, warmup=2)
    before = [{k: v.clone() for k, v in m.state_dict().items()} for m in (state.policy, state.values, state.judge)]
    rate = state.optimizer.param_groups[0]["lr"]
    for _ in range(2):
        magail.update(config, state, demos, env, draws)
    same = [
        all(torch.equal(v, old[k]) for k, v in m.state_dict().items())
        for m, old in zip((state.policy, state.values, state.judge), before, strict=True)
    ]
    assert same == [True, False, False]
    assert state.optimizer.param_groups[0]["lr"] == rate
    magail.update(config, state, demos, env, draws)
    assert any(not torch.equal(v, before[0][k]) for k, v in state.policy.state_dict().items())


def test_where_the_judge_says_nothing_the_anchor_leads_to_what_was_shown():
    """A flat judge pays nothing: a table becomes the demonstrators' shares of moves."""
    env = exits(0.2)  # move 0 in 0.8 of the steps
    demos = api.record(env, episodes=400)
    learner = replace(SMALL.learner, rate=0.03, target_kl=0.0)
    config, state, draws = begun(env, demos, anchor=0.5, judge_rate=0.0, absorbing=False, learner=learner)
    for weight in state.judge.parameters():
        weight.data.zero_()

    def stays():
        params, _ = state.policy.params(View(torch.tensor([[[[1.0, 0.0]]]])), torch.zeros(1, 1, 1, dtype=torch.long))
        return params.softmax(dim=-1)[0, 0, 0, 0].item()

    assert stays() < 0.6
    for _ in range(40):
        magail.update(config, state, demos, env, draws)
    assert stays() == pytest.approx(1 - len(demos) / demos.steps, abs=0.05)


def test_the_anchor_is_the_loss_of_cloning_on_the_demonstrators_own_steps():
    env = api.make_env("spread")
    demos = api.record(env, episodes=4)
    config, state, _ = begun(env, demos, anchor=0.3, symmetric=False, batch=100)  # all steps of the recordings
    loss = adversary.anchored(config, state, demos, env, generator(0))
    params, _ = state.policy.params(demos.padded().view, demos.padded().actions)
    expected = -0.3 * state.policy.head.log_prob(params, demos.padded().actions).mean()
    torch.testing.assert_close(loss(0), expected)
    torch.testing.assert_close(loss(7), expected)


def test_two_confined_layers_of_silu_are_nowhere_steeper_than_1():
    """Of one feature, all weights as large as they may be: the slope of silu, 1.0998, twice over."""
    spec = EnvSpec(agents=1, obs=1, action=Discrete(2), horizon=5)
    judge = Judge(JudgeConfig(hidden=1, activation="silu", state_only=True), spec, generator(0))
    layers = [*judge.net.hidden, judge.net.last]
    for layer in layers:
        layer.weight.data[:] = 5.0
    judge.confine()
    layers[1].bias.data[:] = 2.4 - layers[1].weight.item() * torch.nn.functional.silu(torch.tensor(2.4)).item()
    x = torch.linspace(-10, 10, 4001).reshape(-1, 1, 1) / layers[0].weight.item()
    with torch.no_grad():
        y = judge.judge(x).flatten()
    steepest = ((y[1:] - y[:-1]) / (x.flatten()[1:] - x.flatten()[:-1])).max().item()
    assert 0.95 < steepest < 1.001


def test_a_reward_of_two_teams_is_not_kept_as_if_it_were_each_agents_own():
    env = api.make_env("tag")
    config, state, _ = begun(env, api.record(env, episodes=2), zero_sum=True)
    with pytest.raises(ConfigError, match="zero_sum"):
        magail.learned_reward(config, state)


def test_confined_layers_are_nowhere_steeper_than_1():
    env = Navigation(horizon=5)
    demos = api.record(env, episodes=20)
    config, state, draws = begun(env, demos, spectral=True)
    for _ in range(3):
        magail.update(config, state, demos, env, draws)
    for layer in (*state.judge.net.hidden, state.judge.net.last):
        assert torch.linalg.matrix_norm(layer.weight, 2).max() <= 1 + 1e-5
    x = torch.randn(2, 200, 3, state.judge.width, generator=generator(0))
    with torch.no_grad():
        rise = (state.judge.judge(x[0]) - state.judge.judge(x[1])).abs()
    assert (rise <= (x[0] - x[1]).norm(dim=-1) + 1e-4).all()


@pytest.mark.parametrize("net", [NetConfig(body="gru", hidden=8), NetConfig(frames=3, hidden=8)])
def test_policies_with_a_past_learn_too(net):
    env = Navigation(horizon=6)
    demos = api.record(env, episodes=8)
    learner = replace(SMALL.learner, net=net, envs=4, segment=5)
    config, state, draws = begun(
        env, demos, learner=learner, start="clone", clone=bc.Config(limit=5, window=4, burn_in=1)
    )
    before = [p.clone() for p in state.policy.parameters()]
    stats = [magail.update(config, state, demos, env, draws) for _ in range(3)][-1]
    assert any(not torch.equal(a, b) for a, b in zip(before, state.policy.parameters(), strict=True))
    assert torch.isfinite(torch.stack([stats["loss/policy"], stats["kl"], stats["reward/mean"]])).all()


# ---- what agents expect of each other


def test_each_agent_learns_what_the_others_do_where_it_stands():
    env = follow_the_state(3, agents=2)
    pool, source = sides_of(env, 800), generator(0)
    config, state, _ = begun(
        env, api.record(env, episodes=20), opponents=True, judge=JudgeConfig(sees="actions", hidden=16), judge_steps=80
    )
    loss = magail._expect(config, state, pool, source)["opponents/loss"].item()
    assert loss < 0.1  # log 3 at first: all follow the state, which all see
    steps = tree_take(pool.steps, slice(300))
    imagined = state.opponents.imagine(steps.view, steps.actions, source)
    for me in range(2):
        assert torch.equal(imagined[:, me, me], steps.actions[:, me])
        assert (imagined[:, me, 1 - me] == steps.actions[:, 1 - me]).float().mean() > 0.95


def test_what_is_judged_is_the_own_action_beside_those_that_are_imagined():
    env = follow_the_state(3, agents=3)
    config, state, draws = begun(
        env, api.record(env, episodes=20), opponents=True, judge=JudgeConfig(sees="actions", hidden=16)
    )
    steps = sides_of(env, 50).steps
    everybody = steps.actions.unsqueeze(1).expand(-1, 3, -1)
    real = state.judge(steps.view, steps.actions)
    torch.testing.assert_close(state.judge(steps.view, steps.actions, everybody), real)
    other = everybody.clone()
    other[:, 0, 2] = (other[:, 0, 2] + 1) % 3  # the first agent imagines another move of the last
    moved = (state.judge(steps.view, steps.actions, other) - real).abs().amax(0)
    assert moved[0] > 1e-3 > moved[1:].max()
    assert "opponents/loss" in magail.update(config, state, api.record(env, episodes=20), env, draws)


def test_opponents_whose_actions_are_real_numbers_are_imagined_too():
    env = Navigation(horizon=4, continuous=True)
    demos = api.record(env, episodes=4)
    config, state, draws = begun(env, demos, opponents=True, judge=JudgeConfig(sees="actions", hidden=8))
    assert torch.isfinite(magail.update(config, state, demos, env, draws)["reward/mean"])
    pool, longer = sides_of(env, 12, demos), replace(config, judge_steps=60)
    before = magail._expect(config, state, pool, draws)["opponents/loss"]
    assert magail._expect(longer, state, pool, draws)["opponents/loss"] < before - 0.5


# ---- where it begins


@dataclass(frozen=True)
class Crowd:
    """As many agents as are asked for. Nobody plays here: only the spec is read."""

    spec: EnvSpec

    def reset(self, noise):
        raise NotImplementedError

    observe = step = reset


def test_a_team_grows_from_a_saved_smaller_one_of_the_same_role(tmp_path):
    def crowd(agents):
        return Crowd(EnvSpec(agents=agents, obs=3, action=Continuous(1), horizon=5))

    small = build_policy(NetConfig(hidden=8), crowd(2).spec, generator(0))
    save_policy(small, tmp_path)
    demos = api.record(Navigation(horizon=3), episodes=1)
    grown = adversary.beginning(str(tmp_path), bc.Config(), TABLE, demos, crowd(5), generator(0))
    obs = torch.randn(2, 1, 5, 3, generator=generator(1))
    zeros = torch.zeros(2, 1, 5, 1)
    wide, narrow = (p.params(View(obs[:, :, :n]), zeros[:, :, :n])[0] for p, n in ((grown, 5), (small, 2)))
    assert grown.spec.agents == 5
    torch.testing.assert_close(wide[:, :, :2], narrow)
    other = Navigation()
    with pytest.raises(ConfigError, match=r"start: the policy in .* here they see 16"):
        adversary.beginning(str(tmp_path), bc.Config(), TABLE, demos, other, generator(0))


# ---- refusals


def test_what_cannot_be_meant_is_refused():
    env = exits(0.3)
    demos = api.record(env, episodes=20)
    with pytest.raises(DemosError, match="no demonstration"):
        magail.init(SMALL, None, env, generator(0))
    with pytest.raises(ConfigError, match="give it an env"):
        magail.init(SMALL, demos, None, generator(0))
    for form, says in (("softplus", "pay for not finishing"), ("logD", "pay for finishing")):
        with pytest.raises(ConfigError, match=says):
            magail.init(replace(SMALL, absorbing=False, reward=form), demos, env, generator(0))
    with pytest.raises(ConfigError, match="discount: 1"):
        replace(SMALL, learner=replace(SMALL.learner, discount=1.0))
    with pytest.raises(ConfigError, match="two teams are needed"):
        magail.init(replace(SMALL, zero_sum=True), demos, env, generator(0))
    for name, value in (("penalty", -1.0), ("judge_steps", 0), ("slope", math.nan)):
        with pytest.raises(ConfigError, match=name):
            replace(SMALL, **{name: value})
    with pytest.raises(ConfigError, match="opponents"):
        replace(SMALL, opponents=True)
    with pytest.raises(ConfigError, match="state_only"):
        JudgeConfig(sees="actions", state_only=True)


def test_a_biased_reward_is_refused_when_games_turn_out_to_end():
    env = exits(0.3)
    endless = api.record(exits(0.0), episodes=20)  # the demonstrators' never end
    config, state, draws = begun(env, endless, absorbing=False, reward="softplus")
    with pytest.raises(ConfigError, match="games of this env end"):
        magail.update(config, state, endless, env, draws)


@dataclass(frozen=True)
class Leaving:
    """The second of two agents goes home after `leaves` of five steps."""

    leaves: int = 2
    spec = EnvSpec(agents=2, obs=1, action=Discrete(2), horizon=5)

    def reset(self, noise):
        return torch.zeros(len(noise), dtype=torch.long)

    def observe(self, state):
        return torch.ones(len(state), 2, 1)

    def present(self, state):
        return torch.stack([state >= 0, state < self.leaves], dim=-1)

    def step(self, state, actions, noise):
        return state + 1, torch.zeros(len(state), 2), torch.zeros(len(state), dtype=torch.bool)


def at_random(env):
    return api.record(env, Uniform(env.spec), episodes=4)


@pytest.mark.parametrize(("form", "says"), [("softplus", "pay for staying"), ("logD", "pay for leaving")])
def test_rewards_of_one_sign_are_refused_where_agents_leave_games_that_go_on(form, says):
    leaving, staying = (at_random(Leaving(n)) for n in (2, 9))
    with pytest.raises(ConfigError, match=f"(?s)demonstrators leave.*{says}"):
        magail.init(replace(SMALL, reward=form), leaving, Leaving(), generator(0))
    config, state, draws = begun(Leaving(), staying, reward=form)
    with pytest.raises(ConfigError, match=f"(?s)agents leave.*{says}"):
        magail.update(config, state, staying, Leaving(), draws)
    at_the_end = at_random(Leaving(5))
    for env, demos, reward in (
        (Leaving(9), staying, form),
        (Leaving(5), at_the_end, form),
        (Leaving(), leaving, "logit"),
    ):
        config, state, draws = begun(env, demos, reward=reward)
        magail.update(config, state, demos, env, draws)


def test_an_env_that_plays_on_where_the_demonstrators_games_end_is_refused():
    demos, env = api.record(Navigation(), episodes=8), Navigation(fixed_horizon=True)
    learner = replace(SMALL.learner, envs=32, segment=64, net=NetConfig(hidden=8))
    config, state, draws = begun(
        env, demos, warmup=2, start="clone", clone=bc.Config(limit=2), learner=learner, judge_steps=1
    )
    magail.update(config, state, demos, env, draws)
    with pytest.raises(EnvError, match=r"(?s)no game was over in 4,096 steps.*absorbing=False"):
        magail.update(config, state, demos, env, draws)


def test_segments_without_ends_and_rewards_are_not_needed_of_recordings():
    env = exits(0.3)
    demos = api.record(env, episodes=30)
    bare = type(demos).from_episodes(demos.spec, [replace(e, rewards=None) for e in demos])
    config, state, draws = begun(env, bare)
    assert isinstance(magail.update(config, state, bare, env, draws), dict)
    assert isinstance(bare.padded(), Segment)
