"""The tables of docs/envs/kitchen.md: `python benchmarks/kitchen.py`. One CPU core, about a minute."""

import time

import torch

from understudy.core.random import generator, uniform
from understudy.core.types import View
from understudy.envs.kitchen import Kitchen, cook
from understudy.envs.kitchen_board import LAYOUTS


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


if __name__ == "__main__":
    torch.set_num_threads(1)
    for layout in LAYOUTS:
        served = {rules: soups(Kitchen(layout, rules=rules)) for rules in ("2019", "current")}
        print(f"{layout}: " + ", ".join(f"{count:.1f} soups under rules {rules}" for rules, count in served.items()))
    for layout in ("cramped_room", "counter_circuit"):
        for observing in (False, True):
            rates = [f"{speed(Kitchen(layout), envs, observing) / 1e6:.2f} M" for envs in (512, 4096)]
            print(
                f"{layout}, step{' and observe' * observing}: {rates[0]} steps/s in 512, {rates[1]} in 4,096 kitchens"
            )
