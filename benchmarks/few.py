"""What images, questions and matching bring where recordings are few.

python benchmarks/few.py images                         spread, 5 episodes: bc and dagger, with and without images
python benchmarks/few.py learnt dagger spread           any method from 5 episodes, from its defaults, seed 0
python benchmarks/few.py learnt magail spread 3 5       the same, so many seeds and minutes (0: until it stops)
python benchmarks/few.py learnt dagger spread 1 0 '{"steps": 200}'    and settings
python benchmarks/few.py judges                         what discriminators of 5 episodes think of play they never saw
python benchmarks/few.py matching navigation 200        bc, gmmil and pwil from so many episodes, 250 updates
python benchmarks/few.py matching tag 5 1 60            the same, so many seeds and updates
"""

import json
import sys
import time
from dataclasses import dataclass

import torch

from understudy import api
from understudy.algorithms import adversary, magail, ppo
from understudy.core.random import generator
from understudy.core.symmetry import symmetries_of
from understudy.core.tree import tree_cat
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


def learnt(method, name, seeds="1", minutes="0", settings="{}"):
    env, config = api.make_env(name), json.loads(settings)

    def learn(seed):
        demos = api.record(env, episodes=5, seed=seed)
        spent = float(minutes) or None
        return api.train(method, demos, env, config=config, minutes=spent, seed=seed, habits=QUIET).policy

    told(f"{name} 5: {method}", env, range(int(seeds)), learn)


@dataclass
class Erring:
    """The expert, but for a share of moves by chance."""

    env: object
    share: float

    def __post_init__(self):
        self.parts = api.expert_of(self.env), api.Uniform(self.env.spec)
        self.noise = sum(part.noise for part in self.parts) + 1

    def start(self, envs):
        return ()

    def act(self, view, memory, noise):
        expert, chance = self.parts
        best, _ = expert.act(view, (), noise[..., : expert.noise])
        any_move, _ = chance.act(view, (), noise[..., expert.noise : -1])
        return torch.where(noise[..., -1] < self.share, any_move, best), memory


def judges(steps=600, shares=(0.2, 0.4, 0.6, 0.8, 1.0)):
    """Discriminators of 5 episodes of spread and of play that errs, asked about other episodes of both.

    Whoever knows the 5 by heart tells them from the same expert's other episodes (1; 0.5: it does not), and those from
    play that errs no better than by chance. `follows`: correlation of an episode's mean logit with its return.
    """
    env, source = api.make_env("spread"), generator(0, "judges")
    demos, others = api.record(env, episodes=5, seed=0), api.record(env, episodes=200, seed=77).padded()
    pool, unseen = (
        [api.record(env, Erring(env, s), n, seed).padded() for s in shares] for n, seed in ((80, 1), (60, 2))
    )
    pool = tree_cat([adversary.side_of(part, torch.tensor(0.0), part.obs[..., 0, 0].numel(), source) for part in pool])
    for symmetric in (False, True):
        draws = generator(0, "judge")
        learner = ppo.Config(envs=8, segment=8, minibatches=1)
        config = magail.Config(start="fresh", symmetric=symmetric, learner=learner)
        state = magail.init(config, demos, env, draws)
        groups = symmetries_of(env) if symmetric else ()
        for _ in range(steps):
            magail.discriminate(config, state, demos, pool, draws, groups)
        with torch.no_grad():
            five, expert, *erring = (state.judge(p.view, p.actions) for p in (demos.padded(), others, *unseen))
        logits = torch.cat([x.mean(dim=(1, 2)) for x in (expert, *erring)])
        returns = torch.cat([p.rewards.sum(dim=1).mean(dim=1) for p in (others, *unseen)])
        print(
            f"symmetric={symmetric!s:5}  the five above others {above(five, expert):.2f}   above who errs in 20 % "
            f"{above(expert, erring[0]):.2f}, 60 % {above(expert, erring[2]):.2f}   follows "
            f"{float(torch.corrcoef(torch.stack([logits, returns]))[0, 1]):.2f}",
            flush=True,
        )


def above(one, other):
    """How often a number of the one is larger than a number of the other."""
    ranks = torch.cat([one.flatten(), other.flatten()]).argsort().argsort().double()[: one.numel()]
    return float((ranks.sum() - one.numel() * (one.numel() - 1) / 2) / (one.numel() * other.numel()))


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
    elif what == "judges":
        judges()
    elif what == "learnt":
        learnt(*more)
    else:
        matching(more[0], *map(int, more[1:]))
