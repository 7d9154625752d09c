"""Lists of trajectories, as the library `imitation` keeps them: one agent, `obs` one longer than `acts`.

Anything with the fields of `Trajectory` is read, `imitation.data.types.Trajectory` and `TrajectoryWithRew` among them.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from understudy.core.errors import DemosError
from understudy.core.types import EnvSpec
from understudy.demos.demos import Demos
from understudy.demos.episode import About
from understudy.demos.formats.common import from_arrays, infer_action, noted, refusing, usual


@dataclass(frozen=True)
class Trajectory:
    """One episode of one agent, in `imitation`'s words."""

    obs: np.ndarray  # [moment, obs]
    acts: np.ndarray  # [step] or [step, number]
    rews: np.ndarray | None  # [step]
    terminal: bool  # the game was over; else the recording stopped
    infos: None = None


def from_trajectories(trajectories: Iterable[Any], spec: EnvSpec | None = None, about: About | None = None) -> Demos:
    """Demos of one agent. Real numbers become float32; `infos` are left out, and the notes say so.

    Args:
        spec: inferred where None; a move that nobody made cannot be inferred.

    Raises:
        DemosError: obs are not one longer than acts, or are no numbers.
    """
    episodes, told = [], about or About()
    with refusing("trajectories", "a list of trajectories"):
        for i, each in enumerate(trajectories):
            obs, acts = np.asarray(each.obs), np.asarray(each.acts)
            if obs.ndim < 2 or acts.ndim not in (1, 2) or len(obs) != len(acts) + 1:
                raise DemosError(f"trajectory {i}: obs are {obs.shape} and acts {acts.shape}; obs must be one longer.")
            arrays = {"obs": obs.reshape(len(obs), 1, -1), "actions": acts[:, None]}
            if getattr(each, "rews", None) is not None:
                arrays["rewards"] = np.asarray(each.rews)[:, None]
            if getattr(each, "infos", None) is not None and not told.notes.endswith("infos."):
                told = noted(told, "Left out: infos.")
            episodes.append(({n: usual(n, a) for n, a in arrays.items()}, bool(each.terminal)))
        if spec is None:
            if not episodes:
                raise DemosError("there is no trajectory, so nothing that a spec could be inferred from.")
            actions = np.concatenate([arrays["actions"] for arrays, _ in episodes])
            spec = EnvSpec(agents=1, obs=episodes[0][0]["obs"].shape[-1], action=infer_action(actions))
        made = [
            from_arrays(arrays, {"name": f"trajectory_{i}", "weight": 1.0, "info": {}}, over, not over)
            for i, (arrays, over) in enumerate(episodes)
        ]
        return Demos.from_episodes(spec, made, told)


def to_trajectories(demos: Demos, agent: int = 0) -> list[Trajectory]:
    """What one agent of each episode saw and did. The others, and all masks and labels, are left behind.

    Raises:
        DemosError: the agent is missing for a while; a trajectory has no place for that.
    """
    made = []
    for i, episode in enumerate(demos):
        if episode.present is not None and not bool(episode.present[:, agent].all()):
            raise DemosError(f"episode {i}: agent {agent} is missing for a while, and a trajectory has no gaps.")
        rewards = None if episode.rewards is None else episode.rewards[:, agent].numpy()
        obs, acts = episode.obs[:, agent].numpy(), episode.actions[:, agent].numpy()
        made.append(Trajectory(obs, acts, rewards, terminal=episode.terminated))
    return made
