"""The door to all formats of tracks: `read_tracks("walk.csv")`, `write_tracks(tracks, "walk.csv")`.

What a file's ending does not tell is said as `format`. A name without ending is a folder of this library's own.
"""

from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from understudy.core.errors import ConfigError, DemosError, nearest
from understudy.core.files import refusal
from understudy.demos.formats.common import refuse_pickle
from understudy.demos.tracks import TrackSet
from understudy.demos.tracks_store import is_tracks


class Reader(NamedTuple):
    """Where a format is read, and the endings that tell it."""

    module: str
    function: str
    suffixes: tuple[str, ...] = ()


READERS = {
    "csv": Reader("tracks_csv", "read_tracks_csv", (".csv", ".tsv")),
    "sgan": Reader("sgan", "read_sgan", (".txt", ".ndjson")),
    "midi": Reader("midi", "read_midi", (".mid", ".midi")),
    "scores": Reader("musicxml", "read_scores", (".musicxml", ".xml", ".mxl", ".krn", ".abc", ".mei")),
    "chorales": Reader("chorales", "read_chorales"),
    "sportvu": Reader("sportvu", "read_sportvu"),
    "led": Reader("sportvu", "read_led"),
    "skillcorner": Reader("skillcorner", "read_skillcorner"),  # wants `match` as well
    "trajectories": Reader("trajectorytools", "read_trajectories"),  # wants `frame_rate` as well
}
OWN = "understudy"


def read_tracks(path: Path | str, format: str = "", **options: Any) -> TrackSet:
    """The tracks at `path`.

    Args:
        format: a key of READERS, or "understudy"; "": told by the ending, or by what a folder holds.
        options: of that format's own reader, such as `dt` and `unit`.

    Raises:
        DemosError: nothing is there, nothing that is known, or it is damaged.
        ConfigError: an option that the reader does not have.
    """
    refuse_pickle(path)
    name = format or _format_of(Path(path))
    if name not in (*READERS, OWN):
        raise DemosError(f"unknown format {name!r}.{nearest(name, [*READERS, OWN])}")
    read: Any = TrackSet.load
    if name != OWN:
        reader = READERS[name]
        read = getattr(import_module(f"understudy.demos.formats.{reader.module}"), reader.function)
    try:
        return read(path, **options)
    except TypeError as error:  # a wrong or a missing option; whatever else is raised within is a DemosError
        raise ConfigError(f"{path}: {read.__name__} was asked in a way that it does not know: {error}.") from None


def write_tracks(tracks: TrackSet, path: Path | str) -> None:
    """Write `tracks` to a folder, to a .csv table, or, where it is one piece of music, to a .mid file.

    Raises:
        DemosError: another ending, or more than one piece. RunError: it cannot be written.
    """
    path = Path(path)
    try:
        if not path.suffix:
            tracks.save(path)
        elif path.suffix == ".csv":
            from understudy.demos.formats.tracks_csv import write_tracks_csv

            write_tracks_csv(tracks, path)
        elif path.suffix in (".mid", ".midi"):
            if len(tracks) != 1:
                raise DemosError(f"{path}: a MIDI file holds one piece, and there are {len(tracks)}: select one.")
            from understudy.demos.formats.midi import write_midi

            write_midi(tracks[0], tracks.spec, path)
        else:
            raise DemosError(f"{path}: tracks are written to a folder, .csv or .mid.")
    except OSError as error:
        raise refusal(path, error) from error


def _format_of(path: Path) -> str:
    if is_tracks(path) or not path.suffix:
        return OWN
    for name, reader in READERS.items():
        if path.suffix.lower() in reader.suffixes:
            return name
    told = ", ".join(name for name, reader in READERS.items() if not reader.suffixes)
    raise DemosError(f"{path}: its ending does not tell the format. Say it: {told}, or another.")
