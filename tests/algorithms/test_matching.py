"""GMMIL and PWIL: what they pay, in closed form; that ends of games say nothing by themselves; and that they learn."""

import math
from dataclasses import dataclass, replace

import pytest
import torch

from understudy import api
from understudy.algorithms import bc, gmmil, matching, ppo, pwil
from understudy.core.errors import ConfigError, DemosError
from understudy.core.random import generator
from understudy.core.tree import tree_map
from understudy.core.types import Continuous, Discrete, EnvSpec, Segment, View
from understudy.demos import Demos, Episode
from understudy.nets import NetConfig
from understudy.rollout import Scripted, play, record
from understudy.runs.loop import Habits

QUIET = Habits(show=False, threads=1)
TINY = ppo.Config(envs=8, segment=10, minibatches=2, net=NetConfig(hidden=8), value_hidden=8)
CLONE = bc.Config(limit=5, batch=32)
HORIZON = 10


# ---- ends of games: the game of staying and leaving


@dataclass(frozen=True)
class Door:
    """Move 1 leaves, and the game is over; move 0 stays, up to the horizon. There is nothing else to see."""

    @property
    def spec(self):
        return EnvSpec(agents=1, obs=1, action=Discrete(2), horizon=HORIZON)

    def reset(self, noise):
        return torch.zeros(len(noise))

    def observe(self, state):
        return torch.ones(len(state), 1, 1)

    def step(self, state, actions, noise):
        return state, torch.zeros(len(state), 1), actions[:, 0] == 1


def doors(leaves):
    """Recordings of who leaves with these steps; None: never."""
    made = []
    for step in leaves:
        moves = torch.zeros(HORIZON if step is None else step + 1, 1, dtype=torch.long)
        if step is not None:
            moves[step] = 1
        made.append(Episode(torch.ones(len(moves) + 1, 1, 1), moves, terminated=step is not None))
    return Demos.from_episodes(Door().spec, made)


def played(leave):
    """One segment of who leaves with step `leave` of it, the game beginning again; None: stays."""
    moves = torch.zeros(1, HORIZON, 1, dtype=torch.long)
    over = torch.zeros(1, HORIZON, dtype=torch.bool)
    if leave is not None:
        moves[0, leave], over[0, leave] = 1, True
    starts = torch.arange(HORIZON).unsqueeze(0) == 0
    if leave is not None and leave + 1 < HORIZON:
        starts[0, leave + 1] = True
    cut = torch.zeros_like(over)
    cut[0, -1] = not bool(over[0, -1])
    view = View(torch.ones(1, HORIZON, 1, 1))
    return Segment(view, moves, torch.zeros(1, HORIZON, 1), over, cut, view, starts)


def worth(rewards, leave, discount):
    """Discounted return of the first episode; who stays goes on for ever as in the last step."""
    end = HORIZON - 1 if leave is None else leave
    total = sum(discount**t * rewards[0, t, 0].item() for t in range(end + 1))
    return total if leave is not None else total + discount ** (end + 1) / (1 - discount) * rewards[0, end, 0].item()


def state_of(algorithm, demos, **settings):
    config = algorithm.Config(clone=CLONE, learner=replace(TINY, envs=1, minibatches=1), **settings)
    return config, algorithm.init(config, demos, Door(), generator(0))


@pytest.mark.parametrize("leave", [0, 3, HORIZON - 1, None])
def test_where_nothing_is_to_be_known_it_is_worth_the_same_to_leave_early_late_or_never(leave):
    """PWIL pays alpha, above 0, for every step that is a demonstrated one. Demonstrators leave as the learner does, and
    moves are made to look alike: whenever that is, it is worth alpha / (1 - discount)."""
    config, state = state_of(pwil, doors([leave] * 4))
    blind = torch.full_like(state.points.std, 1e6)  # nothing can be told apart
    state.points = replace(state.points, std=blind, at=torch.zeros_like(state.points.at), mean=0 * blind)
    state.left = pwil.places(state.points).expand(1, -1, -1).clone()
    rewards, _ = pwil.rewards_of(config, state, Door(), played(leave), torch.zeros(1, dtype=torch.long), HORIZON)
    discount = config.learner.discount
    assert worth(rewards, leave, discount) == pytest.approx(config.alpha / (1 - discount), rel=1e-4)


def test_who_leaves_where_all_stay_is_paid_nothing_for_being_gone_and_who_stays_where_all_leave_runs_out_of_places():
    config, state = state_of(pwil, doors([None] * 4))
    rewards, _ = pwil.rewards_of(config, state, Door(), played(0), torch.zeros(1, dtype=torch.long), HORIZON)
    assert worth(rewards, 0, config.learner.discount) < config.alpha
    config, state = state_of(pwil, doors([1] * 4))  # one step of staying, one of leaving, eight of being gone
    rewards, _ = pwil.rewards_of(config, state, Door(), played(None), torch.zeros(1, dtype=torch.long), HORIZON)
    assert rewards[0, 0, 0].item() == pytest.approx(config.alpha, rel=1e-3)
    assert (rewards[0, 2:] == 0).all()


@pytest.mark.parametrize("leave", [0, 3, None])
def test_who_does_as_the_demonstrators_do_is_paid_nothing_by_the_witness_whatever_that_is(leave):
    """No step is denser on either side, in the game or after it: leaving early, late or never is worth 0."""
    config, state = state_of(gmmil, doors([leave] * 4))
    steps = HORIZON if leave is None else leave + 1
    game = played(leave)
    gone = torch.tensor(0.0 if leave is None else (HORIZON - steps) / HORIZON)
    assert state.points.gone.item() == pytest.approx(gone.item())
    shown = Segment(View(game.obs), game.actions, terminated=game.terminated, starts=game.starts)
    many = tree_map(lambda x: x[:, :steps].repeat(20, *[1] * (x.dim() - 1)), shown)
    rewards, told = gmmil.rewards_of(config, state, Door(), many, gone, generator(1))
    torch.testing.assert_close(rewards, torch.zeros_like(rewards), atol=2e-2, rtol=0)  # a step leaves itself out
    assert abs(told["mmd2"].item()) < 1e-2


def test_the_absorbing_state_is_worth_what_it_is_denser_in_for_ever():
    """Demonstrators gone for 8 of 10 steps, the learner for none: (0.8 - 0) * discount / (1 - discount)."""
    config, state = state_of(gmmil, doors([1] * 4))
    many = played(0)
    rewards, _ = gmmil.rewards_of(config, state, Door(), many, torch.tensor(0.0), generator(1))
    discount = config.learner.discount
    ends = 0.8 * discount / (1 - discount)
    same = replace(many, terminated=torch.zeros_like(many.terminated))
    state.learner.updates = 1  # the widths stay
    without, _ = gmmil.rewards_of(config, state, Door(), same, torch.tensor(0.0), generator(1))
    torch.testing.assert_close((rewards - without)[0, 0], torch.full((1,), ends), atol=1e-4, rtol=1e-4)
    assert torch.equal(rewards[:, 1:], without[:, 1:])


# ---- points


def test_points_are_in_deviations_and_moves_are_alike_far_apart():
    env = api.make_env("navigation", agents=2, horizon=10)
    demos = record(env, api.expert_of(env), 30, generator(0))
    for match, who in (("own", 2), ("joint", 1)):
        points = matching.points_of(match, demos, env.spec, 10_000, 0.97, generator(1))
        assert points.at.shape[1:] == (who, (env.spec.obs + 5) * 2 // who)
        torch.testing.assert_close(points.weight.sum(0), torch.ones(who))
        seen = points.std != 1
        torch.testing.assert_close(points.at.mean(0), torch.zeros_like(points.mean), atol=1e-4, rtol=0)
        acted = matching._acted(match, env.spec)
        assert len(points.std[0][acted].unique()) == 1
        free = seen & ~acted
        torch.testing.assert_close(points.at.std(0, correction=0)[free], torch.ones(int(free.sum())), atol=1e-3, rtol=0)


def test_a_joint_point_knows_of_agreement_and_own_points_do_not():
    """Both left or both right, against each by itself: the same for every agent, not for the team."""
    game = api.make_env("coordination", conventions=2)
    agreed = api.record(game, episodes=300)

    def apart(env, view, noise):
        return (noise[..., 0] > 0.5).long()

    steps = play(game, Scripted(game, apart), 300, generator(2))
    found = {}
    for match in ("own", "joint"):
        config = gmmil.Config(match=match, clone=CLONE, learner=replace(TINY, net=NetConfig(layers=0)))
        state = gmmil.init(config, agreed, game, generator(0))
        _, told = gmmil.rewards_of(config, state, game, steps, torch.tensor(0.0), generator(1))
        found[match] = told["mmd2"].item()
    assert abs(found["own"]) < 0.01 and found["joint"] > 0.1


def test_numbers_and_absent_agents_make_points_too():
    spec = EnvSpec(agents=2, obs=1, action=Continuous(2, -1.0, 1.0))
    there = torch.ones(5, 2, dtype=torch.bool)
    there[2:, 1] = False
    obs = torch.randn(5, 2, 1, generator=generator(0)) * there.unsqueeze(-1)
    demos = Demos.from_episodes(spec, [Episode(obs, torch.zeros(4, 2, 2), present=there)])
    own = matching.points_of("own", demos, spec, 100, 0.97, generator(1))
    assert own.weight.sort(dim=0).values[:, 1].tolist() == [0, 0, 0.5, 0.5]
    assert own.weight[:, 0].tolist() == [0.25] * 4
    together = matching.points_of("joint", demos, spec, 100, 0.97, generator(1))
    assert together.weight.sort(dim=0).values[:, 0].tolist() == [0, 0, 0.5, 0.5]


@pytest.mark.parametrize("match", ["own", "joint"])
def test_actions_count_as_the_env_takes_them(match):
    """Recordings hold actions within their bounds; a learner's draws beyond them do the same, and are the same point."""
    spec = EnvSpec(agents=2, obs=1, action=Continuous(1, -1.0, 1.0))
    beyond, within = (Segment(View(torch.ones(1, 2, 1)), torch.tensor([[[a], [-a]]])) for a in (3.0, 1.0))
    assert torch.equal(matching.features(match, spec, beyond), matching.features(match, spec, within))


def test_who_is_absent_takes_no_place_and_is_paid_nothing():
    """Away for 5 of 10 steps, as the demonstrator was, and then where it was: paid in full for each of those."""
    there = torch.arange(HORIZON + 1).unsqueeze(-1) >= 5
    obs = torch.arange(HORIZON + 1.0)[:, None, None] * there.unsqueeze(-1)
    moves = torch.zeros(HORIZON, 1, dtype=torch.long)
    demos = Demos.from_episodes(Door().spec, [Episode(obs, moves, present=there)])
    config, state = state_of(pwil, demos)
    game = replace(played(None), view=View(obs[None, :-1], present=there[None, :-1]))
    rewards, told = pwil.rewards_of(config, state, Door(), game, torch.zeros(1, dtype=torch.long), HORIZON)
    torch.testing.assert_close(rewards[0, :, 0], config.alpha * there[:-1, 0], atol=0.1, rtol=0)
    assert told["placed"] == 1 and told["cost"] < 1e-2


# ---- refusals, and learning


@pytest.mark.parametrize("algorithm", [gmmil, pwil])
def test_settings_and_callers_that_cannot_be_meant_are_refused(algorithm):
    with pytest.raises(ConfigError, match="2 or more points"):
        algorithm.Config(points=1)
    with pytest.raises(ConfigError, match="infinitely much"):
        algorithm.Config(learner=replace(TINY, discount=1.0))
    with pytest.raises(DemosError, match="no demonstration"):
        algorithm.init(algorithm.Config(), None, Door(), generator(0))
    with pytest.raises(ConfigError, match="give it an env"):
        algorithm.init(algorithm.Config(), doors([1]), None, generator(0))


def test_a_scale_that_is_none_is_refused():
    for name, value in (("alpha", 0.0), ("beta", math.inf)):
        with pytest.raises(ConfigError, match=name):
            pwil.Config(**{name: value})
    with pytest.raises(ConfigError, match="width"):
        gmmil.Config(width=0.0)


@pytest.mark.parametrize("algorithm", [gmmil, pwil])
@pytest.mark.parametrize("leave", [0, None])
def test_from_nothing_it_learns_to_leave_or_to_stay_as_was_shown(algorithm, leave):
    learner = replace(TINY, envs=32, segment=20, net=NetConfig(layers=0), rate=0.03)
    config = algorithm.Config(start="fresh", warmup=1, learner=learner)
    run = api.train(algorithm, doors([leave] * 6), Door(), config=config, updates=25, habits=QUIET)
    length = play(Door(), run.policy, 200, generator(3)).valid.sum(1).float().mean().item()
    assert length < 1.5 if leave == 0 else length > 6, "half of the moves at first: 2 steps on average"
