"""Benchmarks of models of whole scenes: `understudy bench chorales`, `pedestrians` and `scene-speed`.

Recordings that may not be shipped are read from the benchmark's folder: what is missing is said.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from understudy import scenes
from understudy.algorithms import scene
from understudy.algorithms.scene import scene_loss
from understudy.algorithms.scene_baselines import Counts, Straight
from understudy.core.errors import DemosError
from understudy.core.random import generator, split_seed
from understudy.demos.formats.chorales import read_chorales
from understudy.demos.formats.sgan import read_sgan
from understudy.demos.tracks import Clips, Tracks, TrackSet, TrackSpec
from understudy.evaluation.report import Cell, Report, Table
from understudy.evaluation.scenes import displacement_errors, likelihood, parallels, voice_crossings
from understudy.maths.stats import Estimate, over_seeds
from understudy.nets.scene import CausalSceneNet, Noise, SceneNet, SceneShape
from understudy.nets.trunk import TrunkConfig
from understudy.runs.loop import QUIET
from understudy.runs.many import side_by_side

Made = TypeVar("Made")
CHORALES = "Jsb16thSeparated.json"
GRIDS = {"quarter": 4, "sixteenth": 1}  # sixteenths from one frame to the next
SHIFT = 6  # semitones up and down that pieces are transposed by: all keys
PARTS = ("train", "valid", "test")
NET: Mapping[str, Any] = {"period": 12, "blur": 0.15, "trunk": {"hidden": 64, "layers": 2, "dropout": 0.2}}
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
        for who, one in _counted(chorale_parts(folder, grid)).items():
            rows.append([f"{grid}: {who}", one["valid"], one["test"], "", "", "", ""])
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
        habits=QUIET,
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


SCENES: Mapping[str, tuple[str, ...]] = {  # held out: files that its test is on
    "eth": ("biwi_eth",),
    "hotel": ("biwi_hotel",),
    "univ": ("students001", "students003"),
    "zara1": ("crowds_zara01",),
    "zara2": ("crowds_zara02",),
}
SEEN, AHEAD, SAMPLES = 8, 12, 20  # frames seen, frames predicted, futures of each past
AT_ONCE = 2_000  # rows of agents that are sampled side by side: memory, not speed
WALKS: Mapping[str, Any] = {
    "net": {"together": 1, "alone": 8, "least_std": 0.02, "blur": 0.3, "trunk": {"hidden": 64, "layers": 2}},
    "length": SEEN + AHEAD,
    "batch": 16,
    "agents": 0,
    "crowd": 12,
    "augment": ("rotate", "mirror"),
    "limit": 2_400,
    "held_out": 0.0,
}


def pedestrians(
    folder: Path, seeds: int, workers: int, minutes: float | None, held_out: Sequence[str] = tuple(SCENES)
) -> Report:
    """ETH and UCY, leave one scene out: 8 frames of 0.4 s are seen, 12 predicted, the best of 20 joint samples."""
    tasks = [(name, seed) for name in held_out for seed in range(seeds)]
    found = side_by_side(partial(_walk, folder=folder, minutes=minutes), tasks, workers)
    rows: list[list[Cell]] = []
    for name in held_out:
        mine = [each for (scene, _), each in zip(tasks, found, strict=True) if scene == name]
        for who in ("straight", "ours"):
            rows.append([name, who, *(over_seeds([one[who][figure] for one in mine]) for figure in FIGURES)])
    caption = (
        f"Metres; the best of {SAMPLES} (straight on: of 1). minADE and minFDE: each pedestrian's own best sample, mean"
        " over pedestrians; minJADE and minJFDE: the sample that is best for all of a window together, mean over "
        f"windows. Nats: -log p of a pedestrian's step, in metres, in clips of 20 frames. {seeds} seeds."
    )
    return Report(
        "Pedestrians whom nobody saw before",
        tables=[Table(["scene", "model", *FIGURES], rows, caption)],
        provenance={"command": f"understudy bench pedestrians --seeds {seeds}", "torch": torch.__version__},
    )


FIGURES = ("minADE", "minFDE", "minJADE", "minJFDE", "nats")


def _walk(task: tuple[str, int], folder: Path, minutes: float | None) -> dict[str, dict[str, float]]:
    name, seed = task
    train, test = pedestrian_parts(folder, name)
    learned = scenes.train(
        train, WALKS, minutes=minutes, folder=folder / name / f"seed-{seed}", seed=seed,
        habits=QUIET,
    )  # fmt: skip
    straight = Straight.fit(train)
    clips = test.clips(SEEN + AHEAD, stride=1, complete=True, least_present=2, agents=0)
    there, came = clips.present[:, 0], clips.values[:, SEEN:]
    ahead = Straight.predict(clips.values[:, :SEEN], AHEAD).unsqueeze(0)
    futures = _futures(learned, clips, seed)
    measured = {}
    for who, model, made in (("straight", straight, ahead), ("ours", learned.net, futures)):
        errors = displacement_errors(made, came, there, generator(seed, "intervals"))
        nats = likelihood(model, test, generator(seed, "intervals"), rows=1, agents=0, length=SEEN + AHEAD)
        measured[who] = {figure: each.value for figure, each in errors.figures.items()} | {"nats": nats.per_move.value}
    return measured


def _futures(learned: scenes.Learned, clips: Clips, seed: int) -> Tensor:
    """[sample, scene, time, agent, dim], a few windows at a time, each with the agents that it has."""
    made = torch.zeros(SAMPLES, len(clips), AHEAD, *clips.values.shape[2:])
    crowd = clips.present[:, 0].sum(dim=1)
    order = crowd.argsort(stable=True)
    begin = 0
    while begin < len(order):
        end = begin + 1
        while end < len(order) and int(crowd[order[end]]) * (end + 1 - begin) * SAMPLES <= AT_ONCE:
            end += 1
        rows, most = order[begin:end], int(crowd[order[end - 1]])
        past = Clips(
            clips.values[rows, :SEEN, :most], clips.present[rows, :SEEN, :most],
            slots=None if clips.slots is None else clips.slots[rows, :most],
        )  # fmt: skip
        found = scenes.sample(learned, past, AHEAD, samples=SAMPLES, seed=split_seed(seed, begin))
        made[:, rows, :, :most] = found.values[:, SEEN:].unflatten(0, (len(rows), SAMPLES)).transpose(0, 1)
        begin = end
    return made


def pedestrian_parts(folder: Path, held_out: str) -> tuple[TrackSet, TrackSet]:
    """All recordings but those of a scene, and those of the scene, as the Social-GAN split has them."""
    if not (folder / "all").is_dir():
        raise DemosError(
            f"{folder}: the folders all, train and val are not there. Put those of the Social-GAN split of ETH and UCY "
            "in their place, as github.com/abduallahmohamed/Social-STGCNN has them under datasets/raw."
        )
    files = SCENES[held_out]
    others = [
        path
        for part in ("train", "val")
        for path in sorted((folder / part).glob("*.txt"))
        if not path.name.startswith(files)
    ]
    return read_sgan(others), read_sgan([folder / "all" / f"{name}.txt" for name in files])


VOICES, SYMBOLS, LONG, SHORT = 4, 47, 200, 50  # of scenes that nobody sang, frames of a long and of a short one


def speed(folder: Path, seeds: int, workers: int, minutes: float | None) -> Report:
    """Seconds of processor time, on one core, of a fresh model of four voices: sampling and a gradient step."""
    trunk = TrunkConfig(hidden=64, layers=2, window=LONG)
    shape = SceneShape(0, SYMBOLS, tuple(range(VOICES)), (0,) * VOICES)
    net = CausalSceneNet(SceneNet(trunk), shape, generator(0, "speed"))
    few, many = 8, 256
    noise = net.noise(few, LONG, VOICES, generator(0, "long"))
    remembered, made = _seconds(lambda: net.sample(_silence(few), noise))
    forgetful = 0.0
    for t in range(0, LONG, 5):  # every fifth frame stands for its neighbours
        past = Clips(made.values[:, :t], made.present[:, :t])
        now = Noise(noise.agents[:, t : t + 1], noise.scene[:, t : t + 1])
        taken, again = _seconds(partial(net.sample, past, now))
        assert torch.equal(again.values[:, t], made.values[:, t])
        forgetful += 5 * taken
    short = net.noise(many, SHORT, VOICES, generator(0, "short"))
    wide, _ = _seconds(lambda: net.sample(_silence(many), short))
    symbols = torch.randint(SYMBOLS, (16, 64, VOICES), generator=generator(0, "symbols"))
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
    caption = f"Hidden 64, 2 layers, {VOICES} voices, {SYMBOLS} symbols."
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
    shape = (scenes, 0, VOICES)
    return Clips(torch.zeros(shape, dtype=torch.long), torch.ones(shape, dtype=torch.bool))
