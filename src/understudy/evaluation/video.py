"""Pictures of scenes: letters and colours in a terminal, pixels, PNG, GIF and MP4 files.

Every renderer reads the same `Scene`, so `beside` puts several next to each other for all of them. A scene's shapes
are painted on white paper; what lies outside its borders is cut off.
"""

import io
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from rich.text import Text
from torch import Tensor

from understudy.core.errors import ConfigError, DemosError, missing_extra
from understudy.core.files import write_atomically
from understudy.core.scene import Scene, Shape
from understudy.core.types import Segment

PAPER, INK = "#ffffff", "#222222"
FINER = 3  # pixels drawn for each pixel kept, on either side: the mean of nine smooths the edges
EM = 1.4  # a font's size over the height of its capitals


def rgb(colour: str) -> tuple[int, int, int]:
    """The three bytes of `#rrggbb`."""
    try:
        red, green, blue = bytes.fromhex(colour.removeprefix("#"))
    except ValueError:
        raise ConfigError(f"colour: got {colour!r}; colours are written #rrggbb, for example #cc4400.") from None
    return red, green, blue


def brightness(colour: str) -> float:
    """0 for black, 1 for white, as the eye weighs the three (ITU-R BT.601)."""
    red, green, blue = rgb(colour)
    return (0.299 * red + 0.587 * green + 0.114 * blue) / 255


def scenes_of(draw: Callable[[Tensor], Scene], segment: Segment, episode: int = 0) -> list[Scene]:
    """What `env.draw` makes of each moment of an episode of a segment [episode, time, ...], the end of it included.

    Raises:
        DemosError: the segment does not hold the full states (`view.whole`) that pictures are drawn from.
    """
    if segment.view.whole is None:
        raise DemosError("segment: it does not hold the full state (`view.whole`), so there is nothing to draw.")
    whole = segment.view.whole[episode]
    end = None if segment.next_view is None else segment.next_view.whole
    steps = len(whole) if segment.valid is None else int(segment.valid[episode].sum())
    moments = [*whole[:steps], *([] if end is None else [end[episode, steps - 1]])]
    return [draw(moment) for moment in moments]


def beside(titled: Sequence[tuple[str, Scene]], gap: float = 0.08) -> Scene:
    """Scenes of the same moment next to each other, each scaled to height 1, title above and caption below it."""
    shapes: list[Shape] = []
    left = 0.0
    for title, scene in titled:
        scale = 1 / (scene.top - scene.bottom)
        wide = scale * (scene.right - scene.left)
        for shape in scene.shapes:
            if _touches(shape, scene):
                points = tuple(((x - scene.left) * scale + left, (y - scene.bottom) * scale) for x, y in shape.points)
                shapes.append(Shape(shape.kind, points, shape.size * scale, shape.colour, shape.text))
        for text, height, largest in ((title, 1.07, 0.05), (scene.caption, -0.06, 0.035)):
            if text:
                size = min(largest, wide / (0.8 * len(text)))  # a letter is about 0.8 as wide as capitals are high
                shapes.append(Shape("text", ((left + wide / 2, height),), size, INK, text))
        left += wide + gap
    said = any(scene.caption for _, scene in titled)
    return Scene(0.0, -0.12 if said else 0.0, left - gap, 1.14, tuple(shapes))


def _touches(shape: Shape, scene: Scene) -> bool:
    xs, ys = zip(*shape.points, strict=True)
    reach = shape.size if shape.kind == "circle" else shape.size / 2
    across = min(xs) - reach < scene.right and max(xs) + reach > scene.left
    return across and min(ys) - reach < scene.top and max(ys) + reach > scene.bottom


# --- letters ---------------------------------------------------------------------------------------------------------


def terminal(scene: Scene, columns: int = 60) -> Text:
    """The scene for a terminal; `.plain` of it is readable without colours.

    A shape with a letter fills its cells with that letter, one without with a shade as dark as its colour. A shape
    smaller than a cell still gets the cell of its centre.
    """
    rows = max(
        1, round(columns * (scene.top - scene.bottom) / (scene.right - scene.left) / 2)
    )  # cells are twice as high
    x = scene.left + (np.arange(columns) + 0.5) * (scene.right - scene.left) / columns
    y = scene.top - (np.arange(rows) + 0.5) * (scene.top - scene.bottom) / rows
    letters, ink, paper = (np.full((rows, columns), value, dtype=object) for value in (" ", "", ""))
    for shape in scene.shapes:
        if not _touches(shape, scene):
            continue
        cells = _cells(shape, x, y)
        if shape.kind == "text":
            row, column = (int(index[0]) for index in cells.nonzero())
            start = column - (len(shape.text) - 1) // 2
            for k, letter in enumerate(printable(shape.text), start):
                if 0 <= k < columns:
                    letters[row, k], ink[row, k] = letter, shape.colour
        else:
            light = brightness(shape.colour)
            letters[cells] = printable(shape.text)[:1] or " ░▒▓█"[min(4, int((1 - light) * 5))]
            ink[cells] = ("#000000" if light > 0.5 else "#ffffff") if shape.text else shape.colour
            paper[cells] = shape.colour
    text = Text()
    for row in range(rows):
        for column in range(columns):
            style = f"{ink[row, column]} on {paper[row, column]}" if paper[row, column] else ink[row, column]
            text.append(letters[row, column], style)
        text.append("\n")
    return text.append(printable(scene.caption))


def printable(text: str) -> str:
    """Without control characters, which a terminal would obey."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _cells(shape: Shape, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Which cells [row, column] of these centres a shape covers: at least one."""
    points = np.array(shape.points, dtype=float)
    middle = (points.min(0) + points.max(0)) / 2
    nearest = np.zeros((len(y), len(x)), dtype=bool)
    nearest[np.abs(y - middle[1]).argmin(), np.abs(x - middle[0]).argmin()] = True
    if shape.kind == "rect":
        (low_x, low_y), (high_x, high_y) = points.min(0), points.max(0)
        covered = ((x >= low_x) & (x <= high_x))[None] & ((y >= low_y) & (y <= high_y))[:, None]
    elif shape.kind == "circle":
        covered = (x - points[0, 0])[None] ** 2 + (y - points[0, 1])[:, None] ** 2 <= shape.size**2
    elif shape.kind == "line":
        reach = max(shape.size, np.ptp(x) / max(1, len(x) - 1)) / 2  # never thinner than a cell is wide
        covered = np.zeros_like(nearest)
        for one, other in pairwise(points):
            along, offset = other - one, np.stack(np.broadcast_arrays(x[None], y[:, None]), -1) - one
            share = np.clip(offset @ along / max(along @ along, 1e-12), 0, 1)
            covered |= ((offset - share[..., None] * along) ** 2).sum(-1) <= reach**2
        return covered if covered.any() else nearest
    else:
        return nearest
    return covered if covered.any() else nearest


# --- pixels ----------------------------------------------------------------------------------------------------------


def raster(scene: Scene, width: int = 480, *, caption: bool | None = None) -> np.ndarray:
    """RGB bytes [row, column, 3] of the scene, `width` pixels wide (made even, as video formats ask), edges smoothed.

    Args:
        caption: keep a strip for the caption below the picture; None: where the scene has one.

    Raises:
        MissingExtra: Pillow, which comes with the extra `video`, is not there.
    """
    try:
        from PIL import Image, ImageDraw
    except ImportError:
        raise missing_extra("pillow", "video", "drawing pixels") from None

    width += width % 2
    scale = FINER * width / (scene.right - scene.left)
    height = round(width * (scene.top - scene.bottom) / (scene.right - scene.left) / 2) * 2
    strip = 2 * max(10, width // 36) if (bool(scene.caption) if caption is None else caption) else 0
    image = Image.new("RGB", (width * FINER, (height + strip) * FINER), PAPER)
    draw = ImageDraw.Draw(image)

    def write(place: tuple[float, float], text: str, size: float, colour: str) -> None:
        draw.text(place, text, rgb(colour), _font(max(1.0, size)), anchor="mm")

    def fitting(text: str, size: float) -> float:
        """The size, or a smaller one where the text would be wider than the picture."""
        return size * min(1.0, 0.96 * image.width / max(1.0, _font(size).getlength(text)))

    for shape in scene.shapes:
        colour = rgb(shape.colour)
        points = [((x - scene.left) * scale, (scene.top - y) * scale) for x, y in shape.points]
        size = shape.size * scale
        if shape.kind == "rect":
            (x0, y0), (x1, y1) = points
            draw.rectangle((min(x0, x1), min(y0, y1), max(x0, x1) - 1, max(y0, y1) - 1), fill=colour)
        elif shape.kind == "circle":
            (x, y), size = points[0], max(size, FINER / 2)
            draw.ellipse((x - size, y - size, x + size, y + size), fill=colour)
        elif shape.kind == "line":
            thick = max(size, FINER)
            draw.line(points, colour, round(thick), joint="curve")
            for x, y in (points[0], points[-1]):  # round ends
                draw.ellipse((x - thick / 2, y - thick / 2, x + thick / 2, y + thick / 2), fill=colour)
        else:
            write(points[0], shape.text, size * EM, shape.colour)
    if strip:
        draw.rectangle((0, height * FINER, width * FINER, (height + strip) * FINER), fill=rgb(PAPER))
        place = (width * FINER / 2, (height + strip / 2) * FINER)
        write(place, scene.caption, fitting(scene.caption, strip * FINER * 0.6), INK)
    return np.asarray(image.reduce(FINER))


@lru_cache(maxsize=64)  # reading a font takes longer than drawing with it
def _font(size: float) -> Any:
    from PIL import ImageFont

    return ImageFont.load_default(size=size)


def save_video(path: Path | str, scenes: Iterable[Scene], dt: int | float = 0.1, width: int = 480) -> Path:
    """Write the scenes as `.mp4` or `.gif`, each shown for `dt` seconds, or the first of them as `.png`.

    A GIF counts in hundredths of a second and browsers slow down below two of them; MP4 keeps any `dt`. The file
    appears when it is whole.

    Raises:
        ConfigError: no scene, a `dt` that is not above 0, or an ending that is none of the three.
        MissingExtra: the extra `video` is not installed.
    """
    path = Path(path)
    scenes = list(scenes)
    if path.suffix not in (".mp4", ".gif", ".png"):
        raise ConfigError(f"path: got {path.name!r}, but pictures are written as .mp4, .gif or .png.")
    if not scenes:
        raise ConfigError("scenes: got none; a picture needs at least one.")
    if not dt > 0:
        raise ConfigError(f"dt: got {dt}; each scene is shown for some seconds, for example 0.1.")
    caption = any(scene.caption for scene in scenes)
    frames = (raster(scene, width, caption=caption) for scene in scenes)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, _encoded(frames, path.suffix, dt))
    return path


def _encoded(frames: Iterable[np.ndarray], suffix: str, dt: int | float) -> bytes:
    try:
        import imageio.v3 as imageio
    except ImportError:
        raise missing_extra("imageio", "video", f"writing a {suffix} file") from None
    if suffix == ".png":
        return bytes(imageio.imwrite("<bytes>", next(iter(frames)), extension=".png"))
    if suffix == ".gif":
        return bytes(imageio.imwrite("<bytes>", list(frames), extension=".gif", duration=1000 * dt, loop=0))
    try:
        import av  # noqa: F401
    except ImportError:
        raise missing_extra("av", "video", "writing a .mp4 file") from None
    buffer = io.BytesIO()
    file: Any
    with imageio.imopen(buffer, "w", plugin="pyav", extension=".mp4") as file:
        file.init_video_stream("libx264", fps=1 / dt, pixel_format="yuv420p")
        for frame in frames:
            file.write_frame(frame)
    return buffer.getvalue()
