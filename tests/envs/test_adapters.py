import gc
import os
import signal
import threading
from dataclasses import replace

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv
from mpe2 import simple_speaker_listener_v4, simple_tag_v3
from pettingzoo.classic import rps_v2, tictactoe_v3
from pettingzoo.test import parallel_api_test
from pettingzoo.test.example_envs import generated_agents_parallel_v0
from pettingzoo.utils.conversions import parallel_to_aec

from tests.envs.simulators import Breaks, Choosy, Counts, Foreign, Lives, Tools
from understudy.core.errors import EnvError, ShapeError
from understudy.core.random import generator
from understudy.core.symmetry import Symmetry, expect_symmetries, symmetries_of
from understudy.core.tree import tree_cat, tree_leaves, tree_take
from understudy.core.types import Continuous, Discrete, EnvSpec, MultiDiscrete
from understudy.envs import tabular
from understudy.envs.adapters import Player, from_aec, from_gymnasium, from_parallel, from_vector, to_parallel
from understudy.envs.adapters.doors import Door, _seeds
from understudy.envs.adapters.layout import lay_out
from understudy.nets import AgentPolicy, NetConfig
from understudy.rollout import Uniform, begin, collect, look
from understudy.rollout import play as episodes_of

BOX = spaces.Box(-1, 1, (2,))


def noise_of(seed: int, copies: int) -> torch.Tensor:
    return torch.rand(copies, 2, generator=generator(seed, "noise"))


def step(env: Door, state, actions):
    return env.step(state, actions, torch.empty(env.copies, 0))


def still(env: Door) -> torch.Tensor:
    return torch.zeros(env.copies, env.spec.agents, dtype=torch.long)


def any_legal(env: Door, state, source: torch.Generator) -> torch.Tensor:
    return (torch.rand(env.legal(state).shape, generator=source) * env.legal(state)).argmax(-1)


def play(env: Door, steps: int, seed: int = 0) -> list[torch.Tensor]:
    """Everything that shows in `steps` steps of legal chance moves, restarting what ended."""
    source, seen = generator(seed), []
    state = env.reset(torch.rand(env.copies, 2, generator=source))
    for _ in range(steps):
        if isinstance(env.spec.action, Continuous):
            actions = torch.rand(env.copies, env.spec.agents, env.spec.action.size, generator=source)
        else:
            actions = any_legal(env, state, source)
        state, rewards, terminated = step(env, state, actions)
        seen += [rewards, *list(tree_leaves(state))[:-1]]  # all but the ticket
        state = env.restart(state, terminated | env.truncated(state), torch.rand(env.copies, 2, generator=source))
    return seen


def same(left: list[torch.Tensor], right: list[torch.Tensor]) -> bool:
    return len(left) == len(right) and all(torch.equal(a, b) for a, b in zip(left, right, strict=True))


# ---- what a door shows is what the simulator showed


def test_a_parallel_env_behind_the_door_is_the_env_itself():
    env, raw, noise = from_parallel(simple_tag_v3.parallel_env), simple_tag_v3.parallel_env(), noise_of(1, 1)
    assert env.spec.names == ("adversary_0", "adversary_1", "adversary_2", "agent_0")
    assert env.spec.roles == ("adversary", "adversary", "adversary", "agent")
    assert env.spec.obs_sizes == (16, 16, 16, 14) and env.spec.horizon == 25 and env.spec.action == Discrete(5)
    state, (obs, _) = env.reset(noise), raw.reset(seed=int(_seeds(noise)[0]))
    source = generator(2)
    for t in range(25):
        for i, name in enumerate(raw.possible_agents):
            size = env.spec.obs_sizes[i]
            assert np.array_equal(env.observe(state)[0, i, :size].numpy(), obs[name])
            assert not env.observe(state)[0, i, size:].any()
        assert np.array_equal(env.whole(state)[0].numpy(), raw.state().astype(np.float32))
        actions = torch.randint(0, 5, (1, 4), generator=source)
        state, rewards, terminated = step(env, state, actions)
        obs, paid, *_ = raw.step({name: int(actions[0, i]) for i, name in enumerate(raw.possible_agents)})
        assert rewards[0].tolist() == pytest.approx([paid[name] for name in raw.possible_agents])
        assert not terminated.any() and env.truncated(state).item() == (t == 24) and env.present(state).all()
    assert np.array_equal(env.observe(state)[0, 3, :14].numpy(), obs["agent_0"])  # the end, not the next beginning


def test_death_and_a_time_limit_are_told_apart():
    with from_gymnasium(lambda: Counts(3)) as dies, from_gymnasium(lambda: Counts(3, truncates=True)) as stops:
        for env, outcome in ((dies, (True, False)), (stops, (False, True))):
            state = env.reset(noise_of(0, 1))
            for t in range(3):
                state, rewards, terminated = step(env, state, still(env))
                assert rewards.item() == t + 1
                assert (terminated.item(), env.truncated(state).item()) == (outcome if t == 2 else (False, False))
            assert env.observe(state)[0, 0, 1] == 3


def test_the_time_limit_that_gymnasium_knows_is_the_horizon():
    with from_gymnasium(lambda: gymnasium.make("Pendulum-v1", max_episode_steps=7), copies=2) as env:
        assert env.spec.horizon == 7 and env.spec.action == Continuous(1, -2.0, 2.0) and env.spec.title == "Pendulum-v1"
        state = env.reset(noise_of(0, 2))
        assert env.legal(state) is None
        for t in range(7):
            state, _, terminated = step(env, state, torch.zeros(2, 1, 1))
            assert env.truncated(state).all() == (t == 6) and not terminated.any()


def test_who_is_not_yet_born_or_dead_is_absent_unpaid_and_unseen():
    with from_parallel(Lives) as env:
        state = env.reset(noise_of(0, 1))
        present, rewards, obs = [env.present(state)[0].tolist()], [], [env.observe(state)[0, :, 0].tolist()]
        for _ in range(7):
            state, paid, terminated = step(env, state, still(env))
            assert not terminated.any() and env.legal(state).any(-1).all()
            present.append(env.present(state)[0].tolist())
            obs.append(env.observe(state)[0, :, 0].tolist())
            rewards.append(paid[0].tolist())
    assert env.truncated(state).all()
    alive = [
        [True, False, True],
        [True] * 3,
        [True] * 3,
        [False, True, True],
        [False, True, True],
        [False, False, True],
    ]
    assert present == [*alive, [False, False, True], [False, False, True]]  # cut off, so still there at the end
    assert rewards == [[float(here) for here in now] for now in present[:-1]]
    assert obs == [[(10.0 + t) * here for here in now] for t, now in enumerate(present)]


def test_a_game_that_all_leave_by_dying_is_terminated_and_who_played_to_the_end_is_counted():
    with from_parallel(lambda: Lives(((0, 2), (0, 3)), limit=9)) as env:
        state = env.reset(noise_of(0, 1))
        for t in range(3):
            state, _, terminated = step(env, state, still(env))
            assert terminated.item() == (t == 2) and not env.truncated(state).any()
        assert env.present(state)[0].tolist() == [False, True] and env.observe(state)[0, 1, 0] == 13


def test_who_dies_with_the_very_step_that_cuts_the_others_off_is_absent():
    with from_parallel(lambda: Lives(((0, 3), (0, 9)), limit=3)) as env:
        state = env.reset(noise_of(0, 1))
        for _ in range(3):
            state, rewards, terminated = step(env, state, still(env))
        assert env.truncated(state).item() and not terminated.item() and rewards[0].tolist() == [1, 1]
        assert env.present(state)[0].tolist() == [False, True] and env.observe(state)[0, :, 0].tolist() == [0, 13]


# ---- spaces


SPACES = {
    "box": spaces.Box(-1, 1, (3,)),
    "image": spaces.Box(0, 255, (4, 5, 3), np.uint8),
    "discrete": spaces.Discrete(4, start=-1),
    "multi_discrete": spaces.MultiDiscrete([2, 3]),
    "multi_binary": spaces.MultiBinary(3),
    "dict": spaces.Dict({"where": spaces.Box(-1, 1, (2,)), "what": spaces.Discrete(3)}),
    "tuple": spaces.Tuple((spaces.Discrete(2), spaces.Box(-1, 1, (2, 2)))),
}


@pytest.mark.parametrize("name", SPACES)
def test_an_observation_is_flattened_as_gymnasium_flattens_it(name):
    raw = Tools([SPACES[name], BOX], [spaces.Discrete(2)] * 2)
    env = from_parallel(lambda: raw)
    state = env.reset(noise_of(3, 1))
    for _ in range(2):
        flat = spaces.flatten(SPACES[name], raw.seen["first_0"]).astype(np.float32)
        assert env.spec.obs_sizes[0] == len(flat)
        assert np.array_equal(env.observe(state)[0, 0, : len(flat)].numpy(), flat)
        state, _, _ = step(env, state, still(env))


def test_moves_are_counted_from_0_whatever_the_simulator_counts_from():
    raw = Tools([BOX, BOX], [spaces.Discrete(3, start=5), spaces.Discrete(2, start=-1)])
    env = from_parallel(lambda: raw)
    state = env.reset(noise_of(0, 1))
    assert env.spec.action == Discrete(3) and env.spec.action_sizes == (3, 2)
    assert env.legal(state)[0].tolist() == [[True, True, True], [True, True, False]]
    step(env, state, torch.tensor([[2, 1]]))
    assert raw.did[-1] == {"first_0": 7, "second_0": 0}


def test_several_moves_at_once_are_padded_to_the_widest():
    masks = {"second_0": (np.array([0, 1, 1]), np.array([1, 0]))}
    raw = Tools([BOX, BOX], [spaces.MultiDiscrete([2], start=[4]), spaces.MultiDiscrete([3, 2])], masks)
    env = from_parallel(lambda: raw)
    assert env.spec.action == MultiDiscrete((3, 2)) and env.spec.action_sizes == (1, 2)
    state = env.reset(noise_of(0, 1))
    assert env.legal(state)[0].int().tolist() == [[1, 1, 0, 1, 0], [0, 1, 1, 1, 0]]
    step(env, state, torch.tensor([[[1, 0], [2, 0]]]))
    assert raw.did[-1]["first_0"].tolist() == [5] and raw.did[-1]["second_0"].tolist() == [2, 0]


def test_boxes_of_unlike_bounds_are_scaled_and_alike_ones_are_kept():
    narrow, wide = spaces.Box(np.float32([0, -4]), np.float32([1, 4])), spaces.Box(-3, 3, (1,), np.float64)
    raw = Tools([BOX, BOX], [narrow, wide])
    env = from_parallel(lambda: raw)
    assert env.spec.action == Continuous(2, -1.0, 1.0) and env.spec.action_sizes == (2, 1)
    state = env.reset(noise_of(0, 1))
    step(env, state, torch.tensor([[[0.0, 0.5], [2.0, 9.0]]]))
    assert raw.did[-1]["first_0"].tolist() == [0.5, 2.0]
    assert raw.did[-1]["second_0"].tolist() == [3.0]  # clipped to the box
    alike = from_parallel(lambda: Tools([BOX, BOX], [spaces.Box(0, 5, (2,)), spaces.Box(0, 5, (1,))]))
    assert alike.spec.action == Continuous(2, 0.0, 5.0)
    endless = from_parallel(lambda: Tools([BOX, BOX], [wide, spaces.Box(-np.inf, np.inf, (1,))]))
    assert endless.spec.action == Continuous(1, -np.inf, np.inf)


@pytest.mark.parametrize(
    "actions",
    [
        [spaces.Discrete(3, start=2), spaces.Discrete(5)],
        [spaces.MultiDiscrete([2, 3]), spaces.MultiDiscrete([4], start=[1])],
        [spaces.MultiBinary(2), spaces.MultiBinary(3)],
        [spaces.Box(-2, 2, (2,)), spaces.Box(0, 1, (3,))],
    ],
)
def test_an_action_and_its_row_are_one_anothers_inverse(actions):
    layout = lay_out(["a", "b"], [BOX, BOX], actions)
    for i, space in enumerate(actions):
        space.seed(i)
        for _ in range(20):
            action = space.sample()
            np.testing.assert_allclose(layout.act(i, layout.row(i, action)), action, atol=1e-6)


def test_both_conventions_of_masks_are_read():
    bare, carried = spaces.Box(-1, 1, (3,)), spaces.Dict({"observation": BOX, "action_mask": spaces.MultiBinary(4)})
    raw = Tools([bare, carried], [spaces.Discrete(3), spaces.Discrete(4)], {"first_0": np.array([0, 1, 0], np.int8)})
    env = from_parallel(lambda: raw)
    state = env.reset(noise_of(8, 1))
    told = raw.seen["second_0"]
    assert env.spec.obs_sizes == (3, 2)
    assert env.legal(state)[0, 0].tolist() == [False, True, False, False]
    assert told["action_mask"].any() and env.legal(state)[0, 1].tolist() == told["action_mask"].astype(bool).tolist()
    assert np.array_equal(env.observe(state)[0, 1, :2].numpy(), told["observation"])


def test_a_mask_may_lie_beside_a_dict_or_several_parts():
    nested = spaces.Dict({"observation": spaces.Dict({"a": BOX, "b": BOX}), "action_mask": spaces.MultiBinary(3)})
    beside = spaces.Dict({"a": BOX, "b": BOX, "action_mask": spaces.MultiBinary(3)})
    raw = Tools([nested, beside], [spaces.Discrete(3)] * 2)
    state = from_parallel(lambda: raw).reset(noise_of(8, 1))
    for i, parts in enumerate((raw.seen["first_0"]["observation"], raw.seen["second_0"])):
        assert state.obs[0, i].tolist() == [*parts["a"], *parts["b"]]


def test_a_mask_that_allows_nothing_is_no_mask():
    raw = Tools([BOX, BOX], [spaces.Discrete(3)] * 2, {"first_0": np.zeros(3, np.int8)})
    env = from_parallel(lambda: raw)
    assert env.legal(env.reset(noise_of(0, 1))).all()


# ---- turns


def turns_alone(make, seed: int, choose) -> list[tuple[str, float]]:
    """PettingZoo's own loop: who was at turn, and what `last()` told it to have been paid."""
    env, told = make(), []
    env.reset(seed=seed)
    for agent in env.agent_iter():
        obs, reward, terminated, truncated, _ = env.last()
        told.append((agent, float(reward)))
        env.step(None if terminated or truncated else choose(obs))
    return told


@pytest.mark.parametrize("make", [tictactoe_v3.env, rps_v2.env], ids=["tictactoe", "rps"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_rewards_between_two_turns_add_up_to_what_last_tells(make, seed):
    noise, source, moves = noise_of(seed, 1), generator(seed), []
    with from_aec(make) as env:
        state, owed, told = env.reset(noise), [0.0, 0.0], []
        over = False
        while not over:
            mover = env.fleet.games[0].env.env.possible_agents.index(env.fleet.games[0].env.env.agent_selection)
            told.append((env.spec.names[mover], owed[mover]))
            owed[mover] = 0.0
            assert env.present(state).all()
            assert env.legal(state)[0, 1 - mover].nonzero().flatten().tolist() == [0]  # who waits has one move
            actions = any_legal(env, state, source)
            moves.append(actions[0, mover].item())
            state, rewards, terminated = step(env, state, actions)
            owed = [owed[i] + rewards[0, i].item() for i in range(2)]
            over = bool(terminated | env.truncated(state))
        assert env.truncated(state).item() == (make is rps_v2.env)
    rest = iter(moves)
    alone = turns_alone(make, int(_seeds(noise)[0]), lambda obs: next(rest))
    assert alone[: len(told)] == told
    assert dict(alone[len(told) :]) == dict(zip(env.spec.names, owed, strict=True))  # what the end still brought


def test_a_turn_is_one_agents_move():
    with from_aec(tictactoe_v3.env) as env:
        state = env.reset(noise_of(0, 1))
        assert env.legal(state)[0].sum(-1).tolist() == [9, 1]
        state, _, _ = step(env, state, torch.tensor([[4, 0]]))
        assert env.legal(state)[0].sum(-1).tolist() == [1, 8] and not env.legal(state)[0, 1, 4]
        board = env.observe(state)[0].unflatten(-1, (9, 2))
        assert board[:, 4].tolist() == [[1, 0], [0, 1]] and board.sum() == 2  # mine, theirs


# ---- copies, workers, tickets


def test_results_do_not_hang_on_which_process_a_copy_lives_in():
    def make():
        return simple_speaker_listener_v4.parallel_env(max_cycles=6)

    seen = {}
    for workers in (0, 1, 2):
        with from_parallel(make, copies=3, workers=workers) as env:
            seen[workers] = play(env, 20)
            processes = env.fleet.processes
            assert len(processes) == workers and all(p.is_alive() for p in processes)
        assert not any(p.is_alive() for p in processes)
    assert same(seen[0], seen[1]) and same(seen[0], seen[2])


def test_copies_do_not_touch_each_other():
    noise = noise_of(5, 4)
    with from_gymnasium(lambda: gymnasium.make("CartPole-v1"), copies=4) as env:
        together, _, _ = step(env, env.reset(noise), torch.tensor([[0], [1], [1], [0]]))
    for i, move in enumerate([0, 1, 1, 0]):
        with from_gymnasium(lambda: gymnasium.make("CartPole-v1")) as env:
            alone, _, _ = step(env, env.reset(noise[i : i + 1]), torch.tensor([[move]]))
        assert torch.equal(alone.obs[0], together.obs[i])


def test_only_what_ended_begins_anew():
    lengths = iter([2, 9, 2])
    with from_gymnasium(lambda: Counts(next(lengths)), copies=3) as env:
        state = env.reset(noise_of(0, 3))
        for _ in range(2):
            state, _, terminated = step(env, state, still(env))
        assert terminated.tolist() == [True, False, True]
        after = env.restart(state, terminated, noise_of(1, 3))
        assert after.obs[:, 0, 1].tolist() == [0, 2, 0]
        assert after.obs[1].equal(state.obs[1]) and after.obs[0, 0, 0] == int(_seeds(noise_of(1, 3))[0]) % 1000
        assert not after.terminated.any()


def test_a_copy_that_has_ended_waits_unchanged_and_unpaid():
    lengths = iter([1, 4])
    with from_gymnasium(lambda: Counts(next(lengths)), copies=2) as env:
        state = env.reset(noise_of(0, 2))
        for t in range(1, 4):
            state, rewards, terminated = step(env, state, still(env))
            assert rewards[:, 0].tolist() == [1.0 if t == 1 else 0.0, t]
            assert terminated.tolist() == [True, False] and state.obs[:, 0, 1].tolist() == [1, t]


def test_a_smaller_batch_is_played_by_the_first_copies_while_the_others_rest():
    noise = noise_of(3, 3)
    with from_gymnasium(lambda: gymnasium.make("CartPole-v1"), copies=3) as env:
        whole, _, _ = step(env, env.reset(noise), torch.tensor([[0], [1], [1]]))
        state = env.reset(noise[:2])
        part, rewards, terminated = env.step(state, torch.tensor([[0], [1]]), torch.empty(2, 0))
        assert torch.equal(part.obs, whole.obs[:2]) and rewards.shape == (2, 1) and terminated.shape == (2,)
        after = env.restart(part, torch.tensor([False, True]), noise[1:])
        assert torch.equal(after.obs[0], part.obs[0]) and not torch.equal(after.obs[1], part.obs[1])
        with pytest.raises(EnvError, match="not the last state"):
            step(env, whole, still(env))
        again, _, _ = step(env, env.reset(noise), torch.tensor([[0], [1], [1]]))
        assert torch.equal(again.obs, whole.obs)


def test_a_state_is_continued_once_in_full_and_in_order():
    with from_gymnasium(lambda: Counts(9), copies=2) as env:
        first = env.reset(noise_of(0, 2))
        second, _, _ = step(env, first, still(env))
        with pytest.raises(EnvError, match="not the last state"):
            step(env, first, still(env))
        with pytest.raises(EnvError, match="not the last state"):
            env.restart(first, torch.tensor([True, False]), noise_of(1, 2))
        with pytest.raises(EnvError, match="not the last state"):
            step(env, tree_take(second, torch.tensor([1, 0])), still(env))
        third, _, _ = step(env, second, still(env))
        assert third.obs[:, 0, 1].tolist() == [2, 2]  # the refusals moved nothing
        assert torch.equal(first.obs[:, 0, 1], torch.zeros(2))  # nor was an older state written over
        env.restart(third, torch.tensor([False, False]), noise_of(1, 2))
        assert step(env, third, still(env))[0].obs[:, 0, 1].tolist() == [3, 3]  # nothing began anew: still the last


def test_a_simulator_that_raises_in_a_worker_is_heard_with_its_traceback():
    for workers in (0, 1):
        env = from_gymnasium(Breaks, copies=2, workers=workers)
        state = env.reset(noise_of(0, 2))
        for _ in range(2):
            state, _, _ = step(env, state, still(env))
        with pytest.raises(EnvError, match=r"(?s)raised:.*in snap.*ZeroDivisionError: the third step"):
            step(env, state, still(env))
        assert not any(p.is_alive() for p in env.fleet.processes)
        with pytest.raises(EnvError, match="closed"):
            env.reset(noise_of(0, 2))


def test_a_killed_worker_is_missed():
    env = from_gymnasium(lambda: gymnasium.make("CartPole-v1"), copies=4, workers=2)
    state = env.reset(noise_of(0, 4))
    os.kill(env.fleet.processes[1].pid, signal.SIGKILL)
    with pytest.raises(EnvError, match=r"worker 1 \(copies 2 to 3\) died with exit code -9"):
        step(env, state, still(env))
    assert not any(p.is_alive() for p in env.fleet.processes)


def test_a_door_that_is_forgotten_ends_its_workers():
    env = from_gymnasium(lambda: gymnasium.make("CartPole-v1"), workers=1)
    (process,) = env.fleet.processes
    del env
    gc.collect()
    assert not process.is_alive()


def test_what_cannot_be_a_door_is_refused():
    with pytest.raises(EnvError, match="copies=0"):
        from_gymnasium(Breaks, copies=0)
    with pytest.raises(EnvError, match="without `possible_agents`"):
        from_parallel(generated_agents_parallel_v0.parallel_env)
    with pytest.raises(EnvError, match="all must act in Discrete"):
        from_parallel(lambda: Tools([BOX, BOX], [spaces.Discrete(2), BOX]))
    with pytest.raises(EnvError, match=r"first_0: an observation of Sequence"):
        from_parallel(lambda: Tools([spaces.Sequence(BOX), BOX], [spaces.Discrete(2)] * 2))
    with pytest.raises(EnvError, match="whose turn it is"):
        from_aec(lambda: parallel_to_aec(Tools([BOX, BOX], [BOX, BOX])))
    lock = threading.Lock()
    with pytest.raises(EnvError, match=r"cannot be sent to a worker.*workers=0"):
        from_gymnasium(lambda: (lock, Breaks())[1], workers=1)


def test_what_a_door_cannot_play_is_refused():
    with from_parallel(lambda: Tools([BOX, BOX], [spaces.Discrete(3), spaces.Discrete(2)])) as env:
        with pytest.raises(EnvError, match="got 2 rows, but behind this door are 1"):
            env.reset(noise_of(0, 2))
        state = env.reset(noise_of(0, 1))
        with pytest.raises(ShapeError, match=r"actions: expected \[env=1, agent=2\]"):
            step(env, state, torch.zeros(1, 3, dtype=torch.long))
        state = env.reset(noise_of(0, 1))
        with pytest.raises(EnvError, match=r"second_0: the move \[2\] is not below \[2\]"):
            step(env, state, torch.tensor([[2, 2]]))


CART = Symmetry("mirror", torch.tensor([0]), torch.arange(4)[None], -torch.ones(1, 4), torch.tensor([[1, 0]]))


def test_a_declared_mirror_shows_learners_the_mirrored_game():
    with from_gymnasium(lambda: gymnasium.make("CartPole-v1"), symmetries=((CART,),)) as env:
        assert symmetries_of(env) == ((CART,),)
        state = env.reset(noise_of(env.spec.reset_noise, 1))
        played = env.observe(state)
        after = env.observe(step(env, state, torch.tensor([[1]]))[0])
        simulator = gymnasium.make("CartPole-v1").unwrapped  # the same step, played in the mirror
        simulator.reset()
        simulator.state = CART.obs(played)[0, 0].double().numpy()
        seen, *_ = simulator.step(int(CART.actions(torch.tensor([[1]]))))
        assert torch.allclose(torch.tensor(seen), CART.obs(after)[0, 0], atol=1e-6)
    with from_gymnasium(lambda: gymnasium.make("CartPole-v1")) as env:
        assert symmetries_of(env) == ()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"moves": torch.tensor([[1, 1]])}, r"'mirror', moves: a \[1, 2\] of whole numbers"),
        ({"index": torch.arange(3)[None], "sign": torch.ones(1, 3)}, r"'mirror', index: a \[1, 4\]"),
        ({"sign": torch.zeros(1, 4)}, "'mirror', sign: 1 or -1"),
        ({"index": torch.tensor([[0, 0, 2, 3]])}, "'mirror', index.*every number from 0 to 3 once"),
        ({"order": torch.tensor([1])}, "'mirror', order"),
    ],
)
def test_a_symmetry_that_does_not_fit_is_refused(change, message):
    with pytest.raises(EnvError, match=message):
        from_gymnasium(lambda: gymnasium.make("CartPole-v1"), symmetries=((replace(CART, **change),),))


@pytest.mark.parametrize("groups", [(CART,), [[CART]], ([CART],), ((),)])
def test_symmetries_that_are_no_groups_are_refused(groups):
    with pytest.raises(EnvError, match="a tuple of groups, each a tuple of one or more"):
        expect_symmetries(groups, EnvSpec(agents=1, obs=4, action=Discrete(2)))


# ---- vector environments


MODES = ["DISABLED", "SAME_STEP", "NEXT_STEP"]


@pytest.mark.parametrize("mode", MODES)
def test_gymnasiums_vector_envs_play_the_same_episodes_in_every_mode(mode):
    kind = {"autoreset_mode": gymnasium.vector.AutoresetMode[mode]}
    with (
        from_gymnasium(lambda: gymnasium.make("CartPole-v1"), copies=3) as alone,
        from_vector(gymnasium.make_vec("CartPole-v1", 3, vectorization_mode="sync", vector_kwargs=kind)) as env,
    ):
        assert env.spec.horizon == 500 and env.copies == 3
        assert same(play(alone, 60), play(env, 60))  # several episodes of each copy


@pytest.mark.parametrize("where", ["obs", "info"])
def test_masks_come_through_vector_envs_as_through_single_ones(where):
    makes = [lambda: Choosy(where)] * 3  # refuses illegal moves
    with from_gymnasium(makes[0], copies=3) as alone, from_vector(SyncVectorEnv(makes)) as env:
        assert env.spec.obs == 5 and env.spec.action == Discrete(3)
        assert env.legal(env.reset(noise_of(0, 3))).sum(-1).tolist() == [[2]] * 3
        assert same(play(alone, 20), play(env, 20))


@pytest.mark.parametrize("mode", ["SAME_STEP", "NEXT_STEP"])
def test_a_vector_env_that_resets_by_itself_shows_its_last_observation_and_no_step_that_was_none(mode):
    kind = gymnasium.vector.AutoresetMode[mode]
    with from_vector(Foreign([lambda: Counts(2), lambda: Counts(3)], kind)) as env:
        state, steps = env.reset(noise_of(0, 2)), [[], []]
        for _ in range(12):
            before, present = env.observe(state)[:, 0, 1], env.present(state)[:, 0]
            state, rewards, terminated = step(env, state, still(env))
            for i in range(2):
                if present[i]:
                    steps[i].append((before[i].item(), env.observe(state)[i, 0, 1].item(), rewards[i, 0].item()))
                else:
                    assert rewards[i, 0] == 0 and not terminated[i]
            state = env.restart(state, terminated, noise_of(1, 2))
    for i, length in enumerate((2, 3)):
        expected = [(t, t + 1, t + 1) for t in range(length)] * 12
        assert steps[i] == expected[: len(steps[i])]
        assert len(steps[i]) == 12 if mode == "SAME_STEP" else len(steps[i]) >= 12 * length // (length + 1)


def test_a_vector_env_that_resets_by_itself_is_restarted_only_where_it_ended():
    kind = gymnasium.vector.AutoresetMode.NEXT_STEP
    with from_vector(Foreign([lambda: Counts(2), lambda: Counts(3)], kind)) as env:
        state = env.reset(noise_of(0, 2))
        with pytest.raises(EnvError, match="only copies that it has ended"):
            env.restart(state, torch.tensor([True, False]), noise_of(1, 2))
        for _ in range(2):
            state, _, _ = step(env, state, still(env))
        with pytest.raises(EnvError, match="do not wait"):
            step(env, state, still(env))


@pytest.mark.slow
def test_gymnasiums_worker_processes_stand_behind_a_door_as_well():
    makes = [lambda: gymnasium.make("Pendulum-v1", max_episode_steps=5)] * 2
    with from_gymnasium(makes[0], copies=2) as alone, from_vector(AsyncVectorEnv(makes)) as env:
        assert same(play(alone, 20), play(env, 20))


# ---- in a rollout


def test_a_segment_from_behind_a_door_has_its_episodes_told_apart():
    lengths = iter([2, 3])
    with from_gymnasium(lambda: Counts(next(lengths), truncates=True), copies=2) as env:
        policy, source = Uniform(env.spec), generator(0)
        segment, live = collect(env, policy, begin(env, policy, 2, source), 7, source)
        segment = tree_cat([segment, collect(env, policy, live, 5, source)[0]], axis=1)
    for i, length in enumerate((2, 3)):
        time = torch.arange(12) % length
        assert torch.equal(segment.obs[i, :, 0, 1], time.float())
        assert torch.equal(segment.next_view.obs[i, :, 0, 1], time + 1.0)  # before the reset
        assert torch.equal(segment.truncated[i], time == length - 1) and not segment.terminated.any()
        assert torch.equal(segment.starts[i], time == 0)
        seeds = segment.obs[i, :, 0, 0].unflatten(0, (-1, length))
        assert (seeds == seeds[:, :1]).all() and len(set(seeds[:, 0].tolist())) > 1


def test_whole_episodes_from_behind_a_door_need_not_fill_its_last_batch():
    with from_gymnasium(lambda: Counts(4), copies=3) as env:
        played = episodes_of(env, Uniform(env.spec), 7, generator(1), envs=env.copies)
    assert played.valid.shape == (7, 4) and played.valid.all()
    assert played.terminated.tolist() == [[False, False, False, True]] * 7


# ---- doors out


def test_a_board_behind_a_door_is_the_env_it_was():
    board, raw = to_parallel(from_parallel(simple_tag_v3.parallel_env)), simple_tag_v3.parallel_env()
    board.reset(seed=4)
    raw.reset(seed=int(_seeds(torch.rand(1, 2, generator=generator(4, "board")))[0]))
    assert board.possible_agents == raw.possible_agents and board.state_space.shape == (62,)
    for t in range(25):
        actions = {name: np.int64((t + i) % 5) for i, name in enumerate(raw.possible_agents)}
        ours, theirs = board.step(actions), raw.step(actions)
        for name in raw.possible_agents:
            assert np.array_equal(ours[0][name], theirs[0][name]) and ours[0][name].dtype == np.float32
            assert ours[1][name] == pytest.approx(theirs[1][name]) and ours[2][name] == theirs[2][name]
            assert ours[3][name] == theirs[3][name] == (t == 24)
            assert ours[4][name]["action_mask"].tolist() == [1] * 5
    assert board.agents == []
    with pytest.raises(EnvError, match="call `reset` first"):
        board.step(actions)


def test_agents_that_come_and_go_pass_pettingzoos_tests():
    parallel_api_test(to_parallel(from_parallel(Lives)), num_cycles=30)


def test_a_seed_decides_everything_and_no_seed_goes_on():
    board = to_parallel(tabular.two_rooms(agents=2))
    starts = [
        [tuple(board.reset(seed=s)[0]["agent_0"])] + [tuple(board.reset()[0]["agent_0"]) for _ in range(9)]
        for s in (1, 1, 2)
    ]
    assert starts[0] == starts[1] != starts[2] and len(set(starts[0])) > 1


def test_a_move_that_is_missing_or_none_of_the_agents_is_refused():
    board = to_parallel(tabular.matrix_game(torch.zeros(2, 2, 3)))
    board.reset(seed=0)
    with pytest.raises(EnvError, match=r"no action of \['agent_1'\]"):
        board.step({"agent_0": 0})
    with pytest.raises(EnvError, match=r"agent_0: 2 is not an action of Discrete\(2\)"):
        board.step({"agent_0": 2, "agent_1": 2})


def test_partners_who_have_learnt_already_play_unseen_by_their_own_policy():
    board = to_parallel(tabular.coordination(3, agents=3), Always(3, move=2), ["agent_0", "agent_2"])
    assert board.possible_agents == ["agent_1"]
    for move, paid in ((2, 1.0), (0, 0.0)):
        obs, infos = board.reset(seed=0)
        assert set(obs) == set(infos) == {"agent_1"}
        _, rewards, terminations, truncations, _ = board.step({"agent_1": move})
        assert rewards == {"agent_1": paid} and truncations == {"agent_1": True} and not terminations["agent_1"]
        assert board.memory.tolist() == [1]  # forgotten at the reset
    parallel_api_test(board, num_cycles=5)
    for policy, played in ((None, ["agent_0"]), (Legal(3), []), (Legal(3), ["me"]), (Legal(3), board.spec.names)):
        with pytest.raises(EnvError, match="played"):
            to_parallel(board.env, policy, played)


# ---- policies in other loops


class Legal:
    """Any legal move; remembers how many steps each agent was present."""

    noise = 1

    def __init__(self, agents):
        self.agents = agents

    def start(self, envs):
        return torch.zeros(envs, self.agents)

    def act(self, view, memory, noise):
        self.view = view
        chosen = (view.legal.cumsum(-1) > (noise * view.legal.sum(-1, keepdim=True))).float().argmax(-1)
        return chosen, memory + view.present

    def log_prob(self, view, actions, memory=(), starts=None):
        return -view.legal.sum(-1).float().log()


class Always:
    """Moves `move`; remembers how many steps there were."""

    noise = 0

    def __init__(self, agents, move):
        self.agents, self.move = agents, move

    def start(self, envs):
        return torch.zeros(envs)

    def act(self, view, memory, noise):
        return torch.full((len(view.obs), self.agents), self.move), memory + 1

    def log_prob(self, view, actions, memory=(), starts=None):
        return torch.where(actions == self.move, 0.0, -torch.inf)


class Likeliest(Legal):
    def mode(self, view, memory):
        return view.legal.float().argmax(-1), memory + view.present


def test_a_policy_plays_pettingzoos_own_env_as_it_plays_behind_a_door():
    with from_parallel(simple_tag_v3.parallel_env) as env:
        player, raw = Player(Legal(4), env.spec, env.layout, seed=3), simple_tag_v3.parallel_env()
        noise, source = noise_of(6, 1), generator(3, "player")
        obs, infos = raw.reset(seed=int(_seeds(noise)[0]))
        state, policy = env.reset(noise), Legal(4)
        memory = policy.start(1)
        while raw.agents:
            view = player.view(obs, infos)
            assert torch.equal(view.obs, env.observe(state)) and torch.equal(view.legal, env.legal(state))
            ours, memory = policy.act(view, memory, torch.rand(1, 4, 1, generator=source))
            theirs = player.act(obs, infos)
            assert [theirs[name] for name in env.spec.names] == ours[0].tolist()
            obs, _, _, _, infos = raw.step(theirs)
            state, _, _ = step(env, state, ours)
        assert player.memory.tolist() == [[25.0] * 4]
        player.reset()
        assert player.memory.tolist() == [[0.0] * 4]


def test_a_recurrent_network_plays_alike_on_both_sides_of_a_door():
    with from_parallel(simple_speaker_listener_v4.parallel_env) as env:
        policy = AgentPolicy(NetConfig(body="gru", hidden=16, own_action=True), env.spec, generator(0))
        policy.outs[0].weight.data.normal_(generator=generator(1))  # fresh ones hardly tell observations apart
        player, raw, noise = (
            Player(policy, env.spec, env.layout),
            simple_speaker_listener_v4.parallel_env(),
            noise_of(2, 1),
        )
        state, memory = env.reset(noise), policy.start(1)
        (obs, infos), remembered, moves = raw.reset(seed=int(_seeds(noise)[0])), None, set()
        while raw.agents:
            with torch.no_grad():
                ours, memory = policy.mode(look(env, state), memory)
            theirs, remembered = player.predict(obs, remembered, deterministic=True, infos=infos)
            assert [theirs[name] for name in env.spec.names] == ours[0].tolist()
            moves.add(tuple(ours[0].tolist()))
            obs, _, _, _, infos = raw.step(theirs)
            state, _, _ = step(env, state, ours)
        assert len(moves) > 1


def test_a_policy_takes_turns_within_the_rules():
    env, layout = tictactoe_v3.env(), from_aec(tictactoe_v3.env).layout
    player, turns = Player(Legal(2), layout.spec, layout, seed=1), {"player_1": 0, "player_2": 0}
    env.reset(seed=0)
    for agent in env.agent_iter():
        obs, _, terminated, truncated, info = env.last()
        if terminated or truncated:
            env.step(None)
            continue
        action = player.act_one(agent, obs, info)
        assert obs["action_mask"][action]  # an illegal one would end the game
        turns[agent] += 1
        env.step(action)
    assert sum(turns.values()) >= 5
    for i, agent in enumerate(turns):
        assert player.memories[agent][0, i] == turns[agent] and player.memories[agent][0, 1 - i] == 0


def test_who_is_not_observed_is_absent():
    player = Player(Legal(3), EnvSpec(agents=3, obs=2, action=Discrete(4), action_sizes=(4, 2, 4)))
    actions = player.act({"agent_1": np.ones(2)}, {"agent_1": {"action_mask": np.array([0, 1])}})
    assert actions == {"agent_1": 1}
    assert player.policy.view.present.tolist() == [[False, True, False]]
    assert player.policy.view.obs.tolist() == [[[0, 0], [1, 1], [0, 0]]]
    assert player.policy.view.legal[0].sum(-1).tolist() == [4, 1, 4]


def test_predict_keeps_nothing_but_hands_memory_back():
    player = Player(Likeliest(2), EnvSpec(agents=2, obs=1, action=Discrete(3)))
    obs = {"agent_0": np.zeros(1), "agent_1": np.zeros(1)}
    _, memory = player.predict(obs)
    actions, memory = player.predict(obs, memory, deterministic=True)
    assert memory.tolist() == [[2, 2]] and actions == {"agent_0": 0, "agent_1": 0}
    assert player.predict(obs, memory, episode_start=True)[1].tolist() == [[1, 1]]
    assert player.memory.tolist() == [[0, 0]]
    with pytest.raises(EnvError, match="no `mode`"):
        Player(Legal(2), player.spec).predict(obs, deterministic=True)
    with pytest.raises(EnvError, match="no agent 'nobody'"):
        player.act({"nobody": np.zeros(1)})
