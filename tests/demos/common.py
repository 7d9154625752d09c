"""Recordings made up for the tests: every number tells where it stands."""

import torch

from understudy.core.random import generator
from understudy.core.types import Continuous, Discrete, EnvSpec
from understudy.demos import About, Demos, Episode

ABOUT = About(title="made up", licence="CC0", units={"obs": "m", "time": "s"}, env={"name": "none", "agents": 2})
DISCRETE = EnvSpec(agents=2, obs=3, action=Discrete(4), whole=2, dt=0.1)
CONTINUOUS = EnvSpec(agents=2, obs=3, action=Continuous(2, -5.0, 5.0))


def episode(number: int, steps: int, *, full: bool = True, seed: int = 0) -> Episode:
    """obs[t, agent] = (number, t, agent); the action of a step is (number + t + agent) % 4."""
    t = torch.arange(steps + 1).unsqueeze(-1).expand(-1, 2)
    agent = torch.arange(2).expand(steps + 1, -1)
    obs = torch.stack([torch.full_like(t, number), t, agent], dim=-1).float()
    if not full:
        return Episode(obs, obs[:-1, :, :2].clamp(-5, 5), terminated=True, name=f"e{number}")
    actions = (number + t + agent)[:-1] % 4
    legal = torch.rand(steps + 1, 2, 4, generator=generator(seed, number)) < 0.5
    legal[:-1].scatter_(-1, actions.unsqueeze(-1), True)
    return Episode(
        obs,
        actions,
        rewards=obs[:-1, :, 1] + 0.5,
        terminated=number % 2 == 0,
        truncated=number % 2 == 1,
        legal=legal,
        present=torch.ones(steps + 1, 2, dtype=torch.bool),
        whole=obs[:, 0, :2] * 10,
        times=torch.arange(steps + 1, dtype=torch.float64) * 0.1,
        labels={"goal": actions * 2, "phase": t[:-1, 0] // 3},
        name=f"e{number}",
        weight=1.0 + number,
        info={"layout": "ring" if number % 3 else "room", "number": number, "score": number / 2, "held": False},
    )


def demos(lengths: list[int], *, full: bool = True) -> Demos:
    episodes = [episode(n, steps, full=full) for n, steps in enumerate(lengths)]
    return Demos.from_episodes(DISCRETE if full else CONTINUOUS, episodes, ABOUT)
