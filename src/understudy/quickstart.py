"""The first success: imitate people cooking together, let the learned cooks play, and write a report to open.

One policy is cloned from the recorded pairs of all five kitchens, and measured on pairs of people it has never seen.
"""

import time
from dataclasses import dataclass
from pathlib import Path

import torch

from understudy import api
from understudy.core.random import generator
from understudy.core.types import Segment
from understudy.demos.demos import Demos
from understudy.envs.kitchen import Kitchen
from understudy.envs.kitchen_board import LAYOUTS
from understudy.evaluation import metrics
from understudy.evaluation.plots import Curve
from understudy.evaluation.report import Animation, Curves, Intervals, Report, Section, Table
from understudy.evaluation.video import scenes_of
from understudy.maths.stats import Estimate, estimate
from understudy.nets import AgentPolicy
from understudy.recordings import people_cooking
from understudy.rollout import first_steps, play, score

HORIZON = 1200  # steps: about the length of a recorded trial, three minutes
EPISODES = 32  # that learned pairs play in each kitchen
SHOWN = 400  # steps of the moving picture: one minute


@dataclass(frozen=True)
class Kitchens:
    """What was measured in one kitchen, on people whom the policy has not seen."""

    likelihood: Estimate  # nats per agent-step
    accuracy: Estimate
    chain: Estimate  # nats per agent-step of the chain of own previous actions: what memory alone would give
    learned: Estimate  # score of a pair in 400 steps
    people: Estimate
    share: Estimate  # learned score over people's


def kitchen(layout: str) -> Kitchen:
    """A recorded kitchen as long as the recordings."""
    return Kitchen(layout, horizon=HORIZON)
