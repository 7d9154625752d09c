"""Curves and intervals as SVG text that stands in a page by itself: no drawing package, no request, light or dark.

Text and axes take the page's own colour (`currentColor`); the lines' colours are told apart on white and on black.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from html import escape
from itertools import groupby

from jaxtyping import Float
from torch import Tensor

from understudy.core.errors import ConfigError
from understudy.core.scene import Scene, Shape
from understudy.maths.stats import Estimate

COLOURS = ("#3f7fe8", "#e0762f", "#2a9d6f", "#b65fcf", "#d64f68", "#8b95a1", "#b08a1e", "#1fa3b8")
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 480, 270, 56, 20, 14, 42  # of a plot of curves, in its own pixels
HEAT = ((28, 32, 96), (32, 104, 142), (53, 170, 120), (253, 231, 76))  # red, green, blue of a map, least to most
Number = int | float
ROW, MOST_NAME = 30, 28  # height of a bar's row; letters of a name that are shown


@dataclass(frozen=True)
class Curve:
    """One line of a plot, with a band around it where `low` and `high` are given. What is not finite leaves a gap."""

    name: str
    x: Sequence[Number]
    y: Sequence[Number]
    low: Sequence[Number] = ()
    high: Sequence[Number] = ()

    def __post_init__(self) -> None:
        lengths = {len(self.x), len(self.y), len(self.low) or len(self.x), len(self.high) or len(self.x)}
        if len(lengths) > 1 or bool(self.low) != bool(self.high):
            raise ConfigError(
                f"curve {self.name!r}: got {len(self.x)} x, {len(self.y)} y, {len(self.low)} low and "
                f"{len(self.high)} high; each point needs x and y, and either both ends or none."
            )


def ticks(low: Number, high: Number, about: int = 5) -> list[Number]:
    """Round numbers (1, 2 or 5 times a power of ten apart) from `low` to `high`, about so many."""
    if not high > low:
        return [low]
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(k * step, 12) + 0.0 for k in range(first, last + 1)]


def number(value: Number, digits: int = 4) -> str:
    """Short: 1200000 is 1.2M, 2500 is 2.5k, 0.25 stays."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.{digits}g}{letter}"
    return f"{value:.{digits}g}"


def labels(values: Sequence[Number]) -> list[str]:
    """Each value as short as keeps it apart from the others."""
    for digits in range(4, 16):
        shown = [number(value, digits) for value in values]
        if len(set(shown)) == len(values):
            break
    return shown


def curves_svg(curves: Sequence[Curve], x_label: str = "", y_label: str = "", title: str = "") -> str:
    """Lines with their bands over common axes, and a legend below. Each point says its values under the pointer."""
    finite = [
        (x, y)
        for curve in curves
        for values in (curve.y, curve.low, curve.high)
        for x, y in zip(curve.x, values, strict=False)
        if math.isfinite(x) and math.isfinite(y)
    ]
    x0, x1 = _span([x for x, _ in finite], margin=0.0)
    y0, y1 = _span([y for _, y in finite], margin=0.06)

    def place(x: Number, y: Number) -> str:
        across = LEFT + (x - x0) / (x1 - x0) * (WIDTH - LEFT - RIGHT)
        return f"{across:.1f},{HEIGHT - BOTTOM - (y - y0) / (y1 - y0) * (HEIGHT - TOP - BOTTOM):.1f}"

    parts = []
    across, up = ticks(x0, x1), ticks(y0, y1)
    for y, label in zip(up, labels(up), strict=True):
        left, height = place(x0, y).split(",")
        parts.append(f'<path d="M{left},{height}H{WIDTH - RIGHT}" stroke="currentColor" opacity=".13"/>')
        parts.append(_text(LEFT - 7, float(height) + 4, label, "end"))
    for x, label in zip(across, labels(across), strict=True):
        parts.append(_text(float(place(x, y0).split(",")[0]), HEIGHT - BOTTOM + 17, label, "middle"))
    for curve, colour in zip(curves, _colours(len(curves)), strict=True):
        parts += _line(curve, colour, place)
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6, x_label, "middle"))
    parts.append(f'<g transform="translate(12 {(TOP + HEIGHT - BOTTOM) / 2}) rotate(-90)">{_text(0, 0, y_label)}</g>')
    rows, legend = _legend([curve.name for curve in curves])
    return _svg(HEIGHT + rows, title or f"{y_label} over {x_label}", parts + legend)


def _line(curve: Curve, colour: str, place) -> list[str]:
    """The band, the line and the points of a curve, each piece between gaps by itself."""
    ends = list(zip(curve.low, curve.high, strict=True)) or [(y, y) for y in curve.y]
    points = [(x, y, low, high) for x, y, (low, high) in zip(curve.x, curve.y, ends, strict=True)]
    parts = []
    for there, piece in groupby(points, key=lambda point: all(map(math.isfinite, point[:2]))):
        run = list(piece)
        if not there:
            continue
        edged = [p for p in run if math.isfinite(p[2]) and math.isfinite(p[3])]
        if curve.low and edged:
            edge = [place(x, high) for x, _, _, high in edged] + [place(x, low) for x, _, low, _ in reversed(edged)]
            parts.append(f'<path d="M{" ".join(edge)}Z" fill="{colour}" opacity=".18"/>')
        path = " ".join(place(x, y) for x, y, _, _ in run)
        parts.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2" stroke-linejoin="round"/>')
    radius = 2.5 if len(points) <= 40 else 1.2
    for x, y, _, _ in points:
        if math.isfinite(x) and math.isfinite(y):
            across, height = place(x, y).split(",")
            says = escape(f"{curve.name}: {y:.4g} at {number(x)}")
            parts.append(
                f'<circle cx="{across}" cy="{height}" r="{radius}" fill="{colour}"><title>{says}</title></circle>'
            )
    return parts


def intervals_svg(
    bars: Sequence[tuple[str, Estimate]], label: str = "", reference: tuple[str, Number] | None = None, title: str = ""
) -> str:
    """One row for each estimate: a bar from 0, its interval as a whisker, and a `reference` as a named dashed line."""
    values = [v for _, e in bars for v in (e.value, e.low, e.high) if math.isfinite(v)]
    x0, x1 = _span([*values, 0.0, *([reference[1]] if reference else [])], margin=0.04)
    longest = max((len(name) for name, _ in bars), default=0)
    left = 14 + 6.6 * min(longest, MOST_NAME)
    says = [str(e) for _, e in bars]
    right = 14 + 6.4 * max(map(len, says), default=0)
    below = TOP + ROW * len(bars) + (14 if reference else 0)

    def place(x: Number) -> float:
        return left + (x - x0) / (x1 - x0) * (WIDTH - left - right)

    parts = []
    across = ticks(x0, x1, about=4)
    for x, said in zip(across, labels(across), strict=True):
        parts.append(f'<path d="M{place(x):.1f},{TOP}V{below}" stroke="currentColor" opacity=".13"/>')
        parts.append(_text(place(x), below + 16, said, "middle"))
    for k, ((name, e), said) in enumerate(zip(bars, says, strict=True)):
        middle, colour = TOP + ROW * (k + 0.5) + (14 if reference else 0), COLOURS[k % len(COLOURS)]
        shown = name if len(name) <= MOST_NAME else name[: MOST_NAME - 1] + "…"
        parts.append(_text(left - 8, middle + 4, shown, "end"))
        parts.append(_text(WIDTH - right + 10, middle + 4, said, "start"))
        if not math.isfinite(e.value):
            continue
        from_x, to_x = sorted((place(0), place(e.value)))
        parts.append(
            f'<rect x="{from_x:.1f}" y="{middle - 8:.1f}" width="{max(1, to_x - from_x):.1f}" height="16" rx="2" '
            f'fill="{colour}" opacity=".75"><title>{escape(f"{name}: {e.bracketed}, n = {e.n}")}</title></rect>'
        )
        if math.isfinite(e.high - e.low):
            low, high = place(e.low), place(e.high)
            caps = "".join(f"M{x:.1f},{middle - 5:.1f}v10" for x in (low, high))
            parts.append(
                f'<path d="M{low:.1f},{middle:.1f}H{high:.1f}{caps}" stroke="currentColor" stroke-width="1.6"/>'
            )
    if reference:
        x = place(reference[1])
        parts.append(
            f'<path d="M{x:.1f},{TOP + 8}V{below}" stroke="currentColor" stroke-dasharray="4 3" opacity=".7"/>'
        )
        parts.append(_text(x, TOP + 3, reference[0], "middle"))
    parts.append(_text((left + WIDTH - right) / 2, below + 34, label, "middle"))
    return _svg(below + 42, title or label, parts)


def painted(scene: Scene, values: Float[Tensor, "row column"], name: str) -> Scene:
    """The scene with `values` as colours on its ground, the first row at the bottom: dark blue least, yellow most.

    They lie under everything but the rectangles that the scene begins with.
    """
    rows, columns = values.shape
    low, high = values.min().item(), values.max().item()
    wide, tall = (scene.right - scene.left) / columns, (scene.top - scene.bottom) / rows
    shares = ((values - low) / max(high - low, 1e-12)).tolist()
    cells = []
    for i, row in enumerate(shares):
        for j, share in enumerate(row):
            corner = (scene.left + j * wide, scene.bottom + i * tall)
            opposite = (min(corner[0] + 1.5 * wide, scene.right), min(corner[1] + 1.5 * tall, scene.top))  # no seams
            cells.append(Shape("rect", (corner, opposite), colour=_heat(share)))
    ground = next((k for k, shape in enumerate(scene.shapes) if shape.kind != "rect"), len(scene.shapes))
    shapes = (*scene.shapes[:ground], *cells, *scene.shapes[ground:])
    said = f"reward of {name}: {number(low, 3)} blue, {number(high, 3)} yellow"
    return replace(scene, shapes=shapes, caption=f"{scene.caption} {said}".strip())


def _heat(share: float) -> str:
    """From dark blue by green to yellow, ever lighter, so that it is read without colours too."""
    at = share * (len(HEAT) - 1)
    k = min(int(at), len(HEAT) - 2)
    mixed = (round(a + (at - k) * (b - a)) for a, b in zip(HEAT[k], HEAT[k + 1], strict=True))
    return "#" + "".join(f"{part:02x}" for part in mixed)


def _colours(count: int) -> list[str]:
    return [COLOURS[k % len(COLOURS)] for k in range(count)]


def _span(values: Sequence[Number], margin: float) -> tuple[float, float]:
    """From the least to the greatest with a margin of its width on either side; never empty."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    if low == high:
        low, high = low - 0.5 * (abs(low) or 1), high + 0.5 * (abs(high) or 1)
    wide = margin * (high - low)
    return low - wide, high + wide


def _text(x: Number, y: Number, text: str, anchor: str = "middle") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="currentColor" opacity=".8">{escape(text)}</text>'
    )


def _legend(names: Sequence[str]) -> tuple[int, list[str]]:
    """How many pixels it is high, and its parts, from left to right and wrapped."""
    parts, x, row = [], float(LEFT), 0
    for name, colour in zip(names, _colours(len(names)), strict=True):
        shown = name if len(name) <= 2 * MOST_NAME else name[: 2 * MOST_NAME - 1] + "…"
        wide = 30 + 6.6 * len(shown)
        if x > LEFT and x + wide > WIDTH:
            x, row = LEFT, row + 1
        y = HEIGHT + 12 + 18 * row
        parts.append(f'<rect x="{x:.1f}" y="{y - 5}" width="14" height="4" rx="2" fill="{colour}"/>')
        parts.append(_text(x + 20, y + 1, shown, "start"))
        x += wide
    return 18 * (row + 1) + 4, parts


def _svg(height: Number, label: str, parts: Sequence[str]) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{escape(label)}" font-size="12" '
        f'font-family="system-ui, sans-serif" xmlns="http://www.w3.org/2000/svg">{"".join(parts)}</svg>'
    )
