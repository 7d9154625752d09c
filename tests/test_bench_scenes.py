"""The chorales' benchmark: what is read, and that a short run tells all its figures."""

import shutil

import pytest
import torch

from understudy import bench_scenes, scenes
from understudy.core.errors import DemosError
from understudy.core.random import generator
from understudy.demos.tracks import TrackSet, TrackSpec
from understudy.runs.loop import Habits

QUIET = Habits(show=False)


@pytest.fixture
def folder(data_folder, tmp_path):
    shutil.copy(data_folder / "jsb_chorales" / bench_scenes.CHORALES, tmp_path)
    return tmp_path


def test_pieces_are_thinned_to_the_grid_and_the_scale_has_room_for_all_keys(folder):
    quarter = bench_scenes.chorale_parts(folder, "quarter")
    assert {part: (len(each), each.frames) for part, each in quarter.items()} == {
        "train": (229, 13_807),
        "valid": (76, 4_602),
        "test": (77, 4_725),
    }
    sixteenth = bench_scenes.chorale_parts(folder, "sixteenth")["test"]
    assert torch.equal(sixteenth[3].values[::4], quarter["test"][3].values)
    assert sixteenth.spec.alphabet[1] == "30" and sixteenth.spec.alphabet[-1] == "87"
    sounding = sixteenth.values[sixteenth.values > 0]
    assert sounding.min() > 6 and sounding.max() <= sixteenth.spec.symbols - 1 - 6
    assert sixteenth[0].labels["beat"][:18].tolist() == [*range(16), 0, 1]


def test_the_figures_are_told(folder, monkeypatch):
    few = {"length": 16, "batch": 2, "limit": 4, "steps": 2}
    net = {"trunk": {"hidden": 8, "layers": 1, "heads": 2, "pair": 4}}
    whole = bench_scenes.chorale_parts
    monkeypatch.setattr(bench_scenes, "SETTINGS", {grid: few for grid in bench_scenes.GRIDS})
    monkeypatch.setattr(bench_scenes, "SHARED", {**bench_scenes.SHARED, "net": net})
    monkeypatch.setattr(bench_scenes, "FRAMES", 8)
    monkeypatch.setattr(
        bench_scenes, "chorale_parts", lambda *of: {part: each.select(range(3)) for part, each in whole(*of).items()}
    )
    (table,) = bench_scenes.chorales(folder, 1, 1, None).tables
    rows = {row[0]: dict(zip(table.columns, row, strict=True)) for row in table.rows}
    assert set(rows) >= {"quarter", "quarter: Bach", "sixteenth", "sixteenth: Bach"}
    for grid in bench_scenes.GRIDS:
        assert 8 < rows[grid]["test, nats"].value < 20  # hardly learnt: 4 log 59 = 16.3 is guessing
        assert rows[f"{grid}: counted"]["test, nats"].value < rows[grid]["test, nats"].value
        assert rows[grid]["crossings"].value > rows[f"{grid}: Bach"]["crossings"]
    assert rows["quarter"]["test frames"] == str(whole(folder, "quarter")["test"].select(range(3)).frames)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DemosError, match=r"Jsb16thSeparated.json is not there.*JSB-Chorales-dataset"):
        bench_scenes.chorale_parts(tmp_path, "quarter")


def test_pedestrians_of_a_scene_are_not_learnt_from_and_walk_straight_as_others_measured(data_folder, monkeypatch):
    """Constant velocity in zara1: 0.43 and 0.96 m, of a window together 0.42 and 0.95."""
    train, test = bench_scenes.pedestrian_parts(data_folder / "eth_ucy", "zara1")
    assert not any("zara01" in name for name in train.names) and len(train) == 14
    clips = test.clips(20, stride=1, complete=True, least_present=2, agents=0)
    ahead = bench_scenes.Straight.predict(clips.values[:, :8], 12).unsqueeze(0)
    errors = bench_scenes.displacement_errors(ahead, clips.values[:, 8:], clips.present[:, 0], generator(0))
    found = [each.value for each in errors.figures.values()]
    assert found == pytest.approx([0.43, 0.96, 0.42, 0.95], abs=0.01)


def test_futures_of_crowds_and_of_pairs_come_in_the_order_of_their_windows(monkeypatch):
    """However many windows are sampled at once, a window's past is followed by its own futures."""
    place = torch.arange(6)[:, None, None, None] * 1000.0  # metres from one window to the next
    values = (place + torch.randn(6, 20, 4, 2, generator=generator(0)).cumsum(1)).float()
    present = torch.ones(6, 20, 4, dtype=torch.bool)
    present[::2, :, 2:] = False
    monkeypatch.setattr(bench_scenes, "AT_ONCE", 160)
    tracks = TrackSet.stacked(TrackSpec(4), values, present)
    net = {"trunk": {"hidden": 8, "layers": 1, "heads": 2, "pair": 4}}
    learned = scenes.train(tracks, {"net": net, "length": 20, "batch": 2, "steps": 1}, updates=1, habits=QUIET)
    made = bench_scenes._futures(learned, tracks.clips(20, complete=True, agents=0), 0)
    assert made.shape == (20, 6, 12, 4, 2)
    assert ((made - place)[:, 1::2].abs() < 500).all()
    assert ((made - place)[:, ::2, :, :2].abs() < 500).all() and (made[:, ::2, :, 2:] == 0).all()


def test_a_memory_saves_time_and_changes_nothing(monkeypatch, tmp_path):
    """That samples are the same is asserted where they are timed."""
    monkeypatch.setattr(bench_scenes, "LONG", 20)
    monkeypatch.setattr(bench_scenes, "SHORT", 2)
    (table,) = bench_scenes.speed(tmp_path, 1, 1, None).tables
    assert len(table.rows) == 4 and float(table.rows[1][2].split()[0]) > 1
