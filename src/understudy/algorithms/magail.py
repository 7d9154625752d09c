"""MA-GAIL: play so that discriminators cannot tell the learners' steps from the demonstrators'.

A discriminator D is taught to know the demonstrators' steps, and the agents climb what it thinks of their own:

    D minimises   - 1/2 E_expert[ log D ] - 1/2 E_learner[ log(1 - D) ]  +  penalty of steep slopes
    agent i climbs the discounted sum of  r_i = log D_i - log(1 - D_i)  (or another form: `maths.adversarial.REWARDS`)

with ppo. The best response to the best D brings the learners' occupancy measure to the demonstrators'. What D_i sees is
a setting (`judge.sees`): the own observation and action, everybody's actions too, or everything.

Source: Song et al. 2018, arXiv:1807.09936; Ho & Ermon 2016, arXiv:1606.03476. Where we part from them: episodes that
are over go on in an absorbing state (Kostrikov et al. 2019, arXiv:1809.02925), here summed up exactly rather than
sampled; the slope of D is kept in bounds; the policies stand still while the discriminator and the values warm up.
"""

import copy
from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from understudy.algorithms import adversary, bc, ppo
from understudy.algorithms.adversary import EAGER, Side, learner_defaults
from understudy.core.config import at_least_one, not_negative, share
from understudy.core.errors import ConfigError
from understudy.core.symmetry import Groups, elsewhere, symmetries_of
from understudy.core.tree import tree_take
from understudy.core.types import Env, EnvSpec, Segment
from understudy.demos.demos import Demos
from understudy.demos.replay import looks
from understudy.maths.adversarial import (
    ONE_SIGN,
    REWARDS,
    absorbing_payoff,
    between,
    discriminator_loss,
    ends_logits,
    gone_together,
    slope_penalty,
    slopes,
)
from understudy.nets import AgentPolicy, Values
from understudy.nets.discriminators import Judge, JudgeConfig
from understudy.nets.opponents import Opponents
from understudy.nets.rewards import LearnedReward
from understudy.rollout import Live, begin


@dataclass(frozen=True)
class Config:
    reward: Literal["softplus", "logD", "logit", "tanh"] = "logit"  # of the discriminator's logit
    absorbing: bool = True  # games that are over go on in an absorbing state
    judge: JudgeConfig = field(default_factory=JudgeConfig)
    symmetric: bool = True  # discriminator and clone see every step as in a symmetric world, where the env says of any
    opponents: bool = False  # others' actions are, in the reward, what each agent expects of them (CoDAIL's)
    zero_sum: bool = False  # of two teams: each is paid what its own play looks like, less what the other's does
    env_reward: float = 0.0  # weight of the env's own reward beside the discriminator's
    judge_steps: int = 8  # gradient steps of the discriminator in an update
    batch: int = 512  # steps of each side in one of them
    judge_rate: float = 1e-3
    l2: float = 0.0  # weight decay of the discriminator
    penalty: float = 1.0  # weight of the penalty of slopes above `slope`
    slope: float = 0.0  # change of the logit for a step of one standard deviation that is still free
    spectral: bool = False  # every layer's largest singular value stays at most 1 (under silu 1 / 1.1)
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
        not_negative(self, "judge_rate", "l2", "penalty", "slope", "replay", "warmup", "settle", "anchor", "env_reward")
        if self.reward not in REWARDS:
            raise ConfigError(f"reward: got {self.reward!r}; one of {', '.join(REWARDS)} is meant.")
        share(self, "average", below=True)
        if self.opponents and self.judge.sees != "actions":
            raise ConfigError(
                f"opponents: they act before a judge that sees='actions', and this sees {self.judge.sees!r}."
            )
        if self.absorbing and self.learner.discount == 1:
            raise ConfigError("discount: 1 makes staying in the absorbing state worth infinitely much: use less.")


@dataclass
class State:
    """All that changes in training."""

    policy: AgentPolicy
    averaged: AgentPolicy  # what comes out: its weights follow the policy's
    values: Values
    judge: Judge
    optimizer: torch.optim.Optimizer
    judge_optimizer: torch.optim.Optimizer
    live: Live
    running: Float[Tensor, "env agent"]  # the env's own return so far of each episode in play
    replay: Side | None  # what the discriminator still remembers
    opponents: Opponents | None  # what each agent expects of the others
    opponent_optimizer: torch.optim.Optimizer | None
    expert_gone: Float[Tensor, ""]  # share of the demonstrators' time in the absorbing state
    learner_gone: Float[Tensor, ""]  # the same of the learners, lately
    seed: int  # of the order in which demonstrations are seen
    position: int = 0  # batches of demonstrations seen
    updates: int = 0
    ended: int = 0  # games over in the warm-up


cold = bc.cold_start


def init(config: Config, demos: Demos | None, env: Env | None, generator: torch.Generator) -> State:
    """Policies to begin from, fresh discriminators and values, fresh envs."""
    demos, env = adversary.expect_both(demos, env)
    gone = torch.tensor(0.0)
    if config.absorbing:
        gone = adversary.demonstrators_gone(demos, env.spec.horizon, config.learner.discount)
    elif config.reward in ONE_SIGN and any(episode.terminated for episode in demos):
        raise ConfigError(_bias(config, "the demonstrators' games end"))
    if config.reward in ONE_SIGN and any(
        adversary.leave(e.present[:-2], e.present[1:-1]) for e in demos if e.present is not None
    ):
        raise ConfigError(_trap(config, "demonstrators leave games that go on"))
    if config.zero_sum:
        _two_teams(env.spec)
    policy = adversary.beginning(
        config.start, config.clone, config.learner.net, demos, env, generator, config.symmetric
    )
    values = Values(env.spec, generator, config.learner.central, config.learner.value_hidden, share=policy.config.share)
    judge = Judge(config.judge, env.spec, generator)
    opponents = Opponents(env.spec, generator, share=config.judge.share) if config.opponents else None
    seed = int(torch.randint(2**31, (), generator=generator))
    for part in looks(demos, seed, most=16):
        judge.observe(part.view, part.actions)
        if opponents is not None:
            opponents.normaliser.observe(part.obs.flatten(0, -2))
    live = begin(env, policy, config.learner.envs, generator)
    return State(
        policy=policy,
        averaged=copy.deepcopy(policy),
        values=values,
        judge=judge,
        optimizer=ppo.make_optimizer(config.learner, policy, values),
        judge_optimizer=torch.optim.AdamW(judge.parameters(), lr=config.judge_rate, weight_decay=config.l2, fused=True),
        live=live,
        running=live.view.obs.new_zeros(config.learner.envs, env.spec.agents),
        replay=adversary.nothing_yet(live, env.spec) if config.replay else None,
        opponents=opponents,
        opponent_optimizer=torch.optim.Adam(opponents.parameters(), lr=config.judge_rate) if opponents else None,
        expert_gone=gone,
        learner_gone=gone.clone(),
        seed=seed,
    )


def update(config: Config, state: State, demos: Demos, env: Env, generator: torch.Generator) -> dict[str, Tensor]:
    """Play a segment, teach the discriminator, then improve on what it thinks of the segment."""
    frozen = state.updates < config.warmup

    def pay(played: Segment, before: Live) -> tuple[Tensor, dict[str, Tensor]]:
        gone = adversary.learners_gone(played, before.age, env.spec.horizon, config.learner.discount)
        if frozen:
            state.judge.observe(played.view, played.actions)
        _watch_ends(config, state, played, demos, env)
        stats, imagined = _teach(config, state, demos, env, played, gone, frozen, generator)
        rewards = rewards_of(config, state.judge, played, state.expert_gone, state.learner_gone, imagined)
        stats |= {"reward/mean": rewards.mean(), "reward/std": rewards.std()}
        if config.env_reward:
            assert played.rewards is not None
            rewards = rewards + config.env_reward * played.rewards
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
    gone: Float[Tensor, ""],
    eager: bool,
    generator: torch.Generator,
) -> tuple[dict[str, Tensor], Tensor | None]:
    """Let the discriminator, and who expects others' actions, learn from a segment; figures, and what they expect."""
    fresh = adversary.side_of(played, gone, config.batch * config.judge_steps, generator)
    pool, state.replay = adversary.remembered(state.replay, fresh, config.replay)
    state.learner_gone = adversary.lately_gone(state, gone_together(pool.gone))
    groups = symmetries_of(env) if config.symmetric else ()
    stats = {} if state.policy.config.has_past else adversary.alignment(state.policy, fresh, generator)
    for _ in range(config.judge_steps * (EAGER if eager else 1)):
        stats |= discriminate(config, state, demos, pool, generator, groups)
    if state.opponents is None:
        return stats, None
    stats |= _expect(config, state, fresh, generator)
    return stats, state.opponents.imagine(played.view, played.actions, generator)


def discriminate(
    config: Config, state: State, demos: Demos, pool: Side, generator: torch.Generator, groups: Groups = ()
) -> dict[str, Tensor]:
    """One gradient step of the discriminator on a batch of each side, each step in a symmetric world of its own."""
    judge, theirs = state.judge, demos.batch(state.position, config.batch, state.seed)
    state.position += 1
    rows = torch.randint(len(pool.gone), (config.batch,), generator=generator, device=generator.device)
    ours = tree_take(pool.steps, rows)
    theirs, ours = (elsewhere(groups, side, generator) for side in (theirs, ours))
    expert_inputs, learner_inputs = (judge.inputs(side.view, side.actions) for side in (theirs, ours))
    expert, learner = judge.judge(expert_inputs), judge.judge(learner_inputs)
    loss = discriminator_loss(expert, learner, adversary.present(theirs), adversary.present(ours))
    penalty = torch.zeros_like(loss)
    if config.penalty:
        slope = slopes(judge.judge, between(expert_inputs, learner_inputs, generator))
        penalty = config.penalty * slope_penalty(slope, config.slope)
    ppo.descend(state.judge_optimizer, loss + penalty, config.learner.max_grad_norm)
    if config.spectral:
        judge.confine()
    return adversary.told(expert, learner, theirs, ours, loss, penalty)


@torch.no_grad()
def rewards_of(
    config: Config,
    judge: Judge,
    played: Segment,
    expert_gone: Float[Tensor, ""],
    learner_gone: Float[Tensor, ""],
    imagined: Tensor | None = None,
) -> Float[Tensor, "env time agent"]:
    """What the discriminator pays for each step. A step that ends the game is paid what follows it too."""
    assert played.terminated is not None
    form, logits = REWARDS[config.reward], judge(played.view, played.actions, imagined)
    if config.absorbing:
        of_play, of_ends = ends_logits(expert_gone, learner_gone)
        after = absorbing_payoff(form(of_ends), config.learner.discount)
        rewards = form(logits + of_play) + played.terminated.unsqueeze(-1) * after
    else:
        rewards = form(logits)
    there = adversary.present(played)  # who is away is paid nothing
    return there * (_lead(judge.spec, rewards, there) if config.zero_sum else rewards)


def _expect(config: Config, state: State, fresh: Side, generator: torch.Generator) -> dict[str, Tensor]:
    """Make what the others just did likelier in every agent's eyes. Source: Liu et al. 2020, arXiv:2001.03415."""
    assert state.opponents is not None and state.opponent_optimizer is not None
    for _ in range(config.judge_steps):
        rows = torch.randint(len(fresh.gone), (config.batch,), generator=generator, device=generator.device)
        steps = tree_take(fresh.steps, rows)
        there = adversary.present(steps)
        pairs = there.unsqueeze(-1) * there.unsqueeze(-2) * (1 - torch.eye(there.shape[-1], device=there.device))
        loss = -(state.opponents.log_prob(steps.view, steps.actions) * pairs).sum() / pairs.sum().clamp(min=1)
        ppo.descend(state.opponent_optimizer, loss, config.learner.max_grad_norm)
    return {"opponents/loss": loss.detach()}


def learned_reward(config: Config, state: State) -> LearnedReward:
    """What the discriminator pays now, as an object that can be called, saved and trained on.

    It is made to tell this learner from the demonstrators: where the two agree it is flat. `maairl` learns one to keep.

    Raises:
        ConfigError: with zero_sum: what is paid there, a team's judgement less the other's, is no reward of one agent.
    """
    if config.zero_sum:
        raise ConfigError(
            "zero_sum: each team is paid its own judgement less the other's, and a kept reward would leave the other's "
            "out. Keep one that was learnt with zero_sum=False, or with maairl."
        )
    if not config.absorbing:
        return LearnedReward(state.judge, config.reward)
    of_play, of_ends = ends_logits(state.expert_gone, state.learner_gone)
    return LearnedReward(state.judge, config.reward, float(of_play), float(REWARDS[config.reward](of_ends)))


def _two_teams(spec: EnvSpec) -> Bool[Tensor, "agent"]:
    """Who is of the first of two teams."""
    names = list(dict.fromkeys(spec.teams))
    if len(names) != 2:
        raise ConfigError(f"zero_sum: two teams are needed, and {spec.title or 'the env'} has {len(names)}.")
    return torch.tensor([team == names[0] for team in spec.teams])


def _lead(spec: EnvSpec, rewards: Tensor, there: Tensor) -> Float[Tensor, "env time agent"]:
    """Each team's mean reward, of those who are there, less the other's."""
    first = _two_teams(spec)
    means = [(rewards * there * of).sum(-1) / (there * of).sum(-1).clamp(min=1e-12) for of in (first, ~first)]
    lead = (means[0] - means[1]).unsqueeze(-1)
    return torch.where(first, lead, -lead)


def _watch_ends(config: Config, state: State, played: Segment, demos: Demos, env: Env) -> None:
    """Refuse what would teach the learners something about the length of episodes that nobody showed them."""
    assert played.terminated is not None and played.next_view is not None
    if not config.absorbing and config.reward in ONE_SIGN and bool(played.terminated.any()):
        raise ConfigError(_bias(config, "games of this env end"))
    before, after = played.view.present, played.next_view.present
    if config.reward in ONE_SIGN and before is not None and after is not None:
        goes_on = ~played.ended.unsqueeze(-1)
        if adversary.leave(before & goes_on, after):
            raise ConfigError(_trap(config, "agents leave games of this env that go on"))
    adversary.watch_ends(state, played, demos, env, config.warmup, config.start)


def _trap(config: Config, what: str) -> str:
    sign = "above" if config.reward == "softplus" else "below"
    return (
        f"reward={config.reward!r}: {what}. Away pays 0, being there {sign} 0 whatever is done: it would "
        f"pay for {'staying' if sign == 'above' else 'leaving'}. Use reward='logit' or 'tanh', which have no sign."
    )


def _bias(config: Config, what: str) -> str:
    sign = "above" if config.reward == "softplus" else "below"
    return (
        f"absorbing=False: {what}, and the reward {config.reward!r} is {sign} 0 whatever is done: it would pay for "
        f"{'not ' if sign == 'above' else ''}finishing. Leave absorbing=True, or use reward='logit'."
    )
