"""Readers of tracks: real files, made-up ones with every slip, and mutated ones."""

import contextlib
import json
import math
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from understudy.core.errors import DemosError, UnderstudyError
from understudy.demos.formats.chorales import read_chorales
from understudy.demos.formats.sgan import read_sgan
from understudy.demos.formats.sightings import frame_step
from understudy.demos.formats.skillcorner import read_skillcorner, read_skillcorner_arrays
from understudy.demos.formats.sportvu import read_led, read_sportvu
from understudy.demos.formats.tracks_csv import (
    Columns,
    read_tracks_csv,
    tracks_from_table,
    tracks_to_pandas,
    tracks_to_polars,
    tracks_to_table,
    write_tracks_csv,
)
from understudy.demos.formats.trajectorytools import from_trajectories, read_trajectories

HELD_OUT = {  # scene -> files, windows of 20 frames with two pedestrians or more, trajectories in them
    "eth": (["biwi_eth"], 70, 181),
    "hotel": (["biwi_hotel"], 301, 1053),
    "univ": (["students001", "students003"], 947, 24334),
    "zara1": (["crowds_zara01"], 602, 2253),
    "zara2": (["crowds_zara02"], 921, 5833),
}


@pytest.mark.parametrize("scene", HELD_OUT)
def test_pedestrians_give_the_windows_that_everyone_counts(data_folder, scene):
    files, windows, trajectories = HELD_OUT[scene]
    made = read_sgan([data_folder / "eth_ucy" / "all" / f"{name}.txt" for name in files])
    clips = made.clips(20, stride=1, complete=True, least_present=2, agents=0)
    assert (len(clips), int(clips.present.all(1).sum())) == (windows, trajectories)
    assert made.spec.dt == 0.4 and made.omissions == ()


def test_every_row_of_the_pedestrians_has_its_place(data_folder):
    path = data_folder / "eth_ucy" / "all" / "biwi_hotel.txt"
    rows = np.loadtxt(path)
    track = read_sgan(path)[0]
    frame, agent = track.present.nonzero(as_tuple=True)
    seen = torch.stack([frame * 10 + rows[0, 0], track.labels["id"][frame, agent]], -1).tolist()
    at = {(t, who): i for i, (t, who) in enumerate(map(tuple, rows[:, :2].tolist()))}
    assert len(seen) == len(rows)
    order = [at[tuple(each)] for each in seen]
    np.testing.assert_array_equal(track.values[frame, agent].numpy(), rows[order, 2:].astype(np.float32))


def test_a_match_has_two_halves_and_what_was_left_out_is_told(data_folder):
    folder = data_folder / "skillcorner_2417"
    made = read_skillcorner_arrays(folder)
    with np.load(folder / "match2417_10hz.npz") as raw:
        xy, frame, period, possession = (raw[k] for k in ("xy_cm", "frame", "period", "possession"))
        seen = int((xy != -32768).all(-1).sum())
        unknown = int(raw["n_unidentified"].sum())
    assert (len(made), made.spec.agents, made.spec.names[0]) == (2, 29, "ball")
    assert int(made.present.sum()) == seen
    assert [(o.count, o.why) for o in made.omissions] == [(unknown, "seen, and not made out who")]
    row = 30_000
    here = made[int(period[row]) - 1]
    t = int(frame[row]) - round(here.info["start"] / 0.1)
    there = (xy[row] != -32768).all(-1)
    assert here.present[t].tolist() == there.tolist()
    np.testing.assert_allclose(here.values[t].numpy()[there], xy[row][there] / 100, rtol=1e-6)
    assert int(here.labels["possession"][t]) == possession[row]


def test_chorales_have_the_frames_that_are_known(data_folder):
    made = read_chorales(data_folder / "jsb_chorales" / "Jsb16thSeparated.json")
    frames = {
        part: made.where(lambda info, part=part: info["split"] == part).frames for part in ("train", "valid", "test")
    }
    assert frames == {"train": 55_228, "valid": 18_408, "test": 18_900}
    assert (len(made), made.spec.symbols, made.spec.alphabet[:2]) == (229 + 76 + 77, 81 - 36 + 2, ("rest", "36"))
    told = json.loads((data_folder / "jsb_chorales" / "Jsb16thSeparated.json").read_text())
    pitches = [[int(made.spec.alphabet[s]) for s in frame] for frame in made[0].values[:8].tolist()]
    assert pitches == next(iter(told.values()))[0][:8]


# ------------------------------------------------------------------------------------------------ long and wide tables

LONG = """t,agent,x,y,team
0.0,ann,1.0,2.0,red
0.0,bob,5.0,6.0,blue
0.1,ann,1.1,2.0,red
0.2,ann,1.2,2.0,red
0.2,bob,5.2,6.0,blue
"""


def written(tmp_path, text, name="play.csv"):
    path = tmp_path / name
    path.write_text(text)
    return path


def test_a_long_table_is_placed_on_its_grid(tmp_path):
    made = read_tracks_csv(written(tmp_path, LONG))
    spec = made.spec
    assert (spec.names, spec.teams, spec.dt, made.frames) == (("ann", "bob"), ("red", "blue"), 0.1, 3)
    assert made[0].present.tolist() == [[True, True], [True, False], [True, True]]
    torch.testing.assert_close(made[0].values[2], torch.tensor([[1.2, 2.0], [5.2, 6.0]]))


def test_a_wide_table_says_the_same(tmp_path):
    wide = "time;ann_x;ann_y;bob_x;bob_y\n0.0;1.0;2.0;5.0;6.0\n0.1;1.1;2.0;;\n0.2;1.2;2.0;5.2;6.0\n"
    made, long = read_tracks_csv(written(tmp_path, wide)), read_tracks_csv(written(tmp_path, LONG, "long.csv"))
    assert torch.equal(made.values, long.values) and torch.equal(made.present, long.present)
    assert [str(o) for o in made.omissions] == ["1 of 6 rows (16.7%) left out: no position in them"]


@pytest.mark.parametrize("decimals", [3, 4, 9])
def test_an_odd_frame_rate_is_found_under_rounded_times(tmp_path, decimals):
    frames = [k for k in range(2000) if not 300 < k < 700]
    rows = "".join(f"{round(k / 29.97, decimals)},7,{k * 0.01},0\n" for k in frames)
    made = read_tracks_csv(written(tmp_path, "t,agent,x,y\n" + rows))
    assert made.spec.dt == pytest.approx(1 / 29.97, rel=1e-5)
    assert made.frames == 2000
    assert made.present[:, 0].nonzero().flatten().tolist() == frames


def test_positions_may_have_a_height(tmp_path):
    made = read_tracks_csv(written(tmp_path, "t,id,x,y,z\n0,1,1,2,3\n1,1,4,5,6\n"))
    assert made.spec.dims == 3 and made.values[:, 0].tolist() == [[1, 2, 3], [4, 5, 6]]
    write_tracks_csv(made, tmp_path / "again.csv")
    assert torch.equal(read_tracks_csv(tmp_path / "again.csv").values, made.values)


def test_a_step_is_found_where_frames_are_missing():
    times = np.array([0.0, 0.5, 1.0, 4.0, 4.5, 100.0])
    assert frame_step(times) == 0.5


def test_what_is_written_is_read(tmp_path):
    first = read_tracks_csv(
        written(
            tmp_path,
            "recording,label_goal,"
            + LONG.replace("\n", "\nr1,3,").removesuffix("r1,3,")[:-1].replace("recording,label_goal,t", "t")
            + "\n",
        )
    )
    assert first.labels["goal"].tolist() == [[3, 3], [3, -1], [3, 3]]
    write_tracks_csv(first, tmp_path / "again.csv")
    again = read_tracks_csv(tmp_path / "again.csv")
    assert again.fingerprint() == first.fingerprint() or again.spec != first.spec
    assert torch.equal(again.values, first.values) and torch.equal(again.labels["goal"], first.labels["goal"])
    for table in (tracks_to_table(first), tracks_to_pandas(first), tracks_to_polars(first)):
        assert torch.equal(tracks_from_table(table).values, first.values)


def test_agents_of_several_recordings_share_slots_by_name_or_not_at_all(tmp_path):
    path = written(tmp_path, "scene,frame,id,x,y\na,0,4,0,0\na,1,4,0,0\na,1,9,1,1\nb,6,9,2,2\nb,7,9,2,2\n")
    named, free = (read_tracks_csv(path, dt=0.5, anonymous=anonymous) for anonymous in (False, True))
    assert named.spec.names == ("4", "9") and free.spec.names == ("agent_0", "agent_1")
    assert named[1].present.tolist() == [[False, True], [False, True]]
    assert free[1].present.tolist() == [[True, False], [True, False]]
    assert free[1].labels["id"].tolist() == [[9, -1], [9, -1]]
    assert [info["start"] for info in named.infos] == [0.0, 3.0]


@pytest.mark.parametrize(
    ("old", "new", "options", "said"),
    [
        ("0.1,ann,1.1", "0.1,ann,fast", {}, r"play.csv: row 3: `x` is fast, and a number is meant"),
        ("0.1,ann", "0.0,ann", {}, r"row 3 \(agent ann, time 0\): row 1 is of the same agent and time"),
        ("0.0,ann", "0.15,ann", {}, r"row 3 \(agent ann, time 0.1\): the agent's row before it, 1, is later, at 0.15"),
        ("0.2,bob", "0.237,bob", {"step": 0.1}, r"row 5 \(agent bob, time 0.237\): it lies 0.37 frames off a grid"),
        ("0.2,ann,1.2", "0.2,ann,31.2", {}, r"row 4 \(agent ann, time 0.2\): the agent moved 30.1 m since row 3"),
        ("0.2,ann,1.2", "0.2,ann,inf", {}, r"row 4 \(agent ann, time 0.2\): the position is infinite"),
        ("0.1,ann", ",ann", {}, r"row 3 \(agent ann, time nan\): there is no time"),
        ("0.1,ann,1.1,2.0,red", "0.1,ann,1.1,2.0,blue", {}, r"row 3 .*`team` is 'blue', and was 'red' before"),
        ("0.1,ann", "0.1,", {}, r"row 3: the cell of `agent` is empty"),
        ("0.2,ann", "1e300,ann", {}, r"row 4 \(agent ann, time 1e\+300\): .* the widest gap ends here"),
        ("0.2,ann", "1e15,ann", {}, r"row 4 \(agent ann, time 1e\+15\): .* the widest gap ends here"),
        ("team", "colour", {}, r"the column `colour` has no place"),
        ("x,", "y,", {}, r"the column `y` is there twice"),
        ("t,", "when,", {}, r"the column `when` has no place|no column of times"),
        ("bob,5", "bob,", {"columns": Columns(ignore=("y",))}, r"two or three are meant"),
        ("", "", {"unit": "metres"}, r"unit: got 'metres'"),
        ("", "", {"mend": ("sorted",)}, r"mend: got 'sorted'. Did you mean `sort`"),
        ("", "", {"columns": Columns(time="tt")}, r"there is no column `tt`"),
        ("t,", "frame,", {}, r"`frame` counts frames. Say `dt`"),
    ],
)
def test_a_slip_is_refused_by_file_row_agent_and_time(tmp_path, old, new, options, said):
    with pytest.raises(UnderstudyError, match=said) as refused:
        read_tracks_csv(written(tmp_path, LONG.replace(old, new, 1)), **options)
    assert "\n" not in str(refused.value)


def test_an_agent_who_never_appears_is_refused_or_left_out(tmp_path):
    path = written(tmp_path, "t,a_x,a_y,b_x,b_y\n0,1,1,,\n1,1,2,,\n")
    with pytest.raises(DemosError, match="agent b never appears"):
        read_tracks_csv(path)
    made = read_tracks_csv(path, mend=("absent",))
    assert made.spec.names == ("a",)
    assert str(made.omissions[-1]) == "1 of 2 agents (50.0%) left out: named, and never seen"


def test_recordings_of_other_frame_rates_are_refused(tmp_path):
    rows = "".join(f"{r},{k * dt},1,0,0\n" for r, dt in (("a", 0.1), ("b", 0.04)) for k in range(9))
    with pytest.raises(DemosError, match=r"recording b has frames 0.04 apart, the first 0.1"):
        read_tracks_csv(written(tmp_path, "match,t,agent,x,y\n" + rows))


def test_mending_says_what_it_cost(tmp_path):
    rows = [(0.0, 0.0), (0.2, 0.2), (0.1, 0.1), (0.1, 9.0), (0.3, 50.0), (0.4, 0.4)]
    path = written(tmp_path, "t,agent,x,y\n" + "".join(f"{t},1,{x},0\n" for t, x in rows))
    made = read_tracks_csv(path, mend=("sort", "twice", "teleports"), fastest=20.0)
    assert made.present[:, 0].tolist() == [True, True, True, False, True]
    torch.testing.assert_close(made.values[:, 0, 0], torch.tensor([0.0, 0.1, 0.2, 0.0, 0.4]))
    assert [(o.count, o.why.split()[0]) for o in made.omissions] == [(1, "a"), (1, "out")]
    assert made.omissions[1].why == "out of reach at 20 m a second"


def test_ragged_times_are_interpolated_between_near_sightings_only(tmp_path):
    times = {"a": [0.0, 0.9, 2.1, 3.0, 4.0, 9.0, 10.0], "b": [0.5, 1.5, 2.5, 3.5, 4.5, 5.5, 6.5, 7.5, 8.5]}
    rows = sorted((t, who) for who, all_times in times.items() for t in all_times)
    path = written(tmp_path, "t,agent,x,y\n" + "".join(f"{t},{who},{2 * t + 1},{-t}\n" for t, who in rows))
    with pytest.raises(DemosError, match=r'mend=\("ragged",\)'):
        read_tracks_csv(path)
    made = read_tracks_csv(path, mend=("ragged",), step=1.0)
    a, b = made.present.unbind(1)
    assert a.nonzero().flatten().tolist() == [0, 1, 2, 3, 4, 9, 10]
    assert b.nonzero().flatten().tolist() == [1, 2, 3, 4, 5, 6, 7, 8]
    t = torch.arange(11.0)
    torch.testing.assert_close(made.values[b, 1], torch.stack([2 * t + 1, -t], -1)[b])
    torch.testing.assert_close(made.values[a, 0], torch.stack([2 * t + 1, -t], -1)[a])


# --------------------------------------------------------------------------------------------------------- other files


def test_lines_of_json_and_question_marks_are_read(tmp_path):
    lines = ['{"scene": {"id": 0, "p": 1, "s": 0, "e": 20}}']
    lines += [json.dumps({"track": {"f": 10 * k, "p": 3, "x": float(k), "y": 0.0}}) for k in range(3)]
    made = read_sgan(written(tmp_path, "\n".join(lines), "a.ndjson"))
    assert made.values[:, 0, 0].tolist() == [0.0, 1.0, 2.0]
    asked = read_sgan(written(tmp_path, "0 1 0.0 0.0\n10 1 1.0 0.0\n20 1 ? ?\n", "b.txt"))
    assert asked.frames == 2 and asked.omissions[0].count == 1
    with pytest.raises(DemosError, match="row 2 has 3 numbers"):
        read_sgan(written(tmp_path, "0 1 0.0 0.0\n10 1 1.0\n", "c.txt"))


@pytest.mark.parametrize(
    ("piece", "said"),
    [
        ([[60, 60, 60, 60], [60, 60, 60, 60, 60]], r"piece 1 of train, frame 1: 5 voices, and there are 4"),
        ([[60, 60, 60, 60], [60, 60, 60, 60.5]], r"frame 1, bass: 60.5 is no pitch"),
        ([[60, 60, 200, 60]], r"frame 0, tenor: 200 is no pitch"),
        ([], r"piece 1 of train: it has no frame"),
        ("abc", r"piece 1 of train: it has no frame"),
    ],
)
def test_a_fifth_voice_is_refused_by_piece_and_frame(tmp_path, piece, said):
    path = written(tmp_path, json.dumps({"train": [[[60, 59, 58, 57]], piece]}), "voices.json")
    with pytest.raises(DemosError, match=said):
        read_chorales(path)


FRAME = {
    "possession": {"trackable_object": None, "group": "home team"},
    "frame": 7,
    "period": 1,
    "time": "00:00.7",
    "data": [
        {"trackable_object": 55, "x": 1.0, "y": 2.0, "z": 0.5, "track_id": 55},
        {"trackable_object": 1, "x": -3.0, "y": 4.0, "track_id": 1},
        {"trackable_object": 9, "x": 0.0, "y": 0.0, "track_id": 3},
        {"group_name": "away team", "x": 0.0, "y": 0.0, "track_id": 4},
    ],
}
PLAYER = {"player_role": {"acronym": "GK"}, "number": 1, "team_id": 100, "id": 1001, "trackable_object": 1}
MATCH = {
    "home_team": {"id": 100, "name": "Here"},
    "away_team": {"id": 103, "name": "There"},
    "players": [PLAYER, PLAYER | {"team_id": 103, "id": 1002, "trackable_object": 2}],
    "referees": [{"id": 77, "trackable_object": 9}],
    "ball": {"trackable_object": 55},
    "pitch_length": 105,
    "pitch_width": 68,
}


def test_the_originals_of_a_match_are_read(tmp_path):
    frames = [FRAME, FRAME | {"frame": 9, "data": FRAME["data"][:2]}, FRAME | {"frame": 1, "period": None}]
    match = written(tmp_path, json.dumps(MATCH), "match.json")
    made = read_skillcorner(written(tmp_path, json.dumps(frames), "data.json"), match)
    assert (made.spec.names, made.spec.teams, made.frames) == (("ball", "home_1"), ("ball", "home"), 3)
    assert made.labels["possession"].tolist() == [1, -1, 1]
    assert made.labels["height"][0] == 0.5 and math.isnan(made.labels["height"][1])
    why = {
        "before or after the halves": 4,
        "of referees": 1,
        "seen, and not made out who": 1,
        "named, and never seen": 1,
    }
    assert {o.why: o.count for o in made.omissions} == why
    new = {"frame": 7, "period": 1, "possession": {"group": None}, "ball_data": {"x": 1.0, "y": 2.0, "z": 0.5}}
    new["player_data"] = [{"x": -3.0, "y": 4.0, "player_id": 1001}]
    again = read_skillcorner(written(tmp_path, json.dumps(new) + "\n", "data.jsonl"), match)
    assert torch.equal(again.values[0], made.values[0])
    stranger = FRAME | {"data": [FRAME["data"][1] | {"trackable_object": 5}]}
    with pytest.raises(DemosError, match="frame 7: nobody of number 5"):
        read_skillcorner(written(tmp_path, json.dumps([stranger]), "odd.json"), match)


def moment(millis: int, *rows: list[float], clock: float = 700.0) -> list:
    return [1, millis, clock, None, None, [list(row) for row in rows]]


def game() -> dict:
    ball, ann, bob = [-1, -1, 1.0, 2.0, 5.0], [10, 3, 20.0, 30.0, 0.0], [11, 4, 40.0, 5.0, 0.0]
    people = [{"playerid": 3, "jersey": "7"}], [{"playerid": 4, "jersey": "0"}, {"playerid": 5, "jersey": "9"}]
    sides = {
        "home": {"abbreviation": "HOM", "players": people[0]},
        "visitor": {"abbreviation": "VIS", "players": people[1]},
    }
    first = [moment(1000 + 40 * k, ball, ann, bob, clock=700 - 0.04 * k) for k in range(4)]
    return {
        "gameid": "1",
        "events": [sides | {"moments": first}, sides | {"moments": [first[3], moment(1240, ball, bob)]}],
    }


def test_a_game_of_sportvu_is_read_with_each_moment_once(tmp_path):
    made = read_sportvu(written(tmp_path, json.dumps(game()), "game.json"))
    assert (made.spec.names, made.spec.teams) == (("ball", "HOM_7", "VIS_0"), ("ball", "home", "visitor"))
    assert made.spec.dt == pytest.approx(0.04) and made.spec.unit == "ft"
    assert made[0].present.tolist() == [[True] * 3] * 4 + [[False] * 3] * 2 + [[True, False, True]]
    assert made.labels["clock"][:4].tolist() == pytest.approx([700, 699.96, 699.92, 699.88])
    assert made.labels["shot_clock"].isnan().all() and made.labels["height"][0] == 5.0
    assert {o.why: (o.count, o.of) for o in made.omissions} == {
        "in several events": (1, 6),
        "named, and never seen": (1, 4),
    }
    strange = game()
    strange["events"][1]["moments"][1][5][1][1] = 99
    with pytest.raises(DemosError, match="event 1, moment 1: nobody of number 99"):
        read_sportvu(written(tmp_path, json.dumps(strange), "odd.json"))


def test_scenes_of_led_are_recordings(tmp_path):
    scenes = np.random.default_rng(0).uniform(0, 50, (4, 30, 11, 2))
    np.save(tmp_path / "nba_train.npy", scenes)
    made = read_led(tmp_path / "nba_train.npy")
    assert (len(made), made.spec.names[-1], made.spec.dt) == (4, "ball", 0.2)
    np.testing.assert_allclose(made[2].values.numpy(), scenes[2], rtol=1e-6)
    np.save(tmp_path / "flat.npy", scenes[0])
    with pytest.raises(DemosError, match=r"\[scene, time, agent, 2\] are meant"):
        read_led(tmp_path / "flat.npy")
    np.save(tmp_path / "objects.npy", np.array([{}], object))
    with pytest.raises(DemosError, match="cannot be read as an array of scenes"):
        read_led(tmp_path / "objects.npy")


def test_arrays_of_trackers_are_one_recording(tmp_path):
    values = np.arange(24.0).reshape(4, 3, 2)
    values[1, 2] = np.nan
    np.savez(tmp_path / "fish.npz", trajectories=values, other=np.zeros(2))
    made = read_trajectories(tmp_path / "fish.npz", 29.97, unit="cell", scale=2)
    assert (made.spec.dt, made.spec.unit) == (1 / 29.97, "cell")
    assert (~made.present).nonzero().tolist() == [[1, 2]]
    np.testing.assert_allclose(made.values[3].numpy(), values[3] / 2)
    with pytest.raises(DemosError, match="individual 1 never appears"):
        from_trajectories(np.where(np.arange(3).reshape(1, 3, 1) == 1, np.nan, values), 30)
    with pytest.raises(DemosError, match="both are above 0"):
        from_trajectories(values, 0)
    with pytest.raises(DemosError, match=r"\[time, individual, 2\] are meant"):
        from_trajectories(values[0], 30)


def test_kloppys_skillcorner_is_ours():
    kloppy = pytest.importorskip("kloppy")
    from kloppy import skillcorner

    from understudy.demos.formats.from_kloppy import read_kloppy

    folder = Path(kloppy.__file__).parent / "tests" / "files"
    match, tracking = folder / "skillcorner_meta_data.json", folder / "skillcorner_v3_raw_data.jsonl"
    ours = read_skillcorner(tracking, match)
    theirs = read_kloppy(skillcorner.load(meta_data=str(match), raw_data=str(tracking)))
    assert theirs.spec.dt == pytest.approx(0.1) and set(theirs.spec.names) == set(ours.spec.names)
    order = [ours.spec.names.index(name) for name in theirs.spec.names]
    assert len(theirs) == len(ours)
    for one, other in zip(theirs, ours, strict=True):
        assert torch.equal(one.present, other.present[:, order])
        torch.testing.assert_close(one.values, other.values[:, order], atol=1e-4, rtol=0)


def test_other_providers_of_kloppy_are_read():
    kloppy = pytest.importorskip("kloppy")
    from kloppy import metrica, tracab

    from understudy.demos.formats.from_kloppy import read_kloppy

    folder = Path(kloppy.__file__).parent / "tests" / "files"
    one = metrica.load_tracking_csv(home_data=folder / "metrica_home.csv", away_data=folder / "metrica_away.csv")
    made = read_kloppy(one)
    assert (len(made), made.frames, made.spec.dt) == (2, 6, 0.04)
    point = one.frames[0].ball_coordinates
    meant = torch.tensor([(point.x - 0.5) * 105, (0.5 - point.y) * 68])
    torch.testing.assert_close(made[0].values[0, 0], meant, atol=1e-3, rtol=0)
    assert made.spec.names[:2] == ("ball", "home_11") and made.spec.teams[-1] == "away"
    two = tracab.load(meta_data=folder / "tracab_meta.xml", raw_data=folder / "tracab_raw.dat", only_alive=False)
    assert read_kloppy(two).labels["alive"].tolist().count(1) > 0
    with pytest.raises(DemosError, match="a TrackingDataset of kloppy is meant"):
        read_kloppy([])


READERS = {
    "game.json": (json.dumps(game()), read_sportvu),
    "play.csv": (LONG, read_tracks_csv),
    "wide.csv": ("t,a_x,a_y,b_x,b_y\n0,1,1,3,3\n1,1,2,3,3\n2,1,2,3,4\n", read_tracks_csv),
    "walk.txt": ("".join(f"{10 * k} {p} {k}.5 {p}\n" for k in range(4) for p in (1, 2)), read_sgan),
    "walk.ndjson": ("".join(f'{{"track": {{"f": {k}, "p": 1, "x": 0.5, "y": {k}}}}}\n' for k in range(4)), read_sgan),
    "voices.json": (json.dumps({"train": [[[60, 59, 58, 57], [-1, 59, 58, 57]]]}), read_chorales),
}


@pytest.mark.parametrize("name", READERS)
def test_mutated_files_are_read_or_refused_in_our_own_words(tmp_path, name):
    text, read = READERS[name]
    chance, path = random.Random(1), tmp_path / name
    read(written(tmp_path, text, name))
    for _ in range(150):
        letters = list(text)
        for _ in range(chance.randint(1, 6)):
            at = chance.randrange(len(letters))
            what = chance.choice(
                ["-", "9", "e", ",", "\n", '"', "", "\x00", "é", "[", "{", "1e400", "nan", letters[at] * 2]
            )
            letters[at] = what
        path.write_text("".join(letters))
        with contextlib.suppress(UnderstudyError):
            made = read(path)
            assert made.frames and made.values.isfinite().all()


def test_mutated_arrays_are_read_or_refused(tmp_path):
    path, chance = tmp_path / "fish.npy", random.Random(2)
    np.save(path, np.arange(48.0).reshape(4, 3, 2, 2)[..., 0])
    whole = path.read_bytes()
    for _ in range(300):
        data = bytearray(whole)
        for _ in range(chance.randint(1, 4)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        path.write_bytes(data[: chance.randint(1, len(data))] if chance.random() < 0.2 else data)
        with contextlib.suppress(UnderstudyError):
            assert read_trajectories(path, 25).values.isfinite().all()


def test_mutated_matches_are_read_or_refused(tmp_path):
    match, tracking, chance = tmp_path / "match.json", tmp_path / "data.json", random.Random(3)
    texts = {match: json.dumps(MATCH), tracking: json.dumps([FRAME, FRAME | {"frame": 8}])}
    for turn in range(300):
        for path, text in texts.items():
            letters = list(text)
            for _ in range(chance.randint(0, 2)):
                at = chance.randrange(len(letters))
                letters[at] = chance.choice(["-", "9", "null", ",", '"', "", "[", "{", "1e400", "true"])
            path.write_text("".join(letters) if turn else text)
        with contextlib.suppress(UnderstudyError):
            assert read_skillcorner(tracking, match).frames
