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

from understudy.envs.particles_mpe2 import (
    BLUE,
    DARK,
    GREEN,
    HUNTER,
    PREY,
    RED,
    chasing_rewards,
    chasing_sight,
    chasing_world,
    distance_to_hear,
    listening_sight,
    listening_world,
    push_rewards,
    push_sight,
)
from understudy.envs.particles_native import CATCH, Paid
from understudy.envs.particles_physics import State, World, distances
from understudy.envs.particles_scenario import Scenario, lay, parts, pick, sight
from understudy.envs.particles_sight import Eyes, Seen


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

    def seen(self, eyes: Eyes) -> list[Seen]:
        return eyes.velocity + eyes.landmarks + eyes.others + eyes.silence

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


@dataclass(frozen=True)
class Communication(Scenario):
    """Cooperative communication: `SpeakerListener` with both paid -2 * distance, the sum of two equal rewards.

    Over when the listener is within 0.035 of the goal.
    """

    fixed_horizon: bool = False
    continuous: bool = False
    horizon: int | None = 50

    title: ClassVar[str] = "communication"

    def make_world(self) -> World:
        return listening_world(paper=True)

    def observe(self, state: State) -> Float[Tensor, "env agent obs"]:
        return listening_sight(state)

    def rewards(self, state: State) -> Float[Tensor, "agent env"]:
        return -2 * distance_to_hear(parts(state)).expand(2, -1)

    def over(self, state: State) -> Bool[Tensor, "env"]:
        if self.fixed_horizon:
            return Scenario.over(self, state)
        return distance_to_hear(parts(state)) <= 0.035


@dataclass(frozen=True)
class KeepAway(Scenario):
    """Competitive keep-away: `Push` with an adversary five times as heavy, which knows the goal too.

    Landmarks start within 0.8, speeds are at most 2. Published as "agent #1": the return of `agent_0`, the seeker.
    """

    continuous: bool = False
    horizon: int | None = 50

    title: ClassVar[str] = "keep_away"

    def make_world(self) -> World:
        return World(
            names=("adversary_0", "agent_0"),
            roles=("adversary", "agent"),
            teams=("adversary", "agent"),
            sees=(10, 19),
            radius=(0.05,) * 4,
            colour=(RED, DARK, GREEN, BLUE),
            reach=(1.0, 1.0, 0.8, 0.8),
            push=(5.0,) * 2,
            mass=(5.0, 1.0),
            top_speed=(2.0, 2.0),
            solid=2,
            goals=(2,),
            paper=True,
        )

    def observe(self, state: State) -> Float[Tensor, "env agent obs"]:
        s = parts(state)
        seen = sight(s)
        to_goal = pick(s.landmarks, s.goal[0]) - s.agents[0]
        return lay(torch.cat([s.velocity[:1], to_goal.unsqueeze(0), seen[:1]], dim=1), push_sight(s, seen))

    def rewards(self, state: State) -> Float[Tensor, "agent env"]:
        return push_rewards(parts(state))


@dataclass(frozen=True)
class PredatorPrey(Scenario):
    """Predator and prey: `Tag` over 50 steps of the older physics."""

    prey: int = 1
    adversaries: int = 3
    obstacles: int = 2
    continuous: bool = False
    horizon: int | None = 50

    title: ClassVar[str] = "predator_prey"

    def __post_init__(self) -> None:
        self.require(prey=1, adversaries=1, obstacles=0)

    def make_world(self) -> World:
        return chasing_world(self.adversaries, self.prey, self.obstacles, paper=True)

    def seen(self, eyes: Eyes) -> list[Seen]:
        return chasing_sight(eyes, self.adversaries)

    def rewards(self, state: State) -> Float[Tensor, "agent env"]:
        return chasing_rewards(parts(state), self.adversaries)

    def paid(self) -> Paid:
        return Paid(CATCH, HUNTER + PREY, hunters=self.adversaries)
