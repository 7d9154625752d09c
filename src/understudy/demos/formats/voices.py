"""Music as tracks: voices are agents, and each gives one symbol a frame, a rest or a pitch.

What scores and MIDI files have are notes, with a beginning and an end; a frame takes the note that sounds as it begins.
Whether a note is held or struck again is lost thereby.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from understudy.core.errors import DemosError
from understudy.demos.episode import About
from understudy.demos.tracks import REST, Omission, Tracks, TrackSet, TrackSpec

VOICES = ("soprano", "alto", "tenor", "bass")
SILENT = -1
PITCHES = 128
BAR = 4  # beats
NEARLY = 1e-4  # of a frame: scores write thirds of a beat as decimals
MOST_FRAMES = 2**20  # of a piece: a day of sixteenths at 180 beats a minute


@dataclass(frozen=True)
class Note:
    """A pitch from one beat to another, counted from the start of the piece; `bar` is for messages."""

    voice: int
    start: float
    stop: float
    pitch: int
    bar: int


def sampled(notes: Sequence[Note], voices: Sequence[str], beat: float, where: str) -> tuple[np.ndarray, Omission]:
    """(pitches [frame, voice], the notes that no frame hears, being too short).

    Raises:
        DemosError: a voice has two notes at once, there is a fifth voice, or no note; it names the bar.
    """
    if not notes:
        raise DemosError(f"{where}: has no note.")
    known = sorted({note.voice for note in notes})
    if len(known) > len(voices):
        extra = min((note for note in notes if note.voice == known[len(voices)]), key=lambda note: note.start)
        raise DemosError(
            f"{where}, bar {extra.bar}: voice {len(voices) + 1} enters, and {len(voices)} are meant: "
            f"{', '.join(voices)}. Say all `voices`, or leave the piece out."
        )
    frames = int(np.ceil(max(note.stop for note in notes) / beat - NEARLY))
    if frames > MOST_FRAMES:
        raise DemosError(f"{where}: {frames:,} frames of {beat:g} beats; {MOST_FRAMES:,} is the most.")
    pitches = np.full((max(1, frames), len(voices)), SILENT, np.int64)
    lost = 0
    last: dict[int, Note] = {}
    for note in sorted(notes, key=lambda note: (note.voice, note.start)):
        before = last.get(note.voice)
        if before is not None and note.start < before.stop - NEARLY * beat:
            raise DemosError(
                f"{where}, bar {note.bar}: {voices[known.index(note.voice)]} has two notes at once, pitches "
                f"{before.pitch} and {note.pitch}; a voice gives one symbol."
            )
        last[note.voice] = note
        first, stop = (int(np.ceil(moment / beat - NEARLY)) for moment in (note.start, note.stop))
        pitches[first:stop, known.index(note.voice)] = note.pitch
        lost += first >= stop
    return pitches, Omission(lost, len(notes), "notes", f"none of the frames {beat:g} beats apart begins within them")


def voiced(
    pitches: Sequence[np.ndarray],
    names: Sequence[str],
    infos: Sequence[dict[str, Any]],
    voices: Sequence[str],
    beat: float,
    title: str,
    about: About | None = None,
) -> TrackSet:
    """The set of pieces given as MIDI pitches [frame, voice], -1 where a voice is silent.

    The label `beat` [time] counts frames from 0 in every BAR beats from the start: where a piece begins with an
    upbeat, its bars begin elsewhere.
    """
    sounding = np.concatenate([each[each != SILENT] for each in pitches])
    low, high = (int(sounding.min()), int(sounding.max())) if len(sounding) else (60, 60)
    spec = TrackSpec(
        agents=len(voices),
        dims=0,
        symbols=high - low + 2,
        dt=beat,
        clock="beat",
        unit="",
        names=tuple(voices),
        roles=tuple(voices),
        alphabet=(REST, *map(str, range(low, high + 1))),
        title=title,
    )
    tracks = []
    for name, info, each in zip(names, infos, pitches, strict=True):
        symbols = torch.from_numpy(np.where(each == SILENT, 0, each - low + 1).astype(np.int64))
        labels = {"beat": torch.arange(len(symbols)) % max(1, round(BAR / beat))}
        tracks.append(Tracks(symbols, torch.ones_like(symbols, dtype=torch.bool), labels, name, info))
    return TrackSet.of(spec, tracks, about)
