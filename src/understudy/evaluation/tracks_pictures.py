"""Tracks as pictures: on a pitch, a court or a map, or as a piano roll; and several futures over one past.

    animate("half.mp4", match[0], match.spec)
    animate("futures.html", {"people": played, "sampled": sampled}, spec)

Who belongs to a team has its colour, the ball is small and dark. Where an agent is absent nothing is drawn.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from understudy.core.errors import ConfigError, nearest
from understudy.core.scene import Scene, Shape
from understudy.demos.tracks import METRES, REST, Tracks, TrackSpec
from understudy.evaluation.report import Animation, Report, Section
from understudy.evaluation.video import rgb, save_video

FIELDS = ("pitch", "court", "map", "roll")
COLOURS = ("#c23b33", "#2f6fbf", "#2e8b57", "#b8860b", "#7d55c7", "#d2691e", "#1f8a8a", "#b03a78")
GRASS, CHALK, WOOD, LINE, PAPER, GRID, INK = (
    "#5d9b58", "#e9f3e6", "#e8cfa0", "#7a5a33", "#ffffff", "#e3e6ec", "#2a2d33",
)  # fmt: skip
BALL = "ball"  # the role, or the team, of what is no player
Number = int | float
DOT = 0.011  # radius of an agent, as a share of the field's longer side
MARGIN = 0.04


def pictures(
    tracks: Tracks,
    spec: TrackSpec,
    *,
    field: str = "",
    trail: int = 10,
    futures: Sequence[Tracks] = (),
    caption: str = "",
) -> list[Scene]:
    """One scene for each frame of a recording, then one for each frame of its `futures`, all of these together.

    Args:
        field: "pitch" (football), "court" (basketball), "map" or "roll" (symbols); "": told by the spec.
        trail: frames of the way behind an agent; a roll shows the whole piece, and where it is.
        futures: what may follow the last frame; their ways are drawn from there on, thin and pale.
        caption: below each; "{t}" stands for the time.

    Raises:
        ConfigError: an unknown field, or one that does not fit the spec.
    """
    kind = field or field_of(spec)
    if kind not in FIELDS:
        raise ConfigError(f"field: got {field!r}.{nearest(field, FIELDS)}")
    if (kind == "roll") != bool(spec.symbols):
        raise ConfigError(f"field: {kind!r} does not fit: a roll shows symbols, all others positions.")
    if kind == "roll":
        return [_roll(tracks, spec, t, _said(caption, spec, t)) for t in range(len(tracks))]
    ground = _ground(kind, tracks, spec, futures)
    dot = DOT * max(ground.right - ground.left, ground.top - ground.bottom)
    scenes = []
    for t in range(len(tracks)):
        shapes = [*ground.shapes, *_ways(tracks, spec, max(0, t - trail), t, dot / 3), *_dots(tracks, spec, t, dot)]
        scenes.append(replace(ground, shapes=tuple(shapes), caption=_said(caption, spec, t)))
    last = len(tracks) - 1
    past = (*ground.shapes, *_ways(tracks, spec, max(0, last - trail), last, dot / 3))
    for t in range(max((len(future) for future in futures), default=0)):
        shapes = list(past)
        for future in futures:
            joined = _after(tracks, future)
            end = min(t, len(future) - 1)
            shapes += _ways(joined, spec, 0, end + 1, dot / 4, pale=0.55)
            shapes += _dots(joined, spec, end + 1, dot * 0.6, pale=0.3, named=False)
        shapes += _dots(tracks, spec, last, dot)
        scenes.append(replace(ground, shapes=tuple(shapes), caption=_said(caption, spec, len(tracks) + t)))
    return scenes


def animate(
    path: Path | str,
    tracks: Tracks | Mapping[str, Tracks],
    spec: TrackSpec,
    *,
    field: str = "",
    trail: int = 10,
    futures: Sequence[Tracks] = (),
    speed: int | float = 1,
    width: int = 640,
    title: str = "",
) -> Path:
    """Write a recording, or several side by side, as .mp4, .gif, .html (with a slider), or its last scene as .png.

    Args:
        futures: of the recording, or of each of several.
        speed: how many times faster than it was; a beat lasts half a second.

    Raises:
        ConfigError: another ending. MissingExtra: without the extra `video`, but for .html.
    """
    path = Path(path)
    several = {"": tracks} if isinstance(tracks, Tracks) else dict(tracks)
    caption = "{t}"
    players = {
        name: pictures(each, spec, field=field, trail=trail, futures=futures, caption=caption)
        for name, each in several.items()
    }
    dt = spec.dt * (0.5 if spec.clock == "beat" else 1.0) / speed
    if path.suffix == ".html":
        animation = Animation(title or spec.title, list(players.items()), dt)
        return Report(title or spec.title or "tracks", [Section("tracks", animations=[animation])]).save(path)
    if len(players) > 1:
        from understudy.evaluation.video import beside

        longest = max(map(len, players.values()))
        scenes = [
            beside([(name, each[min(t, len(each) - 1)]) for name, each in players.items()]) for t in range(longest)
        ]
    else:
        (scenes,) = players.values()
    return save_video(path, scenes[-1:] if path.suffix == ".png" else scenes, dt=dt, width=width)


def field_of(spec: TrackSpec) -> str:
    """The kind of field that a spec tells of, by its symbols, or by the size of its bounds."""
    if spec.symbols:
        return "roll"
    if spec.low and spec.unit in METRES:
        length, width = (METRES[spec.unit] * (spec.high[k] - spec.low[k]) for k in (0, 1))
        if 90 <= length <= 120 and 45 <= width <= 90:
            return "pitch"
        if 26 <= length <= 30 and 14 <= width <= 16:
            return "court"
    return "map"


# ---- grounds


def _ground(kind: str, tracks: Tracks, spec: TrackSpec, futures: Sequence[Tracks]) -> Scene:
    """The empty field, and all that is shown around it."""
    (left, bottom), (right, top) = _bounds(spec, [tracks, *futures])
    if kind == "map":
        shapes = [_rect(left, bottom, right, top, PAPER), *_squares(left, bottom, right, top)]
        return Scene(left, bottom, right, top, tuple(shapes))
    scale = 1 / METRES[spec.unit] if spec.unit in METRES else (right - left) / (105 if kind == "pitch" else 28.65)
    marks = (_pitch if kind == "pitch" else _court)(left, bottom, right, top, scale)
    edge = MARGIN * (right - left)
    paper, colour = (GRASS, CHALK) if kind == "pitch" else (WOOD, LINE)
    lines = [Shape("line", points, 0.0025 * (right - left), colour) for points in marks]
    outer = (left - edge, bottom - edge, right + edge, top + edge)
    return Scene(*outer, (_rect(*outer, paper), *lines))


def _bounds(spec: TrackSpec, shown: Sequence[Tracks]) -> tuple[tuple[float, float], tuple[float, float]]:
    """The field, or where there is none all places that are shown and a margin."""
    if spec.low:
        return (spec.low[0], spec.low[1]), (spec.high[0], spec.high[1])
    places = torch.cat([each.values[each.present][:, :2] for each in shown])
    if not len(places):
        return (0.0, 0.0), (1.0, 1.0)
    low, high = places.amin(0), places.amax(0)
    edge = max(float((high - low).max()) * 0.06, 1e-6)
    return (float(low[0]) - edge, float(low[1]) - edge), (float(high[0]) + edge, float(high[1]) + edge)


Line = tuple[tuple[float, float], ...]


def _pitch(left: Number, bottom: Number, right: Number, top: Number, m: Number) -> list[Line]:
    """The lines of a football pitch, `m` units to the metre (Laws of the Game, law 1)."""
    x, y = (left + right) / 2, (bottom + top) / 2
    lines = [_box(left, bottom, right, top), ((x, bottom), (x, top)), _arc(x, y, 9.15 * m, 0, 2 * math.pi)]
    for end, into in ((left, 1), (right, -1)):
        for deep, half in ((16.5, 20.16), (5.5, 9.16), (-1.5, 3.66)):
            lines.append(_box(end, y - half * m, end + into * deep * m, y + half * m))
        bow = math.acos(5.5 / 9.15)
        middle = 0.0 if into > 0 else math.pi
        lines.append(_arc(end + into * 11 * m, y, 9.15 * m, middle - bow, middle + bow))
    return lines


def _court(left: Number, bottom: Number, right: Number, top: Number, m: Number) -> list[Line]:
    """The lines of an NBA court, `m` units to the metre (its rule 1, in feet)."""
    ft = 0.3048 * m
    x, y = (left + right) / 2, (bottom + top) / 2
    lines = [_box(left, bottom, right, top), ((x, bottom), (x, top)), _arc(x, y, 6 * ft, 0, 2 * math.pi)]
    for end, into in ((left, 1), (right, -1)):
        rim, middle = end + into * 5.25 * ft, 0.0 if into > 0 else math.pi
        bow = math.asin(22 / 23.75)
        lines.append(_box(end, y - 8 * ft, end + into * 19 * ft, y + 8 * ft))
        lines.append(_arc(rim, y, 0.75 * ft, 0, 2 * math.pi))
        arc = _arc(rim, y, 23.75 * ft, middle - bow, middle + bow)
        lines.append(((end, arc[0][1]), *arc, (end, arc[-1][1])))
    return lines


def _squares(left: Number, bottom: Number, right: Number, top: Number) -> list[Shape]:
    """A grid of round numbers, about ten to the longer side."""
    side = max(right - left, top - bottom)
    step = 10.0 ** math.floor(math.log10(side / 5))
    step *= next(k for k in (1, 2, 5, 10) if side / (k * step) <= 12)
    lines: list[Line] = [((x, bottom), (x, top)) for x in _ticks(left, right, step)]
    lines += [((left, y), (right, y)) for y in _ticks(bottom, top, step)]
    return [Shape("line", points, side * 0.001, GRID) for points in lines]


def _ticks(low: Number, high: Number, step: Number) -> list[float]:
    return [k * step for k in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _box(x0: Number, y0: Number, x1: Number, y1: Number) -> Line:
    return ((x0, y0), (x1, y0), (x1, y1), (x0, y1), (x0, y0))


def _arc(x: Number, y: Number, radius: Number, start: Number, stop: Number) -> Line:
    turns = [start + (stop - start) * k / 32 for k in range(33)]
    return tuple((x + radius * math.cos(a), y + radius * math.sin(a)) for a in turns)


def _rect(left: Number, bottom: Number, right: Number, top: Number, colour: str) -> Shape:
    return Shape("rect", ((float(left), float(bottom)), (float(right), float(top))), colour=colour)


# ---- agents


def _dots(tracks: Tracks, spec: TrackSpec, t: int, dot: Number, pale: Number = 0.0, named: bool = True) -> list[Shape]:
    """Everyone who is there at frame t, with a number where the name has one."""
    shapes = []
    for agent in tracks.present[t].nonzero().flatten().tolist():
        x, y = tracks.values[t, agent, :2].tolist()
        ball = _is_ball(spec, agent)
        number = "" if ball else "".join(filter(str.isdigit, spec.names[agent].rpartition("_")[2]))[-2:]
        shapes.append(Shape("circle", ((x, y),), dot * 0.6 if ball else dot, _colour(spec, agent, pale), number[-1:]))
        if named and number:
            shapes.append(Shape("text", ((x, y),), dot, PAPER, number))
    return shapes


def _ways(tracks: Tracks, spec: TrackSpec, start: int, stop: int, thick: Number, pale: Number = 0.35) -> list[Shape]:
    """The way of each agent from frame `start` to `stop`, broken where it is absent."""
    shapes = []
    for agent in range(spec.agents):
        here = slice(start, stop + 1)
        for run in _runs(tracks.present[here, agent], tracks.values[here, agent, :2]):
            if len(run) > 1:
                points = tuple(map(tuple, run.tolist()))
                shapes.append(Shape("line", points, thick, _colour(spec, agent, pale)))
    return shapes


def _runs(present: Bool[Tensor, "time"], values: Float[Tensor, "time 2"]) -> list[Float[Tensor, "some 2"]]:
    there = present.nonzero().flatten()
    return [values[run] for run in there.tensor_split((there.diff() > 1).nonzero().flatten() + 1) if len(run)]


def _after(past: Tracks, future: Tracks) -> Tracks:
    """A future with the last frame of the past before it."""
    values = torch.cat([past.values[-1:], future.values])
    return Tracks(values, torch.cat([past.present[-1:], future.present]))


def _is_ball(spec: TrackSpec, agent: int) -> bool:
    return BALL in (spec.teams[agent], spec.roles[agent], spec.names[agent])


def _colour(spec: TrackSpec, agent: int, pale: Number = 0.0) -> str:
    """That of the agent's team, of its own where all are of one; the paler the nearer `pale` is to 1."""
    teams = [team for team in dict.fromkeys(spec.teams) if team != BALL]
    if _is_ball(spec, agent):
        colour = INK
    else:
        colour = COLOURS[(teams.index(spec.teams[agent]) if len(teams) > 1 else agent) % len(COLOURS)]
    mixed = (round(c + (255 - c) * pale) for c in rgb(colour))
    return "#" + "".join(f"{c:02x}" for c in mixed)


# ---- symbols


def _roll(tracks: Tracks, spec: TrackSpec, t: int, caption: str) -> Scene:
    """All notes of a piece, a row for each symbol, those that sound at frame t in full colour."""
    frames = len(tracks)
    voiced = [k for k, name in enumerate(spec.alphabet or map(str, range(spec.symbols))) if name != REST]
    low, high = min(voiced), max(voiced) + 1
    tall = 0.6 * frames / (high - low)  # the picture is 5 wide and 3 high
    shapes = [_rect(0, 0, frames, tall * (high - low), PAPER)]
    bar = max(1, round(4 / spec.dt)) if spec.clock == "beat" else 16
    for k in range(bar, frames, bar):
        shapes.append(Shape("line", ((float(k), 0.0), (float(k), tall * (high - low))), 0.001 * frames, GRID))
    for agent in range(spec.agents):
        line, there = tracks.values[:, agent], tracks.present[:, agent]
        key = torch.where(there, line, -1)
        cuts = [0, *((key[1:] != key[:-1]).nonzero().flatten() + 1).tolist(), frames]
        for start, stop in itertools.pairwise(cuts):
            symbol = int(key[start])
            if symbol in voiced:
                colour = _colour(spec, agent, 0.0 if start <= t < stop else 0.45)
                bottom = (symbol - low) * tall
                shapes.append(_rect(start, bottom, stop, bottom + 0.9 * tall, colour))
    shapes.append(Shape("line", ((t + 0.5, 0.0), (t + 0.5, tall * (high - low))), 0.002 * frames, INK))
    return Scene(0.0, 0.0, float(frames), tall * (high - low), tuple(shapes), caption)


def _said(caption: str, spec: TrackSpec, t: int) -> str:
    return caption.replace("{t}", f"{t * spec.dt:.1f} {spec.clock}")
