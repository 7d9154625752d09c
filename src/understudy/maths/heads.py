"""Distributions over actions as pure functions of parameters: sample(noise), log_prob, entropy, mode, kl.

A head says how many parameters (`params`) a network must give it for one agent and how many uniform numbers (`noise`)
one sample needs. Unlike `torch.distributions` it draws nothing: the same parameters and noise give the same action in
a batch of any size, on any machine.
"""

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from understudy.core.errors import ConfigError, nearest
from understudy.core.types import ActionSpec, Continuous, Discrete, MultiDiscrete

Legal = Bool[Tensor, "*batch choice"] | None
BELOW_ONE = 1 - 2.0**-22  # keeps noise * total below the total after rounding, so no move of chance 0 is drawn
FEW = 16  # numbers that fill a vector of the processor
EDGE = 1e-6  # squashed actions are read as if at most this far (in halves of the range) from the edge


@runtime_checkable
class Head(Protocol):
    """A family of distributions over one agent's action."""

    @property
    def params(self) -> int: ...
    @property
    def noise(self) -> int: ...
    def sample(self, params: Tensor, noise: Tensor, legal: Legal = None) -> Tensor: ...
    def mode(self, params: Tensor, legal: Legal = None) -> Tensor: ...
    def log_prob(self, params: Tensor, actions: Tensor, legal: Legal = None) -> Tensor: ...
    def entropy(self, params: Tensor, legal: Legal = None) -> Tensor: ...
    def kl(self, params: Tensor, other: Tensor, legal: Legal = None) -> Tensor: ...


def make_head(action: ActionSpec, kind: str = "auto", components: int = 5) -> Head:
    """The head for an action spec. `kind`: auto, gaussian, squashed or mixture (the last three for Continuous).

    `auto` is a categorical for discrete actions and a Gaussian for continuous ones: recorded actions often lie exactly
    on the bounds, where a squashed Gaussian has no density.
    """
    if isinstance(action, Discrete | MultiDiscrete):
        if kind != "auto":
            raise ConfigError(f"head: {kind!r} is for continuous actions, but these are {action}. Use 'auto'.")
        return Categorical(action.choices) if isinstance(action, Discrete) else MultiCategorical(action.choices)
    if kind in ("auto", "gaussian"):
        return Gaussian(action.size)
    if kind == "squashed":
        if math.isinf(action.low) or math.isinf(action.high):
            raise ConfigError(f"head: 'squashed' needs finite bounds, but these are {action}. Use 'gaussian'.")
        return SquashedGaussian(action.size, action.low, action.high)
    if kind == "mixture":
        return Mixture(action.size, components)
    raise ConfigError(f"head: unknown kind {kind!r}.{nearest(kind, ['auto', 'gaussian', 'squashed', 'mixture'])}")


def log_softmax(x: Float[Tensor, "*batch choice"]) -> Float[Tensor, "*batch choice"]:
    """Of the last axis. Of few numbers torch's own takes ten times as long on a CPU as over a first axis."""
    if x.shape[-1] >= FEW:
        return F.log_softmax(x, dim=-1)
    return F.log_softmax(x.movedim(-1, 0).contiguous(), dim=0).movedim(0, -1)


@dataclass(frozen=True)
class Categorical:
    """One of `choices`; params are logits. A move that is not legal has probability 0.

    Where no move is legal (an absent agent) all are alike likely.
    """

    choices: int

    @property
    def params(self) -> int:
        return self.choices

    @property
    def noise(self) -> int:
        return 1

    def log_probs(self, params: Float[Tensor, "*batch choice"], legal: Legal = None) -> Float[Tensor, "*batch choice"]:
        """Of every choice, in nats; the dtype's lowest number where it is not legal."""
        if legal is not None:
            params = params.masked_fill(~legal, torch.finfo(params.dtype).min)
        return log_softmax(params)

    def blend(
        self, params: Float[Tensor, "member *batch choice"], legal: Legal = None
    ) -> Float[Tensor, "*batch choice"]:
        """Params of the mean of the members' probabilities."""
        legal = None if legal is None else legal.expand(len(params), *legal.shape)
        return self.log_probs(params, legal).logsumexp(dim=0) - math.log(len(params))

    def sample(
        self, params: Float[Tensor, "*batch choice"], noise: Float[Tensor, "*batch 1"], legal: Legal = None
    ) -> Int[Tensor, "*batch"]:
        """By inverse of the cumulative distribution."""
        cumulative = self.log_probs(params, legal).exp().cumsum(dim=-1)
        return (cumulative <= noise * (BELOW_ONE * cumulative[..., -1:])).sum(dim=-1)

    def mode(self, params: Float[Tensor, "*batch choice"], legal: Legal = None) -> Int[Tensor, "*batch"]:
        return self.log_probs(params, legal).argmax(dim=-1)

    def log_prob(
        self, params: Float[Tensor, "*batch choice"], actions: Int[Tensor, "*batch"], legal: Legal = None
    ) -> Float[Tensor, "*batch"]:
        return self.log_probs(params, legal).gather(-1, actions.unsqueeze(-1)).squeeze(-1)

    def entropy(self, params: Float[Tensor, "*batch choice"], legal: Legal = None) -> Float[Tensor, "*batch"]:
        log_probs = self.log_probs(params, legal)
        return -(log_probs.exp() * log_probs).sum(dim=-1)

    def kl(
        self, params: Float[Tensor, "*batch choice"], other: Float[Tensor, "*batch choice"], legal: Legal = None
    ) -> Float[Tensor, "*batch"]:
        """KL(params || other) in nats."""
        mine, theirs = self.log_probs(params, legal), self.log_probs(other, legal)
        return (mine.exp() * (mine - theirs)).sum(dim=-1)


@dataclass(frozen=True)
class MultiCategorical:
    """Several independent categoricals, their logits (and legal moves) end to end."""

    choices: tuple[int, ...]

    @property
    def params(self) -> int:
        return sum(self.choices)

    @property
    def noise(self) -> int:
        return len(self.choices)

    def _parts(self, params: Tensor, legal: Tensor | None) -> list[tuple[Categorical, Tensor, Tensor | None]]:
        masks = [None] * len(self.choices) if legal is None else legal.split(self.choices, dim=-1)
        logits = params.split(self.choices, dim=-1)
        return [(Categorical(n), p, m) for n, p, m in zip(self.choices, logits, masks, strict=True)]

    def blend(self, params: Float[Tensor, "member *batch logit"], legal: Legal = None) -> Float[Tensor, "*batch logit"]:
        """Params of the mean of the members' probabilities, part by part."""
        masks = [None] * len(self.choices) if legal is None else legal.split(self.choices, dim=-1)
        parts = zip(self.choices, params.split(self.choices, dim=-1), masks, strict=True)
        return torch.cat([Categorical(n).blend(p, m) for n, p, m in parts], dim=-1)

    def sample(
        self, params: Float[Tensor, "*batch logit"], noise: Float[Tensor, "*batch part"], legal: Legal = None
    ) -> Int[Tensor, "*batch part"]:
        parts = enumerate(self._parts(params, legal))
        return torch.stack([c.sample(p, noise[..., i : i + 1], m) for i, (c, p, m) in parts], dim=-1)

    def mode(self, params: Float[Tensor, "*batch logit"], legal: Legal = None) -> Int[Tensor, "*batch part"]:
        return torch.stack([c.mode(p, m) for c, p, m in self._parts(params, legal)], dim=-1)

    def log_prob(
        self, params: Float[Tensor, "*batch logit"], actions: Int[Tensor, "*batch part"], legal: Legal = None
    ) -> Float[Tensor, "*batch"]:
        parts = enumerate(self._parts(params, legal))
        return torch.stack([c.log_prob(p, actions[..., i], m) for i, (c, p, m) in parts]).sum(dim=0)

    def entropy(self, params: Float[Tensor, "*batch logit"], legal: Legal = None) -> Float[Tensor, "*batch"]:
        return torch.stack([c.entropy(p, m) for c, p, m in self._parts(params, legal)]).sum(dim=0)

    def kl(
        self, params: Float[Tensor, "*batch logit"], other: Float[Tensor, "*batch logit"], legal: Legal = None
    ) -> Float[Tensor, "*batch"]:
        pairs = zip(self._parts(params, legal), self._parts(other, legal), strict=True)
        return torch.stack([c.kl(p, q, m) for (c, p, m), (_, q, _) in pairs]).sum(dim=0)


def standard_normal(noise: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Uniform numbers in [0, 1) as standard normal ones, by the inverse of the cumulative distribution."""
    tiny = 2.0**-24 if noise.dtype == torch.float32 else 2.0**-53
    return math.sqrt(2.0) * torch.erfinv((2.0 * noise - 1.0 + tiny).clamp(-1.0 + tiny, 1.0 - tiny))


def _mean_and_log_std(params: Tensor) -> tuple[Tensor, Tensor]:
    mean, log_std = params.chunk(2, dim=-1)
    return mean, log_std.clamp(-10.0, 10.0)  # beyond e^10 a single step's gradient ends a run


def _normal_log_prob(value: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    return -0.5 * ((value - mean) * (-log_std).exp()).square() - log_std - 0.5 * math.log(2 * math.pi)


@dataclass(frozen=True)
class Gaussian:
    """`size` independent normal numbers; params are the means, then the logs of the standard deviations.

    Samples are unbounded: `rollout` clips what the env is handed to its bounds.
    """

    size: int

    @property
    def params(self) -> int:
        return 2 * self.size

    @property
    def noise(self) -> int:
        return self.size

    def sample(
        self, params: Float[Tensor, "*batch param"], noise: Float[Tensor, "*batch size"], legal: Legal = None
    ) -> Float[Tensor, "*batch size"]:
        mean, log_std = _mean_and_log_std(params)
        return mean + log_std.exp() * standard_normal(noise)

    def mode(self, params: Float[Tensor, "*batch param"], legal: Legal = None) -> Float[Tensor, "*batch size"]:
        return params[..., : self.size]

    def log_prob(
        self, params: Float[Tensor, "*batch param"], actions: Float[Tensor, "*batch size"], legal: Legal = None
    ) -> Float[Tensor, "*batch"]:
        return _normal_log_prob(actions, *_mean_and_log_std(params)).sum(dim=-1)

    def entropy(self, params: Float[Tensor, "*batch param"], legal: Legal = None) -> Float[Tensor, "*batch"]:
        _, log_std = _mean_and_log_std(params)
        return (log_std + 0.5 * math.log(2 * math.pi * math.e)).sum(dim=-1)

    def kl(
        self, params: Float[Tensor, "*batch param"], other: Float[Tensor, "*batch param"], legal: Legal = None
    ) -> Float[Tensor, "*batch"]:
        (m, s), (n, u) = _mean_and_log_std(params), _mean_and_log_std(other)
        return (u - s + 0.5 * ((2 * s).exp() + (m - n).square()) * (-2 * u).exp() - 0.5).sum(dim=-1)


@dataclass(frozen=True)
class SquashedGaussian:
    """A Gaussian squashed by tanh into [low, high]. Params as of `Gaussian`, before squashing.

        action = middle + half * tanh(z),    log p(action) = log N(z) - log half - log(1 - tanh(z)^2)

    Its entropy has no closed form: `entropy` gives that of the Gaussian plus the log of the slope at the mean (a
    first-order estimate that a bonus needs). A recorded action on the very edge is read EDGE inside it.
    Source: Haarnoja et al. 2018, arXiv:1801.01290, appendix C.
    """

    size: int
    low: float
    high: float

    @property
    def params(self) -> int:
        return 2 * self.size

    @property
    def noise(self) -> int:
        return self.size

    @property
    def _middle(self) -> float:
        return (self.low + self.high) / 2

    @property
    def _half(self) -> float:
        return (self.high - self.low) / 2

    def _log_slope(self, z: Tensor) -> Tensor:
        return math.log(self._half) + 2 * (math.log(2.0) - z - F.softplus(-2 * z))  # log of half * (1 - tanh(z)^2)

    def sample(
        self, params: Float[Tensor, "*batch param"], noise: Float[Tensor, "*batch size"], legal: Legal = None
    ) -> Float[Tensor, "*batch size"]:
        return self._middle + self._half * torch.tanh(Gaussian(self.size).sample(params, noise))

    def mode(self, params: Float[Tensor, "*batch param"], legal: Legal = None) -> Float[Tensor, "*batch size"]:
        """The squashed mean (the median of each number)."""
        return self._middle + self._half * torch.tanh(params[..., : self.size])

    def log_prob(
        self, params: Float[Tensor, "*batch param"], actions: Float[Tensor, "*batch size"], legal: Legal = None
    ) -> Float[Tensor, "*batch"]:
        z = torch.atanh(((actions - self._middle) / self._half).clamp(-1 + EDGE, 1 - EDGE))
        return (_normal_log_prob(z, *_mean_and_log_std(params)) - self._log_slope(z)).sum(dim=-1)

    def entropy(self, params: Float[Tensor, "*batch param"], legal: Legal = None) -> Float[Tensor, "*batch"]:
        mean, _ = _mean_and_log_std(params)
        return Gaussian(self.size).entropy(params) + self._log_slope(mean).sum(dim=-1)

    def kl(
        self, params: Float[Tensor, "*batch param"], other: Float[Tensor, "*batch param"], legal: Legal = None
    ) -> Float[Tensor, "*batch"]:
        """Squashing moves both alike, so it is the Gaussians' own."""
        return Gaussian(self.size).kl(params, other)


@dataclass(frozen=True)
class Mixture:
    """A mixture of `components` Gaussians over `size` numbers at once (their numbers choose the component together).

    Params: the components' logits, then each component's means and logs of standard deviations. `entropy` and `kl`
    are upper bounds (chance of the component apart), which is what a bonus or a trust region needs.
    """

    size: int
    components: int

    @property
    def params(self) -> int:
        return self.components * (1 + 2 * self.size)

    @property
    def noise(self) -> int:
        return 1 + self.size

    def _split(self, params: Tensor) -> tuple[Tensor, Tensor]:
        logits, rest = params.split([self.components, 2 * self.size * self.components], dim=-1)
        return logits, rest.unflatten(-1, (self.components, 2 * self.size))

    def sample(
        self, params: Float[Tensor, "*batch param"], noise: Float[Tensor, "*batch draw"], legal: Legal = None
    ) -> Float[Tensor, "*batch size"]:
        logits, rest = self._split(params)
        component = Categorical(self.components).sample(logits, noise[..., :1])
        index = component[..., None, None].expand(*component.shape, 1, 2 * self.size)
        return Gaussian(self.size).sample(rest.gather(-2, index).squeeze(-2), noise[..., 1:])

    def mode(self, params: Float[Tensor, "*batch param"], legal: Legal = None) -> Float[Tensor, "*batch size"]:
        """The mean of the component with the highest peak."""
        logits, rest = self._split(params)
        _, log_std = _mean_and_log_std(rest)
        best = (logits - log_std.sum(dim=-1)).argmax(dim=-1)
        index = best[..., None, None].expand(*best.shape, 1, 2 * self.size)
        return rest.gather(-2, index).squeeze(-2)[..., : self.size]

    def log_prob(
        self, params: Float[Tensor, "*batch param"], actions: Float[Tensor, "*batch size"], legal: Legal = None
    ) -> Float[Tensor, "*batch"]:
        logits, rest = self._split(params)
        each = _normal_log_prob(actions.unsqueeze(-2), *_mean_and_log_std(rest)).sum(dim=-1)
        return torch.logsumexp(log_softmax(logits) + each, dim=-1)

    def entropy(self, params: Float[Tensor, "*batch param"], legal: Legal = None) -> Float[Tensor, "*batch"]:
        logits, rest = self._split(params)
        chances = F.softmax(logits, dim=-1)
        each = Gaussian(self.size).entropy(rest)
        return Categorical(self.components).entropy(logits) + (chances * each).sum(dim=-1)

    def kl(
        self, params: Float[Tensor, "*batch param"], other: Float[Tensor, "*batch param"], legal: Legal = None
    ) -> Float[Tensor, "*batch"]:
        (p, p_rest), (q, q_rest) = self._split(params), self._split(other)
        each = Gaussian(self.size).kl(p_rest, q_rest)
        return Categorical(self.components).kl(p, q) + (F.softmax(p, dim=-1) * each).sum(dim=-1)


def one_hot(actions: Shaped[Tensor, "..."], spec: ActionSpec) -> Float[Tensor, "..."]:
    """Actions as features of a network: one-hot where they are discrete, the numbers themselves where not."""
    if isinstance(spec, Continuous):
        return actions
    if isinstance(spec, Discrete):
        return F.one_hot(actions, spec.choices).float()
    parts = [F.one_hot(actions[..., i], n) for i, n in enumerate(spec.choices)]
    return torch.cat(parts, dim=-1).float()


def action_features(spec: ActionSpec) -> int:
    """Width of `one_hot`."""
    if isinstance(spec, Continuous):
        return spec.size
    return spec.choices if isinstance(spec, Discrete) else sum(spec.choices)
