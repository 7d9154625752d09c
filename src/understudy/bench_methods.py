"""Benchmarks of all methods that learn from demonstrations, from their defaults, on the library's own envs."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from understudy import api
from understudy.comparing import Plan, compare
from understudy.envs.kitchen_board import LAYOUTS
from understudy.evaluation.compared import ENOUGH, Comparison, cells, mean_of, recommendation
from understudy.evaluation.report import Cell, Report, Section, Table
from understudy.maths.stats import Estimate

METHODS = ("bc", "dagger", "magail", "maairl", "iq", "sqil", "gmmil", "pwil")
EVERYWHERE = ("bc", "magail", "maairl", "iq")  # a road each
FEW = ("spread", "tag", "speaker_listener")
KITCHENS = tuple(f"kitchen:{layout}" for layout in LAYOUTS)
MINUTES = 3.0  # of each run that never stops by itself


def everywhere(folder: Path, seeds: int, workers: int, minutes: float | None) -> Report:
    """Cloning, MA-GAIL, MA-AIRL and IQ-Learn from their defaults, in every env that has a scripted expert."""
    names = [name for name in api.ENVS if name != "kitchen"] + list(KITCHENS)
    found = {name: _compared(name, EVERYWHERE, (50,), folder, seeds, workers, minutes) for name in names}
    rows: list[list[Cell]] = []
    for name, comparison in found.items():
        by_method = {method: cell for (method, _, _), cell in cells(comparison.trials).items()}
        row: list[Cell] = [name]
        for method in EVERYWHERE:
            score = mean_of(by_method[method], "score") if method in by_method else None
            row.append("refused" if method not in by_method else "no scale" if score is None else score)
        rows.append(row)
    enough: list[Cell] = [f"envs with {ENOUGH} or more"]
    for column in range(1, len(EVERYWHERE) + 1):
        scores = [row[column] for row in rows if not isinstance(row[column], str)]
        enough.append(f"{sum(score.value >= ENOUGH for score in scores)} of {len(scores)}")  # type: ignore[union-attr]
    caption = (
        f"Score from 50 demonstrations, {seeds} seeds: 0 is random play, 1 the demonstrators; mean over seeds ± half "
        "of its 95 % interval. No scale: demonstrators earn what random play earns. Both adversarial methods learn for "
        f"{MINUTES if minutes is None else minutes:g} minutes on one thread."
    )
    table = Table(["env", *EVERYWHERE], [*rows, enough], caption)
    return _report("From defaults, everywhere", _command("everywhere", seeds, minutes), table, found)


def few(folder: Path, seeds: int, workers: int, minutes: float | None) -> Report:
    """Every method from 1, 5 and 20 demonstrations of three games; those that ask an expert stand by themselves."""
    found = {name: _compared(name, METHODS, (1, 5, 20), folder, seeds, workers, minutes) for name in FEW}
    best: list[list[Cell]] = []
    rows: list[list[Cell]] = []
    for name, comparison in found.items():
        scores = {key: mean_of(cell, "score") for key, cell in cells(comparison.trials).items()}
        for demos in dict.fromkeys(key[2] for key in scores):
            here = {method: score for (method, _, count), score in scores.items() if count == demos and score}
            quiet = {method: score for method, score in here.items() if not api.asks(method)}
            asking = {method: score for method, score in here.items() if api.asks(method)}
            best.append([name, demos, here.get("bc", ""), _best(quiet), _best(asking)])
            rows += [[name, demos, m, "an expert" if m in asking else "nobody", score] for m, score in here.items()]
    asked = api.make_config(api.algorithm_named("dagger"))
    caption = (
        f"Score, {seeds} seeds: 0 is random play, 1 the demonstrators; mean over seeds ± half of its 95 % interval. "
        f"Dagger is told what to do in {asked.rounds * asked.envs} episodes of its own play, beside the demonstrations."
    )
    columns = ["env", "demonstrations", "bc", "best that asks nobody", "best that asks an expert"]
    report = _report("Few demonstrations", _command("few", seeds, minutes), Table(columns, best, caption), found)
    every = Table(["env", "demonstrations", "method", "asks", "score"], rows, "All methods.")
    return replace(report, tables=[*report.tables, every])


def _best(scores: Mapping[str, Estimate]) -> str:
    """The best method and its score."""
    if not scores:
        return ""
    method = max(scores, key=lambda m: scores[m].value)
    return f"{method} {scores[method]}"


def _compared(
    name: str,
    methods: tuple[str, ...],
    counts: Sequence[int],
    folder: Path,
    seeds: int,
    workers: int,
    minutes: float | None,
) -> Comparison:
    plan = Plan(methods, tuple(counts), seeds=seeds, minutes=MINUTES if minutes is None else minutes, episodes=100)
    return compare(api.make_env(name), None, plan, folder / name.replace(":", "-"), workers=workers)


def _command(name: str, seeds: int, minutes: float | None) -> str:
    return f"understudy bench {name} --seeds {seeds}" + ("" if minutes is None else f" --minutes {minutes:g}")


def _report(title: str, command: str, table: Table, found: Mapping[str, Comparison]) -> Report:
    sections = [Section(env, recommendation(each.trials), tables=each.tables()) for env, each in found.items()]
    provenance: dict[str, Any] = {"command": command, "torch": torch.__version__}
    return Report(title, tables=[table], sections=sections, provenance=provenance)
