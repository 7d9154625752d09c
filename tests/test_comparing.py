"""Methods side by side: every combination is run once, resumed, and measured against what is known."""

import json

import pytest
import torch

from understudy import api, comparing
from understudy.algorithms import bc
from understudy.comparing import Plan, compare, mislabelled
from understudy.core.errors import ConfigError, EnvError, RunError
from understudy.core.random import generator
from understudy.demos import Demos, Episode
from understudy.envs import tabular
from understudy.rollout import Uniform, play

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
    again = compare(env, demos, Plan(("bc",), (2,), seeds=1, episodes=300, settings=QUICK), tmp_path)
    assert again.trials[0].figures["score"] == pytest.approx(1.0, abs=0.15)


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
    env, _ = agreeing()
    recorded = comparing._Recorded(env, api.expert_of(env), seed=5)
    for source in (comparing._Given(api.record(env, episodes=30)), recorded):
        few, many = (source.chosen(count, seed=3) for count in (3, 20))
        assert len(few) == 3 and len(many) == 20
        assert [few.digest(i) for i in range(3)] == [many.digest(i) for i in range(3)]
        assert many.fingerprint() != source.chosen(20, seed=4).fingerprint()


def test_noise_replaces_the_share_that_was_asked_for_and_nothing_else():
    env = tabular.coordination(4)
    episode = Episode(torch.ones(1001, 2, 1), torch.zeros(1000, 2, dtype=torch.long), rewards=torch.ones(1000, 2))
    demos = Demos.from_episodes(env.spec, [episode])
    (noisy,) = mislabelled(demos, 0.4, seed=0)
    assert (noisy.actions != 0).float().mean().item() == pytest.approx(0.4 * 3 / 4, abs=0.03)
    assert torch.equal(noisy.obs, demos[0].obs) and torch.equal(noisy.rewards, demos[0].rewards)
    assert mislabelled(demos, 0.0, seed=0) is demos


def scores(env, policy, expert, episodes=300):
    """Score of a policy in a game, and among experts."""
    shown = play(env, expert, 500, generator(0, "shown"))
    given = comparing._Recorded(env, expert, 0)
    scene = comparing._Scene(env, given, None, shown, expert, {})
    per_team = [comparing._team(policy, scene, episodes, team) for team in dict.fromkeys(env.spec.teams)]
    return [found and found[0] for found in per_team], scene


def test_in_competition_the_expert_scores_one_and_chance_zero_against_the_expert():
    env = api.make_env("keep_away")
    expert = api.expert_of(env)
    one, _ = scores(env, expert, expert)
    zero, _ = scores(env, Uniform(env.spec), expert)
    assert one == pytest.approx([1.0, 1.0], abs=0.15) and zero == pytest.approx([0.0, 0.0], abs=0.15)


def test_one_chance_player_among_experts_scores_zero_and_an_expert_one():
    env = api.make_env("navigation", horizon=25)
    expert = api.expert_of(env)
    _, scene = scores(env, expert, expert)
    for policy, score in ((expert, 1.0), (Uniform(env.spec), 0.0)):
        assert comparing._among_experts(policy, scene, 300)["among experts"] == pytest.approx(score, abs=0.1)


def test_where_demonstrators_earn_what_chance_earns_there_is_no_score():
    env = tabular.rock_paper_scissors()
    found, _ = scores(env, Uniform(env.spec), api.expert_of(env))
    assert found == [None, None]


def test_without_an_expert_a_game_of_teams_has_no_score_and_says_so(tmp_path, monkeypatch):
    env = api.make_env("keep_away", horizon=10)
    demos = api.record(env, episodes=6)
    monkeypatch.setattr(api, "expert_of", lambda env: (_ for _ in ()).throw(EnvError("none")))
    found = compare(env, demos, Plan(("bc",), (2,), seeds=1, episodes=8, settings={"bc": {"limit": 2}}), tmp_path)
    assert "score" not in found.trials[0].figures and "means nothing" in found.notes[0]


def test_a_longer_run_is_not_taken_for_a_shorter_one(tmp_path):
    env, demos = agreeing()
    longer, shorter = (Plan(("bc",), (2,), seeds=1, updates=n, episodes=20, settings=QUICK) for n in (3, 1))
    compare(env, demos, longer, tmp_path)
    with pytest.raises(RunError, match="3 updates, longer than the 1"):
        compare(env, demos, shorter, tmp_path)


def test_another_expert_is_measured_against_anew(tmp_path):
    env = tabular.coordination(2)
    plan = Plan(("bc",), (2,), seeds=1, episodes=60, settings=QUICK)
    always = [lambda env, view, noise, k=k: torch.full(view.obs.shape[:-1], k) for k in range(2)]
    always[1].__qualname__ = "another"
    _, demos = agreeing()
    found = [compare(env, demos, plan, tmp_path, expert=each).trials[0].figures["among experts"] for each in always]
    assert found == pytest.approx([1.0, -1.0], abs=0.4)


def test_a_run_that_diverged_is_told_and_the_others_go_on(tmp_path, monkeypatch):
    env, demos = agreeing()

    def diverging(config, state, *rest):
        next(state.policy.parameters()).data.fill_(float("nan"))
        return {"loss": torch.tensor(float("nan"))}

    monkeypatch.setattr(api.algorithm_named("ppo"), "update", diverging)
    found = compare(env, demos, Plan(("ppo", "bc"), (2,), seeds=1, updates=1, episodes=20, settings=QUICK), tmp_path)
    assert "diverged" in found.trials[0].refused and not found.trials[1].refused


def test_demonstrations_longer_than_episodes_are_refused(tmp_path):
    demos = api.record(api.make_env("spread", horizon=30), episodes=6)
    with pytest.raises(ConfigError, match="horizon=30"):
        compare(api.make_env("spread", horizon=10), demos, Plan(("bc",), (2,)), tmp_path)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"methods": ("bcc",)}, "Did you mean `bc`"),
        ({"methods": ("ppo",)}, "minutes"),
        ({"methods": ("bc", "bc")}, "different"),
        ({"methods": ("bc",), "noise": (2.0,)}, "noise"),
        ({"methods": ("bc",), "counts": (0,)}, "too few"),
        ({"methods": ("ppo",), "minutes": -1.0}, "minutes"),
        ({"methods": ("ppo",), "updates": 0}, "updates"),
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
