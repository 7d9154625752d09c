"""Learn how groups behave, from recordings of what they did."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from understudy.api import Habits, Run, evaluate, load_policy, make_env, record, train, video

__all__ = ["Habits", "Run", "evaluate", "load_policy", "make_env", "record", "train", "video"]


def __getattr__(name: str) -> Any:
    """The calls of `understudy.api`, loaded when they are first used: importing the package costs nothing."""
    if name in __all__:
        return getattr(import_module("understudy.api"), name)
    raise AttributeError(f"module 'understudy' has no attribute {name!r}")
