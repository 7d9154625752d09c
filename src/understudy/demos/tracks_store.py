"""A set of tracks as a folder: one file of numbers, and an index that says what is in it.

    index.json                   kind, schema, spec, about, omissions, recordings, the file and its checksum, its own
    frames-0123abcd.safetensors  a tensor for each column, a row for each frame; named by what is in it

The numbers are written first and the index last, each beside and then renamed: a folder is at every moment the old set
or the new one. Nothing in a file is ever run.
"""

import json
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as unpack
from safetensors.torch import save as pack

from understudy.core.config import say, to_dict
from understudy.core.errors import ConfigError, DemosError
from understudy.core.files import from_json, only_one, refusal, sha256, to_json, write_atomically
from understudy.demos.episode import About, expect_plain
from understudy.demos.tracks import Tracks, TrackSet, TrackSpec, omission_of, plain

KIND, SCHEMA = "understudy tracks", 1
INDEX = "index.json"
FILE = re.compile(r"frames-[0-9a-f]{16}\.safetensors")
LABEL = "label:"


def save(tracks: TrackSet, folder: Path, *, replace: bool = False) -> None:
    """See `TrackSet.save`."""
    if (folder / INDEX).exists() and not replace:
        raise DemosError(f"{folder}: a set is here already. Choose another folder, or say replace=True.")
    numbers = pack({name: column.cpu().contiguous() for name, column in tracks.columns().items()})
    digest = sha256(numbers)
    told = {
        "kind": KIND,
        "schema": SCHEMA,
        "spec": to_dict(tracks.spec.to_json()),
        "about": tracks.about.to_json(),
        "omissions": [plain(each) for each in tracks.omissions],
        "recordings": {
            "frames": tracks.lengths.tolist(),
            "name": list(tracks.names),
            "info": [dict(info) for info in tracks.infos],
        },
        "file": f"frames-{digest[:16]}.safetensors",
        "sha256": digest,
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with only_one(folder, "writing tracks"):
            write_atomically(folder / told["file"], numbers)
            write_atomically(folder / INDEX, to_json(told | {"seal": _seal(told)}, indent=1))
            for name in os.listdir(folder):
                if FILE.fullmatch(name) and name != told["file"]:
                    os.unlink(folder / name)
    except OSError as error:
        raise refusal(folder, error, len(numbers)) from error


def load(folder: Path) -> TrackSet:
    """See `TrackSet.load`."""
    path = folder / INDEX
    told = _index(path)
    try:
        spec, about = TrackSpec.from_json(told["spec"]), About.from_json(told["about"])
        omissions = tuple(omission_of(each) for each in told["omissions"])
        lengths, names, infos = (told["recordings"][part] for part in ("frames", "name", "info"))
        if not len(lengths) == len(names) == len(infos) or not all(type(t) is int and 0 < t < 2**40 for t in lengths):
            raise ValueError("recordings of other numbers of names and frames")
        if not all(isinstance(name, str) for name in names) or not FILE.fullmatch(told["file"]):
            raise ValueError("a name that is none")
        for info in infos:
            expect_plain(info)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, ConfigError) as error:
        raise DemosError(f"{path}: damaged, it does not read as an index of tracks ({error}).") from None
    columns = _columns(folder / told["file"], told["sha256"])
    if "values" not in columns or "present" not in columns or len(columns["values"]) != sum(lengths):
        raise DemosError(f"{folder / told['file']}: it has not the {sum(lengths):,} frames of the index.")
    labels = {name.removeprefix(LABEL): column for name, column in columns.items() if name.startswith(LABEL)}
    whole = [Tracks(columns["values"], columns["present"], labels)] if lengths else []
    made = TrackSet.of(spec, whole, about, omissions)  # looked through once more
    return TrackSet(
        spec,
        made.values,
        made.present,
        made.labels,
        torch.tensor(lengths, dtype=torch.long),
        tuple(names),
        tuple(infos),
        about,
        omissions,
    )


def is_tracks(folder: Path | str) -> bool:
    """A set of tracks lies in `folder`."""
    with suppress(OSError, ValueError):
        return bool(json.loads((Path(folder) / INDEX).read_bytes()).get("kind") == KIND)
    return False


def _index(path: Path) -> dict[str, Any]:
    try:
        told = from_json(path.read_bytes())
    except OSError as error:
        raise DemosError(
            f"{path.parent}: no tracks here; a set is a folder with an {INDEX} ({error.strerror})."
        ) from None
    except (ValueError, RecursionError) as error:
        raise DemosError(f"{path}: damaged, it is no JSON ({error}).") from None
    if not isinstance(told, dict) or told.get("kind") != KIND:
        raise DemosError(f"{path}: it is no index of tracks. `Demos.load` reads recordings with actions.")
    if told.get("schema") != SCHEMA:
        raise DemosError(f"{path}: schema {say(told.get('schema'))} came, and this version reads schema {SCHEMA}.")
    seal = told.pop("seal", None)
    if seal != _seal(told):
        raise DemosError(f"{path}: its checksum does not fit, so it was changed or damaged.")
    return told


def _columns(path: Path, digest: str) -> dict[str, torch.Tensor]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DemosError(f"{path}: the index names this file, and it cannot be read ({error.strerror}).") from None
    if sha256(data) != digest:
        raise DemosError(f"{path}: its checksum does not fit, so a part of it was changed or damaged.")
    try:
        return unpack(data)
    except (SafetensorError, ValueError, KeyError, RuntimeError) as error:
        raise DemosError(f"{path}: damaged, it does not read as tensors ({error}).") from None


def _seal(told: dict[str, Any]) -> str:
    """Checksum of all else that the index says."""
    return sha256(json.dumps(told, sort_keys=True, allow_nan=False).encode())
