"""Football through kloppy, whose loaders read some twenty providers: hand over what they loaded.

    from kloppy import metrica
    match = read_kloppy(metrica.load_tracking_csv(home_data="home.csv", away_data="away.csv"))

One recording for each period; positions are metres from the middle of the pitch, x along it, y to the left of those who
look along x. Labels for each frame: `possession` (1 home, 2 away, -1 unknown), `alive` (1 while the ball is in play, 0
while not, -1 unknown) and `height` of the ball in metres.
"""

import warnings
from collections.abc import Collection
from typing import Any

import numpy as np

from understudy.core.errors import DemosError, missing_extra
from understudy.demos.episode import About
from understudy.demos.formats.common import refusing
from understudy.demos.formats.sightings import Placing, Sightings, gathered, with_joint
from understudy.demos.tracks import Omission, TrackSet

BALL = "ball"


def read_kloppy(
    dataset: Any,
    *,
    mend: Collection[str] = (),
    fastest: int | float | None = None,
    about: About | None = None,
) -> TrackSet:
    """The periods of a `TrackingDataset`, the ball among the agents. Players who are never seen are left out, and told.

    Raises:
        DemosError: it is no data set of positions, has no frame rate, or as `sightings` says.
        MissingExtra: without the extra `scenes`.
    """
    try:
        from kloppy.domain import BallState, Ground, Provider, TrackingDataset
    except ImportError:
        raise missing_extra("kloppy", "scenes", "reading a data set of kloppy") from None
    if not isinstance(dataset, TrackingDataset):
        raise DemosError(f"dataset: got {type(dataset).__name__}; a TrackingDataset of kloppy is meant.")
    where = f"kloppy data set of {dataset.metadata.provider or 'no provider'}"
    if not dataset.metadata.frame_rate:
        raise DemosError(f"{where}: it does not say its frame rate.")
    with refusing(where, "positions"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pitches whose size is not told: 105 m x 68 m is taken
            metric = dataset.transform(to_coordinate_system=Provider.SECONDSPECTRUM)
        sides = {Ground.HOME: "home", Ground.AWAY: "away"}
        people = {
            (team.ground, int(player.jersey_no), str(player.player_id)): player
            for team in metric.metadata.teams
            for player in team.players
        }
        names = [BALL, *(f"{sides[ground]}_{number}" for ground, number, _ in people)]
        if len(set(names)) < len(names):
            names = [BALL, *(f"{sides[ground]}_{key}" for ground, _, key in people)]
        slots = {id_: k for k, (_, _, id_) in enumerate(people, 1)}
        held = {Ground.HOME: 1, Ground.AWAY: 2}
        rows, strangers = [], 0
        for line, frame in enumerate(metric.frames, 1):
            owner = held.get(frame.ball_owning_team.ground, -1) if frame.ball_owning_team else -1
            alive = {BallState.ALIVE: 1, BallState.DEAD: 0}.get(frame.ball_state, -1)
            seen = [(slots.get(str(p.player_id)), data.coordinates) for p, data in frame.players_data.items()]
            for slot, point in [(0, frame.ball_coordinates), *seen]:
                if slot is None:
                    strangers += 1
                elif point is not None:
                    z = getattr(point, "z", np.nan)
                    z = np.nan if z is None else z
                    time = frame.timestamp.total_seconds()
                    rows.append((frame.period.id, time, slot, point.x, point.y, z, owner, alive, line))
        table = np.array(rows, float).reshape(-1, 9)
        pieces = [
            (f"period {k:.0f}", _sightings(where, names, table[table[:, 0] == k])) for k in np.unique(table[:, 0])
        ]
    roles = {name: _role(player) for name, player in zip(names[1:], people.values(), strict=True)}
    size = metric.metadata.pitch_dimensions
    half = float(size.pitch_length or 105) / 2, float(size.pitch_width or 68) / 2
    step = 1 / float(metric.metadata.frame_rate)
    made = gathered(
        pieces,
        Placing(step=step, dt=step, mend=(*mend, "absent"), fastest=fastest),
        field=((-half[0], -half[1]), half),
        teams={name: name.partition("_")[0] for name in names},
        roles={BALL: BALL, **roles},
        title=" - ".join(str(team.name) for team in metric.metadata.teams),
        about=about or About(source=where),
        infos=[{"period": int(name.rpartition(" ")[2])} for name, _ in pieces],
    )
    unknown = Omission(strangers, len(table) + strangers, "sightings", "seen, and not made out who")
    return with_joint(made, "possession", "alive", "height").noted(unknown)


def _sightings(where: str, names: list[str], rows: np.ndarray) -> Sightings:
    labels = {"height": rows[:, 5], "possession": rows[:, 6].astype(np.int64), "alive": rows[:, 7].astype(np.int64)}
    agent, line = rows[:, 2].astype(np.int64), rows[:, 8].astype(np.int64)
    return Sightings(where, tuple(names), rows[:, 1], agent, rows[:, 3:5], line, labels)


def _role(player: Any) -> str:
    """The code of the position that a player began in; "agent" where it is not known."""
    position = player.starting_position
    return "agent" if position is None else str(position.code)
