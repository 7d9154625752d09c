"""Methods side by side: every combination is run once, resumed, and measured against what is known."""

import json
from dataclasses import dataclass, replace

import pytest
import torch

from understudy import api, comparing
from understudy.algorithms import bc
from understudy.comparing import Plan, compare, mislabelled
from understudy.core.errors import ConfigError, EnvError, RunError
from understudy.core.random import generator
from understudy.core.types import Discrete, EnvSpec
from understudy.demos import Demos, Episode
from understudy.envs import tabular
from understudy.nets import NetConfig, build_policy
from understudy.rollout import Scripted, Uniform, play

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
    return [found and found.score for found in per_team], scene


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


@pytest.mark.parametrize(
    "content",
    [
        "{}",
        "no JSON",
        '{"asked": {"budget": {"updates": 1, "minutes": null}}, "trial": {"who": 1}}',
        '{"asked": {"budget": {"updates": 1, "minutes": null}}, "trial": {"method": "bc", "demos": 2, "noise": 0.0,'
        ' "seed": 0, "figures": {"score": "good"}}}',
    ],
)
def test_a_trial_that_was_damaged_is_refused_with_a_way_out(tmp_path, content):
    env, demos = agreeing()
    trial = tmp_path / "bc-2-0-0" / "trial.json"
    trial.parent.mkdir()
    trial.write_text(content)
    with pytest.raises(RunError, match=r"trial.json was changed or damaged.*Delete it"):
        compare(env, demos, Plan(("bc",), (2,), seeds=1, episodes=20, settings=QUICK), tmp_path)


# ---- starts, and teams of other sizes


@dataclass(frozen=True)
class Doors:
    """One of four doors is marked at the start; each agent who names it is paid 1 a step. All see which one it is."""

    agents: int = 2
    told: bool = False  # whether one sees how many they are: then obs grow

    @property
    def spec(self):
        wide = 4 + self.agents * self.told
        return EnvSpec(self.agents, wide, Discrete(4), horizon=3, reset_noise=1, title="doors")

    def reset(self, noise):
        return (4 * noise[:, 0]).long()

    def observe(self, state):
        seen = torch.nn.functional.one_hot(state, 4).float().unsqueeze(1).expand(-1, self.agents, -1)
        return torch.cat([seen, torch.ones(len(state), self.agents, self.agents * self.told)], dim=-1)

    def step(self, state, actions, noise):
        return state, (actions == state.unsqueeze(-1)).float(), torch.zeros_like(state, dtype=torch.bool)


def name_it(env, view, noise):
    return view.obs[..., :4].argmax(-1)


def name_two(env, view, noise):
    """Knows the first two doors, and calls the others 0."""
    right = name_it(env, view, noise)
    return torch.where(right < 2, right, 0)


def test_who_knows_only_the_starts_it_was_shown_scores_one_there_and_less_elsewhere():
    env, expert = Doors(), Scripted(Doors(), name_it)
    recorded = api.record(env, expert, episodes=40)
    shown = recorded.select([k for k, e in enumerate(recorded) if int(e.obs[0, 0].argmax()) < 2])
    scene = comparing._Scene(env, comparing._Given(shown), None, play(env, expert, 400, generator(0)), expert, {})
    found = comparing._team(Scripted(env, name_two), scene, 400, "team", shown)
    assert found.seen == pytest.approx(1.0, abs=1e-6)
    assert found.score == pytest.approx(1 / 3, abs=0.08)  # half of the returns, of which random play has a quarter
    assert torch.equal(comparing._begun(env, shown)[:, 0].mul(4).long(), shown.padded().obs[:, 0, 0].argmax(-1))


def test_where_the_starts_are_not_known_it_says_why():
    env, expert = Doors(), Scripted(Doors(), name_it)
    recorded = api.record(env, expert, episodes=6)
    untold = Demos.from_episodes(env.spec, [replace(e, info={}) for e in recorded])
    moved = Demos.from_episodes(env.spec, [replace(e, obs=e.obs.roll(1, -1)) for e in recorded])
    alike = api.make_env("kitchen:cramped_room", horizon=4)
    for where, demos, why in (
        (env, untold, "do not tell how they began"),
        (env, moved, "begins otherwise"),
        (alike, api.record(alike, Uniform(alike.spec), episodes=2), "begin alike"),
    ):
        assert why in comparing._begun(where, demos)


def test_a_shared_policy_is_measured_in_teams_of_other_sizes(tmp_path):
    quick = {"bc": {"batch": 64, "limit": 150, "rate": 0.05, "net": {"layers": 0}}}
    plan = Plan(("bc",), (20,), seeds=1, episodes=40, settings=quick)
    found = compare(Doors(), None, plan, tmp_path, expert=name_it)
    figures = found.trials[0].figures
    assert {n: figures[f"agents {n}"] for n in (1, 3, 4)} == pytest.approx({1: 1.0, 3: 1.0, 4: 1.0}, abs=0.1)
    assert figures["score seen"] == pytest.approx(1.0, abs=0.1)
    assert not any("other sizes" in note for note in found.notes) and "1 agents" in str(found)


def test_where_no_other_team_can_play_it_says_why():
    script, learned = (Scripted(Doors(), name_it), Uniform(Doors().spec))
    for env, expert, why in (
        (Doors(told=True), script, "obs grow with agents: 6 numbers for 2, 8 for 4"),
        (Doors(), learned, "without a script"),
        (tabular.coordination(2), script, "no number of agents"),
    ):
        scene = comparing._Scene(
            env, comparing._Recorded(env, expert, 0), None, play(env, script, 2, generator(0)), expert, {}
        )
        assert why in comparing._sizes(scene, 4, 0)[1]
    alone = build_policy(NetConfig(share="none"), Doors().spec, generator(0))
    assert api.grown(alone, Doors(agents=3)) is None
