"""Measures of scenes: closed forms, and what must score best and worst."""

import math

import pytest
import torch

from understudy.core.errors import DemosError
from understudy.core.random import generator
from understudy.demos.tracks import TrackSet, TrackSpec
from understudy.evaluation import scenes
from understudy.nets.scene import Likelihood


class Coins:
    """Every symbol of four is as likely as the others."""

    def __call__(self, clips):
        frames = -math.log(4) * clips.present.sum(-1).float()
        return Likelihood(frames, clips.present, torch.zeros_like(frames))


def straight(scenes_=2, frames=5, agents=3):
    """Agent i walks (i + 1) to the right in each frame, on a line of its own ten above the last."""
    t = torch.arange(frames).float()
    x = t.unsqueeze(-1) * torch.arange(1, agents + 1)
    y = 10.0 * torch.arange(agents).expand_as(x)
    values = torch.stack([x, y], dim=-1).expand(scenes_, -1, -1, -1)
    return values, torch.ones(values.shape[:3], dtype=torch.bool)


def test_nats_of_even_chances_are_known_whatever_the_lengths():
    spec = TrackSpec(2, dims=0, symbols=4)
    pieces = [TrackSet.stacked(spec, torch.zeros(1, frames, 2, dtype=torch.long))[0] for frames in (3, 8, 5)]
    found = scenes.likelihood(Coins(), TrackSet.of(spec, pieces), generator(0), rows=2)
    assert found.frames == 16
    for estimate, meant in ((found.per_frame, 2 * math.log(4)), (found.per_move, math.log(4))):
        assert (estimate.value, estimate.low, estimate.high) == pytest.approx((meant,) * 3)
    clipped = scenes.likelihood(Coins(), TrackSet.of(spec, pieces), generator(0), rows=2, length=2)
    assert clipped.frames == 14 and clipped.per_frame.value == pytest.approx(2 * math.log(4))
    with pytest.raises(DemosError, match="nothing to measure"):
        scenes.likelihood(Coins(), TrackSet.of(spec, []), generator(0))


def test_the_best_future_of_each_agent_may_be_another_than_the_best_of_the_scene():
    """Two futures: in the first agent 0 is right and agent 1 off by 2, in the second off by 3 and right."""
    came = torch.zeros(1, 4, 2, 2)
    futures = torch.zeros(2, 1, 4, 2, 2)
    futures[0, :, :, 1, 0], futures[1, :, :, 0, 1] = 2.0, 3.0
    futures[0, :, -1, 1, 0] = 6.0
    found = scenes.displacement_errors(futures, came, torch.ones(1, 2, dtype=torch.bool), generator(0))
    values = {name: estimate.value for name, estimate in found.figures.items()}
    assert values == pytest.approx({"minADE": 0, "minFDE": 0, "minJADE": 1.5, "minJFDE": 1.5})
    one = scenes.displacement_errors(futures[:1], came, torch.ones(1, 2, dtype=torch.bool), generator(0))
    assert one.min_ade.value == pytest.approx(1.5) and one.min_fde.value == pytest.approx(3.0)
    there = torch.tensor([[True, False]])
    assert scenes.displacement_errors(futures[:1], came, there, generator(0)).min_jfde.value == 0


def test_diversity_is_the_mean_distance_between_futures():
    futures = torch.zeros(3, 1, 4, 1, 2)
    futures[1, ..., 0], futures[2, ..., 0] = 1.0, 3.0
    there = torch.ones(1, 1, dtype=torch.bool)
    assert scenes.diversity(futures, there) == pytest.approx((1 + 2 + 3) / 3)
    assert scenes.diversity(futures[:1].expand(3, -1, -1, -1, -1), there) == 0


def test_ranks_are_even_for_samples_of_the_truth_and_not_for_others():
    source = generator(0)
    came, samples = torch.randn(20_000, generator=source), torch.randn(9, 20_000, generator=source)
    where = torch.ones(20_000, dtype=torch.bool)
    even = scenes.ranks(samples, came, where)
    assert even.shape == (10,) and (even - 0.1).abs().max() < 5 * math.sqrt(0.09 / 20_000)
    narrow = scenes.ranks(samples / 3, came, where)
    assert narrow[0] > 0.2 and narrow[-1] > 0.2


def test_samples_of_the_truth_cover_it_as_often_as_they_should_and_narrow_ones_less():
    came = torch.randn(4000, generator=generator(0))
    futures, where = torch.randn(20, 4000, generator=generator(1)), torch.ones(4000, dtype=torch.bool)
    found, nominal = scenes.covered(futures, came, where)
    assert nominal == 17 / 21 and abs(found - nominal) < 4 * math.sqrt(nominal * (1 - nominal) / 4000)
    assert scenes.covered(0.2 * futures, came, where)[0] < 0.4
    where[2000:] = False
    came[2000:] = 100
    assert abs(scenes.covered(futures, came, where)[0] - nominal) < 0.05


def test_a_scene_in_a_row_is_means_and_deviations_of_who_is_there():
    values = torch.zeros(2, 4, 3, 2)
    values[0, :, 0, 0] = torch.tensor([0.0, 1.0, 2.0, 3.0])  # one walks at 1, one at 3, the third is not there
    values[0, :, 1, 0] = torch.tensor([0.0, 3.0, 6.0, 9.0])
    present = torch.zeros(2, 4, 3, dtype=torch.bool)
    present[0, :, :2] = True
    walks, nobody = scenes.in_rows(values, present, 0.5)
    assert walks[:4].tolist() == pytest.approx([4.0, 2.0, 0.0, 0.0])  # speeds of 2 and 6 a second, never changing
    near = torch.tensor([0.0, 2.0, 4.0, 6.0])
    assert walks[6:].tolist() == pytest.approx([3.0, float(near.std(correction=0))])
    assert nobody.tolist() == [0.0] * 8


def test_features_of_straight_walks_are_known():
    values, present = straight()
    fast, where = scenes.speed(values, present, 0.5)
    assert where.all() and torch.equal(fast[0, 0], torch.tensor([2.0, 4.0, 6.0]))
    assert scenes.acceleration(values, present, 0.5)[0].abs().max() == 0
    assert scenes.turning(values, present, 0.5)[0].abs().max() == 0
    apart, where = scenes.nearest(values, present, 0.5)
    assert where.all() and apart[0, 0].tolist() == [10, 10, 10]
    present = present.clone()
    present[:, :, 1:] = False
    assert not scenes.nearest(values, present, 0.5)[1].any()  # alone: there is no nearest
    corner = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 2.0]]).reshape(1, 3, 1, 2)
    turn, _ = scenes.turning(corner, torch.ones(1, 3, 1, dtype=torch.bool), 1.0)
    assert turn.item() == pytest.approx(math.pi / 2)  # to the left


def test_realism_is_higher_for_futures_like_the_one_that_came():
    source = generator(1)

    def walks(*shape, std):
        return (std * torch.randn(*shape, 20, 4, 2, generator=source)).cumsum(-3)

    came, present = walks(50, std=1.0), torch.ones(50, 20, 4, dtype=torch.bool)
    alike = scenes.realism(walks(16, 50, std=1.0), came, present, 0.1)
    wild = scenes.realism(walks(16, 50, std=3.0), came, present, 0.1)
    assert set(alike) == {*scenes.FEATURES, "realism"}
    assert all(alike[name] > wild[name] for name in ("speed", "acceleration", "realism"))
    assert alike["realism"] == pytest.approx(sum(alike[name] for name in scenes.FEATURES) / 4)
    same = scenes.realism(came.expand(3, -1, -1, -1, -1), came, present, 0.1)
    assert same["speed"] > alike["speed"]
    with torch.no_grad():  # of one bin every value is certain
        assert scenes.realism(came.unsqueeze(0), came, present, 0.1, bins=1)["realism"] == pytest.approx(1)


def test_a_classifier_finds_what_differs_and_guesses_where_nothing_does():
    source = generator(2)
    a, b, shifted = (torch.randn(600, 5, generator=source) for _ in range(3))
    assert abs(scenes.two_sample_auc(a, b, generator(3)) - 0.5) < 5 / math.sqrt(12 * 300) * math.sqrt(2)
    assert scenes.two_sample_auc(a, shifted + 1, generator(3)) > 0.9


def test_violations_are_counted():
    values, present = straight(agents=2)
    assert scenes.collisions(values, present, 11.0) == 1 and scenes.collisions(values, present, 10.01) == 0.2
    assert scenes.out_of_field(values, present, (0.0, 0.0), (5.0, 20.0)) == pytest.approx(2 / 5)  # agent 1 at 6 and 8
    assert scenes.too_fast(values, present, 0.5, 3.0) == pytest.approx(1 / 2)


def test_voices_that_cross_and_move_in_parallel_are_counted():
    #            fifth    fifth     held     octave   octave    rest
    upper = torch.tensor([20, 22, 22, 25, 24, 0])
    lower = torch.tensor([13, 15, 15, 13, 12, 12])
    song = torch.stack([upper, lower], dim=-1).unsqueeze(0)
    assert scenes.parallels(song) == pytest.approx(100 * 2 / 5)
    assert scenes.voice_crossings(song) == 0
    assert scenes.voice_crossings(song.flip(-1)) == pytest.approx(5 / 6)


def test_consistency_is_of_what_was_asked_for():
    assert scenes.consistency(torch.tensor([1, -1, 2, 0]), torch.tensor([1, 0, 1, 0])) == pytest.approx(2 / 3)
