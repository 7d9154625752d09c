"""Correlations of learned with true rewards: what they see, what they do not, and whom they count."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from understudy import api
from understudy.core.errors import DemosError, EnvError
from understudy.core.random import generator
from understudy.envs.particles import Navigation
from understudy.evaluation.rewards import agreement, correlation, landscape, ranked


def draws(seed, episodes=40, steps=9):
    source = generator(seed)
    x = torch.randn(episodes, steps, generator=source)
    y = 0.6 * x + torch.randn(episodes, steps, generator=source)
    where = torch.rand(episodes, steps, generator=source) < 0.8
    return x, y, where


def test_pearson_is_numpys_and_spearman_that_of_ranks():
    x, y, where = draws(0)
    a, b = x[where].double().numpy(), y[where].double().numpy()
    assert correlation(x, y, where, generator(0)).value == pytest.approx(np.corrcoef(a, b)[0, 1], abs=1e-9)
    ranks = [np.argsort(np.argsort(z)) for z in (a, b)]
    assert correlation(x, y, where, generator(0), ranks=True).value == pytest.approx(
        np.corrcoef(*ranks)[0, 1], abs=1e-9
    )


def test_equal_numbers_share_their_mean_rank():
    assert ranked(torch.tensor([3.0, 1.0, 3.0, 2.0, 3.0])).tolist() == [4, 1, 4, 2, 4]


def test_a_unit_and_a_zero_change_nothing_and_spearman_sees_no_monotone_change():
    x, y, where = draws(1)
    for ranks in (False, True):
        plain = correlation(x, y, where, generator(0), ranks=ranks).value
        assert correlation(3 * x - 7, y, where, generator(0), ranks=ranks).value == pytest.approx(plain, abs=1e-6)
        assert correlation(-x, y, where, generator(0), ranks=ranks).value == pytest.approx(-plain, abs=1e-6)
    bent = correlation(x.exp(), y, where, generator(0), ranks=True).value
    assert bent == pytest.approx(correlation(x, y, where, generator(0), ranks=True).value, abs=1e-9)
    assert correlation(x, x, where, generator(0)).value == pytest.approx(1)


def test_what_does_not_count_does_not_matter():
    x, y, where = draws(2)
    other = torch.where(where, y, 1e6)
    for ranks in (False, True):
        a, b = (correlation(x, z, where, generator(0), ranks=ranks) for z in (y, other))
        assert a == b


def test_the_interval_covers_the_true_correlation_about_as_often_as_it_says():
    meant, hits = 0.6 / np.sqrt(0.36 + 1), 0
    for seed in range(60):
        found = correlation(*draws(seed), generator(seed), repeats=200)
        hits += found.low <= meant <= found.high
    assert hits >= 50  # 57 of 60 are expected at 95 %; fewer than 50 would come once in a thousand


def test_the_true_reward_agrees_with_itself_step_by_step_and_to_go():
    env = Navigation()
    played = api.record(env, episodes=20).padded()

    def true(view, actions):
        return 2 * played.rewards

    def blind(view, actions):
        return torch.zeros_like(played.rewards)

    for agent in agreement(true, played, generator(0)):
        found = (agent.pearson, agent.spearman, agent.pearson_to_go, agent.spearman_to_go)
        assert [x.value for x in found] == pytest.approx([1] * 4, abs=1e-6)
    assert all(np.isnan(agent.pearson.value) for agent in agreement(blind, played, generator(0)))


def test_returns_to_go_see_a_wrong_zero_where_games_end_and_single_steps_do_not():
    """A reward that is above the true one by a constant pays for long episodes; what it says of steps is the same."""
    played = api.record(Navigation(), episodes=60).padded()
    low = float(played.rewards.min())

    def shifted(view, actions):
        return played.rewards - 2 * low

    found = agreement(shifted, played, generator(0))[0]
    assert found.pearson.value == pytest.approx(1, abs=1e-6)
    assert found.pearson_to_go.value < 0


def test_recordings_without_rewards_are_refused():
    played = api.record(Navigation(horizon=3), episodes=2).padded()
    with pytest.raises(DemosError, match="no rewards"):
        agreement(lambda view, actions: view.obs[..., 0], replace(played, rewards=None), generator(0))


# ---- maps


def test_a_map_shows_what_an_agent_would_be_paid_where_it_might_stand():
    """Paid by nearness to the first landmark: the map falls off evenly round it, and others' agents change nothing."""
    env = Navigation()
    seen = env.reset(torch.rand(1, env.spec.reset_noise, generator=generator(3)))
    whole, scene = env.whole(seen)[0], env.draw(env.whole(seen)[0])

    def near(view, actions):
        assert view.obs.shape == (30 * 30, 3, env.spec.obs) and not actions.any()
        return -view.obs[..., 2:4].norm(dim=-1)  # the offset to the first landmark

    found = landscape(near, env, whole, agent=1, cells=30)
    up = scene.bottom + (torch.arange(30) + 0.5) / 30 * (scene.top - scene.bottom)
    across = scene.left + (torch.arange(30) + 0.5) / 30 * (scene.right - scene.left)
    x, y = seen.landmark[0, 0]
    meant = -torch.hypot(across - x, (up - y).unsqueeze(-1))
    torch.testing.assert_close(found, meant, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["rock_paper_scissors", "kitchen:cramped_room"])
def test_envs_without_a_plane_have_no_maps(name):
    env = api.make_env(name, **({"horizon": 3} if ":" in name else {}))
    with pytest.raises(EnvError, match="has no"):
        api.scenes(api.expert_of(env), env, reward=lambda view, actions: view.obs[..., 0])
