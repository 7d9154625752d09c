"""Text files of pedestrians: `frame  agent  x  y` in each row (Social-GAN, TrajNet), or TrajNet++'s lines of JSON.

Positions are metres on the ground. Pedestrians are nobody in particular: each gets a slot of its own in its recording,
in the order of their numbers, and the label `id` says who it is. A row whose position is `?` (TrajNet's test files ask
for it) is of somebody who was not seen then.

Source: the files of agrimgupta92/sgan and vita-epfl/trajnetplusplusdata, as their READMEs describe them.
"""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from understudy.core.errors import DemosError
from understudy.core.files import from_json
from understudy.demos.episode import About
from understudy.demos.formats.common import refusing
from understudy.demos.formats.sightings import Placing, Sightings, gathered
from understudy.demos.tracks import TrackSet

FIELDS = ("frame", "agent", "x", "y")


def read_sgan(
    paths: Path | str | Sequence[Path | str],
    *,
    dt: int | float = 0.4,
    step: int | float | None = None,
    mend: Collection[str] = (),
    about: About | None = None,
) -> TrackSet:
    """The recordings in text files, one each, or in an .ndjson file of TrajNet++.

    The protocol that most tables are of (8 frames seen, 12 predicted, pedestrians who are there throughout, windows of
    two or more) is `tracks.clips(20, stride=1, complete=True, least_present=2, agents=0)`.

    Args:
        dt: seconds between two frames of the file: 0.4 in all of these data sets.
        step: what frame numbers grow by from one to the next, such as 10; None: found out from them.
        mend: what may be mended, see `sightings`.

    Raises:
        DemosError: naming file, row, agent and frame: a cell that is no number, a row that is there twice ...
    """
    paths = [paths] if isinstance(paths, Path | str) else list(paths)
    pieces = []
    for path in map(Path, paths):
        with refusing(path, "rows of frame, agent, x and y") as where:
            text = path.read_text(encoding="utf-8-sig")
            rows = _json_rows(text, where) if path.suffix == ".ndjson" else _text_rows(text, where)
            pieces.append((path.stem, _sightings(rows, where)))
    how = Placing(step=step, dt=dt, mend=mend)
    title = ", ".join(Path(path).stem for path in paths)[:80]
    return gathered(pieces, how, anonymous=True, title=title, about=about)


def _text_rows(text: str, where: str) -> list[tuple[int, list[Any]]]:
    rows = [(k, line.replace(",", " ").split()) for k, line in enumerate(text.splitlines(), 1) if line.strip()]
    for k, row in rows:
        if len(row) != len(FIELDS):
            raise DemosError(f"{where}: row {k} has {len(row)} numbers; frame, agent, x and y are meant.")
    return [(k, [None if cell == "?" else cell for cell in row]) for k, row in rows]


def _json_rows(text: str, where: str) -> list[tuple[int, list[Any]]]:
    """The rows `{"track": {"f": frame, "p": agent, "x": ..., "y": ...}}`; lines of scenes say nothing of positions."""
    rows = []
    for k, line in enumerate(text.splitlines(), 1):
        if line.strip():
            told = from_json(line)
            if not isinstance(told, dict) or not ("track" in told or "scene" in told):
                raise DemosError(f"{where}: row {k} is neither a track nor a scene: {line:.60}")
            if isinstance(track := told.get("track"), dict):
                rows.append((k, [track.get(name) for name in ("f", "p", "x", "y")]))
    return rows


def _sightings(rows: list[tuple[int, list[Any]]], where: str) -> Sightings:
    if not rows:
        raise DemosError(f"{where}: has no rows.")
    columns = np.array(
        [[_number(cell, k, name, where) for cell, name in zip(row, FIELDS, strict=True)] for k, row in rows]
    )
    frame, who = columns[:, 0], columns[:, 1]
    if not np.isfinite(who).all() or (who != np.round(who)).any():
        k = int(np.argmax(~np.isfinite(who) | (who != np.round(who))))
        raise DemosError(f"{where}: row {rows[k][0]}: the agent is {rows[k][1][1]!s:.60}; whole numbers are meant.")
    ids, agent = np.unique(who, return_inverse=True)
    names = tuple(f"{i:.0f}" for i in ids)
    return Sightings(where, names, frame, agent, columns[:, 2:], np.array([k for k, _ in rows]))


def _number(cell: Any, row: int, name: str, where: str) -> float:
    if cell is None:
        return np.nan
    try:
        return float(cell)
    except (TypeError, ValueError):
        raise DemosError(f"{where}: row {row}: {name} is {cell!s:.60}, and a number is meant.") from None
