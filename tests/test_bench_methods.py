"""The tables of all methods: who is best, and who had to ask for it."""

import pytest

from understudy import bench_methods
from understudy.evaluation.compared import Comparison, Trial


@pytest.fixture
def asked(monkeypatch):
    """Comparisons as they were asked for, answered with scores that are made up."""
    plans = []

    def compare(env, demos, plan, folder, workers):
        plans.append((env.spec.title, plan, folder))
        scores = {"bc": 0.1, "magail": 0.5, "iq": 0.4, "dagger": 0.9}
        trials = [
            Trial(method, count, 0.0, seed, {"score": scores[method] + count / 100 + seed / 1000, "held out": -1.0})
            for method in scores
            for count in plan.counts
            for seed in range(plan.seeds)
        ]
        return Comparison(env.spec.title, [*trials, Trial("pwil", 5, 0.0, 0, refused="it cannot")])

    monkeypatch.setattr(bench_methods, "compare", compare)
    return plans


def test_the_best_that_asks_nobody_stands_beside_the_best_that_asks(asked, tmp_path):
    report = bench_methods.few(tmp_path, seeds=2, workers=1, minutes=0.5)
    best, every = report.tables
    assert [row[:2] for row in best.rows] == [[env, count] for env in bench_methods.FEW for count in (1, 5, 20)]
    env, count, bc, alone, told = best.rows[1]
    assert (env, count, bc.value) == ("spread", 5, pytest.approx(0.1505))
    assert alone.startswith("magail 0.55") and told.startswith("dagger 0.95")
    assert "320 episodes of its own play" in best.caption, "what it is told is counted: 20 rounds of 16"
    of_five = {row[2]: row[3] for row in every.rows if row[:2] == ["tag", 5]}
    assert of_five == {"bc": "nobody", "magail": "nobody", "iq": "nobody", "dagger": "an expert"}
    assert [title for title, _, _ in asked] == list(bench_methods.FEW)
    assert {plan.minutes for _, plan, _ in asked} == {0.5}
    assert report.provenance["command"] == "understudy bench few --seeds 2 --minutes 0.5"


def test_where_no_method_has_a_score_nothing_is_best():
    assert bench_methods._best({}) == ""
