"""Methods side by side: what each earned from how many demonstrations, as tables, curves and a recommendation.

A `Trial` is one training measured. Trials that differ in their seed alone are one cell of the tables: the mean over
seeds with Student's 95 % interval. What is recommended follows from the figures by the rule of `recommendation`.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

from understudy.evaluation.measured import aligned
from understudy.evaluation.plots import Curve
from understudy.evaluation.report import Cell, Curves, Report, Section, Table
from understudy.maths.stats import Estimate, holm, over_seeds, t_test

ENOUGH = 0.9  # of the way from random play to the demonstrators: what "it works" means here


@dataclass(frozen=True)
class Trial:
    """One method trained once, and its figures. `refused` says why there are none."""

    method: str
    demos: int  # episodes that it learnt from
    noise: float  # share of the recorded actions that were replaced by random ones
    seed: int
    figures: Mapping[str, float] = field(default_factory=dict)
    missing: Sequence[float] = ()  # return that it lacks by each tenth of the horizon; 1: all between random and demos
    refused: str = ""


@dataclass(frozen=True)
class Comparison:
    """All trials. `print` shows the tables, `report()` makes a page."""

    env: str
    trials: Sequence[Trial]
    cross_play: Mapping[str, Estimate] = field(default_factory=dict)  # by method: score with strangers
    notes: Sequence[str] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def __str__(self) -> str:
        blocks = [
            "\n".join([_first_clause(t.caption), aligned([t.columns, *([_said(c) for c in row] for row in t.rows)])])
            for t in self.tables()
        ]
        return "\n\n".join([*blocks, *self.notes, recommendation(self.trials)])

    def tables(self) -> list[Table]:
        made = [
            _scores(self.trials),
            _needs(self.trials),
            _generalises(self),
            _sizes(self.trials),
            _cost(self.trials),
            _refusals(self.trials),
        ]
        return [table for table in made if table.rows]

    def report(self, title: str = "") -> Report:
        """A page of it; `.save(path)` writes it."""
        curves = [*_score_curves(self.trials), *_horizon_curves(self.trials)]
        return Report(
            title=title or f"{self.env}: {', '.join(_methods(self.trials))}",
            intro="\n\n".join([recommendation(self.trials), *self.notes]),
            tables=self.tables(),
            sections=[Section("curves", CURVES, curves=curves)] if curves else [],
            provenance=self.provenance,
        )


CURVES = """\
Left to right, more demonstrations, or more of the episode. Bands are 95 % intervals over seeds. The return that is \
missing by some time of the episode grows as a straight line where each step loses alike, and ever faster where early \
errors lead to where nobody demonstrated anything (compounding error)."""


# --- what follows from the figures -------------------------------------------------------------------------------


def mean_of(trials: Sequence[Trial], figure: str) -> Estimate | None:
    """The mean of a figure over trials that differ in their seed; None where no trial has it."""
    values = [t.figures[figure] for t in trials if math.isfinite(t.figures.get(figure, math.nan))]
    return over_seeds(values) if values else None


def cells(trials: Sequence[Trial]) -> dict[tuple[str, float, int], list[Trial]]:
    """(method, noise, demos) -> its trials, seeds in order; refused ones left out."""
    found: dict[tuple[str, float, int], list[Trial]] = {}
    for trial in sorted(trials, key=lambda t: (t.noise, t.demos, t.seed)):
        if not trial.refused:
            found.setdefault((trial.method, trial.noise, trial.demos), []).append(trial)
    return found


def needed(trials: Sequence[Trial], method: str, noise: float) -> int | None:
    """The fewest demonstrations from which on the mean score stays at `ENOUGH` or above; None: never."""
    fewest = None
    for (name, share, demos), cell in reversed(cells(trials).items()):
        if name == method and share == noise:
            score = mean_of(cell, "score")
            if score is None or score.value < ENOUGH:
                break
            fewest = demos
    return fewest


def recommendation(trials: Sequence[Trial]) -> str:
    """Which method to take, and the figures that say so, for each noise by itself.

    Of the methods whose score on all demonstrations cannot be told from the best one's by their seeds (Welch's test of
    each pair, all pairs of one noise corrected together after Holm, 5 %) the one that needs the fewest demonstrations;
    of those alike in that, the one that is done first.
    """
    levels = _noises(trials)
    if len(levels) < 2:
        return _recommended(trials, "")
    return "\n\n".join(
        _recommended(
            [t for t in trials if t.noise == noise], f"With {noise:.0%} noise: " if noise else "Without noise: "
        )
        for noise in levels
    )


def _recommended(trials: Sequence[Trial], when: str) -> str:
    """For trials of one noise."""
    most = max((t.demos for t in trials if not t.refused), default=0)
    found = {m: c for (m, _, demos), c in cells(trials).items() if demos == most}
    scores = {m: score for m, c in found.items() if (score := mean_of(c, "score")) is not None}
    if not scores:
        return (
            f"{when}Nothing can be recommended: no method has a score here. Returns between random play and the "
            "demonstrators are needed: hand in an env that pays, and demonstrators who earn more than chance."
        )
    best = max(scores, key=lambda m: scores[m].value)
    apart = told_apart({m: found[m] for m in scores})
    told = [m for m in scores if frozenset((m, best)) in apart]
    alike = [m for m in scores if m not in told]

    def order(method: str) -> tuple[float, float]:
        fewest = needed(trials, method, trials[0].noise)
        minutes = mean_of(found[method], "minutes")
        return (math.inf if fewest is None else float(fewest), math.inf if minutes is None else minutes.value)

    chosen = min(alike, key=order)
    fewest, minutes = order(chosen)
    words = [
        f"{when}Take `{chosen}`: from {most} demonstration{'s' * (most > 1)} it scores {scores[chosen]} "
        "(0 random play, 1 the demonstrators)."
    ]
    if scores[chosen].value < ENOUGH:
        words.append(f"That is below {ENOUGH}: record more demonstrations, or give the methods more time.")
    else:
        words.append(f"{fewest:g} of the counts tried is the fewest that keeps it at {ENOUGH} or above.")
    if others := [m for m in alike if m != chosen]:
        one, enough = len(others) == 1, scores[chosen].value >= ENOUGH
        why = f"{'needs' if one else 'need'} more demonstrations or more time" if enough else f"take{'s' * one} longer"
        words.append(
            f"{_listed(others)} cannot be told from it by these seeds ({_with_scores(others, scores)}), but "
            f"{'it' if one else 'they'} {why}."
        )
    if told:
        words.append(f"{_listed(told)} {'scores' if len(told) == 1 else 'score'} less ({_with_scores(told, scores)}).")
    if len(found[chosen]) < 3:
        words.append("With fewer than three seeds a difference is hardly ever told, so none of this is sure.")
    if math.isfinite(minutes):
        words.append(f"It took {minutes:.1f} minutes a seed.")
    return " ".join(words)


def told_apart(cell: Mapping[str, Sequence[Trial]]) -> set[frozenset[str]]:
    """Pairs of methods whose scores differ by more than their seeds do, with 5 % chance of any that do not."""
    values = {
        m: [t.figures["score"] for t in c if math.isfinite(t.figures.get("score", math.nan))] for m, c in cell.items()
    }
    pairs = {frozenset(pair): t_test(*(values[m] for m in pair)) for pair in combinations(values, 2)}
    return {pair for pair, p in holm(pairs).items() if p < 0.05}


def _methods(trials: Sequence[Trial]) -> list[str]:
    return list(dict.fromkeys(t.method for t in trials))


def _listed(names: Sequence[str]) -> str:
    quoted = [f"`{name}`" for name in names]
    return quoted[0] if len(quoted) == 1 else f"{', '.join(quoted[:-1])} and {quoted[-1]}"


def _with_scores(names: Sequence[str], scores: Mapping[str, Estimate]) -> str:
    return ", ".join(f"{name} {scores[name]}" for name in names)


# --- tables --------------------------------------------------------------------------------------------------------


def _first_clause(caption: str) -> str:
    return re.split(r"[:.](?:\s|$)", caption)[0]


def _said(cell: Cell) -> str:
    return f"{cell:,}" if isinstance(cell, int) else str(cell)


def _noises(trials: Sequence[Trial]) -> list[float]:
    return sorted({t.noise for t in trials})


def _row_name(method: str, noise: float, trials: Sequence[Trial]) -> list[Cell]:
    return [method] if len(_noises(trials)) == 1 else [method, f"{noise:.0%}"]


def _head(trials: Sequence[Trial]) -> list[str]:
    return ["method"] if len(_noises(trials)) == 1 else ["method", "noise"]


def _by_count(trials: Sequence[Trial], value: Callable[[list[Trial]], Estimate | None], caption: str) -> Table:
    """A row for each method and noise, a column for each number of demonstrations."""
    counts, found = sorted({t.demos for t in trials}), cells(trials)
    rows: list[list[Cell]] = []
    for noise in _noises(trials):
        for method in _methods(trials):
            each = [value(found[key]) if (key := (method, noise, n)) in found else None for n in counts]
            if any(each):
                rows.append([*_row_name(method, noise, trials), *("" if e is None else e for e in each)])
    return Table([*_head(trials), *(f"{n} demos" for n in counts)], rows, caption)


def _scores(trials: Sequence[Trial]) -> Table:
    return _by_count(
        trials,
        lambda cell: mean_of(cell, "score"),
        "Score: return in fresh episodes, 0 is random play and 1 the demonstrators; mean over seeds ± half of its 95 % "
        "interval (Student's). In games of several teams each team plays against experts; the score is their mean.",
    )


def _needs(trials: Sequence[Trial]) -> Table:
    rows: list[list[Cell]] = []
    for noise in _noises(trials):
        for method in _methods(trials):
            if any(key[:2] == (method, noise) for key in cells(trials)):
                fewest = needed(trials, method, noise)
                rows.append(
                    [*_row_name(method, noise, trials), "none of these is enough" if fewest is None else fewest]
                )
    caption = f"The fewest demonstrations from which on the mean score stays at {ENOUGH} or above."
    return Table([*_head(trials), "demonstrations needed"], rows, caption)


def _generalises(comparison: Comparison) -> Table:
    """From most demonstrations: starts never seen, partners never met, and errors that add up."""
    trials = comparison.trials
    most = max((t.demos for t in trials if not t.refused), default=0)
    columns = {
        "score, starts learnt from": "score seen",
        "nats, learnt from": "seen",
        "nats, never seen": "held out",
        "one learner among experts": "among experts",
        "growth of error": "growth",
    }
    rows: list[list[Cell]] = []
    for (method, noise, demos), cell in cells(trials).items():
        if demos == most:
            figures: list[Cell] = [
                found if (found := mean_of(cell, name)) is not None else "" for name in columns.values()
            ]
            if not figures[0] and mean_of(cell, "score") is not None:
                figures[0] = "not known"
            rows.append([*_row_name(method, noise, trials), *figures, comparison.cross_play.get(method, "")])
    if not any(cell != "" for row in rows for cell in row[len(_head(trials)) :]):
        rows = []
    caption = (
        f"From {most} demonstrations. Score, starts learnt from: in episodes that begin where those demonstrations "
        "began, 1 is what the demonstrators earned from there; the score above is of fresh starts. Nats: "
        "log-probability of a demonstrated choice, in the episodes learnt from and "
        "in others. One learner among experts: score with every other seat an expert's. Growth of error: the power of "
        "time with which the missing return grows; 1 is steady, 2 compounds. With strangers: score with one seat taken "
        "by a learner of another seed (least noise)."
    )
    return Table([*_head(trials), *columns, "with strangers"], rows, caption)


def _sizes(trials: Sequence[Trial]) -> Table:
    """From most demonstrations: the same weights in teams of other sizes."""
    most = max((t.demos for t in trials if not t.refused), default=0)
    sizes = sorted({int(name.split()[1]) for t in trials for name in t.figures if name.startswith("agents ")})
    rows: list[list[Cell]] = []
    for (method, noise, demos), cell in cells(trials).items():
        found = [mean_of(cell, f"agents {n}") for n in sizes]
        if demos == most and any(found):
            rows.append([*_row_name(method, noise, trials), *("does not fit" if e is None else e for e in found)])
    caption = (
        f"Score of the same policy in teams of other sizes, from {most} demonstrations; 1: the env's expert there."
    )
    return Table([*_head(trials), *(f"{n} agents" for n in sizes)], rows, caption)


def _cost(trials: Sequence[Trial]) -> Table:
    return _by_count(trials, lambda cell: mean_of(cell, "minutes"), "Minutes of learning, mean over seeds.")


def _refusals(trials: Sequence[Trial]) -> Table:
    refused: dict[tuple[str, str], int] = {}
    for trial in trials:
        if trial.refused:
            refused[trial.method, trial.refused] = refused.get((trial.method, trial.refused), 0) + 1
    rows: list[list[Cell]] = [[method, times, why] for (method, why), times in refused.items()]
    return Table(["method", "trials", "why"], rows, "Refused: what a method cannot do here.")


# --- curves --------------------------------------------------------------------------------------------------------


def _lines(points: Mapping[str, list[tuple[float, Estimate]]]) -> list[Curve]:
    made = []
    for name, line in points.items():
        if len(line) > 1:
            x, found = zip(*line, strict=True)
            made.append(Curve(name, x, [e.value for e in found], [e.low for e in found], [e.high for e in found]))
    return made


def _score_curves(trials: Sequence[Trial]) -> list[Curves]:
    made = []
    for noise in _noises(trials):
        points: dict[str, list[tuple[float, Estimate]]] = {}
        for (method, share, demos), cell in cells(trials).items():
            if share == noise and (score := mean_of(cell, "score")) is not None:
                points.setdefault(method, []).append((float(demos), score))
        title = "score by demonstrations" + (f", {noise:.0%} noise" if len(_noises(trials)) > 1 else "")
        if lines := _lines(points):
            made.append(Curves(title, lines, "demonstrations", "score"))
    return made


def _horizon_curves(trials: Sequence[Trial]) -> list[Curves]:
    most = max((t.demos for t in trials if not t.refused), default=0)
    noise = min(_noises(trials), default=0.0)
    points: dict[str, list[tuple[float, Estimate]]] = {}
    for (method, share, demos), cell in cells(trials).items():
        told = [t.missing for t in cell if t.missing]
        if share == noise and demos == most and told:
            for k, values in enumerate(zip(*told, strict=True)):
                points.setdefault(method, []).append(((k + 1) / len(told[0]), over_seeds(values)))
    lines = _lines(points)
    title = f"return missing so far, from {most} demonstrations"
    return [Curves(title, lines, "share of the horizon", "share of the way")] if lines else []


def growth(missing: Sequence[float]) -> float:
    """The power p of `missing(t) ~ t^p`, by least squares of the logarithms; NaN where little is missing at all.

    1: every step loses alike. 2: what an imitator that errs once never gets back (Ross & Bagnell 2010).
    """
    kept = [(math.log((k + 1) / len(missing)), math.log(m)) for k, m in enumerate(missing) if m > 1e-3]
    if len(kept) < 4 or missing[-1] < 0.05:
        return math.nan
    middle = [sum(column) / len(kept) for column in zip(*kept, strict=True)]
    apart = [(t - middle[0], m - middle[1]) for t, m in kept]
    return sum(t * m for t, m in apart) / sum(t * t for t, _ in apart)
