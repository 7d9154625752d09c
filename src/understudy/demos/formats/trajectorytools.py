"""Animals in a dish: arrays [time, individual, 2] of trackers such as idtracker.ai, and what trajectorytools takes.

nan means that an individual was not seen. Positions are pixels unless a unit is said.
"""

from pathlib import Path

import numpy as np
import torch

from understudy.core.errors import DemosError
from understudy.demos.episode import About
from understudy.demos.formats.common import MAX_BYTES, refuse_pickle, refusing
from understudy.demos.formats.npz import load_arrays
from understudy.demos.tracks import Tracks, TrackSet, TrackSpec


def read_trajectories(
    path: Path | str,
    frame_rate: int | float,
    *,
    unit: str = "px",
    scale: int | float = 1,
    array: str = "",
    about: About | None = None,
    max_bytes: int = MAX_BYTES,
) -> TrackSet:
    """One recording from a .npy or .npz file.

    idtracker.ai's own `trajectories.npy` is a pickle, which is never loaded: let it write .csv, .h5 or .npz, or save
    `trajectories["trajectories"]` with NumPy.

    Args:
        frame_rate: frames a second.
        scale: what positions are divided by, such as the pixels of a body length; `unit` is of the result.
        array: which array of an archive; "": `trajectories`, or the only one.

    Raises:
        DemosError: it has other axes, or holds Python objects.
    """
    refuse_pickle(path)
    with refusing(path, "an array of positions") as where:
        if Path(path).suffix == ".npz":
            arrays = load_arrays(path, max_bytes)
            name = array or ("trajectories" if "trajectories" in arrays else next(iter(arrays), ""))
            if name not in arrays or (not array and len(arrays) > 1 and name != "trajectories"):
                raise DemosError(f"{where}: say which `array` of {', '.join(arrays) or 'none'}.")
            values = arrays[name]
        else:
            values = np.load(path, allow_pickle=False, mmap_mode="r")
        return from_trajectories(values, frame_rate, unit=unit, scale=scale, about=about, where=where)


def from_trajectories(
    values: np.ndarray,
    frame_rate: int | float,
    *,
    unit: str = "px",
    scale: int | float = 1,
    about: About | None = None,
    where: str = "trajectories",
) -> TrackSet:
    """One recording from an array [time, individual, 2 or 3]. Arguments and errors as `read_trajectories`."""
    if values.ndim != 3 or values.shape[-1] not in (2, 3) or values.dtype.kind not in "fiu" or 0 in values.shape:
        raise DemosError(f"{where}: {values.dtype} {list(values.shape)}; numbers of [time, individual, 2] are meant.")
    if not 0 < frame_rate < np.inf or not 0 < scale < np.inf:
        raise DemosError(f"frame_rate, scale: got {frame_rate} and {scale}; both are above 0.")
    with np.errstate(over="ignore"):  # what float32 cannot hold is refused below
        positions = np.array(values, np.float32) / np.float32(scale)
    if np.isinf(positions).any():
        t, agent = np.argwhere(np.isinf(positions).any(-1))[0]
        raise DemosError(f"{where}: individual {agent}, frame {t}: the position is infinite.")
    present = ~np.isnan(positions).any(-1)
    if (never := np.nonzero(~present.any(0))[0]).size:
        raise DemosError(f"{where}: individual {never[0]} never appears, nor do {never.size - 1} more. Leave it out.")
    spec = TrackSpec(positions.shape[1], positions.shape[2], dt=1 / frame_rate, unit=unit, title=Path(where).stem)
    track = Tracks(torch.from_numpy(np.nan_to_num(positions)), torch.from_numpy(present))
    return TrackSet.of(spec, [track], about)
