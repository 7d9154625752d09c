"""Recordings of tabular games as counts: what was done where, and when."""

import torch
from jaxtyping import Float
from torch import Tensor

from understudy.core.errors import DemosError
from understudy.demos.demos import Demos
from understudy.maths.games import Game, joint_number


def count_table(demos: Demos, game: Game) -> Float[Tensor, "time state joint"]:
    """How often each joint action was taken in each state at each step of an episode, times the episodes' weights.

    Raises:
        DemosError: what was seen is not a one-hot state of `game`, or episodes are longer than its horizon.
    """
    steps = demos.padded()
    seen = steps.obs[:, :, 0]
    assert steps.valid is not None
    one_hot = (seen.sum(-1) == 1) & (seen.amax(-1) == 1)
    if seen.shape[-1] != game.states or not bool(one_hot[steps.valid].all()):
        raise DemosError(
            f"demos of {demos.spec.title or 'an unnamed env'}: what was seen are not the one-hot states of a game of "
            f"{game.states} states. Record them in the tabular game itself."
        )
    longest = seen.shape[1]
    if game.horizon is not None and longest > game.horizon:
        raise DemosError(f"demos: {longest} steps in an episode, but the game's horizon is {game.horizon}.")
    joint = joint_number(steps.actions.long(), game.choices)
    sizes = game.horizon or longest, game.states, len(game.moves)
    time = torch.arange(longest, device=joint.device).expand_as(joint)
    place = (time * sizes[1] + seen.argmax(-1)) * sizes[2] + joint
    weight = steps.valid * demos.weights.to(joint.device).double().unsqueeze(-1)
    counts = torch.zeros(sizes[0] * sizes[1] * sizes[2], dtype=torch.float64, device=joint.device)
    return counts.index_add(0, place[steps.valid], weight[steps.valid]).reshape(sizes)
