"""Figures of a set of recordings, gathered piece by piece: a set may be larger than memory."""

import math
from typing import Any

import torch
from jaxtyping import Bool, Shaped
from torch import Tensor

from understudy.core.types import Continuous, Discrete, EnvSpec, action_shape, legal_size
from understudy.demos.demos import Columns, Kinds, Table

Summary = dict[str, Tensor]  # count [agent]; mean, std, min, max [agent feature], in float64
AT_ONCE = 2**20  # numbers widened to float64 at a time


def measure(spec: EnvSpec, columns: Columns, table: Table) -> dict[str, Any]:
    """Plain data of one block of episodes, the closing rows of `columns` left out where a column is of steps.

    `obs`, `rewards` and continuous `actions` have for each agent their count, and for each feature mean, standard
    deviation (of the whole set, not an estimate), least and greatest; other actions the number of times each was
    chosen. What an agent saw and did where `present` is false is left out.
    """
    there = columns.get("present", torch.ones(len(columns["obs"]), spec.agents, dtype=torch.bool))
    acting = there.clone()
    acting[table.first + table.lengths] = False  # the closing rows
    figures: dict[str, Any] = {
        "episodes": len(table.names),
        "steps": int(table.lengths.sum()),
        "shortest": int(table.lengths.min()),
        "longest": int(table.lengths.max()),
        "obs": _plain(summary(columns["obs"], there)),
    }
    if "rewards" in columns:
        figures["rewards"] = _plain(summary(columns["rewards"].unsqueeze(-1), acting))
    if isinstance(spec.action, Continuous):
        figures["actions"] = _plain(summary(columns["actions"], acting))
    else:
        figures["actions"] = {"chosen": chosen(spec, columns["actions"], acting).tolist()}
    return figures


def expect_figures(spec: EnvSpec, columns: Kinds, table: Table, figures: dict[str, Any]) -> None:
    """Raise ValueError unless `figures` are such as `measure` gives of these columns and episodes.

    They are not computed anew: that would mean to read the whole set.
    """
    whole = {
        "episodes": len(table),
        "steps": int(table.lengths.sum()),
        "shortest": int(table.lengths.min()),
        "longest": int(table.lengths.max()),
    }
    sizes = {"obs": spec.obs, "rewards": 1, "actions": getattr(spec.action, "size", 0)}
    sizes = {name: size for name, size in sizes.items() if name in columns}
    if figures.keys() != whole.keys() | sizes.keys() or any(figures[name] != told for name, told in whole.items()):
        raise ValueError("statistics of other episodes")
    for name, size in sizes.items():
        wanted = {"count": (spec.agents,)} | {part: (spec.agents, size) for part in ("mean", "std", "min", "max")}
        if name == "actions" and not isinstance(spec.action, Continuous):
            wanted = {"chosen": (spec.agents, legal_size(spec.action))}
        made = {part: torch.tensor(values, dtype=torch.float64) for part, values in figures[name].items()}
        if {part: tuple(values.shape) for part, values in made.items()} != wanted:
            raise ValueError(f"statistics of {name} of another form")
        for part, values in made.items():
            most = whole["steps"] + whole["episodes"] if part in ("count", "chosen") else math.inf
            if not (values.isfinite() & (values.abs() <= most)).all():
                raise ValueError(f"statistics of {name} that cannot be")


def merge(a: dict[str, Any], b: dict[str, Any]) -> dict[str, Any]:
    """The figures of two sets together."""
    merged: dict[str, Any] = {"shortest": min(a["shortest"], b["shortest"]), "longest": max(a["longest"], b["longest"])}
    merged |= {k: a[k] + b[k] for k in ("episodes", "steps")}
    for name in a.keys() - merged.keys():
        if "chosen" in a[name]:
            total = torch.tensor(a[name]["chosen"]) + torch.tensor(b[name]["chosen"])
            merged[name] = {"chosen": total.tolist()}
        else:
            merged[name] = _plain(_merged(_summary(a[name]), _summary(b[name])))
    return merged


def summary(values: Shaped[Tensor, "row agent feature"], there: Bool[Tensor, "row agent"]) -> Summary:
    """Count, mean, standard deviation, least and greatest of the rows where `there`; zeros where there is none."""
    size = max(1, AT_ONCE // max(1, math.prod(values.shape[1:])))
    pieces = [_summed(v.double(), t) for v, t in zip(values.split(size), there.split(size), strict=True)]
    total = pieces[0]
    for piece in pieces[1:]:
        total = _merged(total, piece)
    return total


def chosen(spec: EnvSpec, actions: Tensor, there: Bool[Tensor, "row agent"]) -> Tensor:
    """How often each agent chose each move: Int[agent choice], for several parts end to end."""
    sizes = [spec.action.choices] if isinstance(spec.action, Discrete) else list(spec.action.choices)  # type: ignore[union-attr]
    parts = actions.reshape(len(actions), spec.agents, *(action_shape(spec.action) or (1,)))
    total = torch.zeros(spec.agents, sum(sizes), dtype=torch.long)
    for part in range(len(sizes)):
        place = torch.arange(spec.agents) * total.shape[1] + sum(sizes[:part])
        index = (parts[..., part] + place)[there]
        total += torch.bincount(index, minlength=total.numel()).reshape(total.shape)
    return total


def _summed(values: Tensor, there: Tensor) -> Summary:
    count, here = there.sum(0), there.unsqueeze(-1)
    some = (count > 0).unsqueeze(-1)
    mean = values.where(here, 0).sum(0) / count.clamp(min=1).unsqueeze(-1)
    square = (values - mean).where(here, 0).square().sum(0) / count.clamp(min=1).unsqueeze(-1)
    low = values.where(here, math.inf).amin(0).where(some, 0)
    return {
        "count": count,
        "mean": mean,
        "std": square.sqrt(),
        "min": low,
        "max": values.where(here, -math.inf).amax(0).where(some, 0),
    }


def _merged(a: Summary, b: Summary) -> Summary:
    """Chan, Golub, LeVeque 1983, The American Statistician 37(3): means and squares of two sets make those of both."""
    first, second = (x["count"].unsqueeze(-1).double() for x in (a, b))
    total = (first + second).clamp(min=1)
    between = (b["mean"] - a["mean"]).square() * first * second / total
    return {
        "count": a["count"] + b["count"],
        "mean": (a["mean"] * first + b["mean"] * second) / total,
        "std": ((a["std"].square() * first + b["std"].square() * second + between) / total).sqrt(),
        "min": torch.where(second == 0, a["min"], torch.where(first == 0, b["min"], torch.minimum(a["min"], b["min"]))),
        "max": torch.where(second == 0, a["max"], torch.where(first == 0, b["max"], torch.maximum(a["max"], b["max"]))),
    }


def _plain(made: Summary) -> dict[str, Any]:
    return {name: values.tolist() for name, values in made.items()}


def _summary(plain: dict[str, Any]) -> Summary:
    return {k: torch.tensor(v, dtype=torch.long if k == "count" else torch.float64) for k, v in plain.items()}
