"""What all particle scenarios share: reset, step, legal moves and the full state, given who is there."""

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from understudy.core.errors import ConfigError, expect_shape
from understudy.core.scene import Scene
from understudy.core.symmetry import Groups
from understudy.core.types import ActionSpec, Continuous, Discrete, EnvSpec
from understudy.envs import particles_draw, particles_native, particles_sight
from understudy.envs import particles_physics as physics
from understudy.envs.particles_native import Paid
from understudy.envs.particles_physics import DT, State, World, constant, envs, rows
from understudy.envs.particles_sight import Eyes, Seen, Sights
from understudy.envs.particles_symmetry import symmetries


class Scenario:
    """A particle env but for what makes it that one: `make_world`, `seen` or `observe`, `rewards`, perhaps `over`.

    A scenario is a frozen dataclass; its `world` and `spec` are made once and kept beside its fields.
    """

    title: ClassVar[str]
    continuous: bool
    horizon: int | None

    def make_world(self) -> World:
        """Who is there."""
        raise NotImplementedError

    def seen(self, eyes: Eyes) -> list[Seen]:
        """What agent `eyes.me` sees, of points alone; a scenario in which there is more has its own `observe`."""
        raise NotImplementedError

    def observe(self, state: State) -> Float[Tensor, "env agent obs"]:
        """What each agent sees, zeros beyond its own size."""
        obs = particles_native.observe(self, state)
        return self.plain_observe(state) if obs is None else obs

    def plain_observe(self, state: State) -> Float[Tensor, "env agent obs"]:
        """`observe` by torch."""
        return particles_sight.observe(state, _table(self, state.position.device))

    def rewards(self, state: State) -> Float[Tensor, "agent env"]:
        """What each agent is paid for having got to `state`, with envs last."""
        raise NotImplementedError

    def paid(self) -> Paid | None:
        """The same in the words of the compiled functions; None where they have none for it."""
        return None

    def over(self, state: State) -> Bool[Tensor, "env"]:
        """Whether the game ended with `state`: never, unless a scenario says otherwise."""
        return torch.zeros(len(state.position), dtype=torch.bool, device=state.position.device)

    @cached_property
    def world(self) -> World:
        return self.make_world()

    @property
    def sights(self) -> Sights:
        """What every agent sees, of points; nothing behind it where another sees more."""
        return particles_sight.even(self.world, [self.seen(Eyes(self.world, i)) for i in range(self.world.agents)])

    @cached_property
    def spec(self) -> EnvSpec:
        world, sizes = self.world, self.world.action_sizes(self.continuous)
        action: ActionSpec = Continuous(max(sizes), 0.0, 1.0) if self.continuous else Discrete(max(sizes))
        return EnvSpec(
            agents=world.agents,
            obs=max(world.sees),
            action=action,
            horizon=self.horizon,
            reset_noise=2 * world.bodies + len(world.goals),
            whole=2 * world.bodies + (2 + world.words) * world.agents + sum(world.goals),
            names=world.names,
            roles=world.roles,
            teams=world.teams,
            obs_sizes=world.sees,
            action_sizes=sizes,
            dt=DT,
            title=self.title,
        )

    def reset(self, noise: Float[Tensor, "env noise"]) -> State:
        """Bodies uniform in their squares, at rest, silent; goals drawn. The state has the dtype of `noise`."""
        expect_shape("noise", noise, "env noise", noise=self.spec.reset_noise)
        state = particles_native.scatter(self, noise)
        return physics.scatter(self.world, noise) if state is None else state

    def step(
        self, state: State, actions: Shaped[Tensor, "..."], noise: Float[Tensor, "env noise"]
    ) -> tuple[State, Float[Tensor, "env agent"], Bool[Tensor, "env"]]:
        """One step of 0.1 s. Discrete actions are Int[env agent], continuous ones Float[env agent size]."""
        done = particles_native.step(self, state, actions)
        state, rewards = self.plain_step(state, actions) if done is None else done
        return state, rewards, self.over(state)

    def plain_step(self, state: State, actions: Shaped[Tensor, "..."]) -> tuple[State, Float[Tensor, "env agent"]]:
        """The next state and the rewards, by torch."""
        agents, count, dtype = self.world.agents, len(state.position), state.position.dtype
        if self.continuous:
            size = self.spec.action.size  # type: ignore[union-attr]
            expect_shape("actions", actions, "env agent size", env=count, agent=agents, size=size)
            direction, said = physics.decode_numbers(self.world, actions, dtype)
        else:
            expect_shape("actions", actions, "env agent", env=count, agent=agents)
            direction, said = physics.decode_choices(self.world, actions, dtype)
        state = physics.advance(self.world, state, direction, said)
        return state, envs(self.rewards(state))

    @property
    def native(self) -> bool:
        """Whether all of a step, and of what is seen after it, is by compiled functions, on the CPU."""
        own = type(self).observe is Scenario.observe and type(self).step is Scenario.step
        return own and particles_native.ready(self)

    def legal(self, state: State) -> Bool[Tensor, "env agent choice"] | None:
        """False beyond an agent's own choices; None where every agent has them all, and for continuous actions."""
        sizes = self.spec.action_sizes
        if self.continuous or min(sizes) == max(sizes):
            return None
        choice = torch.arange(max(sizes), device=state.position.device)
        mask = choice < constant(sizes, torch.long, state.position.device).unsqueeze(-1)
        return mask.expand(len(state.position), -1, -1)

    def whole(self, state: State) -> Float[Tensor, "env feature"]:
        """Positions of all bodies, velocities and messages of all agents, each goal as one-hot numbers."""
        flat = particles_native.whole(self, state)
        return self.plain_whole(state) if flat is None else flat

    def plain_whole(self, state: State) -> Float[Tensor, "env feature"]:
        """`whole` by torch."""
        s = parts(state)
        blocks = [x.flatten(0, 1) for x in (s.agents, s.landmarks, s.velocity, s.message)]
        for which, choices in zip(s.goal, self.world.goals, strict=True):
            blocks.append(tinted(which, choices, 0.0, 1.0, s.agents))
        return torch.cat(blocks).t().contiguous()

    def unpack(self, whole: Float[Tensor, "env feature"]) -> State:
        """The state whose `whole` this is."""
        world, agents = self.world, self.world.agents
        expect_shape("whole", whole, "env feature", feature=self.spec.whole)
        sizes = [2 * agents, 2 * (world.bodies - agents), 2 * agents, world.words * agents, *world.goals]
        position, landmark, velocity, message, *goals = rows(whole).split(sizes)
        goal = [g.argmax(0) for g in goals]
        return State(
            position=envs(position.unflatten(0, (agents, 2))),
            velocity=envs(velocity.unflatten(0, (agents, 2))),
            landmark=envs(landmark.unflatten(0, (world.bodies - agents, 2))),
            message=envs(message.reshape(agents, world.words, len(whole))),
            goal=torch.stack(goal, dim=1) if goal else whole.new_zeros(len(whole), 0).long(),
        )

    @cached_property
    def _symmetries(self) -> Groups:
        return symmetries(self)

    def symmetries(self) -> Groups:
        """Turns by 90 degrees, a mirror, and exchanges of agents and of landmarks that are alike."""
        return self._symmetries

    def draw(self, whole: Float[Tensor, "feature"]) -> Scene:
        """A picture of the moment that `whole(state)` describes."""
        state = self.unpack(whole.detach().cpu().unsqueeze(0))
        here = (state.position[0], state.velocity[0], state.landmark[0], state.message[0])
        return particles_draw.draw(self.world, *here, state.goal[0].tolist())

    def require(self, **at_least: int) -> None:
        """Refuse fields that are smaller than what the scenario needs."""
        for name, least in at_least.items():
            if getattr(self, name) < least:
                raise ConfigError(f"{name}: got {getattr(self, name)}; {self.title} needs at least {least}.")


def _table(env: Scenario, device: torch.device) -> Int[Tensor, "many 2"]:
    """`env.sights` of all agents end to end, made once for each device."""
    if torch.compiler.is_compiling():
        return torch.tensor(env.sights, device=device).flatten(0, 1)  # which the compiler makes part of its graph
    return _kept(env, device)


@lru_cache(maxsize=64)
def _kept(env: Scenario, device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # as `constant`
        return torch.tensor(env.sights, device=device).flatten(0, 1)


@dataclass(frozen=True)
class Parts:
    """A state as observations and rewards are written, with envs last."""

    agents: Float[Tensor, "agent 2 env"]
    landmarks: Float[Tensor, "landmark 2 env"]
    velocity: Float[Tensor, "agent 2 env"]
    message: Float[Tensor, "agent word env"]
    goal: Shaped[Tensor, "goal env"]


def parts(state: State) -> Parts:
    """The state with envs last."""
    return Parts(*map(rows, (state.position, state.landmark, state.velocity, state.message, state.goal)))


def offsets(
    here: Float[Tensor, "some 2 env"], there: Float[Tensor, "*own other 2 env"]
) -> Float[Tensor, "some many env"]:
    """From each of `here` to all of `there` (to its own row of them, where it has one), end to end."""
    return (there - here.unsqueeze(1)).flatten(1, 2)


def but_own(pairs: Shaped[Tensor, "some some *feature env"]) -> Shaped[Tensor, "some other *feature env"]:
    """All but the diagonal of a square: for each one the entries of the others, in order."""
    count = len(pairs)
    if count == 1:
        return pairs[:, :0]
    # Past its first entry the flat square is rows of `count` others, each with one of the diagonal behind them.
    rest = pairs.flatten(0, 1)[1:].unflatten(0, (count - 1, count + 1))[:, :-1]
    return rest.flatten(0, 1).unflatten(0, (count, count - 1))


def of_others(x: Float[Tensor, "some feature env"]) -> Float[Tensor, "some other feature env"]:
    """For each one the rows of all the others, in order."""
    return but_own(x.expand(len(x), *x.shape))


def sight(s: Parts) -> Float[Tensor, "agent many env"]:
    """Offsets from each agent to all landmarks, then to all other agents."""
    return torch.cat([offsets(s.agents, s.landmarks), offsets(s.agents, of_others(s.agents))], dim=1)


def pick(options: Float[Tensor, "option feature #env"], goal: Shaped[Tensor, "env"]) -> Float[Tensor, "feature env"]:
    """The option that each env's `goal` names."""
    chosen = goal == torch.arange(len(options), device=goal.device)[:, None]
    return (options * chosen.unsqueeze(1)).sum(0)


def tinted(goal: Shaped[Tensor, "env"], colours: int, base: float, more: float, like: Tensor) -> Tensor:
    """[colour env]: `base` everywhere, `more` added at the goal."""
    at_goal = goal == torch.arange(colours, device=goal.device)[:, None]
    return base + more * at_goal.to(like.dtype)


def lay(*groups: Float[Tensor, "_ _ env"]) -> Float[Tensor, "env agent obs"]:
    """Observations of the groups one after another, each padded with zeros to the widest, as one row-major block."""
    width = max(group.shape[1] for group in groups)
    wide = [F.pad(g, (0, 0, 0, width - g.shape[1])) if g.shape[1] < width else g for g in groups]
    block = torch.cat(wide) if len(wide) > 1 else wide[0]
    return block.flatten(0, 1).t().contiguous().unflatten(1, (len(block), width))
