"""What every algorithm of the table keeps: exact resumption, the same bits for the same seed, one agent or many."""

import pytest
import torch

from understudy import api
from understudy.runs import checkpoint
from understudy.runs.loop import Habits

LEARNER = {"envs": 4, "segment": 5, "minibatches": 2, "net": {"hidden": 8}, "value_hidden": 8}
BEGINNING = {"learner": LEARNER, "clone": {"batch": 32, "limit": 4}, "warmup": 1}
SMALL = {  # settings that make each algorithm quick
    "bc": {"batch": 32, "steps": 2, "net": {"hidden": 8}},
    "blades": {"asked": 4, "steps": 2},
    "dagger": {"clone": {"batch": 32, "steps": 2, "limit": 4, "net": {"hidden": 8}}, "envs": 2, "steps": 2},
    "gmmil": BEGINNING | {"points": 16},
    "iq": {"sampling": "online", "batch": 32, "steps": 2, "envs": 4, "segment": 5, "replay": 50, "net": {"hidden": 8}}
    | {"scales": "both", "follow": 0.1, "explore": 0.2, "dread": 2.0},
    "maairl": BEGINNING | {"judge": {"hidden": 8}, "batch": 16, "replay": 1},
    "magail": BEGINNING | {"judge": {"hidden": 8}, "batch": 16},
    "malice": {"steps": 2},
    "maxent": {"reward": "network", "hidden": 4, "steps": 2},
    "ppo": LEARNER,
    "pwil": BEGINNING | {"points": 16},
    "sqil": {"batch": 32, "steps": 2, "envs": 4, "segment": 5, "replay": 50, "net": {"hidden": 8}},
}
TABULAR = {"blades", "malice", "maxent"}  # what learns in tabular games alone
QUIET = Habits(show=False, log_every=2, save_every=2, threads=1)


@pytest.fixture(scope="module", params=[1, 3])
def world(request):
    envs = (api.make_env(name, agents=request.param, horizon=6) for name in ("navigation", "two_rooms"))
    return [(env, api.record(env, episodes=6)) for env in envs]


def train(name, world, folder=None, updates=5, seed=0):
    env, demos = world[name in TABULAR]
    threads = torch.get_num_threads()
    run = api.train(name, demos, env, config=SMALL[name], updates=updates, folder=folder, seed=seed, habits=QUIET)
    torch.set_num_threads(threads)
    return run


def bits(run):
    """Everything in the state and in the metrics, as bytes."""
    tensors, tree = checkpoint.pack(run.state)
    return [(k, v.numpy().tobytes()) for k, v in tensors.items()], repr((tree, run.metrics))


@pytest.mark.parametrize("name", sorted(api.ALGORITHMS))
def test_a_run_broken_and_resumed_ends_with_the_bits_of_an_unbroken_one(name, world, tmp_path):
    whole = train(name, world)
    for updates in (1, 2, 3, 5):
        parts = train(name, world, tmp_path, updates)
    assert bits(parts) == bits(whole)


@pytest.mark.parametrize("name", sorted(api.ALGORITHMS))
def test_a_seed_tells_all_and_another_seed_something_else(name, world):
    assert bits(train(name, world)) == bits(train(name, world))
    assert bits(train(name, world, seed=1)) != bits(train(name, world))


@pytest.mark.parametrize("name", sorted(api.ALGORITHMS))
def test_an_algorithm_learns_without_touching_the_global_random_state(name, world):
    before = torch.get_rng_state()
    train(name, world, updates=2)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", sorted(api.ALGORITHMS))
def test_the_policy_of_a_run_is_read_back_bit_for_bit(name, world, tmp_path):
    run = train(name, world, tmp_path, updates=2)
    again = api.load_policy(tmp_path)
    assert again.spec == run.policy.spec
    for (key, a), (_, b) in zip(run.policy.state_dict().items(), again.state_dict().items(), strict=True):
        assert torch.equal(a, b), key
