"""One page that shows what was learned: figures with their intervals, curves, and learners moving beside demonstrators.

The page is a single file that asks nothing of the network. All text in it is escaped and its data cannot leave the
block it stands in; a content security policy admits the page's own script alone, by its hash.
"""

import base64
import hashlib
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

import rich.table
from rich.console import Console
from rich.text import Text

from understudy.core.errors import ConfigError
from understudy.core.files import write_atomically
from understudy.core.scene import Scene, Shape
from understudy.evaluation.plots import Curve, Number, curves_svg, intervals_svg, number
from understudy.evaluation.video import printable
from understudy.maths.stats import Estimate

Cell = str | int | float | Estimate


@dataclass(frozen=True)
class Table:
    """Rows of text and figures; an `Estimate` shows its interval."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    caption: str = ""

    def __post_init__(self) -> None:
        for k, row in enumerate(self.rows):
            if len(row) != len(self.columns):
                raise ConfigError(
                    f"table {self.caption!r}: row {k} has {len(row)} cells for {len(self.columns)} columns."
                )


@dataclass(frozen=True)
class Curves:
    """A plot of lines, for example of returns over updates."""

    title: str
    lines: Sequence[Curve]
    x_label: str = ""
    y_label: str = ""


@dataclass(frozen=True)
class Intervals:
    """A plot of named estimates side by side, with a `reference` line such as ("people", 54.2)."""

    title: str
    bars: Sequence[tuple[str, Estimate]]
    label: str = ""
    reference: tuple[str, Number] | None = None


@dataclass(frozen=True)
class Animation:
    """Scenes of several players, such as ("people", scenes) and ("learned", scenes), that run together.

    Each scene stands for `dt` seconds; a player with fewer scenes waits at its last.
    """

    title: str
    players: Sequence[tuple[str, Sequence[Scene]]]
    dt: Number = 0.1

    def __post_init__(self) -> None:
        if not self.players or not all(len(scenes) for _, scenes in self.players):
            raise ConfigError(f"animation {self.title!r}: every player needs at least one scene.")
        if not self.dt > 0:
            raise ConfigError(f"dt: got {self.dt}; each scene is shown for some seconds, for example 0.1.")


@dataclass(frozen=True)
class Section:
    """One tab of the page. Empty lines in `text` part its paragraphs."""

    title: str
    text: str = ""
    tables: Sequence[Table] = ()
    curves: Sequence[Curves] = ()
    intervals: Sequence[Intervals] = ()
    animations: Sequence[Animation] = ()


@dataclass(frozen=True)
class Report:
    """A title, what holds for all (`intro`, `tables`), a tab for each section, and where the figures come from."""

    title: str
    sections: Sequence[Section] = ()
    intro: str = ""
    tables: Sequence[Table] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def html(self) -> str:
        """The whole page."""
        style, script = (
            files("understudy.evaluation").joinpath(f"page/report.{kind}").read_text("utf-8") for kind in ("css", "js")
        )
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        tabs = "".join(
            f'<button role="tab" aria-controls="section-{k}">{escape(section.title)}</button>'
            for k, section in enumerate(self.sections)
        )
        body = "".join(_section(section, k) for k, section in enumerate(self.sections))
        came = "".join(
            f"<dt>{escape(str(name))}</dt><dd>{escape(_plain(value))}</dd>" for name, value in self.provenance.items()
        )
        return (
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; "
            f"script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'\">\n"
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<title>{escape(self.title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n"
            f"<header><h1>{escape(self.title)}</h1>{_paragraphs(self.intro)}</header>\n"
            f"{''.join(map(_table, self.tables))}\n"
            + (f'<nav role="tablist" hidden>{tabs}</nav>\n' if len(self.sections) > 1 else "")
            + f"<main>\n{body}</main>\n"
            + (f'<footer class="card"><h3>Where this comes from</h3><dl>{came}</dl></footer>\n' if came else "")
            + f"<script>{script}</script>\n</body>\n</html>\n"
        )

    def save(self, path: Path | str) -> Path:
        """Write the page; a reader sees the old one or the new one, never half of it."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, self.html().encode())
        return path

    def text(self, width: int = 100, *, colour: bool = False) -> str:
        """Tables, and curves in one line each, for a terminal. Control characters in names are shown as `?`."""
        out = io.StringIO()
        console = Console(file=out, width=width, force_terminal=colour, highlight=False, markup=False, emoji=False)
        heading = "bold"
        console.print(Text(printable(self.title), heading))
        for section in (Section("", self.intro, self.tables), *self.sections):
            if section.title:
                console.print()
                console.print(Text(printable(section.title), heading))
            for paragraph in filter(None, section.text.split("\n\n")):
                console.print(Text(printable(paragraph.replace("\n", " "))))
            for table in section.tables:
                console.print(_rich_table(table))
            for plot in section.curves:
                for line in plot.lines:
                    console.print(Text(printable(f"{plot.title}: {line.name}  {_spark(line.y)}")))
            for bars in section.intervals:
                rows = [(name, e) for name, e in bars.bars]
                console.print(_rich_table(Table((bars.title, bars.label), rows)))
        for name, value in self.provenance.items():
            console.print(Text(printable(f"{name}: {_plain(value)}"), "dim"))
        return out.getvalue()


def comparison(
    learners: Mapping[str, Mapping[str, Estimate]],
    demonstrators: str = "demonstrators",
    measures: Sequence[str] = (),
) -> Table:
    """A row for each measure of `metrics.compare` (or those named), a column for demonstrators and each learner."""
    first = next(iter(learners.values()))
    names = measures or [name for name in first if not name.startswith("demonstrated ")]
    rows: list[list[Cell]] = []
    for name in names:
        shown = [first.get(f"demonstrated {name}", ""), *(found.get(name, "") for found in learners.values())]
        rows.append([name, *shown])
    return Table(["measure", demonstrators, *learners], rows, "Value ± half of its 95 % interval, episodes resampled.")


# --- the page --------------------------------------------------------------------------------------------------------


def _section(section: Section, k: int) -> str:
    plots = [
        (plot.title, curves_svg(plot.lines, plot.x_label, plot.y_label, plot.title)) for plot in section.curves
    ] + [(plot.title, intervals_svg(plot.bars, plot.label, plot.reference, plot.title)) for plot in section.intervals]
    cards = "".join(f'<div class="card"><h3>{escape(title)}</h3>{svg}</div>' for title, svg in plots)
    return (
        f'<section id="section-{k}" role="tabpanel">\n<h2>{escape(section.title)}</h2>{_paragraphs(section.text)}\n'
        f"{''.join(map(_animation, section.animations))}{''.join(map(_table, section.tables))}"
        f'<div class="grid">{cards}</div>\n</section>\n'
    )


def _paragraphs(text: str) -> str:
    return "".join(f"<p>{escape(part)}</p>" for part in text.split("\n\n") if part.strip())


def _numeric(table: Table) -> list[bool]:
    """Which columns hold figures, or nothing, all the way down."""
    columns = [[row[k] for row in table.rows if row[k] != ""] for k in range(len(table.columns))]
    return [bool(cells) and not any(isinstance(cell, str) for cell in cells) for cells in columns]


def _cell(cell: Cell) -> str:
    if isinstance(cell, float):
        return f"{cell:.4g}"
    return f"{cell:,}" if isinstance(cell, int) else str(cell)


def _table(table: Table) -> str:
    kind = ['class="number"' if numeric else "" for numeric in _numeric(table)]
    head = "".join(f'<th scope="col" {k}>{escape(name)}</th>' for k, name in zip(kind, table.columns, strict=True))
    rows = []
    for row in table.rows:
        cells = []
        for k, cell in zip(kind, row, strict=True):
            says = f'title="{escape(f"{cell.bracketed}, n = {cell.n}")}"' if isinstance(cell, Estimate) else ""
            cells.append(f"<td {k} {says}>{escape(_cell(cell))}</td>")
        rows.append(f"<tr>{''.join(cells)}</tr>")
    caption = f"<figcaption>{escape(table.caption)}</figcaption>" if table.caption else ""
    body = f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody>"
    return f'<figure class="card">{caption}<div class="wide"><table>{body}</table></div></figure>\n'


def _animation(animation: Animation) -> str:
    try:
        data = safe_json({"dt": animation.dt, "players": [_compact(scenes) for _, scenes in animation.players]})
    except ValueError as error:
        raise ConfigError(f"animation {animation.title!r}: a shape's place or size is not finite ({error}).") from None
    figures = "".join(
        f'<figure><figcaption>{escape(name)}</figcaption><canvas role="img" aria-label="{escape(name)}"></canvas>'
        "<p></p></figure>"
        for name, _ in animation.players
    )
    speeds = "".join(f'<option value="{s}" {"selected" * (s == 1)}>{s:g}×</option>' for s in (0.25, 0.5, 1, 2, 4, 8))
    return (
        f'<div class="card animation"><h3>{escape(animation.title)}</h3><div class="players">{figures}</div>'
        '<div class="controls"><button type="button"><svg viewBox="0 0 16 16"><path d=""/></svg></button>'
        '<input type="range" min="0" value="0" step="1" aria-label="step"><output></output>'
        f'<select aria-label="speed">{speeds}</select></div>'
        f'<script type="application/json">{data}</script></div>\n'
    )


def safe_json(data: Any) -> str:
    """JSON that may stand inside a script element: nothing in it can end the element or begin another."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _compact(scenes: Sequence[Scene]) -> dict[str, Any]:
    """Every different shape once; a frame is a list of which. What all frames begin with is told once, as `base`."""
    box = [
        min(scene.left for scene in scenes),
        min(scene.bottom for scene in scenes),
        max(scene.right for scene in scenes),
        max(scene.top for scene in scenes),
    ]
    digits = 4 - math.ceil(math.log10(max(box[2] - box[0], box[3] - box[1])))  # a ten-thousandth of the picture
    known: dict[Shape, int] = {}
    frames = [[known.setdefault(shape, len(known)) for shape in scene.shapes] for scene in scenes]
    base = 0
    while all(len(frame) > base and frame[base] == base for frame in frames):
        base += 1
    shapes = [
        (s.kind, [[round(v, digits) for v in point] for point in s.points], round(s.size, digits), s.colour, s.text)
        for s in known
    ]
    captions = [scene.caption for scene in scenes] if any(scene.caption for scene in scenes) else []
    return {"box": box, "base": base, "shapes": shapes, "frames": [f[base:] for f in frames], "captions": captions}


# --- the terminal ----------------------------------------------------------------------------------------------------


def _rich_table(table: Table) -> rich.table.Table:
    shown = rich.table.Table(title=Text(printable(table.caption)) if table.caption else None, title_justify="left")
    for name, numeric in zip(table.columns, _numeric(table), strict=True):
        shown.add_column(Text(printable(name)), justify="right" if numeric else "left")
    for row in table.rows:
        shown.add_row(*(Text(printable(_cell(cell))) for cell in row))
    return shown


def _spark(values: Iterable[Number], most: int = 40) -> str:
    """A line of eight heights, and where it begins and ends."""
    finite = [v for v in values if math.isfinite(v)]
    if not finite:
        return "no values"
    kept = [finite[k * (len(finite) - 1) // max(1, min(most, len(finite)) - 1)] for k in range(min(most, len(finite)))]
    low, high = min(kept), max(kept)
    heights = "".join("▁▂▃▄▅▆▇█"[int(7.99 * (v - low) / ((high - low) or 1))] for v in kept)
    return f"{heights}  {number(finite[0])} to {number(finite[-1])}"


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
