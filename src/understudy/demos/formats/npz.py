"""NumPy archives: every part of every episode end to end, with `lengths` saying where one stops and the next begins.

| name | axes | |
|---|---|---|
| `lengths` | episode | steps T of each episode |
| `obs`, `legal`, `present`, `whole`, `times` | moment, ... | T + 1 rows an episode |
| `actions`, `rewards`, `label:NAME` | step, ... | T rows an episode |
| `terminated`, `truncated` | episode | |
| `header` | | JSON: spec, about, and each episode's name, weight and info |

An archive of another making needs `lengths`, `obs` and `actions`; the rest may be absent, and real numbers become
float32, times float64.
"""

import zipfile
from pathlib import Path

import numpy as np
from numpy.lib import format as npy

from understudy.core.errors import DemosError
from understudy.core.types import EnvSpec
from understudy.demos.demos import LABEL, MOMENTS, Demos
from understudy.demos.episode import About
from understudy.demos.formats.common import (
    MAX_BYTES,
    STEPS,
    Header,
    from_arrays,
    infer_action,
    refusing,
    to_arrays,
    usual,
)

_TABLE = ("lengths", "terminated", "truncated", "header")


def load_arrays(path: Path | str, max_bytes: int = MAX_BYTES) -> dict[str, np.ndarray]:
    """Every array of an archive, unpacked; nothing in it is ever unpickled.

    Sizes are added up from the archive's directory before a byte is unpacked, and each array must be exactly as long
    as its own header says, so that a small file cannot claim much memory.

    Raises:
        DemosError: the file is no archive, is damaged, holds Python objects, or is more than `max_bytes` unpacked.
    """
    with refusing(path, "a NumPy archive") as where, zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        total = sum(member.file_size for member in members)
        if total > max_bytes:
            raise DemosError(
                f"{where}: {total:,} bytes unpacked, more than the limit of {max_bytes:,}. "
                "If you trust the file, raise `max_bytes`."
            )
        arrays: dict[str, np.ndarray] = {}
        for member in members:
            name = member.filename.removesuffix(".npy")
            if name in arrays:
                raise DemosError(f"{where}: {name} is in the archive twice.")
            with archive.open(member) as file:
                version = npy.read_magic(file)
                read_header = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}.get(version)
                if read_header is None:
                    raise DemosError(f"{where}: {name} is of the array version {version}; 1.0 and 2.0 are read.")
                shape, fortran, dtype = read_header(file)
                if dtype.hasobject:
                    raise DemosError(f"{where}: {name} holds Python objects, which are never loaded.")
                size = int(np.prod([*shape, dtype.itemsize], dtype=object))
                if min(shape, default=0) < 0 or file.tell() + size != member.file_size:
                    raise DemosError(f"{where}: {name} claims the shape {shape} but has {member.file_size} bytes.")
                flat = np.frombuffer(bytearray(file.read()), dtype) if size else np.empty(0, dtype)
                arrays[name] = flat.reshape(shape, order="F" if fortran else "C")
    return arrays


def write_npz(demos: Demos, path: Path | str) -> None:
    """Write all of `demos` into one compressed archive; `read_npz` gives the same bits back."""
    every = [to_arrays(episode) for episode in demos]
    joined = {name: np.concatenate([arrays[name] for arrays in every]) for name in (every[0] if every else ())}
    table = {
        "lengths": np.array([len(arrays["actions"]) for arrays in every], np.int64),
        "terminated": np.array([e.terminated for e in demos], bool),
        "truncated": np.array([e.truncated for e in demos], bool),
        "header": np.array(Header.of(demos).to_text()),
    }
    with open(path, "wb") as file:  # an open file: given a path, NumPy adds a suffix of its own
        np.savez_compressed(file, **joined, **table)  # type: ignore[arg-type]


def read_npz(
    path: Path | str, spec: EnvSpec | None = None, about: About | None = None, max_bytes: int = MAX_BYTES
) -> Demos:
    """The demos in an archive written by `write_npz`, or by anyone else after the table above.

    Args:
        spec: of an archive without header; inferred from the arrays where None. A move that nobody made cannot be
            inferred. An archive's own header wins.
        about: likewise.

    Raises:
        DemosError: an array is missing, unknown or of the wrong length; or as `load_arrays`.
    """
    arrays = load_arrays(path, max_bytes)
    with refusing(path, "demos in a NumPy archive") as where:
        for name in ("lengths", "obs", "actions"):
            if name not in arrays:
                raise DemosError(f"{where}: has no array `{name}`; it has {', '.join(sorted(arrays)) or 'none'}.")
        for name in arrays:
            if name not in MOMENTS + STEPS + _TABLE and not name.startswith(LABEL):
                raise DemosError(
                    f"{where}: the array `{name}` has no place in demos. Call it `{LABEL}{name}` to keep it."
                )
        lengths = arrays.pop("lengths")
        if lengths.ndim != 1 or lengths.dtype.kind not in "iu" or lengths.min(initial=1) < 1:
            raise DemosError(f"{where}: `lengths` must be whole numbers of 1 or more, one an episode.")
        lengths = lengths.astype(np.int64)
        if lengths.max(initial=1) > len(arrays["actions"]):
            raise DemosError(f"{where}: an episode of {lengths.max():,} steps, but {len(arrays['actions']):,} actions.")
        text = arrays.pop("header", None)
        terminated = arrays.pop("terminated", np.zeros(len(lengths), bool))
        flags = {"terminated": terminated, "truncated": arrays.pop("truncated", ~terminated.astype(bool))}
        for name, flag in flags.items():
            if flag.shape != lengths.shape or flag.dtype != bool:
                raise DemosError(f"{where}: `{name}` must be true or false for each of {len(lengths)} episodes.")
        if text is None:
            entries = [{"name": "", "weight": 1.0, "info": {}} for _ in lengths]
            arrays = {name: usual(name, array) for name, array in arrays.items()}
            header = Header(spec or _infer_spec(arrays, where), about or About(), entries)
        else:
            header = Header.from_text(str(text), where)
        header.expect_episodes(len(lengths), where)
        cuts = {name: np.cumsum(lengths + (name in MOMENTS))[:-1] for name in arrays}
        for name, array in arrays.items():
            rows = int(lengths.sum()) + len(lengths) * (name in MOMENTS)
            if array.ndim < 1 or len(array) != rows:
                raise DemosError(f"{where}: `{name}` has the shape {array.shape}, but `lengths` ask for {rows} rows.")
        split = {name: np.split(array, cuts[name]) if len(lengths) else [] for name, array in arrays.items()}
        episodes = [
            from_arrays({n: split[n][i] for n in split}, header.entry(i, where), *(bool(f[i]) for f in flags.values()))
            for i in range(len(lengths))
        ]
        demos = Demos.from_episodes(header.spec, episodes, header.about)
        header.expect_unchanged(demos, where)
        return demos


def _infer_spec(arrays: dict[str, np.ndarray], where: str) -> EnvSpec:
    obs, actions = arrays["obs"], arrays["actions"]
    if obs.ndim != 3 or actions.ndim not in (2, 3):
        raise DemosError(
            f"{where}: `obs` must have the axes [moment, agent, obs] and `actions` [step, agent] or "
            f"[step, agent, part], got {obs.shape} and {actions.shape}."
        )
    return EnvSpec(agents=obs.shape[1], obs=obs.shape[2], action=infer_action(actions))
