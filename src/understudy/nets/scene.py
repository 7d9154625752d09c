"""A causal model of whole scenes: an exact likelihood of what all agents do next, given all that all of them did.

    log p(scene) = sum_t  log p(goals_t | frames before t, goals before t) + log p(frame_t | the same, goals_t)

Frames before t pass through a trunk of attention over time and over agents (`nets.trunk`); a head gives the joint
distribution of the next frame (`nets.scene_heads`). Positions enter by their differences alone, between frames and
between agents, unless `absolute`: the model then is blind to where on the field a scene is. What is predicted of a
position is how much its step differs from the step before,

    x_t - x_{t-1} = (x_{t-1} - x_{t-2}) + s u,    u ~ the head's mixture,  s recorded, per unit,

so that a model that knows nothing yet walks straight on. With `turned` each agent sees, and u is drawn, from the way it
is going: once all have moved, a scene is as likely whichever way it is turned on the ground plane. Goals are labels in
whole numbers, of agents or of the scene: given, partly given (-1: not told), or drawn by the model itself.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from understudy.core.config import at_least_one, not_negative, share
from understudy.core.errors import ConfigError, ShapeError
from understudy.core.random import uniform
from understudy.maths.heads import Categorical
from understudy.nets.scene_heads import MoveHead, SymbolHead, apart
from understudy.nets.trunk import Memory, Table, Trunk, TrunkConfig, linear


@runtime_checkable
class Scenes(Protocol):
    """Scenes side by side, such as `demos.tracks.Clips`."""

    @property
    def values(self) -> Tensor: ...  # Float[scene time agent dim] or Int[scene time agent]
    @property
    def present(self) -> Bool[Tensor, "scene time agent"]: ...
    @property
    def labels(self) -> dict[str, Tensor]: ...  # [scene time agent] or [scene time]
    @property
    def slots(self) -> Int[Tensor, "scene agent"] | None: ...  # who they are; None: agent i is in slot i
    @property
    def start(self) -> Int[Tensor, "scene"] | None: ...  # frames recorded before the first; None: none


@dataclass(frozen=True)
class Label:
    """A label that a model knows of."""

    name: str
    classes: int  # values are 0 to classes - 1, and -1 where unknown
    of_agents: bool  # [scene time agent]; False: [scene time]


@dataclass(frozen=True)
class SceneShape:
    """What scenes are made of."""

    dims: int  # numbers of a position; 0 where agents give symbols
    symbols: int  # 0 where agents have positions
    kinds: tuple[
        int, ...
    ]  # of each slot: agents of one kind are told apart by what they do alone. (0,): all are alike,
    teams: tuple[int, ...]  # of each slot                                                      in any number of slots
    goals: tuple[Label, ...] = ()  # what agents are after: modelled, and to be set
    given: tuple[Label, ...] = ()  # what is known of a frame before it comes, such as the beat: never modelled


@dataclass(frozen=True)
class SceneNet:
    """Settings of the network."""

    trunk: TrunkConfig = field(default_factory=TrunkConfig)
    identity: Literal["none", "role", "agent"] = "role"  # what is told apart from the start, besides teams
    absolute: bool = False  # positions: see where on the field one is
    recent: int = 1  # positions: how many of its latest steps an agent is shown at once
    turned: bool = False  # positions: seen from where each agent is heading, over its recent steps
    together: int = 4  # positions: components of the scene's mixture
    alone: int = 3  # positions: components of each agent's mixture within it
    goal_dropout: float = 0.15  # share of agents (or scenes) that learn without being told their goals
    blur: float = 0.0  # of the past, while learning: share of symbols hidden; or noise on steps, in their deviations
    least_std: float = 0.01  # positions: smallest deviation of a move, in deviations of the recorded ones
    relative: bool = (
        True  # symbols: how far apart they lie is told; False: it is learnt, slower and with less overfitting
    )
    period: int = 0  # symbols on a scale: those so far apart are alike (12: notes an octave apart)
    ordered: bool = True  # symbols: within a frame each agent is told what those before it chose
    within: int = 2  # symbols: layers that read what they chose
    echo: int = 16  # symbols: frames by which earlier moments are told to be alike; 0: none are looked for

    def __post_init__(self) -> None:
        at_least_one(self, "together", "alone", "recent")
        not_negative(self, "within", "echo")
        share(self, "goal_dropout")
        share(self, "blur", below=True)
        if not self.least_std > 0:
            raise ConfigError(f"least_std: got {self.least_std}; without one, above 0, a likelihood has no bound.")


class Likelihood(NamedTuple):
    """Of scenes, in nats; of positions a density per unit of length for each number."""

    frames: Float[Tensor, "scene time"]  # of what those who count do at once; 0 where nobody counts
    counted: Bool[Tensor, "scene time agent"]  # whose moves these are
    goals: Float[Tensor, "scene time"]  # of the goals that are told, given the past


class Noise(NamedTuple):
    """Uniform numbers in [0, 1): all the chance there is in a sample. Equal noise makes paired counterfactuals."""

    agents: Float[Tensor, "scene time agent draw"]
    scene: Float[Tensor, "scene time draw"]


class Sampled(NamedTuple):
    """Scenes as `Scenes`: the past and what was drawn after it."""

    values: Tensor
    present: Bool[Tensor, "scene time agent"]
    labels: dict[str, Tensor]
    slots: Int[Tensor, "scene agent"] | None = None
    start: Int[Tensor, "scene"] | None = None


Player = Callable[[Tensor, Bool[Tensor, "scene time agent"]], Tensor]  # all so far -> the agent's next value


class _Seen(NamedTuple):
    """What is known before each frame."""

    last: Tensor  # positions or symbols of the frame before
    steps: Float[Tensor, "scene time agent recent dim"] | None  # positions: the step to it, those before; 0 unknown
    stepped: Bool[Tensor, "scene time agent recent"] | None  # which are known, without a break
    there: Bool[Tensor, "scene time agent"]  # whose next move is asked
    goals: list[Int[Tensor, "scene time agent"]]  # of the frame before
    given: list[Int[Tensor, "scene time agent"]]  # of the frame to come


class CausalSceneNet(nn.Module):
    """See the module. Made by `algorithms.scene.init`, which also sets its scales by the recordings (`fit`)."""

    move: Tensor
    change: Tensor
    reach: Tensor
    middle: Tensor
    extent: Tensor
    kinds: Tensor
    teams: Tensor

    def __init__(self, config: SceneNet, shape: SceneShape, generator: torch.Generator):
        super().__init__()
        self.config, self.shape = config, shape
        width, pair = config.trunk.hidden, config.trunk.pair
        self.register_buffer("kinds", torch.tensor(shape.kinds), persistent=False)
        self.register_buffer("teams", torch.tensor(shape.teams), persistent=False)
        self.who = Table(max(shape.kinds) + 2, width, generator)  # the last: nobody known
        if shape.symbols:
            self.symbol = Table(shape.symbols + 1, width, generator, period=config.period)  # the last: none yet
            rows = 2 * shape.symbols + 1 if config.relative else 1
            self.interval = Table(rows, pair, generator, period=config.period if config.relative else 0)
            self.head: MoveHead | SymbolHead = SymbolHead(
                config.trunk,
                shape.symbols,
                config.ordered,
                generator,
                within=config.within,
                echo=config.echo,
                relative=config.relative,
                period=config.period,
            )
        else:
            for name in ("move", "change", "reach"):
                self.register_buffer(name, torch.ones(()))
            self.register_buffer("middle", torch.zeros(shape.dims))
            self.register_buffer("extent", torch.ones(shape.dims))
            seen = config.recent * (shape.dims + 1) + config.absolute * (shape.dims + 2 * config.turned)
            self.read = linear(seen, width, generator)
            self.relate = nn.Sequential(
                linear(2 * shape.dims + 2, 2 * pair, generator), nn.GELU(), linear(2 * pair, pair, generator)
            )
            together = config.together if config.trunk.social else 1
            self.head = MoveHead(width, shape.dims, together, config.alone, config.least_std, generator)
        self.given = nn.ModuleList(Table(label.classes + 1, width, generator) for label in shape.given)
        self.goals_before = nn.ModuleList(Table(label.classes + 1, width, generator) for label in shape.goals)
        self.goals_now = nn.ModuleList(Table(label.classes + 1, width, generator) for label in shape.goals)
        self.aims = nn.ModuleList(linear(width, label.classes, generator, 0.1) for label in shape.goals)
        if shape.goals:
            self.inner, self.outer = linear(width, 2 * width, generator), linear(2 * width, width, generator, 0.5)
            self.norm = nn.LayerNorm(width)
        self.trunk = Trunk(config.trunk, generator)

    @torch.no_grad()
    def fit(self, scenes: Scenes, low: tuple[float, ...] = (), high: tuple[float, ...] = ()) -> None:
        """Set the scales of positions by what was recorded, and the middle of the field by its bounds, if any."""
        if self.shape.symbols:
            return
        step, stepped = _steps(scenes.values, scenes.present)
        twice = stepped[:, 1:] & stepped[:, :-1]
        self.move.copy_(_deviation(step[stepped]))
        self.change.copy_(_deviation((step[:, 1:] - step[:, :-1])[twice]))
        where = scenes.values[scenes.present]
        self.reach.copy_(_deviation(where - where.mean(dim=0)))
        ends = (torch.tensor(low), torch.tensor(high)) if low else (where.amin(dim=0), where.amax(dim=0))
        self.middle.copy_((ends[0] + ends[1]) / 2)
        self.extent.copy_(((ends[1] - ends[0]) / 2).clamp(min=1e-6))

    def forward(self, scenes: Scenes, chance: torch.Generator | None = None) -> Likelihood:
        """How likely what was recorded is, frame by frame, given all before it.

        Not counted are who is absent; of positions also the first frame of whoever appears (from there on it is
        predicted); of symbols the first frame of a piece that was cut from further on (`start` above 0).

        Args:
            chance: draws the dropout; None: none is dropped.
        """
        seen, goals = self._look(scenes), self._told(scenes, self.shape.goals)
        counted = seen.there & scenes.present
        told, before = self._untold(goals, seen.goals, chance)
        h = self._features(self._blurred(seen._replace(goals=before), chance), scenes.slots, None, chance)
        aimed = self._log_prob_of_goals(h, goals, counted)
        h = self._decided(h, told)
        there = None if bool(counted.all()) else counted
        if isinstance(self.head, SymbolHead):
            frames = self.head.log_prob(h, seen.last, scenes.values, there, chance).sum(dim=-1)
        else:
            centre, scale = self._expected(seen)
            moves = turned((scenes.values - centre) / scale, self._ahead(seen), -1)
            log_prob = self.head.log_prob(self.head(h, there), moves, there)
            frames = log_prob - self.shape.dims * (scale.squeeze(-1).log() * counted).sum(dim=-1)
        return Likelihood(frames, counted, aimed)

    def logits(self, scenes: Scenes) -> Float[Tensor, "scene time agent symbol"]:
        """Of every agent's symbol, given the past and those before it in the frame."""
        assert isinstance(self.head, SymbolHead)
        seen = self._look(scenes)
        h = self._decided(self._features(seen, scenes.slots, None, None), self._told(scenes, self.shape.goals))
        return self.head(h, seen.last, scenes.values, seen.there & scenes.present)

    def noise(self, scenes: int, frames: int, agents: int, chance: torch.Generator) -> Noise:
        """All the chance that a sample of so many frames needs."""
        ours = sum(label.of_agents for label in self.shape.goals)
        dtype = self.trunk.norm.weight.dtype
        drawn = uniform((scenes, frames, agents, self.head.noise + ours), chance, dtype)
        return Noise(drawn, uniform((scenes, frames, 1 + len(self.shape.goals) - ours), chance, dtype))

    @torch.no_grad()
    def sample(
        self,
        past: Scenes,
        noise: Noise,
        *,
        goals: Mapping[str, Tensor] | None = None,
        given: Mapping[str, Tensor] | None = None,
        forced: Tensor | None = None,
        players: Mapping[int, Player] | None = None,
    ) -> Sampled:
        """What may come after `past`, as many frames as `noise` is for.

        What is set (`goals`, `forced`, `players`) is set by intervention: frames before it are, with equal noise, what
        they are without it, and others answer to what an agent does from the next frame on (symbols: those after it in
        the order of slots at once).

        Args:
            past: at least a frame; of symbols none is needed. Who is present in its last frame is so to the end.
            noise: of `noise(scenes, frames, agents, generator)`.
            goals: by name, [scene time agent] or [scene time] over the frames to come; -1 leaves it to the model.
            given: by name, what is known of the frames to come; all of it must be told.
            forced: [scene time agent dim] with nan, or [scene time agent] with -1, where the model is free.
            players: by agent, who moves in its place: from values [scene time agent ...] and presence so far to its
                next value, [scene dim] or [scene].
        """
        frames, begin = noise.agents.shape[1], past.values.shape[1]
        if not begin and not self.shape.symbols:
            raise ShapeError("past: a scene of positions goes on from a frame at least, and there is none.")
        whole = self._room(past, frames, goals or {}, given or {})
        memory = self.trunk.start(len(whole.values), whole.values.shape[2], begin + frames)
        for n in range(frames):
            now = begin + n
            first = 0 if n == 0 else now
            seen = self._look(whole, first, now + 1)
            h = self._features(seen, whole.slots, memory, None)[:, -1:]
            seen = _latest(seen)
            there = None if bool(seen.there.all()) else seen.there
            ours, theirs = noise.agents[:, n : n + 1], noise.scene[:, n : n + 1]
            ours, theirs = self._aim(h, whole, now, ours, theirs, seen.there)
            h = self._decided(h, self._told(whole, self.shape.goals, _cut(now, now + 1)))
            must = _set(whole, now, None if forced is None else forced[:, n : n + 1], players or {})
            if isinstance(self.head, SymbolHead):
                latest = slice(max(0, now - self.config.trunk.window - self.config.echo), now)  # all an echo asks for
                earlier = torch.where(whole.present[:, latest], whole.values[:, latest], self.shape.symbols)
                next_ = self.head.sample(h, seen.last, ours, there, must, earlier)
            else:
                centre, scale = self._expected(seen)
                moves = self.head.sample(self.head(h, there), ours, theirs)
                next_ = centre + scale * turned(moves, self._ahead(seen), 1)
                next_ = next_ if must is None else torch.where(must.isnan(), next_, must)
            whole.values[:, now : now + 1] = torch.where(_like(seen.there, next_), next_, torch.zeros_like(next_))
        return whole

    def _look(self, scenes: Scenes, begin: int = 0, end: int | None = None) -> _Seen:
        """What is known before each of the frames `begin` to `end`."""
        end = scenes.values.shape[1] if end is None else end
        values, present = (_back(x, begin, end) for x in (scenes.values, scenes.present))
        goals = self._told(scenes, self.shape.goals, lambda x: _back(x, begin, end, -1))
        given = self._told(scenes, self.shape.given, _cut(begin, end))
        if self.shape.symbols:
            last = torch.where(present, values, self.shape.symbols)
            there = scenes.present[:, begin:end].clone()
            if begin == 0 and scenes.start is not None and there.shape[1]:
                there[:, 0] &= (scenes.start == 0).unsqueeze(-1)
            return _Seen(last, None, None, there, goals, given)
        steps, stepped, known, place = [], [], present, values
        for back in range(1, self.config.recent + 1):
            before = _back(scenes.values, begin - back, end - back)
            known = known & _back(scenes.present, begin - back, end - back)
            steps.append((place - before) * known.unsqueeze(-1))
            stepped.append(known)
            place = before
        return _Seen(values, torch.stack(steps, -2), torch.stack(stepped, -1), present, goals, given)

    def _features(
        self, seen: _Seen, slots: Tensor | None, memory: Memory | None, chance: torch.Generator | None
    ) -> Float[Tensor, "scene time agent hidden"]:
        """What the trunk makes of it."""
        kinds = (
            self.kinds
            if slots is None
            else torch.where(slots < 0, max(self.shape.kinds) + 1, self.kinds[self._slots(slots)])
        )
        x = F.embedding(kinds, self.who())
        x = x if slots is None else x.unsqueeze(1)
        if self.shape.symbols:
            x = x + F.embedding(seen.last, self.symbol())
            far = apart(seen.last, seen.last, self.shape.symbols)
            pairs = F.embedding(far if self.config.relative else torch.zeros_like(far), self.interval())
        else:
            assert seen.steps is not None and seen.stepped is not None
            heading = self._heading(seen)
            steps = seen.steps if heading is None else turned(seen.steps, heading.unsqueeze(-2), -1)
            changes = (steps[..., :-1, :] - steps[..., 1:, :]) * seen.stepped[..., 1:, None] / self.change
            told = [steps[..., 0, :] / self.move, changes.flatten(-2), seen.stepped.to(steps.dtype)]
            if self.config.absolute:
                told.append((seen.last - self.middle) / self.extent)
                told += [] if heading is None else [heading]
            x = x + self.read(torch.cat(told, dim=-1))
            pairs = self.relate(self._between(seen, slots))
        for tables, classes in ((self.given, seen.given), (self.goals_before, seen.goals)):
            for weight, label in zip(tables, classes, strict=True):
                x = x + F.embedding(label, weight())
        there = None if bool(seen.there.all()) else seen.there
        return self.trunk(x, pairs, there, memory, chance)

    def _slots(self, slots: Tensor) -> Tensor:
        """Where in `shape.kinds` each stands; of nobody any place."""
        return slots.clamp(min=0, max=0 if len(self.shape.kinds) == 1 else None)

    def _between(self, seen: _Seen, slots: Tensor | None) -> Float[Tensor, "scene time agent agent feature"]:
        assert seen.steps is not None
        pace = seen.steps[..., 0, :] / self.move
        return relations(seen.last, pace, self.reach, self._same_team(slots), self._heading(seen))

    def _heading(self, seen: _Seen) -> Float[Tensor, "scene time agent 2"] | None:
        """Which way each went in its recent steps, of length one; zeros for who stood, whom nothing shows a direction.

        None: not `turned`.
        """
        if not self.config.turned:
            return None
        assert seen.steps is not None
        way = seen.steps[..., :2].sum(dim=-2)
        far = way.norm(dim=-1, keepdim=True)
        return torch.where(far > 1e-6 * self.move, way / far.clamp(min=1e-12), 0.0)

    def _ahead(self, seen: _Seen) -> Float[Tensor, "scene time agent 2"] | None:
        """The axis along which moves are predicted: the heading, the first axis for who stood. None: not `turned`."""
        heading = self._heading(seen)
        if heading is None:
            return None
        first = torch.zeros_like(heading)
        first[..., 0] = 1
        return torch.where((heading == 0).all(dim=-1, keepdim=True), first, heading)

    def _same_team(self, slots: Tensor | None) -> Tensor:
        teams = self.teams if slots is None else self.teams[self._slots(slots)].unsqueeze(1)
        return teams.unsqueeze(-1) == teams.unsqueeze(-2)

    def _expected(self, seen: _Seen) -> tuple[Tensor, Tensor]:
        """Where one is who walks straight on, and the scale of how far one is from there: [..., dim] and [..., 1]."""
        assert seen.steps is not None and seen.stepped is not None
        scale = torch.where(seen.stepped[..., 0], self.change, self.move).unsqueeze(-1)
        return seen.last + seen.steps[..., 0, :], scale

    def _told(
        self, scenes: Scenes, labels: tuple[Label, ...], of: Callable[[Tensor], Tensor] = lambda x: x
    ) -> list[Tensor]:
        """Labels as classes of every agent, the class after the last standing for "not told"; `of` some frames."""
        shape = scenes.values.shape[:3]
        told = []
        for label in labels:
            value = scenes.labels.get(label.name)
            value = torch.tensor(-1, device=self.kinds.device).expand(shape) if value is None else value
            value = of(value if value.dim() == 3 else value.unsqueeze(-1)).long().expand(-1, -1, shape[2])
            told.append(torch.where(value < 0, label.classes, value))
        return told

    def _decided(self, h: Tensor, goals: list[Tensor]) -> Tensor:
        """The features, changed by the goals of the frame to come."""
        if not goals:
            return h
        aimed = sum(
            (F.embedding(goal, weight()) for goal, weight in zip(goals, self.goals_now, strict=True)), self.norm(h)
        )
        return h + self.outer(F.gelu(self.inner(aimed)))

    def _goal_logits(self, h: Tensor, there: Tensor) -> list[Tensor]:
        """Of each label: [scene time agent class], or [scene time class]."""
        weight = there.unsqueeze(-1).to(h.dtype)
        pooled = (h * weight).sum(dim=2) / weight.sum(dim=2).clamp(min=1)
        return [aim(h if label.of_agents else pooled) for aim, label in zip(self.aims, self.shape.goals, strict=True)]

    def _blurred(self, seen: _Seen, chance: torch.Generator | None) -> _Seen:
        """What the trunk is shown of the past: not quite all, so that it does not learn pieces by heart."""
        if chance is None or not self.config.blur:
            return seen
        if seen.steps is None:
            hidden = torch.rand(seen.last.shape, generator=chance, device=seen.last.device) < self.config.blur
            return seen._replace(last=torch.where(hidden, self.shape.symbols, seen.last))
        noise = torch.randn(seen.steps.shape, generator=chance, device=seen.steps.device, dtype=seen.steps.dtype)
        return seen._replace(steps=seen.steps + self.config.blur * self.change * noise)

    def _untold(
        self, goals: list[Tensor], before: list[Tensor], chance: torch.Generator | None
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Goals of this frame and of the one before, kept from some agents (or scenes) throughout."""
        if chance is None or not self.config.goal_dropout:
            return goals, before
        told, known = [], []
        for label, now, last in zip(self.shape.goals, goals, before, strict=True):
            shape = (now.shape[0], 1, now.shape[2] if label.of_agents else 1)
            kept = torch.rand(shape, generator=chance, device=now.device) >= self.config.goal_dropout
            told.append(torch.where(kept, now, label.classes))
            known.append(torch.where(kept, last, label.classes))
        return told, known

    def _log_prob_of_goals(self, h: Tensor, goals: list[Tensor], counted: Tensor) -> Tensor:
        total = torch.zeros(h.shape[:2], dtype=h.dtype, device=h.device)
        for logits, goal, label in zip(self._goal_logits(h, counted), goals, self.shape.goals, strict=True):
            mine, counts = (goal, counted) if label.of_agents else (goal[..., 0], counted.any(dim=-1))
            told = counts & (mine < label.classes)
            each = Categorical(label.classes).log_prob(logits, mine.clamp(max=label.classes - 1)).where(told, 0.0)
            total = total + (each.sum(dim=-1) if label.of_agents else each)
        return total

    def _aim(
        self, h: Tensor, whole: Sampled, now: int, ours: Tensor, theirs: Tensor, there: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Draw the goals of frame `now` that are not set; returns the noise that is left for moves."""
        for logits, label in zip(self._goal_logits(h, there), self.shape.goals, strict=True):
            noise, ours, theirs = (
                (ours[..., -1:], ours[..., :-1], theirs)
                if label.of_agents
                else (theirs[..., -1:], ours, theirs[..., :-1])
            )
            drawn, place = Categorical(label.classes).sample(logits, noise), whole.labels[label.name][:, now : now + 1]
            whole.labels[label.name][:, now : now + 1] = torch.where(place < 0, drawn, place)
        return ours, theirs

    def _room(self, past: Scenes, frames: int, goals: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> Sampled:
        """The past with room for what is to come."""
        scenes, begin, agents = past.present.shape
        values = torch.cat([past.values, past.values.new_zeros(scenes, frames, *past.values.shape[2:])], dim=1)
        there = past.present[:, -1:] if begin else past.present.new_ones(scenes, 1, agents)
        present = torch.cat([past.present, there.expand(-1, frames, -1)], dim=1)
        labels = {}
        for set_, known in ((goals, self.shape.goals), (given, self.shape.given)):
            for label in known:
                shape = (scenes, frames, agents) if label.of_agents else (scenes, frames)
                before = past.labels.get(label.name)
                before = (
                    values.new_full((scenes, begin, *shape[2:]), -1, dtype=torch.long)
                    if before is None
                    else before.long()
                )
                to_come = set_.get(label.name)
                if to_come is None and known is self.shape.given:
                    raise ConfigError(f"given: this model must be told `{label.name}` of the {frames} frames to come.")
                to_come = before.new_full(shape, -1) if to_come is None else to_come.long()
                if to_come.shape != shape:
                    raise ShapeError(
                        f"{label.name}: expected {list(shape)} over the frames to come, got {list(to_come.shape)}."
                    )
                if int(to_come.max()) >= label.classes:
                    raise ConfigError(f"{label.name}: got {int(to_come.max())}; it is from 0 to {label.classes - 1}.")
                labels[label.name] = torch.cat([before, to_come], dim=1)
        return Sampled(values, present, labels, past.slots, past.start)


def relations(
    place: Float[Tensor, "scene time agent dim"],
    pace: Float[Tensor, "scene time agent dim"],
    reach: Tensor,
    same: Tensor,
    heading: Float[Tensor, "scene time agent 2"] | None = None,
) -> Float[Tensor, "scene time agent agent feature"]:
    """How j stands to i: where to, how far, how it moves against i, and whether it is of the `same` team.

    Args:
        heading: of i, along which directions are then told.
    """
    ahead = None if heading is None else heading.unsqueeze(-2)
    offset = turned(place.unsqueeze(-3) - place.unsqueeze(-2), ahead, -1)  # [scene, time, i, j, dim]
    far = offset.norm(dim=-1, keepdim=True) / reach
    moving = turned(pace.unsqueeze(-3) - pace.unsqueeze(-2), ahead, -1)
    return torch.cat(
        [offset / reach / (1 + far), torch.log1p(far), moving, same.unsqueeze(-1).to(far.dtype).expand_as(far)], dim=-1
    )


def turned(
    x: Float[Tensor, "*#batch dim"], heading: Float[Tensor, "*#batch 2"] | None, way: Literal[1, -1]
) -> Float[Tensor, "*#batch dim"]:
    """`x` turned about the vertical so that the first axis comes to lie along `heading` (1), or back (-1)."""
    if heading is None:
        return x
    cos, sin = heading[..., 0], way * heading[..., 1]
    flat = torch.stack([x[..., 0] * cos - x[..., 1] * sin, x[..., 0] * sin + x[..., 1] * cos], dim=-1)
    return torch.cat([flat, x[..., 2:]], dim=-1)


def _set(whole: Sampled, now: int, forced: Tensor | None, players: Mapping[int, Player]) -> Tensor | None:
    """What is set of frame `now`, [scene, 1, agent, ...]; nan, or -1 of symbols, where nothing is."""
    if not players:
        return forced
    here = whole.values[:, now : now + 1]
    must = torch.full_like(here, torch.nan if here.is_floating_point() else -1) if forced is None else forced.clone()
    for agent, player in players.items():
        must[:, 0, agent] = player(whole.values[:, :now], whole.present[:, :now])
    return must


def _latest(seen: _Seen) -> _Seen:
    """What is known before the last of the frames."""
    steps, stepped = (None if x is None else x[:, -1:] for x in (seen.steps, seen.stepped))
    return _Seen(seen.last[:, -1:], steps, stepped, seen.there[:, -1:], [], [])


def _back(x: Tensor, begin: int, end: int, empty: int = 0) -> Tensor:
    """Frames `begin` - 1 to `end` - 1 of `x`, `empty` before its first."""
    before = max(0, min(end - begin, 1 - begin))
    kept = x[:, max(0, begin - 1) : max(0, end - 1)]
    return torch.cat([x.new_full((x.shape[0], before, *x.shape[2:]), empty), kept], dim=1) if before else kept


def _cut(begin: int, end: int) -> Callable[[Tensor], Tensor]:
    return lambda x: x[:, begin:end]


def _steps(values: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
    """From each frame to the next, and who was there in both."""
    return values[:, 1:] - values[:, :-1], present[:, 1:] & present[:, :-1]


def _deviation(x: Float[Tensor, "row dim"]) -> Float[Tensor, ""]:
    """Root of the mean square of one number; 1 where there is nothing, or nothing moves."""
    found = x.square().mean().sqrt() if len(x) else x.new_zeros(())
    return torch.where(found > 1e-9, found, torch.ones_like(found))


def _like(mask: Tensor, x: Tensor) -> Tensor:
    return mask.reshape(*mask.shape, *[1] * (x.dim() - mask.dim()))
