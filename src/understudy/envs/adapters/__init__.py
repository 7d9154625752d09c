"""Doors between this library and PettingZoo and Gymnasium, both ways."""

from understudy.envs.adapters.doors import Door, from_aec, from_gymnasium, from_parallel
from understudy.envs.adapters.players import Player, to_parallel
from understudy.envs.adapters.vector import from_vector

__all__ = ["Door", "Player", "from_aec", "from_gymnasium", "from_parallel", "from_vector", "to_parallel"]
