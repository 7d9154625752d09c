"""Symmetries: other worlds in which the same is a right thing to do, such as one seen in a mirror.

What an env offers as `symmetries()` is a tuple of groups. Of each group at most one symmetry is taken, one after
another; all that come out so are symmetries, and they are all there are (turns, then mirrors, then who is who ...).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from math import prod
from typing import Any

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from understudy.core.errors import EnvError
from understudy.core.tree import tree_map
from understudy.core.types import EnvSpec, MultiDiscrete, Segment, View, action_shape, legal_size

Groups = tuple[tuple["Symmetry", ...], ...]
WORLDS = 64  # that a batch is seen in at once: composing as many costs nothing beside learning from it


@dataclass(frozen=True, eq=False)
class Symmetry:
    """A new order of agents, of what they see, with signs, and of what they can do.

    `order[i]` is whose experience agent i then has. Of `obs` and `whole`, feature k is then feature `index[k]` times
    `sign[k]`; a move `a` is then move `moves[a]` (of actions that are numbers, number `a` is then number `moves[a]`).
    """

    name: str
    order: Int[Tensor, "agent"]
    index: Int[Tensor, "agent obs"]
    sign: Float[Tensor, "agent obs"]
    moves: Int[Tensor, "agent choice"]
    whole_index: Int[Tensor, "feature"] | None = None  # None: of the full state nothing is known
    whole_sign: Float[Tensor, "feature"] | None = None

    def obs(self, obs: Float[Tensor, "*batch agent obs"]) -> Float[Tensor, "*batch agent obs"]:
        seen = obs[..., self.order, :]
        return seen.gather(-1, self.index.expand_as(seen)) * self.sign.to(obs.dtype)

    def actions(self, actions: Shaped[Tensor, "..."]) -> Shaped[Tensor, "..."]:
        if actions.is_floating_point():
            return self._moved(actions)
        done = actions[..., self.order]
        return self.moves.expand(*done.shape, -1).gather(-1, done.unsqueeze(-1)).squeeze(-1)

    def legal(self, legal: Shaped[Tensor, "*batch agent choice"]) -> Shaped[Tensor, "*batch agent choice"]:
        return self._moved(legal)

    def each(self, x: Shaped[Tensor, "*batch agent"]) -> Shaped[Tensor, "*batch agent"]:
        """What else each agent has: rewards, presence, labels."""
        return x[..., self.order]

    def whole(self, whole: Float[Tensor, "*batch feature"]) -> Float[Tensor, "*batch feature"] | None:
        if self.whole_index is None or self.whole_sign is None:
            return None
        return whole[..., self.whole_index] * self.whole_sign.to(whole.dtype)

    def _moved(self, x: Tensor) -> Tensor:
        done = x[..., self.order, :]
        return torch.empty_like(done).scatter(-1, self.moves.expand_as(done), done)


def count(groups: Groups) -> int:
    """How many symmetries there are, the identity included."""
    return prod(len(group) + 1 for group in groups)


def element(groups: Groups, number: int) -> Sequence[Symmetry]:
    """Symmetry `number` of all, as those to apply one after another; 0 is the identity."""
    taken = []
    for group in groups:
        number, which = divmod(number, len(group) + 1)
        if which:
            taken.append(group[which - 1])
    return taken


def symmetries_of(env: Any) -> Groups:
    """What `env` offers; () where it offers none, or acts in several parts, of whose symmetries nothing is known."""
    if not hasattr(env, "symmetries") or isinstance(env.spec.action, MultiDiscrete):
        return ()
    return env.symmetries()


def expect_symmetries(groups: Any, spec: EnvSpec) -> None:
    """Refuse `groups` whose tables are not those of such an env: orders and signs, one of each for every agent.

    Raises:
        EnvError: they are no tuple of groups; a table has the wrong shape or type, names a feature or a move twice, or
            a sign is neither 1 nor -1; or moves have several parts, of which no symmetry is known.
    """
    if not isinstance(groups, tuple) or not all(isinstance(group, tuple) and group for group in groups):
        raise EnvError(f"symmetries: a tuple of groups, each a tuple of one or more, is meant; got {groups!r}.")
    if groups and isinstance(spec.action, MultiDiscrete):
        raise EnvError("symmetries: these agents act in several parts at once, of which no table of moves can tell.")
    agents, choices = spec.agents, legal_size(spec.action) or prod(action_shape(spec.action))
    for one in (one for group in groups for one in group):
        for name, shape in (("order", (agents,)), ("index", (agents, spec.obs)), ("moves", (agents, choices))):
            table = getattr(one, name)
            every = torch.arange(shape[-1]).expand(shape)
            if table.shape != shape or table.dtype != torch.int64 or not torch.equal(table.sort(dim=-1).values, every):
                raise EnvError(
                    f"symmetry {one.name!r}, {name}: a {list(shape)} of whole numbers is meant, in each row every "
                    f"number from 0 to {shape[-1] - 1} once; got {table.tolist()}, {table.dtype}."
                )
        if one.sign.shape != one.index.shape or not bool((one.sign.abs() == 1).all()):
            raise EnvError(f"symmetry {one.name!r}, sign: 1 or -1 for each of `index`; got {one.sign.tolist()}.")


def elsewhere(groups: Groups, part: Segment, generator: torch.Generator) -> Segment:
    """Each row of a batch in a symmetric world drawn for it, all worlds as likely; as it is where there are no groups.

    A row is one step, or a run of steps: all of it is seen in one world. What agents see, may do, do and are paid is
    there as it would have been, and labels of agents are; full states are left out. Rows whose numbers differ by a
    multiple of `WORLDS` share a world.
    """
    if not groups:
        return part
    worlds = _drawn(groups, min(WORLDS, len(part.obs)), part.obs.device, generator)

    def view(x: View) -> View:
        return View(
            obs=worlds.obs(x.obs),
            legal=None if x.legal is None else worlds.moved(x.legal),
            present=None if x.present is None else worlds.each(x.present),
        )

    agents = part.obs.dim() - 1
    return replace(
        part,
        view=view(part.view),
        actions=worlds.actions(part.actions),
        rewards=None if part.rewards is None else worlds.each(part.rewards),
        next_view=None if part.next_view is None else view(part.next_view),
        labels={name: worlds.each(x) if x.dim() == agents else x for name, x in part.labels.items()},
    )


@dataclass(frozen=True)
class _Worlds:
    """Symmetries side by side, as in `Symmetry`; row r of a batch is seen in world r % worlds."""

    order: Int[Tensor, "world agent"]
    index: Int[Tensor, "world agent obs"]
    sign: Float[Tensor, "world agent obs"]
    moves: Int[Tensor, "world agent choice"]

    def then(self, other: "_Worlds") -> "_Worlds":
        """The `other` after these, world by world."""
        index, sign, moves = (_rows(x, other.order) for x in (self.index, self.sign, self.moves))
        return _Worlds(
            order=self.order.gather(1, other.order),
            index=index.gather(2, other.index),
            sign=sign.gather(2, other.index) * other.sign,
            moves=other.moves.gather(2, moves),
        )

    def obs(self, obs: Float[Tensor, "row *batch agent obs"]) -> Float[Tensor, "row *batch agent obs"]:
        seen = self._ordered(obs)
        return seen.gather(-1, self._of(self.index, seen)) * self._of(self.sign, seen).to(obs.dtype)

    def actions(self, actions: Shaped[Tensor, "row ..."]) -> Shaped[Tensor, "row ..."]:
        if actions.is_floating_point():
            return self.moved(actions)
        done = self.each(actions).unsqueeze(-1)
        return self._of(self.moves, done, self.moves.shape[-1]).gather(-1, done).squeeze(-1)

    def moved(self, x: Shaped[Tensor, "row *batch agent choice"]) -> Shaped[Tensor, "row *batch agent choice"]:
        """What belongs to each move."""
        done = self._ordered(x)
        return torch.empty_like(done).scatter(-1, self._of(self.moves, done), done)

    def each(self, x: Shaped[Tensor, "row *batch agent"]) -> Shaped[Tensor, "row *batch agent"]:
        """What each agent has."""
        return self._ordered(x.unsqueeze(-1)).squeeze(-1)

    def _ordered(self, x: Shaped[Tensor, "row *batch agent feature"]) -> Shaped[Tensor, "row *batch agent feature"]:
        return x.gather(-2, self._of(self.order.unsqueeze(-1), x))

    def _of(self, table: Tensor, like: Tensor, width: int | None = None) -> Tensor:
        """The table of each row's world, for all that the row holds."""
        worlds = torch.arange(len(like), device=like.device) % len(table)
        between = [1] * (like.dim() - 3)
        mine = table[worlds].reshape(len(like), *between, *table.shape[1:])
        return mine.expand(*like.shape[:-1], width or like.shape[-1])


def _rows(x: Tensor, order: Int[Tensor, "world agent"]) -> Tensor:
    """Agents' rows of a table in another order."""
    return x.gather(1, order.unsqueeze(-1).expand_as(x))


def _drawn(groups: Groups, worlds: int, device: torch.device, generator: torch.Generator) -> _Worlds:
    """One of each group, or none, one after another."""
    found = None
    for group in groups:
        which = torch.randint(len(group) + 1, (worlds,), generator=generator, device=generator.device).to(device)
        one = tree_map(lambda x, which=which: x[which], _tables(group, device))
        found = one if found is None else found.then(one)
    assert found is not None
    return found


@lru_cache(maxsize=64)
def _tables(group: tuple[Symmetry, ...], device: torch.device) -> _Worlds:
    """The identity, then those of the group."""
    like = group[0]
    still = Symmetry(
        name="as it is",
        order=torch.arange(len(like.order)),
        index=torch.arange(like.index.shape[-1]).expand_as(like.index),
        sign=torch.ones_like(like.sign),
        moves=torch.arange(like.moves.shape[-1]).expand_as(like.moves),
    )
    every, names = (still, *group), ("order", "index", "sign", "moves")
    return _Worlds(*(torch.stack([getattr(one, name) for one in every]).to(device) for name in names))
