"""Doors in: simulators that keep their state inside, as environments of this library.

    with from_parallel(lambda: simple_tag_v3.parallel_env(max_cycles=25), copies=8, workers=2) as env: ...

A `State` holds all that can be seen of the copies, and a ticket for what cannot: the simulators themselves stand where
the last `step` or `restart` left them, so only the state that it returned may be continued, once.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from jaxtyping import Bool, Float, Int
from torch import Tensor

from understudy.core.errors import EnvError, expect_shape
from understudy.core.symmetry import Groups, expect_symmetries
from understudy.core.types import Continuous, EnvSpec, action_shape
from understudy.envs.adapters.fleet import RESET, SKIP, STEP, Arrays, Fleet, flat_state
from understudy.envs.adapters.layout import MASK, Layout, lay_out, waiting


@dataclass(frozen=True)
class State:
    """What shows of the copies at one moment."""

    obs: Float[Tensor, "env agent obs"]
    legal: Bool[Tensor, "env agent choice"] | None
    present: Bool[Tensor, "env agent"]
    whole: Float[Tensor, "env feature"] | None
    terminated: Bool[Tensor, "env"]
    truncated: Bool[Tensor, "env"]
    ticket: Int[Tensor, "env"]  # which moment of which copy


@dataclass(frozen=True, eq=False)
class Door:
    """Copies of a simulator, played side by side.

    Each `reset` and `restart` seeds a simulator from the noise that it is handed, and nothing else draws: results
    depend on noise and actions alone, whichever process a copy lives in. A copy whose game has ended waits, unchanged
    and unpaid, until it is restarted.

    Raises:
        EnvError: where a state is continued twice or out of its order, the batch is larger than `copies`, a
            simulator raised or a worker died (the door is then closed).
    """

    layout: Layout
    fleet: Any  # a Fleet or a VectorFleet
    groups: Groups = ()

    def symmetries(self) -> Groups:
        """Those that were declared when it was opened: a simulator does not tell."""
        return self.groups

    @property
    def spec(self) -> EnvSpec:
        return self.layout.spec

    @property
    def copies(self) -> int:
        """The largest batch that this door plays."""
        return len(self.fleet.arrays["todo"])

    @property
    def divisible(self) -> bool:
        """Some copies can play while others rest; else every batch is of all `copies`."""
        return self.fleet.divisible

    def reset(self, noise: Float[Tensor, "env noise"]) -> State:
        """The first `len(noise)` copies begin anew, whatever became of their last state; the others rest."""
        return self._restart(torch.ones(len(noise), dtype=torch.bool), noise)

    def restart(self, state: State, ended: Bool[Tensor, "env"], noise: Float[Tensor, "env noise"]) -> State:
        """The copies of which `ended` is true begin anew, seeded by their rows of the noise; the others stay."""
        self._punch(state)
        return self._restart(ended, noise) if bool(ended.any()) else state

    def observe(self, state: State) -> Float[Tensor, "env agent obs"]:
        return state.obs

    def legal(self, state: State) -> Bool[Tensor, "env agent choice"] | None:
        """Moves that the simulator's mask allows; all of an agent's own without one. None: actions are continuous."""
        return state.legal

    def present(self, state: State) -> Bool[Tensor, "env agent"]:
        """Who is in the game. With the step that ends it: who played to the end.

        Where a time limit ends it, that is who the limit cut off; who died with that very step is absent.
        """
        return state.present

    def whole(self, state: State) -> Float[Tensor, "env feature"] | None:
        """The simulator's own `state()`; None where it has none."""
        return state.whole

    def truncated(self, state: State) -> Bool[Tensor, "env"]:
        """The simulator itself cut the episode off with the last step, by a time limit of its own."""
        return state.truncated

    def step(
        self, state: State, actions: Tensor, noise: Float[Tensor, "env noise"]
    ) -> tuple[State, Float[Tensor, "env agent"], Bool[Tensor, "env"]]:
        """`noise` has no columns: the simulators draw by the seed of their last reset."""
        self._punch(state)
        sizes = {"env": len(state.ticket), "agent": self.spec.agents}
        sizes |= zip(("part",), action_shape(self.spec.action), strict=False)
        expect_shape("actions", actions, " ".join(sizes), **sizes)
        arrays, batch = self.fleet.arrays, slice(len(state.ticket))
        arrays["actions"][batch] = actions.detach().cpu().numpy()
        waits = (arrays["terminated"] | arrays["truncated"])[batch]
        self._run(np.where(waits, SKIP, STEP))
        arrays["rewards"][batch][waits] = 0
        after = self._look(len(waits), noise.device)
        return after, torch.tensor(arrays["rewards"][batch], device=noise.device), after.terminated

    def close(self) -> None:
        """Close the simulators and end their processes. May be called again, and is at the latest when Python ends."""
        self.fleet.close()

    def __enter__(self) -> "Door":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _restart(self, ended: Tensor, noise: Tensor) -> State:
        batch = len(noise)
        if batch != self.copies and (batch > self.copies or not self.fleet.divisible):
            raise EnvError(f"noise: got {batch} rows, but behind this door are {self.copies} copies.")
        self.fleet.arrays["seed"][:batch] = _seeds(noise)
        self._run(np.where(ended.cpu().numpy(), RESET, SKIP))
        return self._look(batch, noise.device)

    def _run(self, todo: np.ndarray) -> None:
        self.fleet.arrays["todo"][: len(todo)] = todo
        self.fleet.arrays["todo"][len(todo) :] = SKIP
        self.fleet.run()

    def _look(self, batch: int, device: torch.device) -> State:
        """What the arrays say of the first copies now, and a new ticket for it."""
        arrays: Arrays = self.fleet.arrays
        arrays["ticket"][:batch] = arrays["ticket"].max() + 1 + np.arange(batch)
        names = {field.name for field in fields(State)} & arrays.keys()
        seen: dict[str, Any] = {name: torch.tensor(arrays[name][:batch], device=device) for name in names}
        return State(**{"legal": None, "whole": None, **seen})

    def _punch(self, state: State) -> None:
        """Refuse a state that is not the last one."""
        if not np.array_equal(state.ticket.cpu().numpy(), self.fleet.arrays["ticket"][: len(state.ticket)]):
            raise EnvError(
                "state: this is not the last state that the door gave out, in its order. The simulators behind it keep "
                "their state inside and cannot go back: continue the last state, or begin again with `reset`."
            )


def from_parallel(
    make: Callable[[], Any],
    copies: int = 1,
    workers: int = 0,
    *,
    horizon: int | None = None,
    roles: Sequence[str] = (),
    teams: Sequence[str] = (),
    symmetries: Groups = (),
) -> Door:
    """`copies` of a PettingZoo `ParallelEnv` as one environment.

    Agents are `possible_agents`, in that order; who is not in `agents` is not `present`. Observations are flattened
    (one-hot where discrete), actions counted from 0, boxes of unequal bounds scaled to [-1, 1].

    Args:
        make: makes one simulator; a lambda will do.
        copies: played side by side: the largest batch.
        workers: processes that share the copies out among them; 0: all in this one.
        horizon: steps after which to truncate; None: the simulator's own `max_cycles`, if it has one.
        roles: who may share weights; by default the names without their number.
        teams: who is paid alike; by default nobody is known to be.
        symmetries: worlds in which the game is the same (`core.symmetry`), such as one in a mirror: learners then see
            recordings in all of them. Of what agents see, flattened, and of moves, counted from 0.

    Raises:
        EnvError: for an env without `possible_agents`, spaces that no fixed row of numbers holds, or symmetries that
            do not fit them.
    """
    return _open(make, _as_it_is, copies, workers, symmetries, horizon=horizon, roles=roles, teams=teams)


def from_aec(
    make: Callable[[], Any],
    copies: int = 1,
    workers: int = 0,
    *,
    horizon: int | None = None,
    roles: Sequence[str] = (),
    teams: Sequence[str] = (),
    symmetries: Groups = (),
) -> Door:
    """`copies` of a PettingZoo `AECEnv` as one environment, in which a step is one agent's turn.

    All agents who live are present and observe at every turn. Whoever is not at turn has one legal move, 0, which the
    game never sees: its log-probability is 0 and so is its gradient. Each turn pays every agent what that turn brought
    it, so an agent's rewards from one of its turns to the next add up to what `last()` would have told it.

    Args: as in `from_parallel`; `horizon` counts turns.

    Raises:
        EnvError: where actions are continuous: no mask could say that a move does not count. Such a game is played
            through `from_parallel` and PettingZoo's `aec_to_parallel`.
    """
    return _open(make, Turns, copies, workers, symmetries, horizon=horizon, roles=roles, teams=teams)


def from_gymnasium(
    make: Callable[[], Any], copies: int = 1, workers: int = 0, *, horizon: int | None = None, symmetries: Groups = ()
) -> Door:
    """`copies` of a Gymnasium `Env` as one environment with one agent.

    Args: as in `from_parallel`; without `horizon` it is the one that the env was registered with.
    """
    return _open(make, Solo, copies, workers, symmetries, horizon=horizon)


def _open(
    make: Callable[[], Any],
    adapt: Callable[[Any], Any],
    copies: int,
    workers: int,
    symmetries: Groups,
    **named: Any,
) -> Door:
    if copies < 1 or workers < 0:
        raise EnvError(f"copies={copies}, workers={workers}: a door needs a copy, and 0 workers or more.")
    first = adapt(make())
    try:
        layout = _survey(first, **named)
        expect_symmetries(symmetries, layout.spec)
    except BaseException:
        first.close()
        raise
    return Door(layout, Fleet(make, adapt, first, layout, copies, workers), symmetries)


def _survey(env: Any, horizon: int | None, **groups: Sequence[str]) -> Layout:
    """The layout of a simulator with PettingZoo's parallel interface."""
    agents = getattr(env, "possible_agents", None)
    if not agents:
        raise EnvError(f"{env}: without `possible_agents` nobody knows how long the agent axis must be.")
    env.reset(seed=0)  # some simulators have no `state()` before it
    layout = lay_out(
        agents,
        [env.observation_space(agent) for agent in agents],
        [env.action_space(agent) for agent in agents],
        horizon=horizon or time_limit(env),
        whole=len(flat_state(env)),
        title=str((getattr(env, "metadata", None) or {}).get("name", "")),
        reset_noise=2,
        **{name: tuple(group) for name, group in groups.items()},
    )
    if isinstance(env, Turns) and isinstance(layout.spec.action, Continuous):
        raise EnvError(
            "the agents act in Box: no mask could say whose turn it is. If all act in a cycle, use `from_parallel` "
            "with `pettingzoo.utils.conversions.aec_to_parallel`."
        )
    return layout


def time_limit(env: Any) -> int | None:
    """The steps after which a simulator truncates, where it says so."""
    if isinstance(env, Turns):
        return None  # its cycles are not our turns
    if isinstance(env, Solo):
        return getattr(env.env.spec, "max_episode_steps", None)
    cycles = getattr(env.unwrapped, "max_cycles", None)  # PettingZoo's own word for it
    return cycles if isinstance(cycles, int) else None


def _as_it_is(env: Any) -> Any:
    return env


def _seeds(noise: Float[Tensor, "env 2"]) -> np.ndarray:
    """31 bits from two uniform numbers, for one float32 has 24 to give. Every simulator takes such a seed."""
    high, low = (noise.double().cpu().numpy() * [2**15, 2**16]).astype(np.int64).T
    return high * 2**16 + low


class Solo:
    """A Gymnasium env with PettingZoo's parallel interface."""

    possible_agents = agents = ("agent_0",)

    def __init__(self, env: Any) -> None:
        self.env = env
        self.metadata = {"name": env.spec.id if env.spec else type(env.unwrapped).__name__}

    def observation_space(self, agent: str) -> spaces.Space:
        return self.env.observation_space

    def action_space(self, agent: str) -> spaces.Space:
        return self.env.action_space

    def reset(self, seed: int) -> tuple[dict, dict]:
        obs, info = self.env.reset(seed=seed)
        return {"agent_0": obs}, {"agent_0": info}

    def step(self, actions: dict) -> tuple[dict, ...]:
        return tuple({"agent_0": part} for part in self.env.step(actions["agent_0"]))

    def close(self) -> None:
        self.env.close()


class Turns:
    """An AEC env with PettingZoo's parallel interface: each step is one turn, the others' moves are left aside."""

    def __init__(self, env: Any) -> None:
        self.env, self.metadata = env, env.metadata
        self.possible_agents = list(env.possible_agents)
        self.observation_space, self.action_space, self.close = env.observation_space, env.action_space, env.close
        self.agents: list = []

    def reset(self, seed: int) -> tuple[dict, dict]:
        self.env.reset(seed=seed)
        return self._look()

    def step(self, actions: dict) -> tuple[dict, ...]:
        env = self.env
        env.step(actions[env.agent_selection])
        rewards, terminations, truncations = dict(env.rewards), dict(env.terminations), dict(env.truncations)
        leaving = [agent for agent in env.agents if terminations[agent] or truncations[agent]]
        last_seen, last_told = {agent: env.observe(agent) for agent in leaving}, dict(env.infos)
        while env.agents and (env.terminations[env.agent_selection] or env.truncations[env.agent_selection]):
            env.step(None)  # who died is taken off the board, which is no turn
        obs, infos = self._look()
        return last_seen | obs, rewards, terminations, truncations, last_told | infos

    def state(self) -> Any:
        return self.env.state()

    def _look(self) -> tuple[dict, dict]:
        env = self.env
        self.agents = list(env.agents)
        infos = {agent: dict(env.infos[agent]) for agent in env.agents}
        for agent in env.agents:
            if agent != env.agent_selection and not isinstance(self.action_space(agent), spaces.Box):
                infos[agent][MASK] = waiting(self.action_space(agent))
        return {agent: env.observe(agent) for agent in env.agents}, infos
