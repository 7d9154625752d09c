"""What images, questions and matching bring where recordings are few.

python benchmarks/few.py images                         spread, 5 episodes: bc and dagger, with and without images
python benchmarks/few.py matching navigation 200        bc, gmmil and pwil from so many episodes, 250 updates
python benchmarks/few.py matching tag 5 1 60            the same, so many seeds and updates
"""

import sys
import time

import torch

from understudy import api
from understudy.demos.augment import augmented
from understudy.maths.stats import estimate

QUIET = api.Habits(threads=1, show=False)
ROUNDS = {"clone": {"limit": 400}, "rounds": 5, "envs": 4, "steps": 100}


def score(env, policy, seed):
    """Return of the last agent, and 0 for random play, 1 for the expert."""
    mine = float(api.record(env, policy, 500, seed=100 + seed).returns()[:, -1].mean())
    best = float(api.record(env, None, 500, seed=100).returns()[:, -1].mean())
    guess = float(api.record(env, api.Uniform(env.spec), 500, seed=100).returns()[:, -1].mean())
    return mine, (mine - guess) / (best - guess)


def told(name, env, seeds, learn):
    began, found = time.monotonic(), [score(env, learn(seed), seed) for seed in seeds]
    of = [torch.tensor([x[k] for x in found], dtype=torch.float64) for k in (0, 1)]
    shown = [str(estimate(x, torch.Generator().manual_seed(0))) if len(found) > 1 else f"{float(x):.3f}" for x in of]
    seconds = (time.monotonic() - began) / len(found)
    print(f"{name:28} return {shown[0]:>18}   score {shown[1]:>18}   {seconds:.0f} s a seed", flush=True)


def images(seeds=(0, 1, 2)):
    env = api.make_env("spread")
    for count in (1, 16):

        def learn(seed, algorithm, count=count):
            demos = api.record(env, episodes=5, seed=seed)
            if count > 1:
                demos = augmented(demos, env.symmetries(), count, seed)
            config = {"limit": 400} if algorithm == "bc" else ROUNDS | {"symmetric": count > 1}
            return api.train(algorithm, demos, env, config=config, seed=seed, habits=QUIET).policy

        for algorithm in ("bc", "dagger"):
            told(f"{algorithm}, {count} images", env, seeds, lambda seed, a=algorithm: learn(seed, a))


def matching(name, episodes, seeds=1, updates=250):
    env = api.make_env(name)
    for algorithm in ("bc", "gmmil", "pwil"):

        def learn(seed, algorithm=algorithm):
            demos = api.record(env, episodes=episodes, seed=seed)
            limit = None if algorithm == "bc" else updates
            return api.train(algorithm, demos, env, updates=limit, seed=seed, habits=QUIET).policy

        told(f"{name} {episodes}: {algorithm}", env, range(seeds), learn)


if __name__ == "__main__":
    what, *more = sys.argv[1:]
    torch.set_num_threads(1)
    if what == "images":
        images()
    else:
        matching(more[0], *map(int, more[1:]))
