"""Samples a second of behavioural cloning, ours and peers in turn: two hidden layers, 100,000 drawn samples in memory.

make bench-peers
PYTHONPATH=src python benchmarks/cloning.py --widths 64 --batches 4096
"""

import argparse
from statistics import median

from pairs import Side, paired, ratio, short, timed

SIDES = [
    Side("ours", "cloning_understudy"),
    Side("JAX scan", "cloning_jax", "jaxmarl"),
    Side("imitation", "cloning_imitation", "imitation"),
    Side("d3rlpy", "cloning_d3rlpy", "d3rlpy"),
]


def main():
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--widths", nargs="+", type=int, default=[64, 256])
    asked.add_argument("--batches", nargs="+", type=int, default=[256, 4096, 16384])
    asked.add_argument("--who", nargs="+", default=[side.name for side in SIDES[1:]], help="beside ours")
    given = timed(asked, rounds=5, seconds=0.4)
    sides = [side for side in SIDES if side.name in ("ours", *given.who)]
    print("| width | batch | who | samples/s | ours is |\n|---|---|---|---|---|")
    for width in given.widths:
        for batch in given.batches:
            what = {"width": width, "batch": batch, "samples": 100_000}
            found, _ = paired(sides, given.rounds, given.seconds, given.threads, given.wall, **what)
            for name, rates in found.items():
                cells = ["-", rates] if isinstance(rates, str) else None
                cells = cells or [short(median(rates)), f"{ratio(found['ours'], rates):.3g} x"]
                print(f"| {width} | {batch:,} | {name} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
