"""One method, several seeds: runs that differ in chance alone, side by side, each in a process of one thread.

    found = train_seeds("magail", demos, env, folder="runs/walk", seeds=5, workers=2, updates=300)
    print(found)                                   # each metric's mean over seeds, with its interval

Each run is the one that `train` makes of its seed on one thread, to the last bit.
"""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from understudy import api
from understudy.core.errors import ConfigError, RunError, UnderstudyError
from understudy.core.types import Env
from understudy.demos.demos import Demos
from understudy.evaluation.diagnostics import diagnose
from understudy.maths.stats import Estimate, over_seeds
from understudy.nets.policy import AgentPolicy
from understudy.runs.log import Row
from understudy.runs.many import side_by_side


@dataclass(frozen=True)
class SeedRun:
    """What one seed came to."""

    seed: int
    folder: Path
    updates: int
    seconds: float  # of learning, over all resumptions
    stopped: str  # "updates", "minutes" or "finished"
    metrics: list[Row]

    def __str__(self) -> str:
        told = f"{self.folder}: {self.updates:,} updates, stopped by {self.stopped}"
        return "\n".join([told, *(f"    {line}" for line in diagnose(self.metrics))])


@dataclass(frozen=True)
class Seeds:
    """Runs that differ in chance alone."""

    runs: list[SeedRun]

    @property
    def policies(self) -> list[AgentPolicy]:
        return [api.load_policy(run.folder) for run in self.runs]

    @property
    def figures(self) -> dict[str, Estimate]:
        """Mean over seeds, with Student's 95 % interval, of each run's latest number of each metric that all tell."""
        latest = [_latest(run.metrics) for run in self.runs]
        names = [name for name in latest[0] if all(name in each for each in latest)]
        return {name: over_seeds([each[name] for each in latest]) for name in names}

    def __str__(self) -> str:
        width = max(map(len, self.figures), default=0)
        figures = [f"{name:<{width}}  {estimate}" for name, estimate in self.figures.items()]
        return "\n".join([*map(str, self.runs), "", *figures])


def train_seeds(
    algorithm: str | ModuleType,
    demos: Demos | None = None,
    env: Env | None = None,
    *,
    folder: Path | str,
    seeds: int | Sequence[int] = 5,
    workers: int | None = None,
    habits: api.Habits | None = None,
    **asked: Any,
) -> Seeds:
    """Learn a policy of each seed, in `folder/seed-0`, `folder/seed-1` ...; the same call resumes, with more seeds too.

    Where a run fails the others go on, and it is told at the end.

    Args:
        algorithm, demos, env: as of `train`.
        seeds: how many, from 0 on; or which.
        workers: runs at a time, each in a process; None: as many as there are cores. Demos and env are sent to the
            processes, so what lives in this one alone (a door to a simulator, an expert made on the spot) takes 1; of a
            door that is what None means.
        habits: as of `train`; each run has one thread and shows no progress.
        asked: what else `train` takes: `config`, `updates`, `minutes`, `expert`, `compile`.

    Raises:
        ConfigError: no seed, one twice, no worker, or a door with several workers.
        RunError: what became of the seeds that failed.
    """
    chosen = list(range(seeds)) if isinstance(seeds, int) else list(seeds)
    if not chosen or len(set(chosen)) < len(chosen):
        raise ConfigError(f"seeds: got {seeds}, but one or more different ones are meant.")
    if workers is None:
        workers = 1 if hasattr(env, "restart") else min(len(chosen), os.cpu_count() or 1)
    if workers < 1:
        raise ConfigError(f"workers: got {workers}, but somebody must do the work: 1 or more.")
    if workers > 1 and hasattr(env, "restart"):
        raise ConfigError(f"workers: got {workers}, but a simulator behind a door stays in this process: use 1.")
    module = api.algorithm_named(algorithm) if isinstance(algorithm, str) else algorithm
    task = partial(
        _train,
        module=module.__name__,  # a module cannot be sent
        demos=demos,
        env=env,
        folder=Path(folder),
        habits=replace(habits or api.Habits(), threads=1, show=False),
        asked=asked,
    )
    ended = side_by_side(task, chosen, workers)
    if failed := [f"seed {seed}: {end}" for seed, end in zip(chosen, ended, strict=True) if isinstance(end, str)]:
        raise RunError("\n".join([f"{len(failed)} of {len(chosen)} seeds failed; the others are done.", *failed]))
    return Seeds([end for end in ended if isinstance(end, SeedRun)])


def _train(
    seed: int,
    module: str,
    demos: Demos | None,
    env: Env | None,
    folder: Path,
    habits: api.Habits,
    asked: Mapping[str, Any],
) -> SeedRun | str:
    """One run, or why there is none."""
    where = folder / f"seed-{seed}"
    try:
        run = api.train(import_module(module), demos, env, folder=where, seed=seed, habits=habits, **asked)
    except UnderstudyError as error:
        return str(error)
    return SeedRun(seed, where, run.updates, run.seconds, run.stopped, run.metrics)


def _latest(metrics: Sequence[Row]) -> dict[str, float]:
    """The last number that each metric told."""
    found: dict[str, float] = {}
    for row in metrics:
        found |= {name: float(value) for name, value in row.items() if value is not None and math.isfinite(value)}
    return found
