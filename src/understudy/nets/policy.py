"""Policies: features of what was seen and done, a body, a head. Memory in, memory out.

One class serves all kinds, chosen by `NetConfig`: memoryless, recurrent, attending to the other agents, with a stack
of frames, with the agent's own previous action, and joint (each agent's move given the earlier agents' moves).
"""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from understudy.core.errors import ConfigError, expect_shape
from understudy.core.tree import tree_map
from understudy.core.types import Continuous, EnvSpec, View, action_shape
from understudy.maths.heads import Head, action_features, make_head, one_hot
from understudy.nets.bodies import BODIES
from understudy.nets.mlp import ACTIVATIONS, AgentLinear, Normaliser, sharing_groups


@dataclass(frozen=True)
class NetConfig:
    """The shape of a policy."""

    body: Literal["mlp", "gru", "attention"] = "mlp"
    hidden: int = 64  # width of every hidden layer
    layers: int = 2  # hidden layers (before the recurrent unit of a gru; blocks of attention)
    activation: Literal["tanh", "relu", "silu"] = "tanh"
    share: Literal["role", "all", "none"] = "role"  # which agents use the same weights
    frames: int = 1  # observations seen at once, this step's and the ones before
    own_action: bool = False  # the agent's previous action is an input
    joint: bool = False  # move i is drawn given moves 0..i-1 of the same step, and from what everybody sees
    head: Literal["auto", "gaussian", "squashed", "mixture"] = "auto"  # of continuous actions
    components: int = 5  # of a mixture

    def __post_init__(self) -> None:
        for name in ("hidden", "frames", "components"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}: got {getattr(self, name)}, but it must be 1 or more.")
        if self.layers < 0 or (self.layers == 0 and self.body == "attention"):
            raise ConfigError(f"layers: got {self.layers}, but a {self.body} needs more.")
        if self.body == "attention" and self.hidden % 4:
            raise ConfigError(f"hidden: got {self.hidden}, but attention has four heads: use a multiple of 4.")
        if self.activation not in ACTIVATIONS or self.body not in BODIES or self.share not in ("role", "all", "none"):
            raise ConfigError(f"unknown body, activation or sharing in {self}.")


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
        self.body = BODIES[config.body](
            self.seen * config.frames, config.hidden, config.layers, groups, config.activation, generator
        )
        width = int(self.body.outputs)  # type: ignore[arg-type]
        if config.joint:
            width = 2 * width + spec.agents * self.acted
        self.out = AgentLinear(width, self.head.params, groups, 0.01, generator)

    # --- the Policy contract -------------------------------------------------------------------------------------

    def start(self, envs: int) -> dict[str, Any]:
        memory: dict[str, Any] = {"body": self.body.start(envs)}  # type: ignore[operator]
        blank = self.out.weight.new_zeros
        if self.config.frames > 1:
            memory["frames"] = blank(envs, self.config.frames - 1, self.spec.agents, self.seen)
        if self.config.own_action:
            memory["action"] = blank(envs, self.spec.agents, self.acted)
        return memory

    def act(
        self, view: View, memory: dict[str, Any], noise: Float[Tensor, "env agent noise"]
    ) -> tuple[Tensor, dict[str, Any]]:
        """Draw every agent's action."""
        return self._act(view, memory, lambda params, i, legal: self.head.sample(params, noise[..., i, :], legal))

    def mode(self, view: View, memory: dict[str, Any]) -> tuple[Tensor, dict[str, Any]]:
        """Every agent's likeliest action, with nothing drawn."""
        return self._act(view, memory, lambda params, i, legal: self.head.mode(params, legal))

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
        expect_shape("obs", view.obs, "env time agent obs", agent=self.spec.agents, obs=self.spec.obs)
        memory = self.start(len(view.obs)) if isinstance(memory, tuple) else memory
        done = one_hot(actions, self.spec.action)  # [env, time, agent, acted]
        before = None
        if self.config.own_action:
            before = torch.cat([memory["action"].unsqueeze(1), done[:, :-1]], dim=1)
            if starts is not None:
                before = before * (~starts).to(done.dtype)[..., None, None]
        hidden, memory = self._hidden(view, before, memory, starts)
        if self.config.own_action:
            memory["action"] = done[:, -1]
        if self.config.joint:
            hidden = self._with_earlier(hidden, done, view)
        return self.out(hidden), memory

    def entropy(
        self, params: Float[Tensor, "*batch agent param"], legal: Bool[Tensor, "*batch agent choice"] | None = None
    ) -> Float[Tensor, "*batch agent"]:
        return self.head.entropy(params, legal)

    # --- parts ---------------------------------------------------------------------------------------------------

    def _hidden(
        self, view: View, before: Tensor | None, memory: dict[str, Any], starts: Tensor | None
    ) -> tuple[Tensor, dict[str, Any]]:
        x = self.normaliser(view.obs)
        if before is not None:
            x = torch.cat([x, before], dim=-1)
        after = dict(memory)
        if self.config.frames > 1:
            x, after["frames"] = stack_frames(x, memory["frames"], starts)
        x, after["body"] = self.body(x, memory["body"], starts, view.present)
        return x, after

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

    def _act(self, view: View, memory: dict[str, Any], choose: Any) -> tuple[Tensor, dict[str, Any]]:
        one_step = tree_map(lambda x: x.unsqueeze(1), view)
        before = memory["action"].unsqueeze(1) if self.config.own_action else None
        hidden, after = self._hidden(one_step, before, memory, None)
        everyone = slice(None)
        if self.config.joint:
            actions = self._one_after_another(hidden, one_step, choose)
        else:
            actions = choose(self.out(hidden).squeeze(1), everyone, view.legal)
        if self.config.own_action:
            after["action"] = one_hot(actions, self.spec.action)
        return actions, after

    def _one_after_another(self, hidden: Tensor, view: View, choose: Any) -> Tensor:
        envs, agents = len(hidden), self.spec.agents
        done = hidden.new_zeros(envs, 1, agents, self.acted)
        dtype = hidden.dtype if isinstance(self.spec.action, Continuous) else torch.long
        actions = torch.zeros(envs, agents, *action_shape(self.spec.action), dtype=dtype, device=hidden.device)
        for i in range(agents):  # the order of the draw is the model
            params = self.out(self._with_earlier(hidden, done, view))[:, 0, i]
            actions[:, i] = choose(params, i, None if view.legal is None else view.legal[:, 0, i])
            done[:, 0] = one_hot(actions, self.spec.action)
        return actions


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
