"""What is played is what happened: ends, resets, memory and likelihoods, on envs small enough to foretell."""

import math
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from understudy import api
from understudy.core.errors import ConfigError, EnvError
from understudy.core.random import generator, uniform
from understudy.core.tree import tree_leaves, tree_map
from understudy.core.types import Continuous, Discrete, EnvSpec, MultiDiscrete, Segment, View
from understudy.demos import About, Demos, Episode
from understudy.envs import tabular
from understudy.nets import NetConfig, build_policy
from understudy.rollout import (
    Scripted,
    Uniform,
    Wandering,
    begin,
    choosing,
    collect,
    episode_returns,
    look,
    play,
    record,
    score,
    starts_of,
    to_demos,
    within_bounds,
)


@dataclass(frozen=True)
class Life:
    length: Tensor  # [env] steps that the game would last
    age: Tensor  # [env] steps lived


@dataclass(frozen=True)
class Lives:
    """Lasts 1 to 6 steps by the reset's noise, cut off after `horizon`; everybody sees (length, age), and all of it."""

    horizon: int | None = 4
    noisy: bool = True

    @property
    def spec(self):
        noise = int(self.noisy)
        return EnvSpec(agents=2, obs=2, action=Discrete(8), horizon=self.horizon, reset_noise=noise, whole=2)

    def reset(self, noise):
        length = 1 + (6 * noise[:, 0]).long() if self.noisy else torch.full((len(noise),), 3)
        return Life(length, torch.zeros_like(length))

    def observe(self, state):
        return self.whole(state).unsqueeze(1).expand(-1, 2, -1)

    def whole(self, state):
        return torch.stack([state.length, state.age], dim=-1).float()

    def legal(self, state):
        """Everything but the move whose number is the age."""
        return (torch.arange(8) != state.age.unsqueeze(-1)).unsqueeze(1).expand(-1, 2, -1)

    def step(self, state, actions, noise):
        after = Life(state.length, state.age + 1)
        return after, (after.age.unsqueeze(-1) * torch.tensor([1.0, -1.0])), after.age >= after.length


@dataclass(frozen=True)
class Dice:
    """Over after each step with `chance`."""

    chance: float

    @property
    def spec(self):
        return EnvSpec(agents=1, obs=1, action=Discrete(2), step_noise=1)

    def reset(self, noise):
        return torch.zeros(len(noise))

    def observe(self, state):
        return state.reshape(-1, 1, 1)

    def step(self, state, actions, noise):
        return state + 1, torch.ones(len(state), 1), noise[:, 0] < self.chance


class Counting:
    """Plays the number of steps that it remembers."""

    noise = 0

    def start(self, envs):
        return {"steps": torch.zeros(envs, dtype=torch.long)}

    def act(self, view, memory, noise):
        return memory["steps"].unsqueeze(-1).expand(-1, view.obs.shape[1]), {"steps": memory["steps"] + 1}

    def log_prob(self, view, actions, memory=(), starts=None):
        raise AssertionError("nobody asks how likely counting is")


def lived(view):
    return view.whole[..., 1]


@pytest.fixture(scope="module")
def played():
    env, source = Lives(), generator(0)
    policy = Uniform(env.spec)
    return collect(env, policy, begin(env, policy, 64, source), 30, source)


# ---- ends


def test_the_game_being_over_and_a_time_limit_are_told_apart(played):
    segment, _ = played
    length, age = segment.next_view.whole.unbind(-1)
    assert torch.equal(segment.terminated, age == length)
    assert torch.equal(segment.truncated, (age == 4) & (length > 4))  # over exactly at the limit: over
    assert segment.terminated.any() and segment.truncated.any() and ((age == 4) & segment.terminated).any()


def test_what_a_step_led_to_is_seen_before_the_reset_and_the_next_step_sees_what_follows_it(played):
    segment, live = played
    ended, age, age_after = segment.ended, lived(segment.view), lived(segment.next_view)
    assert torch.equal(age_after, age + 1)
    assert torch.equal(segment.next_view.whole[..., 0], segment.view.whole[..., 0])
    for name in ("obs", "whole", "legal"):
        following = torch.cat([getattr(segment.view, name)[:, 1:], getattr(live.view, name).unsqueeze(1)], dim=1)
        assert torch.equal(following[~ended], getattr(segment.next_view, name)[~ended]), name
    after = torch.cat([age[:, 1:], lived(live.view).unsqueeze(1)], dim=1)
    assert not after[ended].any()
    assert torch.equal(segment.starts, age == 0)
    assert torch.equal(live.age.float(), lived(live.view))
    assert torch.equal(live.state.age, live.age)


def test_a_reset_takes_its_own_noise_and_leaves_the_other_envs_alone(played):
    lengths = played[0].view.whole[..., 0][played[0].starts]
    share = torch.bincount(lengths.long(), minlength=7)[1:] / len(lengths)
    assert (share - 1 / 6).abs().max() < 5 * math.sqrt(5 / 36 / len(lengths))  # five standard errors


def test_memory_is_zero_after_a_reset():
    env, source = Lives(), generator(1)
    segment, live = collect(env, Counting(), begin(env, Counting(), 32, source), 25, source)
    assert torch.equal(segment.actions[..., 0].float(), lived(segment.view))
    assert torch.equal(live.memory["steps"], live.age)


@pytest.mark.parametrize("noisy", [True, False])
def test_segments_follow_one_another_as_if_they_were_one(noisy):
    """Without chance bit for bit; with it an episode in play goes on where it stood."""
    env, source = Lives(noisy=noisy, horizon=None), generator(2)
    live = begin(env, Counting(), 16, source)
    first, middle = collect(env, Counting(), live, 8, source)
    second, after = collect(env, Counting(), middle, 8, source)
    assert torch.equal(second.view.whole[:, 0], middle.view.whole)
    going = ~first.ended[:, -1]
    assert torch.equal(lived(second.view)[going, 0], lived(first.view)[going, -1] + 1)
    assert torch.equal(second.actions[..., 0].float(), lived(second.view))
    if not noisy:
        whole, at_end = collect(env, Counting(), live, 16, source)
        halves = tree_map(lambda *x: torch.cat(x, dim=1), first, second)
        for one, other in zip(tree_leaves((whole, at_end)), tree_leaves((halves, after)), strict=True):
            assert torch.equal(one, other)


def test_the_same_generator_gives_the_same_bits_and_another_does_not():
    env = tabular.two_rooms(agents=2, horizon=5)
    policy = build_policy(NetConfig(body="gru", hidden=8), env.spec, generator(0))

    def bits(seed):
        source = generator(seed)
        return [x.clone() for x in tree_leaves(collect(env, policy, begin(env, policy, 8, source), 12, source))]

    assert all(torch.equal(a, b) for a, b in zip(bits(3), bits(3), strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(bits(3), bits(4), strict=True))


# ---- whole episodes


def test_short_episodes_are_not_played_more_often_than_they_happen():
    """Lengths are geometric: mean 1 / p, deviation sqrt(1 - p) / p."""
    env, source, chance, count = Dice(0.2), generator(5), 0.2, 2000
    policy = Uniform(env.spec)
    lengths = play(env, policy, count, source, envs=300).valid.sum(dim=1).float()
    error = math.sqrt(1 - chance) / chance / math.sqrt(count)
    assert len(lengths) == count and abs(lengths.mean() - 1 / chance) < 5 * error
    assert abs((lengths == 1).float().mean() - chance) < 5 * math.sqrt(chance * (1 - chance) / count)
    # those that end within a fixed number of steps are shorter: what `play` must not do
    segment, _ = collect(env, policy, begin(env, policy, count, source), 10, source)
    ended_early, _ = episode_returns(segment.rewards, segment.ended, torch.zeros(count, 1))
    assert ended_early.mean() < 1 / chance - 5 * error


def test_an_episode_is_valid_to_its_end_and_no_further():
    segment = play(Lives(), Uniform(Lives().spec), 50, generator(6), envs=20)
    steps = segment.valid.sum(dim=1)
    for i, n in enumerate(steps.tolist()):
        assert segment.valid[i, :n].all() and segment.ended[i, n - 1] and not segment.ended[i, : n - 1].any()
        assert lived(segment.view)[i, :n].tolist() == list(range(n))
    assert len(steps) == 50 and segment.valid.shape[1] == steps.max() == 4


def test_episodes_longer_than_a_block_are_whole():
    segment = play(tabular.two_rooms(horizon=150), Uniform(tabular.two_rooms().spec), 3, generator(7))
    assert segment.valid.shape == (3, 150) and segment.valid.all()
    assert segment.truncated[:, -1].all() and segment.ended.sum() == 3


@pytest.mark.slow
def test_a_game_that_never_ends_is_refused():
    env = Dice(0.0)
    with pytest.raises(EnvError, match="Give the env a horizon"):
        play(env, Uniform(env.spec), 1, generator(0))


# ---- recordings


def test_a_recording_holds_all_that_was_seen_and_done():
    env = Lives()
    segment = play(env, Uniform(env.spec), 30, generator(8))
    demos = record(env, Uniform(env.spec), 30, generator(8), about=About(title="lives"))
    assert demos.spec == env.spec and demos.about.title == "lives" and len(demos) == 30
    for i, episode in enumerate(demos):
        n = int(segment.valid[i].sum())
        assert len(episode) == n and episode.obs.shape == (n + 1, 2, 2)
        assert episode.whole[:, 1].tolist() == list(range(n + 1))  # the moment after the last step is not the reset's
        assert torch.equal(episode.actions, segment.actions[i, :n])
        assert torch.equal(episode.rewards, segment.rewards[i, :n])
        assert torch.equal(episode.legal[:-1], segment.view.legal[i, :n])
        length, age = episode.whole[-1].tolist()
        assert episode.terminated == (age == length) and episode.truncated == (age < length)
    padded = demos.padded()
    assert torch.equal(padded.valid, segment.valid)
    for name in ("actions", "rewards", "terminated", "truncated", "starts"):
        assert torch.equal(getattr(padded, name)[padded.valid], getattr(segment, name)[segment.valid]), name
    for name in ("view", "next_view"):
        mine, theirs = getattr(padded, name), getattr(segment, name)
        for one, other in zip(tree_leaves(mine), tree_leaves(theirs), strict=True):
            assert torch.equal(one[padded.valid], other[segment.valid])


@dataclass(frozen=True)
class Push:
    """Pays and shows what it was handed."""

    @property
    def spec(self):
        return EnvSpec(agents=2, obs=1, action=Continuous(1, -0.5, 1.0), horizon=3)

    def reset(self, noise):
        return torch.zeros(len(noise), 2, 1)

    def observe(self, state):
        return state

    def step(self, state, actions, noise):
        return actions, actions.squeeze(-1), torch.zeros(len(state), dtype=torch.bool)


def test_what_the_env_takes_and_the_recording_keeps_lies_within_the_bounds():
    env = Push()

    def far(env, view, noise):
        return 8 * noise[..., :1] - 4

    source = generator(9)
    segment, _ = collect(env, Scripted(env, far), begin(env, Scripted(env, far), 50, source), 3, source)
    assert segment.actions.min() < -2 and segment.actions.max() > 2  # as drawn: likelihoods are of these
    assert torch.equal(segment.next_view.obs, segment.actions.clamp(-0.5, 1.0))
    for episode in record(env, Scripted(env, far), 50, generator(9)):
        assert torch.equal(episode.actions.squeeze(-1), episode.rewards)
    moves = torch.tensor([0, 7])
    assert within_bounds(Lives().spec, moves) is moves


def test_a_script_is_recorded_and_has_no_likelihood():
    game = tabular.coordination(3)
    script = Scripted(game, tabular.expert)
    demos = record(game, script, 40, generator(10))
    moves = torch.cat([e.actions for e in demos])
    assert (moves[:, 0] == moves[:, 1]).all() and moves.unique().tolist() == [0, 1, 2]
    with pytest.raises(EnvError, match="Clone it first"):
        script.log_prob(View(torch.zeros(1, 1, 2, 1)), torch.zeros(1, 1, 2, dtype=torch.long))


# ---- chance moves


def test_chance_never_plays_an_illegal_move_and_plays_the_legal_ones_alike(played):
    segment, _ = played
    assert not (segment.actions == lived(segment.view).unsqueeze(-1)).any()
    first = segment.actions[segment.starts].flatten()  # move 0 is forbidden there
    share = torch.bincount(first, minlength=8)[1:] / len(first)
    assert (share - 1 / 7).abs().max() < 5 * math.sqrt(6 / 49 / len(first))
    log_prob = Uniform(Lives().spec).log_prob(segment.view, segment.actions)
    torch.testing.assert_close(log_prob, torch.full((64, 30, 2), -math.log(7)))


def test_chance_moves_of_several_parts_obey_each_part():
    spec = EnvSpec(agents=1, obs=1, action=MultiDiscrete((3, 2)))
    legal = torch.tensor([True, False, True, False, True]).expand(900, 1, 5)
    view, policy = View(torch.zeros(900, 1, 1), legal), Uniform(spec)
    moves, _ = policy.act(view, (), uniform((900, 1, policy.noise), generator(11)))
    assert sorted(set(map(tuple, moves[:, 0].tolist()))) == [(0, 1), (2, 1)]
    torch.testing.assert_close(policy.log_prob(view, moves), torch.full((900, 1), -math.log(2)))


def test_chance_moves_fill_their_bounds_and_are_normal_where_there_are_none():
    view = View(torch.zeros(40_000, 1, 1))
    bounded = Uniform(EnvSpec(agents=1, obs=1, action=Continuous(2, -1.0, 3.0)))
    moves, _ = bounded.act(view, (), uniform((40_000, 1, bounded.noise), generator(12)))
    assert moves.min() >= -1 and moves.max() <= 3
    assert (moves.mean((0, 1)) - 1).abs().max() < 5 * 4 / math.sqrt(12 * 40_000)
    torch.testing.assert_close(bounded.log_prob(view, moves), torch.full((40_000, 1), -2 * math.log(4)))
    assert (bounded.log_prob(view, moves + 5) == -math.inf).all()
    free = Uniform(EnvSpec(agents=1, obs=1, action=Continuous(2, -math.inf, math.inf)))
    moves, _ = free.act(view, (), uniform((40_000, 1, free.noise), generator(13)))
    assert moves.mean((0, 1)).abs().max() < 5 / math.sqrt(40_000)
    assert (moves.var((0, 1)) - 1).abs().max() < 5 * math.sqrt(2 / 40_000)
    normal = torch.distributions.Normal(0.0, 1.0).log_prob(moves).sum(-1)
    torch.testing.assert_close(free.log_prob(view, moves), normal)


# ---- likelihoods and returns


@pytest.fixture(scope="module")
def unequal():
    """Episodes of 1 to 9 steps of three agents, one of whom comes and goes."""
    source, spec = generator(14), EnvSpec(agents=3, obs=4, action=Discrete(3))
    episodes = []
    for steps in (3, 9, 1, 5, 5):
        present = torch.rand(steps + 1, 3, generator=source) < 0.8
        actions = torch.randint(3, (steps, 3), generator=source)
        episodes.append(Episode(torch.randn(steps + 1, 3, 4, generator=source), actions, present=present))
    return Demos.from_episodes(spec, episodes)


@pytest.mark.parametrize("net", [NetConfig(body="gru", hidden=8), NetConfig(hidden=8, frames=3, own_action=True)])
def test_a_score_is_the_likelihood_of_each_episode_by_itself(unequal, net):
    """Padding, the other episodes and the size of a chunk play no part. By hand: step after step with its memory."""
    policy = build_policy(net, unequal.spec, generator(15))
    for out in policy.outs:
        out.weight.data.mul_(50)
    scores = [score(policy, unequal, chunk) for chunk in (1, 20, 65_536)]
    for i, episode in enumerate(unequal):
        memory, n = policy.start(1), len(episode)
        for t in range(n):
            view = View(episode.obs[None, t : t + 1], present=episode.present[None, t : t + 1])
            params, memory = policy.params(view, episode.actions[None, t : t + 1], memory)
            chances = params[0, 0].log_softmax(dim=-1)  # [agent, choice]
            for a in range(3):
                move = int(episode.actions[t, a])
                for s in scores:
                    assert s.log_prob[i, t, a].item() == pytest.approx(chances[a, move].item(), abs=1e-5)
                    assert s.hit[i, t, a] == (chances[a].argmax() == move)
                    assert s.counts[i, t, a] == episode.present[t, a]
        assert all(not s.counts[i, n:].any() for s in scores)
    each = torch.cat([scores[0].log_prob[i, : len(e)][e.present[:-1]] for i, e in enumerate(unequal)])
    assert scores[-1].mean.item() == pytest.approx(each.mean().item(), abs=1e-5)


def test_returns_of_episodes_agree_with_adding_up_one_reward_after_another():
    source = generator(16)
    for _ in range(20):
        envs, steps, agents = (int(torch.randint(1, 7, (), generator=source)) for _ in range(3))
        rewards, running = (
            torch.randn(envs, steps, agents, generator=source),
            torch.randn(envs, agents, generator=source),
        )
        ended = torch.rand(envs, steps, generator=source) < 0.3
        expected, left = [], []
        for e in range(envs):
            total = running[e].clone()
            for t in range(steps):
                total = total + rewards[e, t]
                if ended[e, t]:
                    expected.append(total)
                    total = torch.zeros(agents)
            left.append(total)
        finished, after = episode_returns(rewards, ended, running)
        torch.testing.assert_close(after, torch.stack(left), atol=1e-5, rtol=0)
        wanted = torch.stack(expected) if expected else torch.zeros(0, agents)
        torch.testing.assert_close(finished, wanted, atol=1e-5, rtol=0)


# ---- simulators that keep their state inside


@dataclass(frozen=True)
class Ticket:
    number: Tensor  # [env]


class Foreign:
    """Keeps its ages inside and hands out tickets; only the latest may be used. It has a time limit of its own."""

    spec = EnvSpec(agents=1, obs=2, action=Discrete(2), reset_noise=1)

    def __init__(self):
        self.limits = torch.tensor([2, 3, 5])
        self.age, self.began, self.latest = torch.zeros(3), torch.zeros(3), 0

    def _ticket(self):
        self.latest += 1
        return Ticket(torch.full((3,), self.latest))

    def _honour(self, state):
        assert (state.number == self.latest).all(), "an old ticket"

    def reset(self, noise):
        self.age, self.began = torch.zeros(3), noise[:, 0]
        return self._ticket()

    def restart(self, state, ended, noise):
        self._honour(state)
        assert ended.any() and len(noise) == 3
        self.age, self.began = torch.where(ended, 0.0, self.age), torch.where(ended, noise[:, 0], self.began)
        return self._ticket()

    def observe(self, state):
        self._honour(state)
        return torch.stack([self.began, self.age], dim=-1).unsqueeze(1)

    def truncated(self, state):
        self._honour(state)
        return self.age >= self.limits

    def step(self, state, actions, noise):
        self._honour(state)
        self.age = self.age + 1
        over = (self.age == 5) & (actions[:, 0] == 1)
        return self._ticket(), self.age.unsqueeze(-1), over


def test_a_simulator_with_its_state_inside_is_restarted_where_it_ended_and_only_there():
    env, source = Foreign(), generator(17)
    policy = Uniform(env.spec)
    segment, live = collect(env, policy, begin(env, policy, 3, source), 60, source)
    age = segment.obs[:, :, 0, 1]
    for e, limit in enumerate((2, 3, 5)):
        assert age[e].tolist() == [t % limit for t in range(60)]
    over = (age == 4) & (segment.actions[..., 0] == 1)
    assert torch.equal(segment.terminated, over) and over.any()
    limit = age + 1 == env.limits.unsqueeze(-1)
    assert torch.equal(segment.truncated, limit & ~over) and (limit & ~over)[2].any()
    began = segment.obs[:, :, 0, 0]
    assert torch.equal(began[:, 1:] != began[:, :-1], segment.ended[:, :-1])  # a new draw with each end, and only then
    assert torch.equal(segment.next_view.obs[:, :, 0, 1], age + 1)
    assert torch.equal(look(env, live.state).obs, live.view.obs)


def test_a_recording_of_steps_that_were_played_elsewhere_needs_no_env():
    env = Lives()
    segment = play(env, Uniform(env.spec), 5, generator(18))
    recorded = record(env, Uniform(env.spec), 5, generator(18))
    assert to_demos(segment, env.spec, About(), starts_of(recorded)).fingerprint() == recorded.fingerprint()
    unmasked = replace(
        segment, view=replace(segment.view, legal=None), next_view=replace(segment.next_view, legal=None)
    )
    assert to_demos(unmasked, env.spec, About())[0].legal is None


class Copies:
    """A game that can be played by so many at a time, as behind a door."""

    def __init__(self, env, copies, divisible=True):
        self.env, self.copies, self.divisible, self.batches = env, copies, divisible, []

    def __getattr__(self, name):
        return getattr(self.env, name)

    def reset(self, noise):
        assert len(noise) <= self.copies and (self.divisible or len(noise) == self.copies)
        self.batches.append(len(noise))
        return self.env.reset(noise)


@pytest.mark.parametrize(("divisible", "batches"), [(True, [3, 3, 1]), (False, [3, 3, 3])])
def test_no_more_is_played_side_by_side_than_a_simulator_has_copies(divisible, batches):
    env = api.make_env("navigation", agents=2, horizon=5, fixed_horizon=True)
    door = Copies(env, 3, divisible)
    played = play(door, Uniform(env.spec), 7, generator(0))
    assert played.obs.shape[:3] == (7, 5, 2)
    assert door.batches[::2] == batches, "each round begins, and begins again where its episodes end"
    assert len(record(door, Uniform(env.spec), 4, generator(0))) == 4
    with pytest.raises(ConfigError, match="episodes=0"):
        play(door, Uniform(env.spec), 0, generator(0))


@pytest.mark.parametrize(("parts", "width"), [((), 3), ((2,), 5)])
def test_a_forced_move_is_no_choice(parts, width):
    legal = torch.ones(1, 3, 2, width, dtype=torch.bool)
    legal[0, 0, 1, 1:] = False  # the second agent waits in the first step ...
    if parts:
        legal[0, 0, 1, 2] = True  # ... with one move for either part
    valid = torch.tensor([[True, True, False]])
    present = torch.tensor([[[True, True], [False, True], [True, True]]])
    view = View(torch.zeros(1, 3, 2, 4), legal=legal, present=present)
    segment = Segment(view, torch.zeros(1, 3, 2, *parts, dtype=torch.long), valid=valid)
    assert choosing(segment).tolist() == [[[True, False], [False, True], [False, False]]]
    free = replace(segment, view=View(view.obs), valid=None)
    assert choosing(free).all()


def test_those_who_wait_do_not_flatter_a_likelihood():
    """One chooses and one waits: guessing is -log(choices) per choice, not half of it."""
    env = api.make_env("navigation", agents=2, horizon=6, fixed_horizon=True)
    choices = env.spec.action.choices

    class Waits(Copies):
        def legal(self, state):
            first = torch.tensor([[True], [False]])
            return (first | (torch.arange(choices) == 0)).expand(len(self.env.observe(state)), 2, choices)

    demos = record(Waits(env, 4), Uniform(env.spec), 4, generator(0))
    run = api.train("bc", demos, config={"net": {"hidden": 4}, "steps": 1, "rate": 1e-9, "held_out": 0}, updates=1)
    found = score(run.policy, demos)
    assert found.counts.sum() == demos.steps, "one chooses in every step"
    assert float(found.mean) == pytest.approx(-torch.tensor(float(choices)).log().item(), abs=0.05)
    assert run.metrics[-1]["loss"] == pytest.approx(-float(found.mean), abs=0.05), (
        "the loss is told of the same choices"
    )


# ---- where it began


def test_a_recording_tells_where_it_began_and_others_begin_there():
    env = api.make_env("navigation", horizon=6)
    demos = record(env, Uniform(env.spec), 7, generator(3), envs=3)
    starts = starts_of(demos)
    assert starts.shape == (7, env.spec.reset_noise)
    again = play(env, Uniform(env.spec), 16, generator(4), envs=5, starts=starts)
    for k in range(16):
        assert torch.equal(again.obs[k, 0], demos[k % 7].obs[0])
    assert not torch.equal(again.actions[0], again.actions[7])  # only the starts are the same
    torch.testing.assert_close(record(env, Uniform(env.spec), 7, generator(3), envs=3)[6].obs, demos[6].obs)


def test_where_a_recording_does_not_tell_where_it_began_or_tells_nonsense_nothing_is_known():
    env = api.make_env("navigation", horizon=6)
    demos = record(env, Uniform(env.spec), 2, generator(3))
    for said in ({}, {"start": 3}, {"start": "zz"}, {"start": "00"}, {"start": "0000c0ff" * env.spec.reset_noise}):
        assert starts_of(Demos.from_episodes(env.spec, [demos[0], replace(demos[1], info=said)])) is None
    alike = api.make_env("kitchen:cramped_room", horizon=4)  # every episode begins in the one way that there is
    assert starts_of(record(alike, Uniform(alike.spec), 2, generator(0))) is None


def test_who_wanders_draws_from_all_legal_moves_in_a_share_of_the_steps():
    """Who is sure of a first move makes it in 1 - share + share / choices of all steps; likelihoods agree."""
    spec = EnvSpec(agents=2, obs=1, action=Discrete(4))
    policy = build_policy(NetConfig(hidden=4), spec, generator(0))
    for out in policy.outs:
        out.weight.data.zero_()
        out.bias.data.copy_(torch.tensor([100.0, 0.0, 0.0, 0.0]))
    who, view = Wandering(policy, spec, 0.4), View(torch.zeros(20_000, 2, 1))
    actions, _ = who.act(view, who.start(20_000), torch.rand(20_000, 2, who.noise, generator=generator(1)))
    made = torch.stack([(actions == move).float().mean() for move in range(4)])
    torch.testing.assert_close(made, torch.tensor([0.7, 0.1, 0.1, 0.1]), atol=0.01, rtol=0)
    moves = torch.arange(4)[None, :, None].expand(1, 4, 2)
    chance = who.log_prob(View(torch.zeros(1, 4, 2, 1)), moves).exp()
    torch.testing.assert_close(chance[0, :, 0], torch.tensor([0.7, 0.1, 0.1, 0.1]))


def test_who_always_or_never_wanders_has_likelihoods_too():
    spec, moves = EnvSpec(agents=2, obs=1, action=Discrete(4)), torch.arange(4)[None, :, None].expand(1, 4, 2)
    policy, view = build_policy(NetConfig(hidden=4), spec, generator(0)), View(torch.ones(1, 4, 2, 1))
    for share, alone in ((0.0, policy), (1.0, Uniform(spec))):
        torch.testing.assert_close(Wandering(policy, spec, share).log_prob(view, moves), alone.log_prob(view, moves))
