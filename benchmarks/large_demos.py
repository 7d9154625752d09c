"""Cloning from recordings ten times larger than the memory allowed, against the same in memory.

    python benchmarks/large_demos.py --folder FOLDER [--gigabytes 4]

Writes a set of random recordings (three agents, 18 numbers seen, 5 moves, 1000 steps an episode), sends it out of the
system's cache, and lets two processes take turns at drawing batches and at training: one has the set memory-mapped
under a cap of 400 MB, the other a tenth of it in memory. Prints one JSON line.

The cap is on memory that the process has to itself (RLIMIT_DATA, the mapped bytes added, for a private mapping counts
as data until it is written): what it cannot give back. Pages of the files are the system's cache, which it takes back
whenever it is short; how many were resident is told as `file_mb`.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import torch
from torch import nn

from understudy.core.types import Discrete, EnvSpec
from understudy.demos import Demos, Episode, store

SPEC = EnvSpec(agents=3, obs=18, action=Discrete(5))
STEPS = 1000
CAP = 400 * 10**6
SIZE = 4096  # joint steps in a batch


def recordings(size: int) -> Iterator[Episode]:
    """Random episodes, `size` bytes of them."""
    source = torch.Generator().manual_seed(0)
    row = 3 * (18 * 4 + 8 + 4)
    for _ in range(size // (row * (STEPS + 1))):
        obs = torch.randn(STEPS + 1, 3, 18, generator=source)
        actions = torch.randint(5, (STEPS, 3), generator=source)
        yield Episode(obs, actions, rewards=torch.randn(STEPS, 3, generator=source))


def memory(name: str) -> float:
    """Megabytes of this process by the system's count."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name + ":")) / 1000


def worker(folder: Path, mapped: bool) -> None:
    """Draw or train for as long as each line on the input says, and answer with steps a second and memory."""
    torch.set_num_threads(1)
    if mapped:
        size = sum(p.stat().st_size for p in folder.glob("*.arrow"))
        resource.setrlimit(resource.RLIMIT_DATA, (size + CAP, size + CAP))
    demos = Demos.load(folder, verify=False, memory=0 if mapped else 10**12)
    torch.random.manual_seed(0)
    model = nn.Sequential(nn.Linear(18, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 5))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    position, most = 0, {"RssAnon": 0.0, "RssFile": 0.0}
    print("ready", flush=True)
    for line in sys.stdin:
        what, seconds = line.split()
        begun, worked, steps = time.perf_counter(), time.process_time(), 0
        while (passed := time.perf_counter() - begun) < float(seconds):
            batch = demos.batch(position, SIZE, seed=0)
            if what == "train":
                optimizer.zero_grad(set_to_none=True)
                nn.functional.cross_entropy(model(batch.obs).flatten(0, 1), batch.actions.flatten()).backward()
                optimizer.step()
            position, steps = position + 1, steps + len(batch.actions)
            most = {name: max(value, memory(name)) for name, value in most.items()}
        worked = time.process_time() - worked
        epochs = position / demos.batches_per_epoch(SIZE)
        print(json.dumps({"rate": steps / passed, "own": steps / worked, "epochs": epochs, **most}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--gigabytes", type=float, default=4.0)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each round")
    parser.add_argument("--worker", choices=["mapped", "memory"])
    given = parser.parse_args()
    if given.worker:
        return worker(given.folder, given.worker == "mapped")
    size = int(given.gigabytes * 10**9)
    folders = {"mapped": given.folder / "large", "memory": given.folder / "small"}
    for (name, folder), share in zip(folders.items(), (1, 10), strict=True):
        if not folder.exists():
            begun = time.perf_counter()
            store.save(folder, SPEC, recordings(size // share))
            print(f"{name}: written in {time.perf_counter() - begun:.0f} s", file=sys.stderr)
    for path in folders["mapped"].glob("*.arrow"):
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    command = [sys.executable, __file__, "--worker"]
    workers = {n: subprocess.Popen([*command, n, "--folder", str(f)], **pipes) for n, f in folders.items()}
    for process in workers.values():
        assert process.stdout.readline() == "ready\n"
    answers: dict[tuple[str, str], list[dict]] = {}
    for what in ("draw", "train"):
        for _ in range(given.rounds):
            for name, process in workers.items():
                process.stdin.write(f"{what} {given.seconds}\n")
                process.stdin.flush()
                answers.setdefault((what, name), []).append(json.loads(process.stdout.readline()))
    for process in workers.values():
        process.stdin.close()
        process.wait()
    rates = {key: median(a["rate"] for a in found) for key, found in answers.items()}
    own = {key: median(a["own"] for a in found) for key, found in answers.items()}
    last = answers["train", "mapped"][-1]
    figures = {
        "gigabytes": sum(p.stat().st_size for p in folders["mapped"].glob("*.arrow")) / 1e9,
        **{f"{what}_{name}_steps_per_s": round(rate) for (what, name), rate in rates.items()},
        "draw_ratio": round(rates["draw", "mapped"] / rates["draw", "memory"], 3),
        "train_ratio": round(rates["train", "mapped"] / rates["train", "memory"], 3),
        "train_ratio_of_processor_time": round(own["train", "mapped"] / own["train", "memory"], 3),
        "cold_draw_steps_per_s": round(answers["draw", "mapped"][0]["rate"]),
        "own_mb": round(last["RssAnon"]),
        "file_mb": round(last["RssFile"]),
        "epochs": round(last["epochs"], 2),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
