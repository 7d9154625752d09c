"""The one loop: updates, the log, checkpoints, resuming, budgets, signals. It knows no algorithm and no environment.

A run is a folder:

    run.json         what was asked for (config, seed, demos, env) and what it ran on
    metrics.jsonl    numbers by update
    events.jsonl     what happened when: start, resume, save, stop
    checkpoints/     the last few states, exact
    lock             held while a process works here

The same call resumes when the folder holds a run. A run killed at any moment and resumed ends with the same bits as one
that was not: the state, the generator, the metrics file. (On one machine with the same number of threads.)
"""

import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, fields, is_dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from understudy.core import config as settings
from understudy.core.errors import ConfigError, RunError
from understudy.core.files import TEMPORARY, only_one, sha256, to_json, write_atomically
from understudy.core.random import generator
from understudy.demos.store import INDEX
from understudy.runs import checkpoint, devices
from understudy.runs.log import Averages, Lines, Row, Screen, now, read_lines, tensorboard

VERSION = 1
Evaluate = Callable[[Any, torch.Generator], Mapping[str, float]]


@runtime_checkable
class Algorithm(Protocol):
    """What is handed in: a module with these functions.

    Optionally `finished(config, state) -> bool`, to stop early, and `cold(config)`, settings with which `init` makes
    the same state in less time, where a checkpoint will fill it.
    """

    def init(self, config: Any, demos: Any, env: Any, generator: torch.Generator) -> Any: ...
    def update(
        self, config: Any, state: Any, demos: Any, env: Any, generator: torch.Generator
    ) -> dict[str, Tensor]: ...


@dataclass(frozen=True)
class Budget:
    """How long to go on, counted from the run's very beginning, over all its resumptions. The first limit stops it."""

    updates: int | None = None
    minutes: float | None = None

    def __post_init__(self) -> None:
        if not all(limit is None or 0 <= limit < math.inf for limit in (self.updates, self.minutes)):
            raise ConfigError(f"updates={self.updates}, minutes={self.minutes}: a budget is a number from 0 on.")


@dataclass(frozen=True)
class Habits:
    """How a run logs and saves. None of it moves the result, and all of it may change when a run is resumed."""

    log_every: int = 10  # updates averaged into one line of metrics.jsonl
    save_seconds: float = 60.0  # between two checkpoints: what a kill can cost
    save_every: int = 0  # updates between two checkpoints; 0: by the clock alone
    keep: int = 2  # newest checkpoints that stay
    milestone_every: int = 0  # updates between two checkpoints that stay for ever; 0: none
    evaluate_every: int = 0  # updates between two calls of `evaluate`; 0: none
    tensorboard: bool = False  # also write for TensorBoard
    device: str = "auto"
    threads: int | None = None  # CPU threads; None: torch's own choice
    show: bool = True  # progress on the screen

    def __post_init__(self) -> None:
        if self.log_every < 1 or self.keep < 1:
            raise ConfigError(f"log_every={self.log_every}, keep={self.keep}: both are 1 or more.")


QUIET = Habits(threads=1, show=False)  # of a run beside others


@dataclass
class Outcome:
    """Where a run stands: its state, one row of metrics for each line of the log, and why it stopped."""

    state: Any
    metrics: list[Row]
    updates: int
    seconds: float  # spent on `init` and updates, over all resumptions
    stopped: str  # "updates", "minutes" or "finished"


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM, after the run was saved: the same call goes on. `state` is where it stopped."""

    def __init__(self, number: int, saved: Path | None, state: Any) -> None:
        self.exit_code, self.state = 128 + number, state
        where = f"saved as {saved}; the same call goes on from there" if saved else "not saved: the run has no folder"
        super().__init__(f"stopped by {signal.Signals(number).name}, {where}")


@dataclass
class _Live:
    """All that a checkpoint holds: the algorithm's state and where the loop stands."""

    state: Any
    generator: torch.Generator
    averages: Averages = field(default_factory=Averages)  # of the updates since the last line of the log
    metrics: int = 0  # bytes of metrics.jsonl that belong to it
    seconds: float = 0.0


def run(
    algorithm: Algorithm,
    config: Any,
    demos: Any = None,
    env: Any = None,
    *,
    name: str = "",
    folder: Path | str | None = None,
    budget: Budget = Budget(),
    seed: int = 0,
    habits: Habits = Habits(),
    evaluate: Evaluate | None = None,
    about: dict[str, Any] | None = None,
) -> Outcome:
    """Train until the budget is spent or the algorithm has finished; resume where `folder` holds a run.

    Chance comes from two generators named after their purpose, "init" and "train" (`core.random`); `evaluate` gets one
    of its own at each call, so that measuring a run does not move it.

    Args:
        algorithm: a module with `init` and `update`, and `finished` where it can stop by itself.
        config: its settings, a frozen dataclass.
        demos, env: handed on to it. `demos.fingerprint()` tells recordings apart.
        name: the algorithm's name in messages and in run.json; of its module where empty.
        folder: where the run lives; None: nothing is written, and nothing can be resumed.
        evaluate: from the state to numbers that go into the metrics.
        about: what else is to be told in run.json of where and how it was computed.

    Raises:
        RunError: the folder holds another run (says what differs), is in use, damaged, or the disk is full.
        Diverged: NaN in a module, in a folder or in memory.
        ConfigError: no budget, for an algorithm that does not stop by itself.
        Interrupted: Ctrl-C or SIGTERM, after saving. A second one stops at once.
    """
    finished = getattr(algorithm, "finished", lambda config, state: False)
    if budget == Budget() and not hasattr(algorithm, "finished"):
        raise ConfigError("updates, minutes: give one of them, this algorithm never stops by itself.")
    if habits.threads is not None:
        devices.set_threads(habits.threads)
    device = devices.choose(habits.device)
    name = name or getattr(algorithm, "__name__", type(algorithm).__name__).rpartition(".")[2]
    identity = _identity(name, config, demos, env, seed)
    resumed = folder is not None and _expect_room(Path(folder), identity)  # before a warm start of minutes
    cold = getattr(algorithm, "cold", None) if resumed else None
    began = time.monotonic()  # a warm start is work too
    with ExitStack() as stack:
        screen = stack.enter_context(Screen(name, budget.updates, budget.minutes and budget.minutes * 60, habits.show))
        with screen.before("" if cold or not hasattr(algorithm, "cold") else "making ready"):  # a clone to begin from
            live = _Live(
                algorithm.init(cold(config) if cold else config, demos, env, generator(seed, "init", device=device)),
                generator(seed, "train", device=device),
            )
        files = stack.enter_context(_Folder.open(Path(folder), habits, device)) if folder is not None else None
        update = files.begin(identity, live, about or {}) if files else 0
        metrics = files.rows() if files else []
        earlier = live.seconds
        interrupt = stack.enter_context(_signals())
        stopped = ""
        while True:
            if budget.updates is not None and update >= budget.updates:
                stopped = "updates"
            elif finished(config, live.state):
                stopped = "finished"
            elif budget.minutes is not None and live.seconds >= budget.minutes * 60:
                stopped = "minutes"
            if stopped or interrupt:
                break
            live.averages.add(algorithm.update(config, live.state, demos, env, live.generator))
            update += 1
            live.seconds = earlier + time.monotonic() - began
            row: Row = {"update": update}
            if update % habits.log_every == 0:
                row |= live.averages.take()
            if evaluate is not None and habits.evaluate_every and update % habits.evaluate_every == 0:
                row |= evaluate(live.state, generator(seed, "evaluate", update, device=device))
            if len(row) > 1:
                metrics.append(row)
                screen.show(update, row)
                if files:
                    files.write(row)
            if files and files.due(update):
                files.save(update, live)

        saved = files.save(update, live) if files else None
        if not files:
            checkpoint.expect_no_nan(update, live)
        if live.averages.sums:  # a last line for whoever reads now; not part of the checkpoint, resuming writes it anew
            metrics.append({"update": update, **live.averages.take()})
            if files:
                files.write(metrics[-1])
        if interrupt:
            raise Interrupted(interrupt[0], saved, live.state)
        screen.show(update, metrics[-1] if metrics else {}, last=True)
        if files:
            files.event(stopped, update, live.seconds)
    return Outcome(live.state, metrics, update, live.seconds, stopped)


class _Folder:
    """The files of one run, while this process holds its lock."""

    def __init__(self, folder: Path, habits: Habits, device: torch.device) -> None:
        self.folder, self.habits, self.device = folder, habits, device
        self.checkpoints = folder / "checkpoints"
        self.events = Lines(folder / "events.jsonl")
        self.saved, self.saved_at = (-1, 0.0), time.monotonic()
        self.identity = ""  # sha256 of what makes two runs the same
        self.metrics: Lines
        self.board: Any = None

    @staticmethod
    @contextmanager
    def open(folder: Path, habits: Habits, device: torch.device) -> Iterator["_Folder"]:
        with only_one(folder, "training here"):
            files = _Folder(folder, habits, device)
            try:
                yield files
            finally:
                for log in (files.events, getattr(files, "metrics", None), files.board):
                    if log is not None:
                        log.close()

    def begin(self, identity: dict[str, Any], live: _Live, told: dict[str, Any]) -> int:
        """Start the run or restore `live` from its last checkpoint; returns the number of updates made."""
        path, self.identity = self.folder / "run.json", sha256(to_json(identity))
        about = _about(self.device) | told
        if path.exists():
            _same_run(path, identity)
        else:
            for left in self.folder.glob(f".{path.name}.*{TEMPORARY}"):  # of a run that was killed as it began
                left.unlink()
            write_atomically(path, to_json({"version": VERSION, **identity, "about": about}, indent=1))
        last = checkpoint.latest(self.checkpoints)
        update = 0
        if last is not None:
            update, _ = checkpoint.load(last, live, self.device, of=self.identity)
            self.saved = (update, live.seconds)
        self.metrics = Lines(self.folder / "metrics.jsonl", keep=live.metrics)
        self.event("resume" if last else "start", update, live.seconds, **about)
        if self.habits.tensorboard:
            self.board = tensorboard(self.folder / "tensorboard", update)
        return update

    def rows(self) -> list[Row]:
        return read_lines(self.metrics.path)

    def write(self, row: Row) -> None:
        self.metrics.write(row)
        if self.board is not None:
            for name, value in row.items():
                if name != "update" and value is not None:
                    self.board.add_scalar(name, value, row["update"])

    def due(self, update: int) -> bool:
        habits = self.habits
        by_number = any(every and update % every == 0 for every in (habits.save_every, habits.milestone_every))
        return by_number or time.monotonic() - self.saved_at >= habits.save_seconds

    def save(self, update: int, live: _Live) -> Path:
        if self.saved == (update, live.seconds):
            return self.checkpoints / f"{update:09d}.json"
        live.metrics = self.metrics.sync()  # lines first: a checkpoint never knows of more than the disk does
        keep, milestones = self.habits.keep, self.habits.milestone_every
        path = checkpoint.save(self.checkpoints, update, live, keep, milestones, of=self.identity)
        self.saved, self.saved_at = (update, live.seconds), time.monotonic()
        self.event("save", update, live.seconds)
        return path

    def event(self, event: str, update: int, seconds: float, **more: Any) -> None:
        self.events.write({"event": event, "time": now(), "update": update, "seconds": round(seconds, 3), **more})


@contextmanager
def _signals() -> Iterator[list[int]]:
    """A list that the first Ctrl-C or SIGTERM fills, to be looked at between two updates; the second acts at once."""
    came: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield came  # Python delivers signals to the main thread alone
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def note(number: int, frame: Any) -> None:
        came.append(number)
        for each, handler in before.items():
            signal.signal(each, handler)

    for number in before:
        signal.signal(number, note)
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _identity(name: str, config: Any, demos: Any, env: Any, seed: int) -> dict[str, Any]:
    """What makes two runs the same: plain data, compared when a folder is resumed."""
    return {
        "algorithm": name,
        "config": settings.to_dict(config),
        "seed": seed,
        "demos": None if demos is None else demos.fingerprint(),
        "env": None if env is None else describe(env),
    }


def describe(env: Any) -> Any:
    """Plain data that changes when the rules of `env` do: its spec and its fields, tensors by their sha256.

    Of an env with somebody to ask (`rollout.Queried`) it is the env's own, and `expert`, who that is; of a compiled
    one, whose last bits are others, the env's own, and `compiled`.
    """
    more: dict[str, Any] = {}
    if all(hasattr(env, name) for name in ("env", "expert", "asked")):
        env, more["expert"] = env.env, env.asked
    if hasattr(env, "eager"):
        env, more["compiled"] = env.eager, True
    return {"class": type(env).__name__, "spec": settings.to_dict(env.spec.to_json()), "rules": _plain(env)} | more


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in fields(value) if f.init}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, Tensor):
        return f"{value.dtype} {list(value.shape)} {sha256(value.detach().cpu().contiguous().numpy().tobytes())}"
    if isinstance(value, torch.nn.Module):  # such as a learned reward: its class and its weights
        return {"class": type(value).__name__, **{k: _plain(v) for k, v in value.state_dict().items()}}
    try:
        return settings.to_dict(value)
    except ConfigError:  # a function, a process: its name is all that can be compared
        return getattr(value, "__qualname__", type(value).__qualname__)


def _expect_room(folder: Path, identity: dict[str, Any]) -> bool:
    """Whether `folder` holds a checkpoint of this very run. Nothing is written.

    Raises:
        RunError: it holds another run or recordings, or cannot be made or written in.
    """
    parent = next(each for each in (folder, *folder.absolute().parents) if each.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise RunError(f"{folder}: a run cannot be kept here: {parent} is no folder that you may write in.")
    if (folder / INDEX).exists():
        raise RunError(f"{folder} holds recordings. Choose another folder for the run.")
    if (folder / "run.json").exists():
        _same_run(folder / "run.json", identity)
    return checkpoint.latest(folder / "checkpoints") is not None


def _same_run(path: Path, identity: dict[str, Any]) -> None:
    before = settings.read(path)
    if before.get("version") != VERSION:
        raise RunError(f"{path} is of format {before.get('version')}, and this understudy reads {VERSION}.")
    changed = list(settings.differences({key: before.get(key) for key in identity}, identity))
    if changed:
        raise RunError(
            f"{path.parent} holds another run, which cannot be resumed by this call:\n    "
            + "\n    ".join(changed)
            + "\nChoose another folder, or call as before."
        )


def _about(device: torch.device) -> dict[str, Any]:
    try:
        ours = version("understudy")
    except PackageNotFoundError:  # run from its sources
        ours = "source"
    versions = {"python": sys.version.split()[0], "torch": torch.__version__, "understudy": ours}
    return {"began": now(), "command": list(sys.argv), **versions, **devices.describe(device)}
