"""Doors out: our environments in PettingZoo's hands, and our policies in anybody's loop."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from pettingzoo import ParallelEnv
from torch import Tensor

from understudy.core.errors import EnvError
from understudy.core.random import generator, uniform
from understudy.core.types import Continuous, Discrete, Env, EnvSpec, MultiDiscrete, Policy, View, action_shape
from understudy.envs.adapters.layout import MASK, Layout


def layout_of(spec: EnvSpec) -> Layout:
    """The spaces of an environment of ours: each agent's own sizes, without the padding."""
    observations = [spaces.Box(-np.inf, np.inf, (size,), np.float32) for size in spec.obs_sizes]
    actions = [_action_space(spec, size) for size in spec.action_sizes]
    return Layout(spec, spec.names, tuple(observations), (False,) * spec.agents, tuple(actions))


def _action_space(spec: EnvSpec, size: int) -> spaces.Space:
    if isinstance(spec.action, Discrete):
        return spaces.Discrete(size)
    if isinstance(spec.action, MultiDiscrete):
        return spaces.MultiDiscrete(list(spec.action.choices[:size]))
    return spaces.Box(spec.action.low, spec.action.high, (size,), np.float32)


def to_parallel(env: Env, policy: Policy | None = None, played: Sequence[str] = ()) -> ParallelEnv:
    """One game of `env` as a PettingZoo `ParallelEnv`.

    Names are the spec's, spaces each agent's own. An agent is terminated when the game is over or it is present no
    more, truncated at the spec's horizon (or the env's own `truncated`). Where moves can be illegal each info carries
    `action_mask`, as Gymnasium's `sample(mask)` takes it. `reset(seed=...)` decides all chance until the next seeded
    reset; without any seed the first one comes from the operating system. For an AEC env hand the result to
    `pettingzoo.utils.conversions.parallel_to_aec`.

    Args:
        env: ours.
        policy: moves the agents `played`, who are then not seen from outside: for playing, or learning to play, with
            partners who have learnt already.
        played: names of the agents that `policy` moves.

    Raises:
        EnvError: where one of `policy` and `played` is missing, or a name is not the spec's, or none is left to play.
    """
    if (policy is None) != (not played):
        raise EnvError("policy, played: give both, the policy and the names of the agents whom it moves, or neither.")
    strangers = set(played) - set(env.spec.names)
    if strangers or len(played) == env.spec.agents:
        raise EnvError(f"played: got {list(played)}; it must be some, not all, of {list(env.spec.names)}.")
    return Board(env, policy, played)


class Board(ParallelEnv):
    """See `to_parallel`."""

    render_mode = None

    def __init__(self, env: Env, policy: Policy | None, played: Sequence[str]) -> None:
        self.env, self.spec, self.policy = env, env.spec, policy
        self.layout = layout_of(env.spec)
        self.metadata = {"name": env.spec.title or type(env).__name__, "render_modes": [], "is_parallelizable": True}
        self.possible_agents = [name for name in env.spec.names if name not in played]
        self.agents: list[str] = []
        self.source: torch.Generator | None = None
        self.steps = 0
        if env.spec.whole:
            self.state_space = spaces.Box(-np.inf, np.inf, (env.spec.whole,), np.float32)

    def observation_space(self, agent: str) -> spaces.Space:
        return self.layout.observations[self.layout.index[agent]]

    def action_space(self, agent: str) -> spaces.Space:
        return self.layout.actions[self.layout.index[agent]]

    def reset(self, seed: int | None = None, options: dict | None = None) -> tuple[dict, dict]:
        if seed is not None:
            self.source = generator(seed, "board")
        if self.source is None:
            self.source = torch.Generator()
            self.source.seed()
        self.now = self.env.reset(uniform((1, self.spec.reset_noise), self.source))
        self.memory = () if self.policy is None else self.policy.start(1)
        self.steps = 0
        self.agents = self._present()
        return self._look(self.agents)

    def step(self, actions: Mapping[str, Any]) -> tuple[dict, dict, dict, dict, dict]:
        if self.source is None or not self.agents:
            raise EnvError("step: the game is over or has not begun; call `reset` first.")
        missing = [agent for agent in self.agents if actions.get(agent) is None]
        if missing:
            raise EnvError(f"actions: every agent in the game must move, but there is no action of {missing}.")
        played = self.agents
        joint = self._partners()
        for agent in played:
            i = self.layout.index[agent]
            joint[0, i] = torch.from_numpy(self.layout.row(i, actions[agent]))
        noise = uniform((1, self.spec.step_noise), self.source)
        self.now, paid, over = self.env.step(self.now, joint, noise)
        self.steps += 1
        cut = self.steps == self.spec.horizon or bool(_offered(self.env, "truncated", self.now, torch.zeros(1)))
        terminated, present = bool(over), set(self._present())
        seen = [agent for agent in self.possible_agents if agent in present or agent in played]
        rewards = {agent: float(paid[0, self.layout.index[agent]]) for agent in seen}
        terminations = {agent: terminated or agent not in present for agent in seen}
        truncations = {agent: cut and not terminations[agent] for agent in seen}
        self.agents = [agent for agent in seen if not (terminations[agent] or truncations[agent])]
        obs, infos = self._look(seen)
        return obs, rewards, terminations, truncations, infos

    def state(self) -> np.ndarray:
        if not self.spec.whole:
            raise NotImplementedError(f"{self.metadata['name']} has no `whole`")
        return _offered(self.env, "whole", self.now, None)[0].numpy()

    def close(self) -> None:
        close = getattr(self.env, "close", None)  # a door has simulators to close, other envs have nothing
        if close is not None:
            close()

    def _partners(self) -> Tensor:
        """The actions of all agents by the policy, [1, agent, ...]; zeros without one."""
        if self.policy is None:
            kind = torch.float32 if isinstance(self.spec.action, Continuous) else torch.long
            return torch.zeros(1, self.spec.agents, *action_shape(self.spec.action), dtype=kind)
        seen = {name: _offered(self.env, name, self.now, None) for name in ("legal", "present", "whole")}
        assert self.source is not None
        noise = uniform((1, self.spec.agents, self.policy.noise), self.source)
        with torch.no_grad():
            actions, self.memory = self.policy.act(View(self.env.observe(self.now), **seen), self.memory, noise)
        return actions.clone()

    def _present(self) -> list[str]:
        there = _offered(self.env, "present", self.now, torch.ones(1, self.spec.agents, dtype=torch.bool))[0]
        return [agent for agent in self.possible_agents if there[self.layout.index[agent]]]

    def _look(self, agents: list[str]) -> tuple[dict, dict]:
        obs = self.env.observe(self.now)[0].numpy()
        legal = _offered(self.env, "legal", self.now, None)
        rows = {agent: self.layout.index[agent] for agent in agents}
        infos = {a: {} if legal is None else {MASK: self.layout.mask(i, legal[0, i].numpy())} for a, i in rows.items()}
        return {a: obs[i, : self.spec.obs_sizes[i]].astype(np.float32) for a, i in rows.items()}, infos


def _offered(env: Env, name: str, state: Any, otherwise: Any) -> Any:
    """What an optional method of an env says, or `otherwise` where the env has none."""
    method = getattr(env, name, None)
    return otherwise if method is None else method(state)


class Player:
    """A policy at play in a loop that is not ours: PettingZoo's dicts, its turns, or `predict` in the manner of SB3.

        player = Player(policy, env.spec, seed=0)
        obs, infos = parallel_env.reset(seed=0)
        player.reset()
        while parallel_env.agents:
            obs, *_, infos = parallel_env.step(player.act(obs, infos))

    Args:
        policy: ours; `act` is asked for one env at a time.
        spec: what the policy was trained on.
        layout: how that simulator's own spaces lie in the spec (`door.layout`), for raw observations and actions of a
            simulator that a door leads to. None: the spaces of `to_parallel`.
        seed: of the noise that the policy is handed. Everything else is decided by what it sees.
    """

    def __init__(self, policy: Policy, spec: EnvSpec, layout: Layout | None = None, seed: int = 0) -> None:
        self.policy, self.spec, self.layout = policy, spec, layout or layout_of(spec)
        self.source = generator(seed, "player")
        self.reset()

    def reset(self, seed: int | None = None) -> None:
        """An episode begins: everything remembered is forgotten."""
        if seed is not None:
            self.source = generator(seed, "player")
        self.memory = self.policy.start(1)
        self.memories = {agent: self.policy.start(1) for agent in self.layout.agents}

    def act(self, observations: Mapping[Any, Any], infos: Mapping[Any, Any] | None = None) -> dict[Any, Any]:
        """The actions of all agents observed, in their own action spaces. Who is left out counts as absent.

        Masks are read from `infos[agent]["action_mask"]` or the observation's own.
        """
        actions, self.memory = self.predict(observations, self.memory, infos=infos)
        return actions

    def act_one(self, agent: Any, observation: Any, info: Mapping[str, Any] | None = None) -> Any:
        """The action of the one agent whose turn it is, for AEC loops: `act_one(agent, obs, info)` after `last()`.

        The agent remembers its own turns alone, while a policy trained behind `from_aec` remembers every turn: with
        memory the two are not the same. Without, they are.
        """
        actions, self.memories[agent] = self.predict(
            {agent: observation}, self.memories[agent], infos={agent: info or {}}
        )
        return actions[agent]

    def predict(
        self,
        observations: Mapping[Any, Any],
        state: Any = None,
        episode_start: bool | np.ndarray = False,
        deterministic: bool = False,
        infos: Mapping[Any, Any] | None = None,
    ) -> tuple[dict[Any, Any], Any]:
        """Actions, and what to hand in as `state` next time; the player itself remembers nothing here.

        Args:
            observations: by agent.
            state: what the last call returned; None begins an episode.
            episode_start: forget `state`.
            deterministic: the likeliest action, where the policy has `mode(view, memory)`.
            infos: by agent, for their masks.

        Raises:
            EnvError: for an agent that the policy does not know, or `deterministic` without a `mode`.
        """
        for agent in observations:
            if agent not in self.layout.index:
                raise EnvError(f"observations: no agent {agent!r}; the policy plays {list(self.layout.agents)}.")
        view = self.view(observations, infos or {})
        memory = self.policy.start(1) if state is None or np.any(episode_start) else state
        with torch.no_grad():
            if deterministic:
                if not hasattr(self.policy, "mode"):
                    raise EnvError("deterministic: this policy has no `mode`; call it with deterministic=False.")
                actions, memory = self.policy.mode(view, memory)
            else:
                noise = uniform((1, self.spec.agents, self.policy.noise), self.source)
                actions, memory = self.policy.act(view, memory, noise)
        rows = actions[0].numpy()
        return {a: self.layout.act(i, rows[i]) for a, i in self.layout.index.items() if a in observations}, memory

    def view(self, observations: Mapping[Any, Any], infos: Mapping[Any, Any]) -> View:
        """What the policy gets to see: one env, rows of agents who are not observed zero."""
        obs = torch.zeros(1, self.spec.agents, self.spec.obs)
        present = torch.zeros(1, self.spec.agents, dtype=torch.bool)
        legal = [self.layout.legal(i) for i in range(self.spec.agents)]
        for agent, seen in observations.items():
            i = self.layout.index[agent]
            flat, legal[i] = self.layout.read(i, seen, infos.get(agent))
            obs[0, i, : len(flat)] = torch.from_numpy(flat)
            present[0, i] = True
        masks = [torch.from_numpy(row) for row in legal if row is not None]  # none at all where actions are continuous
        return View(obs, torch.stack(masks).unsqueeze(0) if masks else None, present)
