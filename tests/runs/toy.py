"""The smallest algorithm with every kind of thing in its state: what the tests of runs train."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Learner:
    rate: float = 1e-2


@dataclass(frozen=True)
class Config:
    hidden: int = 8
    batch: int = 16
    stop_at: int | None = None
    learner: Learner = field(default_factory=Learner)


@dataclass(frozen=True)
class Live:
    position: Tensor  # [env, agent, xy], envs fastest in memory
    age: Tensor


@dataclass
class State:
    policy: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: Any
    live: Live
    scale: Tensor
    position: int = 0
    best: float = float("inf")
    memory: tuple = ()
    seen: dict = field(default_factory=dict)
    note: str | None = None


class Numbers:
    """Recordings that are a function of their position."""

    def __init__(self, content: str = "numbers") -> None:
        self.content = content

    def fingerprint(self) -> str:
        return self.content

    def batch(self, position: int, size: int) -> Tensor:
        return (torch.arange(size * 4).reshape(size, 4) + position).sin()


def init(config: Config, demos: Any, env: Any, generator: torch.Generator) -> State:
    policy = nn.Sequential(nn.Linear(4, config.hidden), nn.Tanh(), nn.BatchNorm1d(config.hidden))
    policy.append(nn.Linear(config.hidden, 2))
    with torch.no_grad():
        for p in policy.parameters():
            p.copy_(torch.randn(p.shape, generator=generator) * 0.3)
    scale = torch.ones(2, requires_grad=True)
    optimizer = torch.optim.Adam([*policy.parameters(), scale], lr=config.learner.rate)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.999)
    envs_fastest = torch.zeros(3, 2, 5).permute(2, 0, 1)
    return State(policy, optimizer, schedule, Live(envs_fastest, torch.zeros(5, dtype=torch.long)), scale)


def update(config: Config, state: State, demos: Any, env: Any, generator: torch.Generator) -> dict[str, Tensor]:
    obs = demos.batch(state.position, config.batch)
    state.position += config.batch
    noise = torch.rand(obs.shape[0], 2, generator=generator)
    loss = ((state.policy(obs) * state.scale - obs[:, :2] - 0.1 * noise) ** 2).mean()
    state.optimizer.zero_grad()
    loss.backward()
    state.optimizer.step()
    state.schedule.step()
    step = torch.randn(5, 3, 2, generator=generator)
    state.live = Live((state.live.position + step).permute(1, 2, 0).contiguous().permute(2, 0, 1), state.live.age + 1)
    state.best = min(state.best, loss.item())
    state.memory = (*state.memory[-2:], state.live.position.sum(dim=1))
    state.seen[state.position % 3] = loss.detach()
    return {"loss": loss, "age": state.live.age.float().mean()} | ({"odd": loss} if state.position % 32 else {})


def finished(config: Config, state: State) -> bool:
    return config.stop_at is not None and state.position >= config.stop_at * config.batch


def bits(state: Any) -> list[tuple[str, bytes]]:
    """Everything in a state, as bytes."""
    from understudy.runs.checkpoint import pack

    tensors, tree = pack(state)
    return [("tree", repr(tree).encode()), *((k, v.numpy().tobytes()) for k, v in tensors.items())]
