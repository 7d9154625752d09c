"""Mixers value teams: what is exact for sums, and what no monotone mixture can keep."""

from dataclasses import replace

import pytest
import torch

from understudy.core.errors import ConfigError, DemosError
from understudy.core.random import generator
from understudy.core.types import Discrete, EnvSpec, View
from understudy.nets.mixers import Mixer

SPEC = EnvSpec(agents=3, obs=2, action=Discrete(4), teams=("red", "blue", "red"))


def made(kind, seed=0):
    mixer = Mixer(kind, SPEC, generator(seed)).double()
    for p in mixer.parameters():  # larger than at the start, so that what is not additive shows
        p.data.add_(0.5 * torch.randn(p.shape, generator=generator(seed, "more"), dtype=p.dtype))
    return mixer


def view(rows, seed=1):
    return View(torch.randn(rows, 3, 2, generator=generator(seed), dtype=torch.float64))


def gap(mixer):
    """log sum exp over joint moves of the mixed Q, less the mixture of the agents' own soft values; [row, group]."""
    q = torch.randn(5, 3, 4, generator=generator(2), dtype=torch.float64)
    seen = view(5)
    moves = torch.cartesian_prod(*[torch.arange(4)] * 3)  # [joint, agent]
    chosen = q.gather(-1, moves.T.expand(5, -1, -1)).transpose(1, 2)  # [row, joint, agent]
    everywhere = View(seen.obs.unsqueeze(1).expand(-1, len(moves), -1, -1))
    joint = mixer(chosen, everywhere).logsumexp(dim=1)
    idle = 4 ** (3 - mixer.member.sum(dim=1))  # joint moves that differ only in who is not of the group
    return joint - idle.log() - mixer(q.logsumexp(dim=-1), seen)


def test_the_joint_soft_value_of_a_sum_is_the_sum_of_the_agents_own():
    for kind in ("none", "sum"):
        torch.testing.assert_close(gap(made(kind)), torch.zeros_like(gap(made(kind))), atol=1e-12, rtol=0)


def test_of_a_monotone_mixture_it_is_not():
    assert gap(made("monotone")).abs().min() > 0.01


def test_a_mixture_keeps_every_agents_order_of_moves_and_touches_no_other_team():
    mixer, seen = made("monotone"), view(50)
    q = torch.randn(50, 3, generator=generator(3), dtype=torch.float64)
    for agent, team in enumerate((0, 1, 0)):
        more = q.clone()
        more[:, agent] += 0.7
        change = mixer(more, seen) - mixer(q, seen)
        assert (change[:, team] >= 0.7 - 1e-12).all()  # its own sum at least: no team is valued the same for all moves
        torch.testing.assert_close(change[:, 1 - team], torch.zeros(50).double())


def test_a_mixture_is_convex_in_the_agents_values():
    mixer, seen = made("monotone"), view(200)
    a, b = torch.randn(2, 200, 3, generator=generator(4), dtype=torch.float64)
    assert (mixer((a + b) / 2, seen) <= (mixer(a, seen) + mixer(b, seen)) / 2 + 1e-12).all()


def test_steps_without_the_whole_state_are_refused_where_mixtures_are_made_from_it():
    mixer, steps = Mixer("monotone", replace(SPEC, whole=20), generator(0)), View(torch.zeros(4, 3, 2))
    for look in (lambda: mixer.observe(steps), lambda: mixer(torch.zeros(4, 3), steps)):
        with pytest.raises(DemosError, match=r"20 numbers in .* came without it .* use mixer='sum'"):
            look()


def test_an_unknown_mixer_is_refused():
    with pytest.raises(ConfigError, match="one of none, sum and monotone"):
        Mixer("qmix", SPEC, generator(0))
