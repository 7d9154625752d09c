"""Four particle scenarios as the papers on multi-agent adversarial imitation used them, to compare returns with.

They differ from mpe2's of the same idea: velocity is updated before the position, move 1 is +x and 3 is +y, an episode
has 50 steps, agents of a cooperative scenario are each paid the SUM of all agents' rewards, and reaching the goal ends
an episode. The last gives a learner an incentive of its own (a short episode has a small loss), which an imitator may
pick up without looking at behaviour; `fixed_horizon=True` plays all 50 steps.

A published return is the sum of one agent's rewards over an episode, the mean over episodes. In the cooperative
scenarios all agents' returns are equal, so there is one figure.

Source: Song et al. 2018, arXiv:1807.09936; Yu et al. 2019, arXiv:1907.13220, and its release, MA-AIRL,
`multi-agent-particle-envs/multiagent/scenarios/`.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from understudy.envs.particles_mpe2 import BLUE, DARK
from understudy.envs.particles_physics import State, World, distances
from understudy.envs.particles_scenario import Scenario, lay, others, parts, towards


@dataclass(frozen=True)
class Navigation(Scenario):
    """Cooperative navigation: as many agents as landmarks, to be covered without overlap.

    Every agent is paid sum_i r_i with r_i = -sum_landmarks min_agents distance + sum_a min(distance(i, a) - 0.3, 0).
    The last sum includes a = i, as published: a constant -0.3 for each agent in each step. Over when every landmark
    has an agent within 0.1. Each agent sees its velocity, offsets to landmarks and others, and two zeros for each
    other; not where it stands.
    """

    agents: int = 3
    fixed_horizon: bool = False
    continuous: bool = False
    horizon: int | None = 50

    title: ClassVar[str] = "navigation"

    def __post_init__(self) -> None:
        self.require(agents=1)

    def make_world(self) -> World:
        n = self.agents
        return World(
            names=tuple(f"agent_{i}" for i in range(n)),
            sees=(2 + 2 * n + 4 * (n - 1),) * n,
            radius=(0.15,) * n + (0.05,) * n,
            colour=(BLUE,) * n + (DARK,) * n,
            reach=(1.0,) * (2 * n),
            push=(5.0,) * n,
            solid=n,
            paper=True,
        )

    def observe(self, state: State) -> Float[Tensor, "env agent obs"]:
        s, landmarks = parts(state), tuple(range(self.agents, self.world.bodies))
        table = tuple(landmarks + row for row in others(self.agents))
        silence = s.velocity.new_zeros(self.agents, 2 * (self.agents - 1), len(state.position))
        return lay(torch.cat([s.velocity, towards(state, table), silence], dim=1))

    def rewards(self, state: State) -> Float[Tensor, "agent env"]:
        s = parts(state)
        shared = -self.agents * distances(s.landmarks, s.agents).amin(1).sum(0)
        overlaps = (distances(s.agents, s.agents) - 2 * self.world.radius[0]).clamp(max=0).sum((0, 1))
        return (shared + overlaps).expand(self.agents, -1)

    def over(self, state: State) -> Bool[Tensor, "env"]:
        if self.fixed_horizon:
            return Scenario.over(self, state)
        s = parts(state)
        return (distances(s.landmarks, s.agents).amin(1) <= 0.1).all(0)
