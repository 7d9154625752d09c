"""Basketball: the JSON of SportVU, and arrays of scenes in the form of LED (`nba_train.npy`).

Positions are feet on a court of 94 ft x 50 ft, from a corner. The ball is the first agent of SportVU's recordings and
the last one of LED's.

Source: of the JSON, the files of linouk23/NBA-Player-Movements as its README describes them; of the arrays,
MediaBrain-SJTU/LED: [scene, time, agent, xy], 5 Hz, ten players and the ball.
"""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import torch

from understudy.core.errors import DemosError
from understudy.core.files import from_json
from understudy.demos.episode import About
from understudy.demos.formats.common import MAX_BYTES, refusing
from understudy.demos.formats.npz import load_arrays
from understudy.demos.formats.sightings import Placing, Sightings, gathered, with_joint
from understudy.demos.tracks import Omission, TrackSet, TrackSpec

COURT = (0.0, 0.0), (94.0, 50.0)
BALL = -1  # its team and its number


def read_sportvu(
    path: Path | str,
    *,
    mend: Collection[str] = (),
    fastest: int | float | None = None,
    about: About | None = None,
) -> TrackSet:
    """The quarters of one game, a recording each, at the 25 Hz that its times tell of.

    Events overlap, and a moment of several is taken once; how many were left out for that is told. Labels for each
    frame: `clock`, seconds left in the quarter, `shot_clock`, and `height` of the ball in feet.

    Raises:
        DemosError: naming the file, the event and the moment.
    """
    with refusing(path, "SportVU's JSON of a game") as where:
        told = from_json(Path(path).read_bytes())
        names, teams = _people(told, where)
        slots = {number: k for k, number in enumerate(names)}
        rows, moments, known = [], 0, set()
        for number, event in enumerate(told["events"]):
            for k, moment in enumerate(event["moments"]):
                quarter, millis, clock, shot = moment[:4]
                moments += 1
                if (quarter, millis) in known:
                    continue
                known.add((quarter, millis))
                for team, player, x, y, z in moment[5]:
                    key = BALL if team == BALL else player
                    if key not in slots:
                        raise DemosError(f"{where}: event {number}, moment {k}: nobody of number {player} plays.")
                    height = z if key == BALL else np.nan
                    left = np.nan if shot is None else shot
                    rows.append((quarter, millis / 1000, slots[key], x, y, height, clock, left, moments))
        table = np.array(rows, float).reshape(-1, 9)
        if not len(table):
            raise DemosError(f"{where}: there is no moment in it.")
        pieces = []
        for quarter in np.unique(table[:, 0]):
            here = table[table[:, 0] == quarter]
            here = here[np.argsort(here[:, 1], kind="stable")]  # events need not stand in the order of time
            labels = {"height": here[:, 5], "clock": here[:, 6], "shot_clock": here[:, 7]}
            agent, line = here[:, 2].astype(np.int64), here[:, 8].astype(np.int64)
            seen = Sightings(where, tuple(names.values()), here[:, 1], agent, here[:, 3:5], line, labels)
            pieces.append((f"quarter {quarter:.0f}", seen))
        how = Placing(unit="ft", fastest=fastest, mend=(*mend, "absent"))
        made = gathered(
            pieces,
            how,
            field=COURT,
            teams=teams,
            roles={names[BALL]: "ball"},
            title=f"game {told.get('gameid', '')}",
            about=about,
            infos=[{"quarter": int(name.rpartition(" ")[2])} for name, _ in pieces],
        )
        twice = Omission(moments - len(known), moments, "moments", "in several events")
        return with_joint(made, "height", "clock", "shot_clock").noted(twice)


def read_led(path: Path | str, *, about: About | None = None, max_bytes: int = MAX_BYTES) -> TrackSet:
    """Scenes of an array [scene, time, agent, xy] in a .npy or .npz file, 0.2 s a frame.

    Raises:
        DemosError: it has other axes, or holds Python objects.
    """
    with refusing(path, "an array of scenes") as where:
        if Path(path).suffix == ".npz":
            arrays = load_arrays(path, max_bytes)
            if len(arrays) != 1:
                raise DemosError(f"{where}: one array is meant, and there are {', '.join(arrays)}.")
            (array,) = arrays.values()
        else:
            array = np.load(path, allow_pickle=False, mmap_mode="r")  # no more is claimed than the file has
        if array.ndim != 4 or array.shape[-1] != 2 or array.dtype.kind not in "fiu" or 0 in array.shape:
            raise DemosError(
                f"{where}: {array.dtype} {list(array.shape)}; numbers of [scene, time, agent, 2] are meant."
            )
        values = torch.from_numpy(np.array(array, np.float32))
        players = values.shape[2] - 1
        spec = TrackSpec(
            agents=players + 1,
            dt=0.2,
            unit="ft",
            low=COURT[0],
            high=COURT[1],
            names=(*(f"player_{k}" for k in range(players)), "ball"),
            teams=(*("home" if k < players / 2 else "away" for k in range(players)), "ball"),
            roles=(*("agent",) * players, "ball"),
            title=Path(path).stem,
        )
        return TrackSet.stacked(spec, values, about=about)


def _people(told: Any, where: str) -> tuple[dict[int, str], dict[str, str]]:
    """(name by number, team by name), the ball first."""
    names, teams = {BALL: "ball"}, {"ball": "ball"}
    for side in ("home", "visitor"):
        group = told["events"][0][side]
        for player in group["players"]:
            name = f"{group['abbreviation']}_{player['jersey']}"
            if name in teams:
                raise DemosError(f"{where}: two players of {group['abbreviation']} wear {player['jersey']}.")
            names[player["playerid"]], teams[name] = name, side
    return names, teams
