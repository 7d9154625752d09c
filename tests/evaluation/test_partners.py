"""Who sits where, and what a team's agreements are worth to strangers."""

import pytest
import torch

from understudy.core.errors import ConfigError
from understudy.core.random import generator
from understudy.core.types import View
from understudy.envs import tabular
from understudy.evaluation.partners import ad_hoc, cross_play, seated
from understudy.rollout import Scripted, Team, Uniform, play


def always(env, move):
    return Scripted(env, lambda env, view, noise: torch.full(view.obs.shape[:-1], move), noise=1)


def test_strangers_who_agreed_on_other_conventions_earn_nothing_together():
    env = tabular.coordination(3)
    teams = [always(env, k) for k in range(3)]
    found = cross_play(env, teams, episodes=4, seed=0)
    both_paid = torch.eye(3, dtype=torch.float64).unsqueeze(-1).expand(3, 3, 2)
    torch.testing.assert_close(found, both_paid)


def test_each_seat_is_played_by_whom_it_is_said_to_be():
    env = tabular.coordination(3)
    played = play(env, Team([always(env, 0), always(env, 2)], (1, 0)), 5, generator(0))
    assert played.actions[..., 0].eq(2).all() and played.actions[..., 1].eq(0).all()


def test_among_experts_every_number_of_learners_is_seated():
    env = tabular.coordination(2)
    found = ad_hoc(env, learner=always(env, 1), expert=always(env, 0), episodes=3, seed=0)
    assert [len(each) for each in found] == [3, 6, 3]
    assert [each.mean().item() for each in found] == [1.0, 0.0, 1.0]


def test_a_team_is_as_likely_as_its_members_in_their_seats():
    env = tabular.coordination(2)
    view = View(torch.ones(1, 1, 2, 1))
    team = Team([Uniform(env.spec), Uniform(env.spec)], (0, 1))
    log_prob = team.log_prob(view, torch.zeros(1, 1, 2, dtype=torch.long))
    torch.testing.assert_close(log_prob, torch.full((1, 1, 2), -0.6931472))


def test_a_seed_begins_the_same_episodes_whoever_is_seated():
    env = tabular.coordination(2)
    one, two = (seated(env, [always(env, k)], (0, 0), 6, seed=3) for k in (0, 1))
    assert torch.equal(one, two)


def test_who_sits_together_does_not_share_dice():
    """Two teams that each agree by one joint draw: alone they always agree, with strangers half of the time."""
    env = tabular.coordination(2)
    drawn_together = [Scripted(env, lambda env, view, noise: (noise[:, :1, 0] > 0.5).long().expand(-1, 2), 1)] * 2
    alone = seated(env, drawn_together, (0, 0), 400, seed=0)
    together = seated(env, drawn_together, (0, 1), 400, seed=0)
    assert alone.mean().item() == 1.0 and together.mean().item() == pytest.approx(0.5, abs=0.08)


def test_seats_that_nobody_was_named_for_and_a_single_team_are_refused():
    env = tabular.coordination(2)
    with pytest.raises(ConfigError, match="seats"):
        Team([Uniform(env.spec)], (0, 1))
    with pytest.raises(ConfigError, match="two teams"):
        cross_play(env, [Uniform(env.spec)], 2, 0)
