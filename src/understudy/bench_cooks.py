"""Do methods that play while they learn cook better than clones do, and stay as human? `understudy bench cooks`.

All begin from one clone of the recorded pairs. Told are the learned pairs' score, how likely they find what people did
whom nobody learnt from, how far their play is from those people's, and what they serve beside a clone of them.
"""

from functools import partial
from pathlib import Path

import torch

from understudy import api
from understudy.algorithms import bc, iq, magail
from understudy.cooking import HORIZON, SCORED, score_in_400
from understudy.core.random import generator
from understudy.core.types import Policy
from understudy.envs.kitchen import Kitchen
from understudy.envs.kitchen_board import LAYOUTS
from understudy.evaluation import metrics
from understudy.evaluation.report import Cell, Report, Table
from understudy.maths.stats import over_seeds
from understudy.nets import NetConfig
from understudy.recordings import people_cooking, people_in_all_kitchens
from understudy.rollout import Team, play, score
from understudy.runs.loop import QUIET
from understudy.runs.many import kept, side_by_side

METHODS = ("bc", "magail", "iq")
EPISODES = 32  # of HORIZON steps, that each learned pair plays
MINUTES = 5.0  # of learning in each kitchen
FIGURES = {  # how each is called in the table
    "score": "score",
    "beside others": "score beside a stranger",
    "nats": "nats per action",
    "joint obs": "distance of what is seen",
    "joint actions": "distance of what is done",
}


def cooks(folder: Path, seeds: int, workers: int, minutes: float | None) -> Report:
    """Clones, and what MA-GAIL and IQ-Learn make of them, in every kitchen; `minutes` each, 5 where not said."""
    budget = MINUTES if minutes is None else minutes
    found = side_by_side(partial(_one_seed, folder=folder, minutes=budget), range(seeds), workers)
    rows: list[list[Cell]] = []
    for layout in LAYOUTS:
        for method in METHODS:
            each = [one[layout][method] for one in found]
            rows.append([layout, method, *(over_seeds([figures[name] for figures in each]) for name in FIGURES)])
        rows += _differences(layout, [one[layout] for one in found])
    caption = (
        f"{seeds} seeds, mean ± half of Student's 95 % interval; every action drawn as learnt, {EPISODES} episodes of "
        f"{HORIZON} steps, points in {SCORED}. Stranger: a clone of the test pairs, in either seat. Nats and energy "
        "distances are to the test pairs: lower is nearer to people. Less bc: the difference from the clone of the "
        "same seed."
    )
    return Report(
        "People who cook: clones, and what play adds",
        tables=[Table(["kitchen", "method", *FIGURES.values()], rows, caption)],
        provenance={
            "command": f"understudy bench cooks --seeds {seeds} --minutes {budget:g}",
            "torch": torch.__version__,
        },
    )


def _differences(layout: str, each: list[dict[str, dict[str, float]]]) -> list[list[Cell]]:
    """How far each method is from the clone that it began from."""
    return [
        [layout, f"{method} less bc", *(over_seeds([one[method][f] - one["bc"][f] for one in each]) for f in FIGURES)]
        for method in METHODS[1:]
    ]


def _one_seed(seed: int, folder: Path, minutes: float) -> dict[str, dict[str, dict[str, float]]]:
    """Every method in every kitchen: {layout: {method: figures}}."""
    clones = {}
    for split in ("train", "test"):  # the second is the stranger
        where, demos = folder / "clones" / split / f"seed-{seed}", people_in_all_kitchens(split, mirrored=True)
        clones[split] = where
        api.train("bc", demos, config=_cloning(), folder=where, seed=seed, habits=QUIET)
    return {layout: _in_kitchen(layout, seed, clones, folder / layout, minutes) for layout in LAYOUTS}


def _in_kitchen(
    layout: str, seed: int, clones: dict[str, Path], folder: Path, minutes: float
) -> dict[str, dict[str, float]]:
    """Figures of the clone and of what each method makes of it; those found before are read."""
    kitchen, begins = Kitchen(layout, horizon=HORIZON), str(clones["train"])
    people, stranger = people_cooking(kitchen, "train"), api.load_policy(clones["test"])
    configs = {"magail": magail.Config(start=begins), "iq": iq.Config(sampling="online", start=begins)}

    def figures(method: str, path: Path) -> dict[str, float]:
        if method not in configs:
            return _figures(api.load_policy(begins), stranger, kitchen, seed)
        run = api.train(
            method, people, kitchen,
            config=configs[method], minutes=minutes, folder=path.parent, seed=seed, habits=QUIET,
        )  # fmt: skip
        return _figures(run.policy, stranger, kitchen, seed)

    return {
        method: kept(folder / method / f"seed-{seed}" / "figures.json", minutes, partial(figures, method))
        for method in METHODS
    }


def _cloning() -> bc.Config:
    """Without a memory: such a clone plays better, and can be asked about any step by itself."""
    net = NetConfig(hidden=128, activation="relu", dropout=0.5)
    return bc.Config(net=net, held_out=0.12, weight_decay=1.0)


def _figures(policy: Policy, stranger: Policy, kitchen: Kitchen, seed: int) -> dict[str, float]:
    people, chance = people_cooking(kitchen, "test"), generator(seed, "cooks", kitchen.layout)
    played, found = play(kitchen, policy, EPISODES, chance), score(policy, people)
    pairs = [Team((policy, stranger), seats) for seats in ((0, 1), (1, 0))]
    beside = torch.cat([score_in_400(play(kitchen, pair, EPISODES // 2, chance)) for pair in pairs])
    apart = metrics.compare(kitchen.spec, played, people.padded(), chance)
    return {
        "score": float(score_in_400(played).mean()),
        "beside others": float(beside.mean()),
        "nats": float(metrics.mean_of_steps(-found.log_prob, found.counts, chance).value),
        "joint obs": apart["energy/joint obs"].value,
        "joint actions": apart["energy/joint actions"].value,
    }
