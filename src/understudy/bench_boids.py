"""Models of flocks under one protocol: `understudy bench boids`, and `boids-full` in the size of the paper.

Flights of boids (`envs.boids`, with the published generator's first step) are seen with a noise of 0.01 on every
number: without it nearly all of a flight follows from its past, and a likelihood has no upper bound. All models learn
from the same flights and are asked about the same frames, the second to the fiftieth, in the unit of the plane.
"""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from understudy import scenes
from understudy.algorithms import scene, scene_vrnn
from understudy.algorithms.scene_baselines import Straight
from understudy.core import config as settings
from understudy.core.random import generator, uniform
from understudy.core.tree import tree_map
from understudy.core.types import View
from understudy.demos.tracks import Clips, TrackSet
from understudy.envs.boids import Boids, expert
from understudy.evaluation.report import Cell, Report, Table
from understudy.maths.stats import over_seeds
from understudy.nets.scene import CausalSceneNet
from understudy.nets.vrnn import FAMILIES, RecurrentSceneNet
from understudy.recordings import flocks
from understudy.runs import loop
from understudy.runs.loop import QUIET
from understudy.runs.many import kept, side_by_side

NOISE = 0.01  # standard deviation of what is seen of a boid's place, each number
FRAMES, PAST = 50, 10  # of a flight; of it that are shown before a model goes on
LATE = 30  # from this frame on a flight that was turned is looked at
SPREAD = 1.85, 1.81  # mean distance of pairs, frames 10 and LATE on, below which a flight is friendly
SAMPLES = 16  # latents of a flight, for the bound
GOAL = "friendly"
OURS = "ours"
MODELS = (OURS, *FAMILIES, f"{OURS}, untold")  # untold: without the label


@dataclass(frozen=True)
class Size:
    """How many flights, and with which settings all learn."""

    train: int
    test: int
    ours: Mapping[str, Any]
    recurrent: Mapping[str, Any]  # of all recurrent models
    nets: Mapping[str, Mapping[str, Any]]  # what is another in some


SMALL = Size(
    2048,
    512,
    {
        "net": {"absolute": True, "trunk": {"hidden": 48, "layers": 2, "window": FRAMES}},
        "augment": ("rotate", "mirror"), "length": FRAMES, "batch": 16, "limit": 600, "rate": 3e-3, "steps": 25,
        "held_out": 0.05,
    },
    {
        "length": FRAMES, "batch": 32, "limit": 300, "rate": 3e-3, "steps": 20, "weight_decay": 0.0, "held_out": 0.05,
        "averaging": 0.95,
    },
    {
        **{kind: {"hidden": 48, "memory": 48, "steps": True} for kind in FAMILIES},
        **{kind: {"hidden": 64, "memory": 192, "latent": 32, "steps": True} for kind in ("rnn_gauss", "vrnn_single")},
    },
)  # fmt: skip
WHOLE = {"hidden": 250, "memory": 900, "latent": 80}
EACH = {"hidden": 200, "memory": 250, "latent": 16, "goal_memory": 200}
FULL = Size(
    32_768,
    8_192,
    {**SMALL.ours, "net": {"absolute": True, "trunk": {"layers": 4, "window": FRAMES}}, "batch": 64, "limit": 40_000},
    {**scene_vrnn.PUBLISHED_SCHEDULE, "length": FRAMES, "held_out": 0.02},
    {kind: WHOLE if kind in ("rnn_gauss", "vrnn_single") else EACH for kind in FAMILIES},
)


def boids(folder: Path, seeds: int, workers: int, minutes: float | None, *, name: str, size: Size) -> Report:
    """Every model's likelihood of unseen flights, and how often what it samples does as it is asked."""
    tasks = [(model, seed) for model in MODELS for seed in range(seeds)]
    found = side_by_side(partial(_fly, folder=folder, minutes=minutes, size=size), tasks, workers)
    straight, true = _straight(size), sure()
    rows: list[list[Cell]] = [["straight on", 2, straight, straight, "", "", "", ""]]
    for model in MODELS:
        mine = [each for (who, _), each in zip(tasks, found, strict=True) if who == model]
        figures = [over_seeds([one[k] for one in mine]) if k in mine[0] else "" for k in FIGURES]
        rows.append([model, mine[0]["weights"], *figures, over_seeds([one["seconds"] / 60 for one in mine])])
    rows.append(["the rules", "", "", f"at most {ceiling():,.0f}", *(true[k] for k in FIGURES[2:]), ""])
    caption = (
        f"{size.train:,} flights to learn from, {size.test:,} to test, seen with a noise of {NOISE} on every number; "
        f"{seeds} seeds. Bounds of the log-likelihood in nats of a flight given its first frame (and, where goals "
        f"are told, its label), with one latent and with {SAMPLES}. Shares: scenes sampled after {PAST} frames "
        "that behave as recorded (told so, where a model can be); from the first frame alone, told one or the other; "
        f"after {PAST} frames of a flight, told the opposite. Friendly is a flight whose pairs are on average nearer "
        f"than {SPREAD[0]} in frames {PAST} to {FRAMES - 1} (told the opposite: {SPREAD[1]}, from frame {LATE} on). "
        "The rules: what the simulator itself does, judged alike. Minutes of processor time."
    )
    columns = ["model", "weights", "bound of 1", f"bound of {SAMPLES}", "kept", "asked", "turned", "minutes"]
    return Report(
        "Flocks, and what they are asked to do",
        tables=[Table(columns, rows, caption)],
        provenance={"command": f"understudy bench {name} --seeds {seeds}", "torch": torch.__version__},
    )


FIGURES = ("one", "many", "kept", "told", "turned")


def seen(size: int, seed: int) -> TrackSet:
    """Flights as they are seen, with the label for all boids together (`friendly`) and for each (`mine`)."""
    tracks = flocks(size, seed)
    noise = NOISE * torch.randn(tracks.values.shape, generator=generator(seed, "noise"))
    label = tracks.labels[GOAL]
    labels = {GOAL: label, "mine": label.unsqueeze(-1).expand(-1, tracks.spec.agents).clone()}
    return replace(tracks, values=tracks.values + noise, labels=labels)


def parts(size: Size) -> tuple[TrackSet, TrackSet]:
    """Flights to learn from, the same for all seeds, and others to test on."""
    return seen(size.train, 1), seen(size.test, 2)


def spread(values: Float[Tensor, "scene time agent 2"]) -> Float[Tensor, "scene"]:
    """Mean distance of two boids, over pairs and frames."""
    agents = values.shape[2]
    return torch.cdist(values, values).sum(dim=(-1, -2)).mean(dim=-1) / (agents * (agents - 1))


def friendly(values: Float[Tensor, "scene time agent 2"], turned: bool = False) -> Bool[Tensor, "scene"]:
    """Which flights flock, by a program: see the caption of the table."""
    return spread(values[:, LATE if turned else PAST :]) < SPREAD[turned]


def sure(count: int = 4096) -> dict[str, float]:
    """How often the program is right about flights by the rules: what no model can be sure to surpass."""
    right = {}
    for name, turn in {"kept": None, "told": 0, "turned": PAST - 1}.items():
        values, tempers = _flown(count, turn)
        right[name] = float((friendly(values, turn == PAST - 1) == tempers).float().mean())
    return right


def ceiling() -> float:
    """Log-likelihood of a flight for who knows where all boids are: that of the noise alone."""
    return -(FRAMES - 1) * 16 * (math.log(NOISE) + 0.5 * math.log(2 * math.pi * math.e))


def _flown(count: int, turn: int | None) -> tuple[Tensor, Bool[Tensor, "scene"]]:
    """Flights by the rules whose temper changes after `turn` steps, seen with noise, and their temper at the end."""
    env, source = Boids(shared_first_step=True), generator(0, "turned")
    state = env.reset(uniform((count, env.spec.reset_noise), source))
    frames = [state.position]
    for t in range(FRAMES - 1):
        state = state._replace(temper=-state.temper) if t == turn else state
        actions = expert(env, View(env.observe(state)), state.position[..., :0])
        state, _, _ = env.step(state, actions, uniform((count, env.spec.step_noise), source))
        frames.append(state.position)
    values = torch.stack(frames, dim=1)
    return values + NOISE * torch.randn(values.shape, generator=source), state.temper > 0


def _straight(size: Size) -> float:
    train, test = parts(size)
    return float(Straight.fit(train)(test.clips(FRAMES)).frames.double().sum(dim=1).mean())


def _fly(task: tuple[str, int], folder: Path, minutes: float | None, size: Size) -> dict[str, Any]:
    model, seed = task
    where = folder / model.replace(", ", "-") / f"seed-{seed}"
    asked = {"minutes": minutes, "flights": [size.train, size.test]}
    return kept(where / "figures.json", asked, partial(_figures, model=model, seed=seed, minutes=minutes, size=size))


def _figures(path: Path, model: str, seed: int, minutes: float | None, size: Size) -> dict[str, Any]:
    train, test = parts(size)
    began = time.process_time()
    net = _learnt(model, train, path.parent, seed, minutes, size)
    seconds = time.process_time() - began
    clips = test.clips(FRAMES)
    label = clips.labels[GOAL][:, 0]
    bounds = {k: _log_likelihood(net, clips, n, seed) for k, n in {"one": 1, "many": SAMPLES}.items()}
    past, first = (tree_map(lambda x, n=n: x[:, :n], replace(clips, recording=None, start=None)) for n in (PAST, 1))
    shares = {"kept": share(net, past, label, seed)}
    if net.shape.goals:
        wish = torch.arange(len(label)) % 2
        shares |= {"told": share(net, first, wish, seed), "turned": share(net, past, 1 - label, seed, turned=True)}
    weights = sum(weight.numel() for weight in net.parameters())
    return {**bounds, **shares, "weights": weights, "seconds": seconds}


def _learnt(
    model: str, train: TrackSet, folder: Path, seed: int, minutes: float | None, size: Size
) -> CausalSceneNet | RecurrentSceneNet:
    if model.startswith(OURS):
        told = {"goals": (GOAL,)} if model == OURS else {}
        return scenes.train(train, {**size.ours, **told}, minutes=minutes, folder=folder, seed=seed, habits=QUIET).net
    goals = {"none": (), "agent": ("mine",), "scene": (GOAL,)}[FAMILIES[model].goals]
    schedule = settings.from_dict(scene.Config, {**size.recurrent, "goals": goals}, "schedule")
    config = settings.from_dict(scene_vrnn.Config, {"net": {"kind": model, **size.nets[model]}}, model)
    config = replace(config, schedule=schedule)
    run = loop.run(
        scene_vrnn, config, train, name="scene_vrnn", folder=folder, budget=loop.Budget(None, minutes), seed=seed,
        habits=QUIET,
    )  # fmt: skip
    return scene_vrnn.result(run.state)


@torch.no_grad()
def _log_likelihood(net: CausalSceneNet | RecurrentSceneNet, clips: Clips, samples: int, seed: int) -> float:
    chance = generator(seed, "latents")

    def of(some: Clips) -> Tensor:
        found = net(some) if isinstance(net, CausalSceneNet) else net(some, chance, samples)
        return found.frames.double().sum(dim=1)

    return float(_in_turn(of, clips).mean())


def share(
    net: CausalSceneNet | RecurrentSceneNet,
    past: Clips,
    wish: Int[Tensor, "scene"],
    seed: int,
    turned: bool = False,
) -> float:
    """Share of scenes sampled after `past` that do as they are asked; who has goals is told them, of the past too."""
    chance, frames = generator(seed, "asked"), FRAMES - past.values.shape[1]
    shape = {goal.name: past.labels[goal.name].shape[2:] for goal in net.shape.goals}

    def of(some: Clips) -> Tensor:
        asked = some.labels["asked"][:, 0]
        told = {k: asked.reshape(-1, 1, *[1] * len(s)).expand(-1, FRAMES, *s) for k, s in shape.items()}
        before = replace(some, labels={k: x[:, :-frames] for k, x in told.items()})
        noise = net.noise(len(some), frames, some.values.shape[2], chance)
        made = net.sample(before, noise, goals={k: x[:, -frames:] for k, x in told.items()})
        return friendly(made.values, turned) == (asked > 0)

    asked = wish.unsqueeze(-1).expand(-1, past.values.shape[1])
    return float(_in_turn(of, replace(past, labels={**past.labels, "asked": asked})).float().mean())


def _in_turn(of: Callable[[Clips], Tensor], clips: Clips, rows: int = 64) -> Tensor:
    """What `of` gives of a few scenes at a time."""
    return torch.cat([of(tree_map(lambda x, k=k: x[k : k + rows], clips)) for k in range(0, len(clips), rows)])
