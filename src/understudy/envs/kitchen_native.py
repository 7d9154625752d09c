"""A kitchen's step, what its cooks perceive and its whole state, by one compiled function each (`kitchen.cpp`).

By torch nearly all of their time goes into a hundred small operations and the memory between them. The compiled
functions find the same bits in one pass over each env. `Kitchen` asks them first, and does it by torch where they
answer None: on other devices, under transforms of torch, where `torch.compile` traces, and in states that no kitchen
comes to.

`UNDERSTUDY_KITCHEN=0`, set before a kitchen is first played in, turns them off.
"""

import ctypes
import logging
import os
import struct
import weakref
from collections.abc import Callable
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from understudy.core import native
from understudy.envs.kitchen_board import FAR, FLOOR, Board, State

SIGNATURES = {  # name: pointers, numbers after them
    "understudy_kitchen_step": (6, 2),
    "understudy_kitchen_observe": (3, 2),
    "understudy_kitchen_whole": (3, 2),
}
LANES = 16  # as in kitchen.cpp
BENCHES = 256  # counters and pots at most, as in kitchen.cpp
LARGEST = 2**24  # bytes of a kitchen's tables
ALONE = 4096  # envs, at most, that one thread does alone
_seven = struct.Struct("7P").pack


def step(
    env: Any, state: State, actions: Tensor
) -> tuple[State, Float[Tensor, "env agent"], Bool[Tensor, " env"]] | None:
    """What `Kitchen.step` gives. None: torch is to do it."""
    kitchen, old = _known(env, state)
    fits = actions.is_cpu and actions.dtype == torch.int64 and actions.shape == state.cell.shape
    if kitchen is None or not fits or native.watched(actions):
        return None
    actions = actions.contiguous()
    leaves = [torch.empty_like(x) for x in _leaves(state)]
    rewards, terminated = torch.empty(actions.shape), torch.empty_like(state.age, dtype=torch.bool)
    new, out = _pointers(leaves), (rewards.data_ptr(), terminated.data_ptr())
    if not _functions().understudy_kitchen_step(kitchen.about, old, actions.data_ptr(), new, *out, *_size(state)):
        return None
    after = State(*leaves)
    kitchen.last = weakref.ref(after)
    return after, rewards, terminated


def observe(env: Any, state: State) -> Float[Tensor, "env agent obs"] | None:
    """What `Kitchen.observe` gives. None: torch is to do it."""
    kitchen, given = _known(env, state)
    if kitchen is None:
        return None
    obs = torch.empty(len(state.cell), kitchen.cooks, kitchen.features)
    seen = _functions().understudy_kitchen_observe(kitchen.about, given, obs.data_ptr(), *_size(state))
    return obs if seen else None


def whole(env: Any, state: State) -> Float[Tensor, "env feature"] | None:
    """What `Kitchen.whole` gives. None: torch is to do it."""
    kitchen, given = _known(env, state)
    if kitchen is None:
        return None
    flat = torch.empty(len(state.cell), kitchen.whole)
    told = _functions().understudy_kitchen_whole(kitchen.about, given, flat.data_ptr(), *_size(state))
    return flat if told else None


def status() -> str:
    """`in use`, or why the compiled functions are not."""
    if os.environ.get("UNDERSTUDY_KITCHEN") == "0":
        return "off: UNDERSTUDY_KITCHEN is 0"
    found = _functions()
    return found if isinstance(found, str) else "in use"


def ready(env: Any) -> bool:
    """Whether this kitchen is played by the compiled functions."""
    return not isinstance(_kitchen(env), str)


# ---- what the compiled functions are given ----


class About(ctypes.Structure):
    """`Kitchen` of kitchen.cpp."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("cooks", "cells", "past", "places", "counters", "pots", "benches")),
        *((name, ctypes.c_int64) for name in ("cook_time", "current", "width", "height", "features", "whole")),
        ("points", ctypes.c_double),
        *((name, ctypes.c_void_p) for name in ("tile", "ahead", "walkable", "x", "y", "place")),
        *((name, ctypes.c_void_p) for name in ("spots", "spot", "bench", "order")),
        *((name, ctypes.c_void_p) for name in ("near_sources", "after_sources", "near_spots", "after_spots")),
        *((name, ctypes.c_void_p) for name in ("right", "down", "close", "cooked")),
    )


class _Kitchen:
    """One kitchen, as the compiled functions know it."""

    def __init__(self, env: Any):
        board, spec = env.board(), env.spec
        self.cooks, self.features, self.whole = spec.agents, spec.obs, spec.whole
        self.tables = _tables(board, env.cook_time)  # kept: `about` holds their addresses
        about = About(
            *(self.cooks, len(board.tile), env.past, len(board.places), len(board.counters), len(board.pots)),
            *(len(board.bench), env.cook_time, env.rules == "current", board.width, board.height),
            *(self.features, self.whole, env.points),
            **{name: table.data_ptr() for name, table in self.tables.items()},
        )
        self.about = ctypes.pointer(about)
        cooks, cells = spec.agents, len(board.tile)
        inner = (cooks,), (cooks,), (cooks, 3), (cells, 3), (cooks, env.past), (), ()
        kinds = torch.int64, torch.int64, torch.int16, torch.int16, torch.int64, torch.int64, torch.int64
        self.leaves = tuple(zip(inner, kinds, strict=True))
        self.last: Callable[[], State | None] = lambda: None  # the last state made

    def unsuited(self, state: State) -> str | None:
        """Why `state` is not for the compiled functions. None: it is."""
        envs = len(state.cell)
        found = [(x.is_cpu, x.dtype, x.shape, x.is_contiguous()) for x in _leaves(state)]
        if found != [(True, kind, (envs, *inner), True) for inner, kind in self.leaves]:
            return (
                f"its state is on {state.cell.device}, or of other dtypes, shapes or strides than the kitchen gives it"
            )
        return None


def _known(env: Any, state: State) -> tuple[_Kitchen, bytes] | tuple[None, bytes]:
    """The kitchen and the state's addresses. None where they are not for the compiled functions; the log says why."""
    if torch.compiler.is_compiling():  # what follows cannot be traced
        return None, b""
    kitchen = _kitchen(env)
    if isinstance(kitchen, str):
        reason: str | None = kitchen
    elif torch.get_default_dtype() != torch.float32:
        reason = f"they are for float32, and this is {torch.get_default_dtype()}"
    elif not (reason := native.watched(state.cell) or (None if kitchen.last() is state else kitchen.unsuited(state))):
        return kitchen, _pointers(_leaves(state))  # anew each time: `share_memory_` moves what they point to
    _tell(str(reason))
    return None, b""


def _size(state: State) -> tuple[int, int]:
    """Envs and threads."""
    envs = len(state.age)
    return envs, torch.get_num_threads() if envs > ALONE else 1


@lru_cache(maxsize=64)
def _kitchen(env: Any) -> _Kitchen | str:
    """The kitchen for the compiled functions, or why it is not for them."""
    if (state := status()) != "in use":
        return state
    board = env.board()
    spots = len(board.counters) + len(board.pots)
    if spots > BENCHES or len(board.after) * spots * 2 * LANES > LARGEST:
        return f"a kitchen so large: {len(board.places)} places to stand and {spots} counters and pots"
    return _Kitchen(env)


def _tables(board: Board, cook_time: int) -> dict[str, Tensor]:
    """The pointers of `About`; what they hold is said there, in kitchen.cpp."""
    spots = torch.cat([board.counters, board.pots])
    spot = len(spots) + board.tile
    spot[spots] = torch.arange(len(spots))
    place = torch.full_like(board.tile, -1)
    place[board.places] = torch.arange(len(board.places))
    order = torch.full((len(board.after), 2), -1)
    nearest = board.to_pots.argsort(dim=-1, stable=True)[:, :2]  # ties keep the order of the pots
    order[:, : nearest.shape[1]] = nearest
    cell = torch.arange(len(board.tile))
    found = {"tile": board.tile, "ahead": board.ahead, "walkable": -(board.tile[board.ahead] == FLOOR).long()}
    found |= {"x": cell % board.width, "y": cell // board.width, "place": place}
    found |= {"spots": spots, "spot": spot, "bench": board.bench, "order": order}
    found = {name: table.to(torch.int32) for name, table in found.items()}

    after = board.after[::4]  # [place, 4]: where a move leads does not hang on how one faced
    to_sources = torch.full((len(board.after), LANES), FAR, dtype=torch.int8)
    to_sources[:, :3] = board.to_sources
    to_spots = torch.cat([board.to_counters, board.to_pots], dim=-1).to(torch.int8).unsqueeze(-1)
    found |= {"near_sources": to_sources, "after_sources": to_sources[after]}
    found["near_spots"] = to_spots.expand(-1, -1, LANES)
    found["after_spots"] = to_spots[after].transpose(1, 2).expand(-1, -1, -1, LANES)

    x, y = torch.arange(1 - board.width, board.width), torch.arange(1 - board.height, board.height)
    found |= {"right": x / (board.width - 1), "down": y / (board.height - 1)}
    found["close"] = 1 / (1 + torch.arange(board.width + board.height))
    found["cooked"] = (torch.arange(cook_time + 1, dtype=torch.int16) / cook_time).clamp(max=1)
    return {name: table.contiguous() for name, table in found.items()}


def _leaves(state: State) -> tuple[Tensor, ...]:
    return state.cell, state.facing, state.hands, state.things, state.last_actions, state.soups, state.age


def _pointers(leaves: tuple[Tensor, ...] | list[Tensor]) -> bytes:
    """`State` of kitchen.cpp."""
    return _seven(*[x.data_ptr() for x in leaves])


@cache
def _functions() -> Any:
    """The compiled functions, or why there are none."""
    try:
        library = native.library(Path(__file__).with_name("kitchen.cpp"))
    except native.Unavailable as reason:
        return f"off: {reason}"
    for name, (pointers, numbers) in SIGNATURES.items():
        function = getattr(library, name)
        function.argtypes = [ctypes.c_void_p] * pointers + [ctypes.c_int64] * numbers
        function.restype = ctypes.c_int64
    return library


@cache
def _tell(reason: str) -> None:
    """Each reason once."""
    logging.getLogger("understudy").info("kitchens are played by torch alone: %s", reason)
