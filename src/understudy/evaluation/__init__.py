"""How well learners do, how much like the demonstrators, and pages and films that show it."""

from understudy.evaluation.measured import Evaluation, report_of, text_of
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
    "Evaluation",
    "Intervals",
    "Report",
    "Section",
    "Table",
    "beside",
    "compare",
    "comparison",
    "report_of",
    "save_video",
    "scenes_of",
    "terminal",
    "text_of",
]
