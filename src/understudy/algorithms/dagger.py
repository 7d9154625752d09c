"""DAgger: the learner plays, an expert says what it would have done there, and the learner clones all that was said.

In round k somebody plays whole episodes: at every step the expert with probability beta_k, else the learner. Wherever
the expert was asked, its answer joins the recordings, and the learner clones the whole of them,

    minimise  - sum over steps where the expert was asked of  log pi(expert's action | o, what came before).

Cloning alone pays for an error e by e H^2, since it never saw where its errors lead; whoever is told the way back from
there pays e H.

Source: Ross, Gordon and Bagnell 2011, arXiv:1011.0686, algorithm 3.1. Where we part from it: the weights go on from
round to round in place of a fresh start, and the latest policy is the result. What is ours to choose: whom of a team
one asks, where, and how often; and episodes in which one agent deviates, so that the others are told what to do where
no equilibrium leads (Tang et al. 2024, arXiv:2406.04219, ask for the expert there to bound what a deviation gains).
"""

import math
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from understudy.algorithms import bc, ppo
from understudy.core.config import at_least_one, share
from understudy.core.errors import ConfigError
from understudy.core.symmetry import elsewhere, symmetries_of
from understudy.core.tree import tree_cat, tree_leaves, tree_map, tree_take
from understudy.core.types import Continuous, EnvSpec, Segment, View, action_shape, legal_size
from understudy.demos.demos import Demos
from understudy.demos.replay import batch_of, looks
from understudy.nets import AgentPolicy, build_policy
from understudy.rollout import Uniform, choosing, play, within_bounds

QUERIES = True  # it is handed a `Queried` env


@dataclass(frozen=True)
class Config:
    clone: bc.Config = field(default_factory=lambda: bc.Config(batch=512))  # the nets, and how they are fitted
    rounds: int = 20  # after which it has finished
    envs: int = 16  # episodes played in a round, side by side
    steps: int = 400  # gradient steps in a round; their rate falls to 0 over the later half of the rounds
    beta: Literal["never", "exponential", "linear"] = "never"  # how often the expert plays itself, round by round
    decay: float = 0.5  # of the exponential one: beta_k = decay ** k
    mixing: Literal["joint", "agent"] = "joint"  # the expert plays for the whole team, or for some agents of it
    query: Literal["joint", "agent"] = "joint"  # it is asked about the whole team, or about those agents it is due for
    gate: Literal["always", "entropy", "disagreement", "surprise"] = "always"  # where it is due: see `doubt`
    threshold: float = 0.3  # nats, of the gate
    budget: int | None = None  # actions that it tells in all, at most, counted by agent; None: no limit
    symmetric: bool = True  # all is learnt as in symmetric worlds too, where the env says of any: see `env.symmetries`
    deviations: float = 0.0  # share of the episodes in which one agent plays by chance instead

    def __post_init__(self) -> None:
        at_least_one(self, "rounds", "envs", "steps")
        share(self, "decay", "deviations")
        if not math.isfinite(self.threshold):
            raise ConfigError(f"threshold: got {self.threshold}, but it must be a finite number of nats.")
        if self.budget is not None and self.budget < 0:
            raise ConfigError(f"budget: got {self.budget}; it is 0 or more, or None for no limit.")
        if self.clone.net.own_action:
            raise ConfigError(
                "clone.net.own_action: what the learner did before is not what the expert says it should have done, "
                "and a clone sees the latter as its past. Use net.body='gru' or net.frames."
            )
        if self.gate == "disagreement" and self.clone.net.members < 2:
            raise ConfigError("gate: one network cannot disagree with itself. Set clone.net.members to 2 or more.")


@dataclass(frozen=True)
class Told:
    """Steps that were played, and what the expert said there. Steps of an episode follow one another."""

    obs: Float[Tensor, "*step agent obs"]
    legal: Bool[Tensor, "*step agent choice"]
    present: Bool[Tensor, "*step agent"]
    actions: Shaped[Tensor, "..."]  # the expert's, [step, agent, ...]; anything where it was not asked
    told: Bool[Tensor, "*step agent"]
    starts: Bool[Tensor, "*step"]  # first step of an episode


@dataclass
class State:
    """All that changes in training."""

    policy: AgentPolicy
    optimizer: torch.optim.Optimizer
    told: Told
    seed: int  # of the order of the recordings
    recorded: float  # choices in the recordings, by weight
    round: int = 0
    queries: int = 0  # actions told so far
    position: int = 0  # minibatches learnt


cold = bc.cold_start


def init(config: Config, demos: Demos | None, env: Any, generator: torch.Generator) -> State:
    """A clone of the recordings; a fresh policy where there are none, for whom the expert plays the first round."""
    if env is None:
        raise ConfigError("dagger asks an expert in an env, and there is none: give it one.")
    if not hasattr(env, "expert"):
        raise ConfigError("dagger asks an expert in the env: hand in one, as `rollout.Queried(env, expert, name)` is.")
    spec = env.spec
    if demos is None or not len(demos):
        if config.budget == 0:
            raise ConfigError("budget: 0 and no recordings leave nothing to learn from. Give one of them.")
        policy = build_policy(config.clone.net, spec, generator)
    else:
        clone = replace(config.clone, symmetric=config.symmetric or config.clone.symmetric)
        policy = bc.clone(clone, demos, generator, env)
    clone = config.clone
    optimizer = torch.optim.AdamW(policy.parameters(), lr=clone.rate, weight_decay=clone.weight_decay)
    seed = int(torch.randint(2**31, (), generator=generator))
    return State(policy, optimizer, _nothing(spec, generator.device), seed, choices(demos))


def choices(demos: Demos | None) -> float:
    """How many choices recordings hold, by the weights of their episodes: see `rollout.choosing`."""
    if demos is None or not len(demos):
        return 0.0
    total = 0.0
    for part in looks(demos, seed=0, most=None):
        assert part.weight is not None
        total += float((choosing(part).sum(dim=-1) * part.weight).sum())
    return total


def update(
    config: Config, state: State, demos: Demos | None, env: Any, generator: torch.Generator
) -> dict[str, Tensor]:
    """One round: play, ask, learn."""
    share = beta(config, state.round, begins=demos is None or not len(demos))
    envs = min(config.envs, getattr(env, "copies", config.envs))
    budget = math.inf if config.budget is None else float(config.budget - state.queries)
    asking = Asking(config, env, state.policy, share, budget)
    played = play(env, asking, envs, generator, envs)
    told = asking.heard(played)
    state.told = tree_cat([state.told, told])
    state.policy.normaliser.observe(told.obs.flatten(0, -2))
    state.queries += int(told.told.sum())
    state.round += 1
    losses = [_descend(config, state, demos, env, generator) for _ in range(config.steps)]
    assert played.rewards is not None and played.valid is not None
    return {
        "loss": torch.stack(losses).mean(),
        "beta": torch.tensor(share),
        "queries": torch.tensor(state.queries),
        "steps": torch.tensor(len(state.told.starts)),
        "return": (played.rewards * played.valid.unsqueeze(-1)).sum(dim=1).mean(),
    }


def finished(config: Config, state: State) -> bool:
    return state.round >= config.rounds


def beta(config: Config, number: int, begins: bool) -> float:
    """How often the expert plays in round `number`. It plays the first where the learner `begins` from nothing."""
    if begins and number == 0:
        return 1.0
    return {"never": 0.0, "exponential": config.decay**number, "linear": 1 - number / config.rounds}[config.beta]


class Asking:
    """A policy made of three, for one round: the learner, the expert it asks, and whoever deviates.

    It remembers what the expert said, step by step; `heard` matches that with what was played.
    """

    def __init__(self, config: Config, env: Any, learner: AgentPolicy, share: float, budget: float):
        self.config, self.spec, self.learner, self.expert = config, env.spec, learner, env.expert
        self.share, self.budget = share, budget
        self.random = Uniform(env.spec)
        self.parts = (learner.noise, self.expert.noise, self.random.noise, 3)  # the last: coins
        self.noise = sum(self.parts)
        self.said: list[tuple[Tensor, Tensor]] = []  # at each step: actions, and of whom they were told
        self.episode = torch.zeros((), dtype=torch.long)  # of each env: `play` keeps the first, no other asks

    def start(self, envs: int) -> dict[str, Any]:
        """Zeros, as memory is at an episode's start: at `age` 0 it is drawn who deviates."""
        blank = self.learner.normaliser.mean.new_zeros(envs, dtype=torch.long)
        parts = {"learner": self.learner.start(envs), "expert": self.expert.start(envs)}
        return parts | {"age": blank, "deviator": blank}

    def act(self, view: View, memory: dict[str, Any], noise: Float[Tensor, "env agent noise"]) -> tuple[Tensor, Any]:
        mine, theirs, by_chance, coins = noise.split(self.parts, dim=-1)
        self.episode = self.episode + (memory["age"] == 0).long()
        actions, learner = self.learner.act(view, memory["learner"], mine)
        plays = coins[..., 0] < self.share
        if self.config.mixing == "joint":
            plays = plays[:, :1].expand_as(plays)
        advice, told, expert = self._ask(view, memory, theirs, actions, plays)
        self.said.append((advice, told))
        deviator = self._deviator(memory, coins[:, 0, 1:])
        chance, _ = self.random.act(view, (), by_chance)
        actions = _where(plays & told, advice, actions)
        actions = _where(deviator.unsqueeze(-1) == _numbers(self.spec, actions), chance, actions)
        return actions, {"learner": learner, "expert": expert, "age": memory["age"] + 1, "deviator": deviator}

    def log_prob(self, view: View, actions: Tensor, memory: Any = (), starts: Tensor | None = None) -> Tensor:
        raise ConfigError("asking: who plays is decided step by step, and has no likelihoods. Ask the learner's.")

    def _ask(
        self, view: View, memory: dict[str, Any], noise: Tensor, actions: Tensor, plays: Bool[Tensor, "env agent"]
    ) -> tuple[Tensor, Bool[Tensor, "env agent"], Any]:
        """What the expert says, of whom it is told, and its memory. Without memory, only envs where it is due ask."""
        gate, surprised = self.config.gate, self.config.gate == "surprise"
        open_to = choosing(Segment(view, actions)) & (self.episode == 1).unsqueeze(-1)
        wanted = torch.ones_like(plays)
        if gate in ("entropy", "disagreement"):
            wanted = plays | (doubt(self.learner, gate, view, actions, memory["learner"]) > self.config.threshold)
        wanted = self._affordable(wanted, open_to)
        asked, remembered = wanted.any(dim=-1).nonzero().squeeze(-1), memory["expert"]
        if any(True for _ in tree_leaves(remembered)):
            advice, remembered = self.expert.act(view, remembered, noise)
        else:
            advice = torch.zeros_like(actions)
            if len(asked):
                one, _ = self.expert.act(tree_take(view, asked), remembered, noise[asked])
                advice = advice.index_copy(0, asked, one.to(advice.dtype))
        advice = within_bounds(self.spec, advice)
        if surprised:
            wanted = plays | (doubt(self.learner, gate, view, advice, memory["learner"]) > self.config.threshold)
            wanted = self._affordable(wanted, open_to)
        self.budget -= int(wanted.sum())
        return advice, wanted, remembered

    def _affordable(
        self, wanted: Bool[Tensor, "env agent"], open_to: Bool[Tensor, "env agent"]
    ) -> Bool[Tensor, "env agent"]:
        """Of whom is asked: where there is a choice, as long as the budget lasts; of a whole team or not at all."""
        if self.config.query == "joint":
            wanted = (wanted & open_to).any(dim=-1, keepdim=True) & open_to
            return wanted & (wanted.sum(dim=-1).cumsum(0) <= self.budget).unsqueeze(-1)
        wanted = wanted & open_to
        return wanted & (wanted.flatten().cumsum(0) <= self.budget).unflatten(0, wanted.shape)

    def _deviator(self, memory: dict[str, Any], coins: Float[Tensor, "env 2"]) -> Int[Tensor, "env"]:
        """The agent that plays by chance in this episode, counted from 1; 0: nobody."""
        drawn = (coins[:, 0] * self.spec.agents).long() + 1
        drawn = drawn * (coins[:, 1] < self.config.deviations)
        return torch.where(memory["age"] == 0, drawn, memory["deviator"])

    def heard(self, played: Segment) -> Told:
        """The steps of `played` with what was said at them; where nothing is remembered, those where something was."""
        assert played.valid is not None and played.starts is not None
        view, steps = played.view, played.valid.shape[1]
        advice, told = (torch.stack(each[:steps], dim=1) for each in zip(*self.said, strict=True))
        starts, kept = played.starts, played.valid
        if not self.config.clone.net.has_past:
            starts, kept = torch.ones_like(starts), kept & told.any(dim=-1)
        legal = view.legal
        if legal is None:
            legal = told.new_ones(*told.shape, legal_size(self.spec.action))
        present = torch.ones_like(told) if view.present is None else view.present
        return tree_take(Told(view.obs, legal, present, advice, told, starts), kept)


def doubt(learner: AgentPolicy, gate: str, view: View, actions: Tensor, memory: Any) -> Float[Tensor, "env agent"]:
    """How little each agent of the learner knows what to do, in nats.

    entropy       of its next action (of a density where actions are real numbers)
    disagreement  what its members say less than their mean does: entropy of the mean - mean of their entropies
    surprise      - log pi(actions), `actions` being the expert's
    """
    now = tree_map(lambda x: x.unsqueeze(1), view)
    each, _ = learner.of_members(now, actions.unsqueeze(1), memory)
    blended, _ = learner.params(now, actions.unsqueeze(1), memory)
    if gate == "surprise":
        return -learner.head.log_prob(blended, actions.unsqueeze(1), now.legal).squeeze(1)
    found = learner.head.entropy(blended, now.legal)
    if gate == "disagreement":
        legal = None if now.legal is None else now.legal.expand(len(each), *now.legal.shape)
        found = found - learner.head.entropy(each, legal).mean(dim=0)
    return found.squeeze(1)


def _descend(config: Config, state: State, demos: Demos | None, env: Any, generator: torch.Generator) -> Tensor:
    """One gradient step on recordings and what was told, every choice of both counting alike."""
    clone = config.clone
    window = clone.window if clone.net.has_past else 1
    size = max(1, clone.batch // window)
    groups = symmetries_of(env) if config.symmetric else ()
    heard, recorded = float(state.told.told.sum()), state.recorded
    loss = torch.zeros(())
    if heard:
        part = elsewhere(groups, _as_segment(_drawn(state.told, size, window, generator)), generator)
        loss = loss + heard / (heard + recorded) * bc.clone_loss(
            state.policy, part, clone, generator, part.labels["told"]
        )
    if recorded:
        assert demos is not None
        part = batch_of(demos, state.position, clone.batch, state.seed, window, following=False)
        part = elsewhere(groups, part, generator)
        loss = loss + recorded / (heard + recorded) * bc.clone_loss(state.policy, part, clone, generator)
    for group in state.optimizer.param_groups:  # steady at first, then down to 0: the latest weights are the result
        group["lr"] = clone.rate * min(1.0, 2 - 2 * state.position / (config.rounds * config.steps))
    state.position += 1
    if heard + recorded:
        ppo.descend(state.optimizer, loss, clone.max_grad_norm)
    return loss.detach()


def _drawn(told: Told, size: int, window: int, generator: torch.Generator) -> Told:
    """`size` windows drawn so that every step is in one as often as any other.

    A window may begin before its episode, or end after it: then it is shorter, and of the rest nothing is told.
    """
    first = told.starts.nonzero().squeeze(-1)
    length = torch.cat([first[1:], first.new_tensor([len(told.starts)])]) - first
    ends = (length + window - 1).cumsum(0)
    drawn = torch.randint(int(ends[-1]), (size,), generator=generator, device=generator.device)
    episode = torch.searchsorted(ends, drawn, right=True)
    begin = drawn - (ends - length)[episode]  # from 1 - window to length - 1
    end = torch.minimum(begin + window, length[episode])
    begin = begin.clamp(min=0)
    steps = begin.unsqueeze(-1) + torch.arange(window, device=begin.device)
    valid = steps < end.unsqueeze(-1)
    rows = first[episode].unsqueeze(-1) + torch.minimum(steps, end.unsqueeze(-1) - 1)
    part = tree_take(told, rows)
    return replace(part, told=part.told & valid.unsqueeze(-1), starts=part.starts & valid)


def _as_segment(told: Told) -> Segment:
    legal = told.legal if told.legal.shape[-1] else None
    return Segment(View(told.obs, legal, told.present), told.actions, starts=told.starts, labels={"told": told.told})


def _nothing(spec: EnvSpec, device: torch.device) -> Told:
    def none(*shape: int, dtype: torch.dtype) -> Tensor:
        return torch.zeros(0, *shape, dtype=dtype, device=device)

    agents, numbers = spec.agents, isinstance(spec.action, Continuous)
    return Told(
        obs=none(agents, spec.obs, dtype=torch.float32),
        legal=none(agents, legal_size(spec.action), dtype=torch.bool),
        present=none(agents, dtype=torch.bool),
        actions=none(agents, *action_shape(spec.action), dtype=torch.float32 if numbers else torch.long),
        told=none(agents, dtype=torch.bool),
        starts=none(dtype=torch.bool),
    )


def _numbers(spec: EnvSpec, like: Tensor) -> Int[Tensor, "agent"]:
    return torch.arange(1, spec.agents + 1, device=like.device)


def _where(which: Bool[Tensor, "env agent"], yes: Tensor, no: Tensor) -> Tensor:
    return torch.where(which.reshape(*which.shape, *[1] * (no.dim() - 2)), yes, no)
