"""Scripted experts: one for every particle scenario, for discrete and continuous actions.

They remember nothing and draw nothing. Each agent uses only what it can observe itself (read from the full state, which
is more convenient), so that a policy on the agent's own observations can learn to act the same; the one exception is
the assignment of landmarks, where all agree because all see the same map.

A walker takes the move whose next velocity v' brings `position + lookahead * v'` nearest to its target, which brakes in
time without knowing more of the dynamics.
"""

from collections.abc import Callable
from itertools import permutations
from math import perm
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from understudy.core.errors import EnvError
from understudy.core.types import View
from understudy.envs.particles_mpe2 import (
    Adversary,
    Crypto,
    Push,
    Reference,
    Simple,
    SpeakerListener,
    Spread,
    Tag,
    WorldComm,
    fence,
)
from understudy.envs.particles_paper import Communication, KeepAway, Navigation, PredatorPrey
from understudy.envs.particles_physics import DT, KEPT, MOVES, constant, distance, distances, envs
from understudy.envs.particles_scenario import Parts, Scenario, parts, pick

LOOKAHEAD = 0.12  # seconds; from 0.1 to 0.15 do well, more brakes too early
MOST_ORDERS = 120  # ways to assign that are tried one by one: five agents to five landmarks
FAR = 1e3  # beyond any distance on the plane


def expert(env: Any, view: View, noise: Any = None) -> Shaped[Tensor, "env agent *size"]:
    """Actions of the scenario's scripted expert. Deterministic: `noise` is taken and left unused.

    Raises:
        EnvError: when `view` has no `whole`, or `env` is no particle scenario.
    """
    if type(env) not in EXPERTS:
        raise EnvError(
            f"env: got {type(env).__name__}, but the scripted experts play {', '.join(map(_name, EXPERTS))}."
        )
    if view.whole is None:
        raise EnvError(
            "view.whole: the scripted experts read the full state, but got None. Give whole=env.whole(state)."
        )
    return EXPERTS[type(env)](env, parts(env.unpack(view.whole)))


def _name(cls: type) -> str:
    return cls.__name__


# ---- what each scenario's agents do


def simple(env: Scenario, s: Parts) -> Tensor:
    """Walk to the landmark."""
    return encode(env, steer(env, s, s.landmarks))


def navigate(env: Scenario, s: Parts) -> Tensor:
    """Each agent goes to the landmark that the best assignment by total distance gives it."""
    return encode(env, steer(env, s, covered(s.agents, s.landmarks)))


def deceive(env: Scenario, s: Parts) -> Tensor:
    """Agents cover all landmarks; the adversary goes to their middle, weighted by how near an agent is to each.

    Against agents who cover them all that is the middle itself, against such as walk to the goal it is the goal.
    """
    near = distances(s.landmarks, s.agents[1:]).amin(1)  # [landmark, env]
    weight = (-near / 0.1).softmax(0)
    suspected = (s.landmarks * weight.unsqueeze(1)).sum(0)
    return encode(env, steer(env, s, torch.cat([suspected.unsqueeze(0), covered(s.agents[1:], s.landmarks)])))


def whisper(env: Scenario, s: Parts) -> Tensor:
    """Alice says goal xor key; Bob undoes it with the key; Eve repeats what she hears, right half of the time.

    With continuous actions Eve keeps silent, which costs nothing and so is her best reply; Bob too until he hears.
    """
    goal, key, heard = s.goal[0], s.goal[1], s.message[2]
    cipher = heard.argmax(0)
    words = torch.stack([cipher, (cipher + key) % 2, (goal + key) % 2])
    if env.continuous:
        quiet = torch.stack([torch.ones_like(goal, dtype=torch.bool), ~heard.any(0), torch.zeros_like(goal).bool()])
        words = torch.where(quiet, -1, words)
    return encode(env, words=words)


def keep_away(env: Scenario, s: Parts) -> Tensor:
    """The agent goes to the goal; the adversary stands on it, or where it is not told, on the landmark that the agent
    is nearest to."""
    goal = pick(s.landmarks, s.goal[0])
    guess = goal if isinstance(env, KeepAway) else pick(s.landmarks, distance(s.landmarks, s.agents[1:]).argmin(0))
    return encode(env, steer(env, s, torch.stack([guess, goal])))


def refer(env: Scenario, s: Parts) -> Tensor:
    """Each says the landmark that it knows and goes to the one that it hears, first to the middle of all."""
    return encode(env, steer(env, s, told(s, s.message.flip(0))), words=s.goal)


def listen(env: Scenario, s: Parts) -> Tensor:
    """The speaker says the landmark, the listener goes to the one that it hears, first to the middle of all."""
    target = torch.cat([s.agents[:1], told(s, s.message[:1])])
    return encode(env, steer(env, s, target), words=torch.cat([s.goal, torch.full_like(s.goal, -1)]))


def chase(env: Any, s: Parts) -> Tensor:
    """Adversaries head off the nearest prey, prey flees."""
    hunters = env.adversaries
    seen = torch.ones(hunters, len(s.agents) - hunters, 1, dtype=torch.bool, device=s.agents.device)
    caught, _ = ahead(s, hunters, seen)
    fled = flee(env, s, hunters, seen.transpose(0, 1))
    return encode(env, torch.cat([steer(env, s, caught), fled]))


def hunt(env: Any, s: Parts) -> Tensor:
    """`chase` with forests and food: the lead says in which quarter of the plane the prey nearest to it is; who sees
    no prey goes there. Prey goes to its nearest food until an adversary that it sees comes within 0.6."""
    hunters, (visible, _) = env.adversaries, env.visibility(s)
    quarters = constant(((-0.5, -0.5), (0.5, -0.5), (-0.5, 0.5), (0.5, 0.5)), s.agents.dtype, s.agents.device)
    nearest = distance(s.agents[hunters:], s.agents[0]).argmin(0)
    right, up = (pick(s.agents[hunters:], nearest) > 0).unbind(0)
    word = right + 2 * up.long()
    called = pick(quarters.unsqueeze(-1), s.message[0].argmax(0))
    caught, sees_any = ahead(s, hunters, visible[:hunters, hunters:])
    target = torch.where(sees_any.unsqueeze(1), caught, called)

    prey, food = s.agents[hunters:], s.landmarks[env.obstacles : env.obstacles + env.food]
    to_food = distances(prey, food).argmin(1)  # [prey, env]
    meal = food.gather(0, to_food.unsqueeze(1).expand(-1, 2, -1))
    seen = visible[hunters:, :hunters]
    danger = (distances(prey, s.agents[:hunters]).masked_fill(~seen, FAR) < 0.6).any(1)
    fled, fed = flee(env, s, hunters, seen), steer(env, s, meal, first=hunters)
    escape = torch.where(danger.unsqueeze(1) if env.continuous else danger, fled, fed)
    silent = torch.full((len(s.agents) - 1, 1), -1, device=word.device).expand(-1, len(word))
    return encode(env, torch.cat([steer(env, s, target), escape]), words=torch.cat([word.unsqueeze(0), silent]))


EXPERTS: dict[type, Callable[[Any, Parts], Tensor]] = {
    Simple: simple,
    Spread: navigate,
    Adversary: deceive,
    Crypto: whisper,
    Push: keep_away,
    Reference: refer,
    SpeakerListener: listen,
    Tag: chase,
    WorldComm: hunt,
    Navigation: navigate,
    Communication: listen,
    KeepAway: keep_away,
    PredatorPrey: chase,
}


# ---- where to go


def covered(
    agents: Float[Tensor, "agent 2 env"], landmarks: Float[Tensor, "landmark 2 env"]
) -> Float[Tensor, "agent 2 env"]:
    """For each agent the place of its landmark; an agent that gets none stays where it is."""
    chosen = assign(distances(agents, landmarks))
    own = len(landmarks) + torch.arange(len(agents), device=chosen.device)[:, None]
    chosen = torch.where(chosen < len(landmarks), chosen, own)
    return torch.cat([landmarks, agents]).gather(0, chosen.unsqueeze(1).expand(-1, 2, -1))


def assign(cost: Float[Tensor, "one other env"]) -> Int[Tensor, "one env"]:
    """For each one an other of its own, so that the total cost is least; an index past the last where they are too few.

    Exact while there are at most 120 ways. Beyond that greedy: the cheapest pair that is still free, again and again.
    """
    ones, others, count = cost.shape
    if others < ones:
        cost = torch.cat([cost, cost.new_full((ones, ones - others, count), FAR)], dim=1)
        others = ones
    if perm(others, ones) <= MOST_ORDERS:
        orders = constant(tuple(permutations(range(others), ones)), torch.long, cost.device)  # [way, one]
        total = cost[torch.arange(ones, device=cost.device), orders].sum(1)  # [way, env]
        return orders[total.argmin(0)].t()
    chosen = torch.zeros(ones, count, dtype=torch.long, device=cost.device)
    one, other = (torch.arange(size, device=cost.device)[:, None] for size in (ones, others))
    for _ in range(ones):
        best = cost.flatten(0, 1).argmin(0)  # [env]
        row, column = one == best // others, other == best % others
        chosen = torch.where(row, best % others, chosen)
        cost = cost.masked_fill(row.unsqueeze(1) | column.unsqueeze(0), FAR * FAR)
    return chosen


def told(s: Parts, heard: Float[Tensor, "some word env"]) -> Float[Tensor, "some 2 env"]:
    """The landmark of the word heard by each, the middle of all landmarks where nothing was."""
    known = heard[:, : len(s.landmarks)]
    at = torch.einsum("alb,lxb->axb", (known == known.amax(1, keepdim=True)).to(heard.dtype), s.landmarks)
    return torch.where(heard.any(1, keepdim=True), at, s.landmarks.mean(0))


def ahead(
    s: Parts, hunters: int, seen: Bool[Tensor, "hunter prey #env"]
) -> tuple[Float[Tensor, "hunter 2 env"], Bool[Tensor, "hunter env"]]:
    """Where the nearest prey that each adversary sees will be when it could be there, at most 0.5 s ahead; and whether
    it sees any."""
    prey, velocity = s.agents[hunters:], s.velocity[hunters:]
    away = distances(s.agents[:hunters], prey).masked_fill(~seen, FAR)
    nearest, which = away.min(1)
    index = which.unsqueeze(1).expand(-1, 2, -1)
    return prey.gather(0, index) + velocity.gather(0, index) * nearest.clamp(max=0.5).unsqueeze(1), nearest < FAR


# ---- how to move


def steer(
    env: Scenario, s: Parts, target: Float[Tensor, "some 2 env"], first: int = 0, lookahead: float = LOOKAHEAD
) -> Shaped[Tensor, "some *size env"]:
    """Moves of the agents from `first` on that bring each nearest to its target: a choice of five, or five numbers.

    Minimises |position + lookahead * v' - target| over the moves u, with v' = 0.75 v + 0.1 u push / mass.
    """
    some = slice(first, first + len(target))
    gain = lookahead * speed_of_a_move(env, some, target)
    missing = target - s.agents[some] - lookahead * KEPT * s.velocity[some]  # what the move has to make up for
    if not env.world.paper:
        missing = missing - DT * s.velocity[some]  # the position moves once more before the move is felt
    if env.continuous:
        return numbers(env, torch.where(gain > 0, missing / gain, 0.0).clamp(-1, 1))
    moves = directions(env, target).view(MOVES, 2, 1)
    return (missing.unsqueeze(1) - gain.unsqueeze(1) * moves).square().sum(2).argmin(1)


def flee(
    env: Scenario, s: Parts, hunters: int, seen: Bool[Tensor, "prey hunter #env"]
) -> Shaped[Tensor, "prey *size env"]:
    """Moves of the prey, kept up for 0.5 s, that lead furthest from the adversaries it sees and not outside.

    Maximises -sum 0.1 / (distance^2 + 0.01) over adversaries and, a third as strong, obstacles, less the `fence`.
    """
    some, steps = slice(hunters, len(s.agents)), 5
    glide = sum(KEPT**k for k in range(1, steps + 1))  # steps' worth of the present velocity that is still to come
    gain = speed_of_a_move(env, some, s.agents) * (steps - glide) / (1 - KEPT)
    moves = directions(env, s.agents).unsqueeze(-1)  # [move, 2, 1]
    drift = s.agents[some] + DT * glide * s.velocity[some]
    there = drift.unsqueeze(1) + DT * gain.unsqueeze(1) * moves  # [prey, move, 2, env]
    walls = s.landmarks[: max(env.world.solid - len(s.agents), 0)]
    fear = -0.1 / (distance(there.unsqueeze(2), s.agents[:hunters]).square() + 0.01)  # [prey, move, hunter, env]
    bump = -0.03 / (distance(there.unsqueeze(2), walls).square() + 0.01)
    outside = fence(there.flatten(0, 1)).unflatten(0, there.shape[:2])
    best = ((fear * seen.unsqueeze(1)).sum(2) + bump.sum(2) - outside).argmax(1)  # [prey, env]
    return numbers(env, moves.squeeze(-1)[best].movedim(-1, 1)) if env.continuous else best


def speed_of_a_move(env: Scenario, some: slice, like: Tensor) -> Float[Tensor, "some 1 1"]:
    """What a full move adds to each agent's velocity in one step."""
    masses = env.world.mass or (1.0,) * env.world.agents
    gains = tuple(DT * push / mass for push, mass in zip(env.world.push, masses, strict=True))
    return constant(gains[some], like.dtype, like.device)[:, None, None]


def directions(env: Scenario, like: Tensor) -> Float[Tensor, "5 2"]:
    """Where the five moves go, in the order of their numbers."""
    sign = -1.0 if env.world.paper else 1.0
    table = ((0.0, 0.0), (-sign, 0.0), (sign, 0.0), (0.0, -sign), (0.0, sign))
    return constant(table, like.dtype, like.device)


def numbers(env: Scenario, direction: Float[Tensor, "some 2 env"]) -> Float[Tensor, "some 5 env"]:
    """The five numbers of a continuous move in `direction`, of which at most one along each axis is not zero."""
    x, y = (-direction if env.world.paper else direction).unbind(1)
    zero = torch.zeros_like(x)
    return torch.stack([zero, (-x).clamp(min=0), x.clamp(min=0), (-y).clamp(min=0), y.clamp(min=0)], dim=1)


def encode(
    env: Scenario, moves: Shaped[Tensor, "agent *size env"] | None = None, words: Int[Tensor, "agent env"] | None = None
) -> Shaped[Tensor, "env agent *number"]:
    """Actions of moves and words, as `step` reads them; -1 says nothing."""
    if words is None:
        assert moves is not None
        return envs(moves).contiguous()
    if env.continuous:
        said = (words.unsqueeze(1) == torch.arange(env.world.words, device=words.device)[:, None]).float()
        if moves is None:
            return envs(said).contiguous()
        if env.world.speakers_move:
            return envs(torch.cat([moves, said.to(moves.dtype)], dim=1)).contiguous()
        said = F.pad(said, (0, 0, 0, MOVES - env.world.words)).to(moves.dtype)
        return envs(moves + said).contiguous()  # nobody does both, and the moves of who stands are zeros
    if moves is None:
        return envs(words).contiguous()
    if env.world.speakers_move:
        return envs(moves + MOVES * words.clamp(min=0)).contiguous()
    return envs(torch.where(words < 0, moves, words)).contiguous()
