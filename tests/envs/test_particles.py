import importlib
import itertools
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import understudy
from understudy.core.errors import ConfigError, EnvError, ShapeError
from understudy.core.random import generator, uniform
from understudy.core.tree import tree_leaves, tree_map, tree_select
from understudy.core.types import View
from understudy.envs.particles import (
    Adversary,
    Communication,
    Crypto,
    KeepAway,
    Navigation,
    PredatorPrey,
    Push,
    Reference,
    Simple,
    SpeakerListener,
    Spread,
    Tag,
    WorldComm,
    expert,
    place,
)
from understudy.envs.particles_experts import assign

PEERS = {
    "simple_v3": Simple,
    "simple_adversary_v3": Adversary,
    "simple_crypto_v3": Crypto,
    "simple_push_v3": Push,
    "simple_reference_v3": Reference,
    "simple_speaker_listener_v4": SpeakerListener,
    "simple_spread_v3": Spread,
    "simple_tag_v3": Tag,
    "simple_world_comm_v3": WorldComm,
}
PAPER = (Navigation, Communication, KeepAway, PredatorPrey)
ALL = [*PEERS.values(), *PAPER]
BOTH = pytest.mark.parametrize("continuous", [False, True], ids=["discrete", "continuous"])
EVERY = pytest.mark.parametrize("make", ALL, ids=lambda make: make.__name__)


def start(env, envs, *names, dtype=torch.float32):
    return env.reset(uniform((envs, env.spec.reset_noise), generator(0, "reset", *names), dtype))


def step(env, state, actions):
    return env.step(state, actions, torch.empty(len(actions), 0))


def view(env, state):
    return View(obs=env.observe(state), legal=env.legal(state), whole=env.whole(state))


def draw_actions(env, shape, source):
    sizes = env.spec.action_sizes
    if env.continuous:
        return uniform((*shape, len(sizes), max(sizes)), source)
    return (uniform((*shape, len(sizes)), source) * torch.tensor(sizes)).long()


# ---- mpe2 itself


def chosen(env, world):
    """The goals that mpe2's world drew, as we number them."""
    at, agents = world.landmarks.index, world.agents
    drawn = {
        Adversary: lambda: [at(agents[0].goal_a)],
        Push: lambda: [at(agents[0].goal_a)],
        Crypto: lambda: [at(agents[0].goal_a), int(agents[2].key.argmax())],
        Reference: lambda: [at(agent.goal_b) for agent in agents],
        SpeakerListener: lambda: [at(agents[0].goal_b)],
    }
    return drawn.get(type(env), list)()


def largest_deviation_from_mpe2(name, env, steps, **options):
    """Of any number that any agent saw or was paid, over so many random steps; names, sizes and ends must be the same.

    mpe2 plays one episode after another, we play all of them side by side, in double precision as mpe2 does.
    """
    pytest.importorskip("mpe2")
    theirs = importlib.import_module(f"mpe2.{name}").parallel_env(continuous_actions=env.continuous, **options)
    spec, names, sizes = env.spec, env.spec.names, env.spec.action_sizes
    spaces = [theirs.action_space(n) for n in names]
    assert theirs.possible_agents == list(names)
    assert tuple(space.shape[0] if env.continuous else int(space.n) for space in spaces) == sizes
    assert tuple(theirs.observation_space(n).shape[0] for n in names) == spec.obs_sizes

    episodes, horizon = steps // env.horizon, env.horizon
    actions = draw_actions(env, (episodes, horizon), generator(0, name))
    if env.continuous:
        actions = 1.2 * actions - 0.1  # beyond the borders too: both sides clip
    bodies, goals = [], []
    seen, paid = np.zeros((episodes, horizon + 1, len(names), spec.obs)), np.zeros((episodes, horizon, len(names)))
    lasts, over = np.zeros(episodes, dtype=int), np.zeros(episodes, dtype=bool)
    for e in range(episodes):
        obs, _ = theirs.reset(seed=e)
        bodies.append([entity.state.p_pos.copy() for entity in theirs.unwrapped.world.entities])
        goals.append(chosen(env, theirs.unwrapped.world))
        for t in range(horizon + 1):
            for i, n in enumerate(names):
                seen[e, t, i, : spec.obs_sizes[i]] = obs[n]
            if not theirs.agents:
                break
            played = actions[e, t].numpy()
            played = {n: played[i][: sizes[i]] if env.continuous else int(played[i]) for i, n in enumerate(names)}
            obs, rewards, terminated, truncated, _ = theirs.step(played)
            paid[e, t] = [rewards[n] for n in names]
        lasts[e], over[e] = t, any(terminated.values())
        assert over[e] or (t == horizon and all(truncated.values()))

    seen, paid, lasts, over = map(torch.tensor, (seen, paid, lasts, over))
    state = place(env.world, torch.tensor(np.array(bodies)), goal=torch.tensor(goals).reshape(episodes, -1).long())
    worst = (env.observe(state) - seen[:, 0]).abs().max()
    for t in range(horizon):
        state, rewards, terminated = step(env, state, actions[:, t])
        gaps = torch.cat([(env.observe(state) - seen[:, t + 1]), (rewards - paid[:, t]).unsqueeze(-1)], dim=-1)
        goes_on = t < lasts
        worst = torch.maximum(worst, gaps[goes_on].abs().max())
        assert torch.equal(terminated[goes_on], ((t + 1 == lasts) & over)[goes_on])
    return worst.item()


@BOTH
@pytest.mark.parametrize("name", PEERS)
def test_every_step_is_that_of_mpe2(name, continuous):
    assert largest_deviation_from_mpe2(name, PEERS[name](continuous=continuous), 300) < 1e-5


@pytest.mark.slow
@BOTH
@pytest.mark.parametrize("name", PEERS)
def test_every_one_of_ten_thousand_steps_is_that_of_mpe2(name, continuous):
    assert largest_deviation_from_mpe2(name, PEERS[name](continuous=continuous), 10_000) < 1e-5


OTHERS = [
    ("simple_spread_v3", Spread(agents=5, local_ratio=0.3), {"N": 5, "local_ratio": 0.3}),
    ("simple_spread_v3", Spread(agents=1, terminate_on_success=True), {"N": 1, "terminate_on_success": True}),
    ("simple_adversary_v3", Adversary(agents=3), {"N": 3}),
    ("simple_reference_v3", Reference(local_ratio=0.9), {"local_ratio": 0.9}),
    (
        "simple_tag_v3",
        Tag(prey=2, adversaries=4, obstacles=1, terminate_on_success=True),
        {"num_good": 2, "num_adversaries": 4, "num_obstacles": 1, "terminate_on_success": True},
    ),
    (
        "simple_world_comm_v3",
        WorldComm(prey=3, adversaries=2, obstacles=2, food=1, forests=3),
        {"num_good": 3, "num_adversaries": 2, "num_obstacles": 2, "num_food": 1, "num_forests": 3},
    ),
]


@pytest.mark.parametrize(("name", "env", "options"), OTHERS, ids=[str(env) for _, env, _ in OTHERS])
def test_other_numbers_of_agents_and_other_rules_are_those_of_mpe2_too(name, env, options):
    assert largest_deviation_from_mpe2(name, env, 750, **options) < 1e-5


# ---- the scenarios of the papers


def published_step(env, bodies, velocity, moves):
    """A plain NumPy twin of the physics of 2018, one env, one pair at a time."""
    world, count = env.world, len(velocity)
    direction = np.array([[0, 0], [1, 0], [-1, 0], [0, 1], [0, -1]])[moves] * np.array(world.push)[:, None]
    force = direction.astype(float)
    for a, b in itertools.combinations(range(world.solid), 2):
        apart = bodies[a] - bodies[b]
        length = np.sqrt((apart**2).sum())
        depth = np.logaddexp(0, -(length - world.radius[a] - world.radius[b]) / 1e-3) * 1e-3
        for body, sign in ((a, 1), (b, -1)):
            if body < count:
                force[body] += sign * 100 * apart / length * depth
    bodies, velocity = bodies.copy(), velocity.copy()
    for i in range(count):
        mass = world.mass[i] if world.mass else 1.0
        velocity[i] = 0.75 * velocity[i] + force[i] / mass * 0.1
        if world.top_speed and np.linalg.norm(velocity[i]) > world.top_speed[i]:
            velocity[i] *= world.top_speed[i] / np.linalg.norm(velocity[i])
        bodies[i] += 0.1 * velocity[i]
    return bodies, velocity


def published_rewards(env, bodies, goal):
    """The same for rewards."""

    def apart(a, b):
        return float(np.linalg.norm(bodies[a] - bodies[b]))

    if isinstance(env, Navigation):
        n = env.agents
        landmarks = -sum(min(apart(a, n + k) for a in range(n)) for k in range(n))
        each = [landmarks + sum(min(apart(a, i) - 0.3, 0) for a in range(n)) for i in range(n)]
        return [sum(each)] * n
    if isinstance(env, Communication):
        return [-2 * apart(1, 2 + goal)] * 2
    if isinstance(env, KeepAway):
        return [apart(1, 2 + goal) - apart(0, 2 + goal), -apart(1, 2 + goal)]
    touching = sum(apart(i, 3) < 0.125 for i in range(3))
    walls = 0.0
    for x in np.abs(bodies[3]):
        walls += 0 if x < 0.9 else (x - 0.9) * 10 if x < 1 else min(np.exp(2 * x - 2), 10)
    return [10 * touching] * 3 + [-10 * touching - walls]


@pytest.mark.parametrize("make", PAPER, ids=lambda make: make.__name__)
def test_steps_of_the_papers_scenarios_are_those_of_a_plain_twin(make):
    env, episodes = make(), 12
    state, source = start(env, episodes, dtype=torch.float64), generator(0, "twin")
    count = env.spec.agents
    twins = [(torch.cat([state.position[e], state.landmark[e]]).numpy(), np.zeros((count, 2))) for e in range(episodes)]
    for _ in range(env.horizon):
        actions = draw_actions(env, (episodes,), source)
        state, rewards, _ = step(env, state, actions)
        twins = [published_step(env, *twin, actions[e].numpy()) for e, twin in enumerate(twins)]
        for e, (bodies, velocity) in enumerate(twins):
            np.testing.assert_allclose(state.position[e], bodies[:count], atol=1e-9)
            np.testing.assert_allclose(state.velocity[e], velocity, atol=1e-9)
            goal = int(state.goal[e, 0]) if state.goal.shape[1] else 0
            np.testing.assert_allclose(rewards[e], published_rewards(env, bodies, goal), atol=1e-9)


def test_a_push_is_felt_at_once_in_the_papers_and_a_step_later_in_mpe2():
    right = {Navigation: 1, Spread: 2}  # the papers number +x before -x
    for make, moved in ((Navigation, 0.05), (Spread, 0.0)):
        env = make(agents=1)
        state = place(env.world, torch.tensor([[[0.0, 0.0], [0.5, 0.0]]]))
        state, *_ = step(env, state, torch.tensor([[right[make]]]))
        torch.testing.assert_close(state.position, torch.tensor([[[moved, 0.0]]]))
        torch.testing.assert_close(state.velocity, torch.tensor([[[0.5, 0.0]]]))


def test_covering_the_landmarks_ends_navigation_unless_its_horizon_is_fixed():
    at = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    both = torch.stack([torch.cat([at, at + 0.06]), torch.cat([at, at + torch.tensor([0.11, 0.0])])])
    stay = torch.zeros(2, 3, dtype=torch.long)
    for fixed, ends in ((False, [True, False]), (True, [False, False])):
        env = Navigation(fixed_horizon=fixed)
        _, rewards, terminated = step(env, place(env.world, both), stay)
        assert terminated.tolist() == ends
    # three agents, each paid three times (landmarks 0.06 * sqrt 2 away and three overlaps of 0.3 with itself)
    torch.testing.assert_close(rewards[0], torch.full((3,), -9 * 0.06 * 2**0.5 - 0.9))


def test_reaching_the_goal_ends_communication_unless_its_horizon_is_fixed():
    at = torch.tensor([[[0.0, 0.0], [0.5, 0.5], [0.53, 0.5], [0.0, 0.0], [0.0, 0.0]]])
    stay = torch.zeros(1, 2, dtype=torch.long)
    for fixed in (False, True):
        env = Communication(fixed_horizon=fixed)
        _, rewards, terminated = step(env, place(env.world, at), stay)
        assert bool(terminated) is not fixed
    torch.testing.assert_close(rewards, torch.full((1, 2), -0.06))


# ---- published returns


def returns(env, play, episodes):
    """[episode, agent] of whole episodes, ended where the game was over."""
    state, total = start(env, episodes), torch.zeros(episodes, env.spec.agents)
    alive = torch.ones(episodes, 1, dtype=torch.bool)
    for _ in range(env.horizon):
        state, rewards, terminated = step(env, state, play(view(env, state)))
        total += rewards * alive
        alive = alive & ~terminated.unsqueeze(1)
    return total


def at_random(env):
    source = generator(0, "random play")
    return lambda seen: draw_actions(env, seen.obs.shape[:1], source)


def scripted(env):
    return lambda seen: expert(env, seen)


def test_random_play_is_paid_as_published():
    # Yu et al. 2019, table 1, mean and standard error
    for env, mean, error in ((Navigation(), -391.314, 10.092), (Communication(), -125.825, 3.491)):
        assert abs(returns(env, at_random(env), 1500)[:, 0].mean() - mean) < 2 * error


def test_the_scripted_experts_are_paid_about_what_the_papers_experts_were():
    # published: -43.2, -12.7 and, for the seeker of keep-away, -6.8
    for env, agent, low, high in (
        (Navigation(), 0, -42, -36),
        (Communication(), 0, -16, -10.5),
        (KeepAway(), 1, -7.6, -5.8),
    ):
        assert low < returns(env, scripted(env), 1200)[:, agent].mean() < high


# ---- the scripted experts

PAID = {  # the agent whose return the expert has to raise, and how far above random play (per episode, measured / 2)
    Simple: (0, 15),
    Spread: (0, 9),
    Adversary: (1, 1),
    Crypto: (0, 5),
    Push: (1, 10),
    Reference: (0, 10),
    SpeakerListener: (0, 16),
    Tag: (0, 12),
    WorldComm: (0, 9),
    Navigation: (0, 160),
    Communication: (0, 50),
    KeepAway: (1, 25),
    PredatorPrey: (0, 20),
}


def mixed(env, who):
    """The expert where `who` (Bool[env agent]) is true, random play elsewhere."""
    random, scripts = at_random(env), scripted(env)

    def play(seen):
        actions = scripts(seen)
        return torch.where(who.reshape(*who.shape, *[1] * (actions.dim() - 2)), actions, random(seen))

    return play


@BOTH
@EVERY
def test_the_expert_earns_more_than_random_play(make, continuous):
    env, (agent, margin) = make(continuous=continuous), PAID[make]
    who = (torch.arange(400) < 200).unsqueeze(1).expand(-1, env.spec.agents)
    scripts, random = returns(env, mixed(env, who), 400)[:, agent].split(200)
    assert scripts.mean() - random.mean() > margin


def test_scripted_hunters_catch_more_and_scripted_prey_is_caught_less_than_random_ones():
    sides = torch.tensor([[0, 0, 0, 0], [1, 1, 1, 0], [0, 0, 0, 1], [1, 1, 1, 1]], dtype=torch.bool)
    env, who = Tag(), sides.repeat_interleave(400, dim=0)
    neither, hunt, flee, both = returns(env, mixed(env, who), 1600).unflatten(0, (4, 400)).mean(1)
    assert hunt[0] > neither[0] + 20 and both[0] > flee[0] + 10
    assert flee[3] > neither[3] + 10 and both[3] > hunt[3] + 10


def test_bob_reads_every_word_and_eve_half_of_them():
    env = Crypto()
    found = returns(env, scripted(env), 400)
    eve, bob = -found[:, 0], -(found[:, 0] + found[:, 1])
    assert torch.isin(bob, torch.tensor([0.0, 2.0])).all()  # the word reaches him with the second step
    assert abs((eve > 25).float().mean() - 0.5) < 5 * 0.5 / 400**0.5


@pytest.mark.parametrize(("ones", "others"), [(3, 3), (2, 4), (4, 2), (5, 5)])
def test_the_assignment_is_the_cheapest_of_all(ones, others):
    cost = uniform((ones, others, 20), generator(0, ones, others))
    found = assign(cost)
    for e in range(20):
        pairs = [(i, j) for i, j in enumerate(found[:, e].tolist()) if j < others]
        assert len({j for _, j in pairs}) == len(pairs) == min(ones, others)
        if ones <= others:
            ways = ([(i, j) for i, j in enumerate(way)] for way in itertools.permutations(range(others), ones))
        else:
            ways = ([(i, j) for j, i in enumerate(way)] for way in itertools.permutations(range(ones), others))
        cheapest = min(sum(cost[i, j, e].item() for i, j in way) for way in ways)
        assert sum(cost[i, j, e].item() for i, j in pairs) == pytest.approx(cheapest, abs=1e-5)


def test_many_agents_are_assigned_one_by_one():
    found = assign(uniform((8, 8, 30), generator(0)))
    assert torch.equal(found.sort(0).values, torch.arange(8)[:, None].expand(-1, 30))


# ---- what must not change


@BOTH
@EVERY
def test_envs_do_not_touch_each_other_and_obey_their_spec(make, continuous):
    env, source = make(continuous=continuous), generator(0, "actions")
    spec, state = env.spec, start(env, 6)
    for _ in range(4):
        before, actions = state, draw_actions(env, (6,), source)
        state, rewards, terminated = step(env, state, actions)
        assert rewards.shape == (6, spec.agents) and terminated.shape == (6,)
    obs, whole = env.observe(state), env.whole(state)
    assert obs.shape == (6, spec.agents, spec.obs) and obs.is_contiguous() and whole.shape == (6, spec.whole)
    for i, size in enumerate(spec.obs_sizes):
        assert not obs[:, i, size:].any()
    for e in range(6):
        alone, paid, _ = step(env, tree_map(lambda x, e=e: x[e : e + 1], before), actions[e : e + 1])
        torch.testing.assert_close(env.whole(alone), whole[e : e + 1])
        torch.testing.assert_close(env.observe(alone), obs[e : e + 1])
        torch.testing.assert_close(paid, rewards[e : e + 1])


@EVERY
def test_the_full_state_can_be_unpacked_again(make):
    env = make()
    state, *_ = step(env, start(env, 7), draw_actions(env, (7,), generator(0, "actions")))
    again = env.unpack(env.whole(state))
    for ours, theirs in zip(tree_leaves(again), tree_leaves(state), strict=True):
        assert torch.equal(ours, theirs)


def test_agents_of_spread_are_interchangeable():
    env, order = Spread(), torch.tensor([2, 0, 1])
    state = start(env, 5)
    turned = place(env.world, torch.cat([state.position[:, order], state.landmark], dim=1))
    actions = draw_actions(env, (5,), generator(0, "actions"))
    for _ in range(3):
        state, rewards, _ = step(env, state, actions)
        turned, paid, _ = step(env, turned, actions[:, order])
    torch.testing.assert_close(turned.position, state.position[:, order])
    torch.testing.assert_close(paid, rewards[:, order])


@EVERY
def test_envs_stay_fastest_in_memory_through_steps_and_resets(make):
    env = make()
    state, fresh = start(env, 16), start(env, 16, "again")
    state, *_ = step(env, state, draw_actions(env, (16,), generator(0, "actions")))
    state = tree_select(torch.arange(16) % 3 == 0, fresh, state)
    for x in tree_leaves(state):
        assert x.numel() == 0 or x.stride(0) == 1


ONE_GRAPH = """
import sys
import torch
from understudy.core.types import View
from understudy.envs import particles

for name in sys.argv[1:]:
    for continuous in (False, True):
        env = getattr(particles, name)(continuous=continuous)
        source, sizes = torch.Generator().manual_seed(0), torch.tensor(env.spec.action_sizes)
        state = env.reset(torch.rand(4, env.spec.reset_noise, generator=source))
        actions = torch.rand(4, len(sizes), int(sizes.max()), generator=source)
        actions = actions if continuous else (actions[..., 0] * sizes).long()

        def play(state, actions):
            state, rewards, terminated = env.step(state, actions, torch.empty(4, 0))
            view = View(obs=env.observe(state), legal=env.legal(state), whole=env.whole(state))
            return view.obs, rewards, terminated, particles.expert(env, view)

        torch._dynamo.reset()
        compiled = torch.compile(play, fullgraph=True, backend="aot_eager", dynamic=False)
        for ours, theirs in zip(compiled(state, actions), play(state, actions), strict=True):
            torch.testing.assert_close(ours, theirs)
"""


def compiles(*makes):
    # In a process of its own, without the checks of annotations, which the compiler cannot see through.
    names, source = [make.__name__ for make in makes], Path(understudy.__file__).parents[1]
    run = [sys.executable, "-W", "error::UserWarning", "-c", ONE_GRAPH, *names]
    return subprocess.run(run, env=os.environ | {"PYTHONPATH": str(source)}, capture_output=True, text=True)


def test_act_step_and_observe_are_one_graph():
    done = compiles(Spread, Reference)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_act_step_and_observe_are_one_graph_in_every_scenario():
    done = compiles(*ALL)
    assert done.returncode == 0, done.stderr


# ---- borders


def test_padded_choices_are_illegal():
    env = SpeakerListener()
    assert env.legal(start(env, 2))[0].tolist() == [[True] * 3 + [False] * 2, [True] * 5]
    assert Spread().legal(start(Spread(), 2)) is None


def test_a_goal_is_drawn_as_often_as_any_other():
    env = SpeakerListener()
    share = torch.bincount(start(env, 30_000).goal[:, 0], minlength=3) / 30_000
    assert (share - 1 / 3).abs().max() < 5 * (2 / 9 / 30_000) ** 0.5
    almost_one = torch.full((1, env.spec.reset_noise), 1 - 2**-24)
    assert env.reset(almost_one).goal.item() == 2


@EVERY
def test_a_picture_shows_every_body_and_every_word(make):
    env = make()
    state, *_ = step(env, start(env, 1), draw_actions(env, (1,), generator(0, "actions")))
    scene = env.draw(env.whole(state)[0])
    circles = {shape.points[0] for shape in scene.shapes if shape.kind == "circle"}
    bodies = torch.cat([state.position[0], state.landmark[0]]).tolist()
    assert circles == {tuple(xy) for xy in bodies}
    assert scene.caption.count(" says ") == sum(env.world.speaks)
    scene.to_json()


def test_what_makes_no_sense_is_refused():
    with pytest.raises(ConfigError, match="agents: got 0"):
        Spread(agents=0)
    with pytest.raises(ConfigError, match="local_ratio"):
        Reference(local_ratio=2.0)
    with pytest.raises(ConfigError, match="food: got 0"):
        WorldComm(food=0)
    env = Spread()
    state = start(env, 2)
    with pytest.raises(ShapeError, match="The sizes fit in another order"):
        step(env, state, torch.zeros(3, 2, dtype=torch.long).reshape(3, 2)[:, :2])
    with pytest.raises(EnvError, match="whole"):
        expert(env, View(obs=env.observe(state)))
    with pytest.raises(EnvError, match="Spread"):
        expert(None, view(env, state))
