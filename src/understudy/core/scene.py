"""Shapes for pictures: what an env's `draw` returns and what every renderer (terminal, PNG, GIF, MP4, HTML) reads."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

Kind = Literal["rect", "circle", "line", "text"]


@dataclass(frozen=True)
class Shape:
    """One drawn thing, in the scene's own units, y upwards.

    rect: `points` = two opposite corners; circle: `points` = centre, `size` = radius; line: `points` = its corners,
    `size` = thickness; text: `points` = centre, `size` = height of the letters.
    """

    kind: Kind
    points: tuple[tuple[float, float], ...]
    size: float = 0.0
    colour: str = "#444444"  # #rrggbb
    text: str = ""  # what a text says; for the others one letter that a terminal shows in their place


@dataclass(frozen=True)
class Scene:
    """One moment. Shapes are painted in order, the later over the earlier."""

    left: float
    bottom: float
    right: float
    top: float
    shapes: tuple[Shape, ...]
    caption: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain data, for animations in a web page."""
        return asdict(self)
