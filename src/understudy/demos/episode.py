"""One joint recording, what is known of a set of them, and what can be wrong with one."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from understudy.core import config
from understudy.core.errors import ConfigError, DemosError, printable
from understudy.core.types import Continuous, Discrete, EnvSpec, action_shape, legal_size

HEAVIEST = 1e30  # weight of an episode: sums of such weights are finite in float32, in which losses are summed

Info = Mapping[str, str | int | float | bool]


@dataclass(frozen=True)
class About:
    """Where a set of recordings comes from. Plain data, kept beside it and never run."""

    title: str = ""
    source: str = ""
    licence: str = ""
    author: str = ""
    units: dict[str, str] = field(default_factory=dict)  # such as {"obs": "m", "time": "s"}
    env: dict[str, Any] = field(default_factory=dict)  # the env's name and settings, for replays
    notes: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain data that `from_json` reads."""
        return asdict(self)

    @staticmethod
    def from_json(data: Any) -> "About":
        """What plain `data` tells. Raises DemosError for an unknown entry, or one of another type."""
        try:
            return config.from_dict(About, data, "what is told about a set")
        except ConfigError as error:
            raise DemosError(str(error)) from None


@dataclass
class Episode:
    """One recording of all agents together, of T steps and the T + 1 moments before, between and after them.

    Every agent has a row at every moment; where one is missing, `present` is false and its numbers are zero.
    """

    obs: Tensor  # Float or UInt8[moment agent obs]; the last is what the last step led to
    actions: Tensor  # Int[time agent], Int[time agent part] or Float[time agent size], as the spec says
    rewards: Tensor | None = None  # Float[time agent]
    terminated: bool = False  # the game was over with the last step
    truncated: bool = False  # a limit, or the end of the recording, stopped it; taken as true where neither is said
    legal: Tensor | None = None  # Bool[moment agent choice]
    present: Tensor | None = None  # Bool[moment agent]
    whole: Tensor | None = None  # Float[moment feature]
    times: Tensor | None = None  # Float64[moment], in seconds
    labels: dict[str, Tensor] = field(default_factory=dict)  # [time agent] or [time]
    name: str = ""
    weight: float = 1.0  # of each of its steps in a loss: the recording's quality
    info: Info = field(default_factory=dict)  # such as the layout, the split, the players, the score

    def __len__(self) -> int:
        return len(self.actions)


@dataclass(frozen=True)
class Finding:
    """Something wrong with a recording, and where: `agent` and `step` are None where it is not at one of them."""

    kind: str
    message: str
    episode: int | None = None
    agent: int | None = None
    step: int | None = None

    def __str__(self) -> str:
        places = {"episode": self.episode, "agent": self.agent, "step": self.step}
        where = ", ".join(f"{name} {number}" for name, number in places.items() if number is not None)
        return printable(f"{where}: {self.message}" if where else self.message)


def findings(spec: EnvSpec, episode: Episode, number: int) -> Iterator[Finding]:
    """All that makes `episode` unfit to learn from; nothing for a sound one.

    Kinds: shape, dtype, length, empty, finite, range, legal, times, info.
    """
    shapes = list(_shapes(spec, episode, number))
    yield from shapes
    yield from _info(episode, number)
    if not shapes:  # only then can the values be looked at
        yield from _values(spec, episode, number)


def _shapes(spec: EnvSpec, episode: Episode, number: int) -> Iterator[Finding]:
    if episode.actions.dim() == 0 or episode.obs.dim() == 0:
        yield Finding("shape", "obs and actions need a time axis, and these are single numbers.", number)
        return
    steps = len(episode.actions)
    if steps == 0:
        yield Finding("empty", "it has no step; leave it out.", number)
    choices = legal_size(spec.action)
    moments: dict[str, tuple[Tensor | None, list[tuple[int, ...]]]] = {
        "obs": (episode.obs, [(spec.agents, spec.obs)]),
        "legal": (episode.legal, [(spec.agents, choices)]),
        "present": (episode.present, [(spec.agents,)]),
        "whole": (episode.whole, [(spec.whole,)]),
        "times": (episode.times, [()]),
    }
    during: dict[str, tuple[Tensor | None, list[tuple[int, ...]]]] = {
        "actions": (episode.actions, [(spec.agents, *action_shape(spec.action))]),
        "rewards": (episode.rewards, [(spec.agents,)]),
        **{f"label `{k}`": (v, [(), (spec.agents,)]) for k, v in episode.labels.items()},
    }
    for group, length, said in ((moments, steps + 1, "moments"), (during, steps, "steps")):
        for name, (values, wanted) in group.items():
            if values is None:
                continue
            if values.dim() == 0 or tuple(values.shape[1:]) not in wanted:
                meant = " or ".join(str([said, *shape]) for shape in wanted)
                yield Finding("shape", f"{name} is {list(values.shape)}, and should be {meant}.", number)
            elif len(values) != length:
                yield Finding(
                    "length",
                    f"{name} has {len(values)} rows, and {steps} steps ask for {length}: a row before each step"
                    + (" and one after the last." if length > steps else "."),
                    number,
                    step=min(len(values), length),
                )
    floats = {"rewards": episode.rewards, "whole": episode.whole}
    if isinstance(spec.action, Continuous):
        floats["actions"] = episode.actions
    elif episode.actions.is_floating_point() or episode.actions.dtype == torch.bool:
        yield Finding("dtype", f"actions are {episode.actions.dtype}, and this spec's are whole numbers.", number)
    if not episode.obs.is_floating_point() and episode.obs.dtype != torch.uint8:
        yield Finding("dtype", f"obs is {episode.obs.dtype}, and should be of floats, or uint8 for pictures.", number)
    for name, values in floats.items():
        if values is not None and not values.is_floating_point():
            yield Finding("dtype", f"{name}: {values.dtype} came, floats were meant.", number)
    for name, values in {"legal": episode.legal, "present": episode.present}.items():
        if values is not None and values.dtype != torch.bool:
            yield Finding("dtype", f"{name}: {values.dtype} came, bool was meant.", number)
    if episode.times is not None and episode.times.dtype != torch.float64:
        yield Finding("dtype", f"times: {episode.times.dtype} came, float64 was meant: seconds add up.", number)


def _values(spec: EnvSpec, episode: Episode, number: int) -> Iterator[Finding]:
    columns = {"obs": episode.obs, "actions": episode.actions, "rewards": episode.rewards}
    labels = {f"label `{k}`": v for k, v in episode.labels.items()}
    for name, values in (columns | labels).items():
        if values is not None and values.is_floating_point():
            yield from places("finite", f"{name} is not a finite number", ~_finite(values), number)
    for name, values in {"whole": episode.whole, "times": episode.times}.items():
        if values is not None:
            bad = ~_finite(values).reshape(len(values), -1).all(1)
            yield from places("finite", f"{name} is not a finite number", bad, number)
    yield from _acted(spec, episode, number)
    if episode.times is not None and len(episode.times) > 1:
        back = episode.times.diff() <= 0
        yield from places("times", "the time stands still or runs backwards from this moment to the next", back, number)


def _finite(values: Tensor) -> Tensor:
    """Where numbers are finite in float32 too, in which all is computed."""
    return values.isfinite() & ~(values.abs() > torch.finfo(torch.float32).max)


def _acted(spec: EnvSpec, episode: Episode, number: int) -> Iterator[Finding]:
    """Actions outside the spec, or against the rules by `legal`."""
    actions = episode.actions
    if isinstance(spec.action, Continuous):
        slack = 1e-6 * max(1.0, *(abs(b) for b in (spec.action.low, spec.action.high) if math.isfinite(b)), 0.0)
        outside = (actions < spec.action.low - slack) | (actions > spec.action.high + slack)
        said = f"an action outside [{spec.action.low}, {spec.action.high}]"
        yield from places("range", said, outside, number)
        return
    if isinstance(spec.action, Discrete):
        sizes = torch.tensor(spec.action_sizes)  # [agent]
        parts, offsets = actions.unsqueeze(-1), torch.zeros(1, dtype=torch.long)
        limits = sizes.unsqueeze(-1)
    else:
        limits = torch.tensor(spec.action.choices)  # [part]
        parts, offsets = actions, limits.cumsum(0) - limits
    outside = ((parts < 0) | (parts >= limits)).any(-1)
    yield from places("range", f"an action outside 0 .. {limits.max().item() - 1}", outside, number)
    if episode.legal is not None and not outside.any():
        allowed = episode.legal[:-1].gather(-1, parts.long() + offsets).all(-1)
        if episode.present is not None:
            allowed |= ~episode.present[:-1]  # who is not there does nothing illegal
        yield from places("legal", "an action that `legal` forbids", ~allowed, number)


def places(kind: str, said: str, bad: Tensor, number: int) -> Iterator[Finding]:
    """One finding for each agent, at its first bad step. `bad`: Bool[time], or Bool[time agent ...]."""
    if not bad.any():
        return
    columns = bad.unsqueeze(-1) if bad.dim() == 1 else bad.reshape(*bad.shape[:2], -1).any(-1)
    for agent in columns.any(0).nonzero().flatten().tolist():
        steps = columns[:, agent].nonzero().flatten()
        more = f", and {len(steps) - 1} more" if len(steps) > 1 else ""
        yield Finding(kind, f"{said}{more}.", number, None if bad.dim() == 1 else agent, int(steps[0]))


def _info(episode: Episode, number: int) -> Iterator[Finding]:
    if not 0 <= episode.weight <= HEAVIEST:  # nor NaN
        yield Finding("info", f"weight is {episode.weight}, and should be from 0 to {HEAVIEST:g}.", number)
    try:
        expect_plain(episode.info)
    except ValueError as error:
        yield Finding("info", str(error), number)


def expect_plain(info: Mapping[Any, Any]) -> None:
    """Raise ValueError unless what is noted of an episode is plain data."""
    for name, value in info.items():
        plain = isinstance(value, str | bool | int | float)
        if not isinstance(name, str) or not plain or (isinstance(value, float) and not math.isfinite(value)):
            raise ValueError(f"info[{name!r}] is {value!r}: a name and a string, a bool or a finite number are meant.")


def refuse(found: Iterator[Finding]) -> None:
    """Raise the first of the findings, if there is one."""
    for finding in found:
        raise DemosError(f"{finding}")
