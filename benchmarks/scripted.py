"""Tables of docs/algorithms/iq.md and sqil.md: imitation of the scripted experts, normalised return from defaults.

PYTHONPATH=src python benchmarks/scripted.py iq 50                    # 50 demonstrations, every env: offline
PYTHONPATH=src python benchmarks/scripted.py iq 50 '{"sampling": "online"}' spread tag
PYTHONPATH=src python benchmarks/scripted.py bc 50

The worst team's normalised return (0: random play, 1: the demonstrators), of 200 episodes, one seed, and minutes of
processor time on one thread. Where random play is paid as the demonstrators are, there is nothing to tell apart.
"""

import json
import sys
from time import process_time

import torch

from understudy import api
from understudy.runs.loop import Habits

TIMELESS = {"rock_paper_scissors", "matching_pennies", "chicken", "coordination"}  # equilibria: all play alike is near


def main(algorithm, count, settings, names):
    habits = Habits(show=False, threads=1)
    print(f"| env | {algorithm} {json.dumps(settings)}, {count} demonstrations | minutes |\n|---|---|---|")
    for name in names or [name for name in api.ENVS if name not in TIMELESS]:
        env = api.make_env("kitchen:cramped_room" if name == "kitchen" else name)
        demos = api.record(env, episodes=count)
        began = process_time()
        run = api.train(algorithm, demos, env, config=settings, habits=habits)
        minutes = (process_time() - began) / 60
        episodes = 200 if env.spec.horizon <= 100 else 40
        figures = api.evaluate(run.policy, env, episodes=episodes).figures
        teams = [figure for key, figure in figures.items() if key.startswith("normalised return/")]
        worst = min(teams, key=lambda f: f.value, default=None)
        said = "alike" if worst is None else f"{worst.value:.2f} ({worst.low:.2f}, {worst.high:.2f})"
        print(f"| `{name}` | {said} | {minutes:.1f} |", flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    algorithm, count, *rest = sys.argv[1:]
    settings = json.loads(rest.pop(0)) if rest and rest[0].startswith("{") else {}
    main(algorithm, int(count), settings, rest)
