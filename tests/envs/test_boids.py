"""Boids against the rules told one boid after another, and against the statistics of the original."""

import math

import numpy as np
import pytest
import torch

from understudy.core.errors import ConfigError
from understudy.core.random import generator, uniform
from understudy.core.types import View
from understudy.envs.boids import Boids, State, expert, flights
from understudy.recordings import flocks


def clip(v: np.ndarray) -> np.ndarray:
    return v if np.linalg.norm(v) <= 1 else v / np.linalg.norm(v)


def slow_rule(i: int, position: np.ndarray, velocity: np.ndarray, temper: float) -> np.ndarray:
    """What boid i wants, as the paper's generator says it."""
    away = np.linalg.norm(position - position[i], axis=1)
    local, close = (away > 0) & (away <= 0.9), (away > 0) & (away <= 0.2)
    wanted = np.zeros(2)
    if local.any():
        wanted += temper * clip(position[local].mean(0) - position[i]) + 0.2 * clip(velocity[local].mean(0))
    if close.any():
        wanted += 0.1 * clip(position[i] - position[close].mean(0))
    if np.linalg.norm(position[i]) > 2:
        wanted += clip(-position[i])
    return wanted


def slow_flight(env: Boids, state: State, noises: list[torch.Tensor]) -> list[np.ndarray]:
    """The positions of one flight, boid by boid, in float64."""
    position, velocity = (x[0].double().numpy().copy() for x in (state.position, state.velocity))
    temper, boost, frames = float(state.temper[0]), np.ones(len(position)), []
    for t, noise in enumerate(noises, 1):
        if t % 10 == 0:
            boost = 0.8 + 0.6 * noise[0].double().numpy()
        wanted = [slow_rule(i, position, velocity, temper) for i in range(len(position))]
        if env.shared_first_step and t == 1:
            wanted = [sum(wanted)] * len(position)
        velocity = np.array([clip(v + 0.5 * clip(a)) for v, a in zip(velocity, wanted, strict=True)])
        position = position + 0.1 * boost[:, None] * velocity
        frames.append(position)
    return frames


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_a_flight_is_what_the_rules_say_one_boid_after_another(shared, seed):
    env, source = Boids(shared_first_step=shared), generator(seed, "flight")
    state = env.reset(uniform((1, env.spec.reset_noise), source, torch.float64))
    noises = [uniform((1, env.spec.step_noise), source, torch.float64) for _ in range(25)]
    meant = slow_flight(env, state, noises)
    for noise, position in zip(noises, meant, strict=True):
        actions = expert(env, View(env.observe(state)), state.position[..., :0])
        state, _, _ = env.step(state, actions, noise)
        np.testing.assert_allclose(state.position[0].numpy(), position, atol=1e-9)


def mean_pair_distance(positions: torch.Tensor) -> float:
    last = positions[:, -1]
    apart = (last.unsqueeze(1) - last.unsqueeze(2)).norm(dim=-1)
    return apart.sum((1, 2)).div(8 * 7).mean().item()


def test_the_published_statistics_come_out():
    positions, friendly = flights(Boids(shared_first_step=True), 2048, generator(0, "boids"))
    step = positions.diff(dim=1).norm(dim=-1).mean().item()
    assert step == pytest.approx(0.0796, abs=0.0010)  # of 250 flights of the original, as are the two below
    assert mean_pair_distance(positions[friendly]) == pytest.approx(0.528, abs=4 * 0.43 / 125**0.5)  # 4 of its errors
    assert mean_pair_distance(positions[~friendly]) == pytest.approx(2.133, abs=4 * 0.154 / 125**0.5)
    assert friendly.float().mean().item() == pytest.approx(0.5, abs=5 * 0.5 / 2048**0.5)


def test_flights_at_hand_obey_the_rules(data_folder):
    """Before the first boost a velocity can be read from two frames, and the rules then say the next one."""
    with np.load(data_folder / "boids" / "boids_slice.npz") as raw:
        given = torch.from_numpy(raw["train"]).double().reshape(-1, 50, 8, 2)
        temper = torch.from_numpy(raw["train_label"]).double() * 2 - 1
    env, count = Boids(), len(given)
    torch.testing.assert_close(given[0, 0], torch.tensor(env.start, dtype=torch.float64), atol=1e-6, rtol=0)
    for t in range(1, 9):
        velocity, age = (given[:, t] - given[:, t - 1]) / 0.1, torch.full((count,), t)
        state = State(given[:, t], velocity, torch.ones(count, 8, dtype=torch.float64), temper, age)
        actions = expert(env, View(env.observe(state)), velocity[..., :0])
        after, _, _ = env.step(state, actions, torch.zeros(count, 8, dtype=torch.float64))
        assert (after.position - given[:, t + 1]).abs().max() < 1e-6


def test_rules_and_temper_on_paper():
    env = Boids(start=((0.0, 0.0), (0.5, 0.0)))
    still = torch.zeros(1, 2, 2)
    state = State(
        torch.tensor([[[0.0, 0.0], [0.5, 0.0]]]), still, torch.ones(1, 2), torch.ones(1), torch.zeros(1).long()
    )
    ask = expert(env, View(env.observe(state)), still[..., :0])
    torch.testing.assert_close(ask, torch.tensor([[[0.5, 0.0], [-0.5, 0.0]]]))
    after, rewards, terminated = env.step(state, ask, torch.rand(1, 2))
    torch.testing.assert_close(after.position[0, :, 0], torch.tensor([0.025, 0.475]))
    torch.testing.assert_close(rewards, torch.full((1, 2), -0.45))
    assert not terminated.any()
    unfriendly = expert(env, View(env.observe(state._replace(temper=-torch.ones(1)))), still[..., :0])
    torch.testing.assert_close(unfriendly, -ask)
    far = state._replace(position=torch.tensor([[[3.0, 4.0], [-9.0, 0.0]]]))
    torch.testing.assert_close(
        expert(env, View(env.observe(far)), still[..., :0]), torch.tensor([[[-0.6, -0.8], [1.0, 0.0]]])
    )


def test_velocities_start_standard_normal():
    env = Boids()
    velocity = env.reset(uniform((4000, env.spec.reset_noise), generator(2))).velocity
    count = velocity.numel()
    assert velocity.mean().abs() < 5 / math.sqrt(count)
    assert (velocity.var() - 1).abs() < 5 * math.sqrt(2 / count)
    assert env.reset(torch.zeros(1, env.spec.reset_noise)).velocity.isfinite().all()


def test_boosts_change_with_every_tenth_step_only():
    env, source = Boids(), generator(3)
    state = env.reset(uniform((1, env.spec.reset_noise), source))
    boosts = [state.boost]
    for _ in range(21):
        state, _, _ = env.step(state, torch.zeros(1, 8, 2), uniform((1, 8), source))
        boosts.append(state.boost)
    changed = [t for t in range(1, 22) if not torch.equal(boosts[t], boosts[t - 1])]
    assert changed == [10, 20]
    assert boosts[20].min() >= 0.8 and boosts[20].max() <= 1.4


def test_flocks_are_tracks_that_say_their_temper():
    made = flocks(6, seed=3)
    assert (len(made), made.frames, made.spec.agents) == (6, 300, 8)
    assert set(made.labels["friendly"].unique().tolist()) <= {0, 1}
    assert made.fingerprint() == flocks(6, seed=3).fingerprint() != flocks(6, seed=4).fingerprint()


def test_a_picture_shows_every_boid_and_its_temper():
    env = Boids(friendly=0.0)
    state = env.reset(uniform((1, env.spec.reset_noise), generator(4)))
    scene = env.draw(env.whole(state)[0])
    places = [shape.points[0] for shape in scene.shapes if shape.kind == "circle"]
    np.testing.assert_allclose(places, state.position[0], atol=1e-6)
    assert scene.caption == "unfriendly"


def test_a_flock_that_cannot_be_is_refused():
    with pytest.raises(ConfigError, match="it is a chance"):
        Boids(friendly=1.5)
    with pytest.raises(ConfigError, match="a place of its own"):
        Boids(start=((0.0, 0.0), (0.0, 0.0)))
    with pytest.raises(ConfigError, match="both are 1 or more"):
        flights(Boids(horizon=None), 3, generator(0))
