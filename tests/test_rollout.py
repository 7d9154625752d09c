import dataclasses

import pytest
import torch

from understudy import api
from understudy.core.errors import EnvError
from understudy.core.random import generator
from understudy.core.types import Segment, View
from understudy.rollout import Uniform, choosing, play, record, score


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
    with pytest.raises(EnvError, match="episodes: got 0"):
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
    free = dataclasses.replace(segment, view=View(view.obs), valid=None)
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
