"""Methods side by side: every combination is run once, resumed, and measured against what is known."""

import json

import pytest
import torch

from understudy import api, comparing
from understudy.algorithms import bc
from understudy.comparing import Plan, compare, mislabelled
from understudy.core.errors import ConfigError
from understudy.demos import Demos, Episode
from understudy.envs import tabular

QUICK = {"bc": {"batch": 64, "limit": 60, "rate": 0.05, "net": {"layers": 0}}}


def agreeing(episodes=10):
    """Both always choose convention 0, which pays 1 each; chance pays 1/2."""
    env = tabular.coordination(2)
    still = torch.ones(2, 2, 1)
    one = Episode(still, torch.zeros(1, 2, dtype=torch.long), rewards=torch.ones(1, 2))
    return env, Demos.from_episodes(env.spec, [one] * episodes)


def test_a_clone_of_one_convention_scores_one_in_all_seats(tmp_path):
    env, demos = agreeing()
    found = compare(env, demos, Plan(("bc",), (1, 4), seeds=2, episodes=200, settings=QUICK), tmp_path)
    assert len(found.trials) == 4
    for trial in found.trials:
        assert not trial.refused
        assert trial.figures["score"] == pytest.approx(1.0, abs=0.15)
        assert trial.figures["seen"] == pytest.approx(0.0, abs=0.1)
    assert found.cross_play["bc"].value == pytest.approx(1.0, abs=0.15)


def test_what_was_measured_is_read_and_not_trained_again(tmp_path, monkeypatch):
    env, demos = agreeing()
    plan = Plan(("bc",), (2,), seeds=1, episodes=20, settings=QUICK)
    first = compare(env, demos, plan, tmp_path)
    monkeypatch.setattr(bc, "update", lambda *_: pytest.fail("it was trained again"))
    assert compare(env, demos, plan, tmp_path).trials == first.trials


def test_more_episodes_to_measure_by_are_measured_anew_without_training(tmp_path, monkeypatch):
    env, demos = agreeing()
    plan = Plan(("bc",), (2,), seeds=1, episodes=20, settings=QUICK)
    compare(env, demos, plan, tmp_path)
    monkeypatch.setattr(bc, "update", lambda *_: pytest.fail("it was trained again"))
    again = compare(env, demos, Plan(("bc",), (2,), seeds=1, episodes=30, settings=QUICK), tmp_path)
    assert again.trials[0].figures["score"] == pytest.approx(1.0, abs=0.2)


def test_a_method_that_cannot_is_told_and_the_others_go_on(tmp_path, monkeypatch):
    env, demos = agreeing()
    refusing = lambda *_: (_ for _ in ()).throw(ConfigError("ppo: not here"))  # noqa: E731
    monkeypatch.setattr(api.algorithm_named("ppo"), "init", refusing)
    found = compare(env, demos, Plan(("ppo", "bc"), (2,), seeds=1, updates=2, episodes=20, settings=QUICK), tmp_path)
    assert [bool(t.refused) for t in found.trials] == [True, False]


def test_runs_in_processes_find_what_runs_one_by_one_find(tmp_path):
    env, demos = agreeing()
    plan = Plan(("bc",), (2,), seeds=2, episodes=20, settings=QUICK)
    one, two = (compare(env, demos, plan, tmp_path / str(n), workers=n) for n in (1, 2))
    for a, b in zip(one.trials, two.trials, strict=True):
        apart = {k for k in a.figures if k != "minutes" and a.figures[k] != b.figures[k]}
        assert not apart


def test_more_demonstrations_are_those_of_fewer_and_others(tmp_path):
    _, demos = agreeing(12)
    few, many = (comparing._chosen(demos, count, seed=3) for count in (3, 8))
    assert few == many[:3] and len(set(many)) == 8


def test_noise_replaces_the_share_that_was_asked_for_and_nothing_else():
    env = tabular.coordination(4)
    episode = Episode(torch.ones(1001, 2, 1), torch.zeros(1000, 2, dtype=torch.long), rewards=torch.ones(1000, 2))
    demos = Demos.from_episodes(env.spec, [episode])
    (noisy,) = mislabelled(demos, 0.4, seed=0)
    assert (noisy.actions != 0).float().mean().item() == pytest.approx(0.4 * 3 / 4, abs=0.03)
    assert torch.equal(noisy.obs, demos[0].obs) and torch.equal(noisy.rewards, demos[0].rewards)
    assert mislabelled(demos, 0.0, seed=0) is demos


def test_a_competitive_game_is_scored_against_the_expert(tmp_path):
    env = api.make_env("keep_away", horizon=10)
    plan = Plan(("bc",), (2,), seeds=1, episodes=8, settings={"bc": {"limit": 2}})
    found = compare(env, None, plan, tmp_path)
    assert "score" in found.trials[0].figures and "among experts" not in found.trials[0].figures
    assert not found.cross_play


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"methods": ("bcc",)}, "Did you mean `bc`"),
        ({"methods": ("ppo",)}, "minutes"),
        ({"methods": ("bc", "bc")}, "different"),
        ({"methods": ("bc",), "noise": (2.0,)}, "noise"),
        ({"methods": ("bc",), "counts": (0,)}, "too few"),
        ({"methods": ("bc",), "settings": {"bc": {"bathc": 3}}}, "batch"),
    ],
)
def test_a_plan_that_cannot_be_is_refused_before_anything_runs(settings, said):
    with pytest.raises(ConfigError, match=said):
        Plan(**settings)


def test_more_demonstrations_than_there_are_are_refused(tmp_path):
    env, demos = agreeing()
    with pytest.raises(ConfigError, match="8 to learn from"):
        compare(env, demos, Plan(("bc",), (9,)), tmp_path)


def test_a_trial_on_disk_is_plain_json(tmp_path):
    env, demos = agreeing()
    compare(env, demos, Plan(("bc",), (2,), seeds=1, episodes=20, settings=QUICK), tmp_path)
    kept = json.loads((tmp_path / "bc-2-0-0" / "trial.json").read_text())
    assert kept["trial"]["method"] == "bc" and kept["asked"]["episodes"] == 20
