"""The first success: imitate people cooking together, let the learned cooks play, and write a report to open."""

import time
from collections.abc import Sequence
from pathlib import Path

import torch

from understudy import api
from understudy.cooking import COLUMNS, HORIZON, SCORED, Likeness, likeness, settings
from understudy.core.types import Segment
from understudy.demos.demos import Demos
from understudy.envs.kitchen import Kitchen
from understudy.envs.kitchen_board import LAYOUTS
from understudy.evaluation.plots import Curve
from understudy.evaluation.report import Animation, Cell, Curves, Intervals, Report, Section, Table
from understudy.evaluation.video import scenes_of
from understudy.recordings import people_in_all_kitchens
from understudy.rollout import first_steps

EPISODES = 16  # that learned pairs play in each kitchen
UPDATES = 40  # of 20 gradient steps: a minute or two on two cores
HABITS = api.Habits(log_every=2)
INTRO = """\
Pairs of people cooked together for three minutes at a time: 39 recordings in five kitchens to learn from, and 37 of \
other people that were put aside. One recurrent policy learnt from the first what a cook does next, given what it \
perceives and what came before (behavioural cloning; no reward was used). Here it is measured on the recordings put \
aside, people it has never seen, and plays both cooks itself, beside them.

A clone is never quite sure, so drawing its every small chance makes cooks dither. Understudies with a steady hand \
draw when to act as cloned and mostly do what is likeliest then; the moving pictures show these."""


def run(
    folder: Path | str = "runs/quickstart",
    seed: int = 0,
    updates: int = UPDATES,
    layouts: Sequence[str] = tuple(LAYOUTS),
    episodes: int = EPISODES,
    horizon: int = HORIZON,
) -> Path:
    """Learn, play, measure; returns the path of the report. The same call resumes a run that was stopped.

    Args:
        updates: of 20 gradient steps each.
        layouts: kitchens to measure in; it learns from all five.
        episodes, horizon: how often learned pairs play in each, and how many steps.
    """
    folder, began = Path(folder), time.perf_counter()
    demos = people_in_all_kitchens("train", mirrored=True)
    print(f"{len(demos) // 4} recorded pairs, {demos.steps // 4:,} steps of two cooks, and their mirror images")
    learned = api.train(
        "bc", demos, config=settings(), folder=folder / "cooks", seed=seed, updates=updates, habits=HABITS
    )
    found, sections = {}, []
    for layout in layouts:
        found[layout], played, people = likeness(learned.policy, layout, episodes, seed, horizon)
        print(f"{layout:24}{_line(found[layout])}")
        sections.append(_section(layout, found[layout], played, people))
    report = Report(
        title="People cooking together, and their understudies",
        intro=INTRO,
        tables=[_summary(found)],
        sections=[*sections, _learning(learned)],
        provenance={
            "policy": str(folder / "cooks"),
            "recordings": demos.about.source,
            "licence of the recordings": demos.about.licence,
            "seed": seed,
            "updates": learned.updates,
            "seconds": round(time.perf_counter() - began),
            "torch": torch.__version__,
        },
    )
    return report.save(folder / "report.html")


def _line(one: Likeness) -> str:
    return (
        f"{one.likelihood.value:.3f} nats per action (own last action alone {one.chain:.3f}), "
        f"score {one.learned.value:.0f} beside people's {one.people.value:.0f}"
    )


def _summary(found: dict[str, Likeness]) -> Table:
    rows: list[list[Cell]] = [
        [layout, x.likelihood, round(x.chain, 3), x.accuracy, x.drawn, x.learned, x.people, x.share]
        for layout, x in found.items()
    ]
    caption = (
        "On pairs of people never seen. Nats per action: mean -log of the probability that the policy gave to what "
        "each cook did next, lower is better; beside it a Markov chain of the cook's own actions. Right: the likeliest "
        f"action was the one taken. Score: points in {SCORED} steps (one minute), 5 for a soup, of learned "
        "pairs whose every action is drawn as cloned, of learned pairs with a steady hand, and of the people; "
        "share is steady over people. Value ± half of the 95 % interval over trials and episodes."
    )
    return Table(COLUMNS, rows, caption)


def _section(layout: str, one: Likeness, played: Segment, people: Demos) -> Section:
    draw = Kitchen(layout, horizon=HORIZON).draw
    best = int(people.returns()[:, 0].sort().indices[len(people) // 2])  # the median pair
    typical = int(played.rewards.sum(dim=(1, 2)).sort().indices[len(played.obs) // 2])  # type: ignore[union-attr]
    sides = [("people", people.padded([best]), 0), ("understudies", played, typical)]
    shown = [(name, scenes_of(draw, first_steps(segment, SCORED), k)) for name, segment, k in sides]
    return Section(
        title=layout.replace("_", " "),
        text=f"A minute of the median recorded pair, and of the median pair of understudies. {_line(one)}.",
        animations=[Animation("people beside their understudies", shown, dt=0.15)],
        intervals=[
            Intervals(f"points in {SCORED} steps", [("understudies", one.learned), ("people", one.people)], "points")
        ],
    )


def _learning(learned: api.Run) -> Section:
    lines = []
    for name, label in (("loss", "people learnt from"), ("held_out", "people held out")):
        rows = [(row["update"] or 0, value) for row in learned.metrics if (value := row.get(name)) is not None]
        lines.append(Curve(label, [x for x, _ in rows], [y for _, y in rows]))
    text = "How surprised the policy was by what people did, while it learnt. It keeps the weights of the lowest point."
    return Section("learning", text, curves=[Curves("nats per action", lines, "update", "nats")])
