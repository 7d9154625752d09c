"""A compiled env is the same game: to rounding, for every number of envs, and wherever there is no compiler."""

import json
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import understudy
from understudy import api, compiled
from understudy.algorithms import ppo
from understudy.compiled import Compiled
from understudy.core.errors import RunError
from understudy.core.files import sha256
from understudy.core.random import generator, uniform
from understudy.core.tree import tree_leaves
from understudy.envs.particles import SpeakerListener
from understudy.rollout import Uniform, begin, collect, look

ENV = SpeakerListener(horizon=5)  # with masks of legal moves, words and goals
ENVS = 32


def _played(env, envs=ENVS, seed=0, steps=12):
    policy, source = Uniform(env.spec), generator(seed)
    played, live = collect(env, policy, begin(env, policy, envs, source), steps, source)
    return played, live.view


def _same(one, other, **tolerance):
    for a, b in zip(tree_leaves(one), tree_leaves(other), strict=True):
        torch.testing.assert_close(a, b, **tolerance)


def _compile_and_compare():
    """What `test_a_segment_...` asserts, said by a process in which nothing checks types: compilers cannot see that."""
    env = Compiled(ENV)
    pairs = zip(tree_leaves(_played(env)), tree_leaves(_played(ENV)), strict=True)
    apart = max(float((a.float() - b.float()).abs().max()) for a, b in pairs if a.numel())
    again = zip(tree_leaves(_played(env, seed=3)), tree_leaves(_played(env, seed=3)), strict=True)
    compiled_it = env._turns[ENVS] != env._turn
    bits = sha256(b"".join(x.contiguous().numpy().tobytes() for x in tree_leaves(_played(env, seed=3))))
    repeats = all(torch.equal(a, b) for a, b in again)
    print(json.dumps({"compiled": compiled_it, "apart": apart, "repeats": repeats, "bits": bits}))


@pytest.mark.skipif(not shutil.which("g++"), reason="torch compiles for a CPU with a C++ compiler")
def test_a_segment_is_the_eager_one_to_rounding_and_repeats_bit_for_bit_here_and_in_another_process():
    paths = os.pathsep.join(str(Path(file).parent.parent) for file in (understudy.__file__, __file__))
    command = [sys.executable, "-c", "from tests import test_compiled; test_compiled._compile_and_compare()"]
    env = os.environ | {"PYTHONPATH": paths}
    first, second = (
        json.loads(subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout)
        for _ in range(2)
    )
    assert first["compiled"] and first["repeats"] and first["apart"] < 1e-5
    assert second == first  # which reads from torch's cache what the first compiled, unless it was there already


@pytest.fixture
def made(monkeypatch):
    """A compiled env that has compiled, as far as it knows."""
    monkeypatch.setattr(torch, "compile", lambda turn, **more: lambda *given: turn(*given))
    env = Compiled(ENV)
    _played(env)
    return env


def test_other_numbers_of_envs_are_played_eagerly(made):
    made._turns[ENVS] = None  # calling it fails
    _same(_played(made, envs=7), _played(ENV, envs=7), atol=0, rtol=0)
    assert list(made._turns) == [ENVS]


def test_what_the_env_offers_besides_is_there(made):
    noise = uniform((4, ENV.spec.reset_noise), generator(0))
    moment = made.reset(noise)
    _same(look(made, moment), look(ENV, ENV.reset(noise)), atol=0, rtol=0)
    _same((made.legal(moment), made.whole(moment)), (moment.view.legal, moment.view.whole), atol=0, rtol=0)
    assert made.title == ENV.title and not hasattr(made, "present")


def test_without_a_compiler_it_is_the_eager_game_and_the_reason_is_told_once(monkeypatch, caplog):
    def refuses(*args, **more):
        def call(*given):
            raise RuntimeError("no compiler here\nand more")

        return call

    monkeypatch.setattr(torch, "compile", refuses)
    compiled._tell.cache_clear()
    with caplog.at_level(logging.INFO, logger="understudy"):
        for _ in range(2):
            _same(_played(Compiled(ENV)), _played(ENV), atol=0, rtol=0)
    assert [record.message for record in caplog.records] == ["the env is played eagerly: no compiler here"]


def test_a_foreign_simulator_stays_as_it_is():
    class Foreign(SpeakerListener):
        def restart(self, state, ended, noise): ...

    env = Foreign()
    assert compiled.compiled(env) is env


def test_an_env_with_compiled_functions_of_its_own_stays_as_it_is_where_they_run(caplog):
    class Native(SpeakerListener):
        native = True

    env = Native()
    compiled._tell.cache_clear()
    with caplog.at_level(logging.INFO, logger="understudy"):
        assert compiled.compiled(env) is compiled.compiled(env, "cpu") is env
    assert [record.message for record in caplog.records] == [
        f"the env is played eagerly: {env.spec.title} has compiled functions of its own"
    ]
    assert isinstance(compiled.compiled(env, "cuda"), Compiled)


def test_a_run_resumes_exactly_and_is_not_mixed_with_an_eager_one(tmp_path):
    config = ppo.Config(envs=8, segment=4)

    def train(folder, updates, compile=True):
        return api.train(ppo, None, ENV, config=config, updates=updates, folder=tmp_path / folder, compile=compile)

    train("broken", 1)
    broken, whole = train("broken", 3), train("whole", 3)
    weights = [list(run.policy.state_dict().values()) for run in (broken, whole)]
    _same(*weights, atol=0, rtol=0)
    assert json.loads((tmp_path / "whole" / "run.json").read_text())["env"]["compiled"] is True
    assert api.env_of(tmp_path / "whole") == ENV
    with pytest.raises(RunError, match="compiled"):
        train("whole", 4, compile=False)


def test_only_what_ended_begins_anew_and_lies_in_memory_as_before():
    for env in (ENV, Compiled(ENV)):
        policy, source = Uniform(ENV.spec), generator(1)
        live = begin(env, policy, ENVS - 1, source)
        live.age = torch.arange(ENVS - 1) % 5  # as if they had begun one after another
        played, after = collect(env, policy, live, 1, source)
        ended = played.ended[:, 0]
        assert (ended == (live.age == 4)).all() and (after.age == torch.where(ended, 0, live.age + 1)).all()
        _same(after.view.obs[~ended], played.next_view.obs[~ended, 0], atol=0, rtol=0)
        assert (after.view.obs[ended] != played.next_view.obs[ended, 0]).flatten(1).any(dim=1).all()
        inner = [live.state, after.state] if env is ENV else [live.state.state, after.state.state]
        one, other = ([x.stride() for x in tree_leaves(state)] for state in inner)
        assert one == other
