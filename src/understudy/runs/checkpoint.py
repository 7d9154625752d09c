"""Exact saving of what changes in training: tensors in .safetensors, all else in JSON. Nothing read can run code.

A checkpoint is two files, `000000120.safetensors` and `000000120.json`. The JSON is written last and holds the sha256
of both, so a checkpoint is whole where its JSON stands; safetensors alone promises safety, not integrity.

What a state may be made of: tensors, numbers, texts, None; dataclasses, tuples, lists and dicts of them; and whatever
has `state_dict` and `load_state_dict` (modules, optimizers, schedulers); and `torch.Generator`s.
"""

import json
import math
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

import safetensors.torch
import torch
from torch import Tensor, nn

from understudy.core.errors import Diverged, RunError, nearest
from understudy.core.files import TEMPORARY, fsync_folder, sha256, to_json, write_atomically

State = TypeVar("State")
VERSION = 1
NAMES = "[0-9]" * 9 + ".json"


def save(folder: Path, update: int, state: Any, keep: int = 2, milestone_every: int = 0, of: str = "") -> Path:
    """Write checkpoint number `update` of `state`; delete all older ones but `keep - 1` and the milestones.

    `of` names the run that it belongs to.

    Returns its JSON file, which is written last.

    Raises:
        Diverged: NaN in a module (saving it would push out the last good checkpoint).
        RunError: the disk is full (older checkpoints are untouched), or something in `state` cannot be saved exactly.
    """
    tensors, tree = pack(state)
    expect_no_nan(update, state)
    folder.mkdir(parents=True, exist_ok=True)
    data = safetensors.torch.save(tensors)
    body = {"version": VERSION, "of": of, "update": update, "tensors": sha256(data), "state": tree}
    path = folder / f"{update:09d}.json"
    write_atomically(path.with_suffix(".safetensors"), data)
    write_atomically(path, to_json({"sha256": sha256(to_json(body)), "body": body}))
    try:
        _delete_old(folder, keep, milestone_every)
    except OSError as error:
        raise RunError(f"{folder}: old checkpoints cannot be deleted: {error.strerror}.") from error
    return path


def expect_no_nan(update: int, state: Any) -> None:
    """Raises Diverged where a module in `state` holds NaN after so many updates."""
    for place, module in _modules(state):
        if any(bool(p.isnan().any()) for p in module.parameters()):
            raise Diverged(
                f"{place} holds NaN at update {update}: learning has diverged. What was saved before is kept."
            )


def latest(folder: Path) -> Path | None:
    """JSON file of the newest checkpoint of `folder`, None where there is none."""
    return max(folder.glob(NAMES), default=None)


def load(path: Path, state: State, device: torch.device | str = "cpu", of: str = "") -> tuple[int, State]:
    """The update's number and `state` as it was saved, bit for bit.

    Args:
        path: the JSON file of a checkpoint.
        state: one that was begun alike. Modules, optimizers and dataclasses that are not frozen are filled in place.
        device: where tensors go that have no counterpart in `state`.
        of: the run that it must belong to; empty: any.

    Raises:
        RunError: a file is missing or damaged, is another run's, or `state` was begun with other shapes.
    """
    body = _verified(path, path.read_bytes())
    if (of and body.get("of", of) != of) or body["update"] != int(path.stem):  # the first did not tell whose they are
        raise RunError(f"{path} is a checkpoint of another run or update, put here. {_WAY_OUT.format(path.stem)}")
    beside = path.with_suffix(".safetensors")
    try:
        data = beside.read_bytes()
    except OSError as error:
        raise RunError(f"{beside}: {error.strerror}. {_WAY_OUT.format(path.stem)}") from None
    if sha256(data) != body["tensors"]:
        raise RunError(f"{beside} is damaged: its sha256 is not the recorded one. {_WAY_OUT.format(path.stem)}")
    restored = unpack(state, safetensors.torch.load(data), body["state"], device)
    return body["update"], restored


def pack(state: Any) -> tuple[dict[str, Tensor], Any]:
    """Every tensor of `state` by its place, copied to the CPU; and the rest as plain data. `unpack` is the inverse."""
    tensors: dict[str, Tensor] = {}
    return tensors, _pack(state, "run", tensors)


def unpack(state: State, tensors: dict[str, Tensor], tree: Any, device: torch.device | str = "cpu") -> State:
    """`state` with the content that `pack` gave; raises RunError where it was begun with other shapes."""
    return _unpack(state, "run", tensors, tree, device)


_WAY_OUT = "Delete both files {}.* to go on from the checkpoint before."


def _verified(path: Path, data: bytes) -> dict[str, Any]:
    try:
        whole = json.loads(data)
        body = whole["body"]
        intact = sha256(to_json(body)) == whole["sha256"] and to_json(whole) == data
    except (ValueError, TypeError, KeyError, RecursionError):
        intact = False
    if not intact:
        raise RunError(f"{path} is damaged: its content is not what was written. {_WAY_OUT.format(path.stem)}")
    if body["version"] != VERSION:
        raise RunError(f"{path} is of format {body['version']}, and this understudy reads {VERSION}.")
    return body


def _delete_old(folder: Path, keep: int, milestone_every: int) -> None:
    """JSON files first: where a kill comes between, what is left is an orphan, never half a checkpoint."""
    old = sorted(folder.glob(NAMES))[: -max(keep, 1)]
    for path in old:
        if not (milestone_every and int(path.stem) % milestone_every == 0):
            path.unlink()
    whole = {path.stem for path in folder.glob(NAMES)}
    for path in folder.iterdir():
        if path.suffix == TEMPORARY or (path.suffix == ".safetensors" and path.stem not in whole):
            path.unlink()
    fsync_folder(folder)


def _modules(tree: Any, path: str = "run") -> Iterator[tuple[str, nn.Module]]:
    if isinstance(tree, nn.Module):
        yield path, tree
    else:
        for name, child in _children(tree):
            yield from _modules(child, f"{path}.{name}")


def _children(tree: Any) -> list[tuple[Any, Any]]:
    if is_dataclass(tree) and not isinstance(tree, type):
        return [(f.name, getattr(tree, f.name)) for f in fields(tree)]
    if isinstance(tree, dict):
        return list(tree.items())
    return list(enumerate(tree)) if isinstance(tree, tuple | list) else []


def _has_state(value: Any) -> bool:
    return hasattr(value, "state_dict") and hasattr(value, "load_state_dict")


# In the plain data every JSON object has one key, which tells what it stands for: {"tensor": [name, order of axes]},
# {"float": "nan"}, {"record": {field: ...}}, {"tuple": [...]}, {"dict": [[key, value], ...]}, {"held": state_dict}.


def _pack(value: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, Tensor):
        # Sums over an axis may add up in the order of memory: strides are part of the bits.
        order = sorted(range(value.dim()), key=value.stride, reverse=True)
        dense = value.detach().permute(order).cpu()
        name = f"{len(tensors)}:{path}"  # dots in a dict's names could make two paths alike
        tensors[name] = dense.clone(memory_format=torch.contiguous_format)  # two names may share one memory
        return {"tensor": [name, order]}
    if isinstance(value, float):
        return value if math.isfinite(value) else {"float": str(value)}
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, torch.Generator):
        return {"generator": _pack(value.get_state(), path, tensors)}
    if _has_state(value):
        return {"held": _pack(dict(value.state_dict()), path, tensors)}
    inner = [(name, _pack(child, f"{path}.{name}", tensors)) for name, child in _children(value)]
    if is_dataclass(value) and not isinstance(value, type):
        return {"record": dict(inner)}
    if isinstance(value, dict):
        if not all(isinstance(name, str | int) for name in value):
            raise RunError(f"{path}: names in a dict must be texts or whole numbers to be saved.")
        return {"dict": inner}
    if isinstance(value, tuple | list):
        return {"tuple" if isinstance(value, tuple) else "list": [child for _, child in inner]}
    raise RunError(
        f"{path}: a {type(value).__name__} cannot be saved exactly. A state holds tensors, numbers, texts, generators, "
        "what has a state_dict, and dataclasses, tuples, lists and dicts of these."
    )


def _unpack(here: Any, path: str, tensors: dict[str, Tensor], saved: Any, device: torch.device | str) -> Any:
    """`saved` in the place of `here`, which lends classes, devices and shapes."""
    if not isinstance(saved, dict):
        return saved
    ((kind, content),) = saved.items()
    if kind == "tensor":
        name, order = content
        return _tensor(here, path, tensors[name], order, device)
    if kind == "float":
        return float(content)
    if kind == "generator":
        if not isinstance(here, torch.Generator):
            raise RunError(f"{path}: the checkpoint holds a generator, but this state has {_a(here)}.")
        here.set_state(_unpack(None, path, tensors, content, "cpu"))
        return here
    if kind == "held":
        return _held(here, path, tensors, content)
    if kind == "record":
        return _record(here, path, tensors, content, device)
    if kind == "dict":
        named = here if isinstance(here, dict) else {}
        return {name: _unpack(named.get(name), f"{path}.{name}", tensors, child, device) for name, child in content}
    of = here if isinstance(here, tuple | list) else ()
    items = [
        _unpack(of[i] if i < len(of) else None, f"{path}.{i}", tensors, child, device)
        for i, child in enumerate(content)
    ]
    if hasattr(here, "_fields"):
        return type(here)(*items)
    return tuple(items) if kind == "tuple" else items


def _tensor(here: Any, path: str, saved: Tensor, order: list[int], device: torch.device | str) -> Tensor:
    value = saved.permute([order.index(axis) for axis in range(len(order))])
    if isinstance(here, Tensor):
        grows = here.dim() == value.dim() > 0 and len(here) == 0 and here.shape[1:] == value.shape[1:]
        if (here.shape != value.shape and not grows) or here.dtype != value.dtype:
            raise RunError(
                f"{path}: the checkpoint holds {value.dtype} {list(value.shape)}, but this state has {here.dtype} "
                f"{list(here.shape)}. (A tensor that is to grow begins with no rows.)"
            )
        if here.requires_grad:  # an optimizer may know it: the tensor stays, its content changes
            with torch.no_grad():
                return here.copy_(value)
        return value.to(here.device)
    if here is not None:
        raise RunError(f"{path}: the checkpoint holds a tensor, but this state has {_a(here)}.")
    return value.to(device)


def _held(here: Any, path: str, tensors: dict[str, Tensor], content: Any) -> Any:
    if not _has_state(here):
        raise RunError(f"{path}: the checkpoint holds a module or an optimizer, but this state has {_a(here)}.")
    restored = _unpack(None, path, tensors, content, "cpu")  # loading moves each tensor where it belongs
    try:
        here.load_state_dict(restored)
    except (ValueError, RuntimeError, KeyError) as error:
        raise RunError(f"{path}: the checkpoint does not fit this state: {' '.join(str(error).split())}") from None
    return here


def _record(here: Any, path: str, tensors: dict[str, Tensor], content: dict[str, Any], device: Any) -> Any:
    if not is_dataclass(here) or isinstance(here, type):
        raise RunError(f"{path}: the checkpoint holds a dataclass, but this state has {_a(here)}: let `init` make one.")
    names = [f.name for f in fields(here)]
    for name in content:
        if name not in names:
            raise RunError(
                f"{path}: the checkpoint has a field `{name}` that this state has not.{nearest(name, names)}"
            )
    values = {
        name: _unpack(getattr(here, name), f"{path}.{name}", tensors, content[name], device)
        for name in names
        if name in content
    }
    if len(values) < len(names):
        raise RunError(f"{path}: the checkpoint has no field `{next(n for n in names if n not in values)}`.")
    if type(here).__dataclass_params__.frozen:  # type: ignore[attr-defined]
        return type(here)(**values)
    for name, value in values.items():
        setattr(here, name, value)
    return here


def _a(value: Any) -> str:
    return "nothing" if value is None else f"a {type(value).__name__}"
