"""Football as SkillCorner follows it on television: 10 Hz, whoever the camera shows, the ball among the agents.

One recording for each half. Agents are `ball`, then those who took the field, `home_7` and `away_23` by their shirts;
positions are metres from the middle of the pitch, x along it. Labels for each frame: `possession` (0 nobody, 1 home,
2 away) and `height` of the ball in metres. Referees, and objects that were seen and not made out, are left out and
counted.

Two forms of files are read: `structured_data.json` with `match_data.json`, and the newer lines of JSON. Besides them a
compact copy as NumPy arrays (`xy_cm`, `frame`, `period`, `possession`, `ball_z_m`, `n_unidentified`, `team`).

Source: github.com/SkillCorner/opendata (MIT), its README.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from understudy.core.errors import DemosError
from understudy.core.files import from_json
from understudy.demos.episode import About
from understudy.demos.formats.common import refusing
from understudy.demos.formats.npz import load_arrays
from understudy.demos.formats.sightings import Placing, Sightings, gathered, with_joint
from understudy.demos.tracks import Omission, TrackSet

DT = 0.1
HIDDEN = -32768  # in `xy_cm`: not seen
GROUPS = {None: 0, "home team": 1, "away team": 2}


# of one sighting: period, frame, agent's slot (or a reason to leave it out), x, y, z, possession, row of the file
UNKNOWN, REFEREE = -1, -2


@dataclass(frozen=True)
class _People:
    """Who may be seen: names in the order of slots, teams and roles by name, slots by number in the file."""

    names: tuple[str, ...]
    teams: Mapping[str, str]
    roles: Mapping[str, str]
    slots: Mapping[str, int]


def read_skillcorner(
    tracking: Path | str,
    match: Path | str,
    *,
    mend: Collection[str] = (),
    fastest: int | float | None = None,
    about: About | None = None,
) -> TrackSet:
    """The halves of one match, from the file of positions and the file that says who plays.

    Raises:
        DemosError: naming the file, and the frame where it is one.
    """
    with refusing(match, "SkillCorner's description of a match") as where:
        told = from_json(Path(match).read_bytes())
        people = _people(told, where)
        pitch = float(told["pitch_length"]), float(told["pitch_width"])
        title = f"{told['home_team']['name']} - {told['away_team']['name']}"
    with refusing(tracking, "SkillCorner's positions") as where:
        text = Path(tracking).read_text(encoding="utf-8")
        lines = Path(tracking).suffix == ".jsonl"
        frames = [from_json(line) for line in text.splitlines() if line.strip()] if lines else from_json(text)
        rows = np.array(list(_rows(frames, people, where)), float).reshape(-1, 8)
        early, unknown, referee = rows[:, 0] == 0, rows[:, 2] == UNKNOWN, rows[:, 2] == REFEREE
        why = {
            "before or after the halves": early,
            "of referees": referee & ~early,
            "seen, and not made out who": unknown & ~early,
        }
        how = Placing(step=1, dt=DT, mend=(*mend, "absent"), fastest=fastest)
        made = _halves(rows[~(early | unknown | referee)], people, pitch, how, title, about or ABOUT, where)
        return made.noted(*(Omission(int(left.sum()), len(rows), "sightings", said) for said, left in why.items()))


def read_skillcorner_arrays(folder: Path | str, *, about: About | None = None) -> TrackSet:
    """The halves of a match kept as arrays: a folder of one .npz archive and `meta.json` (its pitch and roles)."""
    folder = Path(folder)
    with refusing(folder, "a match as arrays") as where:
        archives = sorted(folder.glob("*.npz"))
        if len(archives) != 1:
            raise DemosError(f"{where}: one .npz archive is meant, and there are {len(archives)}.")
        told = from_json((folder / "meta.json").read_bytes())
        arrays = load_arrays(archives[0])
        xy, team, period = arrays["xy_cm"], arrays["team"], arrays["period"].astype(int)
        t, agent = np.nonzero((xy != HIDDEN).all(-1))
        side = [{-1: "ball", 0: "home", 1: "away"}[each] for each in team.tolist()]
        names = tuple(s if s == "ball" else f"{s}_{k}" for k, s in enumerate(side))
        people = _People(names, dict(zip(names, side, strict=True)), dict(zip(names, told["role"], strict=True)), {})
        z = np.where(team[agent] < 0, arrays["ball_z_m"].astype(float)[t], np.nan)
        columns = period[t], arrays["frame"][t], agent, *(xy[t, agent].T / 100), z, arrays["possession"][t], t + 1
        how = Placing(step=1, dt=DT, mend=("absent",))
        title = f"{told['home']} - {told['away']}"
        pitch = tuple(map(float, told["pitch"]))
        made = _halves(np.stack(columns, 1).astype(float), people, pitch, how, title, about or ABOUT, where)
        unknown = int(arrays["n_unidentified"].sum())
        return made.noted(Omission(unknown, len(t) + unknown, "sightings", "seen, and not made out who"))


ABOUT = About(
    source="github.com/SkillCorner/opendata", licence="MIT, Copyright (c) 2020 SkillCorner", author="SkillCorner"
)


def _people(told: Any, where: str) -> _People:
    """Those of a match's description. Players and referees go by two numbers there."""
    sides = {told["home_team"]["id"]: "home", told["away_team"]["id"]: "away"}
    found, keys = [("ball", "ball", "ball")], [[told["ball"]["trackable_object"]]]
    for player in told["players"]:
        if player["team_id"] not in sides:
            raise DemosError(f"{where}: player {player['id']} is of team {player['team_id']}, not of {list(sides)}.")
        side = sides[player["team_id"]]
        found.append((f"{side}_{player['number']}", side, player["player_role"]["acronym"]))
        keys.append([player["trackable_object"], player["id"]])
    order = sorted(
        range(len(found)), key=lambda k: (found[k][1] != "ball", found[k][1] != "home", len(found[k][0]), found[k][0])
    )
    slots = {str(key): slot for slot, k in enumerate(order) for key in keys[k]}
    slots |= {str(each[key]): REFEREE for each in told["referees"] for key in ("trackable_object", "id")}
    names, teams, roles = zip(*(found[k] for k in order), strict=True)
    return _People(names, dict(zip(names, teams, strict=True)), dict(zip(names, roles, strict=True)), slots)


def _rows(frames: Any, people: _People, where: str) -> Iterator[tuple[float, ...]]:
    """Every sighting of either form of file; the period is 0 outside the halves."""
    for line, told in enumerate(frames, 1):
        group = told["possession"]["group"]
        if group not in GROUPS:
            raise DemosError(f"{where}: frame {told['frame']}: possession of {group!r}.")
        seen = [(_who(each, people, told["frame"], where), each) for each in told.get("data", told.get("player_data"))]
        if (own := told.get("ball_data")) and own["x"] is not None:
            seen.append((people.names.index("ball"), own))
        for slot, each in seen:
            z = each.get("z")
            z = np.nan if z is None else z
            yield told["period"] or 0, told["frame"], slot, each["x"], each["y"], z, GROUPS[group], line


def _who(told: Mapping[str, Any], people: _People, frame: int, where: str) -> int:
    number = told.get("trackable_object", told.get("player_id"))
    if number is None:
        return UNKNOWN
    if str(number) not in people.slots:
        raise DemosError(f"{where}: frame {frame}: nobody of number {number} is in the match's description.")
    return people.slots[str(number)]


def _halves(
    rows: np.ndarray,
    people: _People,
    pitch: Sequence[float],
    how: Placing,
    title: str,
    about: About,
    where: str,
) -> TrackSet:
    """One recording a half, with the labels of its frames."""
    periods = np.unique(rows[:, 0])
    pieces = []
    for period in periods:
        here = rows[rows[:, 0] == period]
        labels = {"height": here[:, 5], "possession": here[:, 6].astype(np.int64)}
        agent, line = here[:, 2].astype(np.int64), here[:, 7].astype(np.int64)
        pieces.append(
            (f"half {period:.0f}", Sightings(where, people.names, here[:, 1], agent, here[:, 3:5], line, labels))
        )
    half = tuple(side / 2 for side in pitch)
    made = gathered(
        pieces,
        how,
        field=(tuple(-side for side in half), half),
        teams=people.teams,
        roles=people.roles,
        title=title,
        about=about,
        infos=[{"period": int(period)} for period in periods],
    )
    return with_joint(made, "possession", "height")
