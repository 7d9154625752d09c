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


def test_a_recommendation_is_for_the_cleanest_demonstrations():
    found = trials("bc", {5: 0.95}) + trials("bc", {5: 0.1}, noise=0.5) + trials("iq", {5: 0.2})
    assert recommendation(found).startswith("Take `bc`")


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
