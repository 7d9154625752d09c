"""The table of docs/algorithms/iq.md: CartPole from one demonstration, of which every 20th step is known.

PYTHONPATH=src python benchmarks/cartpole.py            # needs gymnasium[classic-control]; seeds 0 to 9, one thread
PYTHONPATH=src python benchmarks/cartpole.py defaults   # nothing but the defaults
PYTHONPATH=src python benchmarks/cartpole.py mirror     # the game is declared the same in a mirror; or both words

The demonstrator is a linear controller, pushing to the side on which 0.5 x + x' + 2 angle + 2 angle' lies. A seed draws
its start, the offset of the 25 steps that are kept, and all of the learning. Minutes are of processor time.
"""

import sys
from time import process_time

import gymnasium
import torch

from understudy import api
from understudy.core.random import generator
from understudy.core.symmetry import Symmetry
from understudy.demos.subsample import subsampled
from understudy.envs.adapters import from_gymnasium
from understudy.rollout import play
from understudy.runs.loop import Habits

BALANCE = torch.tensor([0.5, 1.0, 2.0, 2.0])
SETTINGS = {  # besides the defaults
    "sampling": "online", "scales": "both", "follow": 0.02, "explore": 0.3, "dread": 2.0,
    "penalty": 0.05, "batch": 128, "steps": 20, "limit": 8_000,
}  # fmt: skip
MIRROR = Symmetry("mirror", torch.tensor([0]), torch.arange(4)[None], -torch.ones(1, 4), torch.tensor([[1, 0]]))


def balance(env, view, noise):
    return ((view.obs * BALANCE).sum(dim=-1) > 0).long()


class Likeliest:
    """A policy's likeliest moves."""

    def __init__(self, policy):
        self.policy, self.noise, self.start = policy, 0, policy.start

    def act(self, view, memory, noise):
        return self.policy.mode(view, memory)


def lengths(env, policy, episodes=20):
    """Of whole episodes, which are their returns."""
    return play(env, policy, episodes, generator(1, "evaluate"), envs=episodes).valid.sum(dim=1).float()


def main(mirrored, settings, seeds=10):
    symmetries = ((MIRROR,),) if mirrored else ()
    print("| seed | demonstrator | IQ-Learn, drawn | IQ-Learn, likeliest | worst of 20 | minutes |")
    print("|---|---|---|---|---|---|")
    habits = Habits(show=False, threads=1)
    with from_gymnasium(lambda: gymnasium.make("CartPole-v1"), copies=32, symmetries=symmetries) as env:
        for seed in range(seeds):
            whole = api.record(env, balance, episodes=1, seed=seed, envs=1)
            demos = subsampled(whole, every=20, seed=seed)
            began = process_time()
            policy = api.train("iq", demos, env, config=settings, seed=seed, habits=habits).policy
            minutes = (process_time() - began) / 60
            drawn, likeliest = lengths(env, policy), lengths(env, Likeliest(policy))
            cells = [whole.returns().item(), drawn.mean().item(), likeliest.mean().item(), likeliest.min().item()]
            print(f"| {seed} | {' | '.join(f'{cell:.0f}' for cell in cells)} | {minutes:.2f} |", flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main("mirror" in sys.argv, {"sampling": "online"} if "defaults" in sys.argv else SETTINGS)
