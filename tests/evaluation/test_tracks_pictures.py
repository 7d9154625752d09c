"""Tracks as pictures: everyone is where it was, and nobody else is shown."""

import math

import pytest
import torch

from understudy.core.errors import ConfigError
from understudy.demos.tracks import Tracks, TrackSpec
from understudy.evaluation.tracks_pictures import animate, field_of, pictures

PITCH = TrackSpec(
    agents=3,
    dt=0.1,
    low=(-52.5, -34.0),
    high=(52.5, 34.0),
    names=("ball", "home_7", "away_23"),
    teams=("ball", "home", "away"),
)
VOICES = TrackSpec(agents=2, dims=0, symbols=4, dt=0.25, clock="beat", alphabet=("rest", "60", "61", "62"))


def run(frames: int = 6) -> Tracks:
    t = torch.arange(float(frames)).unsqueeze(-1)
    values = torch.stack([torch.cat([t, 2 * t + 1, -t], -1), torch.cat([-t, t, t - 9], -1)], -1)
    present = torch.ones(frames, 3, dtype=torch.bool)
    present[2:4, 1] = False
    return Tracks(values, present)


def circles(scene):
    return [shape.points[0] for shape in scene.shapes if shape.kind == "circle"]


def test_everyone_who_is_there_is_shown_where_it_is():
    tracks = run()
    scenes = pictures(tracks, PITCH)
    assert len(scenes) == 6
    for t, scene in enumerate(scenes):
        assert circles(scene) == [tuple(p) for p in tracks.values[t][tracks.present[t]].tolist()]
    said = [shape.text for shape in scenes[0].shapes if shape.kind == "text"]
    assert said == ["7", "23"]


def test_a_trail_is_broken_where_its_agent_was_missing():
    tracks = run()
    plain, trailed = (pictures(tracks, PITCH, trail=trail)[-1] for trail in (0, 9))
    ways = [shape.points for shape in trailed.shapes if shape.kind == "line"][
        len([s for s in plain.shapes if s.kind == "line"]) :
    ]
    assert [len(way) for way in ways] == [6, 2, 2, 6]  # the second agent's in two pieces
    assert ways[1][0] == tuple(tracks.values[0, 1].tolist())


def test_futures_begin_where_the_past_ends():
    past = run(3)
    futures = [Tracks(past.values[-1:] + k * torch.ones(4, 3, 2).cumsum(0), torch.ones(4, 3).bool()) for k in (1, -1)]
    scenes = pictures(past, PITCH, futures=futures)
    assert len(scenes) == 7
    last = tuple(past.values[-1, 0].tolist())
    ways = [s.points for s in scenes[-1].shapes if s.kind == "line" and s.points[0] == last and len(s.points) == 5]
    assert [way[-1] for way in ways] == [(last[0] + 4, last[1] + 4), (last[0] - 4, last[1] - 4)]


def test_fields_are_told_by_their_size():
    assert field_of(PITCH) == "pitch"
    assert field_of(TrackSpec(agents=1, unit="ft", low=(0.0, 0.0), high=(94.0, 50.0))) == "court"
    assert field_of(TrackSpec(agents=1)) == "map"
    assert field_of(VOICES) == "roll"
    with pytest.raises(ConfigError, match="Did you mean `pitch`"):
        pictures(run(), PITCH, field="pich")
    with pytest.raises(ConfigError, match="a roll shows symbols"):
        pictures(run(), PITCH, field="roll")


@pytest.mark.parametrize(("field", "unit", "half"), [("pitch", "m", (52.5, 34.0)), ("court", "ft", (47.0, 25.0))])
def test_lines_of_a_field_lie_on_it_and_are_the_same_from_both_ends(field, unit, half):
    spec = TrackSpec(agents=3, unit=unit, low=tuple(-h for h in half), high=half)
    scene = pictures(run(), spec, field=field, trail=0)[0]
    lines = [s.points for s in scene.shapes if s.kind == "line"]
    every = {(round(x, 6) + 0.0, round(y, 6) + 0.0) for points in lines for x, y in points}
    assert every == {(-x + 0.0, y) for x, y in every} == {(x, -y + 0.0) for x, y in every}
    assert all(abs(x) < half[0] * 1.1 and abs(y) <= half[1] for x, y in every)


def test_a_map_shows_every_place():
    scene = pictures(run(), TrackSpec(agents=3))[0]
    assert scene.left < -5 and scene.right > 11 and scene.bottom < -9 and scene.top > 5


def test_a_roll_shows_notes_and_no_rests():
    voices = torch.tensor([[3, 1], [3, 1], [0, 2], [2, 2]])
    scenes = pictures(Tracks(voices, torch.ones(4, 2).bool()), VOICES)
    notes = [s for s in scenes[0].shapes if s.kind == "rect"][1:]
    assert [(s.points[0][0], s.points[1][0]) for s in notes] == [(0, 2), (3, 4), (0, 2), (2, 4)]
    tall = notes[0].points[0][1] / 2
    assert [round(s.points[0][1] / tall) for s in notes] == [2, 1, 0, 1]
    assert scenes[0].shapes[1].colour != scenes[3].shapes[1].colour  # what sounds is darker
    assert math.isclose(scenes[0].right / scenes[0].top, 5 / 3)


def test_animations_are_written(tmp_path):
    tracks = run(4)
    page = animate(tmp_path / "play.html", {"people": tracks, "model": tracks}, PITCH).read_text()
    assert "people" in page and "model" in page
    for package in ("PIL", "imageio", "av"):
        pytest.importorskip(package)
    import imageio.v3 as imageio

    still = imageio.imread(animate(tmp_path / "play.png", tracks, PITCH, width=210))
    assert still.shape[1] == 210
    assert len(imageio.imread(animate(tmp_path / "play.gif", tracks, PITCH, width=120))) == 4
    assert animate(tmp_path / "play.mp4", {"a": tracks, "b": tracks}, PITCH, width=240).stat().st_size > 500
