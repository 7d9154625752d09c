"""What is recommended follows from the figures."""

import math

import pytest

from understudy.evaluation.compared import Comparison, Trial, growth, needed, recommendation


def trials(method, by_count, minutes=1.0, noise=0.0, spread=0.01):
    """Three seeds for each number of demonstrations, `spread` around its score."""
    return [
        Trial(method, n, noise, k, {"score": score + (k - 1) * spread, "minutes": minutes}, [score] * 10)
        for n, score in by_count.items()
        for k in range(3)
    ]


def test_demonstrations_needed_are_the_fewest_from_which_on_it_stays_enough():
    found = trials("bc", {1: 0.95, 5: 0.5, 50: 0.93, 200: 0.97})
    assert needed(found, "bc", 0.0) == 50
    assert needed(trials("bc", {1: 0.2, 5: 0.5}), "bc", 0.0) is None


def test_of_methods_alike_at_the_end_the_one_that_needs_fewer_demonstrations_is_taken():
    found = trials("bc", {5: 0.4, 50: 0.95}) + trials("iq", {5: 0.94, 50: 0.95}, minutes=9.0)
    said = recommendation(found)
    assert said.startswith("Take `iq`") and "5 of the counts" in said and "`bc` cannot be told from it" in said
    assert "but it needs more demonstrations" in said


def test_of_methods_alike_in_everything_else_the_quicker_is_taken():
    found = trials("slow", {5: 0.95}, minutes=9.0) + trials("quick", {5: 0.95}, minutes=1.0)
    assert recommendation(found).startswith("Take `quick`")


def test_a_method_that_is_clearly_worse_is_never_taken_however_cheap():
    found = trials("bc", {5: 0.5}, minutes=0.01) + trials("iq", {5: 0.95}, minutes=60.0)
    said = recommendation(found)
    assert said.startswith("Take `iq`") and "`bc` scores less" in said


def test_nothing_enough_is_said_and_nothing_scored_is_no_recommendation():
    assert "below 0.9" in recommendation(trials("bc", {5: 0.5}))
    assert recommendation([Trial("bc", 5, 0.0, 0, refused="no")]).startswith("Nothing can be recommended")
    assert recommendation([Trial("bc", 5, 0.0, 0, {"seen": -1.0})]).startswith("Nothing can be recommended")


def test_each_noise_has_a_recommendation_of_its_own():
    found = trials("bc", {5: 0.95}) + trials("iq", {5: 0.2})
    found += trials("bc", {5: 0.1}, noise=0.5) + trials("iq", {5: 0.92}, noise=0.5)
    clean, noisy = recommendation(found).split("\n\n")
    assert clean.startswith("Without noise: Take `bc`") and "`iq` scores less" in clean
    assert noisy.startswith("With 50% noise: Take `iq`") and "`bc` scores less" in noisy


def test_a_difference_among_many_methods_must_be_surer_than_one_of_two():
    """Seeds of 0.90 and 0.96 differ at p = 0.008: told of two methods, and not where it is one pair of ten."""
    two = trials("a", {5: 0.96}, spread=0.02) + trials("b", {5: 0.90}, spread=0.01)
    others = [t for name in ("c", "d", "e") for t in trials(name, {5: 0.95}, spread=0.05)]
    assert "`b` scores less" in recommendation(two)
    assert "scores less" not in recommendation(two + others) and "score less" not in recommendation(two + others)


def test_starts_that_are_not_known_are_said_to_be_so():
    known = [Trial("iq", 5, 0.0, k, {"score": 0.5, "score seen": 0.75}) for k in range(2)]
    _, _, table, *_ = Comparison("spread", trials("bc", {5: 0.95}) + known).tables()
    column = table.columns.index("score, starts learnt from")
    assert {row[0]: str(row[column]) for row in table.rows} == {"bc": "not known", "iq": "0.75"}


def test_teams_of_other_sizes_have_a_table_where_somebody_fits():
    grown = [Trial("iq", 5, 0.0, k, {"score": 0.5, "agents 4": 0.25, "agents 2": 1.0}) for k in range(2)]
    table = next(t for t in Comparison("spread", trials("bc", {5: 0.95}) + grown).tables() if "2 agents" in t.columns)
    assert table.columns == ["method", "2 agents", "4 agents"] and [str(x) for x in table.rows[0]] == [
        "iq",
        "1",
        "0.25",
    ]
    assert len(table.rows) == 1  # nothing of bc fits anywhere


def test_one_seed_is_not_called_sure():
    said = recommendation(trials("bc", {5: 0.95})[:1] + trials("iq", {5: 0.1})[:1])
    assert "none of this is sure" in said and "scores less" not in said


@pytest.mark.parametrize("power", [1.0, 2.0])
def test_growth_is_the_power_of_time(power):
    missing = [0.5 * ((k + 1) / 10) ** power for k in range(10)]
    assert growth(missing) == pytest.approx(power)


def test_growth_of_next_to_nothing_is_not_told():
    assert math.isnan(growth([0.001 * k for k in range(10)]))


def test_tables_say_who_was_refused_and_why_and_leave_out_what_there_is_not():
    found = Comparison("spread", [*trials("bc", {1: 0.2, 5: 0.95}), Trial("iq", 1, 0.0, 0, refused="only moves")])
    text = str(found)
    assert "only moves" in text and "none of these is enough" not in text
    scores, needs, *_ = found.tables()
    assert scores.columns == ["method", "1 demos", "5 demos"] and needs.rows == [["bc", 5]]
    assert "<svg" in found.report().html()
