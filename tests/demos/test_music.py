"""Music: MIDI files written and read, scores through music21."""

import random
from contextlib import suppress

import numpy as np
import pytest
import torch

from understudy.core.errors import ConfigError, DemosError, UnderstudyError
from understudy.demos.formats.chorales import read_chorales
from understudy.demos.formats.midi import read_midi, write_midi
from understudy.demos.formats.musicxml import read_scores
from understudy.demos.formats.voices import Note, sampled, voiced
from understudy.demos.tracks import Tracks, TrackSet, TrackSpec

SATB = [[72, 67, 60, 48], [72, 67, 60, -1], [74, 67, 59, 50], [74, 65, 59, 50], [-1, 65, 59, 43]]


def piece(rows: list[list[int]] = SATB) -> TrackSet:
    return voiced([np.array(rows)], ["one"], [{}], ("soprano", "alto", "tenor", "bass"), 0.25, "one")


def heard(tracks: TrackSet) -> list[list[int]]:
    """The pitches of the first recording, -1 for rests."""
    names = [-1 if name == "rest" else int(name) for name in tracks.spec.alphabet]
    return [[names[symbol] for symbol in frame] for frame in tracks[0].values.tolist()]


def test_symbols_are_rests_and_pitches_from_the_lowest_on():
    made = piece()
    assert made.spec.alphabet[:2] == ("rest", "43") and made.spec.symbols == 74 - 43 + 2
    assert heard(made) == SATB
    assert made.labels["beat"].tolist() == [0, 1, 2, 3, 4]


def test_what_is_written_as_midi_is_read_again(tmp_path):
    made = piece()
    write_midi(made[0], made.spec, tmp_path / "one.mid")
    again = read_midi(tmp_path / "one.mid")
    assert heard(again) == SATB
    assert (again.spec.alphabet, again.spec.dt, again.names) == (made.spec.alphabet, 0.25, ("one",))


def test_the_bytes_are_those_of_the_specification(tmp_path):
    spec = TrackSpec(agents=1, dims=0, symbols=2, dt=1.0, clock="beat", names=("v",), alphabet=("rest", "60"))
    write_midi(Tracks(torch.tensor([[1], [0]]), torch.ones(2, 1).bool()), spec, tmp_path / "one.mid", tempo=120)
    assert (tmp_path / "one.mid").read_bytes().hex(" ") == " ".join(
        [
            "4d 54 68 64 00 00 00 06 00 01 00 02 01 e0",  # MThd: 6 bytes, format 1, two tracks, 480 ticks a beat
            "4d 54 72 6b 00 00 00 0b 00 ff 51 03 07 a1 20 00 ff 2f 00",  # 500,000 microseconds a beat
            "4d 54 72 6b 00 00 00 12 00 ff 03 01 76 00 90 3c 50 83 60 80 3c 00 00 ff 2f 00",  # 480 is 83 60
        ]
    )


def test_every_chorale_comes_back_from_midi(data_folder, tmp_path):
    made = read_chorales(data_folder / "jsb_chorales" / "Jsb16thSeparated.json").select(range(12))
    for k in range(12):
        write_midi(made[k], made.spec, tmp_path / f"{k}.mid")
    again = read_midi([tmp_path / f"{k}.mid" for k in range(12)])
    shift = int(again.spec.alphabet[1]) - int(made.spec.alphabet[1])
    for ours, theirs in zip(again, made, strict=True):  # a rest at the end is not in the file
        meant = torch.where(theirs.values > 0, theirs.values - shift, 0)[: len(ours)]
        assert torch.equal(ours.values, meant) and not theirs.values[len(ours) :].any()


def test_what_is_no_music_is_not_written(tmp_path):
    spec = TrackSpec(agents=1, dims=0, symbols=2, alphabet=("rest", "C4"))
    with pytest.raises(ConfigError, match="the symbol 'C4' is no pitch"):
        write_midi(Tracks(torch.zeros(1, 1).long(), torch.ones(1, 1).bool()), spec, tmp_path / "x.mid")
    with pytest.raises(ConfigError, match="alphabet must name each symbol"):
        write_midi(Tracks(torch.zeros(1, 1, 2), torch.ones(1, 1).bool()), TrackSpec(agents=1), tmp_path / "x.mid")


def test_a_frame_hears_what_sounds_as_it_begins_and_what_none_hears_is_counted():
    notes = [Note(0, 0.0, 0.5, 60, 1), Note(0, 0.55, 0.7, 61, 1), Note(0, 0.7, 1.0, 62, 1), Note(1, 1 / 3, 1.0, 50, 1)]
    pitches, lost = sampled(notes, ("high", "low"), 0.25, "piece")
    assert pitches.tolist() == [[60, -1], [60, -1], [-1, 50], [62, 50]]
    assert (lost.count, lost.of) == (1, 4)


def test_a_fifth_voice_and_two_notes_at_once_are_refused_by_bar():
    many = [Note(v, 4.0 * v, 4.0 * v + 4, 60, v + 1) for v in range(5)]
    with pytest.raises(DemosError, match=r"piece, bar 5: voice 5 enters, and 4 are meant"):
        sampled(many, ("s", "a", "t", "b"), 0.25, "piece")
    with pytest.raises(DemosError, match=r"piece, bar 2: low has two notes at once, pitches 60 and 64"):
        sampled([Note(3, 0.0, 4.5, 60, 1), Note(3, 4.0, 6.0, 64, 2)], ("low",), 0.25, "piece")


def test_mutated_midi_files_are_read_or_refused(tmp_path):
    made, path, chance = piece(), tmp_path / "one.mid", random.Random(0)
    write_midi(made[0], made.spec, path)
    whole = path.read_bytes()
    for _ in range(600):
        data = bytearray(whole)
        for _ in range(chance.randint(1, 4)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        path.write_bytes(data[: chance.randint(1, len(data))] if chance.random() < 0.2 else data)
        with suppress(UnderstudyError):
            assert read_midi(path).frames


def test_bars_follow_the_metre(tmp_path):
    made = piece([[72, -1, 60, 48]] * 24 + [[72, 67, 60, 48]] * 36)
    write_midi(made[0], made.spec, tmp_path / "one.mid")
    data = (tmp_path / "one.mid").read_bytes()
    metre = b"\x00\xff\x58\x04\x03\x02\x18\x08"  # three quarters a bar
    size = int.from_bytes(data[18:22], "big") + len(metre)
    data = data[:18] + size.to_bytes(4, "big") + metre + data[22:]
    (tmp_path / "one.mid").write_bytes(data.replace(b"\x81\x43\x00", b"\x81\x44\x00"))  # the alto's note never ends
    with pytest.raises(DemosError, match=r"bar 3: the note 67 of track 2 never ends"):
        read_midi(tmp_path / "one.mid")


SCORE = """<?xml version="1.0" encoding="UTF-8"?>
<score-partwise version="3.1"><part-list>{parts}</part-list>{music}</score-partwise>"""
PART = """<part id="P{k}"><measure number="1"><attributes><divisions>4</divisions></attributes>
<note><pitch><step>{step}</step><octave>4</octave></pitch><duration>4</duration></note>
<note><rest/><duration>4</duration></note>
<note><pitch><step>D</step><octave>4</octave></pitch><duration>8</duration><tie type="start"/></note></measure>
<measure number="2"><note><pitch><step>D</step><octave>4</octave></pitch><duration>4</duration><tie type="stop"/></note>
{more}</measure></part>"""


def score(parts: int, more: str = "") -> str:
    listed = "".join(f'<score-part id="P{k}"><part-name>{k}</part-name></score-part>' for k in range(parts))
    return SCORE.format(parts=listed, music="".join(PART.format(k=k, step="CDEFG"[k], more=more) for k in range(parts)))


def test_scores_are_read_with_their_ties(tmp_path):
    pytest.importorskip("music21")
    path = tmp_path / "one.musicxml"
    path.write_text(score(2))
    made = read_scores(path, voices=("high", "low"), beat=0.5)
    assert heard(made) == [[60, 62]] * 2 + [[-1, -1]] * 2 + [[62, 62]] * 6
    path.write_text(score(5))
    with pytest.raises(DemosError, match=r"one.musicxml, bar 1: voice 5 enters"):
        read_scores(path)
    chord = "<note><pitch><step>A</step><octave>4</octave></pitch><duration>4</duration></note>"
    path.write_text(score(2, chord + chord.replace("<note>", "<note><chord/>").replace(">A<", ">C<")))
    with pytest.raises(DemosError, match=r"bar 2: voice 1 has two notes at once"):
        read_scores(path)
    with pytest.raises(DemosError, match="no such file"):
        read_scores(tmp_path / "none.xml")


def test_a_chorale_of_the_corpus_is_the_one_that_is_known():
    pytest.importorskip("music21")
    made = read_scores("bach/bwv66.6", corpus=True)
    assert (made.spec.agents, made.frames) == (4, 36 * 4)  # nine bars of four beats, in sixteenths
    assert heard(made)[0] == [73, 64, 57, 57]  # c sharp, e, a, a: its upbeat
