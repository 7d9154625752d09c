"""Behavioural cloning: make what the demonstrators did likely, given what they had perceived.

    minimise  - sum over steps of  weight * log pi(a | o, what came before)

Who shares what is the policy's business (`net`): `share="none"` clones every agent independently, "role" and "all"
share weights, `joint` draws each agent's action given those of the agents before it (the only form that can learn
"both go left or both go right" from one observation), `body="gru"` or `frames` give it a past. It stops by itself:
a share of the episodes is held out, and the weights that made those likeliest are kept.

Source: Pomerleau 1991; for recurrent policies from windows of long recordings, the steps at a window's beginning whose
past was cut off are left out of the loss (`burn_in`; Kapturowski et al. 2019, R2D2).
"""

import copy
import math
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from understudy.algorithms.ppo import descend
from understudy.core.config import at_least_one, not_negative, share
from understudy.core.errors import ConfigError, DemosError
from understudy.core.symmetry import Groups, elsewhere, symmetries_of
from understudy.core.types import Segment
from understudy.demos.demos import Demos
from understudy.demos.replay import batch_of, looks
from understudy.nets import AgentPolicy, NetConfig, build_policy, steps
from understudy.rollout import choosing, score

WARM = 30  # gradient steps in which a rate that decays rises


@dataclass(frozen=True)
class Config:
    net: NetConfig = field(default_factory=lambda: NetConfig(hidden=128, activation="relu"))
    batch: int = 2048  # steps in a minibatch, all agents of a step together
    window: int = 64  # steps in a row, for policies with a past
    burn_in: int = 8  # first steps of a window that are not in the loss, but where the episode begins there
    steps: int = 20  # gradient steps in one update
    limit: int = 20_000  # gradient steps in all, at most
    rate: float = 1e-3
    decay: bool = False  # the rate rises for `WARM` gradient steps, and falls to 0 at `limit`, along half a cosine
    weight_decay: float = 1e-4
    held_out: float = 0.1  # share of the episodes that decides when to stop; 0: never stop early
    patience: int = 10  # looks at them without a better likelihood before it stops (a look a pass, or an update)
    symmetric: bool = False  # each batch as it would be in symmetric worlds: see `env.symmetries`
    by_return: float = 0.0  # weigh episodes by exp(by_return * standardised return); 0: by their own weights alone
    max_grad_norm: float = 1.0

    def __post_init__(self) -> None:
        at_least_one(self, "batch", "window", "steps", "limit", "patience")
        not_negative(self, "rate", "weight_decay")
        if not self.max_grad_norm > 0:
            raise ConfigError(f"max_grad_norm: got {self.max_grad_norm}, but it must be above 0; inf clips nothing.")
        if not math.isfinite(self.by_return):
            raise ConfigError(f"by_return: got {self.by_return}, but it must be a finite number.")
        share(self, "held_out", below=True)
        if not 0 <= self.burn_in < self.window:
            raise ConfigError(f"burn_in: got {self.burn_in} of a window of {self.window}: some steps must be learnt.")


@dataclass
class State:
    """All that changes in training."""

    policy: AgentPolicy
    best: AgentPolicy  # likeliest so far for the episodes held out
    optimizer: torch.optim.Optimizer
    seed: int  # of the split and of the shuffle
    position: int = 0  # minibatches learnt
    looked: int = 0  # position of the latest look at the episodes held out
    misses: int = 0  # looks in a row that found nothing better
    best_loss: float = float("inf")
    held_loss: float = float("nan")  # of the latest look


def init(config: Config, demos: Demos | None, env: Any, generator: torch.Generator) -> State:
    """A fresh policy that normalises by the demonstrations. Of `env` no more than its symmetries are asked for."""
    if config.symmetric and env is None:
        raise ConfigError("symmetric: it is the env that knows its symmetries: give it one, or leave this False.")
    if demos is None or not len(demos):
        raise DemosError("bc learns from demonstrations alone, and there are none: give it a recording.")
    policy = build_policy(config.net, demos.spec, generator)
    seed = int(torch.randint(2**31, (), generator=generator))
    train, _ = _parts(demos, config, seed)
    for part in looks(train, seed):
        policy.normaliser.observe(part.obs.flatten(0, -2))
    optimizer = torch.optim.AdamW(policy.parameters(), lr=config.rate, weight_decay=config.weight_decay, fused=True)
    return State(policy, copy.deepcopy(policy), optimizer, seed)


def update(
    config: Config, state: State, demos: Demos, env: Any, generator: torch.Generator
) -> dict[str, Float[Tensor, ""]]:
    """`steps` gradient steps, then a look at the episodes held out if a whole pass went by since the last."""
    train, held = _parts(demos, config, state.seed)
    groups = symmetries_of(env) if config.symmetric else ()
    window = config.window if config.net.has_past else 1
    at_once = steps.cloning(state.policy, state.optimizer, config.max_grad_norm)
    losses = []
    for _ in range(min(config.steps, config.limit - state.position)):
        if config.decay:
            state.optimizer.param_groups[0]["lr"] = _rate(config, state.position)
        if at_once is not None:
            losses.append(at_once(*_drawn(config, state, train, groups, generator)))
        else:
            part = batch_of(train, state.position, config.batch, state.seed, window, following=False)
            loss = clone_loss(state.policy, elsewhere(groups, part, generator), config, generator)
            descend(state.optimizer, loss, config.max_grad_norm)
            losses.append(loss.detach())
        state.position += 1
    a_pass = train.batches_per_epoch(max(1, config.batch // window), window)
    if state.position - state.looked >= a_pass or state.position >= config.limit:
        _look_at_held_out(state, held)
    return {
        "loss": torch.stack(losses).mean().float(),
        "held_out": torch.tensor(state.held_loss),
        "passes": torch.tensor(state.position / a_pass),
    }


def finished(config: Config, state: State) -> bool:
    """Nothing better was found for `patience` looks, or the limit is reached."""
    return state.misses >= config.patience or state.position >= config.limit


def result(state: State) -> AgentPolicy:
    """The policy that made the episodes held out likeliest; the latest where none were held out or looked at yet."""
    return state.best if math.isfinite(state.best_loss) else state.policy


def clone(config: Config, demos: Demos, generator: torch.Generator, env: Any = None) -> AgentPolicy:
    """The policy that cloning ends with: where methods that play begin."""
    state = init(config, demos, env, generator)
    while not finished(config, state):
        update(config, state, demos, env, generator)
    return result(state)


def cold_start(config: Any) -> Any:
    """`config`, with a clone of one gradient step: for a state that a checkpoint is about to replace.

    Methods that begin from a clone offer it to the loop as `cold`.
    """
    return replace(config, clone=replace(config.clone, limit=1))


def clone_loss(
    policy: AgentPolicy,
    part: Segment,
    config: Config,
    generator: torch.Generator,
    told: Bool[Tensor, "env time agent"] | None = None,
) -> Float[Tensor, ""]:
    """Mean of -log pi over the choices that count, in nats. `part` has axes [env, time, agent, ...].

    `told`: where `part.actions` are what a demonstrator did; None: everywhere.
    """
    params, _ = policy.of_members(part.view, part.actions, starts=part.starts, chance=generator)
    members, legal = len(params), part.view.legal
    actions = part.actions.expand(members, *part.actions.shape)
    legal = None if legal is None else legal.expand(members, *legal.shape)
    log_prob = policy.head.log_prob(params, actions, legal).mean(dim=0)  # each member learns by itself
    counts = choosing(part) if told is None else choosing(part) & told
    weight = counts.to(log_prob.dtype)
    if part.weight is not None:
        weight = weight * part.weight.unsqueeze(-1)
    if config.net.has_past and part.starts is not None:
        begun = part.starts[:, :1, None]  # the episode begins with this window: its past is all there
        late = torch.arange(weight.shape[1], device=weight.device)[:, None] >= config.burn_in
        weight = weight * (begun | late)
    counted = log_prob.where(weight > 0, 0.0)  # who does not count may have done what was impossible
    return -(counted * weight).sum() / weight.sum().clamp(min=1e-8)


def weigh_by_return(demos: Demos, strength: float) -> Demos:
    """Episode weights times exp(strength * z), z the episode's return in standard deviations from the mean."""
    returns = demos.returns().sum(dim=-1)
    z = (returns - returns.mean()) / returns.std(correction=0).clamp(min=1e-8)
    weights = demos.weights * (strength * z).exp()
    return demos.reweighted(weights / weights.mean())


def _drawn(config: Config, state: State, train: Demos, groups: Groups, generator: torch.Generator) -> Any:
    """The minibatch as `steps.cloning` takes it: recordings, which of their rows, and what each weighs."""
    if not groups:
        drawn = train.drawn(state.position, config.batch, state.seed)
        return drawn.among, drawn.rows, drawn.weight
    part = elsewhere(groups, train.batch(state.position, config.batch, state.seed, following=False), generator)
    return part, None, part.weight


def _rate(config: Config, position: int) -> float:
    return config.rate * min(1.0, (position + 1) / WARM) * 0.5 * (1 + math.cos(math.pi * position / config.limit))


def _look_at_held_out(state: State, held: Demos | None) -> None:
    state.looked = state.position
    if held is None:
        return
    state.held_loss = -float(score(state.policy, held).mean)
    if state.held_loss < state.best_loss:
        state.best_loss, state.misses = state.held_loss, 0
        state.best.load_state_dict(state.policy.state_dict())
    else:
        state.misses += 1


@lru_cache(maxsize=4)
def _parts(demos: Demos, config: Config, seed: int) -> tuple[Demos, Demos | None]:
    """Episodes to learn from and episodes held out: at least one of four or more, none of fewer.

    Episodes of one name stay together, and the first of them stands for them when held out.
    """
    if config.by_return:
        demos = weigh_by_return(demos, config.by_return)
    kept = _families(demos)
    count = max(1, round(config.held_out * len(kept))) if config.held_out and len(kept) >= 4 else 0
    if not count:
        return demos, None
    order = torch.randperm(len(kept), generator=torch.Generator().manual_seed(seed)).tolist()
    apart = [kept[i] for i in order[:count]]
    rest = [i for family in (kept[k] for k in order[count:]) for i in family]
    return demos.select(sorted(rest)), demos.select(sorted(family[0] for family in apart))


def _families(demos: Demos) -> list[list[int]]:
    """Episodes that must not be parted: those of one name, such as an episode and its mirror image."""
    families: dict[Any, list[int]] = {}
    for i, name in enumerate(demos.names):
        families.setdefault(name or i, []).append(i)
    return list(families.values())
