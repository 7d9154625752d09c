"""A peer's side of a paired run: `pairs.py` writes a line of JSON to it, and it answers with one.

{"prepare": {...}} -> {"processor": seconds until a first round of the work was over, compiling included}
{"seconds": s}     -> {"units": how much was done in at least s seconds of processor time, "processor", "wall",
                       "figure": whatever the work tells of its last round}
"""

import json
import os
import sys
from time import perf_counter, process_time


def serve(prepare):
    """Answer until the input ends. `prepare(**what)` gives `work() -> (units, figure)`, one round that is over then."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    work = None
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            begun, wall, units = process_time(), perf_counter(), 0
            if "prepare" in asked:
                work = prepare(**asked["prepare"])
                units, figure = work()
            else:
                while process_time() - begun < asked["seconds"]:
                    done, figure = work()
                    units += done
            told = {
                "processor": process_time() - begun,
                "wall": perf_counter() - wall,
                "units": units,
                "figure": figure,
            }
        except Exception as error:  # a package that is not there, a game that it does not have
            told = {"error": f"{type(error).__name__}: {error}".splitlines()[0]}
        print(json.dumps(told), file=answers, flush=True)
