"""Recordings: kept, checked, and drawn from."""

from understudy.demos.demos import About, Demos, Episode

__all__ = ["About", "Demos", "Episode"]
