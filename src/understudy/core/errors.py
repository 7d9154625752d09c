"""Errors that say what came, what was meant, and what to do."""

import difflib
from collections.abc import Iterable, Sequence
from itertools import permutations

from torch import Tensor

LONGEST = 1000  # letters of a line that is shown


class UnderstudyError(Exception):
    """Anything this library refuses. Its message is meant for the person at the keyboard.

    It may quote files of strangers, so it is `printable` as text.
    """

    def __str__(self) -> str:
        return "\n".join(map(printable, super().__str__().splitlines()))


class ShapeError(UnderstudyError, ValueError):
    """A tensor whose axes are not the ones that were asked for."""


class ConfigError(UnderstudyError, ValueError):
    """A setting that is unknown, of the wrong kind or out of its range."""


class DemosError(UnderstudyError, ValueError):
    """A recording that is damaged, or that does not fit what it is used for."""


class EnvError(UnderstudyError, ValueError):
    """An environment that is unknown, built or driven against its rules."""


class RunError(UnderstudyError, RuntimeError):
    """A run folder that cannot be written, read or resumed."""


class Diverged(RunError):
    """Learning went to infinity. What was saved before is kept."""


class MissingExtra(UnderstudyError, ImportError):
    """An optional dependency that is not installed."""


def printable(line: str) -> str:
    """One line for reading: escapes for codes that would steer a terminal, and no middle where it is very long."""
    if len(line) > LONGEST:
        line = f"{line[: LONGEST * 2 // 3]} ... {line[-LONGEST // 3 :]}"
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in line)


def nearest(name: str, known: Iterable[str]) -> str:
    """` Did you mean ...?`, or the list of what is known: the tail of a message about an unknown name."""
    known = list(known)
    name = name[:LONGEST]  # comparing letters of a long one with each other takes for ever
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f" Did you mean `{close[0]}`?" if close else f" Known: {', '.join(sorted(known)) or 'none'}."


def missing_extra(package: str, extra: str, purpose: str) -> MissingExtra:
    """The error to raise when an optional `package` is not there."""
    return MissingExtra(f"{purpose} needs `{package}`, which is not installed: pip install 'understudy[{extra}]'")


def expect_shape(name: str, tensor: Tensor, axes: str, **sizes: int) -> None:
    """Refuse a `tensor` whose shape is not `axes`, naming it as the caller wrote it.

    Args:
        name: the argument's name.
        axes: names of the axes in order, separated by spaces.
        sizes: the size each axis must have; an axis without a size may have any.

    Raises:
        ShapeError: with a hint where the same sizes fit in another order.
    """
    names = axes.split()
    wanted: list[int | None] = [sizes.get(axis) for axis in names]
    got = list(tensor.shape)
    if _fits(got, wanted):
        return
    said = ", ".join(f"{axis}={size}" if size is not None else axis for axis, size in zip(names, wanted, strict=True))
    message = f"{name}: expected [{said}], got {got}."
    if len(got) == len(wanted) <= 5 and any(_fits(order, wanted) for order in permutations(got)):
        message += f" The sizes fit in another order: here the order is {', '.join(names)}."
    raise ShapeError(message)


def _fits(shape: Sequence[int], wanted: Sequence[int | None]) -> bool:
    return len(shape) == len(wanted) and all(w is None or s == w for s, w in zip(shape, wanted, strict=True))
