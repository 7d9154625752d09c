"""MIDI files, read and written: a track (and channel) with notes is a voice.

Source: the Standard MIDI Files 1.0 specification of the MIDI Association; pitches 0 to 127, 60 is middle C.
"""

import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from understudy.core.errors import ConfigError, DemosError
from understudy.core.files import write_atomically
from understudy.demos.episode import About
from understudy.demos.formats.common import refusing
from understudy.demos.formats.voices import PITCHES, VOICES, Note, sampled, voiced
from understudy.demos.tracks import REST, Tracks, TrackSet, TrackSpec

TICKS = 480  # to a beat, in the files that are written
LOUD = 80
OFF, ON, META, SYSEX = 0x80, 0x90, 0xFF, (0xF0, 0xF7)
END, TEMPO, METRE, NAME = 0x2F, 0x51, 0x58, 0x03
SHORT = (0xC0, 0xD0)  # kinds of messages with one byte of data; the others have two


def read_midi(
    paths: Path | str | Sequence[Path | str],
    *,
    voices: Sequence[str] = VOICES,
    beat: int | float = 0.25,
    about: About | None = None,
) -> TrackSet:
    """The pieces in MIDI files, one each, at frames `beat` quarter notes apart.

    Voices are taken in the order of the file's tracks. Tempo, loudness and instruments are not kept.

    Args:
        voices: what they are called, from the first track on. Files may have fewer.

    Raises:
        DemosError: a fifth voice enters, or a voice has two notes at once; it names the file and the bar.
    """
    paths = [paths] if isinstance(paths, Path | str) else list(paths)
    pitches, lost = [], []
    for path in paths:
        with refusing(path, "a MIDI file") as where:
            found, short = sampled(list(_notes(Path(path).read_bytes(), where)), voices, float(beat), where)
            pitches.append(found)
            lost.append(short)
    names = [Path(path).stem for path in paths]
    return voiced(pitches, names, [{}] * len(names), voices, float(beat), ", ".join(names)[:80], about).noted(*lost)


def write_midi(tracks: Tracks, spec: TrackSpec, path: Path | str, *, tempo: int | float = 90) -> None:
    """Write a piece: a track for each voice. Equal symbols in a row become one note.

    Args:
        tempo: beats a minute.

    Raises:
        ConfigError: symbols are no pitches: `spec.alphabet` says which they are, "rest" and "0" to "127".
    """
    pitches = [_pitch(name) for name in spec.alphabet]
    if not spec.symbols or len(pitches) != spec.symbols:
        raise ConfigError("spec: its alphabet must name each symbol, by its MIDI pitch or as a rest.")
    if not 0 < tempo <= 1000:
        raise ConfigError(f"tempo: got {tempo}; beats a minute, from 1 to 1000, are meant.")
    chunks = [_chunk(_meta(TEMPO, round(60_000_000 / tempo).to_bytes(3, "big")))]
    for agent, name in enumerate(spec.names):
        symbols = np.where(tracks.present[:, agent].numpy(), tracks.values[:, agent].numpy(), -1)
        sounding = [None if symbol < 0 else pitches[symbol] for symbol in symbols.tolist()]
        chunks.append(_chunk(_meta(NAME, name.encode()) + _voice(sounding, agent % 16, spec.dt)))
    header = b"MThd" + struct.pack(">IHHH", 6, 1, len(chunks), TICKS)
    write_atomically(Path(path), header + b"".join(chunks))


# ---- writing


def _pitch(name: str) -> int | None:
    """The pitch that a symbol's name says; None for a rest."""
    if name == REST:
        return None
    if not name.isdecimal() or int(name) >= PITCHES:
        raise ConfigError(f"alphabet: the symbol {name!r} is no pitch from 0 to 127, nor {REST!r}.")
    return int(name)


def _voice(sounding: Sequence[int | None], channel: int, beat: float) -> bytes:
    """The events of a voice that sounds these pitches, frame by frame."""
    out, at = b"", 0
    before: int | None = None
    for frame, pitch in enumerate([*sounding, None]):
        if pitch == before:
            continue
        tick = round(frame * beat * TICKS)
        for kind, key in ((OFF, before), (ON, pitch)):
            if key is not None:
                out += _length(tick - at) + bytes([kind | channel, key, LOUD if kind == ON else 0])
                at = tick
        before = pitch
    return out


def _chunk(events: bytes) -> bytes:
    events += _meta(END, b"")
    return b"MTrk" + struct.pack(">I", len(events)) + events


def _meta(kind: int, data: bytes) -> bytes:
    return bytes([0, META, kind]) + _length(len(data)) + data


def _length(number: int) -> bytes:
    """A number in groups of seven bits, the highest first; all but the last group have the high bit set."""
    groups = [number & 0x7F]
    while number := number >> 7:
        groups.insert(0, number & 0x7F | 0x80)
    return bytes(groups)


# ---- reading


def _notes(data: bytes, where: str) -> Iterator[Note]:
    """All notes of a file."""
    if data[:4] != b"MThd" or len(data) < 14:
        raise DemosError(f"{where}: it does not begin as a MIDI file does.")
    size, _, _, ticks = struct.unpack(">IHHH", data[4:14])
    if not 0 < ticks < 0x8000:
        raise DemosError(f"{where}: its time is counted in frames of film ({ticks:#x}); ticks of a beat are meant.")
    chunks: list[bytes] = []
    at = 8 + size
    while at + 8 <= len(data):
        kind, size = data[at : at + 4], struct.unpack(">I", data[at + 4 : at + 8])[0]
        if at + 8 + size > len(data):
            raise DemosError(f"{where}: it ends in the middle of a track.")
        if kind == b"MTrk":
            chunks.append(data[at + 8 : at + 8 + size])
        at += 8 + size
    tracks = [list(_events(chunk, where)) for chunk in chunks]
    metres = sorted(
        (tick, args[0] * 4 / 2 ** args[1]) for track in tracks for tick, kind, args in track if kind == METRE
    )
    for number, track in enumerate(tracks):
        begun: dict[tuple[int, int], int] = {}  # (channel, pitch) -> tick
        heard = [
            (tick, kind == ON and args[2] > 0, (args[0], args[1])) for tick, kind, args in track if kind in (ON, OFF)
        ]
        for tick, starts, key in sorted(heard, key=lambda event: event[:2]):  # at one moment ends come first
            if key in begun:
                start, (channel, pitch) = begun.pop(key), key
                yield Note(number * 16 + channel, start / ticks, tick / ticks, pitch, _bar(start, ticks, metres))
            if starts:
                begun[key] = tick
        if begun:
            (_, pitch), tick = next(iter(begun.items()))
            raise DemosError(
                f"{where}, bar {_bar(tick, ticks, metres)}: the note {pitch} of track {number} never ends."
            )


def _bar(tick: int, ticks: int, metres: Sequence[tuple[int, float]]) -> int:
    """The bar of a moment, counted from 1, in the metres (beats a bar) that hold from their ticks on; 4/4 at first."""
    bar, since, beats = 1.0, 0, 4.0
    for start, new in metres:
        if start > tick:
            break
        bar, since, beats = bar + (start - since) / ticks / beats, start, new or 4.0
    return int(bar + (tick - since) / ticks / beats + 1e-9)


Event = tuple[int, int, tuple[int, ...]]


def _events(chunk: bytes, where: str) -> Iterator[Event]:
    """(tick, kind, numbers) of notes and metres; numbers of a note are its channel, pitch and loudness."""
    at, tick, status = 0, 0, 0

    def number() -> int:
        nonlocal at
        value = 0
        for _ in range(4):
            byte = chunk[at]
            at += 1
            value = value << 7 | byte & 0x7F
            if byte < 0x80:
                return value
        raise DemosError(f"{where}: a number of more than four bytes.")

    while at < len(chunk):
        tick += number()
        if chunk[at] >= 0x80:
            status = chunk[at]
            at += 1
        if status == META:
            kind = chunk[at]
            at += 1
            size = number()
            data = chunk[at : at + size]
            at += size
            if kind == METRE and len(data) >= 2:
                yield tick, METRE, (data[0], data[1])
        elif status in SYSEX:
            at += number()
        elif status < 0x80 or status > 0xEF:
            raise DemosError(f"{where}: {status:#x} is no event of a MIDI file.")
        else:
            kind, channel = status & 0xF0, status & 0x0F
            if kind in (ON, OFF):
                yield tick, kind, (channel, chunk[at], chunk[at + 1])
            at += 1 if kind in SHORT else 2
