import math
from dataclasses import replace

import pytest
import torch

from understudy import quickstart
from understudy.cooking import Steady, chain_likelihood, ratio_of_means, score_in_400, sharpen
from understudy.core.random import generator
from understudy.core.types import Segment, View
from understudy.envs.kitchen import Kitchen
from understudy.envs.kitchen_board import LAYOUTS
from understudy.nets import NetConfig, build_policy
from understudy.recordings import people_cooking, people_in_all_kitchens


def segment(actions, rewards=None, valid=None):
    actions = torch.tensor(actions)
    shape = actions.shape
    return Segment(
        View(torch.zeros(*shape, 1)),
        actions,
        rewards=None if rewards is None else torch.tensor(rewards),
        valid=torch.ones(shape[:2], dtype=torch.bool) if valid is None else torch.tensor(valid),
    )


def test_the_chain_counts_what_followed_what():
    train = segment([[[0], [1], [0], [1], [1]]])  # 0 -> 1 twice, 1 -> 0 once, 1 -> 1 once, first: 0
    test = segment([[[0], [1], [1]]])
    expected = -(math.log(2 / 7) + math.log(3 / 8) + math.log(2 / 8)) / 3  # one added to each of six counts
    assert chain_likelihood(train, test) == pytest.approx(expected)


def test_padding_tells_the_chain_nothing():
    train, valid = segment([[[0], [1], [5]]], valid=[[True, True, False]]), segment([[[0], [1]]])
    assert chain_likelihood(train, valid) == chain_likelihood(segment([[[0], [1]]]), valid)


@pytest.mark.parametrize(
    ("layout", "known"),  # of a Markov chain of own previous actions, as known of these recordings
    [
        ("cramped_room", 1.034),
        ("asymmetric_advantages", 1.346),
        ("coordination_ring", 1.336),
        ("forced_coordination", 1.206),
        ("counter_circuit", 1.337),
    ],
)
def test_the_chain_of_own_actions_is_as_likely_as_is_known(layout, known):
    kitchen = Kitchen(layout)
    train, test = (people_cooking(kitchen, split).padded() for split in ("train", "test"))
    assert chain_likelihood(train, test) == pytest.approx(known, abs=0.002)


def test_scores_are_told_for_400_steps():
    rewards = torch.zeros(1, 1200, 2)
    rewards[:, ::100] = 5.0  # twelve soups in three minutes
    played = segment(torch.zeros(1, 1200, 2, dtype=torch.long).tolist(), rewards.tolist())
    assert score_in_400(played).tolist() == [20.0]


def test_the_share_of_two_means_lies_in_an_interval_that_narrows():
    ours, theirs = torch.tensor([4.0, 6.0] * 50).double(), torch.tensor([9.0, 11.0] * 50).double()
    many = ratio_of_means(ours, theirs, generator(0))
    few = ratio_of_means(ours[:6], theirs[:6], generator(0))
    assert many.value == few.value == 0.5
    assert few.low < many.low < 0.5 < many.high < few.high


def test_all_kitchens_make_one_set_of_which_mirror_images_are_never_parted():
    plain, mirrored = people_in_all_kitchens("train"), people_in_all_kitchens("train", mirrored=True)
    assert len(plain) == 39
    assert len(mirrored) == 4 * 39
    assert mirrored.names[:5] == (plain.names[0],) * 4 + (plain.names[1],)
    assert (mirrored[0].actions == plain[0].actions).all()
    assert {e.info["layout"] for e in plain} == {"random0", "random3", *LAYOUTS} - {
        "forced_coordination",
        "counter_circuit",
    }
    north = [(e.actions == 0).sum() for e in mirrored]
    south = [(e.actions == 1).sum() for e in mirrored]
    assert north[0] == north[1] == south[2] == south[3], "the third and fourth image have north and south exchanged"


def test_a_steady_hand_keeps_the_share_of_moving_and_takes_the_likelier_move():
    chances, none = torch.tensor([0.2, 0.1, 0.05, 0.03, 0.6, 0.02]), torch.zeros(5, dtype=torch.bool)
    zero, one = torch.zeros(1), torch.ones(1)
    sharp = sharpen(chances.log(), none, one / 2, zero).softmax(-1)
    assert sharp[4].item() == pytest.approx(0.6)
    squares = torch.tensor([0.2, 0.1, 0.05, 0.03, 0.02]) ** 2
    torch.testing.assert_close(sharp[[0, 1, 2, 3, 5]], 0.4 * squares / squares.sum())
    torch.testing.assert_close(sharpen(chances.log(), none, one, zero).softmax(-1), chances)
    hasty = sharpen(chances.log(), none, one, one * math.log(2)).softmax(-1)
    assert hasty[4].item() == pytest.approx(0.3 / 0.7)


def test_what_changes_nothing_counts_as_waiting():
    chances = torch.tensor([0.2, 0.1, 0.05, 0.03, 0.6, 0.02])
    vain = torch.tensor([True, False, False, False, True])  # north and interact
    steady = sharpen(chances.log(), vain, torch.ones(1), torch.zeros(1)).softmax(-1)
    torch.testing.assert_close(steady, torch.tensor([0.0, 0.1, 0.05, 0.03, 0.82, 0.0]))
    still = sharpen(chances.log(), torch.ones(5, dtype=torch.bool), torch.ones(1), torch.zeros(1)).softmax(-1)
    torch.testing.assert_close(still, torch.tensor([0.0, 0.0, 0.0, 0.0, 1.0, 0.0]))


def test_a_steady_cook_grows_restless_when_its_hands_do_not_change():
    kitchen = Kitchen()
    policy = build_policy(NetConfig(hidden=8), kitchen.spec, generator(0))
    player = Steady(policy, kitchen, patience=3.0, doubling=1.0)
    state = kitchen.reset(torch.empty(2, 0))
    view = View(kitchen.observe(state), whole=kitchen.whole(state))
    memory = player.start(2)
    for _ in range(5):
        _, memory = player.act(view, memory, torch.rand(2, 2, 1, generator=generator(1)))
    assert (memory["idle"] == 5).all()
    holding = replace(state, hands=state.hands + torch.tensor([1, 0, 0], dtype=torch.int16))
    _, memory = player.act(View(view.obs, whole=kitchen.whole(holding)), memory, torch.rand(2, 2, 1))
    assert (memory["idle"] == 0).all()


def test_the_quickstart_learns_measures_and_writes_a_report_and_goes_on_where_it_was(tmp_path, capsys):
    for updates in (1, 2):
        path = quickstart.run(tmp_path, updates=updates, layouts=("cramped_room",), episodes=2, horizon=60)
    page = path.read_text()
    assert "people beside their understudies" in page
    assert "Carroll et al. 2019" in page
    assert "cramped_room" in capsys.readouterr().out
    events = (tmp_path / "cooks" / "events.jsonl").read_text()
    assert events.count('"start"') == events.count('"resume"') == 1
