"""What agents see of a particle game, for those scenarios in which that is only where bodies are and how they move.

Everything in such a state is a point: the bodies, then the velocities of the agents, then nothing (zeros). What an
agent sees is a list of points, each seen from another: a body from itself, or a velocity from nothing. So one small
table tells all of it, for torch (here) and for the compiled functions (`particles_native`).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from understudy.envs.particles_physics import State, World, rows

Seen = tuple[int, int]  # a point, and the point that it is seen from
Sights = tuple[tuple[Seen, ...], ...]  # of each agent


@dataclass(frozen=True)
class Eyes:
    """What agent `me` can see, in pieces that are put together by `+`."""

    world: World
    me: int

    @property
    def nothing(self) -> int:
        return self.world.bodies + self.world.agents

    def velocities(self, agents: range) -> list[Seen]:
        """Of those of `agents` who are others, in order."""
        return [(self.world.bodies + i, self.nothing) for i in agents if i != self.me]

    @property
    def velocity(self) -> list[Seen]:
        """One's own."""
        return [(self.world.bodies + self.me, self.nothing)]

    @property
    def place(self) -> list[Seen]:
        """One's own."""
        return [(self.me, self.nothing)]

    @property
    def landmarks(self) -> list[Seen]:
        """From here to each."""
        return [(k, self.me) for k in range(self.world.agents, self.world.bodies)]

    @property
    def others(self) -> list[Seen]:
        """From here to each."""
        return [(i, self.me) for i in range(self.world.agents) if i != self.me]

    @property
    def silence(self) -> list[Seen]:
        """The messages of two zeros that silent agents show to each other."""
        return [(self.nothing, self.nothing)] * (self.world.agents - 1)


def even(world: World, sights: list[list[Seen]]) -> Sights:
    """With nothing behind those that are shorter than the longest."""
    nothing, longest = world.bodies + world.agents, max(map(len, sights))
    return tuple(tuple(each + [(nothing, nothing)] * (longest - len(each))) for each in sights)


def observe(state: State, table: Int[Tensor, "many 2"]) -> Float[Tensor, "env agent obs"]:
    """What each agent sees, as one row-major block; `table` holds the `Sights` of all agents, end to end."""
    position, landmark, velocity = rows(state.position), rows(state.landmark), rows(state.velocity)
    points = torch.cat([position, landmark, velocity, torch.zeros_like(position[:1])])
    block = points.index_select(0, table[:, 0]).sub_(points.index_select(0, table[:, 1]))
    return block.flatten(0, 1).t().contiguous().unflatten(1, (len(position), -1))
