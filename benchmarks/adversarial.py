"""Adversarial imitation, ours and a peer in turn: env-steps a second with all learning.

On CartPole of Gymnasium, which both can play, from 10 episodes of a controller. `ppo` learns the same game without a
discriminator. imitation's settings are those of its own tutorial for this game.

make bench-peers
PYTHONPATH=src python benchmarks/adversarial.py
"""

import argparse
from statistics import median

from pairs import Side, paired, ratio, short, timed

SIDES = [
    Side("ours, magail", "adversarial_understudy", what={"algorithm": "magail"}),
    Side("ours, maairl", "adversarial_understudy", what={"algorithm": "maairl"}),
    Side("ours, ppo", "adversarial_understudy", what={"algorithm": "ppo"}),
    Side("imitation, GAIL", "adversarial_imitation", "imitation"),
]


def main():
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    given = timed(asked, rounds=4, seconds=5)
    found, begun = paired(SIDES, given.rounds, given.seconds, given.threads, given.wall)
    print("| who | env-steps/s | magail is | first round, s |\n|---|---|---|---|")
    ours = found[SIDES[0].name]
    for name, rates in found.items():
        cells = ["-", rates, ""] if isinstance(rates, str) else None
        cells = cells or [short(median(rates)), f"{ratio(ours, rates):.3g} x", f"{begun[name]:.1f}"]
        print(f"| {name} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
