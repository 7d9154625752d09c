"""A soft Q for every agent, and the policies that it makes: what inverse soft Q-learning and SQIL train."""

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.func import functional_call

from understudy.core.errors import ConfigError
from understudy.core.random import uniform
from understudy.core.tree import tree_map
from understudy.core.types import Continuous, Discrete, EnvSpec, Segment, View
from understudy.maths.heads import one_hot
from understudy.maths.soft_q import Valued, chosen_q, soft_value
from understudy.nets.mixers import Mixer
from understudy.nets.mlp import AgentLinear, AgentMLP, sharing_groups
from understudy.nets.policy import AgentPolicy, NetConfig, build_policy


class SoftQ(nn.Module):
    """Policies, every agent's Q in temperatures, and the mixer that values teams.

    Discrete moves: the policies' logits are the Q. Continuous ones: a critic Q(o, a) for each agent, and policies that
    follow exp Q (`chase`), with V(o) = Q(o, a) - log pi(a|o) at one action drawn. Source of the latter: Haarnoja et al.
    2018, arXiv:1801.01290.

    Raises:
        ConfigError: for a net whose logits are no Q of one agent (joint, several members, dropout), or, where moves are
            continuous, one with a past or a mixture.
    """

    def __init__(self, net: NetConfig, spec: EnvSpec, mixer: str, generator: torch.Generator):
        super().__init__()
        if net.joint or net.members > 1 or net.dropout:
            raise ConfigError(
                f"net: joint={net.joint}, members={net.members}, dropout={net.dropout}: a soft Q is one network for "
                "each agent's own moves. Use joint=False, members=1, dropout=0; `mixer` values moves together."
            )
        self.spec, self.critic = spec, None
        if isinstance(spec.action, Continuous):
            net = _for_continuous(net, spec.action)
            groups, inputs = sharing_groups(spec, net.share), spec.obs + spec.action.size
            self.critic = AgentMLP(inputs, 1, groups, generator, net.hidden, net.layers, net.activation)
        self.policy: AgentPolicy = build_policy(net, spec, generator)
        self.mixer = Mixer(mixer, spec, generator)

    def groups(self, rate: float, decay: float, reach: float) -> list[dict[str, Any]]:
        """Parameters for an optimizer: all that Q is made of, then actors that follow it, where they are others.

        The last layer of Q learns `reach` times as fast, and what it makes decays as all else does: Adam moves a weight
        by `rate` in a step, however far it has to go. Biases do not decay: they see nothing to know by heart.
        """
        makes, acts = ("policy.outs.", "") if self.critic is None else ("critic.last.", "policy.")
        kinds: dict[tuple[bool, bool, bool], list[nn.Parameter]] = {}
        for name, parameter in self.named_parameters():
            kind = bool(acts) and name.startswith(acts), name.startswith(makes), name.endswith("bias")
            kinds.setdefault(kind, []).append(parameter)
        groups = []
        for (_, last, bias), params in sorted(kinds.items(), key=lambda item: item[0]):
            times = reach if last else 1.0
            groups.append({"params": params, "initial_lr": rate * times, "weight_decay": 0 if bias else decay / times})
        return groups

    def observe(self, parts: Iterable[Segment]) -> Float[Tensor, "agent"]:
        """Let demonstrations set the scale of what the networks see, and where discrete moves begin.

        Q begins at log of how often each move is made, whatever is seen, half a move of each kind added; V is then 0.
        Where nothing that is seen ever changes this is the answer, and from a bias of 0 it would be 10 or more away.

        Returns the mean of their `leaving`.
        """
        left, made = [], torch.zeros(())
        for part in parts:
            self.policy.normaliser.observe(part.obs.flatten(0, -2))
            self.mixer.observe(part.view)
            left.append(leaving(part))
            if self.critic is None:
                counts = _there(part).unsqueeze(-1) * one_hot(part.actions, self.spec.action)
                made = made + counts.flatten(0, -3).sum(dim=0)
        if self.critic is None:
            self._begin(made)
        return torch.stack(left).mean(dim=0)

    @torch.no_grad()
    def _begin(self, made: Float[Tensor, "agent choice"]) -> None:
        action, out = self.spec.action, self.policy.outs[0]
        assert isinstance(out, AgentLinear) and not isinstance(action, Continuous)
        shared = torch.full_like(out.bias, 0.5).index_add(0, out.index, made)
        sizes = (action.choices,) if isinstance(action, Discrete) else action.choices
        out.bias.copy_(torch.cat([(x / x.sum(dim=-1, keepdim=True)).log() for x in shared.split(sizes, dim=-1)], -1))

    def value(
        self, part: Segment, rest: Float[Tensor, "agent"], generator: torch.Generator, burn_in: int = 0
    ) -> Valued:
        """Steps [env, time, agent, ...] as this Q values them.

        A time limit is looked through to `next_view`; only where another episode goes on in the same window can memory
        not follow, and the step has no weight.

        Args:
            rest: value of a game that is over, or of being away from it: what is paid for resting for ever.
            burn_in: first steps without weight in windows that begin in the middle of an episode.
        """
        assert part.next_view is not None and part.terminated is not None and part.starts is not None
        moments, begins = _moments(part)
        if self.critic is None:
            chosen, value = self._discrete(moments, part.actions, begins)
        else:
            chosen, value = self._continuous(moments, part.actions, generator)
        there = torch.ones_like(value, dtype=torch.bool) if moments.present is None else moments.present
        value, chosen = value.where(there, rest), chosen.where(there[:, :-1], rest)
        after = self.mixer(value[:, 1:], tree_map(lambda x: x[:, 1:], moments))
        return Valued(
            chosen=self.mixer(chosen, part.view),
            now=self.mixer(value[:, :-1], part.view),
            after=after.where(~part.terminated.unsqueeze(-1), self.mixer.sum(rest)),
            weight=self._weight(part, there[:, :-1].to(value.dtype), begins, burn_in),
        )

    def ahead(
        self,
        slow: "SoftQ | None",
        part: Segment,
        rest: Float[Tensor, "agent"],
        generator: torch.Generator,
        burn_in: int = 0,
    ) -> Valued:
        """As `value`, but what steps led to is valued by a slower copy, if there is one, which no gradient reaches."""
        if slow is None:
            return self.value(part, rest, generator, burn_in)
        with torch.no_grad():
            after = slow.value(part, rest, generator, burn_in).after
        return replace(self.value(part, rest, generator, burn_in), after=after)

    @torch.no_grad()
    def follow(self, fast: "SoftQ", share: float) -> None:
        """Go a share of the way to another's weights."""
        for mine, other in zip(self.parameters(), fast.parameters(), strict=True):
            mine.lerp_(other, share)

    def shared(self, rest: Float[Tensor, "agent"]) -> Float[Tensor, "agent"]:
        """What a group is paid for resting as each of its agents would be, divided among them."""
        size = self.mixer.member.sum(dim=1) @ self.mixer.member  # of each agent's group
        return rest / size

    def chase(self, part: Segment, generator: torch.Generator) -> Float[Tensor, ""]:
        """Mean of log pi(a|o) - Q(o, a) over the policies' own actions: least where pi is exp Q, normalised.

        Its gradient reaches the policies alone. 0 for discrete moves, where the logits are the Q.
        """
        if self.critic is None:
            return part.view.obs.new_zeros(())
        actions, log_prob = self._drawn(part.view, generator)
        q = self._q(part.view, actions, frozen=True)
        there = torch.ones_like(q) if part.view.present is None else part.view.present.to(q.dtype)
        there = there if part.valid is None else there * part.valid.unsqueeze(-1)
        return ((log_prob - q) * there).sum() / there.sum().clamp(min=1)

    def _discrete(self, moments: View, actions: Tensor, begins: Tensor) -> tuple[Tensor, Tensor]:
        action = self.spec.action
        assert not isinstance(action, Continuous)
        padded = torch.cat([actions, actions[:, -1:]], dim=1)  # what is done at the last moment is not looked at
        q, _ = self.policy.params(moments, padded, (), begins)
        return chosen_q(q[:, :-1], actions, action), soft_value(q, action, moments.legal)

    def _continuous(self, moments: View, actions: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            drawn, log_prob = self._drawn(moments, generator)
        before = tree_map(lambda x: x[:, :-1], moments)
        return self._q(before, actions), self._q(moments, drawn) - log_prob

    def _drawn(self, view: View, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """An action of every agent's own policy at every moment, and its log-probability."""
        shape = view.obs.shape[:-1]
        params, _ = self.policy.params(view, view.obs.new_zeros(*shape, self.policy.acted))
        actions = self.policy.head.sample(params, uniform((*shape, self.policy.noise), generator, view.obs.dtype))
        return actions, self.policy.head.log_prob(params, actions)

    def _q(self, view: View, actions: Tensor, frozen: bool = False) -> Tensor:
        """The critic's Q; `frozen`: as a function of the actions alone."""
        assert self.critic is not None
        weights = {name: p.detach() if frozen else p for name, p in self.critic.named_parameters()}
        seen = torch.cat([self.policy.normaliser(view.obs), actions], dim=-1)
        return functional_call(self.critic, weights, (seen,)).squeeze(-1)

    def _weight(self, part: Segment, present: Tensor, begins: Bool[Tensor, "env moment"], burn_in: int) -> Tensor:
        assert part.terminated is not None
        lost = begins[:, 1:] & ~part.terminated
        weight = (self.mixer.sum(present) > 0).to(present.dtype) * (~lost).unsqueeze(-1)
        if part.valid is not None:
            weight = weight * part.valid.unsqueeze(-1)
        if part.weight is not None:
            weight = weight * part.weight.unsqueeze(-1)
        late = torch.arange(weight.shape[1], device=weight.device) >= burn_in
        begun = begins[:, :-1].cumsum(dim=1) > 0  # from its first step on all of an episode's past is in the window
        return weight * (late | begun).unsqueeze(-1)


def leaving(part: Segment) -> Float[Tensor, "agent"]:
    """In which share of its steps, by their weight, each agent left: the game was over, or the agent was gone."""
    assert part.terminated is not None and part.next_view is not None
    there = _there(part)
    gone = part.terminated.unsqueeze(-1).expand(there.shape)
    gone = gone if part.next_view.present is None else gone | ~part.next_view.present
    return (there * gone).flatten(0, -2).sum(dim=0) / there.flatten(0, -2).sum(dim=0).clamp(min=1e-8)


def _there(part: Segment) -> Float[Tensor, "*batch agent"]:
    """The weight of each agent's step: 0 where it is none, or the agent is missing."""
    there = torch.ones_like(part.obs[..., 0]) if part.view.present is None else part.view.present.to(part.obs.dtype)
    there = there if part.valid is None else there * part.valid.unsqueeze(-1)
    return there if part.weight is None else there * part.weight.unsqueeze(-1)


def _moments(part: Segment) -> tuple[View, Bool[Tensor, "env moment"]]:
    """The moment before each step and the one after the last, and where among them an episode begins.

    A step's next moment is what it led to; but where another episode goes on, it is that one's first.
    """
    assert part.next_view is not None and part.starts is not None

    def line(before: Tensor, after: Tensor) -> Tensor:
        starts = part.starts[:, 1:].reshape(len(before), -1, *[1] * (before.dim() - 2))  # type: ignore[index]
        return torch.cat([before[:, :1], torch.where(starts, before[:, 1:], after[:, :-1]), after[:, -1:]], dim=1)

    begins = torch.cat([part.starts, torch.zeros_like(part.starts[:, :1])], dim=1)
    return tree_map(line, part.view, part.next_view), begins


def _for_continuous(net: NetConfig, action: Continuous) -> NetConfig:
    """The actors' net: squashed into finite bounds."""
    if net.has_past or net.head == "mixture":
        raise ConfigError(
            f"net: body={net.body!r}, frames={net.frames}, own_action={net.own_action}, head={net.head!r}: where moves "
            "are continuous a critic sees the present alone, and what is drawn must be differentiable. "
            "Use an mlp or attention without a past, and no mixture."
        )
    bounded = math.isfinite(action.low) and math.isfinite(action.high)
    return replace(net, head="squashed") if net.head == "auto" and bounded else net
