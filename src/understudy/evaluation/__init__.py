"""How well learners do, how much like the demonstrators, and pages and films that show it."""

from understudy.evaluation.metrics import compare
from understudy.evaluation.plots import Curve
from understudy.evaluation.report import Animation, Curves, Intervals, Report, Section, Table, comparison
from understudy.evaluation.video import beside, save_video, scenes_of, terminal
from understudy.maths.stats import Estimate

__all__ = [
    "Animation",
    "Curve",
    "Curves",
    "Estimate",
    "Intervals",
    "Report",
    "Section",
    "Table",
    "beside",
    "compare",
    "comparison",
    "save_video",
    "scenes_of",
    "terminal",
]
