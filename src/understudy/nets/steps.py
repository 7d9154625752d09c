"""Gradient steps of small feed-forward networks by compiled functions (`steps.cpp`): without a tape, rows not copied.

A step of a network of 64 to 256 features takes a hundred operations of torch, and of small minibatches they take longer
than the products. Here it is one function from rows of what was seen and done to the gradients, and one from those to
new weights. What is computed is the loss of `bc.clone_loss`, or those of `ppo.improve`, and a step of torch's own
optimizer, whose state is kept as it keeps it, so that steps of either kind may follow one another.

`cloning` and `climbing` say None where that is not possible, and the caller lets torch do it: they are for feed-forward
policies of one member, without dropout, that see one frame and act each by itself; for discrete, multi-discrete and
Gaussian actions; for float32 on a CPU; for Adam and AdamW. `UNDERSTUDY_FUSED=0` turns them off too.
"""

import ctypes
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor

from understudy.core import native
from understudy.core.errors import DemosError
from understudy.core.types import Segment
from understudy.maths.heads import Categorical, Gaussian, Head, MultiCategorical
from understudy.nets import fused
from understudy.nets.bodies import Feedforward
from understudy.nets.mlp import AgentLinear, Normaliser
from understudy.nets.policy import AgentPolicy
from understudy.nets.values import Values

FIGURES = 4  # as in steps.cpp
Optimizer = torch.optim.Optimizer
Rows = Int[Tensor, "step"] | None  # of columns; None: all, in their order
Cloning = Callable[[Segment, Rows, Float[Tensor, "step"] | None], Float[Tensor, ""]]
Climbing = Callable[[Int[Tensor, "row"], bool, Float[Tensor, ""] | None], dict[str, Float[Tensor, ""]]]


def _structure(name: str, **fields: Any) -> type[ctypes.Structure]:
    return type(name, (ctypes.Structure,), {"_fields_": list(fields.items())})


_P, _N, _R = ctypes.c_void_p, ctypes.c_int64, ctypes.c_double  # as steps.cpp has them
_Network: Any = _structure(
    "Network", widths=_P, groups=_P, weights=_P, biases=_P, d_weights=_P, d_biases=_P,
    agents=_N, sets=_N, depth=_N, activation=_N, threads=_N,
)  # fmt: skip
_Steps: Any = _structure("Steps", inputs=_P, mean=_P, std=_P, rows=_P, count=_N, agents=_N)
_Head: Any = _structure("Head", numbers=_N, parts=_N, choices=_P, actions=_P, legal=_P, present=_P)
_Likelihood: Any = _structure("Likelihood", head=_Head, weight=_P)
_Gain: Any = _structure(
    "Gain", head=_Head, log_prob=_P, advantages=_P, there=_P, params=_P, clip=_R, bonus=_R
)  # fmt: skip
_Squares: Any = _structure("Squares", targets=_P)
_Group: Any = _structure(
    "Group", tensors=_N, sizes=_P, weights=_P, gradients=_P, first=_P, second=_P, steps=_P,
    rate=_R, beta_first=_R, beta_second=_R, epsilon=_R, decay=_R, most=_R,
)  # fmt: skip


# ---- what learners call ----


def cloning(policy: AgentPolicy, optimizer: Optimizer, max_norm: float) -> Cloning | None:
    """`step(recorded, rows, weight) -> loss`: a step towards what was done in those rows of `recorded`, [row, agent].

    The loss is the mean of -log pi over choices (`rollout.choosing`), each with its step's `weight`. None: by torch.
    """
    net = _of_policy(policy)
    if net is None or not _holds(optimizer, [net]):
        return None
    descent, latest = _Descent(optimizer, max_norm, [net]), _Latest()

    def asked(recorded: Segment, kept: _Kept) -> tuple[Any, Any]:
        return _steps(recorded.obs, policy.normaliser, kept), _Likelihood(_head(policy.head, recorded, kept), None)

    def step(recorded: Segment, rows: Rows, weight: Float[Tensor, "step"] | None) -> Float[Tensor, ""]:
        seen, loss = latest.of(recorded, asked)
        rows, weight = (None if each is None else each.contiguous() for each in (rows, weight))
        seen.rows, seen.count = fused._pointer(rows), len(recorded.obs) if rows is None else len(rows)
        loss.weight = fused._pointer(weight)
        told = net.find_gradients("likelihood", seen, loss)
        descent()
        return told[1]

    return step


def climbing(
    policy: AgentPolicy,
    values: Values,
    optimizer: Optimizer,
    max_norm: float,
    clip: float,
    bonus: float,
    played: Segment,
    before: tuple[Tensor, Tensor],
    advantages: Float[Tensor, "env time agent"],
    there: Float[Tensor, "env time agent"],
    inputs: Float[Tensor, "env time agent feature"],
    targets: Float[Tensor, "env time agent"],
) -> Climbing | None:
    """`step(envs, diverged, besides) -> figures`: a step of `ppo.improve` on a minibatch of envs. None: by torch.

    Args:
        before: the head's parameters, and the log-probabilities of what was done, before the update.
        inputs, targets: of the values, both normalised.

    `diverged` asks for the divergence too; `besides` is a loss of the policies that comes on top.
    """
    actor = _of_policy(policy)
    layers: Any = values.net.hidden
    critic = _net([*layers, values.net.last], values.net.activation, values.normaliser)
    if actor is None or critic is None or not _holds(optimizer, [actor, critic]):
        return None
    descent, kept = _Descent(optimizer, max_norm, [actor, critic]), _Kept()
    seen = _steps(played.obs, policy.normaliser, kept), _steps(inputs, None, kept)
    params, *rest = (kept(x, torch.float32) for x in (*before, advantages, there, targets))
    gain, squares = _Gain(_head(policy.head, played, kept), *rest[:-1], None, clip, bonus), _Squares(rest[-1])
    time = torch.arange(targets.shape[1])
    descent.held.append(kept)  # as long as there are steps to come

    def step(
        envs: Int[Tensor, "row"], diverged: bool, besides: Float[Tensor, ""] | None
    ) -> dict[str, Float[Tensor, ""]]:
        rows = (envs.unsqueeze(-1) * len(time) + time).flatten()
        for each in seen:
            each.rows, each.count = rows.data_ptr(), len(rows)
        gain.params = params if diverged else None
        _, climbed, entropy, kl = actor.find_gradients("gain", seen[0], gain).float()
        square = critic.find_gradients("squares", seen[1], squares)[1].float()
        if besides is not None:
            actor.add_gradients(besides)
        descent()
        told = {"loss/policy": -climbed - bonus * entropy, "loss/value": square, "entropy": entropy}
        return told | {"kl": kl} if diverged else told

    return step


# ---- networks, optimizers ----


class _Net:
    """A network, and where its gradients go."""

    def __init__(self, layers: Sequence[AgentLinear], activation: str):
        parameters = [layer.weight for layer in layers], [layer.bias for layer in layers]
        self.gradients = {p: torch.zeros_like(p, requires_grad=False) for each in parameters for p in each}
        pointers = [fused._pointers(each) for each in parameters]
        pointers += [fused._pointers([self.gradients[p] for p in each]) for each in parameters]
        sets, index = len(layers[0].weight), layers[0].index
        widths = (ctypes.c_int64 * (len(layers) + 1))(layers[0].weight.shape[2], *(a.weight.shape[1] for a in layers))
        groups: Any = fused.ALONE if sets == 1 else (ctypes.c_int64 * len(index))(*index.tolist())
        self.held = widths, groups, pointers
        self.given = _Network(
            *(ctypes.cast(each, _P) for each in (widths, groups, *pointers)),
            1 if sets == 1 else len(index), sets, len(layers), fused.CODES[activation], torch.get_num_threads(),
        )  # fmt: skip

    def find_gradients(self, name: str, seen: Any, loss: Any) -> Float[Tensor, "figure"]:
        """Those of a loss, in `gradients`; what is told of it comes back."""
        told = torch.empty(FIGURES, dtype=torch.float64)
        given = (ctypes.byref(each) for each in (self.given, seen, loss))
        getattr(_library(), f"understudy_{name}")(*given, told.data_ptr())
        return told

    def add_gradients(self, loss: Float[Tensor, ""]) -> None:
        """Those of another loss, which torch finds."""
        for parameter, gradient in self.gradients.items():
            parameter.grad = gradient
        loss.backward()
        for parameter in self.gradients:
            parameter.grad = None


class _Descent:
    """A step of the optimizer along the gradients of `nets`, those of each shortened to `max_norm`."""

    def __init__(self, optimizer: Optimizer, max_norm: float, nets: Sequence[_Net]):
        self.optimizer, self.parameters = optimizer, [p for net in nets for p in net.gradients]
        self.groups: list[Any] = []
        self.held: list[Any] = []
        for group, net in zip(optimizer.param_groups, nets, strict=True):
            learnt = group["params"]
            states = [_state(optimizer, p) for p in learnt]
            moments = ([state[name] for state in states] for name in ("exp_avg", "exp_avg_sq", "step"))
            lists = [fused._pointers(each) for each in (learnt, [net.gradients[p] for p in learnt], *moments)]
            sizes = (ctypes.c_int64 * len(learnt))(*(p.numel() for p in learnt))
            self.held += [sizes, *lists]
            self.groups.append(
                _Group(
                    len(learnt), *(ctypes.cast(each, _P) for each in (sizes, *lists)),
                    group["lr"], *group["betas"], group["eps"], group["weight_decay"], max_norm,
                )
            )  # fmt: skip

    def __call__(self) -> None:
        for group, theirs in zip(self.groups, self.optimizer.param_groups, strict=True):
            group.rate = theirs["lr"]  # which may have changed since
            _library().understudy_adam(ctypes.byref(group))
        torch.autograd.graph.increment_version(self.parameters)


def _state(optimizer: Optimizer, parameter: Tensor) -> dict[str, Tensor]:
    """What torch keeps of a parameter, made as it makes it where there is none yet."""
    state = optimizer.state[parameter]
    if not state:
        state["step"] = torch.zeros((), dtype=torch.float32)
        for name in ("exp_avg", "exp_avg_sq"):
            state[name] = torch.zeros_like(parameter, memory_format=torch.preserve_format, requires_grad=False)
    return state


# ---- what is learnt from ----


class _Kept(list[Any]):
    """Pointers to tensors that live as long as this."""

    def __call__(self, tensor: Tensor | None, dtype: torch.dtype) -> int | None:
        if tensor is None:
            return None
        if not tensor.is_cpu:  # torch would say so; an address there would end the process
            raise DemosError(f"recordings are on {tensor.device}, and the policy on the CPU: move one to the other.")
        self.append(tensor.to(dtype).contiguous())
        return self[-1].data_ptr()


class _Latest:
    """What was made of the latest segment: that of the next step often is the same."""

    def __init__(self) -> None:
        self.segment: Segment | None = None

    def of(self, segment: Segment, make: Callable[[Segment, _Kept], Any]) -> Any:
        if self.segment is not segment:
            self.segment, self.kept = segment, _Kept()
            self.made = make(segment, self.kept)
        return self.made


def _steps(inputs: Float[Tensor, "*step agent feature"], normaliser: Normaliser | None, kept: _Kept) -> Any:
    scale = (None, None) if normaliser is None else (kept(x, torch.float32) for x in (normaliser.mean, normaliser.std))
    return _Steps(kept(inputs, torch.float32), *scale, None, 0, inputs.shape[-2])


def _head(head: Head, done: Segment, kept: _Kept) -> Any:
    """`head`, what was done, and who might have done what."""
    numbers = isinstance(head, Gaussian)
    choices = [] if isinstance(head, Gaussian) else [head.choices] if isinstance(head, Categorical) else [*head.choices]  # type: ignore[attr-defined]
    kept.append((ctypes.c_int64 * len(choices))(*choices))
    return _Head(
        numbers, head.noise if numbers else len(choices), ctypes.cast(kept[-1], _P),
        kept(done.actions, torch.float32 if numbers else torch.int64),
        kept(done.view.legal, torch.bool), kept(done.view.present, torch.bool),
    )  # fmt: skip


# ---- where it suits ----


@cache
def _library() -> Any:
    """The compiled functions; None where there are none."""
    try:
        library = native.library(Path(__file__).with_name("steps.cpp"))
    except native.Unavailable:
        return None
    for name in ("likelihood", "gain", "squares"):
        getattr(library, f"understudy_{name}").argtypes = [ctypes.c_void_p] * 4
    library.understudy_adam.argtypes = [ctypes.c_void_p]
    return library


def _of_policy(policy: AgentPolicy) -> _Net | None:
    """The network of a policy; None where torch has to compute it."""
    config, body, out = policy.config, policy.bodies[0], policy.outs[0]
    hidden = config.dropout or config.input_dropout or config.inner_dropout
    alone = not (config.has_past or config.joint or hidden) and config.members == 1
    known = isinstance(body, Feedforward) and isinstance(policy.head, Categorical | MultiCategorical | Gaussian)
    if not (alone and known):
        return None
    layers: Any = body.layers
    return _net([*layers, cast(AgentLinear, out)], config.activation, policy.normaliser)


def _net(layers: Sequence[AgentLinear], activation: str, normaliser: Normaliser) -> _Net | None:
    """Of float32 on a CPU, learnt in full, and no wider than `fused.WIDEST`; None for others."""
    learnt = [p for layer in layers for p in (layer.weight, layer.bias)]
    suited = (
        all(p.requires_grad and p.is_contiguous() for p in learnt)
        and all(x.dtype == torch.float32 and x.device.type == "cpu" for x in (*learnt, normaliser.mean, normaliser.std))
        and max(max(layer.weight.shape[1:]) for layer in layers) <= fused.WIDEST
        and not torch.is_autocast_enabled("cpu")
        and fused.status() == "in use"
        and _library() is not None
    )
    return _Net(layers, activation) if suited else None


def _holds(optimizer: Optimizer, nets: Sequence[_Net]) -> bool:
    """An Adam without extras, or an AdamW, each of whose groups holds one net's parameters, and all of them."""
    groups = optimizer.param_groups
    return (
        type(optimizer) in (torch.optim.Adam, torch.optim.AdamW)
        and len(groups) == len(nets)
        and all(set(group["params"]) == set(net.gradients) for group, net in zip(groups, nets, strict=True))
        and not any(group["amsgrad"] or group["maximize"] or group["differentiable"] for group in groups)
        and not any(isinstance(group["lr"], Tensor) for group in groups)
        and all(state["step"].dtype == torch.float32 for state in optimizer.state.values())
        and (type(optimizer) is torch.optim.AdamW or not any(group["weight_decay"] for group in groups))
    )
