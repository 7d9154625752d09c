"""The tables of all names, and the few calls that most users need. A file never names code: names resolve here alone.

env = make_env("kitchen:cramped_room")
demos = record(env, episodes=64)                          # of the env's own scripted expert
run = train("bc", demos, env, folder="runs/cramped")      # the same call resumes
"""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib import import_module
from inspect import signature
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from torch import Tensor

from understudy.compiled import compiled
from understudy.core import config as settings
from understudy.core.errors import ConfigError, DemosError, EnvError, RunError, nearest
from understudy.core.files import sha256
from understudy.core.random import generator, split_seed
from understudy.core.scene import Scene
from understudy.core.tree import tree_leaves, tree_map
from understudy.core.types import Continuous, Env, Policy, Segment, View
from understudy.demos.demos import Demos
from understudy.evaluation import metrics
from understudy.evaluation import regret as strategic
from understudy.evaluation.diagnostics import diagnose
from understudy.evaluation.measured import SHOWN, Evaluation, report_of, text_of
from understudy.evaluation.plots import painted
from understudy.evaluation.regret import Regret
from understudy.evaluation.rewards import landscape
from understudy.maths.games import Deviations
from understudy.nets import fused
from understudy.nets.policy import AgentPolicy, build_policy
from understudy.nets.rewards import LearnedReward, load_reward, save_reward
from understudy.nets.saved import load_policy, save_policy
from understudy.rollout import Queried, Scripted, Uniform, choosing, play, score
from understudy.rollout import record as record_played
from understudy.runs import devices, loop
from understudy.runs.log import Row, read_lines
from understudy.runs.loop import Budget, Habits

__all__ = [
    "ALGORITHMS",
    "ENVS",
    "Evaluation",
    "Habits",
    "Regret",
    "Run",
    "algorithm_named",
    "asks",
    "env_of",
    "evaluate",
    "expert_of",
    "load_policy",
    "load_reward",
    "make_config",
    "make_env",
    "queried",
    "record",
    "regret",
    "report_of",
    "rules_of",
    "scenes",
    "text_of",
    "train",
    "video",
    "who",
]


class EnvEntry(NamedTuple):
    """Where an env is made, and where its scripted expert is."""

    module: str  # in understudy.envs
    make: str  # a dataclass or a function there
    expert: tuple[str, str]  # module and function: expert(env, view, noise) -> actions
    variant: str = ""  # the setting that may follow the name: kitchen:cramped_room


ALGORITHMS = {
    "bc": "understudy.algorithms.bc",
    "blades": "understudy.algorithms.blades",
    "dagger": "understudy.algorithms.dagger",
    "gmmil": "understudy.algorithms.gmmil",
    "iq": "understudy.algorithms.iq",
    "maairl": "understudy.algorithms.maairl",
    "magail": "understudy.algorithms.magail",
    "malice": "understudy.algorithms.malice",
    "maxent": "understudy.algorithms.maxent",
    "ppo": "understudy.algorithms.ppo",
    "pwil": "understudy.algorithms.pwil",
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
    "thicket": EnvEntry("tabular", "thicket", _TABULAR),
    "boids": EnvEntry("boids", "Boids", ("boids", "expert")),
}


@dataclass
class Run:
    """What training leaves: the policy to play with, and where it came from."""

    policy: AgentPolicy
    metrics: list[Row]  # one row for each line of the log, with the number of the `update`
    updates: int
    seconds: float  # of learning, over all resumptions
    stopped: str  # "updates", "minutes" or "finished"
    config: Any
    state: Any = field(repr=False)
    folder: Path | None = None


_HABITS = Habits()
Reward = Callable[[View, Tensor], Tensor]  # a `LearnedReward`, or any other
Expert = Policy | Callable[..., Any] | Path | str  # a policy, expert(env, view, noise) -> actions, or a run's folder


def make_env(name: str, **rules: Any) -> Env:
    """The env called `name`: `make_env("spread", agents=5)`, `make_env("kitchen:cramped_room")`.

    Raises:
        EnvError: no env has that name.
        ConfigError: the env has no such rule, or not with that value.
    """
    entry, variant = _entry(name)
    if variant:
        rules = {entry.variant: variant, **rules}
    for rule, value in rules.items():
        if _endless(value):
            raise ConfigError(f"{rule} of {name}: got {value}, and a finite number is meant.")
    return settings.from_dict(_maker(entry), rules, name)


def _endless(value: Any) -> bool:
    """A number, or a text that stands for one, that is infinite or NaN."""
    try:
        return not math.isfinite(float(value))
    except (ValueError, TypeError, OverflowError):
        return False


def rules_of(name: str) -> tuple[str, ...]:
    """The names of the settings that `make_env(name)` takes."""
    return tuple(signature(_maker(_entry(name)[0])).parameters)


def algorithm_named(name: str) -> ModuleType:
    """The module of an algorithm. Raises ConfigError for an unknown name."""
    if name not in ALGORITHMS:
        raise ConfigError(f"unknown algorithm {name!r}.{nearest(name, ALGORITHMS)}")
    return import_module(ALGORITHMS[name])


def asks(algorithm: str | ModuleType) -> bool:
    """Whether an algorithm asks an expert while it learns."""
    module = algorithm_named(algorithm) if isinstance(algorithm, str) else algorithm
    return getattr(module, "QUERIES", False)


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
    raise EnvError(
        f"{env.spec.title or type(env).__name__} ships no expert: give demos, or hand one in: expert(env, view, noise)."
    )


def record(
    env: Env,
    expert: Expert | None = None,
    episodes: int = 64,
    seed: int = 0,
    envs: int = 1024,
) -> Demos:
    """Whole episodes of `expert` in `env`.

    Args:
        expert: a policy, the folder of one, or a function `expert(env, view, noise) -> actions`; None: the one that
            ships with the env.
        envs: episodes played side by side, at most.
    """
    return record_played(env, as_policy(env, expert), episodes, generator(seed, "record"), envs)


def as_policy(env: Env, expert: Expert | None) -> Policy:
    """A policy as it is, a function as a policy, that of a run in a folder, the env's own expert for None."""
    if expert is None:
        return expert_of(env)
    if isinstance(expert, Path | str):
        expert = load_policy(expert)
    return expert if hasattr(expert, "act") else Scripted(env, expert)  # type: ignore[return-value, arg-type]


def queried(env: Env, expert: Expert | None = None) -> Queried:
    """`env` with `expert` to ask, for algorithms that query one.

    Raises:
        DemosError: the expert saw or did other things than the agents of `env`.
        EnvError: none was handed in, and none ships with the env.
    """
    policy = as_policy(env, expert)
    if isinstance(policy, AgentPolicy):
        fit(policy, env)
    return Queried(env, policy, who(policy))


def who(policy: Any) -> str:
    """A name that is another for another expert: a function's, or that of the weights of a network."""
    if isinstance(policy, AgentPolicy):
        pieces = (f"{name} {tensor.tolist()}" for name, tensor in sorted(policy.state_dict().items()))
        return f"policy {sha256(repr((policy.config, *pieces)).encode())}"
    who = policy.expert if isinstance(policy, Scripted) else type(policy)
    return f"{who.__module__}.{who.__qualname__}" if hasattr(who, "__qualname__") else type(who).__qualname__


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
    expert: Expert | None = None,
    compile: bool = False,
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
        expert: whom algorithms that query may ask: a policy, the folder of one, or a function
            `expert(env, view, noise) -> actions`; None: the one that ships with the env.
        compile: play in `compiled.compiled(env)`: after seconds of compiling, steps take half of the time or less;
            their last bits are others. Kitchens on the CPU are compiled anyhow, and stay as they are.

    Raises:
        ConfigError, DemosError, EnvError: what was handed in does not fit the algorithm.
        RunError: the folder holds another run, or cannot be written.
    """
    module = algorithm_named(algorithm) if isinstance(algorithm, str) else algorithm
    config = make_config(module, config)
    if demos is not None:
        _expect_something(demos)
    if demos is not None and env is not None:
        fit(demos, env)
    if expert is not None and not asks(module):
        raise ConfigError(f"expert: {_short(module)} asks nobody. Leave the expert out, or record it: `record`.")
    if asks(module) and env is not None:
        env = queried(env, expert)
    if compile and env is not None:
        device = devices.choose(habits.device)
        env = replace(env, env=compiled(env.env, device)) if isinstance(env, Queried) else compiled(env, device)
    try:
        outcome = loop.run(
            module, config, demos, env,
            name=_short(module), folder=folder, budget=Budget(updates, minutes),
            seed=seed, habits=habits, evaluate=evaluate, about={"fused": fused.status()},
        )  # fmt: skip
    except loop.Interrupted as stopped:
        _policy(module, stopped.state, folder)
        _reward(module, config, stopped.state, folder)
        raise
    policy = _policy(module, outcome.state, folder)
    _reward(module, config, outcome.state, folder)
    where = None if folder is None else Path(folder)
    return Run(policy, outcome.metrics, outcome.updates, outcome.seconds, outcome.stopped, config, outcome.state, where)


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
    policies that have probabilities, and are fair for episodes held out of training. In tabular games `regret` is what
    one agent could gain by leaving the policy (see `regret`).

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
    if (
        hasattr(env, "transition")
        and env.spec.horizon
        and isinstance(player, AgentPolicy)
        and not player.config.has_past
    ):
        measured: dict[str, Any] = {"": player, "random ": guess}
        measured |= {"demonstrated ": expert_of(env)} if demos is None else {}
        figures |= {f"{side}regret": strategic.exact(who, env)["regret"] for side, who in measured.items()}
    fingerprint, notes = demonstrated.fingerprint(), diagnose(run.get("metrics", ()))
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


def regret(
    policy: Policy | Run,
    env: Env,
    expert: Policy | None = None,
    *,
    exact: bool | None = None,
    deviations: Deviations = "swap",
    discount: float = 1.0,
    algorithm: str = "ppo",
    config: Any = None,
    updates: int = 100,
    seeds: int = 1,
    episodes: int = 1000,
    seed: int = 1,
) -> Regret:
    """What agents could gain by leaving `policy` while the others follow it (`evaluation.regret`).

    Args:
        expert: against whom the gaps of exact figures are taken; None: the game's own, where it has one.
        exact: from the tables of the game. None: wherever it has tables and the policy remembers nothing.
        deviations, discount: of exact figures: "swap" hears what it was told to do, "external" does not.
        algorithm, config, updates, seeds: how the replies are trained that bound the gains elsewhere.
        episodes: that each is measured with.

    Raises:
        EnvError: exact figures were asked for, and the game or the policy has no table.
    """
    player: Any = policy.policy if isinstance(policy, Run) else policy
    if exact is None:
        exact = hasattr(env, "transition") and not _remembers(player)
    if exact:
        if expert is None and getattr(env, "play", None) is not None:
            expert = expert_of(env)
        return strategic.exact(player, env, expert, deviations, discount)
    if expert is not None:
        raise ConfigError("expert: gaps are told of exact figures alone. Measure the expert by a call of its own.")
    module = algorithm_named(algorithm)
    settled = make_config(module, config)

    def reply(alone: Env, number: int) -> Policy:
        outcome = loop.run(
            module, settled, None, alone,
            budget=Budget(updates), seed=split_seed(seed, "reply", number), habits=Habits(show=False),
        )  # fmt: skip
        return _policy(module, outcome.state, None)

    steps = updates * getattr(settled, "envs", 1) * getattr(settled, "segment", 1)
    budget = f"{updates:,} updates of {algorithm} ({steps:,} steps)"
    return strategic.learned(player, env, reply, generator(seed, "regret"), budget, seeds, episodes)


def _remembers(policy: Any) -> bool:
    return next(tree_leaves(policy.start(1)), None) is not None


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
    with _telling(Path(policy) / "run.json") as known:
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


@contextmanager
def _telling(path: Path) -> Iterator[dict[str, Any]]:
    """What `run.json` says. Raises RunError where the block does not find in it what a run tells."""
    try:
        yield settings.read(path)
    except (KeyError, TypeError, AttributeError) as error:
        raise RunError(f"{path} was changed or damaged: it does not tell what a run tells ({error!r}).") from None


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


def scenes(policy: Policy, env: Env, seed: int = 0, reward: Reward | None = None, agent: int = 0) -> list[Scene]:
    """One episode as pictures.

    Args:
        reward: painted into each picture: what `agent` would be paid wherever it might stand, all else as it is.

    Raises:
        EnvError: the env draws none, or its agents stand nowhere in the plane.
    """
    if not hasattr(env, "draw"):
        raise EnvError(f"{env.spec.title or type(env).__name__} has no pictures: its class offers no `draw`.")
    for learned in (policy, reward):
        if isinstance(learned, AgentPolicy | LearnedReward):
            fit(learned, env)
    played = play(env, policy, 1, generator(seed, "scenes"))
    assert played.view.whole is not None and played.next_view is not None and played.next_view.whole is not None
    moments = (*played.view.whole[0], played.next_view.whole[0, -1])
    if reward is None:
        return [env.draw(whole) for whole in moments]
    return [painted(env.draw(whole), landscape(reward, env, whole, agent), env.spec.names[agent]) for whole in moments]


def video(
    policy: Policy, env: Env, path: Path | str, seed: int = 0, reward: Reward | None = None, agent: int = 0
) -> Path:
    """One episode as a .mp4, .gif or .png file, as `scenes`. Raises MissingExtra without the extra `video`."""
    from understudy.evaluation.video import save_video

    return save_video(path, scenes(policy, env, seed, reward, agent), dt=env.spec.dt or 0.1)


def env_of(folder: Path | str) -> Env:
    """The env that the run in `folder` played in; for a run on recordings alone, the env that they name.

    Raises:
        EnvError: it cannot be made again from names and plain rules, or would not be the same.
    """
    path = Path(folder) / "run.json"
    if not path.exists():
        raise RunError(f"{folder}: no run is here. Train one, or look for a slip in its name.")
    spec = load_policy(folder).spec
    with _telling(path) as told:
        known = told.get("env") or {"spec": {"title": spec.title}, "rules": {}}
        name = known["spec"]["title"]
        taken = rules_of(name)
        rules = {rule: value for rule, value in known["rules"].items() if rule in taken}
    env = make_env(name, **rules)
    for more in ("expert", "compiled"):  # whom it asked and how it was computed are no rules of the game
        known.pop(more, None)
    same = loop.describe(env) == known if told.get("env") else env.spec == spec
    if not same:
        raise EnvError(f"{folder}: its env {name!r} had other rules than are known of it. Say which env and rules.")
    return env


def fit(given: Demos | AgentPolicy | LearnedReward, env: Env) -> None:
    """Raises DemosError where whoever was recorded, or learnt, saw or did other things than the agents of `env`."""
    kind = {AgentPolicy: "the policy", LearnedReward: "the reward"}.get(type(given), "demos")
    for name in ("agents", "obs", "action"):
        there, here = getattr(given.spec, name), getattr(env.spec, name)
        if there != here:
            raise DemosError(
                f"{kind} of {given.spec.title or 'an unnamed env'} {'do' if kind == 'demos' else 'does'} not fit "
                f"{env.spec.title or 'this env'}: {name} is {there} there, {here} in the env."
            )


def _expect_something(demos: Demos) -> None:
    """Raises DemosError where there are recordings, and yet nothing in them counts. None at all: algorithms decide."""
    if len(demos) and not bool((demos.weights > 0).any()):
        raise DemosError("demos: all episodes weigh 0, so none is learnt from. Weigh some more than 0 (`reweighted`).")
    if len(demos) and not any(episode.present is None or bool(episode.present.any()) for episode in demos):
        raise DemosError("demos: nobody is ever there. `present` is true where an agent is: is it the wrong way round?")


def grown(policy: AgentPolicy, env: Env) -> AgentPolicy | None:
    """The same weights for the agents of `env`, more or fewer of the same roles; None where they do not fit."""
    other = build_policy(policy.config, env.spec, generator(0, "weights that are replaced"))
    try:
        other.load_state_dict(policy.state_dict())
    except RuntimeError:
        return None
    return other


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


def _reward(algorithm: ModuleType, config: Any, state: Any, folder: Path | str | None) -> None:
    """Save what was learnt to be paid for beside the policy, where the method keeps such a reward."""
    if folder is None or not hasattr(algorithm, "learned_reward"):
        return
    try:
        save_reward(algorithm.learned_reward(config, state), folder)
    except ConfigError:  # with these settings it has none that could be kept
        return


def _short(algorithm: ModuleType) -> str:
    return algorithm.__name__.rpartition(".")[2]
