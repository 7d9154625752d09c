"""How good a model of whole scenes is: likelihood, errors of futures, realism, what it breaks, how much it varies.

Axes are `scene, time, agent`; several futures of one past stand on an axis `sample` before them. Everybody is measured
on the same frames in the recordings' own units, so figures of different models can stand side by side.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from understudy.core.errors import DemosError
from understudy.core.tree import tree_map
from understudy.demos.tracks import Clips, TrackSet
from understudy.evaluation.metrics import mean_of_steps, pooled_mean
from understudy.maths.stats import Estimate, estimate
from understudy.nets.mlp import AgentMLP
from understudy.nets.scene import Likelihood

Values = Float[Tensor, "*batch time agent dim"]
Present = Bool[Tensor, "*batch time agent"]


@runtime_checkable
class SceneModel(Protocol):
    """Whatever says how likely recorded scenes are."""

    def __call__(self, scenes: Clips) -> Likelihood: ...


class Nats(NamedTuple):
    """Of a set of recordings, -log p: the lower, the likelier."""

    per_frame: Estimate  # of what all do at once, mean over frames in which anybody counts
    per_move: Estimate  # the same for each agent that counts
    frames: int


@torch.no_grad()
def likelihood(
    model: SceneModel,
    tracks: TrackSet,
    generator: torch.Generator,
    rows: int = 8,
    agents: int | None = None,
    length: int | None = None,
) -> Nats:
    """How likely recordings are under a model, in nats; intervals resample recordings (or clips).

    Of positions it is a density: nats depend on the unit of length (`tracks.spec.unit`), and may be negative.

    Args:
        rows: recordings looked at together, each padded to the longest of the set.
        agents: as of `TrackSet.batch`.
        length: None: each recording as a whole. Else clips of so many frames, end to end, each by itself: for crowds,
            since memory grows with frames times agents squared.
    """
    if not tracks.frames:
        raise DemosError("tracks: there is no recording, so nothing to measure.")
    sums, moves, counts = [], [], []
    for clips in _pieces(tracks, rows, agents, length):
        found = model(clips)
        sums.append(-found.frames.double().sum(dim=1))
        moves.append(found.counted.sum(dim=(1, 2)))
        counts.append(found.counted.any(dim=-1).sum(dim=1))
    total, frames, each = torch.cat(sums), torch.cat(counts), torch.cat(moves)
    return Nats(pooled_mean(total, frames, generator), pooled_mean(total, each, generator), int(frames.sum()))


def _pieces(tracks: TrackSet, rows: int, agents: int | None, length: int | None) -> Iterator[Clips]:
    if length is None:
        longest = int(tracks.lengths.max())
        for position in range(tracks.batches_per_epoch(rows, longest)):
            yield tracks.batch(position, rows, 0, longest, agents)
        return
    clips = tracks.clips(length, agents=agents)
    for begin in range(0, len(clips), rows):
        yield tree_map(lambda x, begin=begin: x[begin : begin + rows], clips)


# --- futures beside the one that came -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Errors:
    """Distances of the best of several futures from the one that came, in the recordings' unit of length.

    Each is a mean over agents, or over scenes for the joint ones; intervals resample scenes.
    """

    min_ade: Estimate  # of each agent by itself: its own best future by its mean distance
    min_fde: Estimate  # of each agent by itself: its own best future by its distance at the end
    min_jade: Estimate  # of all agents of a scene at once: the one future that is best for them together
    min_jfde: Estimate
    samples: int

    @property
    def figures(self) -> dict[str, Estimate]:
        names = {"minADE": "min_ade", "minFDE": "min_fde", "minJADE": "min_jade", "minJFDE": "min_jfde"}
        return {name: getattr(self, field) for name, field in names.items()}


def displacement_errors(
    futures: Float[Tensor, "sample scene time agent dim"],
    came: Float[Tensor, "scene time agent dim"],
    present: Bool[Tensor, "scene agent"],
    generator: torch.Generator,
) -> Errors:
    """minADE, minFDE and their joint forms.

        ADE = mean_t |x_t - y_t|,  FDE = |x_T - y_T|,  min over samples of an agent's (or of a scene's mean)

    The joint forms are the honest ones for models of scenes: per agent, the best of K may be K different scenes.

    Args:
        present: who was there from the first to the last of these frames; others are left out.
    """
    distance = (futures - came).norm(dim=-1)  # [sample, scene, time, agent]
    mean, last = distance.mean(dim=2), distance[:, :, -1]
    count = present.sum(dim=-1).clamp(min=1)
    found = {}
    for name, each in (("ade", mean), ("fde", last)):
        found[f"min_{name}"] = mean_of_steps(each.amin(dim=0), present, generator)
        joint = ((each * present).sum(dim=-1) / count).amin(dim=0)
        found[f"min_j{name}"] = estimate(joint[present.any(dim=-1)].double(), generator)
    return Errors(**found, samples=len(futures))


def diversity(futures: Values, present: Bool[Tensor, "scene agent"]) -> float:
    """Mean distance between two futures of one past, over pairs of samples, frames and agents; 0: all are alike."""
    count = len(futures)
    apart = torch.stack([(futures - futures.roll(k, 0)).norm(dim=-1) for k in range(1, count // 2 + 1)])
    return float((apart.mean(dim=(0, 1)).mean(dim=1) * present).sum() / present.sum().clamp(min=1))


def ranks(
    futures: Float[Tensor, "sample *row"], came: Float[Tensor, "*row"], where: Bool[Tensor, "*row"]
) -> Float[Tensor, "rank"]:
    """Calibration of one number: how often what came lies above 0, 1 .. all of the samples; even where calibrated."""
    above = (came > futures).sum(dim=0)[where]
    return torch.bincount(above, minlength=len(futures) + 1) / max(1, len(above))


def covered(
    futures: Float[Tensor, "sample *row"], came: Float[Tensor, "*row"], where: Bool[Tensor, "*row"], share: float = 0.8
) -> tuple[float, float]:
    """How often what came lies among the middle `share` of the samples, and how often it would if it were one of them.

    The second is as near to `share` as their number allows: of 20 samples 17 / 21.
    """
    places = len(futures) + 1
    off = round(places * (1 - share) / 2)  # places at either end that do not count
    middle = slice(off, places - off)
    return float(ranks(futures, came, where)[middle].sum()), (places - 2 * off) / places


# --- realism ---------------------------------------------------------------------------------------------------------


def speed(values: Values, present: Present, dt: float) -> tuple[Tensor, Tensor]:
    """Length of each step over its time, and where there was one: [*batch, time - 1, agent]."""
    step = (values[..., 1:, :, :] - values[..., :-1, :, :]).norm(dim=-1) / dt
    return step, present[..., 1:, :] & present[..., :-1, :]


def acceleration(values: Values, present: Present, dt: float) -> tuple[Tensor, Tensor]:
    """Change of speed over time (negative: slowing down), and where: [*batch, time - 2, agent]."""
    fast, there = speed(values, present, dt)
    return (fast[..., 1:, :] - fast[..., :-1, :]) / dt, there[..., 1:, :] & there[..., :-1, :]


def turning(values: Values, present: Present, dt: float) -> tuple[Tensor, Tensor]:
    """Angle from one step to the next over time, radians, left positive; where both move: [*batch, time - 2, agent]."""
    step = values[..., 1:, :, :2] - values[..., :-1, :, :2]
    a, b = step[..., :-1, :, :], step[..., 1:, :, :]
    angle = torch.atan2(a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0], (a * b).sum(dim=-1))
    there = present[..., 2:, :] & present[..., 1:-1, :] & present[..., :-2, :]
    return angle / dt, there & (a.norm(dim=-1) > 0) & (b.norm(dim=-1) > 0)


def nearest(values: Values, present: Present, dt: float) -> tuple[Tensor, Tensor]:
    """Distance to the nearest other agent, and where there is one: [*batch, time, agent]."""
    apart = torch.cdist(values, values)
    alone = torch.eye(values.shape[-2], dtype=torch.bool, device=values.device) | ~present.unsqueeze(-2)
    return apart.masked_fill(alone, torch.inf).amin(dim=-1), present & ~alone.all(dim=-1)


FEATURES = {"speed": speed, "acceleration": acceleration, "turning": turning, "nearest": nearest}


def realism(
    futures: Float[Tensor, "sample scene time agent dim"],
    came: Float[Tensor, "scene time agent dim"],
    present: Present,
    dt: float,
    features: Sequence[str] = tuple(FEATURES),
    bins: int = 11,
    smoothing: float = 0.1,
) -> dict[str, float]:
    """How likely features of what came are among those of the futures: 0 to 1, each, and their mean as "realism".

    For every agent of every scene the feature's values in all samples and frames make a histogram (`smoothing` is added
    to each count; the outermost bins reach to infinity), and

        score = exp(mean over the frames that came of log p(bin)).

    Edges are those of what came, from its 1st to its 99th percentile. The form of the meta-metric of Waymo's Sim Agents
    challenge (arXiv:2305.12032), with other features; a score depends on `bins`, so compare like with like.
    """
    scores = {}
    for name in features:
        real, where = FEATURES[name](came, present, dt)
        made, _ = FEATURES[name](futures, present.expand(futures.shape[:-1]), dt)
        known = real[where]
        low, high = torch.quantile(known.double(), torch.tensor([0.01, 0.99], dtype=torch.float64)).tolist()
        edges = torch.linspace(low, high, bins + 1)[1:-1].to(real.dtype)
        mine, theirs = torch.bucketize(real, edges), torch.bucketize(made, edges)
        counts = (F.one_hot(theirs, bins) * where.unsqueeze(-1)).sum(dim=(0, 2)) + smoothing  # [scene, agent, bin]
        log_p = (counts / counts.sum(dim=-1, keepdim=True)).log()
        each = log_p.unsqueeze(1).expand(*mine.shape, bins).gather(-1, mine.unsqueeze(-1)).squeeze(-1)
        scores[name] = float(each[where].mean().exp())
    return scores | {"realism": sum(scores.values()) / len(scores)}


def in_rows(values: Values, present: Present, dt: float) -> Float[Tensor, "scene feature"]:
    """Scenes as rows of numbers, for `two_sample_auc`: mean and deviation of each of `FEATURES` over agents and frames.

    Both are 0 where a scene has none of a feature.
    """
    rows = []
    for feature in FEATURES.values():
        found, where = feature(values, present, dt)
        count = where.sum(dim=(1, 2)).clamp(min=1)
        mean = found.where(where, 0.0).sum(dim=(1, 2)) / count
        off = (found - mean[:, None, None]).where(where, 0.0)
        rows += [mean, (off.square().sum(dim=(1, 2)) / count).sqrt()]
    return torch.stack(rows, dim=-1)


def two_sample_auc(
    real: Float[Tensor, "real feature"],
    made: Float[Tensor, "made feature"],
    generator: torch.Generator,
    hidden: int = 64,
    steps: int = 300,
) -> float:
    """How well a small network tells what was made from what was recorded: 0.5 not at all, 1 always.

    It learns on one half of both and is asked about the other; the area under its ROC curve is the chance that it finds
    a made row more suspicious than a recorded one. Rows must be independent: one from each scene.

    Source: Lopez-Paz & Oquab 2017, arXiv:1610.06545.
    """
    halves = []
    for rows in (real, made):
        order = torch.randperm(len(rows), generator=generator)
        halves.append((rows[order[::2]], rows[order[1::2]]))
    (real_in, real_out), (made_in, made_out) = halves
    centre = torch.cat([real_in, made_in])
    mean, std = centre.mean(dim=0), centre.std(dim=0).clamp(min=1e-6)
    net = AgentMLP(real.shape[-1], 1, (0,), generator, hidden, activation="relu")
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3, weight_decay=1e-2)
    for _ in range(steps):
        loss = F.softplus(net(_one(real_in, mean, std))).mean() + F.softplus(-net(_one(made_in, mean, std))).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        a, b = net(_one(made_out, mean, std)).flatten(), net(_one(real_out, mean, std)).flatten()
    return float((a.unsqueeze(-1) > b).float().mean() + 0.5 * (a.unsqueeze(-1) == b).float().mean())


def _one(rows: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    return ((rows - mean) / std).clamp(-10, 10).unsqueeze(-2)


# --- what must not be ------------------------------------------------------------------------------------------------


def collisions(values: Values, present: Present, radius: float) -> float:
    """Share of agents' frames in which another is nearer than `radius`."""
    near, where = nearest(values, present, 1.0)
    return float((near[where] < radius).double().sum() / present.sum().clamp(min=1))


def out_of_field(values: Values, present: Present, low: Sequence[float], high: Sequence[float]) -> float:
    """Share of frames in which anybody is outside the field. (Zhan et al. 2019 count so.)"""
    outside = (values < torch.tensor(low)).any(dim=-1) | (values > torch.tensor(high)).any(dim=-1)
    frames = present.any(dim=-1)
    return float((outside & present).any(dim=-1).sum() / frames.sum().clamp(min=1))


def too_fast(values: Values, present: Present, dt: float, limit: float) -> float:
    """Share of steps faster than `limit`."""
    fast, there = speed(values, present, dt)
    return float((fast[there] > limit).double().sum() / there.sum().clamp(min=1))


def voice_crossings(symbols: Int[Tensor, "scene time voice"], rest: int = 0) -> float:
    """Share of frames in which a voice lies above one that stands before it (voices from the highest down)."""
    above, below = symbols[..., :-1], symbols[..., 1:]
    return float(((below > above) & (below != rest) & (above != rest)).any(dim=-1).double().mean())


def parallels(symbols: Int[Tensor, "scene time voice"], rest: int = 0) -> float:
    """Parallel fifths and octaves in a hundred frames: two voices both move, from a fifth (or octave) to another one.

    Symbols are pitches in semitones from any origin, `rest` apart.
    """
    voices = symbols.shape[-1]
    i, j = torch.triu_indices(voices, voices, 1)
    apart = (symbols[..., i] - symbols[..., j]) % 12
    sounds = (symbols[..., i] != rest) & (symbols[..., j] != rest)
    moved = symbols[:, 1:] != symbols[:, :-1]
    both = moved[..., i] & moved[..., j] & sounds[:, 1:] & sounds[:, :-1]
    same = (apart[:, 1:] == apart[:, :-1]) & ((apart[:, 1:] == 0) | (apart[:, 1:] == 7))
    return 100 * float((both & same).sum() / max(1, symbols.shape[0] * (symbols.shape[1] - 1)))


def consistency(asked: Int[Tensor, "*row"], found: Int[Tensor, "*row"]) -> float:
    """Share of goals that were asked for (not -1) and that a label function finds in what was sampled."""
    told = asked >= 0
    return float((asked == found)[told].double().mean())
