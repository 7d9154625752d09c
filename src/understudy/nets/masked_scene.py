"""A model of scenes that fills in whatever is not known: hidden agents, gaps, the way between two points, the future.

All times and agents see each other. What is known is told as it is; of what is not,

    positions   a straight line between the known ones is the first guess (beyond them, their last step goes on), and
                the rest r = (x - guess) / spread(frames to the nearest known one) is flow matching's: with noise e,
                r_s = (1 - s) e + s r, the net learns the velocity r - e at every level s, and a sample goes along it
                from e to s = 1;
    symbols     are hidden behind a mask, the net learns the distribution of each hidden one, and a sample uncovers them
                in an order drawn by chance, a share in each of its steps. With as many steps as symbols it is exactly
                what an orderless autoregressive model would sample.

Sources: Lipman et al. 2023, arXiv:2210.02747 (flow matching); Uria et al. 2014, arXiv:1310.1757 (orderless NADE).
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from understudy.core.errors import ConfigError, ShapeError
from understudy.core.random import uniform
from understudy.maths.heads import Categorical, standard_normal
from understudy.nets.scene import SceneNet, Scenes, SceneShape, relations
from understudy.nets.scene_heads import apart
from understudy.nets.trunk import Table, Trunk, linear

Known = Bool[Tensor, "scene time agent"]


class Guess(NamedTuple):
    """What can be said of positions from the known ones of the same agent alone."""

    place: Float[Tensor, "scene time agent dim"]
    gap: Int[Tensor, "scene time agent"]  # frames to the nearest known one; as many as there are frames: none is known


class MaskedSceneNet(nn.Module):
    """See the module. Made by `algorithms.masked_scene.init`."""

    kinds: Tensor
    teams: Tensor
    move: Tensor
    reach: Tensor
    spread: Tensor

    def __init__(self, config: SceneNet, shape: SceneShape, length: int, generator: torch.Generator):
        super().__init__()
        self.config, self.shape, self.length = config, shape, length
        width, pair = config.trunk.hidden, config.trunk.pair
        self.register_buffer("kinds", torch.tensor(shape.kinds), persistent=False)
        self.register_buffer("teams", torch.tensor(shape.teams), persistent=False)
        self.who = Table(max(shape.kinds) + 2, width, generator)
        if shape.symbols:
            self.symbol = Table(shape.symbols + 1, width, generator, period=config.period)  # the last: hidden
            self.interval = Table(2 * shape.symbols + 1, pair, generator, period=config.period)
            self.last = linear(width, shape.symbols, generator, 0.1)
        else:
            self.register_buffer("move", torch.ones(()))
            self.register_buffer("reach", torch.ones(()))
            self.register_buffer("spread", torch.ones(length + 1))
            self.read = linear(2 * shape.dims + 3, width, generator)
            self.relate = nn.Sequential(
                linear(2 * shape.dims + 2, 2 * pair, generator), nn.GELU(), linear(2 * pair, pair, generator)
            )
            self.last = linear(width, shape.dims, generator, 0.1)
        self.given = nn.ModuleList(Table(label.classes + 1, width, generator) for label in shape.given)
        self.trunk = Trunk(config.trunk, generator, causal=False)

    @torch.no_grad()
    def fit(self, scenes: Scenes, known: Known) -> None:
        """Set the scales of positions by what was recorded: how far off a first guess is, by the frames it spans."""
        if self.shape.symbols:
            return
        values, present = scenes.values, scenes.present
        step = (values[:, 1:] - values[:, :-1])[present[:, 1:] & present[:, :-1]]
        self.move.copy_(step.square().mean().sqrt().clamp(min=1e-6) if len(step) else torch.ones(()))
        self.reach.copy_(values[present].std().clamp(min=1e-6))
        guess = first_guess(values, known)
        hidden = present & ~known
        gap, off = guess.gap[hidden], (values - guess.place)[hidden].square().mean(dim=-1)
        gap = gap.clamp(max=self.length)
        total = torch.zeros(self.length + 1).index_add(0, gap, off.float())
        count = torch.zeros(self.length + 1).index_add(0, gap, torch.ones_like(off, dtype=torch.float32))
        found = (total / count.clamp(min=1)).sqrt()
        for g in range(1, self.length + 1):  # where none was seen, as for one frame less
            self.spread[g] = found[g] if count[g] > 10 else self.spread[g - 1] if g > 1 else self.move
        self.spread.clamp_(min=1e-6)

    def loss(self, scenes: Scenes, known: Known, chance: torch.Generator) -> Float[Tensor, ""]:
        """What training makes small, where somebody is present and not known.

        Of positions the mean square of the velocity's error per number; of symbols -log p in nats per symbol.
        """
        hidden = scenes.present & ~known
        count = hidden.sum().clamp(min=1)
        if self.shape.symbols:
            log_prob = Categorical(self.shape.symbols).log_prob(self.logits(scenes, known, chance), scenes.values)
            return -log_prob.where(hidden, 0.0).sum() / count
        guess = first_guess(scenes.values, known)
        rest = (scenes.values - guess.place) / self._spread(guess)
        noise = torch.randn(rest.shape, generator=chance, device=rest.device, dtype=rest.dtype)
        level = torch.rand(len(rest), 1, 1, generator=chance, device=rest.device, dtype=rest.dtype)
        level = torch.where(known, 1.0, level)
        on_way = torch.lerp(noise, rest, level.unsqueeze(-1))
        found = self.velocity(scenes, known, guess, on_way, level, chance)
        off = (found - (rest - noise)).square().mean(dim=-1)
        return off.where(hidden, 0.0).sum() / count

    def logits(
        self, scenes: Scenes, known: Known, chance: torch.Generator | None = None
    ) -> Float[Tensor, "scene time agent symbol"]:
        """Of every symbol, given the known ones."""
        none = self.shape.symbols
        seen = torch.where(known & scenes.present, scenes.values, none)
        x = self._who(scenes) + F.embedding(seen, self.symbol())
        return self.last(self._through(x, F.embedding(apart(seen, seen, none), self.interval()), scenes, chance))

    def velocity(
        self,
        scenes: Scenes,
        known: Known,
        guess: Guess,
        rest: Float[Tensor, "scene time agent dim"],
        level: Float[Tensor, "scene time agent"],
        chance: torch.Generator | None = None,
    ) -> Float[Tensor, "scene time agent dim"]:
        """Which way the rest goes from noise (level 0) to what was recorded (level 1)."""
        pace = torch.zeros_like(guess.place)
        pace[:, 1:] = (guess.place[:, 1:] - guess.place[:, :-1]) / self.move
        told = known.unsqueeze(-1).to(rest.dtype)
        far = torch.log1p(guess.gap.to(rest.dtype)).unsqueeze(-1)
        x = self.read(torch.cat([rest * (1 - told), pace, told, level.unsqueeze(-1), far], dim=-1))
        teams = self.teams if scenes.slots is None else self.teams[self._slots(scenes.slots)].unsqueeze(1)
        place = guess.place + rest * self._spread(guess) * (1 - told) * level.unsqueeze(-1)  # the guess, the less noise
        pairs = relations(place, pace, self.reach, teams.unsqueeze(-1) == teams.unsqueeze(-2))
        return self.last(self._through(self._who(scenes) + x, self.relate(pairs), scenes, chance))

    def noise(self, scenes: int, frames: int, agents: int, chance: torch.Generator) -> Float[Tensor, "..."]:
        """All the chance that filling in needs: [scene time agent draw], uniform in [0, 1)."""
        return uniform((scenes, frames, agents, self.shape.dims or 2), chance, self.trunk.norm.weight.dtype)

    @torch.no_grad()
    def fill(
        self, scenes: Scenes, known: Known, noise: Float[Tensor, "scene time agent draw"], steps: int = 8
    ) -> Float[Tensor, "scene time agent dim"] | Int[Tensor, "scene time agent"]:
        """The values, with those who are present and not known drawn given the known ones.

        Args:
            noise: of `noise(scenes, frames, agents, generator)`.
            steps: through the net; more are better, and for symbols as many as are hidden are exact.

        Raises:
            ShapeError: more frames than the model learnt from. ConfigError: no step.
        """
        if scenes.values.shape[1] > self.length:
            raise ShapeError(
                f"scenes: {scenes.values.shape[1]} frames, and the model learnt from {self.length} at most."
            )
        if steps < 1:
            raise ConfigError(f"steps: got {steps}; filling in takes 1 or more.")
        known = known & scenes.present
        hidden = scenes.present & ~known
        if self.shape.symbols:
            return self._uncovered(scenes, known, hidden, noise, steps)
        guess = first_guess(scenes.values, known)
        rest = standard_normal(noise)
        for n in range(steps):
            level = torch.where(known, 1.0, torch.full_like(rest[..., 0], n / steps))
            rest = rest + self.velocity(scenes, known, guess, rest, level) / steps
        made = guess.place + self._spread(guess) * rest
        return torch.where(hidden.unsqueeze(-1), made, scenes.values)

    def _uncovered(self, scenes: Scenes, known: Known, hidden: Known, noise: Tensor, steps: int) -> Tensor:
        count = hidden.flatten(1).sum(dim=1)  # of each scene
        lots = noise[..., 0].masked_fill(~hidden, torch.inf).flatten(1)
        turn = lots.argsort(dim=1, stable=True).argsort(dim=1, stable=True).unflatten(1, hidden.shape[1:])
        done = scenes
        for n in range(steps):
            now = hidden & ~known & (turn < (-(-count * (n + 1) // steps))[:, None, None])
            drawn = Categorical(self.shape.symbols).sample(self.logits(done, known), noise[..., 1:])
            done = _Filled(
                torch.where(now, drawn, done.values), scenes.present, scenes.labels, scenes.slots, scenes.start
            )
            known = known | now
        return done.values

    def _who(self, scenes: Scenes) -> Tensor:
        if scenes.slots is None:
            return F.embedding(self.kinds, self.who())
        kinds = torch.where(scenes.slots < 0, max(self.shape.kinds) + 1, self.kinds[self._slots(scenes.slots)])
        return F.embedding(kinds, self.who()).unsqueeze(1)

    def _slots(self, slots: Tensor) -> Tensor:
        return slots.clamp(min=0, max=0 if len(self.shape.kinds) == 1 else None)

    def _spread(self, guess: Guess) -> Float[Tensor, "scene time agent 1"]:
        return self.spread[guess.gap.clamp(max=self.length)].unsqueeze(-1)

    def _through(self, x: Tensor, pairs: Tensor, scenes: Scenes, chance: torch.Generator | None) -> Tensor:
        for weight, label in zip(self.given, self.shape.given, strict=True):
            value = scenes.labels[label.name].long()
            value = value if value.dim() == 3 else value.unsqueeze(-1)
            x = x + F.embedding(torch.where(value < 0, label.classes, value), weight())
        there = None if bool(scenes.present.all()) else scenes.present
        return self.trunk(x, pairs, there, chance=chance)


class _Filled(NamedTuple):
    values: Tensor
    present: Tensor
    labels: dict[str, Tensor]
    slots: Tensor | None
    start: Tensor | None


def first_guess(values: Float[Tensor, "scene time agent dim"], known: Known) -> Guess:
    """On a straight line between known positions; beyond them on from the last step, if it is known, else standing.

    Of an agent of whom nothing is known: the mean of all that is.
    """
    frames = values.shape[1]
    t = torch.arange(frames, device=values.device)[:, None].expand(known.shape)
    before = torch.where(known, t, -1).cummax(dim=1).values
    after = torch.where(known, t, frames).flip(1).cummin(dim=1).values.flip(1)
    has_before, has_after = before >= 0, after < frames
    a, b = before.clamp(min=0), after.clamp(max=frames - 1)

    def at(index: Tensor) -> Tensor:
        return values.gather(1, index.unsqueeze(-1).expand(values.shape))

    share = ((t - a) / (b - a).clamp(min=1)).unsqueeze(-1).to(values.dtype)
    between = torch.lerp(at(a), at(b), share)

    def on_from(end: Tensor, neighbour: Tensor) -> Tensor:
        step = (at(end) - at(neighbour)) * (known.gather(1, neighbour) & (end != neighbour)).unsqueeze(-1)
        return at(end) + step * (t - end).abs().unsqueeze(-1)

    ahead, back = on_from(a, (a - 1).clamp(min=0)), on_from(b, (b + 1).clamp(max=frames - 1))
    there = known.unsqueeze(-1).to(values.dtype)
    middle = (values * there).sum(dim=(1, 2), keepdim=True) / there.sum(dim=(1, 2), keepdim=True).clamp(min=1)
    place = torch.where(has_after.unsqueeze(-1), back, middle)
    place = torch.where(has_before.unsqueeze(-1), torch.where(has_after.unsqueeze(-1), between, ahead), place)
    nearest = torch.minimum(torch.where(has_before, t - a, frames), torch.where(has_after, b - t, frames))
    return Guess(place, nearest)
