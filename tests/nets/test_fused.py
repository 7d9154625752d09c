import logging
import os
import platform
import shutil
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import understudy
from understudy.core import native
from understudy.core.random import generator
from understudy.nets import fused

SOURCE = Path(fused.__file__).with_name("fused.cpp")
COMPILER = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
compiled = pytest.mark.skipif(
    sys.platform != "linux" or COMPILER is None or os.environ.get("UNDERSTUDY_FUSED") == "0",
    reason="here networks are computed by torch alone",
)


@pytest.fixture
def afresh(monkeypatch, tmp_path):
    """The library is looked for anew, in a folder of the test's own; afterwards nothing of that is remembered."""
    monkeypatch.setenv("UNDERSTUDY_CACHE", str(tmp_path / "cache"))
    fused._library.cache_clear()
    fused._tell.cache_clear()
    yield tmp_path / "cache"
    fused._library.cache_clear()


def net(widths: list[int], groups: tuple[int, ...] = (0,), seed: int = 0) -> tuple[list[Tensor], list[Tensor], Tensor]:
    chance, sets = generator(seed, "net"), max(groups) + 1
    weights = [torch.randn(sets, b, a, generator=chance) / a**0.5 for a, b in pairwise(widths)]
    biases = [torch.randn(sets, b, generator=chance) / 4 for b in widths[1:]]
    return weights, biases, torch.tensor(groups)


def gradients(function, x: Tensor, weights: list[Tensor], biases: list[Tensor], pull: Tensor, *rest) -> list[Tensor]:
    """What comes out, then its gradients, pulled at by `pull`."""
    x, *parameters = (tensor.detach().clone().requires_grad_() for tensor in (x, *weights, *biases))
    y = function(x, parameters[: len(weights)], parameters[len(weights) :], *rest)
    return [y.detach(), *torch.autograd.grad(y, [x, *parameters], pull.to(y.dtype), allow_unused=True)]


def expect_near(ours: list[Tensor], exact: list[Tensor], pulls: float) -> None:
    """Within float32's rounding of sums of `pulls` and of 1."""
    for mine, true in zip(ours, exact, strict=True):
        torch.testing.assert_close(mine.double(), true, rtol=2e-6, atol=1e-6 * max(1.0, pulls))


def away_from_bends(x: Tensor, weights: list[Tensor], biases: list[Tensor], index: Tensor, closed: bool) -> Tensor:
    """Where rounding cannot decide on which side of relu's bend a number lies."""
    sure = torch.ones_like(x[..., :1])
    for weight, bias in list(zip(weights, biases, strict=True))[: len(weights) if closed else -1]:
        before = fused.linear(x, weight, bias, index)
        sure = sure * (before.abs().amin(dim=-1, keepdim=True) > 1e-5)
        x = before.relu()
    return sure


# ---- the numbers ----


@compiled
@settings(deadline=None, max_examples=40)
@given(
    rows=st.integers(0, 1000),
    inputs=st.integers(1, 80),
    hidden=st.lists(st.integers(1, 130), max_size=3),
    outputs=st.integers(1, 40),
    groups=st.sampled_from([(0,), (0, 0), (0, 1, 0), (2, 1, 0, 1)]),
    activation=st.sampled_from(["tanh", "relu", "silu"]),
    closed=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_outputs_and_gradients_are_those_of_float64(rows, inputs, hidden, outputs, groups, activation, closed, seed):
    envs, chance = rows // len(groups), generator(seed, "x")
    weights, biases, index = net([inputs, *hidden, outputs], groups, seed)
    x = torch.randn(envs, len(groups), inputs, generator=chance)
    pull = torch.randn(envs, len(groups), outputs, generator=chance)
    rest = (index, closed)
    double = [[tensor.double() for tensor in each] for each in (weights, biases)]
    if activation == "relu":
        pull = pull * away_from_bends(x.double(), *double, *rest)
    ours = gradients(fused.mlp, x, weights, biases, pull, activation, *rest)
    exact = gradients(fused.plain, x.double(), *double, pull, activation, *rest)
    expect_near(ours, exact, pulls=4 * float(pull.abs().sum(dim=(0, 1)).max() if envs else 0) ** 0.5)


@compiled
def test_activations_are_the_librarys_to_the_last_bits_and_pass_on_what_is_not_a_number():
    one, zero, index = [torch.ones(1, 1, 1)], [torch.zeros(1, 1)], torch.tensor([0])
    x = torch.cat([torch.linspace(-30, 30, 600_001), torch.logspace(-30, 2, 1000), -torch.logspace(-30, 2, 1000)])
    for name, exact in fused.ACTIVATIONS.items():
        y = fused.mlp(x.reshape(-1, 1, 1), one, zero, name, index, closed=True).flatten()
        torch.testing.assert_close(y.double(), exact(x.double()), rtol=3e-7, atol=1e-20)
        edges = torch.tensor([torch.inf, torch.nan, 0.0]).reshape(-1, 1, 1)
        passed = fused.mlp(edges, one, zero, name, index, closed=True)
        torch.testing.assert_close(passed, exact(edges), equal_nan=True, rtol=0, atol=0)


@compiled
def test_a_row_that_is_not_a_number_touches_no_other_row():
    weights, biases, index = net([7, 20, 3])
    x = torch.randn(200, 1, 7, generator=generator(1))
    clean = fused.mlp(x, weights, biases, "tanh", index)
    x[77, 0, 2] = torch.nan
    y = fused.mlp(x, weights, biases, "tanh", index)
    assert y[77].isnan().all()
    rest = torch.arange(200) != 77
    assert y[rest].equal(clean[rest])
    d_x = gradients(fused.mlp, x, weights, biases, torch.ones(200, 1, 3), "tanh", index)[1]
    assert d_x[77].isnan().all()
    assert d_x[rest].isfinite().all()


@compiled
@pytest.mark.skipif(platform.machine() != "x86_64", reason="other processors have other names")
@pytest.mark.parametrize("processor", ["x86-64", "x86-64-v3"])
def test_processors_with_shorter_vectors_find_the_same(processor, afresh, monkeypatch):
    flags = [flag.replace("native", processor) for flag in native.FLAGS]
    monkeypatch.setattr(native, "FLAGS", flags)
    weights, biases, index = net([7, 33, 20, 3], (0, 1, 0))
    double = [[tensor.double() for tensor in each] for each in (weights, biases)]
    x, pull = torch.randn(150, 3, 7, generator=generator(1)), torch.randn(150, 3, 3, generator=generator(2))
    assert fused.status() == "in use"
    for activation in ("tanh", "silu"):
        ours = gradients(fused.mlp, x, weights, biases, pull, activation, index)
        exact = gradients(fused.plain, x.double(), *double, pull, activation, index)
        expect_near(ours, exact, pulls=50)
        ours = gradients(lambda *a: steepness(fused.mlp, *a), x, weights, biases, pull[..., :1], activation, index)[:6]
        exact = gradients(lambda *a: steepness(fused.plain, *a), x.double(), *double, pull[..., :1], activation, index)
        expect_near(ours, exact[:6], pulls=50)


# ---- the same bits ----


@compiled
def test_bits_hang_neither_on_threads_nor_on_the_call_before():
    weights, biases, index = net([18, 64, 64, 5], (0, 1, 0))
    x, pull = torch.randn(900, 3, 18, generator=generator(1)), torch.randn(900, 3, 5, generator=generator(2))
    found, before = [], torch.get_num_threads()
    try:
        for threads in (1, 2, 3, 1):
            torch.set_num_threads(threads)
            found.append(gradients(fused.mlp, x, weights, biases, pull, "tanh", index))
            gradients(fused.mlp, x[:7] * 1e9, weights, biases, pull[:7], "silu", index)
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(a.equal(b) for a, b in zip(found[0], other, strict=True))


@compiled
def test_a_row_is_the_same_alone_and_among_others():
    weights, biases, index = net([18, 33, 5], (0, 1, 0))
    x = torch.randn(300, 3, 18, generator=generator(1))
    together = fused.mlp(x, weights, biases, "silu", index)
    for row in (0, 5, 95, 96, 299):
        assert fused.mlp(x[row : row + 1], weights, biases, "silu", index).equal(together[row : row + 1])


# ---- as torch has it ----


def steepness(function, x, weights, biases, activation, index, closed=False) -> Tensor:
    """Squared slope of each row's summed outputs by its inputs: a function of the weights, too."""
    (slope,) = torch.autograd.grad(function(x, weights, biases, activation, index, closed).sum(), x, create_graph=True)
    return slope.square().sum(dim=-1, keepdim=True)


@compiled
@pytest.mark.parametrize("activation", ["tanh", "relu", "silu"])
@pytest.mark.parametrize("closed", [False, True])
@pytest.mark.parametrize(("widths", "groups"), [([6, 20, 20, 1], (0, 0)), ([6, 33, 3], (1, 0)), ([6, 2], (0, 1))])
def test_slopes_can_be_learnt_from(widths, groups, activation, closed):
    weights, biases, index = net(widths, groups)
    double = [[tensor.double() for tensor in each] for each in (weights, biases)]
    x, pull = torch.randn(700, 2, 6, generator=generator(1)), torch.randn(700, 2, 1, generator=generator(2))
    if activation == "relu":
        pull = pull * away_from_bends(x.double(), *double, index, closed)
    ours = gradients(lambda *a: steepness(fused.mlp, *a), x, weights, biases, pull, activation, index, closed)
    exact = gradients(lambda *a: steepness(fused.plain, *a), x.double(), *double, pull, activation, index, closed)
    pairs = [(a, b) for a, b in zip(ours, exact, strict=True) if b is not None]  # torch finds none where all are zero
    expect_near(*zip(*pairs, strict=True), pulls=4 * float(pull.abs().sum()) ** 0.5)
    assert all(a is None or not a.any() for a, b in zip(ours, exact, strict=True) if b is None)


@compiled
def test_gradients_of_any_order_and_by_everything_can_be_differentiated():
    weights, biases, index = net([3, 8, 2], (0, 1))
    x = torch.randn(5, 2, 3, generator=generator(1))
    found = []
    for function, kind in ((fused.mlp, torch.float32), (fused.plain, torch.float64)):
        inputs = [tensor.to(kind).requires_grad_() for tensor in (x, *weights, *biases)]
        for depth in (1, 2, 3):
            y = function(inputs[0], inputs[1:3], inputs[3:], "tanh", index)
            for _ in range(depth):
                y = sum(g.sin().sum() for g in torch.autograd.grad(y.sin().sum(), inputs, create_graph=True))
            found.append(torch.autograd.grad(y, inputs))
    for ours, exact in zip(found[:3], found[3:], strict=True):
        for mine, true in zip(ours, exact, strict=True):
            torch.testing.assert_close(mine.double(), true, rtol=1e-4, atol=1e-4 * float(true.abs().max()))


@compiled
def test_a_slope_can_be_differentiated_by_what_pulled():
    weights, biases, index = net([3, 8, 2])
    found = []
    for function, kind in ((fused.mlp, torch.float32), (fused.plain, torch.float64)):
        x = torch.randn(5, 1, 3, generator=generator(1)).to(kind).requires_grad_()
        pull = torch.randn(5, 1, 2, generator=generator(2)).to(kind).requires_grad_()
        y = function(x, *[[tensor.to(kind) for tensor in each] for each in (weights, biases)], "silu", index)
        (slope,) = torch.autograd.grad(y, x, pull, create_graph=True)
        (d_pull, d_x) = torch.autograd.grad(slope.square().sum(), [pull, x], create_graph=True)
        found.append([slope, d_pull, d_x, *torch.autograd.grad(d_x.square().sum(), [pull, x])])
    for mine, true in zip(*found, strict=True):
        torch.testing.assert_close(mine.double(), true, rtol=1e-5, atol=1e-6)


@compiled
def test_a_weight_that_the_inputs_are_made_from_is_counted_once_when_gradients_are_differentiated():
    weights, biases, index = net([3, 3, 3])
    both = []
    for function in (fused.mlp, fused.plain):
        weight = weights[0].clone().requires_grad_()
        x = torch.ones(4, 1, 3) * weight.sum()
        y = function(x, [weight, weights[1]], biases, "tanh", index)
        (first,) = torch.autograd.grad(y.sum(), weight, create_graph=True)
        (second,) = torch.autograd.grad(first.square().sum(), weight)
        both.append((first, second))
    torch.testing.assert_close(both[0], both[1])


@compiled
def test_only_what_is_asked_for_gets_a_gradient():
    weights, biases, index = net([4, 8, 2])
    x = torch.randn(9, 1, 4, generator=generator(1))
    assert not fused.mlp(x, weights, biases, "tanh", index).requires_grad
    weights[1].requires_grad_()
    fused.mlp(x, weights, biases, "tanh", index).sum().backward()
    assert weights[1].grad is not None and weights[0].grad is None and x.grad is None
    x.requires_grad_()
    weights[1].requires_grad_(False)
    fused.mlp(x, weights, biases, "tanh", index).sum().backward()
    asked = torch.autograd.grad(fused.plain(x, weights, biases, "tanh", index).sum(), x)[0]
    torch.testing.assert_close(x.grad, asked)
    with torch.no_grad():
        assert not fused.mlp(x, weights, biases, "tanh", index).requires_grad


@compiled
def test_it_takes_tensors_as_they_lie():
    weights, biases, index = net([6, 16, 4], (0, 1))
    wide = torch.randn(6, 2, 30, 2, generator=generator(1))
    x = wide.permute(2, 3, 1, 0)[::2]  # [env, time, agent, feature], of odd strides
    turned = [weight.transpose(1, 2).contiguous().transpose(1, 2) for weight in weights]
    pull = torch.ones(1, 1, 1, 1).expand(15, 2, 2, 4)
    ours = gradients(lambda x, *a: fused.mlp(x, *a), x, turned, biases, pull, "tanh", index)
    same = gradients(fused.mlp, x.contiguous(), weights, biases, pull.contiguous(), "tanh", index)
    assert all(a.equal(b) for a, b in zip(ours, same, strict=True))
    assert ours[0].shape == (15, 2, 2, 4)


@compiled
def test_what_was_changed_in_place_since_is_noticed():
    weights, biases, index = net([4, 8, 2])
    weights[0].requires_grad_()
    y = fused.mlp(torch.ones(3, 1, 4), weights, biases, "tanh", index)
    with torch.no_grad():
        weights[0].mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


# ---- where torch does it alone ----


def test_switched_off_it_is_the_plain_twin(afresh, monkeypatch, caplog):
    monkeypatch.setenv("UNDERSTUDY_FUSED", "0")
    weights, biases, index = net([5, 9, 2])
    x = torch.randn(8, 1, 5, generator=generator(1))
    with caplog.at_level(logging.INFO, "understudy"):
        for _ in range(2):
            y = fused.mlp(x, weights, biases, "tanh", index)
    assert y.equal(fused.plain(x, weights, biases, "tanh", index))
    assert fused.status() == "off: UNDERSTUDY_FUSED is 0"
    assert [record.getMessage() for record in caplog.records] == [
        "networks are computed by torch alone: off: UNDERSTUDY_FUSED is 0"
    ]
    assert not afresh.exists()


def test_without_a_compiler_it_is_the_plain_twin(afresh, monkeypatch, caplog):
    monkeypatch.delenv("UNDERSTUDY_FUSED", raising=False)
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", "")
    weights, biases, index = net([5, 9, 2])
    with caplog.at_level(logging.INFO, "understudy"):
        y = fused.mlp(torch.ones(8, 1, 5), weights, biases, "tanh", index)
    assert y.equal(fused.plain(torch.ones(8, 1, 5), weights, biases, "tanh", index))
    assert "there is no C++ compiler: install g++" in caplog.text
    assert "no C++ compiler" in fused.status()


@compiled
def test_a_compiler_that_refuses_is_quoted(afresh, monkeypatch, tmp_path):
    refusing = tmp_path / "c++"
    refusing.write_text("#!/bin/sh\necho 'not today' >&2\nexit 1\n")
    refusing.chmod(0o700)
    monkeypatch.setenv("CXX", str(refusing))
    assert fused.status().endswith("refused it: not today")


@compiled
@pytest.mark.parametrize(
    ("why", "call"),
    [
        ("torch.float64", lambda x, *a: fused.mlp(x.double(), *[[t.double() for t in part] for part in a[:2]], *a[2:])),
        ("on meta", lambda x, *a: fused.mlp(x.to("meta"), *[[t.to("meta") for t in part] for part in a[:2]], *a[2:])),
        ("torch.func", lambda x, *a: torch.func.vmap(lambda row: fused.mlp(row, *a))(x)),
        ("torch.func", lambda x, *a: torch.func.grad(lambda row: fused.mlp(row, *a).sum())(x)),
        ("torch.func", lambda x, *a: torch.func.jvp(lambda row: fused.mlp(row, *a), (x,), (x,))[0]),
    ],
)
def test_where_it_does_not_fit_torch_does_it_and_says_why(why, call, caplog):
    fused._tell.cache_clear()
    weights, biases, index = net([5, 9, 2])
    with caplog.at_level(logging.INFO, "understudy"):
        call(torch.randn(4, 1, 5, generator=generator(1)), weights, biases, "tanh", index)
    assert why in caplog.text


@compiled
def test_autocast_and_very_wide_layers_are_torchs_own(caplog):
    fused._tell.cache_clear()
    weights, biases, index = net([5, 9, 2])
    wide = net([5, fused.WIDEST + 1, 2])
    with caplog.at_level(logging.INFO, "understudy"), torch.no_grad():
        with torch.autocast("cpu", torch.bfloat16):
            assert fused.mlp(torch.ones(4, 1, 5), weights, biases, "tanh", index).dtype == torch.bfloat16
        fused.mlp(torch.ones(4, 1, 5), wide[0], wide[1], "tanh", index)
    assert "autocast" in caplog.text
    assert "wider than 512" in caplog.text


def test_what_is_being_traced_meets_nothing_but_torch(monkeypatch):
    weights, biases, index = net([5, 9, 2], (0, 1))
    x = torch.randn(4, 2, 5, generator=generator(1))
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    monkeypatch.delattr(fused, "_unsuited")
    assert fused.mlp(x, weights, biases, "tanh", index).equal(fused.plain(x, weights, biases, "tanh", index))


def test_the_source_travels_with_the_package():
    assert (Path(understudy.__file__).parent / "nets" / "fused.cpp").is_file()
