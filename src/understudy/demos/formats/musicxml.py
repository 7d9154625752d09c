"""Scores through music21: MusicXML, Humdrum, ABC, and whatever else it parses. Each part is a voice.

The package carries a corpus of its own, of Bach's chorales and more: `read_scores(["bach/bwv66.6"], corpus=True)`.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from understudy.core.errors import DemosError, missing_extra
from understudy.demos.episode import About
from understudy.demos.formats.common import refusing
from understudy.demos.formats.voices import VOICES, Note, sampled, voiced
from understudy.demos.tracks import TrackSet

SUFFIXES = (".musicxml", ".xml", ".mxl", ".krn", ".abc", ".mei")


def read_scores(
    paths: Path | str | Sequence[Path | str],
    *,
    voices: Sequence[str] = VOICES,
    beat: int | float = 0.25,
    corpus: bool = False,
    about: About | None = None,
) -> TrackSet:
    """The pieces in scores, one each, at frames `beat` quarter notes apart.

    Voices are the parts from the top down; a part with several voices counts as so many.

    Args:
        corpus: `paths` are names in the corpus of music21.

    Raises:
        DemosError: a fifth voice enters, or a voice has two notes at once; it names the piece and the bar.
        MissingExtra: without the extra `scenes`.
    """
    try:
        import music21
    except ImportError:
        raise missing_extra("music21", "scenes", "reading scores") from None
    paths = [paths] if isinstance(paths, Path | str) else list(paths)
    pitches, lost = [], []
    for path in paths:
        with refusing(path, "a score") as where:
            if not corpus and Path(path).suffix.lower() not in SUFFIXES:
                raise DemosError(f"{path}: scores are read from {', '.join(SUFFIXES)}.")
            if not corpus and not Path(path).is_file():  # music21 would look for it in the net
                raise DemosError(f"{path}: there is no such file.")
            parse = music21.corpus.parse if corpus else music21.converter.parse
            score = parse(str(path), forceSource=True)  # and not what it keeps of it as a pickle
            found, short = sampled(list(_notes(score, where)), voices, float(beat), where)
            pitches.append(found)
            lost.append(short)
    names = [Path(path).stem for path in paths]
    return voiced(pitches, names, [{}] * len(names), voices, float(beat), ", ".join(names)[:80], about).noted(*lost)


def _notes(score: Any, where: str) -> Iterator[Note]:
    """All notes of a score, ties made one."""
    parts = list(getattr(score, "parts", [])) or [score]
    lines = [line for part in parts for line in _lines(part)]
    for voice, line in enumerate(lines):
        for each in line.flatten().notes:
            if each.duration.isGrace:
                continue
            start = float(each.getOffsetInHierarchy(line))
            bar = each.measureNumber or 0
            if each.isChord and len(each.pitches) > 1:
                heard = ", ".join(str(pitch.midi) for pitch in each.pitches)
                raise DemosError(f"{where}, bar {bar}: voice {voice + 1} has two notes at once, pitches {heard}.")
            pitch = each.pitches[0].midi
            yield Note(voice, start, start + float(each.quarterLength), int(pitch), int(bar))


def _lines(part: Any) -> list[Any]:
    """The voices of a part: itself, or those that it is written in."""
    tied = part.stripTies()
    return list(tied.voicesToParts().parts) if tied.hasVoices() else [tied]
