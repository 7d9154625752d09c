"""Labels from programs: paths on which they are known, a slow twin of the paper's rule, and gaps."""

import itertools
import math

import pytest
import torch

from understudy.core.errors import ConfigError
from understudy.core.random import generator
from understudy.demos.labels import (
    HALF_COURT,
    Grid,
    average_speed,
    binned,
    cadence,
    curvature,
    destination,
    direction,
    displacement,
    next_known,
    possession,
    stationary_cell,
    window_cell,
)
from understudy.demos.tracks import Tracks, TrackSet, TrackSpec

SPEC = TrackSpec(agents=2, dt=0.2, unit="ft")


def path(*points: tuple[float, float], present: list[bool] | None = None) -> Tracks:
    """One walks through `points`, the other stands at (1, 1)."""
    values = torch.tensor([[p, (1.0, 1.0)] for p in points])
    there = torch.ones(len(points), 2, dtype=torch.bool)
    there[:, 0] = torch.tensor(present) if present else True
    return Tracks(values, there)


def test_cells_of_the_half_court_are_the_papers():
    points = torch.tensor([[0.0, 0.0], [4.9, 49.9], [5.0, 0.0], [44.9, 26.0], [90.0, -3.0], [-7.0, 60.0]])
    meant = [min(max(int(x / 5), 0), 8) * 10 + min(max(int(y / 5), 0), 9) for x, y in points.tolist()]
    assert HALF_COURT.cell(points).tolist() == meant == [0, 9, 10, 85, 80, 9]
    assert len(HALF_COURT) == 90
    every = torch.arange(90)
    assert torch.equal(HALF_COURT.cell(HALF_COURT.middle(every)), every)


def test_a_goal_outside_the_field_is_refused():
    assert HALF_COURT.goal(45, 50) == 89
    with pytest.raises(ConfigError, match=r"goal: \(46, 3\) lies outside the field from \(0.0, 0.0\)"):
        HALF_COURT.goal(46, 3)
    with pytest.raises(ConfigError, match="no bounds"):
        Grid.of(SPEC, (3, 3))
    assert Grid.of(TrackSpec(agents=1, low=(0.0, 0.0), high=(6.0, 4.0)), (3, 2)).goal(5, 3) == 5


def slow_twin(values: torch.Tensor, slow: float) -> list[int]:
    """The rule of stationary cells as it is told: backwards, one frame after another."""
    points = values.tolist()
    still = [math.dist(a, b) < slow for a, b in itertools.pairwise(points)] + [True]
    cell = [int(min(max(x // 5, 0), 8)) * 10 + int(min(max(y // 5, 0), 9)) for x, y in points]
    labels = [cell[-1]]
    for t in range(len(points) - 2, -1, -1):
        labels.insert(0, cell[t] if still[t] and not still[t + 1] else labels[0])
    return labels


def test_stationary_cells_are_those_of_the_slow_rule():
    source = generator(0, "walk")
    for _ in range(20):
        gait = torch.rand(60, 3, 1, generator=source).repeat_interleave(2, 0) < 0.5
        steps = torch.randn(120, 3, 2, generator=source) * torch.where(gait, 0.1, 1.5)
        values = steps.cumsum(0) + torch.tensor([20.0, 25.0])
        made = stationary_cell(HALF_COURT)(Tracks(values, torch.ones(120, 3).bool()), SPEC)
        for agent in range(3):
            assert made[:, agent].tolist() == slow_twin(values[:, agent], 0.5)


def test_a_gap_ends_a_walk_and_begins_another():
    values = torch.randn(40, 2, 2, generator=generator(1)).cumsum(0) + 25
    present = torch.ones(40, 2, dtype=torch.bool)
    present[17:21, 0] = False
    made = stationary_cell(HALF_COURT)(Tracks(values, present), SPEC)
    assert made[:, 0].tolist() == [
        *slow_twin(values[:17, 0], 0.5), -1, -1, -1, -1, *slow_twin(values[21:, 0], 0.5)
    ]  # fmt: skip
    assert made[:, 1].tolist() == slow_twin(values[:, 1], 0.5)


def test_windows_and_destinations_look_to_their_ends():
    walk = path((1, 1), (6, 1), (11, 1), (16, 1), (21, 1), present=[True, True, True, False, True])
    assert window_cell(HALF_COURT, 2)(walk, SPEC)[:, 0].tolist() == [10, 10, 20, -1, 40]
    assert destination(HALF_COURT)(walk, SPEC).tolist() == [[40, 0], [40, 0], [40, 0], [-1, 0], [40, 0]]


def test_speed_displacement_and_direction_of_a_known_walk():
    walk = path((0, 0), (3, 4), (3, 9), (3, 9), (0, 9))
    torch.testing.assert_close(average_speed()(walk, SPEC)[:, 0], torch.full((5,), (5 + 5 + 0 + 3) / 4 / 0.2))
    torch.testing.assert_close(average_speed(2)(walk, SPEC)[:, 0], torch.tensor([5.0, 5.0, 2.5, 2.5, 3.0]) / 0.2)
    torch.testing.assert_close(displacement(3)(walk, SPEC)[:, 0], torch.tensor([90**0.5] * 3 + [3.0] * 2))
    torch.testing.assert_close(direction(3)(walk, SPEC)[3:, 0], torch.full((2,), math.pi))
    assert direction(sectors=4)(walk, SPEC).tolist() == [[1, -1]] * 5
    assert direction(3, sectors=4)(walk, SPEC)[:, 0].tolist() == [1, 1, 1, 2, 2]


def test_what_is_not_known_is_said_to_be_unknown():
    walk = path((0, 0), (3, 4), (9, 9), (6, 8), present=[True, True, False, True])
    speed = average_speed()(walk, SPEC)[:, 0]
    assert speed[2].isnan() and speed[0].item() == pytest.approx(5 / 0.2)  # of the one step that is known
    alone = path((0, 0), (3, 4), present=[False, True])
    assert average_speed()(alone, SPEC)[:, 0].isnan().all()
    assert direction()(alone, SPEC)[:, 0].isnan().all()
    assert displacement()(alone, SPEC)[1, 0] == 0


@pytest.mark.parametrize("radius", [0.5, 2.0, 30.0])
def test_a_circle_has_the_curvature_of_its_radius(radius):
    turn = torch.arange(200) * 0.05
    values = radius * torch.stack([turn.cos(), turn.sin()], -1).unsqueeze(1)
    made = curvature()(Tracks(values, torch.ones(200, 1).bool()), TrackSpec(agents=1))
    assert made[0, 0].item() == pytest.approx(1 / radius, rel=0.01)
    straight = curvature()(path((0, 0), (1, 1), (2, 2), (7, 7)), SPEC)
    assert straight[0, 0].item() == pytest.approx(0, abs=1e-3) and straight[0, 1].isnan()


def test_possession_goes_to_the_nearest_within_reach_and_stays():
    spec = TrackSpec(agents=3, names=("ball", "ann", "bob"))
    ball = torch.tensor([[0.0, 0.0], [2.0, 0.0], [5.0, 0.0], [9.0, 0.0], [9.5, 0.0]])
    others = torch.tensor([[0.5, 0.0], [10.0, 0.0]]).expand(5, 2, 2)
    present = torch.ones(5, 3, dtype=torch.bool)
    present[4, 0] = False
    tracks = Tracks(torch.cat([ball.unsqueeze(1), others], 1), present)
    assert possession("ball", 1.5)(tracks, spec).tolist() == [1, 1, 1, 2, 2]
    assert possession("ball", 1.5, hold=False)(tracks, spec).tolist() == [1, 1, -1, 2, -1]
    with pytest.raises(ConfigError, match="Did you mean `ball`"):
        possession("bal", 1.0)(tracks, spec)


def test_cadences_are_where_all_voices_rest():
    spec = TrackSpec(agents=2, dims=0, symbols=9, clock="beat")
    voices = [[1, 5], [2, 5], [3, 6], [3, 6], [3, 6], [4, 6], [4, 7]]
    tracks = Tracks(torch.tensor(voices), torch.ones(7, 2).bool())
    assert cadence(3)(tracks, spec).tolist() == [2, 1, 0, 0, 0, -1, -1]
    assert cadence(9)(tracks, spec).tolist() == [-1] * 7


def test_the_next_thing_that_happens_is_known_before_it_does():
    said = torch.tensor([[-1, -1], [3, -1], [-1, -1], [-1, 4], [-1, -1]])
    tracks = Tracks(torch.zeros(5, 2, 2), torch.ones(5, 2).bool(), {"took": said})
    assert next_known("took")(tracks, SPEC).T.tolist() == [[3, 3, -1, -1, -1], [4, 4, 4, 4, -1]]
    with pytest.raises(ConfigError, match=r"no label is called 'take'. Did you mean `took`"):
        next_known("take")(tracks, SPEC)


def test_bins_count_the_edges_below():
    walk = path((0, 0), (3, 4), (3, 9), (9, 9), (0, 9), present=[True, True, True, True, False])
    bins = binned(average_speed(1), (20.0, 25.0, 30.0))(walk, SPEC)[:, 0]
    assert bins.tolist() == [-1, 2, 2, 3, -1]  # 25, 25 and 30 ft/s
    with pytest.raises(ConfigError, match="numbers that rise"):
        binned(average_speed(), (2.0, 1.0))


def test_labels_go_with_the_set_and_its_clips():
    made = TrackSet.of(SPEC, [path((1, 1), (6, 1), (6, 1), (40, 40))]).labelled(
        goal=stationary_cell(HALF_COURT), own=lambda tracks, spec: tracks.values[..., 0] > 5
    )
    clips = made.clips(2)
    assert clips.labels["goal"][:, :, 0].tolist() == [[10, 10], [88, 88]]
    assert clips.labels["own"][:, :, 0].tolist() == [[0, 1], [1, 1]]
