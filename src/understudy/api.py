"""The tables of all names, and the few calls that most users need. A file never names code: names resolve here alone.

env = make_env("kitchen:cramped_room")
demos = record(env, episodes=64)                          # of the env's own scripted expert
run = train("bc", demos, env, folder="runs/cramped")      # the same call resumes
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import import_module
from inspect import signature
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from understudy.core import config as settings
from understudy.core.errors import ConfigError, DemosError, EnvError, nearest
from understudy.core.random import generator
from understudy.core.scene import Scene
from understudy.core.tree import tree_map
from understudy.core.types import Continuous, Env, Policy, Segment
from understudy.demos.demos import Demos
from understudy.evaluation import metrics
from understudy.evaluation.measured import SHOWN, Evaluation, report_of, text_of
from understudy.nets.policy import AgentPolicy
from understudy.nets.saved import load_policy, save_policy
from understudy.rollout import Scripted, Uniform, choosing, play, score
from understudy.rollout import record as record_played
from understudy.runs import loop
from understudy.runs.log import Row, read_lines
from understudy.runs.loop import Budget, Habits

__all__ = [
    "ALGORITHMS", "ENVS", "Evaluation", "Habits", "Run", "algorithm_named", "env_of", "evaluate", "expert_of",
    "load_policy", "make_config", "make_env", "record", "report_of", "rules_of", "scenes", "text_of", "train", "video",
]  # fmt: skip


class EnvEntry(NamedTuple):
    """Where an env is made, and where its scripted expert is."""

    module: str  # in understudy.envs
    make: str  # a dataclass or a function there
    expert: tuple[str, str]  # module and function: expert(env, view, noise) -> actions
    variant: str = ""  # the setting that may follow the name: kitchen:cramped_room


ALGORITHMS = {
    "bc": "understudy.algorithms.bc",
    "iq": "understudy.algorithms.iq",
    "ppo": "understudy.algorithms.ppo",
    "sqil": "understudy.algorithms.sqil",
}

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


def evaluate(
    policy: Policy | Run | Path | str,
    env: Env,
    demos: Demos | None = None,
    episodes: int | None = None,
    seed: int = 1,
    most: int = 2000,
) -> Evaluation:
    """How a policy plays, beside the demonstrators and beside random play.

    Returns, lengths, and distances between what learners and demonstrators see and do (`evaluation.metrics.compare`);
    a normalised return is 0 for random play and 1 for the demonstrators, and left out where they earn the same.
    `likelihood` (nats) and `accuracy` are of the demonstrators' choices, forced moves left out. They are told of
    policies that have probabilities, and are fair for episodes held out of training.

    Args:
        policy: a policy, a run, or the folder of one: then its learning curves and settings are in the report too.
        demos: the demonstrators; None: as many episodes of the expert that ships with the env.
        episodes: that the policy plays, and random play; None: 1,000, fewer where that is more than 200,000 steps.
        most: moments of each side that the distances look at.
    """
    if episodes is None:
        episodes = min(1000, max(20, 200_000 // (env.spec.horizon or 200)))
    run = _told(policy)
    player: Any = run.get("policy", policy)
    demonstrated = record(env, None, episodes, seed) if demos is None else demos
    fit(demonstrated, env)
    if isinstance(player, AgentPolicy):
        fit(player, env)
    guess = Uniform(env.spec)
    learned, random = (
        play(env, who, episodes, generator(seed, "evaluate", name))
        for name, who in {"learned": player, "random": guess}.items()
    )
    chance, people = generator(seed, "evaluate", "intervals"), demonstrated.padded()
    figures = metrics.compare(env.spec, learned, people, chance, random, most=most)
    if isinstance(player, AgentPolicy) and choosing(people).any():
        found = score(player, demonstrated)
        figures["likelihood"] = metrics.likelihood(found.log_prob, people, chance)
        if not isinstance(env.spec.action, Continuous):
            figures["random likelihood"] = metrics.likelihood(
                guess.log_prob(people.view, people.actions), people, chance
            )
            figures["accuracy"] = metrics.mean_of_steps(found.hit.float(), found.counts, chance)
    fingerprint, notes = demonstrated.fingerprint(), []
    longest, horizon = int(demonstrated.lengths.max()), env.spec.horizon
    if horizon is not None and longest > horizon:
        figures = {name: figure for name, figure in figures.items() if not name.startswith("normalised return")}
        notes.append(
            f"Demonstrators played up to {longest:,} steps, here an episode ends after {horizon:,}: their returns are "
            f"not of the same time. Measure under the rule horizon={longest}."
        )
    if run.get("demos") == fingerprint:
        notes.append(
            "These are the recordings that it learnt from: likelihood and accuracy flatter it. Measure on others."
        )
    scripted = f"{len(demonstrated)} episodes of the env's scripted expert, seed {seed}"
    about = demonstrated.about
    sides = {"demonstrators": people, "learned": learned}
    return Evaluation(
        figures=figures,
        env=env.spec.title,
        draw=getattr(env, "draw", None),
        dt=env.spec.dt or 0.1,
        shown={side: one for side, segment in sides.items() if (one := _median_episode(segment, env)) is not None},
        metrics=run.get("metrics", ()),
        group=run.get("group", ""),
        notes=tuple(notes),
        provenance={
            **run.get("provenance", {}),
            "env": env.spec.title,
            "rules": loop.describe(env)["rules"],
            "demonstrators": scripted if demos is None else f"{len(demos)} episodes, {demos.steps:,} steps",
            "source": about.source or about.title,
            "licence": about.licence,
            "fingerprint of the recordings": fingerprint,
            "measured": f"{episodes:,} episodes, seed {seed}, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        },
    )


def _told(policy: Any) -> dict[str, Any]:
    """What a report tells of a run or the folder of one, its policy with it; nothing of a policy alone."""
    if isinstance(policy, Run):
        policy, told = policy.folder or policy, {"policy": policy.policy, "metrics": policy.metrics}
    elif isinstance(policy, Path | str):
        told = {"policy": load_policy(policy), "metrics": read_lines(Path(policy) / "metrics.jsonl")}
    else:
        return {}
    if isinstance(policy, Run) or not (Path(policy) / "run.json").exists():
        return told
    known = settings.read(Path(policy) / "run.json")
    about = known["about"]
    told["demos"] = known["demos"]
    told["group"] = repr([known[part] for part in ("algorithm", "config", "demos", "env")])
    told["provenance"] = {
        "run": str(policy),
        "algorithm": known["algorithm"],
        "config": known["config"],
        "seed of the run": known["seed"],
        "began": about["began"],
        "command of the run": " ".join(["understudy", *about["command"][1:]]),
        "versions": {name: about[name] for name in ("understudy", "torch", "python", "device", "system")},
    }
    return told


def _median_episode(played: Segment, env: Env) -> Segment | None:
    """A copy of the episode of median return (the first where nothing is paid), as much as a page shows of it.

    None where it does not hold the full states that the env draws.
    """
    whole = played.view.whole
    if not hasattr(env, "draw") or whole is None or whole.shape[-1] != env.spec.whole:
        return None
    k = 0
    if played.rewards is not None:
        k = int(metrics.returns(played).sum(dim=1).sort(stable=True).indices[(len(whole) - 1) // 2])
    return tree_map(lambda x: x[k : k + 1, :SHOWN].clone(), played)


def scenes(policy: Policy, env: Env, seed: int = 0) -> list[Scene]:
    """One episode as pictures. Raises EnvError where the env draws none."""
    if not hasattr(env, "draw"):
        raise EnvError(f"{env.spec.title or type(env).__name__} has no pictures: its class offers no `draw`.")
    if isinstance(policy, AgentPolicy):
        fit(policy, env)
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
    known = told.get("env") or {"spec": {"title": spec.title}, "rules": {}}
    name = known["spec"]["title"]
    rules = {rule: value for rule, value in known["rules"].items() if rule in rules_of(name)}
    env = make_env(name, **rules)
    same = loop.describe(env) == told["env"] if told.get("env") else env.spec == spec
    if not same:
        raise EnvError(f"{folder}: its env {name!r} had other rules than are known of it. Say which env and rules.")
    return env


def fit(given: Demos | AgentPolicy, env: Env) -> None:
    """Raises DemosError where whoever was recorded, or learnt, saw or did other things than the agents of `env`."""
    kind = "the policy" if isinstance(given, AgentPolicy) else "demos"
    for name in ("agents", "obs", "action"):
        there, here = getattr(given.spec, name), getattr(env.spec, name)
        if there != here:
            raise DemosError(
                f"{kind} of {given.spec.title or 'an unnamed env'} {'does' if kind == 'the policy' else 'do'} not fit "
                f"{env.spec.title or 'this env'}: {name} is {there} there, {here} in the env."
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
