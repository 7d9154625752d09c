"""Map, select, stack for trees: dataclasses, tuples, lists and dicts whose leaves are tensors.

`None` is an empty tree. Anything else that is not a tensor (a number, a string) is kept as it is by every function.
"""

from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


def _named(kind: Any) -> tuple[str, ...] | None:
    """Names of a dataclass's fields; None for any other kind."""
    return tuple(field.name for field in fields(kind)) if is_dataclass(kind) else None


_fields: Callable[[Any], tuple[str, ...] | None] = cache(_named)


def tree_map(function: Callable[..., Any], tree: T, *others: Any) -> T:
    """`tree` with each tensor replaced by `function(tensor, *the tensors at its place in others)`."""
    if isinstance(tree, Tensor):
        return function(tree, *others)
    names = _fields(type(tree))
    if names is not None:
        mapped = {n: tree_map(function, getattr(tree, n), *(getattr(o, n) for o in others)) for n in names}
        return type(tree)(**mapped)
    if isinstance(tree, dict):
        return {k: tree_map(function, v, *(o[k] for o in others)) for k, v in tree.items()}  # type: ignore[return-value]
    if isinstance(tree, tuple | list):
        children = [tree_map(function, c, *(o[i] for o in others)) for i, c in enumerate(tree)]
        return type(tree)(*children) if hasattr(tree, "_fields") else type(tree)(children)  # type: ignore[return-value]
    return tree


def tree_leaves(tree: Any) -> Iterator[Tensor]:
    """Every tensor of the tree, in the order of the fields."""
    if isinstance(tree, Tensor):
        yield tree
    elif (names := _fields(type(tree))) is not None:
        for name in names:
            yield from tree_leaves(getattr(tree, name))
    elif isinstance(tree, dict):
        for value in tree.values():
            yield from tree_leaves(value)
    elif isinstance(tree, tuple | list):
        for child in tree:
            yield from tree_leaves(child)


def tree_select(where: Tensor, yes: T, no: T) -> T:
    """Per row of the leading axis: `yes` where true, `no` elsewhere. `where`: Bool[row]."""
    return tree_map(lambda y, n: torch.where(where.reshape(-1, *[1] * (n.dim() - 1)), y, n), yes, no)


def tree_take(tree: T, index: Any) -> T:
    """Index every tensor on its leading axes; rows by their numbers, Int[row], are counted from 0."""
    if isinstance(index, Tensor) and index.dim() == 1 and index.dtype == torch.long:
        return tree_map(lambda x: x.index_select(0, index), tree)  # as x[index], in a third of the time
    return tree_map(lambda x: x[index], tree)


def tree_put(tree: T, rows: Tensor, values: T) -> T:
    """A copy of `tree` whose leading-axis `rows` (Int[row]) are those of `values`; `tree` itself stays as it was.

    It lies in memory as `tree` does, which `index_copy` would not see to.
    """
    return tree_map(lambda x, v: x.clone().index_copy_(0, rows, v), tree, values)


def tree_stack(trees: list[T], axis: int = 0) -> T:
    """One tree of many alike, on a new `axis`."""
    return tree_map(lambda *leaves: torch.stack(leaves, dim=axis), trees[0], *trees[1:])


def tree_cat(trees: list[T], axis: int = 0) -> T:
    """One tree of many alike, end to end on `axis`."""
    return tree_map(lambda *leaves: torch.cat(leaves, dim=axis), trees[0], *trees[1:])
