"""Recordings from and to other formats: one file a format, and here the door to all of them.

`read("play.csv")` gives demos, `write(demos, "play.parquet")` keeps them, `convert("play.npz", "play")` does both. A
name without suffix is a folder of this library's own.
"""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from understudy.core.errors import DemosError, nearest
from understudy.core.files import TEMPORARY, refusal
from understudy.demos.demos import Demos
from understudy.demos.formats.common import refuse_pickle


class Format(NamedTuple):
    """Where a format is read and written, and how its files end."""

    module: str
    reader: str
    writer: str
    suffixes: tuple[str, ...]


FORMATS = {
    "csv": Format("tables", "read_csv", "write_csv", (".csv",)),
    "parquet": Format("tables", "read_parquet", "write_parquet", (".parquet", ".pq")),
    "npz": Format("npz", "read_npz", "write_npz", (".npz",)),
    "minari": Format("minari", "read_minari", "write_minari", (".hdf5", ".h5")),
}
OWN = "understudy"  # the library's own folder


def read(path: Path | str, format: str | None = None, **options: Any) -> Demos:
    """The demos at `path`, whatever they are kept in.

    Args:
        format: csv, parquet, npz, minari or understudy; None: told by the suffix, or by what a folder holds.
        options: of that format's own reader, such as `spec` for tables and archives of another making.

    Raises:
        DemosError: nothing is there, or nothing that is known.
    """
    name = format or format_of(path)
    return Demos.load(path, **options) if name == OWN else _function(name, "reader")(path, **options)


def write(demos: Demos, path: Path | str, format: str | None = None) -> None:
    """Write `demos` to `path`. A name without suffix is a folder of this library's own unless `format` says otherwise.

    They are written beside it first: what stands there stays where that fails.

    Raises:
        DemosError: the suffix is unknown. RunError: it cannot be written, such as on a full disk.
    """
    path = Path(path)
    name = format or (format_of(path) if path.suffix else OWN)
    if name == OWN:
        demos.save(path)
        return
    writer = _function(name, "writer")
    try:
        if name == "minari":  # a folder, and never in the place of one
            writer(demos, path)
            return
        with TemporaryDirectory(prefix=f".{path.name[:100]}.", suffix=TEMPORARY, dir=path.parent) as beside:
            writer(demos, Path(beside) / path.name)
            for made in sorted(Path(beside).iterdir()):  # a table has a header beside it
                made.replace(path.parent / made.name)
    except OSError as error:
        raise refusal(path, error) from error


def convert(
    source: Path | str, target: Path | str, format: str | None = None, target_format: str | None = None, **options: Any
) -> Demos:
    """Read `source`, write it to `target`, and give the demos. `options` are the reader's."""
    demos = read(source, format, **options)
    write(demos, target, target_format)
    return demos


def format_of(path: Path | str) -> str:
    """The name of the format of `path`: by its suffix, or by what the folder holds.

    Raises:
        DemosError: unknown, a pickle, or one that `read_overcooked` reads.
    """
    path = Path(path)
    refuse_pickle(path)
    if (path / "trials.json").exists() or path.suffix == ".json":
        raise DemosError(
            f"{path}: recordings of cooking need an env's eyes: `recordings.people_cooking`, `read_overcooked`."
        )
    for marks, name in ((("index.json",), OWN), (("metadata.json", "data/metadata.json"), "minari")):
        if any((path / mark).exists() for mark in marks):
            return name
    if path.is_dir():
        raise DemosError(f"{path}: the folder holds neither demos (index.json) nor a Minari data set (metadata.json).")
    for name, known in FORMATS.items():
        if path.suffix.lower() in known.suffixes:
            return name
    suffixes = [suffix for known in FORMATS.values() for suffix in known.suffixes]
    if not path.suffix:
        raise DemosError(f"{path}: there is no such folder, and no suffix that tells a format: {', '.join(suffixes)}.")
    raise DemosError(f"{path}: unknown format {path.suffix!r}.{nearest(path.suffix, suffixes)}")


def _function(format: str, role: str) -> Callable[..., Any]:
    if format not in FORMATS:
        raise DemosError(f"unknown format {format!r}.{nearest(format, [*FORMATS, OWN])}")
    module = import_module(f"understudy.demos.formats.{FORMATS[format].module}")
    return getattr(module, getattr(FORMATS[format], role))
