"""What a cook of the kitchen perceives: numbers in [-1, 1] from which a small network can see what people would do.

Each cook gets a block about itself, the same block about every other cook (the next in number first, then round), and
what all share: pots and counters. A block says where the cook stands and what it holds, what lies ahead and what an
interact would do, and for each kind of target how few presses away the nearest is and which moves lead there.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from understudy.envs.kitchen_board import (
    ACTIONS,
    DISH,
    FAR,
    FLOOR,
    NOTHING,
    ONION,
    SOUP,
    Board,
    State,
    one_hot,
)

FACINGS = ACTIONS[:4]
TILES = ("floor", "counter", "onions", "dishes", "pot", "serving")
THINGS = ("onion", "dish", "soup")
EFFECTS = ("take_onion", "take_dish", "put", "pick", "fill", "light", "ladle", "serve")
TARGETS = (
    *("onions", "dishes", "serving", "pot_to_fill", "pot_to_light", "pot_cooking", "pot_ready"),
    *("free_counter", "counter_onion", "counter_dish", "counter_soup"),
)
STAGES = ("onions_1", "onions_2", "onions_3", "cooking", "cooked", "ready")


def feature_names(board: Board, past: int) -> tuple[str, ...]:
    """The name of each number of an observation, in order."""
    spots = [f"{c % board.width},{c // board.width}" for c in range(len(board.tile))]
    block = [f"at {spots[c]}" for c in board.places.tolist()]
    block += [f"facing {f}" for f in FACINGS] + [f"holds {t}" for t in THINGS]
    block += [f"did {a} {ago} ago" for ago in range(1, past + 1) for a in ACTIONS]
    block += [f"ahead {t}" for t in TILES] + [f"ahead {t}" for t in THINGS] + ["ahead cook"]
    block += [f"would {e}" for e in EFFECTS] + [f"free {f}" for f in FACINGS] + [f"blocked {f}" for f in FACINGS]
    block += [f"near {t}" for t in TARGETS] + [f"{f} to {t}" for f in FACINGS for t in TARGETS]
    others = range(1, len(board.start))
    names = [f"I {name}" for name in block] + [f"other {o} {name}" for o in others for name in block]
    names += [f"other {o} offset {axis}" for o in others for axis in ("x", "y", "near")]
    names += [f"pot {spots[c]} {name}" for c in board.pots.tolist() for name in STAGES]
    names += [f"counter {spots[c]} {t}" for c in board.counters.tolist() for t in THINGS]
    return tuple(names)


def observe(
    board: Board, state: State, effects: Bool[Tensor, "env agent 8"], cook_time: int, can_light: bool
) -> Float[Tensor, "env agent obs"]:
    """The numbers that `feature_names` names. `effects`: what each cook's interact would do."""
    envs, cooks = state.cell.shape
    rows = torch.arange(envs, device=state.cell.device)[:, None]
    front, place = board.ahead[state.cell, state.facing], board.place[state.cell]
    around = board.ahead[state.cell]  # [env, agent, facing]
    walkable = board.tile[around] == FLOOR
    taken = (around.unsqueeze(-1) == state.cell[:, None, None]).any(dim=-1)
    presses = target_presses(board, place * 4 + state.facing, state.things, cook_time, can_light)
    now, then = presses[..., :1, :], presses[..., 1:, :]

    block = torch.cat(
        [
            one_hot(place, len(board.places)),
            one_hot(state.facing, 4),
            _kinds(state.hands),
            one_hot(state.last_actions, 7)[..., :6].flatten(2),
            one_hot(board.tile[front], 6),
            _kinds(state.things[rows, front]),
            (front.unsqueeze(-1) == state.cell.unsqueeze(1)).any(dim=-1, keepdim=True).float(),
            effects.float(),
            (walkable & ~taken).float(),
            (walkable & taken).float(),
            _nearness(now).flatten(2),
            (now - then).sign().flatten(2),
        ],
        dim=-1,
    )
    me = torch.arange(cooks, device=block.device)[:, None]
    others = (me + torch.arange(1, cooks, device=block.device)) % cooks  # [me, other]
    x, y = state.cell % board.width, state.cell // board.width
    right, down = x[:, others] - x.unsqueeze(2), y[:, others] - y.unsqueeze(2)  # [env, me, other]
    near = 1 / (1 + right.abs() + down.abs())
    offset = torch.stack([right / (board.width - 1), down / (board.height - 1), near], dim=-1)

    _, onions, ticks = state.things[:, board.pots].unbind(dim=-1)
    cooked = (ticks / cook_time).clamp(max=1)
    stage = torch.stack([(ticks > 0) & (cooked < 1), cooked, cooked == 1], dim=-1)
    pots = torch.cat([one_hot(onions.long(), 4)[..., 1:], stage], dim=-1)
    shared = torch.cat([pots.flatten(1), _kinds(state.things[:, board.counters]).flatten(1)], dim=-1)

    parts = [block, block[:, others].flatten(2), offset.flatten(2)]
    return torch.cat([*parts, shared.unsqueeze(1).expand(-1, cooks, -1)], dim=-1)


def target_presses(
    board: Board, node: Int[Tensor, "env agent"], things: Int[Tensor, "env cell 3"], cook_time: int, can_light: bool
) -> Float[Tensor, "env agent 5 target"]:
    """Fewest presses until a target of each kind is faced, FAR where there is none: now, and after each of the four
    moves. Other cooks are not in the way.
    """
    here = torch.cat([node.unsqueeze(-1), board.after[node]], dim=-1)  # [env, agent, 5]
    _, onions, ticks = things[:, board.pots].unbind(dim=-1)
    waits = ticks == 0
    light = waits & (onions > 0) & can_light
    pots = torch.stack([waits & (onions < 3), light, ~waits & (ticks < cook_time), ticks >= cook_time], dim=1)
    lies = things[:, board.counters, 0]
    counters = torch.stack([lies == kind for kind in (NOTHING, ONION, DISH, SOUP)], dim=1)
    return torch.cat(
        [
            board.to_sources[here],
            _nearest(board.to_pots[here], pots),
            _nearest(board.to_counters[here], counters),
        ],
        dim=-1,
    )


def _nearest(
    distance: Float[Tensor, "env agent 5 bench"], is_target: Bool[Tensor, "env kind bench"]
) -> Float[Tensor, "env agent 5 kind"]:
    far = (~is_target).float() * FAR
    return torch.maximum(distance.unsqueeze(-2), far[:, None, None]).amin(dim=-1)


def _kinds(things: Int[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
    """Flags for onion, dish and soup."""
    return one_hot(things[..., 0].long(), 4)[..., 1:]


def _nearness(presses: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """1 when faced, 1/2 one press away, ... 0 when there is none."""
    return (1 / (1 + presses)).masked_fill(presses == FAR, 0)
