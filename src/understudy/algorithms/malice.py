"""MALICE: clone most carefully where an agent who leaves the play would lead the others.

Cloning weighs a state by how often the expert was there. But an agent may deviate, and what it gains by that depends on
what the others do in states that the expert hardly ever met. So each recorded step is weighed anew by how much likelier
its state is under the worst deviation phi of one agent from the learner's own play,

    minimise over pi  max over phi  sum over steps of  rho(s) * -log pi(a|s),    rho(s) = d(s; phi o pi) / d(s; expert)

with d the share of steps in a state: the expert's counts cancel, and each state where it was weighs as deviations
visit it (`maths.games.visited_loss`). Joint play whose imitation loss is e under every deviation has a regret at most
O(e u H) above the expert's (u: what one step can cost, H: steps), however rarely the expert was there; without the
weights the bound grows with that rarity too. But there the expert must have been: `uncovered` is the largest
share of its steps that a deviation can spend in states of which no recording tells. Only an expert to ask (`blades`)
helps there.

Exact, for tabular games: deviations are best replies to the loss (`maths.games.worst_case`) and d is computed. Against
the worst deviations of all updates so far together the learner descends: it follows the leader.

Source: Tang, Swamy, Fang & Wu 2024, arXiv:2406.04219, from its definitions: the objective and the bound are theirs. How
the maximum is found, the mean over past deviations and gradient descent are ours.
"""

import math
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from understudy.algorithms import ppo
from understudy.core.config import at_least_one, share
from understudy.core.errors import ConfigError, DemosError
from understudy.demos.demos import Demos
from understudy.demos.tables import count_table
from understudy.maths import games
from understudy.maths.games import Deviations
from understudy.nets import AgentPolicy, NetConfig, build_policy
from understudy.nets.tables import log_table


@dataclass(frozen=True)
class Config:
    deviations: Deviations = "swap"  # an agent hears what it is told to do ("swap") or does not ("external")
    discount: float = 1.0  # of the steps that a deviation leads to: below 1 for games without a horizon
    rounds: int = 40  # after which it has finished: each finds the worst deviation anew
    steps: int = 50  # gradient steps in a round
    rate: float = 3e-2
    max_grad_norm: float = 1.0
    net: NetConfig = field(default_factory=lambda: NetConfig(layers=0))  # no layers: a table of its own for each state

    def __post_init__(self) -> None:
        at_least_one(self, "rounds", "steps")
        if not 0 < self.rate < math.inf or not self.max_grad_norm > 0:
            raise ConfigError(f"rate={self.rate}, max_grad_norm={self.max_grad_norm}: both must be above 0.")
        share(self, "discount")


@dataclass
class State:
    """All that changes in training."""

    policy: AgentPolicy
    optimizer: torch.optim.Optimizer
    visits: Float[Tensor, "state"]  # shares of the worst deviations' steps, summed over the rounds
    round: int = 0


def init(config: Config, demos: Demos | None, env: Any, generator: torch.Generator) -> State:
    """A fresh policy."""
    if demos is None or env is None:
        raise DemosError("malice clones recordings, weighed by where deviations lead in a game: give it demos and env.")
    told = _told(demos, env)
    policy = build_policy(config.net, env.spec, generator)
    log_table(policy, tuple(env.choices), len(told))  # refuses what remembers
    optimizer = torch.optim.Adam(policy.parameters(), lr=config.rate)
    return State(policy, optimizer, torch.zeros(len(told), dtype=torch.float64))


def update(
    config: Config, state: State, demos: Demos, env: Any, generator: torch.Generator
) -> dict[str, Float[Tensor, ""]]:
    """One round: find the worst deviation, then descend on the loss where all of them so far have led."""
    game, told = games.game_of(env), _told(demos, env)
    with torch.no_grad():
        log_play = log_table(state.policy, game.choices, game.states).double()
        loss = games.unlikeness(told, log_play)
        worst, visits = games.worst_case(game, log_play.exp(), loss, config.deviations, config.discount)
        never = (told.sum(-1) == 0).double()
        beyond, steps = games.worst_case(game, log_play.exp(), never, config.deviations, config.discount)
    state.visits += visits / visits.sum()
    for _ in range(config.steps):
        lost = games.visited_loss(log_table(state.policy, game.choices, game.states), told, state.visits)
        ppo.descend(state.optimizer, lost, config.max_grad_norm)
    state.round += 1
    return {
        "loss": lost.detach(),
        "worst": worst / visits.sum(),
        "uncovered": beyond / steps.sum(),
    }


def finished(config: Config, state: State) -> bool:
    return state.round >= config.rounds


@lru_cache(maxsize=4)
def _told(demos: Demos, env: Any) -> Float[Tensor, "state joint"]:
    return count_table(demos, games.game_of(env)).sum(0)
