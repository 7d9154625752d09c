"""Methods side by side on one's own env and demonstrations: `understudy compare bc magail --env spread`.

Every combination of method, number of demonstrations, noise and seed is a run in a folder of its own, trained and then
measured. A comparison that was stopped goes on where it was; what was measured is not measured again.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from understudy import api
from understudy.core import config as settings
from understudy.core.errors import ConfigError, DemosError, Diverged, EnvError, RunError, UnderstudyError
from understudy.core.files import to_json, write_atomically
from understudy.core.random import generator, split_seed
from understudy.core.types import Continuous, Env, Policy, Segment, View
from understudy.demos import Demos
from understudy.evaluation import metrics
from understudy.evaluation.compared import Comparison, Trial, growth
from understudy.evaluation.partners import cross_play, seated
from understudy.maths.stats import Estimate, over_seeds
from understudy.rollout import Scripted, Team, Uniform, play, score, starts_of
from understudy.runs import loop
from understudy.runs.many import side_by_side

HELD_OUT = 0.2  # share of given demonstrations that nobody learns from
ANCHORED = 1000  # episodes of the expert that stand for the demonstrators, where it is they
BLOCK = 16  # episodes recorded at once: more demonstrations begin with the same ones
TENTHS = 10
FIGURES = 2  # what is measured of a run: with another number it is measured anew


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
        if self.updates is not None and self.updates < 1:
            raise ConfigError(f"updates: got {self.updates}, but a run needs one or more.")
        if self.minutes is not None and not 0 < self.minutes < math.inf:
            raise ConfigError(f"minutes: got {self.minutes}, but a run needs some: a number above 0.")
        for method in (*self.methods, *self.settings):
            api.make_config(api.algorithm_named(method), self.settings.get(method))
        endless = [m for m in self.methods if not hasattr(api.algorithm_named(m), "finished")]
        if endless and self.updates is None and self.minutes is None:
            raise ConfigError(f"minutes: without end learn {', '.join(endless)}. Give minutes, or updates.")


@dataclass(frozen=True)
class _Task:
    """One run, as it is handed to a process."""

    method: str
    demos: int
    noise: float
    seed: int
    folder: Path


@dataclass(frozen=True)
class _Given:
    """Demonstrations as they were handed in: each run learns from the first of them in an order of its own seed."""

    kept: Demos

    def chosen(self, count: int, seed: int) -> Demos:
        order = torch.randperm(len(self.kept), generator=generator(seed, "demonstrations"))
        return self.kept.select(order[:count])


@dataclass(frozen=True)
class _Recorded:
    """Demonstrations of the expert, of each seed its own. More of them begin with those of fewer."""

    env: Env
    expert: Policy
    seed: int

    def chosen(self, count: int, seed: int) -> Demos:
        blocks = [
            api.record(self.env, self.expert, BLOCK, split_seed(self.seed, "demonstrations", seed, k))
            for k in range(math.ceil(count / BLOCK))
        ]
        episodes = [episode for block in blocks for episode in block]
        return Demos.from_episodes(self.env.spec, episodes[:count], blocks[0].about)


@dataclass(frozen=True)
class _Scene:
    """What every trial is measured in and against."""

    env: Env
    demos: _Given | _Recorded
    held: Demos | None  # nobody learns from them
    shown: Segment  # the demonstrators' play that is a score of 1
    expert: Policy | None
    told: Mapping[str, Any]  # plain data that differ where a measurement would
    sizes: tuple["_Scene", ...] = ()  # teams of other sizes
    alone: str = ""  # why there are none


def compare(
    env: Env,
    demos: Demos | None,
    plan: Plan,
    folder: Path | str,
    expert: api.Expert | None = None,
    workers: int = 1,
    seed: int = 0,
) -> Comparison:
    """Train and measure all that `plan` names; the same call resumes.

    Args:
        demos: a fifth of them is held out; each run learns from the first of the rest in an order of its own seed, so
            that more demonstrations are always those of fewer and others besides. None: the expert is recorded, anew
            for each seed.
        expert: who sits in the other seats, and is asked by methods that ask; None: the one that ships with the env,
            or nobody where it has none.
        workers: runs at the same time, each in a process of one thread.
        seed: of what is held out, or recorded.

    Raises:
        ConfigError: there are not enough demonstrations for the largest count, or they are longer than episodes are.
        RunError: the folder holds another comparison, or one of longer runs.
    """
    if workers < 1:
        raise ConfigError(f"workers: got {workers}, but somebody must do the work: 1 or more.")
    where, scene = Path(folder), _scene(env, demos, plan, expert, seed)
    sizes, alone = _sizes(scene, plan.episodes, seed)
    scene = replace(scene, sizes=sizes, alone=alone)
    tasks = [
        _Task(method, count, share, k, where / f"{method}-{count}-{share:g}-{k}")
        for method, share, count, k in product(plan.methods, plan.noise, plan.counts, range(plan.seeds))
    ]
    trials = side_by_side(partial(_trial, scene=scene, plan=plan), tasks, workers)
    return Comparison(
        env=env.spec.title or type(env).__name__,
        trials=trials,
        cross_play=_strangers(scene, plan, tasks, trials),
        notes=_notes(scene),
        provenance={
            "env": env.spec.title,
            "rules": loop.describe(env)["rules"],
            "plan": settings.to_dict(plan),
            "seed": seed,
            **scene.told,
            "torch": torch.__version__,
        },
    )


def _scene(env: Env, demos: Demos | None, plan: Plan, expert: api.Expert | None, seed: int) -> _Scene:
    try:
        other = api.as_policy(env, expert)
    except EnvError:
        other = None
    who = None if other is None else api.who(other)
    if demos is None:
        if other is None:
            raise EnvError(f"{env.spec.title or 'this env'} ships no expert to record: hand in demonstrations.")
        shown = play(env, other, ANCHORED, generator(seed, "shown"))
        unseen = api.record(env, other, 50, split_seed(seed, "held out"))
        return _Scene(env, _Recorded(env, other, seed), unseen, shown, other, {"demonstrators": who, "expert": who})
    api.fit(demos, env)
    longest, horizon = int(demos.lengths.max()), env.spec.horizon
    if horizon is not None and longest > horizon:
        raise ConfigError(
            f"demos: they are of up to {longest:,} steps, but here an episode ends after {horizon:,}, and returns of "
            f"different times cannot be compared. Compare under the rule horizon={longest}."
        )
    kept, held = demos, None
    if len(demos) >= 5:
        kept, held = demos.split(HELD_OUT, seed)
    if max(plan.counts) > len(kept):
        raise ConfigError(
            f"counts: {max(plan.counts)} demonstrations are asked for, but of {len(demos)} there are {len(kept)} to "
            f"learn from ({len(demos) - len(kept)} are held out). Record more, or ask for fewer."
        )
    told = {"demonstrators": demos.fingerprint(), "held out": 0 if held is None else len(held), "expert": who}
    return _Scene(env, _Given(kept), held, demos.padded(), other, told)


def _sizes(scene: _Scene, episodes: int, seed: int) -> tuple[tuple[_Scene, ...], str]:
    """The same rules for other numbers of agents, or why there are none: who learnt here must be able to play there."""
    env = cast(Any, scene.env)
    if "agents" not in getattr(env, "__dataclass_fields__", ()):
        return (), "the env's rules name no number of agents"
    spec, count, found, why = env.spec, env.agents, [], ""
    for other in sorted({max(1, count - 1), count + 1, 2 * count} - {count}):
        try:
            there = replace(env, agents=other)
            size = there.spec
        except UnderstudyError as error:
            why = str(error)
            continue
        if (size.obs, size.action) != (spec.obs, spec.action):
            why = f"obs grow with agents: {spec.obs} numbers for {spec.agents}, {size.obs} for {size.agents}"
        elif not set(size.roles) <= set(spec.roles):
            why = (
                f"a team of {size.agents} has roles that nobody learnt: {', '.join(set(size.roles) - set(spec.roles))}"
            )
        elif not isinstance(scene.expert, Scripted):
            why = "what demonstrators would earn there is not known without a script that plays there too"
        else:
            expert = replace(scene.expert, env=there)
            shown = play(there, expert, max(episodes, ANCHORED // 4), generator(seed, "shown", other))
            found.append(replace(scene, env=there, expert=expert, shown=shown, held=None))
    return tuple(found), "" if found else why


def _notes(scene: _Scene) -> list[str]:
    """What the reader must know to take the scores rightly."""
    notes = []
    if len(set(scene.env.spec.teams)) > 1 and scene.expert is None:
        notes.append("There is no expert to play against, and a score against oneself means nothing: there is none.")
    if scene.shown.rewards is not None:
        if isinstance(scene.demos, _Given):
            paid = metrics.returns(scene.shown).double().mean(1)
            off = float(paid.std() / math.sqrt(len(paid))) if len(paid) > 1 else math.inf
            notes.append(
                f"A score of 1 is a return of {float(paid.mean()):.4g}, the mean of {len(paid)} demonstrations, give "
                f"or take {off:.2g} (standard error): all scores share that."
            )
        begun = _begun(scene.env, scene.demos.chosen(1, 0))
        if isinstance(begun, str):
            notes.append(f"Score on the starts learnt from is not known: {begun}.")
    if scene.env.spec.agents > 1 and scene.alone:
        notes.append(f"Teams of other sizes are not tried: {scene.alone}.")
    return notes


def _begun(env: Env, demos: Demos) -> Tensor | str:
    """Noise of the resets that demonstrations began with, or why it is not known.

    It counts as known where this env, reset with it, shows what was recorded: it may be of other rules.
    """
    if not env.spec.reset_noise:
        return "all episodes of this env begin alike"
    starts = starts_of(demos)
    if starts is None or starts.shape[1] != env.spec.reset_noise:
        return "the recordings do not tell how they began (`understudy record` notes it)"
    if hasattr(env, "restart"):
        return "a foreign simulator is not reset to look"
    first = torch.stack([episode.obs[0].float() for episode in demos])
    if not torch.allclose(env.observe(env.reset(starts)), first, atol=1e-5):
        return "reset as they were, this env begins otherwise than was recorded"
    return starts


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


# --- one run ---------------------------------------------------------------------------------------------------------


def _trial(task: _Task, scene: _Scene, plan: Plan) -> Trial:
    """Train and measure one run, or read what was measured of it."""
    given = plan.settings.get(task.method)
    demos = mislabelled(scene.demos.chosen(task.demos, task.seed), task.noise, task.seed)
    budget = {"updates": plan.updates, "minutes": plan.minutes}
    asked = settings.to_dict(
        {
            "figures": FIGURES,
            "settings": api.make_config(api.algorithm_named(task.method), given),
            "budget": budget,
            "episodes": plan.episodes,
            "demos": demos.fingerprint(),
            "env": loop.describe(scene.env),
            **scene.told,
        }
    )
    path = task.folder / "trial.json"
    if path.exists():
        before, known = _kept(path)
        if before == asked and not known.refused:
            return known
        _not_longer(task, before["budget"], budget)
    trial = Trial(task.method, task.demos, task.noise, task.seed)
    try:
        run = api.train(
            task.method, demos, scene.env, config=given, updates=plan.updates, minutes=plan.minutes,
            folder=task.folder, seed=task.seed, habits=loop.QUIET,
            expert=scene.expert if api.asks(task.method) else None,
        )  # fmt: skip
        _not_longer(task, {"updates": run.updates, "minutes": None}, budget)
        figures, missing = _measured(run.policy, scene, demos, plan.episodes)
        trial = replace(trial, figures={**figures, "minutes": run.seconds / 60}, missing=missing)
    except (ConfigError, DemosError, EnvError, Diverged) as error:  # the method cannot do this; the others still can
        trial = replace(trial, refused=str(error))
    task.folder.mkdir(parents=True, exist_ok=True)  # who is refused at once has made none
    write_atomically(path, to_json({"asked": asked, "trial": asdict(trial)}, indent=1))
    return trial


def _kept(path: Path) -> tuple[Mapping[str, Any], Trial]:
    """What a trial on disk was asked for, and what was measured of it."""
    try:
        told = settings.read(path)
        asked, trial = told["asked"], Trial(**told["trial"])
        figures = {name: float(value) for name, value in trial.figures.items()}
        _ = [asked["budget"][name] for name in ("updates", "minutes")]
        return asked, replace(trial, figures=figures, missing=[float(lack) for lack in trial.missing])
    except (ConfigError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise RunError(
            f"{path} was changed or damaged ({error!r}). Delete it: its run is then measured anew, not trained again."
        ) from None


def _not_longer(task: _Task, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """A run that learnt for longer cannot be taken for a shorter one."""
    for name, limit in now.items():
        if limit is not None and before[name] is not None and before[name] > limit:
            raise RunError(
                f"{task.folder} holds a run of {before[name]:g} {name}, longer than the {limit:g} that are asked for. "
                "Choose another folder."
            )


def _measured(policy: Any, scene: _Scene, demos: Demos, episodes: int) -> tuple[dict[str, float], list[float]]:
    """Score, likelihoods and partners of one learner, and the return that it misses by each tenth of the horizon."""
    env, figures, missing = scene.env, {}, []
    if found := _teams(policy, scene, episodes, demos):
        figures["score"] = sum(team.score for team in found) / len(found)
        figures["score seen"] = sum(team.seen for team in found) / len(found)
        missing = torch.stack([team.missing for team in found]).mean(0).tolist()
        figures["growth"] = growth(missing)
    if scene.shown.rewards is not None and scene.expert is not None and env.spec.agents > 1 and _is_one_team(env):
        figures |= _among_experts(policy, scene, episodes)
    for other in scene.sizes:
        if (grown := api.grown(policy, other.env)) is not None and (found := _teams(grown, other, episodes)):
            figures[f"agents {other.env.spec.agents}"] = sum(team.score for team in found) / len(found)
    figures["seen"] = float(score(policy, demos).mean)
    if scene.held is not None:
        unseen = score(policy, scene.held)
        figures["held out"] = float(unseen.mean)
        if not isinstance(env.spec.action, Continuous):
            figures["accuracy"] = float(unseen.accuracy)
    return {name: value for name, value in figures.items() if math.isfinite(value)}, missing


def _is_one_team(env: Env) -> bool:
    return len(set(env.spec.teams)) == 1


class _Seated(NamedTuple):
    """How the learner does in the seats of one team, experts in the others."""

    score: float
    seen: float  # in episodes that begin where demonstrations began; NaN where that is not known
    missing: Float[Tensor, "tenth"]  # what it lacks by each tenth


def _teams(policy: Policy, scene: _Scene, episodes: int, demos: Demos | None = None) -> list[_Seated]:
    """Of every team whose play has a score. `demos`: what it learnt from."""
    teams = list(dict.fromkeys(scene.env.spec.teams))
    if scene.shown.rewards is None or (len(teams) > 1 and scene.expert is None):
        return []
    return [each for team in teams if (each := _team(policy, scene, episodes, team, demos)) is not None]


def _team(policy: Policy, scene: _Scene, episodes: int, team: str, demos: Demos | None = None) -> _Seated | None:
    """None where what the team's demonstrators earn cannot be told from what random play earns."""
    spec = scene.env.spec
    mine = torch.tensor([t == team for t in spec.teams])
    others = policy if scene.expert is None else scene.expert  # a single team has no others
    seats = tuple(int(m) for m in mine.tolist())
    learner = Team((others, policy), seats)
    learned, random = (
        play(scene.env, who, episodes, generator(1, "seated"))
        for who in (learner, Team((others, Uniform(spec)), seats))
    )
    if not _apart(metrics.returns(scene.shown)[:, mine].mean(1), metrics.returns(random)[:, mine].mean(1)):
        return None
    got, chance, shown = (_by_tenth(each, mine, spec.horizon) for each in (learned, random, scene.shown))
    scale, seen = shown[-1] - chance[-1], math.nan
    if demos is not None and isinstance(starts := _begun(scene.env, demos), Tensor):
        starts = starts[:episodes]
        times = max(1, episodes // len(starts))  # each start as often
        again = play(scene.env, learner, times * len(starts), generator(1, "seen"), starts=starts)
        lacks = demos.returns()[: len(starts), mine].double().mean() - metrics.returns(again)[:, mine].double().mean()
        seen = 1 - float(lacks / scale)
    return _Seated(float((got[-1] - chance[-1]) / scale), seen, (shown - got) / scale)


def _apart(one: Float[Tensor, "one"], other: Float[Tensor, "other"]) -> bool:
    """Two means lie more than three standard errors from each other."""
    errors = [each.double().var() / len(each) if len(each) > 1 else torch.tensor(0.0) for each in (one, other)]
    return float((one.double().mean() - other.double().mean()).abs()) > 3 * math.sqrt(float(sum(errors))) + 1e-9


def _by_tenth(played: Segment, mine: Bool[Tensor, "agent"], horizon: int | None) -> Float[Tensor, "tenth"]:
    """Mean return so far of the agents `mine` at each tenth of the horizon."""
    assert played.rewards is not None
    rewards = (played.rewards * metrics.acting(played))[:, :, mine].double().mean(dim=(0, 2))
    steps = horizon or len(rewards)
    ends = [min(max(1, round(steps * (k + 1) / TENTHS)), len(rewards)) for k in range(TENTHS)]
    return rewards.cumsum(0)[torch.tensor(ends) - 1]


def _among_experts(policy: Policy, scene: _Scene, episodes: int) -> dict[str, float]:
    """Score where one seat is the learner's and the others are experts', every seat in turn; 0: random play there."""
    assert scene.expert is not None
    env, agents, each = scene.env, scene.env.spec.agents, max(2, episodes // scene.env.spec.agents)
    seats = [tuple(int(i == chair) for i in range(agents)) for chair in range(agents)]
    learned, random, experts = (
        torch.cat([seated(env, (scene.expert, who), s, each, 2).mean(1) for s in seats])
        for who in (policy, Uniform(env.spec), scene.expert)
    )
    if not _apart(experts, random):
        return {}
    return {"among experts": float((learned.mean() - random.mean()) / (experts.mean() - random.mean()))}


# --- learners of several seeds ---------------------------------------------------------------------------------------


def _strangers(scene: _Scene, plan: Plan, tasks: Sequence[_Task], trials: Sequence[Trial]) -> dict[str, Estimate]:
    """Score of each method's learners with one seat taken by a learner of another seed; games of one team alone.

    A figure for each learner, as guest and host of all others; the interval is over learners.
    """
    spec = scene.env.spec
    if spec.agents < 2 or len(set(spec.teams)) > 1 or plan.seeds < 2 or scene.shown.rewards is None:
        return {}
    random = seated(scene.env, (Uniform(spec),), (0,) * spec.agents, plan.episodes, 1).mean(1)
    shown, found = metrics.returns(scene.shown).mean(1), {}
    if not _apart(shown, random):
        return {}
    for method in plan.methods:
        wanted = (method, max(plan.counts), min(plan.noise))
        folders = [
            task.folder
            for task, trial in zip(tasks, trials, strict=True)
            if (task.method, task.demos, task.noise) == wanted and not trial.refused
        ]
        if len(folders) > 1:
            teams = [api.load_policy(folder) for folder in folders]
            earned = cross_play(scene.env, teams, max(2, plan.episodes // spec.agents), 3).mean(-1)
            scores = (earned - random.mean()) / (shown.mean() - random.mean())
            met = (scores.sum(0) + scores.sum(1) - 2 * scores.diagonal()) / (2 * (len(teams) - 1))
            found[method] = over_seeds(met)
    return found
