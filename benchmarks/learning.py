"""Learning spread by PPO, ours and peers in turn: env-steps a second, and the return after equal processor time.

All have one policy and one critic of 2 x 64 for all agents, a batch of 512 envs x 32 steps (SB3: as many steps of
fewer envs) and 4 passes of 4 minibatches. Returns are of an episode of one agent, in the unit of each one's own game:
those of VMAS differ in kind, and JaxMARL's episodes are a step longer.

make bench-peers
PYTHONPATH=src python benchmarks/learning.py --seconds 60
"""

import argparse
from statistics import median

from pairs import Missing, Side, ratio, short

SIDES = [
    Side("ours", "learning_understudy"),
    Side("ours, compiled env", "learning_understudy", what={"compile": True}),
    Side("JAX IPPO on JaxMARL", "learning_jaxmarl", "jaxmarl"),
    Side("BenchMARL on VMAS", "learning_benchmarl", "benchmarl"),
    Side("SB3 on mpe2", "learning_sb3", "sb3"),
]


def main():
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--who", nargs="+", default=[side.name for side in SIDES], help="the first is compared")
    asked.add_argument("--seconds", type=float, default=20, help="of learning, of each side")
    asked.add_argument("--rounds", type=int, default=10, help="into which they are cut")
    asked.add_argument("--threads", type=int, default=1)
    asked.add_argument("--wall", action="store_true", help="time by the clock: for a machine that does nothing else")
    given = asked.parse_args()
    clock = "wall" if given.wall else "processor"
    rates, marks, reasons = {}, {}, {}
    sides = {side.name: side for side in SIDES if side.name in given.who}
    try:
        for name, side in sides.items():
            try:
                told = side.start(given.threads, envs=512, segment=32)
                rates[name], marks[name] = [], [(told[clock], told["figure"])]
            except Missing as reason:
                reasons[name] = str(reason)
        for _ in range(given.rounds):
            for name in rates:
                told = sides[name].ask(seconds=given.seconds / given.rounds)
                rates[name].append(told["units"] / told[clock])
                marks[name].append((marks[name][-1][0] + told[clock], told["figure"]))
    finally:
        for side in sides.values():
            side.stop()
    print("| who | env-steps/s | ours is | first update, s | return after so many seconds |\n|---|---|---|---|---|")
    for name, found in rates.items():
        curve = ", ".join(f"{after:.0f}: {figure:.1f}" for after, figure in marks[name])
        cells = [
            name,
            short(median(found)),
            f"{ratio(rates[given.who[0]], found):.3g} x",
            f"{marks[name][0][0]:.1f}",
            curve,
        ]
        print("| " + " | ".join(cells) + " |")
    for name, reason in reasons.items():
        print(f"| {name} | - | - | - | {reason} |")


if __name__ == "__main__":
    main()
