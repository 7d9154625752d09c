"""Small simulators in the manners of PettingZoo and Gymnasium, whose every answer can be foretold."""

from typing import ClassVar

import numpy as np
from gymnasium import Env, spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from pettingzoo import ParallelEnv


class Lives(ParallelEnv):
    """Agents with a birth and a death, in steps: each sees the step it is in, and is paid 1 for a step it lives.

    All are cut off at step `limit`, if the last has not died before.
    """

    metadata: ClassVar = {"name": "lives"}

    def __init__(self, lives=((0, 3), (1, 5), (0, 9)), limit=7):
        self.lives, self.limit = lives, limit
        self.possible_agents = [f"mortal_{i}" for i in range(len(lives))]

    def observation_space(self, agent):
        return spaces.Box(0, 100, (1,), np.float64)

    def action_space(self, agent):
        return spaces.Discrete(2)

    def _living(self):
        return [
            a for a, (birth, death) in zip(self.possible_agents, self.lives, strict=True) if birth <= self.t < death
        ]

    def reset(self, seed=None, options=None):
        self.t = 0
        self.agents = self._living()
        return {a: np.array([10.0]) for a in self.agents}, {a: {} for a in self.agents}

    def step(self, actions):
        assert set(actions) == set(self.agents)
        self.t += 1
        played, living = self.agents, self._living()
        seen = [a for a in self.possible_agents if a in played or a in living]
        terminations = {a: a not in living for a in seen}
        truncations = {a: self.t >= self.limit and a in living for a in seen}
        self.agents = [a for a in living if not truncations[a]]
        obs = {a: np.array([10.0 + self.t]) for a in seen}
        return obs, {a: float(a in played) for a in seen}, terminations, truncations, {a: {} for a in seen}


class Tools(ParallelEnv):
    """Two agents with the spaces that are given; what they did comes back in `did`. Odd steps mask all but 1."""

    metadata: ClassVar = {"name": "tools"}
    render_mode = None

    def __init__(self, observations, actions, masks=None):
        self.possible_agents = ["first_0", "second_0"]
        self.observations = dict(zip(self.possible_agents, observations, strict=True))
        self.actions = dict(zip(self.possible_agents, actions, strict=True))
        self.masks = masks or {}
        self.did = []

    def observation_space(self, agent):
        return self.observations[agent]

    def action_space(self, agent):
        return self.actions[agent]

    def reset(self, seed=None, options=None):
        self.agents = list(self.possible_agents)
        for agent in self.agents:
            self.observations[agent].seed(seed)
        return self._look()

    def step(self, actions):
        self.did.append(actions)
        obs, infos = self._look()
        zeros = dict.fromkeys(self.agents, 0.0)
        return obs, zeros, dict.fromkeys(self.agents, False), dict.fromkeys(self.agents, False), infos

    def _look(self):
        self.seen = {a: self.observations[a].sample() for a in self.agents}
        return self.seen, {a: {"action_mask": self.masks[a]} if a in self.masks else {} for a in self.agents}


class Breaks(Env):
    """Raises at its third step, from a function with a name that a traceback must show."""

    observation_space = spaces.Box(0, 1, (1,))
    action_space = spaces.Discrete(2)

    def reset(self, seed=None, options=None):
        self.t = 0
        return np.zeros(1, dtype=np.float32), {}

    def step(self, action):
        self.t += 1
        if self.t == 3:
            self.snap()
        return np.zeros(1, dtype=np.float32), 0.0, False, False, {}

    def snap(self):
        raise ZeroDivisionError("the third step is one too many")


class Counts(Env):
    """Sees [seed % 1000, steps since the reset]; over, terminated or truncated, after `length` steps."""

    observation_space = spaces.Box(0, 1000, (2,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self, length, truncates=False):
        self.length, self.truncates, self.seed = length, truncates, -1

    def reset(self, seed=None, options=None):
        self.seed = self.seed + 1 if seed is None else seed % 1000
        self.t = 0
        return np.array([self.seed, 0], dtype=np.float32), {}

    def step(self, action):
        self.t += 1
        over = self.t == self.length
        obs = np.array([self.seed, self.t], dtype=np.float32)
        return obs, float(self.t), over and not self.truncates, over and self.truncates, {}


class Foreign(VectorEnv):
    """A vector env that resets by itself alone: it knows no `reset_mask`."""

    def __init__(self, makes, mode):
        self.inner = SyncVectorEnv(makes, autoreset_mode=mode)
        self.num_envs, self.metadata = len(makes), {"autoreset_mode": AutoresetMode(mode)}
        self.single_observation_space, self.single_action_space = (
            self.inner.single_observation_space,
            self.inner.single_action_space,
        )
        self.observation_space, self.action_space = self.inner.observation_space, self.inner.action_space

    def reset(self, *, seed=None, options=None):
        assert not options
        return self.inner.reset(seed=seed)

    def step(self, actions):
        return self.inner.step(actions)


class Choosy(Env):
    """One move in three is illegal, and refused; the mask stands in the observation or in the info. Over at step 4."""

    action_space = spaces.Discrete(3, start=7)

    def __init__(self, where):
        self.where = where
        mask, seen = spaces.MultiBinary(3), spaces.Discrete(5)
        carried = spaces.Dict({"observation": seen, "action_mask": mask})
        self.observation_space = carried if where == "obs" else seen

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self._look()

    def step(self, action):
        assert self.mask[action - 7], "an illegal move"
        self.t += 1
        obs, info = self._look()
        return obs, float(action), self.t == 4, False, info

    def _look(self):
        self.mask = np.arange(3) != (self.t + self.np_random_seed) % 3
        if self.where == "obs":
            return {"observation": self.t, "action_mask": self.mask.astype(np.int8)}, {}
        return self.t, {"action_mask": self.mask.astype(np.int8)}
