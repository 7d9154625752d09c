import pytest

from understudy import bench_regret
from understudy.evaluation.regret import exact


def test_a_row_tells_both_gaps_and_what_was_asked_and_a_stopped_one_goes_on(tmp_path, monkeypatch):
    quick = {"blades": ("blades", {"rounds": 3, "asked": 5, "steps": 2}, None), "bc": ("bc", {"limit": 2}, None)}
    monkeypatch.setattr(bench_regret, "METHODS", quick)
    for method, asked in (("blades", 3 * 5 * 2), ("bc", 0)):
        row = bench_regret._one("on_off, guarded", method, 0, tmp_path, None)
        assert row["asked"] == asked and 0 <= row["regret gap"] <= 9 and abs(row["value gap"]) <= 9
        assert bench_regret._one("on_off, guarded", method, 0, tmp_path, None) == row


@pytest.mark.parametrize("name", bench_regret.GAMES)
def test_no_expert_of_the_benchmark_can_be_left_for_a_gain(name):
    title, rules, _ = bench_regret.GAMES[name]
    env = bench_regret.api.make_env(title, **rules)
    found = exact(bench_regret.api.expert_of(env), env)
    assert found["regret"].value == pytest.approx(0, abs=1e-12)
