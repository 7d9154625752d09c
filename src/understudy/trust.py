"""Whom to believe: how far each demonstrator does as the others do, and what in recordings is unlike the rest.

Every episode is judged by a clone of others' episodes, so that nobody vouches for himself. Each choice is taken as made
either as the others would make it, or by chance,

    p(a | o) = skill * clone(a | o) + (1 - skill) * chance(a | o),

and the demonstrator's `skill` is the share that makes his choices likeliest. It is what `weighed` weighs episodes by.
It tells consistent from careless, not right from wrong: where most are careless alike, the careful one is unlike the
rest. Where rewards were recorded, `bc`'s `by_return` asks those instead.

Source: mixtures of an expert and chance with a skill for each demonstrator are those of Beliaev et al. 2022,
arXiv:2202.01288, there for skills that differ from state to state.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from understudy.algorithms import bc
from understudy.core.errors import DemosError
from understudy.core.random import generator
from understudy.demos.demos import Demos
from understudy.evaluation.report import Cell, Table
from understudy.rollout import Uniform, score

JUDGE = bc.Config(limit=600, rate=3e-3)  # a rough clone tells a careless hand from a steady one
ROUNDS = 200  # of expectation-maximisation, at most
SURE = 1e-5  # change of a skill that ends them


@dataclass(frozen=True)
class Trust:
    """What others' clones think of each episode. Surprise is in nats, 0 where there was no choice."""

    names: tuple[str, ...]  # of the agents
    surprise: Float[Tensor, "episode time agent"]  # - log of the choice's probability
    chance: Float[Tensor, "episode time agent"]  # the same under chance
    counts: Bool[Tensor, "episode time agent"]  # where there was a choice
    group: Int[Tensor, "episode"]  # the demonstrator, by number
    skill: Float[Tensor, "group"]  # of each demonstrator, 0 to 1

    @property
    def weights(self) -> Float[Tensor, "episode"]:
        """skill / (1.1 - skill) of each episode's demonstrator, on average 1: who is careless counts little.

        The least careful of all would still count a tenth or so of the next: 0.1 keeps the best from counting alone.
        """
        odds = (self.skill / (1.1 - self.skill))[self.group]
        return odds / odds.mean().clamp(min=1e-12)

    @property
    def by_agent(self) -> Float[Tensor, "episode agent"]:
        """Mean surprise of a choice, nats; NaN where there was none."""
        return self.surprise.sum(dim=1) / self.counts.sum(dim=1)

    @property
    def apart(self) -> Float[Tensor, "episode agent"]:
        """How far that is from the agent's other episodes: from their median, in median deviations * 1.4826.

        Of normal figures 1 in 740 lies above 3. NaN where there was no choice.
        """
        each = self.by_agent
        middle = each.nanmedian(dim=0).values
        return (each - middle) / (1.4826 * (each - middle).abs().nanmedian(dim=0).values).clamp(min=1e-6)

    def table(self, most: int = 10) -> Table:
        """The agents and episodes that are most unlike the rest, and their most surprising step."""
        apart, mean = self.apart.nan_to_num(nan=-torch.inf), self.by_agent
        rows: list[list[Cell]] = []
        for place in apart.flatten().argsort(descending=True, stable=True)[:most].tolist():
            e, a = divmod(place, apart.shape[1])
            if apart[e, a].isfinite():
                step = int(self.surprise[e, :, a].argmax())
                figures = [mean[e, a], apart[e, a], self.skill[self.group[e]]]
                worst = [step, round(float(self.surprise[e, step, a]), 2)]
                rows.append([e, self.names[a], *(round(float(x), 2) for x in figures), *worst])
        heads = ["episode", "agent", "nats a choice", "deviations apart", "skill", "worst step", "nats there"]
        return Table(heads, rows, "Unlike the rest, the most so first.")


def trust(
    demos: Demos, by: str = "", config: bc.Config = JUDGE, folds: int = 5, rounds: int = 2, seed: int = 0
) -> Trust:
    """Judge every episode by clones of others.

    Args:
        by: entry of the episodes' `info` that names their demonstrator; where empty each episode has its own. Episodes
            of one demonstrator, or of one name (images of another), are never judged by a clone of each other.
        config: how is cloned.
        folds: parts that are judged by a clone of the other parts, at most one for each demonstrator.
        rounds: each after the first is judged by clones of those who were trusted in the one before: where many are
            careless, so is a clone of them all, and nobody could be seen to be better. It takes folds * rounds clones.

    Raises:
        DemosError: there are fewer than two demonstrators, or an episode does not name its own.
    """
    if rounds < 1:
        raise DemosError(f"rounds: got {rounds}; judging takes one or more.")
    group = _groups(demos, by)
    count = int(group.max()) + 1 if len(group) else 0
    if count < 2:
        raise DemosError(f"to be judged by others takes two demonstrators or more, and here are {count}.")
    fold = torch.randperm(count, generator=generator(seed, "trust", "folds")) % min(max(folds, 2), count)
    judges = demos
    for number in range(rounds):
        found = _judged(demos, judges, fold[group], group, config, generator(seed, "trust", number))
        judges = weighed(demos, found)
    return found


def _judged(
    demos: Demos,
    judges: Demos,
    fold: Int[Tensor, "episode"],
    group: Int[Tensor, "episode"],
    config: bc.Config,
    chance_of: torch.Generator,
) -> Trust:
    """Each fold of `demos` judged by a clone of the other folds of `judges`, the same episodes in other weights."""
    shape = (len(demos), int(demos.lengths.max()), demos.spec.agents)
    surprise, chance, counts = torch.zeros(shape), torch.zeros(shape), torch.zeros(shape, dtype=torch.bool)
    for k in fold.unique().tolist():
        judged = (fold == k).nonzero().flatten()
        clone = bc.clone(config, judges.select((fold != k).nonzero().flatten()), chance_of)
        theirs = demos.select(judged)
        found, part = score(clone, theirs), theirs.padded()
        steps = slice(0, found.counts.shape[1])
        counts[judged, steps] = found.counts
        surprise[judged, steps] = -found.log_prob.where(found.counts, 0.0)
        chance[judged, steps] = -Uniform(demos.spec).log_prob(part.view, part.actions).where(found.counts, 0.0)
    return Trust(demos.spec.names, surprise, chance, counts, group, skills(surprise, chance, counts, group))


def weighed(demos: Demos, found: Trust) -> Demos:
    """The episodes with their weights times what their demonstrators are trusted."""
    return demos.reweighted(demos.weights * found.weights)


def skills(
    surprise: Float[Tensor, "episode time agent"],
    chance: Float[Tensor, "episode time agent"],
    counts: Bool[Tensor, "episode time agent"],
    group: Int[Tensor, "episode"],
) -> Float[Tensor, "group"]:
    """The likeliest skill of each demonstrator, with one choice of either kind taken for granted.

    By expectation-maximisation: the share of choices that were, as likely as not, made as the others make them.
    """
    groups = int(group.max()) + 1

    def total(x: Tensor) -> Float[Tensor, "group"]:
        return torch.zeros(groups, dtype=torch.float64).index_add(0, group, x.double().sum(dim=(1, 2)))

    choices, skill = total(counts.float()), torch.full((groups,), 0.5, dtype=torch.float64)
    gap = (chance - surprise).double()  # log of how much likelier the clone finds it than chance
    for _ in range(ROUNDS):
        logit = torch.logit(skill)[group][:, None, None] + gap
        after = (total(logit.sigmoid() * counts) + 1) / (choices + 2)
        done, skill = float((after - skill).abs().max()) < SURE, after
        if done:
            break
    return skill.float()


def _groups(demos: Demos, by: str) -> Int[Tensor, "episode"]:
    """The number of each episode's demonstrator."""
    if by:
        for number, info in enumerate(demos.infos):
            if by not in info:
                raise DemosError(f"episode {number} does not say its {by!r}: its info is {dict(info)}.")
        keys: list[object] = [info[by] for info in demos.infos]
    else:
        keys = [name or i for i, name in enumerate(demos.names)]
    order = {key: i for i, key in enumerate(dict.fromkeys(keys))}
    return torch.tensor([order[key] for key in keys], dtype=torch.long)
