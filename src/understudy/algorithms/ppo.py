"""Proximal policy optimisation for many agents: each climbs its own reward, none changes much in one update.

With probability ratio w = pi(a|o) / pi_old(a|o) and advantage A of generalised advantage estimation, the policy climbs

    E[ min( w A, clip(w, 1 - e, 1 + e) A ) ] + bonus * entropy,

and the values come closer to A + v_old. `central=False` is IPPO: values of each agent's own observation.
`central=True` is MAPPO: values of what everybody sees; the policies act on their own observations all the same.

It trains experts from a reward, and it is the learner inside the adversarial and inverse methods, which hand their own
rewards to `improve`. Sources: Schulman et al. 2017, arXiv:1707.06347; Yu et al. 2022, arXiv:2103.01955. Where we part
from them: advantages are normalised for each agent by itself (agents of two teams are not paid in one unit), and the
learning rate follows the change that it causes: it is lowered where the mean KL divergence of an update exceeds twice
`target_kl`, raised where it stays below half of it, within `rate_range`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from understudy.core.config import at_least_one, not_negative, share
from understudy.core.errors import ConfigError
from understudy.core.tree import tree_take
from understudy.core.types import Env, Segment
from understudy.maths.returns import gae
from understudy.nets import AgentPolicy, NetConfig, Values, build_policy, steps
from understudy.rollout import Live, begin, collect, episode_returns


@dataclass(frozen=True)
class Config:
    envs: int = 256  # played side by side
    segment: int = 64  # steps played in each env between two updates
    passes: int = 4  # over the segment in one update
    minibatches: int = 4  # gradient steps in one pass
    rate: float = 1e-3  # learning rate at the start
    rate_range: tuple[float, float] = (1e-5, 1e-2)
    target_kl: float = 0.01  # nats: how far an update is to move the policies; 0: the rate stays as it is
    discount: float = 0.97  # weight of the next step's reward: raise it where pay comes much later
    mix: float = 0.95  # lambda of the advantage
    clip: float = 0.2
    bonus: float = 0.02  # weight of the entropy, in standard deviations of the advantage per nat
    max_grad_norm: float = 1.0  # of policies and of values, each
    central: bool = True  # values see what everybody sees
    net: NetConfig = field(default_factory=NetConfig)
    value_hidden: int = 128  # width of the values' hidden layers

    def __post_init__(self) -> None:
        at_least_one(self, "envs", "segment", "passes", "minibatches", "value_hidden")
        if self.minibatches > self.envs:
            raise ConfigError(
                f"minibatches: got {self.minibatches} for {self.envs} envs, but a minibatch is made of whole envs. "
                "Play more envs or use fewer minibatches."
            )
        not_negative(self, "rate", "target_kl", "clip", "bonus")
        if not self.max_grad_norm > 0:
            raise ConfigError(f"max_grad_norm: got {self.max_grad_norm}, but it must be above 0; inf clips nothing.")
        share(self, "discount", "mix")


@dataclass
class State:
    """All that changes in training."""

    policy: AgentPolicy
    values: Values
    optimizer: torch.optim.Optimizer
    live: Live
    running: Float[Tensor, "env agent"]  # return so far of each episode in play


def init(config: Config, demos: Any, env: Env | None, generator: torch.Generator) -> State:
    """A fresh learner in fresh envs. `demos` are not used."""
    if env is None:
        raise ConfigError("ppo learns from the env's reward by playing in it: give it an env.")
    policy = build_policy(config.net, env.spec, generator)
    values = Values(env.spec, generator, config.central, config.value_hidden, share=config.net.share)
    live = begin(env, policy, config.envs, generator)
    running = live.view.obs.new_zeros(config.envs, env.spec.agents)
    return State(policy, values, make_optimizer(config, policy, values), live, running)


def make_optimizer(config: Config, policy: nn.Module, values: nn.Module) -> torch.optim.Optimizer:
    """Policies and values side by side: two groups of parameters, clipped each by itself in `descend`."""
    groups = [{"params": list(policy.parameters())}, {"params": list(values.parameters())}]
    return torch.optim.Adam(groups, lr=config.rate, eps=1e-5, fused=True)


def update(config: Config, state: State, demos: Any, env: Env, generator: torch.Generator) -> dict[str, Tensor]:
    """Play a segment, then improve on it."""

    def pay(played: Segment, before: Live) -> tuple[Tensor, dict[str, Tensor]]:
        assert played.rewards is not None
        return played.rewards, {"reward": played.rewards.mean()}

    return advance(config, state, env, pay, generator)


@runtime_checkable
class Learner(Protocol):
    """What `advance` moves on: the part that every method who learns by ppo has in its state."""

    policy: AgentPolicy
    values: Values
    optimizer: torch.optim.Optimizer
    live: Live
    running: Float[Tensor, "env agent"]


def advance(
    config: Config,
    learner: Learner,
    env: Env,
    pay: Callable[[Segment, Live], tuple[Tensor, dict[str, Tensor]]],
    generator: torch.Generator,
    frozen: bool = False,
    adapt: bool = True,
    anchor: Callable[[int], Tensor] | None = None,
) -> dict[str, Tensor]:
    """Play a segment, ask what each of its steps earns, and improve on that.

    Args:
        pay: `pay(played, the envs before it) -> (rewards, figures to tell)`, on whatever grounds.
        frozen, adapt, anchor: see `improve`.
    """
    before = learner.live
    played, learner.live = collect(env, learner.policy, before, config.segment, generator)
    assert played.rewards is not None
    finished, learner.running = episode_returns(played.rewards, played.ended, learner.running)
    rewards, told = pay(played, before)
    stats = improve(
        config, learner.policy, learner.values, learner.optimizer, played, rewards, generator,
        memory=before.memory, frozen=frozen, adapt=adapt, anchor=anchor,
    )  # fmt: skip
    return {**stats, "return": finished.mean(), **told}


def improve(
    config: Config,
    policy: AgentPolicy,
    values: Values,
    optimizer: torch.optim.Optimizer,
    played: Segment,
    rewards: Float[Tensor, "env time agent"],
    generator: torch.Generator,
    memory: Any = (),
    frozen: bool = False,
    adapt: bool = True,
    anchor: Callable[[int], Tensor] | None = None,
) -> dict[str, Tensor]:
    """`passes` times `minibatches` gradient steps on one segment, for `rewards` of whatever origin.

    Minibatches are made of whole envs, so that memory runs along each segment. Absent agents move no policy; the values
    learn from their steps too, for what is expected of being away (nothing, or the team's reward, or the next turn) is
    what is bootstrapped where an agent leaves.

    Args:
        memory: the policies' before the segment's first step.
        frozen: the values learn alone, of policies that stay as they are.
        adapt: the policies' normaliser follows what is seen. A clone's must not: it would play otherwise at once.
        anchor: `anchor(number of the gradient step) -> loss` of the policies besides, such as that of cloning.
    """
    assert played.terminated is not None and played.truncated is not None and played.next_view is not None
    envs = len(rewards)
    with torch.no_grad():
        seen = values.features(played.view)
        inputs = values.normaliser(seen)
        now = values.worth(inputs)
        after = _next_values(values, played, now)
        advantages = gae(rewards, now, after, played.terminated, played.truncated, config.discount, config.mix)
        returns = advantages + now
        values.observe_returns(returns)
        targets = (returns - values.mean) / values.std
        there = torch.ones_like(rewards) if played.view.present is None else played.view.present.to(rewards.dtype)
        advantages = _normalised(advantages, there)
        old_params, _ = policy.params(played.view, played.actions, memory, played.starts)
        old = policy.head.log_prob(old_params, played.actions, played.view.legal)

    needed = Segment(replace(played.view, whole=None), played.actions, starts=played.starts)

    def step(rows: Tensor, diverged: bool, besides: Tensor | None) -> dict[str, Tensor]:
        part, weight = tree_take(needed, rows), there[rows]
        params, _ = policy.params(part.view, part.actions, tree_take(memory, rows), part.starts)
        log_prob = policy.head.log_prob(params, part.actions, part.view.legal)
        gain = clipped_gain(log_prob - old[rows], advantages[rows], config.clip)
        entropy = policy.entropy(params, part.view.legal)
        policy_loss = -_mean(gain + config.bonus * entropy, weight)
        value_loss = (values.normalised(inputs[rows]) - targets[rows]).square().mean()
        loss = value_loss if frozen else policy_loss + value_loss
        descend(optimizer, loss if besides is None else loss + besides, config.max_grad_norm)
        told = {"loss/policy": policy_loss, "loss/value": value_loss, "entropy": _mean(entropy, weight)}
        if diverged:
            with torch.no_grad():
                told["kl"] = _mean(policy.head.kl(old_params[rows], params, part.view.legal), weight)
        return told

    at_once = None
    if not frozen:
        given = needed, (old_params, old), advantages, there, inputs, targets
        at_once = steps.climbing(policy, values, optimizer, config.max_grad_norm, config.clip, config.bonus, *given)
    totals: dict[str, list[Tensor]] = {}
    for number in range(config.passes):
        order = torch.randperm(envs, generator=generator, device=generator.device)
        for turn, rows in enumerate(order.chunk(config.minibatches)):
            besides = None if anchor is None or frozen else anchor(number * config.minibatches + turn)
            last = number == config.passes - 1  # what the whole update changed
            for name, value in (at_once or step)(rows, last, besides).items():
                totals.setdefault(name, []).append(value.detach())
    with torch.no_grad():
        explained = 1 - (returns - now).square().mean() / returns.var(correction=0).clamp(min=1e-12)
        if adapt and not frozen:
            policy.normaliser.observe(played.obs.flatten(0, -2))
        values.normaliser.observe(seen.flatten(0, -2))
    means = {name: torch.stack(each).mean() for name, each in totals.items()}
    if not frozen:  # what stood still would say that the rate is too low
        _follow(config, optimizer, means["kl"])
    rate = torch.tensor(float(optimizer.param_groups[0]["lr"]))
    return means | {"explained": explained, "rate": rate}


def clipped_gain(log_ratio: Tensor, advantages: Tensor, clip: float) -> Tensor:
    """min(w A, clip(w, 1 - clip, 1 + clip) A) with w = exp(log_ratio). Source: arXiv:1707.06347, equation 7."""
    ratio = log_ratio.exp()
    return torch.minimum(ratio * advantages, ratio.clamp(1 - clip, 1 + clip) * advantages)


def descend(optimizer: torch.optim.Optimizer, loss: Float[Tensor, ""], max_norm: float) -> None:
    """One gradient step; the gradient of each group of parameters is shortened to `max_norm`."""
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    for group in optimizer.param_groups:
        nn.utils.clip_grad_norm_(group["params"], max_norm)
    optimizer.step()


def _next_values(values: Values, played: Segment, now: Float[Tensor, "env time agent"]) -> Tensor:
    """Of what each step led to: the next step's own value but where an episode or the segment ended."""
    assert played.next_view is not None
    after = torch.empty_like(now)
    after[:, :-1] = now[:, 1:]
    asked = played.ended.clone()
    asked[:, -1] = True
    after[asked] = values(tree_take(played.next_view, asked))
    return after


def _normalised(advantages: Tensor, there: Tensor) -> Tensor:
    """Each agent's advantages with mean 0 and deviation 1 over envs and time, absent steps left out."""
    count = there.sum(dim=(0, 1)).clamp(min=1)
    mean = (advantages * there).sum(dim=(0, 1)) / count
    var = ((advantages - mean).square() * there).sum(dim=(0, 1)) / count
    return (advantages - mean) / (var.sqrt() + 1e-8)


def _mean(x: Tensor, weight: Tensor) -> Tensor:
    return (x * weight).sum() / weight.sum().clamp(min=1)


def _follow(config: Config, optimizer: torch.optim.Optimizer, kl: Float[Tensor, ""]) -> None:
    """Lower or raise the learning rate by half according to how far the update went."""
    if config.target_kl <= 0:
        return
    factor = 1 / 1.5 if kl > 2 * config.target_kl else 1.5 if kl < config.target_kl / 2 else 1.0
    low, high = config.rate_range
    for group in optimizer.param_groups:
        group["lr"] = min(max(group["lr"] * factor, low), high)
