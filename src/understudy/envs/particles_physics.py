"""One batched physics for all particle scenarios: discs on a plane that are pushed, touch softly and may speak.

One step of 0.1 s, for every agent i, with its move u_i in {-1, 0, 1}^2 (or any number between):

    force_i    = push_i * u_i + sum_j contact_ij
    contact_ij = 100 * softplus((r_i + r_j - d_ij) / 0.001) * 0.001 * (x_i - x_j) / d_ij
    velocity_i = 0.75 * velocity_i + 0.1 * force_i / mass_i, then shortened to the top speed of i

and the position moves by 0.1 * velocity. mpe2 moves first, by the velocity from before the step; the scenarios of
2018 (`World.paper`) move last, by the new one, so that a move is felt one step earlier.

Every tensor is `[env, body, xy]` and lies in memory with envs fastest (`rows` shows it as it lies), which makes a step
four times faster: each operation then runs along thousands of envs instead of along two coordinates.

Source: mpe2 1.1.1, `_mpe_utils/core.py`; Lowe et al. 2017, arXiv:1706.02275; for `paper` Song et al. 2018,
arXiv:1807.09936, release of Yu et al. 2019, arXiv:1907.13220.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Shaped
from torch import Tensor

DT = 0.1  # seconds in a step
KEPT = 0.75  # part of the velocity that is left after a step
STIFFNESS = 100.0  # force for each unit of depth
MARGIN = 1e-3  # softness of a disc's edge
MOVES = 5  # stay, and one move along each half-axis


@dataclass(frozen=True)
class State:
    """Where everything is. Nothing else decides what comes next."""

    position: Float[Tensor, "env agent 2"]
    velocity: Float[Tensor, "env agent 2"]  # in units of the plane a second
    landmark: Float[Tensor, "env landmark 2"]  # positions, which never change
    message: Float[Tensor, "env agent word"]  # said with the last step, zeros at the start and from the silent
    goal: Int[Tensor, "env goal"]  # what was drawn at the reset, such as the index of the landmark to go to


@dataclass(frozen=True)
class World:
    """Who is there, and what each can do: all that the physics and the spec of a scenario need to know."""

    names: tuple[str, ...]
    sees: tuple[int, ...]  # numbers that each agent observes
    radius: tuple[float, ...]  # of each body: agents first, then landmarks
    colour: tuple[str, ...]  # of each body
    reach: tuple[float, ...]  # a body starts uniformly in [-reach, reach]^2
    push: tuple[float, ...]  # force of a full move of each agent; 0: it stays where it is
    mass: tuple[float, ...] = ()  # of each agent; all 1 where empty
    top_speed: tuple[float, ...] = ()  # of each agent; no limit where empty
    solid: int = 0  # the first so many bodies push each other away
    words: int = 0  # size of a message
    speaks: tuple[bool, ...] = ()  # each agent; none where empty
    goals: tuple[int, ...] = ()  # choices of each goal
    roles: tuple[str, ...] = ()
    teams: tuple[str, ...] = ()
    paper: bool = False  # velocity before position, and move 1 is +x: the scenarios of 2018

    @property
    def agents(self) -> int:
        return len(self.names)

    @property
    def bodies(self) -> int:
        return len(self.radius)

    @property
    def speakers_move(self) -> bool:
        return any(speaks and push > 0 for speaks, push in zip(self.speaks, self.push, strict=False))

    def action_sizes(self, continuous: bool) -> tuple[int, ...]:
        """Choices of each agent, moves x words where it does both; or numbers, end to end."""
        sizes = []
        for i, push in enumerate(self.push):
            words = self.words if self.speaks and self.speaks[i] else 0
            moves = MOVES if push > 0 else 0
            both = moves + words if continuous else moves * words
            sizes.append(both if moves and words else moves or words)
        return tuple(sizes)


def constant(values: Any, dtype: torch.dtype, device: torch.device) -> Tensor:
    """A tensor of (nested) tuples, made once for each device: a copy to a GPU in every step would stall it."""
    if torch.compiler.is_compiling():
        return torch.tensor(values, dtype=dtype, device=device)  # which the compiler makes part of its graph
    return _kept(values, dtype, device)


@lru_cache(maxsize=256)
def _kept(values: Any, dtype: torch.dtype, device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # or a first use in inference would bar it from gradients for ever
        return torch.tensor(values, dtype=dtype, device=device)


def rows(x: Shaped[Tensor, "env *feature"]) -> Shaped[Tensor, "*feature env"]:
    """The same numbers as they lie in memory, the env axis last (a copy only where they lie otherwise)."""
    return x.permute(*range(1, x.dim()), 0).contiguous()


def envs(x: Shaped[Tensor, "*feature env"]) -> Shaped[Tensor, "env *feature"]:
    """The env axis first again, in notation alone."""
    return x.permute(-1, *range(x.dim() - 1))


def distance(a: Float[Tensor, "*many 2 env"], b: Float[Tensor, "*other 2 env"]) -> Float[Tensor, "*both env"]:
    """Between points that broadcast against each other."""
    offset = a - b
    return (offset[..., 0, :].square() + offset[..., 1, :].square()).sqrt()


def distances(a: Float[Tensor, "one 2 env"], b: Float[Tensor, "other 2 env"]) -> Float[Tensor, "one other env"]:
    """From every point of `a` to every point of `b`."""
    return distance(a.unsqueeze(1), b.unsqueeze(0))


def scatter(world: World, noise: Float[Tensor, "env noise"]) -> State:
    """A fresh start: bodies uniform within their reach, nothing moving, nothing said, goals drawn."""
    drawn, many, agents = rows(noise), 2 * world.bodies, world.agents
    reach = constant(world.reach, noise.dtype, noise.device)[:, None, None]
    position = (2 * drawn[:many].unflatten(0, (world.bodies, 2)) - 1) * reach
    choices = constant(world.goals, noise.dtype, noise.device)[:, None]
    goal = torch.minimum((drawn[many : many + len(world.goals)] * choices).floor(), choices - 1).long()
    return State(
        position=envs(position[:agents]),
        velocity=envs(torch.zeros_like(position[:agents])),
        landmark=envs(position[agents:]),
        message=envs(noise.new_zeros(agents, world.words, len(noise))),
        goal=envs(goal),
    )


def place(
    world: World,
    bodies: Float[Tensor, "env body 2"],
    velocity: Float[Tensor, "env agent 2"] | None = None,
    message: Float[Tensor, "env agent word"] | None = None,
    goal: Int[Tensor, "env goal"] | None = None,
) -> State:
    """A state made by hand, from the positions of agents and landmarks; what is left out is zero."""
    count, agents = len(bodies), world.agents
    return State(
        position=bodies[:, :agents],
        velocity=bodies.new_zeros(count, agents, 2) if velocity is None else velocity,
        landmark=bodies[:, agents:],
        message=bodies.new_zeros(count, agents, world.words) if message is None else message,
        goal=torch.zeros(count, len(world.goals), dtype=torch.long, device=bodies.device) if goal is None else goal,
    )


def decode_choices(
    world: World, actions: Int[Tensor, "env agent"], dtype: torch.dtype
) -> tuple[Float[Tensor, "agent 2 env"], Float[Tensor, "agent word env"]]:
    """Directions and messages of flat choices: the move is `action % 5`, the word `action // 5`.

    Move 0 stays, 1 and 2 are -x and +x, 3 and 4 are -y and +y (the other way round under `World.paper`). An agent
    that only speaks says the word `action`.
    """
    drawn = rows(actions).unsqueeze(1)
    move = drawn % MOVES if world.speakers_move else drawn
    up = (move == constant(((2,), (4,)), move.dtype, move.device)).to(dtype)
    down = (move == constant(((1,), (3,)), move.dtype, move.device)).to(dtype)
    word = drawn // MOVES if world.speakers_move else drawn
    said = (word == torch.arange(world.words, device=word.device)[:, None]).to(dtype)
    return (down - up if world.paper else up - down), said


def decode_numbers(
    world: World, actions: Float[Tensor, "env agent size"], dtype: torch.dtype
) -> tuple[Float[Tensor, "agent 2 env"], Float[Tensor, "agent word env"]]:
    """Directions and messages of numbers, which are first clipped to [0, 1]: along x number 2 less number 1, along y
    number 4 less number 3 (the other way round under `World.paper`), then the message as it is."""
    drawn = rows(actions.clamp(0, 1))
    start = MOVES if world.speakers_move else 0
    said = drawn[:, start : start + world.words].to(dtype)
    if not any(world.push):
        return said.new_zeros(world.agents, 2, len(actions)), said
    up, down = drawn[:, 2:MOVES:2], drawn[:, 1 : MOVES - 1 : 2]  # their difference is taken before `dtype`, as in mpe2
    return (down - up if world.paper else up - down).to(dtype), said


def contact(world: World, position: Float[Tensor, "agent 2 env"], landmark: Float[Tensor, "landmark 2 env"]) -> Tensor:
    """Force [agent, 2, env] on each agent from all solid bodies. Bodies at the very same place, as an agent and
    itself, do not push."""
    walls = world.solid - world.agents
    solid = torch.cat([position, landmark[:walls]]) if walls else position
    offset = position.unsqueeze(1) - solid.unsqueeze(0)  # [agent, body, 2, env]
    apart = (offset[..., 0, :].square() + offset[..., 1, :].square()).sqrt()
    radius = constant(world.radius[: world.solid], position.dtype, position.device)
    touch = (radius[: world.agents, None] + radius).unsqueeze(-1)
    depth = F.softplus((touch - apart) / MARGIN) * (STIFFNESS * MARGIN)
    return (offset * (depth / apart.clamp(min=1e-12)).unsqueeze(2)).sum(1)


def advance(
    world: World, state: State, direction: Float[Tensor, "agent 2 env"], said: Float[Tensor, "agent word env"]
) -> State:
    """The state one step later."""
    position, velocity = rows(state.position), rows(state.velocity)

    def each(values: tuple[float | bool, ...]) -> Tensor:
        return constant(values, position.dtype, position.device)[:, None, None]

    force = direction * each(world.push)
    if world.solid:
        force = force + contact(world, position, rows(state.landmark))
    after = KEPT * velocity + (force / each(world.mass) if world.mass else force) * DT
    if world.top_speed:
        speed = (after[:, :1].square() + after[:, 1:].square()).sqrt()
        top = each(world.top_speed)
        after = after * (top / torch.maximum(speed, top))
    moved = position + (after if world.paper else velocity) * DT
    if world.words and not all(world.speaks):
        said = said * each(world.speaks)
    return State(envs(moved), envs(after), state.landmark, envs(said), state.goal)
