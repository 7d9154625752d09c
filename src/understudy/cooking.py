"""Imitating the people who cooked: what the quickstart shows and `understudy bench kitchen` measures.

One policy is cloned from the recorded pairs of all five kitchens (and their mirror images) and measured on pairs of
people whom it has never seen: how likely it finds what they did, and how many soups it serves when it plays both cooks.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from understudy.algorithms import bc
from understudy.core.random import generator
from understudy.core.types import Segment
from understudy.demos.demos import Demos
from understudy.envs.kitchen import Kitchen
from understudy.evaluation import metrics
from understudy.maths.stats import Estimate, estimate
from understudy.nets import AgentPolicy, NetConfig
from understudy.recordings import people_cooking
from understudy.rollout import play, score

HORIZON = 1200  # steps: about the length of a recorded trial, three minutes
SCORED = 400  # steps that scores are told for, as in the field


def settings(members: int = 1) -> bc.Config:
    """How people are cloned here: a recurrent policy, held back from learning single people by heart."""
    net = NetConfig(body="gru", hidden=128, layers=1, activation="relu", dropout=0.5, members=members)
    return bc.Config(net=net, batch=4096, window=100, held_out=0.12, weight_decay=1.0)


@dataclass(frozen=True)
class Likeness:
    """How a policy compares with unseen people in one kitchen. Intervals resample trials and episodes."""

    likelihood: Estimate  # mean -log p of what people did, nats per agent-step: lower is better
    accuracy: Estimate  # share of agent-steps where the likeliest action is the one taken
    chain: float  # the same -log p by a Markov chain of each cook's own actions, fitted to the train pairs
    learned: Estimate  # score of learned pairs in 400 steps
    people: Estimate  # score of the recorded pairs in 400 steps
    share: Estimate  # the first over the second


def likeness(policy: AgentPolicy, layout: str, episodes: int, seed: int) -> tuple[Likeness, Segment, Demos]:
    """Measure `policy` in a kitchen on the test pairs. Also returns the played and the recorded episodes."""
    kitchen = Kitchen(layout, horizon=HORIZON)
    people = people_cooking(kitchen, "test")
    recorded, chance = people.padded(), generator(seed, "likeness", layout)
    found = score(policy, people)
    played = play(kitchen, policy, episodes, chance)
    learned, theirs = score_in_400(played), score_in_400(recorded)
    surprise = metrics.mean_of_steps(-found.log_prob, found.counts, chance)
    return (
        Likeness(
            likelihood=surprise,
            accuracy=metrics.mean_of_steps(found.hit.float(), found.counts, chance),
            chain=chain_likelihood(people_cooking(kitchen, "train").padded(), recorded),
            learned=estimate(learned, chance),
            people=estimate(theirs, chance),
            share=ratio_of_means(learned, theirs, chance),
        ),
        played,
        people,
    )


def score_in_400(segment: Segment) -> Float[Tensor, "episode"]:
    """What each pair earned (both cooks are paid the same), for every 400 steps."""
    return metrics.returns(segment)[:, 0].double() / metrics.lengths(segment) * SCORED


def ratio_of_means(
    ours: Float[Tensor, "our_episode"], theirs: Float[Tensor, "their_episode"], chance: torch.Generator
) -> Estimate:
    """mean(ours) / mean(theirs) with a bootstrap interval that resamples both sides."""
    draws = [x[torch.randint(len(x), (2000, len(x)), generator=chance)].mean(dim=1) for x in (ours, theirs)]
    ratios = (draws[0] / draws[1]).sort().values
    return Estimate(float(ours.mean() / theirs.mean()), float(ratios[50]), float(ratios[1949]), len(theirs))


def chain_likelihood(train: Segment, test: Segment, choices: int = 6) -> float:
    """-log p per agent-step of the test actions by a Markov chain of each cook's own previous action.

    Counts of the train actions, one added to each; the first action of an episode has a row of its own.
    """

    def pairs(segment: Segment) -> tuple[Tensor, Tensor]:
        actions = segment.actions
        before = torch.cat([torch.full_like(actions[:, :1], choices), actions[:, :-1]], dim=1)
        where = metrics.acting(segment)
        return before[where], actions[where]

    before, actions = pairs(train)
    counts = torch.ones(choices + 1, choices, dtype=torch.float64)
    counts.index_put_((before, actions), torch.ones(len(actions), dtype=torch.float64), accumulate=True)
    log_prob = (counts / counts.sum(dim=1, keepdim=True)).log()
    return float(-log_prob[pairs(test)].mean())


def average(found: Mapping[str, Likeness]) -> float:
    """Mean -log p over kitchens."""
    return sum(one.likelihood.value for one in found.values()) / len(found)
