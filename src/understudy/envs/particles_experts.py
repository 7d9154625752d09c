"""Scripted experts: one for every particle scenario, for discrete and continuous actions.

They remember nothing and draw nothing. An agent of theirs walks to a target by the move whose next velocity v' brings
`position + lookahead * v'` nearest to it, which brakes in time without knowing more of the dynamics.
"""

from itertools import permutations
from typing import Any

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from understudy.core.errors import EnvError
from understudy.core.types import View
from understudy.envs.particles_mpe2 import Spread
from understudy.envs.particles_paper import Navigation
from understudy.envs.particles_physics import DT, KEPT, State, constant, distances
from understudy.envs.particles_scenario import Parts, Scenario, parts

LOOKAHEAD = 0.12  # seconds; from 0.1 to 0.15 do well, more brakes too early
MOST_ORDERS = 120  # assignments up to five agents are tried one by one
FAR = 1e3


def expert(env: Scenario, view: View, noise: Any = None) -> Shaped[Tensor, "env agent *size"]:
    """Actions of the scenario's scripted expert, which reads the full state in `view.whole`.

    Raises:
        EnvError: when the view has no `whole`, or the scenario no expert.
    """
    if view.whole is None:
        raise EnvError("view.whole: the scripted experts read the full state, but got None. Give View(whole=...).")
    if type(env) not in EXPERTS:
        raise EnvError(f"no scripted expert for {type(env).__name__}.")
    return EXPERTS[type(env)](env, env.unpack(view.whole))


def navigate(env: Scenario, state: State) -> Shaped[Tensor, "env agent *size"]:
    """Each agent goes to the landmark that the best assignment by total distance gives it."""
    s = parts(state)
    chosen = assign(distances(s.agents, s.landmarks))  # [agent, env]
    targets = torch.cat([s.landmarks, s.agents])  # an agent without a landmark stays where it is
    count = len(s.agents)
    own = len(s.landmarks) + torch.arange(count, device=chosen.device)[:, None]
    chosen = torch.where(chosen < len(s.landmarks), chosen, own)
    target = targets.gather(0, chosen.unsqueeze(1).expand(-1, 2, -1))
    return encode(env, moves=steer(env, s, target))


def assign(cost: Float[Tensor, "one other env"]) -> Int[Tensor, "one env"]:
    """For each one an other of its own, so that the total cost is least; indices past the others where they are too
    few. Exact while there are at most 120 ways, beyond that greedy: the cheapest pair that is still free, again and
    again."""
    ones, given, envs = cost.shape
    if given < ones:
        cost = torch.cat([cost, cost.new_full((ones, ones - given, envs), FAR)], dim=1)
    others = cost.shape[1]
    ways = 1
    for k in range(others, others - ones, -1):
        ways *= k
    if ways <= MOST_ORDERS:
        orders = constant(tuple(permutations(range(others), ones)), torch.long, cost.device)  # [way, one]
        total = cost[torch.arange(ones, device=cost.device), orders].sum(1)  # [way, env]
        return orders[total.argmin(0)].t()
    chosen = torch.zeros(ones, envs, dtype=torch.long, device=cost.device)
    one, other = (torch.arange(size, device=cost.device)[:, None] for size in (ones, others))
    for _ in range(ones):
        best = cost.flatten(0, 1).argmin(0)  # [env]
        row, column = best // others, best % others
        chosen = torch.where(one == row, column, chosen)
        taken = (one == row).unsqueeze(1) | (other == column).unsqueeze(0)
        cost = torch.where(taken, cost.new_tensor(FAR * FAR), cost)
    return chosen


def steer(
    env: Scenario, s: Parts, target: Float[Tensor, "some 2 env"], first: int = 0, lookahead: float = LOOKAHEAD
) -> Shaped[Tensor, "some *size env"]:
    """Moves of the agents from `first` on that bring each nearest to its target: a choice of five, or five numbers.

    Minimises |position + lookahead * v' - target| over the moves u, with v' = 0.75 v + 0.1 u push / mass.
    """
    world, some = env.world, slice(first, first + len(target))

    def each(values: tuple[float, ...]) -> Tensor:
        return constant(values[some], target.dtype, target.device)[:, None, None]

    at, velocity = s.agents[some], s.velocity[some]
    gain = DT * each(world.push) / (each(world.mass) if world.mass else 1.0)
    missing = target - at - lookahead * KEPT * velocity  # what the move has to make up for
    if not world.paper:
        missing = missing - DT * velocity  # the position moves once more before the move is felt
    if env.continuous:
        wish = (missing / (lookahead * gain)).clamp(-1, 1)
        wish = -wish if world.paper else wish
        x, y = wish[:, 0], wish[:, 1]
        zero = torch.zeros_like(x)
        return torch.stack([zero, (-x).clamp(min=0), x.clamp(min=0), (-y).clamp(min=0), y.clamp(min=0)], dim=1)
    sign = -1.0 if world.paper else 1.0
    table = ((0.0, 0.0), (-sign, 0.0), (sign, 0.0), (0.0, -sign), (0.0, sign))
    moves = constant(table, target.dtype, target.device).unsqueeze(-1)  # [move, 2, 1]
    miss = missing.unsqueeze(1) - (lookahead * gain).unsqueeze(1) * moves  # [agent, move, 2, env]
    return miss.square().sum(2).argmin(1)


def encode(
    env: Scenario, moves: Shaped[Tensor, "agent *size env"], words: Int[Tensor, "agent env"] | None = None
) -> Shaped[Tensor, "env agent *size"]:
    """Actions of moves and words, as `step` reads them."""
    return moves.movedim(-1, 0).contiguous()


EXPERTS: dict[type, Any] = {
    Navigation: navigate,
    Spread: navigate,
}
