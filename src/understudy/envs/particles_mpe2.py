"""The nine particle scenarios of mpe2 1.1.1, equal to it step by step: what is seen, paid and played, and when it ends.

Each is a frozen dataclass whose defaults are mpe2's. Not here: mpe2's own curricula and its option to see the nearest
neighbours alone.

Source: mpe2 1.1.1, the files `simple*/simple*.py`; Mordatch and Abbeel 2018, arXiv:1703.04908; Lowe et al. 2017,
arXiv:1706.02275.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from understudy.core.errors import ConfigError
from understudy.envs.particles_physics import State, World, distances
from understudy.envs.particles_scenario import Scenario, lay, others, parts, towards

BLUE, RED, GREEN, GREY, DARK = "#4c72d9", "#d95f5f", "#55a868", "#9a9a9a", "#555555"


@dataclass(frozen=True)
class Simple(Scenario):
    """One agent walks to the landmark: r = -distance^2. Sees its velocity and the offset to the landmark."""

    continuous: bool = False
    horizon: int | None = 25

    title: ClassVar[str] = "simple"

    def make_world(self) -> World:
        return World(
            names=("agent_0",), sees=(4,), radius=(0.05, 0.05), colour=(DARK, RED), reach=(1.0, 1.0), push=(5.0,)
        )

    def observe(self, state: State) -> Float[Tensor, "env agent obs"]:
        s = parts(state)
        return lay(torch.cat([s.velocity, s.landmarks - s.agents], dim=1))

    def rewards(self, state: State) -> Float[Tensor, "agent env"]:
        s = parts(state)
        return -(s.agents - s.landmarks).square().sum(1)


@dataclass(frozen=True)
class Spread(Scenario):
    """Agents cover the landmarks and keep out of each other's way.

    r_i = (1 - local_ratio) * -sum_landmarks min_agents distance + local_ratio * -(how many others i overlaps).
    Each sees its velocity and position, offsets to landmarks and to the others, and two zeros (a message nobody
    sends) for each other agent.
    """

    agents: int = 3
    landmarks: int | None = None  # as many as agents where None
    local_ratio: float = 0.5  # weight of the agent's own collisions, the rest is the shared distance
    terminate_on_success: bool = False  # over when every landmark has an agent within 0.1
    continuous: bool = False
    horizon: int | None = 25

    title: ClassVar[str] = "spread"

    def __post_init__(self) -> None:
        self.require(agents=1)
        if self.landmarks is not None:
            self.require(landmarks=1)
        if not 0 <= self.local_ratio <= 1:
            raise ConfigError(f"local_ratio: got {self.local_ratio}, but it is a proportion, from 0 to 1.")

    def make_world(self) -> World:
        n, m = self.agents, self.agents if self.landmarks is None else self.landmarks
        return World(
            names=tuple(f"agent_{i}" for i in range(n)),
            sees=(4 + 2 * m + 4 * (n - 1),) * n,
            radius=(0.15,) * n + (0.05,) * m,
            colour=(BLUE,) * n + (DARK,) * m,
            reach=(1.0,) * (n + m),
            push=(5.0,) * n,
            solid=n,
        )

    def observe(self, state: State) -> Float[Tensor, "env agent obs"]:
        s, landmarks = parts(state), tuple(range(self.agents, self.world.bodies))
        table = tuple(landmarks + row for row in others(self.agents))
        silence = s.velocity.new_zeros(self.agents, 2 * (self.agents - 1), len(state.position))
        return lay(torch.cat([s.velocity, s.agents, towards(state, table), silence], dim=1))

    def rewards(self, state: State) -> Float[Tensor, "agent env"]:
        s = parts(state)
        shared = -distances(s.landmarks, s.agents).amin(1).sum(0)
        overlaps = (distances(s.agents, s.agents) < 2 * self.world.radius[0]).sum(1) - 1  # less the agent itself
        return (1 - self.local_ratio) * shared - self.local_ratio * overlaps

    def over(self, state: State) -> Bool[Tensor, "env"]:
        if not self.terminate_on_success:
            return Scenario.over(self, state)
        s = parts(state)
        return (distances(s.landmarks, s.agents).amin(1) < 0.1).all(0)
