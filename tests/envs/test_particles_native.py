"""The compiled particle games are those by torch, to rounding, in every state; else torch does it."""

import copy
import logging
import os
import platform
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import understudy
from understudy.compiled import Compiled, compiled
from understudy.core import native as libraries
from understudy.core.errors import ShapeError
from understudy.core.random import generator, uniform
from understudy.core.tree import tree_leaves, tree_map
from understudy.envs import particles_native
from understudy.envs import particles_physics as physics
from understudy.envs.particles import (
    Adversary,
    Crypto,
    KeepAway,
    Navigation,
    PredatorPrey,
    Push,
    Simple,
    Spread,
    Tag,
    WorldComm,
    place,
)

COMPILER = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
native = pytest.mark.skipif(
    sys.platform != "linux" or COMPILER is None or os.environ.get("UNDERSTUDY_PARTICLES") == "0",
    reason="here particle games are played by torch alone",
)
STEPPED = (Simple, Spread, Adversary, Push, Tag, Navigation, KeepAway, PredatorPrey)
SEEN = (Simple, Spread, Tag, Navigation, PredatorPrey)  # of these observations and fresh starts too
BOTH = pytest.mark.parametrize("continuous", [False, True], ids=["discrete", "continuous"])


def forget() -> None:
    for cached in (particles_native._functions, particles_native._game, particles_native._tell):
        cached.cache_clear()


@pytest.fixture
def afresh(monkeypatch, tmp_path):
    """The library is looked for anew, in a folder of the test's own; afterwards nothing of that is remembered."""
    monkeypatch.setenv("UNDERSTUDY_CACHE", str(tmp_path / "cache"))
    forget()
    yield tmp_path / "cache"
    forget()


def draw(env, envs, source):
    """Actions, continuous ones beyond their borders too."""
    sizes = env.spec.action_sizes
    if env.continuous:
        return 1.2 * uniform((envs, len(sizes), max(sizes)), source) - 0.1
    return (uniform((envs, len(sizes)), source) * torch.tensor(sizes)).long()


def play(env, envs, length, seed):
    """States and actions, by torch; every other state with agents pushed together."""
    source = generator(seed, "play")
    state = physics.scatter(env.world, uniform((envs, env.spec.reset_noise), source))
    for t in range(length):
        actions = draw(env, envs, source)
        yield state, actions
        state, _ = env.plain_step(state, actions)
        if t % 2:
            state = replace(state, position=state.position * 0.4)


def same(one, other) -> bool:
    """All bits and all strides, but for the sign of zeros and what kind of NaN it is."""
    pairs = zip(tree_leaves(one), tree_leaves(other), strict=True)
    return all(a.dtype == b.dtype and a.nan_to_num(7e7).equal(b.nan_to_num(7e7)) for a, b in pairs)


def doubled(state):
    return tree_map(lambda x: x.double() if x.is_floating_point() else x, state)


def expect_near(one, other, near=2e-6) -> None:
    """Each number within 2e-6 of it, and of 1: square roots and exponentials are not torch's to the last bit, and
    from a depth to a velocity the former's rounding grows tenfold."""
    for a, b in zip(tree_leaves(one), tree_leaves(other), strict=True):
        torch.testing.assert_close(a, b, rtol=near, atol=near, equal_nan=True)
        assert a.numel() < 2 or a.stride() == b.stride() or a.shape[0] == 1


def expect_the_same(env, state, actions) -> None:
    expect_near(particles_native.step(env, state, actions), env.plain_step(state, actions))
    if type(env) in SEEN:
        assert same(particles_native.observe(env, state), env.plain_observe(state))
        assert same(particles_native.whole(env, state), env.plain_whole(state))


@native
@BOTH
@pytest.mark.parametrize("envs", [1, 7, 64, 513])
@pytest.mark.parametrize("make", STEPPED)
def test_every_step_and_sight_is_that_of_torch(make, envs, continuous):
    env = make(continuous=continuous)
    for state, actions in play(env, envs, length=12, seed=envs):
        expect_the_same(env, state, actions)


@native
@settings(deadline=None, max_examples=30)
@given(
    make=st.sampled_from([Spread, Navigation, Tag, PredatorPrey]),
    agents=st.integers(1, 10),
    more=st.integers(1, 4),
    continuous=st.booleans(),
    envs=st.integers(1, 150),
    seed=st.integers(0, 2**31),
)
def test_in_other_numbers_it_is_too(make, agents, more, continuous, envs, seed):
    rules = {"agents": agents} if make in (Spread, Navigation) else {"adversaries": agents, "prey": more}
    if make is Spread:
        rules |= {"landmarks": more, "local_ratio": 0.3}
    if make in (Tag, PredatorPrey):
        rules |= {"obstacles": more - 1}
    env = make(continuous=continuous, **rules)
    for state, actions in play(env, envs, length=4, seed=seed):
        expect_the_same(env, state, actions)


@native
@pytest.mark.parametrize("make", STEPPED)
def test_it_is_as_near_to_the_step_in_double_precision_as_torchs(make):
    env, worst = make(), torch.zeros(2)
    for state, actions in play(env, envs=500, length=20, seed=1):
        exact, _ = env.plain_step(doubled(state), actions)
        found = particles_native.step(env, state, actions)[0], env.plain_step(state, actions)[0]
        gaps = [(each.velocity - exact.velocity).abs().max() for each in found]
        worst = torch.maximum(worst, torch.stack(gaps).float())
    assert worst[0] < max(1.5 * worst[1], 2e-6)


@native
def test_bodies_that_touch_at_any_depth_push_as_by_torch():
    env = Spread(agents=2, landmarks=1)
    gap = torch.cat([torch.linspace(-0.03, 0.03, 4001), torch.tensor([-0.3, -0.2999, 0.1, 1e3, 1e-13 - 0.3])])
    bodies = torch.zeros(len(gap), 3, 2)
    bodies[:, 1, 0] = 0.3 + gap
    state, stay = place(env.world, bodies), torch.zeros(len(gap), 2, dtype=torch.long)
    (ours, _), (torchs, _) = particles_native.step(env, state, stay), env.plain_step(state, stay)
    # within 2e-6 of the push, and below 1e-10 where a gap is so wide that it is left out
    torch.testing.assert_close(ours.velocity, torchs.velocity, rtol=2e-6, atol=1e-10)


@native
@pytest.mark.parametrize("odd", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("env", [Spread(), Spread(agents=1), Tag(), Navigation(), KeepAway()], ids=str)
def test_what_is_nowhere_is_nowhere_for_both(env, odd):
    (state, actions), *_ = play(env, envs=9, length=1, seed=0)
    for leaf in ("position", "velocity", "landmark"):
        for axis in (0, 1):
            broken = getattr(state, leaf).clone()
            broken[::3, 0, axis] = odd
            other = replace(state, **{leaf: broken})
            ours, torchs = particles_native.step(env, other, actions), env.plain_step(other, actions)
            expect_near(ours, torchs)
            if type(env) in SEEN:
                assert same(particles_native.observe(env, other), env.plain_observe(other))


@native
def test_bodies_at_one_place_do_not_push():
    for env in (Spread(), Tag()):
        state = place(env.world, torch.zeros(3, env.world.bodies, 2))
        actions = draw(env, 3, generator(0))
        assert same(particles_native.step(env, state, actions), env.plain_step(state, actions))


@native
def test_moves_that_are_none_are_no_moves():
    env = Tag()
    (state, _), *_ = play(env, envs=5, length=1, seed=0)
    for odd in (5, -1, 2**32 + 1):
        expect_near(
            particles_native.step(env, state, torch.full((5, 4), odd)),
            env.plain_step(state, torch.full((5, 4), odd)),
        )


@native
@pytest.mark.parametrize("make", SEEN)
@pytest.mark.parametrize("envs", [1, 63, 513])
def test_fresh_starts_are_torchs_bit_for_bit(make, envs):
    env = make()
    noise = uniform((envs, env.spec.reset_noise), generator(0))
    ours, torchs = particles_native.scatter(env, noise), physics.scatter(env.world, noise)
    assert same(ours, torchs)
    assert all(a.shape == b.shape for a, b in zip(tree_leaves(ours), tree_leaves(torchs), strict=True))
    assert particles_native.scatter(env, noise.double()) is None


@native
@pytest.mark.parametrize("threads", [2, 3])
def test_bits_do_not_hang_on_threads(threads, monkeypatch):
    monkeypatch.setattr(particles_native, "ALONE", 100)
    env, before = Tag(), torch.get_num_threads()
    *_, (state, actions) = play(env, envs=333, length=6, seed=0)
    noise, found = uniform((333, env.spec.reset_noise), generator(1)), []
    try:
        for count in (1, threads):
            torch.set_num_threads(count)
            found.append((particles_native.step(env, state, actions), env.observe(state), env.reset(noise)))
    finally:
        torch.set_num_threads(before)
    assert same(*found)


@native
@pytest.mark.skipif(platform.machine() != "x86_64", reason="other processors have other names")
@pytest.mark.parametrize("processor", ["x86-64", "x86-64-v3"])
def test_processors_with_shorter_vectors_find_the_same(processor, afresh, monkeypatch):
    flags = [flag.replace("native", processor) for flag in libraries.FLAGS]
    monkeypatch.setattr(libraries, "FLAGS", flags)
    for env in (Simple(), Spread(), Tag(continuous=True)):
        for state, actions in play(env, envs=65, length=6, seed=2):
            expect_the_same(env, state, actions)


@native
def test_an_env_is_the_same_alone_and_among_others():
    env = Spread()
    *_, (state, actions) = play(env, envs=130, length=8, seed=4)
    together = particles_native.step(env, state, actions), env.observe(state)
    for i in (0, 63, 64, 129):
        one, what = tree_map(lambda x, i=i: x[i : i + 1].clone(), (state, actions))
        alone = particles_native.step(env, one, what), env.observe(one)
        assert same(alone, tree_map(lambda x, i=i: x[i : i + 1], together))


@native
def test_how_a_state_lies_makes_no_difference_and_it_is_not_changed():
    env = Tag()
    *_, (state, actions) = play(env, envs=20, length=6, seed=3)
    other = tree_map(lambda x: x.clone(memory_format=torch.contiguous_format), state)
    before = tree_map(torch.clone, other)
    assert same(particles_native.step(env, other, actions), particles_native.step(env, state, actions))
    assert same(particles_native.observe(env, other), particles_native.observe(env, state))
    assert same(other, before)
    crossed = actions.T.contiguous().T
    assert same(particles_native.step(env, state, crossed), particles_native.step(env, state, actions))


# ---- where torch does it ----


class Paying(Spread):
    """Paid otherwise, and nobody said how to compile that."""

    def rewards(self, state):
        return 2 * super().rewards(state)


@native
def test_a_game_made_from_another_is_paid_and_seen_by_its_own_rules():
    env = Paying()
    (state, actions), *_ = play(env, envs=9, length=1, seed=0)
    _, rewards, _ = env.step(state, actions, torch.empty(9, 0))
    _, plain, _ = Spread().step(state, actions, torch.empty(9, 0))
    torch.testing.assert_close(rewards, 2 * plain)
    assert not env.native and Spread().native


@native
def test_what_is_compiled_by_itself_is_not_compiled_again():
    for env in (Spread(), Tag(), PredatorPrey()):
        assert compiled(env) is env and isinstance(compiled(env, "cuda"), Compiled)
    for env in (Push(), Crypto(), Navigation(), WorldComm()):
        assert isinstance(compiled(env), Compiled)


@native
@pytest.mark.parametrize("env", [Crypto(), WorldComm()], ids=str)
def test_games_in_which_agents_speak_are_torchs_own(env):
    (state, actions), *_ = play(env, envs=3, length=1, seed=0)
    assert particles_native.step(env, state, actions) is None and particles_native.whole(env, state) is None


ROOM = Spread()


def moment(envs: int = 3):
    return ROOM.reset(uniform((envs, ROOM.spec.reset_noise), generator(0))), torch.ones(envs, 3, dtype=torch.long)


@native
def test_actions_and_states_that_do_not_fit_are_torchs_own_to_judge():
    state, actions = moment()
    for odd in (actions[:, :1], actions[:2], actions.float(), actions.int()):
        assert particles_native.step(ROOM, state, odd) is None
    with pytest.raises(ShapeError, match="actions"):
        ROOM.step(state, actions[:2], torch.empty(3, 0))
    for odd in (state.velocity.double(), state.velocity[:2], state.velocity[:, :1], state.velocity.to("meta")):
        other = replace(state)
        object.__setattr__(other, "velocity", odd)  # past the checks of shapes
        assert particles_native.step(ROOM, other, actions) is None
        assert particles_native.observe(ROOM, other) is None


@native
def test_a_gradient_comes_by_torch():
    state, actions = moment()
    asked = replace(state, position=state.position.clone().requires_grad_())
    ROOM.observe(ROOM.step(asked, actions, torch.empty(3, 0))[0]).sum().backward()
    assert asked.position.grad is not None
    with torch.no_grad():
        assert particles_native.step(ROOM, asked, actions) is not None
    force = torch.rand(3, 3, 5, requires_grad=True)
    assert particles_native.step(Spread(continuous=True), state, force) is None


@native
def test_where_it_does_not_fit_torch_does_it_and_says_why_once(caplog):
    state, _ = moment()
    with caplog.at_level(logging.INFO, "understudy"):
        for why, call in (
            ("other dtypes", lambda: ROOM.observe(doubled(state))),
            ("torch.func", lambda: torch.func.vmap(lambda _: ROOM.observe(state))(torch.ones(1))),
        ):
            particles_native._tell.cache_clear()
            caplog.clear()
            call(), call()
            assert len(caplog.records) == 1 and why in caplog.text


def test_switched_off_it_is_torchs(afresh, monkeypatch, caplog):
    monkeypatch.setenv("UNDERSTUDY_PARTICLES", "0")
    state, actions = moment()
    with caplog.at_level(logging.INFO, "understudy"):
        after, rewards, _ = ROOM.step(state, actions, torch.empty(3, 0))
        assert same((after, rewards), ROOM.plain_step(state, actions))
    said = "off: UNDERSTUDY_PARTICLES is 0"
    assert particles_native.status() == said and not ROOM.native
    assert [record.getMessage() for record in caplog.records] == [f"particle games are played by torch alone: {said}"]
    assert not afresh.exists()


def test_without_a_compiler_it_is_torchs(afresh, monkeypatch):
    monkeypatch.delenv("UNDERSTUDY_PARTICLES", raising=False)
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", "")
    state, _ = moment()
    assert same(ROOM.observe(state), ROOM.plain_observe(state))
    assert "no C++ compiler" in particles_native.status()


def test_what_is_being_traced_meets_nothing_but_torch(monkeypatch):
    state, actions = moment()
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    monkeypatch.delattr(particles_native, "_game")
    after, rewards, _ = ROOM.step(state, actions, torch.empty(3, 0))
    assert same((after, rewards), ROOM.plain_step(state, actions))
    assert same((ROOM.observe(state), ROOM.whole(state)), (ROOM.plain_observe(state), ROOM.plain_whole(state)))


@native
def test_a_copy_of_a_game_plays_as_well():
    state, _ = moment()
    env = Spread()
    seen = env.observe(state)
    again = copy.deepcopy(env)
    del env
    assert same(particles_native.observe(again, state), seen)


def test_the_source_travels_with_the_package():
    assert (Path(understudy.__file__).parent / "envs" / "particles.cpp").is_file()
