"""Symmetries: other worlds in which the same is a right thing to do, such as one seen in a mirror.

What an env offers as `symmetries()` is a tuple of groups. Of each group at most one symmetry is taken, one after
another; all that come out so are symmetries, and they are all there are (turns, then mirrors, then who is who ...).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

Groups = tuple[tuple["Symmetry", ...], ...]


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
