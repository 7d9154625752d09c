import importlib

import numpy as np
import pytest
import torch

from understudy.core.random import generator, uniform
from understudy.core.types import View
from understudy.envs.particles import Navigation, Simple, Spread, expert, place

PEERS = {"simple_v3": Simple, "simple_spread_v3": Spread}


def rand(rows, width, *names, dtype=torch.float32):
    return uniform((rows, width), generator(0, *names), dtype)


def step(env, state, actions):
    return env.step(state, actions, torch.empty(len(actions), 0))


def view(env, state):
    return View(obs=env.observe(state), legal=env.legal(state), whole=env.whole(state))


# ---- the peer itself


def state_of(env, world):
    """Our state of mpe2's world."""
    position, velocity = [e.state.p_pos for e in world.entities], [a.state.p_vel for a in world.agents]
    message = [a.state.c if env.world.words else np.zeros(0) for a in world.agents]
    rows = [torch.tensor(np.array(x)).unsqueeze(0) for x in (position, velocity, message)]
    return place(env.world, *rows)


def largest_deviation_from_mpe2(name, env, steps):
    """Of any number that any agent saw or was paid, over `steps` random steps; ends must be the very same."""
    pytest.importorskip("mpe2")
    theirs = importlib.import_module(f"mpe2.{name}").parallel_env(continuous_actions=env.continuous)
    names, sizes, spaces = env.spec.names, env.spec.action_sizes, map(theirs.action_space, env.spec.names)
    assert theirs.possible_agents == list(names)
    assert tuple(space.shape[0] if env.continuous else int(space.n) for space in spaces) == sizes
    assert tuple(theirs.observation_space(n).shape[0] for n in names) == env.spec.obs_sizes
    source, worst, age = generator(0, name), 0.0, env.horizon
    for t in range(steps):
        if age == env.horizon:
            seen, _ = theirs.reset(seed=t)
            state, age = state_of(env, theirs.unwrapped.world), 0
            worst = max(worst, gap(env, state, seen))
        drawn = uniform((1, len(names), max(sizes)), source)
        if env.continuous:
            actions = 1.2 * drawn - 0.1  # beyond the borders too: both sides clip
            played = {n: actions[0, i, : sizes[i]].numpy() for i, n in enumerate(names)}
        else:
            actions = (drawn[..., 0] * torch.tensor(sizes)).long()
            played = {n: int(actions[0, i]) for i, n in enumerate(names)}
        seen, paid, ended, cut, _ = theirs.step(played)
        state, rewards, terminated = step(env, state, actions)
        age += 1
        assert all(ended[n] == bool(terminated) and cut[n] == (age == env.horizon) for n in names)
        worst = max(worst, gap(env, state, seen), *(abs(rewards[0, i].item() - paid[n]) for i, n in enumerate(names)))
    return worst


def gap(env, state, seen):
    ours = env.observe(state)[0].numpy()
    return max(np.abs(ours[i, : len(seen[n])] - seen[n]).max() for i, n in enumerate(env.spec.names))


@pytest.mark.parametrize("continuous", [False, True], ids=["discrete", "continuous"])
@pytest.mark.parametrize("name", PEERS)
def test_every_step_is_that_of_mpe2(name, continuous):
    assert largest_deviation_from_mpe2(name, PEERS[name](continuous=continuous), 300) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("continuous", [False, True], ids=["discrete", "continuous"])
@pytest.mark.parametrize("name", PEERS)
def test_every_one_of_ten_thousand_steps_is_that_of_mpe2(name, continuous):
    assert largest_deviation_from_mpe2(name, PEERS[name](continuous=continuous), 10_000) < 1e-5


# ---- published returns


def returns(env, play, episodes):
    """[episode, agent] of whole episodes, ended where the game was over."""
    state = env.reset(rand(episodes, env.spec.reset_noise, "reset"))
    total, alive = torch.zeros(episodes, env.spec.agents), torch.ones(episodes, 1, dtype=torch.bool)
    for _ in range(env.horizon):
        state, rewards, terminated = step(env, state, play(view(env, state)))
        total += rewards * alive
        alive &= ~terminated.unsqueeze(1)
    return total


def random_play(env):
    source = generator(0, "actions")
    sizes = torch.tensor(env.spec.action_sizes)
    return lambda seen: (uniform(seen.obs.shape[:2], source) * sizes).long()


def test_random_navigation_is_paid_as_published():
    found = returns(Navigation(), random_play(Navigation()), 4000)
    assert abs(found.mean() + 391.314) < 2 * 10.092  # Yu et al. 2019, table 1, standard error of 100 episodes


def test_the_expert_of_navigation_is_paid_as_published():
    env = Navigation()
    assert -42 < returns(env, lambda seen: expert(env, seen), 2000).mean() < -36
