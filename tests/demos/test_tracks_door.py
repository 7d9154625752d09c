"""The one door to all formats of tracks."""

import pytest

from tests.demos.test_music import piece
from tests.demos.test_tracks import tracks
from understudy.core.errors import ConfigError, DemosError
from understudy.demos.formats.tracks import read_tracks, write_tracks


def test_what_goes_out_by_the_door_comes_in_by_it(tmp_path):
    walks, music = tracks(6, 5), piece()
    for made, name in ((walks, "folder"), (walks, "walks.csv"), (music, "one.mid"), (music, "music")):
        write_tracks(made, tmp_path / name)
        again = read_tracks(tmp_path / name)
        assert again.values[again.present].tolist() == made.values[made.present].tolist(), name


def test_what_the_door_does_not_know_is_said(tmp_path):
    with pytest.raises(DemosError, match="its ending does not tell the format"):
        read_tracks(tmp_path / "game.json")
    with pytest.raises(DemosError, match="Did you mean `sportvu`"):
        read_tracks(tmp_path / "game.json", "sportvue")
    with pytest.raises(DemosError, match="a pickle runs"):
        read_tracks(tmp_path / "walk.pkl")
    with pytest.raises(DemosError, match="no tracks here"):
        read_tracks(tmp_path / "nothing")
    write_tracks(tracks(3), tmp_path / "walk.csv")
    with pytest.raises(ConfigError, match="'rate'"):
        read_tracks(tmp_path / "walk.csv", rate=3)
    with pytest.raises(DemosError, match="one piece, and there are 2"):
        write_tracks(tracks(3, 3), tmp_path / "two.mid")
    with pytest.raises(DemosError, match=r"to a folder, \.csv or \.mid"):
        write_tracks(tracks(3), tmp_path / "walk.doc")
