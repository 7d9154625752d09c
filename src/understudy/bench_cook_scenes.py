"""Do models of whole scenes know people who cook better than clones do? `understudy bench cooks-scenes`.

`history` and `scene` (`nets.bodies.Remembered`) learn what people did given all that was seen until then, and play:
`scene` is told the past of both cooks, `history` each its own alone, as it could act by itself. Beside them the
recurrent clone of `understudy bench kitchen`. All learn from the same trials by `bc`.
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
        for what, body, beside in (("history less gru", APART, CLONE), ("scene less gru", TOGETHER, CLONE)):
            pairs = list(zip(each[body], each[beside], strict=True))
            rows.append([layout, what, *(over_seeds([a[name] - b[name] for a, b in pairs]) for name in FIGURES)])
    caption = (
        f"Test pairs, {seeds} seeds; nats: lower is nearer to people. Score: points in {SCORED} steps, {EPISODES} "
        f"episodes of {HORIZON}. History: each cook knows its own past alone."
    )
    return Report(
        "People who cook, as scenes",
        tables=[Table(["kitchen", "policy", *FIGURES.values()], rows, caption)],
        provenance={"command": f"understudy bench cooks-scenes --seeds {seeds}", "torch": torch.__version__},
    )


def cloning(body: Body) -> bc.Config:
    """How each is cloned: as people are by `bench kitchen`; the others held back in more places, and for a fixed time.

    Dropout and the number of steps, twelve passes, were chosen by pairs of the train trials that were held out.
    """
    config = settings(members=2)
    if body == CLONE:
        return config
    net = replace(config.net, body=body, inner_dropout=0.3, input_dropout=0.1)
    return replace(config, net=net, rate=3e-3, decay=True, limit=560, held_out=0.0)


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
