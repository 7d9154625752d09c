"""The nouns that every room shares: what an env declares, what agents see, a run of steps; and the two Protocols.

Axes stand in one order everywhere: `env` (or `episode`), `time`, `agent`, then features. An absent axis is left out.
"""

import math
from dataclasses import dataclass, field, fields
from typing import Any, Protocol, TypeVar, runtime_checkable

from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from understudy.core import config
from understudy.core.errors import ConfigError, DemosError, nearest
from understudy.core.tree import tree_map

MOST = 2**20  # numbers that one agent sees or chooses among: a network has weights for each of them


def _expect_few(name: str, count: int) -> None:
    if count > MOST:
        raise ConfigError(f"{name}: got {count:,}; {MOST:,} is the most.")


@dataclass(frozen=True)
class Discrete:
    """One of `choices` moves, as an integer from 0. Tensors: Int[... agent]."""

    choices: int

    def __post_init__(self) -> None:
        if self.choices < 1:
            raise ConfigError(f"choices: got {self.choices}, but an agent needs at least one move.")
        _expect_few("choices", self.choices)


@dataclass(frozen=True)
class MultiDiscrete:
    """Several moves at once, the k-th one of `choices[k]`. Tensors: Int[... agent part]."""

    choices: tuple[int, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "choices", tuple(self.choices))
        if not self.choices or min(self.choices) < 1:
            raise ConfigError(f"choices: got {self.choices}, but every part needs at least one move.")
        _expect_few("choices of all parts", sum(self.choices))


@dataclass(frozen=True)
class Continuous:
    """`size` real numbers, each in [low, high] (infinite where unbounded). Tensors: Float[... agent size]."""

    size: int
    low: float = -1.0
    high: float = 1.0

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ConfigError(f"size: got {self.size}, but an action needs at least one number.")
        _expect_few("size", self.size)
        if not self.low < self.high:
            raise ConfigError(f"low, high: got {self.low} and {self.high}, but low must be below high.")


ActionSpec = Discrete | MultiDiscrete | Continuous
_ACTION_KINDS: dict[str, type] = {"discrete": Discrete, "multi_discrete": MultiDiscrete, "continuous": Continuous}


def action_shape(action: ActionSpec) -> tuple[int, ...]:
    """Axes of one agent's action: () for Discrete, (parts,) for MultiDiscrete, (size,) for Continuous."""
    if isinstance(action, Discrete):
        return ()
    return (len(action.choices),) if isinstance(action, MultiDiscrete) else (action.size,)


def legal_size(action: ActionSpec) -> int:
    """Width of a mask of legal moves: all choices end to end, 0 for Continuous."""
    if isinstance(action, Continuous):
        return 0
    return action.choices if isinstance(action, Discrete) else sum(action.choices)


def action_to_json(action: ActionSpec) -> dict[str, Any]:
    """Plain data that `action_from_json` reads."""
    kind = next(name for name, cls in _ACTION_KINDS.items() if type(action) is cls)
    return {"kind": kind, **{f.name: getattr(action, f.name) for f in fields(action)}}


def action_from_json(data: Any) -> ActionSpec:
    """The action spec that plain `data` describes; a name out of the table is refused, never imported.

    Raises:
        DemosError: it describes none.
    """
    if not isinstance(data, dict):
        raise DemosError(f"action: {config.say(data)} came, and entries by name are meant.")
    rest = dict(data)
    kind = rest.pop("kind", None)
    if not isinstance(kind, str) or kind not in _ACTION_KINDS:
        raise DemosError(f"unknown kind of action {config.say(kind)}.{nearest(str(kind), _ACTION_KINDS)}")
    try:
        return config.from_dict(_ACTION_KINDS[kind], rest, f"an action of kind {kind!r}")
    except ConfigError as error:
        raise DemosError(str(error)) from None


MOST_AGENTS = 2**16


@dataclass(frozen=True)
class EnvSpec:
    """What an env declares of itself. Everything but agents, obs, action and horizon has a default.

    Agents of different sizes are padded to the widest: `obs_sizes` and `action_sizes` give each agent's true size
    (numbers seen; choices, parts or numbers acted), the rest is zero in observations, illegal in `legal`.
    """

    agents: int
    obs: int
    action: ActionSpec
    horizon: int | None = None  # steps after which an episode is truncated; None: only the game itself ends it
    reset_noise: int = 0  # uniform numbers that one reset needs
    step_noise: int = 0  # uniform numbers that one step needs
    whole: int = 0  # width of `whole(state)`; 0: the env has none
    names: tuple[str, ...] = ()  # agent_0, agent_1, ... where empty
    roles: tuple[str, ...] = ()  # agents of one role may share weights; all "agent" where empty
    teams: tuple[str, ...] = ()  # agents of one team are paid alike; all "team" where empty
    obs_sizes: tuple[int, ...] = ()
    action_sizes: tuple[int, ...] = ()
    dt: float | None = None  # seconds that a step stands for
    title: str = ""  # such as "spread" or "kitchen:cramped_room"

    def __post_init__(self) -> None:
        if self.agents > MOST_AGENTS:  # before a list of names is made for so many: a file may say any number
            raise ConfigError(f"agents: got {self.agents:,}; a spec names each, and {MOST_AGENTS:,} is the most.")
        if self.agents < 1:
            raise ConfigError(f"agents: got {self.agents}, and an env needs an agent.")
        for name in ("obs", "whole", "reset_noise", "step_noise"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name}: got {getattr(self, name)}, and a size is 0 or more.")
        _expect_few("obs", self.obs)
        if self.dt is not None and not 0 < self.dt < math.inf:
            raise ConfigError(f"dt: got {self.dt}; it is the seconds of a step, above 0, or None where there is none.")
        if self.horizon is not None and self.horizon < 1:
            raise ConfigError(f"horizon: got {self.horizon}; it must be 1 or more, or None for no limit.")
        size = self.action.choices if isinstance(self.action, Discrete) else action_shape(self.action)[0]
        defaults = {
            "names": tuple(f"agent_{i}" for i in range(self.agents)),
            "roles": ("agent",) * self.agents,
            "teams": ("team",) * self.agents,
            "obs_sizes": (self.obs,) * self.agents,
            "action_sizes": (size,) * self.agents,
        }
        for name, default in defaults.items():
            value = tuple(getattr(self, name)) or default
            if len(value) != self.agents:
                raise ConfigError(f"{name}: got {len(value)} of them for {self.agents} agents.")
            object.__setattr__(self, name, value)
        for name, most in {"obs_sizes": self.obs, "action_sizes": size}.items():
            if not all(0 <= each <= most for each in getattr(self, name)):
                raise ConfigError(f"{name}: got {getattr(self, name)}; each is from 0 to {most}, the widest agent's.")
        if len(set(self.names)) < self.agents:
            raise ConfigError(f"names: every agent needs a name of its own, got {self.names}.")

    def to_json(self) -> dict[str, Any]:
        """Plain data that `from_json` reads."""
        return {f.name: getattr(self, f.name) for f in fields(self)} | {"action": action_to_json(self.action)}

    @staticmethod
    def from_json(data: Any) -> "EnvSpec":
        """The spec that plain `data` describes.

        Raises:
            DemosError: it describes none.
        """
        if not isinstance(data, dict):
            raise DemosError(f"spec: {config.say(data)} came, and entries by name are meant.")
        try:
            return config.from_dict(EnvSpec, data | {"action": action_from_json(data.get("action"))}, "a spec")
        except ConfigError as error:
            raise DemosError(str(error)) from None


@dataclass(frozen=True)
class View:
    """What the agents perceive at one moment, or along a run of moments."""

    obs: Float[Tensor, "*batch agent obs"]
    legal: Bool[Tensor, "*batch agent choice"] | None = None  # moves that the rules allow now; None: all of them
    present: Bool[Tensor, "*batch agent"] | None = None  # false where an agent is missing; None: all are there
    whole: Float[Tensor, "*batch feature"] | None = None  # full state, for centralised values and scripted experts


@dataclass(frozen=True)
class Segment:
    """Any run of steps of several agents: played (leading axis `env`) or recorded (leading axis `episode`).

    Where steps are sampled one by one the time axis is absent.
    """

    view: View  # before the step
    actions: Shaped[Tensor, "..."]  # Int[... agent], Int[... agent part] or Float[... agent size]
    rewards: Float[Tensor, "*batch agent"] | None = None
    terminated: Bool[Tensor, "*batch"] | None = None  # the game was over with this step
    truncated: Bool[Tensor, "*batch"] | None = None  # a time limit, or the recording, stopped with this step
    next_view: View | None = None  # what the step led to, BEFORE any reset
    starts: Bool[Tensor, "*batch"] | None = None  # first step of its episode: memory is zero before it
    valid: Bool[Tensor, "*batch"] | None = None  # false where a shorter episode is padded; None: all are steps
    weight: Float[Tensor, "*batch"] | None = None  # how much the step counts in a loss; None: all alike
    labels: dict[str, Tensor] = field(default_factory=dict)  # programmatic labels, [*batch agent] or [*batch]

    @property
    def obs(self) -> Float[Tensor, "*batch agent obs"]:
        return self.view.obs

    @property
    def ended(self) -> Bool[Tensor, "*batch"]:
        """The next step belongs to another episode."""
        assert self.terminated is not None and self.truncated is not None
        return self.terminated | self.truncated


Moved = TypeVar("Moved")


def to_device(tree: Moved, device: Any) -> Moved:
    """The same tree of tensors on `device`."""
    return tree_map(lambda x: x.to(device), tree)


@runtime_checkable
class Env(Protocol):
    """A game's rules, played many times side by side. A frozen dataclass: its fields are the rules.

    Pure functions of tensors that keep nothing and draw nothing: chance comes in as `noise`, uniform in [0, 1).
    Starting again after an end is the caller's business (`rollout.collect`).

    Where a game has them it also offers
        legal(state) -> Bool[env agent choice]      moves that the rules allow
        present(state) -> Bool[env agent]           who is in the game
        whole(state) -> Float[env feature]          full state, `spec.whole` wide
        draw(whole: Float[feature]) -> Scene        shapes for pictures of one moment, played or recorded
        symmetries() -> core.symmetry.Groups        worlds in which the same is a right thing to do
        restart(state, ended: Bool[env], noise) -> State    instead of `reset`, for simulators that keep state inside
        native: bool                                whether compiled functions of its own play it, on the CPU
    """

    @property
    def spec(self) -> EnvSpec: ...
    def reset(self, noise: Float[Tensor, "env noise"]) -> Any: ...
    def observe(self, state: Any) -> Float[Tensor, "env agent obs"]: ...
    def step(
        self, state: Any, actions: Tensor, noise: Float[Tensor, "env noise"]
    ) -> tuple[Any, Float[Tensor, "env agent"], Bool[Tensor, "env"]]:
        """The next state, each agent's reward, and whether the game is over (`terminated`, never a time limit)."""
        ...


@runtime_checkable
class Policy(Protocol):
    """Who acts. All agents of an env are asked at once; what it remembers comes in and goes out.

    `noise` is how many uniform numbers each agent needs for one step. Memory is a tree of tensors with leading axis
    `env`, `()` where nothing is remembered; zeros are the memory of an episode's start.
    """

    @property
    def noise(self) -> int: ...
    def start(self, envs: int) -> Any: ...
    def act(self, view: View, memory: Any, noise: Float[Tensor, "env agent noise"]) -> tuple[Tensor, Any]: ...
    def log_prob(
        self, view: View, actions: Tensor, memory: Any = (), starts: Bool[Tensor, "env time"] | None = None
    ) -> Float[Tensor, "env time agent"]:
        """Of each agent's action, in nats. `view` and `actions` have axes [env, time, agent, ...].

        `memory` is that before the first step (`()`: of a start); where `starts` is true it is zeroed.
        """
        ...
