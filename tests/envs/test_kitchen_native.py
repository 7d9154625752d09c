"""The compiled kitchen is the one by torch, bit for bit, in every state that play comes to; else torch does it."""

import copy
import logging
import os
import platform
import shutil
import sys
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import understudy
from understudy.compiled import Compiled
from understudy.compiled import compiled as compiled_env
from understudy.core import native
from understudy.core.errors import ShapeError
from understudy.core.random import generator, uniform
from understudy.core.tree import tree_leaves, tree_map
from understudy.core.types import View
from understudy.envs import kitchen_native
from understudy.envs.kitchen import Kitchen, State, cook
from understudy.envs.kitchen_board import LAYOUTS

COMPILER = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
compiled = pytest.mark.skipif(
    sys.platform != "linux" or COMPILER is None or os.environ.get("UNDERSTUDY_KITCHEN") == "0",
    reason="here kitchens are played by torch alone",
)
ALONE = ("XPXXX", "O  1D", "X   X", "XXSXX")
THREE = ("XXPXPXX", "O 1 2 D", "X  X  X", "D  3  O", "XXSXPXX")
FOUR = ("XXXXPXXXX", "O 1 X 2 D", "X   X   X", "X 3   4 S", "XXPXXXPXX")
GRIDS = (ALONE, THREE, FOUR)


def forget() -> None:
    for cached in (kitchen_native._functions, kitchen_native._kitchen, kitchen_native._tell):
        cached.cache_clear()


@pytest.fixture
def afresh(monkeypatch, tmp_path):
    """The library is looked for anew, in a folder of the test's own; afterwards nothing of that is remembered."""
    monkeypatch.setenv("UNDERSTUDY_CACHE", str(tmp_path / "cache"))
    forget()
    yield tmp_path / "cache"
    forget()


def same(one, other) -> bool:
    pairs = zip(tree_leaves(one), tree_leaves(other), strict=True)
    return all(a.dtype == b.dtype and a.equal(b) for a, b in pairs)


def play(env: Kitchen, envs: int, length: int, seed: int, expert: float = 0.0):
    """States and actions: interacts as common as all other moves together, and the expert's play in some envs."""
    source = generator(seed, "play")
    state = env.reset(uniform((envs, env.spec.reset_noise), source))
    plays = torch.rand(envs, 1, generator=source) < expert
    for _ in range(length):
        actions = torch.randint(0, 10, (envs, env.spec.agents), generator=source).clamp(max=5)
        if expert:
            view = View(env.plain_observe(state), whole=env.plain_whole(state))
            wise = torch.rand(envs, 1, generator=source) < 0.9
            chance = torch.rand(envs, env.spec.agents, 2, generator=source)
            actions = torch.where(plays & wise, cook(env, view, chance), actions)
        yield state, actions
        state, _, _ = env.plain_step(state, actions)


def expect_the_same(env: Kitchen, state: State, actions: torch.Tensor) -> None:
    assert same(kitchen_native.observe(env, state), env.plain_observe(state))
    assert same(kitchen_native.whole(env, state), env.plain_whole(state))
    assert same(kitchen_native.step(env, state, actions), env.plain_step(state, actions))


@compiled
@pytest.mark.parametrize("rules", ["2019", "current"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_in_every_layout_it_is_the_plain_twin_bit_for_bit(layout, rules):
    env = Kitchen(layout, rules=rules, starts="random")
    for state, actions in play(env, envs=70, length=60, seed=1):
        expect_the_same(env, state, actions)


@compiled
@pytest.mark.parametrize("rules", ["2019", "current"])
def test_where_soups_are_served_it_is_too(rules):
    env, served = Kitchen("cramped_room", rules=rules), torch.zeros(())
    for state, actions in play(env, envs=30, length=90, seed=2, expert=0.7):
        expect_the_same(env, state, actions)
        served = state.soups.sum()
    assert served > 20


@compiled
@settings(deadline=None, max_examples=25)
@given(
    grid=st.sampled_from(GRIDS),
    rules=st.sampled_from(["2019", "current"]),
    starts=st.sampled_from(["fixed", "random"]),
    cook_time=st.sampled_from([1, 2, 7, 20, 30_000]),
    past=st.integers(1, 9),
    envs=st.integers(1, 70),
    delivery=st.sampled_from([None, 1 / 3, 7.1]),
    seed=st.integers(0, 2**31),
)
def test_in_other_kitchens_it_is_too(grid, rules, starts, cook_time, past, envs, delivery, seed):
    env = Kitchen("own", rules, 37, grid, starts, cook_time, past, delivery)
    for state, actions in play(env, envs, length=20, seed=seed):
        expect_the_same(env, state, actions)


@compiled
@settings(deadline=None, max_examples=25)
@given(
    layout=st.sampled_from([*LAYOUTS, *GRIDS]), rules=st.sampled_from(["2019", "current"]), seed=st.integers(0, 2**31)
)
def test_anything_anywhere_is_seen_and_done_alike(layout, rules, seed):
    """Things of any kind wherever one can lie, soups that cooked long, cooks on top of each other."""
    env = Kitchen(rules=rules, **({"layout": layout} if isinstance(layout, str) else {"grid": layout}))
    board, source, envs, cooks = env.board(), generator(seed, "anything"), 50, env.spec.agents

    def draw(*shape: int, below: int) -> torch.Tensor:
        return torch.randint(0, below, shape, generator=source)

    def things(*shape: int) -> torch.Tensor:
        ticks = torch.where(draw(*shape, below=2) > 0, draw(*shape, below=30_001), draw(*shape, below=25))
        ticks = torch.where(draw(*shape, below=3) > 0, ticks, 0)
        onions = draw(*shape, below=4)
        return torch.stack([draw(*shape, below=4), onions, ticks], dim=-1).to(torch.int16)

    state = State(
        cell=board.places[draw(envs, cooks, below=len(board.places))],
        facing=draw(envs, cooks, below=4),
        hands=things(envs, cooks),
        things=things(envs, len(board.tile)),
        last_actions=draw(envs, cooks, env.past, below=7),
        soups=draw(envs, below=1000),
        age=draw(envs, below=100_000),
    )
    state.things[:, board.pots, 1].clamp_(max=2)  # a fourth onion would be refused by both
    expect_the_same(env, state, draw(envs, cooks, below=6))


@compiled
@pytest.mark.parametrize("threads", [2, 3])
def test_bits_do_not_hang_on_threads(threads, monkeypatch):
    monkeypatch.setattr(kitchen_native, "ALONE", 100)
    env, before = Kitchen("counter_circuit"), torch.get_num_threads()
    *_, (state, actions) = play(env, envs=333, length=30, seed=0)
    found = []
    try:
        for count in (1, threads):
            torch.set_num_threads(count)
            found.append((kitchen_native.step(env, state, actions), env.observe(state), env.whole(state)))
    finally:
        torch.set_num_threads(before)
    assert same(*found)


@compiled
@pytest.mark.skipif(platform.machine() != "x86_64", reason="other processors have other names")
@pytest.mark.parametrize("processor", ["x86-64", "x86-64-v3"])
def test_processors_with_shorter_vectors_find_the_same(processor, afresh, monkeypatch):
    monkeypatch.setattr(native, "FLAGS", [flag.replace("native", processor) for flag in native.FLAGS])
    env = Kitchen(grid=THREE, rules="current")
    for state, actions in play(env, envs=65, length=60, seed=2):
        expect_the_same(env, state, actions)


@compiled
def test_what_was_given_is_not_changed():
    env = Kitchen("coordination_ring")
    *_, (state, actions) = play(env, envs=20, length=40, seed=3)
    before = tree_map(torch.clone, state)
    env.step(state, actions, torch.empty(20, 0)), env.observe(state), env.whole(state)
    assert same(state, before)


@compiled
def test_a_state_that_has_moved_in_memory_is_read_where_it_lies_now():
    """As the last one made does when another process is given it."""
    state, actions = moment()
    state, _, _ = kitchen_native.step(ROOM, state, actions)
    state.cell.share_memory_()
    state.cell.copy_(state.cell.flip(1))
    expect_the_same(ROOM, state, actions)


@compiled
def test_an_env_is_the_same_alone_and_among_others():
    env = Kitchen("asymmetric_advantages")
    *_, (state, actions) = play(env, envs=130, length=60, seed=4)
    together = kitchen_native.step(env, state, actions), env.observe(state), env.whole(state)
    for i in (0, 63, 64, 129):
        one, what = tree_map(lambda x, i=i: x[i : i + 1].clone(), (state, actions))
        alone = kitchen_native.step(env, one, what), env.observe(one), env.whole(one)
        assert same(alone, tree_map(lambda x, i=i: x[i : i + 1], together))


# ---- where torch does it ----

ROOM = Kitchen("cramped_room")


def moment(envs: int = 3) -> tuple[State, torch.Tensor]:
    return ROOM.reset(torch.empty(envs, 0)), torch.full((envs, 2), 5)


@compiled
@pytest.mark.parametrize(
    ("leaf", "value"),
    [
        *(("cell", 0), ("cell", -1), ("cell", 20), ("cell", 10**12), ("facing", 4), ("facing", -1)),
        *(("hands", 4), ("hands", -1), ("things", 4), ("things", -2)),
        *(("last_actions", 7), ("last_actions", -1)),
    ],
)
def test_a_state_that_no_kitchen_comes_to_is_torchs_own_to_judge(leaf, value):
    state, actions = moment()
    odd = getattr(state, leaf).clone()
    odd[-1] = value
    state = replace(state, **{leaf: odd})
    assert kitchen_native.observe(ROOM, state) is None
    if leaf != "things":  # there only what is faced matters
        assert kitchen_native.whole(ROOM, state) is None
    if leaf not in ("last_actions", "things"):
        assert kitchen_native.step(ROOM, state, actions) is None


@compiled
def test_actions_that_are_none_are_torchs_own_to_judge():
    state, actions = moment()
    wide, far = (actions[:, :1], actions[:2], actions.float(), actions.int()), actions.to("meta")
    for odd in (actions + 1, actions - 6, *wide, far):
        assert kitchen_native.step(ROOM, state, odd) is None
    with pytest.raises(ShapeError, match="actions"):
        ROOM.step(state, actions[:2], torch.empty(2, 0))
    crossed = torch.tensor([[5, 1, 2], [0, 5, 3]]).T
    assert same(kitchen_native.step(ROOM, state, crossed), ROOM.plain_step(state, crossed))


@compiled
@pytest.mark.parametrize("leaf", [field.name for field in fields(State)])
def test_states_of_other_dtypes_and_shapes_and_strides_are_torchs_own(leaf):
    state, actions = moment()
    x = getattr(state, leaf)
    turned = torch.stack([x, x], dim=-1)[..., 0]
    for odd in (x.to(torch.int32), x[:2], x[..., None], turned):
        other = replace(state)
        object.__setattr__(other, leaf, odd)  # past the checks of shapes
        assert kitchen_native.observe(ROOM, other) is None
        assert kitchen_native.whole(ROOM, other) is None
        assert kitchen_native.step(ROOM, other, actions) is None


@compiled
@pytest.mark.parametrize(
    ("why", "call"),
    [
        ("on meta", lambda s: kitchen_native.observe(ROOM, tree_map(lambda x: x.to("meta"), s))),
        ("torch.func", lambda s: torch.func.jvp(lambda x: (ROOM.observe(s), x)[1], (torch.ones(1),), (torch.ones(1),))),
        ("other dtypes", lambda s: ROOM.observe(replace(s, cell=s.cell.int()))),
    ],
)
def test_where_it_does_not_fit_torch_does_it_and_says_why_once(why, call, caplog):
    kitchen_native._tell.cache_clear()
    with caplog.at_level(logging.INFO, "understudy"):
        for _ in range(2):
            call(moment()[0])
    assert len(caplog.records) == 1 and why in caplog.text


@compiled
def test_a_kitchen_of_too_many_counters_is_torchs_own():
    edge = "X" * 150
    env = Kitchen(grid=(edge, "O1" + " " * 147 + "D", "X" + " " * 148 + "X", "XPS" + "X" * 147))
    assert "so large" in kitchen_native._kitchen(env)
    assert kitchen_native.observe(env, env.reset(torch.empty(2, 0))) is None
    assert env.observe(env.reset(torch.empty(2, 0))).shape == (2, 1, env.spec.obs)


@compiled
def test_where_floats_are_doubles_torch_does_it():
    state, _ = moment()
    torch.set_default_dtype(torch.float64)
    try:
        assert kitchen_native.observe(ROOM, state) is None
    finally:
        torch.set_default_dtype(torch.float32)


@compiled
def test_torch_compiles_no_kitchen_that_plays_faster_as_it_is():
    assert ROOM.native and compiled_env(ROOM) is ROOM
    assert isinstance(compiled_env(ROOM, "cuda"), Compiled)


def test_switched_off_it_is_the_plain_twin(afresh, monkeypatch, caplog):
    monkeypatch.setenv("UNDERSTUDY_KITCHEN", "0")
    state, actions = moment()
    with caplog.at_level(logging.INFO, "understudy"):
        assert same(ROOM.step(state, actions, torch.empty(3, 0)), ROOM.plain_step(state, actions))
        assert same(ROOM.observe(state), ROOM.plain_observe(state))
    said = "off: UNDERSTUDY_KITCHEN is 0"
    assert kitchen_native.status() == said and not ROOM.native
    assert [record.getMessage() for record in caplog.records] == [f"kitchens are played by torch alone: {said}"]
    assert not afresh.exists()


def test_without_a_compiler_it_is_the_plain_twin(afresh, monkeypatch):
    monkeypatch.delenv("UNDERSTUDY_KITCHEN", raising=False)
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", "")
    state, _ = moment()
    assert same(ROOM.observe(state), ROOM.plain_observe(state))
    assert "no C++ compiler" in kitchen_native.status()


def test_what_is_being_traced_meets_nothing_but_torch(monkeypatch):
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    monkeypatch.delattr(kitchen_native, "_kitchen")
    state, actions = moment()
    assert same(ROOM.step(state, actions, torch.empty(3, 0)), ROOM.plain_step(state, actions))
    assert same((ROOM.observe(state), ROOM.whole(state)), (ROOM.plain_observe(state), ROOM.plain_whole(state)))


@compiled
def test_a_copy_of_a_kitchen_plays_as_well():
    state, _ = moment()
    env = Kitchen("cramped_room")
    seen = env.observe(state)
    again = copy.deepcopy(env)
    del env
    assert same(kitchen_native.observe(again, state), seen)


def test_the_source_travels_with_the_package():
    assert (Path(understudy.__file__).parent / "envs" / "kitchen.cpp").is_file()
