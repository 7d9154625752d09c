"""The kitchen against what people's recordings say happened, and against the game's rules on paper."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from understudy.core.errors import ConfigError, EnvError, ShapeError
from understudy.core.random import generator, uniform
from understudy.core.tree import tree_cat, tree_leaves, tree_map
from understudy.core.types import View
from understudy.envs.kitchen import Kitchen, State, cook, state_from_arrays
from understudy.envs.kitchen_board import DISH, EAST, FAR, LAYOUTS, ONION, SOUP, rows_of
from understudy.envs.kitchen_features import mirror
from understudy.recordings import COOKING

FIELDS = ("pos", "ori", "held", "obj", "act")


@pytest.fixture(scope="module")
def recordings():
    """Per layout, the trials as dicts of arrays."""
    arrays = np.load(COOKING / "overcooked_hh_2019.npz")
    layouts = {}
    for trial in json.loads((COOKING / "trials.json").read_text()):
        layouts.setdefault(trial["layout"], []).append(
            {name: torch.from_numpy(arrays[f"{trial['key']}/{name}"]) for name in (*FIELDS, "reward")}
        )
    return layouts


def differences(one: State, two: State):
    """Rows of the leading axis in which any field differs."""
    pairs = zip(tree_leaves(one), tree_leaves(two), strict=True)
    return torch.stack([(a != b).reshape(len(a), -1).any(-1) for a, b in pairs]).any(0)


def states_of(env: Kitchen, trial: dict) -> State:
    return state_from_arrays(env, *(trial[name] for name in FIELDS))


@pytest.fixture(scope="module")
def steps(recordings):
    """Per layout, all recorded steps: states before, actions, rewards, states after."""
    found = {}
    for layout, trials in recordings.items():
        played = [states_of(Kitchen(layout), trial) for trial in trials]
        found[layout] = (
            tree_cat([tree_map(lambda x: x[:-1], states) for states in played]),
            torch.cat([trial["act"][:-1].long() for trial in trials]),
            torch.cat([trial["reward"][:-1] for trial in trials]),
            tree_cat([tree_map(lambda x: x[1:], states) for states in played]),
        )
    return found


def play(env: Kitchen, envs: int, length: int, seed: int = 0):
    """States along random play, interacts as common as all other moves together."""
    source = generator(seed, "kitchen")
    state = env.reset(uniform((envs, env.spec.reset_noise), source))
    for _ in range(length):
        yield state
        actions = torch.randint(0, 10, (envs, env.spec.agents), generator=source).clamp(max=5)
        state, _, _ = env.step(state, actions, torch.empty(envs, 0))


def test_each_recorded_step_of_people_comes_out_as_recorded(steps):
    for layout, (before, actions, rewards, after) in steps.items():
        state, earned, terminated = Kitchen(layout).step(before, actions, torch.empty(len(actions), 0))
        assert not differences(state, after).any()
        assert torch.equal(earned, rewards[:, None].expand(-1, 2))
        assert not terminated.any()
    assert sum(len(rewards) for _, _, rewards, _ in steps.values()) == 91_026


def test_trials_rolled_from_their_first_moment_stay_on_the_recording(recordings):
    """The first trial of each layout; that the others do follows from the test above."""
    for layout, trials in recordings.items():
        env, actions = Kitchen(layout), trials[0]["act"].long()
        states = states_of(env, trials[0])
        rolled = [tree_map(lambda x: x[:1], states)]
        for t in range(len(actions) - 1):
            rolled.append(env.step(rolled[-1], actions[t : t + 1], torch.empty(1, 0))[0])
        assert not differences(tree_cat(rolled), states).any()


def test_the_layouts_are_those_of_the_recordings():
    for trial in json.loads((COOKING / "trials.json").read_text()):
        assert rows_of(trial["layout"], None) == tuple(trial["grid"])


@pytest.mark.parametrize("rules", ["2019", "current"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_whole_state_is_flattened_without_loss(layout, rules):
    env = Kitchen(layout, rules=rules, starts="random")
    for state in play(env, envs=64, length=200):
        whole = env.whole(state)
        assert whole.shape == (64, env.spec.whole)
        assert not differences(env.unpack(whole), state).any()


def test_recorded_states_are_flattened_without_loss(steps):
    for layout, (before, *_) in steps.items():
        env = Kitchen(layout)
        assert not differences(env.unpack(env.whole(before)), before).any()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_observations_are_named_bounded_and_finite(layout):
    env = Kitchen(layout, starts="random")
    assert len(env.feature_names) == len(set(env.feature_names)) == env.spec.obs
    for state in play(env, envs=64, length=100):
        obs = env.observe(state)
        assert obs.shape == (64, 2, env.spec.obs)
        assert obs.abs().max() <= 1


def one_moment(env: Kitchen, cells, facings, hands, things=()) -> State:
    """One env's state: cells and facings of the cooks, what they hold, and (cell, thing) pairs."""
    state = env.reset(torch.empty(1, env.spec.reset_noise))
    lies = state.things.clone()
    for cell, thing in things:
        lies[0, cell] = torch.tensor(thing)
    return replace(
        state,
        cell=torch.tensor([cells]),
        facing=torch.tensor([facings]),
        hands=torch.tensor([hands], dtype=torch.int16),
        things=lies,
    )


def act(env: Kitchen, state: State, *actions: int):
    state, rewards, _ = env.step(state, torch.tensor([actions]), torch.empty(1, 0))
    return state, rewards


ROOM = Kitchen("cramped_room")  # XXPXX / O  2O / X1  X / XDXSX: cell = 5 y + x
N, S, E, W, STAY, USE = range(6)


def test_cooks_who_would_meet_or_change_places_stay_but_turn():
    meet = one_moment(ROOM, [6, 8], [N, N], [[0, 0, 0]] * 2)
    after, _ = act(ROOM, meet, E, W)
    assert after.cell.tolist() == [[6, 8]] and after.facing.tolist() == [[E, W]]
    swap = one_moment(ROOM, [6, 7], [N, N], [[0, 0, 0]] * 2)
    after, _ = act(ROOM, swap, E, W)
    assert after.cell.tolist() == [[6, 7]] and after.facing.tolist() == [[E, W]]
    follow, _ = act(ROOM, swap, E, E)  # into a cell that is just being left
    assert follow.cell.tolist() == [[7, 8]]
    wall, _ = act(ROOM, swap, N, STAY)
    assert wall.cell.tolist() == [[6, 7]] and wall.facing.tolist() == [[N, N]]


def test_in_2019_a_soup_cooks_by_itself_and_is_ready_after_twenty_steps():
    state = one_moment(ROOM, [7, 13], [N, S], [[ONION, 0, 0], [0, 0, 0]], [(2, (SOUP, 2, 0))])
    state, _ = act(ROOM, state, USE, STAY)
    assert state.things[0, 2].tolist() == [SOUP, 3, 1]  # the step that fills the pot counts
    state = replace(state, hands=torch.tensor([[[DISH, 0, 0], [0, 0, 0]]], dtype=torch.int16))
    for ticks in range(2, 22):
        assert state.hands[0, 0].tolist() == [DISH, 0, 0]
        state, _ = act(ROOM, state, USE, STAY)
        assert ticks == 21 or state.things[0, 2].tolist() == [SOUP, 3, ticks]
    assert state.hands[0, 0].tolist() == [SOUP, 3, 20]
    assert state.things[0, 2].tolist() == [0, 0, 0]


def test_a_ready_soup_cooks_on_in_2019_and_not_under_current_rules():
    for rules, ticks in (("2019", 31), ("current", 20)):
        env = Kitchen(rules=rules)
        state = one_moment(env, [6, 8], [N, N], [[0, 0, 0]] * 2, [(2, (SOUP, 3, 1))])
        for _ in range(30):
            state, _ = act(env, state, STAY, STAY)
        assert state.things[0, 2].tolist() == [SOUP, 3, ticks]


def test_under_current_rules_a_pot_is_lit_with_an_empty_hand_and_only_three_onions_pay():
    env = Kitchen(rules="current")
    state = one_moment(env, [7, 13], [N, S], [[0, 0, 0]] * 2, [(2, (SOUP, 1, 0))])
    waits, _ = act(env, state, STAY, STAY)
    assert waits.things[0, 2].tolist() == [SOUP, 1, 0]
    lit, _ = act(env, state, USE, STAY)
    assert lit.things[0, 2].tolist() == [SOUP, 1, 1]
    for onions, points in ((1, 0.0), (3, 20.0)):
        state = one_moment(env, [7, 13], [N, S], [[0, 0, 0], [SOUP, onions, 20]])
        state, rewards = act(env, state, STAY, USE)
        assert rewards.tolist() == [[points, points]] and state.soups.item() == 1
        assert state.hands[0, 1].tolist() == [0, 0, 0]


def test_of_two_cooks_who_reach_for_one_thing_the_first_gets_it():
    env = Kitchen(grid=("XPX", "O1D", "XXX", "X2X", "XSX"))
    state = one_moment(env, [4, 10], [S, N], [[0, 0, 0]] * 2, [(7, (DISH, 0, 0))])
    state, _ = act(env, state, USE, USE)
    assert state.hands[0, :, 0].tolist() == [DISH, 0]
    state, _ = act(env, state, USE, USE)  # and across the counter in a single step, in this order only
    assert state.hands[0, :, 0].tolist() == [0, DISH]


def test_soups_in_hand_are_traced_to_where_they_were_taken(recordings):
    for layout, trials in recordings.items():
        for trial in trials[:3]:
            hands = states_of(Kitchen(layout), trial).hands
            soup = hands[..., 0] == SOUP
            assert soup.any() and (hands[..., 1][soup] == 3).all() and (hands[..., 2][soup] >= 20).all()


def test_envs_do_not_touch_each_other():
    env = Kitchen("coordination_ring", starts="random")
    for state in list(play(env, envs=16, length=60))[::20]:
        actions = torch.randint(0, 6, (16, 2), generator=generator(3))
        together, *_ = env.step(state, actions, torch.empty(16, 0))
        for e in range(16):
            alone = tree_map(lambda x, e=e: x[e : e + 1], state)
            stepped, *_ = env.step(alone, actions[e : e + 1], torch.empty(1, 0))
            assert not differences(stepped, tree_map(lambda x, e=e: x[e : e + 1], together)).any()
            assert torch.equal(env.observe(alone), env.observe(state)[e : e + 1])


def test_a_step_leaves_the_state_before_it_alone():
    env = Kitchen()
    for state in play(env, envs=8, length=40):
        copy = tree_map(torch.clone, state)
        env.step(state, torch.full((8, 2), USE), torch.empty(8, 0))
        assert not differences(state, copy).any()


def test_random_starts_are_uniform_over_the_places_within_a_cooks_reach():
    env, draws = Kitchen("forced_coordination", starts="random"), 30_000
    cell = env.reset(uniform((draws, env.spec.reset_noise), generator(0))).cell
    board = env.board()
    for cook_, reach in enumerate(board.reach):
        places = board.places[reach]
        share = (cell[:, cook_, None] == places).double().mean(0)
        assert share.sum() == pytest.approx(1)
        expected = 1 / len(places)
        assert ((share - expected).abs() < 5 * (expected * (1 - expected) / draws) ** 0.5).all()  # five standard errors
    assert (cell[:, 0] != cell[:, 1]).all()
    ring = Kitchen("coordination_ring", starts="random")
    cell = ring.reset(uniform((draws, ring.spec.reset_noise), generator(1))).cell
    assert (cell[:, 0] != cell[:, 1]).all()


def test_the_way_to_a_bench_is_as_long_as_walking_it_takes():
    board = ROOM.board()
    node = board.place[11] * 4 + N  # at 1,2
    away = dict(zip(board.bench.tolist(), board.distance[node].tolist(), strict=True))
    assert away[16] == 1  # the dishes just south: turn
    assert away[10] == 1  # the counter just west
    assert away[5] == 2  # the onions at 0,1: north, west
    assert away[2] == 2  # the pot at 2,0: east, north; arriving northwards a cook faces it already
    assert away[18] == 3  # serving at 3,3: east, east, south
    apart = Kitchen("forced_coordination").board()
    node = apart.place[6] * 4  # in the left half
    assert apart.distance[node, (apart.bench == 3).nonzero()].item() == FAR  # the pot is in the right one


def test_observations_say_what_interact_would_do_and_which_way_leads_on():
    state = one_moment(ROOM, [7, 11], [N, N], [[ONION, 0, 0], [0, 0, 0]], [(2, (SOUP, 1, 0))])
    obs = ROOM.observe(state)[0]
    first, second = (dict(zip(ROOM.feature_names, row.tolist(), strict=True)) for row in obs)
    assert first["I would fill"] == first["I holds onion"] == first["I ahead pot"] == first["pot 1 onions_1"] == 1
    assert second["I would fill"] == 0 and second["other 1 holds onion"] == 1
    assert not any(value for name, value in first.items() if name.startswith("pot 2")), "there is one pot"
    assert second["I near dishes"] == 1 / 2 and second["I south to dishes"] == 1 and second["I north to dishes"] == 0
    assert second["I near pot_to_fill"] == pytest.approx(1 / 3) and second["I near pot_ready"] == 0
    assert first["other 1 offset x"] == -1 / 4 and first["other 1 offset y"] == pytest.approx(1 / 3)
    assert {name for name, value in first.items() if name.startswith("I would") and value} == {"I would fill"}


def test_cooks_see_each_other_as_they_see_themselves():
    env = Kitchen("counter_circuit", starts="random")
    names = {name: i for i, name in enumerate(env.feature_names)}
    other = [i for name, i in names.items() if name.startswith("other 1 ") and "offset" not in name]
    mine = [names["I " + name.removeprefix("other 1 ")] for name in names if names[name] in other]
    for state in play(env, envs=32, length=50):
        obs = env.observe(state)
        torch.testing.assert_close(obs[:, 0, mine], obs[:, 1, other])
        torch.testing.assert_close(obs[:, 1, mine], obs[:, 0, other])


@pytest.mark.parametrize("axis", ["x", "y"])
@pytest.mark.parametrize("layout", sorted(LAYOUTS))
def test_a_kitchen_in_a_mirror_is_the_same_game(layout, axis):
    """Played with mirrored actions, a mirrored kitchen shows the mirrored observations and pays the same."""
    rows = LAYOUTS[layout]
    turned = tuple(row[::-1] for row in rows) if axis == "x" else rows[::-1]
    env, other, envs = Kitchen(layout), Kitchen(layout, grid=turned), 16
    symmetry = mirror(2, axis)
    assert symmetry.name in [one.name for (one,) in env.symmetries()]
    here, there = (e.reset(torch.empty(envs, 0)) for e in (env, other))
    # a cook starts facing north in both, which is not its mirror image: turn all to one side first
    for e, move in enumerate((EAST, int(symmetry.moves[0, EAST]))):
        moved = torch.full((envs, 2), move)
        if e == 0:
            here, _, _ = env.step(here, moved, torch.empty(envs, 0))
        else:
            there, _, _ = other.step(there, moved, torch.empty(envs, 0))
    source, paid = generator(5, layout), 0.0
    for _ in range(300):
        view = View(obs=env.observe(here), whole=env.whole(here))
        # two pots at one distance have no nearest: their order is that of the layout
        apart = [i for i, name in enumerate(env.feature_names) if not name.startswith("pot ")]
        torch.testing.assert_close(other.observe(there)[..., apart], symmetry.obs(view.obs)[..., apart])
        actions = cook(env, view, uniform((envs, 2, 2), source))
        here, rewards, _ = env.step(here, actions, torch.empty(envs, 0))
        there, mirrored, _ = other.step(there, symmetry.actions(actions), torch.empty(envs, 0))
        torch.testing.assert_close(mirrored, rewards)
        paid += float(rewards.sum())
    assert paid > 0


def soups_of_experts(env: Kitchen, envs: int, length: int):
    source, agents = generator(0, "experts"), env.spec.agents
    state = env.reset(uniform((envs, env.spec.reset_noise), source))
    for _ in range(length):
        view = View(obs=torch.empty(envs, agents, 0), whole=env.whole(state))
        actions = cook(env, view, uniform((envs, agents, 2), source))
        state, _, _ = env.step(state, actions, torch.empty(envs, 0))
    return state.soups.float()


@pytest.mark.parametrize(
    ("layout", "people"),  # soups that people served in 400 steps: mean of final scores / 5 points / (1200 / 400)
    [
        ("cramped_room", 5.9),
        ("asymmetric_advantages", 8.8),
        ("coordination_ring", 5.1),
        ("forced_coordination", 5.6),
        ("counter_circuit", 4.1),
    ],
)
def test_two_experts_serve_more_soups_than_two_people(layout, people):
    soups = soups_of_experts(Kitchen(layout), envs=16, length=200)
    assert soups.mean() > people / 2 and soups.min() > 0


@pytest.mark.parametrize("layout", LAYOUTS)
def test_experts_serve_soups_under_current_rules(layout):
    assert soups_of_experts(Kitchen(layout, rules="current"), envs=16, length=150).min() > 0


def test_experts_cook_alone_and_in_threes():
    alone = Kitchen(grid=("XXPXX", "O   O", "X1  X", "XDXSX"))
    assert soups_of_experts(alone, envs=4, length=200).min() > 1
    three = Kitchen(grid=("XXXPPXXX", "X 1  3 X", "D XXXX S", "X2     X", "XXXOOXXX"))
    assert soups_of_experts(three, envs=4, length=200).min() > 0


def test_an_expert_without_the_full_state_is_refused():
    with pytest.raises(EnvError, match="whole"):
        cook(ROOM, View(obs=torch.empty(1, 2, 0)), torch.rand(1, 2, 2))


def test_pictures_show_every_cook_and_count_the_soups():
    env = Kitchen("asymmetric_advantages")
    state = one_moment(env, [15, 24], [N, S], [[SOUP, 3, 20], [DISH, 0, 0]], [(22, (SOUP, 3, 9))])
    state = replace(state, soups=torch.tensor([4]))
    scene = env.draw(env.whole(state)[0])
    assert "4 soups" in scene.caption and (scene.right, scene.top) == (9, 5)
    letters = [shape.text for shape in scene.shapes]
    assert letters.count("s") == 1 and letters.count("P") == 2 and {"1", "2"} <= set(letters)
    for shape in scene.shapes:
        assert all(0 <= x <= 9 and 0 <= y <= 5 for x, y in shape.points)


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        (("XPX", "X1X", "ODSX"), "equally long"),
        (("XPX", "X1T", "XDS"), "'T'"),
        (("XPX", "1 X", "ODS"), "walk out"),
        (("XPX", "X X", "ODS"), "starts"),
        (("XPXX", "X13X", "ODSX"), "starts"),
        (("XPX", "O1X", "XSX"), "source of dishes"),
        (("XXX", "X1X", "ODS"), "no pot"),
        (("PXX", "X1O", "XDS"), "no pot"),
    ],
)
def test_broken_grids_are_refused(grid, message):
    with pytest.raises(EnvError, match=message):
        Kitchen(grid=grid)


def test_unknown_settings_are_refused():
    with pytest.raises(EnvError, match="Did you mean `cramped_room`"):
        Kitchen("crampedroom")
    with pytest.raises(ConfigError, match="rules"):
        Kitchen(rules="2020")
    with pytest.raises(ConfigError, match="starts"):
        Kitchen(starts="anywhere")
    with pytest.raises(ConfigError, match="cook_time"):
        Kitchen(cook_time=0)
    with pytest.raises(ConfigError, match="past"):
        Kitchen(past=0)
    with pytest.raises(ShapeError, match="actions"):
        ROOM.step(ROOM.reset(torch.empty(3, 0)), torch.zeros(2, 2, dtype=torch.long), torch.empty(2, 0))


def test_another_layouts_recording_is_refused(recordings):
    with pytest.raises(EnvError, match="another layout"):
        states_of(Kitchen("cramped_room"), recordings["asymmetric_advantages"][0])
