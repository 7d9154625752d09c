"""PWIL: an episode's steps are carried to the demonstrators' steps, and each is paid by how far it had to go.

Every step of an episode is a load of 1/T, every demonstrated one a place for 1/n. In the order in which they are
played, steps take the nearest places that are still free; with c the load times the distance in it,

    r = alpha * exp( - beta * T / sqrt(features) * c ).

The sum of all c is at least the Wasserstein distance between the two sets of steps, so whoever is paid well is close.
Nothing is taught beside the policy, which climbs r by ppo. `match` says what a step is: each agent's own observation
and action ("own"), or everybody's together ("joint").

Source: Dadashi et al. 2021, arXiv:2006.04678, equations 5 and 6, algorithm 1. Where we part from it: ppo for an
off-policy learner, a clone to begin with, and episodes that are over go on in an absorbing state.
"""

import math
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from understudy.algorithms import bc, matching, ppo
from understudy.algorithms.matching import Learner, Match, Points
from understudy.core.errors import ConfigError
from understudy.core.types import Env, Segment
from understudy.demos.demos import Demos
from understudy.maths.adversarial import absorbing_payoff, ages
from understudy.maths.matching import couple, squared_distances
from understudy.nets import AgentPolicy


@dataclass(frozen=True)
class Config:
    match: Match = "own"  # points are each agent's own steps, or the steps of all together
    points: int = 500  # demonstrated steps that are places, at most
    alpha: float = 5.0  # most that a step is paid
    beta: float = 5.0  # how fast that falls with distance
    warmup: int = 5  # updates in which the values learn while the policies stand still
    start: str = "clone"  # where the policies begin: "clone", "fresh", or the folder of a saved policy
    clone: bc.Config = field(default_factory=bc.Config)  # how it is cloned; its net is the learner's
    learner: ppo.Config = field(default_factory=lambda: ppo.Config(envs=64, bonus=0.0))

    def __post_init__(self) -> None:
        matching.check(self.points, self.warmup, self.learner)
        for name in ("alpha", "beta"):
            if not 0 < getattr(self, name) < math.inf:
                raise ConfigError(f"{name}: got {getattr(self, name)}, but it must be a finite number above 0.")


@dataclass
class State:
    """All that changes in training."""

    learner: Learner
    points: Points  # the demonstrators': drawn once
    left: Float[Tensor, "env who point"]  # what places are still free for, of the episode in play in each env


cold = bc.cold_start


def init(config: Config, demos: Demos | None, env: Env | None, generator: torch.Generator) -> State:
    """Policies to begin from, the demonstrators' points, fresh values and envs."""
    learner = matching.learner_of(config.start, config.clone, config.learner, demos, env, generator)
    assert demos is not None and env is not None
    points = matching.points_of(config.match, demos, env.spec, config.points, config.learner.discount, generator)
    return State(learner, points, places(points).expand(config.learner.envs, -1, -1).clone())


def places(points: Points) -> Float[Tensor, "who point"]:
    """What each demonstrated step can take; what is missing from 1 is the absorbing state's, and of being absent."""
    return (1 - points.gone) * points.present.unsqueeze(-1) * points.weight.T


def update(config: Config, state: State, demos: Demos, env: Env, generator: torch.Generator) -> dict[str, Tensor]:
    """Play a segment, couple it with the demonstrators', then improve."""

    def pay(played: Segment, age: Int[Tensor, "env"]) -> tuple[Tensor, dict[str, Tensor]]:
        return rewards_of(config, state, env, played, age, env.spec.horizon or int(demos.lengths.max()))

    frozen = state.learner.updates < config.warmup
    return matching.advance(config.learner, state.learner, env, pay, generator, frozen, adapt=config.start == "fresh")


def result(state: State) -> AgentPolicy:
    return state.learner.policy


@torch.no_grad()
def rewards_of(
    config: Config, state: State, env: Env, played: Segment, age: Int[Tensor, "env"], horizon: int
) -> tuple[Float[Tensor, "env time agent"], dict[str, Tensor]]:
    """What each step is paid for its coupling, for which `state.left` goes on; the last one for what follows too.

    Steps in the absorbing state go nowhere as long as demonstrators' time there lasts, and are paid alpha; then there
    is no place for them. What they are paid on average up to the horizon they are paid for ever. Who is absent goes
    nowhere, and is paid nothing.
    """
    assert played.starts is not None and played.terminated is not None
    points = state.points
    x = matching.scaled(points, matching.features(config.match, env.spec, played))
    envs, steps, who = x.shape[:3]
    apart = squared_distances(x.flatten(0, 1), points.at).sqrt()  # [who, env * time, point]
    apart = apart.unflatten(1, (envs, steps)).transpose(0, 1)  # [env, who, time, point]
    there = matching.counted(config.match, played) > 0
    costs, fresh = [], places(points)
    for t in range(steps):  # what a step finds free hangs on the steps before it
        before = torch.where(played.starts[:, t, None, None], fresh, state.left)
        cost, left = couple(before.flatten(0, 1), 1 / horizon, apart[:, :, t].flatten(0, 1))
        state.left = torch.where(there[:, t, :, None], left.unflatten(0, (envs, who)), before)
        costs.append(cost.unflatten(0, (envs, who)))
    cost = torch.stack(costs, dim=1)
    reward = config.alpha * torch.exp(-config.beta * horizon / points.moving.sqrt() * cost) * there
    remain = (horizon - 1 - ages(played.starts, age)).unsqueeze(-1)
    absorbed = config.alpha * (points.gone * horizon / remain.clamp(min=1)).clamp(max=1)
    absorbed = torch.where(remain > 0, absorbed, reward)  # who ends with the last step goes on as he was
    reward = reward + played.terminated.unsqueeze(-1) * absorbing_payoff(absorbed, config.learner.discount)
    reward = reward.expand(*reward.shape[:2], env.spec.agents)
    placed = cost.isfinite() & there
    told = {
        "cost": horizon * cost[placed].mean(),
        "placed": placed.sum() / there.sum().clamp(min=1),
        "gone/expert": points.gone,
    }
    return reward, told
