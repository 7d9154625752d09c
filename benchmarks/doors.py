"""What a door costs: env-steps per second of a simulator alone, and of the same one behind a door.

python benchmarks/doors.py
"""

import time
from collections.abc import Callable
from typing import Any

import gymnasium
import torch
from mpe2 import simple_spread_v3, simple_tag_v3
from pettingzoo.utils.env import ParallelEnv

from understudy.core.random import generator
from understudy.envs.adapters import from_gymnasium, from_parallel
from understudy.rollout import Uniform, begin, collect

COPIES, STEPS = 16, 250


def alone(env: Any, count: int) -> float:
    """Seconds for `count` steps in the simulator's own loop."""
    parallel = isinstance(env, ParallelEnv)
    chosen = [env.action_space(a).sample() for a in env.possible_agents] if parallel else [env.action_space.sample()]
    env.reset(seed=0)
    began = time.perf_counter()
    for _ in range(count):
        if parallel:
            *_, terminated, truncated, _ = env.step(dict(zip(env.possible_agents, chosen, strict=True)))
            ended = not env.agents
        else:
            *_, terminated, truncated, _ = env.step(chosen[0])
            ended = terminated or truncated
        if ended:
            env.reset(seed=0)
    return time.perf_counter() - began


def behind(open_door: Callable[..., Any], make: Callable[[], Any], workers: int) -> tuple[float, float]:
    """Seconds to open the door, and for STEPS steps of COPIES copies with a policy that moves by chance."""
    began = time.perf_counter()
    with open_door(make, copies=COPIES, workers=workers) as env:
        opened = time.perf_counter()
        source, policy = generator(0), Uniform(env.spec)
        live = begin(env, policy, COPIES, source)
        started = time.perf_counter()
        collect(env, policy, live, STEPS, source)
        return opened - began, time.perf_counter() - started


def main() -> None:
    torch.set_num_threads(1)
    games: list[tuple[str, Callable[..., Any], Callable[[], Any]]] = [
        ("CartPole-v1", from_gymnasium, lambda: gymnasium.make("CartPole-v1")),
        ("simple_spread_v3", from_parallel, simple_spread_v3.parallel_env),
        ("simple_tag_v3", from_parallel, simple_tag_v3.parallel_env),
    ]
    print("| simulator | alone | workers=0 | workers=1 | workers=2 |\n|---|---|---|---|---|")
    for title, open_door, make in games:
        rates = [COPIES * STEPS / 4 / alone(make(), COPIES * STEPS // 4)]
        rates += [COPIES * STEPS / behind(open_door, make, workers)[1] for workers in (0, 1, 2)]
        print(f"| {title} | " + " | ".join(f"{rate:,.0f}" for rate in rates) + " |")
    opening = [behind(from_gymnasium, games[0][2], workers)[0] for workers in (1, 4)]
    print(f"\nto open a door once one was open: {opening[0]:.2f} s with 1 worker, {opening[1]:.2f} s with 4")


if __name__ == "__main__":
    main()
