"""What becomes of the methods where their settings are other than the defaults: `understudy bench sensitivity`.

One setting at a time is a third or three times, a half or twice what it was; told is the score of every run, and how
many of each method's still reach 0.9. A method that works by the luck of its settings shows here.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from understudy import api
from understudy.core.random import generator
from understudy.evaluation import metrics
from understudy.evaluation.report import Cell, Report, Table
from understudy.maths.stats import over_seeds
from understudy.rollout import Uniform, play
from understudy.runs.loop import QUIET
from understudy.runs.many import kept, side_by_side

ENVS = ("navigation", "communication", "spread")
DEMONSTRATIONS, EPISODES, ENOUGH = 50, 100, 0.9
UPDATES = 150  # of methods that never stop by themselves: a number that hangs on no machine
ADVERSARIAL = {
    "learning rates": ("judge_rate", "learner.rate", "learner.target_kl"),
    "widths": ("judge.hidden", "learner.net.hidden", "learner.value_hidden"),
    "discriminator's steps": ("judge_steps",),
}
TURNED: Mapping[str, Mapping[str, tuple[str, ...]]] = {  # method -> what is turned -> the fields of its Config
    "magail": ADVERSARIAL,
    "maairl": ADVERSARIAL,
    "iq": {"learning rates": ("rate",), "widths": ("net.hidden",), "steps for each step of play": ("steps",)},
}
FACTORS = {"learning rates": (1 / 3, 3.0)}  # of the others: a half, and twice


def sensitivity(folder: Path, seeds: int, workers: int, minutes: float | None) -> Report:
    """MA-GAIL, MA-AIRL and IQ-Learn with one setting at a time other than its default; for `minutes` at most."""
    asked = [(env, method, *turn) for env in ENVS for method in TURNED for turn in turns(method)]
    runs = [(seed, *each) for seed in range(seeds) for each in asked]
    scores = side_by_side(partial(_score, folder=folder, minutes=minutes), runs, workers)
    found = dict(zip(runs, scores, strict=True))
    rows: list[list[Cell]] = []
    for method in TURNED:
        for turn in turns(method):
            each = [[found[seed, env, method, *turn] for seed in range(seeds)] for env in ENVS]
            rows.append(
                [
                    method,
                    said(*turn),
                    *(over_seeds(scores) for scores in each),
                    _share([score for scores in each for score in scores]),
                ]
            )
    whole: list[list[Cell]] = []
    for method in TURNED:
        mine = [score for run, score in found.items() if run[2] == method]
        whole.append([method, len(mine), _share(mine)])
    caption = (
        f"Score from the same {DEMONSTRATIONS} demonstrations, of MA-GAIL and MA-AIRL after {UPDATES} updates: 0 is "
        f"random play, 1 the expert, from the same starts; mean over {seeds} seeds ± half of the 95 % interval."
    )
    return Report(
        "One setting other than the default",
        tables=[
            Table(["method", "runs", f"share at {ENOUGH} and above"], whole),
            Table(["method", "setting", *ENVS, f"share at {ENOUGH} and above"], rows, caption),
        ],
        provenance={
            "command": f"understudy bench sensitivity --seeds {seeds}" + (f" --minutes {minutes:g}" if minutes else ""),
            "torch": torch.__version__,
        },
    )


def turns(method: str) -> list[tuple[str, float]]:
    """What is turned, and by which factor; first nothing."""
    return [("", 1.0), *((what, factor) for what in TURNED[method] for factor in FACTORS.get(what, (0.5, 2.0)))]


def said(what: str, factor: float) -> str:
    if not what:
        return "defaults"
    return f"{what} x {factor:g}" if factor > 1 else f"{what} / {1 / factor:g}"


def turned(config: Any, name: str, factor: float) -> Any:
    """The config with the field `name` (with dots into what it holds) times `factor`; whole numbers stay whole."""
    first, _, rest = name.partition(".")
    value = getattr(config, first)
    if rest:
        return replace(config, **{first: turned(value, rest, factor)})
    return replace(config, **{first: max(1, round(value * factor)) if isinstance(value, int) else value * factor})


def _share(scores: list[float]) -> float:
    return sum(score >= ENOUGH for score in scores) / len(scores)


def _score(run: tuple[int, str, str, str, float], folder: Path, minutes: float | None) -> float:
    """Learn and play, or read what was found before."""
    seed, env, method, what, factor = run
    path = folder / env / method / said(what, factor).replace("/", "over") / f"seed-{seed}" / "figures.json"
    return kept(path, [UPDATES, minutes], partial(_learn, run=run, minutes=minutes))["score"]


def _learn(path: Path, *, run: tuple[int, str, str, str, float], minutes: float | None) -> dict[str, float]:
    seed, name, method, what, factor = run
    env, config = api.make_env(name), api.algorithm_named(method).Config()
    for field in TURNED[method].get(what, ()):
        config = turned(config, field, factor)
    demos = api.record(env, episodes=DEMONSTRATIONS)
    updates = None if hasattr(api.algorithm_named(method), "finished") else UPDATES
    learned = api.train(
        method, demos, env,
        config=config, updates=updates, minutes=minutes, folder=path.parent, seed=seed, habits=QUIET,
    )  # fmt: skip
    sides = (learned.policy, api.expert_of(env), Uniform(env.spec))
    means = [metrics.returns(play(env, who, EPISODES, generator(seed, "played"))).double().mean(0) for who in sides]
    ours, expert, random = means
    return {"score": float(((ours - random) / (expert - random)).mean())}
