"""How well play withstands agents who leave it: exact in tabular games, a bound from learned replies elsewhere.

    gain_i  = max over deviations of agent i of its return, the others following the policy, less its return if it obeys
    regret  = max_i gain_i,    exploitability = sum_i gain_i

Two policies of one value may differ in regret as far as an episode is long: imitation is judged by both
(Tang et al. 2024, arXiv:2406.04219). In tabular games (`maths.games`) the figures are exact. Elsewhere a reply is
trained against the frozen others; what it gains is a *lower* bound, which says how much training went into it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from understudy.core.errors import ConfigError, EnvError, nearest
from understudy.core.tree import tree_map
from understudy.core.types import EnvSpec, Policy
from understudy.evaluation.measured import aligned
from understudy.evaluation.metrics import returns
from understudy.maths import games
from understudy.maths.divergence import entropy
from understudy.maths.games import Deviations, Game
from understudy.maths.stats import Estimate, estimate
from understudy.nets.tables import table_of
from understudy.rollout import Scripted, look, play, within_bounds

Train = Callable[[Any, int], Policy]  # train(env of one agent, seed) -> its reply


@dataclass(frozen=True)
class Regret:
    """Figures by name; exact ones are points.

    value/AGENT, gain/AGENT, regret, exploitability, of tabular games also `total correlation`; with an expert also
    `demonstrated ...`, `value gap` (max_i V_i(expert) - V_i) and `regret gap` (regret less the expert's).
    """

    figures: Mapping[str, Estimate]
    note: str  # how they were found

    def __getitem__(self, name: str) -> Estimate:
        if name not in self.figures:
            raise ConfigError(f"unknown figure {name!r}.{nearest(name, self.figures)}")
        return self.figures[name]

    def __str__(self) -> str:
        """A table, the expert's figures beside the play's own."""
        rows = [
            [name, str(figure), str(self.figures.get(f"demonstrated {name}", ""))]
            for name, figure in self.figures.items()
            if not name.startswith("demonstrated ")
        ]
        beside = "expert" if any(row[2] for row in rows) else ""
        return aligned([["", "play", beside], *rows]) + f"\n\n{self.note}"


# --- exact -----------------------------------------------------------------------------------------------------------


def exact(
    policy: Policy | Tensor,
    env: Any,
    expert: Policy | Tensor | None = None,
    deviations: Deviations = "swap",
    discount: float = 1.0,
) -> Regret:
    """Of a policy, or of a table `[state, joint]` or `[time, state, joint]`, in a tabular game.

    Args:
        expert: against whom the gaps are taken.
        discount: below 1 where the game has no horizon.

    Raises:
        EnvError: `env` has no tables, or the policy cannot be read as one.
    """
    game = games.game_of(env)
    ours = _figures(game, play_table(policy, env), env.spec.names, deviations, discount)
    found = dict(ours)
    if expert is not None:
        theirs = _figures(game, play_table(expert, env), env.spec.names, deviations, discount)
        found |= {f"demonstrated {name}": figure for name, figure in theirs.items()}
        gaps = [theirs[f"value/{who}"] - ours[f"value/{who}"] for who in env.spec.names]
        found |= {"value gap": max(gaps), "regret gap": ours["regret"] - theirs["regret"]}
    note = f"Exact, against {deviations} deviations that know state and time."
    return Regret({name: Estimate(x, x, x, 1) for name, x in found.items()}, note)


def play_table(policy: Policy | Tensor, env: Any) -> Float[Tensor, "*time state joint"]:
    """How `policy` plays in a tabular game, as probabilities of joint actions; a table as it is.

    Raises:
        EnvError: the policy remembers, or is a script that is not the game's own: its chances cannot be read.
    """
    game = games.game_of(env)
    if isinstance(policy, Tensor):
        return policy.double()
    if isinstance(policy, Scripted):
        if policy.expert.__module__ != type(policy.env).__module__:
            raise EnvError(
                f"{policy.expert.__name__} is a script: its chances cannot be read. Hand in a table of them."
            )
        told = policy.env.play
        return torch.full_like(game.reward[0], 1 / len(game.moves)) if told is None else told.double()
    return table_of(policy, game.choices, game.states)


def coordination(game: Game, play: Float[Tensor, "*time state joint"], discount: float = 1.0) -> Float[Tensor, ""]:
    """Total correlation of the joint action, in nats: mean over the steps that the play itself leads to.

    0 where the agents choose independently given the state, log K for K conventions that are equally common.
    """
    steps = games.occupancy(game, play, discount) * ~game.over
    told = (entropy(games.marginals_of(play, game.choices)).sum(0) - entropy(play)).clamp(min=0)  # [*time, state]
    return (told * steps).sum() / steps.sum()


def _figures(
    game: Game, told: Tensor, names: tuple[str, ...], deviations: Deviations, discount: float
) -> dict[str, float]:
    paid, gained = games.value(game, told, discount), games.gains(game, told, deviations, discount)
    found = {f"value/{name}": float(x) for name, x in zip(names, paid, strict=True)}
    found |= {f"gain/{name}": float(x) for name, x in zip(names, gained, strict=True)}
    found |= {"regret": float(gained.max()), "exploitability": float(gained.sum())}
    return found | {"total correlation": float(coordination(game, told, discount))} if len(names) > 1 else found


# --- by learned replies ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Taken:
    """State of a game that one agent plays among others who follow a policy."""

    inner: Any
    memory: Any  # of the policy that the others follow


@dataclass(frozen=True, eq=False)
class Against:
    """The game of one agent: the others follow `policy` and are part of the world.

    Their chance is part of the noise of a step. A state of a foreign simulator must not be stepped twice, as ever.
    """

    env: Any
    policy: Policy
    agent: int

    @property
    def spec(self) -> EnvSpec:
        whole = self.env.spec
        return EnvSpec(
            agents=1,
            obs=whole.obs,
            action=whole.action,
            horizon=whole.horizon,
            reset_noise=whole.reset_noise,
            step_noise=whole.step_noise + whole.agents * self.policy.noise,
            whole=whole.whole,
            names=(whole.names[self.agent],),
            obs_sizes=(whole.obs_sizes[self.agent],),
            action_sizes=(whole.action_sizes[self.agent],),
            dt=whole.dt,
            title=f"{whole.title}, {whole.names[self.agent]} alone",
        )

    def reset(self, noise: Float[Tensor, "env noise"]) -> Taken:
        return Taken(self.env.reset(noise), self.policy.start(len(noise)))

    def observe(self, state: Taken) -> Float[Tensor, "env agent obs"]:
        return self._mine(self.env.observe(state.inner))

    @torch.no_grad()
    def step(
        self, state: Taken, actions: Tensor, noise: Float[Tensor, "env noise"]
    ) -> tuple[Taken, Float[Tensor, "env agent"], Bool[Tensor, "env"]]:
        spec = self.env.spec
        chance = noise[:, spec.step_noise :].unflatten(-1, (spec.agents, self.policy.noise))
        joint, memory = self.policy.act(look(self.env, state.inner), state.memory, chance)
        joint = within_bounds(spec, joint).clone()
        joint[:, self.agent] = actions[:, 0].to(joint.dtype)
        inner, rewards, terminated = self.env.step(state.inner, joint, noise[:, : spec.step_noise])
        return Taken(inner, memory), self._mine(rewards), terminated

    def __getattr__(self, name: str) -> Any:
        """What the game offers besides, seen by the one agent."""
        if name not in ("legal", "present", "whole", "truncated", "restart", "copies", "divisible"):
            raise AttributeError(name)
        offered = getattr(self.env, name)
        if name in ("legal", "present"):
            return lambda state: None if (x := offered(state.inner)) is None else self._mine(x)
        if name in ("whole", "truncated"):
            return lambda state: offered(state.inner)
        return self._restart if name == "restart" else offered

    def _restart(self, state: Taken, ended: Bool[Tensor, "env"], noise: Float[Tensor, "env noise"]) -> Taken:
        fresh = self.policy.start(len(ended))
        memory = tree_map(lambda x, new: torch.where(_like(ended, x), new, x), state.memory, fresh)
        return Taken(self.env.restart(state.inner, ended, noise), memory)

    def _mine(self, x: Tensor) -> Tensor:
        return x[:, self.agent : self.agent + 1]


def learned(
    policy: Policy,
    env: Any,
    train: Train,
    generator: torch.Generator,
    budget: str,
    seeds: int = 1,
    episodes: int = 1000,
) -> Regret:
    """Lower bounds of the gains: for each agent `seeds` replies are trained, and the one that earns most is measured.

    It is chosen on episodes of its own, so that a lucky one is not taken for a good one, and so is the agent whose gain
    is the regret. A gain below 0 says that nothing better than obeying was found: then 0 is the bound.

    Args:
        train: `train(env of one agent, seed)` gives its reply.
        budget: what a training costs, in words, such as "1,000,000 steps of ppo".
        episodes: measured, with and without the deviation.
    """
    if seeds < 1 or episodes < 2:
        raise ConfigError(f"seeds={seeds}, episodes={episodes}: a bound needs one reply and two episodes at least.")
    names, obeyed = env.spec.names, returns(play(env, policy, episodes, generator)).double()
    figures = {f"value/{name}": estimate(obeyed[:, i], generator) for i, name in enumerate(names)}
    gained, promised = [], []
    for agent, name in enumerate(names):
        alone = Against(env, policy, agent)
        replies = [train(alone, seed) for seed in range(seeds)]
        earned = [returns(play(alone, reply, episodes, generator)).mean().item() for reply in replies]
        best = replies[max(range(seeds), key=earned.__getitem__)]
        promised.append(max(earned) - obeyed[:, agent].mean().item())
        gained.append(returns(play(alone, best, episodes, generator))[:, 0].double() - obeyed[:, agent])
        figures[f"gain/{name}"] = estimate(gained[-1], generator)
    most = figures[f"gain/{names[max(range(len(names)), key=promised.__getitem__)]}"]
    figures["regret"] = Estimate(max(0.0, most.value), max(0.0, most.low), max(0.0, most.high), most.n)
    figures["exploitability"] = _sum_of_gains(gained, generator)
    note = (
        f"Lower bounds: for each agent {seeds} replies were trained with {budget}, and the best of them measured over "
        f"{episodes:,} episodes ± half of the 95 % interval. A better reply may exist."
    )
    return Regret(figures, note)


def _sum_of_gains(gained: list[Tensor], generator: torch.Generator) -> Estimate:
    """Of the agents who gain: who found nothing better than obeying would obey."""
    gainers = [each for each in gained if each.mean() > 0]
    return estimate(torch.stack(gainers).sum(0), generator) if gainers else Estimate(0.0, 0.0, 0.0, len(gained[0]))


def _like(ended: Bool[Tensor, "env"], x: Tensor) -> Tensor:
    return ended.reshape(-1, *(1,) * (x.dim() - 1))
