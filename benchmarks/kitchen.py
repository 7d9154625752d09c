"""The tables of docs/envs/kitchen.md: `python benchmarks/kitchen.py`. One CPU core, about a minute.

`python benchmarks/kitchen.py learning`: what is said in docs/speed.md of learning in kitchens.
"""

import sys
import time

import torch

from understudy.algorithms import ppo
from understudy.core.random import generator, uniform
from understudy.core.types import View
from understudy.envs.kitchen import Kitchen, cook
from understudy.envs.kitchen_board import LAYOUTS
from understudy.rollout import Uniform, begin, collect


def soups(env: Kitchen, envs: int = 64) -> float:
    """Mean soups that experts serve in an episode."""
    source, agents = generator(0, "soups"), env.spec.agents
    state = env.reset(torch.empty(envs, 0))
    for _ in range(env.horizon):
        view = View(obs=torch.empty(envs, agents, 0), whole=env.whole(state))
        state, _, _ = env.step(state, cook(env, view, uniform((envs, agents, 2), source)), torch.empty(envs, 0))
    return state.soups.float().mean().item()


def speed(env: Kitchen, envs: int, observing: bool, steps: int = 20) -> float:
    """Best of five: env-steps in a second of processor time, on random actions."""
    state = env.reset(torch.empty(envs, 0))
    actions = torch.randint(0, 6, (steps, envs, env.spec.agents), generator=generator(0, "speed"))
    best = float("inf")
    for _ in range(5):
        began = time.process_time()
        for joint in actions:
            state, _, _ = env.step(state, joint, torch.empty(envs, 0))
            if observing:
                env.observe(state)
        best = min(best, time.process_time() - began)
    return steps * envs / best


class Plain(Kitchen):
    """The kitchen by torch alone."""

    observe, whole = Kitchen.plain_observe, Kitchen.plain_whole

    def step(self, state, actions, noise):
        return self.plain_step(state, actions)


def turns(env: Kitchen, envs: int = 256, steps: int = 64) -> dict:
    """A round of each kind of work in which all that is seen is kept: an update of `ppo`, and random play."""
    source, policy, config = generator(0, "learning"), Uniform(env.spec), ppo.Config(envs=envs, segment=steps)
    state, live = ppo.init(config, None, env, source), begin(env, policy, envs, source)

    def play() -> None:
        nonlocal live
        _, live = collect(env, policy, live, steps, source)

    return {"ppo": lambda: ppo.update(config, state, None, env, source), "random play": play}


def learning(rounds: int = 7, steps: int = 256 * 64) -> None:
    """Medians of rounds by torch and by compiled functions in turn, and of their ratios; processor time."""
    plain, ours = turns(Plain()), turns(Kitchen())
    for name in ours:
        took = []
        for _ in range(rounds + 1):
            began = time.process_time()
            plain[name]()
            between = time.process_time()
            ours[name]()
            took.append((between - began, time.process_time() - between))
        slow, fast, gain = (sorted(x)[rounds // 2] for x in zip(*[(a, b, a / b) for a, b in took[1:]], strict=True))
        print(f"{name}: {steps / slow / 1e3:.3g} thousand steps/s by torch, {steps / fast / 1e3:.3g} now, {gain:.3g} x")


def tables() -> None:
    for layout in LAYOUTS:
        served = {rules: soups(Kitchen(layout, rules=rules)) for rules in ("2019", "current")}
        print(f"{layout}: " + ", ".join(f"{count:.1f} soups under rules {rules}" for rules, count in served.items()))
    for layout in ("cramped_room", "counter_circuit"):
        for observing in (False, True):
            rates = [f"{speed(Kitchen(layout), envs, observing) / 1e6:.2f} M" for envs in (512, 4096)]
            print(
                f"{layout}, step{' and observe' * observing}: {rates[0]} steps/s in 512, {rates[1]} in 4,096 kitchens"
            )


if __name__ == "__main__":
    torch.set_num_threads(1)
    learning() if sys.argv[1:] == ["learning"] else tables()
