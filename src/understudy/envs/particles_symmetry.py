"""Symmetries of particle scenarios, found by trying: turns, a mirror, and exchanges of bodies that are alike.

A change of the state (all positions and velocities turned, say) is a symmetry where it changes no more than the order
and the signs of what is seen and of the moves, and where it does not matter whether it comes before a step or after it.
Both are tried on random states, in double precision; what fails is left out, such as to exchange landmarks that a goal
tells apart. So a new scenario has its symmetries at once, and none is claimed that the rules do not have.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from understudy.core.random import generator
from understudy.core.symmetry import Groups, Symmetry
from understudy.core.types import legal_size
from understudy.envs import particles_physics as physics
from understudy.envs.particles_physics import State, World, envs

PROBES = 64
CLOSE = 1e-9
Change = Callable[[State], State]


def symmetries(env: Any) -> Groups:
    """Of a particle scenario: turns by 90 degrees, a mirror, then who is who among agents and among landmarks."""
    quarter = torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=torch.float64)
    mirror = torch.tensor([[-1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    turns = [quarter, quarter @ quarter, quarter @ quarter @ quarter]
    agents, landmarks = env.world.agents, env.world.bodies - env.world.agents
    stay = list(range(agents))
    tried = [
        [_found(env, f"turn {90 * (k + 1)}", _turned(m), stay, m) for k, m in enumerate(turns)],
        [_found(env, "mirror", _turned(mirror), stay, mirror)],
    ]
    for alike in _alike(env.spec.roles, env.world, range(agents)):
        for n, i in enumerate(alike[:-1]):
            pairs = [(i, j) for j in alike[n + 1 :]]
            tried.append([_found(env, f"agents {i} {j}", _agents(i, j), _swapped(agents, i, j)) for i, j in pairs])
    for alike in _alike((), env.world, range(agents, agents + landmarks)):
        for n, i in enumerate(alike[:-1]):
            pairs = [(i - agents, j - agents) for j in alike[n + 1 :]]
            tried.append([_found(env, f"landmarks {i} {j}", _landmarks(i, j), stay) for i, j in pairs])
    groups = (tuple(one for one in group if one is not None) for group in tried)
    return tuple(group for group, of in zip(groups, tried, strict=True) if group and len(group) == len(of))


def _alike(roles: Sequence[str], world: World, bodies: range) -> list[list[int]]:
    """Bodies next to each other in number that differ in nothing but where they are."""

    def kind(body: int) -> tuple[Any, ...]:
        own = (roles, world.push, world.mass, world.top_speed, world.speaks)
        return (world.radius[body], world.colour[body], *(x[body] for x in own if len(x) > body))

    return [list(group) for _, group in groupby(bodies, kind)]


def _turned(matrix: Tensor) -> Change:
    def change(s: State) -> State:
        return replace(
            s, position=s.position @ matrix.T, velocity=s.velocity @ matrix.T, landmark=s.landmark @ matrix.T
        )

    return change


def _swapped(count: int, i: int, j: int) -> list[int]:
    order = list(range(count))
    order[i], order[j] = j, i
    return order


def _agents(i: int, j: int) -> Change:
    def change(s: State) -> State:
        order = _swapped(s.position.shape[1], i, j)
        return replace(s, position=s.position[:, order], velocity=s.velocity[:, order], message=s.message[:, order])

    return change


def _landmarks(i: int, j: int) -> Change:
    return lambda s: replace(s, landmark=s.landmark[:, _swapped(s.landmark.shape[1], i, j)])


def _found(env: Any, name: str, change: Change, order: list[int], turn: Tensor | None = None) -> Symmetry | None:
    """What `change` does to what is seen and done; None where it is no symmetry, or changes nothing."""
    source = generator(0, "symmetry", env.spec.title)
    state = env.reset(torch.rand(PROBES, env.spec.reset_noise, generator=source, dtype=torch.float64))
    drawn = torch.randn(state.velocity.shape, generator=source, dtype=torch.float64)
    said = torch.randn(state.message.shape, generator=source, dtype=torch.float64)
    state = replace(state, velocity=drawn, message=said)
    other = change(state)
    before, after = env.observe(state), env.observe(other)
    columns = [_columns(before[:, old], after[:, new]) for new, old in enumerate(order)]
    whole = _columns(env.whole(state), env.whole(other))
    moves = [_moves(env, new, old, turn) for new, old in enumerate(order)]
    if whole is None or any(x is None for x in (*columns, *moves)):
        return None
    index, sign = (torch.stack(each) for each in zip(*columns, strict=True))  # type: ignore[arg-type]
    found = Symmetry(name, torch.tensor(order), index, sign, torch.stack(moves), *whole)  # type: ignore[arg-type]
    same = bool((index == torch.arange(index.shape[1])).all()) and bool((sign == 1).all())
    return found if not same and _commutes(env, state, change, found, source) else None


def _columns(before: Tensor, after: Tensor) -> tuple[Tensor, Tensor] | None:
    """Which column of `before` each of `after` is, and its sign; a column that stays is preferred."""
    first, second = before.T.unsqueeze(0), after.T.unsqueeze(1)  # [after, before, probe]
    gaps = torch.stack([(second - first).abs().amax(-1), (second + first).abs().amax(-1)], dim=-1)
    rank = (gaps > CLOSE).double() * 4
    rank[..., 1] += 1
    rank += 2 * (1 - torch.eye(len(gaps), dtype=rank.dtype)).unsqueeze(-1)
    best = rank.flatten(1).min(dim=1)
    if bool((best.values >= 4).any()):
        return None
    return best.indices // 2, 1.0 - 2.0 * (best.indices % 2).float()


def _moves(env: Any, new: int, old: int, turn: Tensor | None) -> Tensor | None:
    """The move of agent `new` that does, turned, what each move of agent `old` does."""
    size = env.spec.action_sizes[old]
    if env.spec.action_sizes[new] != size:
        return None
    mine, theirs = (_effects(env, agent)[:size] for agent in (new, old))
    if turn is not None:
        theirs = torch.cat([theirs[:, :2] @ turn.T, theirs[:, 2:]], dim=1)
    gaps = (theirs.unsqueeze(1) - mine.unsqueeze(0)).abs().amax(-1)  # [move of old, move of new]
    rank = (gaps > CLOSE).double() * 2 + (1 - torch.eye(size, dtype=torch.float64))
    best = rank.min(dim=1)
    if bool((best.values >= 2).any()) or len(best.indices.unique()) < size:
        return None
    return torch.cat([best.indices, torch.arange(size, max(env.spec.action_sizes))])


def _effects(env: Any, agent: int) -> Tensor:
    """Where each of an agent's moves pushes it, and what it says: [move, 2 + word]."""
    world, dtype = env.world, torch.float64
    choices = max(env.spec.action_sizes)
    if env.continuous:
        one = torch.eye(choices, dtype=dtype).unsqueeze(1).expand(-1, world.agents, -1)
        direction, said = physics.decode_numbers(world, one, dtype)
    else:
        one = torch.arange(legal_size(env.spec.action)).unsqueeze(1).expand(-1, world.agents)
        direction, said = physics.decode_choices(world, one, dtype)
    pushed = envs(direction)[:, agent] * (world.push[agent] > 0)
    spoken = envs(said)[:, agent] * bool(world.speaks and world.speaks[agent])
    return torch.cat([pushed, spoken], dim=1)


def _commutes(env: Any, state: State, change: Change, found: Symmetry, source: torch.Generator) -> bool:
    """A step of what was changed is the change of a step, for all and each."""
    if env.continuous:
        actions = torch.rand(PROBES, env.spec.agents, env.spec.action.size, generator=source, dtype=torch.float64)
    else:
        sizes = torch.tensor(env.spec.action_sizes)
        actions = (torch.rand(PROBES, env.spec.agents, generator=source) * sizes).long()
    nothing = state.position.new_empty(PROBES, 0)
    here, rewards, over = env.step(state, actions, nothing)
    there, others, over_too = env.step(change(state), found.actions(actions), nothing)
    here = change(here)
    same = [(getattr(here, name), getattr(there, name)) for name in ("position", "velocity", "landmark", "message")]
    same.append((found.each(rewards), others))
    return torch.equal(over, over_too) and all(bool(((a - b).abs() < 1e-7).all()) for a, b in same)
