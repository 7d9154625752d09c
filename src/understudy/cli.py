"""The command `understudy`. Flags and help are made from the dataclasses that hold the settings.

Nothing heavy is imported before a command is known: `understudy --help` answers at once.
"""

import os
import shlex
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from understudy.cli_words import parse, value_of

INTERRUPTED = 130  # what a shell expects after Ctrl-C
REFUSED = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0, 2 for what is refused, 128 + n after signal n."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    try:
        if not words or words[0] in ("-h", "--help"):
            print(_help())
            return 0
        return _command(words[0])(words[1:]) or 0
    except KeyboardInterrupt as stopped:
        print(f"\n{stopped}" if str(stopped) else "\nstopped", file=sys.stderr)
        return getattr(stopped, "exit_code", INTERRUPTED)
    except BrokenPipeError:  # whoever read our output has enough: `understudy envs | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except Exception as error:
        from understudy.core.errors import UnderstudyError

        if debug or not isinstance(error, UnderstudyError | OSError):
            raise
        from rich.console import Console
        from rich.text import Text

        what = _unopened(error) if isinstance(error, OSError) and not isinstance(error, UnderstudyError) else str(error)
        said = Text.assemble((f"{type(error).__name__}: ", "bold red"), what)
        Console(stderr=True).print(said, soft_wrap=True)
        return REFUSED


@dataclass(frozen=True)
class Record:
    """Record a scripted expert, or a policy, in an env."""

    env: str  # name of the env, such as spread or kitchen:cramped_room
    folder: Path  # where the recording is kept
    rule: tuple[str, ...] = ()  # a rule of the env, such as --rule horizon=100
    policy: Path | None = None  # folder of a run whose policy plays; the env's own expert where none is given
    episodes: int = 64
    seed: int = 0


def record(words: list[str]) -> None:
    given = parse(Record, words, "record")
    from understudy import api
    from understudy.core.errors import printable

    _still_free(given.folder)  # asked before an hour of play, not after it
    env = api.make_env(given.env, **_rules(given.rule))
    player = None if given.policy is None else api.load_policy(given.policy)
    demos = api.record(env, player, given.episodes, given.seed)
    demos.save(given.folder)
    returns = demos.returns().double().mean(dim=0)
    paid = ", ".join(f"{name} {mean:.2f}" for name, mean in zip(demos.spec.names, returns.tolist(), strict=True))
    print(printable(f"{given.folder}: {len(demos)} episodes, {demos.steps:,} steps; mean return of {paid}"))


def train(words: list[str]) -> None:
    from understudy import api

    if {"-h", "--help"} & set(words[:1]):
        print(f"usage: understudy train ALGORITHM FOLDER ...\n\nALGORITHM is one of {', '.join(api.ALGORITHMS)}.")
        print("`understudy train ALGORITHM --help` lists its settings.")
        return
    import tyro

    from understudy.core import config as settings
    from understudy.core.errors import ConfigError, RunError
    from understudy.runs.loop import Habits

    if not words or words[0].startswith("-"):
        known = ", ".join(api.ALGORITHMS)
        raise ConfigError(f"train: say first by which algorithm ({known}): understudy train bc FOLDER --demos DEMOS")

    name, *words = words
    algorithm = api.algorithm_named(name)
    Config: Any = algorithm.Config
    file = value_of(words, "--config")

    @dataclass(frozen=True)
    class Train:
        folder: Path  # where the run is kept; the same command resumes it
        resume: tyro.conf.FlagCreatePairsOff[bool] = False  # only go on: refuse a folder that holds no run
        config: Path | None = None  # a .toml or .json file with settings of the algorithm; flags overrule it
        demos: str | None = (
            None  # recordings to learn from: a folder, a file, or `people` (`people:train`) of a kitchen
        )
        env: str | None = None  # env to play in, such as spread or kitchen:cramped_room
        rule: tyro.conf.UseAppendAction[tuple[str, ...]] = ()  # a rule of the env, such as --rule horizon=100
        expert: Path | None = None  # folder of a run whose policy is asked; the env's own where none is given
        updates: int | None = None  # stop after so many
        minutes: float | None = None  # stop after so many
        seed: int = 0
        seeds: int | None = None  # so many runs, FOLDER/seed-0 and so on from --seed, side by side; None: one run
        workers: int | None = None  # of --seeds: runs at a time, each on one core; None: as many as there are cores
        compile: bool = False  # compile the env's step: for long runs in particle worlds
        run: Habits = field(default_factory=Habits)
        settings: Annotated[Config, tyro.conf.arg(name="")] = field(
            default_factory=lambda: Config() if file is None else settings.load(Config, file, f"{name} in {file}")
        )

    given = parse(Train, words, f"train {name}", algorithm.__doc__)
    runs = [given.folder] if given.seeds is None else sorted(given.folder.glob("seed-*"))
    if given.resume and not any((run / "run.json").exists() for run in runs):
        raise RunError(f"{given.folder}: no run is here to go on with. Leave --resume out to begin one.")
    if given.env is None and given.rule:
        raise ConfigError(_NO_ENV)
    if given.seeds is not None and given.seeds < 1:
        raise ConfigError(f"seeds: got {given.seeds}, but it is how many runs there are to be: 1 or more.")
    if given.seeds is None and given.workers is not None:
        raise ConfigError("workers: they are for several --seeds; one run has threads: --run.threads.")
    env = None if given.env is None else api.make_env(given.env, **_rules(given.rule))
    asked: dict[str, Any] = {
        "demos": _demos(given.demos, env),
        "env": env,
        "config": given.settings,
        "updates": given.updates,
        "minutes": given.minutes,
        "folder": given.folder,
        "habits": given.run,
        "expert": given.expert,
        "compile": given.compile,
    }
    if given.seeds is not None:
        from understudy.seeds import train_seeds

        seeds = range(given.seed, given.seed + given.seeds)
        print(train_seeds(algorithm, seeds=seeds, workers=given.workers, **asked))
        return
    made = api.train(algorithm, seed=given.seed, **asked)
    from understudy.evaluation.diagnostics import diagnose

    print("\n".join([f"{given.folder}: {made.updates:,} updates, stopped by {made.stopped}", *diagnose(made.metrics)]))


@dataclass(frozen=True)
class Evaluate:
    """Measure the policy of a run beside its demonstrators and beside random play."""

    folder: Path  # of the run
    env: str | None = None  # where to play; the run's own env where none is given
    rule: tuple[str, ...] = ()  # a rule of the env, such as --rule horizon=100
    demos: str | None = None  # the demonstrators, as for `train`; the env's own expert where none are given
    episodes: int | None = None  # that it plays; 1,000 where not given, fewer where they are long
    seed: int = 1
    report: Path | None = None  # where the page is written; evaluation.html in the run's folder where not given


def evaluate(words: list[str]) -> None:
    given = parse(Evaluate, words, "evaluate")
    from understudy import api

    env = _env(given)
    measured = api.evaluate(given.folder, env, _demos(given.demos, env), given.episodes, given.seed)
    page = _by_command(measured.report(f"{given.folder} in {env.spec.title}"), "evaluate", words)
    print(f"{measured}\n\nopen {page.save(given.report or given.folder / 'evaluation.html')}")


@dataclass(frozen=True)
class Watch:
    """Watch one episode, in the terminal or as a film."""

    player: str  # folder of a run, or name of an env whose expert plays
    env: str | None = None  # where to play; the run's own env where none is given
    rule: tuple[str, ...] = ()  # a rule of the env, such as --rule horizon=100
    save: Path | None = None  # write a .mp4, .gif or .png instead
    reward: str | None = None  # name of an agent: paint what the run learned that it would be paid wherever it stood
    speed: float = 1.0  # times as fast as it was
    seed: int = 0

    @property
    def folder(self) -> str:
        return self.player


def watch(words: list[str]) -> None:
    given = parse(Watch, words, "watch")
    import time

    from understudy import api
    from understudy.core.errors import ConfigError
    from understudy.evaluation.video import terminal

    if not given.speed > 0:
        raise ConfigError(f"speed: got {given.speed}; it is how many times as fast as it was, above 0, such as 2.")
    learned = Path(given.player).is_dir()
    env = _env(given) if learned else api.make_env(given.player, **_rules(given.rule))
    policy = api.load_policy(given.player) if learned else api.expert_of(env)
    reward, agent = _reward(given.player, given.reward, env, learned)
    if given.save is not None:
        print(api.video(policy, env, given.save, given.seed, reward, agent))
        return
    from rich.live import Live

    with Live(auto_refresh=False) as screen:
        for scene in api.scenes(policy, env, given.seed, reward, agent):
            screen.update(terminal(scene), refresh=True)
            time.sleep((env.spec.dt or 0.1) / given.speed)


def _reward(player: str, name: str | None, env: Any, learned: bool) -> tuple[Any, int]:
    """The reward that a run keeps, and the agent that is meant."""
    from understudy import api
    from understudy.core.errors import ConfigError, nearest

    if name is None:
        return None, 0
    if not learned:
        raise ConfigError(f"reward: {player!r} is an env, and rewards are learned by runs of magail and maairl.")
    if name not in env.spec.names:
        raise ConfigError(f"reward: no agent is called {name!r}.{nearest(name, env.spec.names)}")
    return api.load_reward(player), env.spec.names.index(name)


@dataclass(frozen=True)
class Compare:
    """Compare methods on your env and demonstrations, or runs that there are already.

    `compare bc magail --env spread` trains each method from several numbers of demonstrations and several seeds, and
    says which to take. `compare runs/one runs/two` measures those runs side by side.
    """

    what: tuple[str, ...]  # names of methods, or folders of runs
    env: str | None = None  # where to play; the first run's own env where none is given
    rule: tuple[str, ...] = ()  # a rule of the env, such as --rule horizon=100
    demos: str | None = None  # the demonstrators, as for `train`; the env's own expert where none are given
    episodes: int | None = None  # that each plays to be measured
    seed: int | None = None  # of the measuring, or of which demonstrations are held out
    report: Path | None = None  # where the page is written; comparison.html in the folder where not given
    folder: Path | None = None  # of methods: where their runs are kept; the same command resumes (runs/comparison)
    counts: str | None = None  # of methods: numbers of demonstrations to learn from (1,5,50)
    noise: str | None = None  # of methods: shares of the recorded actions to replace by random ones, such as 0,0.2 (0)
    seeds: int | None = None  # of methods: runs that differ in chance alone (3)
    updates: int | None = None  # of methods: of each run, at most
    minutes: float | None = None  # of methods: of each run, at most
    workers: int | None = None  # of methods: runs at the same time, each on one core (1)
    expert: Path | None = None  # of methods: folder of a run that sits in the other seats; the env's own expert if none
    config: Path | None = None  # of methods: a .toml or .json file with a table of settings for each


OF_METHODS = ("folder", "counts", "noise", "seeds", "updates", "minutes", "workers", "expert", "config")


def compare(words: list[str]) -> None:
    given = parse(Compare, words, "compare")
    from understudy import api
    from understudy.core.errors import ConfigError, nearest

    methods = [name for name in given.what if name in api.ALGORITHMS]
    others = [name for name in given.what if name not in api.ALGORITHMS]
    if not given.what:
        raise ConfigError("compare: name methods (such as `bc magail`), or folders of runs.")
    if methods and others:
        unknown = f" {others[0]!r} is no method.{nearest(others[0], api.ALGORITHMS)}" if others else ""
        raise ConfigError(f"compare: name methods (such as `bc magail`), or folders of runs, not both.{unknown}")
    if methods:
        page, said, where = _methods_compared(given)
    else:
        for name in given.what:
            if not Path(name).is_dir():
                raise ConfigError(
                    f"compare: {name!r} is neither a run's folder nor a method.{nearest(name, api.ALGORITHMS)}"
                )
        if meant := [flag for flag in OF_METHODS if getattr(given, flag) is not None]:
            raise ConfigError(f"{meant[0]}: runs that there are already are measured as they are; this is for methods.")
        measured, where = _runs_measured(given), Path(given.what[0]).parent
        page, said = api.report_of(measured), api.text_of(measured)
    page = _by_command(page, "compare", words)
    print(f"{said}\n\nopen {page.save(given.report or where / 'comparison.html')}")


def _methods_compared(given: Compare) -> tuple[Any, str, Path]:
    """Page, text and folder of methods that are trained and measured."""
    from understudy import comparing
    from understudy.core import config as settings
    from understudy.core.errors import ConfigError

    if given.env is None:
        raise ConfigError("env: methods are compared in an env, such as --env spread.")
    numbers = {"counts": int, "noise": float}
    asked: dict[str, Any] = {
        name: _numbers(name, text, kind) for name, kind in numbers.items() if (text := getattr(given, name)) is not None
    }
    asked |= {
        name: value
        for name in ("seeds", "updates", "minutes", "episodes")
        if (value := getattr(given, name)) is not None
    }
    if given.config is not None:
        asked["settings"] = settings.read(given.config)
        for name, table in asked["settings"].items():
            if not isinstance(table, dict):
                raise ConfigError(
                    f"{given.config}: `{name}` is {settings.say(table)}, but each method has a table of settings "
                    f"there, such as [{given.what[0]}]."
                )
    env, folder = _env(given), given.folder or Path("runs/comparison")
    found = comparing.compare(
        env,
        _demos(given.demos, env),
        comparing.Plan(given.what, **asked),
        folder,
        expert=given.expert,
        workers=1 if given.workers is None else given.workers,
        seed=given.seed or 0,
    )
    return found.report(), str(found), folder


def _runs_measured(given: Compare) -> dict[str, Any]:
    from understudy import api

    folders = [Path(each) for each in given.what]
    for folder in folders:
        api.load_policy(folder)  # asked before the first is measured, not after it
    env = api.env_of(folders[0]) if given.env is None and not given.rule else _env(given)
    demos = _demos(given.demos, env)
    alone = len({folder.name for folder in folders}) == len(folders)  # their names tell them apart
    return {
        folder.name if alone else str(folder): api.evaluate(
            folder, env, demos, given.episodes, 1 if given.seed is None else given.seed
        )
        for folder in folders
    }


@dataclass(frozen=True)
class Envs:
    """List the envs that can be played."""


def envs(words: list[str]) -> None:
    parse(Envs, words, "envs")
    from understudy import api
    from understudy.core.types import legal_size
    from understudy.evaluation.measured import aligned

    rows = [["env", "agents", "moves", "steps", "rules"]]
    for name in api.ENVS:
        spec = api.make_env(name).spec
        moves = str(legal_size(spec.action) or "numbers")
        rows.append([name, str(spec.agents), moves, str(spec.horizon or ""), " ".join(api.rules_of(name))])
    print(aligned(rows))


def demos(words: list[str]) -> int:
    import tyro

    @dataclass(frozen=True)
    class Demos:
        """Look at recordings, check them, save what is sound in them, or bring them from and to other formats."""

        do: Literal["show", "check", "unlike", "convert"]
        source: Path  # a folder of recordings; for convert a file too: .csv .parquet .npz .hdf5
        target: tyro.conf.Positional[Path | None] = None  # where convert writes; without suffix: a folder
        fix: Path | None = None  # where check saves what is sound: a new folder

    given = parse(Demos, words, "demos")
    from understudy.core.errors import ConfigError
    from understudy.demos import check
    from understudy.demos.formats import convert

    if given.fix is not None and given.do != "check":
        raise ConfigError(f"fix: it goes with `demos check`, not with `demos {given.do}`.")
    if given.do == "convert":
        if given.target is None:
            raise ConfigError(f"demos convert: say where to write, after {given.source}.")
        print(f"{given.target}: {len(convert(given.source, given.target))} episodes")
        return 0
    if given.target is not None:
        raise ConfigError(
            f"demos {given.do}: it writes nothing, so what is {given.target} for? `demos check SOURCE --fix NEW` saves "
            "what is sound."
        )
    if given.source.is_file():
        raise ConfigError(
            f"demos {given.do}: {given.source} is a file. `understudy demos convert {given.source} FOLDER` looks "
            "through it and makes demos of it."
        )
    if given.do == "unlike":
        print(_unlike(given.source))
    elif given.fix is not None:
        print("\n".join(check.fix(given.source, given.fix)))
    elif given.do == "check" and (found := check.check(given.source)):
        print("\n".join(map(str, found)))
        return 1
    else:
        print(check.show(given.source))
    return 0


def _unlike(source: Path) -> str:
    """Who in a recording did what others would not have."""
    from understudy.demos.formats import read
    from understudy.evaluation.measured import aligned
    from understudy.trust import trust

    table = trust(read(source)).table()
    return aligned([list(table.columns), *([str(cell) for cell in row] for row in table.rows)])


def quickstart(words: list[str]) -> None:
    from understudy import quickstart

    @dataclass(frozen=True)
    class Quickstart:
        """Imitate people cooking together, let the learned cooks play, and write a report to open."""

        folder: Path = Path("runs/quickstart")  # the same command resumes what is there
        seed: int = 0
        updates: int = quickstart.UPDATES  # of 20 gradient steps each

    given = parse(Quickstart, words, "quickstart")
    print(f"\nopen {quickstart.run(given.folder, given.seed, given.updates)}")


@dataclass(frozen=True)
class Bench:
    """Reproduce figures of the documentation."""

    name: str  # of the benchmark: the documentation names them beside its figures
    folder: Path | None = None  # runs/bench-NAME; a stopped benchmark goes on where it was
    seeds: int = 5
    workers: int = 2  # seeds that learn at the same time, each on one core
    minutes: float | None = None  # of learning for each seed; what the benchmark is meant for where not given


def bench(words: list[str]) -> None:
    given = parse(Bench, words, "bench")
    from understudy import bench

    print(f"\nopen {bench.run(given.name, given.folder, given.seeds, given.workers, given.minutes)}")


def scene(words: list[str]) -> None:
    from understudy import cli_scene

    cli_scene.scene(words)


COMMANDS: dict[str, tuple[Callable[[list[str]], int | None], str]] = {
    "quickstart": (quickstart, "imitate people cooking together: a first success and a report"),
    "record": (record, "record a scripted expert, or a policy, in an env"),
    "train": (train, "learn a policy; the same command resumes"),
    "evaluate": (evaluate, "measure a policy beside its demonstrators and random play"),
    "compare": (compare, "compare methods on your env and demonstrations, or runs with each other"),
    "watch": (watch, "watch one episode, in the terminal or as a film"),
    "scene": (scene, "learn, score, sample and steer whole scenes, from tracks alone"),
    "demos": (demos, "look at recordings, check, mend and convert them"),
    "envs": (envs, "list the envs"),
    "bench": (bench, "reproduce figures of the documentation"),
}


def _help() -> str:
    lines = ["usage: understudy COMMAND ...", "", "Learn how groups behave, from recordings of what they did.", ""]
    lines += [f"  {name:12}{told}" for name, (_, told) in COMMANDS.items()]
    return "\n".join([*lines, "", "`understudy COMMAND --help` tells more. `--debug` shows where an error came from."])


def _command(name: str) -> Callable[[list[str]], int | None]:
    if name not in COMMANDS:
        from understudy.core.errors import ConfigError, nearest

        raise ConfigError(f"unknown command `{name}`.{nearest(name, COMMANDS)}")
    return COMMANDS[name][0]


def _unopened(error: OSError) -> str:
    """What the system refused, and what to do."""
    from understudy.core.errors import printable
    from understudy.core.files import way_out

    where = f"{error.filename}: " if error.filename else ""
    return printable(f"{where}{error.strerror or error}. {way_out(error)}".strip())


def _by_command(report: Any, name: str, words: list[str]) -> Any:
    """The page with the command that made it."""
    command = shlex.join(["understudy", name, *words])
    return replace(report, provenance={"command": command, **report.provenance})


def _still_free(folder: Path) -> None:
    """Refuse a `folder` for demos that holds some, or that cannot be one."""
    from understudy.core.errors import DemosError
    from understudy.demos.store import INDEX

    if (folder / INDEX).exists():
        raise DemosError(f"{folder}: demos are here, and they are kept. Choose another folder, or delete this one.")
    if folder.exists() and not folder.is_dir():
        raise DemosError(f"{folder}: a file is here, and demos are kept in a folder. Choose another name.")


_NO_ENV = "rule: rules are those of an env that is named: give --env too."


def _env(given: Any) -> Any:
    """The env that is named, else the one of the run."""
    from understudy import api
    from understudy.core.errors import ConfigError

    if given.env is None and given.rule:
        raise ConfigError(_NO_ENV)
    return api.env_of(given.folder) if given.env is None else api.make_env(given.env, **_rules(given.rule))


def _demos(name: str | None, env: Any) -> Any:
    """Recordings in any format that is known; `people`, `people:train`, `people:test` are those of people in `env`."""
    if name is None:
        return None
    where, _, split = name.partition(":")
    if where != "people":
        from understudy.demos.formats import read

        return read(name)
    from understudy.core.errors import ConfigError
    from understudy.envs.kitchen import Kitchen
    from understudy.recordings import people_cooking

    if not isinstance(env, Kitchen):
        raise ConfigError("demos: people were recorded in kitchens: name one, such as --env kitchen:cramped_room.")
    return people_cooking(env, split or None)


def _numbers(name: str, text: str, kind: Callable[[str], Any]) -> tuple[Any, ...]:
    """`1,5,50` as numbers."""
    try:
        return tuple(kind(part) for part in text.split(","))
    except ValueError:
        from understudy.core.errors import ConfigError

        raise ConfigError(f"{name}: got {text!r}; numbers with commas between them are meant, such as 1,5.") from None


def _rules(pairs: tuple[str, ...]) -> dict[str, Any]:
    from understudy.core.config import Text
    from understudy.core.errors import ConfigError

    for pair in pairs:
        if "=" not in pair:
            raise ConfigError(f"rule: got {pair!r}, but a rule is written name=value.")
    return {name: Text(value) for name, _, value in (pair.partition("=") for pair in pairs)}
