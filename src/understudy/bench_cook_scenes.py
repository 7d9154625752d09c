"""Do models of whole scenes know people who cook better than clones do? `understudy bench cooks-scenes`.

The trunk of `CausalScene` stands in a policy (`nets.history`), learns what people did given all that was seen until
then, and plays: `scene` is told the past of both cooks, `history` each its own alone, as it could act by itself. Beside
them the recurrent clone of `understudy bench kitchen`. All learn from the same trials by `bc`, with its settings.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch

from understudy import api
from understudy.algorithms import bc
from understudy.cooking import HORIZON, SCORED, likeness, settings
from understudy.envs.kitchen_board import LAYOUTS
from understudy.evaluation.report import Cell, Report, Table
from understudy.maths.stats import over_seeds
from understudy.recordings import people_in_all_kitchens
from understudy.runs.loop import QUIET
from understudy.runs.many import kept, side_by_side

Body = Literal["gru", "history", "scene"]
CLONE: Body = "gru"
APART: Body = "history"
TOGETHER: Body = "scene"
EPISODES = 32  # of HORIZON steps, that each learned pair plays
FIGURES = {"nats": "nats per action", "right": "right", "drawn": "score, as drawn", "steady": "steady hand"}


def cooks_scenes(folder: Path, seeds: int, workers: int, minutes: float | None) -> Report:
    """Likelihood of unseen pairs and scores of learned ones, in every kitchen, for three kinds of memory."""
    tasks = [(body, seed) for body in (CLONE, APART, TOGETHER) for seed in range(seeds)]
    found = dict(zip(tasks, side_by_side(partial(_cook, folder=folder, minutes=minutes), tasks, workers), strict=True))
    rows: list[list[Cell]] = []
    for layout in LAYOUTS:
        each = {body: [found[body, seed][layout] for seed in range(seeds)] for body in (CLONE, APART, TOGETHER)}
        rows += [
            [layout, body, *(over_seeds([one[name] for one in mine]) for name in FIGURES)]
            for body, mine in each.items()
        ]
        for what, body, beside in (("scene less gru", TOGETHER, CLONE), ("history less scene", APART, TOGETHER)):
            pairs = list(zip(each[body], each[beside], strict=True))
            rows.append([layout, what, *(over_seeds([a[name] - b[name] for a, b in pairs]) for name in FIGURES)])
    caption = (
        f"Test pairs, {seeds} seeds; nats: lower is nearer to people. Score: points in {SCORED} steps, {EPISODES} "
        f"episodes of {HORIZON}. History less scene: what is lost when each cook knows its own past alone."
    )
    return Report(
        "People who cook, as scenes",
        tables=[Table(["kitchen", "policy", *FIGURES.values()], rows, caption)],
        provenance={"command": f"understudy bench cooks-scenes --seeds {seeds}", "torch": torch.__version__},
    )


def cloning(body: Body) -> bc.Config:
    """The clones' settings, with another body: two blocks, after an embedding."""
    config = settings(members=2)
    if body == CLONE:
        return config
    return replace(config, net=replace(config.net, body=body, hidden=64, layers=2))


def _cook(task: tuple[Body, int], folder: Path, minutes: float | None) -> dict[str, dict[str, float]]:
    body, seed = task
    where = folder / body / f"seed-{seed}"
    return kept(where / "figures.json", minutes, partial(_figures, body=body, seed=seed, minutes=minutes))


def _figures(path: Path, body: Body, seed: int, minutes: float | None) -> dict[str, Any]:
    people = people_in_all_kitchens("train", mirrored=True)
    run = api.train("bc", people, config=cloning(body), minutes=minutes, folder=path.parent, seed=seed, habits=QUIET)
    return {layout: _measured(run.policy, layout, seed) for layout in LAYOUTS}


def _measured(policy: Any, layout: str, seed: int) -> dict[str, float]:
    found = likeness(policy, layout, EPISODES, seed)[0]
    return {
        "nats": found.likelihood.value,
        "right": found.accuracy.value,
        "drawn": found.drawn.value,
        "steady": found.learned.value,
    }
