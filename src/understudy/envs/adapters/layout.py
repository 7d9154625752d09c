"""Between the spaces of Gymnasium and this library's rows: one row an agent, padded to the widest.

Knows NumPy and spaces, no simulator and no tensor.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from gymnasium import spaces

from understudy.core.errors import EnvError
from understudy.core.types import ActionSpec, Continuous, Discrete, EnvSpec, MultiDiscrete, action_shape, legal_size

MASK = "action_mask"  # PettingZoo's word, in an observation or in an info: 1 where a move is allowed


@dataclass(frozen=True, eq=False)
class Layout:
    """The spaces of all agents, in the order of the agent axis, and the spec that they come to."""

    spec: EnvSpec
    agents: tuple[Any, ...]  # as the simulator calls them; `spec.names` are the same as text
    observations: tuple[spaces.Space, ...]  # what is left without the mask
    masked: tuple[bool, ...]  # the observation is a dict that carries a mask
    actions: tuple[spaces.Space, ...]

    @cached_property
    def index(self) -> dict[Any, int]:
        """Where on the agent axis each agent stands."""
        return {agent: i for i, agent in enumerate(self.agents)}

    def read(self, i: int, obs: Any, info: Mapping[str, Any] | None = None) -> tuple[np.ndarray, np.ndarray | None]:
        """Agent i's observation as flat float32, and its row of legal moves (None where actions are continuous).

        The mask is `info["action_mask"]`, else `obs["action_mask"]`; where there is none, or one that allows nothing
        (as many games hand to whoever is not at turn), all the agent's own moves are legal.
        """
        mask = (info or {}).get(MASK)
        if self.masked[i]:
            mask = obs[MASK] if mask is None else mask
            rest = {name: part for name, part in obs.items() if name != MASK}
            obs = rest if len(rest) > 1 else next(iter(rest.values()))
        space = self.observations[i]
        flat = np.ravel(obs) if isinstance(space, spaces.Box) else spaces.flatten(space, obs)
        return np.asarray(flat, dtype=np.float32), self.legal(i, mask)

    def legal(self, i: int, mask: Any = None) -> np.ndarray | None:
        """Agent i's row of legal moves: Bool[choice], padding illegal. `mask`: a flat one, or a tuple by parts."""
        if isinstance(self.spec.action, Continuous):
            return None
        if mask is None:
            return self.open[i]
        row = self.open[i].copy()
        row[self._own[i]] = np.concatenate([np.ravel(part) for part in mask]) if isinstance(mask, tuple) else mask
        return row if all(part.any() for part in np.split(row, self._cuts)) else self.open[i]

    def act(self, i: int, row: np.ndarray | np.integer) -> Any:
        """Agent i's row of the actions as an element of its own action space.

        Raises:
            EnvError: where a move is beyond the agent's own; `legal` says which are.
        """
        space = self.actions[i]
        if isinstance(space, spaces.Box):
            own = np.ravel(row)[: space.low.size].reshape(space.shape)
            if self._scaled:
                own = space.low + (own.astype(np.float64) + 1) / 2 * (space.high - space.low)
            return np.clip(own, space.low, space.high).astype(space.dtype)
        moves = moves_of(space)
        own = np.ravel(row)[: len(moves)]
        if not all(0 <= move < choices for move, choices in zip(own.tolist(), moves, strict=True)):
            raise EnvError(f"{self.spec.names[i]}: the move {own.tolist()} is not below {moves}; `legal` says so.")
        if isinstance(space, spaces.Discrete):
            return np.int64(own[0] + space.start)
        offset = space.start if isinstance(space, spaces.MultiDiscrete) else 0
        return (own.reshape(space.shape) + offset).astype(space.dtype)

    def row(self, i: int, action: Any) -> np.ndarray:
        """The inverse of `act`: agent i's action as its row, padded with zeros. `None` is a row of zeros.

        Raises:
            EnvError: where it is no action of the agent's space.
        """
        spec, space = self.spec.action, self.actions[i]
        row = np.zeros(action_shape(spec), dtype=np.float32 if isinstance(spec, Continuous) else np.int64)
        if action is None:
            return row
        own = np.ravel(action)
        if isinstance(space, spaces.Box):
            own = np.ravel((own - space.low) / (space.high - space.low) * 2 - 1) if self._scaled else own
        else:
            own = own - np.ravel(getattr(space, "start", 0))
            moves = moves_of(space)
            if len(own) != len(moves) or (own < 0).any() or (own >= moves).any():
                raise EnvError(f"{self.spec.names[i]}: {action} is not an action of {space}.")
        row.reshape(-1)[: len(own)] = own
        return row

    def mask(self, i: int, legal: np.ndarray) -> np.ndarray | tuple[np.ndarray, ...]:
        """Agent i's row of legal moves in the form of Gymnasium's `sample(mask)`: int8, a tuple by parts if several."""
        own = legal[self._own[i]].astype(np.int8)
        if isinstance(self.actions[i], spaces.Discrete):
            return own
        return tuple(np.split(own, np.cumsum(moves_of(self.actions[i]))[:-1]))

    @cached_property
    def _scaled(self) -> bool:
        return isinstance(self.spec.action, Continuous) and bounds(self.actions)[1]

    @cached_property
    def _cuts(self) -> np.ndarray:
        """Where one part's choices end and the next part's begin, on the axis of legal moves."""
        assert not isinstance(self.spec.action, Continuous)
        choices = self.spec.action.choices
        return np.cumsum([choices] if isinstance(choices, int) else choices)[:-1]

    @cached_property
    def _own(self) -> list[np.ndarray]:
        """For each agent, where its own choices lie on the axis of legal moves."""
        begins = [0, *self._cuts]
        return [
            np.concatenate([begin + np.arange(n) for begin, n in zip(begins, moves_of(space), strict=False)])
            for space in self.actions
        ]

    @cached_property
    def open(self) -> np.ndarray:
        """Bool[agent choice]: all that is an agent's own is legal, and 0 in a part that it has not."""
        rows = np.zeros((self.spec.agents, legal_size(self.spec.action)), dtype=bool)
        for row, own, space in zip(rows, self._own, self.actions, strict=True):
            row[own] = True
            row[[0, *self._cuts][len(moves_of(space)) :]] = True
        return rows


def lay_out(
    agents: Sequence[Any],
    observations: Sequence[spaces.Space],
    actions: Sequence[spaces.Space],
    **spec: Any,
) -> Layout:
    """The layout of agents with these spaces; `spec` are further fields of the `EnvSpec`.

    Roles are the agents' names without their number, and each agent is a team of its own, unless `spec` says more.

    Raises:
        EnvError: for spaces that no fixed row holds, or agents that act in different kinds of spaces.
    """
    masked = tuple(isinstance(space, spaces.Dict) and MASK in space.spaces for space in observations)
    bare = tuple(_without_mask(s) if m else s for s, m in zip(observations, masked, strict=True))
    names = tuple(str(agent) for agent in agents)
    for name, space in zip(names, bare, strict=True):
        if not space.is_np_flattenable:
            raise EnvError(f"{name}: an observation of {space} has no fixed size, so it cannot be a row of numbers.")
    obs_sizes = tuple(int(spaces.flatdim(space)) for space in bare)
    given = {name: value for name, value in spec.items() if value}
    return Layout(
        EnvSpec(
            agents=len(names),
            obs=max(obs_sizes),
            action=_action_spec(names, actions),
            obs_sizes=obs_sizes,
            action_sizes=tuple(_action_size(space) for space in actions),
            **{"names": names, "roles": tuple(_role(name) for name in names), "teams": names, **given},
        ),
        tuple(agents),
        bare,
        masked,
        tuple(actions),
    )


def moves_of(space: spaces.Space) -> list[int]:
    """How many choices each part of a discrete action has."""
    if isinstance(space, spaces.Discrete):
        return [int(space.n)]
    if isinstance(space, spaces.MultiDiscrete):
        return [int(n) for n in space.nvec.flatten()]
    assert isinstance(space, spaces.MultiBinary)
    return [2] * int(np.prod(space.shape))


def waiting(space: spaces.Space) -> tuple[np.ndarray, ...]:
    """The mask of one whose move does not count: 0 alone is legal, in every part."""
    return tuple(np.arange(n) == 0 for n in moves_of(space))


def bounds(boxes: Sequence[spaces.Space]) -> tuple[tuple[float, float], bool]:
    """The low and high that agents act within, and whether that stands for other bounds of the boxes' own.

    One low and high for all numbers of all agents are kept. Different ones, all finite, become [-1, 1], scaled; with
    an infinite one among them the actions are unbounded, and clipped to the box.
    """
    low = np.concatenate([np.ravel(box.low) for box in boxes if isinstance(box, spaces.Box)])
    high = np.concatenate([np.ravel(box.high) for box in boxes if isinstance(box, spaces.Box)])
    if (low == low[0]).all() and (high == high[0]).all():
        return (float(low[0]), float(high[0])), False
    finite = bool(np.isfinite(low).all() and np.isfinite(high).all())
    return ((-1.0, 1.0) if finite else (-np.inf, np.inf)), finite


def _without_mask(space: Any) -> spaces.Space:
    rest = {name: part for name, part in space.spaces.items() if name != MASK}
    return next(iter(rest.values())) if len(rest) == 1 else spaces.Dict(rest)


def _role(name: str) -> str:
    head, _, number = name.rpartition("_")
    return head if head and number.isdigit() else name


def _action_size(space: spaces.Space) -> int:
    if isinstance(space, spaces.Box):
        return int(np.prod(space.shape))
    return int(space.n) if isinstance(space, spaces.Discrete) else len(moves_of(space))


def _action_spec(names: Sequence[str], actions: Sequence[spaces.Space]) -> ActionSpec:
    """One spec for all agents: the widest of theirs."""
    if all(isinstance(space, spaces.Discrete) for space in actions):
        return Discrete(max(moves_of(space)[0] for space in actions))
    if all(isinstance(space, spaces.MultiDiscrete | spaces.MultiBinary) for space in actions):
        parts = [moves_of(space) for space in actions]
        widest = max(len(moves) for moves in parts)
        return MultiDiscrete(tuple(max(moves[k] for moves in parts if k < len(moves)) for k in range(widest)))
    if all(isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.floating) for space in actions):
        (low, high), _ = bounds(actions)
        return Continuous(max(_action_size(space) for space in actions), low, high)
    raise EnvError(
        f"the agents act in {dict(zip(names, actions, strict=True))}: all must act in Discrete, all in MultiDiscrete "
        "(or MultiBinary), or all in Box of floats. Wrap the environment so that they do."
    )
