"""The chorales' benchmark: what is read, and that a short run tells all its figures."""

import shutil

import pytest
import torch

from understudy import bench_scenes
from understudy.core.errors import DemosError
from understudy.demos.formats.tracks import read_tracks
from understudy.runs.loop import Habits

QUIET = Habits(show=False)


@pytest.fixture
def folder(data_folder, tmp_path):
    for name in (bench_scenes.CHORALES, bench_scenes.ROLL):
        shutil.copy(data_folder / "jsb_chorales" / name, tmp_path)
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
    net = {"trunk": {"hidden": 8, "layers": 1, "heads": 2, "pair": 4}}
    few = {"net": net, "length": 16, "batch": 2, "limit": 4, "steps": 2}
    whole, rolls = bench_scenes.chorale_parts, bench_scenes.roll_parts
    monkeypatch.setattr(bench_scenes, "SETTINGS", {grid: few for grid in (*bench_scenes.GRIDS, "roll")})
    monkeypatch.setattr(bench_scenes, "FRAMES", 8)
    monkeypatch.setattr(
        bench_scenes, "chorale_parts", lambda *of: {part: each.select(range(3)) for part, each in whole(*of).items()}
    )
    monkeypatch.setattr(
        bench_scenes, "roll_parts", lambda *of: {part: each.select(range(3)) for part, each in rolls(*of).items()}
    )
    (table,) = bench_scenes.chorales(folder, 1, 1, None).tables
    rows = {row[0]: dict(zip(table.columns, row, strict=True)) for row in table.rows}
    assert set(rows) >= {"quarter", "quarter: Bach", "sixteenth", "sixteenth: Bach"}
    for grid in bench_scenes.GRIDS:
        assert 8 < rows[grid]["test, nats"].value < 20  # hardly learnt: 4 log 59 = 16.3 is guessing
        assert rows[f"{grid}: counted"]["test, nats"].value < rows[grid]["test, nats"].value
        assert rows[grid]["crossings"].value > rows[f"{grid}: Bach"]["crossings"]
    assert 8 < rows["roll"]["test, nats"].value < 20 and rows["roll: TCN, as published"]["test, nats"] == "8.10"
    for grid in rows.keys() & {*bench_scenes.GRIDS, "roll"}:
        sung = read_tracks(folder / grid / "seed-0" / "sampled.mid")
        assert sung.frames and (folder / grid / "seed-0" / "sampled.png").stat().st_size > 500
    assert rows["quarter"]["test frames"] == str(whole(folder, "quarter")["test"].select(range(3)).frames)


def test_rolls_are_the_same_pieces_by_quarters_without_voices(folder):
    roll = bench_scenes.roll_parts(folder)
    assert {part: (len(each), each.frames) for part, each in roll.items()} == {
        "train": (229, 13_807),
        "valid": (76, 4_602),
        "test": (77, 4_725),
    }
    values = roll["test"].values
    assert roll["test"].spec.agents == 4
    assert ((values[:, :-1] > values[:, 1:]) | (values[:, 1:] == 0)).all()  # the highest first, then rests


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DemosError, match=r"Jsb16thSeparated.json is not there.*JSB-Chorales-dataset"):
        bench_scenes.chorale_parts(tmp_path, "quarter")


def test_a_memory_saves_time_and_changes_nothing(monkeypatch, tmp_path):
    """That samples are the same is asserted where they are timed."""
    monkeypatch.setattr(bench_scenes, "LONG", 20)
    monkeypatch.setattr(bench_scenes, "SHORT", 2)
    (table,) = bench_scenes.speed(tmp_path, 1, 1, None).tables
    assert len(table.rows) == 4 and float(table.rows[1][2].split()[0]) > 1
