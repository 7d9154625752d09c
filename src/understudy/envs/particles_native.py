"""A particle game's reset, step, sight and whole state, by one compiled function each (`particles.cpp`).

By torch most of their time goes into small operations and the memory between them. `Scenario` asks the compiled
functions first, and does by torch what they answer None to: on other devices and in other precision, where a gradient
is asked for, under transforms of torch and where `torch.compile` traces. Games in which agents speak are torch's own;
what hangs on a goal is seen, paid and drawn by torch.

Numbers are torch's, bit for bit, wherever no exponential decides them, and else to its rounding.

`UNDERSTUDY_PARTICLES=0`, set before a game is first played, turns them off.
"""

import ctypes
import logging
import os
import struct
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from understudy.core import native
from understudy.envs.particles_physics import MOVES, State, World, envs, rows
from understudy.envs.particles_sight import Sights

SIGNATURES = {  # name: pointers, numbers after them
    "understudy_particles_scatter": (3, 3),
    "understudy_particles_step": (5, 2),
    "understudy_particles_see": (4, 3),
}
ALONE = 4096  # envs, at most, that one thread does alone
BY_TORCH, COVER, CATCH = range(3)  # as in particles.cpp
_three = struct.Struct("3P").pack


@dataclass(frozen=True)
class Paid:
    """How `particles.cpp` pays: COVER, `together` times the shared reward less `alone` times one's overlaps; or CATCH,
    where the first so many `hunters` touch the others. Bodies overlap that are nearer than `reach`."""

    kind: int
    reach: float
    together: float = 0.0
    alone: float = 0.0
    hunters: int = 0


def scatter(env: Any, noise: Float[Tensor, "env noise"]) -> State | None:
    """What `particles_physics.scatter` gives. None: torch is to do it."""
    game = _game(env) if not torch.compiler.is_compiling() and _plain(noise, torch.float32) else None
    if not isinstance(game, _Game) or env.world.goals:
        return None
    count, agents, bodies = len(noise), game.about.agents, game.about.bodies
    noise = noise.contiguous()
    placed = noise.new_empty((bodies, 2, count))
    _functions().understudy_particles_scatter(
        game.address, noise.data_ptr(), placed.data_ptr(), noise.shape[1], count, _threads(count)
    )
    return State(
        position=envs(placed[:agents]),
        velocity=envs(noise.new_zeros(agents, 2, count)),
        landmark=envs(placed[agents:]),
        message=envs(noise.new_empty(agents, 0, count)),
        goal=envs(noise.new_empty((0, count), dtype=torch.long)),
    )


def step(env: Any, state: State, actions: Tensor) -> tuple[State, Float[Tensor, "env agent"]] | None:
    """The state one step later, and the rewards. None: torch is to do it."""
    game = _suited(env, state)
    if game is None:
        return None
    about, count = game.about, len(state.position)
    shape = (count, about.agents, about.size) if about.continuous else (count, about.agents)
    kind = torch.float32 if about.continuous else torch.int64
    if actions.shape != shape or not _plain(actions, kind):
        return None
    old, actions = _as_they_lie(state), actions.contiguous()
    make, inner, across = state.position.new_empty_strided, (count, about.agents, 2), (1, 2 * count, count)
    position, velocity, rewards = make(inner, across), make(inner, across), make(inner[:2], (1, count))
    new = _three(position.data_ptr(), velocity.data_ptr(), 0)
    given = game.address, _three(*[x.data_ptr() for x in old]), actions.data_ptr(), new, rewards.data_ptr()
    _functions().understudy_particles_step(*given, count, _threads(count))
    state = State(position, velocity, state.landmark, state.message, state.goal)
    return state, envs(env.rewards(state)) if about.pays == BY_TORCH else rewards


def observe(env: Any, state: State) -> Float[Tensor, "env agent obs"] | None:
    """What `particles_sight.observe` gives. None: torch is to do it."""
    game = _suited(env, state)
    return None if game is None else _see(game, state, game.sights, game.about.agents, env.spec.obs)


def whole(env: Any, state: State) -> Float[Tensor, "env feature"] | None:
    """What `Scenario.whole` gives. None: torch is to do it."""
    game = _suited(env, state)
    return None if game is None or env.world.goals else _see(game, state, game.everything, env.spec.whole)


def ready(env: Any) -> bool:
    """Whether all of a step, and of what is seen after it, is theirs here."""
    game = _game(env)
    return isinstance(game, _Game) and game.about.pays != BY_TORCH and not env.world.goals


def status() -> str:
    """`in use`, or why the compiled functions are not."""
    if os.environ.get("UNDERSTUDY_PARTICLES") == "0":
        return "off: UNDERSTUDY_PARTICLES is 0"
    found = _functions()
    return found if isinstance(found, str) else "in use"


# ---- what the compiled functions are given ----


class About(ctypes.Structure):
    """`Game` of particles.cpp."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("agents", "bodies", "solid", "paper", "continuous", "size")),
        *((name, ctypes.c_int64) for name in ("pays", "hunters")),
        *((name, ctypes.c_double) for name in ("together", "alone", "reach")),
        *((name, ctypes.c_void_p) for name in ("radius", "scope", "push", "mass", "top")),
    )


class _Game:
    """One scenario, as the compiled functions know it."""

    def __init__(self, env: Any):
        world: World = env.world
        numbers = world.radius, world.reach, world.push, world.mass, world.top_speed
        self.numbers = [torch.tensor(each, dtype=torch.float32) for each in numbers]  # kept: `about` has the addresses
        paid = env.paid() if _owner(env, "paid") is _owner(env, "rewards") else None
        paid = Paid(BY_TORCH, 0.0) if paid is None else paid
        size = env.spec.action.size if env.continuous else 0
        self.about = About(
            *(world.agents, world.bodies, world.solid, world.paper, env.continuous, size),
            *(paid.kind, paid.hunters, paid.together, paid.alone, paid.reach),
            *(each.data_ptr() if len(each) else None for each in self.numbers),
        )
        self.address = ctypes.addressof(self.about)
        self.inner = (world.agents, 2), (world.agents, 2), (world.bodies - world.agents, 2)
        self.env = env

    @cached_property
    def sights(self) -> Tensor:
        """Two rows of a block for each number that is seen."""
        return _rows_of(self.env.sights)

    @cached_property
    def everything(self) -> Tensor:
        """The same for each number of the whole state."""
        nothing = self.about.bodies + self.about.agents
        return _rows_of((tuple((point, nothing) for point in range(nothing)),))

    def unsuited(self, state: State) -> str | None:
        """Why `state` is not for the compiled functions. None: it is."""
        count, leaves = len(state.position), (state.position, state.velocity, state.landmark)
        found = [(type(x), x.shape, x.dtype, x.is_cpu) for x in leaves]
        if found != [(Tensor, (count, *inner), torch.float32, True) for inner in self.inner]:
            return f"its state is on {state.position.device}, or of other dtypes or shapes than the game gives it"
        if torch.get_default_dtype() != torch.float32:
            return f"they are for float32, and this is {torch.get_default_dtype()}"
        if torch.is_grad_enabled() and any(x.requires_grad for x in leaves):
            return "a gradient is asked for"
        return native.watched(state.position)


def _owner(env: Any, name: str) -> type:
    """The class that says so: who pays otherwise than the class it is made from is paid by torch."""
    return next(each for each in type(env).__mro__ if name in vars(each))


def _rows_of(sights: Sights) -> Tensor:
    points = torch.tensor(sights, dtype=torch.int32).flatten(0, 1)  # each is two rows
    return torch.stack([2 * points, 2 * points + 1], dim=1).flatten(0, 1).contiguous()


def _suited(env: Any, state: State) -> _Game | None:
    if torch.compiler.is_compiling():  # what follows cannot be traced
        return None
    game = _game(env)
    reason = game if isinstance(game, str) else game.unsuited(state)
    if isinstance(game, str) or reason is not None:
        _tell(str(reason))
        return None
    return game


@lru_cache(maxsize=64)
def _game(env: Any) -> _Game | str:
    """The scenario for the compiled functions, or why it is not for them."""
    if (state := status()) != "in use":
        return state
    if env.world.words:
        return f"agents speak in {env.title}"
    if 0 < env.world.solid < env.world.agents or (env.continuous and env.spec.action.size < MOVES):
        return f"not all agents are solid, or move, in {env.title}"
    return _Game(env)


def _plain(x: Tensor, kind: torch.dtype) -> bool:
    """Numbers handed in that need nobody to watch them."""
    asked = x.requires_grad and torch.is_grad_enabled()
    return x.is_cpu and x.dtype == kind and not asked and native.watched(x) is None


def _as_they_lie(state: State) -> tuple[Tensor, Tensor, Tensor]:
    """Positions, velocities and landmarks with envs fastest; copied where they lie otherwise."""
    across = (1, 2 * len(state.position), len(state.position))
    leaves = state.position, state.velocity, state.landmark
    return tuple(x if x.stride() == across else rows(x) for x in leaves)  # type: ignore[return-value]


def _see(game: _Game, state: State, table: Tensor, *shape: int) -> Tensor:
    count, numbers, leaves = len(state.position), len(table), _as_they_lie(state)
    out = state.position.new_empty(count, *shape)
    given = _three(*[x.data_ptr() for x in leaves])
    _functions().understudy_particles_see(
        game.address, given, table.data_ptr(), out.data_ptr(), numbers, count, _threads(count)
    )
    return out


def _threads(count: int) -> int:
    return torch.get_num_threads() if count > ALONE else 1


@cache
def _functions() -> Any:
    """The compiled functions, or why there are none."""
    try:
        library = native.library(Path(__file__).with_name("particles.cpp"), "-ffp-contract=off")
    except native.Unavailable as reason:
        return f"off: {reason}"
    for name, (pointers, numbers) in SIGNATURES.items():
        function = getattr(library, name)
        function.argtypes = [ctypes.c_void_p] * pointers + [ctypes.c_int64] * numbers
        function.restype = None
    return library


@cache
def _tell(reason: str) -> None:
    """Each reason once."""
    logging.getLogger("understudy").info("particle games are played by torch alone: %s", reason)
