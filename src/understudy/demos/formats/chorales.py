"""Voices as JSON: `{"train": [piece, ...], ...}` or `[piece, ...]`, a piece a list of frames, a frame a pitch a voice.

Pitches are MIDI's, -1 is a rest. A rest is a symbol like any other, so every voice is always present. Symbol 0 is the
rest, and the others are the pitches from the lowest to the highest of the file: `spec.alphabet` says which.

Source: the form of github.com/czhuang/JSB-Chorales-dataset (`Jsb16thSeparated.json`: Bach's chorales by sixteenths).
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from understudy.core.errors import DemosError
from understudy.core.files import from_json
from understudy.demos.episode import About
from understudy.demos.formats.common import refusing
from understudy.demos.formats.voices import PITCHES, SILENT, VOICES, voiced
from understudy.demos.tracks import TrackSet


def read_chorales(
    path: Path | str, *, voices: Sequence[str] = VOICES, beat: float = 0.25, about: About | None = None
) -> TrackSet:
    """The pieces of a JSON file. A part of it (`train`, `test`) is a piece's `info["split"]`.

    Args:
        voices: what they are called, from the first column on.
        beat: beats from one frame to the next; 0.25 where frames are sixteenths and beats are quarters.

    Raises:
        DemosError: a piece has a fifth voice, a pitch is none ...; it names the piece, the frame and the voice.
    """
    with refusing(path, "voices in JSON") as where:
        told = from_json(Path(path).read_bytes())
        pieces = [(split, k, each) for split, group in _parts(told, where) for k, each in enumerate(group)]
        pitches = [
            _pitches(each, f"{where}: piece {k}{f' of {split}' if split else ''}", voices) for split, k, each in pieces
        ]
        if not pieces:
            raise DemosError(f"{where}: has no piece.")
        names = [f"{split} {k}".strip() for split, k, _ in pieces]
        infos = [{"split": split} if split else {} for split, _, _ in pieces]
        return voiced(pitches, names, infos, voices, beat, Path(path).stem, about)


def _parts(told: Any, where: str) -> Iterator[tuple[str, list[Any]]]:
    parts = told if isinstance(told, dict) else {"": told}
    for name, group in parts.items():
        if not isinstance(group, list):
            raise DemosError(f"{where}: {name or 'the file'} is no list of pieces.")
        yield name, group


def _pitches(piece: Any, where: str, voices: Sequence[str]) -> np.ndarray:
    """The pitches [frame, voice] of a piece."""
    if not isinstance(piece, list) or not piece:
        raise DemosError(f"{where}: it has no frame.")
    for t, frame in enumerate(piece):
        if not isinstance(frame, list) or len(frame) != len(voices):
            count = len(frame) if isinstance(frame, list) else 0
            raise DemosError(f"{where}, frame {t}: {count} voices, and there are {len(voices)}: {', '.join(voices)}.")
        for voice, pitch in zip(voices, frame, strict=True):
            whole = isinstance(pitch, int | float) and not isinstance(pitch, bool) and pitch == int(pitch)
            if not whole or not SILENT <= pitch < PITCHES:
                raise DemosError(
                    f"{where}, frame {t}, {voice}: {pitch!r} is no pitch from 0 to 127, nor -1 for a rest."
                )
    return np.array(piece, np.int64)
