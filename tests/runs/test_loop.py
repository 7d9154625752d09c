import json
import math
import os
import shutil
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from tests.runs import toy
from understudy.core import files
from understudy.core.errors import ConfigError, Diverged, RunError
from understudy.core.types import Discrete, EnvSpec
from understudy.runs import checkpoint, loop
from understudy.runs.log import read_lines
from understudy.runs.loop import Budget, Habits, run

QUIET = Habits(show=False, log_every=4, save_every=5)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """One thread for these tiny sums, and no waiting for the disk: a process that dies takes no page cache with it."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    yield
    torch.set_num_threads(threads)


def train(folder=None, updates=23, habits=QUIET, algorithm=toy, **more):
    more = {"config": toy.Config(), "demos": toy.Numbers(), "seed": 3, "budget": Budget(updates=updates), **more}
    return run(algorithm, folder=folder, habits=habits, **more)


def failing(update):
    """The toy, with its power cut before `update` is made."""

    def die(config, state, demos, env, generator):
        if state.position == update * config.batch:
            raise SystemExit
        return toy.update(config, state, demos, env, generator)

    return SimpleNamespace(__name__="toy", init=toy.init, update=die, finished=toy.finished)


def kept(folder):
    """What must not hang on how often a run was stopped: its tensors and its metrics, as bytes."""
    last = checkpoint.latest(folder / "checkpoints")
    return last.name, last.with_suffix(".safetensors").read_bytes(), (folder / "metrics.jsonl").read_bytes()


def test_a_run_broken_anywhere_and_resumed_ends_with_the_same_bits(tmp_path):
    undisturbed = train(tmp_path / "whole")
    for update in range(23):
        folder = tmp_path / str(update)
        with pytest.raises(SystemExit):
            train(folder, algorithm=failing(update))
        again = train(folder)
        assert kept(folder) == kept(tmp_path / "whole"), f"broken before update {update}"
        assert toy.bits(again.state) == toy.bits(undisturbed.state)
        assert again.metrics == undisturbed.metrics


def test_a_run_in_memory_learns_the_same_as_one_in_a_folder(tmp_path):
    there, here = train(tmp_path), train()
    assert toy.bits(there.state) == toy.bits(here.state)
    assert there.metrics == here.metrics == read_lines(tmp_path / "metrics.jsonl")


def test_a_warm_start_is_not_made_again_for_a_state_that_a_checkpoint_fills(tmp_path):
    begun = []

    def init(config, *rest):
        begun.append(config.hidden)
        return toy.init(replace(config, hidden=8), *rest)

    slow = SimpleNamespace(**{**vars(toy), "init": init, "cold": lambda config: replace(config, hidden=1)})
    train(tmp_path / "cut", updates=5, algorithm=slow)
    again = train(tmp_path / "cut", algorithm=slow)
    assert begun == [8, 1]
    assert toy.bits(again.state) == toy.bits(train().state)


def test_a_folder_that_cannot_hold_a_run_is_refused_before_it_begins(tmp_path):
    unasked = SimpleNamespace(**{**vars(toy), "init": lambda *_: pytest.fail("it began")})
    (tmp_path / "file").write_text("")
    (tmp_path / "recordings").mkdir()
    (tmp_path / "recordings" / "index.json").write_text("{}")
    for name, message in (("file", "no folder"), ("file/run", "no folder"), ("recordings", "holds recordings")):
        with pytest.raises(RunError, match=message):
            train(tmp_path / name, updates=2, algorithm=unasked)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "index.json", "recordings"]


def test_a_run_that_diverged_is_no_result_in_memory_either():
    def diverge(config, state, demos, env, generator):
        state.policy[0].weight.data[0, 0] = math.nan
        return {}

    with pytest.raises(Diverged, match=r"run\.state\.policy holds NaN at update 2"):
        train(updates=2, algorithm=SimpleNamespace(__name__="toy", init=toy.init, update=diverge))


def test_how_often_it_saves_logs_and_stops_does_not_move_the_result(tmp_path):
    whole = train(tmp_path / "whole", habits=replace(QUIET, save_every=0))
    for updates in (3, 3, 10, 11, 23):
        train(tmp_path / "parts", updates=updates, habits=replace(QUIET, save_seconds=0.0))
    assert kept(tmp_path / "parts") == kept(tmp_path / "whole")
    other = train(
        habits=replace(QUIET, log_every=1), evaluate=lambda state, g: {"x": torch.rand(1, generator=g).item()}
    )
    assert toy.bits(other.state) == toy.bits(whole.state)


def test_minutes_only_choose_where_it_stops(tmp_path):
    part = train(tmp_path, budget=Budget(minutes=0.2 / 60))
    assert part.stopped == "minutes" and part.updates > 0 and part.seconds >= 0.2
    alone = train(updates=part.updates)
    assert toy.bits(alone.state) == toy.bits(part.state)
    again = train(tmp_path, budget=Budget(minutes=0.2 / 60))
    assert again.updates == part.updates, "minutes count over all resumptions"


def test_metrics_are_means_between_the_lines_with_a_last_line_for_the_rest():
    metrics = train(updates=6).metrics
    assert [row["update"] for row in metrics] == [4, 6]
    assert [row["age"] for row in metrics] == [2.5, 5.5], "the mean of 1, 2, 3, 4 and of 5, 6"
    every = train(updates=6, habits=replace(QUIET, log_every=1)).metrics
    assert sum(row["loss"] for row in every[:4]) / 4 == pytest.approx(metrics[0]["loss"])
    odd = [row["odd"] for row in every if "odd" in row]
    assert len(odd) == 3 and metrics[0]["odd"] == pytest.approx(sum(odd[:2]) / 2), "over the updates that gave one"


def test_evaluations_come_when_due_with_chance_of_their_own(tmp_path):
    seen = []

    def evaluate(state, generator):
        seen.append(state.position // 16)
        return {"score": torch.rand((), generator=generator).item()}

    habits = replace(QUIET, evaluate_every=6)
    whole = train(tmp_path / "a", habits=habits, evaluate=evaluate)
    assert seen == [6, 12, 18]
    with pytest.raises(SystemExit):
        train(tmp_path / "b", habits=habits, evaluate=evaluate, algorithm=failing(13))
    assert train(tmp_path / "b", habits=habits, evaluate=evaluate).metrics == whole.metrics
    scores = [row["score"] for row in whole.metrics if "score" in row]
    assert len(set(scores)) == 3


def test_an_algorithm_that_has_finished_stops_and_stays_stopped(tmp_path):
    config = toy.Config(stop_at=9)
    first = train(tmp_path, config=config, budget=Budget())
    assert (first.updates, first.stopped) == (9, "finished")
    assert train(tmp_path, config=config, budget=Budget(updates=50)).updates == 9


def test_a_budget_is_needed_and_not_negative():
    endless = SimpleNamespace(init=toy.init, update=toy.update)
    with pytest.raises(ConfigError, match="updates, minutes: give one of them"):
        run(endless, toy.Config(), toy.Numbers())
    for limits in ({"updates": -1}, {"minutes": -0.5}, {"minutes": math.nan}, {"minutes": math.inf}):
        with pytest.raises(ConfigError, match="a budget is a number from 0 on"):
            Budget(**limits)
    with pytest.raises(ConfigError, match="log_every=0"):
        Habits(log_every=0)


@dataclass(frozen=True)
class Game:
    rule: int = 1
    table: torch.Tensor | None = None

    @property
    def spec(self):
        return EnvSpec(agents=2, obs=3, action=Discrete(2))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"config": toy.Config(learner=toy.Learner(0.5))}, "config.learner.rate: 0.01 before, 0.5 now"),
        ({"seed": 4}, "seed: 3 before, 4 now"),
        ({"demos": toy.Numbers("others")}, "demos: 'numbers' before, 'others' now"),
        ({"env": Game(rule=2)}, "env.rules.rule: 1 before, 2 now"),
        ({"env": Game(table=torch.ones(2))}, r"env.rules.table: None before, 'torch.float32 \[2\]"),
        ({"env": None}, "env: .* before, None now"),
    ],
)
def test_another_run_is_not_resumed_and_the_difference_is_named(tmp_path, change, message):
    train(tmp_path, updates=2, env=Game())
    before, unasked = kept(tmp_path), SimpleNamespace(**{**vars(toy), "init": lambda *_: pytest.fail("it began")})
    with pytest.raises(RunError, match=f"holds another run, .*\n    {message}"):
        train(tmp_path, updates=4, algorithm=unasked, **{"env": Game(), **change})
    assert kept(tmp_path) == before


def test_a_checkpoint_of_another_run_or_update_is_not_taken_for_its_own(tmp_path):
    train(tmp_path / "a", updates=5)
    train(tmp_path / "b", updates=5, seed=4)
    shutil.rmtree(tmp_path / "b" / "checkpoints")
    shutil.copytree(tmp_path / "a" / "checkpoints", tmp_path / "b" / "checkpoints")
    with pytest.raises(RunError, match=r"000000005.json is a checkpoint of another run or update"):
        train(tmp_path / "b", seed=4)
    for path in list((tmp_path / "a" / "checkpoints").glob("000000005.*")):
        path.rename(path.with_stem("000000009"))
    with pytest.raises(RunError, match=r"another run or update, put here. Delete both files 000000009"):
        train(tmp_path / "a")


def test_a_run_tells_what_it_was_and_what_happened_to_it(tmp_path):
    train(tmp_path, updates=3, env=Game(), about={"weather": "rain"})
    train(tmp_path, updates=5, env=Game(), about={"weather": "sun"})
    told = json.loads((tmp_path / "run.json").read_text())
    assert told["algorithm"] == "toy" and told["seed"] == 3 and told["demos"] == "numbers"
    assert told["config"] == {"hidden": 8, "batch": 16, "stop_at": None, "learner": {"rate": 0.01}}
    assert told["env"]["spec"]["agents"] == 2 and told["env"]["rules"] == {"rule": 1, "table": None}
    assert told["about"]["torch"] == torch.__version__ and told["about"]["threads"] == torch.get_num_threads()
    events = read_lines(tmp_path / "events.jsonl")
    assert told["about"]["weather"] == events[0]["weather"] == "rain" and events[3]["weather"] == "sun"
    assert [(e["event"], e["update"]) for e in events] == [
        ("start", 0), ("save", 3), ("updates", 3), ("resume", 3), ("save", 5), ("updates", 5)
    ]  # fmt: skip


def test_two_processes_do_not_share_a_folder(tmp_path):
    with (
        files.only_one(tmp_path, "training here"),
        pytest.raises(RunError, match=rf"is in use: process {os.getpid()} on .* is training"),
    ):
        train(tmp_path)
    assert train(tmp_path).updates == 23, "the lock goes with its owner"


def test_metrics_that_were_edited_are_noticed(tmp_path):
    train(tmp_path, updates=8)
    (tmp_path / "metrics.jsonl").write_text("{}\n")
    with pytest.raises(RunError, match=r"metrics.jsonl has 3 bytes, but had \d+ at the checkpoint"):
        train(tmp_path)


def test_an_update_with_nothing_to_tell_does_not_count():
    def update(config, state, *rest):
        stats = toy.update(config, state, *rest)
        age = stats["age"]
        return {"some": age if age < 3 else age * float("nan"), "none": age * float("nan")}

    metrics = train(updates=4, algorithm=SimpleNamespace(init=toy.init, update=update, finished=toy.finished)).metrics
    assert metrics[0]["some"] == 1.5, "the mean of 1 and 2; 3 and 4 were not told"
    assert metrics[0]["none"] is None


def test_an_update_hands_out_scalars():
    def update(*_):
        return {"loss": torch.ones(3)}

    with pytest.raises(RunError, match=r"metric `loss`: .* got a tensor of shape \[3\]"):
        train(algorithm=SimpleNamespace(init=toy.init, update=update, finished=toy.finished))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_the_same_call_goes_on(tmp_path, number):
    def update(config, state, *rest):
        if state.position == 7 * config.batch:
            os.kill(os.getpid(), number)
        return toy.update(config, state, *rest)

    before = signal.getsignal(number)
    algorithm = SimpleNamespace(__name__="toy", init=toy.init, update=update, finished=toy.finished)
    with pytest.raises(loop.Interrupted, match=r"saved as .*000000008.json; the same call goes on") as stopped:
        train(tmp_path / "a", algorithm=algorithm)
    assert stopped.value.exit_code == 128 + number
    assert signal.getsignal(number) is before
    train(tmp_path / "a")
    train(tmp_path / "b")
    assert kept(tmp_path / "a") == kept(tmp_path / "b")


def test_a_run_works_in_a_thread_that_gets_no_signals():
    outcomes = []
    thread = threading.Thread(target=lambda: outcomes.append(train()))
    thread.start()
    thread.join()
    assert toy.bits(outcomes[0].state) == toy.bits(train().state)


def test_a_full_disk_is_said_and_the_run_goes_on_once_there_is_space(tmp_path, monkeypatch):
    """Every write of the run fails once, in turn; afterwards the same call ends as if nothing had been."""
    train(tmp_path / "whole", updates=7)
    for n in range(1, 200):
        folder, calls = tmp_path / str(n), [0]
        with monkeypatch.context() as patch:
            for holder, name in ((files, "_write"), (os, "pwrite"), (os, "fsync"), (os, "replace")):
                patch.setattr(holder, name, _failing_at(n, getattr(holder, name), calls))
            said = None
            try:
                train(folder, updates=7)
            except RunError as refused:
                said = str(refused)
        assert said is None or "the disk is full" in said or "cannot be deleted" in said
        train(folder, updates=7)
        assert kept(folder) == kept(tmp_path / "whole"), f"after write {n} failed"
        if calls[0] < n:
            assert n > 20
            return
    pytest.fail("some write failed every time")


def _failing_at(n, real, calls):
    def failing(*args):
        calls[0] += 1
        if calls[0] == n:
            raise OSError(28, "No space left on device")
        return real(*args)

    return failing


def kill(kills, *more):
    """Runs killed at random moments in processes of their own; see tests/runs/kills.py."""
    script = Path(__file__).with_name("kills.py")
    done = subprocess.run([sys.executable, script, str(kills), *more], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_runs_killed_at_random_moments_end_with_the_same_bits():
    told = kill(20)
    assert told["kills"] >= 20 and told["different"] == []


@pytest.mark.slow
def test_a_thousand_runs_killed_at_random_moments_end_with_the_same_bits():
    told = kill(1000)
    assert told["kills"] >= 1000 and told["different"] == []
    assert told["while_saving"] > 20 and told["in_a_resumed_run"] > 50, "the moments must be spread"


def test_tensorboard_gets_the_metrics(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    metrics = train(tmp_path, updates=8, habits=replace(QUIET, tensorboard=True)).metrics
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    told = [(e.step, e.value) for e in events.Scalars("loss")]
    assert told == [(row["update"], pytest.approx(row["loss"])) for row in metrics]
