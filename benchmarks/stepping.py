"""Env-steps a second with observations and new episodes, random actions: ours and peers in turn.

make bench-peers                                     # once: the peers' virtual environments
PYTHONPATH=src python benchmarks/stepping.py         # a table for docs/speed.md; --help for less of it
"""

import argparse
from statistics import median

from pairs import Side, paired, ratio, short, timed

PEERS = {
    "spread": [Side("VMAS", "stepping_vmas", "vmas"), Side("JaxMARL", "stepping_jaxmarl", "jaxmarl")],
    "tag": [Side("VMAS", "stepping_vmas", "vmas"), Side("JaxMARL", "stepping_jaxmarl", "jaxmarl")],
    "kitchen": [Side("JaxMARL", "stepping_jaxmarl", "jaxmarl")],
}
SINGLE = {
    "spread": Side("mpe2, one process", "stepping_mpe2", "sb3"),
    "tag": Side("mpe2, one process", "stepping_mpe2", "sb3"),
    "kitchen": Side("overcooked-ai, one process", "stepping_overcooked", "overcooked"),
}
WAYS = ("compiled", "eager", "collect")  # the last keeps all that happened, as for learning


def main():
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--games", nargs="+", default=list(PEERS), choices=PEERS)
    asked.add_argument("--envs", nargs="+", type=int, default=[512, 4096, 16384])
    asked.add_argument("--ways", nargs="+", default=WAYS, choices=WAYS, help="of ours; the first is compared")
    given = timed(asked, rounds=5, seconds=0.4)
    print("| game | envs | who | env-steps/s | ours is | first round, s |\n|---|---|---|---|---|---|")
    ours = [Side(f"ours, {way}", "stepping_understudy", what={"way": way}) for way in given.ways]
    for game in given.games:
        for envs in given.envs:
            sides = [*ours, *PEERS[game], SINGLE[game]]
            what = {"game": game, "envs": envs}
            found, begun = paired(sides, given.rounds, given.seconds, given.threads, given.wall, **what)
            for name, rates in found.items():
                cells = ["-", "-", str(rates)]
                if not isinstance(rates, str):
                    cells = [short(median(rates)), f"{ratio(found[ours[0].name], rates):.3g} x", f"{begun[name]:.1f}"]
                print("| " + " | ".join([game, f"{envs:,}", name, *cells]) + " |", flush=True)


if __name__ == "__main__":
    main()
