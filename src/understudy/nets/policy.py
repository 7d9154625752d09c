"""Policies: features of what was seen and done, a body, a head. Memory in, memory out.

One class serves all kinds, chosen by `NetConfig`: memoryless, recurrent, attending to the other agents, with a stack
of frames, with the agent's own previous action, and joint (each agent's move given the earlier agents' moves).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from understudy.core.config import at_least_one, share
from understudy.core.errors import ConfigError, expect_shape
from understudy.core.tree import tree_map
from understudy.core.types import Continuous, EnvSpec, View, action_shape
from understudy.maths.heads import Head, action_features, make_head, one_hot
from understudy.nets.bodies import BODIES, READ, REMEMBER
from understudy.nets.fused import ACTIVATIONS
from understudy.nets.mlp import AgentLinear, Normaliser, sharing_groups

Choose = Callable[[Tensor, int | slice, Tensor | None], Tensor]


@dataclass(frozen=True)
class NetConfig:
    """The shape of a policy."""

    body: Literal["mlp", "gru", "attention", "history", "scene"] = "mlp"
    hidden: int = 64  # width of every hidden layer
    layers: int = 2  # hidden layers (before the recurrent unit of gru, history, scene; blocks of attention)
    activation: Literal["tanh", "relu", "silu"] = "tanh"
    share: Literal["role", "all", "none"] = "role"  # which agents use the same weights
    frames: int = 1  # observations seen at once, this step's and the ones before
    own_action: bool = False  # the agent's previous action is an input
    joint: bool = False  # move i is drawn given moves 0..i-1 of the same step, and from what everybody sees
    head: Literal["auto", "gaussian", "squashed", "mixture"] = "auto"  # of continuous actions
    components: int = 5  # of a mixture
    members: int = 1  # networks whose probabilities are averaged (discrete actions): surer on people never seen
    dropout: float = 0.0  # share of the last hidden features that each member must do without while it learns
    inner_dropout: float = 0.0  # the same of what is remembered and made of it, by history and scene
    input_dropout: float = 0.0  # the same of what is seen

    def __post_init__(self) -> None:
        at_least_one(self, "hidden", "frames", "components", "members")
        if self.layers < 0 or (self.layers == 0 and self.body == "attention"):
            raise ConfigError(f"layers: got {self.layers}, but a {self.body} needs more.")
        if self.body == "attention" and self.hidden % 4:
            raise ConfigError(f"hidden: got {self.hidden}, but attention has four heads: use a multiple of 4.")
        share(self, "dropout", "inner_dropout", "input_dropout", below=True)
        if self.activation not in ACTIVATIONS or self.body not in BODIES or self.share not in ("role", "all", "none"):
            raise ConfigError(f"unknown body, activation or sharing in {self}.")
        if self.inner_dropout and self.body not in READ:
            raise ConfigError(f"inner_dropout: got {self.inner_dropout}, but a {self.body} has none inside: use 0.")
        if self.body in READ and self.hidden % 4:
            raise ConfigError(f"hidden: got {self.hidden}, but attention has four heads: use a multiple of 4.")

    @property
    def has_past(self) -> bool:
        """What is done in a step depends on the steps before: policies remember, and learn from windows of steps."""
        return self.body in REMEMBER or self.frames > 1 or self.own_action


class AgentPolicy(nn.Module):
    """What `NetConfig` describes, for the agents of `spec`. Meets the `Policy` contract of `core.types`.

    Memory is a dict with what the kind needs: `body` (the recurrent state), `frames` (earlier features) and `action`
    (the previous action as features), each with leading axes [env, agent].
    """

    def __init__(self, config: NetConfig, spec: EnvSpec, generator: torch.Generator):
        super().__init__()
        self.config, self.spec = config, spec
        self.head: Head = make_head(spec.action, config.head, config.components)
        self.noise = self.head.noise
        groups = sharing_groups(spec, config.share)
        self.acted = action_features(spec.action)
        self.seen = spec.obs + (self.acted if config.own_action else 0)
        self.normaliser = Normaliser(spec.obs)
        if config.members > 1 and isinstance(spec.action, Continuous):
            raise ConfigError(f"members: got {config.members}, but only discrete actions can be averaged: use 1.")
        inputs, body = self.seen * config.frames, BODIES[config.body]
        inside = {"dropout": config.inner_dropout} if config.body in READ else {}
        self.bodies, self.outs = nn.ModuleList(), nn.ModuleList()
        for _ in range(config.members):
            made = body(inputs, config.hidden, config.layers, groups, config.activation, generator, **inside)
            width = int(made.outputs)  # type: ignore[arg-type]
            if config.joint:
                width = 2 * width + spec.agents * self.acted
            self.bodies.append(made)
            self.outs.append(AgentLinear(width, self.head.params, groups, 0.01, generator))

    # --- the Policy contract -------------------------------------------------------------------------------------

    def start(self, envs: int) -> dict[str, Any]:
        memory: dict[str, Any] = {"body": tuple(body.start(envs) for body in self.bodies)}  # type: ignore[operator]
        blank = self.normaliser.mean.new_zeros
        if self.config.frames > 1:
            memory["frames"] = blank(envs, self.config.frames - 1, self.spec.agents, self.seen)
        if self.config.own_action:
            memory["action"] = blank(envs, self.spec.agents, self.acted)
        return memory

    def act(
        self, view: View, memory: dict[str, Any], noise: Float[Tensor, "env agent noise"]
    ) -> tuple[Tensor, dict[str, Any]]:
        """Draw every agent's action."""
        return self.act_by(view, memory, lambda params, i, legal: self.head.sample(params, noise[..., i, :], legal))

    def mode(self, view: View, memory: dict[str, Any]) -> tuple[Tensor, dict[str, Any]]:
        """Every agent's likeliest action, with nothing drawn."""
        return self.act_by(view, memory, lambda params, i, legal: self.head.mode(params, legal))

    def log_prob(
        self, view: View, actions: Tensor, memory: Any = (), starts: Bool[Tensor, "env time"] | None = None
    ) -> Float[Tensor, "env time agent"]:
        params, _ = self.params(view, actions, memory, starts)
        return self.head.log_prob(params, actions, view.legal)

    # --- what learners need besides ------------------------------------------------------------------------------

    def params(
        self, view: View, actions: Tensor, memory: Any = (), starts: Bool[Tensor, "env time"] | None = None
    ) -> tuple[Float[Tensor, "env time agent param"], dict[str, Any]]:
        """The head's parameters at every step of what was seen and done, and the memory after the last.

        `actions` are the ones taken: the previous one and, for a joint policy, those of earlier agents are inputs.
        """
        each, memory = self.of_members(view, actions, memory, starts)
        return self._blended(each, view.legal), memory

    def of_members(
        self,
        view: View,
        actions: Tensor,
        memory: Any = (),
        starts: Bool[Tensor, "env time"] | None = None,
        chance: torch.Generator | None = None,
    ) -> tuple[Float[Tensor, "member env time agent param"], dict[str, Any]]:
        """As `params`, of each member by itself: what a learner compares with the actions.

        `chance` draws what dropout hides; None: nothing is hidden.
        """
        expect_shape("obs", view.obs, "env time agent obs", agent=self.spec.agents, obs=self.spec.obs)
        memory = self.start(len(view.obs)) if isinstance(memory, tuple) else memory
        done = one_hot(actions, self.spec.action)  # [env, time, agent, acted]
        before = None
        if self.config.own_action:
            before = torch.cat([memory["action"].unsqueeze(1), done[:, :-1]], dim=1)
            if starts is not None:
                before = before * (~starts).to(done.dtype)[..., None, None]
        hides = chance is not None and self.config.dropout > 0
        each, memory = self._hidden(view, before, memory, starts, not (self.config.joint or hides), chance)
        if self.config.own_action:
            memory["action"] = done[:, -1]
        if self.config.joint:
            each = [self._with_earlier(h, done, view) for h in each]
        if chance is not None and hides:
            each = [drop(h, self.config.dropout, chance) for h in each]
        if self.config.joint or hides:
            each = [out(h) for out, h in zip(self.outs, each, strict=True)]
        return torch.stack(each), memory

    def entropy(
        self, params: Float[Tensor, "*batch agent param"], legal: Bool[Tensor, "*batch agent choice"] | None = None
    ) -> Float[Tensor, "*batch agent"]:
        return self.head.entropy(params, legal)

    # --- parts ---------------------------------------------------------------------------------------------------

    def _hidden(
        self,
        view: View,
        before: Tensor | None,
        memory: dict[str, Any],
        starts: Tensor | None,
        heads: bool,
        chance: torch.Generator | None = None,
    ) -> tuple[list[Tensor], dict[str, Any]]:
        """What each member's body makes of what is seen, or with `heads` its head of that; and the memory after."""
        x = self.normaliser(view.obs)
        if before is not None:
            x = torch.cat([x, before], dim=-1)
        after = dict(memory)
        if self.config.frames > 1:
            x, after["frames"] = stack_frames(x, memory["frames"], starts)
        if chance is None or not self.config.input_dropout:
            inputs = [x] * len(self.bodies)
        else:
            inputs = [drop(x, self.config.input_dropout, chance) for _ in self.bodies]
        parts = zip(self.bodies, inputs, memory["body"], self.outs, strict=True)
        each = [body(y, m, starts, view.present, out if heads else None, chance) for body, y, m, out in parts]
        hidden, kept = zip(*each, strict=True)
        after["body"] = kept
        return list(hidden), after

    def _blended(self, each: Float[Tensor, "member *batch param"], legal: Tensor | None) -> Tensor:
        return each[0] if len(each) == 1 else self.head.blend(each, legal)  # type: ignore[attr-defined]

    def _with_earlier(self, hidden: Tensor, done: Tensor, view: View) -> Tensor:
        """Each agent's features, the mean over all present agents, and the actions of the agents before it."""
        agents = self.spec.agents
        if view.present is None:
            everybody = hidden.mean(dim=-2, keepdim=True)
        else:
            there = view.present.unsqueeze(-1).to(hidden.dtype)
            everybody = (hidden * there).sum(dim=-2, keepdim=True) / there.sum(dim=-2, keepdim=True).clamp(min=1)
        earlier = torch.tril(hidden.new_ones(agents, agents), diagonal=-1)  # [me, other]
        told = (earlier.unsqueeze(-1) * done.unsqueeze(-3)).flatten(-2)
        return torch.cat([hidden, everybody.expand_as(hidden), told], dim=-1)

    def act_by(self, view: View, memory: dict[str, Any], choose: Choose) -> tuple[Tensor, dict[str, Any]]:
        """Every agent's action as `choose(params, agents, legal)` picks it, and the memory after.

        `agents` is a slice of all agents, or one agent's number where a joint policy asks them one after another; what
        is chosen must have as many axes.
        """
        one_step = tree_map(lambda x: x.unsqueeze(1), view)
        before = memory["action"].unsqueeze(1) if self.config.own_action else None
        each, after = self._hidden(one_step, before, memory, None, heads=not self.config.joint)
        if self.config.joint:
            actions = self._one_after_another(each, one_step, choose)
        else:
            actions = choose(self._blended(torch.stack(each).squeeze(2), view.legal), slice(None), view.legal)
        if self.config.own_action:
            after["action"] = one_hot(actions, self.spec.action)
        return actions, after

    def _one_after_another(self, hidden: list[Tensor], view: View, choose: Choose) -> Tensor:
        envs, agents, one = len(hidden[0]), self.spec.agents, hidden[0]
        done = one.new_zeros(envs, 1, agents, self.acted)
        dtype = one.dtype if isinstance(self.spec.action, Continuous) else torch.long
        actions = torch.zeros(envs, agents, *action_shape(self.spec.action), dtype=dtype, device=one.device)
        for i in range(agents):  # the order of the draw is the model
            told = [self._with_earlier(h, done, view) for h in hidden]
            each = torch.stack([out(h)[:, 0, i] for out, h in zip(self.outs, told, strict=True)])
            legal = None if view.legal is None else view.legal[:, 0, i]
            actions[:, i] = choose(self._blended(each, legal), i, legal)
            done[:, 0] = one_hot(actions, self.spec.action)
        return actions


def drop(x: Float[Tensor, "*batch"], share: float, chance: torch.Generator) -> Float[Tensor, "*batch"]:
    """Zeros in place of a `share` of the features, the others made larger so that the mean stays."""
    kept = torch.rand(x.shape, generator=chance, device=x.device) >= share
    return x * kept / (1 - share)


def stack_frames(
    x: Float[Tensor, "env time agent feature"],
    earlier: Float[Tensor, "env frame agent feature"],
    starts: Bool[Tensor, "env time"] | None,
) -> tuple[Float[Tensor, "env time agent stacked"], Float[Tensor, "env frame agent feature"]]:
    """Each step's features with those of the steps before it, newest first; zeros from before an episode's start.

    Returns the stack and the frames that the next call needs as `earlier`.
    """
    frames, steps = earlier.shape[1], x.shape[1]
    line = torch.cat([earlier, x], dim=1)
    stacked = torch.stack([line[:, frames - k : frames - k + steps] for k in range(frames + 1)], dim=-1)
    after = line[:, steps:]
    if starts is not None:
        episode = starts.long().cumsum(dim=1)
        episode = torch.cat([episode.new_zeros(len(x), frames), episode], dim=1)  # what came before: episode 0
        same = [episode[:, frames - k : frames - k + steps] == episode[:, frames:] for k in range(frames + 1)]
        stacked = stacked * torch.stack(same, dim=-1).to(x.dtype)[:, :, None, None]
        after = after * (episode[:, steps:] == episode[:, -1:]).to(x.dtype)[..., None, None]
    return stacked.transpose(-1, -2).flatten(-2), after


def build_policy(config: NetConfig, spec: EnvSpec, generator: torch.Generator) -> AgentPolicy:
    """A fresh policy; its weights are a function of config, spec and generator alone."""
    return AgentPolicy(config, spec, generator)
