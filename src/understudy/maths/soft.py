"""Play that is soft: better moves are likelier, none is certain. What inverse methods assume of demonstrators.

With temperature T (reward per nat) and Q_i(s, a) = r_i(s, a) + discount * E V_i(s'), there are three ways for several
agents to be soft at once. For one agent all are maximum causal entropy play (Ziebart et al. 2010, "Modeling
interaction via the principle of maximum causal entropy"):

    pi(a|s) = exp((Q(s, a) - V(s)) / T),    V(s) = T log sum_a exp(Q(s, a) / T)

    "independent"   Each faces the others as they are known to play, sigma, as if they were part of the world:
                        pi_i(a_i|s) = softmax of  E over a_-i ~ sigma of Q_i(s, a) / T
    "quantal"       The same, where the others are soft alike: the logit quantal response equilibrium of every state
                    (McKelvey & Palfrey 1995), found along the branch that begins at even play.
    "logistic"      Each replies to what the others did: P_i(a_i|s, a_-i) = softmax of Q_i(s, a) / T over a_i. Joint
                    play is what comes of one agent at a time, picked evenly, replying so for ever: the logistic
                    stochastic best response equilibrium of Yu et al. 2019, arXiv:1907.13220. It is correlated. V_i is
                    the mean over a_-i of T log sum exp(Q_i / T).

Solutions are differentiable in the rewards: fixed points by one Newton step with a constant matrix, whose derivative is
that of the implicit function theorem. Everything is float64.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import ceil, prod
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from understudy.core.errors import ConfigError
from understudy.maths.divergence import entropy
from understudy.maths.games import Game, action_values, facing, occupancy, product_of, unfaced

Concept = Literal["independent", "quantal", "logistic"]
ITERATIONS, TOLERANCE = 200, 1e-11  # of Newton's method at most, and what may be left over, relative


@dataclass(frozen=True)
class Soft:
    """A solution; without a horizon the axis of time is absent."""

    log_chance: Float[
        Tensor, "*time agent state joint"
    ]  # of each agent's own move, nats; "logistic": given the others'
    values: Float[Tensor, "*time agent state"]  # soft ones
    play: Float[Tensor, "*time state joint"]


def soft_play(
    game: Game,
    concept: Concept = "quantal",
    others: Float[Tensor, "state joint"] | None = None,
    discount: float = 1.0,
    temperature: float = 1.0,
) -> Soft:
    """How soft agents play `game` under a solution concept.

    Args:
        others: how everybody is known to play, for "independent".
        temperature: T, in reward per nat.

    Raises:
        ConfigError: the sums do not end, or no fixed point was found (a game may have none that iteration reaches:
            raise the temperature or lower the discount).
    """
    if not temperature > 0:
        raise ConfigError(f"temperature: got {temperature}, but it must be above 0: at 0 play would not be soft.")
    if concept == "independent" and others is None:
        raise ConfigError("others: independent agents face the others as they play: say how.")

    def backup(later: Float[Tensor, "agent state"]) -> Soft:
        return _stage(action_values(game, later, discount), game, concept, others, temperature)

    if game.horizon is not None:
        later, steps = torch.zeros_like(game.reward[..., 0]), []
        for _ in range(game.horizon):
            steps.append(backup(later))
            later = steps[-1].values
        return Soft(*(torch.stack([getattr(x, f) for x in steps[::-1]]) for f in ("log_chance", "values", "play")))
    if not 0 <= discount < 1:
        raise ConfigError(f"discount: got {discount}; a game without a horizon needs one from 0 to below 1.")
    sizes = game.reward.shape[:2]
    worth = _fixed_point(
        lambda v: backup(v.reshape(sizes)).values.reshape(1, -1), game.reward.new_zeros(1, prod(sizes))
    )
    return backup(worth.reshape(sizes))


def causal_entropy(game: Game, play: Float[Tensor, "*time state joint"], discount: float = 1.0) -> Float[Tensor, ""]:
    """Expected sum of the entropies of the joint action at each step, in nats, given the state."""
    steps = occupancy(game, play, discount) * ~game.over
    return (entropy(play) * steps).sum()


# --- one state's game ------------------------------------------------------------------------------------------------


def quantal_response(
    payoffs: Float[Tensor, "agent state joint"], choices: tuple[int, ...], temperature: float = 1.0
) -> Float[Tensor, "state joint"]:
    """The logit quantal response equilibrium of each state's game, as joint play of independent agents.

        p_i(a_i) = softmax of  E over a_-i ~ p of u_i(a) / temperature

    Of several it is the one on the branch from even play, followed as the payoffs grow from nothing to what they are.
    """

    def play_of(logits: Float[Tensor, "state move"]) -> Float[Tensor, "state joint"]:
        each = [x.softmax(-1) for x in logits.split(choices, -1)]
        widest = max(choices)
        return product_of(torch.stack([F.pad(x, (0, widest - x.shape[-1])) for x in each]), choices)

    def reply(logits: Float[Tensor, "state move"], scale: float) -> Float[Tensor, "state move"]:
        averages = _averages(payoffs * (scale / temperature), play_of(logits), choices)
        return torch.cat(averages, dim=-1)

    logits = payoffs.new_zeros(payoffs.shape[1], sum(choices))
    at_stake = (payoffs.detach().amax(-1) - payoffs.detach().amin(-1)).max()
    steps = max(4, ceil(float(at_stake) / temperature))
    for k in range(1, steps):  # near the branch is enough on the way
        logits = _fixed_point(partial(reply, scale=k / steps), logits, iterations=1)
    return play_of(_fixed_point(partial(reply, scale=1.0), logits))


def logistic_response(
    payoffs: Float[Tensor, "agent state joint"], choices: tuple[int, ...], temperature: float = 1.0
) -> Float[Tensor, "state joint"]:
    """Where one agent at a time, picked evenly, replying softly to the others' last moves, comes to rest.

    Of agents who are paid alike it is exp(r / T) / Z, whatever the order; of others it hangs on the order.
    """
    log_chance = torch.stack([_replies(mine, i, choices, temperature)[0] for i, mine in enumerate(payoffs)])
    moves = torch.cartesian_prod(*map(torch.arange, choices)).reshape(-1, len(choices))
    same = moves.unsqueeze(0) == moves.unsqueeze(1)  # [from, to, agent]
    chain = torch.zeros((), dtype=payoffs.dtype)
    for agent, chance in enumerate(log_chance.exp()):
        others_stay = torch.cat([same[..., :agent], same[..., agent + 1 :]], dim=-1).all(-1)
        chain = chain + others_stay * chance.unsqueeze(1) / len(choices)  # [state, from, to]
    # p chain = p and sum p = 1, the latter in place of one equation too many
    system = (chain - torch.eye(len(moves), dtype=payoffs.dtype)).mT
    system = torch.cat([system[:, :-1], torch.ones_like(system[:, :1])], dim=1)
    last = torch.zeros_like(system[..., 0])
    last[:, -1] = 1
    return torch.linalg.solve(system, last)


def _stage(
    payoffs: Float[Tensor, "agent state joint"], game: Game, concept: Concept, others: Tensor | None, temperature: float
) -> Soft:
    """Everybody's soft reply where `payoffs` are what joint actions are worth; ended states are worth 0."""
    choices = game.choices
    if concept == "logistic":
        play = logistic_response(payoffs, choices, temperature)
        found = [_replies(mine, i, choices, temperature) for i, mine in enumerate(payoffs)]
        log_chance = torch.stack([log_chance for log_chance, _ in found])
        worth = torch.stack([(facing(play, i, choices).sum(-1) * v).sum(-1) for i, (_, v) in enumerate(found)])
    else:
        known = others if concept == "independent" else quantal_response(payoffs, choices, temperature)
        assert known is not None
        averages = [x / temperature for x in _averages(payoffs, known, choices)]
        each = [x.log_softmax(-1) for x in averages]
        log_chance = torch.stack([_for_all(x, i, choices) for i, x in enumerate(each)])
        worth = torch.stack([temperature * x.logsumexp(-1) for x in averages])
        play = log_chance.sum(0).exp()
    return Soft(log_chance, worth * ~game.over, play)


def _replies(
    payoffs: Float[Tensor, "state joint"], agent: int, choices: tuple[int, ...], temperature: float
) -> tuple[Float[Tensor, "state joint"], Float[Tensor, "state others"]]:
    """Log-chance of the agent's move given the others', and what their moves are worth to it: T log sum exp."""
    scaled = facing(payoffs, agent, choices) / temperature
    return unfaced(scaled.log_softmax(-1), agent, choices), temperature * scaled.logsumexp(-1)


def _averages(
    payoffs: Float[Tensor, "agent state joint"], play: Float[Tensor, "state joint"], choices: tuple[int, ...]
) -> list[Float[Tensor, "state choice"]]:
    """What each agent's moves are worth to it where the others play as `play` has them, whatever it does."""
    return [
        (facing(play, i, choices).sum(-1, keepdim=True) * facing(mine, i, choices)).sum(-2)
        for i, mine in enumerate(payoffs)
    ]


def _for_all(own: Float[Tensor, "state choice"], agent: int, choices: tuple[int, ...]) -> Float[Tensor, "state joint"]:
    """A table over an agent's own moves as one over joint actions."""
    others = prod(choices) // choices[agent]
    return unfaced(own.unsqueeze(-2).expand(-1, others, -1), agent, choices)


def _fixed_point(
    function: Callable[[Tensor], Tensor], x: Float[Tensor, "row entry"], iterations: int = ITERATIONS
) -> Float[Tensor, "row entry"]:
    """x = function(x), each row by itself, by Newton's method; where that goes wrong x = function(x) is the next step.

    The gradient of what comes out is that of the solution: dx = (1 - J)^-1 df, J the derivative in x. With fewer
    `iterations` than it takes, what comes out is near the solution and not it.

    Raises:
        ConfigError: nothing was found in ITERATIONS.
    """
    eye = torch.eye(x.shape[-1], dtype=x.dtype)
    ones = eye.unsqueeze(1).expand(-1, len(x), -1)
    at, image = _image(function, x)
    for _ in range(iterations):
        (rows,) = torch.autograd.grad(image, at, ones, is_grads_batched=True, retain_graph=True)
        slope = eye - rows.detach().transpose(0, 1)  # [row, out, in]
        error = image - at
        far = float(error.detach().abs().max())
        if far <= TOLERANCE * (1 + float(at.detach().abs().max())):
            x = at.detach()
            return x + _solved(slope, function(x) - x)
        tried, its_image = _image(function, at + _solved(slope, error.detach()))
        if not float((its_image - tried).detach().abs().max()) < far:  # NaN is no help either
            tried, its_image = _image(function, image.detach())
        at, image = tried, its_image
    if iterations == ITERATIONS:
        raise ConfigError("no soft equilibrium was found: raise the temperature, or lower the discount.")
    return at.detach()


def _solved(matrix: Float[Tensor, "row out in"], right: Float[Tensor, "row out"]) -> Float[Tensor, "row in"]:
    """The solution; the shortest one where a branch of solutions forks and the matrix has no inverse."""
    found, info = torch.linalg.solve_ex(matrix.detach(), right.unsqueeze(-1))
    return (torch.linalg.pinv(matrix.detach()) @ right.unsqueeze(-1) if bool(info.any()) else found).squeeze(-1)


def _image(function: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """`x` as a place to differentiate at, and its image with the way there."""
    with torch.enable_grad():
        at = x.detach().requires_grad_()
        return at, function(at)
