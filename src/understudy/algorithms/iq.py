"""IQ-Learn: the Q whose own policy is the demonstrators', found without a reward and without a discriminator.

Every Q is the soft-optimal one of exactly one reward, r = Q(s, a) - discount * V(s'), and makes one policy, softmax Q.
So one looks for the Q under whose reward the demonstrators do better than whoever else does; in temperatures:

    maximise  E_expert[ r ]  -  E[ V(s) - discount * V(s') ]  -  penalty * E[ r^2 ],    V(s) = log sum_a exp Q(s, a)

`sampling` says over which steps the second mean goes, and the third:
    value    the demonstrators' own (offline): cloning, with a price on the rewards that the clone implies
    v0       the same with the step t weighed by discount^t, so that the second mean is (1 - discount) V(s_0) (offline)
    online   half the demonstrators', half play of the policy learnt so far, kept for a while and drawn from again;
             with `follow`, V(s') is that of a slower copy of Q

Agents learn each by themselves (`mixer="none"`), or r and V are those of a team: sums of its agents' own (`sum`, VDN),
or monotone mixtures (`monotone`, MIFQ). Sources: Garg et al. 2021, arXiv:2106.12142; Bui et al. 2024, arXiv:2310.06801.
"""

import copy
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from understudy.algorithms import adversary
from understudy.algorithms.ppo import descend
from understudy.core.config import at_least_one, not_negative, share
from understudy.core.errors import ConfigError, DemosError
from understudy.core.symmetry import Groups, elsewhere, symmetries_of
from understudy.core.tree import tree_map
from understudy.core.types import Env, Policy, Segment
from understudy.demos.demos import Demos
from understudy.demos.replay import Replay, batch_of, looks
from understudy.maths.soft_q import discounted, iq_loss, iq_rest
from understudy.nets import AgentPolicy, NetConfig
from understudy.nets.soft_q import SoftQ, leaving
from understudy.rollout import Live, Wandering, begin, collect


@dataclass(frozen=True)
class Config:
    net: NetConfig = field(default_factory=lambda: NetConfig(hidden=128, activation="relu"))
    start: str = "fresh"  # where Q begins: "fresh", or the folder of a saved policy, whose logits are then the first Q
    mixer: Literal["none", "sum", "monotone"] = "none"  # what is valued: agents, or teams by sum or mixture
    sampling: Literal["value", "v0", "online"] = "value"
    symmetric: bool = True  # every step is seen as in a symmetric world, where an env is given and says of any
    discount: float = 0.995
    penalty: float = 0.01  # weight of r^2, rewards in temperatures: temperature / (4 alpha) of the paper
    batch: int = 256  # steps of demonstrations in a minibatch; online as many of play
    window: int = 32  # steps in a row, for policies with a past
    burn_in: int = 8  # first steps of a window that have no weight, but where the episode begins there
    steps: int = 5  # gradient steps in one update
    limit: int = 2_000  # gradient steps in all; the rate falls to 0 until then
    rate: float = 1e-3
    weight_decay: float = 0.3  # of AdamW: few demonstrations are soon known by heart
    max_grad_norm: float = 1.0
    envs: int = 32  # online: played side by side
    segment: int = 16  # online: steps played in each env before an update, by policies without a past
    replay: int = 65_536  # online: steps of play that are kept
    scales: Literal["demos", "both"] = "demos"  # online: whose steps set the scale of what is seen; both: half and half
    follow: float = 0.0  # online: above 0 V(s') is of a slower copy of Q, which follows so far in a gradient step
    explore: float = 0.0  # online: share of moves drawn from all legal ones at first; it falls to 0 until the limit
    dread: float = 1.0  # online: how many times as bad as a life unlike the demonstrators' a rest is that repels

    def __post_init__(self) -> None:
        at_least_one(self, "batch", "window", "steps", "limit", "envs", "segment", "replay")
        not_negative(self, "penalty", "rate", "weight_decay", "dread")
        if not self.max_grad_norm > 0:
            raise ConfigError(f"max_grad_norm: got {self.max_grad_norm}, but it must be above 0; inf clips nothing.")
        share(self, "discount", "follow", "explore")
        if not 0 <= self.burn_in < self.window:
            raise ConfigError(f"burn_in: got {self.burn_in} of a window of {self.window}: some steps must be learnt.")
        if self.sampling == "online" and (self.penalty == 0 or self.discount == 1):
            raise ConfigError(
                f"penalty={self.penalty}, discount={self.discount}: against play of one's own, rewards without a price "
                "grow for ever, and so does what is worth resting for ever undiscounted. Use a penalty above 0 and a "
                "discount below 1."
            )
        if self.explore and (self.net.own_action or self.net.joint):
            raise ConfigError(
                f"explore: got {self.explore}, but this net reads its agents' own moves, and would take those that it "
                "meant for those that were made. Use 0, or a net without own_action and joint."
            )


@dataclass
class State:
    """All that changes in training."""

    soft: SoftQ
    optimizer: torch.optim.Optimizer
    seed: int  # of the shuffle
    leave: Float[Tensor, "agent"]  # share of the demonstrators' steps after which an agent was gone
    position: int = 0  # minibatches learnt
    live: Live | None = None  # online: the envs in play
    replay: Replay | None = None  # online: what was played
    slow: SoftQ | None = None  # online, with `follow`: a slower copy of Q


def init(config: Config, demos: Demos | None, env: Env | None, generator: torch.Generator) -> State:
    """A fresh Q that normalises by the demonstrations; online also fresh envs, and a first segment of play."""
    if demos is None or not len(demos):
        raise DemosError("iq learns from demonstrations, and there are none: give it a recording.")
    begins = None if config.start == "fresh" else adversary.saved_for(config.start, demos.spec)
    net = config.net if begins is None else replace(begins.config, dropout=0.0)
    soft = SoftQ(net, demos.spec, config.mixer, generator)
    best = 0.5 / config.penalty if config.penalty else 1.0  # reward: so far has Q to go
    optimizer = torch.optim.AdamW(soft.groups(config.rate, config.weight_decay, reach=max(1.0, best)))
    seed = int(torch.randint(2**31, (), generator=generator))
    leave = soft.observe([tree_map(lambda x: x.unsqueeze(1), part) for part in looks(demos, seed)])
    if begins is not None:
        soft.policy.load_state_dict(begins.state_dict())  # with its own scales of what is seen
    state = State(soft, optimizer, seed, leave)
    if config.sampling == "online":
        if env is None:
            raise ConfigError("sampling: 'online' plays in the env, and there is none: give it one, or use 'value'.")
        state.live = begin(env, soft.policy, min(config.envs, getattr(env, "copies", config.envs)), generator)
        state.replay = Replay.of(_played(config, state, env, generator), config.replay)
        if config.scales == "both" and begins is None:
            scale, obs = soft.policy.normaliser, state.replay.kept.obs
            scale.observe(obs.flatten(0, -2), as_many=float(scale.count))
        state.slow = copy.deepcopy(soft) if config.follow else None
    return state


def update(
    config: Config, state: State, demos: Demos, env: Env | None, generator: torch.Generator
) -> dict[str, Tensor]:
    """`steps` gradient steps; online, a segment is played before them."""
    rest = torch.zeros_like(state.leave)
    if state.replay is not None:
        assert env is not None
        state.replay.put(_played(config, state, env, generator))
        rest = iq_rest(state.leave, leaving(state.replay.kept), config.discount, config.penalty)
        rest = rest.where(rest > 0, config.dread * rest)
    groups = _worlds(config, env)
    totals = []
    for _ in range(min(config.steps, config.limit - state.position)):
        for group in state.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * (1 - state.position / config.limit)
        loss, reward = _loss(config, state, demos, groups, state.soft.shared(rest), generator)
        descend(state.optimizer, loss, config.max_grad_norm)
        if state.slow is not None:
            state.slow.follow(state.soft, config.follow)
        state.position += 1
        totals.append(torch.stack([loss.detach(), reward]))
    loss, reward = torch.stack(totals).mean(dim=0)
    return {"loss": loss, "reward": reward}


def finished(config: Config, state: State) -> bool:
    """The limit is reached."""
    return state.position >= config.limit


def result(state: State) -> AgentPolicy:
    """The policies that Q makes."""
    return state.soft.policy


def _loss(
    config: Config,
    state: State,
    demos: Demos,
    groups: Groups,
    rest: Float[Tensor, "agent"],
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """What one gradient step lowers, and the implied reward's mean over the demonstrators' steps."""
    soft, has_past = state.soft, state.soft.policy.config.has_past
    window, burn_in = (config.window, config.burn_in) if has_past else (1, 0)
    if config.sampling == "v0":
        count = max(1, config.batch // int(demos.lengths.max()))
        part = demos.padded(torch.randint(len(demos), (count,), generator=generator))
        part = elsewhere(groups, part, generator)
        expert = discounted(soft.value(part, rest, generator), config.discount)
    else:
        part = elsewhere(groups, batch_of(demos, state.position, config.batch, state.seed, window), generator)
        expert = soft.ahead(state.slow, part, rest, generator, burn_in)
    chase, played = soft.chase(part, generator), None
    if state.replay is not None:
        ours = elsewhere(groups, state.replay.draw(config.batch, window, generator), generator)
        played = soft.ahead(state.slow, ours, rest, generator, burn_in)
        chase = (chase + soft.chase(ours, generator)) / 2
    loss, reward = iq_loss(expert, played, config.discount, config.penalty)
    return loss + chase, reward


def _played(config: Config, state: State, env: Env, generator: torch.Generator) -> Segment:
    """A segment of play by the policies as they are, now and then wandering."""
    assert state.live is not None
    policy: Policy = state.soft.policy
    if config.explore:
        policy = Wandering(policy, env.spec, config.explore * (1 - state.position / config.limit))
    played, state.live = collect(env, policy, state.live, _length(config, state), generator)
    return played


def _worlds(config: Config, env: Env | None) -> Groups:
    """The symmetries that are learnt from. A mixture of the whole state has none: what it is elsewhere is not known."""
    return symmetries_of(env) if config.symmetric and env is not None and config.mixer != "monotone" else ()


def _length(config: Config, state: State) -> int:
    """Steps of a segment of play: a window for policies with a past."""
    return config.window if state.soft.policy.config.has_past else config.segment
