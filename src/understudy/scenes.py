"""Models of whole scenes in a few calls: learn, keep, score, sample, steer.

    learned = scenes.train(tracks, folder="runs/chorales")         # the same call resumes
    print(scenes.score(learned, test).per_frame)                   # nats
    made = scenes.sample(learned, past, frames=64, seed=1)         # past: clips of recordings
    other = scenes.sample(learned, past, frames=64, seed=1, goals={"aim": wish})     # the same chance, other goals

What is sampled with one seed shares its chance, frame by frame: two samples that differ in a goal, or in who plays an
agent, differ by what follows from it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any, Generic, TypeVar

import torch
from jaxtyping import Bool
from torch import Tensor

from understudy.algorithms import masked_scene, scene
from understudy.core import config as settings
from understudy.core.errors import ConfigError, DemosError
from understudy.core.random import generator
from understudy.core.tree import tree_map
from understudy.demos.tracks import Clips, TrackSet, TrackSpec
from understudy.evaluation.scenes import Nats, likelihood
from understudy.maths.spread import shared_out
from understudy.nets.masked_scene import MaskedSceneNet
from understudy.nets.saved import load_net, save_net
from understudy.nets.scene import CausalSceneNet, Noise, Player, SceneNet, SceneShape
from understudy.runs import loop
from understudy.runs.log import Row
from understudy.runs.loop import Budget, Habits

Net = TypeVar("Net", CausalSceneNet, MaskedSceneNet)


@dataclass
class Learned(Generic[Net]):
    """A model of scenes, and what the scenes are that it learnt from."""

    net: Net
    spec: TrackSpec
    metrics: list[Row] = field(default_factory=list, repr=False)
    updates: int = 0
    seconds: float = 0.0


_HABITS = Habits()
CAUSAL, MASKED = "scene", "masked_scene"  # names of the files beside a run


def train(
    tracks: TrackSet,
    config: scene.Config | Mapping[str, Any] | None = None,
    *,
    updates: int | None = None,
    minutes: float | None = None,
    folder: Path | str | None = None,
    seed: int = 0,
    habits: Habits = _HABITS,
) -> Learned[CausalSceneNet]:
    """Learn a causal model of scenes. The same call resumes where `folder` holds a run.

    Args:
        config: `algorithms.scene.Config`, or plain data by name; None: its defaults.
        updates, minutes: the budget, over all resumptions; neither: until `config.limit` is reached.
        folder: where the run and the model are kept; None: in memory alone.

    Raises:
        DemosError, ConfigError: recordings or settings that do not fit. RunError: the folder holds another run.
    """
    return _trained(scene, tracks, config, Budget(updates, minutes), folder, seed, habits)


def train_masked(
    tracks: TrackSet,
    config: scene.Config | Mapping[str, Any] | None = None,
    *,
    updates: int | None = None,
    minutes: float | None = None,
    folder: Path | str | None = None,
    seed: int = 0,
    habits: Habits = _HABITS,
) -> Learned[MaskedSceneNet]:
    """Learn to fill in what is hidden; see `train`, whose arguments and errors these are."""
    return _trained(masked_scene, tracks, config, Budget(updates, minutes), folder, seed, habits)


def _trained(
    algorithm: ModuleType,
    tracks: TrackSet,
    config: scene.Config | Mapping[str, Any] | None,
    budget: Budget,
    folder: Path | str | None,
    seed: int,
    habits: Habits,
) -> Learned[Any]:
    name = algorithm.__name__.rpartition(".")[2]
    if not isinstance(config, scene.Config):
        config = settings.from_dict(scene.Config, config or {}, name)
    try:
        run = loop.run(
            algorithm, config, tracks, None, name=name, folder=folder, budget=budget, seed=seed, habits=habits
        )
    except loop.Interrupted as stopped:
        if folder is not None:
            save(Learned(algorithm.result(stopped.state), tracks.spec), folder)
        raise
    learned = Learned(algorithm.result(run.state), tracks.spec, run.metrics, run.updates, run.seconds)
    if folder is not None:
        save(learned, folder)
    return learned


def save(learned: Learned[Any], folder: Path | str) -> None:
    """Write the model into `folder`, in the place of one that is there."""
    net = learned.net
    told = {"net": net.config, "shape": net.shape, "tracks": learned.spec.to_json()}
    if isinstance(net, MaskedSceneNet):
        save_net(net, folder, MASKED, settings.to_dict(told | {"length": net.length}))
    else:
        save_net(net, folder, CAUSAL, settings.to_dict(told))


def load(folder: Path | str) -> Learned[CausalSceneNet]:
    """The causal model in `folder`. Raises RunError: there is none, it is damaged, or of a newer format."""
    return _loaded(folder, CAUSAL, lambda net, shape, told: CausalSceneNet(net, shape, _replaced()))


def load_masked(folder: Path | str) -> Learned[MaskedSceneNet]:
    """The model in `folder` that fills in. Raises RunError as `load`."""
    return _loaded(
        folder, MASKED, lambda net, shape, told: MaskedSceneNet(net, shape, int(told["length"]), _replaced())
    )


def _loaded(folder: Path | str, name: str, make: Callable[[SceneNet, SceneShape, dict[str, Any]], Any]) -> Learned[Any]:
    specs = []

    def made(told: dict[str, Any], path: str) -> Any:
        specs.append(TrackSpec.from_json(told["tracks"]))
        net = settings.from_dict(SceneNet, told["net"], path)
        return make(net, settings.from_dict(SceneShape, told["shape"], path), told)

    return Learned(load_net(folder, name, made), specs[0])


def _replaced() -> torch.Generator:
    return generator(0, "weights that are replaced")


def score(learned: Learned[CausalSceneNet], tracks: TrackSet, seed: int = 0, agents: int | None = None) -> Nats:
    """How likely recordings are, in nats: see `evaluation.scenes.likelihood`."""
    fit(learned, tracks)
    return likelihood(learned.net, tracks, generator(seed, "intervals"), agents=agents)


def sample(
    learned: Learned[CausalSceneNet],
    past: Clips,
    frames: int,
    *,
    samples: int = 1,
    seed: int = 0,
    goals: Mapping[str, Tensor] | None = None,
    given: Mapping[str, Tensor] | None = None,
    forced: Tensor | None = None,
    players: Mapping[int, Player] | None = None,
    spread: bool = False,
) -> Clips:
    """`samples` futures of each past, `frames` long, after it: [samples * scene, time, ...], those of a past together.

    Args:
        past: at least a frame of positions; of symbols also none at all (`nothing`).
        goals, given, forced: over the frames to come, a row for each past: see `CausalSceneNet.sample`.
        players: by agent, who moves in its place.
        spread: of positions, the futures of one past share chance out among themselves and lie further apart; each by
            itself is drawn as ever (`maths.spread`).
    """
    if spread and learned.spec.symbols:
        raise ConfigError("spread: it is for positions, whose moves add up; these scenes are of symbols.")
    if frames < 1 or samples < 1:
        raise ConfigError(f"frames, samples: got {frames} and {samples}; both are 1 or more.")

    def repeated(x: Tensor) -> Tensor:
        return x.repeat_interleave(samples, dim=0)

    past = tree_map(repeated, past)
    chance = generator(seed, "sample")
    device = learned.net.kinds.device
    noise = learned.net.noise(len(past), frames, past.values.shape[2], chance)
    if spread:
        moves = slice(0, learned.spec.dims)  # what is left draws goals
        noise.agents[..., moves] = shared_out(noise.agents[..., moves].unflatten(0, (-1, samples)), chance).flatten(
            0, 1
        )
    made = learned.net.sample(
        past.to(device),
        Noise(*(x.to(device) for x in noise)),
        goals={name: repeated(x) for name, x in (goals or {}).items()},
        given={name: repeated(x) for name, x in (given or {}).items()},
        forced=None if forced is None else repeated(forced),
        players=players,
    )
    return Clips(made.values, made.present, made.labels, made.slots, past.recording, made.start)


def fill(
    learned: Learned[MaskedSceneNet],
    clips: Clips,
    known: Bool[Tensor, "scene time agent"] | None = None,
    *,
    seed: int = 0,
    steps: int = 8,
) -> Clips:
    """The clips with what is not known drawn, given what is.

    Args:
        known: who is known when; who is present besides is filled in. None: those who are present are known, and
            whoever appears in a clip is there in all of it.
        steps: of `MaskedSceneNet.fill`.
    """
    if known is None:
        known = clips.present
        clips = replace(clips, present=known.any(dim=1, keepdim=True).expand_as(known))
    scenes, frames, agents = known.shape
    noise = learned.net.noise(scenes, frames, agents, generator(seed, "fill"))
    return replace(clips, values=learned.net.fill(clips, known, noise, steps))


def nothing(learned: Learned[CausalSceneNet], scenes: int) -> Clips:
    """The past of scenes that have not begun: symbols may be sampled from it."""
    if not learned.spec.symbols:
        raise DemosError("nothing: scenes of positions begin at recorded ones. Cut clips: `tracks.clips(1)`.")
    shape = (scenes, 0, learned.spec.agents)
    return Clips(torch.zeros(shape, dtype=torch.long), torch.ones(shape, dtype=torch.bool))


def beginnings(
    learned: Learned[CausalSceneNet], tracks: TrackSet, past: int, frames: int
) -> tuple[Clips, dict[str, Tensor]]:
    """The first `past` frames of each recording, and the labels that are given of the `frames` after them.

    Recordings that are too short for the past are left out, or, where the model is given labels, for both.
    """
    length = past + (frames if learned.net.shape.given else 0)
    clips = tracks.clips(length, stride=max(int(tracks.lengths.max()), 1) if tracks.frames else 1)
    if not len(clips):
        raise DemosError(f"tracks: no recording has {length} frames, which this model needs to begin with.")

    def cut(x: Tensor) -> Tensor:
        return x[:, :past]

    begun = Clips(
        cut(clips.values), cut(clips.present), {k: cut(v) for k, v in clips.labels.items()}, None,
        clips.recording, clips.start,
    )  # fmt: skip
    return begun, {label.name: clips.labels[label.name][:, past:] for label in learned.net.shape.given}


def as_tracks(learned: Learned[Any], scenes: Clips) -> TrackSet:
    """Sampled scenes as a set of recordings, whose labels are the goals that were after."""
    return TrackSet.stacked(learned.spec, scenes.values, scenes.present, scenes.labels)


def wish(
    learned: Learned[CausalSceneNet],
    past: Clips,
    frames: int,
    goal: str,
    value: int,
    agents: Any = None,
    begin: int = 0,
) -> Tensor:
    """A goal over the frames to come: `value` for `agents` from frame `begin` of them on, else left to the model (-1).

    Args:
        agents: slots, as a list of indices; None: all. Of a goal of the whole scene there are none to choose.
    """
    labels = {label.name: label for label in learned.net.shape.goals}
    if goal not in labels:
        raise ConfigError(f"goal: this model has none called {goal!r}; it has {', '.join(labels) or 'none'}.")
    label = labels[goal]
    if not 0 <= value < label.classes:
        raise ConfigError(f"{goal}: got {value}; it is from 0 to {label.classes - 1}.")
    if agents is not None and not label.of_agents:
        raise ConfigError(f"{goal}: it is a goal of the whole scene, so it is set for all agents.")
    wanted = torch.full((len(past), frames, past.values.shape[2]), -1)
    wanted[:, begin:, slice(None) if agents is None else list(agents)] = value
    return wanted if label.of_agents else wanted[..., 0]


def fit(learned: Learned[Any], tracks: TrackSet) -> None:
    """Raises DemosError where these are not scenes as the model learnt from."""
    told_apart = ("agents",) if len(learned.net.shape.kinds) > 1 else ()
    for name in (*told_apart, "dims", "symbols", "dt", "unit", "alphabet"):
        there, here = getattr(learned.spec, name), getattr(tracks.spec, name)
        if there != here:
            raise DemosError(f"tracks: {name} is {here}, and the model learnt from {there}.")
