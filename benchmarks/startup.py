"""How long it takes to begin: the first time, when everything is compiled, and every time after that.

PYTHONPATH=src python benchmarks/startup.py              # the table of docs/growth.md

Each figure is of a whole process of one thread, from its start to its end, by the clock and of the processor, compilers
that it calls included. First: with an empty UNDERSTUDY_CACHE and an empty cache of torch's compiler. Cached: the median
of the same command thrice more.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter

STEPS = "import torch; from understudy import api; from understudy.compiled import compiled; "
STEPS += "from understudy.core.random import generator; from understudy.rollout import Uniform, begin, collect; "
STEPS += "env = compiled(api.make_env({game!r})); policy, source = Uniform(env.spec), generator(0); "
STEPS += "live = begin(env, policy, 512, source); collect(env, policy, live, 2, source); "
STEPS += "assert env._turns[512] != env._turn, 'it is played eagerly'"
UPDATE = "from understudy import api; api.train('ppo', env=api.make_env('spread'), updates=1, compile={compile}, "
UPDATE += "config={{'envs': 512, 'segment': 8}}, habits=api.Habits(threads=1, show=False))"
FUSED = "import torch; from understudy.nets import AgentMLP, fused; from understudy.core.random import generator; "
FUSED += (
    "AgentMLP(18, 5, (0,), generator(0))(torch.zeros(96, 1, 18)); assert fused.status() == 'in use', fused.status()"
)
WORK = {
    "import torch": "import torch",
    "import torch._dynamo": "import torch._dynamo",  # as torch's optimizers do
    "import torch._inductor": "import torch._inductor.compile_fx",  # as `torch.compile` does
    "import understudy.api": "import understudy.api",
    "a fused network": FUSED,
    "first update of ppo, spread": UPDATE.format(compile=False),
    "2 steps of spread, compiled": STEPS.format(game="spread"),
    "2 steps of tag, compiled": STEPS.format(game="tag"),
    "2 steps of a kitchen, compiled": STEPS.format(game="kitchen"),
    "first update of ppo, spread compiled": UPDATE.format(compile=True),
}


def took(program, folder):
    """Seconds by the clock and of the processor, of a process whose caches are in `folder`."""
    kept = {"UNDERSTUDY_CACHE": str(folder / "ours"), "TORCHINDUCTOR_CACHE_DIR": str(folder / "torch")}
    kept |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    used, began = resource.getrusage(resource.RUSAGE_CHILDREN), perf_counter()
    subprocess.run([sys.executable, "-c", program], env=os.environ | kept, check=True)
    wall, after = perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime


def main():
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--only", nargs="+", default=list(WORK), choices=WORK)
    asked.add_argument("--again", type=int, default=3)
    given = asked.parse_args()
    print("| | first: by the clock, s | processor, s | cached: by the clock, s | processor, s |\n|---|---|---|---|---|")
    for name in given.only:
        with tempfile.TemporaryDirectory() as folder:
            for cache in ("ours", "torch"):
                (Path(folder) / cache).mkdir(mode=0o700)
            first = took(WORK[name], Path(folder))
            again = [took(WORK[name], Path(folder)) for _ in range(given.again)]
        cached = [median(each) for each in zip(*again, strict=True)]
        print(f"| {name} | " + " | ".join(f"{seconds:.1f}" for seconds in (*first, *cached)) + " |", flush=True)


if __name__ == "__main__":
    main()
