import json
import math
from dataclasses import dataclass
from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tests.runs import toy
from understudy.core import files
from understudy.core.errors import RunError
from understudy.core.random import generator
from understudy.runs import checkpoint

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.int8, torch.bool, torch.uint8]


def trained(updates, hidden=8):
    config = toy.Config(hidden=hidden)
    state, source = toy.init(config, None, None, generator(0, "init")), generator(0, "train")
    for _ in range(updates):
        toy.update(config, state, toy.Numbers(), None, source)
    return state


def test_a_state_comes_back_bit_for_bit_and_learns_on_as_if_nothing_had_been(tmp_path):
    undisturbed = trained(7)
    path = checkpoint.save(tmp_path, 7, undisturbed)
    update, restored = checkpoint.load(path, trained(0))
    assert update == 7
    assert toy.bits(restored) == toy.bits(undisturbed)
    for state in (undisturbed, restored):
        source = generator(0, "more")
        for _ in range(5):
            toy.update(toy.Config(), state, toy.Numbers(), None, source)
    assert toy.bits(restored) == toy.bits(undisturbed)


def test_the_optimizer_still_owns_the_restored_parameters(tmp_path):
    _, restored = checkpoint.load(checkpoint.save(tmp_path, 3, trained(3)), trained(0))
    owned = [p for group in restored.optimizer.param_groups for p in group["params"]]
    assert owned[-1] is restored.scale and owned[0] is restored.policy[0].weight


class Pair(NamedTuple):
    first: torch.Tensor
    second: int


tensors = st.builds(
    lambda dtype, shape, seed: (torch.randn(shape, generator=generator(seed)) * 9).to(dtype),
    st.sampled_from(DTYPES),
    st.lists(st.integers(0, 3), max_size=3).map(tuple),
    st.integers(0, 99),
)
leaves = tensors | st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
trees = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text() | st.integers(), inner, max_size=3)
        | st.builds(Pair, tensors, st.integers())
    ),
    max_leaves=12,
)


def same(a, b):
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and a.shape == b.shape and bool((a == b).all())
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, tuple | list):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


@settings(max_examples=60, deadline=None)
@given(trees)
def test_any_tree_comes_back_with_its_types(tree):
    packed, plain = checkpoint.pack(tree)
    assert same(checkpoint.unpack(tree, packed, json.loads(json.dumps(plain, allow_nan=False))), tree)


def test_numbers_that_json_has_no_word_for_come_back():
    tensors, plain = checkpoint.pack((math.inf, -math.inf, math.nan, -0.0))
    up, down, nan, zero = checkpoint.unpack((), tensors, json.loads(json.dumps(plain, allow_nan=False)))
    assert (up, down) == (math.inf, -math.inf) and math.isnan(nan) and math.copysign(1, zero) == -1


def test_strides_come_back_for_sums_add_up_in_the_order_of_memory():
    odd = torch.randn(5, 7, 3, generator=generator(0)).permute(2, 0, 1)
    again = checkpoint.unpack(None, *checkpoint.pack(odd))
    assert again.stride() == odd.stride() and torch.equal(again, odd)


def test_shared_memory_and_like_named_places_do_not_mix():
    x = torch.arange(4.0)
    tree = {"a.b": x, "a": {"b": x + 1}, "view": x[:2], "expanded": x[0].expand(3)}
    assert same(checkpoint.unpack(None, *checkpoint.pack(tree)), tree)


def test_a_generator_goes_on_where_it_was():
    source = generator(0)
    torch.rand(3, generator=source)
    packed = checkpoint.pack(source)
    wanted = torch.rand(5, generator=source)
    assert torch.equal(torch.rand(5, generator=checkpoint.unpack(generator(9), *packed)), wanted)


@dataclass
class Other:
    policy: nn.Module


@dataclass
class Tensors:
    x: torch.Tensor | None


@pytest.mark.parametrize(
    ("saved", "here", "message"),
    [
        (trained(1), trained(0, hidden=9), "run.policy: the checkpoint does not fit.*size mismatch"),
        (Other(nn.Linear(2, 2)), Other(nn.Linear(2, 2, bias=False)), "run.policy.*bias"),
        (Other(nn.Linear(2, 2)), Tensors(None), "has a field `policy`"),
        (Tensors(None), Other(nn.Linear(2, 2)), "has a field `x`"),
        (Tensors(torch.zeros(2, 3)), Tensors(torch.zeros(3, 2)), r"run.x: .*\[2, 3\].* \[3, 2\]"),
        (Tensors(torch.zeros(2)), Tensors(torch.zeros(2, dtype=torch.int64)), "float32.*int64"),
        (Tensors(torch.zeros(2)), Tensors(Other(nn.Linear(1, 1))), "holds a tensor, but this state has a Other"),
        (Tensors(generator(0)), Tensors(None), "holds a generator, but this state has nothing"),
        (Tensors(nn.Linear(1, 1)), Tensors(None), "holds a module or an optimizer, but this state has nothing"),
        (Tensors(Tensors(None)), Tensors(None), "holds a dataclass.*let `init` make one"),
    ],
)
def test_a_state_begun_otherwise_is_refused(tmp_path, saved, here, message):
    with pytest.raises(RunError, match=message):
        checkpoint.load(checkpoint.save(tmp_path, 1, saved), here)


def test_a_tensor_that_grows_begins_with_no_rows():
    packed = checkpoint.pack(Tensors(torch.ones(5, 2)))
    assert checkpoint.unpack(Tensors(torch.ones(0, 2)), *packed).x.shape == (5, 2)


def test_what_cannot_be_saved_exactly_is_refused_by_its_place():
    with pytest.raises(RunError, match=r"run.x.1: a object cannot be saved exactly"):
        checkpoint.pack(Tensors((1, object())))
    with pytest.raises(RunError, match=r"run.x: names in a dict"):
        checkpoint.pack(Tensors({1.5: 2}))


def test_a_module_that_has_diverged_does_not_push_out_the_last_good_checkpoint(tmp_path):
    state = trained(1)
    good = checkpoint.save(tmp_path, 1, state, keep=1)
    with torch.no_grad():
        state.policy[0].weight[0, 0] = math.nan
    with pytest.raises(RunError, match=r"run\.policy holds NaN at update 2"):
        checkpoint.save(tmp_path, 2, state, keep=1)
    assert checkpoint.latest(tmp_path) == good


def test_the_newest_and_the_milestones_stay(tmp_path):
    for update in range(1, 13):
        checkpoint.save(tmp_path, update, Tensors(torch.ones(1)), keep=2, milestone_every=5)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [f"{u:09d}.{end}" for u in (5, 10, 11, 12) for end in ("json", "safetensors")]


def test_every_damage_is_noticed(tmp_path):
    path = checkpoint.save(tmp_path, 4, trained(2))
    source = generator(1)
    for file in (path, path.with_suffix(".safetensors")):
        whole = file.read_bytes()
        mutants = [whole[:-1], whole + b"\0", b"", b"\0" * len(whole), b"[" * 100_000]
        for _ in range(100):
            at, bit = (int(torch.randint(n, (1,), generator=source)) for n in (len(whole), 8))
            mutants.append(whole[:at] + bytes([whole[at] ^ 1 << bit]) + whole[at + 1 :])
        for mutant in mutants:
            file.write_bytes(mutant)
            with pytest.raises(RunError, match=rf"{file.name} is damaged.*Delete both files 000000004"):
                checkpoint.load(path, trained(0))
        file.write_bytes(whole)
    path.with_suffix(".safetensors").unlink()
    with pytest.raises(RunError, match=r"000000004.safetensors: No such file"):
        checkpoint.load(path, trained(0))


def test_a_format_of_the_future_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "VERSION", 99)
    path = checkpoint.save(tmp_path, 1, Tensors(None))
    monkeypatch.undo()
    with pytest.raises(RunError, match="of format 99, and this understudy reads 1"):
        checkpoint.load(path, Tensors(None))


class Disk:
    """Lets the n-th operation on files fail, and notes all of them."""

    def __init__(self, monkeypatch, fail_at=None, error=28):
        self.done = []
        for name in ("fsync", "replace"):
            self._wrap(monkeypatch, files.os, name, fail_at, error)
        self._wrap(monkeypatch, files, "_write", fail_at, error)

    def _wrap(self, monkeypatch, holder, name, fail_at, error):
        real = getattr(holder, name)

        def watched(*args):
            self.done.append(name)
            if len(self.done) == fail_at:
                raise OSError(error, "No space left on device")
            return real(*args)

        monkeypatch.setattr(holder, name, watched)


def test_a_file_is_synced_before_its_name_and_its_name_before_the_json_that_vouches_for_it(tmp_path, monkeypatch):
    disk = Disk(monkeypatch)
    checkpoint.save(tmp_path, 1, Tensors(torch.ones(1)))
    once = ["_write", "fsync", "replace", "fsync"]
    assert disk.done == [*once, *once, "fsync"], "tensors, then JSON, then the deletions"


@pytest.mark.parametrize("error", [28, 5])
def test_whichever_operation_fails_the_folder_holds_the_old_or_the_new_checkpoint(tmp_path, monkeypatch, error):
    old, new = trained(1), trained(2)
    for n in range(1, 100):
        folder = tmp_path / str(n)
        checkpoint.save(folder, 1, old, keep=1)
        with monkeypatch.context() as patch:
            disk = Disk(patch, fail_at=n, error=error)
            said = None
            try:
                checkpoint.save(folder, 2, new, keep=1)
            except RunError as refused:
                said = str(refused)
        assert said is None or "could not be written" in said or "cannot be deleted" in said
        update, state = checkpoint.load(checkpoint.latest(folder), trained(0))
        assert toy.bits(state) == toy.bits(old if update == 1 else new)
        assert not list(folder.glob(f"*{files.TEMPORARY}"))
        checkpoint.save(folder, 3, new, keep=1)
        assert len(list(folder.iterdir())) == 2, "what a failure left behind is gone after the next checkpoint"
        if len(disk.done) < n:
            assert update == 2 and n > 8
            return
    pytest.fail("some operation failed every time")
