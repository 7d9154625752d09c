"""A scripted cook for every kitchen: it fetches what is needed next, hands over across counters, and gives way.

All cooks of an env decide from the same full state, so they share the work without a word: of those with free hands
the nearest takes a job. A cook that cannot reach the pots brings onions and dishes to counters which a cook that can
reach them shares with it.
"""

from functools import lru_cache

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from understudy.envs.kitchen_board import (
    COUNTER,
    DISH,
    DISHES,
    FAR,
    FLOOR,
    INTERACT,
    NOTHING,
    ONION,
    ONIONS,
    POT,
    SERVING,
    SOUP,
    STAY,
    Board,
    State,
    board_of,
    fewest_presses,
)

DETOUR = 30  # presses that a way costs extra while another cook stands on it
EARLY = 12  # steps before a soup is ready at which a dish is fetched although a pot wants onions
NEVER = 10_000  # cost of what is no target


def plan(
    rows: tuple[str, ...],
    board: Board,
    state: State,
    useful: Bool[Tensor, "env agent"],
    cook_time: int,
    noise: Float[Tensor, "env agent noise"],
) -> Int[Tensor, "env agent"]:
    """Everyone's next action. `useful`: an interact would do something; `rows`: the floor plan that `board` is of."""
    node = board.place[state.cell] * 4 + state.facing
    after = torch.cat([node.unsqueeze(-1), board.after[node]], dim=-1)  # [env, agent, 5]: staying, four moves
    ways = _ways(rows, board, state.cell, after)  # [env, agent, 5, bench]
    cost = _target_costs(board, state, cook_time, ways[:, :, 0])
    target = cost.argmin(dim=-1)  # [env, agent]
    has_target = cost.amin(dim=-1) < NEVER

    presses = ways.gather(-1, target[..., None, None].expand(-1, -1, 5, 1)).squeeze(-1)  # [env, agent, 5]
    around = board.ahead[state.cell]  # [env, agent, facing]
    taken = (around.unsqueeze(-1) == state.cell[:, None, None]).any(dim=-1)
    now, then = presses[..., 0], presses[..., 1:].masked_fill(taken, NEVER)
    onward = has_target & (then.amin(dim=-1) < now)
    order = (noise[..., :1] + torch.arange(4, device=noise.device) / 4).frac()  # breaks ties between the four moves
    toward = (then + 0.9 * order).argmin(dim=-1)

    crowded = _crowded(board, state.cell)
    doubt = torch.where(_dithers(state.last_actions), 0.5, torch.where(crowded, 0.05, 0.0))
    hesitates = noise[..., 1] > 1 - doubt  # or two cooks would give way to each other for ever
    free = (board.tile[around] == FLOOR) & ~taken
    gives_way = crowded & free.any(dim=-1) & (noise[..., 1] < 0.4)
    aside = torch.where(free, order, -1.0).argmax(dim=-1)

    arrived = has_target & (board.bench[target] == board.ahead[state.cell, state.facing])
    walk = torch.where(onward & ~hesitates, toward, torch.where(~onward & gives_way, aside, STAY))
    return torch.where(arrived, torch.where(useful, INTERACT, STAY), walk)


def _dithers(last: Int[Tensor, "env agent past"]) -> Bool[Tensor, "env agent"]:
    """Whether the cook went to and fro in its last four steps."""
    if last.shape[-1] < 4:
        return torch.zeros_like(last[..., 0], dtype=torch.bool)
    now, before = last[..., 0], last[..., 1]
    return (now < STAY) & (before < STAY) & (now != before) & (now == last[..., 2]) & (before == last[..., 3])


def _ways(
    rows: tuple[str, ...], board: Board, cell: Int[Tensor, "env agent"], after: Int[Tensor, "env agent 5"]
) -> Int[Tensor, "env agent 5 bench"]:
    """Presses to each bench around the other cooks where they stand, or past them at the cost of DETOUR."""
    plain = board.distance[after].long()
    cooks = cell.shape[1]
    if cooks == 1:
        return plain.masked_fill(plain == FAR, NEVER)
    blocked = _blocked_distances(rows, cell.device)
    me = torch.arange(cooks, device=cell.device)[:, None]
    others = (me + torch.arange(1, cooks, device=cell.device)) % cooks
    obstacle = board.place[cell][:, others]  # [env, me, other]
    around = blocked[obstacle.unsqueeze(2), after.unsqueeze(3)].amax(dim=3).long()
    return torch.where(around < FAR, around, (plain + DETOUR).masked_fill(plain == FAR, NEVER))


@lru_cache(maxsize=64)
def _blocked_distances(rows: tuple[str, ...], device: torch.device) -> Int[Tensor, "place node bench"]:
    """`Board.distance` with a cook standing on the place: it can be turned to, not walked on."""
    board = board_of(rows)
    node = torch.arange(len(board.after))[:, None]
    turned = node // 4 * 4 + torch.arange(4)
    faced = board.distance == 0
    tables = [
        fewest_presses(torch.where((board.after // 4 == place) & (node // 4 != place), turned, board.after), faced)
        for place in range(len(board.places))
    ]
    return torch.stack(tables).to(device)


def _crowded(board: Board, cell: Int[Tensor, "env agent"]) -> Bool[Tensor, "env agent"]:
    """Whether another cook is at most two cells away."""
    x, y = cell % board.width, cell // board.width
    apart = (x.unsqueeze(2) - x.unsqueeze(1)).abs() + (y.unsqueeze(2) - y.unsqueeze(1)).abs()
    return (apart <= 2).sum(dim=-1) > 1


def _target_costs(
    board: Board, state: State, cook_time: int, way: Int[Tensor, "env agent bench"]
) -> Int[Tensor, "env agent bench"]:
    """What it costs each cook to turn to each bench next, in presses; NEVER where it has no business there."""
    holds = state.hands[..., 0]
    tile = board.tile[board.bench]
    kind, onions, ticks = state.things[:, board.bench].long().unbind(dim=-1)
    counter, pot = tile == COUNTER, tile == POT
    reach = way < NEVER  # [env, agent, bench]
    can_pot, can_serve = (reach & pot).any(dim=-1), (reach & (tile == SERVING)).any(dim=-1)

    free = counter & (kind == NOTHING)
    to_potters = free & (reach & can_pot.unsqueeze(-1)).any(dim=1)  # counters from which a thing gets to a pot
    to_servers = free & (reach & can_serve.unsqueeze(-1)).any(dim=1)
    to_bringers = free & (reach & ~can_pot.unsqueeze(-1)).any(dim=1)
    passed = (
        (kind != NOTHING) & counter & (reach & can_pot.unsqueeze(-1)).any(dim=1)
    )  # handed over, or put down by a potter

    waits = pot & (ticks == 0)
    fillable = waits & (onions < 3)
    to_light = waits & (onions == 3)  # only under current rules does one last
    hot = pot & ((ticks > 0) | (onions == 3))
    left = (cook_time - ticks).clamp(min=0)

    def held(what: int) -> Int[Tensor, "env 1"]:
        """How many of the cooks who can reach a pot hold it."""
        return ((holds == what) & can_pot).sum(dim=-1, keepdim=True)

    missing = ((3 - onions) * fillable).sum(dim=-1, keepdim=True)  # [env, 1]
    soups = hot.sum(dim=-1, keepdim=True)
    want_onions = missing - held(ONION)
    want_dishes = soups - held(DISH)
    soon = (hot & (left <= EARLY)).sum(dim=-1, keepdim=True) - held(DISH)
    urgent = torch.where(want_onions > 0, soon, want_dishes)

    empty = holds == NOTHING
    onion_source = (tile == ONIONS) | (counter & (kind == ONION))
    dish_source = (tile == DISHES) | (counter & (kind == DISH))
    soup_source = counter & (kind == SOUP)

    def nearest_of(able: Bool[Tensor, "env agent"], source: Bool[Tensor, "..."], count: Tensor) -> Tensor:
        """The `count` able cooks nearest to a source of it, the lower number where two are equally near."""
        away = way.masked_fill(~(source.unsqueeze(-2) & reach), NEVER).amin(dim=-1)
        able = able & (away < NEVER)
        cooks = torch.arange(holds.shape[1], device=holds.device)
        key = (away * len(cooks) + cooks).masked_fill(~able, NEVER * len(cooks))
        rank = (key.unsqueeze(-1) > key.unsqueeze(-2)).sum(dim=-1)
        return able & (rank < count)

    serves = nearest_of(empty & can_serve, soup_source, soup_source.sum(dim=-1, keepdim=True))
    lights = nearest_of(empty & can_pot & ~serves, to_light, to_light.sum(dim=-1, keepdim=True))
    able = empty & can_pot & ~serves & ~lights
    dishes = nearest_of(able, dish_source.expand(kind.shape), urgent)
    fetches = nearest_of(able & ~dishes, onion_source.expand(kind.shape), want_onions.where(want_onions > 0, soups))

    brings = empty & ~can_pot  # a cook away from the pots keeps the shared counters stocked
    stock = (passed & (kind == DISH)).sum(dim=-1, keepdim=True)
    brings_dish = brings & (want_dishes > stock)
    room = to_potters.sum(dim=-1, keepdim=True) + stock.clamp(max=1)  # one place is kept for a dish
    brings_onion = brings & ~brings_dish & (room > 1)

    clogged = ~(to_potters & to_bringers).any(dim=-1, keepdim=True) & (~can_pot).any(dim=-1, keepdim=True)
    helps = dishes | fetches | serves | lights
    clears = nearest_of(able & ~helps & clogged, passed, torch.ones_like(soups))

    hands_wanted = want_dishes.clamp(min=0) + to_light.sum(dim=-1, keepdim=True)
    short = hands_wanted > (empty & can_pot).sum(dim=-1, keepdim=True)
    no_pot = ~fillable.any(dim=-1, keepdim=True)
    ladles = nearest_of((holds == DISH) & can_pot, hot, soups)
    spare = (holds == DISH) & can_pot & ~ladles & (want_dishes < 0)
    drops = ((holds == ONION) & can_pot & no_pot & short) | spare

    cost = torch.full_like(way, NEVER)

    def send(who: Bool[Tensor, "env agent"], where: Tensor, extra: Tensor | int = 0) -> None:
        """Those cooks may turn to those benches, if they can reach them."""
        nonlocal cost
        where = where.unsqueeze(-2) & who.unsqueeze(-1) & reach
        priced = way + (extra.unsqueeze(-2) if isinstance(extra, Tensor) else extra)
        cost = torch.where(where, priced.clamp(max=NEVER - 1), cost)

    send((holds == SOUP) & can_serve, (tile == SERVING).expand(kind.shape))
    send((holds == SOUP) & ~can_serve, to_servers)
    send((holds == ONION) & can_pot, fillable, (2 - onions) * 5)  # rather finish a soup than begin one
    send((holds == DISH) & can_pot & ~drops, hot, left)
    send(((holds == ONION) | (holds == DISH)) & ~can_pot, to_potters)
    send(drops, free, to_bringers * 10)  # what is in the way of a handover is better put elsewhere
    send(clears, passed)
    send(serves, soup_source)
    send(lights, to_light)
    send(dishes, dish_source)
    send(fetches, onion_source)
    send(brings_dish, dish_source & ~passed)  # what was handed over already is not for the one who brings
    send(brings_onion, onion_source & ~passed)
    return cost
