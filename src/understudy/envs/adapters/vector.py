"""A door for Gymnasium's vector environments, whose copies begin again by themselves, each kind in its own way.

What a step led to is always the observation BEFORE the reset here, and no step is kept whose action was ignored:

    DISABLED    nothing happens until `restart`, which resets the copies that ended (`reset_mask`).
    SAME_STEP   the step returns what comes after the reset; the outcome is `infos["final_obs"]`, and what came after
                is kept for `restart`.
    NEXT_STEP   the step after the end ignores its action and resets. Between `restart` and that step nobody is
                `present`, for there is nothing to see: that step is none.

Gymnasium's own SyncVectorEnv and AsyncVectorEnv know `reset_mask` in every mode, so with them `restart` itself resets,
seeded by its noise. Others restart in their own time and by their own chance in SAME_STEP and NEXT_STEP.
"""

import traceback
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.vector.utils import concatenate, create_empty_array, iterate

from understudy.core.errors import EnvError
from understudy.core.symmetry import Groups, expect_symmetries
from understudy.envs.adapters.doors import Door
from understudy.envs.adapters.fleet import RESET, SKIP, carve, room
from understudy.envs.adapters.layout import MASK, Layout, lay_out


def from_vector(envs: VectorEnv, *, horizon: int | None = None, symmetries: Groups = ()) -> Door:
    """A Gymnasium `VectorEnv` as one environment with one agent and `envs.num_envs` copies.

    Unlike behind the other doors, a copy that has ended does not wait: to step on without `restart` is an EnvError.

    Args:
        envs: the running vector environment; the door closes it.
        horizon: steps after which to truncate; None: that with which the env was registered.
        symmetries: as in `from_parallel`.
    """
    layout = lay_out(
        ["agent_0"],
        [envs.single_observation_space],
        [envs.single_action_space],
        horizon=horizon or getattr(envs.spec, "max_episode_steps", None),
        title=envs.spec.id if envs.spec else type(envs.unwrapped).__name__,
        reset_noise=2,
    )
    expect_symmetries(symmetries, layout.spec)
    return Door(layout, VectorFleet(envs, layout), symmetries)


class VectorFleet:
    """A vector environment behind the arrays of a `Fleet`."""

    divisible = False  # all copies step together

    def __init__(self, envs: VectorEnv, layout: Layout) -> None:
        self.envs, self.layout, self.closed = envs, layout, False
        self.arrays = carve(layout, envs.num_envs, bytearray(room(layout, envs.num_envs)))
        self.mode = AutoresetMode(envs.metadata.get("autoreset_mode", AutoresetMode.NEXT_STEP))
        self.by_mask = self.mode is AutoresetMode.DISABLED or isinstance(envs.unwrapped, SyncVectorEnv | AsyncVectorEnv)
        self.begun: list[tuple[np.ndarray, np.ndarray | None]] = []  # what SAME_STEP showed after its resets

    def run(self) -> None:
        if self.closed:
            raise EnvError("this door is closed; open another one.")
        resets = self.arrays["todo"] == RESET
        if not resets.any() and (self.arrays["todo"] == SKIP).any():
            raise EnvError("state: some copies have ended, and a vector environment's do not wait: `restart` them.")
        try:
            self._reset(resets) if resets.any() else self._step()
        except EnvError:
            raise
        except Exception as error:
            self.close()
            raise EnvError(f"the vector environment raised:\n{traceback.format_exc()}") from error

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self.envs.close()

    def _reset(self, which: np.ndarray) -> None:
        seeds: Any = self.arrays["seed"].tolist()
        if which.all() or self.by_mask:
            options = None if which.all() else {"reset_mask": which}
            rows = list(self._rows(*self.envs.reset(seed=seeds, options=options)))
        else:
            if (which & ~(self.arrays["terminated"] | self.arrays["truncated"])).any():
                raise EnvError(
                    f"ended: this vector environment resets by itself ({self.mode.value}) and knows no other way; only "
                    "copies that it has ended can be restarted. Leave the door's horizon to its own time limit."
                )
            nothing = np.zeros(self.layout.spec.obs, dtype=np.float32), self.layout.legal(0)
            rows = self.begun if self.mode is AutoresetMode.SAME_STEP else [nothing] * len(which)
        for i in np.flatnonzero(which).tolist():
            self._write(i, *rows[i])
        present = self.by_mask or which.all() or self.mode is AutoresetMode.SAME_STEP
        for name, value in {"present": present, "rewards": 0, "terminated": False, "truncated": False}.items():
            self.arrays[name][which] = value

    def _step(self) -> None:
        arrays, space = self.arrays, self.envs.single_action_space
        chosen = [self.layout.act(0, row[0]) for row in arrays["actions"]]
        empty: Any = create_empty_array(space, len(chosen))
        actions = concatenate(space, chosen, empty)
        obs, rewards, terminated, truncated, infos = self.envs.step(actions)
        rows = list(self._rows(obs, infos))
        ended = np.flatnonzero(terminated | truncated).tolist()
        if self.mode is AutoresetMode.SAME_STEP:
            self.begun = list(rows)
            for i in ended:
                rows[i] = self.layout.read(0, infos["final_obs"][i])
        for i, row in enumerate(rows):
            self._write(i, *row)
        arrays["rewards"][:, 0], arrays["present"][...] = rewards, True
        arrays["terminated"][...], arrays["truncated"][...] = terminated, truncated & ~terminated

    def _rows(self, obs: Any, infos: Mapping[str, Any]) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
        """What each copy shows: its flat observation and its legal moves."""
        masks, given = infos.get(MASK), infos.get(f"_{MASK}", ())
        if masks is None and isinstance(self.envs.single_observation_space, spaces.Box):
            legal = self.layout.legal(0)
            yield from ((flat, legal) for flat in obs.reshape(len(obs), -1).astype(np.float32))
            return
        for i, seen in enumerate(iterate(self.envs.observation_space, obs)):
            info = {MASK: masks[i]} if masks is not None and given[i] else {}
            yield self.layout.read(0, seen, info)

    def _write(self, i: int, flat: np.ndarray, legal: np.ndarray | None) -> None:
        self.arrays["obs"][i, 0] = flat
        if legal is not None:
            self.arrays["legal"][i, 0] = legal
