"""Pictures of the kitchen, seen from above: one unit is one cell, north is up."""

from understudy.core.scene import Scene, Shape
from understudy.envs.kitchen_board import (
    COUNTER,
    DISH,
    DISHES,
    FLOOR,
    ONION,
    ONIONS,
    POT,
    SOUP,
    STEPS,
    Board,
    State,
)

COATS = ("#2f6fb0", "#3a9a5b", "#c2563c", "#8a5fb5", "#b98a1e", "#3b9aa0", "#a04a7d", "#6b7280", "#4d5b2f")
_LETTERS = {COUNTER: "X", ONIONS: "O", DISHES: "D", POT: "P"}


def picture(board: Board, state: State, cook_time: int, title: str) -> Scene:
    """The first env of `state`, with its steps and soups so far in the caption."""
    shapes = []
    for cell, tile in enumerate(board.tile.tolist()):
        x, y = _centre(board, cell)
        shapes += _tile(tile, x, y, dark=(cell % board.width + cell // board.width) % 2 == 1)
        kind, onions, ticks = state.things[0, cell].tolist()
        if tile == POT:
            shapes += _pot(x, y, onions, ticks, cook_time, int(state.age[0]))
        else:
            shapes += _thing(x, y, kind, onions, size=0.3)
    for cook, (cell, facing) in enumerate(zip(state.cell[0].tolist(), state.facing[0].tolist(), strict=True)):
        x, y = _centre(board, cell)
        dx, dy = STEPS[facing]
        shapes += _cook(x, y, dx, -dy, COATS[cook % len(COATS)], str(cook + 1))
        kind, onions, _ = state.hands[0, cook].tolist()
        shapes += _thing(x + 0.4 * dx, y - 0.4 * dy, kind, onions, size=0.2)
    soups = int(state.soups[0])
    caption = f"{title}   step {int(state.age[0])}   {soups} {'soup' if soups == 1 else 'soups'} served"
    return Scene(0.0, 0.0, float(board.width), float(board.height), tuple(shapes), caption)


def _centre(board: Board, cell: int) -> tuple[float, float]:
    return cell % board.width + 0.5, board.height - cell // board.width - 0.5


def _rect(x: float, y: float, width: float, height: float, colour: str, letter: str = "") -> Shape:
    corners = ((x - width / 2, y - height / 2), (x + width / 2, y + height / 2))
    return Shape("rect", corners, colour=colour, text=letter)


def _disc(x: float, y: float, radius: float, colour: str, letter: str = "") -> Shape:
    return Shape("circle", ((x, y),), size=radius, colour=colour, text=letter)


def _tile(tile: int, x: float, y: float, dark: bool) -> list[Shape]:
    if tile == FLOOR:
        return [_rect(x, y, 1.0, 1.0, "#e9e2d4" if dark else "#f2ece0")]
    if tile == POT:
        return [_rect(x, y, 1.0, 1.0, "#565b63", "P"), _rect(x, y, 0.92, 0.92, "#666c75")]
    if tile not in _LETTERS:  # the place to serve
        bars = [_rect(x, y + 0.3 * i, 0.8, 0.1, "#8fc9a4") for i in (-1, 0, 1)]
        return [_rect(x, y, 1.0, 1.0, "#4f8f6b", "S"), _rect(x, y, 0.92, 0.92, "#5fa67d"), *bars]
    shapes = [_rect(x, y, 1.0, 1.0, "#a97f55", _LETTERS[tile]), _rect(x, y, 0.94, 0.94, "#c39a6d")]
    if tile == ONIONS:
        shapes.append(_rect(x, y, 0.78, 0.78, "#8a6238"))
        for dx, dy in ((-0.17, 0.16), (0.18, 0.14), (0.0, -0.15)):
            shapes += _thing(x + dx, y + dy, ONION, 0, size=0.2)
    elif tile == DISHES:
        for lift in (-0.08, 0.0, 0.08):
            shapes += _thing(x, y + lift, DISH, 0, size=0.32)
    return shapes


def _thing(x: float, y: float, kind: int, onions: int, size: float) -> list[Shape]:
    """An onion, a dish or a soup of that radius; its letter shows what it is where there are only letters."""
    if kind == ONION:
        bulb = [_disc(x, y, size, "#b8812a", "o"), _disc(x, y, size * 0.85, "#e3b04b")]
        return [*bulb, _disc(x - size * 0.25, y + size * 0.25, size * 0.3, "#f4d58a")]
    if kind in (DISH, SOUP):
        letter = "d" if kind == DISH else "s"
        dish = [_disc(x, y, size, "#9aa3ad", letter), _disc(x, y, size * 0.92, "#fbfbf9")]
        inside = [_disc(x, y, size * 0.6, "#e4e6e6")] if kind == DISH else _broth(x, y, size * 0.68, onions)
        return [*dish, *inside]
    return []


def _broth(x: float, y: float, radius: float, onions: int) -> list[Shape]:
    """Soup with a slice for each onion in it."""
    places = ((-0.4, -0.25), (0.4, -0.25), (0.0, 0.45))
    slices = [_disc(x + dx * radius, y + dy * radius, radius * 0.28, "#f6dfa4") for dx, dy in places[:onions]]
    return [_disc(x, y, radius, "#d98a2b"), *slices]


def _pot(x: float, y: float, onions: int, ticks: int, cook_time: int, age: int) -> list[Shape]:
    """The pot and what it holds: a bar fills while it cooks, and it steams when the soup is ready."""
    ready = ticks >= cook_time
    handles = [_rect(x + side * 0.38, y, 0.14, 0.12, "#23262b") for side in (-1, 1)]
    shapes = [*handles, _disc(x, y, 0.36, "#23262b"), _disc(x, y, 0.29, "#3d434b")]
    if onions:
        shapes += _broth(x, y, 0.28, onions)
    if 0 < ticks < cook_time:
        width = 0.8 * ticks / cook_time
        shapes += [
            _rect(x, y - 0.4, 0.84, 0.13, "#23262b"),
            _rect(x - 0.4 + width / 2, y - 0.4, width, 0.08, "#ffb02e"),
        ]
    elif ready:
        shapes.append(_rect(x, y - 0.4, 0.84, 0.13, "#35c26b", "!"))
        for i in range(3):  # puffs that rise and spread with time
            rise = (age / 8 + i / 3) % 1
            side = 0.12 if (i + age // 4) % 2 else -0.12
            shapes.append(_disc(x + side * rise, y + 0.1 + 0.45 * rise, 0.05 + 0.07 * rise, "#e8eaed"))
    return shapes


def _cook(x: float, y: float, dx: int, dy: int, coat: str, number: str) -> list[Shape]:
    """From above: shoulders, arms towards what is faced, and a white hat with the cook's number."""
    arms = [
        _disc(x + 0.27 * dx + side * 0.2 * dy, y + 0.27 * dy + side * 0.2 * dx, 0.09, "#f0c8a0") for side in (-1, 1)
    ]
    nose = _disc(x + 0.24 * dx, y + 0.24 * dy, 0.07, "#e0ac80")
    hat = [_disc(x, y, 0.22, "#d5d9de"), _disc(x, y, 0.2, "#ffffff")]
    name = Shape("text", ((x, y),), size=0.26, colour=coat, text=number)
    return [_disc(x, y, 0.36, "#20242a", number), _disc(x, y, 0.34, coat), *arms, nose, *hat, name]
