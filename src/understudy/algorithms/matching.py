"""What methods share that compare steps as points, without a discriminator: the points, the learner, one update.

A point is what an agent saw and did in a step, or what all of them did together, in standard deviations of the
demonstrators' steps. Whatever pays the learner for its points, `advance` plays a segment and improves on that by ppo.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from understudy.algorithms import adversary, bc, ppo
from understudy.core.errors import ConfigError
from understudy.core.tree import tree_map
from understudy.core.types import Env, EnvSpec, Segment, View
from understudy.demos.demos import Demos
from understudy.maths.heads import action_features, one_hot
from understudy.nets import AgentPolicy, Values
from understudy.rollout import Live, begin, within_bounds

Match = Literal["own", "joint"]


@dataclass(frozen=True)
class Points:
    """Steps of the demonstrators, each side of the axis `who` apart: the agents, or all of them as one."""

    at: Float[Tensor, "point who feature"]  # in the units of `mean` and `std`
    weight: Float[Tensor, "point who"]  # sums to 1 over the points
    mean: Float[Tensor, "who feature"]
    std: Float[Tensor, "who feature"]
    moving: Float[Tensor, "who"]  # how many of the features are not always the same, at least 1
    present: Float[Tensor, "who"]  # share of the demonstrators' steps that are points: the rest, somebody was absent
    gone: Float[Tensor, ""]  # share of the demonstrators' time after their games were over


def points_of(
    match: Match, demos: Demos, spec: EnvSpec, most: int, discount: float, generator: torch.Generator
) -> Points:
    """At most `most` steps of the demonstrators."""
    part = demos.batch(0, most, int(torch.randint(2**31, (), generator=generator)))
    assert part.weight is not None
    raw, weight = features(match, spec, part), counted(match, part)
    present = weight.sum(dim=0) / part.weight.sum().clamp(min=1e-12)
    weight = weight / weight.sum(dim=0).clamp(min=1e-12)
    mean = (weight.unsqueeze(-1) * raw).sum(dim=0)
    var = (weight.unsqueeze(-1) * (raw - mean).square()).sum(dim=0)
    acted = _acted(match, spec)
    var = torch.where(acted, (var * acted).sum(dim=-1, keepdim=True) / acted.sum(), var)  # moves are alike far apart
    std = torch.where(var > 1e-8, var.sqrt(), 1.0)
    gone = adversary.demonstrators_gone(demos, spec.horizon, discount)
    moving = (var > 1e-8).sum(dim=-1).clamp(min=1).float()
    return Points((raw - mean) / std, weight, mean, std, moving, present, gone)


def features(match: Match, spec: EnvSpec, steps: Segment) -> Float[Tensor, "*batch who feature"]:
    """What each agent saw and did, or all of them together; zeros for those who are absent.

    Continuous actions count as the env takes them, within their bounds: recordings hold them so.
    """
    own = torch.cat([steps.view.obs, one_hot(within_bounds(spec, steps.actions), spec.action)], dim=-1)
    if steps.view.present is not None:
        own = own * steps.view.present.unsqueeze(-1)
    return own if match == "own" else own.flatten(-2).unsqueeze(-2)


def flat(
    match: Match, spec: EnvSpec, points: Points, steps: Segment
) -> tuple[Float[Tensor, "step who feature"], Float[Tensor, "step who"]]:
    """Played steps as points, and which of them count."""
    kept = Segment(View(steps.view.obs, present=steps.view.present), steps.actions)
    one = tree_map(lambda x: x.flatten(0, 1), kept)
    return scaled(points, features(match, spec, one)), counted(match, one)


def counted(match: Match, steps: Segment) -> Float[Tensor, "*batch who"]:
    """How much each step counts: nothing where its agent is absent, a joint one where anybody is."""
    each = adversary.present(steps)
    return each if match == "own" else each.amin(dim=-1, keepdim=True)


def scaled(points: Points, raw: Float[Tensor, "*batch who feature"]) -> Float[Tensor, "*batch who feature"]:
    """In the demonstrators' standard deviations."""
    return (raw - points.mean) / points.std


def check(points: int, warmup: int, learner: ppo.Config) -> None:
    """Raises ConfigError for settings that cannot be meant."""
    if points < 2 or warmup < 0:
        raise ConfigError(f"points={points}, warmup={warmup}: 2 or more points are needed, and warmup is not negative.")
    if learner.discount == 1:
        raise ConfigError("learner.discount: 1 makes staying in the absorbing state worth infinitely much: use less.")


def _acted(match: Match, spec: EnvSpec) -> Tensor:
    """Which features are of the action."""
    own = torch.arange(spec.obs + action_features(spec.action)) >= spec.obs
    return own if match == "own" else own.repeat(spec.agents)


@dataclass
class Learner:
    """Who learns: a policy with its values, and the envs that it plays in."""

    policy: AgentPolicy
    values: Values
    optimizer: torch.optim.Optimizer
    live: Live
    running: Float[Tensor, "env agent"]  # the env's own return so far of each episode in play
    updates: int = 0


def learner_of(
    start: str,
    clone: bc.Config,
    config: ppo.Config,
    demos: Demos | None,
    env: Env | None,
    generator: torch.Generator,
) -> Learner:
    """Policies to begin from (`adversary.beginning`), fresh values, fresh envs."""
    demos, env = adversary.expect_both(demos, env)
    adversary.demonstrators_gone(demos, env.spec.horizon, config.discount)  # refused before a clone is made
    policy = adversary.beginning(start, clone, config.net, demos, env, generator)
    values = Values(env.spec, generator, config.central, config.value_hidden, share=policy.config.share)
    live = begin(env, policy, config.envs, generator)
    running = live.view.obs.new_zeros(config.envs, env.spec.agents)
    return Learner(policy, values, ppo.make_optimizer(config, policy, values), live, running)


def advance(
    config: ppo.Config,
    learner: Learner,
    env: Env,
    pay: Callable[[Segment, Tensor], tuple[Tensor, dict[str, Tensor]]],
    generator: torch.Generator,
    frozen: bool,
    adapt: bool,
) -> dict[str, Tensor]:
    """`ppo.advance` on what `pay(segment, ages before it)` gives each step, and figures with it."""

    def judged(played: Segment, before: Live) -> tuple[Tensor, dict[str, Tensor]]:
        rewards, told = pay(played, before.age)
        return rewards, told | {"reward/mean": rewards.mean(), "reward/std": rewards.std()}

    stats = ppo.advance(config, learner, env, judged, generator, frozen, adapt)
    learner.updates += 1
    return stats
