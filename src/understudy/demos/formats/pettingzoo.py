"""PettingZoo: recordings of games that are played in the caller's own loop, agents that come and go included.

    env = RecordingParallel(simple_spread_v3.parallel_env())       # or RecordingAEC(chess_v6.env())
    obs, infos = env.reset(seed=1)                                  # play as always
    ...
    demos = env.demos()

A game of turns (AEC) becomes one step a turn: only the agent whose turn it is, is present, sees and acts; all are
paid. At the end everyone looks once more.
"""

from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from gymnasium import spaces

from understudy.core.errors import DemosError
from understudy.core.types import EnvSpec, action_shape, legal_size
from understudy.demos.demos import LABEL, Demos
from understudy.demos.episode import About, Episode
from understudy.demos.formats.common import from_arrays, refusing, usual
from understudy.demos.formats.spaces import Pair, flat, flat_action, join, own_moves, spec_of

By = Mapping[str, Any]  # by the agent's name, as PettingZoo gives things


@dataclass
class Turn:
    """What the agents did at one moment, and what `step` gave back."""

    actions: By
    obs: By
    rewards: By
    terminations: By
    truncations: By
    infos: By


@dataclass
class Rollout:
    """One episode as PettingZoo gives it: what `reset` gave back, and the turns after it."""

    obs: By
    infos: By
    turns: list[Turn] = field(default_factory=list)


def from_rollouts(env: Any, rollouts: Iterable[Rollout], about: About | None = None) -> Demos:
    """Demos of recorded rollouts.

    `present` tells who acted at a moment, and at the end who still saw something. An episode is `terminated` where its
    last step terminated everyone who acted in it, else `truncated`. Where an agent was out before the others, the
    labels `agent_terminated` and `agent_truncated` say at which step and how. Legal moves are taken from `action_mask`,
    beside `observation` in a Dict or in the infos.

    Args:
        env: any PettingZoo env; it is asked for its possible agents and their spaces, not played.

    Raises:
        DemosError: a rollout that does not fit the spaces, or an agent in the game that neither acted nor was out.
    """
    pairs = {name: (_seen_space(env.observation_space(name)), env.action_space(name)) for name in env.possible_agents}
    title = str(getattr(env, "metadata", {}).get("name", ""))
    spec = spec_of(pairs, title)
    with refusing("rollouts", "rollouts of this env"):
        kept = [rollout for rollout in rollouts if rollout.turns]
        episodes = [_episode(spec, pairs, rollout, number) for number, rollout in enumerate(kept)]
    if not any(bool(label[:-1].any()) for episode in episodes for label in episode.labels.values()):
        for episode in episodes:  # all went together: `terminated` and `truncated` tell it
            episode.labels = {}
    if all(episode.present is not None and bool(episode.present.all()) for episode in episodes):
        for episode in episodes:
            episode.present = None
    return Demos.from_episodes(spec, episodes, about or About(title=title, env={"pettingzoo": title}))


class RecordingParallel:
    """A parallel env that notes down every episode played in it. All else is asked of the env itself."""

    def __init__(self, env: Any):
        self.env = env
        self.rollouts: list[Rollout] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["env"], name)

    def reset(self, seed: int | None = None, options: dict | None = None) -> tuple[By, By]:
        """As the env's own; an episode that was not over is kept as truncated."""
        obs, infos = self.env.reset(seed=seed, options=options)
        self.rollouts.append(Rollout(deepcopy(obs), _masks(infos)))
        return obs, infos

    def step(self, actions: By) -> tuple[By, By, By, By, By]:
        """As the env's own. Who is out and acts all the same is not noted down."""
        if not self.rollouts:
            raise DemosError("step: there is no episode yet. Call reset first.")
        alive = set(self.env.agents)
        given = self.env.step(actions)
        acted = {name: np.array(action) for name, action in actions.items() if name in alive}
        obs, rewards, terminations, truncations, infos = given
        turn = Turn(acted, *deepcopy((obs, rewards, terminations, truncations)), _masks(infos))
        self.rollouts[-1].turns.append(turn)
        return given

    def demos(self, about: About | None = None) -> Demos:
        """All that was played so far."""
        return from_rollouts(self.env, self.rollouts, about)


class RecordingAEC:
    """An env of turns that notes down every episode played in it. All else is asked of the env itself."""

    def __init__(self, env: Any):
        self.env = env
        self.rollouts: list[Rollout] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["env"], name)

    def reset(self, seed: int | None = None, options: dict | None = None) -> None:
        """As the env's own; an episode that was not over is kept as truncated."""
        self.env.reset(seed=seed, options=options)
        self.rollouts.append(Rollout(*self._look()))

    def step(self, action: Any) -> None:
        """As the env's own. The empty step of an agent that is out is no step."""
        agent, env = self.env.agent_selection, self.env
        out = env.terminations[agent] or env.truncations[agent]
        env.step(action)
        obs, infos = self._look()
        if not out:
            ends = dict(env.terminations), dict(env.truncations)
            self.rollouts[-1].turns.append(Turn({agent: np.array(action)}, obs, dict(env.rewards), *ends, infos))
            return
        latest = self.rollouts[-1].turns[-1]  # the moment is the same, but another agent's turn
        latest.obs, latest.infos = {**latest.obs, **obs}, {**latest.infos, **infos}

    def demos(self, about: About | None = None) -> Demos:
        """All that was played so far."""
        return from_rollouts(self.env, self.rollouts, about)

    def _look(self) -> tuple[By, By]:
        """What the agent whose turn it is sees; where all are out, everyone."""
        env = self.env
        over = all(env.terminations[a] or env.truncations[a] for a in env.agents)
        who = env.agents if over else [env.agent_selection]
        return {a: deepcopy(env.observe(a)) for a in who}, _masks({a: env.infos[a] for a in who})


def _masks(infos: By) -> By:
    """All that is kept of infos."""
    return {
        name: {"action_mask": np.array(info["action_mask"])} if "action_mask" in info else {}
        for name, info in infos.items()
    }


def _seen_space(space: spaces.Space) -> spaces.Space:
    """The space of what is seen: without the mask, where one stands beside the observation."""
    masked = isinstance(space, spaces.Dict) and {"observation", "action_mask"} == set(space.spaces)
    return space["observation"] if masked else space  # type: ignore[index]


def _peel(seen: Any) -> tuple[Any, Any]:
    """(observation, mask) of what an agent is shown; None where there is no mask."""
    if isinstance(seen, Mapping) and {"observation", "action_mask"} == set(seen):
        return seen["observation"], seen["action_mask"]
    return seen, None


def _stack(space: spaces.Space, values: Sequence[Any]) -> Any:
    """Observations of many moments as one array, or as one Dict or tuple of arrays."""
    if isinstance(space, spaces.Dict):
        return {key: _stack(part, [value[key] for value in values]) for key, part in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(_stack(part, [value[k] for value in values]) for k, part in enumerate(space.spaces))
    return np.stack([np.asarray(value) for value in values]) if values else np.zeros((0, *(space.shape or ())))


def _placed(rows: np.ndarray, at: np.ndarray, length: int) -> np.ndarray:
    """`rows` at their places among `length`, zeros elsewhere."""
    placed = np.zeros((length, *rows.shape[1:]), rows.dtype)
    placed[at] = rows
    return placed


def _episode(spec: EnvSpec, pairs: Mapping[str, Pair], rollout: Rollout, number: int) -> Episode:
    turns, names = rollout.turns, spec.names
    seen = [rollout.obs, *(turn.obs for turn in turns)]
    there = np.array([[name in now for name in names] for now in seen])
    acted = np.array([[name in turn.actions for name in names] for turn in turns])
    terminated, truncated = (
        np.array([[bool(getattr(turn, end).get(name, False)) for name in names] for turn in turns])
        for end in ("terminations", "truncations")
    )
    gone = np.maximum.accumulate(terminated | truncated)
    went_before = np.concatenate([np.zeros_like(gone[:1]), gone[:-1]])
    idle = np.argwhere(there[:-1] & ~acted & ~went_before)
    if len(idle):
        t, agent = idle[0]
        raise DemosError(f"episode {number}, step {t}: {names[agent]} is in the game, but no action of it is there.")
    obs, actions = [], []
    for i, (name, (seen_space, act_space)) in enumerate(pairs.items()):
        at, did = np.nonzero(there[:, i])[0], np.nonzero(acted[:, i])[0]
        shown = _stack(seen_space, [_peel(seen[t][name])[0] for t in at])
        done = _stack(act_space, [turns[t].actions[name] for t in did])
        rows = flat(seen_space, shown, len(at), f"episode {number}: obs of {name}")
        obs.append(_placed(rows, at, len(seen)))
        rows = flat_action(act_space, done, len(did), f"episode {number}: actions of {name}")
        actions.append(_placed(rows, did, len(turns)))
    arrays = {
        "obs": join(obs, (spec.obs,)),
        "actions": join(actions, action_shape(spec.action)),
        "rewards": np.array([[float(turn.rewards.get(name, 0.0)) for name in names] for turn in turns]),
        "present": np.concatenate([acted, there[-1:]]),
        LABEL + "agent_terminated": terminated & ~went_before,
        LABEL + "agent_truncated": truncated & ~went_before,
    }
    legal = _legal(spec, seen, [rollout.infos, *(turn.infos for turn in turns)], number)
    if legal is not None:
        arrays["legal"] = legal
    last = turns[-1]
    return from_arrays(
        {name: usual(name, array) for name, array in arrays.items()},
        {"name": f"episode_{number}", "weight": 1.0, "info": {}},
        terminated=bool(last.terminations) and all(last.terminations.values()),
        truncated=any(last.truncations.values()),
    )


def _legal(spec: EnvSpec, seen: Sequence[By], infos: Sequence[By], number: int) -> np.ndarray | None:
    """Bool[moment, agent, choice]: the masks that came, all of an agent's own moves elsewhere. None: all may do all."""
    own = own_moves(spec)
    legal = np.ones((len(seen), spec.agents, legal_size(spec.action)), bool)
    legal &= True if own is None else own
    told = own is not None
    for t, (now, info) in enumerate(zip(seen, infos, strict=True)):
        for i, name in enumerate(spec.names):
            mask = _peel(now[name])[1] if name in now else None
            mask = info.get(name, {}).get("action_mask") if mask is None else mask
            if mask is not None:
                allowed = np.asarray(mask, bool)
                if allowed.ndim != 1 or len(allowed) > legal.shape[2]:
                    raise DemosError(f"episode {number}, step {t}: the mask of {name} is {allowed.shape}.")
                legal[t, i], told = np.pad(allowed, (0, legal.shape[2] - len(allowed))), True
    return legal if told else None
