"""MA-AIRL: adversarial imitation whose discriminator is made of a reward, so that one can be kept.

With a reward g and a potential h, each agent's own, and the policy pi that is being learnt,

    f(o, a, o') = g(o, a) + discount * h(o') - h(o)          D = exp f / (exp f + pi(a|o))

D is taught to know the demonstrators' steps; where one judges the whole team, pi is the product over the agents. Where
learner and demonstrators agree f is log pi, the advantage of the demonstrators' play; if g sees the state alone, it is
their reward, up to what no behaviour can tell. Agent i climbs the discounted sum of what `pays` names:

    level    f_i + entropy of pi_i: log D - log(1 - D) on average over the agent's actions
    ratio    f_i - log pi_i = log D_i - log(1 - D_i), the theory's: each unlikely action is paid for being unlikely
    shaped   f_i, reward  g_i alone, the release's: entropy is not paid, so that steps are, and finishing is cheaper

Only `ratio` rests where the demonstrators are. `level`, the default, goes on sharpening towards the likeliest moves
where the two agree: f = log pi pays a likelier move more. Where play is mixed ask for `ratio`, which was slower on
navigation. With `contrast` above 0 f at agreement is near log pi, not exactly it.

Source: Yu et al. 2019, arXiv:1907.13220; Fu et al. 2018, arXiv:1710.11248, equations of section 5 and 6. Where we part
from them: a game that is over goes on in an absorbing state of potential 0 (`magail`); g is kept flat and h free, so
that what a potential can explain is not taken for a reward; a share of play at random stands beside the learners', so
that the reward knows more than good play; log pi of recordings and of older play is that of the present policy.
"""

import copy
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from understudy.algorithms import adversary, bc, ppo
from understudy.algorithms.adversary import EAGER, Side, learner_defaults
from understudy.core.config import at_least_one, not_negative, share
from understudy.core.errors import ConfigError
from understudy.core.symmetry import Groups, elsewhere, symmetries_of
from understudy.core.tree import tree_cat, tree_map, tree_take
from understudy.core.types import Env, Segment
from understudy.demos.demos import Demos
from understudy.demos.replay import looks
from understudy.maths.adversarial import (
    absorbing_payoff,
    airl_logits,
    between,
    discriminator_loss,
    ends_logits,
    gone_together,
    slope_penalty,
    slopes,
)
from understudy.nets import AgentPolicy, Values
from understudy.nets.discriminators import Judge, JudgeConfig
from understudy.nets.rewards import LearnedReward
from understudy.rollout import Live, Uniform, begin, collect


@dataclass(frozen=True)
class Config:
    pays: Literal["level", "ratio", "shaped", "reward"] = "level"  # the learners: f + entropy, f - log pi, f, or g
    judge: JudgeConfig = field(default_factory=lambda: JudgeConfig(sees="joint", state_only=True))  # g, and what it
    # sees; h sees the same, without actions
    symmetric: bool = True  # g, h and the clone see every step as in a symmetric world, where the env says of any
    judge_steps: int = 8  # gradient steps of the discriminator in an update
    batch: int = 512  # steps of each side in one of them
    judge_rate: float = 1e-3
    l2: float = 0.0  # weight decay of g and h
    penalty: float = 1.0  # weight of the penalty of slopes: of any of g, and of those of h that are above `slope`
    slope: float = 2.0  # change of h for a step of one standard deviation that is still free
    contrast: float = 0.25  # share of play at random among what g and h learn to tell from the demonstrators'
    replay: int = 0  # earlier updates whose steps the discriminator still sees
    warmup: int = 10  # updates in which discriminator and values learn while the policies stand still
    settle: int = 100  # updates of the learner after which its steps are 0.7 times as long as at first; 0: they stay
    anchor: float = 0.2  # weight of the loss of cloning beside what is paid, in deviations of the advantage per nat
    average: float = 0.1  # the policy that comes out is a mean over the latest updates, about this share; 0: the last
    start: str = "clone"  # where the policies begin: "clone", "fresh", or the folder of a saved policy
    clone: bc.Config = field(default_factory=bc.Config)  # how it is cloned; its net is the learner's
    learner: ppo.Config = field(default_factory=learner_defaults)

    def __post_init__(self) -> None:
        at_least_one(self, "judge_steps", "batch")
        not_negative(self, "judge_rate", "l2", "penalty", "slope", "replay", "warmup", "settle", "anchor")
        if self.pays not in ("level", "ratio", "shaped", "reward"):
            raise ConfigError(f"pays: got {self.pays!r}; 'level', 'ratio', 'shaped' or 'reward' is meant.")
        share(self, "average", "contrast", below=True)
        if self.learner.discount == 1:
            raise ConfigError("discount: 1 makes staying in the absorbing state worth infinitely much: use less.")


class Shaped(nn.Module):
    """f = g + discount * h(o') - h(o): the reward and its potential."""

    def __init__(self, config: Config, spec: Any, generator: torch.Generator):
        super().__init__()
        self.discount = config.learner.discount
        seen = config.judge if config.judge.sees != "actions" else replace(config.judge, sees="own")
        self.reward = Judge(config.judge, spec, generator)
        self.potential = Judge(replace(seen, state_only=True), spec, generator)

    def forward(self, steps: Segment) -> Float[Tensor, "*batch agent"]:
        """After the game is over, or its agent has left it, the potential is 0."""
        assert steps.next_view is not None and steps.terminated is not None
        goes_on = (~steps.terminated).unsqueeze(-1).to(steps.obs.dtype)
        if steps.next_view.present is not None:
            goes_on = goes_on * steps.next_view.present
        after = self.potential(steps.next_view, steps.actions) * goes_on
        return (
            self.reward(steps.view, steps.actions) + self.discount * after - self.potential(steps.view, steps.actions)
        )

    def observe(self, steps: Segment) -> None:
        """Let both normalisers follow these steps."""
        self.reward.observe(steps.view, steps.actions)
        self.potential.observe(steps.view, steps.actions)


@dataclass
class State:
    """All that changes in training."""

    policy: AgentPolicy
    averaged: AgentPolicy  # what comes out: its weights follow the policy's
    values: Values
    shaped: Shaped
    optimizer: torch.optim.Optimizer
    judge_optimizer: torch.optim.Optimizer
    live: Live
    running: Float[Tensor, "env agent"]  # the env's own return so far of each episode in play
    replay: Side | None  # what the discriminator still remembers
    random: Side  # play at random
    expert_gone: Float[Tensor, ""]  # share of the demonstrators' time in the absorbing state
    learner_gone: Float[Tensor, ""]  # the same of what is told from them: the learners, lately, and play at random
    seed: int  # of the order in which demonstrations are seen
    position: int = 0  # batches of demonstrations seen
    updates: int = 0
    ended: int = 0  # games over in the warm-up


cold = bc.cold_start


def init(config: Config, demos: Demos | None, env: Env | None, generator: torch.Generator) -> State:
    """Policies to begin from, a fresh reward and fresh values, fresh envs."""
    demos, env = adversary.expect_both(demos, env)
    gone = adversary.demonstrators_gone(demos, env.spec.horizon, config.learner.discount)
    policy = adversary.beginning(
        config.start, config.clone, config.learner.net, demos, env, generator, config.symmetric
    )
    if config.replay and policy.config.has_past:
        raise ConfigError("replay: what a policy with a past would do now in old steps is not known. Use 0.")
    values = Values(env.spec, generator, config.learner.central, config.learner.value_hidden, share=policy.config.share)
    shaped = Shaped(config, env.spec, generator)
    seed = int(torch.randint(2**31, (), generator=generator))
    for part in looks(demos, seed, most=16):
        shaped.observe(part)
    random = _at_random(config, env, generator)
    shaped.observe(random.steps)
    live = begin(env, policy, config.learner.envs, generator)
    return State(
        policy=policy,
        averaged=copy.deepcopy(policy),
        values=values,
        shaped=shaped,
        optimizer=ppo.make_optimizer(config.learner, policy, values),
        judge_optimizer=torch.optim.AdamW(
            shaped.parameters(), lr=config.judge_rate, weight_decay=config.l2, fused=True
        ),
        live=live,
        running=live.view.obs.new_zeros(config.learner.envs, env.spec.agents),
        replay=adversary.nothing_yet(live, env.spec) if config.replay else None,
        random=random,
        expert_gone=gone,
        learner_gone=gone.clone(),
        seed=seed,
    )


def update(config: Config, state: State, demos: Demos, env: Env, generator: torch.Generator) -> dict[str, Tensor]:
    """Play a segment, teach the reward, then improve on what it pays for the segment."""
    frozen = state.updates < config.warmup

    def pay(played: Segment, before: Live) -> tuple[Tensor, dict[str, Tensor]]:
        assert played.terminated is not None
        gone = adversary.learners_gone(played, before.age, env.spec.horizon, config.learner.discount)
        if frozen:
            state.shaped.observe(played)
        adversary.watch_ends(state, played, demos, env, config.warmup, config.start)
        with torch.no_grad():
            params, _ = state.policy.params(played.view, played.actions, before.memory, played.starts)
            log_prob = adversary.likelihood(state.policy, params, played.actions, played.view.legal)
        stats, of_ends = _teach(config, state, demos, env, played, log_prob, gone, frozen, generator)
        with torch.no_grad():
            paid = pay_of(config, state, played, state.shaped(played), params, generator)
            after = absorbing_payoff(of_ends, config.learner.discount)
            rewards = paid + played.terminated.unsqueeze(-1) * after
            rewards = rewards * adversary.present(played)  # who is away is paid nothing
        stats |= {"reward/mean": rewards.mean(), "reward/std": rewards.std()}
        return rewards, stats | {"gone/expert": state.expert_gone, "gone/learner": gone}

    return adversary.advance(config, state, demos, env, pay, generator)


def result(state: State) -> AgentPolicy:
    """The averaged policy: play against a discriminator circles around what it seeks."""
    return state.averaged


def _teach(
    config: Config,
    state: State,
    demos: Demos,
    env: Env,
    played: Segment,
    log_prob: Float[Tensor, "env time agent"],
    gone: Float[Tensor, ""],
    eager: bool,
    generator: torch.Generator,
) -> tuple[dict[str, Tensor], Float[Tensor, ""]]:
    """Let g and h learn from a segment; figures, and what the absorbing state's logit is now."""
    noted = replace(played, labels={} if config.replay else {"log_prob": log_prob})
    fresh = adversary.side_of(noted, gone, config.batch * config.judge_steps, generator)
    pool, state.replay = adversary.remembered(state.replay, fresh, config.replay)
    sides = torch.stack([gone_together(pool.gone), gone_together(state.random.gone)])
    over = gone_together(sides, sides.new_tensor([1 - config.contrast, config.contrast]))
    state.learner_gone = adversary.lately_gone(state, over)
    if config.replay:
        pool = replace(pool, steps=_scored(state.policy, pool.steps))
    of_play, of_ends = ends_logits(state.expert_gone, state.learner_gone)
    groups = symmetries_of(env) if config.symmetric else ()
    stats = {} if state.policy.config.has_past else adversary.alignment(state.policy, fresh, generator)
    for _ in range(config.judge_steps * (EAGER if eager else 1)):
        stats |= discriminate(config, state, demos, pool, of_play, generator, groups)
    return stats, of_ends


def discriminate(
    config: Config,
    state: State,
    demos: Demos,
    pool: Side,
    of_play: Float[Tensor, ""],
    generator: torch.Generator,
    groups: Groups = (),
) -> dict[str, Tensor]:
    """One gradient step of g and h on a batch of each side.

    The batches hold steps that were played, as many of each side: their logit is that among all steps, f - log pi, less
    what the ends of games alone say (`maths.adversarial.ends_logits`). f sees each in a symmetric world drawn for it,
    log pi is that of the step itself.
    """
    theirs = _demonstrated(config, state, demos)
    at_random = min(round(config.contrast * config.batch), config.batch - 1)  # at least one is the learners'
    drawn = [(state.random, at_random), (pool, config.batch - at_random)]
    ours = tree_cat([_some(side, count, generator) for side, count in drawn if count])
    theirs, ours = (elsewhere(groups, side, generator) for side in (theirs, ours))
    expert, learner = (
        airl_logits(state.shaped(side), _of_judged(config, side.labels["log_prob"], side)) - of_play
        for side in (theirs, ours)
    )
    loss = discriminator_loss(expert, learner, adversary.present(theirs), adversary.present(ours))
    penalty = torch.zeros_like(loss)
    if config.penalty:
        for judge, free in ((state.shaped.reward, 0.0), (state.shaped.potential, config.slope)):
            a, b = (judge.inputs(side.view, side.actions) for side in (theirs, ours))
            penalty = penalty + slope_penalty(slopes(judge.judge, between(a, b, generator)), free)
    ppo.descend(state.judge_optimizer, loss + config.penalty * penalty, config.learner.max_grad_norm)
    return adversary.told(expert, learner, theirs, ours, loss, penalty)


@torch.no_grad()
def pay_of(
    config: Config,
    state: State,
    played: Segment,
    f: Float[Tensor, "env time agent"],
    params: Tensor,
    generator: torch.Generator,
) -> Float[Tensor, "env time agent"]:
    """What the learners get for steps that were played. `params`: of the policies' heads there."""
    if config.pays == "level":
        surprise = adversary.surprise(state.policy, params, played.view.legal, generator)
        return f + _of_judged(config, surprise, played)
    if config.pays == "ratio":
        log_prob = adversary.likelihood(state.policy, params, played.actions, played.view.legal)
        return airl_logits(f, _of_judged(config, log_prob, played))
    return f if config.pays == "shaped" else state.shaped.reward(played.view, played.actions)


def _of_judged(config: Config, each: Float[Tensor, "*batch agent"], steps: Segment) -> Float[Tensor, "*batch agent"]:
    """Of an action's log-probability: the agent's own, or where one f judges the team everybody's together.

    With its own alone, no f of the team could be log pi of two agents who play unlike each other.
    """
    if config.judge.sees != "team":
        return each
    there = torch.ones_like(each) if steps.view.present is None else steps.view.present.to(each.dtype)
    return (each * there).sum(dim=-1, keepdim=True).expand_as(each)


def learned_reward(config: Config, state: State) -> LearnedReward:
    """g, as an object that can be called, saved and trained on; what the absorbing state pays is its zero."""
    _, of_ends = ends_logits(state.expert_gone, state.learner_gone)
    return LearnedReward(state.shaped.reward, level=float(of_ends))


def _at_random(config: Config, env: Env, generator: torch.Generator) -> Side:
    """Play at random, with how likely it was: so that the reward knows states that no learner goes to any more."""
    policy, envs, steps = Uniform(env.spec), config.learner.envs, env.spec.horizon or config.learner.segment
    played, _ = collect(env, policy, begin(env, policy, envs, generator), steps, generator)
    ages = torch.zeros(envs, dtype=torch.long, device=generator.device)
    gone = adversary.learners_gone(played, ages, env.spec.horizon, config.learner.discount)
    noted = replace(played, labels={"log_prob": policy.log_prob(played.view, played.actions)})
    return adversary.side_of(noted, gone, config.batch * config.judge_steps, generator)


def _some(side: Side, count: int, generator: torch.Generator) -> Segment:
    rows = torch.randint(len(side.gone), (count,), generator=generator, device=generator.device)
    return tree_take(side.steps, rows)


def _demonstrated(config: Config, state: State, demos: Demos) -> Segment:
    """A batch of demonstrated steps with how likely the present policy finds what was done."""
    clone = config.clone
    state.position += 1
    if not state.policy.config.has_past:
        return _scored(state.policy, demos.batch(state.position - 1, config.batch, state.seed))
    rows = max(1, config.batch // clone.window)
    part = demos.batch(state.position - 1, rows, state.seed, clone.window)
    assert part.starts is not None and part.valid is not None and part.weight is not None
    with torch.no_grad():
        params, _ = state.policy.params(part.view, part.actions, starts=part.starts)
        log_prob = adversary.likelihood(state.policy, params, part.actions, part.view.legal)
    late = torch.arange(clone.window, device=log_prob.device) >= clone.burn_in
    known = part.valid & (part.starts[:, :1] | late)  # its past is in the window, or enough of it
    noted = replace(part, labels={"log_prob": log_prob}, weight=part.weight * known)
    return tree_map(lambda x: x.flatten(0, 1), noted)


@torch.no_grad()
def _scored(policy: AgentPolicy, steps: Segment) -> Segment:
    """Single steps with how likely a policy without a past finds what was done."""
    one = tree_map(lambda x: x.unsqueeze(1), Segment(steps.view, steps.actions))
    params, _ = policy.params(one.view, one.actions)
    log_prob = adversary.likelihood(policy, params, one.actions, one.view.legal)
    return replace(steps, labels={"log_prob": log_prob.squeeze(1)})
