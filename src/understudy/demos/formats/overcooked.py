"""People cooking together: recordings of the game Overcooked-AI, as arrays or as the game's own JSON.

Two sources give the same `Trial`:

- a folder with the arrays of the 2019 study (`overcooked_hh_2019.npz`, `trials.json`), converted without unpickling
  from the pickled tables in which it was published;
- JSON trajectories that Overcooked-AI saves (`ep_states`, in old ones `ep_observations`; `ep_actions`, `ep_rewards`,
  `mdp_params`).

A recording shows T moments and what both did at each, so what the last joint action led to is not in it. Either
`featurise` plays it on, or the last action is left out: see `read_overcooked`.

Source: Carroll et al. 2019, arXiv:1910.05789; the codes of fields as in the game's own state (x to the right, y down).
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from understudy.core.errors import DemosError, nearest
from understudy.core.types import EnvSpec
from understudy.demos.demos import Demos
from understudy.demos.episode import About, Episode
from understudy.demos.formats.common import MAX_BYTES, refuse_pickle, refusing
from understudy.demos.formats.npz import load_arrays

FACINGS = {(0, -1): 0, (0, 1): 1, (1, 0): 2, (-1, 0): 3}  # north, south, east, west
THINGS = {"onion": 1, "dish": 2, "soup": 3, "tomato": 4}  # 0: empty hands
STAY, INTERACT = 4, 5  # as actions; 0 to 3 walk north, south, east, west
ABOUT = About(
    title="people cooking together, 2019",
    source="Overcooked-AI human-human play: Carroll et al. 2019, arXiv:1910.05789",
    licence="MIT, Copyright (c) 2019 Center for Human-Compatible AI",
    author="Center for Human-Compatible AI",
    units={"time": "step of 0.15 s", "reward": "points of the team"},
)
_FILE = "overcooked_hh_2019.npz"
_FIELDS = {"pos": "positions", "ori": "facing", "held": "held", "act": "actions", "obj": "objects", "reward": "rewards"}


@dataclass(frozen=True)
class Trial:
    """One recording: T moments and what each cook did at them."""

    name: str
    grid: tuple[str, ...]  # X counter, O onions, D dishes, P pot, S serving, T tomatoes, 1 2 where the cooks start
    positions: Int[Tensor, "time agent 2"]  # x, y
    facing: Int[Tensor, "time agent"]  # 0 north, 1 south, 2 east, 3 west
    held: Int[Tensor, "time agent"]  # 0 nothing, 1 onion, 2 dish, 3 soup, 4 tomato
    objects: Int[Tensor, "time slot 5"]  # x, y, thing, onions in a soup, steps it has cooked; -1 in empty slots
    actions: Int[Tensor, "time agent"]  # 0 to 3 as facing, 4 stay, 5 interact
    rewards: Float[Tensor, "time"]  # of the team, for what was done at that moment
    info: dict[str, Any] = field(default_factory=dict)  # layout, split, workers, run, score, seconds

    def __post_init__(self) -> None:
        if self.actions.dim() != 2 or len(self.actions) < 2:
            raise DemosError(f"{self.name}: actions are {list(self.actions.shape)}; a step needs two moments of cooks.")
        time, cooks = self.actions.shape
        slots = self.objects.shape[1] if self.objects.dim() == 3 else 0
        for name, shape, low, high in (
            ("positions", (time, cooks, 2), 0, 999),
            ("facing", (time, cooks), 0, 3),
            ("held", (time, cooks), 0, 4),
            ("actions", (time, cooks), 0, 5),
            ("objects", (time, slots, 5), -1, 2**15),
            ("rewards", (time,), -(2**15), 2**15),
        ):
            value = getattr(self, name)
            if value.shape != shape:
                raise DemosError(f"{self.name}: {name} are {list(value.shape)}, and should be {list(shape)}.")
            if value.numel() and not low <= value.min() <= value.max() <= high:
                raise DemosError(
                    f"{self.name}: {name} must be from {low} to {high}, got {value.min()} to {value.max()}."
                )


Featurise = Callable[[Trial], dict[str, Tensor]]


def read_overcooked(
    source: Path | str,
    spec: EnvSpec,
    featurise: Featurise,
    layout: str | None = None,
    split: str | None = None,
    about: About = ABOUT,
) -> Demos:
    """Recordings as demos of `spec`, seen through `featurise`.

    Args:
        source: a folder with the arrays of 2019, or a JSON trajectory file.
        spec: of the env whose eyes `featurise` gives.
        featurise: from a trial, the moments' `obs`, and `whole` or `legal` where the env has them. With T moments the
            last action is left out, since what it led to is not recorded; with T + 1, the last one made by playing
            that action in the env, nothing is.
        layout, split: only these, `split` being "train" or "test"; None: all. A spec fits one layout.

    Raises:
        DemosError: as `read_trials`; or `featurise` gives another number of moments.
    """
    source = Path(source)
    trials = read_json(source) if source.suffix == ".json" else read_trials(source, layout, split)
    return Demos.from_episodes(spec, [_episode(trial, featurise(trial)) for trial in trials], about)


def read_trials(folder: Path | str, layout: str | None = None, split: str | None = None) -> list[Trial]:
    """The recordings of 2019: 76 of two people each, in five layouts, with the names of that time.

    Raises:
        DemosError: a file is missing or damaged; no recording is of that `layout` or `split`; steps are missing.
    """
    folder = Path(folder)
    refuse_pickle(folder)
    with refusing(folder / "trials.json", "a list of trials") as where:
        entries = json.loads((folder / "trials.json").read_text())
        for name, asked in (("layout", layout), ("split", split)):
            known = {entry[name] for entry in entries}
            if asked is not None and asked not in known:
                raise DemosError(f"{where}: no recording is of the {name} {asked!r}.{nearest(asked, known)}")
    arrays = load_arrays(folder / _FILE, MAX_BYTES)
    with refusing(folder / _FILE, "recordings of cooking") as where:
        trials = []
        for entry in entries:
            if layout in (None, entry["layout"]) and split in (None, entry["split"]):
                key = entry["key"]
                if (np.diff(arrays[f"{key}/loop"].astype(np.int64)) != 1).any():
                    raise DemosError(f"{where}: {key} has steps missing: `loop` must count them one by one.")
                fields = {to: _tensor(arrays[f"{key}/{name}"]) for name, to in _FIELDS.items()}
                workers, run = key.rsplit("/", 1)[1].split("_run-")
                info = {"layout": entry["layout"], "split": entry["split"], "workers": workers, "run": int(run)}
                info |= {"score": float(entry["final_score"]), "seconds": float(entry["seconds"])}
                trials.append(Trial(name=key, grid=tuple(entry["grid"]), info=info, **fields))
        return trials


def write_trials(trials: Iterable[Trial], folder: Path | str) -> None:
    """The arrays and `trials.json` that `read_trials` reads."""
    folder, arrays, entries = Path(folder), {}, []
    for trial in trials:
        kinds = {"positions": np.int8, "facing": np.int8, "held": np.int8, "actions": np.int8, "objects": np.int16}
        for name, of in _FIELDS.items():
            arrays[f"{trial.name}/{name}"] = getattr(trial, of).numpy().astype(kinds.get(of, np.float32))
        arrays[f"{trial.name}/loop"] = np.arange(len(trial.actions), dtype=np.int16)
        told = {name: trial.info[name] for name in ("split", "layout", "seconds")}
        told |= {"final_score": trial.info["score"], "steps": len(trial.actions), "gaps": 0}
        entries.append({"key": trial.name, "grid": list(trial.grid), **told})
    folder.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(folder / _FILE, **arrays)
    (folder / "trials.json").write_text(json.dumps(entries))


def read_json(path: Path | str) -> list[Trial]:
    """The episodes of a JSON trajectory file of Overcooked-AI.

    Raises:
        DemosError: it is no such file, or it holds what a `Trial` cannot tell: a soup with tomatoes.
    """
    refuse_pickle(path)
    with refusing(path, "trajectories of Overcooked-AI") as where:
        data = json.loads(Path(path).read_text())
        states = data.get("ep_states", data.get("ep_observations"))
        if states is None:
            raise DemosError(f"{where}: has neither `ep_states` nor `ep_observations`, but {', '.join(data)}.")
        count = len(states)
        for name in ("ep_actions", "ep_rewards", "mdp_params"):
            if len(data[name]) != count:
                raise DemosError(f"{where}: {count} episodes of states, but {len(data[name])} of `{name}`.")
        return [
            _trial_of_states(f"{where}: episode {i}", *episode)
            for i, episode in enumerate(
                zip(states, data["ep_actions"], data["ep_rewards"], data["mdp_params"], strict=True)
            )
        ]


def _episode(trial: Trial, seen: dict[str, Any]) -> Episode:
    moments, steps = len(seen["obs"]), len(trial.actions)
    if moments not in (steps, steps + 1):
        raise DemosError(f"{trial.name}: featurise gave {moments} moments of {steps}, or {steps + 1} played on.")
    return Episode(
        **seen,
        actions=trial.actions[: moments - 1],
        rewards=trial.rewards[: moments - 1, None].expand(-1, trial.actions.shape[1]).clone(),
        truncated=True,  # the clock stopped it
        name=trial.name,
        info=dict(trial.info),
    )


def _tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(array.astype(np.float32 if array.dtype.kind == "f" else np.int64))


def _trial_of_states(name: str, states: list, actions: list, rewards: list, params: dict) -> Trial:
    if not len(states) == len(actions) == len(rewards):
        raise DemosError(f"{name}: {len(states)} states, {len(actions)} actions and {len(rewards)} rewards.")
    rows = [list(row) for row in params["terrain"]]
    for i, (x, y) in enumerate(params["start_player_positions"]):
        rows[y][x] = str(i + 1)
    players = [state["players"] for state in states]
    slots = [[_object(name, thing) for thing in state["objects"]] for state in states]
    width = max(map(len, slots))
    return Trial(
        name=name,
        grid=tuple("".join(row) for row in rows),
        positions=torch.tensor([[p["position"] for p in now] for now in players]),
        facing=torch.tensor([[FACINGS[tuple(p["orientation"])] for p in now] for now in players]),
        held=torch.tensor(
            [[_object(name, p["held_object"])[2] if p["held_object"] else 0 for p in now] for now in players]
        ),
        objects=torch.tensor([now + [[-1] * 5] * (width - len(now)) for now in slots]).reshape(len(slots), width, 5),
        actions=torch.tensor([[_action(a) for a in joint] for joint in actions]),
        rewards=torch.tensor(rewards, dtype=torch.float32),
        info={"layout": str(params["layout_name"]), "score": float(sum(rewards))},
    )


def _action(action: Any) -> int:
    if isinstance(action, str) and action.lower() == "interact":
        return INTERACT
    return STAY if tuple(action) == (0, 0) else FACINGS[tuple(action)]


def _object(name: str, thing: dict) -> list[int]:
    """x, y, thing, and of a soup how many onions are in it and how long it has cooked."""
    kind, onions, cooked = THINGS[thing["name"]], 0, 0
    if kind == THINGS["soup"]:
        if thing.get("state") is not None:  # the form of 2019: [kind of soup, items, steps]
            inside, onions, cooked = thing["state"]
            of_onions = inside == "onion"
        else:
            inside = [item["name"] for item in thing["_ingredients"]]
            onions, cooked = len(inside), max(thing["_cooking_tick"], 0)  # -1: not cooking yet
            of_onions = set(inside) <= {"onion"}
        if not of_onions:
            raise DemosError(f"{name}: a soup with tomatoes; a trial tells onions alone.")
    return [*thing["position"], kind, onions, cooked]
