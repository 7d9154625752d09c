"""Benchmarks of crowds: what is read, who is measured against whom, and that a short run tells all its figures."""

import math
import os

import pytest
import torch

from understudy import bench_crowds, scenes
from understudy.core.errors import DemosError
from understudy.core.random import generator
from understudy.demos.tracks import TrackSet, TrackSpec
from understudy.runs.loop import Habits

QUIET = Habits(show=False)
NET = {"trunk": {"hidden": 8, "layers": 1, "heads": 2, "pair": 4}}
FEW = {"net": NET, "batch": 2, "steps": 2, "limit": 2, "agents": 0, "held_out": 0.0}


def test_pedestrians_of_a_scene_are_not_learnt_from_and_walk_straight_as_others_measured(data_folder):
    """Constant velocity in zara1: 0.43 and 0.96 m, of a window together 0.42 and 0.95."""
    train, test = bench_crowds.pedestrian_parts(data_folder / "eth_ucy", "zara1")
    assert not any("zara01" in name for name in train.names) and len(train) == 14
    clips = test.clips(20, stride=1, complete=True, least_present=2, agents=0)
    ahead = bench_crowds.Straight.predict(clips.values[:, :8], 12).unsqueeze(0)
    errors = bench_crowds.displacement_errors(ahead, clips.values[:, 8:], clips.present[:, 0], generator(0))
    found = [each.value for each in errors.figures.values()]
    assert found == pytest.approx([0.43, 0.96, 0.42, 0.95], abs=0.01)


def test_folders_and_files_that_are_not_there_are_named(tmp_path):
    with pytest.raises(DemosError, match="the folders all, train and val are not there"):
        bench_crowds.pedestrian_parts(tmp_path, "eth")
    with pytest.raises(DemosError, match=r"structured_data.json and match_data.json are not there.*SkillCorner"):
        bench_crowds.football_halves(tmp_path)


def test_futures_of_crowds_and_of_pairs_come_in_the_order_of_their_windows(monkeypatch):
    """However many windows are sampled at once, a window's past is followed by its own futures."""
    place = torch.arange(6)[:, None, None, None] * 1000.0  # metres from one window to the next
    values = (place + torch.randn(6, 20, 4, 2, generator=generator(0)).cumsum(1)).float()
    present = torch.ones(6, 20, 4, dtype=torch.bool)
    present[::2, :, 2:] = False
    monkeypatch.setattr(bench_crowds, "AT_ONCE", 160)
    tracks = TrackSet.stacked(TrackSpec(4), values, present)
    learned = scenes.train(tracks, FEW | {"length": 20}, habits=QUIET)
    for spread in (False, True):
        made = bench_crowds.futures(learned, tracks.clips(20, complete=True, agents=0), 8, 0, spread)
        assert made.shape == (20, 6, 12, 4, 2)
        assert ((made - place)[:, 1::2].abs() < 500).all()
        assert ((made - place)[:, ::2, :, :2].abs() < 500).all() and (made[:, ::2, :, 2:] == 0).all()


@pytest.fixture
def crowds(data_folder, tmp_path):
    """The recordings, beside a place to write."""
    for part in ("all", "train", "val"):
        os.symlink(data_folder / "eth_ucy" / part, tmp_path / part)
    return tmp_path


def test_pedestrians_tell_all_their_figures_and_keep_them(crowds, monkeypatch):
    monkeypatch.setattr(bench_crowds, "WALKS", FEW | {"length": 20, "crowd": 4})
    monkeypatch.setattr(bench_crowds, "SAMPLES", 2)
    (table,) = bench_crowds.pedestrians(crowds, 1, 1, None, ("eth",)).tables
    rows = {tuple(row[:2]): row[2:] for row in table.rows}
    assert set(rows) == {(a, b) for a in ("eth", "mean of scenes") for b in ("straight on", "ours", "ours, spread")}
    straight = [cell.value for cell in rows["eth", "straight on"]]
    assert straight[:4] == pytest.approx([1.00, 2.23, 1.01, 2.24], abs=0.01)  # as the page of scenes has it
    ours = [cell.value for cell in rows["eth", "ours"]]
    assert ours[0] <= ours[2] and ours[1] <= ours[3] and all(map(math.isfinite, ours))
    monkeypatch.setattr(bench_crowds, "pedestrian_parts", lambda *_: pytest.fail("it is measured already"))
    (again,) = bench_crowds.pedestrians(crowds, 1, 1, None, ("eth",)).tables
    assert again.rows == table.rows


TEAMS = ("ball", *("home",) * 5, *("away",) * 5)
PITCH = TrackSpec(
    11,
    dt=0.2,
    low=(-52.5, -34.0),
    high=(52.5, 34.0),
    names=("ball", *(f"{team}_{k}" for k, team in enumerate(TEAMS[1:]))),
    teams=TEAMS,
    roles=("ball", *("player",) * 10),
)


def match(bend=0.0, frames=80):
    """Two pieces in which everybody runs in a line of its own, straight but for changes of pace of `bend` m/s."""
    source = generator(0)
    begin = 40 * torch.rand(2, 1, 11, 2, generator=source) - 20
    way = torch.randn(2, 1, 11, 2, generator=source) + bend * torch.randn(2, frames, 11, 2, generator=source).cumsum(1)
    return TrackSet.stacked(PITCH, begin + 0.2 * way.cumsum(1))


def test_straight_runs_are_filled_in_without_error_by_a_line_and_by_going_on():
    tracks = match()
    filler = scenes.train_masked(match(bend=0.3), FEW | {"length": bench_crowds.LONG}, habits=QUIET)
    found = {who: each["distance"] for who, each in bench_crowds.holes_filled(filler, tracks, 0, samples=3).items()}
    assert found["going straight on"] < 1e-4 and found["a line from before to after"] < 1e-4
    assert 1e-3 < found["ours, mean of 3"] < found["ours, one sample"]


def test_a_player_is_sent_and_those_who_hear_nobody_do_not_answer(monkeypatch, tmp_path):
    monkeypatch.setattr(bench_crowds, "SAMPLES", 2)
    tracks = match()
    deaf = {"trunk": NET["trunk"] | {"social": False}}
    length = bench_crowds.PLAYED + bench_crowds.NEXT
    learned = scenes.train(tracks, FEW | {"length": length, "net": deaf}, habits=QUIET)
    found = bench_crowds.sent_elsewhere(learned, tracks, 0, None)
    assert "opponents near" in found and all(each["elsewhere"] == 0 for each in found.values())
    learned = scenes.train(tracks, FEW | {"length": length}, habits=QUIET)
    found = bench_crowds.sent_elsewhere(learned, tracks, 0, tmp_path / "sent.png")
    assert all(each["elsewhere"] > 0 for each in found.values())
    assert (tmp_path / "sent.png").read_bytes()[:4] == b"\x89PNG"


def test_who_goes_on_as_those_who_came_is_like_them_and_who_stands_is_not(monkeypatch):
    monkeypatch.setattr(bench_crowds, "SPLITS", 2)
    tracks = match(bend=1.0, frames=1200)
    clips = tracks.clips(30)
    came, players = clips.values[:, 10:], clips.present[:, 0]
    others = came.roll(1, 0) - came.roll(1, 0)[:, :1] + came[:, :1]  # how they went elsewhere, from where they are here
    same = bench_crowds.likeness(others.unsqueeze(0), came, players, 0)
    stood = bench_crowds.likeness(came[:, :1].expand_as(came).unsqueeze(0), came, players, 0)
    assert stood["told apart"] > 0.95 > 0.75 > same["told apart"] > 0.25
    assert same["speed"] > 2 * stood["speed"] and same["realism"] > stood["realism"]
    assert same["diversity"] is same["covered"] is None, "one sample tells nothing of its spread"
    both = bench_crowds.likeness(torch.stack([others, others.roll(1, 0)]), came, players, 0)
    assert both["diversity"] > 0 and both["if calibrated"] == both["covered"] == 1


def test_a_match_tells_all_its_figures(data_folder, tmp_path, monkeypatch):
    for file in (data_folder / "skillcorner_2417").iterdir():
        (tmp_path / file.name).symlink_to(file)
    for name, settings in {"MATCH": {"length": 30}, "HOLES": {"length": bench_crowds.LONG}}.items():
        monkeypatch.setattr(bench_crowds, name, FEW | settings)
    for name, few in {"SAMPLES": 2, "SPLITS": 1, "MOMENTS": 2}.items():
        monkeypatch.setattr(bench_crowds, name, few)
    first, second = bench_crowds.football_halves(data_folder / "skillcorner_2417")
    short = second.map(lambda each: [type(each)(each.values[:2000], each.present[:2000], name=each.name)], second.spec)
    monkeypatch.setattr(bench_crowds, "football_halves", lambda folder: (first, short))
    ahead, like, holes, sent = bench_crowds.football(tmp_path, 1, 1, None).tables
    assert [row[0] for row in ahead.rows] == [row[0] for row in like.rows] == ["straight on", "ours", "ours, spread"]
    assert len(like.columns) == len(like.rows[1]) and 0 < like.rows[1][5].value < 1
    assert holes.rows and sent.rows and (tmp_path / "seed-0" / "sent.png").exists()


def test_halves_of_a_match_have_one_rate_and_teams_keep_their_side(data_folder):
    first, second = bench_crowds.football_halves(data_folder / "skillcorner_2417")
    assert first.spec.dt == 0.2 and set(first.spec.roles) == {"ball", "GK", "player"}
    keeper = first.spec.names.index("home_3")
    side = [float(half.values[half.present[:, keeper], keeper, 0].mean()) for half in (first, second)]
    assert side[0] == pytest.approx(45, abs=3) and side[1] == pytest.approx(45, abs=3)
