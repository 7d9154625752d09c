"""Gymnasium spaces as this library's agents: rows of numbers to see, and one spec of actions for all.

Observations are flattened as `gymnasium.spaces.flatten` does: boxes row by row, a choice as one-hot, a Dict or Tuple
end to end in its own order. Agents of different sizes are padded with zeros to the widest.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces

from understudy.core.errors import DemosError
from understudy.core.types import Continuous, Discrete, EnvSpec, MultiDiscrete
from understudy.demos.formats.common import MAX_BYTES

Pair = tuple[spaces.Space, spaces.Space]  # of observations and of actions
_NUMBERS = {"bool", "float16", "float32", "float64"} | {f"{u}int{bits}" for u in ("", "u") for bits in (8, 16, 32, 64)}


def spec_of(agents: Mapping[str, Pair], title: str = "") -> EnvSpec:
    """What agents with these spaces are together.

    Raises:
        DemosError: a space without numbers (Text, Graph, Sequence), or agents whose actions are of different kinds.
    """
    widths = [width(of, f"obs of {name}") for name, (of, _) in agents.items()]
    kinds = {type(of) for _, of in agents.values()}
    if len(kinds) != 1:
        raise DemosError(f"agents act in different kinds of spaces: {sorted(k.__name__ for k in kinds)}.")
    acts: list[Any] = [of for _, of in agents.values()]
    first = acts[0]
    action: Discrete | MultiDiscrete | Continuous
    if isinstance(first, spaces.Discrete):
        sizes = [int(of.n) for of in acts]
        action = Discrete(max(sizes))
    elif isinstance(first, spaces.Box):
        sizes = [int(np.prod(of.shape)) for of in acts]
        bounds = float(min(of.low.min() for of in acts)), float(max(of.high.max() for of in acts))
        action = Continuous(max(sizes), *bounds)
    elif isinstance(first, spaces.MultiDiscrete | spaces.MultiBinary):
        choices = [tuple(_choices(of)) for of in acts]
        if len(set(choices)) > 1:
            raise DemosError(f"agents choose among different numbers of moves {choices}; they must be alike.")
        action, sizes = MultiDiscrete(choices[0]), [len(choices[0])] * len(acts)
    else:
        raise DemosError(f"actions in {first} have no place here; Discrete, MultiDiscrete, MultiBinary and Box have.")
    return EnvSpec(
        agents=len(acts),
        obs=max(widths),
        action=action,
        names=tuple(agents),
        obs_sizes=tuple(widths),
        action_sizes=tuple(sizes),
        title=title,
    )


def width(space: spaces.Space, what: str) -> int:
    """Numbers that an observation flattens to."""
    if isinstance(space, spaces.Box):
        return int(np.prod(space.shape))
    if isinstance(space, spaces.Discrete):
        return int(space.n)
    if isinstance(space, spaces.MultiDiscrete):
        return int(space.nvec.sum())
    if isinstance(space, spaces.MultiBinary):
        return int(np.prod(space.shape))
    if isinstance(space, spaces.Dict | spaces.Tuple):
        return sum(width(part, what) for _, part in _parts(space))
    raise DemosError(f"{what}: {space} has no fixed row of numbers.")


def flat(space: spaces.Space, seen: Any, rows: int, what: str) -> np.ndarray:
    """Observations of one agent at `rows` moments as [moment, number]."""
    if isinstance(space, spaces.Dict | spaces.Tuple):
        return np.concatenate([flat(part, seen[key], rows, f"{what}/{key}") for key, part in _parts(space)], axis=1)
    values = np.asarray(seen)
    if values.shape != (rows, *space.shape) or values.dtype.kind not in "biuf":  # type: ignore[misc]
        raise DemosError(f"{what}: {rows} rows of {space} are wanted, got {values.dtype} {list(values.shape)}.")
    if isinstance(space, spaces.Discrete):
        return _one_hot(values[:, None] - space.start, [int(space.n)], what)
    if isinstance(space, spaces.MultiDiscrete):
        return _one_hot((values - space.start).reshape(rows, -1), space.nvec.ravel().tolist(), what)
    return values.reshape(rows, -1)


def flat_action(space: spaces.Space, done: Any, rows: int, what: str) -> np.ndarray:
    """Actions of one agent as choices from 0, Int[step] or Int[step, part], or as numbers [step, number]."""
    values = np.asarray(done)
    if values.shape != (rows, *space.shape) or values.dtype.kind not in "biuf":  # type: ignore[misc]
        raise DemosError(f"{what}: {rows} rows of {space} are wanted, got {values.dtype} {list(values.shape)}.")
    if isinstance(space, spaces.Box):
        return values.reshape(rows, -1)
    start = getattr(space, "start", 0)
    moves = values.astype(np.int64) - start
    return moves if isinstance(space, spaces.Discrete) else moves.reshape(rows, -1)


def join(rows: list[np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
    """One array [row, agent, *shape] of each agent's own rows, padded with zeros at their ends."""
    joined = np.zeros((len(rows[0]), len(rows), *shape), np.result_type(*rows))
    for i, own in enumerate(rows):
        place: tuple[Any, ...] = (slice(None), i, *map(slice, own.shape[1:]))
        joined[place] = own
    return joined


def own_moves(spec: EnvSpec) -> np.ndarray | None:
    """Bool[agent, choice], the moves an agent has at all; None where all have the same."""
    if not isinstance(spec.action, Discrete) or len(set(spec.action_sizes)) == 1:
        return None
    return np.arange(spec.action.choices) < np.array(spec.action_sizes)[:, None]


def spaces_of(spec: EnvSpec, agent: int, obs_dtype: Any) -> Pair:
    """The spaces of one agent: a box to see, and Discrete, MultiDiscrete or a box to act."""
    low, high = (0, 255) if obs_dtype == np.uint8 else (-np.inf, np.inf)
    seen = spaces.Box(low, high, (spec.obs_sizes[agent],), obs_dtype)
    size, action = spec.action_sizes[agent], spec.action
    if isinstance(action, Discrete):
        return seen, spaces.Discrete(size)
    if isinstance(action, MultiDiscrete):
        return seen, spaces.MultiDiscrete(list(action.choices))
    return seen, spaces.Box(action.low, action.high, (size,), np.float32)


def to_json(space: spaces.Space) -> dict[str, Any]:
    """Plain data in the words of Minari's metadata, for the spaces that `spaces_of` makes and Dicts of them."""
    if isinstance(space, spaces.Dict):
        return {"type": "Dict", "subspaces": {name: to_json(part) for name, part in space.spaces.items()}}
    if isinstance(space, spaces.Discrete):
        return {"type": "Discrete", "dtype": "int64", "start": int(space.start), "n": int(space.n)}
    if isinstance(space, spaces.MultiDiscrete):
        return {"type": "MultiDiscrete", "dtype": "int64", "nvec": space.nvec.tolist(), "start": space.start.tolist()}
    assert isinstance(space, spaces.Box)
    bounds = {"low": space.low.tolist(), "high": space.high.tolist()}
    return {"type": "Box", "dtype": str(space.dtype), "shape": list(space.shape), **bounds}


def from_json(data: Any, what: str) -> spaces.Space:
    """The space that Minari's metadata describe; a kind without numbers is refused, none is imported by name."""
    data = data if isinstance(data, dict) else {}
    kind = data.get("type")
    if kind == "Dict":
        return spaces.Dict({name: from_json(part, what) for name, part in data["subspaces"].items()})
    if kind == "Tuple":
        return spaces.Tuple([from_json(part, what) for part in data["subspaces"]])
    if kind == "Discrete":
        return spaces.Discrete(int(data["n"]), start=int(data.get("start", 0)))
    if kind == "MultiDiscrete":
        nvec = np.array(data["nvec"], np.int64)
        return spaces.MultiDiscrete(nvec, start=np.array(data.get("start", np.zeros_like(nvec)), np.int64))
    if kind == "MultiBinary":
        return spaces.MultiBinary(data["n"])
    if kind == "Box" and data["dtype"] in _NUMBERS:
        low, high = (np.array(data[name], data["dtype"]) for name in ("low", "high"))
        if not low.shape == high.shape == tuple(data["shape"]):
            raise DemosError(f"{what}: a box of {data['shape']} with bounds of {low.shape} and {high.shape}.")
        return spaces.Box(low, high, tuple(data["shape"]), np.dtype(data["dtype"]))  # type: ignore[arg-type]
    raise DemosError(f"{what}: a space of the type {kind!r} has no place here.")


def _choices(space: Any) -> list[int]:
    if isinstance(space, spaces.MultiBinary):
        return [2] * int(np.prod(space.shape))
    return [int(n) for n in space.nvec.ravel()]


def _parts(space: Any) -> list[tuple[Any, spaces.Space]]:
    return list(space.spaces.items()) if isinstance(space, spaces.Dict) else list(enumerate(space.spaces))


def _one_hot(choices: np.ndarray, sizes: list[int], what: str) -> np.ndarray:
    """Float32[row, sum of sizes] of choices [row, part]."""
    if (choices < 0).any() or (choices >= np.array(sizes)).any():
        raise DemosError(f"{what}: a choice is outside of its space; there are {sizes} choices.")
    if len(choices) * sum(sizes) * 4 > MAX_BYTES:
        raise DemosError(f"{what}: {sum(sizes):,} choices as one-hot for {len(choices):,} moments are too many.")
    hot = np.zeros((len(choices), sum(sizes)), np.float32)
    np.put_along_axis(hot, choices.astype(np.int64) + np.cumsum([0, *sizes[:-1]]), 1, axis=1)
    return hot
