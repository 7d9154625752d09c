"""Play: policies in environments. `collect` gives a segment to learn from, `record` whole episodes to keep.

Here, and nowhere else, episodes end and begin again: `terminated` says that the game was over, `truncated` that a time
limit cut it off, `next_view` is what a step led to BEFORE the reset, and recurrent memory starts from zeros after it.
"""

import math
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from understudy.core.errors import ConfigError, EnvError
from understudy.core.random import uniform
from understudy.core.tree import tree_cat, tree_map, tree_put, tree_stack, tree_take
from understudy.core.types import Continuous, Discrete, Env, EnvSpec, Policy, Segment, View, legal_size
from understudy.demos.demos import About, Demos, Episode
from understudy.maths.heads import Categorical, Gaussian, MultiCategorical, standard_normal

START = "start"  # of what is noted of an episode: the noise of its reset, as float32 in hexadecimal digits
Expert = Callable[[Any, View, Tensor], Tensor]  # expert(env, view, noise) -> actions


@dataclass
class Live:
    """Envs in play, leading axis [env]: what goes on from one segment to the next."""

    state: Any
    memory: Any
    view: View
    age: Int[Tensor, "env"]  # steps since the reset


def look(env: Env, state: Any) -> View:
    """What the agents perceive in `state`, with everything the env offers."""
    if hasattr(env, "look"):  # it was seen already
        return env.look(state)
    parts = {name: getattr(env, name)(state) for name in ("legal", "present", "whole") if hasattr(env, name)}
    return View(obs=env.observe(state), **parts)


def begin(env: Env, policy: Policy, envs: int, generator: torch.Generator) -> Live:
    """`envs` fresh episodes."""
    return _begin(env, policy, uniform((envs, env.spec.reset_noise), generator))


def _begin(env: Env, policy: Policy, starts: Float[Tensor, "env noise"]) -> Live:
    state, envs = env.reset(starts), len(starts)
    age = torch.zeros(envs, dtype=torch.long, device=starts.device)
    return Live(state, policy.start(envs), look(env, state), age)


@torch.no_grad()
def collect(env: Env, policy: Policy, live: Live, steps: int, generator: torch.Generator) -> tuple[Segment, Live]:
    """Play `steps` steps in every env; an episode that ends is followed by a new one.

    All chance is drawn here, in one call per purpose: the same generator gives the same segment.
    """
    envs, spec = len(live.age), env.spec
    acting = uniform((steps, envs, spec.agents, policy.noise), generator)
    stepping = uniform((steps, envs, spec.step_noise), generator)
    fresh = uniform((steps, envs, spec.reset_noise), generator)
    played, state, memory, view, age = [], live.state, live.memory, live.view, live.age
    for t in range(steps):
        starts = age == 0
        actions, memory = policy.act(view, memory, acting[t])
        state, rewards, terminated = env.step(state, within_bounds(spec, actions), stepping[t])
        age = age + 1
        truncated = _cut_off(env, state, age) & ~terminated
        next_view = look(env, state)
        played.append(Segment(view, actions, rewards, terminated, truncated, next_view, starts))
        ended = (terminated | truncated).nonzero().squeeze(-1)
        view = next_view
        if len(ended):
            state, memory = _restart(env, policy, state, memory, ended, fresh[t])
            view, age = look(env, state), age.index_fill(0, ended, 0)
    return tree_stack(played, axis=1), Live(state, memory, view, age)


def play(
    env: Env,
    policy: Policy,
    episodes: int,
    generator: torch.Generator,
    envs: int = 1024,
    starts: Float[Tensor, "start noise"] | None = None,
) -> Segment:
    """Whole episodes, `[episode, time, agent, ...]`, padded to the longest with `valid` false.

    Every env plays exactly one episode of a round, so short episodes are not over-represented (they would be in a
    fixed number of steps, and in the first n episodes to end).

    Args:
        envs: played side by side, at most; a foreign simulator plays no more than its `copies`.
        starts: noise of resets (`starts_of` a recording): the k-th episode begins with the k-th of them, over and over
            where there are fewer. None: drawn.

    Raises:
        ConfigError: no episodes, or no envs to play them in, were asked for.
        EnvError: where the env has no horizon and an episode did not end within 100,000 steps.
    """
    return _play(env, policy, episodes, generator, envs, starts)[0]


@torch.no_grad()
def _play(
    env: Env,
    policy: Policy,
    episodes: int,
    generator: torch.Generator,
    envs: int,
    starts: Float[Tensor, "start noise"] | None = None,
) -> tuple[Segment, Float[Tensor, "episode noise"]]:
    """What was played, and the noise of the resets that it began with."""
    if episodes < 1 or envs < 1:
        raise ConfigError(f"episodes={episodes}, envs={envs}: to play takes at least one of both.")
    envs = min(envs, getattr(env, "copies", envs))
    whole_rounds = not getattr(env, "divisible", True)  # its copies cannot rest: too many are played, and cut off
    played, begun = [], []
    for done in range(0, episodes, envs):
        count = envs if whole_rounds else min(envs, episodes - done)
        if starts is None:
            begun.append(uniform((count, env.spec.reset_noise), generator))
        else:
            begun.append(starts[torch.arange(done, done + count) % len(starts)].to(generator.device))
        played.append(_play_round(env, policy, begun[-1], generator))
    longest = max(p.obs.shape[1] for p in played)
    joined = tree_map(lambda *parts: torch.cat([_lengthen(p, longest) for p in parts]), played[0], *played[1:])
    return tree_take(joined, slice(episodes)), torch.cat(begun)[:episodes]


def record(
    env: Env,
    policy: Policy,
    episodes: int,
    generator: torch.Generator,
    envs: int = 1024,
    about: About | None = None,
) -> Demos:
    """Episodes of `policy` in `env` as demonstrations: all that was perceived and done, and what it was paid.

    Actions are kept as the env took them (within their bounds), and with each episode the noise of its reset, so that
    others can begin where it began (`starts_of`).
    """
    played, starts = _play(env, policy, episodes, generator, envs)
    return to_demos(played, env.spec, about or About(title=env.spec.title), starts)


def starts_of(demos: Demos) -> Float[Tensor, "episode noise"] | None:
    """The noise of the resets that recordings began with; None where any of them does not tell, or all begin alike."""
    wide, found = demos.spec.reset_noise, []
    for info in demos.infos:
        try:
            found.append(struct.unpack(f"<{wide}f", bytes.fromhex(str(info[START]))))
        except (KeyError, ValueError, struct.error):
            return None
    starts = torch.tensor(found, dtype=torch.float32)
    return starts if wide and found and bool(((starts >= 0) & (starts < 1)).all()) else None


def to_demos(
    played: Segment, spec: EnvSpec, about: About, starts: Float[Tensor, "episode noise"] | None = None
) -> Demos:
    """Played episodes as demonstrations.

    Args:
        played: [episode, time, agent, ...] with `valid`, as `play` gives it.
        starts: noise of the resets, kept as `START` of what is noted of an episode; None: not known.
    """
    assert played.valid is not None and played.next_view is not None and played.rewards is not None
    assert played.terminated is not None and played.truncated is not None
    noted: list[dict[str, str]] = [{}] * len(played.obs)
    if starts is not None and spec.reset_noise:
        noted = [{START: struct.pack(f"<{spec.reset_noise}f", *row).hex()} for row in starts.tolist()]
    episodes = []
    for i, steps in enumerate(played.valid.sum(dim=1).tolist()):
        one = tree_map(lambda x, i=i, n=steps: x[i, :n], played)
        seen = tree_map(lambda x, last: torch.cat([x, last[-1:]]), one.view, one.next_view)
        episodes.append(
            Episode(
                obs=seen.obs,
                actions=within_bounds(spec, one.actions),
                rewards=one.rewards,
                terminated=bool(played.terminated[i, steps - 1]),
                truncated=bool(played.truncated[i, steps - 1]),
                legal=seen.legal,
                present=seen.present,
                whole=seen.whole,
                info=noted[i],
            )
        )
    return Demos.from_episodes(spec, episodes, about)


@dataclass
class Scripted:
    """A scripted expert as a policy: `expert(env, view, noise) -> actions`, with `noise` numbers for every agent."""

    env: Any
    expert: Expert
    noise: int = 4

    def start(self, envs: int) -> tuple[()]:
        return ()

    def act(self, view: View, memory: Any, noise: Float[Tensor, "env agent noise"]) -> tuple[Tensor, Any]:
        return self.expert(self.env, view, noise), memory

    def log_prob(self, view: View, actions: Tensor, memory: Any = (), starts: Tensor | None = None) -> Tensor:
        raise EnvError(f"{self.expert.__name__} is a script: it has no likelihoods. Clone it first (`bc`).")


@dataclass(frozen=True)
class Queried:
    """An env with somebody to ask: all of its own contract, and `expert`, who says what to do where others got to.

    Algorithms that query are handed one of these. What the env does not offer (`legal`, `draw` ...), this does not.
    """

    env: Any
    expert: Policy
    asked: str  # who the expert is, in words: what tells two runs apart

    @property
    def spec(self) -> EnvSpec:
        return self.env.spec

    def reset(self, noise: Float[Tensor, "env noise"]) -> Any:
        return self.env.reset(noise)

    def observe(self, state: Any) -> Float[Tensor, "env agent obs"]:
        return self.env.observe(state)

    def step(
        self, state: Any, actions: Tensor, noise: Float[Tensor, "env noise"]
    ) -> tuple[Any, Float[Tensor, "env agent"], Bool[Tensor, "env"]]:
        return self.env.step(state, actions, noise)

    def __getattr__(self, name: str) -> Any:  # whatever else the env may offer
        if name == "env":  # asked before there is one, by those who copy
            raise AttributeError(name)
        return getattr(self.env, name)


@dataclass
class Team:
    """Several policies in one game: agent i does what `policies[seats[i]]` would do in its place.

    Each policy sees what it always sees and remembers what it would have done: a joint policy imagines the moves of
    agents that another one plays.
    """

    policies: Sequence[Policy]
    seats: tuple[int, ...]  # for each agent, whose seat it is

    def __post_init__(self) -> None:
        if any(not 0 <= seat < len(self.policies) for seat in self.seats):
            raise ConfigError(f"seats: got {self.seats} for {len(self.policies)} policies, counted from 0.")

    @property
    def noise(self) -> int:
        return sum(policy.noise for policy in self.policies)  # nobody shares dice with whom he does not know

    def start(self, envs: int) -> tuple[Any, ...]:
        return tuple(policy.start(envs) for policy in self.policies)

    def act(self, view: View, memory: Any, noise: Float[Tensor, "env agent noise"]) -> tuple[Tensor, Any]:
        dice = noise.split([policy.noise for policy in self.policies], dim=-1)
        parts = zip(self.policies, memory, dice, strict=True)
        each, after = zip(*(policy.act(view, m, d) for policy, m, d in parts), strict=True)
        agents = torch.arange(len(self.seats), device=view.obs.device)
        seats = torch.tensor(self.seats, device=view.obs.device)
        return torch.stack(each)[seats, :, agents].transpose(0, 1), after

    def log_prob(self, view: View, actions: Tensor, memory: Any = (), starts: Tensor | None = None) -> Tensor:
        memory = memory or ((),) * len(self.policies)
        each = [p.log_prob(view, actions, m, starts) for p, m in zip(self.policies, memory, strict=True)]
        return torch.stack([each[seat][..., i] for i, seat in enumerate(self.seats)], dim=-1)


@dataclass
class Uniform:
    """Every legal move alike likely; continuous actions uniform within their bounds, standard normal without."""

    spec: EnvSpec

    @property
    def noise(self) -> int:
        action = self.spec.action
        if isinstance(action, Discrete):
            return 1
        return action.size if isinstance(action, Continuous) else len(action.choices)

    def start(self, envs: int) -> tuple[()]:
        return ()

    def _flat(self, view: View) -> tuple[Categorical | MultiCategorical, Tensor]:
        action = self.spec.action
        assert not isinstance(action, Continuous)
        head = Categorical(action.choices) if isinstance(action, Discrete) else MultiCategorical(action.choices)
        return head, view.obs.new_zeros(*view.obs.shape[:-1], legal_size(action))

    def act(self, view: View, memory: Any, noise: Float[Tensor, "env agent noise"]) -> tuple[Tensor, Any]:
        action = self.spec.action
        if isinstance(action, Continuous):
            if _unbounded(action):
                return standard_normal(noise), memory
            return action.low + (action.high - action.low) * noise, memory
        head, logits = self._flat(view)
        return head.sample(logits, noise, view.legal), memory

    def log_prob(self, view: View, actions: Tensor, memory: Any = (), starts: Tensor | None = None) -> Tensor:
        action = self.spec.action
        if isinstance(action, Continuous):
            if _unbounded(action):
                return Gaussian(action.size).log_prob(actions.new_zeros(*actions.shape[:-1], 2 * action.size), actions)
            inside = ((actions >= action.low) & (actions <= action.high)).all(dim=-1)
            density = -action.size * math.log(action.high - action.low)
            return torch.where(inside, density, -math.inf).to(view.obs.dtype)
        head, logits = self._flat(view)
        return head.log_prob(logits, actions, view.legal)


@dataclass
class Wandering:
    """A policy whose agents, each by itself, in a `share` of their steps draw from all that they may do."""

    policy: Policy
    spec: EnvSpec
    share: float

    @property
    def noise(self) -> int:
        return 1 + self.policy.noise + Uniform(self.spec).noise

    def start(self, envs: int) -> Any:
        return self.policy.start(envs)

    def act(self, view: View, memory: Any, noise: Float[Tensor, "env agent noise"]) -> tuple[Tensor, Any]:
        which, own, any_move = noise.split([1, self.policy.noise, Uniform(self.spec).noise], dim=-1)
        actions, memory = self.policy.act(view, memory, own)
        drawn, _ = Uniform(self.spec).act(view, (), any_move)
        wanders = (which.squeeze(-1) < self.share).reshape(*which.shape[:-1], *[1] * (actions.dim() - 2))
        return torch.where(wanders, drawn, actions), memory

    def log_prob(self, view: View, actions: Tensor, memory: Any = (), starts: Tensor | None = None) -> Tensor:
        shares = torch.tensor([self.share, 1 - self.share], dtype=torch.float64)
        wanders, own = shares.log().tolist()  # -inf of what is never done
        wandering = Uniform(self.spec).log_prob(view, actions) + wanders
        return torch.logaddexp(self.policy.log_prob(view, actions, memory, starts) + own, wandering)


def _unbounded(action: Continuous) -> bool:
    return math.isinf(action.low) or math.isinf(action.high)


def within_bounds(spec: EnvSpec, actions: Tensor) -> Tensor:
    """Continuous actions cut off at their bounds; others as they are."""
    if isinstance(spec.action, Continuous):
        return actions.clamp(spec.action.low, spec.action.high)
    return actions


def _cut_off(env: Env, state: Any, age: Int[Tensor, "env"]) -> Bool[Tensor, "env"]:
    """A time limit, the spec's or a foreign simulator's own, ends the episode with this step."""
    limit = torch.zeros_like(age, dtype=torch.bool) if env.spec.horizon is None else age >= env.spec.horizon
    return limit | env.truncated(state) if hasattr(env, "truncated") else limit


def _restart(env: Env, policy: Policy, state: Any, memory: Any, rows: Tensor, noise: Tensor) -> tuple[Any, Any]:
    """New episodes in the envs `rows` alone."""
    if hasattr(env, "restart"):
        ended = torch.zeros(len(noise), dtype=torch.bool, device=noise.device).index_fill(0, rows, True)
        state = env.restart(state, ended, noise)
    elif len(rows) == len(noise):
        return env.reset(noise), policy.start(len(noise))
    else:
        state = tree_put(state, rows, env.reset(noise[rows]))
    return state, tree_put(memory, rows, policy.start(len(rows)))


def _play_round(env: Env, policy: Policy, starts: Float[Tensor, "env noise"], generator: torch.Generator) -> Segment:
    live, envs = _begin(env, policy, starts), len(starts)
    limit, block, parts = env.spec.horizon or 100_000, 64, []
    over = torch.zeros(envs, dtype=torch.bool, device=generator.device)
    done = 0
    while done < limit and not over.all():
        part, live = collect(env, policy, live, min(block, limit - done), generator)
        before = part.ended.long().cumsum(dim=1) - part.ended.long()  # ends before this step, in this part
        parts.append(replace(part, valid=(before == 0) & ~over.unsqueeze(1)))
        over = over | part.ended.any(dim=1)
        done += block
    if not over.all():
        raise EnvError(
            f"{env.spec.title or 'env'}: an episode went on for {limit:,} steps. Give the env a horizon, "
            "or let its `step` end the game."
        )
    longest = int(torch.cat([p.valid for p in parts if p.valid is not None], dim=1).sum(dim=1).max())
    return first_steps(tree_cat(parts, axis=1), longest)


def _lengthen(x: Tensor, steps: int) -> Tensor:
    missing = steps - x.shape[1]
    return x if missing == 0 else torch.cat([x, x.new_zeros(len(x), missing, *x.shape[2:])], dim=1)


def first_steps(segment: Segment, steps: int) -> Segment:
    """The first `steps` steps of every episode."""
    return tree_take(segment, (slice(None), slice(steps)))


def episode_returns(
    rewards: Float[Tensor, "env time agent"], ended: Bool[Tensor, "env time"], running: Float[Tensor, "env agent"]
) -> tuple[Float[Tensor, "episode agent"], Float[Tensor, "env agent"]]:
    """Returns of the episodes that ended in a segment, and what those still in play have so far.

    Args:
        running: return so far of the episode in play in each env when the segment began.
    """
    total = running.unsqueeze(1) + rewards.cumsum(dim=1)  # as if no episode had ended
    at_end = total * ended.unsqueeze(-1)
    earlier = torch.zeros_like(total)  # the running total at the latest end before each step
    carried = torch.zeros_like(running)
    for t in range(rewards.shape[1]):
        earlier[:, t] = carried
        carried = torch.where(ended[:, t].unsqueeze(-1), at_end[:, t], carried)
    return (total - earlier)[ended], total[:, -1] - carried


def choosing(segment: Segment) -> Bool[Tensor, "*batch agent"]:
    """Where an agent did what it might have left: the step is one, the agent present, and two moves or more legal.

    A forced move is no evidence: any policy gives it probability 1. In games of turns those who wait have one legal
    move, and counting it would flatter every likelihood and accuracy the more the more agents wait.
    """
    view, actions = segment.view, segment.actions
    there = torch.ones(view.obs.shape[:-1], dtype=torch.bool, device=view.obs.device)
    if segment.valid is not None:
        there = there & segment.valid.unsqueeze(-1)
    if view.present is not None:
        there = there & view.present
    if view.legal is not None:
        parts = actions.shape[-1] if actions.dim() == view.obs.dim() else 1  # of a MultiDiscrete action
        there = there & (view.legal.sum(dim=-1) > parts)
    return there


@dataclass(frozen=True)
class Score:
    """How likely a policy finds what was done. Axes [episode, time, agent]; `counts` is where there was a choice."""

    log_prob: Float[Tensor, "episode time agent"]  # nats
    hit: Bool[Tensor, "episode time agent"]  # the policy's likeliest action was the one taken
    counts: Bool[Tensor, "episode time agent"]  # see `choosing`

    @property
    def mean(self) -> Float[Tensor, ""]:
        """Mean log-likelihood per choice, nats."""
        return self.log_prob[self.counts].mean()

    @property
    def accuracy(self) -> Float[Tensor, ""]:
        return self.hit[self.counts].float().mean()


@torch.no_grad()
def score(policy: Any, demos: Demos, chunk: int = 65_536) -> Score:
    """Likelihood of recorded actions under `policy`, its memory running through each whole episode.

    `policy` is an `AgentPolicy`, or offers `params` and a `head` as it does. `chunk`: steps scored at once.
    """
    per_round = max(1, chunk // max(int(demos.lengths.max()), 1))
    parts = []
    for first in range(0, len(demos), per_round):
        part = demos.padded(torch.arange(first, min(first + per_round, len(demos))))
        params, _ = policy.params(part.view, part.actions, (), part.starts)
        likeliest = policy.head.mode(params, part.view.legal)
        same = (likeliest == part.actions).reshape(*part.obs.shape[:3], -1).all(dim=-1)
        parts.append(Score(policy.head.log_prob(params, part.actions, part.view.legal), same, choosing(part)))
    longest = max(p.log_prob.shape[1] for p in parts)
    return tree_map(lambda *x: torch.cat([_lengthen(y, longest) for y in x]), parts[0], *parts[1:])
