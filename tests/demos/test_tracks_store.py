"""Tracks on disk: the same again, whole or not at all, and nothing damaged is read."""

import json

import pytest
import torch

from tests.demos.test_tracks import SPEC, recording, tracks
from understudy.core.errors import DemosError
from understudy.demos import tracks_store
from understudy.demos.demos import Demos
from understudy.demos.episode import About
from understudy.demos.tracks import Omission, Tracks, TrackSet, TrackSpec


def test_what_is_saved_is_loaded(tmp_path):
    about = About(title="made up", notes="nothing true", units={"values": "m"})
    made = TrackSet.of(SPEC, [recording(0, 7), recording(1, 3)], about).noted(Omission(2, 9, "rows", "no position"))
    made.save(tmp_path / "set")
    again = TrackSet.load(tmp_path / "set")
    assert again.fingerprint() == made.fingerprint()
    assert (again.spec, again.about, again.omissions) == (made.spec, made.about, made.omissions)
    assert again.infos == made.infos and torch.equal(again[1].labels["when"], made[1].labels["when"])
    assert tracks_store.is_tracks(tmp_path / "set")


def test_symbols_and_an_empty_set_are_kept_too(tmp_path):
    spec = TrackSpec(agents=2, dims=0, symbols=3, alphabet=("rest", "60", "61"))
    voices = TrackSet.of(spec, [Tracks(torch.tensor([[1, 2], [0, 0]]), torch.ones(2, 2).bool())])
    for k, made in enumerate((voices, TrackSet.of(SPEC, []))):
        made.save(tmp_path / str(k))
        assert TrackSet.load(tmp_path / str(k)).fingerprint() == made.fingerprint()


def test_a_set_is_replaced_only_where_it_is_said(tmp_path):
    tracks(5).save(tmp_path)
    with pytest.raises(DemosError, match="replace=True"):
        tracks(6).save(tmp_path)
    tracks(6).save(tmp_path, replace=True)
    assert TrackSet.load(tmp_path).frames == 6
    assert sum(path.suffix == ".safetensors" for path in tmp_path.iterdir()) == 1


def test_any_byte_that_is_changed_is_seen(tmp_path):
    made = tracks(6, 4)
    made.save(tmp_path)
    for path in sorted(tmp_path.glob("[if]*")):
        whole = path.read_bytes()
        for at in range(0, len(whole), max(1, len(whole) // 60)):
            path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
            try:
                read = TrackSet.load(tmp_path)
            except DemosError:
                continue
            assert read.fingerprint() == made.fingerprint()  # white space of the index
        path.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(DemosError):
            TrackSet.load(tmp_path)
        path.write_bytes(whole)


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("recordings", {"frames": [6, 5], "name": ["", ""], "info": [{}, {}]}),
        ("recordings", {"frames": [-1, 11], "name": ["", ""], "info": [{}, {}]}),
        ("recordings", {"frames": [10], "name": [7], "info": [{}]}),
        ("file", "../elsewhere"),
        ("spec", {"agents": 10**9}),
        ("omissions", [{"count": "many"}]),
        ("schema", 2),
        ("kind", "demos"),
        ("about", []),
    ],
)
def test_a_forged_index_is_refused(tmp_path, part, value):
    tracks(6, 4).save(tmp_path)
    told = json.loads((tmp_path / "index.json").read_text())
    told[part] = value
    told.pop("seal")
    (tmp_path / "index.json").write_text(json.dumps(told | {"seal": tracks_store._seal(told)}))
    with pytest.raises(DemosError) as refused:
        TrackSet.load(tmp_path)
    assert len(str(refused.value)) < 1100


def test_tracks_and_demos_are_told_apart(tmp_path):
    with pytest.raises(DemosError, match="no tracks here"):
        TrackSet.load(tmp_path / "nowhere")
    tracks(3).save(tmp_path)
    with pytest.raises(DemosError):
        Demos.load(tmp_path)
    assert not tracks_store.is_tracks(tmp_path / "nowhere")
