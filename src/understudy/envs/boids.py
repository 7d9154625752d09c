"""Boids: eight points on a plane that flock, or keep apart, by three rules and one temper.

    env = Boids()
    positions, friendly = flights(env, 1024, generator(0, "flights"))     # as many scenes, without a policy

Each boid accelerates by a, which the rules say and a policy may say instead, and moves:

    velocity <- clip(velocity + clip(a) / 2)        clip(v) = v where |v| <= 1, v / |v| elsewhere
    position <- position + boost velocity / 10

    a = temper clip(middle of the others within 0.9 - position) + clip(mean velocity of these) / 5
        + clip(position - middle of the others within 0.2) / 10
        + clip(-position)   beyond 2 from the origin

`temper` is 1 (friendly) or -1 (unfriendly), one for all boids of a flight. `boost` is 1 at first, and drawn anew for
each boid, from 0.8 to 1.4, with every tenth step.

Source: Zhan et al. 2019, arXiv:1803.07612, and its published generator, whose first step is another (here
`shared_first_step`): all boids then accelerate by the clipped SUM of their rules, since they share one accumulator.
There it also carries over from one flight to the next; here it does not.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from understudy.core.errors import ConfigError, expect_shape
from understudy.core.random import uniform
from understudy.core.scene import Scene, Shape
from understudy.core.types import Continuous, EnvSpec, View

LOCAL, CLOSE, FAR = 0.9, 0.2, 2.0  # distances within, within and beyond which the rules hold
ALIGN, APART = 0.2, 0.1  # weights of the two lesser rules
STRIDE, GAIN = 0.1, 0.5  # of a step: way for a velocity of 1, velocity for an acceleration of 1
BOOSTS = (0.8, 1.4)
CHANGE = 10  # steps from one boost to the next
HARDEST = 2.5  # no rule asks for more in one coordinate
START = tuple((0.8 * x, 0.8 * y) for x, y in ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (1, -1), (-1, 1), (-1, -1)))
EDGE = 3.0  # half the side of what is shown
CHUNK = 4096  # flights played side by side
PAPER, RING, FRIENDLY, UNFRIENDLY = "#ffffff", "#d5d9e0", "#2f7fbf", "#c9553d"


class State(NamedTuple):
    """Of many flights, side by side."""

    position: Float[Tensor, "env agent 2"]
    velocity: Float[Tensor, "env agent 2"]
    boost: Float[Tensor, "env agent"]
    temper: Float[Tensor, "env"]  # 1 friendly, -1 unfriendly
    age: Int[Tensor, "env"]  # steps since the start


@dataclass(frozen=True)
class Boids:
    """The flock. Each boid sees itself, its boost, the temper, and where the others are and go, from its own place."""

    friendly: float = 0.5  # chance that a flight is
    horizon: int | None = 49
    shared_first_step: bool = False  # as in the published data
    start: tuple[tuple[float, float], ...] = START  # one place for each boid

    def __post_init__(self) -> None:
        if not 0 <= self.friendly <= 1:
            raise ConfigError(f"friendly: got {self.friendly}; it is a chance, from 0 to 1.")
        if len(self.start) < 2 or len(set(self.start)) < len(self.start):
            raise ConfigError("start: at least two boids, each with a place of its own.")

    @cached_property
    def spec(self) -> EnvSpec:
        boids = len(self.start)
        return EnvSpec(
            agents=boids,
            obs=6 + 4 * (boids - 1),
            action=Continuous(2, -HARDEST, HARDEST),
            horizon=self.horizon,
            reset_noise=2 * boids + 1,
            step_noise=boids,
            whole=5 * boids + 2,
            names=tuple(f"boid_{i}" for i in range(boids)),
            roles=("boid",) * boids,
            title="boids",
        )

    def reset(self, noise: Float[Tensor, "env noise"]) -> State:
        """Everybody at its place, with a velocity from a standard normal distribution, which the first step clips."""
        expect_shape("noise", noise, "env noise", noise=self.spec.reset_noise)
        boids = self.spec.agents
        start = noise.new_tensor(self.start).expand(len(noise), -1, -1)
        velocity = torch.special.ndtri(noise[:, 1:].double().clamp(2**-24, 1 - 2**-24)).to(noise.dtype)
        temper = torch.where(noise[:, 0] < self.friendly, 1.0, -1.0).to(noise.dtype)
        age = torch.zeros(len(noise), dtype=torch.long, device=noise.device)
        return State(start.clone(), velocity.unflatten(-1, (boids, 2)), torch.ones_like(start[..., 0]), temper, age)

    def observe(self, state: State) -> Float[Tensor, "env agent obs"]:
        """Own position and velocity, boost, temper; then offset and velocity of each other, from the next one on."""
        boids = self.spec.agents
        others = (torch.arange(boids).unsqueeze(-1) + torch.arange(1, boids)) % boids  # [agent, other]
        offset = state.position[:, others] - state.position.unsqueeze(2)
        seen = torch.cat([offset, state.velocity[:, others]], dim=-1).flatten(2)
        temper = state.temper.reshape(-1, 1, 1).expand(-1, boids, 1)
        return torch.cat([state.position, state.velocity, state.boost.unsqueeze(-1), temper, seen], dim=-1)

    def step(
        self, state: State, actions: Float[Tensor, "env agent 2"], noise: Float[Tensor, "env noise"]
    ) -> tuple[State, Float[Tensor, "env agent"], Bool[Tensor, "env"]]:
        """One step. Each boid is paid less its mean distance to the others if friendly, and that distance if not."""
        expect_shape("actions", actions, "env agent size", env=len(state.age), agent=self.spec.agents, size=2)
        age = state.age + 1
        asked = actions
        if self.shared_first_step:
            first = (age == 1).reshape(-1, 1, 1)
            asked = torch.where(first, actions.sum(1, keepdim=True).expand_as(actions), actions)
        low, high = BOOSTS
        boost = torch.where((age % CHANGE == 0).unsqueeze(-1), low + (high - low) * noise, state.boost)
        velocity = _clip(state.velocity + GAIN * _clip(asked))
        position = state.position + STRIDE * boost.unsqueeze(-1) * velocity
        apart = (position.unsqueeze(1) - position.unsqueeze(2)).norm(dim=-1).sum(-1) / (self.spec.agents - 1)
        state = State(position, velocity, boost, state.temper, age)
        return state, -state.temper.unsqueeze(-1) * apart, torch.zeros_like(age, dtype=torch.bool)

    def whole(self, state: State) -> Float[Tensor, "env feature"]:
        """Positions, velocities, boosts, temper, age."""
        age = state.age.to(state.position.dtype).unsqueeze(-1)
        parts = (state.position.flatten(1), state.velocity.flatten(1), state.boost, state.temper.unsqueeze(-1), age)
        return torch.cat(parts, dim=-1)

    def draw(self, whole: Float[Tensor, "feature"]) -> Scene:
        """Boids with the way that they are heading; the ring is where they are called back."""
        boids = self.spec.agents
        position, velocity = (x.reshape(boids, 2).tolist() for x in whole[: 4 * boids].split(2 * boids))
        friendly = bool(whole[5 * boids] > 0)
        ring = tuple((FAR * math.cos(k * math.pi / 30), FAR * math.sin(k * math.pi / 30)) for k in range(61))
        shapes = [
            Shape("rect", ((-EDGE, -EDGE), (EDGE, EDGE)), colour=PAPER),
            Shape("line", ring, 0.02, RING),
        ]
        for k, ((x, y), (u, v)) in enumerate(zip(position, velocity, strict=True)):
            colour = FRIENDLY if friendly else UNFRIENDLY
            shapes.append(Shape("line", ((x, y), (x + 0.3 * u, y + 0.3 * v)), 0.03, colour))
            shapes.append(Shape("circle", ((x, y),), 0.08, colour, str(k % 10)))
        return Scene(-EDGE, -EDGE, EDGE, EDGE, tuple(shapes), "friendly" if friendly else "unfriendly")


def expert(env: Boids, view: View, noise: Float[Tensor, "env agent noise"]) -> Float[Tensor, "env agent 2"]:
    """The three rules, of what each boid sees. No chance is in them."""
    obs = view.obs
    offset, velocity = obs[..., 6:].unflatten(-1, (env.spec.agents - 1, 4)).split(2, dim=-1)  # [env, agent, other, 2]
    away = offset.norm(dim=-1, keepdim=True)
    local, close = (away > 0) & (away <= LOCAL), (away > 0) & (away <= CLOSE)
    towards, along, apart = (_mean(x, near) for x, near in ((offset, local), (velocity, local), (-offset, close)))
    position, temper = obs[..., :2], obs[..., 5:6]
    back = torch.where(position.norm(dim=-1, keepdim=True) > FAR, _clip(-position), 0.0)
    return temper * _clip(towards) + ALIGN * _clip(along) + APART * _clip(apart) + back


def flights(
    env: Boids, count: int, source: torch.Generator
) -> tuple[Float[Tensor, "scene time agent 2"], Bool[Tensor, "scene"]]:
    """(positions at the start and after each of `horizon` steps by the rules, which flights are friendly).

    The published data are `flights(Boids(shared_first_step=True), 32768, ...)`, with 8,192 more to test on.
    """
    if env.horizon is None or count < 1:
        raise ConfigError(f"count, horizon: got {count} and {env.horizon}; both are 1 or more.")
    made, tempers = [], []
    for first in range(0, count, CHUNK):
        size = min(CHUNK, count - first)
        state = env.reset(uniform((size, env.spec.reset_noise), source))
        frames = [state.position]
        for _ in range(env.horizon):
            actions = expert(env, View(env.observe(state)), state.position[..., :0])
            state, _, _ = env.step(state, actions, uniform((size, env.spec.step_noise), source))
            frames.append(state.position)
        made.append(torch.stack(frames, dim=1))
        tempers.append(state.temper > 0)
    return torch.cat(made), torch.cat(tempers)


def _clip(v: Float[Tensor, "*batch 2"]) -> Float[Tensor, "*batch 2"]:
    return v / v.norm(dim=-1, keepdim=True).clamp(min=1)


def _mean(x: Float[Tensor, "*batch other 2"], near: Bool[Tensor, "*batch other 1"]) -> Float[Tensor, "*batch 2"]:
    """Of those who are near; zero where nobody is."""
    return (x * near).sum(-2) / near.sum(-2).clamp(min=1)
