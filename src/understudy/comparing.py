"""Methods side by side on one's own env and demonstrations: `understudy compare bc magail --env spread`.

Every combination of method, number of demonstrations, noise and seed is a run in a folder of its own, trained and then
measured. A comparison that was stopped goes on where it was; what was measured is not measured again.
"""

import multiprocessing
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch

from understudy import api
from understudy.core import config as settings
from understudy.core.errors import ConfigError, DemosError, EnvError
from understudy.core.files import to_json, write_atomically
from understudy.core.random import generator
from understudy.core.types import Continuous, Env, Policy, Segment, View
from understudy.demos import Demos
from understudy.evaluation import metrics
from understudy.evaluation.compared import Comparison, Trial, growth
from understudy.evaluation.partners import cross_play, seated
from understudy.maths.stats import Estimate, estimate
from understudy.rollout import Team, Uniform, play, score
from understudy.runs import loop

HELD_OUT = 0.2  # share of the demonstrations that nobody learns from
TENTHS = 10


@dataclass(frozen=True)
class Plan:
    """What is compared, and for how long each run may learn."""

    methods: tuple[str, ...]
    counts: tuple[int, ...] = (1, 5, 50)  # demonstrations learnt from
    noise: tuple[float, ...] = (0.0,)  # shares of the recorded actions that are replaced by random ones
    seeds: int = 3
    updates: int | None = None  # of each run
    minutes: float | None = None  # of each run; needed by methods that never stop by themselves
    episodes: int = 200  # played to measure each run
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # of a method, other than its defaults

    def __post_init__(self) -> None:
        for name in ("methods", "counts", "noise"):
            given = getattr(self, name)
            if not given or len(set(given)) < len(given):
                raise ConfigError(f"{name}: got {given}, but one or more different ones are compared.")
        if min(self.counts) < 1 or self.seeds < 1 or self.episodes < 2:
            raise ConfigError(f"counts={self.counts}, seeds={self.seeds}, episodes={self.episodes}: too few.")
        if not all(0 <= share <= 1 for share in self.noise):
            raise ConfigError(f"noise: got {self.noise}, but each is a share of the actions: 0 to 1.")
        for method in (*self.methods, *self.settings):
            api.make_config(api.algorithm_named(method), self.settings.get(method))
        endless = [m for m in self.methods if not hasattr(api.algorithm_named(m), "finished")]
        if endless and self.updates is None and self.minutes is None:
            raise ConfigError(f"minutes: {', '.join(endless)} never stop by themselves. Give minutes, or updates.")


@dataclass(frozen=True)
class _Task:
    """One run, as it is handed to a process."""

    method: str
    demos: int
    noise: float
    seed: int
    folder: Path


def compare(
    env: Env,
    demos: Demos | None,
    plan: Plan,
    folder: Path | str,
    expert: Policy | None = None,
    workers: int = 1,
    seed: int = 0,
) -> Comparison:
    """Train and measure all that `plan` names; the same call resumes.

    The demonstrations are shuffled by `seed`; a fifth of them is held out, and each run learns from the first of the
    rest in an order of its own seed, so that more demonstrations are always those of fewer, and others besides.

    Args:
        demos: None: recorded of the expert, a quarter more than the largest count.
        expert: who sits in the other seats; None: the one that ships with the env, or nobody where it has none.
        workers: runs at the same time, each in a process of one thread.

    Raises:
        ConfigError: there are not enough demonstrations for the largest count.
        RunError: the folder holds another comparison.
    """
    where = Path(folder)
    expert = expert or _own_expert(env)
    if demos is None:
        if expert is None:
            raise EnvError(f"{env.spec.title or 'this env'} ships no expert to record: hand in demonstrations.")
        demos = api.record(env, expert, max(plan.counts) + max(4, max(plan.counts) // 4), seed)
    api.fit(demos, env)
    kept, held = demos.split(HELD_OUT, seed) if len(demos) >= 5 else (demos, None)
    if max(plan.counts) > len(kept):
        raise ConfigError(
            f"counts: {max(plan.counts)} demonstrations are asked for, but of {len(demos)} there are {len(kept)} to "
            f"learn from ({len(demos) - len(kept)} are held out). Record more, or ask for fewer."
        )
    tasks = [
        _Task(method, count, share, k, where / f"{method}-{count}-{share:g}-{k}")
        for method, share, count, k in product(plan.methods, plan.noise, plan.counts, range(plan.seeds))
    ]
    job = partial(_trial, env=env, kept=kept, held=held, plan=plan, expert=expert)
    if workers == 1:
        trials = [job(task) for task in tasks]
    else:
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, spawn, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            trials = list(pool.map(job, tasks))
    notes = []
    if len(set(env.spec.teams)) > 1 and expert is None:
        notes.append("Nobody plays against the learners but themselves, for there is no expert: scores flatter them.")
    return Comparison(
        env=env.spec.title or type(env).__name__,
        trials=trials,
        cross_play=_strangers(env, kept, plan, tasks, trials),
        notes=notes,
        provenance={
            "env": env.spec.title,
            "rules": loop.describe(env)["rules"],
            "demonstrations": f"{len(kept)} to learn from, {0 if held is None else len(held)} held out",
            "fingerprint of the recordings": demos.fingerprint(),
            "plan": settings.to_dict(plan),
            "torch": torch.__version__,
        },
    )


def mislabelled(demos: Demos, share: float, seed: int) -> Demos:
    """The same demonstrations with a `share` of the actions replaced by random (legal) ones.

    What was perceived stays as it was, so this is noise of the hand that records, not of play that went astray.
    """
    if not share:
        return demos
    draws, guess, changed = generator(seed, "mislabelled"), Uniform(demos.spec), []
    for episode in demos:
        view = View(episode.obs[:-1].float(), legal=None if episode.legal is None else episode.legal[:-1])
        random, _ = guess.act(view, (), torch.rand(*view.obs.shape[:2], guess.noise, generator=draws))
        hit = torch.rand(view.obs.shape[:2], generator=draws) < share
        hit = hit.reshape(*hit.shape, *(1,) * (episode.actions.dim() - 2))
        changed.append(replace(episode, actions=torch.where(hit, random.to(episode.actions.dtype), episode.actions)))
    return Demos.from_episodes(demos.spec, changed, demos.about)


def _chosen(kept: Demos, count: int, seed: int) -> list[int]:
    """Which demonstrations a run of `seed` learns from: those of a smaller count come first in a larger one."""
    return torch.randperm(len(kept), generator=generator(seed, "demonstrations"))[:count].tolist()


def _trial(task: _Task, env: Env, kept: Demos, held: Demos | None, plan: Plan, expert: Policy | None) -> Trial:
    """Train and measure one run, or read what was measured of it."""
    given = plan.settings.get(task.method)
    demos = mislabelled(kept.select(_chosen(kept, task.demos, task.seed)), task.noise, task.seed)
    asked = settings.to_dict(
        {
            "settings": api.make_config(api.algorithm_named(task.method), given),
            "budget": [plan.updates, plan.minutes],
            "episodes": plan.episodes,
            "demos": demos.fingerprint(),
            "held": None if held is None else held.fingerprint(),
            "env": loop.describe(env),
        }
    )
    path = task.folder / "trial.json"
    if path.exists():
        known = settings.read(path)
        if known.get("asked") == asked:
            return Trial(**known["trial"])
    trial = Trial(task.method, task.demos, task.noise, task.seed)
    try:
        run = api.train(
            task.method, demos, env, config=given, updates=plan.updates, minutes=plan.minutes,
            folder=task.folder, seed=task.seed, habits=api.Habits(threads=1, show=False),
            expert=expert if api.asks(task.method) else None,
        )  # fmt: skip
        figures, missing = _measured(run.policy, env, demos, held, kept, expert, plan.episodes)
        trial = replace(trial, figures={**figures, "minutes": run.seconds / 60}, missing=missing)
    except (ConfigError, DemosError, EnvError) as error:  # the method cannot do this; the others still can
        trial = replace(trial, refused=str(error))
    task.folder.mkdir(parents=True, exist_ok=True)  # who is refused at once has made none
    write_atomically(path, to_json({"asked": asked, "trial": asdict(trial)}, indent=1))
    return trial


def _measured(
    policy: Any, env: Env, demos: Demos, held: Demos | None, all_demos: Demos, expert: Policy | None, episodes: int
) -> tuple[dict[str, float], list[float]]:
    """Score, likelihoods and distances of one learner, and the return that it misses by each tenth of the horizon."""
    figures: dict[str, float] = {}
    missing: list[float] = []
    demonstrated = all_demos.padded()
    if demonstrated.rewards is not None:
        scores, lacks = [], []
        for team in dict.fromkeys(env.spec.teams):
            earned = _team(policy, env, demonstrated, expert, episodes, team)
            if earned is not None:
                scores.append(earned[0])
                lacks.append(earned[1])
        if scores:
            figures["score"] = sum(scores) / len(scores)
            missing = torch.stack(lacks).mean(0).tolist()
            figures["growth"] = growth(missing)
        if expert is not None and env.spec.agents > 1 and len(set(env.spec.teams)) == 1:
            figures |= _among_experts(policy, env, demonstrated, expert, episodes)
    figures["seen"] = float(score(policy, demos).mean)
    if held is not None:
        found = score(policy, held)
        figures["held out"] = float(found.mean)
        if not isinstance(env.spec.action, Continuous):
            figures["accuracy"] = float(found.accuracy)
    return {name: value for name, value in figures.items() if value == value}, missing


def _team(
    policy: Policy, env: Env, demonstrated: Segment, expert: Policy | None, episodes: int, team: str
) -> tuple[float, torch.Tensor] | None:
    """Score of the learner in the seats of one team against experts, and what it misses by each tenth.

    None where the demonstrators of that team earn what random play earns.
    """
    mine = torch.tensor([t == team for t in env.spec.teams])
    others = policy if expert is None else expert
    seats = tuple(int(m) for m in mine.tolist())
    learned, random = (
        _by_tenth(play(env, Team((others, who), seats), episodes, generator(1, "seated")), mine, env)
        for who in (policy, Uniform(env.spec))
    )
    shown = _by_tenth(demonstrated, mine, env)
    scale = shown[-1] - random[-1]
    if scale.abs() < 1e-9:
        return None
    return float((learned[-1] - random[-1]) / scale), (shown - learned) / scale


def _by_tenth(played: Segment, mine: torch.Tensor, env: Env) -> torch.Tensor:
    """Mean return so far of the agents `mine` at each tenth of the horizon, [tenth]."""
    assert played.rewards is not None
    rewards = (played.rewards * metrics.acting(played))[:, :, mine].double().mean(dim=(0, 2))
    horizon = env.spec.horizon or len(rewards)
    ends = [min(max(1, round(horizon * (k + 1) / TENTHS)), len(rewards)) for k in range(TENTHS)]
    return rewards.cumsum(0)[torch.tensor(ends) - 1]


def _among_experts(policy: Policy, env: Env, demonstrated: Segment, expert: Policy, episodes: int) -> dict[str, float]:
    """Score where one seat is the learner's and the others are experts', every seat in turn."""
    agents, each = env.spec.agents, max(2, episodes // env.spec.agents)
    random = float(seated(env, (Uniform(env.spec),), (0,) * agents, episodes, 1).mean())
    shown = float(metrics.returns(demonstrated).mean())
    if abs(shown - random) < 1e-9:
        return {}
    seats = [tuple(int(i == chair) for i in range(agents)) for chair in range(agents)]
    got = sum(float(seated(env, (expert, policy), s, each, 2).mean()) for s in seats) / agents
    return {"among experts": (got - random) / (shown - random)}


def _strangers(
    env: Env, kept: Demos, plan: Plan, tasks: Sequence[_Task], trials: Sequence[Trial]
) -> dict[str, Estimate]:
    """Score of each method's learners with one seat taken by a learner of another seed; games of one team alone."""
    spec, demonstrated = env.spec, kept.padded()
    if spec.agents < 2 or len(set(spec.teams)) > 1 or plan.seeds < 2 or demonstrated.rewards is None:
        return {}
    random = float(seated(env, (Uniform(spec),), (0,) * spec.agents, plan.episodes, 1).mean())
    shown, found = float(metrics.returns(demonstrated).mean()), {}
    if abs(shown - random) < 1e-9:
        return {}
    for method in plan.methods:
        folders = [
            task.folder
            for task, trial in zip(tasks, trials, strict=True)
            if (task.method, task.demos, task.noise) == (method, max(plan.counts), min(plan.noise))
            and not trial.refused
        ]
        if len(folders) > 1:
            teams = [api.load_policy(folder) for folder in folders]
            earned = cross_play(env, teams, max(2, plan.episodes // spec.agents), 3).mean(-1)
            apart = ~torch.eye(len(teams), dtype=torch.bool)
            found[method] = estimate((earned[apart] - random) / (shown - random), generator(0, "strangers", method))
    return found


def _own_expert(env: Env) -> Policy | None:
    try:
        return api.expert_of(env)
    except EnvError:
        return None
