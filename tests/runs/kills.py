"""Kill runs at random moments, resume them, compare with the undisturbed one: `python tests/runs/kills.py 1000 toy`.

The second word is what is trained: toy, bc or ppo. Children are forked from this process after torch is loaded, so that
each costs milliseconds. Prints JSON.
"""

import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

import torch  # noqa: E402

from tests.runs import toy  # noqa: E402
from understudy import api  # noqa: E402
from understudy.runs import checkpoint  # noqa: E402
from understudy.runs.loop import Budget, Habits, run  # noqa: E402

HABITS = Habits(show=False, log_every=3, save_every=4, threads=1)
UPDATES = 40


SMALL = {
    "bc": {"batch": 32, "steps": 2, "held_out": 0.0, "net": {"hidden": 8}},
    "ppo": {"envs": 4, "segment": 5, "passes": 1, "minibatches": 2, "net": {"hidden": 8}, "value_hidden": 8},
}


def trainer(name: str) -> Callable[[Path], None]:
    """Trains what is called `name`, in the folder that it is given."""
    if name == "toy":
        what = (toy, toy.Config(), toy.Numbers(), None)
    else:
        env, algorithm = api.make_env("navigation"), api.algorithm_named(name)
        what = (algorithm, api.make_config(algorithm, SMALL[name]), api.record(env, episodes=8), env)
    return lambda folder: run(*what, folder=folder, budget=Budget(updates=UPDATES), habits=HABITS, seed=5)


def child(train: Callable[[Path], None], folder: Path, kill_after: float | None) -> bool:
    """Train in a process of its own; whether it was killed before it had finished."""
    pid = os.fork()
    if pid == 0:
        try:
            train(folder)
            os._exit(0)
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(1)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    if os.WIFEXITED(status):
        assert os.WEXITSTATUS(status) == 0, "a run failed by itself"
    return os.WIFSIGNALED(status)


def kept(folder: Path) -> tuple[bytes, bytes]:
    last = checkpoint.latest(folder / "checkpoints")
    assert last is not None and int(last.stem) == UPDATES
    return last.with_suffix(".safetensors").read_bytes(), (folder / "metrics.jsonl").read_bytes()


def main(kills: int, name: str = "toy", seed: int = 0) -> None:
    torch.set_num_threads(1)
    train = trainer(name)
    chance, began = random.Random(seed), time.monotonic()
    told = {"kills": 0, "runs": 0, "while_saving": 0, "in_a_resumed_run": 0, "different": []}
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # a kill, unlike a power cut, spares the page cache
    base = Path(tempfile.mkdtemp(prefix="kills-", dir=memory))
    try:
        train(base / "warm")
        start = time.monotonic()
        child(train, base / "whole", None)
        whole, span = kept(base / "whole"), time.monotonic() - start
        while told["kills"] < kills:
            folder, chain = base / str(told["runs"]), 0
            while child(train, folder, chance.uniform(0.0, span) if chain < 3 else None):
                told["kills"] += 1
                told["in_a_resumed_run"] += chain > 0
                told["while_saving"] += bool(list(folder.rglob("*.part"))) or _orphans(folder)
                chain += 1
            told["runs"] += 1
            if kept(folder) != whole:
                told["different"].append(folder.name)
            shutil.rmtree(folder)
    finally:
        shutil.rmtree(base)
    print(json.dumps(told | {"seconds": round(time.monotonic() - began, 1)}))


def _orphans(folder: Path) -> bool:
    """The kill came between the two files of a checkpoint."""
    names = {end: {path.stem for path in folder.rglob(f"0*.{end}")} for end in ("json", "safetensors")}
    return names["json"] != names["safetensors"]


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:])
