"""The models that multi-agent behavioural cloning was published with: recurrent, with latents and macro-goals.

    minimise  - sum over scenes and frames of  E_q [ log p(frame_t | z, past, goals_t) ] - KL(q || p)

Which model it is says `net.kind`: see `nets.vrnn`. Those with goals learn in two stages, as published: for the first
`goals_first` of all gradient steps only how goals follow each other, then only how agents go after the goals that were
recorded. vrae_mi adds `information` times a bound of what a scene tells of its latent.

Source: Zhan et al. 2019, arXiv:1803.07612. Clips, the schedule of the rate, averages and what is held out are those of
`scene` (settings in `schedule`), so all models of scenes are compared under one protocol; `PUBLISHED_SCHEDULE` is the
paper's, but for a rate that falls. Published code makes a new Adam in every epoch, chooses weights on the test set, and
by default skips the first stage; here none of that is so.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from understudy.algorithms import scene
from understudy.core.config import not_negative, share
from understudy.core.errors import ConfigError, DemosError
from understudy.demos.tracks import Clips, TrackSet
from understudy.nets.vrnn import RecurrentNet, RecurrentSceneNet

State = scene.State[RecurrentSceneNet]
SEED_OF_LOOKS = 0  # latents with which what is held out is looked at: always the same
# 200 passes over 32,768 sequences; 10 is the bound for the gradient of a SUM over the batch
PUBLISHED_SCHEDULE: Mapping[str, Any] = {
    "batch": 512, "limit": 12_800, "rate": 1e-4, "weight_decay": 0.0, "averaging": 0.0, "max_grad_norm": 10.0,
}  # fmt: skip


@dataclass(frozen=True)
class Config:
    net: RecurrentNet = field(default_factory=RecurrentNet)
    schedule: scene.Config = field(default_factory=lambda: scene.Config(weight_decay=0.0))  # its `net` is not used
    goals_first: float = 0.25  # share of the gradient steps that learn goals alone, where there are any
    information: float = 1.0  # weight of what a scene tells of its latent, of vrae_mi

    def __post_init__(self) -> None:
        share(self, "goals_first", below=True)
        not_negative(self, "information")
        if self.schedule.given or self.schedule.crowd is not None or self.schedule.agents is not None:
            raise ConfigError(
                "schedule: these models know of goals alone, and of all agents (no given, crowd, agents)."
            )


def init(config: Config, tracks: TrackSet | None, env: Any, generator: torch.Generator) -> State:
    """A fresh model with the scales of the recordings. `env` is not used.

    Raises:
        DemosError: as `scene.init`; also where an agent is ever missing, or a recording is shorter than a clip.
        ConfigError: the model has other goals than are named.
    """
    tracks = scene.recorded(tracks)
    spec, length = tracks.spec, config.schedule.length
    if spec.symbols:
        raise DemosError("tracks: agents give symbols, and these models are of positions. Use `scene`.")
    if not tracks.present.all():
        raise DemosError("tracks: agents are missing at times, and these models know no absence. Use `scene`.")
    if length < 2 or int(tracks.lengths.min()) < length:
        raise DemosError(
            f"length: clips of {length} frames, of recordings of {int(tracks.lengths.min())} and more: these models "
            "read whole clips of two frames or more."
        )
    shape = scene.shape_of(tracks, config.schedule)
    model = RecurrentSceneNet(config.net, shape, spec.agents, generator)
    model.fit(scene.some(tracks, config.schedule))
    return scene.begun(model, config.schedule, generator)


def update(
    config: Config, state: State, tracks: TrackSet, env: Any, generator: torch.Generator
) -> dict[str, Float[Tensor, ""]]:
    """`schedule.steps` gradient steps, then a look at what is held out if a whole pass went by since the last."""
    goals_alone = bool(config.schedule.goals) and state.position < config.goals_first * config.schedule.limit
    loss = partial(model_loss, information=config.information, goals_alone=goals_alone)
    return scene.advance(config.schedule, state, tracks, generator, loss)


def finished(config: Config, state: State) -> bool:
    """The limit is reached."""
    return scene.finished(config.schedule, state)


result = scene.result


def model_loss(
    model: RecurrentSceneNet,
    clips: Clips,
    config: scene.Config,
    chance: torch.Generator | None = None,
    *,
    information: float = 1.0,
    goals_alone: bool = False,
) -> Float[Tensor, ""]:
    """Mean over all moves of minus the bound, in nats for numbers in the net's own scale.

    Args:
        chance: draws latents, and what is learnt is the stage's. None: what is held out is looked at, goals and all.
    """
    moves = clips.present[:, 1:].sum()
    if chance is None:
        source = torch.Generator(clips.values.device).manual_seed(SEED_OF_LOOKS)
        return -(model.elbo(clips, source).sum() + config.goal_weight * model.aimed(clips).sum()) / moves
    if goals_alone:
        return -config.goal_weight * model.aimed(clips).sum() / moves
    loss = -model.elbo(clips, chance).sum()
    if model.family.latent == "scene" and information:
        loss = loss - information * model.information(clips, chance).sum()
    return loss / moves
