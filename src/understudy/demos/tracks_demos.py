"""Tracks as demos and demos as tracks: positions become what is seen, and steps between them what is done."""

import math
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from understudy.core.errors import DemosError
from understudy.core.types import Continuous, Discrete, EnvSpec
from understudy.demos.demos import Demos
from understudy.demos.episode import Episode
from understudy.demos.formats.common import noted
from understudy.demos.tracks import Tracks, TrackSet, TrackSpec


def to_demos(tracks: TrackSet) -> Demos:
    """Demos in which each agent sees its own position and moves by the way to the next, in the set's unit.

    Agents that give symbols see the last one, as a one-hot, and choose the next. An agent is present at a moment if it
    is there then and at the next one: its last sighting before a gap leads to nothing that was recorded. A recording
    of one frame has no step, and is left out (the notes say how many). Labels that are not known (nan) become 0.

    Raises:
        DemosError: no recording has two frames.
    """
    spec = tracks.spec
    long = [each for each in tracks if len(each) > 1]
    if not long:
        raise DemosError("tracks: no recording has two frames, so there is no step in them.")
    env = EnvSpec(
        agents=spec.agents,
        obs=spec.dims or spec.symbols,
        action=Continuous(spec.dims, -math.inf, math.inf) if spec.dims else Discrete(spec.symbols),
        names=spec.names,
        roles=spec.roles,
        teams=spec.teams,
        dt=spec.dt if spec.clock == "s" else None,
        title=spec.title,
    )
    about = tracks.about
    for line in map(str, tracks.omissions):
        about = noted(about, line)
    if len(long) < len(tracks):
        about = noted(about, f"{len(tracks) - len(long)} of {len(tracks)} recordings of one frame left out.")
    return Demos.from_episodes(env, [_episode(each, spec) for each in long], about)


def positions_of(
    demos: Demos,
    where: Sequence[int] | Callable[[Episode], Float[Tensor, "moment agent dim"]] = (0, 1),
    unit: str = "",
) -> TrackSet:
    """Where the agents of demos were at each moment, the one after the last step included.

    Args:
        where: the numbers of what an agent sees that are its position, or a function of an episode.
        unit: of the positions.
    """
    find = where if callable(where) else lambda episode: episode.obs[..., list(where)].float()
    made = []
    for episode in demos:
        values = find(episode)
        present = torch.ones(values.shape[:2], dtype=torch.bool) if episode.present is None else episode.present
        labels = {name: _closed(label) for name, label in episode.labels.items()}
        made.append(Tracks(values, present, labels, episode.name, episode.info))
    dims = made[0].values.shape[-1] if made else 2
    return TrackSet.of(_spec(demos, dims=dims, unit=unit), made, demos.about)


def actions_of(demos: Demos) -> TrackSet:
    """What the agents of demos chose at each step, as symbols. Raises DemosError unless actions are `Discrete`."""
    if not isinstance(demos.spec.action, Discrete):
        raise DemosError(f"demos: actions are {demos.spec.action}, and symbols are one choice of several (Discrete).")
    made = []
    for episode in demos:
        there = torch.ones_like(episode.actions, dtype=torch.bool)
        present = there if episode.present is None else episode.present[:-1]
        made.append(Tracks(episode.actions, present, episode.labels, episode.name, episode.info))
    return TrackSet.of(_spec(demos, dims=0, symbols=max(2, demos.spec.action.choices), unit=""), made, demos.about)


def _spec(demos: Demos, *, dims: int, unit: str, symbols: int = 0) -> TrackSpec:
    spec = demos.spec
    return TrackSpec(
        agents=spec.agents,
        dims=dims,
        symbols=symbols,
        dt=spec.dt or 1.0,
        clock="s" if spec.dt else "step",
        unit=unit,
        names=spec.names,
        teams=spec.teams,
        roles=spec.roles,
        title=spec.title,
    )


def _episode(tracks: Tracks, spec: TrackSpec) -> Episode:
    there = tracks.present.clone()
    there[:-1] &= tracks.present[1:]
    if spec.dims:
        obs, actions = tracks.values, tracks.values.diff(dim=0) * there[:-1].unsqueeze(-1)
    else:
        obs, actions = torch.nn.functional.one_hot(tracks.values, spec.symbols).float(), tracks.values[1:]
    labels = {name: label[:-1] for name, label in tracks.labels.items()}
    unknown = {name: label.nan_to_num(0.0) if label.is_floating_point() else label for name, label in labels.items()}
    return Episode(obs, actions, present=there, labels=unknown, name=tracks.name, info=tracks.info)


def _closed(label: Tensor) -> Tensor:
    """A label of steps with an unknown one after the last."""
    unknown = math.nan if label.is_floating_point() else -1
    return torch.cat([label, torch.full_like(label[:1], unknown)])
