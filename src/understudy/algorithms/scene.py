"""CausalScene: learn the distribution of whole joint recordings, frame after frame, by exact likelihood.

    minimise  - sum over scenes and frames of  log p(frame_t | past, goals_t) + goal_weight * log p(goals_t | past)

There is no simulator and nobody acts: recordings are `demos.tracks.TrackSet`, the model is `nets.scene.CausalSceneNet`.
Clips of `length` frames are drawn from all places of the recordings, and turned into other clips that are as likely
(`augment`, `transpose`). What is kept is an average of the weights over the latest steps, of all moments the one that
made recordings that were held out likeliest.

Source: exact autoregressive likelihood in place of the ELBO of Zhan et al. 2019, arXiv:1803.07612, whose macro-intents
are the `goals` here; weight averaging: Polyak & Juditsky 1992; cosine schedule: Loshchilov & Hutter 2017.
"""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Generic, Literal, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from understudy.algorithms.ppo import descend
from understudy.core.config import at_least_one, not_negative, share
from understudy.core.errors import ConfigError, DemosError, nearest
from understudy.demos.tracks import REST, Clips, TrackSet, TrackSpec
from understudy.nets.scene import CausalSceneNet, Label, SceneNet, SceneShape

Model = TypeVar("Model", bound=nn.Module)
Loss = Callable[..., Tensor]  # loss(model, clips, config, chance or None)
WARM = 0.05  # share of all steps in which the rate rises


@dataclass(frozen=True)
class Config:
    net: SceneNet = field(default_factory=SceneNet)
    goals: tuple[str, ...] = ()  # labels in whole numbers that say what agents are after
    given: tuple[str, ...] = ()  # labels in whole numbers that are known before a frame comes, such as the beat
    length: int = 64  # frames of a clip
    batch: int = 16  # clips in a gradient step
    agents: int | None = None  # rows of a clip, those who appear first; 0: as many as appear; none: as slots are
    crowd: int | None = None  # agents of a clip at most: one of them and those nearest to it; none: all
    augment: tuple[Literal["rotate", "mirror"], ...] = ()  # positions: turned about the vertical, sides changed
    transpose: int = 0  # symbols on a scale: shifted by up to so many, together, and never off the scale
    steps: int = 20  # gradient steps in one update
    limit: int = 4_000  # gradient steps in all
    rate: float = 2e-3  # at its highest; it ends at 0
    weight_decay: float = 0.05
    averaging: float = 0.99  # weight of what was, in the average of weights, at each step
    goal_weight: float = 1.0
    held_out: float = 0.1  # share of the recordings that decides which weights are kept; 0: the latest
    max_grad_norm: float = 1.0

    def __post_init__(self) -> None:
        at_least_one(self, "length", "batch", "steps", "limit")
        if self.crowd is not None and self.crowd < 1:
            raise ConfigError(f"crowd: got {self.crowd}; a clip shows 1 agent or more.")
        not_negative(self, "rate", "weight_decay", "goal_weight", "transpose")
        share(self, "averaging", "held_out", below=True)
        if both := set(self.goals) & set(self.given):
            raise ConfigError(f"goals, given: {sorted(both)} are in both; what is given is not modelled.")


@dataclass
class State(Generic[Model]):
    """All that changes in training."""

    model: Model
    average: Model  # of its weights over the latest steps
    best: Model  # likeliest average so far for what is held out
    optimizer: torch.optim.Optimizer
    seed: int  # of the split and of the shuffle
    position: int = 0  # gradient steps made
    looked: int = 0  # position of the latest look at what is held out
    best_loss: float = float("inf")
    held_loss: float = float("nan")  # of the latest look


def init(config: Config, tracks: TrackSet | None, env: Any, generator: torch.Generator) -> State:
    """A fresh model with the scales of the recordings. `env` is not used.

    Raises:
        DemosError: there is no recording, or a label that is named is not there or not in whole numbers.
    """
    tracks = recorded(tracks)
    model = CausalSceneNet(net_of(config), shape_of(tracks, config), generator)
    model.fit(some(tracks, config), tracks.spec.low, tracks.spec.high)
    return begun(model, config, generator)


def recorded(tracks: TrackSet | None) -> TrackSet:
    """The recordings. Raises DemosError where there are none."""
    if tracks is None or not tracks.frames:
        raise DemosError("scenes are learnt from recorded tracks alone, and there are none: give it a recording.")
    return tracks


def net_of(config: Config) -> SceneNet:
    """The network's settings, its attention reaching no further than clips show."""
    reach = min(config.net.trunk.window, config.length)
    return replace(config.net, trunk=replace(config.net.trunk, window=reach))


def some(tracks: TrackSet, config: Config) -> Clips:
    """Clips from all over the recordings, for scales."""
    return tracks.batch(0, 256, 0, min(config.length, 64), config.agents)


def begun(model: Model, config: Config, generator: torch.Generator) -> "State[Model]":
    """Where training begins with a fresh model."""
    seed = int(torch.randint(2**31, (), generator=generator))
    small = [p for p in model.parameters() if p.dim() < 2]
    large = [p for p in model.parameters() if p.dim() >= 2]
    groups = [{"params": large, "weight_decay": config.weight_decay}, {"params": small, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW([g for g in groups if g["params"]], lr=config.rate, betas=(0.9, 0.98))
    return State(model, copy.deepcopy(model), copy.deepcopy(model), optimizer, seed)


def update(
    config: Config, state: State, tracks: TrackSet, env: Any, generator: torch.Generator
) -> dict[str, Float[Tensor, ""]]:
    """`steps` gradient steps, then a look at what is held out if a whole pass went by since the last."""
    return advance(config, state, tracks, generator, scene_loss)


def advance(
    config: Config, state: "State[Model]", tracks: TrackSet, generator: torch.Generator, loss_of: Loss
) -> dict[str, Float[Tensor, ""]]:
    """`steps` gradient steps, then a look at what is held out if a whole pass went by since the last."""
    train, held = _parts(tracks, config, state.seed)
    middle: Any = getattr(state.model, "middle", torch.zeros(tracks.spec.dims))
    losses = []
    for _ in range(min(config.steps, config.limit - state.position)):
        clips = train.batch(state.position, config.batch, state.seed, config.length, config.agents)
        clips = augmented(clips, config, tracks.spec, middle, generator)
        for group in state.optimizer.param_groups:
            group["lr"] = _rate(config, state.position)
        loss = loss_of(state.model, clips, config, generator)
        descend(state.optimizer, loss, config.max_grad_norm)
        state.position += 1
        _average(state.average, state.model, min(config.averaging, state.position / (state.position + 9)))
        losses.append(loss.detach())
    a_pass = train.batches_per_epoch(config.batch, config.length)
    if state.position - state.looked >= a_pass or state.position >= config.limit:
        _look_at_held_out(config, state, held, loss_of)
    return {
        "loss": torch.stack(losses).mean(),
        "held_out": torch.tensor(state.held_loss),
        "passes": torch.tensor(state.position / a_pass),
    }


def finished(config: Config, state: State) -> bool:
    """The limit is reached."""
    return state.position >= config.limit


def result(state: "State[Model]") -> Model:
    """The average weights that made what was held out likeliest; the latest where nothing was."""
    return state.best if math.isfinite(state.best_loss) else state.average


def scene_loss(
    model: CausalSceneNet, clips: Clips, config: Config, chance: torch.Generator | None = None
) -> Float[Tensor, ""]:
    """Mean over all moves that count of -log p, in nats; goals, times their weight, are added to the moves' own."""
    found = model(clips, chance)
    return -(found.frames.sum() + config.goal_weight * found.goals.sum()) / found.counted.sum().clamp(min=1)


def shape_of(tracks: TrackSet, config: Config) -> SceneShape:
    """What scenes of these recordings are made of."""
    spec = tracks.spec
    kinds: dict[str, tuple[Any, ...]] = {
        "none": ("anybody",) * spec.agents,
        "role": tuple(zip(spec.teams, spec.roles, strict=True)),
        "agent": spec.names,
    }
    who, teams = _numbered(kinds[config.net.identity]), _numbered(spec.teams)
    if max(who) == max(teams) == 0:
        who, teams = (0,), (0,)
    return SceneShape(
        spec.dims,
        spec.symbols,
        who,
        teams,
        tuple(_label(tracks, name) for name in config.goals),
        tuple(_label(tracks, name) for name in config.given),
    )


def augmented(
    clips: Clips, config: Config, spec: TrackSpec, middle: Float[Tensor, "dim"], chance: torch.Generator
) -> Clips:
    """The clips, each moved as a whole to where it might as well have been; labels stay as they are.

    Args:
        middle: of the field, about which positions turn.
    """
    if spec.symbols:
        return clips if not config.transpose else replace(clips, values=_transposed(clips, config, spec, chance))
    if config.crowd is not None and config.crowd < clips.values.shape[2]:
        clips = _neighbours(clips, config.crowd, chance)
    values, scenes = clips.values, len(clips.values)
    if "mirror" in config.augment:
        side = 1 - 2 * torch.randint(2, (scenes, 1, 1, spec.dims), generator=chance).to(values.dtype)
        side[..., 2:] = 1  # up stays up
        values = middle + (values - middle) * side
    if "rotate" in config.augment:
        angle = 2 * math.pi * torch.rand(scenes, 1, 1, generator=chance)
        x, y = (values - middle)[..., :2].unbind(-1)
        turned = [x * angle.cos() - y * angle.sin(), x * angle.sin() + y * angle.cos()]
        values = torch.cat([torch.stack(turned, dim=-1) + middle[:2], values[..., 2:]], dim=-1)
    return replace(clips, values=values)


def _neighbours(clips: Clips, count: int, chance: torch.Generator) -> Clips:
    """Of each clip one agent, drawn evenly, and those who come nearest to it."""
    appears = clips.present.any(dim=1)
    lot = torch.rand(appears.shape, generator=chance).masked_fill(~appears, -1).argmax(dim=-1)  # [scene]
    one = lot[:, None, None, None]
    there = clips.present & clips.present.gather(2, one[..., 0].expand(-1, clips.present.shape[1], 1))
    offset = clips.values - torch.take_along_dim(clips.values, one, 2)
    near = offset.norm(dim=-1).masked_fill(~there, torch.inf).amin(dim=1)
    near = near.scatter(1, lot.unsqueeze(-1), -1.0)
    chosen = near.topk(count, dim=-1, largest=False).indices.sort(dim=-1).values  # [scene, count]
    slots = torch.arange(appears.shape[1]).expand_as(appears) if clips.slots is None else clips.slots

    def of_chosen(x: Tensor) -> Tensor:
        return torch.take_along_dim(x, chosen.unsqueeze(1).reshape(len(chosen), 1, count, *[1] * (x.dim() - 3)), 2)

    labels = {name: of_chosen(x) if x.dim() == 3 else x for name, x in clips.labels.items()}
    return replace(
        clips,
        values=of_chosen(clips.values),
        present=of_chosen(clips.present),
        labels=labels,
        slots=slots.gather(1, chosen),
    )


def _transposed(clips: Clips, config: Config, spec: TrackSpec, chance: torch.Generator) -> Tensor:
    lowest = 1 if spec.alphabet[:1] == (REST,) else 0
    sounds = clips.present & (clips.values >= lowest)
    top = torch.where(sounds, clips.values, lowest).amax(dim=(1, 2))
    bottom = torch.where(sounds, clips.values, spec.symbols - 1).amin(dim=(1, 2))
    least = (lowest - bottom).clamp(min=-config.transpose).clamp(max=0)
    most = (spec.symbols - 1 - top).clamp(max=config.transpose).clamp(min=0)
    shift = least + (torch.rand(len(top), generator=chance) * (most - least + 1)).long().clamp(max=most - least)
    return torch.where(sounds, clips.values + shift[:, None, None], clips.values)


def _rate(config: Config, position: int) -> float:
    """Up in a line, then down along half a cosine."""
    done, warm = (position + 1) / config.limit, WARM
    if done < warm:
        return config.rate * done / warm
    return config.rate * 0.5 * (1 + math.cos(math.pi * (done - warm) / (1 - warm)))


@torch.no_grad()
def _average(average: nn.Module, model: nn.Module, kept: float) -> None:
    torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - kept)


@torch.no_grad()
def _look_at_held_out(config: Config, state: State[Any], held: TrackSet | None, loss_of: Loss) -> None:
    state.looked = state.position
    if held is None:
        return
    losses, weights = [], []
    for position in range(held.batches_per_epoch(config.batch, config.length)):
        clips = held.batch(position, config.batch, state.seed, config.length, config.agents)
        losses.append(loss_of(state.average, clips, config, None))
        weights.append(clips.present.sum())
    state.held_loss = float((torch.stack(losses) * torch.stack(weights)).sum() / sum(weights))
    if state.held_loss < state.best_loss:
        state.best_loss = state.held_loss
        state.best.load_state_dict(state.average.state_dict())


@lru_cache(maxsize=4)
def _parts(tracks: TrackSet, config: Config, seed: int) -> tuple[TrackSet, TrackSet | None]:
    """Recordings to learn from and recordings held out: at least one of four or more, none of fewer."""
    count = round(config.held_out * len(tracks))
    if len(tracks) < 4 or not config.held_out:
        return tracks, None
    return tracks.split(max(count, 1) / len(tracks), seed)


def _label(tracks: TrackSet, name: str) -> Label:
    if name not in tracks.labels:
        raise DemosError(f"label `{name}`: these recordings have none of that name.{nearest(name, tracks.labels)}")
    label = tracks.labels[name]
    if label.is_floating_point() or not len(label) or int(label.max()) < 0:
        raise DemosError(f"label `{name}`: whole numbers from 0 are meant, -1 where unknown; these are {label.dtype}.")
    return Label(name, int(label.max()) + 1, label.dim() == 2)


def _numbered(names: tuple[Any, ...]) -> tuple[int, ...]:
    order = list(dict.fromkeys(names))
    return tuple(order.index(name) for name in names)
