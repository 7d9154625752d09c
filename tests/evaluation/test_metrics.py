"""Returns, likelihoods and distances on segments small enough to work out, with masks, and intervals that cover."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.utils.rnn import pad_sequence as pad

from understudy.core.errors import DemosError, ShapeError
from understudy.core.random import generator
from understudy.core.types import Continuous, Discrete, EnvSpec, MultiDiscrete, Segment, View
from understudy.evaluation.metrics import (
    Rows,
    accuracy,
    acting,
    as_numbers,
    by_agent,
    calibration_error,
    compare,
    distance,
    joint_likelihood,
    jointly,
    lengths,
    likelihood,
    normalised_return,
    relative_positions,
    reliability,
    returns,
    team_returns,
    total_correlation,
)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=generator(seed, "test"))


def choices(*shape: int, seed: int = 0, of: int = 3) -> torch.Tensor:
    return torch.randint(of, shape, generator=generator(seed, "choices"))


def segment(actions: torch.Tensor, *, obs: torch.Tensor | None = None, **rest) -> Segment:
    """[episode, time, agent] of choices, or with real numbers behind; obs of one zero unless given."""
    obs = torch.zeros(*actions.shape[:3], 1) if obs is None else obs
    return Segment(View(obs, present=rest.pop("present", None)), actions, **rest)


def padded() -> Segment:
    """Two episodes of 3 and 2 steps, two agents; agent 1 leaves after the first step of the first."""
    rewards = torch.tensor([[[1.0, 10.0], [2.0, 20.0], [3.0, 30.0]], [[4.0, 40.0], [5.0, 50.0], [99.0, 99.0]]])
    present = torch.tensor([[[1, 1], [1, 0], [1, 0]], [[1, 1], [1, 1], [1, 1]]]).bool()
    valid = torch.tensor([[1, 1, 1], [1, 1, 0]]).bool()
    return segment(torch.zeros(2, 3, 2).long(), rewards=rewards, valid=valid, present=present)


def test_returns_count_neither_padding_nor_absence():
    assert returns(padded()).tolist() == [[6.0, 10.0], [9.0, 90.0]]
    assert lengths(padded()).tolist() == [3, 2]
    assert acting(padded()).sum().item() == 8


def test_teams_earn_what_their_agents_earn_on_average():
    earned = team_returns(torch.tensor([[1.0, 3.0, -4.0]]), ("red", "red", "blue"))
    assert {team: r.item() for team, r in earned.items()} == {"red": 2.0, "blue": -4.0}


def test_a_segment_without_rewards_or_without_a_time_axis_is_refused():
    with pytest.raises(DemosError, match="no rewards"):
        returns(segment(torch.zeros(2, 3, 2).long()))
    with pytest.raises(ShapeError, match=r"\[6, 2, 1\], but whole episodes"):
        lengths(Segment(View(torch.zeros(6, 2, 1)), torch.zeros(6, 2).long()))


def test_the_normalised_return_of_published_means_and_its_ends():
    """Coop. navigation of MA-AIRL, table 1: MA-GAIL -52.810 between random -391.314 and experts -43.195 is 0.972."""
    noise = normal(400)
    noise = (noise - noise.mean()) * 3
    learned, experts, random = (noise + m for m in (-52.810, -43.195, -391.314))
    found = normalised_return(learned, experts, random, generator(0))
    assert found.value == pytest.approx(0.972, abs=5e-4)
    # Standard error: 3 / sqrt(400) / 348.1 from the learners and about as much from the demonstrators.
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * 3 / 20 / 348.1 * math.sqrt(1.97), rel=0.15)
    assert normalised_return(experts, experts, random, generator(0)).value == 1
    assert normalised_return(random, experts, random, generator(0)).value == 0
    with pytest.raises(DemosError, match="no scale between them"):
        normalised_return(learned, experts, experts, generator(0))


def test_likelihood_weighs_every_acting_agent_step_alike():
    log_prob = torch.full((2, 3, 2), -1.0)
    log_prob[1, 2] = -torch.inf  # padding
    log_prob[0, 1:, 1] = 1e9  # absent
    log_prob[0, 0, 0] = -9.0
    assert likelihood(log_prob, padded(), generator(0)).value == pytest.approx(-2.0)  # (7 * -1 - 9) / 8
    assert joint_likelihood(log_prob, padded(), generator(0)).value == pytest.approx(-16 / 5)


def test_conventions_cost_independent_agents_twice_what_they_cost_coordinated_ones():
    followed = segment(choices(50, 4, 1, of=4).expand(-1, -1, 2))
    alone = torch.full((50, 4, 2), -math.log(4))
    second_follows = alone.clone()
    second_follows[..., 1] = 0.0
    assert joint_likelihood(alone, followed, generator(0)).value == pytest.approx(-2 * math.log(4))
    assert joint_likelihood(second_follows, followed, generator(0)).value == pytest.approx(-math.log(4))
    assert total_correlation(followed, Discrete(4)).value == pytest.approx(math.log(4), abs=0.05)


def test_intervals_take_whole_episodes_as_the_unit():
    """All steps of an episode alike: the spread is that of 40 episodes and not of 40 * 50 steps."""
    per_episode = normal(40, 1, 1)
    found = likelihood(per_episode.expand(40, 50, 2), segment(choices(40, 50, 2)), generator(0))
    error = per_episode.std(correction=0).item() / math.sqrt(40)
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * error, rel=0.1)
    assert found.n == 40


def test_accuracy_and_calibration_of_a_policy_that_knows_its_odds():
    log_probs = torch.tensor([0.7, 0.2, 0.1]).log().expand(200, 10, 2, 3)
    made = torch.multinomial(log_probs[0, 0, 0].exp(), 4000, replacement=True, generator=generator(1))
    honest = segment(made.reshape(200, 10, 2))
    error = 5 * math.sqrt(0.7 * 0.3 / 4000)
    assert accuracy(log_probs, honest, generator(0)).value == pytest.approx(0.7, abs=error)
    assert calibration_error(log_probs, honest, generator(0)).value < error
    boasting = torch.tensor([0.98, 0.01, 0.01]).log().expand(200, 10, 2, 3)
    found = calibration_error(boasting, honest, generator(0))
    assert found.value == pytest.approx(0.28, abs=error) and found.low < 0.28 + error and found.high > 0.28 - error
    curve = reliability(boasting, honest, bins=10)
    assert curve.share.tolist() == [0] * 9 + [1] and curve.confidence[9].item() == pytest.approx(0.98)


def test_calibration_ignores_padding_and_the_absent():
    log_probs = torch.tensor([0.9, 0.1]).log().expand(2, 3, 2, 2).clone()
    log_probs[~acting(padded())] = torch.tensor([0.1, 0.9]).log()
    assert accuracy(log_probs, padded(), generator(0)).value == 1
    assert reliability(log_probs, padded()).error.item() == pytest.approx(0.1)


def test_actions_as_numbers():
    assert as_numbers(torch.tensor([2]), Discrete(3)).tolist() == [[0, 0, 1]]
    assert as_numbers(torch.tensor([[1, 0]]), MultiDiscrete((2, 3))).tolist() == [[0, 1, 1, 0, 0]]
    assert as_numbers(torch.tensor([[0.5]]), Continuous(1)).tolist() == [[0.5]]


def test_joint_rows_hide_what_absent_agents_would_have_shown():
    s = padded()
    numbers = normal(2, 3, 2, 2)
    changed = torch.where(acting(s).unsqueeze(-1), numbers, 77.0)
    for rows in (jointly, relative_positions):
        one, other = rows(numbers, s), rows(changed, s)
        torch.testing.assert_close(one.values[one.valid], other.values[other.valid])
    assert jointly(numbers, s).values.shape == (2, 3, 2 * 2 + 2)
    assert relative_positions(numbers, s).values.shape == (2, 3, 2 + 1)
    torch.testing.assert_close(by_agent(numbers, s).values[0, 3], numbers[0, 1, 1])
    assert not by_agent(numbers, s).valid[0, 3]


def test_relative_positions_stay_when_all_walk_together():
    s, places = segment(choices(4, 5, 3)), normal(4, 5, 3, 2)
    moved = relative_positions(places + normal(4, 5, 1, 2, seed=1), s)
    torch.testing.assert_close(moved.values, relative_positions(places, s).values)
    torch.testing.assert_close(moved.values[..., 2:4], places[:, :, 2] - places[:, :, 0])  # pairs 01, 02, 12


def rows_of(values: torch.Tensor) -> Rows:
    return Rows(values, torch.ones(values.shape[:2], dtype=torch.bool))


def test_a_distance_has_no_unit_and_does_not_see_what_never_varies():
    x, y = normal(10, 8, 3), normal(10, 8, 3, seed=1) + 0.5
    plain = distance(rows_of(x), rows_of(y), generator(0))
    scale = torch.tensor([1e3, 1e-3, 7.0])
    scaled = distance(rows_of(x * scale), rows_of(y * scale), generator(0))
    constant = torch.full((10, 8, 1), 3.3)
    wider = distance(rows_of(torch.cat([x, constant], -1)), rows_of(torch.cat([y, constant], -1)), generator(0))
    for other in (scaled, wider):
        assert other.energy.value == pytest.approx(plain.energy.value, rel=1e-4)
        assert other.mmd2.value == pytest.approx(plain.mmd2.value, rel=1e-4)
    assert plain.p_value == 0.001 and plain.energy.low > 0


def test_the_distance_of_shifted_gaussians_is_covered_and_none_is_found_where_none_is():
    covered = 0
    for seed in range(25):
        x, y = normal(12, 6, 1, seed=2 * seed), normal(12, 6, 1, seed=2 * seed + 1)
        energy = distance(rows_of(x), rows_of(y), generator(seed)).energy
        covered += energy.low <= 0 <= energy.high
    assert covered >= 20  # 95 % meant; percentile intervals of a dozen episodes are somewhat narrow


def test_a_subsample_of_rows_estimates_the_same_distance():
    x, y = rows_of(normal(30, 100, 2)), rows_of(normal(30, 100, 2, seed=1) + 0.7)
    few, all_of_them = (distance(x, y, generator(0), most).energy for most in (500, 1500))
    assert few.low < all_of_them.value < few.high
    assert few.value == pytest.approx(all_of_them.value, rel=0.2)


def test_two_episodes_are_compared_but_get_no_interval():
    found = distance(rows_of(normal(2, 9, 2)), rows_of(normal(3, 9, 2, seed=1) + 1), generator(0))
    assert found.energy.value > 0 and math.isinf(found.energy.high) and found.energy.n == 2


def test_total_correlation_of_actions_with_its_interval():
    independent = total_correlation(segment(choices(60, 20, 2)), Discrete(3))
    assert independent.low < 0.005 and independent.high > -0.005 and abs(independent.value) < 0.02
    parts = torch.stack([choices(60, 20, 2), choices(60, 20, 1, seed=1).expand(-1, -1, 2)], -1)
    shared_part = total_correlation(segment(parts), MultiDiscrete((3, 3)))
    assert shared_part.low < math.log(3) < shared_part.high + 0.01
    assert shared_part.value == pytest.approx(math.log(3), abs=0.05)


def test_total_correlation_of_real_numbers_ignores_moments_with_someone_missing():
    shared = normal(60, 20, 1, 1)
    actions = torch.cat([shared, shared + normal(60, 20, 1, 1, seed=1)], 2) + 5.0
    exact = -0.5 * math.log(1 - 0.5)
    found = total_correlation(segment(actions), Continuous(1))
    assert found.low < exact < found.high and found.value == pytest.approx(exact, abs=0.06)
    present = torch.rand(60, 20, 2, generator=generator(2)) < 0.7
    masked = torch.where(present.unsqueeze(-1), actions, 1e6)
    some = total_correlation(segment(masked, present=present), Continuous(1))
    assert some.value == pytest.approx(exact, abs=0.1)


def test_the_jackknife_covers_a_correlation_of_choices():
    exact = 0.8 * math.log(1.6) + 0.2 * math.log(0.4)  # two agents of two choices that agree 8 times in 10
    covered = 0
    for seed in range(60):
        one = choices(30, 10, 1, seed=seed, of=2)
        other = torch.where(torch.rand(one.shape, generator=generator(seed)) < 0.8, one, 1 - one)
        found = total_correlation(segment(torch.cat([one, other], 2)), Discrete(2))
        covered += found.low <= exact <= found.high
    assert covered >= 51  # binomial(60, 0.95) less three standard errors


def spec() -> EnvSpec:
    return EnvSpec(agents=2, obs=3, action=Discrete(3), names=("ann", "bob"), teams=("red", "blue"))


def played(seed: int, shift: float = 0.0, *, agreed: bool = False) -> Segment:
    actions = choices(20, 8, 2, seed=seed)
    if agreed:
        actions = actions[..., :1].expand(-1, -1, 2)
    return segment(actions, obs=normal(20, 8, 2, 3, seed=seed) + shift, rewards=normal(20, 8, 2, seed=seed) + shift)


def test_a_comparison_names_everything_and_finds_what_differs():
    found = compare(
        spec(), played(0, agreed=True), played(1, 0.6), generator(0), played(2, -1.0), positions=slice(0, 2)
    )
    assert found["demonstrated return/bob"].value == pytest.approx(8 * 0.6, abs=2.5)
    assert set(found) >= {"return/red", "normalised return/blue", "length", "mmd2/relative positions", "p/obs"}
    assert found["p/obs"].value == 0.001 and found["energy/obs"].low > 0
    assert found["p/joint actions"].value == 0.001 and found["p/actions"].value > 0.001  # only together do they show it
    assert found["total correlation"].value > 0.9 > 0.1 > found["demonstrated total correlation"].value


def test_the_same_comparison_repeats_to_the_bit_and_likes_find_likes():
    one, again = (compare(spec(), played(3), played(4), generator(7)) for _ in range(2))
    assert one == again
    assert min(e.value for name, e in one.items() if name.startswith("p/")) > 0.01
    assert not any(name.startswith("normalised") for name in one)


def test_a_lone_agent_has_nothing_joint():
    alone = EnvSpec(agents=1, obs=1, action=Continuous(2))
    one, other = (segment(normal(6, 5, 1, 2, seed=s), obs=normal(6, 5, 1, 1, seed=s)) for s in (0, 1))
    found = compare(alone, one, other, generator(0))
    assert set(found) == {
        *("length", "demonstrated length", "energy/obs", "mmd2/obs", "p/obs"),
        *("energy/actions", "mmd2/actions", "p/actions"),
    }


def people_in_kitchens(folder: Path) -> dict[str, tuple[Segment, torch.Tensor]]:
    """By layout: where both cooks stood, what they did, and which of the episodes are of the `test` people."""
    with np.load(folder / "overcooked_human" / "overcooked_hh_2019.npz") as arrays:
        names = sorted(name.removesuffix("/act") for name in arrays if name.endswith("/act"))
        trials = {name: (arrays[f"{name}/act"], arrays[f"{name}/pos"]) for name in names}
    found = {}
    for layout in {name.split("/")[1] for name in names}:
        here = [name for name in names if name.split("/")[1] == layout]
        actions, places = (pad([torch.from_numpy(trials[n][k]) for n in here], batch_first=True) for k in (0, 1))
        valid = pad([torch.ones(len(trials[n][0]), dtype=torch.bool) for n in here], batch_first=True)
        test = torch.tensor([name.startswith("test") for name in here])
        found[layout] = Segment(View(places.float()), actions.long(), valid=valid), test
    return found


def test_people_who_cook_together_hardly_show_it_in_the_moves_of_one_moment(data_folder):
    """Known of these recordings: 0.0006 to 0.026 nats by plain counts, which chance alone lifts by 25 / (2 steps)."""
    recorded = people_in_kitchens(data_folder)
    assert len(recorded) == 5
    for layout, (cooks, _) in recorded.items():
        found = total_correlation(cooks, Discrete(6))
        by_chance = 25 / (2 * int(lengths(cooks).sum()))
        assert 0.0005 < found.value + by_chance < 0.027, layout
        assert found.low < 0.02 and found.high > 0


def test_other_people_in_the_same_kitchen_are_not_told_apart_but_other_kitchens_are(data_folder):
    recorded = people_in_kitchens(data_folder)
    rows, test = {}, {}
    for layout, (cooks, is_test) in recorded.items():
        rows[layout], test[layout] = jointly(cooks.obs, cooks), is_test

    def some(layout: str, which: torch.Tensor) -> Rows:
        return Rows(rows[layout].values[which], rows[layout].valid[which])

    for layout, which in test.items():
        same = distance(some(layout, ~which), some(layout, which), generator(0), most=500)
        assert same.p_value > 0.05 and same.energy.low < 0 < same.energy.high, layout
    ring, room = (some(layout, test[layout]) for layout in ("coordination_ring", "cramped_room"))
    assert distance(ring, room, generator(0), most=500).p_value == 0.001
