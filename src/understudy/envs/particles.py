"""Particles: discs on a plane that meet, chase, guide and deceive each other, after mpe2 and after the papers.

    env = Spread(agents=3)                  # nine scenarios of mpe2, equal to it step by step
    env = Navigation()                      # the variants that published returns refer to
    actions = expert(env, view, noise)      # a scripted expert for every one of them

The pieces: `particles_physics` (one batched physics), `particles_scenario` (reset, step and spec, shared),
`particles_mpe2` and `particles_paper` (who is there, what they see, what they are paid), `particles_experts`.
"""

from understudy.envs.particles_experts import expert
from understudy.envs.particles_mpe2 import (
    Adversary,
    Crypto,
    Push,
    Reference,
    Simple,
    SpeakerListener,
    Spread,
    Tag,
    WorldComm,
)
from understudy.envs.particles_paper import Communication, KeepAway, Navigation, PredatorPrey
from understudy.envs.particles_physics import State, place

__all__ = [
    "Adversary",
    "Communication",
    "Crypto",
    "KeepAway",
    "Navigation",
    "PredatorPrey",
    "Push",
    "Reference",
    "Simple",
    "SpeakerListener",
    "Spread",
    "State",
    "Tag",
    "WorldComm",
    "expert",
    "place",
]
