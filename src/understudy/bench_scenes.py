"""Benchmarks of models of whole scenes: `understudy bench chorales`.

Recordings that may not be shipped are read from the benchmark's folder: what is missing is said.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from understudy import scenes
from understudy.core.errors import DemosError
from understudy.demos.formats.chorales import read_chorales
from understudy.demos.tracks import Tracks, TrackSet, TrackSpec
from understudy.evaluation.report import Cell, Report, Table
from understudy.evaluation.scenes import parallels, voice_crossings
from understudy.maths.stats import over_seeds
from understudy.runs.loop import Habits
from understudy.runs.many import side_by_side

CHORALES = "Jsb16thSeparated.json"
GRIDS = {"quarter": 4, "sixteenth": 1}  # sixteenths from one frame to the next
SHIFT = 6  # semitones up and down that pieces are transposed by: all keys
PARTS = ("train", "valid", "test")
NET: Mapping[str, Any] = {"period": 12, "trunk": {"hidden": 64, "layers": 2, "dropout": 0.2}}
SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "quarter": {"length": 64, "batch": 8, "limit": 2_400},
    "sixteenth": {"length": 128, "batch": 4, "limit": 4_800},
}
SHARED: Mapping[str, Any] = {
    "net": NET,
    "given": ("beat",),
    "transpose": SHIFT,
    "rate": 3e-3,
    "averaging": 0.995,
    "held_out": 0.0,
}
FRAMES = 64  # of a generated chorale


def chorales(folder: Path, seeds: int, workers: int, minutes: float | None) -> Report:
    """Bach's chorales, four voices: nats per frame on the test pieces, and how what is sampled keeps the rules."""
    found = side_by_side(partial(_sing, folder=folder, minutes=minutes), range(seeds), workers)
    rows: list[list[Cell]] = []
    for grid in GRIDS:
        each = [one[grid] for one in found]
        figures = [over_seeds([one[name] for one in each]) for name in ("valid", "test", "crossings", "parallels")]
        seconds = sum(one["seconds"] for one in each) / len(each)
        rows.append([grid, *figures, f"{each[0]['frames']:,}", f"{seconds / 60:.1f}"])
        people = each[0]["people"]
        rows.append([f"{grid}: Bach", "", "", people["crossings"], people["parallels"], "", ""])
    caption = (
        f"Mean over all frames of the pieces of -log p of the four voices given all before, {seeds} seeds. Crossings: "
        f"share of frames; parallels: fifths and octaves in a hundred frames; of 64 pieces of {FRAMES} frames sampled "
        "from nothing, and of as many frames from the beginnings of the test pieces."
    )
    columns = ["grid", "valid, nats", "test, nats", "crossings", "parallels", "test frames", "minutes"]
    return Report(
        "Chorales, frame after frame",
        tables=[Table(columns, rows, caption)],
        provenance={"command": f"understudy bench chorales --seeds {seeds}", "torch": torch.__version__},
    )


def _sing(seed: int, folder: Path, minutes: float | None) -> dict[str, dict[str, Any]]:
    return {grid: _sing_on(grid, seed, folder, minutes) for grid in GRIDS}


def _sing_on(grid: str, seed: int, folder: Path, minutes: float | None) -> dict[str, Any]:
    parts = chorale_parts(folder, grid)
    learned = scenes.train(
        parts["train"],
        {**SHARED, **SETTINGS[grid]},
        minutes=minutes,
        folder=folder / grid / f"seed-{seed}",
        seed=seed,
        habits=Habits(threads=1, show=False),
    )
    scored = {part: scenes.score(learned, parts[part], seed) for part in ("valid", "test")}
    beat = torch.arange(FRAMES).expand(64, -1) % (16 // GRIDS[grid])
    made = scenes.sample(learned, scenes.nothing(learned, 64), FRAMES, seed=seed, given={"beat": beat})
    people = torch.stack([piece.values[:FRAMES] for piece in parts["test"] if len(piece) >= FRAMES])
    return {
        "valid": scored["valid"].per_frame.value,
        "test": scored["test"].per_frame.value,
        "frames": scored["test"].frames,
        "seconds": learned.seconds,
        **_rules(made.values),
        "people": _rules(people),
    }


def _rules(symbols: Tensor) -> dict[str, float]:
    return {"crossings": voice_crossings(symbols), "parallels": parallels(symbols)}


def chorale_parts(folder: Path, grid: str) -> dict[str, TrackSet]:
    """The pieces for training, validation and test, with room on the scale for all keys, and the beat as a label."""
    path = folder / CHORALES
    if not path.exists():
        raise DemosError(f"{path} is not there. Put the file of github.com/czhuang/JSB-Chorales-dataset in its place.")
    every = GRIDS[grid]
    bar = 16 // every

    def thinned(piece: Tracks) -> Tracks:
        values = piece.values[::every]
        beat = torch.arange(len(values)) % bar
        return replace(piece, values=values, present=piece.present[::every], labels={"beat": beat})

    pieces = read_chorales(path)
    spec = replace(pieces.spec, dt=pieces.spec.dt * every)
    whole = widened(pieces.map(thinned, spec), SHIFT)
    where = {part: [k for k, info in enumerate(whole.infos) if info["split"] == part] for part in PARTS}
    return {part: whole.select(pieces) for part, pieces in where.items()}


def widened(tracks: TrackSet, by: int) -> TrackSet:
    """The same pitches on a scale that goes on by so many semitones on either side."""
    spec = tracks.spec
    low, high = int(spec.alphabet[1]) - by, int(spec.alphabet[-1]) + by
    alphabet = (spec.alphabet[0], *map(str, range(low, high + 1)))
    wide: TrackSpec = replace(spec, symbols=len(alphabet), alphabet=alphabet)
    return tracks.map(lambda each: replace(each, values=torch.where(each.values > 0, each.values + by, 0)), wide)
