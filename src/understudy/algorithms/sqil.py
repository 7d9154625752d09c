"""SQIL: soft Q-learning that is paid for what the demonstrators did, and for nothing of its own.

    minimise  (E_expert[(Q(s, a) - 1 / temperature - discount V(s'))^2] + E_played[(Q(s, a) - discount V(s'))^2]) / 2

with V(s) = log sum_a exp Q(s, a), all in temperatures. The learner's policy is softmax Q; so it is drawn to where the
demonstrators were, as to a prize, and back to it from elsewhere. V(s') comes from a slower copy of Q (`follow`).

Agents learn each by themselves (`mixer="none"`), or Q and V are those of a team: sums of its agents' own (`sum`), or
monotone mixtures (`monotone`). Source: Reddy et al. 2020, arXiv:1905.11108, equation 5.
"""

import copy
from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from understudy.algorithms.ppo import descend
from understudy.core.config import at_least_one, not_negative
from understudy.core.errors import ConfigError, DemosError
from understudy.core.tree import tree_map
from understudy.core.types import Env
from understudy.demos.demos import Demos
from understudy.demos.replay import Replay, batch_of, looks
from understudy.maths.soft_q import sqil_loss, sqil_rest
from understudy.nets import AgentPolicy, NetConfig
from understudy.nets.soft_q import SoftQ, leaving
from understudy.rollout import Live, begin, collect


@dataclass(frozen=True)
class Config:
    net: NetConfig = field(default_factory=lambda: NetConfig(hidden=128, activation="relu"))
    mixer: Literal["none", "sum", "monotone"] = "none"  # what is valued: agents, or teams by sum or mixture
    temperature: float = 0.1  # of the policies, in units of what one step of the demonstrators is paid
    discount: float = 0.97
    follow: float = 0.1  # how far the slower copy follows in one gradient step
    batch: int = 256  # steps of demonstrations in a minibatch, and as many of play
    window: int = 32  # steps in a row, for policies with a past
    burn_in: int = 8  # first steps of a window that have no weight, but where the episode begins there
    steps: int = 5  # gradient steps in one update
    limit: int = 2_000  # gradient steps in all; the rate falls to 0 until then
    rate: float = 1e-3
    weight_decay: float = 0.3  # of AdamW: few demonstrations are soon known by heart
    max_grad_norm: float = 1.0
    envs: int = 32  # played side by side
    segment: int = 16  # steps played in each env before an update, by policies without a past
    replay: int = 65_536  # steps of play that are kept

    def __post_init__(self) -> None:
        at_least_one(self, "batch", "window", "steps", "limit", "envs", "segment", "replay")
        not_negative(self, "rate", "weight_decay")
        for name in ("temperature", "max_grad_norm"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name}: got {getattr(self, name)}, but it must be above 0.")
        if not 0 <= self.discount < 1:
            raise ConfigError(f"discount: got {self.discount}, but it must lie in [0, 1): rests are paid for ever.")
        if not 0 < self.follow <= 1:
            raise ConfigError(f"follow: got {self.follow}, but it is a share: above 0, at most 1.")
        if not 0 <= self.burn_in < self.window:
            raise ConfigError(f"burn_in: got {self.burn_in} of a window of {self.window}: some steps must be learnt.")


@dataclass
class State:
    """All that changes in training."""

    soft: SoftQ
    slow: SoftQ
    optimizer: torch.optim.Optimizer
    seed: int  # of the shuffle
    leave: Float[Tensor, "agent"]  # share of the demonstrators' steps after which an agent was gone
    live: Live
    replay: Replay
    position: int = 0  # minibatches learnt


def init(config: Config, demos: Demos | None, env: Env | None, generator: torch.Generator) -> State:
    """A fresh Q that normalises by the demonstrations, fresh envs, and a first segment of play."""
    if demos is None or not len(demos):
        raise DemosError("sqil learns from demonstrations, and there are none: give it a recording.")
    if env is None:
        raise ConfigError("sqil plays in the env, and there is none: give it one, or learn offline by `iq` or `bc`.")
    soft = SoftQ(config.net, demos.spec, config.mixer, generator)
    optimizer = torch.optim.AdamW(soft.groups(config.rate, config.weight_decay, reach=1.0))
    seed = int(torch.randint(2**31, (), generator=generator))
    leave = soft.observe([tree_map(lambda x: x.unsqueeze(1), part) for part in looks(demos, seed)])
    live = begin(env, soft.policy, min(config.envs, getattr(env, "copies", config.envs)), generator)
    played, live = collect(env, soft.policy, live, _length(config), generator)
    return State(soft, copy.deepcopy(soft), optimizer, seed, leave, live, Replay.of(played, config.replay))


def update(config: Config, state: State, demos: Demos, env: Env, generator: torch.Generator) -> dict[str, Tensor]:
    """A segment of play, then `steps` gradient steps."""
    soft, slow, reward = state.soft, state.slow, 1 / config.temperature
    window, burn_in = (config.window, config.burn_in) if config.net.has_past else (1, 0)
    played, state.live = collect(env, soft.policy, state.live, _length(config), generator)
    state.replay.put(played)
    rest = soft.shared(sqil_rest(state.leave, leaving(state.replay.kept), config.discount, reward))
    losses = []
    for _ in range(min(config.steps, config.limit - state.position)):
        for group in state.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * (1 - state.position / config.limit)
        sides, chase = [], torch.zeros(())
        theirs = batch_of(demos, state.position, config.batch, state.seed, window)
        for part in (theirs, state.replay.draw(config.batch, window, generator)):
            sides.append(soft.ahead(slow, part, rest, generator, burn_in))
            chase = chase + soft.chase(part, generator) / 2
        loss = sqil_loss(sides[0], sides[1], config.discount, reward)
        descend(state.optimizer, loss + chase, config.max_grad_norm)
        slow.follow(soft, config.follow)
        state.position += 1
        losses.append(loss.detach())
    return {"loss": torch.stack(losses).mean()}


def finished(config: Config, state: State) -> bool:
    """The limit is reached."""
    return state.position >= config.limit


def result(state: State) -> AgentPolicy:
    """The policies that Q makes."""
    return state.soft.policy


def _length(config: Config) -> int:
    """Steps of a segment of play: a window for policies with a past."""
    return config.window if config.net.has_past else config.segment
