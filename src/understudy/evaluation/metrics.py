"""How well learners do, and how much like the demonstrators: pure functions of segments [episode, time, agent, ...].

A segment here holds whole episodes, padded to the longest (`valid` is false there); absent agents (`view.present`)
are left out. Intervals resample whole episodes, because the steps of one episode depend on each other.

`compare` gives all that two segments tell; likelihood, accuracy and calibration ask for log-probabilities as well.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from understudy.core.errors import DemosError, ShapeError
from understudy.core.types import ActionSpec, Continuous, Discrete, EnvSpec, MultiDiscrete, Segment
from understudy.maths.divergence import (
    EpisodePairs,
    entropy_of_counts,
    episode_mmd2,
    episode_pairs,
    episode_test,
    kept_rows,
    minus_distance,
    rbf_of,
    total_correlation_gaussian,
)
from understudy.maths.stats import Estimate, estimate, interval, resample
from understudy.rollout import choosing

REPEATS = 1000  # bootstrap samples of every interval here


def valid_steps(segment: Segment) -> Bool[Tensor, "episode time"]:
    """False where a shorter episode is padded."""
    if segment.obs.dim() != 4:
        raise ShapeError(
            f"segment: its obs have shape {list(segment.obs.shape)}, but whole episodes are needed here: "
            "[episode, time, agent, obs]."
        )
    if segment.valid is not None:
        return segment.valid
    return torch.ones(segment.obs.shape[:2], dtype=torch.bool, device=segment.obs.device)


def acting(segment: Segment) -> Bool[Tensor, "episode time agent"]:
    """Where an agent was there to act: the step is one, and the agent present."""
    valid = valid_steps(segment).unsqueeze(-1).expand(segment.obs.shape[:3])
    return valid if segment.view.present is None else valid & segment.view.present


# --- how well --------------------------------------------------------------------------------------------------------


def returns(segment: Segment) -> Float[Tensor, "episode agent"]:
    """Sum of each agent's rewards over an episode, undiscounted; nothing is earned in padding or while absent."""
    if segment.rewards is None:
        raise DemosError("segment: it has no rewards, so there is no return. Measure distances instead.")
    return (segment.rewards * acting(segment)).sum(1)


def lengths(segment: Segment) -> Int[Tensor, "episode"]:
    """Steps of each episode. Where the game can end early, compare these before returns: ending is rewarded too."""
    return valid_steps(segment).sum(1)


def team_returns(
    returns: Float[Tensor, "episode agent"], teams: tuple[str, ...]
) -> dict[str, Float[Tensor, "episode"]]:
    """Mean return of each team's agents: what the team got where its agents are paid alike."""
    where = {team: [i for i, t in enumerate(teams) if t == team] for team in dict.fromkeys(teams)}
    return {team: returns[:, agents].mean(1) for team, agents in where.items()}


def normalised_return(
    learned: Float[Tensor, "learned"],
    demonstrated: Float[Tensor, "demonstrated"],
    random: Float[Tensor, "random"],
    generator: torch.Generator,
) -> Estimate:
    """0 for play at random, 1 for the demonstrators, from the returns of each one's episodes.

        (J(learned) - J(random)) / (J(demonstrated) - J(random))

    The interval resamples the episodes of all three. Without a clear gap between demonstrators and random play the
    figure means nothing, and its interval is accordingly wide.
    """
    value, draws = [], []
    for scores in (learned.double(), demonstrated.double(), random.double()):
        rows = resample(len(scores), REPEATS, generator).to(scores.device)
        value.append(scores.mean())
        draws.append(scores[rows].mean(1))
    if value[1] == value[2]:
        raise DemosError(
            f"normalised return: demonstrators and random play both earn {value[1].item():.4g} on average, so there "
            "is no scale between them. Report the returns themselves."
        )
    few = min(len(learned), len(demonstrated), len(random)) < 2
    ends = (-math.inf, math.inf) if few else interval((draws[0] - draws[2]) / (draws[1] - draws[2]))
    return Estimate(((value[0] - value[2]) / (value[1] - value[2])).item(), *ends, len(learned))


# --- how likely ------------------------------------------------------------------------------------------------------


def mean_of_steps(
    values: Float[Tensor, "episode *row"], where: Bool[Tensor, "episode *row"], generator: torch.Generator
) -> Estimate:
    """Mean over all steps `where` true, each weighing the same; the interval resamples whole episodes."""
    sums = torch.where(where, values, 0).double().flatten(1).sum(1)
    counts = where.flatten(1).sum(1).double()
    keep = counts > 0
    if not keep.any():
        raise DemosError("segment: no agent has a choice in any step of it, so there is nothing to average.")
    sums, counts = sums[keep], counts[keep]
    return pooled_mean(sums, counts, generator)


def pooled_mean(
    sums: Float[Tensor, "episode"],
    counts: Float[Tensor, "episode"] | Int[Tensor, "episode"],
    generator: torch.Generator,
) -> Estimate:
    """Sum of all sums over the sum of all counts; the interval resamples episodes."""
    rows = resample(len(sums), REPEATS, generator).to(sums.device)
    draws = sums[rows].sum(1) / counts[rows].sum(1).clamp(min=1)
    ends = interval(draws) if len(sums) > 1 else (-math.inf, math.inf)
    return Estimate((sums.sum() / counts.sum().clamp(min=1)).item(), *ends, len(sums))


def likelihood(log_prob: Float[Tensor, "episode time agent"], segment: Segment, generator: torch.Generator) -> Estimate:
    """Mean log-probability of what the demonstrators did, in nats per choice of an agent: higher is better.

    -log(choices) is guessing. Take episodes that were held out of training. A single impossible action gives -inf.
    Forced moves are left out, here and below (`rollout.choosing`).
    """
    return mean_of_steps(log_prob, choosing(segment), generator)


def joint_likelihood(
    log_prob: Float[Tensor, "episode time agent"], segment: Segment, generator: torch.Generator
) -> Estimate:
    """Mean log-probability of the joint action, in nats per step: the sum over agents.

    For policies that coordinate (each agent's probability given those before it) this is where it shows: of K equally
    common conventions independent agents reach -2 log K, coordinated ones -log K.
    """
    where = choosing(segment)
    return mean_of_steps(torch.where(where, log_prob, 0).sum(-1), where.any(-1), generator)


def accuracy(
    log_probs: Float[Tensor, "episode time agent choice"], segment: Segment, generator: torch.Generator
) -> Estimate:
    """Share of the agents' choices where the likeliest is the one that was made."""
    return mean_of_steps((log_probs.argmax(-1) == segment.actions).to(log_probs.dtype), choosing(segment), generator)


@dataclass(frozen=True)
class Reliability:
    """For each bin of confidence: mean confidence, share of right choices, and share of all agent-steps."""

    confidence: Float[Tensor, "*batch bin"]
    right: Float[Tensor, "*batch bin"]
    share: Float[Tensor, "*batch bin"]

    @property
    def error(self) -> Float[Tensor, "*batch"]:
        """Expected calibration error: sum of share * |right - confidence|.

        Source: Guo et al. 2017, arXiv:1706.04599, equation 3.
        """
        return (self.share * (self.right - self.confidence).abs()).sum(-1)


def _calibration_sums(
    log_probs: Float[Tensor, "episode time agent choice"], segment: Segment, bins: int
) -> Float[Tensor, "episode 3 bin"]:
    """Per episode and bin of confidence: sums of confidence, of right choices, and of agent-steps."""
    confidence, choice = log_probs.double().exp().max(-1)
    index = (confidence * bins).long().clamp(0, bins - 1).flatten(1)
    what = torch.stack([confidence, (choice == segment.actions).double(), torch.ones_like(confidence)], 1)
    what = (what * choosing(segment).unsqueeze(1)).flatten(2)
    return what.new_zeros(len(what), 3, bins).scatter_add_(2, index.unsqueeze(1).expand(-1, 3, -1), what)


def _reliability(sums: Float[Tensor, "*batch 3 bin"]) -> Reliability:
    confidence, right, steps = sums.unbind(-2)
    return Reliability(confidence / steps.clamp(min=1), right / steps.clamp(min=1), steps / steps.sum(-1, keepdim=True))


def reliability(log_probs: Float[Tensor, "episode time agent choice"], segment: Segment, bins: int = 15) -> Reliability:
    """Whether choices made with confidence p are right a share p of the time, in equal bins of p. For a curve."""
    return _reliability(_calibration_sums(log_probs, segment, bins).sum(0))


def calibration_error(
    log_probs: Float[Tensor, "episode time agent choice"], segment: Segment, generator: torch.Generator, bins: int = 15
) -> Estimate:
    """Expected calibration error of the likeliest choice, 0 to 1. Chance keeps it above 0, the more the fewer steps."""
    sums = _calibration_sums(log_probs, segment, bins)
    rows = resample(len(sums), REPEATS, generator).to(sums.device)
    counts = sums.new_zeros(REPEATS, len(sums)).scatter_add_(1, rows, torch.ones_like(rows, dtype=sums.dtype))
    draws = (counts @ sums.flatten(1)).unflatten(1, (3, bins))
    ends = interval(_reliability(draws).error) if len(sums) > 1 else (-math.inf, math.inf)
    return Estimate(_reliability(sums.sum(0)).error.item(), *ends, len(sums))


# --- how alike -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rows:
    """What is compared: rows of numbers, by episode."""

    values: Float[Tensor, "episode row feature"]
    valid: Bool[Tensor, "episode row"]


def as_numbers(actions: Shaped[Tensor, "..."], action: ActionSpec) -> Float[Tensor, "..."]:
    """[..., agent, width]: choices as zeros and a one, parts of MultiDiscrete end to end, real numbers as they are."""
    if isinstance(action, Continuous):
        return actions
    if isinstance(action, Discrete):
        return torch.nn.functional.one_hot(actions.long(), action.choices).float()
    parts = [
        torch.nn.functional.one_hot(actions[..., k].long(), choices).float() for k, choices in enumerate(action.choices)
    ]
    return torch.cat(parts, -1)


def by_agent(numbers: Float[Tensor, "episode time agent feature"], segment: Segment) -> Rows:
    """Each agent's numbers are a row of their own, all agents together: what they do, not what they do together."""
    return Rows(numbers.flatten(1, 2), acting(segment).flatten(1))


def jointly(numbers: Float[Tensor, "episode time agent feature"], segment: Segment) -> Rows:
    """The numbers of all agents at one moment are one row, with zeros for absent agents and a flag who is there."""
    there = acting(segment)
    values = torch.cat([torch.where(there.unsqueeze(-1), numbers, 0).flatten(2), there.to(numbers.dtype)], -1)
    return Rows(values, valid_steps(segment))


def relative_positions(positions: Float[Tensor, "episode time agent axis"], segment: Segment) -> Rows:
    """Offsets between every two agents at one moment, as one row: how they stand to each other, wherever they are."""
    one, other = torch.triu_indices(positions.shape[2], positions.shape[2], offset=1)
    there = acting(segment)
    both = there[:, :, one] & there[:, :, other]
    offsets = torch.where(both.unsqueeze(-1), positions[:, :, other] - positions[:, :, one], 0)
    return Rows(torch.cat([offsets.flatten(2), both.to(offsets.dtype)], -1), valid_steps(segment))


@dataclass(frozen=True)
class Distance:
    """How far learners are from demonstrators in one respect. All figures are of standardised numbers."""

    energy: Estimate  # 0: no difference; see maths.divergence.energy_distance
    mmd2: Estimate  # the same with a mixture of RBF kernels, at most 2: sees finer structure
    p_value: float  # of "both come from one distribution of episodes", from the energy distance


def distance(learned: Rows, demonstrated: Rows, generator: torch.Generator, most: int = 2000) -> Distance:
    """How far apart two sets of episodes are, with intervals and a test that take whole episodes as the unit.

    Columns are divided by their standard deviation over both sides; columns that never vary count nothing. Only pairs
    of different episodes are used (`episode_mmd2`), so both figures are unbiased and can come out below 0.

    Args:
        most: rows kept of each side (`kept_rows`). Time grows with its square: 2,000 take about a second.
    """
    sides = [_kept(rows, most) for rows in (learned, demonstrated)]
    together = torch.cat([side.values[side.valid] for side in sides])
    spread = together.std(0)
    spread = torch.where(spread > 1e-9 * together.abs().amax(0).clamp(min=1e-30), spread, math.inf)
    # Standardised in float64, so that a far origin costs no digits; float32 is then enough, and several times as fast.
    x, y = (((side.values - together.mean(0)) / spread).float() for side in sides)
    valid = [side.valid for side in sides]
    energy = episode_pairs(x, y, minus_distance, *valid)
    mmd2 = episode_pairs(x, y, rbf_of(x[valid[0]], y[valid[1]]), *valid)
    return Distance(_estimated(energy, generator), _estimated(mmd2, generator), episode_test(energy, generator))


def _kept(rows: Rows, most: int) -> Rows:
    """At most `most` rows, and no more room than they need; episodes of which none is left are dropped."""
    there = rows.valid.nonzero()  # [row, (episode, place)]
    episode, place = there[kept_rows(len(there), most).to(there.device)].unbind(1)
    _, number, counts = episode.unique_consecutive(return_inverse=True, return_counts=True)
    moved = torch.arange(len(episode), device=episode.device) - (counts.cumsum(0) - counts)[number]
    values = rows.values.new_zeros(len(counts), int(counts.max()), rows.values.shape[2], dtype=torch.float64)
    values[number, moved] = rows.values[episode, place].double()
    return Rows(values, torch.arange(values.shape[1], device=values.device) < counts.unsqueeze(1))


def _estimated(pairs: EpisodePairs, generator: torch.Generator) -> Estimate:
    """The distance with a bootstrap interval over episodes. Fewer than four a side: too few to resample."""
    total, first = len(pairs.lengths), pairs.first
    value, n = episode_mmd2(pairs).item(), min(first, total - first)
    if n < 4:
        return Estimate(value, -math.inf, math.inf, n)
    counts = []
    for start, count in ((0, first), (first, total - first)):
        rows = start + resample(count, REPEATS, generator).to(pairs.sums.device)
        counts.append(pairs.sums.new_zeros(REPEATS, total).scatter_add_(1, rows, pairs.sums.new_ones(rows.shape)))
    draws = episode_mmd2(pairs, *counts)
    return Estimate(value, *interval(draws[draws.isfinite()]), n)  # a sample of one episode alone has no pairs


def total_correlation(segment: Segment, action: ActionSpec) -> Estimate:
    """How much the agents' actions of one moment tell about each other, in nats: sum_i H(a_i) - H(a_1 ... a_n).

    It counts all dependence, also that through a state which everyone sees. From counts for choices (absence is a
    choice too), of the Gaussian with the same covariance for real numbers (moments with everyone there). The interval
    is the jackknife's, leaving out one episode at a time: value +- 1.96 standard errors.
    """
    if isinstance(action, Continuous):
        whole, without = _gaussian_correlation(segment)
    else:
        whole, without = _choice_correlation(segment, action)
    episodes = len(without)
    if episodes < 2:
        return Estimate(whole, -math.inf, math.inf, episodes)
    error = ((without - without.mean()).square().sum() * (episodes - 1) / episodes).sqrt().item()
    return Estimate(whole, whole - 1.96 * error, whole + 1.96 * error, episodes)


def _choice_correlation(segment: Segment, action: Discrete | MultiDiscrete) -> tuple[float, Float[Tensor, "episode"]]:
    """Total correlation of all episodes, and without each of them."""
    choices = (action.choices,) if isinstance(action, Discrete) else action.choices
    parts = segment.actions.long().reshape(*segment.obs.shape[:3], len(choices))
    code = torch.zeros_like(parts[..., 0])
    for k, size in enumerate(choices):
        code = code * size + parts[..., k]
    there = acting(segment)
    valid = valid_steps(segment) & there.any(-1)
    code = torch.where(there, code, -1)[valid]  # [step, agent]
    episode = valid.nonzero()[:, 0]

    def entropies(rows: Tensor) -> Tensor:
        """Of all episodes, then without each one."""
        cell = torch.unique(rows, dim=0, return_inverse=True)[1]
        cells, episodes = int(cell.max()) + 1, len(valid)
        counts = torch.bincount(episode * cells + cell, minlength=episodes * cells).double().reshape(episodes, cells)
        total = counts.sum(0, keepdim=True)
        return entropy_of_counts(torch.cat([total, (total - counts)[valid.any(1)]]))

    alone = torch.stack([entropies(code[:, i : i + 1]) for i in range(code.shape[1])]).sum(0)
    found = alone - entropies(code)
    return found[0].item(), found[1:]


def _gaussian_correlation(segment: Segment) -> tuple[float, Float[Tensor, "episode"]]:
    """Total correlation of all episodes, and without each of them."""
    valid = acting(segment).all(-1)
    valid, actions = valid[valid.any(1)], segment.actions[valid.any(1)].double().flatten(2)
    actions = torch.where(valid.unsqueeze(-1), actions - actions[valid].mean(0), 0)
    steps, sums = valid.sum(1).double(), actions.sum(1)
    squares = actions.transpose(1, 2) @ actions
    count = torch.cat([steps.sum().unsqueeze(0), steps.sum() - steps])
    first = torch.cat([sums.sum(0, keepdim=True), sums.sum(0) - sums]) / count.unsqueeze(-1)
    second = torch.cat([squares.sum(0, keepdim=True), squares.sum(0) - squares]) / count.reshape(-1, 1, 1)
    covariance = second - first.unsqueeze(-1) * first.unsqueeze(-2)
    found = total_correlation_gaussian(covariance, segment.obs.shape[2])
    return found[0].item(), found[1:]


# --- all of it -------------------------------------------------------------------------------------------------------


def compare(
    spec: EnvSpec,
    learned: Segment,
    demonstrated: Segment,
    generator: torch.Generator,
    random: Segment | None = None,
    positions: slice | None = None,
    most: int = 2000,
) -> dict[str, Estimate]:
    """Everything that whole episodes of learners and demonstrators tell, by name.

        return/TEAM, return/AGENT             with `demonstrated return/...`; where there are rewards; as the
                                                  length, with `random return/...` where `random` is given
        normalised return/TEAM                where `random` play is given and earns other than the demonstrators
        length                                steps of an episode, with `demonstrated length`
        energy/WHAT, mmd2/WHAT, p/WHAT        distance and two-sample test; WHAT is one of
            obs, actions                          each agent by itself
            joint obs, joint actions              all agents of a moment together
            relative positions                    where `positions` tells which
        total correlation                     of joint actions, with `demonstrated total correlation`

    Args:
        positions: the numbers of `obs` that are an agent's own place, for example slice(2, 4).
        most: rows kept of each side for the distances.
    """
    sides = {"": learned, "demonstrated ": demonstrated}
    everyone = sides if random is None else sides | {"random ": random}
    found = {f"{prefix}length": estimate(lengths(s).double(), generator) for prefix, s in everyone.items()}
    earned: dict[str, dict[str, Tensor]] = {}
    for prefix, segment in everyone.items():
        if segment.rewards is not None:
            each = returns(segment)
            earned[prefix] = team_returns(each, spec.teams)
            alone = {name: each[:, i] for i, name in enumerate(spec.names)} if spec.agents > 1 else {}
            found |= {f"{prefix}return/{who}": estimate(r, generator) for who, r in (earned[prefix] | alone).items()}
    if len(earned) == 3:
        for team in dict.fromkeys(spec.teams):
            ours, theirs, chance = (earned[prefix][team] for prefix in everyone)
            if theirs.double().mean() != chance.double().mean():
                found[f"normalised return/{team}"] = normalised_return(ours, theirs, chance, generator)
    if spec.agents > 1:
        found |= {f"{prefix}total correlation": total_correlation(s, spec.action) for prefix, s in sides.items()}

    respects: dict[str, Callable[[Segment], Rows]] = {
        "obs": lambda s: by_agent(s.obs, s),
        "actions": lambda s: by_agent(as_numbers(s.actions, spec.action), s),
    }
    if spec.agents > 1:
        respects["joint obs"] = lambda s: jointly(s.obs, s)
        respects["joint actions"] = lambda s: jointly(as_numbers(s.actions, spec.action), s)
        if positions is not None:
            respects["relative positions"] = lambda s: relative_positions(s.obs[..., positions], s)
    for what, rows_of in respects.items():
        apart = distance(rows_of(learned), rows_of(demonstrated), generator, most)
        found |= {f"energy/{what}": apart.energy, f"mmd2/{what}": apart.mmd2}
        found[f"p/{what}"] = Estimate(apart.p_value, apart.p_value, apart.p_value, apart.energy.n)
    return found
