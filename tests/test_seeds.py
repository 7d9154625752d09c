"""Several seeds of one method: what each comes to, what is told of all, and what is refused."""

import statistics

import pytest
import torch

from understudy import api
from understudy.core.errors import ConfigError, RunError
from understudy.envs.adapters import from_gymnasium
from understudy.maths.stats import over_seeds
from understudy.runs.loop import QUIET
from understudy.seeds import train_seeds

TINY = {"limit": 6, "steps": 2, "batch": 16, "net": {"hidden": 8}}


@pytest.fixture(scope="module")
def env():
    return api.make_env("spread")


@pytest.fixture(scope="module")
def demos(env):
    return api.record(env, episodes=6)


def weights(policy):
    return torch.cat([parameter.detach().flatten() for parameter in policy.parameters()])


def test_each_run_is_the_one_that_train_makes_of_its_seed_in_whatever_process(env, demos, tmp_path):
    found = train_seeds("bc", demos, env, folder=tmp_path / "many", seeds=2, workers=2, config=TINY)
    for run, policy in zip(found.runs, found.policies, strict=True):
        alone = api.train("bc", demos, env, config=TINY, seed=run.seed, habits=QUIET)
        assert torch.equal(weights(policy), weights(alone.policy))
        assert (run.updates, run.stopped, run.metrics) == (alone.updates, alone.stopped, alone.metrics)
    one, other = found.policies
    assert not torch.equal(weights(one), weights(other))


def test_the_same_call_goes_on_and_more_seeds_join_those_that_are_done(env, demos, tmp_path):
    train_seeds("bc", demos, env, folder=tmp_path, seeds=2, workers=1, config=TINY, updates=1)
    before = (tmp_path / "seed-1" / "events.jsonl").read_text()
    found = train_seeds("bc", demos, env, folder=tmp_path, seeds=3, workers=1, config=TINY, updates=2)
    assert [(run.seed, run.updates) for run in found.runs] == [(0, 2), (1, 2), (2, 2)]
    assert (tmp_path / "seed-1" / "events.jsonl").read_text().startswith(before)
    alone = api.train("bc", demos, env, config=TINY, updates=2, seed=1, habits=QUIET)
    assert torch.equal(weights(found.policies[1]), weights(alone.policy))


def test_figures_are_means_over_the_latest_number_of_each_seed(env, demos, tmp_path):
    found = train_seeds("bc", demos, env, folder=tmp_path, seeds=[4, 7, 5], workers=1, config=TINY)
    last = [run.metrics[-1]["loss"] for run in found.runs]
    assert found.figures["loss"].value == pytest.approx(statistics.mean(last))
    assert found.figures["loss"] == over_seeds(last)
    assert [run.folder.name for run in found.runs] == ["seed-4", "seed-7", "seed-5"]
    assert f"loss      {found.figures['loss']}" in str(found)


def test_where_one_fails_the_others_go_on_and_it_is_told(env, demos, tmp_path):
    api.train("bc", demos, env, config=TINY | {"rate": 0.5}, seed=0, folder=tmp_path / "seed-0", habits=QUIET)
    with pytest.raises(RunError, match=r"(?s)1 of 2 seeds failed; the others are done.*seed 0: .*config.rate"):
        train_seeds("bc", demos, env, folder=tmp_path, seeds=2, workers=1, config=TINY)
    assert api.load_policy(tmp_path / "seed-1").spec == env.spec


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"seeds": 0}, "seeds: got 0"),
        ({"seeds": [1, 1]}, r"seeds: got \[1, 1\], but one or more different"),
        ({"workers": 0}, "workers: got 0"),
        ({"config": {"rats": 1}}, "(?s)2 of 2 seeds failed.*unknown setting `rats`"),
    ],
)
def test_what_makes_no_sense_is_refused(env, demos, tmp_path, asked, told):
    with pytest.raises((ConfigError, RunError), match=told):
        train_seeds("bc", demos, env, folder=tmp_path, **{"seeds": 2, "workers": 1, "config": TINY, **asked})


def test_a_door_stays_with_one_worker(tmp_path):
    import gymnasium

    with (
        from_gymnasium(lambda: gymnasium.make("CliffWalking-v1"), copies=1) as door,
        pytest.raises(ConfigError, match="workers: got 2, but a simulator behind a door"),
    ):
        train_seeds("ppo", None, door, folder=tmp_path, seeds=2, workers=2, updates=1)


def test_a_door_has_one_worker_where_none_are_asked_for(tmp_path):
    import gymnasium

    tiny = {"envs": 2, "segment": 4, "minibatches": 1, "value_hidden": 8, "net": {"hidden": 8}}
    with from_gymnasium(lambda: gymnasium.make("CliffWalking-v1"), copies=2) as door:
        found = train_seeds("ppo", None, door, folder=tmp_path, seeds=2, updates=1, config=tiny)
    assert [run.updates for run in found.runs] == [1, 1]
