"""Pictures show each shape where it stands: in letters, in pixels, and in files that are read back."""

import sys

import numpy as np
import pytest
import torch
from rich.style import Style

from tests.evaluation.scenes import HOSTILE, rect, room
from understudy.core.errors import ConfigError, DemosError, MissingExtra
from understudy.core.scene import Scene, Shape
from understudy.core.types import Segment, View
from understudy.evaluation.video import beside, brightness, raster, rgb, save_video, scenes_of, terminal


def lines(scene: Scene, columns: int) -> list[str]:
    return terminal(scene, columns).plain.split("\n")


def test_a_terminal_shows_letters_where_shapes_are():
    shown = lines(room(caption="step 3"), 24)  # four columns and two rows for a unit
    assert len(shown) == 9 and shown[-1] == "step 3"
    assert shown[6:8] == ["X" * 24] * 2
    assert shown[2][5:7] == "11" and "1" not in shown[0] + shown[5]
    assert "ann" in shown[0] and shown[0].index("ann") == pytest.approx(17, abs=1)
    assert all(row[1] == "█" or row[2] == "█" for row in shown[1:5])  # thinner than a cell, and black


def test_a_terminal_colours_cells_and_prints_letters_that_stand_out_from_them():
    text = terminal(Scene(0.0, 0.0, 2.0, 1.0, (rect(0, 0, 1, 1, "#101010", "X"),)), 4)
    assert text.plain == "XX  \n"
    assert Style.parse(str(text.spans[0].style)) == Style.parse("#ffffff on #101010")


def test_a_shape_smaller_than_a_cell_still_shows():
    dot = Scene(0.0, 0.0, 10.0, 10.0, (Shape("circle", ((7.2, 2.1),), 0.01, "#000000", "o"),))
    assert sum(row.count("o") for row in lines(dot, 20)) == 1


def test_control_characters_do_not_reach_the_terminal():
    hostile = Scene(0.0, 0.0, 4.0, 4.0, (Shape("text", ((2.0, 2.0),), 1.0, "#000000", HOSTILE),), HOSTILE)
    shown = terminal(hostile, 40).plain
    assert "\x1b" not in shown and "?[31m" in shown


def test_pixels_have_the_colour_of_the_topmost_shape():
    picture = raster(room(), 120)  # 20 pixels a unit
    assert picture.shape == (80, 120, 3) and picture.dtype == np.uint8
    assert tuple(picture[70, 60]) == rgb("#805030")
    assert tuple(picture[30, 30]) == rgb("#2060e0")
    assert tuple(picture[30, 100]) == (255, 255, 255)
    assert picture[40, 10].sum() < 600  # the pole: thinner than a pixel, and still there


def test_edges_are_smoothed_and_areas_kept():
    disc = Scene(-1.0, -1.0, 1.0, 1.0, (Shape("circle", ((0.0, 0.0),), 0.8, "#000000"),))
    picture = raster(disc, 200)[..., 0] / 255
    assert (1 - picture).sum() == pytest.approx(np.pi * 80**2, rel=0.02)
    assert ((picture > 0.2) & (picture < 0.8)).sum() > 100  # neither black nor white: along the rim
    np.testing.assert_allclose(picture, picture[::-1], atol=0.35)


def test_a_caption_has_a_strip_of_its_own():
    plain, said = raster(room(), 120), raster(room(caption="hello"), 120)
    assert len(said) > len(plain)
    np.testing.assert_array_equal(said[: len(plain)], plain)
    assert said[len(plain) :].min() < 128
    assert raster(room(), 120, caption=True).shape == said.shape
    wordy = raster(room(caption="word " * 60), 120)
    assert wordy[len(plain) :, :2].min() > 200 and wordy[len(plain) :, -2:].min() > 200  # made to fit between its sides


def test_scenes_beside_each_other_keep_their_proportions_and_lose_what_lies_outside():
    away = Shape("circle", ((50.0, 2.0),), 1.0)
    tall = Scene(0.0, 0.0, 2.0, 4.0, (rect(0, 0, 2, 4), away))
    both = beside([("people", room(caption="three soups")), ("learned", tall)], gap=0.1)
    assert both.right == pytest.approx(1.5 + 0.1 + 0.5) and both.bottom < 0 < 1 < both.top
    floor = both.shapes[-2]
    np.testing.assert_allclose(floor.points, ((1.6, 0), (2.1, 1)))
    assert [s.text for s in both.shapes if s.kind == "text"] == ["ann", "people", "three soups", "learned"]
    assert not any(s.kind == "circle" and s.size == 0.25 for s in both.shapes)
    assert len(lines(both, 60)) > 10 and raster(both, 200).shape[1] == 200


def test_scenes_of_an_episode_stop_at_its_end_and_show_it():
    whole = torch.arange(8.0).reshape(2, 4, 1)
    valid = torch.tensor([[True] * 4, [True, True, False, False]])
    actions, obs = torch.zeros(2, 4, 1).long(), torch.zeros(2, 4, 1, 1)
    played = Segment(View(obs, whole=whole), actions, next_view=View(obs, whole=whole + 100), valid=valid)

    def draw(moment: torch.Tensor) -> Scene:
        return Scene(0.0, 0.0, 1.0, 1.0, (), f"{moment.item():g}")

    assert [scene.caption for scene in scenes_of(draw, played, 0)] == ["0", "1", "2", "3", "103"]
    assert [scene.caption for scene in scenes_of(draw, played, 1)] == ["4", "5", "105"]
    with pytest.raises(DemosError, match="full state"):
        scenes_of(draw, Segment(View(obs), actions))


@pytest.mark.parametrize("suffix", [".mp4", ".gif"])
def test_a_film_is_read_back_frame_for_frame(tmp_path, suffix):
    imageio = pytest.importorskip("imageio.v3")
    scenes = [room(step, f"step {step}") for step in range(5)]
    path = save_video(tmp_path / "new" / f"play{suffix}", scenes, dt=0.2, width=121)
    frames = imageio.imread(path, plugin="pyav") if suffix == ".mp4" else imageio.imread(path)
    meant = np.stack([raster(scene, 121) for scene in scenes])
    assert frames.shape == meant.shape and meant.shape[2] == 122
    assert np.abs(frames.astype(float) - meant).mean() < 6  # both formats lose some colour
    meta = imageio.immeta(path, plugin="pyav") if suffix == ".mp4" else imageio.immeta(path)
    assert meta["fps"] == 5 if suffix == ".mp4" else meta["duration"] == 200
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_a_picture_is_read_back_exactly(tmp_path):
    imageio = pytest.importorskip("imageio.v3")
    np.testing.assert_array_equal(imageio.imread(save_video(tmp_path / "a.png", [room()])), raster(room()))


@pytest.mark.parametrize(
    ("name", "scenes", "dt", "message"),
    [
        ("a.avi", [room()], 0.1, r"'a\.avi', but pictures are written as"),
        ("a.gif", [], 0.1, "at least one"),
        ("a.gif", [room()], 0.0, r"dt: got 0\.0"),
    ],
)
def test_films_that_cannot_be_are_refused(tmp_path, name, scenes, dt, message):
    with pytest.raises(ConfigError, match=message):
        save_video(tmp_path / name, scenes, dt)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("package", "name"), [("PIL", "a.png"), ("imageio.v3", "a.gif"), ("av", "a.mp4")])
def test_a_missing_package_is_named_with_the_extra_that_brings_it(tmp_path, monkeypatch, package, name):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtra, match=r"understudy\[video\]"):
        save_video(tmp_path / name, [room()])
    assert not list(tmp_path.iterdir())


def test_colours_are_read_and_refused():
    assert rgb("#ff8000") == (255, 128, 0)
    assert brightness("#ffffff") == pytest.approx(1) and brightness("#000000") == 0
    for wrong in ("red", "#ff80", "#ff80001"):
        with pytest.raises(ConfigError, match="#rrggbb"):
            rgb(wrong)
