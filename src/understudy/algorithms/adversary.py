"""What the adversarial methods share: where they begin, the two sides of the discriminator, and how episodes end.

An episode that is over goes on in an absorbing state up to the horizon, for demonstrators and learners alike. Without
it a reward above 0 pays a learner for not finishing, one below 0 for finishing at any price. The state has no features,
so that what a discriminator would think of it is known from how much of its time each side spends there.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from understudy.algorithms import bc, ppo
from understudy.core.errors import ConfigError, DemosError, EnvError
from understudy.core.random import uniform
from understudy.core.symmetry import elsewhere, symmetries_of
from understudy.core.tree import tree_cat, tree_map, tree_take
from understudy.core.types import Continuous, Env, EnvSpec, Segment, View, action_shape
from understudy.demos.demos import Demos
from understudy.demos.replay import batch_of
from understudy.maths.adversarial import ages, calibration_error, gone_together, steps_remaining, weighted_mean
from understudy.nets import AgentPolicy, NetConfig, build_policy
from understudy.nets.saved import load_policy
from understudy.rollout import Live, within_bounds

SATURATED = 4.6  # |logit| of a discriminator that is surer than 99 %
EAGER = 4  # times as many steps of the discriminator in an update of the warm-up: it is to know before it pays
RECENT = 0.2  # weight of a segment's ends beside those of earlier ones: few games end in one


def learner_defaults() -> ppo.Config:
    """Short segments and small nets: what is learnt from changes with every update, so many small ones are better."""
    return ppo.Config(envs=128, segment=32, target_kl=0.03, bonus=0.0, value_hidden=64)


@dataclass
class Side:
    """Steps of one side, and the share of its time that it is in the absorbing state."""

    steps: Segment  # [step, agent, ...]
    gone: Float[Tensor, "step"]  # the share of the play that the step came from


def expect_both(demos: Demos | None, env: Env | None) -> tuple[Demos, Env]:
    """What is learnt from, and where.

    Raises:
        DemosError: there are no demonstrations.
        ConfigError: there is no env to play in.
    """
    if demos is None or not len(demos):
        raise DemosError("there is no demonstration to tell the learner's play from: give it a recording.")
    if env is None:
        raise ConfigError("this method learns by playing against a discriminator: give it an env.")
    return demos, env


def beginning(
    start: str,
    clone: bc.Config,
    net: NetConfig,
    demos: Demos,
    env: Env,
    generator: torch.Generator,
    symmetric: bool = False,
) -> AgentPolicy:
    """The policy to begin from: "clone" of the demonstrators, "fresh", or read from the folder `start`.

    A clone takes its time: what is to be refused is refused before.

    Args:
        symmetric: the clone learns from symmetric worlds too, whatever `clone` says.

    Raises:
        ConfigError: the saved policy is for others than the agents of this env.
    """
    if start == "fresh":
        return build_policy(net, env.spec, generator)
    if start == "clone":
        return bc.clone(replace(clone, net=net, symmetric=symmetric or clone.symmetric), demos, generator, env)
    return saved_for(start, env.spec)


def saved_for(start: str, spec: EnvSpec) -> AgentPolicy:
    """The policy in the folder `start`, for the agents of `spec`: more or fewer of a role may share what it learnt."""
    saved = load_policy(start)
    policy = build_policy(saved.config, spec, torch.Generator())
    try:
        policy.load_state_dict(saved.state_dict())
    except RuntimeError:
        raise ConfigError(
            f"start: the policy in {start} was learnt by agents of {saved.spec.title or 'another env'} that see "
            f"{saved.spec.obs} numbers and have the roles {saved.spec.roles}; here they see {spec.obs}, and the "
            f"roles are {spec.roles}. A team may grow only within its roles, with all else alike."
        ) from None
    return policy


def demonstrators_gone(demos: Demos, horizon: int | None, discount: float) -> Float[Tensor, ""]:
    """Share of the demonstrators' time, up to the horizon, after their games were over.

    Raises:
        DemosError: some of their games were over, and others were cut off at another length than the horizon, or are
            longer: how much of that time there was to play in is not known. Where no game was over it does not matter.
    """
    steps, over = demos.lengths, torch.tensor([episode.terminated for episode in demos])
    _expect_horizon(steps, over, horizon)
    after = steps_remaining(over, steps - 1, horizon, discount)
    weight = demos.weights
    return ((weight * after).sum() / (weight * (steps + after)).sum()).float()


def _expect_horizon(steps: Int[Tensor, "episode"], over: Bool[Tensor, "episode"], horizon: int | None) -> None:
    if horizon is None or not bool(over.any()):
        return
    other = torch.where(over, steps > horizon, steps != horizon)
    if bool(other.any()):
        raise DemosError(
            f"{int(other.sum()):,} of {len(steps):,} recordings are of another horizon than the env's {horizon} steps: "
            f"{int(steps[other].min())} to {int(steps[other].max())} steps where they were cut off, or longer than "
            "that. The time after the end of games is weighed up to the horizon, so both sides need the same: set the "
            "env's, or leave those recordings out."
        )


def learners_gone(played: Segment, age: Int[Tensor, "env"], horizon: int | None, discount: float) -> Float[Tensor, ""]:
    """The same of a segment. `age`: steps of the episode in play in each env before it."""
    assert played.starts is not None and played.terminated is not None
    after = steps_remaining(played.terminated, ages(played.starts, age), horizon, discount).sum()
    return after / (after + played.terminated.numel())


@runtime_checkable
class Leaving(Protocol):
    """What a learner keeps of how long it was in the absorbing state."""

    learner_gone: Float[Tensor, ""]
    updates: int


def lately_gone(learner: Leaving, gone: Float[Tensor, ""]) -> Float[Tensor, ""]:
    """What the learner's share of time in the absorbing state is with another segment, that of the latest the most."""
    recent = RECENT if learner.updates else 1.0
    return gone_together(torch.stack([learner.learner_gone, gone]), gone.new_tensor([1 - recent, recent]))


def side_of(played: Segment, gone: Float[Tensor, ""], rows: int, generator: torch.Generator) -> Side:
    """At most `rows` steps of a played segment, drawn without replacement; only what a discriminator needs."""
    assert played.next_view is not None
    kept = Segment(
        view=View(played.view.obs, played.view.legal, played.view.present),
        actions=played.actions,
        terminated=played.terminated,
        next_view=View(played.next_view.obs, present=played.next_view.present),
        labels=played.labels,
    )
    flat = tree_map(lambda x: x.flatten(0, 1), kept)
    order = torch.randperm(len(flat.obs), generator=generator, device=flat.obs.device)[:rows]
    return Side(tree_take(flat, order), gone.expand(len(order)))


def nothing_yet(live: Live, spec: EnvSpec) -> Side:
    """A side of no steps, to grow."""
    seen = tree_map(lambda x: x[:0], View(live.view.obs, live.view.legal, live.view.present))
    kind = seen.obs.dtype if isinstance(spec.action, Continuous) else torch.long
    actions = torch.zeros(0, spec.agents, *action_shape(spec.action), dtype=kind, device=seen.obs.device)
    over = torch.zeros(0, dtype=torch.bool, device=seen.obs.device)
    return Side(
        Segment(seen, actions, terminated=over, next_view=View(seen.obs, present=seen.present)), seen.obs.new_zeros(0)
    )


def remembered(earlier: Side | None, fresh: Side, updates: int) -> tuple[Side, Side | None]:
    """What the discriminator learns from now, and what it is to remember: the latest `updates` sides of this size."""
    if earlier is None:
        return fresh, None
    pool = tree_cat([earlier, fresh])
    return pool, tree_map(lambda x: x[-updates * len(fresh.gone) :], pool)


def present(steps: Segment) -> Float[Tensor, "*step agent"]:
    """How much each agent's step counts: its episode's weight, nothing where it is absent."""
    shape = steps.obs.shape[:-1]
    there = torch.ones(shape) if steps.view.present is None else steps.view.present.to(steps.obs.dtype)
    return there if steps.weight is None else there * steps.weight.unsqueeze(-1)


def leave(before: Bool[Tensor, "*batch agent"], after: Bool[Tensor, "*batch agent"]) -> bool:
    """Somebody who was there before a step is away after it."""
    return bool((before & ~after).any())


@runtime_checkable
class Settings(Protocol):
    """How a method that learns against a discriminator goes on from one update to the next."""

    @property
    def learner(self) -> ppo.Config: ...
    @property
    def warmup(self) -> int: ...
    @property
    def settle(self) -> int: ...
    @property
    def average(self) -> float: ...
    @property
    def start(self) -> str: ...
    @property
    def anchor(self) -> float: ...
    @property
    def batch(self) -> int: ...
    @property
    def symmetric(self) -> bool: ...
    @property
    def clone(self) -> bc.Config: ...


@runtime_checkable
class Player(ppo.Learner, Protocol):
    """What `advance` moves on."""

    averaged: AgentPolicy
    seed: int
    updates: int


def advance(
    config: Settings,
    player: Player,
    demos: Demos,
    env: Env,
    pay: Callable[[Segment, Live], tuple[Tensor, dict[str, Tensor]]],
    generator: torch.Generator,
) -> dict[str, Tensor]:
    """`ppo.advance` by policies that stand still in the warm-up and settle after it; their mean follows them."""
    learnt = max(0, player.updates - config.warmup)
    learner, frozen = settled(config.learner, learnt, config.settle), player.updates < config.warmup
    anchor = anchored(config, player, demos, env, generator) if config.anchor else None
    stats = ppo.advance(learner, player, env, pay, generator, frozen, config.start == "fresh", anchor)
    player.updates += 1
    follow(player.averaged, player.policy, 1 / (1 + config.average * learnt))
    return stats


def anchored(
    config: Settings, player: Player, demos: Demos, env: Env, generator: torch.Generator
) -> Callable[[int], Tensor]:
    """What holds the policies to the demonstrators: `anchor` times the loss of cloning, of a batch for each step.

    A discriminator says little where learner and demonstrators are nearly alike, and a step of ppo is as long there as
    anywhere: alone it would wander off from a good clone at random. Source: Jena et al. 2020, arXiv:2001.07798, who let
    the weight fall; here it stays.
    """
    clone = replace(config.clone, net=player.policy.config)
    window = clone.window if clone.net.has_past else 1
    groups = symmetries_of(env) if config.symmetric else ()
    begun = player.updates * config.learner.passes * config.learner.minibatches

    def loss(number: int) -> Tensor:
        part = batch_of(demos, begun + number, config.batch, player.seed, window, following=False)
        return config.anchor * bc.clone_loss(player.policy, elsewhere(groups, part, generator), clone, generator)

    return loss


@runtime_checkable
class Standing(Protocol):
    """What a learner whose policies stand still keeps of the games that end."""

    expert_gone: Float[Tensor, ""]
    updates: int
    ended: int  # games over so far


def watch_ends(learner: Standing, played: Segment, demos: Demos, env: Env, updates: int, start: str) -> None:
    """Count the games over in the first `updates` segments; a clone of people whose games end must end some too.

    Raises:
        EnvError: none was over in as much play as should have seen 200 end.
    """
    assert played.terminated is not None
    if learner.updates >= updates:
        return
    learner.ended += int(played.terminated.sum())
    steps, length = updates * played.terminated.numel(), max(float(demos.lengths.float().mean()), 1.0)
    if start != "clone" or learner.updates + 1 < updates or learner.ended or not float(learner.expert_gone):
        return
    if steps / length >= 200:
        raise EnvError(
            f"the demonstrators' episodes end with the game over, after {length:.0f} steps, and in "
            f"{env.spec.title or 'this env'} no game was over in {steps:,} steps of their clone's play. Where the env "
            "plays on after success, record demonstrations under that rule. With absorbing=False ends are left out of "
            "account."
        )


def settled(learner: ppo.Config, updates: int, settle: int) -> ppo.Config:
    """How to learn after so many `updates`: the change that a step aims at falls, as 1 / (1 + updates / settle).

    The learning rate follows `target_kl`, however little there is to learn: without this, where learners and
    demonstrators agree, each update would still move the policies as far as the first, at random. KL goes as the square
    of a step, so steps shorten as 1 / sqrt(updates), over which means converge (Polyak & Juditsky 1992).
    """
    return replace(learner, target_kl=learner.target_kl / (1 + updates / settle)) if settle else learner


@torch.no_grad()
def follow(averaged: AgentPolicy, policy: AgentPolicy, rate: float) -> None:
    """Move the averaged weights towards the policy's; its normaliser is taken over."""
    for mean, now in zip(averaged.parameters(), policy.parameters(), strict=True):
        mean.lerp_(now, rate)
    for kept, taken in zip(averaged.buffers(), policy.buffers(), strict=True):
        kept.copy_(taken)


def likelihood(policy: AgentPolicy, params: Tensor, actions: Tensor, legal: Tensor | None) -> Tensor:
    """log pi of actions as the env takes them, within bounds: recordings hold them so, a learner's draws do not."""
    return policy.head.log_prob(params, within_bounds(policy.spec, actions), legal)


def surprise(policy: AgentPolicy, params: Tensor, legal: Tensor | None, generator: torch.Generator) -> Tensor:
    """-log pi of the policy's own actions: on average where moves are discrete, which is its entropy, else of one draw.

    The entropy of squashed heads and of mixtures has no closed form, nor has that of actions within bounds.
    """
    if not isinstance(policy.spec.action, Continuous):
        return policy.entropy(params, legal)
    drawn = policy.head.sample(params, uniform((*params.shape[:-1], policy.noise), generator), legal)
    return -likelihood(policy, params, drawn, legal)


@torch.no_grad()
def alignment(policy: AgentPolicy, side: Side, generator: torch.Generator, rows: int = 512) -> dict[str, Tensor]:
    """Mean log-likelihood of the actions that a discriminator is shown less that of the policy's own draws: about 0.

    Far below 0 observations and actions of different steps were put together. Told of policies without a past.
    """
    steps = tree_map(lambda x: x[:rows].unsqueeze(1), side.steps)
    params, _ = policy.params(steps.view, steps.actions)
    log_prob = likelihood(policy, params, steps.actions, steps.view.legal)
    there = present(steps)
    gap = (log_prob + surprise(policy, params, steps.view.legal, generator)) * there
    return {"alignment": gap.sum() / there.sum().clamp(min=1)}


@torch.no_grad()
def told(
    expert: Float[Tensor, "expert agent"],
    learner: Float[Tensor, "learner agent"],
    theirs: Segment,
    ours: Segment,
    loss: Float[Tensor, ""],
    penalty: Float[Tensor, ""],
) -> dict[str, Tensor]:
    """How a discriminator stands, from its logits of both sides' steps; who is away is left out."""
    weights = present(theirs), present(ours)
    sure = torch.cat([expert, learner]).abs() > SATURATED
    return {
        "discriminator/loss": loss.detach(),
        "discriminator/penalty": penalty.detach(),
        "discriminator/expert": weighted_mean(expert > 0, weights[0]),
        "discriminator/learner": weighted_mean(learner < 0, weights[1]),
        "discriminator/calibration": calibration_error(expert, learner, *weights),
        "discriminator/saturated": weighted_mean(sure, torch.cat(weights)),
    }
