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
from understudy.core.errors import ConfigError, DemosError, EnvError, nearest
from understudy.core.random import generator
from understudy.core.scene import Scene
from understudy.core.types import Env, Policy
from understudy.demos.demos import Demos
from understudy.evaluation import metrics
from understudy.maths.stats import Estimate
from understudy.nets.policy import AgentPolicy
from understudy.nets.saved import load_policy, save_policy
from understudy.rollout import Scripted, Uniform, play, score
from understudy.rollout import record as record_played
from understudy.runs import loop
from understudy.runs.log import Row
from understudy.runs.loop import Budget, Habits

__all__ = [
    "ALGORITHMS", "ENVS", "Evaluation", "Habits", "Run", "algorithm_named", "env_of", "evaluate", "expert_of",
    "load_policy", "make_config", "make_env", "record", "rules_of", "scenes", "train", "video",
]  # fmt: skip


class EnvEntry(NamedTuple):
    """Where an env is made, and where its scripted expert is."""

    module: str  # in understudy.envs
    make: str  # a dataclass or a function there
    expert: tuple[str, str]  # module and function: expert(env, view, noise) -> actions
    variant: str = ""  # the setting that may follow the name: kitchen:cramped_room


ALGORITHMS = {"bc": "understudy.algorithms.bc", "ppo": "understudy.algorithms.ppo"}

_PARTICLES, _TABULAR = ("particles", "expert"), ("tabular", "expert")
ENVS = {
    "kitchen": EnvEntry("kitchen", "Kitchen", ("kitchen", "cook"), variant="layout"),
    "simple": EnvEntry("particles", "Simple", _PARTICLES),
    "spread": EnvEntry("particles", "Spread", _PARTICLES),
    "adversary": EnvEntry("particles", "Adversary", _PARTICLES),
    "crypto": EnvEntry("particles", "Crypto", _PARTICLES),
    "push": EnvEntry("particles", "Push", _PARTICLES),
    "reference": EnvEntry("particles", "Reference", _PARTICLES),
    "speaker_listener": EnvEntry("particles", "SpeakerListener", _PARTICLES),
    "tag": EnvEntry("particles", "Tag", _PARTICLES),
    "world_comm": EnvEntry("particles", "WorldComm", _PARTICLES),
    "navigation": EnvEntry("particles", "Navigation", _PARTICLES),
    "communication": EnvEntry("particles", "Communication", _PARTICLES),
    "keep_away": EnvEntry("particles", "KeepAway", _PARTICLES),
    "predator_prey": EnvEntry("particles", "PredatorPrey", _PARTICLES),
    "rock_paper_scissors": EnvEntry("tabular", "rock_paper_scissors", _TABULAR),
    "matching_pennies": EnvEntry("tabular", "matching_pennies", _TABULAR),
    "chicken": EnvEntry("tabular", "chicken", _TABULAR),
    "stag_hunt": EnvEntry("tabular", "stag_hunt", _TABULAR),
    "coordination": EnvEntry("tabular", "coordination", _TABULAR),
    "on_off": EnvEntry("tabular", "on_off", _TABULAR),
    "slip_chain": EnvEntry("tabular", "slip_chain", _TABULAR),
    "two_rooms": EnvEntry("tabular", "two_rooms", _TABULAR),
    "crossing": EnvEntry("tabular", "crossing", _TABULAR),
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
            module, function = entry.expert
            return Scripted(env, getattr(import_module(f"understudy.envs.{module}"), function))
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
    if demos is not None and env is not None:
        fit(demos, env)
    try:
        outcome = loop.run(
            module, config, demos, env,
            name=_short(module), folder=folder, budget=Budget(updates, minutes),
            seed=seed, habits=habits, evaluate=evaluate,
        )  # fmt: skip
    except loop.Interrupted as stopped:
        _policy(module, stopped.state, folder)
        raise
    policy = _policy(module, outcome.state, folder)
    where = None if folder is None else Path(folder)
    return Run(policy, outcome.metrics, outcome.updates, outcome.stopped, config, outcome.state, where)


@dataclass(frozen=True)
class Evaluation:
    """Figures by name, each with its interval; `print` shows them all."""

    figures: dict[str, Estimate]

    def __getitem__(self, name: str) -> Estimate:
        if name not in self.figures:
            raise ConfigError(f"unknown figure {name!r}.{nearest(name, self.figures)}")
        return self.figures[name]

    def __str__(self) -> str:
        width = max(map(len, self.figures))
        return "\n".join(f"{name:{width}}  {figure}" for name, figure in self.figures.items())


def evaluate(
    policy: Policy, env: Env, demos: Demos | None = None, episodes: int = 1000, seed: int = 1, most: int = 2000
) -> Evaluation:
    """How `policy` plays, beside the demonstrators and beside random play.

    Returns, lengths, and distances between what learners and demonstrators see and do (`evaluation.metrics.compare`);
    a normalised return is 0 for random play and 1 for the demonstrators; `likelihood` is in nats per agent-step, of
    what the demonstrators did. It is told of policies that have one, and is fair for episodes held out of training.

    Args:
        demos: the demonstrators; None: as many episodes of the expert that ships with the env.
        most: moments of each side that the distances look at.

    Raises:
        DemosError: demonstrators and random play earn the same, so there is no scale between them.
    """
    demonstrated = demos or record(env, None, episodes, seed)
    fit(demonstrated, env)
    players: dict[str, Any] = {"learned": policy, "random": Uniform(env.spec)}
    learned, random = (play(env, who, episodes, generator(seed, "evaluate", name)) for name, who in players.items())
    chance, people = generator(seed, "evaluate", "intervals"), demonstrated.padded()
    scale = random if people.rewards is not None else None
    figures = metrics.compare(env.spec, learned, people, chance, scale, most=most)
    if isinstance(policy, AgentPolicy):
        figures["likelihood"] = metrics.likelihood(score(policy, demonstrated).log_prob, people, chance)
    return Evaluation(figures)


def scenes(policy: Policy, env: Env, seed: int = 0) -> list[Scene]:
    """One episode as pictures. Raises EnvError where the env draws none."""
    if not hasattr(env, "draw"):
        raise EnvError(f"{env.spec.title or type(env).__name__} has no pictures: its class offers no `draw`.")
    played = play(env, policy, 1, generator(seed, "scenes"))
    assert played.view.whole is not None and played.next_view is not None and played.next_view.whole is not None
    return [env.draw(whole) for whole in (*played.view.whole[0], played.next_view.whole[0, -1])]


def video(policy: Policy, env: Env, path: Path | str, seed: int = 0) -> Path:
    """One episode as a .mp4, .gif or .png file. Raises MissingExtra without the extra `video`."""
    from understudy.evaluation.video import save_video

    return save_video(path, scenes(policy, env, seed), dt=env.spec.dt or 0.1)


def env_of(folder: Path | str) -> Env:
    """The env that the run in `folder` played in; for a run on recordings alone, the env that they name.

    Raises:
        EnvError: it cannot be made again from names and plain rules, or would not be the same.
    """
    told, spec = settings.read(Path(folder) / "run.json"), load_policy(folder).spec
    known = told["env"] or {"spec": {"title": spec.title}, "rules": {}}
    name = known["spec"]["title"]
    rules = {rule: value for rule, value in known["rules"].items() if rule in rules_of(name)}
    env = make_env(name, **rules)
    same = loop.describe(env) == told["env"] if told["env"] else env.spec == spec
    if not same:
        raise EnvError(f"{folder}: its env {name!r} had other rules than are known of it. Say which env and rules.")
    return env


def fit(demos: Demos, env: Env) -> None:
    """Raises DemosError where whoever was recorded saw or did other things than the agents of `env`."""
    for name in ("agents", "obs", "action"):
        there, here = getattr(demos.spec, name), getattr(env.spec, name)
        if there != here:
            raise DemosError(
                f"demos of {demos.spec.title or 'an unnamed env'} do not fit {env.spec.title or 'this env'}: "
                f"{name} is {there} in the recordings, {here} in the env."
            )


def _entry(name: str) -> tuple[EnvEntry, str]:
    base, _, variant = name.partition(":")
    if base not in ENVS:
        raise EnvError(f"unknown env {name!r}.{nearest(base, ENVS)}")
    if variant and not ENVS[base].variant:
        raise EnvError(f"unknown env {name!r}: `{base}` has no variants, its rules are settings.")
    return ENVS[base], variant


def _maker(entry: EnvEntry) -> Callable[..., Env]:
    return getattr(import_module(f"understudy.envs.{entry.module}"), entry.make)


def _policy(algorithm: ModuleType, state: Any, folder: Path | str | None) -> AgentPolicy:
    """The policy to play with, saved beside its run."""
    policy = algorithm.result(state) if hasattr(algorithm, "result") else state.policy
    if folder is not None:
        save_policy(policy, folder)
    return policy


def _short(algorithm: ModuleType) -> str:
    return algorithm.__name__.rpartition(".")[2]
