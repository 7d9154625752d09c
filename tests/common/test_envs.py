"""What every environment keeps, whichever it is. One that joins the table of `api` joins here."""

import warnings
from functools import partial

import pytest
import torch
from pettingzoo.test import api_test, parallel_api_test, parallel_seed_test, seed_test
from pettingzoo.utils.conversions import parallel_to_aec
from torch import Tensor

from understudy import api
from understudy.core.random import generator
from understudy.core.tree import tree_leaves, tree_map, tree_take
from understudy.core.types import Continuous, Discrete, Env, EnvSpec, action_shape, legal_size
from understudy.envs import tabular
from understudy.envs.adapters import to_parallel

ENVS = {name: partial(api.make_env, name) for name in api.ENVS} | {
    "unlike_choices": lambda: tabular.matrix_game(torch.rand(3, 2, 4, 3, generator=generator(0)), repeats=5),
}
each_env = pytest.mark.parametrize("make", ENVS.values(), ids=ENVS.keys())


def began(env: Env, envs: int, source: torch.Generator):
    return env.reset(torch.rand(envs, env.spec.reset_noise, generator=source))


def offered(env: Env, name: str, state) -> Tensor | None:
    return getattr(env, name)(state) if hasattr(env, name) else None


def chance_moves(env: Env, state, envs: int, source: torch.Generator) -> Tensor:
    """Moves drawn evenly from the legal ones, or from the bounds (from [-1, 1] where there are none)."""
    spec, legal = env.spec, offered(env, "legal", state)
    if isinstance(spec.action, Continuous):
        low, high = (x if abs(x) < float("inf") else s for x, s in ((spec.action.low, -1.0), (spec.action.high, 1.0)))
        return low + (high - low) * torch.rand(envs, spec.agents, spec.action.size, generator=source)
    drawn = torch.rand(envs, spec.agents, legal_size(spec.action), generator=source)
    drawn = drawn if legal is None else drawn.masked_fill(~legal, -1.0)
    if isinstance(spec.action, Discrete):
        return drawn.argmax(-1)
    return torch.stack([part.argmax(-1) for part in drawn.split(spec.action.choices, dim=-1)], dim=-1)


def steps(env: Env, envs: int, count: int, seed: int):
    """Along `count` chance steps: state, actions, noise, and what `step` made of them."""
    source = generator(seed)
    state = began(env, envs, source)
    for _ in range(count):
        actions = chance_moves(env, state, envs, source)
        noise = torch.rand(envs, env.spec.step_noise, generator=source)
        outcome = env.step(state, actions, noise)
        yield state, actions, noise, outcome
        state = outcome[0]


def everything(env: Env, state) -> list[Tensor]:
    """All that the env says of a state, and the state itself."""
    said = [offered(env, name, state) for name in ("observe", "legal", "present", "whole")]
    return [*tree_leaves(said), *tree_leaves(state)]


@each_env
def test_it_obeys_its_own_spec(make):
    env, envs = make(), 4
    spec = env.spec
    assert spec == EnvSpec.from_json(spec.to_json())
    own = torch.arange(spec.obs) < torch.tensor(spec.obs_sizes).unsqueeze(-1)  # [agent, obs]
    for state, actions, _, (after, rewards, terminated) in steps(env, envs, 10, seed=1):
        assert actions.shape == (envs, spec.agents, *action_shape(spec.action))
        assert rewards.shape == (envs, spec.agents) and rewards.dtype == torch.float32 and rewards.isfinite().all()
        assert terminated.shape == (envs,) and terminated.dtype == torch.bool
        for moment in (state, after):
            obs = env.observe(moment)
            assert obs.shape == (envs, spec.agents, spec.obs) and obs.dtype == torch.float32 and obs.isfinite().all()
            assert not obs[:, ~own].any()  # padding is zero
            if spec.whole:
                assert env.whole(moment).shape == (envs, spec.whole) and env.whole(moment).dtype == torch.float32
            if hasattr(env, "present"):
                assert env.present(moment).shape == (envs, spec.agents) and env.present(moment).dtype == torch.bool


@each_env
def test_there_is_always_a_legal_move_and_never_one_beyond_an_agents_own(make):
    env = make()
    spec = env.spec
    if offered(env, "legal", began(env, 1, generator(0))) is None:
        widest = spec.action.choices if isinstance(spec.action, Discrete) else action_shape(spec.action)[0]
        assert set(spec.action_sizes) == {widest}  # only agents alike can do without a mask
        return
    for state, *_ in steps(env, 4, 10, seed=2):
        legal = env.legal(state)
        assert legal.shape == (4, spec.agents, legal_size(spec.action)) and legal.dtype == torch.bool
        parts = [spec.action.choices] if isinstance(spec.action, Discrete) else list(spec.action.choices)
        assert all(part.any(-1).all() for part in legal.split(parts, dim=-1))
        if isinstance(spec.action, Discrete):
            beyond = torch.arange(spec.action.choices) >= torch.tensor(spec.action_sizes).unsqueeze(-1)
            assert not legal[:, beyond].any()


@each_env
def test_it_is_a_pure_function_and_draws_nothing(make):
    env, chance = make(), torch.get_rng_state()
    for state, actions, noise, (after, rewards, terminated) in steps(env, 3, 6, seed=3):
        kept = tree_map(torch.clone, (state, actions, noise))
        again = env.step(state, actions, noise)
        for left, right in zip(tree_leaves((after, rewards, terminated)), tree_leaves(again), strict=True):
            assert torch.equal(left, right)
        everything(env, state)
        for left, right in zip(tree_leaves(kept), tree_leaves((state, actions, noise)), strict=True):
            assert torch.equal(left, right)
    assert torch.equal(chance, torch.get_rng_state())


@each_env
def test_envs_do_not_touch_each_other(make):
    env, source = make(), generator(4)
    noise = torch.rand(8, env.spec.reset_noise, generator=source)
    together = env.reset(noise)
    for e in range(8):
        for left, right in zip(everything(env, env.reset(noise[e : e + 1])), everything(env, together), strict=True):
            torch.testing.assert_close(left, right[e : e + 1])
    for state, actions, noise, (after, rewards, terminated) in steps(env, 8, 5, seed=5):
        for e in range(8):
            row = slice(e, e + 1)
            alone, paid, over = env.step(tree_take(state, row), actions[row], noise[row])
            torch.testing.assert_close(paid, rewards[row])
            assert torch.equal(over, terminated[row])
            for left, right in zip(everything(env, alone), everything(env, after), strict=True):
                torch.testing.assert_close(left, right[row])


@each_env
def test_a_reset_hangs_on_its_noise_alone(make):
    env = make()
    noise = torch.rand(5, env.spec.reset_noise, generator=generator(6))
    for left, right in zip(everything(env, env.reset(noise)), everything(env, env.reset(noise)), strict=True):
        assert torch.equal(left, right)


@each_env
def test_it_passes_pettingzoos_own_tests(make):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on taste: names, unbounded or one-hot observations
        parallel_api_test(to_parallel(make()), num_cycles=60)
        parallel_seed_test(lambda: to_parallel(make()), num_cycles=10)
        api_test(parallel_to_aec(to_parallel(make())), num_cycles=30)
        seed_test(lambda: parallel_to_aec(to_parallel(make())), num_cycles=10)
