"""MaskedScene: learn to fill in whatever is hidden of a recorded scene, given all that is not.

Each clip is hidden in one of four ways, drawn by chance: single moments of agents, spans of an agent's frames, whole
agents, or all that lies after a frame. The model (`nets.masked_scene`) learns to draw what was hidden: by flow matching
for positions, by the likelihood of hidden symbols. Missing agents, gaps, way-points, futures and edits are then one
thing: say what is known, and fill in the rest.

Source: hiding agents and times by one mask, and learning all uses at once: Xu et al. 2024, arXiv:2405.17680 (UniTraj);
Uria et al. 2014, arXiv:1310.1757 for symbols. Settings and training (averages, schedule, what is held out) are those of
`scene`.
"""

from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from understudy.algorithms import scene
from understudy.algorithms.scene import Config
from understudy.core.errors import ConfigError
from understudy.demos.tracks import Clips, TrackSet
from understudy.nets.masked_scene import MaskedSceneNet

State = scene.State[MaskedSceneNet]
WAYS = 4


def init(config: Config, tracks: TrackSet | None, env: Any, generator: torch.Generator) -> State:
    """A fresh model with the scales of the recordings. `env` is not used, nor are the heads that `config.net` sets.

    Raises:
        DemosError: as `scene.init`. ConfigError: goals are named.
    """
    if config.goals:
        raise ConfigError("goals: a masked model has none. Name them as given, or set way-points as known.")
    tracks = scene.recorded(tracks)
    net = replace(
        config.net, trunk=replace(config.net.trunk, window=config.length)
    )  # all times of a clip see each other
    model = MaskedSceneNet(net, scene.shape_of(tracks, config), config.length, generator)
    clips = tracks.batch(0, 256, 0, config.length, config.agents)
    model.fit(clips, hidden_by_chance(clips.present, generator))
    return scene.begun(model, config, generator)


def update(
    config: Config, state: State, tracks: TrackSet, env: Any, generator: torch.Generator
) -> dict[str, Float[Tensor, ""]]:
    """`steps` gradient steps, then a look at what is held out if a whole pass went by since the last."""
    return scene.advance(config, state, tracks, generator, fill_loss)


def finished(config: Config, state: State) -> bool:
    """The limit is reached."""
    return scene.finished(config, state)


def result(state: State) -> MaskedSceneNet:
    """The average weights that filled in best what was held out; the latest where nothing was."""
    return scene.result(state)


def fill_loss(model: MaskedSceneNet, clips: Clips, config: Config, chance: torch.Generator | None) -> Float[Tensor, ""]:
    """The model's loss where a mask drawn by chance hides; None: by one that is always the same, for held out clips."""
    chance = torch.Generator(device=clips.present.device).manual_seed(0) if chance is None else chance
    return model.loss(clips, hidden_by_chance(clips.present, chance), chance)


def hidden_by_chance(
    present: Bool[Tensor, "scene time agent"], chance: torch.Generator
) -> Bool[Tensor, "scene time agent"]:
    """Who is told and when: each scene hides in one of four ways, by a share of its own between 0 and 1.

    Single moments; a span of each agent's frames; whole agents; everything from a frame on. The first agent that is
    there is told at its first frame where else nothing would be.
    """
    scenes, frames, agents = present.shape

    def drawn(*shape: int) -> Tensor:
        return torch.rand(shape, generator=chance, device=present.device)

    way, share = torch.randint(WAYS, (scenes, 1, 1), generator=chance, device=present.device), drawn(scenes, 1, 1)
    t = torch.arange(frames, device=present.device)[:, None] / frames
    begin = drawn(scenes, 1, agents) * (1 - share)
    hidden = torch.where(way == 0, drawn(scenes, frames, agents) < share, (t >= begin) & (t < begin + share))
    hidden = torch.where(way == 2, (drawn(scenes, 1, agents) < share).expand_as(hidden), hidden)
    hidden = torch.where(way == 3, (t >= share).expand_as(hidden), hidden)
    known = present & ~hidden
    nothing = ~known.flatten(1).any(dim=1, keepdim=True)
    first = present.flatten(1).int().argmax(dim=1, keepdim=True)
    told = torch.zeros_like(known.flatten(1)).scatter(1, first, nothing).unflatten(1, (frames, agents))
    return known | (told & present)
