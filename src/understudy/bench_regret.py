"""A benchmark of what imitation leaves to gain: value gap and regret gap of every method, exact, in tabular games.

The value gap is what imitation usually reports. The regret gap says how much better off one agent could be by leaving
the learned play than by leaving the expert's, and no recording of play that all obey tells of it.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from understudy import api
from understudy.evaluation.report import Cell, Report, Table
from understudy.maths.stats import over_seeds
from understudy.runs.loop import QUIET
from understudy.runs.many import side_by_side

Settings = Mapping[str, Any]

GAMES: Mapping[str, tuple[str, Settings, int]] = {  # name: env, its rules, recorded episodes
    "on_off, guarded": ("on_off", {"guarded": True}, 64),
    "chicken": ("chicken", {}, 2000),
    "slip_chain, 2 agents": ("slip_chain", {"agents": 2}, 64),
    "thicket": ("thicket", {}, 64),
    "thicket, slip 0.005": ("thicket", {"slip": 0.005}, 500),
}
_NET = {"hidden": 16, "layers": 1}
_CLONE = {"net": _NET, "batch": 256, "rate": 1e-2, "steps": 50, "limit": 400}
_ASKING = {"clone": _CLONE, "rounds": 8, "steps": 40}
_PLAYED = {
    "clone": _CLONE,
    "judge": {"hidden": 32},
    "batch": 256,
    "learner": {"envs": 32, "segment": 16, "net": _NET, "value_hidden": 32},
}
METHODS: Mapping[str, tuple[str, Settings, int | None]] = {  # name: algorithm, settings, updates
    "bc": ("bc", _CLONE, None),
    "bc, joint": ("bc", _CLONE | {"net": _NET | {"joint": True}}, None),
    "dagger": ("dagger", _ASKING, None),
    "dagger, half of the episodes deviate": ("dagger", _ASKING | {"deviations": 0.5}, None),
    "magail": ("magail", _PLAYED, 25),
    "maairl": ("maairl", _PLAYED, 25),
    "malice": ("malice", {"net": _NET, "rounds": 25}, None),
    "blades": ("blades", {"net": _NET, "rounds": 25}, None),
}


def regret(folder: Path, seeds: int, workers: int, minutes: float | None) -> Report:
    """Value gap and regret gap of every method in every game."""
    found = side_by_side(partial(_all, folder=folder, minutes=minutes), range(seeds), workers)
    rows: list[list[Cell]] = []
    for game in GAMES:
        for method in METHODS:
            each = [one[game, method] for one in found]
            gaps = [over_seeds([one[name] for one in each]) for name in ("value gap", "regret gap")]
            rows.append([game, method, *gaps, f"{each[0]['asked']:,.0f}" if each[0]["asked"] else ""])
    caption = (
        f"Exact, against swap deviations; {seeds} seeds, mean over them ± half of its 95 % interval. Value gap: the "
        "most that an agent earns less than under the expert. Regret gap: the most that an agent could gain by "
        "leaving, less the same of the expert. Asked: actions that the expert told besides its recordings."
    )
    return Report(
        "Value is easy, regret is not",
        tables=[Table(["game", "method", "value gap", "regret gap", "asked"], rows, caption)],
        provenance={"command": f"understudy bench regret --seeds {seeds}", "torch": torch.__version__},
    )


def _all(seed: int, folder: Path, minutes: float | None) -> dict[tuple[str, str], dict[str, float]]:
    return {(game, method): _one(game, method, seed, folder, minutes) for game in GAMES for method in METHODS}


def _one(game: str, method: str, seed: int, folder: Path, minutes: float | None) -> dict[str, float]:
    (title, rules, episodes), (algorithm, settings, updates) = GAMES[game], METHODS[method]
    env = api.make_env(title, **rules)
    run = api.train(
        algorithm,
        api.record(env, episodes=episodes, seed=seed),
        env,
        config=settings,
        updates=updates,
        minutes=minutes,
        seed=seed,
        folder=folder / game.replace(", ", "-") / method.replace(", ", "-") / f"seed-{seed}",
        habits=replace(QUIET, log_every=1),
    )
    found = api.regret(run, env)
    asked = float(run.metrics[-1].get("queries") or 0)
    return {name: found[name].value for name in ("value gap", "regret gap")} | {"asked": asked}
