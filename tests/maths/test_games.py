from dataclasses import replace

import pytest
import torch

from understudy.core.errors import ConfigError
from understudy.envs import tabular
from understudy.maths import games
from understudy.maths.games import game_of


def acting(*rows):
    return torch.tensor(rows, dtype=torch.float64)


@pytest.mark.parametrize("horizon", [5, 10, 20])
@pytest.mark.parametrize(("off_path", "share"), [(acting(0, 1), 1.0), (acting(0.5, 0.5), 0.5)])
def test_a_learner_of_the_experts_value_may_leave_a_regret_as_long_as_the_game(horizon, off_path, share):
    env = tabular.on_off(horizon)
    game, expert = game_of(env), env.play
    each = games.marginals_of(expert, env.choices)
    each[1, 2] = off_path.squeeze(0)  # what the second agent does where the expert never was
    learner = games.product_of(each, env.choices)
    assert games.value_gap(game, expert, learner) == 0
    assert games.regret(game, expert) == 0
    for deviations in ("swap", "external"):
        assert games.gains(game, learner, deviations).tolist() == [share * (horizon - 1), 0]
    assert games.regret_gap(game, expert, learner) == share * (horizon - 1)


def test_play_that_never_ends_needs_a_discount():
    env = replace(tabular.chicken(), horizon=None)
    with pytest.raises(ConfigError, match=r"discount: got 1\.0"):
        games.values(game_of(env), env.play)
