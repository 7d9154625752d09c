from dataclasses import replace

import pytest
import torch

from tests.demos.common import DISCRETE, demos, episode
from understudy.core.errors import DemosError
from understudy.core.random import generator
from understudy.core.tree import tree_leaves, tree_take
from understudy.demos import Demos, Episode, order
from understudy.demos import demos as demos_module


def test_every_step_comes_once_in_an_epoch_with_what_it_led_to():
    made = demos([7, 1, 12])
    batches = made.batches_per_epoch(6)
    for epoch in range(3):
        seen = []
        for k in range(batches):
            batch = made.batch(epoch * batches + k, 6, seed=4)
            assert len(batch.actions) <= 6
            torch.testing.assert_close(batch.next_view.obs[..., 1], batch.obs[..., 1] + 1)
            torch.testing.assert_close(batch.next_view.obs[..., 0], batch.obs[..., 0])
            torch.testing.assert_close(batch.rewards, batch.obs[..., 1] + 0.5)
            torch.testing.assert_close(batch.actions, (batch.obs.sum(-1) % 4).long())
            torch.testing.assert_close(batch.weight, 1 + batch.obs[:, 0, 0])
            seen += batch.obs[:, 0, :2].long().tolist()
        assert sorted(seen) == [[n, t] for n, steps in enumerate([7, 1, 12]) for t in range(steps)]


def test_an_episode_comes_back_as_it_went_in():
    made = demos([7, 1, 12])
    for n, steps in enumerate([7, 1, 12]):
        there, here = episode(n, steps), made[n]
        for name, value in vars(there).items():
            got = getattr(here, name)
            if isinstance(value, torch.Tensor):
                torch.testing.assert_close(got, value)
            elif name != "labels":
                assert got == value, name
        assert all(torch.equal(here.labels[k], v) for k, v in there.labels.items())


@pytest.mark.parametrize("window", [2, 3, 5, 12, 40])
def test_windows_cover_every_step_once_in_every_epoch(window):
    lengths = [7, 1, 12, 10, 25]
    made = demos(lengths)
    batches = made.batches_per_epoch(4, window)
    for epoch in range(5):
        seen = []
        for k in range(batches):
            batch = made.batch(epoch * batches + k, 4, seed=1, window=window)
            assert batch.obs.shape[1:] == (window, 2, 3)
            kept = batch.obs[:, :, 0, :2][batch.valid].long()
            seen += kept.tolist()
            assert (batch.starts == ((batch.obs[:, :, 0, 1] == 0) & batch.valid)).all()
        assert sorted(seen) == [[n, t] for n, steps in enumerate(lengths) for t in range(steps)]


def everything(batch) -> list:
    return [leaf.tolist() for leaf in tree_leaves(batch)]


@pytest.mark.parametrize("window", [1, 3])
def test_a_batch_is_a_function_of_seed_and_position_alone(monkeypatch, window):
    monkeypatch.setattr(demos_module, "CHUNK_BYTES", 300)  # so that an epoch has many buffers
    monkeypatch.setattr(order, "CHUNKS", 3)
    lengths = [7, 1, 12, 30, 22]
    made = demos(lengths)
    count = 3 * made.batches_per_epoch(5, window)
    assert len(made._order(0, 0, window).bounds) > 4
    first = [everything(made.batch(k, 5, 0, window)) for k in range(count)]
    fresh = demos(lengths)
    turned = torch.randperm(count, generator=generator(0)).tolist()
    for k in turned:
        assert everything(fresh.batch(k, 5, 0, window)) == first[k]
        fresh.batch(k, 5, 1, window)  # a reader with another seed comes between
    assert everything(fresh.batch(0, 5, 1, window)) != first[0]
    seen = [tuple(row) for k in range(count // 3) for row in rows(made.batch(k, 5, 0, window), window)]
    assert sorted(seen) == [(n, t) for n, steps in enumerate(lengths) for t in range(steps)]


@pytest.mark.parametrize("kind", ["floats", "bytes", "chosen", "many blocks"])
def test_steps_that_are_drawn_are_those_of_the_batch(monkeypatch, kind):
    """Where they lie, or copied; also where a batch is spread over several buffers."""
    monkeypatch.setattr(demos_module, "CHUNK_BYTES", 300)
    monkeypatch.setattr(order, "CHUNKS", 3)
    made = demos([7, 1, 12, 30, 22])
    if kind == "bytes":
        episodes = [replace(e, obs=e.obs.to(torch.uint8)) for e in made]
        made = Demos.from_episodes(DISCRETE, episodes)
    elif kind == "chosen":
        made = made.select([4, 0, 2])
    elif kind == "many blocks":
        one, other = (demos_module.pack([made[i] for i in part]) for part in ((0, 1, 2), (3, 4)))
        made = Demos(made.spec, made.about, [one, other], made._table)
    for k in range(2 * made.batches_per_epoch(5)):
        batch, drawn = made.batch(k, 5, 0, following=False), made.drawn(k, 5, 0)
        assert (drawn.rows is None) == (kind in ("bytes", "many blocks"))
        taken = drawn.among if drawn.rows is None else tree_take(drawn.among, drawn.rows)
        for name in ("obs", "legal", "present"):
            assert torch.equal(getattr(taken.view, name), getattr(batch.view, name))
        assert torch.equal(taken.actions, batch.actions) and torch.equal(drawn.weight, batch.weight)


def rows(batch, window: int) -> list:
    kept = batch.obs if window == 1 else batch.obs[batch.valid]
    return kept[:, 0, :2].long().tolist()


def test_a_set_smaller_than_a_batch_comes_whole():
    made = demos([3, 4])
    assert made.batches_per_epoch(4096) == 1
    assert made.batch(5, 4096, seed=0).obs.shape == (7, 2, 3)


def test_batches_of_an_epoch_are_as_even_as_can_be():
    made = demos([10])
    assert made.batches_per_epoch(4) == 3
    assert [len(made.batch(k, 4, seed=0).actions) for k in range(6)] == [4, 4, 2, 4, 4, 2]
    assert [len(demos([9]).batch(k, 8, seed=0).actions) for k in range(2)] == [5, 4]


def test_flags_of_a_step_are_those_of_its_place_in_its_episode():
    made = demos([4, 6])
    for window in (1, 5):
        for k in range(made.batches_per_epoch(3, window)):
            batch = made.batch(k, 3, seed=0, window=window)
            number, t = batch.obs[..., 0, 0].long(), batch.obs[..., 0, 1].long()
            real = torch.ones_like(t, dtype=torch.bool) if batch.valid is None else batch.valid
            last = (t == torch.tensor([3, 5])[number]) & real
            assert batch.terminated.equal(last & (number == 0)) and batch.truncated.equal(last & (number == 1))
            assert batch.ended.equal(last)
            assert (batch.starts == ((t == 0) & real)).all()


def test_padding_repeats_the_last_step_and_is_not_valid():
    padded = demos([4, 6, 1]).padded([1, 0])
    assert padded.obs.shape == (2, 6, 2, 3)
    assert padded.valid.tolist() == [[True] * 6, [True] * 4 + [False] * 2]
    assert padded.obs[1, :, 0, 1].tolist() == [0, 1, 2, 3, 3, 3]
    assert padded.next_view.obs[1, :, 0, 1].tolist() == [1, 2, 3, 4, 4, 4]
    assert padded.starts.nonzero().tolist() == [[0, 0], [1, 0]]
    assert padded.terminated.nonzero().tolist() == [[1, 3]] and padded.truncated.nonzero().tolist() == [[0, 5]]
    legal = padded.view.legal.gather(-1, padded.actions.unsqueeze(-1))
    assert legal.all(), "a policy may be asked for the likelihood of padding"
    assert demos([4]).padded().obs.shape == (1, 4, 2, 3)
    assert demos([1]).padded().obs.shape == (1, 1, 2, 3), "one step keeps its time axis"


def test_split_parts_episodes_and_hangs_on_the_seed_alone():
    made = demos(list(range(1, 21)))
    rest, held = made.split(0.25, seed=3)
    assert (len(rest), len(held)) == (15, 5)
    assert sorted(rest.names + held.names) == sorted(made.names)
    assert held.names == made.split(0.25, seed=3)[1].names != made.split(0.25, seed=4)[1].names
    with pytest.raises(DemosError, match="both parts need an episode"):
        made.split(0.01, seed=0)


def test_a_choice_of_episodes_is_a_set_of_its_own():
    made = demos([3, 4, 5, 6, 7])
    rooms = made.where(lambda info: info["layout"] == "room")
    assert rooms.names == ("e0", "e3") and rooms.steps == 9 and rooms.lengths.tolist() == [3, 6]
    assert made.select([3, 3, -1]).names == ("e3", "e3", "e4")
    assert made.select([4, 0]).fingerprint() == Demos.from_episodes(DISCRETE, [made[4], made[0]]).fingerprint()
    assert rooms.fingerprint() != made.fingerprint()
    with pytest.raises(DemosError, match="episode 5 was asked for, and there are 5"):
        made.select([5])
    with pytest.raises(IndexError):
        made[5]


def test_returns_are_sums_of_rewards():
    returns = demos([3, 5]).returns()
    assert returns.tolist() == [[4.5, 4.5], [12.5, 12.5]]
    with pytest.raises(DemosError, match="no rewards"):
        demos([3], full=False).returns()


def test_weights_reach_every_step():
    made = demos([3, 5]).reweighted([0.5, 2.0])
    batch = made.batch(0, 8, seed=0)
    assert batch.weight.equal(torch.tensor([0.5, 2.0])[batch.obs[:, 0, 0].long()])
    assert made[1].weight == 2.0
    with pytest.raises(DemosError, match="2 numbers from 0"):
        made.reweighted([1.0])


def test_the_fingerprint_sees_every_part():
    prints = {demos([3, 5]).fingerprint(), demos([3, 5]).reweighted([1.0, 1.0]).fingerprint()}
    for name, value in {
        "name": "x",
        "info": {},
        "terminated": True,
        "labels": {},
        "rewards": torch.zeros(5, 2),
    }.items():
        other = episode(1, 5)
        setattr(other, name, value)
        prints.add(Demos.from_episodes(DISCRETE, [other]).fingerprint())
    prints.add(Demos.from_episodes(DISCRETE, [episode(1, 5)]).fingerprint())
    prints.add(Demos.from_episodes(replace(DISCRETE, dt=0.2), [episode(1, 5)]).fingerprint())
    assert len(prints) == 9


def test_an_empty_set_says_so_when_it_is_drawn_from():
    empty = Demos.from_episodes(DISCRETE, [])
    assert (len(empty), empty.steps, empty.returns().shape) == (0, 0, (0, 2))
    with pytest.raises(DemosError, match="no episode"):
        empty.batch(0, 4, seed=0)
    with pytest.raises(DemosError, match="size, window"):
        demos([3]).batch(0, 0, seed=0)
    with pytest.raises(DemosError, match="position"):
        demos([3]).batch(-1, 1, seed=0)


def test_an_episode_that_says_no_end_was_cut_off_by_its_recording():
    plain = Episode(torch.zeros(3, 2, 3), torch.zeros(2, 2, dtype=torch.long))
    made = Demos.from_episodes(replace(DISCRETE, whole=0), [plain])
    assert made[0].truncated and not made[0].terminated
