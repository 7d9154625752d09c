import pytest
import torch

from tests.demos.common import ABOUT, DISCRETE, demos, episode
from understudy.core.errors import DemosError
from understudy.core.tree import tree_leaves
from understudy.demos import Demos, store


def same(a: Demos, b: Demos, window: int, count: int = 12) -> None:
    for position in range(count):
        here, there = (x.batch(position, 5, seed=3, window=window) for x in (a, b))
        for x, y in zip(tree_leaves(here), tree_leaves(there), strict=True):
            assert torch.equal(x, y)


@pytest.mark.parametrize("full", [True, False])
@pytest.mark.parametrize("memory", [0, 2**28])
def test_a_set_comes_back_from_disk_bit_for_bit_and_draws_the_same_batches(tmp_path, monkeypatch, full, memory):
    monkeypatch.setattr(store, "SHARD_BYTES", 2000)
    made = demos([7, 1, 12, 30, 5, 9, 9], full=full)
    made.save(tmp_path / "set")
    back = Demos.load(tmp_path / "set", memory=memory)
    assert len(list((tmp_path / "set").glob("*.arrow"))) > 1
    assert (back.spec, back.about, back.names, back.infos) == (made.spec, made.about, made.names, made.infos)
    assert back.fingerprint() == made.fingerprint()
    for window in (1, 4):
        same(back, made, window)
        same(back.select([5, 0, 3, 3]), made.select([5, 0, 3, 3]), window)
