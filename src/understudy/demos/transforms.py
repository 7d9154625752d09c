"""What is done to tracks before they are learnt from: other rates, pieces, units, mirrors, roles, smoothing.

Every function takes a set and gives a new one; what a function leaves out it counts in the set's `omissions`.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from understudy.core.errors import ConfigError, DemosError, nearest
from understudy.demos.tracks import METRES, Omission, Tracks, TrackSet

NEARLY = 1e-6  # of a frame: a moment so near to one is that frame


def resample(tracks: TrackSet, dt: int | float) -> TrackSet:
    """Frames `dt` apart, any number above 0, from the first frame of each recording on.

    A position is interpolated linearly between the two frames around the moment, and known where both are; a moment
    that falls on a frame is that frame. Symbols and labels are those of the frame before. Slower rates than the
    recording's can alias: `smooth` first.
    """
    if not 0 < dt < math.inf:
        raise ConfigError(f"dt: got {dt}; it is a number above 0.")
    share = float(dt) / tracks.spec.dt

    def change(each: Tracks) -> Tracks:
        moments = torch.arange(math.floor((len(each) - 1) / share + NEARLY) + 1, dtype=torch.float64) * share
        before = (moments + NEARLY).floor().long().clamp(max=len(each) - 1)
        past = (moments - before).clamp(min=0)
        past = torch.where(past < NEARLY, 0.0, past)
        after = (before + (past > 0)).clamp(max=len(each) - 1)
        labels = {name: label[before] for name, label in each.labels.items()}
        if tracks.spec.symbols:
            return replace(each, values=each.values[before], present=each.present[before], labels=labels)
        weight = past.reshape(-1, 1, 1).to(each.values.dtype)
        values = (1 - weight) * each.values[before] + weight * each.values[after]
        return replace(each, values=values, present=each.present[before] & each.present[after], labels=labels)

    return tracks.map(change, replace(tracks.spec, dt=float(dt)))


def segment(tracks: TrackSet, max_gap: int = 0, *, least_present: int = 1, least_frames: int = 2) -> TrackSet:
    """The stretches of each recording in which never for more than `max_gap` frames too few agents are there.

    Too few are fewer than `least_present`. A piece begins and ends with enough. `info["start"]` goes on.

    Args:
        least_frames: shorter pieces are left out.
    """
    pieces, kept = [], 0
    for each in tracks:
        enough = (each.present.sum(-1) >= least_present).nonzero().flatten()
        breaks = (enough.diff() > max_gap + 1).nonzero().flatten() + 1
        for run in enough.tensor_split(breaks):
            if len(run) and int(run[-1] - run[0]) + 1 >= least_frames:
                pieces.append(_cut(each, int(run[0]), int(run[-1]) + 1, tracks.spec.dt))
                kept += len(pieces[-1])
    made = TrackSet.of(tracks.spec, pieces, tracks.about, tracks.omissions)
    why = f"fewer than {least_present} present, or in a piece of fewer than {least_frames} frames"
    return made.noted(Omission(tracks.frames - kept, tracks.frames, "frames", why))


def cut(tracks: TrackSet, length: int) -> TrackSet:
    """Recordings of at most `length` frames, end to end: what to split where there is only one long recording."""
    if length < 1:
        raise ConfigError(f"length: got {length}; it is 1 frame or more.")
    return tracks.map(lambda each: [_cut(each, t, t + length, tracks.spec.dt) for t in range(0, len(each), length)])


def fill_gaps(tracks: TrackSet, max_gap: int) -> TrackSet:
    """Agents who are missing for at most `max_gap` frames between two sightings are put on the line between these.

    Labels stay unknown there. The guess is as good as a straight line: a model's is made by `MaskedScene`.
    """
    _expect_positions(tracks, "fill_gaps")

    def change(each: Tracks) -> Tracks:
        frames = len(each)
        t = torch.arange(frames).unsqueeze(-1)
        before = torch.where(each.present, t, -1).cummax(0).values
        after = torch.where(each.present, t, frames).flip(0).cummin(0).values.flip(0)
        filled = ~each.present & (before >= 0) & (after < frames) & (after - before - 1 <= max_gap)
        first, last = (x.clamp(0, frames - 1).unsqueeze(-1).expand_as(each.values) for x in (before, after))
        share = ((t - before) / (after - before).clamp(min=1)).unsqueeze(-1)
        between = (1 - share) * each.values.gather(0, first) + share * each.values.gather(0, last)
        values = torch.where(filled.unsqueeze(-1), between, each.values)
        return replace(each, values=values, present=each.present | filled)

    return tracks.map(change)


def futures(tracks: TrackSet, first: int, past: int, most: int) -> tuple[Tracks, list[Tracks]]:
    """The first `past` frames of recording `first`, and what comes after them in it and in those that follow it.

    As many recordings are taken, `most` at most, as begin with the same frames: what was sampled after one past.

    Raises:
        ConfigError: the recording has no frame after its past.
    """
    begins, frames = tracks[first], int(tracks.lengths[first])
    if not 0 < past < frames:
        raise ConfigError(
            f"past: got {past}, and recording {first} has {frames} frames: one at least is past, one at least comes."
        )
    alike = []
    for each in (tracks[k] for k in range(first, min(first + most, len(tracks)))):
        pairs = ((each.values, begins.values), (each.present, begins.present))
        if len(each) <= past or not all(torch.equal(a[:past], b[:past]) for a, b in pairs):
            break
        alike.append(_cut(each, past, len(each), tracks.spec.dt))
    return _cut(begins, 0, past, tracks.spec.dt), alike


def drop_leaps(tracks: TrackSet, fastest: int | float) -> TrackSet:
    """Without sightings that an agent could only have reached from its last one faster than `fastest`, unit a time.

    The first sighting is taken as true. Once enough time has passed, every place is within reach again.
    """
    _expect_positions(tracks, "drop_leaps")
    if not fastest > 0:
        raise ConfigError(f"fastest: got {fastest}; it is a speed above 0.")
    far = [leaps(each.values, each.present, float(fastest) * tracks.spec.dt) for each in tracks]
    count, of = sum(int(x.sum()) for x in far), int(tracks.present.sum())
    turn = iter(far)
    made = tracks.map(lambda each: replace(each, present=each.present & ~next(turn)))
    return made.noted(Omission(count, of, "sightings", f"out of reach at {fastest:g} {tracks.spec.unit} a second"))


def leaps(
    values: Float[Tensor, "time agent dim"], present: Bool[Tensor, "time agent"], reach: float
) -> Bool[Tensor, "time agent"]:
    """Sightings farther from the agent's last one that is none than `reach` for each frame between them."""
    far = torch.zeros_like(present)
    last, place = torch.full_like(present[0], -1, dtype=torch.long), values[0].clone()
    for t in range(len(values)):
        away = (values[t] - place).norm(dim=-1) > reach * (t - last)
        far[t] = present[t] & away & (last >= 0)
        kept = present[t] & ~far[t]
        place = torch.where(kept.unsqueeze(-1), values[t], place)
        last = torch.where(kept, t, last)
    return far


def mirror(tracks: TrackSet, axis: int = 0) -> TrackSet:
    """The set in a mirror: coordinate `axis` is turned about the middle of the field, or about 0 where it has none."""
    _expect_positions(tracks, "mirror")
    if not 0 <= axis < tracks.spec.dims:
        raise ConfigError(f"axis: got {axis}, and a position has {tracks.spec.dims} numbers.")
    twice = tracks.spec.low[axis] + tracks.spec.high[axis] if tracks.spec.low else 0.0

    def change(each: Tracks) -> Tracks:
        values = each.values.clone()
        values[..., axis] = twice - values[..., axis]
        return replace(each, values=values)

    return tracks.map(change)


def rotate(tracks: TrackSet, angle: int | float, where: Sequence[bool] | None = None) -> TrackSet:
    """The set turned by `angle` radians, anticlockwise in x and y, about the middle of the field, or about 0.

    Args:
        where: which recordings are turned, one each; None: all. A second half, in which teams have changed ends, is
            made like the first by half a turn: `rotate(match, math.pi, [info["period"] == 2 for info in match.infos])`.
    """
    _expect_positions(tracks, "rotate")
    if where is not None and len(where) != len(tracks):
        raise ConfigError(f"where: got {len(where)} of them for {len(tracks)} recordings.")
    low, high = tracks.spec.low or (0.0, 0.0), tracks.spec.high or (0.0, 0.0)
    middle = torch.tensor([(a + b) / 2 for a, b in zip(low[:2], high[:2], strict=True)])
    sine, cosine = math.sin(angle), math.cos(angle)
    turn = torch.tensor([[cosine, sine], [-sine, cosine]])
    chosen = iter([True] * len(tracks) if where is None else where)

    def change(each: Tracks) -> Tracks:
        if not next(chosen):
            return each
        turned = (each.values[..., :2] - middle) @ turn + middle
        return replace(each, values=torch.cat([turned, each.values[..., 2:]], dim=-1))

    return tracks.map(change)


def convert_unit(tracks: TrackSet, unit: str) -> TrackSet:
    """Positions and field in another unit of length. Raises ConfigError where one of the two is none."""
    for name in (tracks.spec.unit, unit):
        if name not in METRES:
            raise ConfigError(f"unit: {name!r} is no unit of length.{nearest(name, METRES)}")
    scale = METRES[tracks.spec.unit] / METRES[unit]
    low, high = (tuple(scale * bound for bound in bounds) for bounds in (tracks.spec.low, tracks.spec.high))
    return replace(tracks, spec=replace(tracks.spec, unit=unit, low=low, high=high), values=tracks.values * scale)


def smooth(tracks: TrackSet, frames: int, degree: int = 2) -> TrackSet:
    """Each position as a polynomial says that is fitted to those within `frames` before and after it.

    The least squares are over those frames in which the agent is there (without gaps: the filter of Savitzky and Golay
    1964). Where they are too few to fit it, positions stay as they are. Who is absent stays so.
    """
    _expect_positions(tracks, "smooth")
    if frames < 1 or degree < 0:
        raise ConfigError(f"frames, degree: got {frames} and {degree}; at least 1 and 0.")
    offset = torch.arange(-frames, frames + 1, dtype=torch.float64) / frames
    powers = offset.unsqueeze(-1) ** torch.arange(degree + 1)  # [window, power]

    def change(each: Tracks) -> Tracks:
        there = _around(each.present.double(), frames)  # [time, agent, window]
        where = _around(each.values.double() * each.present.unsqueeze(-1), frames)  # [time, agent, dim, window]
        normal = torch.einsum("taw,wp,wq->tapq", there, powers, powers)
        right = torch.einsum("tadw,wp->tapd", where, powers)
        enough = each.present & (there.sum(-1) > degree)
        normal = torch.where(enough[..., None, None], normal, torch.eye(degree + 1, dtype=torch.float64))
        fitted = torch.linalg.solve(normal, right)[..., 0, :]  # the polynomial at offset 0
        return replace(each, values=torch.where(enough.unsqueeze(-1), fitted.float(), each.values))

    return tracks.map(change)


def _around(x: Float[Tensor, "time *rest"], frames: int) -> Float[Tensor, "time *rest window"]:
    pad = torch.zeros(frames, *x.shape[1:], dtype=x.dtype)
    return torch.cat([pad, x, pad]).unfold(0, 2 * frames + 1, 1)


def velocities(
    values: Float[Tensor, "*batch time agent dim"], present: Bool[Tensor, "*batch time agent"], dt: float
) -> tuple[Float[Tensor, "*batch time agent dim"], Bool[Tensor, "*batch time agent"]]:
    """(way from the frame before over `dt`, whether it is known): zero where either frame lacks the agent."""
    known = torch.zeros_like(present)
    known[..., 1:, :] = present[..., 1:, :] & present[..., :-1, :]
    way = torch.zeros_like(values)
    way[..., 1:, :, :] = values.diff(dim=-3) / dt
    return way * known.unsqueeze(-1), known


# ------------------------------------------------------------------------------------------------------------- roles


def align_roles(
    tracks: TrackSet, template: Float[Tensor, "agent dim"] | None = None, passes: int = 20
) -> tuple[TrackSet, Float[Tensor, "agent dim"]]:
    """(the set with slots that mean roles, the template): within each team agents change slots, once a recording.

    Slot k takes who stands nearest to row k of the template, by the one-to-one assignment of least

        cost[agent, role] = mean over the frames in which the agent is there of |position - template[role]|^2.

    Positions are taken from the middle of the team's present agents, so that a team may move as a whole. The label
    `slot` keeps where each agent stood before; `names` become `TEAM_role_0`, ...; teams of one keep theirs.

    Args:
        template: a place for each slot, such as a coach's formation. None: learnt, from the first recording's means
            on: assign, then take means over all recordings, until nobody changes or after `passes`.

    Source: Lucey et al. 2013, "Representing and discovering adversarial team behaviors using player roles"; Bialkowski
    et al. 2014. Here the assignment is for a whole recording, not for a frame.
    """
    _expect_positions(tracks, "align_roles")
    spec = tracks.spec
    if template is not None and tuple(template.shape) != spec.shape:
        raise ConfigError(f"template: got {list(template.shape)}; a place for each slot is meant, {list(spec.shape)}.")
    if not len(tracks):
        raise DemosError("tracks: there is no recording to align.")
    teams = [torch.tensor([i for i, t in enumerate(spec.teams) if t == team]) for team in dict.fromkeys(spec.teams)]
    middles = [_from_middle(each, teams) for each in tracks]
    fixed = template is not None
    places = template if template is not None else _means(middles[:1], [torch.arange(spec.agents)])
    orders: list[Tensor] = []
    for _ in range(1 if fixed else passes):
        new = [_assigned(*each, places, teams) for each in middles]
        if orders and all(torch.equal(a, b) for a, b in zip(orders, new, strict=True)):
            break
        orders = new
        places = places if fixed else _means(middles, orders)
    turn = iter(orders)

    def change(each: Tracks) -> Tracks:
        order = next(turn)
        labels = {name: label[:, order] if label.dim() == 2 else label for name, label in each.labels.items()}
        labels["slot"] = order.expand(len(each), -1).clone()
        return replace(each, values=each.values[:, order], present=each.present[:, order], labels=labels)

    names = list(spec.names)
    for team in teams:
        for k, slot in enumerate(team.tolist() if len(team) > 1 else []):
            names[slot] = f"{spec.teams[slot]}_role_{k}"
    return tracks.map(change, replace(spec, names=tuple(names))), places


Around = tuple[Float[Tensor, "time agent dim"], Bool[Tensor, "time agent"]]


def _from_middle(each: Tracks, teams: Sequence[Tensor]) -> Around:
    """Positions from the middle of the team's present agents; teams of one as they are."""
    values = each.values.clone()
    for team in teams:
        if len(team) > 1:
            there = each.present[:, team].unsqueeze(-1)
            middle = (each.values[:, team] * there).sum(1, keepdim=True) / there.sum(1, keepdim=True).clamp(min=1)
            values[:, team] -= middle
    return values, each.present


def _means(middles: Sequence[Around], orders: Sequence[Int[Tensor, "agent"]]) -> Float[Tensor, "agent dim"]:
    """Mean place of each slot, of those in it under `orders`."""
    total, count = torch.zeros_like(middles[0][0][0]), torch.zeros(middles[0][0].shape[1], 1)
    for (values, present), order in zip(middles, orders, strict=True):
        there = present[:, order].unsqueeze(-1)
        total += (values[:, order] * there).sum(0)
        count += there.sum(0)
    return total / count.clamp(min=1)


def _assigned(
    values: Float[Tensor, "time agent dim"],
    present: Bool[Tensor, "time agent"],
    places: Float[Tensor, "agent dim"],
    teams: Sequence[Tensor],
) -> Int[Tensor, "agent"]:
    """Who takes each slot."""
    order = torch.arange(len(places))
    for team in teams:
        square = (values[:, team].unsqueeze(2) - places[team]).square().sum(-1)  # [time, agent, role]
        there = present[:, team].unsqueeze(-1)
        cost = (square * there).sum(0) / there.sum(0).clamp(min=1)
        order[team] = team[assignment(cost.T)]
    return order


def assignment(cost: Float[Tensor, "row column"]) -> Int[Tensor, "row"]:
    """The column for each row, each taken once, of least total cost. At most as many rows as columns.

    Shortest augmenting paths with potentials, O(rows^2 columns): Jonker and Volgenant 1987, DOI 10.1007/BF02278710.
    """
    table = cost.tolist()
    rows, columns = cost.shape
    if rows > columns:
        raise ConfigError(f"cost: {rows} rows cannot have a column each of {columns}.")
    row_price, column_price = [0.0] * rows, [0.0] * (columns + 1)
    owner = [-1] * (columns + 1)  # row of each column; the last column is where a path begins
    for row in range(rows):
        owner[columns], here = row, columns
        least, came = [math.inf] * columns, [columns] * columns
        done = [False] * (columns + 1)
        while owner[here] >= 0:
            done[here] = True
            i, step, to = owner[here], math.inf, -1
            for j in range(columns):
                if not done[j]:
                    slack = table[i][j] - row_price[i] - column_price[j]
                    if slack < least[j]:
                        least[j], came[j] = slack, here
                    if least[j] < step:
                        step, to = least[j], j
            for j in range(columns + 1):
                if done[j]:
                    row_price[owner[j]] += step
                    column_price[j] -= step
                elif j < columns:
                    least[j] -= step
            here = to
        while here != columns:
            owner[here] = owner[came[here]]
            here = came[here]
    taken = torch.zeros(rows, dtype=torch.long)
    for j in range(columns):
        if owner[j] >= 0:
            taken[owner[j]] = j
    return taken


def _cut(each: Tracks, start: int, stop: int, dt: float) -> Tracks:
    here = slice(start, stop)
    info = {**each.info, "start": float(each.info.get("start", 0.0)) + start * dt}
    labels = {name: label[here] for name, label in each.labels.items()}
    return Tracks(each.values[here], each.present[here], labels, f"{each.name}+{start}", info)


def _expect_positions(tracks: TrackSet, function: str) -> None:
    if not tracks.spec.dims:
        raise ConfigError(f"tracks: {function} is for positions, and these agents give symbols.")
