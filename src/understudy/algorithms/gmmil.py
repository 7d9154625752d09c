"""GMMIL: the learner is paid for being where demonstrators' steps are denser than its own, as kernels see it.

With steps as points x = (o, a) and a kernel k, the reward is the witness function of the maximum mean discrepancy,

    r(x) = E_expert[ k(x, x') ] - E_learner[ k(x, x') ],      E_expert[ r ] - E_learner[ r ] = MMD^2,

so climbing it, by ppo, brings the learner's steps to the demonstrators', and there is nothing to be taught beside the
policy. k is the mean of two Gaussians whose widths are medians of distances. `match` says what is a point: each agent's
own step ("own"), or everybody's together ("joint", the product of all agents' Gaussians).

Source: Kim and Park 2018 (AAAI), Imitation learning via kernel mean embedding; Gretton et al. 2012, JMLR 13. Where we
part from it: ppo for trust regions, points in units of the demonstrators' deviations, a clone to begin with, and
episodes that are over go on in an absorbing state, which is like itself and unlike all else.
"""

import math
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from understudy.algorithms import adversary, bc, matching, ppo
from understudy.algorithms.matching import Learner, Match, Points
from understudy.core.errors import ConfigError
from understudy.core.types import Env, Segment
from understudy.demos.demos import Demos
from understudy.maths.adversarial import absorbing_payoff
from understudy.maths.matching import closeness, median_squares
from understudy.nets import AgentPolicy

MEDIANS_OF = 1000  # points of each side that the widths are taken from


@dataclass(frozen=True)
class Config:
    match: Match = "own"  # points are each agent's own steps, or the steps of all together
    points: int = 1000  # steps of each side that a step is compared with, at most
    width: float = 1.0  # of the kernels: their squares, in medians of the squared distance
    warmup: int = 5  # updates in which the values learn while the policies stand still
    start: str = "clone"  # where the policies begin: "clone", "fresh", or the folder of a saved policy
    clone: bc.Config = field(default_factory=bc.Config)  # how it is cloned; its net is the learner's
    learner: ppo.Config = field(default_factory=lambda: ppo.Config(envs=64, bonus=0.0))

    def __post_init__(self) -> None:
        matching.check(self.points, self.warmup, self.learner)
        if not 0 < self.width < math.inf:
            raise ConfigError(f"width: got {self.width}, but it must be a finite number above 0.")


@dataclass
class State:
    """All that changes in training."""

    learner: Learner
    points: Points  # the demonstrators': drawn once
    squares: Float[Tensor, "who 2"]  # of the kernels' widths: known after the first segment


cold = bc.cold_start


def init(config: Config, demos: Demos | None, env: Env | None, generator: torch.Generator) -> State:
    """Policies to begin from, the demonstrators' points, fresh values and envs."""
    learner = matching.learner_of(config.start, config.clone, config.learner, demos, env, generator)
    assert demos is not None and env is not None
    points = matching.points_of(config.match, demos, env.spec, config.points, config.learner.discount, generator)
    return State(learner, points, torch.ones(points.at.shape[1], 2))


def update(config: Config, state: State, demos: Demos, env: Env, generator: torch.Generator) -> dict[str, Tensor]:
    """Play a segment, compare it with the demonstrators', then improve."""

    def pay(played: Segment, age: Int[Tensor, "env"]) -> tuple[Tensor, dict[str, Tensor]]:
        gone = adversary.learners_gone(played, age, env.spec.horizon, config.learner.discount)
        return rewards_of(config, state, env, played, gone, generator)

    frozen = state.learner.updates < config.warmup
    return matching.advance(config.learner, state.learner, env, pay, generator, frozen, adapt=config.start == "fresh")


def result(state: State) -> AgentPolicy:
    return state.learner.policy


@torch.no_grad()
def rewards_of(
    config: Config, state: State, env: Env, played: Segment, gone: Float[Tensor, ""], generator: torch.Generator
) -> tuple[Float[Tensor, "env time agent"], dict[str, Tensor]]:
    """The witness function at each step. A step that ends the game is paid what follows it too.

    `gone`: the learner's share of its time after its games were over. In the absorbing state the witness function is
    the demonstrators' share less that; the other shares weigh what is played.
    """
    expert = state.points
    x, there = matching.flat(config.match, env.spec, expert, played)
    rows = torch.randperm(len(x), generator=generator, device=generator.device)[: config.points]
    ours, weight = x[rows], there[rows] / there[rows].sum(dim=0).clamp(min=1e-12)
    if not state.learner.updates:
        state.squares = config.width * median_squares(expert.at[:MEDIANS_OF], ours[:MEDIANS_OF])

    def compare(points: Tensor) -> tuple[Tensor, Tensor]:
        return closeness(points, expert.at, expert.weight, state.squares), closeness(
            points, ours, weight, state.squares
        )

    to_expert, to_ours = compare(x)
    to_ours[rows] = (to_ours[rows] - weight) / (1 - weight).clamp(min=1e-6)  # a step is not compared with itself
    reward = (1 - expert.gone) * to_expert - (1 - gone) * to_ours
    absorbed = expert.gone - gone

    theirs, mine = compare(expert.at)
    at_expert = (expert.weight * ((1 - expert.gone) * theirs - (1 - gone) * mine)).sum(dim=0)
    at_ours = (weight * reward[rows]).sum(dim=0)
    mmd2 = (1 - expert.gone) * at_expert - (1 - gone) * at_ours + absorbed.square()

    assert played.terminated is not None
    reward = reward.unflatten(0, played.terminated.shape).expand(*played.terminated.shape, env.spec.agents)
    after = absorbing_payoff(absorbed, config.learner.discount)
    reward = reward + played.terminated.unsqueeze(-1) * after
    return reward, {"mmd2": mmd2.mean(), "gone/expert": expert.gone, "gone/learner": gone}
