"""Minari's data sets: a folder with `metadata.json` and `main_data.hdf5`, read and written through h5py alone.

A data set whose observation and action spaces are Dicts of the same keys, or Tuples of the same length, is of several
agents, one a key; any other is of one agent. Minari has one reward a step: of several agents every one is given it,
and written is their sum. What Minari has no place for goes into each episode's `infos/understudy`, and the header into
the entry `understudy` of the metadata; Minari passes over both.

Source: the layout of Minari 0.5 (minari.farama.org), checked in the tests against the package itself.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from understudy.core.errors import DemosError, missing_extra
from understudy.core.types import EnvSpec, action_shape
from understudy.demos.demos import Demos
from understudy.demos.episode import About, Episode
from understudy.demos.formats.common import MAX_BYTES, Header, from_arrays, noted, refusing, to_arrays, usual
from understudy.demos.formats.spaces import (
    Pair,
    flat,
    flat_action,
    from_json,
    join,
    own_moves,
    spaces_of,
    spec_of,
    to_json,
)

_DATA, _META, _VERSION = "main_data.hdf5", "metadata.json", "0.5.0"  # every Minari 0.5 reads data sets of it


def write_minari(demos: Demos, folder: Path | str, dataset_id: str | None = None) -> None:
    """Write a data set that Minari loads; `read_minari` gives the same bits back.

    To load it by name, let `folder` be `data` in a folder of the data set's name, in Minari's root.

    Args:
        dataset_id: such as "kitchen/human-v0"; made of `about.title` where None.

    Raises:
        DemosError: the folder holds a data set, an agent's or label's name has a slash, or what pads an agent's
            observations or actions is not zero and so would be lost.
        MissingExtra: h5py is not installed.
    """
    h5py, folder, spec = _h5py(), _folder(folder), demos.spec
    if (folder / _META).exists() or (folder / _DATA).exists():
        raise DemosError(f"{folder}: there is a data set already. Delete it, or choose another folder.")
    header = Header.of(demos)
    for name in (*spec.names, *header.dtypes):
        if "/" in name or name in (".", ".."):
            raise DemosError(f"the name {name!r} cannot be a name in HDF5. Rename it.")
    pairs = {n: spaces_of(spec, i, np.dtype(header.dtypes.get("obs", "float32"))) for i, n in enumerate(spec.names)}
    for i, episode in enumerate(demos):
        _expect_padding(spec, episode, i)
    folder.mkdir(parents=True, exist_ok=True)
    with h5py.File(folder / _DATA, "w", track_order=True) as file:
        for i, episode in enumerate(demos):
            _write_episode(file.create_group(f"episode_{i}"), i, spec, pairs, episode)
    title = re.sub(r"[^-\w]+", "-", demos.about.title or spec.title).strip("-") or "demos"
    seen, done = (_joint_space({name: pair[k] for name, pair in pairs.items()}) for k in (0, 1))
    meta = {
        "dataset_id": dataset_id or f"{title}-v0",
        "minari_version": _VERSION,
        "data_format": "hdf5",
        "jpeg_encoding": False,
        "total_episodes": len(demos),
        "total_steps": demos.steps,
        "observation_space": json.dumps(seen),
        "action_space": json.dumps(done),
        "author": [demos.about.author] if demos.about.author else [],
        "description": demos.about.notes,
        "understudy": header.to_text(),
    }
    (folder / _META).write_text(json.dumps(meta))


def read_minari(folder: Path | str, max_bytes: int = MAX_BYTES) -> Demos:
    """The demos in a Minari data set: its folder, the `data` folder inside, or the HDF5 file itself.

    Observations are flattened (`formats.spaces`), and real numbers become float32; what this library wrote keeps its
    widths. What is in `infos` is left out, and the notes say what it was.

    Raises:
        DemosError: no such data set, a damaged one, spaces without numbers, pictures kept as JPEG, links or files
            outside of it, or more than `max_bytes` of numbers.
        MissingExtra: h5py is not installed.
    """
    h5py, folder = _h5py(), _folder(folder)
    if not (folder / _META).exists() and (folder / "data" / _META).exists():
        folder = folder / "data"
    with refusing(folder, "a Minari data set") as where:
        meta = json.loads((folder / _META).read_text())
        if not isinstance(meta, dict) or meta.get("data_format", "hdf5") != "hdf5":
            raise DemosError(f"{where}: only the format hdf5 is read. Convert it with Minari.")
        header = Header.from_text(meta["understudy"], where) if "understudy" in meta else None
        pairs = _agents(meta, where)
        spec = header.spec if header else spec_of({name or "agent_0": pair for name, pair in pairs.items()})
        with h5py.File(folder / _DATA, "r") as file:
            names = [f"episode_{i}" for i in range(len(file))]
            if set(file) != set(names) or len(file) != meta["total_episodes"]:
                raise DemosError(
                    f"{where}: {meta['total_episodes']} episodes promised, there are {sorted(file)[:5]} ..."
                )
            store, episodes, left = _Store(where, max_bytes), [], set()
            for i, name in enumerate(names):
                group = store.group(file, name)
                left |= set(store.group(group, "infos")) if "infos" in group else set()
                entry = header.entry(i, where) if header else {"name": name, "weight": 1.0, "info": {}}
                try:
                    episodes.append(_read_episode(store, group, spec, pairs, header, entry))
                except DemosError as error:
                    raise DemosError(f"{where}: {name}: {error}") from None
        about = header.about if header else _about(meta)
        if not header and "understudy" in left:
            raise DemosError(f"{where}: this library wrote it, but its header is not in the metadata any more.")
        left -= {"understudy"}
        if left:
            about = noted(about, f"Left out: infos {', '.join(sorted(left))}.")
        demos = Demos.from_episodes(spec, episodes, about)
        if header:
            header.expect_unchanged(demos, where)
        return demos


def _folder(path: Path | str) -> Path:
    """The folder that is meant, where its HDF5 file may be given instead."""
    path = Path(path)
    if path.suffix.lower() not in (".hdf5", ".h5"):
        return path
    if path.name != _DATA:
        raise DemosError(
            f"{path}: a Minari data set is a folder with {_DATA} and {_META}; give the folder, or {_DATA}."
        )
    return path.parent


def _expect_padding(spec: EnvSpec, episode: Episode, number: int) -> None:
    """Refuse numbers beyond an agent's own width: Minari's spaces have no place for them."""
    for part, tensor, sizes in (("obs", episode.obs, spec.obs_sizes), ("actions", episode.actions, spec.action_sizes)):
        for i, name in enumerate(spec.names):
            if tensor.dim() == 3 and tensor[:, i, sizes[i] :].any():
                raise DemosError(f"episode {number}: {part} of {name} has numbers beyond its {sizes[i]}.")


def _write_episode(group: Any, number: int, spec: EnvSpec, pairs: dict[str, Pair], episode: Episode) -> None:
    arrays = to_arrays(episode)
    steps, many = len(arrays["actions"]), len(pairs) > 1
    ends = np.zeros((2, steps), bool)
    ends[:, -1] = episode.terminated, episode.truncated
    rewards = arrays.get("rewards", np.zeros((steps, spec.agents), np.float32))
    group.attrs.update({"id": number, "total_steps": steps})
    group["terminations"], group["truncations"] = ends
    group["rewards"] = rewards.sum(axis=1, dtype=np.float64)
    for part, sizes, name in (("obs", spec.obs_sizes, "observations"), ("actions", spec.action_sizes, "actions")):
        array = arrays.pop(part)
        for i, agent in enumerate(spec.names):
            group[f"{name}/{agent}" if many else name] = array[:, i] if array.ndim == 2 else array[:, i, : sizes[i]]
    for name, array in arrays.items():
        group[f"infos/understudy/{name}"] = array


def _read_episode(
    store: "_Store", group: Any, spec: EnvSpec, pairs: dict[Any, Pair], header: Header | None, entry: dict[str, Any]
) -> Episode:
    ends = {name: store.read(group, name) for name in ("terminations", "truncations", "rewards")}
    steps = len(ends["terminations"])
    if steps < 1 or any(array.shape != (steps,) for array in ends.values()):
        raise DemosError("rewards, terminations and truncations must have one entry for each step.")
    over = ends["terminations"].astype(bool) | ends["truncations"].astype(bool)
    if over[:-1].any():
        raise DemosError(f"it is over at step {over.argmax()}, but {steps} steps are there.")
    seen, done = store.read(group, "observations"), store.read(group, "actions")
    if None in pairs:  # a single agent, which has no key
        seen, done = {None: seen}, {None: done}
    arrays = {
        "obs": join([flat(of, seen[k], steps + 1, f"obs of {k}") for k, (of, _) in pairs.items()], (spec.obs,)),
        "actions": join(
            [flat_action(of, done[k], steps, f"actions of {k}") for k, (_, of) in pairs.items()],
            action_shape(spec.action),
        ),
    }
    if header is not None:
        kept = store.read(group, "infos/understudy") if "infos/understudy" in group else {}
        arrays = {name: (arrays | kept)[name].astype(dtype) for name, dtype in header.dtypes.items()}
    else:
        arrays["rewards"] = np.repeat(ends["rewards"][:, None], len(pairs), axis=1)
        moves = own_moves(spec)
        if moves is not None:
            arrays["legal"] = np.tile(moves, (steps + 1, 1, 1))
        arrays = {name: usual(name, array) for name, array in arrays.items()}
    return from_arrays(arrays, entry, bool(ends["terminations"][-1]), bool(ends["truncations"][-1]))


def _agents(meta: dict[str, Any], where: str) -> dict[Any, Pair]:
    """Spaces of each agent by its key in the file; the key None stands for a single one that has no key."""
    for name in ("observation_space", "action_space"):
        if not isinstance(meta.get(name), str):
            raise DemosError(f"{where}: the metadata tell no {name}. Let Minari write the data set again, with spaces.")
    seen, done = (json.loads(meta[name]) for name in ("observation_space", "action_space"))
    kind = seen["type"]
    keys: list[Any] = [None]
    if kind == done["type"] and kind in ("Dict", "Tuple"):
        parts, acts = seen["subspaces"], done["subspaces"]
        keys = list(parts) if kind == "Dict" else list(range(len(parts)))
        if len(parts) != len(acts) or (kind == "Dict" and set(parts) != set(acts)):
            raise DemosError(f"{where}: observations are of {keys}, and actions of {list(acts)}.")
        return {
            key if kind == "Dict" else f"_index_{key}": (from_json(parts[key], where), from_json(acts[key], where))
            for key in keys
        }
    space = from_json(seen, where), from_json(done, where)
    if (
        meta.get("jpeg_encoding", True)
        and getattr(space[0], "dtype", None) == np.uint8
        and len(space[0].shape or ()) == 3
    ):
        raise DemosError(
            f"{where}: pictures kept as JPEG are not read. Let Minari write them with jpeg_encoding=False."
        )
    return {None: space}


def _joint_space(parts: Mapping[str, Any]) -> dict[str, Any]:
    if len(parts) == 1:
        return to_json(next(iter(parts.values())))
    return {"type": "Dict", "subspaces": {name: to_json(space) for name, space in parts.items()}}


def _about(meta: dict[str, Any]) -> About:
    told = {"dataset": str(meta.get("dataset_id", "")), "env_spec": str(meta.get("env_spec", ""))}
    return About(
        title=told["dataset"],
        source=str(meta.get("code_permalink", "")),
        author=", ".join(sorted(map(str, meta.get("author", [])))),
        env=told,
        notes=str(meta.get("description", "")),
    )


class _Store:
    """Reads parts of an HDF5 file, and follows nothing that leads out of it."""

    def __init__(self, where: str, max_bytes: int):
        self.where, self.left = where, max_bytes

    def group(self, parent: Any, name: str) -> Any:
        """The group or data set at `name`, if it lies in this file."""
        if not isinstance(parent.get(name, getlink=True), _h5py().HardLink):
            raise DemosError(f"`{parent.name}/{name}` is a link to elsewhere, which is not followed.")
        return parent[name]

    def read(self, parent: Any, name: str) -> Any:
        """The array at `name`, or of a group a dict of them."""
        for step in name.split("/")[:-1]:
            parent = self.group(parent, step)
        here = self.group(parent, name.rsplit("/", 1)[-1])
        if not hasattr(here, "dtype"):
            return {key: self.read(here, key) for key in here}
        if here.is_virtual or here.external or here.dtype.kind not in "biuf":
            raise DemosError(f"`{here.name}` is kept outside of the file, or is not of numbers ({here.dtype}).")
        self.left -= here.size * here.dtype.itemsize
        if self.left < 0:
            raise DemosError("more numbers than `max_bytes` allows. If you trust the file, raise it.")
        return here[()]


def _h5py() -> Any:
    try:
        import h5py
    except ImportError:
        raise missing_extra("h5py", "minari", "a Minari data set") from None
    return h5py
