"""Imitating the people who cooked: what the quickstart shows and `understudy bench kitchen` measures.

One policy is cloned from the recorded pairs of all five kitchens (and their mirror images) and measured on pairs of
people whom it has never seen: how likely it finds what they did, and how many soups it serves when it plays both cooks.
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from understudy.algorithms import bc
from understudy.core.errors import EnvError
from understudy.core.random import generator
from understudy.core.types import Segment, View
from understudy.demos.demos import Demos
from understudy.envs.kitchen import Kitchen
from understudy.envs.kitchen_board import ACTIONS, STAY
from understudy.evaluation import metrics
from understudy.maths.heads import Categorical
from understudy.maths.stats import Estimate, estimate
from understudy.nets import AgentPolicy, NetConfig
from understudy.recordings import people_cooking
from understudy.rollout import play, score

HORIZON = 1200  # steps: about the length of a recorded trial, three minutes
LEAST = -1e9  # log of no probability that still adds up
SCORED = 400  # steps that scores are told for, as in the field


def settings(members: int = 1) -> bc.Config:
    """How people are cloned here: a recurrent policy, held back from learning single people by heart."""
    net = NetConfig(body="gru", hidden=128, layers=1, activation="relu", dropout=0.5, members=members)
    return bc.Config(net=net, batch=4096, window=100, held_out=0.12, weight_decay=1.0)


@dataclass
class Steady:
    """Plays a clone with a steadier hand: when a cook acts is drawn as cloned, what it does is mostly the likeliest.

    A clone is never quite sure, and drawing every small chance makes cooks dither; always taking the likeliest makes
    them stop, since at most moments people wait. So the moves share the probability that the clone gives to moving,
    in proportion to p^(1 / temperature), and what would change nothing counts as waiting. The longer a cook's hands
    have not changed, the less it waits and the less sharp it chooses: a clone holds no view of its own idleness, and
    two of them wait for each other for ever.

    The settings were chosen by play in the five kitchens of the policy of seed 0.
    """

    policy: AgentPolicy
    env: Kitchen
    temperature: float = 0.25
    haste: float = 0.5  # how much less likely waiting becomes, nats
    patience: float = 20.0  # steps with unchanged hands before a cook grows restless
    doubling: float = 10.0  # steps in which the temperature then doubles and waiting becomes a nat less likely
    hottest: float = 2.0

    def __post_init__(self) -> None:
        self.noise = self.policy.noise
        names = [*(f"I {facing} is in vain" for facing in ACTIONS[:4]), "I would nothing"]
        self._vain = [self.env.feature_names.index(name) for name in names]

    def start(self, envs: int) -> dict[str, Any]:
        blank = self.policy.normaliser.mean.new_zeros(envs, self.env.spec.agents)
        return {"policy": self.policy.start(envs), "hands": blank.long(), "idle": blank}

    def act(
        self, view: View, memory: dict[str, Any], noise: Float[Tensor, "env agent noise"]
    ) -> tuple[Tensor, dict[str, Any]]:
        assert view.whole is not None
        hands = self.env.unpack(view.whole).hands[..., 0].long()
        idle = torch.where(hands == memory["hands"], memory["idle"] + 1, 0.0)
        restless = ((idle - self.patience).clamp(min=0) / self.doubling).unsqueeze(-1)
        heat = (self.temperature * torch.exp2(restless)).clamp(max=self.hottest)
        in_vain = view.obs[..., self._vain] > 0

        def choose(logits: Tensor, agents: int | slice, legal: Tensor | None) -> Tensor:
            sharp = sharpen(logits, in_vain[:, agents], heat[:, agents], self.haste + restless[:, agents])
            return Categorical(len(ACTIONS)).sample(sharp, noise[:, agents])

        actions, inner = self.policy.act_by(view, memory["policy"], choose)
        return actions, {"policy": inner, "hands": hands, "idle": idle}

    def log_prob(self, view: View, actions: Tensor, memory: Any = (), starts: Tensor | None = None) -> Tensor:
        raise EnvError("steady play is a way to draw actions; ask the clone itself how likely they are.")


def sharpen(
    logits: Float[Tensor, "*batch 6"],
    in_vain: Bool[Tensor, "*batch 5"],
    temperature: Float[Tensor, "*batch 1"],
    haste: Float[Tensor, "*batch 1"],
) -> Float[Tensor, "*batch 6"]:
    """Logits that keep the moves' share of probability, spread as p^(1 / temperature), and wait less by `haste` nats.

    Moves `in_vain` (north, south, east, west, interact) count as waiting.
    """
    log_prob = torch.log_softmax(logits, dim=-1)
    useless = torch.cat([in_vain[..., :STAY], torch.ones_like(in_vain[..., :1]), in_vain[..., STAY:]], dim=-1)
    waiting = log_prob.masked_fill(~useless, -torch.inf).logsumexp(dim=-1, keepdim=True)
    moves = log_prob.masked_fill(useless, LEAST)
    moving = moves.logsumexp(dim=-1, keepdim=True)
    sharp = torch.log_softmax((moves - moving) / temperature, dim=-1) + moving
    stays = torch.arange(logits.shape[-1], device=logits.device) == STAY
    return torch.where(stays, waiting - haste, sharp.masked_fill(useless, LEAST))


# heads of a table with a kitchen's `Likeness` in each row
COLUMNS = ("kitchen", "nats per action", "by last action", "right", "as drawn", "steady", "people", "share")


@dataclass(frozen=True)
class Likeness:
    """How a policy compares with unseen people in one kitchen. Intervals resample trials and episodes."""

    likelihood: Estimate  # mean -log p of what people did, nats per agent-step: lower is better
    accuracy: Estimate  # share of agent-steps where the likeliest action is the one taken
    chain: float  # the same -log p by a Markov chain of each cook's own actions, fitted to the train pairs
    drawn: Estimate  # score in 400 steps of learned pairs that draw every action as cloned
    learned: Estimate  # score in 400 steps of learned pairs with a steady hand
    people: Estimate  # score of the recorded pairs in 400 steps
    share: Estimate  # the steady pairs' score over people's


def likeness(
    policy: AgentPolicy, layout: str, episodes: int, seed: int, horizon: int = HORIZON
) -> tuple[Likeness, Segment, Demos]:
    """Measure `policy` in a kitchen on the test pairs. Also returns the steady and the recorded episodes."""
    kitchen = Kitchen(layout, horizon=horizon)
    people = people_cooking(kitchen, "test")
    recorded, chance = people.padded(), generator(seed, "likeness", layout)
    found = score(policy, people)
    drawn = play(kitchen, policy, episodes, chance)
    played = play(kitchen, Steady(policy, kitchen), episodes, chance)
    learned, theirs = score_in_400(played), score_in_400(recorded)
    surprise = metrics.mean_of_steps(-found.log_prob, found.counts, chance)
    return (
        Likeness(
            likelihood=surprise,
            accuracy=metrics.mean_of_steps(found.hit.float(), found.counts, chance),
            chain=chain_likelihood(people_cooking(kitchen, "train").padded(), recorded),
            drawn=estimate(score_in_400(drawn), chance),
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
