"""SQIL: play is drawn to where the demonstrators were, and arriving is worth as much as being on the way."""

from dataclasses import replace

import pytest
import torch

from understudy import api
from understudy.algorithms import sqil
from understudy.core.errors import ConfigError, DemosError
from understudy.core.random import generator
from understudy.envs import tabular
from understudy.runs.loop import Habits

QUICK = {"net": {"hidden": 16}, "rate": 1e-2, "batch": 128, "weight_decay": 0.0, "envs": 16, "segment": 8}


@pytest.mark.slow
def test_an_expert_that_ends_the_game_at_once_is_followed_to_its_end():
    """Walking the expert's way for ever pays at most 1 a step, and so must having arrived."""
    game = tabular.crossing(horizon=20)
    demos = api.record(game, episodes=8)
    config = QUICK | {"limit": 300, "follow": 0.2, "discount": 0.9}
    policy = api.train("sqil", demos, game, config=config, habits=Habits(show=False, threads=1)).policy
    figures = api.evaluate(policy, game, episodes=100).figures
    assert figures["normalised return/team_0"].value > 0.9 and figures["normalised return/team_1"].value > 0.9


def test_the_slow_copy_follows_and_learns_nothing_of_its_own():
    game = tabular.two_rooms(horizon=5)
    demos = api.record(game, episodes=5)
    config = sqil.Config(envs=4, segment=4, steps=1, batch=8, follow=0.25)
    state = sqil.init(config, demos, game, generator(0))
    before = [p.detach().clone() for p in state.soft.parameters()]
    sqil.update(config, state, demos, game, generator(1))
    for old, slow, fast in zip(before, state.slow.parameters(), state.soft.parameters(), strict=True):
        torch.testing.assert_close(slow, old + 0.25 * (fast - old))
        assert slow.grad is None


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"envs": 0}, "envs: got 0"),
        ({"rate": -1.0}, "rate: got -1.0"),
        ({"temperature": 0.0}, "temperature: got 0.0"),
        ({"temperature": float("inf")}, "temperature: got inf"),
        ({"discount": 1.0}, "rests are paid for ever"),
        ({"follow": 0.0}, "follow: got 0.0"),
        ({"burn_in": 40}, "burn_in: got 40 of a window of 32"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(settings, said):
    with pytest.raises(ConfigError, match=said):
        replace(sqil.Config(), **settings)


def test_without_demonstrations_or_an_env_to_play_in_it_says_so():
    game = tabular.two_rooms(horizon=5)
    with pytest.raises(DemosError, match="sqil learns from demonstrations"):
        sqil.init(sqil.Config(), None, game, generator(0))
    with pytest.raises(ConfigError, match="sqil plays in the env"):
        sqil.init(sqil.Config(), api.record(game, episodes=2), None, generator(0))
