"""What is done to tracks: closed forms, invariants, and slow twins."""

import itertools
import math

import pytest
import torch

from understudy.core.errors import ConfigError
from understudy.core.random import generator
from understudy.demos.tracks import Tracks, TrackSet, TrackSpec
from understudy.demos.transforms import (
    align_roles,
    assignment,
    convert_unit,
    cut,
    drop_leaps,
    fill_gaps,
    mirror,
    resample,
    rotate,
    segment,
    smooth,
    velocities,
)

PITCH = TrackSpec(agents=2, dt=0.1, low=(0.0, 0.0), high=(105.0, 68.0))


def walk(frames: int, agents: int = 2, seed: int = 0) -> torch.Tensor:
    return torch.randn(frames, agents, 2, generator=generator(seed)).cumsum(0) * 0.1 + 30


def straight(frames: int, dt: float = 0.1) -> Tracks:
    """Position (t, 2 t + agent) at time t seconds."""
    t = torch.arange(frames).unsqueeze(-1).expand(-1, 2) * dt
    values = torch.stack([t, 2 * t + torch.arange(2)], dim=-1)
    return Tracks(values, torch.ones(frames, 2).bool(), {"frame": torch.arange(frames)}, "run")


def one(tracks: Tracks, spec: TrackSpec = PITCH) -> TrackSet:
    return TrackSet.of(spec, [tracks])


def gone(tracks: Tracks, agent: int, *frames: int) -> Tracks:
    present = tracks.present.clone()
    present[list(frames), agent] = False
    return Tracks(tracks.values, present, tracks.labels, tracks.name, tracks.info)


@pytest.mark.parametrize("dt", [0.04, 0.1, 1 / 29.97, 0.25, 0.3])
def test_a_straight_walk_is_straight_at_any_rate(dt):
    made = resample(one(straight(41)), dt)
    t = torch.arange(made.frames) * dt
    assert made.frames == math.floor(4.0 / dt + 1e-6) + 1 and made.spec.dt == dt
    torch.testing.assert_close(made.values[:, 0], torch.stack([t, 2 * t], -1), atol=1e-5, rtol=0)
    assert made.labels["frame"].tolist() == [math.floor(x / 0.1 + 1e-6) for x in (k * dt for k in range(made.frames))]


def test_whole_multiples_take_frames_as_they_are_and_gaps_stay_gaps():
    given = gone(Tracks(walk(40), torch.ones(40, 2).bool()), 1, 12, 13)
    made = resample(one(given), 0.4)
    assert torch.equal(made.values[:, 0], given.values[::4, 0])
    assert made.present[:, 1].tolist() == [t != 12 for t in range(0, 40, 4)]
    finer = resample(one(given), 0.05)
    assert (~finer.present[:, 1]).nonzero().flatten().tolist() == [23, 24, 25, 26, 27]


def test_symbols_are_held_between_frames():
    spec = TrackSpec(agents=1, dims=0, symbols=9, dt=0.25, clock="beat")
    voice = one(Tracks(torch.arange(9).unsqueeze(-1), torch.ones(9, 1).bool()), spec)
    assert resample(voice, 1.0).values.flatten().tolist() == [0, 4, 8]
    assert resample(voice, 0.1).values.flatten().tolist()[:6] == [0, 0, 0, 1, 1, 2]


def test_segments_break_where_too_few_are_there_too_long_and_what_is_lost_is_told():
    given = straight(20)
    given = gone(gone(given, 0, 5, 6, 10, 11, 12, 18), 1, 10, 11, 12, 19)
    made = segment(one(given), max_gap=2, least_present=1)
    assert [len(each) for each in made] == [10, 7]
    assert [each.name for each in made] == ["run+0", "run+13"]
    assert made[1].info["start"] == pytest.approx(1.3)
    assert [(o.count, o.of) for o in made.omissions] == [(3, 20)]
    both = segment(one(given), max_gap=0, least_present=2, least_frames=3)
    assert [int(each.labels["frame"][0]) for each in both] == [0, 7, 13]
    assert both.present.all()


def test_pieces_are_what_they_were_cut_from():
    made = cut(one(straight(10)), 4)
    assert [len(each) for each in made] == [4, 4, 2]
    torch.testing.assert_close(made.values, straight(10).values)


def test_short_gaps_are_filled_with_a_straight_line():
    given = straight(12)
    holes = gone(gone(given, 0, 3, 4, 8, 9, 10), 1, 0, 11)
    made = fill_gaps(one(holes), 2)
    assert (~made.present).nonzero().tolist() == [[0, 1], [8, 0], [9, 0], [10, 0], [11, 1]]
    torch.testing.assert_close(made.values[made.present], given.values[made.present])


def test_leaps_are_dropped_and_counted_and_the_way_back_is_not():
    values = straight(8).values.clone()
    values[3, 0] += 50
    values[5:, 1] += torch.tensor([0.6, 0.0])
    made = drop_leaps(one(Tracks(values, torch.ones(8, 2).bool())), fastest=5.0)
    assert (~made.present).nonzero().tolist() == [
        [3, 0],
        [5, 1],
    ]  # 0.6 m more is out of reach for one frame, not for two
    assert [(o.count, o.of) for o in made.omissions] == [(2, 16)]


def test_mirrors_and_turns_undo_themselves_about_the_middle_of_the_field():
    given = one(Tracks(walk(9), torch.ones(9, 2).bool()))
    torch.testing.assert_close(mirror(mirror(given, 1), 1).values, given.values)
    torch.testing.assert_close(rotate(rotate(given, 0.7), -0.7).values, given.values)
    torch.testing.assert_close(rotate(given, math.pi).values, mirror(mirror(given, 0), 1).values)
    corner = one(Tracks(torch.tensor([[[105.0, 0.0], [0.0, 0.0]]]), torch.ones(1, 2).bool()))
    torch.testing.assert_close(mirror(corner).values[0], torch.tensor([[0.0, 0.0], [105.0, 0.0]]))
    free = one(Tracks(torch.tensor([[[1.0, 0.0], [0.0, 2.0]]]), torch.ones(1, 2).bool()), TrackSpec(agents=2))
    quarter = rotate(free, math.pi / 2).values[0]
    torch.testing.assert_close(quarter, torch.tensor([[0.0, 1.0], [-2.0, 0.0]]), atol=1e-6, rtol=0)


def test_only_the_chosen_recordings_turn():
    made = rotate(cut(one(straight(6)), 3), math.pi, [False, True])
    torch.testing.assert_close(made[0].values, straight(6).values[:3])
    torch.testing.assert_close(made[1].values, torch.tensor([105.0, 68.0]) - straight(6).values[3:])


def test_units_keep_lengths():
    made = convert_unit(one(straight(3)), "ft")
    torch.testing.assert_close(made.values * 0.3048, straight(3).values)
    assert made.spec.high == pytest.approx((105 / 0.3048, 68 / 0.3048))
    with pytest.raises(ConfigError, match="'px' is no unit of length"):
        convert_unit(made, "px")


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_smoothing_keeps_polynomials_even_around_gaps(degree):
    t = torch.arange(30.0)
    curve = torch.stack([sum((k + 1) * (t / 10) ** k for k in range(degree + 1)), t / 10 if degree else t * 0], -1)
    given = gone(Tracks(curve.unsqueeze(1).repeat(1, 2, 1), torch.ones(30, 2).bool()), 0, 7, 8, 20)
    made = smooth(one(given), 4, degree)
    torch.testing.assert_close(made.values[made.present], given.values[given.present], atol=1e-3, rtol=1e-4)
    assert torch.equal(made.present, given.present)


def test_smoothing_is_the_filter_of_savitzky_and_golay():
    given = walk(15)
    made = smooth(one(Tracks(given, torch.ones(15, 2).bool())), 2).values
    weights = torch.tensor([-3.0, 12.0, 17.0, 12.0, -3.0]) / 35  # quadratic over five points, their table
    for t in range(2, 13):
        torch.testing.assert_close(made[t], torch.einsum("w,wad->ad", weights, given[t - 2 : t + 3]))


def test_smoothing_lowers_noise_as_much_as_it_should():
    noise = torch.randn(4000, 1, 2, generator=generator(1))
    made = smooth(one(Tracks(noise, torch.ones(4000, 1).bool()), TrackSpec(agents=1)), 5, 0).values[5:-5]
    assert made.var().item() == pytest.approx(1 / 11, rel=0.1)  # a mean of eleven


def test_velocities_are_known_where_both_frames_are():
    given = gone(straight(6), 1, 2)
    way, known = velocities(given.values, given.present, 0.1)
    assert (~known).nonzero().tolist() == [[0, 0], [0, 1], [2, 1], [3, 1]]
    torch.testing.assert_close(way[known], torch.tensor([1.0, 2.0]).expand(8, 2))
    assert not way[~known].any()


# --------------------------------------------------------------------------------------------------------------- roles


@pytest.mark.parametrize("rows", [1, 2, 4, 6])
def test_an_assignment_costs_least_of_all(rows):
    for seed in range(20):
        cost = torch.randn(rows, 6, generator=generator(seed, rows))
        found = assignment(cost)
        assert len(set(found.tolist())) == rows
        least = min(
            sum(cost[i, j].item() for i, j in enumerate(columns)) for columns in itertools.permutations(range(6), rows)
        )
        assert cost[torch.arange(rows), found].sum().item() == pytest.approx(least, abs=1e-5)


def test_an_assignment_needs_columns_for_its_rows():
    with pytest.raises(ConfigError, match="3 rows cannot have a column each of 2"):
        assignment(torch.zeros(3, 2))


FORMATION = torch.tensor([[0.0, -8.0], [3.0, 0.0], [0.0, 8.0], [-9.0, 0.0], [50.0, 50.0]])
TEAM = TrackSpec(agents=5, teams=("red",) * 4 + ("ball",))


def shuffled(recordings: int, noise: float) -> tuple[TrackSet, list[torch.Tensor]]:
    """Recordings of a formation that moves as a whole, its agents in another order each time."""
    made, orders = [], []
    for k in range(recordings):
        source = generator(k, "roles")
        order = torch.cat([torch.randperm(4, generator=source), torch.tensor([4])])
        drift = torch.randn(1, 1, 2, generator=source) * 20 + torch.arange(30.0).reshape(-1, 1, 1)
        values = FORMATION[order] + drift + noise * torch.randn(30, 5, 2, generator=source)
        values[:, 4] -= drift[:, 0]
        present = torch.rand(30, 5, generator=source) < 0.9
        made.append(Tracks(values, present, {"who": order.expand(30, -1).clone()}))
        orders.append(order)
    return TrackSet.of(TEAM, made), orders


def test_who_stands_in_one_place_gets_one_slot_however_the_file_orders_them():
    given, orders = shuffled(12, noise=1.0)
    made, _ = align_roles(given, FORMATION - FORMATION[:4].mean(0) * torch.tensor([[1.0]] * 4 + [[0.0]]))
    assert all((each.labels["who"] == torch.arange(5)).all() for each in made)
    assert all(
        order[each.labels["slot"][0]].tolist() == [0, 1, 2, 3, 4] for each, order in zip(made, orders, strict=True)
    )
    assert made.spec.names == ("red_role_0", "red_role_1", "red_role_2", "red_role_3", "agent_4")
    assert made.present.sum() == given.present.sum()


def test_roles_that_are_learnt_are_the_same_in_every_recording():
    given, _ = shuffled(12, noise=2.0)
    made, places = align_roles(given)
    first = made[0].labels["who"][0]
    assert all((each.labels["who"] == first).all() for each in made)
    meant = (FORMATION[:4] - FORMATION[:4].mean(0))[first[:4]]
    assert (places[:4] - meant).norm(dim=-1).max() < 1.0


def test_roles_ask_for_positions_and_a_place_each():
    with pytest.raises(ConfigError, match="a place for each slot"):
        align_roles(one(straight(3)), torch.zeros(3, 2))
    voices = one(Tracks(torch.zeros(2, 1).long(), torch.ones(2, 1).bool()), TrackSpec(agents=1, dims=0, symbols=2))
    with pytest.raises(ConfigError, match="is for positions"):
        align_roles(voices)
