"""What the formats share: the header that goes beside the numbers, arrays of an episode, and the border of a reader."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from understudy.core.errors import DemosError, MissingExtra
from understudy.core.types import ActionSpec, Continuous, Discrete, EnvSpec, MultiDiscrete
from understudy.demos.demos import LABEL, MOMENTS, Demos
from understudy.demos.episode import About, Episode

MAX_BYTES = 16 * 2**30  # what a reader unpacks at most, unless told otherwise
STEPS = ("actions", "rewards")  # parts with one row a step; labels have too


@dataclass(frozen=True)
class Header:
    """All that is not a row of numbers: what the agents are, where the data is from, and what each episode is called.

    `episodes` has `name`, `weight` and `info` of each. `dtypes` of the tensors, and which labels are `joint` (one for
    all agents), are for files whose columns do not tell. `fingerprint` is of all that was written.
    """

    spec: EnvSpec
    about: About
    episodes: list[dict[str, Any]]
    dtypes: dict[str, str] = field(default_factory=dict)
    joint: list[str] = field(default_factory=list)
    fingerprint: str = ""

    @staticmethod
    def of(demos: Demos) -> "Header":
        entries = [{"name": e.name, "weight": float(e.weight), "info": dict(e.info)} for e in demos]
        first = to_arrays(demos[0]) if len(demos) else {}
        joint = [name for name, array in first.items() if name.startswith(LABEL) and array.ndim == 1]
        dtypes = {name: str(array.dtype) for name, array in first.items()}
        return Header(demos.spec, demos.about, entries, dtypes, joint, _fingerprint(demos))

    def to_text(self) -> str:
        data = {f.name: getattr(self, f.name) for f in fields(self)}
        data |= {"spec": self.spec.to_json(), "about": self.about.to_json()}
        return json.dumps({"understudy": 1, **data}, ensure_ascii=False)

    @staticmethod
    def from_text(text: str | bytes, where: str) -> "Header":
        data = json.loads(text)
        if not isinstance(data, dict) or data.get("understudy") != 1:
            raise DemosError(f"{where}: the header is not one of this library (version 1).")
        episodes, dtypes, joint = data["episodes"], data["dtypes"], data["joint"]
        if not (isinstance(episodes, list) and isinstance(dtypes, dict) and isinstance(joint, list)):
            raise DemosError(f"{where}: the header is damaged: episodes, dtypes and joint must be lists and a mapping.")
        spec, about = EnvSpec.from_json(data["spec"]), About.from_json(data["about"])
        return Header(spec, about, episodes, dtypes, joint, data["fingerprint"])

    def expect_unchanged(self, demos: Demos, where: str) -> None:
        """Refuse demos that are not those that were written: a file may have been damaged, or edited."""
        if self.fingerprint and self.fingerprint != _fingerprint(demos):
            raise DemosError(
                f"{where}: the numbers are not those that were written: their fingerprint is another. If you changed "
                'them on purpose, set "fingerprint" to "" in the header.'
            )

    def expect_episodes(self, count: int, where: str) -> None:
        if len(self.episodes) != count:
            raise DemosError(f"{where}: {count} episodes of numbers, but {len(self.episodes)} in the header.")

    def entry(self, index: int, where: str) -> dict[str, Any]:
        """`name`, `weight` and `info` of an episode, as arguments of `Episode`."""
        if not 0 <= index < len(self.episodes):
            raise DemosError(f"{where}: episode {index} is not among the {len(self.episodes)} of the header.")
        entry = self.episodes[index]
        name, weight, info = entry["name"], entry["weight"], entry["info"]
        if not isinstance(name, str) or not isinstance(weight, int | float) or not isinstance(info, dict):
            raise DemosError(f"{where}: the header's entry of episode {index} is damaged: {entry}.")
        return {"name": name, "weight": float(weight), "info": info}


def _fingerprint(demos: Demos) -> str:
    """SHA-256 of all that is recorded and what is told of it."""
    told = json.dumps(demos.about.to_json(), sort_keys=True)
    return hashlib.sha256(f"{demos.fingerprint()}{told}".encode()).hexdigest()


@contextmanager
def refusing(path: Path | str, kind: str) -> Iterator[str]:
    """Turn whatever a damaged or foreign file raises into a DemosError that names it. Gives the path as text.

    The border of every reader: bytes from outside may make any parser raise anything.
    """
    try:
        yield str(path)
    except (DemosError, MissingExtra):
        raise
    except FileNotFoundError as error:
        raise DemosError(f"{path}: there is no such file ({error.filename or path}).") from error
    except Exception as error:
        raise DemosError(f"{path}: cannot be read as {kind}: {type(error).__name__}: {error}") from error


def refuse_pickle(path: Path | str) -> None:
    """Refuse a pickle by its name: reading one runs whatever code it holds."""
    if Path(path).suffix in (".pickle", ".pkl", ".pt", ".pth", ".joblib"):
        raise DemosError(
            f"{path}: a pickle runs whatever code it holds when it is read, so it is not read here. Convert it, where "
            "you trust it, with the program that made it: to NumPy arrays, CSV, Parquet or JSON (docs/formats.md)."
        )


def to_arrays(episode: Episode) -> dict[str, np.ndarray]:
    """The tensors an episode has, by name; labels under `label:NAME`."""
    parts: dict[str, Tensor | None] = {name: getattr(episode, name) for name in MOMENTS + STEPS}
    parts |= {LABEL + name: value for name, value in episode.labels.items()}
    return {name: np.ascontiguousarray(value.cpu().numpy()) for name, value in parts.items() if value is not None}


def from_arrays(arrays: Mapping[str, np.ndarray], entry: dict[str, Any], terminated: bool, truncated: bool) -> Episode:
    """The episode that `to_arrays` took apart; `entry` has its name, weight and info."""
    tensors = {name: torch.from_numpy(np.array(value)) for name, value in arrays.items()}
    labels = {name.removeprefix(LABEL): value for name, value in tensors.items() if name.startswith(LABEL)}
    rest: dict[str, Any] = {name: value for name, value in tensors.items() if not name.startswith(LABEL)}
    return Episode(**rest, labels=labels, terminated=terminated, truncated=truncated, **entry)


def usual(name: str, array: np.ndarray) -> np.ndarray:
    """A part from elsewhere in the width that is usual here: float32, times float64, choices int64, pictures uint8."""
    kind = array.dtype.kind
    if kind not in "biuf":
        raise DemosError(f"{name} is of {array.dtype}, and numbers are meant.")
    if name == "times":
        return array.astype(np.float64)
    if name in ("legal", "present"):
        if ((array != 0) & (array != 1)).any():
            raise DemosError(f"{name} must be true or false, 1 or 0.")
        return array.astype(bool)
    if (name == "actions" and kind in "iu") or (name.startswith(LABEL) and kind in "biu"):
        return array.astype(bool if kind == "b" else np.int64)
    return array if name == "obs" and array.dtype == np.uint8 else array.astype(np.float32)


def infer_action(actions: np.ndarray) -> ActionSpec:
    """The action spec that recorded `actions` [step, agent, ...] fit: integers are choices, real numbers unbounded.

    A move that nobody made cannot be inferred: `choices` is one more than the greatest number seen.
    """
    if np.issubdtype(actions.dtype, np.integer):
        if actions.size and actions.min() < 0:
            raise DemosError(f"actions: an integer action is a choice from 0 on, got {actions.min()}.")
        if actions.ndim == 2:
            return Discrete(int(actions.max(initial=0)) + 1)
        return MultiDiscrete(tuple(int(c) + 1 for c in actions.max(axis=(0, 1), initial=0)))
    return Continuous(actions.shape[-1], -float("inf"), float("inf"))


def noted(about: About, line: str) -> About:
    """`about` with a line added to its notes."""
    return replace(about, notes=f"{about.notes}\n{line}".strip())
