"""What was measured of a policy, as text and as a page: tables, curves, learners moving beside demonstrators."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from understudy.core.errors import ConfigError, nearest
from understudy.core.random import generator
from understudy.core.scene import Scene
from understudy.core.types import Segment
from understudy.evaluation.plots import Curve
from understudy.evaluation.report import Animation, Cell, Curves, Intervals, Report, Section, Table
from understudy.evaluation.video import scenes_of
from understudy.maths.stats import Estimate, estimate, iqm
from understudy.rollout import first_steps

SHOWN = 400  # moments of an episode that a page shows, at most
LEVEL = 0.05  # below this p-value it is said that two sides differ
RESPECTS = {  # the names of `metrics.compare`, in plain words
    "obs": "what an agent perceives",
    "actions": "what an agent does",
    "joint obs": "what all agents perceive at one moment",
    "joint actions": "what all agents do at one moment",
    "relative positions": "how the agents stand to each other",
}
DISTANCES = f"""\
Energy distance and MMD² (squared maximum mean discrepancy) of standardised numbers: 0 is no difference, below 0 is \
chance. p: how often as large an energy distance comes by chance alone if learned and demonstrated episodes are of one \
kind (permutation of whole episodes); below {LEVEL} it is said that they differ. That no difference was found does not \
prove that there is none: look at the returns too, and record more episodes for a sharper eye."""
MOVING = """\
The episode of median return of each side (the first one where nothing is paid). Each began as chance had it, so they \
are alike in kind, not in every move."""


@dataclass(frozen=True)
class Evaluation:
    """Figures by name, each with its interval. `print` shows them in a table, `report()` makes a page of them.

    The figures are those of `metrics.compare`; `likelihood` and `accuracy` of what the demonstrators chose, with
    `random likelihood`, where the policy tells probabilities.
    """

    figures: Mapping[str, Estimate]
    env: str = ""  # its title
    draw: Callable[[Tensor], Scene] | None = None  # the env's, where it has pictures
    dt: float = 0.1  # seconds of a step
    shown: Mapping[str, Segment] = field(default_factory=dict, repr=False)  # side -> one episode, with full states
    metrics: Sequence[Mapping[str, int | float | None]] = field(default=(), repr=False)  # of the run, by update
    group: str = ""  # runs of one group differ in their seed alone
    notes: tuple[str, ...] = ()  # what the reader must know to take the figures rightly
    provenance: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def __getitem__(self, name: str) -> Estimate:
        if name not in self.figures:
            raise ConfigError(f"unknown figure {name!r}.{nearest(name, self.figures)}")
        return self.figures[name]

    def __str__(self) -> str:
        return text_of({"learned": self})

    def report(self, title: str = "") -> Report:
        """A page of it; `.save(path)` writes it."""
        return report_of({"learned": self}, title)


def text_of(measured: Mapping[str, Evaluation]) -> str:
    """The tables of one or several evaluations beside the same demonstrators, for a terminal or a log."""
    tables = [table for table in (_outcomes(measured), _over_runs(measured), _distances(measured)) if table.rows]
    blocks = [aligned([table.columns, *([_said(cell) for cell in row] for row in table.rows)]) for table in tables]
    return "\n\n".join([*blocks, *_notes(measured)])


def report_of(measured: Mapping[str, Evaluation], title: str = "") -> Report:
    """One page for one or several evaluations beside the same demonstrators, by the name of who was measured."""
    first = next(iter(measured.values()))
    sections = [_moving(measured), _earned(measured), _likeness(measured), _learning(measured)]
    told = [one.provenance for one in measured.values()]
    shared = {k: v for k, v in first.provenance.items() if all(k in each and each[k] == v for each in told)}
    own = {name: {k: v for k, v in one.provenance.items() if k not in shared} for name, one in measured.items()}
    return Report(
        title=title or f"{first.env or 'A policy'}: {', '.join(measured)} beside demonstrators",
        intro="\n\n".join(_notes(measured)),
        tables=[table for table in (_outcomes(measured), _over_runs(measured)) if table.rows],
        sections=[section for section in sections if section is not None],
        provenance={name: said for name, said in (shared | own).items() if said not in ("", {})},
    )


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Rows of text in columns as wide as they need to be."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


# --- tables ----------------------------------------------------------------------------------------------------------


def _outcomes(measured: Mapping[str, Evaluation]) -> Table:
    """How the game went for each side, and how likely it found what the demonstrators did."""
    figures = {name: one.figures for name, one in measured.items()}
    first = next(iter(figures.values()))
    rows: list[list[Cell]] = []
    for name in first:
        if name.startswith(("demonstrated ", "random ")) or name.partition("/")[0] in ("energy", "mmd2", "p"):
            continue
        ours: list[Cell] = [found.get(name, "") for found in figures.values()]
        beside = [first.get(f"{who} {name}", "") for who in ("demonstrated", "random")]
        rows.append([_unit(name), *ours, *beside])
    caption = (
        "Value ± half of its 95 % interval, or the interval in brackets; whole episodes are resampled. Normalised "
        "return: 0 is random play, 1 the demonstrators. Likelihood: mean log-probability of what the demonstrators "
        "chose, nearer to 0 is better. Accuracy: the likeliest move was the one they chose."
    )
    if "regret" in first:
        caption += " Regret: the most that an agent could gain by leaving the play while the others follow it, exact."
    return Table(["", *measured, "demonstrators", "random"], rows, caption)


def _unit(name: str) -> str:
    units = {"likelihood": "nats per choice", "total correlation": "nats", "length": "steps"}
    return f"{name}, {units[name]}" if name in units else name


def _over_runs(measured: Mapping[str, Evaluation]) -> Table:
    """The interquartile mean over runs that differ in their seed alone, where there are such."""
    groups: dict[str, list[str]] = {}
    for name, one in measured.items():
        if one.group:
            groups.setdefault(one.group, []).append(name)
    rows: list[list[Cell]] = []
    for names in (names for names in groups.values() if len(names) > 1):
        for figure in measured[names[0]].figures:
            if figure.partition("/")[0] in ("return", "normalised return", "likelihood", "accuracy"):
                values = torch.tensor([measured[name][figure].value for name in names], dtype=torch.float64)
                over = estimate(values, generator(0, "runs", figure), iqm)
                rows.append([", ".join(names), _unit(figure), over, len(names)])
    caption = "Interquartile mean over runs that differ in their seed alone, with its 95 % interval (runs resampled)."
    return Table(["runs of", "", "interquartile mean", "runs"], rows, caption)


def _distances(measured: Mapping[str, Evaluation]) -> Table:
    """How far the learners are from the demonstrators in each respect, and whether that can be told from chance."""
    rows: list[list[Cell]] = []
    for what, words in RESPECTS.items():
        for name, one in measured.items():
            if f"p/{what}" in one.figures:
                p = one.figures[f"p/{what}"].value
                verdict = "differs from the demonstrators'" if p < LEVEL else "no difference found"
                who = [name] if len(measured) > 1 else []
                figures = [one.figures[f"energy/{what}"], one.figures[f"mmd2/{what}"]]
                rows.append([words, *who, *figures, f"{p:.3f}", verdict])
    who = ["who"] if len(measured) > 1 else []
    return Table(["likeness in", *who, "energy distance", "MMD²", "p", "in words"], rows)


def _said(cell: Cell) -> str:
    return f"{cell:,}" if isinstance(cell, int) else str(cell)


def _notes(measured: Mapping[str, Evaluation]) -> list[str]:
    found: dict[str, list[str]] = {}
    for name, one in measured.items():
        for note in one.notes:
            found.setdefault(note, []).append(name)
    return [note if len(names) == len(measured) else f"{', '.join(names)}: {note}" for note, names in found.items()]


# --- sections --------------------------------------------------------------------------------------------------------


def _moving(measured: Mapping[str, Evaluation]) -> Section | None:
    first = next(iter(measured.values()))
    if first.draw is None:
        return None
    sides = {"demonstrators": first.shown.get("demonstrators")}
    sides |= {name: one.shown.get("learned") for name, one in measured.items()}
    players = [(who, scenes_of(first.draw, first_steps(s, SHOWN))) for who, s in sides.items() if s is not None]
    if not players:
        return None
    return Section("in motion", MOVING, animations=[Animation("side by side", players, dt=first.dt)])


def _earned(measured: Mapping[str, Evaluation]) -> Section | None:
    first = next(iter(measured.values())).figures
    plots = []
    for name in first:
        if name.startswith("return/") and f"demonstrated {name}" in first:
            bars = [("demonstrators", first[f"demonstrated {name}"])]
            bars += [(who, one.figures[name]) for who, one in measured.items()]
            if f"random {name}" in first:
                bars.append(("random", first[f"random {name}"]))
            plots.append(Intervals(f"return of {name.partition('/')[2]}", bars, "return"))
    text = "Sum of the rewards of an episode: mean over episodes, with its 95 % interval."
    return Section("returns", text, intervals=plots) if plots else None


def _likeness(measured: Mapping[str, Evaluation]) -> Section | None:
    table = _distances(measured)
    return Section("likeness", DISTANCES, tables=[table]) if table.rows else None


def _learning(measured: Mapping[str, Evaluation]) -> Section | None:
    """A plot for each metric, a line for each run; what was held out is drawn beside the loss it is one of."""
    names = dict.fromkeys(name for one in measured.values() for row in one.metrics for name in row)
    lines: dict[str, list[Curve]] = {}
    for name in names:
        for who, one in measured.items():
            points = [(row["update"] or 0, value) for row in one.metrics if (value := row.get(name)) is not None]
            if name != "update" and len(points) > 1:
                label = name if len(measured) == 1 else who
                plot = "loss" if len(measured) == 1 and name == "held_out" and "loss" in lines else name
                lines.setdefault(plot, []).append(Curve(label, [x for x, _ in points], [y for _, y in points]))
    plots = [Curves(name, curves, "update") for name, curves in lines.items()]
    return Section("learning", "What the run wrote while it learnt.", curves=plots) if plots else None
