"""BLADES: ask the expert where an agent who leaves the play would lead the others.

What an agent gains by deviating depends on what the others do in states that nobody visits who obeys. No recording of
the expert tells of them, but an expert who can be asked does. Each round finds the deviation phi of one agent from the
learner's own play that leads to the largest imitation loss, asks the expert in states that it leads to, and clones all
that was said so far, each state weighing as the deviations of all rounds have visited it,

    minimise over pi  max over phi  E over s ~ d(phi o pi) of  -log pi(expert's action | s).

A state in which the expert was never asked counts as lost altogether (sum_i log of agent i's moves), so deviations go
there first. Joint play whose imitation loss is e under every deviation has a regret at most O(e u H) above the expert's
(u: what one step can cost, H: steps). It is DAgger under deviations.

Exact, for tabular games: deviations are best replies to the loss (`maths.games.worst_case`) and where they lead is
computed; only the expert's answers are drawn.

Source: Tang, Swamy, Fang & Wu 2024, arXiv:2406.04219, from its definitions: the objective and the bound are theirs. How
the maximum is found, what unknown states count, and gradient descent on the mean over rounds are ours.
"""

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from understudy.algorithms import ppo
from understudy.core.config import at_least_one, share
from understudy.core.errors import ConfigError, EnvError
from understudy.core.random import uniform
from understudy.core.tree import tree_leaves
from understudy.core.types import View
from understudy.demos.demos import Demos
from understudy.demos.tables import count_table
from understudy.maths import games
from understudy.maths.games import Deviations, Game, joint_number
from understudy.nets import AgentPolicy, NetConfig, build_policy
from understudy.nets.tables import log_table, own_moves

QUERIES = True  # it is handed a `Queried` env


@dataclass(frozen=True)
class Config:
    deviations: Deviations = "swap"  # an agent hears what it is told to do ("swap") or does not ("external")
    discount: float = 1.0  # of the steps that a deviation leads to: below 1 for games without a horizon
    rounds: int = 40  # after which it has finished: each finds the worst deviation anew
    asked: int = 64  # joint actions that the expert tells in a round
    steps: int = 50  # gradient steps in a round
    rate: float = 3e-2
    max_grad_norm: float = 1.0
    net: NetConfig = field(default_factory=lambda: NetConfig(layers=0))  # no layers: a table of its own for each state

    def __post_init__(self) -> None:
        at_least_one(self, "rounds", "asked", "steps")
        if not 0 < self.rate < math.inf or not self.max_grad_norm > 0:
            raise ConfigError(f"rate={self.rate}, max_grad_norm={self.max_grad_norm}: both must be above 0.")
        share(self, "discount")


@dataclass
class State:
    """All that changes in training."""

    policy: AgentPolicy
    optimizer: torch.optim.Optimizer
    told: Float[Tensor, "state joint"]  # how often the expert said what
    visits: Float[Tensor, "state"]  # shares of the worst deviations' steps, summed over the rounds
    round: int = 0


def init(config: Config, demos: Demos | None, env: Any, generator: torch.Generator) -> State:
    """A fresh policy, and what recordings tell where there are any."""
    if env is None:
        raise ConfigError("blades asks an expert in an env, and there is none: give it one.")
    if not hasattr(env, "expert"):
        raise ConfigError("blades asks an expert in the env: hand in one, as `rollout.Queried(env, expert, name)` is.")
    if next(tree_leaves(env.expert.start(1)), None) is not None:
        raise EnvError(
            "expert: it remembers earlier steps, and blades asks about single states. Use one that does not."
        )
    game = games.game_of(env)
    policy = build_policy(config.net, env.spec, generator)
    log_table(policy, game.choices, game.states)  # refuses what remembers
    told = torch.zeros_like(game.reward[0]) if demos is None else count_table(demos, game).sum(0)
    optimizer = torch.optim.Adam(policy.parameters(), lr=config.rate)
    return State(policy, optimizer, told, torch.zeros_like(game.start))


def update(
    config: Config, state: State, demos: Demos | None, env: Any, generator: torch.Generator
) -> dict[str, Float[Tensor, ""]]:
    """One round: find the worst deviation, ask where it leads, then descend where all of them so far have led."""
    game = games.game_of(env)
    with torch.no_grad():
        log_play = log_table(state.policy, game.choices, game.states).double()
        known = games.unlikeness(state.told, log_play)
        loss = torch.where(state.told.sum(-1) > 0, known, sum(math.log(count) for count in game.choices))
        worst, visits = games.worst_case(game, log_play.exp(), loss, config.deviations, config.discount)
        state.told += ask(env, game, visits, config.asked, generator)
    state.visits += visits / visits.sum()
    for _ in range(config.steps):
        lost = games.visited_loss(log_table(state.policy, game.choices, game.states), state.told, state.visits)
        ppo.descend(state.optimizer, lost, config.max_grad_norm)
    state.round += 1
    return {
        "loss": lost.detach(),
        "worst": worst / visits.sum(),
        "known": (state.told.sum(-1) > 0).sum(),
        "queries": torch.tensor(state.round * config.asked * game.agents),
    }


def finished(config: Config, state: State) -> bool:
    return state.round >= config.rounds


def ask(
    env: Any, game: Game, visits: Float[Tensor, "state"], count: int, generator: torch.Generator
) -> Float[Tensor, "state joint"]:
    """How often the expert says what, asked in `count` states drawn as `visits` has them."""
    states = torch.multinomial(visits, count, replacement=True, generator=generator)
    seen = torch.nn.functional.one_hot(states, game.states).to(torch.float32)
    legal = own_moves(game.choices)
    view = View(
        obs=seen.unsqueeze(1).expand(-1, game.agents, -1),
        legal=None if bool(legal.all()) else legal.expand(count, -1, -1),
    )
    noise = uniform((count, game.agents, env.expert.noise), generator)
    actions, _ = env.expert.act(view, env.expert.start(count), noise)
    told = torch.zeros_like(game.reward[0])
    said = states * told.shape[-1] + joint_number(actions.long(), game.choices)
    return told.flatten().index_add(0, said, torch.ones(count, dtype=told.dtype)).reshape(told.shape)
