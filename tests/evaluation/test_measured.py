"""What was measured is said rightly, for one run and for several, and what is missing is left out."""

import dataclasses

import torch

from tests.evaluation.scenes import HOSTILE, room
from understudy.core.types import Segment, View
from understudy.evaluation.measured import SHOWN, Evaluation, report_of, text_of
from understudy.maths.stats import Estimate


def figure(value: float) -> Estimate:
    return Estimate(value, value - 0.5, value + 0.5, 9)


def measured(value: float = 3.0, p: float = 0.3, group: str = "", **more) -> Evaluation:
    figures = {
        "return/team": figure(value),
        "demonstrated return/team": figure(5.0),
        "random return/team": figure(1.0),
        "energy/actions": figure(0.1),
        "mmd2/actions": figure(0.01),
        "p/actions": Estimate(p, p, p, 9),
        "likelihood": figure(-value),
    }
    return Evaluation(figures, "meadow", group=group, **more)


def test_each_side_stands_in_its_own_column_and_a_difference_is_told_in_words():
    lines = str(measured()).splitlines()
    assert lines[0].split() == ["learned", "demonstrators", "random"]
    assert lines[1].split() == ["return/team", "3.00", "±", "0.50", "5.00", "±", "0.50", "1.00", "±", "0.50"]
    assert "no difference found" in str(measured(p=0.05)) and "differs" in str(measured(p=0.049))


def test_runs_of_one_group_have_an_interquartile_mean():
    runs = {f"run{k}": measured(float(value), group="a") for k, value in enumerate([0, 1, 2, 9])}
    told = text_of(runs | {"other": measured(7.0, group="b")})
    line = next(line for line in told.splitlines() if line.startswith("run0, run1, run2, run3") and "return" in line)
    assert "1.5" in line and "other" not in line, "a quarter of the runs is cut off at either end: (1 + 2) / 2"
    assert "interquartile" not in text_of({"run0": runs["run0"], "other": measured(group="b")})


def test_a_note_names_whom_it_is_about():
    noted = measured(notes=("beware",))
    assert text_of({"a": noted, "b": measured()}).endswith("a: beware")
    assert text_of({"a": noted, "b": noted}).endswith("\n\nbeware")


def test_the_page_has_what_there_is_and_leaves_out_what_is_not():
    titles = [section.title for section in report_of({"learned": measured()}).sections]
    assert titles == ["returns", "likeness"]
    rows = [{"update": k, "loss": 1.0 / k, "held_out": 2.0 / k, "passes": None} for k in (1, 2, 3)]
    steps = SHOWN + 9
    whole = torch.arange(steps, dtype=torch.float32).reshape(1, steps, 1)
    episode = Segment(View(torch.zeros(1, steps, 2, 1), whole=whole), torch.zeros(1, steps, 2, dtype=torch.long))
    sides = {"demonstrators": episode, "learned": episode}
    one = measured(metrics=rows, shown=sides, draw=lambda moment: room(int(moment), HOSTILE), provenance={"seed": 3})
    other = dataclasses.replace(one, provenance={"seed": 3, "run": "b"})
    report = report_of({HOSTILE: one, "b": other})
    moving, _, _, learning = report.sections
    assert [name for name, _ in moving.animations[0].players] == ["demonstrators", HOSTILE, "b"]
    assert all(len(scenes) == SHOWN for _, scenes in moving.animations[0].players)
    assert [plot.title for plot in learning.curves] == ["loss", "held_out"], (
        "a line for each run, nothing for no values"
    )
    assert report.provenance == {"seed": 3, "b": {"run": "b"}}
    assert "<img" not in report.html()
    alone = one.report().sections[-1].curves
    assert [[line.name for line in plot.lines] for plot in alone] == [["loss", "held_out"]]
