"""Ours and a peer's work in turn: each in a process and a virtual environment of its own, one waiting for the other.

What is compared are rates of one round and the round beside it, and of those ratios the median is told. Each process
may use `threads` cores, the same ones; time is that of the processor, unless `wall` is asked for.
"""

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

HERE = Path(__file__).resolve().parent
ENVIRONMENTS = HERE.parent / ".venv-peers"  # made by `make bench-peers`


class Missing(Exception):
    """The peer cannot do it, and why."""


@dataclass
class Side:
    """`peers/SCRIPT.py` at work in the environment `venv` ("": ours)."""

    name: str
    script: str
    venv: str = ""
    what: dict = field(default_factory=dict)  # handed to `prepare` besides what all sides are

    def start(self, threads, **what):
        """Begin, and return the seconds until a first round was over."""
        python = ENVIRONMENTS / self.venv / "bin" / "python" if self.venv else Path(sys.executable)
        if not python.exists():
            raise Missing("not installed: make bench-peers")
        cores = sorted(os.sched_getaffinity(0))[-threads:]
        chosen = {"OMP_NUM_THREADS": str(threads), "PYTHONPATH": str(HERE.parent / "src"), "CUDA_VISIBLE_DEVICES": ""}
        if self.venv:
            del chosen["PYTHONPATH"]
        self.process = subprocess.Popen(
            ["taskset", "-c", ",".join(map(str, cores)), str(python), str(HERE / "peers" / f"{self.script}.py")],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            env=os.environ | chosen,
        )  # fmt: skip
        return self.ask(prepare=what | self.what | {"threads": threads})

    def ask(self, **what):
        print(json.dumps(what), file=self.process.stdin, flush=True)
        line = self.process.stdout.readline()
        told = json.loads(line) if line else {"error": "it ended"}
        if "error" in told:
            raise Missing(told["error"])
        return told

    def stop(self):
        if hasattr(self, "process"):
            self.process.stdin.close()
            self.process.wait()


def paired(sides, rounds, seconds, threads=1, wall=False, **what):
    """[rate of each round] and the seconds to begin, of every side by its name; a reason in words where it cannot."""
    found, begun = {}, {}
    try:
        for side in sides:
            try:
                begun[side.name] = side.start(threads, **what)["processor"]
                found[side.name] = []
            except Missing as reason:
                found[side.name] = str(reason)
        for _ in range(rounds):
            for side in sides:
                if isinstance(found[side.name], list):
                    told = side.ask(seconds=seconds)
                    found[side.name].append(told["units"] / told["wall" if wall else "processor"])
    finally:
        for side in sides:
            side.stop()
    return found, begun


def timed(asked, rounds, seconds):
    """The words of the command, with how long is timed, how often, and by which clock."""
    asked.add_argument("--rounds", type=int, default=rounds)
    asked.add_argument("--seconds", type=float, default=seconds, help="of each round, at least")
    asked.add_argument("--threads", type=int, default=1)
    asked.add_argument("--wall", action="store_true", help="time by the clock: for a machine that does nothing else")
    return asked.parse_args()


def ratio(ours, theirs):
    """Median of the ratios round by round."""
    return median(a / b for a, b in zip(ours, theirs, strict=True))


def short(rate):
    """Such as 1.23 M or 45.6 k."""
    for unit, name in ((1e6, " M"), (1e3, " k")):
        if rate >= unit:
            return f"{rate / unit:.3g}{name}"
    return f"{rate:.3g}"
