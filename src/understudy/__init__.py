"""Learn how groups behave, from recordings of what they did."""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from understudy.api import Habits, Run, evaluate, load_policy, make_env, record, regret, train, video
    from understudy.comparing import Plan, compare
    from understudy.seeds import train_seeds

# Threads that wait for one another sleep rather than spin: where other work keeps the machine busy, those that spin
# hold up those that compute, and learning takes thirty times as long. It is read when torch is first imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

_API = ["Habits", "Run", "evaluate", "load_policy", "make_env", "record", "regret", "train", "video"]
_COMPARING = ["Plan", "compare"]
_SEEDS = ["train_seeds"]
__all__ = [
    "Habits", "Plan", "Run", "compare", "evaluate", "load_policy", "make_env", "record", "regret", "train",
    "train_seeds", "video",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """What most users call, loaded when it is first used: importing the package costs nothing."""
    for module, names in (("api", _API), ("comparing", _COMPARING), ("seeds", _SEEDS)):
        if name in names:
            return getattr(import_module(f"understudy.{module}"), name)
    raise AttributeError(f"module 'understudy' has no attribute {name!r}")
