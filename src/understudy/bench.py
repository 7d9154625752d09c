"""Benchmarks that reproduce the figures of the documentation: `understudy bench NAME`.

Each keeps its runs in a folder, so that a stopped benchmark goes on where it was, and writes a report.
"""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from understudy import (
    api,
    bench_boids,
    bench_cook_scenes,
    bench_cooks,
    bench_crowds,
    bench_imitation,
    bench_methods,
    bench_regret,
    bench_scenes,
    bench_sensitivity,
)
from understudy.cooking import COLUMNS, SCORED, Likeness, likeness, settings
from understudy.core.errors import ConfigError, nearest
from understudy.core.random import generator
from understudy.envs.kitchen_board import LAYOUTS
from understudy.evaluation import metrics
from understudy.evaluation.plots import Curve
from understudy.evaluation.report import Curves, Report, Section, Table
from understudy.maths.stats import estimate, over_seeds
from understudy.recordings import people_in_all_kitchens
from understudy.rollout import play
from understudy.runs.loop import QUIET
from understudy.runs.many import side_by_side

EPISODES = 32  # that each learned pair plays in a kitchen


def kitchen(folder: Path, seeds: int, workers: int, minutes: float | None) -> Report:
    """Clones of the people who cooked: likelihood on the test pairs, and the score of learned pairs."""
    found = _side_by_side(partial(_cook, minutes=minutes), seeds, workers, folder)
    rows = []
    for layout in LAYOUTS:
        each = [one[layout] for one in found]
        row = [
            over_seeds([getattr(x, name).value for x in each])
            for name in ("likelihood", "accuracy", "drawn", "learned")
        ]
        share = over_seeds([x.share.value for x in each])
        rows.append([layout, row[0], round(each[0].chain, 3), *row[1:], each[0].people, share])
    caption = (
        f"Recorded test pairs, {seeds} seeds: mean ± half of the 95 % interval over seeds; people's score over trials. "
        f"Score: points in {SCORED} steps, {EPISODES} episodes a seed. Nats per action: lower is better; beside it a "
        "Markov chain of each cook's own actions. Pairs play with every action drawn as cloned, or with a steady hand "
        "(`understudy.cooking.Steady`); share is steady over people."
    )
    rows_by_seed = [
        [
            layout,
            str(seed),
            one[layout].likelihood,
            one[layout].accuracy,
            one[layout].drawn,
            one[layout].learned,
            one[layout].share,
        ]
        for layout in LAYOUTS
        for seed, one in enumerate(found)
    ]
    by_seed = Table(["kitchen", "seed", "nats per action", "right", "as drawn", "steady", "share"], rows_by_seed)
    return Report(
        "Imitating people who cook",
        tables=[Table(COLUMNS, rows, caption)],
        sections=[Section("each seed", "Intervals here are over trials and episodes.", tables=[by_seed])],
        provenance={"command": f"understudy bench kitchen --seeds {seeds}", "torch": torch.__version__},
    )


def _cook(seed: int, folder: Path, minutes: float | None) -> dict[str, Likeness]:
    demos, config = people_in_all_kitchens("train", mirrored=True), settings(members=2)
    where = folder / f"seed-{seed}"
    learned = api.train("bc", demos, config=config, minutes=minutes, folder=where, seed=seed, habits=QUIET)
    return {layout: likeness(learned.policy, layout, EPISODES, seed)[0] for layout in LAYOUTS}


def navigation(folder: Path, seeds: int, workers: int, minutes: float | None) -> Report:
    """PPO from its defaults on the papers' cooperative navigation, for 20 minutes where nothing else is said."""
    minutes = 20.0 if minutes is None else minutes
    found = _side_by_side(partial(_navigate, minutes=minutes), seeds, workers, folder)
    env = api.make_env("navigation")
    expert = play(env, api.expert_of(env), 2000, generator(0, "expert"))
    scripted = estimate(metrics.returns(expert)[:, 0], generator(0, "interval"))
    rows = [[f"seed {seed}", one["return"], one["steps"], one["reached"]] for seed, one in enumerate(found)]
    rows.append(["scripted expert", scripted, "", ""])
    curves = [Curve(f"seed {seed}", one["curve"][0], one["curve"][1]) for seed, one in enumerate(found)]
    caption = (
        "Return of the trained policies over 2,000 episodes, ± half of the 95 % interval over episodes; random play "
        "-380, published experts -43 after 55 million steps."
    )
    columns = ["who", "return", "million steps", "minutes until training returned -60"]
    return Report(
        "PPO on cooperative navigation",
        tables=[Table(columns, rows, caption)],
        sections=[Section("curves", curves=[Curves("return while training", curves, "minutes", "return")])],
        provenance={
            "command": f"understudy bench navigation --seeds {seeds} --minutes {minutes:g}",
            "torch": torch.__version__,
        },
    )


def _navigate(seed: int, folder: Path, minutes: float) -> dict[str, Any]:
    env = api.make_env("navigation")
    run = api.train("ppo", None, env, minutes=minutes, folder=folder / f"seed-{seed}", seed=seed, habits=QUIET)
    returns = metrics.returns(play(env, run.policy, 2000, generator(seed, "played")))[:, 0]
    clock = minutes / max(run.updates, 1)  # updates take alike long
    seen = [((row["update"] or 0) * clock, got) for row in run.metrics if (got := row.get("return")) is not None]
    reached = next((at for at, got in seen if got > -60), None)
    steps = run.updates * run.config.envs * run.config.segment / 1e6
    return {
        "return": estimate(returns, generator(seed, "interval")),
        "steps": f"{steps:.1f}",
        "reached": "never" if reached is None else f"{reached:.1f}",
        "curve": tuple(zip(*seen, strict=True)),
    }


def mairl(folder: Path, seeds: int, workers: int, minutes: float | None, *, name: str, envs: tuple[str, ...]) -> Report:
    """MA-GAIL and MA-AIRL from their defaults on the papers' tasks; for `minutes` at most, where they are given."""
    task = partial(bench_imitation.one_seed, minutes=minutes, envs=envs)
    command = f"understudy bench {name} --seeds {seeds}" + (f" --minutes {minutes:g}" if minutes else "")
    return bench_imitation.tables(_side_by_side(task, seeds, workers, folder), envs, command)


BENCHMARKS: Mapping[str, Callable[[Path, int, int, float | None], Report]] = {
    "boids": partial(bench_boids.boids, name="boids", size=bench_boids.SMALL),
    "boids-full": partial(bench_boids.boids, name="boids-full", size=bench_boids.FULL),
    "chorales": bench_scenes.chorales,
    "cooks": bench_cooks.cooks,
    "cooks-scenes": bench_cook_scenes.cooks_scenes,
    "everywhere": bench_methods.everywhere,
    "few": bench_methods.few,
    "football": bench_crowds.football,
    "kitchen": kitchen,
    "mairl-fixed": partial(mairl, name="mairl-fixed", envs=bench_imitation.FIXED),
    "mairl-table": partial(mairl, name="mairl-table", envs=bench_imitation.PUBLISHED),
    "navigation": navigation,
    "pedestrians": bench_crowds.pedestrians,
    "regret": bench_regret.regret,
    "scene-speed": bench_scenes.speed,
    "sensitivity": bench_sensitivity.sensitivity,
}


def run(
    name: str, folder: Path | str | None = None, seeds: int = 5, workers: int = 1, minutes: float | None = None
) -> Path:
    """Run one benchmark and print its tables; returns the path of the report.

    Args:
        folder: where the runs and the report are kept; None: runs/bench-NAME.
        workers: seeds that learn at the same time, each in a process of one thread.
        minutes: of learning for each seed; None: what the benchmark is meant for.
    """
    where = Path(folder or f"runs/bench-{name}")
    if name not in BENCHMARKS:
        raise ConfigError(f"unknown benchmark {name!r}.{nearest(name, BENCHMARKS)}")
    report = BENCHMARKS[name](where, seeds, workers, minutes)
    print(report.text())
    return report.save(where / "report.html")


def _side_by_side(task: Callable[..., Any], seeds: int, workers: int, folder: Path) -> list[Any]:
    """`task(seed, folder)` of every seed."""
    return side_by_side(partial(task, folder=folder), range(seeds), workers)
