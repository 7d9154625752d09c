"""Scenes from the command line: from tracks to steered samples, and what is refused."""

import pytest
import torch

from understudy.cli import main
from understudy.core.random import generator
from understudy.demos.tracks import TrackSet, TrackSpec
from understudy.demos.transforms import futures


@pytest.fixture
def tracks(tmp_path):
    step = 0.1 * torch.randn(6, 14, 2, 2, generator=generator(0))
    made = TrackSet.stacked(TrackSpec(2, names=("dog", "cat")), step.cumsum(1).cumsum(1))
    made.labelled(
        east=lambda each, spec: (each.values[..., 0] > 0).long(), half=lambda each, spec: torch.arange(len(each)) // 7
    ).save(tmp_path / "tracks")
    return tmp_path / "tracks"


def test_from_tracks_to_steered_samples(tracks, tmp_path, capsys):
    small = ["--net.trunk.hidden", "8", "--net.trunk.heads", "2", "--net.trunk.layers", "1", "--length", "10"]
    run = str(tmp_path / "run")
    words = ["scene", "train", str(tracks), run, "--goals", "east", "--given", "half", "--updates", "1", *small]
    assert main([*words, "--run.no-show"]) == 0
    assert main(["scene", "score", run, str(tracks)]) == 0
    assert "nats a frame" in capsys.readouterr().out
    how = ["--past", "3", "--frames", "5", "--samples", "2"]
    assert main(["scene", "sample", run, str(tracks), str(tmp_path / "more"), *how]) == 0
    assert "12 scenes of 8 frames" in capsys.readouterr().out
    goal = ["--goal", "east=1", "--agent", "cat", "--begin", "2"]
    assert main(["scene", "steer", run, str(tracks), str(tmp_path / "what-if"), *how, *goal]) == 0
    free, steered = (TrackSet.load(tmp_path / f"what-if-{way}") for way in ("free", "steered"))
    assert torch.equal(free.values, TrackSet.load(tmp_path / "more").values)
    assert len(free) == len(steered) == 12 and (steered[0].labels["east"][5:, 1] == 1).all()
    for before, after in zip(free, steered, strict=True):
        assert torch.equal(before.values[:5], after.values[:5])
    assert not torch.equal(free.values, steered.values)
    assert main(["scene", "sample", run, str(tracks), str(tmp_path / "more.csv"), *how]) == 0
    assert (tmp_path / "more.csv").is_file()


def test_gaps_are_filled_and_the_rest_stays(tracks, tmp_path, capsys):
    whole = TrackSet.load(tracks)
    present = torch.ones(6, 14, 2, dtype=torch.bool)
    present[:, 3:6, 1] = False
    gappy = TrackSet.stacked(whole.spec, whole.values.unflatten(0, (6, 14)), present)
    gappy.save(tmp_path / "gappy")
    small = ["--net.trunk.hidden", "8", "--net.trunk.heads", "2", "--net.trunk.layers", "1", "--length", "7"]
    run, out = str(tmp_path / "run"), tmp_path / "filled"
    words = ["scene", "train", str(tracks), run, "--masked", "--updates", "1", "--run.no-show", *small]
    assert main(words) == 0
    assert main(["scene", "impute", run, str(tmp_path / "gappy"), str(out)]) == 0
    assert "12 clips; 18 places filled in beside 150 recorded" in capsys.readouterr().out
    made = TrackSet.load(out)
    assert made.present.all()
    known = present.flatten(0, 1)
    torch.testing.assert_close(made.values[known], gappy.values[known])
    assert (made.values[~known] != 0).all()


def test_from_a_file_of_ones_own_to_a_film(tmp_path, capsys):
    rows = ["frame,agent,x,y"]
    for t in range(40):
        rows += [f"{t},ann,{t / 10},1"] + ([] if 10 < t < 15 else [f"{t},bob,{4 - t / 10},2"])
    (tmp_path / "walk.csv").write_text("\n".join(rows) + "\n")
    walks, run, more = (str(tmp_path / name) for name in ("walks", "run", "more"))
    how = ["--frame", "0.07", "--bounds", "0,0,6,3", "--max-gap", "4", "--dt", "0.1", "--unit", "m"]
    assert main(["scene", "read", str(tmp_path / "walk.csv"), walks, *how]) == 0
    assert "28 frames, 2 agents" in capsys.readouterr().out
    read = TrackSet.load(walks)
    assert read.present.all() and read.spec.dt == 0.1 and read.spec.high == (6.0, 3.0)
    torch.testing.assert_close(read[0].values[5, 1], torch.tensor([4 - 0.5 / 0.7, 2.0]))
    small = ["--net.trunk.hidden", "8", "--net.trunk.heads", "2", "--net.trunk.layers", "1", "--length", "10"]
    assert main(["scene", "train", walks, run, "--updates", "1", "--run.no-show", *small]) == 0
    assert main(["scene", "sample", run, walks, more, "--past", "5", "--frames", "6", "--samples", "3"]) == 0
    assert main(["scene", "show", more, str(tmp_path / "more.html"), "--past", "5"]) == 0
    page = (tmp_path / "more.html").read_text()
    assert "1.0 s" in page and "more.html" in capsys.readouterr().out
    past, ahead = futures(TrackSet.load(more), 0, 5, 20)
    assert [len(each) for each in (past, *ahead)] == [5, 6, 6, 6]
    assert main(["scene", "show", more, str(tmp_path / "two.png"), "--beside", walks]) == 0
    assert (tmp_path / "two.png").stat().st_size > 1_000
    for words, said in (
        (["--number", "3"], "more has 3 recordings"),
        (["--past", "11"], "past: got 11, and recording 0 has 11 frames"),
        (["--beside", more], "could not tell them apart"),
        (["--width", "1"], "width 16 or more"),
        (["--trail", "-4"], "trail are 0 or more"),
        (["--speed", "nan"], "speed above 0"),
    ):
        assert main(["scene", "show", more, str(tmp_path / "no.html"), *words]) == 2
        assert said in " ".join(capsys.readouterr().err.split())
    assert main(["scene", "read", walks, str(tmp_path / "x"), "--bounds", "0,0,-1,2"]) == 2
    assert "the lowest corner" in capsys.readouterr().err
    own = tmp_path / "walk.csv"
    before = own.read_bytes()
    assert main(["scene", "read", str(own), str(own), *how]) == 2
    assert "written over" in capsys.readouterr().err and own.read_bytes() == before
    assert main(["scene", "read", str(own), str(tmp_path / "x"), "--max-gap", "-1"]) == 2
    assert "max_gap: got -1" in capsys.readouterr().err
    assert main(["scene", "read", walks, str(tmp_path / "x"), "--frame", "0.1"]) == 2  # a folder has its own rate
    assert "dt" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["smaple"], "Did you mean `sample`"),
        (["steer", "run", "tracks", "out"], "say which goal"),
        (["steer", "run", "tracks", "out", "--goal", "east"], "name=value is meant"),
        (["score", "nowhere", "tracks"], "nowhere holds no scene"),
    ],
)
def test_what_cannot_be_done_is_refused_in_a_line(words, said, capsys):
    assert main(["scene", *words]) == 2
    assert said in " ".join(capsys.readouterr().err.split())


def test_help_lists_the_commands(capsys):
    assert main(["scene"]) == 0
    told = capsys.readouterr().out
    assert all(f"  {name} " in told for name in ("read", "train", "score", "sample", "steer", "impute", "show"))
