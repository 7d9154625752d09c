"""The kitchen's board: layouts, what stands where, how many key presses lie between a cook and a tile, and its state.

The tables of a layout are made once, when a `Kitchen` is made; the game itself is in `kitchen`.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from understudy.core.errors import EnvError, nearest

FLOOR, COUNTER, ONIONS, DISHES, POT, SERVING = range(6)  # tiles
NOTHING, ONION, DISH, SOUP = range(4)  # what a hand holds or a tile carries
NORTH, SOUTH, EAST, WEST, STAY, INTERACT = range(6)  # actions; the first four are facings as well
NONE_YET = 6  # stands in `last_actions` before the first step
ACTIONS = ("north", "south", "east", "west", "stay", "interact")
STEPS = ((0, -1), (0, 1), (1, 0), (-1, 0))  # x, y of the four facings; y grows southwards, as rows do
FAR = 120  # presses to what cannot be reached, or is not there; nearer distances stop at FAR - 1

_TILES = {" ": FLOOR, "X": COUNTER, "O": ONIONS, "D": DISHES, "P": POT, "S": SERVING}
LAYOUTS = {
    "cramped_room": ("XXPXX", "O  2O", "X1  X", "XDXSX"),
    "asymmetric_advantages": ("XXXXXXXXX", "O XSXOX S", "X   P 1 X", "X2  P   X", "XXXDXDXXX"),
    "coordination_ring": ("XXXPX", "X 1 P", "D2X X", "O   X", "XOSXX"),
    "forced_coordination": ("XXXPX", "O X1P", "O2X X", "D X X", "XXXSX"),
    "counter_circuit": ("XXXPPXXX", "X      X", "D XXXX S", "X2    1X", "XXXOOXXX"),
}
ALIASES = {"random0": "forced_coordination", "random3": "counter_circuit"}  # names in the recordings of 2019


@dataclass(frozen=True)
class Board:
    """Tables of one layout. A cell is numbered row by row from the top left: cell = y * width + x.

    A node is a standing place and a facing, place * 4 + facing; a bench is any tile but floor beside a place where
    a cook can stand.
    """

    width: int
    height: int
    start: Int[Tensor, " agent"]  # cells on which the cooks begin
    tile: Int[Tensor, " cell"]
    ahead: Int[Tensor, "cell 4"]  # the cell that a cook on this one faces
    places: Int[Tensor, " place"]  # cells of the floor
    place: Int[Tensor, " cell"]  # number of the place, 0 where there is no floor
    reach: Bool[Tensor, "agent place"]  # whether cook i can walk from its start to the place
    bench: Int[Tensor, " bench"]  # cells
    pots: Int[Tensor, " pot"]  # cells, those beside which a cook can stand
    counters: Int[Tensor, " counter"]  # cells, the same
    distance: Int[Tensor, "node bench"]  # presses until the bench is faced, FAR where never
    to_sources: Float[Tensor, "node 3"]  # the same to the nearest onions, dishes and serving
    to_pots: Float[Tensor, "node pot"]
    to_counters: Float[Tensor, "node counter"]
    after: Int[Tensor, "node 4"]  # the node that pressing north, south, east, west leads to, with nobody in the way


@dataclass(frozen=True)
class State:
    """A thing is three numbers: kind (0 nothing, 1 onion, 2 dish, 3 soup), onions in the soup, steps it has cooked."""

    cell: Int[Tensor, "env agent"]  # y * width + x
    facing: Int[Tensor, "env agent"]  # 0 north, 1 south, 2 east, 3 west
    hands: Int[Tensor, "env agent 3"]  # the thing each cook holds
    things: Int[Tensor, "env cell 3"]  # the thing that lies on each tile, or cooks in it
    last_actions: Int[Tensor, "env agent past"]  # of the steps before, newest first; NONE_YET before the start
    soups: Int[Tensor, " env"]  # served since the start
    age: Int[Tensor, " env"]  # steps since the start


def one_hot(index: Int[Tensor, "*batch"], size: int) -> Float[Tensor, "*batch size"]:
    return torch.eye(size, device=index.device)[index]


def rows_of(layout: str, grid: tuple[str, ...] | None) -> tuple[str, ...]:
    """The rows of a known layout, or of a `grid` of one's own after a check.

    Raises:
        EnvError: the layout is unknown, or the grid is ragged, open at its edge, holds a letter out of `XODPS 1234...`,
            or does not number its cooks.
    """
    if grid is None:
        name = ALIASES.get(layout, layout)
        if name not in LAYOUTS:
            raise EnvError(f"unknown layout {layout!r}.{nearest(layout, [*LAYOUTS, *ALIASES])}")
        return LAYOUTS[name]
    grid = tuple(grid)
    if not grid or not grid[0] or len({len(row) for row in grid}) > 1:
        raise EnvError(f"grid: all rows must be equally long and not empty, got lengths {[len(row) for row in grid]}.")
    letters = "".join(grid)
    for letter in sorted(set(letters)):
        if letter not in _TILES and letter not in "123456789":
            raise EnvError(
                f"grid: unknown letter {letter!r}. Use X counter, O onions, D dishes, P pot, S serving, "
                "a space for floor and 1, 2, ... where the cooks begin."
            )
    edge = grid[0] + grid[-1] + "".join(row[0] + row[-1] for row in grid)
    if any(letter in " 123456789" for letter in edge):
        raise EnvError("grid: a cook could walk out. Close the edge with counters (X) or other tiles.")
    cooks = sorted(letter for letter in letters if letter.isdigit())
    if not cooks or cooks != [str(i + 1) for i in range(len(cooks))]:
        raise EnvError(f"grid: the cooks' starts must be 1, 2, ... each once, got {cooks or 'none'}.")
    return grid


def board_of(rows: tuple[str, ...]) -> Board:
    """The tables of a checked grid.

    Raises:
        EnvError: no pot, source of onions or dishes, or place to serve stands beside the floor.
    """

    def table(values: object) -> Tensor:
        return torch.tensor(values, dtype=torch.long)

    width, height, letters = len(rows[0]), len(rows), "".join(rows)
    tile = [FLOOR if letter.isdigit() else _TILES[letter] for letter in letters]
    start = [letters.index(str(i + 1)) for i in range(sum(letter.isdigit() for letter in letters))]
    places = [cell for cell, kind in enumerate(tile) if kind == FLOOR]
    place = {cell: i for i, cell in enumerate(places)}
    ahead = [[(cell + dx + dy * width) % len(tile) for dx, dy in STEPS] for cell in range(len(tile))]
    bench = sorted({b for cell in places for b in ahead[cell] if tile[b] != FLOOR})

    needed = {POT: "pot (P)", ONIONS: "source of onions (O)", DISHES: "source of dishes (D)", SERVING: "serving (S)"}
    for kind, what in needed.items():
        if kind not in (tile[cell] for cell in bench):
            raise EnvError(f"grid: no {what} beside the floor, so no soup can ever be served.")

    after = []  # pressing a direction turns the cook, and moves it where there is floor
    for cell in places:
        after += [[place.get(ahead[cell][d], place[cell]) * 4 + d for d in range(4)]] * 4
    faced = [[ahead[cell][d] == target for target in bench] for cell in places for d in range(4)]
    stood = torch.eye(len(places), dtype=torch.bool).repeat_interleave(4, dim=0)
    begins = [place[cell] * 4 for cell in start]

    distance = fewest_presses(table(after), torch.tensor(faced))
    presses = distance.float()
    kinds = table([tile[cell] for cell in bench])

    return Board(
        width=width,
        height=height,
        start=table(start),
        tile=table(tile),
        ahead=table(ahead),
        places=table(places),
        place=table([place.get(cell, 0) for cell in range(len(tile))]),
        reach=(fewest_presses(table(after), stood) < FAR)[begins],
        bench=table(bench),
        pots=table(bench)[kinds == POT],
        counters=table(bench)[kinds == COUNTER],
        distance=distance,
        to_sources=torch.stack([presses[:, kinds == k].amin(dim=-1) for k in (ONIONS, DISHES, SERVING)], dim=-1),
        to_pots=presses[:, kinds == POT],
        to_counters=presses[:, kinds == COUNTER],
        after=table(after),
    )


def fewest_presses(after: Int[Tensor, "node 4"], goal: Bool[Tensor, "node target"]) -> Int[Tensor, "node target"]:
    """How many presses lead from each node to one where the target's goal is true; FAR where none do."""
    never = 30_000
    presses = torch.where(goal, 0, never).to(torch.int16)
    while True:
        nearer = torch.minimum(presses, presses[after].amin(dim=1) + 1)
        if torch.equal(nearer, presses):
            return torch.where(presses == never, FAR, presses.clamp(max=FAR - 1)).to(torch.int8)
        presses = nearer
