"""Seconds from 50 demonstrations to a normalised return of 0.95: ours, and a peer's cloning where it can.

PYTHONPATH=src python benchmarks/time_to.py                              # ten minutes, on both cores of a quiet machine
PYTHONPATH=src python benchmarks/time_to.py --envs navigation --methods magail --seeds 1

Every run is a process of its own. Its clock runs from the start of the process, imports, compiling and reading the
demonstrations included, and stands still while the policy is looked at, once in a second at most: 0 is random play and
1 the expert, in 500 episodes that are the same in every look. Whether it holds is asked of 1,000 other episodes. A
seed draws the demonstrations too. The peer learns from the steps of all agents as if they were one agent's.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy
import torch
from pairs import Missing, Side
from torch.nn.functional import linear

from understudy import api
from understudy.core.random import generator
from understudy.demos import Demos
from understudy.maths.heads import Categorical
from understudy.rollout import Uniform, play

GOAL = 0.95
METHODS = {
    "bc": {},
    "bc, symmetric": {"symmetric": True},
    "dagger": {"rounds": 34},  # it asks the scripted expert; its rate falls over the later half of the rounds
    "magail": {},
    "iq": {},
}
PEER, PEER_LIMIT = "imitation's BC", 20  # seconds: it never stops by itself


class Enough(Exception):
    """It has learnt enough, or for long enough."""


class Look:
    """Scores by a clock that stands still while it looks: `time.time` from `began` on, or the processor's, from 0."""

    def __init__(self, name, yardstick, limit, began=0.0):
        self.env, self.limit, self.began, self.latest = api.make_env(name), limit, began, began
        self.clock = time.time if began else time.process_time
        self.guess, self.best = yardstick

    def score(self, policy, episodes=500, seed="look"):
        """0 for random play, 1 for the expert."""
        return (paid(self.env, policy, episodes, seed) - self.guess) / (self.best - self.guess)

    def __call__(self, policy, least=1.0):
        now = self.clock()
        if now - self.latest < least:
            return
        spent, score = now - self.began, self.score(policy)
        reached = score >= GOAL
        told = {"spent": spent, "score": score} | ({"held": self.score(policy, 1000, "held")} if reached else {})
        print(json.dumps(told), flush=True)
        if reached or spent > self.limit:
            raise Enough
        self.latest = self.clock()
        self.began += self.latest - now


class Peer:
    """A policy of weights and biases, tanh between them, that all agents share."""

    noise = 1

    def __init__(self, layers):
        self.layers = [tuple(map(torch.tensor, layer)) for layer in layers]

    def start(self, envs):
        return ()

    def act(self, view, memory, noise):
        x = view.obs
        for weight, bias in self.layers[:-1]:
            x = linear(x, weight, bias).tanh()
        return Categorical(5).sample(linear(x, *self.layers[-1]), noise), memory


def paid(env, policy, episodes, seed):
    played = play(env, policy, episodes, generator(0, seed))
    return float((played.rewards * played.valid.unsqueeze(-1)).sum(dim=(1, 2)).mean())


def learn(method, name, folder, seed, threads, look):
    """In a process of its own: until it is enough."""
    torch.set_num_threads(threads)
    algorithm, demos = api.algorithm_named(method.split(",")[0]), Demos.load(folder)
    result = getattr(algorithm, "result", lambda state: state.policy)
    run = api.train(
        algorithm, demos, look.env, config=METHODS[method], seed=seed, minutes=60,
        evaluate=lambda state, chance: look(result(state)) or {},
        habits=api.Habits(threads=threads, show=False, evaluate_every=1),
    )  # fmt: skip
    look(run.policy, least=0.0)


def ours(method, name, folder, seed, threads, yardstick, limit, processor):
    """What was told at each look, of a run in a process of its own."""
    what = {"method": method, "name": name, "folder": str(folder), "seed": seed, "threads": threads}
    what |= {"look": {"yardstick": yardstick, "limit": limit, "began": 0.0 if processor else time.time()}}
    done = subprocess.run([sys.executable, __file__, "--run", json.dumps(what)], stdout=subprocess.PIPE, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def peers(name, folder, seed, threads, yardstick, limit, processor):
    """The same of the peer: its weights are brought over here, and looked at while it waits."""
    demos = Demos.load(folder).padded()
    numpy.savez(folder / "steps.npz", **{
        key: x[demos.valid].flatten(0, 1).numpy() for key, x in (("seen", demos.obs), ("done", demos.actions))
    })  # fmt: skip
    side, look, looks = Side(PEER, "time_to_imitation", "imitation"), Look(name, yardstick, limit), []
    began = time.time()
    spent = side.start(threads, steps=str(folder / "steps.npz"), seed=seed)["processor"]
    spent = spent if processor else time.time() - began
    try:
        while not looks or (spent < min(limit, PEER_LIMIT) and looks[-1]["score"] < GOAL):
            told = side.ask(seconds=1.0)
            spent += told["processor" if processor else "wall"]
            policy = Peer(told["figure"])
            looks.append({"spent": spent, "score": look.score(policy)})
            if looks[-1]["score"] >= GOAL:
                looks[-1]["held"] = look.score(policy, 1000, "held")
    finally:
        side.stop()
    return looks


def row(name, method, runs):
    """What is told of the seeds of a method."""
    reached = [looks[-1]["spent"] for looks in runs if "held" in looks[-1]]
    held = [looks[-1]["held"] for looks in runs if "held" in looks[-1]]
    missed = [max(looks, key=lambda look: look["score"]) for looks in runs if "held" not in looks[-1]]
    return [
        name,
        method,
        " ".join(f"{seconds:.0f}" for seconds in reached) or "-",
        f"{median(reached):.0f}" if len(reached) > len(missed) else "-",
        " ".join(f"{score:.3f}" for score in held) or "-",
        " ".join(f"{look['score']:.3f} after {look['spent']:.0f} s" for look in missed) or "-",
    ]


def main():
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--envs", nargs="+", default=["spread", "navigation"])
    asked.add_argument("--methods", nargs="+", default=[*METHODS, PEER], choices=[*METHODS, PEER])
    asked.add_argument("--seeds", type=int, default=3)
    asked.add_argument("--limit", type=float, default=60, help="seconds, after which a run is given up")
    asked.add_argument("--threads", type=int, default=2)
    asked.add_argument("--processor", action="store_true", help="time of the processor, for a machine that is busy")
    asked.add_argument("--run", type=json.loads, help=argparse.SUPPRESS)
    given = asked.parse_args()
    if given.run:
        look = Look(given.run["name"], **given.run.pop("look"))
        try:
            return learn(**given.run, look=look)
        except Enough:
            return None
    print("| env | method | s to 0.95, each seed | median | score in others | not reached |\n|---|---|---|---|---|---|")
    for name in given.envs:
        env = api.make_env(name)
        yardstick = [paid(env, policy, 4000, "yardstick") for policy in (Uniform(env.spec), api.expert_of(env))]
        with tempfile.TemporaryDirectory() as made:
            folders = [Path(made) / str(seed) for seed in range(given.seeds)]
            for seed, folder in enumerate(folders):
                api.record(env, episodes=50, seed=seed).save(folder)
            for method in given.methods:
                common = {"threads": given.threads, "yardstick": yardstick, "limit": given.limit}
                common["processor"] = given.processor
                way = peers if method == PEER else ours
                first = () if method == PEER else (method,)
                try:
                    runs = [way(*first, name, folder, seed, **common) for seed, folder in enumerate(folders)]
                    print("| " + " | ".join(row(name, method, runs)) + " |", flush=True)
                except Missing as reason:
                    print(f"| {name} | {method} | - | - | - | {reason} |", flush=True)


if __name__ == "__main__":
    main()
