"""Today's rules against `overcooked-ai` itself, step by step. Skipped where that package is not installed."""

import pytest
import torch

from understudy.core.random import generator, uniform
from understudy.core.types import View
from understudy.envs.kitchen import Kitchen, State, cook
from understudy.envs.kitchen_board import LAYOUTS

peer = pytest.importorskip("overcooked_ai_py.mdp.overcooked_mdp")
NAMES = {"onion": 1, "dish": 2, "soup": 3}
MOVES = [(0, -1), (0, 1), (1, 0), (-1, 0), (0, 0), "interact"]


def game(rows):
    orders = [{"ingredients": ["onion"] * 3}]
    return peer.OvercookedGridworld.from_grid(list(rows), {"start_all_orders": orders, "layout_name": "ours"})


def thing(found):
    if found is None:
        return [0, 0, 0]
    if found.name != "soup":
        return [NAMES[found.name], 0, 0]
    return [3, len(found.ingredients), max(found._cooking_tick, 0)]


def ours_of(theirs, board) -> dict[str, list]:
    things = [[0, 0, 0] for _ in board.tile]
    for (x, y), found in theirs.objects.items():
        things[y * board.width + x] = thing(found)
    return {
        "cell": [p.position[1] * board.width + p.position[0] for p in theirs.players],
        "facing": [MOVES.index(p.orientation) for p in theirs.players],
        "hands": [thing(p.held_object) for p in theirs.players],
        "things": things,
    }


THREE = ("XXXPPXXX", "X 1  3 X", "D XXXX S", "X2     X", "XXXOOXXX")


@pytest.mark.parametrize("rows", [*LAYOUTS.values(), THREE], ids=[*LAYOUTS, "three_cooks"])
def test_every_step_equals_the_peers(rows):
    """Half of the actions are an expert's, so that soups are cooked and served; the others make a mess of it."""
    env, length, envs = Kitchen("ours", rules="current", grid=rows), 300, 8
    source, board, agents = generator(0, "peer"), env.board(), env.spec.agents
    peers, model = [game(rows).get_standard_start_state() for _ in range(envs)], game(rows)
    state: State = env.reset(torch.empty(envs, 0))
    paid, lone_soups = 0.0, 0
    for t in range(length):
        view = View(obs=torch.empty(envs, agents, 0), whole=env.whole(state))
        planned = cook(env, view, uniform((envs, agents, 2), source))
        mess = torch.randint(0, 9, (envs, agents), generator=source).clamp(max=5)
        actions = torch.where(uniform((envs, agents), source) < 0.2, mess, planned)
        state, rewards, _ = env.step(state, actions, torch.empty(envs, 0))
        for e in range(envs):
            joint = tuple(MOVES[a] for a in actions[e].tolist())
            peers[e], infos = model.get_state_transition(peers[e], joint)
            assert rewards[e, 0].item() == sum(infos["sparse_reward_by_agent"]), f"reward of env {e}, step {t}"
            for name, value in ours_of(peers[e], board).items():
                assert getattr(state, name)[e].tolist() == value, f"{name} of env {e}, step {t}"
        paid += rewards[:, 0].sum().item()
        lone_soups += int(((state.things[..., 1] > 0) & (state.things[..., 1] < 3) & (state.things[..., 2] > 0)).sum())
    assert paid > 0
    assert lone_soups > 0  # soups of one or two onions were cooked too
