"""The tables of all names, and the few calls that most users need. A file never names code: names resolve here alone.

env = make_env("kitchen:cramped_room")
demos = record(env, episodes=64)                          # of the env's own scripted expert
run = train("bc", demos, env, folder="runs/cramped")      # the same call resumes
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from inspect import signature
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from understudy.core import config as settings
from understudy.core.errors import ConfigError, EnvError, nearest
from understudy.core.random import generator
from understudy.core.types import Env, Policy
from understudy.demos.demos import Demos
from understudy.nets.policy import AgentPolicy
from understudy.nets.saved import load_policy, save_policy
from understudy.rollout import Scripted
from understudy.rollout import record as record_played
from understudy.runs import loop
from understudy.runs.log import Row
from understudy.runs.loop import Budget, Habits

__all__ = [
    "ALGORITHMS", "ENVS", "Habits", "Run", "algorithm_named", "expert_of", "load_policy", "make_config", "make_env",
    "record", "train",
]  # fmt: skip


class EnvEntry(NamedTuple):
    """Where an env is made, by its own expert's side."""

    module: str  # in understudy.envs
    make: str  # a dataclass or a function there
    expert: str = "expert"  # expert(env, view, noise) -> actions, there too
    variant: str = ""  # the setting that may follow the name: kitchen:cramped_room


ALGORITHMS = {"bc": "understudy.algorithms.bc", "ppo": "understudy.algorithms.ppo"}

ENVS = {
    "kitchen": EnvEntry("kitchen", "Kitchen", "cook", variant="layout"),
    "simple": EnvEntry("particles", "Simple"),
    "spread": EnvEntry("particles", "Spread"),
    "adversary": EnvEntry("particles", "Adversary"),
    "crypto": EnvEntry("particles", "Crypto"),
    "push": EnvEntry("particles", "Push"),
    "reference": EnvEntry("particles", "Reference"),
    "speaker_listener": EnvEntry("particles", "SpeakerListener"),
    "tag": EnvEntry("particles", "Tag"),
    "world_comm": EnvEntry("particles", "WorldComm"),
    "navigation": EnvEntry("particles", "Navigation"),
    "communication": EnvEntry("particles", "Communication"),
    "keep_away": EnvEntry("particles", "KeepAway"),
    "predator_prey": EnvEntry("particles", "PredatorPrey"),
    "rock_paper_scissors": EnvEntry("tabular", "rock_paper_scissors"),
    "matching_pennies": EnvEntry("tabular", "matching_pennies"),
    "chicken": EnvEntry("tabular", "chicken"),
    "stag_hunt": EnvEntry("tabular", "stag_hunt"),
    "coordination": EnvEntry("tabular", "coordination"),
    "on_off": EnvEntry("tabular", "on_off"),
    "slip_chain": EnvEntry("tabular", "slip_chain"),
    "two_rooms": EnvEntry("tabular", "two_rooms"),
    "crossing": EnvEntry("tabular", "crossing"),
}


@dataclass
class Run:
    """What training leaves: the policy to play with, and where it came from."""

    policy: AgentPolicy
    metrics: list[Row]  # one row for each line of the log, with the number of the `update`
    updates: int
    stopped: str  # "updates", "minutes" or "finished"
    config: Any
    state: Any = field(repr=False)
    folder: Path | None = None


_HABITS = Habits()


def make_env(name: str, **rules: Any) -> Env:
    """The env called `name`: `make_env("spread", agents=5)`, `make_env("kitchen:cramped_room")`.

    Raises:
        EnvError: no env has that name.
        ConfigError: the env has no such rule, or not with that value.
    """
    entry, variant = _entry(name)
    if variant:
        rules = {entry.variant: variant, **rules}
    return settings.from_dict(_maker(entry), rules, name)


def rules_of(name: str) -> tuple[str, ...]:
    """The names of the settings that `make_env(name)` takes."""
    return tuple(signature(_maker(_entry(name)[0])).parameters)


def algorithm_named(name: str) -> ModuleType:
    """The module of an algorithm. Raises ConfigError for an unknown name."""
    if name not in ALGORITHMS:
        raise ConfigError(f"unknown algorithm {name!r}.{nearest(name, ALGORITHMS)}")
    return import_module(ALGORITHMS[name])


def make_config(algorithm: ModuleType, config: Any = None) -> Any:
    """Settings of `algorithm`: its own `Config` as it is, its defaults for None, or made of plain data by name."""
    if config is None:
        return algorithm.Config()
    if isinstance(config, Mapping):
        return settings.from_dict(algorithm.Config, config, _short(algorithm))
    if not isinstance(config, algorithm.Config):
        other = f"{type(config).__module__}.{type(config).__qualname__}"
        raise ConfigError(f"config: {_short(algorithm)} takes a {algorithm.__name__}.Config, got a {other}.")
    return config


def expert_of(env: Env) -> Policy:
    """The scripted expert that ships with `env`, as a policy. Raises EnvError where it has none."""
    for entry in ENVS.values():
        if type(env).__module__.startswith(f"understudy.envs.{entry.module}"):
            module = import_module(f"understudy.envs.{entry.module}")
            return Scripted(env, getattr(module, entry.expert))
    raise EnvError(f"{env.spec.title or type(env).__name__} ships no expert. Hand in one: expert(env, view, noise).")


def record(
    env: Env,
    expert: Policy | Callable[..., Any] | None = None,
    episodes: int = 64,
    seed: int = 0,
    envs: int = 1024,
) -> Demos:
    """Whole episodes of `expert` in `env`.

    Args:
        expert: a policy, or a function `expert(env, view, noise) -> actions`; None: the one that ships with the env.
        envs: episodes played side by side, at most.
    """
    return record_played(env, as_policy(env, expert), episodes, generator(seed, "record"), envs)


def as_policy(env: Env, expert: Policy | Callable[..., Any] | None) -> Policy:
    """A policy as it is, a function as a policy, the env's own expert for None."""
    if expert is None:
        return expert_of(env)
    return expert if hasattr(expert, "act") else Scripted(env, expert)  # type: ignore[return-value, arg-type]


def train(
    algorithm: str | ModuleType,
    demos: Demos | None = None,
    env: Env | None = None,
    *,
    config: Any = None,
    updates: int | None = None,
    minutes: float | None = None,
    folder: Path | str | None = None,
    seed: int = 0,
    habits: Habits = _HABITS,
    evaluate: Callable[..., Mapping[str, float]] | None = None,
) -> Run:
    """Learn a policy. The same call resumes where `folder` holds a run.

    Args:
        algorithm: a name of `ALGORITHMS`, or a module with `Config`, `init` and `update`.
        demos, env: what the algorithm learns from; which of them it needs, it says.
        config: the algorithm's `Config`, or plain data by name; None: its defaults.
        updates, minutes: the budget, over all resumptions; neither: until the algorithm has finished by itself.
        folder: where the run and its policy are kept; None: in memory alone.
        seed: all chance comes from it.
        habits: how often it logs and saves, and on what device it computes.
        evaluate: `evaluate(state, generator) -> numbers`, called every `habits.evaluate_every` updates.

    Raises:
        ConfigError, DemosError, EnvError: what was handed in does not fit the algorithm.
        RunError: the folder holds another run, or cannot be written.
    """
    module = algorithm_named(algorithm) if isinstance(algorithm, str) else algorithm
    config = make_config(module, config)
    outcome = loop.run(
        module, config, demos, env,
        name=_short(module), folder=folder, budget=Budget(updates, minutes),
        seed=seed, habits=habits, evaluate=evaluate,
    )  # fmt: skip
    policy = module.result(outcome.state) if hasattr(module, "result") else outcome.state.policy
    if folder is not None:
        save_policy(policy, folder)
    where = None if folder is None else Path(folder)
    return Run(policy, outcome.metrics, outcome.updates, outcome.stopped, config, outcome.state, where)


def _entry(name: str) -> tuple[EnvEntry, str]:
    base, _, variant = name.partition(":")
    if base not in ENVS:
        raise EnvError(f"unknown env {name!r}.{nearest(base, ENVS)}")
    if variant and not ENVS[base].variant:
        raise EnvError(f"unknown env {name!r}: `{base}` has no variants, its rules are settings.")
    return ENVS[base], variant


def _maker(entry: EnvEntry) -> Callable[..., Env]:
    return getattr(import_module(f"understudy.envs.{entry.module}"), entry.make)


def _short(algorithm: ModuleType) -> str:
    return algorithm.__name__.rpartition(".")[2]
