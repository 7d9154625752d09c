"""The recurrent models of whole scenes that multi-agent behavioural cloning was published with, as one network.

All read frame after frame into a gated recurrent memory h, and all say of the next frame x' that its numbers are normal
and independent, given the frame x, a latent z and, where a model has them, the goals g of the next frame:

    rnn_gauss           x' ~ dec(h), all numbers of all agents by one net                              no latent
    vrnn_single         z ~ prior(x, h),   x' ~ dec(x, z, h)                                           one net for all
    vrnn_indep          z_i ~ prior_i(x, h_i),   x'_i ~ dec_i(x, z_i, h_i)                             agents apart
    vrnn_mixed          the same, but one memory h for all agents, which reads x' and every z_i
    vrae_mi             z ~ N(0, I) once for the scene,   x'_i ~ dec_i(z, h),   h reads x'
    macro_vrnn          z_i ~ prior_i(g_i, h_i),   x'_i ~ dec_i(x, g_i, z_i, h_i),   every agent has its goal g_i
    macro_shared_vrnn   z_i ~ prior_i(x, g, h_i),   x'_i ~ dec_i(x, g, z_i, h_i),    one goal g for all

with an encoder q of z that sees what the prior sees and x'_i (of vrae_mi: the memory of the whole scene). Goals are
drawn by a memory of their own, g' ~ softmax(MLP(x, h_g)), which reads the goals of all. A likelihood is a bound,

    ELBO = E_q [ log p(x' | z) ] - KL(q || p)   <=   E [ log mean_k p(x', z_k) / q(z_k) ]   <=   log p(x')

Source: Zhan et al. 2019, arXiv:1803.07612 (models; `PUBLISHED` has the sizes); bounds: Kingma & Welling 2014,
arXiv:1312.6114; Burda et al. 2016, arXiv:1509.00519. Where it parts from the paper: every memory has read the first
frame before the second is predicted, and nobody's likelihood counts the first; vrnn_mixed reads x' and not x, which
would be a frame late; the mutual information of vrae_mi is bounded on scenes that the model draws for a z, since on
recorded ones, as published, its bound is never above 0; goals can be set.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from understudy.core.config import at_least_one
from understudy.core.errors import ConfigError, ShapeError
from understudy.core.random import generator as named
from understudy.core.random import uniform
from understudy.maths.heads import Categorical, standard_normal
from understudy.nets.mlp import AgentLinear, AgentMLP
from understudy.nets.scene import Likelihood, Noise, Sampled, Scenes, SceneShape

Memory = list[Tensor]  # of each layer, [scene, stream, width]


class Family(NamedTuple):
    """What tells the models apart."""

    apart: bool = True  # a net for each agent; False: one for all numbers of a frame
    shared: bool = False  # one memory for all
    latent: Literal["none", "frame", "scene"] = "frame"
    goals: Literal["none", "agent", "scene"] = "none"
    prior_looks: bool = True  # prior and encoder see the frame before, not their memory alone
    decoder_looks: bool = True


FAMILIES: Mapping[str, Family] = {
    "rnn_gauss": Family(apart=False, latent="none", decoder_looks=False),
    "vrnn_single": Family(apart=False),
    "vrnn_indep": Family(),
    "vrnn_mixed": Family(shared=True),
    "vrae_mi": Family(shared=True, latent="scene", decoder_looks=False),
    "macro_vrnn": Family(goals="agent", prior_looks=False),
    "macro_shared_vrnn": Family(goals="scene"),
}
Kind = Literal[
    "rnn_gauss", "vrnn_single", "vrnn_indep", "vrnn_mixed", "vrae_mi", "macro_vrnn", "macro_shared_vrnn"
]  # fmt: skip
PUBLISHED: Mapping[str, Mapping[str, Any]] = {  # sizes of the basketball models
    "rnn_gauss": {"hidden": 250, "memory": 900},
    "vrnn_single": {"hidden": 250, "memory": 900, "latent": 80},
    "vrnn_indep": {"hidden": 200, "memory": 250, "latent": 16},
    "macro_vrnn": {"hidden": 200, "memory": 200, "latent": 16, "goal_memory": 200},
}


@dataclass(frozen=True)
class RecurrentNet:
    """Settings of the network."""

    kind: Kind = "vrnn_single"
    hidden: int = 64  # width of the two hidden layers of encoder, prior and decoder, and of the one of goals
    memory: int = 64  # width of a memory
    layers: int = 2  # of a memory
    latent: int = 16  # numbers of z
    goal_memory: int = 64  # width of the memory of goals
    steps: bool = False  # what is normal is the step to the next frame; False, as published: the place in it
    least_std: float = 1e-3  # smallest deviation, in deviations of all places (or steps) recorded

    def __post_init__(self) -> None:
        at_least_one(self, "hidden", "memory", "layers", "latent", "goal_memory")
        if not self.least_std > 0:
            raise ConfigError(f"least_std: got {self.least_std}; without one, above 0, a likelihood has no bound.")


class Frames(NamedTuple):
    """Of every frame after the first, what a bound is made of, in nats."""

    told: Float[Tensor, "scene time"]  # log p(x' | z), per unit of the net's own scale
    ratio: Float[Tensor, "scene time"]  # log p(z) - log q(z) of the z that was drawn
    kl: Float[Tensor, "scene time"]  # KL(q || p)


class RecurrentSceneNet(nn.Module):
    """See the module. Made by `algorithms.scene_vrnn.init`, which also sets its scales by the recordings (`fit`).

    A scene has always the same agents, each with a place, and all of them are there in every frame.
    """

    middle: Tensor
    reach: Tensor
    move: Tensor

    def __init__(self, config: RecurrentNet, shape: SceneShape, agents: int, generator: torch.Generator):
        super().__init__()
        self.config, self.shape, self.agents = config, shape, agents
        self.family = family = FAMILIES[config.kind]
        if len(shape.goals) != (family.goals != "none") or any(
            goal.of_agents != (family.goals == "agent") for goal in shape.goals
        ):
            wanted = {"none": "no goals", "agent": "one goal of agents", "scene": "one goal of the scene"}[family.goals]
            raise ConfigError(f"goals: {config.kind} has {wanted}; named are {[goal.name for goal in shape.goals]}.")
        self.register_buffer("middle", torch.zeros(shape.dims))
        self.register_buffer("reach", torch.ones(()))
        self.register_buffer("move", torch.ones(()))
        whole = agents * shape.dims
        streams, own = (agents, shape.dims) if family.apart else (1, whole)
        self.streams = streams
        latent = 0 if family.latent == "none" else config.latent
        remembered = latent if family.latent == "frame" else 0
        classes = shape.goals[0].classes if shape.goals else 0

        def net(inputs: int, outputs: int, nets: int, layers: int = 2) -> AgentMLP:
            return AgentMLP(inputs, outputs, tuple(range(nets)), generator, config.hidden, layers, "relu", 0.3)

        if family.shared:
            self.memory = Gated(whole + streams * remembered, config.memory, config.layers, 1, generator)
        else:
            self.memory = Gated(own + remembered, config.memory, config.layers, streams, generator)
        told = config.memory + classes
        self.decoder = net(told + latent + whole * family.decoder_looks, 2 * own, streams)
        if family.latent == "frame":
            seen = told + whole * family.prior_looks
            self.prior = net(seen, 2 * latent, streams)
            self.encoder = net(own + seen, 2 * latent, streams)
        elif family.latent == "scene":
            self.encoder = net(config.memory, 2 * latent, 1)
            self.recognise = net(config.memory, 2 * latent, 1)
        if classes:
            of = agents if family.goals == "agent" else 1
            self.goal_memory = Gated(of * classes, config.goal_memory, config.layers, 1, generator)
            self.aim = net(whole + config.goal_memory, classes, of, layers=1)

    @torch.no_grad()
    def fit(self, scenes: Scenes) -> None:
        """Set the scales of positions by what was recorded."""
        values = scenes.values
        self.middle.copy_(values.mean(dim=(0, 1, 2)))
        self.reach.copy_((values - self.middle).square().mean().sqrt().clamp(min=1e-6))
        self.move.copy_((values[:, 1:] - values[:, :-1]).square().mean().sqrt().clamp(min=1e-6))

    def forward(self, scenes: Scenes, chance: torch.Generator | None = None, samples: int = 1) -> Likelihood:
        """A lower bound of how likely what was recorded is, with `samples` latents of each scene: the more the tighter.

        Summed over frames it is log mean_k p(x, z_k) / q(z_k); a frame's is what it adds to that. It counts the same
        frames as `nets.scene.CausalSceneNet`, in the unit of the recordings. Without latents it is exact.

        Args:
            chance: draws the latents; None: the same ones at every call.
        """
        samples = 1 if self.family.latent == "none" else samples
        found = self.unrolled(scenes, named(0, "latents") if chance is None else chance, samples)
        weight = (found.told + found.ratio).cumsum(dim=-1).unflatten(0, (-1, samples))
        total = weight.logsumexp(dim=1) - math.log(samples)
        first = torch.zeros_like(total[:, :1])
        frames = torch.cat([first, total[:, :1], total[:, 1:] - total[:, :-1]], dim=-1)
        counted = scenes.present.clone()
        counted[:, 0] = False
        scale = self.agents * self.shape.dims * self._unit.log()
        return Likelihood(frames - scale * counted.any(dim=-1), counted, self.aimed(scenes))

    def elbo(self, scenes: Scenes, chance: torch.Generator) -> Float[Tensor, "scene time"]:
        """The bound with one latent and the divergence in closed form, per unit of the net's own scale."""
        found = self.unrolled(scenes, chance)
        return found.told - found.kl

    def aimed(self, scenes: Scenes) -> Float[Tensor, "scene time"]:
        """log p of the goals that are told, from the second frame on, given the frames and goals before."""
        total = scenes.values.new_zeros(scenes.values.shape[:2])
        if not self.shape.goals:
            return total
        x, goals = self._scaled(scenes.values), self._told(scenes)
        memory, kept = self.goal_memory.start(len(x)), []
        for t in range(x.shape[1] - 1):
            memory = self._remember_goals(goals[:, t], memory)
            kept.append(self.aim(self._to_aim(x[:, t], memory)))
        classes = self.shape.goals[0].classes
        came = goals[:, 1:]
        each = Categorical(classes).log_prob(torch.stack(kept, dim=1), came.clamp(max=classes - 1))
        total[:, 1:] = each.where(came < classes, 0.0).sum(dim=-1)
        return total

    def information(self, scenes: Scenes, chance: torch.Generator) -> Float[Tensor, "scene"]:
        """Of vrae_mi: log d(z | scene) of scenes that the model draws for a z of its prior.

        Its mean and the entropy of z are at most their mutual information (Barber & Agakov 2003).
        """
        x = self._scaled(scenes.values[:, :1])[:, 0]
        z = self._normal((len(x), 1, self.config.latent), chance)
        memory = self._remember(x, None, self.memory.start(len(x)))
        for _ in range(scenes.values.shape[1] - 1):
            mean, std = self._decoded(x, z.expand(-1, self.streams, -1), None, memory)
            x = self._placed(x, mean + std * self._normal(mean.shape, chance))
            memory = self._remember(x, None, memory)
        return _normal_log_prob(z, *_mean_and_std(self.recognise(memory[-1])))

    def noise(self, scenes: int, frames: int, agents: int, chance: torch.Generator) -> Noise:
        """All the chance that a sample of so many frames needs."""
        self._expect(agents)
        latent = 0 if self.family.latent == "none" else self.config.latent
        each = self.streams * latent + self.agents * (self.shape.dims + 1)
        drawn = uniform((scenes, frames, each), chance, self.reach.dtype)
        return Noise(drawn.new_zeros(scenes, frames, agents, 0), drawn)

    @torch.no_grad()
    def sample(self, past: Scenes, noise: Noise, *, goals: Mapping[str, Tensor] | None = None) -> Sampled:
        """What may come after `past`, as many frames as `noise` is for.

        Args:
            past: at least a frame. It is read with the encoder's mean for each latent.
            noise: of `noise(scenes, frames, agents, generator)`.
            goals: by name, [scene time agent] or [scene time] over the frames to come; -1 leaves it to the model.
        """
        begin, frames = past.values.shape[1], noise.scene.shape[1]
        if not begin:
            raise ShapeError("past: a scene of positions goes on from a frame at least, and there is none.")
        seen, told = self._scaled(past.values), self._told(past)
        wished = self._wished(told, goals or {}, frames)
        aims = self.goal_memory.start(len(seen)) if self.shape.goals else []
        memory, z = self.memory.start(len(seen)), None
        latents, places, choices = noise.scene.split(
            [noise.scene.shape[-1] - self.agents * (self.shape.dims + 1), self.agents * self.shape.dims, self.agents],
            dim=-1,
        )
        latents, places = standard_normal(latents), standard_normal(places)
        made, drawn = [], []
        x, g = seen[:, 0], told[:, 0]
        for t in range(begin + frames - 1):
            memory, n = self._remember(x, z, memory), t + 1 - begin
            if self.shape.goals:
                aims = self._remember_goals(g, aims)
            if n < 0:
                following, g = seen[:, t + 1], told[:, t + 1]
                if self.family.latent == "frame":
                    z = self._prior_and_encoder(following, x, g, memory)[1][0]
                x = following
                continue
            if self.shape.goals:
                chosen = Categorical(self.shape.goals[0].classes).sample(
                    self.aim(self._to_aim(x, aims)), choices[:, n, : told.shape[-1]].unsqueeze(-1)
                )
                g = torch.where(wished[:, n] < 0, chosen, wished[:, n])
            z = self._drawn(latents[:, n if self.family.latent == "frame" else 0], x, g, memory, z)
            mean, std = self._decoded(x, z, g, memory)
            x = self._placed(x, mean + std * places[:, n].reshape(mean.shape))
            made.append(x)
            drawn.append(g)
        values = torch.cat([past.values, torch.stack(made, dim=1) * self.reach + self.middle], dim=1)
        there = past.present[:, -1:].expand(-1, frames, -1)
        labels = {}
        for goal in self.shape.goals:
            whole = torch.cat([torch.where(told < goal.classes, told, -1), torch.stack(drawn, dim=1)], dim=1)
            labels[goal.name] = whole if goal.of_agents else whole[..., 0]
        return Sampled(values, torch.cat([past.present, there], dim=1), labels, past.slots, past.start)

    def unrolled(self, scenes: Scenes, chance: torch.Generator, samples: int = 1) -> Frames:
        """All frames after the first, with latents of the encoder: `samples` of each scene, one after another."""
        self._expect(scenes.values.shape[2])
        x = self._scaled(scenes.values).repeat_interleave(samples, dim=0)
        goals = self._told(scenes).repeat_interleave(samples, dim=0)
        none = x.new_zeros(len(x))
        memory, told, ratio, kl = self.memory.start(len(x)), [], [], []
        z, r, k = self._of_scene(x, chance) if self.family.latent == "scene" else (None, none, none)
        for t in range(x.shape[1] - 1):
            memory = self._remember(x[:, t], z, memory)
            if self.family.latent == "frame":
                z, r, k = self._of_frame(x[:, t + 1], x[:, t], goals[:, t + 1], memory, chance)
            elif t:
                r = k = none  # a scene's latent counts once
            mean, std = self._decoded(x[:, t], z, goals[:, t + 1], memory)
            told.append(_normal_log_prob(self._target(x[:, t], x[:, t + 1]), mean, std))
            ratio.append(r)
            kl.append(k)
        return Frames(torch.stack(told, 1), torch.stack(ratio, 1), torch.stack(kl, 1))

    # --- parts ---------------------------------------------------------------------------------------------------

    @property
    def _unit(self) -> Tensor:
        return self.move if self.config.steps else self.reach

    def _scaled(self, values: Tensor) -> Float[Tensor, "scene time agent dim"]:
        return (values - self.middle) / self.reach

    def _target(self, x: Tensor, following: Tensor) -> Float[Tensor, "scene stream own"]:
        """What the decoder's normal is of."""
        u = (following - x) * (self.reach / self.move) if self.config.steps else following
        return u.reshape(len(x), self.streams, -1)

    def _placed(self, x: Tensor, u: Tensor) -> Float[Tensor, "scene agent dim"]:
        """Where that is: the inverse of `_target`."""
        u = u.reshape(x.shape)
        return x + u * (self.move / self.reach) if self.config.steps else u

    def _remember(self, x: Tensor, z: Tensor | None, memory: Memory) -> Memory:
        """The memory after a frame, and the latent of it where a latent is drawn for each (zeros for the first)."""
        if self.family.latent == "frame":
            z = x.new_zeros(len(x), self.streams, self.config.latent) if z is None else z
        else:
            z = x.new_zeros(len(x), self.streams, 0)
        if self.family.shared:
            return self.memory(torch.cat([x.flatten(1), z.flatten(1)], dim=-1).unsqueeze(1), memory)
        return self.memory(torch.cat([x.reshape(len(x), self.streams, -1), z], dim=-1), memory)

    def _context(self, x: Tensor, looks: bool, g: Tensor | None, memory: Memory) -> Float[Tensor, "scene stream seen"]:
        """What every net is told: its memory, the frame if it looks at it, and goals."""
        parts = [memory[-1].expand(-1, self.streams, -1)]
        if looks:
            parts.append(x.flatten(1).unsqueeze(1).expand(-1, self.streams, -1))
        if self.shape.goals and g is not None:
            parts.append(self._one_hot(g, x.dtype).expand(-1, self.streams, -1))
        return torch.cat(parts, dim=-1)

    def _decoded(self, x: Tensor, z: Tensor | None, g: Tensor | None, memory: Memory) -> tuple[Tensor, Tensor]:
        seen = self._context(x, self.family.decoder_looks, g, memory)
        seen = seen if z is None else torch.cat([seen, z], dim=-1)
        return _mean_and_std(self.decoder(seen), self.config.least_std)

    def _prior_and_encoder(
        self, following: Tensor, x: Tensor, g: Tensor, memory: Memory
    ) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Mean and deviation of a frame's latent, before the frame came and after."""
        seen = self._context(x, self.family.prior_looks, g, memory)
        own = following.reshape(len(x), self.streams, -1)
        return _mean_and_std(self.prior(seen)), _mean_and_std(self.encoder(torch.cat([own, seen], dim=-1)))

    def _of_frame(
        self, following: Tensor, x: Tensor, g: Tensor, memory: Memory, chance: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor]:
        """z of the encoder, log p(z) - log q(z), and KL(q || p)."""
        p, q = self._prior_and_encoder(following, x, g, memory)
        z = q[0] + q[1] * self._normal(q[0].shape, chance)
        return z, _normal_log_prob(z, *p) - _normal_log_prob(z, *q), _kl(q, p)

    def _of_scene(self, x: Tensor, chance: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """The same of a latent for the whole scene, for each stream alike."""
        memory = self.memory.start(len(x))
        for t in range(x.shape[1]):
            memory = self._remember(x[:, t], None, memory)
        q = _mean_and_std(self.encoder(memory[-1]))
        z = q[0] + q[1] * self._normal(q[0].shape, chance)
        p = (torch.zeros_like(z), torch.ones_like(z))
        return z.expand(-1, self.streams, -1), _normal_log_prob(z, *p) - _normal_log_prob(z, *q), _kl(q, p)

    def _drawn(self, noise: Tensor, x: Tensor, g: Tensor, memory: Memory, z: Tensor | None) -> Tensor | None:
        """The latent of a frame that is sampled; of the scene, what the encoder makes of its past."""
        if self.family.latent == "frame":
            mean, std = _mean_and_std(self.prior(self._context(x, self.family.prior_looks, g, memory)))
            return mean + std * noise.reshape(mean.shape)
        if self.family.latent == "scene" and z is None:
            mean, std = _mean_and_std(self.encoder(memory[-1]))
            one = noise[:, : self.config.latent].unsqueeze(1)
            return (mean + std * one).expand(-1, self.streams, -1)
        return z

    def _told(self, scenes: Scenes) -> Int[Tensor, "scene time goal"]:
        """The goals as classes, the class after the last standing for "not told"; nothing where there are none."""
        if not self.shape.goals:
            return scenes.present.new_zeros(*scenes.present.shape[:2], 0, dtype=torch.long)
        goal, of = self.shape.goals[0], self.agents if self.family.goals == "agent" else 1
        value = scenes.labels.get(goal.name)
        value = (
            scenes.present.new_full((*scenes.present.shape[:2], of), -1, dtype=torch.long) if value is None else value
        )
        value = (value if value.dim() == 3 else value.unsqueeze(-1)).long()
        return torch.where(value < 0, goal.classes, value)

    def _wished(self, told: Tensor, goals: Mapping[str, Tensor], frames: int) -> Int[Tensor, "scene time goal"]:
        free = told.new_full((len(told), frames, told.shape[-1]), -1)
        for goal in self.shape.goals:
            if (wish := goals.get(goal.name)) is None:
                continue
            wish = wish.long() if wish.dim() == 3 else wish.long().unsqueeze(-1)
            if wish.shape != free.shape or int(wish.max()) >= goal.classes:
                raise ShapeError(
                    f"{goal.name}: expected {list(free.shape)} of classes below {goal.classes} over the frames to come,"
                    f" got {list(wish.shape)} up to {int(wish.max())}."
                )
            return wish
        return free

    def _one_hot(self, g: Tensor, dtype: torch.dtype) -> Tensor:
        """Of what is not told: zeros."""
        return F.one_hot(g, self.shape.goals[0].classes + 1)[..., :-1].to(dtype)

    def _remember_goals(self, g: Tensor, memory: Memory) -> Memory:
        return self.goal_memory(self._one_hot(g, self.reach.dtype).flatten(1).unsqueeze(1), memory)

    def _to_aim(self, x: Tensor, memory: Memory) -> Float[Tensor, "scene goal seen"]:
        of = self.agents if self.family.goals == "agent" else 1
        return torch.cat([x.flatten(1), memory[-1].squeeze(1)], dim=-1).unsqueeze(1).expand(-1, of, -1)

    def _normal(self, shape: tuple[int, ...], chance: torch.Generator) -> Tensor:
        return torch.randn(shape, generator=chance, dtype=self.reach.dtype, device=self.reach.device)

    def _expect(self, agents: int) -> None:
        if agents != self.agents:
            raise ShapeError(f"scenes: {agents} agents, and this model has weights for each of its {self.agents}.")


class Gated(nn.Module):
    """A gated recurrent unit of several layers, for streams with weights of their own.

    r, s = sigmoid(W x + U h),   n = tanh(W_n x + r * (U_n h)),   h' = (1 - s) * n + s * h

    Source: Cho et al. 2014, arXiv:1406.1078, in the form with the reset gate after the product.
    """

    def __init__(self, inputs: int, width: int, layers: int, streams: int, generator: torch.Generator):
        super().__init__()
        self.width, self.streams, each = width, streams, tuple(range(streams))
        sizes = [inputs] + [width] * (layers - 1)
        self.into = nn.ModuleList(AgentLinear(size, 3 * width, each, 1.0, generator) for size in sizes)
        self.back = nn.ModuleList(AgentLinear(width, 3 * width, each, 1.0, generator) for _ in sizes)

    def start(self, scenes: int) -> Memory:
        return [p.weight.new_zeros(scenes, self.streams, self.width) for p in self.into]  # type: ignore[union-attr, operator, misc]

    def forward(self, x: Float[Tensor, "scene stream input"], memory: Memory) -> Memory:
        after = []
        for into, back, h in zip(self.into, self.back, memory, strict=True):
            fed, kept = into(x), back(h)
            reset, stay = torch.sigmoid((fed + kept)[..., : 2 * self.width]).chunk(2, dim=-1)
            fresh = torch.tanh(fed[..., 2 * self.width :] + reset * kept[..., 2 * self.width :])
            x = torch.lerp(fresh, h, stay)
            after.append(x)
        return after


def _mean_and_std(x: Tensor, least: float = 1e-4) -> tuple[Tensor, Tensor]:
    mean, raw = x.chunk(2, dim=-1)
    return mean, F.softplus(raw) + least


def _normal_log_prob(x: Tensor, mean: Tensor, std: Tensor) -> Float[Tensor, "scene"]:
    """Of all numbers of a scene together."""
    each = -0.5 * ((x - mean) / std).square() - std.log() - 0.5 * math.log(2 * math.pi)
    return each.sum(dim=(-2, -1))


def _kl(q: tuple[Tensor, Tensor], p: tuple[Tensor, Tensor]) -> Float[Tensor, "scene"]:
    ratio = (q[1] / p[1]).square()
    return 0.5 * (ratio + ((q[0] - p[0]) / p[1]).square() - 1 - ratio.log()).sum(dim=(-2, -1))
