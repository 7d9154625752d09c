"""Small multilayer perceptrons, forward and backward, by one compiled function each (`fused.cpp`), else by torch.

Of learning with networks of 64 to 256 features next to all time goes into products so small that memory between them,
and the activation, cost more than the products. `fused.cpp` takes a block of rows through all layers while it is in the
nearest caches. `mlp` uses it where it can, and is `plain` everywhere else: other devices and dtypes, transforms of
torch, gradients of higher order than a penalty of slopes needs.

`UNDERSTUDY_FUSED=0` turns it off.
"""

import ctypes
import logging
import os
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from understudy.core import native

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"tanh": torch.tanh, "relu": F.relu, "silu": F.silu}
CODES = {"tanh": 0, "relu": 1, "silu": 2}  # as in fused.cpp
SIGNATURES = {  # name: pointers, numbers after them
    "understudy_kept": (2, 6),
    "understudy_forward": (7, 7),
    "understudy_backward": (10, 7),
    "understudy_backward_of_slope": (10, 7),
}
WIDEST = 512  # the gradients of wider layers would be summed in tens of megabytes
ALONE = (ctypes.c_int64 * 1)(0)  # the set of every agent where there is one


def mlp(
    x: Float[Tensor, "*batch agent input"],
    weights: Sequence[Float[Tensor, "set _out _in"]],
    biases: Sequence[Float[Tensor, "set _out"]],
    activation: str,
    groups: Int[Tensor, "agent"],
    closed: bool = False,
) -> Float[Tensor, "*batch agent output"]:
    """Layer after layer, x <- activation(W[groups[agent]] x + b[groups[agent]]), the last one linear unless `closed`.

    To float32's rounding it is `plain`, with gradients of any order. The same call gives the same bits, with any number
    of threads, and a row's outputs do not hang on the other rows.
    """
    if torch.compiler.is_compiling():  # what follows cannot be traced
        return plain(x, weights, biases, activation, groups, closed)
    reason = _unsuited(x, weights)
    if reason is not None:
        _tell(reason)
        return plain(x, weights, biases, activation, groups, closed)
    call = _described(x, weights, activation, groups, closed)
    if torch.is_grad_enabled():
        return _Fused.apply(x, call, *weights, *biases)
    return _forward(x, weights, biases, call)


def plain(
    x: Float[Tensor, "*batch agent input"],
    weights: Sequence[Float[Tensor, "set _out _in"]],
    biases: Sequence[Float[Tensor, "set _out"]],
    activation: str,
    groups: Int[Tensor, "agent"],
    closed: bool = False,
) -> Float[Tensor, "*batch agent output"]:
    """What `mlp` computes, by torch."""
    last = len(weights) - 1
    for number, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        x = linear(x, weight, bias, groups)
        if closed or number < last:
            x = ACTIVATIONS[activation](x)
    return x


def linear(
    x: Float[Tensor, "*batch agent input"],
    weight: Float[Tensor, "set output input"],
    bias: Float[Tensor, "set output"],
    groups: Int[Tensor, "agent"],
) -> Float[Tensor, "*batch agent output"]:
    """W[groups[agent]] x[agent] + b[groups[agent]], all agents in one product."""
    if len(weight) == 1:
        return F.linear(x, weight[0], bias[0])
    return torch.einsum("...ai,aoi->...ao", x, weight[groups]) + bias[groups]


def status() -> str:
    """`in use`, or why the compiled functions are not."""
    if os.environ.get("UNDERSTUDY_FUSED") == "0":
        return "off: UNDERSTUDY_FUSED is 0"
    found = _library()
    return found if isinstance(found, str) else "in use"


class Call(NamedTuple):
    """What a call asks for."""

    activation: str
    groups: Tensor
    closed: bool
    sizes: tuple[
        Any, ...
    ]  # widths, groups; envs, agents, sets, depth, activation, closed, threads: as fused.cpp has them


class _Fused(torch.autograd.Function):
    """y of (x, *weights, *biases)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, call: Call, *parameters: Tensor) -> Tensor:
        kept = _room_to_keep(call) if any(ctx.needs_input_grad) else None
        ctx.save_for_backward(x, kept, *parameters)
        ctx.call = call
        return _forward(x, *_halves(parameters), call, kept)

    @staticmethod
    def backward(ctx: Any, *pulls: Any) -> Any:
        x, kept, *parameters = ctx.saved_tensors
        wanted = ctx.needs_input_grad[0], any(ctx.needs_input_grad[2:])
        if torch.is_grad_enabled():
            d_x, *rest = _Gradient.apply(x, pulls[0], ctx.call, kept, wanted, *parameters)
        else:
            d_x, *rest = _backward(x, None, pulls[0], *_halves(parameters), ctx.call, *wanted, kept)
        return d_x, None, *rest


class _Gradient(torch.autograd.Function):
    """The gradients of pull . y by (x, *weights, *biases), as functions of those and of pull."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        pull: Tensor,
        call: Call,
        kept: Tensor | None,
        wanted: tuple[bool, bool],
        *parameters: Tensor,
    ) -> tuple[Tensor | None, ...]:
        ctx.save_for_backward(x, pull, *parameters)
        ctx.call = call
        ctx.set_materialize_grads(False)
        return _backward(x, None, pull, *_halves(parameters), call, *wanted, kept)

    @staticmethod
    def backward(ctx: Any, *directions: Any) -> Any:
        x, pull, *parameters = ctx.saved_tensors
        wanted = [*ctx.needs_input_grad[:2], *ctx.needs_input_grad[5:]]
        slope_alone = directions[0] is not None and all(each is None for each in directions[1:])
        again = torch.is_grad_enabled()
        if slope_alone and not wanted[1] and not again:
            given = x, directions[0], pull, *_halves(parameters), ctx.call
            d_x, *rest = _backward(*given, wanted[0], any(wanted[2:]))
            return d_x, None, None, None, None, *rest
        with torch.enable_grad():
            # under other names, so that what `x` was made from does not count where it is a parameter too
            inputs = [tensor.view_as(tensor) for tensor in (x, pull, *parameters)]
            for tensor in inputs:
                tensor.requires_grad_()
            y = plain(inputs[0], *_halves(inputs[2:]), *ctx.call[:3])
            first = torch.autograd.grad(y, [inputs[0], *inputs[2:]], inputs[1], create_graph=True)
            pairs = [(gradient, each) for gradient, each in zip(first, directions, strict=True) if each is not None]
            outputs, pulls = zip(*pairs, strict=True)
            asked = [tensor for tensor, want in zip(inputs, wanted, strict=True) if want]
            found = iter(torch.autograd.grad(outputs, asked, pulls, create_graph=again, allow_unused=True))
        d_x, d_pull, *rest = [next(found) if want else None for want in wanted]
        return d_x, d_pull, None, None, None, *rest


def _halves(parameters: Sequence[Tensor]) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
    """Weights and biases."""
    depth = len(parameters) // 2
    return parameters[:depth], parameters[depth:]


# ---- the compiled functions ----


@cache
def _library() -> ctypes.CDLL | str:
    """The compiled functions, or why there are none."""
    try:
        library = native.library(Path(__file__).with_name("fused.cpp"))
    except native.Unavailable as reason:
        return f"off: {reason}"
    for name, (pointers, numbers) in SIGNATURES.items():
        function = getattr(library, name)
        function.argtypes = [ctypes.c_void_p] * pointers + [ctypes.c_int64] * numbers
        function.restype = ctypes.c_int64 if name == "understudy_kept" else None
    return library


@cache
def _tell(reason: str) -> None:
    """Each reason once."""
    logging.getLogger("understudy").info("networks are computed by torch alone: %s", reason)


def _unsuited(x: Tensor, weights: Sequence[Tensor]) -> str | None:
    """Why this call is not for the compiled functions. None: it is."""
    if x.dtype != torch.float32 or weights[0].dtype != torch.float32:
        return f"they are for float32, and this is {x.dtype}, {weights[0].dtype}"
    if x.device.type != "cpu" or weights[0].device.type != "cpu":
        return f"they are for the CPU, and this is on {x.device}, {weights[0].device}"
    if max(weight.shape[1] for weight in weights) > WIDEST or x.shape[-1] > WIDEST:
        return f"layers wider than {WIDEST} features"
    if torch.is_autocast_enabled("cpu"):
        return "autocast"
    if reason := native.watched(x):
        return reason
    state = status()
    return None if state == "in use" else state


def _described(x: Tensor, weights: Sequence[Tensor], activation: str, groups: Tensor, closed: bool) -> Call:
    depth, sets = len(weights), len(weights[0])
    widths = (ctypes.c_int64 * (depth + 1))(x.shape[-1], *(weight.shape[1] for weight in weights))
    agents = 1 if sets == 1 else len(groups)
    envs = x.shape[:-1].numel() // agents
    counts = envs, agents, sets, depth, CODES[activation], int(closed), torch.get_num_threads()
    return Call(activation, groups, closed, (widths, ALONE if sets == 1 else groups.data_ptr(), *counts))


def _room_to_keep(call: Call) -> Tensor | None:
    """Where forward leaves its activations for backward. None where backward must compute them again."""
    library: Any = _library()
    floats = library.understudy_kept(*call.sizes[:-1])
    return torch.empty(floats) if floats else None


def _forward(
    x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor], call: Call, kept: Tensor | None = None
) -> Tensor:
    x, weights, biases = x.contiguous(), [w.contiguous() for w in weights], [b.contiguous() for b in biases]
    y = x.new_empty(*x.shape[:-1], weights[-1].shape[1])
    library: Any = _library()
    library.understudy_forward(
        x.data_ptr(), y.data_ptr(), _pointer(kept), _pointers(weights), _pointers(biases), *call.sizes
    )
    return y


def _backward(
    x: Tensor,
    direction: Tensor | None,
    pull: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    call: Call,
    inputs_too: bool,
    parameters_too: bool,
    kept: Tensor | None = None,
) -> tuple[Tensor | None, ...]:
    """Gradients of pull . y by x, weights and biases; with a `direction`, those of direction . (the first of these)."""
    x, pull = x.contiguous(), pull.contiguous()
    weights, biases = [w.contiguous() for w in weights], [b.contiguous() for b in biases]
    d_x = torch.empty_like(x) if inputs_too else None
    d_weights, d_biases = (
        [torch.empty_like(p) if parameters_too else None for p in each] for each in (weights, biases)
    )
    given = pull.data_ptr(), _pointer(d_x), _pointers(weights), _pointers(biases)
    asked = (_pointers(d_weights), _pointers(d_biases)) if parameters_too else (None, None)
    library: Any = _library()
    if direction is None:
        library.understudy_backward(x.data_ptr(), _pointer(kept), *given, *asked, *call.sizes)
    else:
        direction = direction.contiguous()
        library.understudy_backward_of_slope(x.data_ptr(), direction.data_ptr(), *given, *asked, *call.sizes)
    return d_x, *d_weights, *d_biases


def _pointer(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def _pointers(tensors: Sequence[Tensor | None]) -> Any:
    return (ctypes.c_void_p * len(tensors))(*map(_pointer, tensors))
