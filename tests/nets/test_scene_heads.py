"""Heads of scene models: exact, summing to one, and sampling what they say."""

import math
from itertools import product

import pytest
import torch
from torch.distributions import MultivariateNormal

from understudy.core.random import generator, uniform
from understudy.maths.heads import standard_normal
from understudy.nets.scene_heads import MoveHead, SymbolHead, quantile
from understudy.nets.trunk import TrunkConfig

WIDTH = 12


def move_head(dims=2, together=3, alone=2, least=0.05):
    return MoveHead(WIDTH, dims, together, alone, least, generator(0)).double()


def symbols(count, ordered=True, within=2, relative=True):
    trunk = TrunkConfig(hidden=WIDTH, heads=2, pair=4)
    return SymbolHead(trunk, count, ordered, generator(0), within, relative=relative, period=2).double()


def features(*shape, seed=1):
    return 3 * torch.randn(*shape, WIDTH, generator=generator(seed), dtype=torch.float64)


@torch.no_grad()
@pytest.mark.parametrize("dims", [2, 3])
def test_a_joint_move_is_as_likely_as_the_sum_over_all_components_says(dims):
    head, h = move_head(dims), features(1, 3)
    moves = head(h)
    x = torch.randn(1, 3, dims, generator=generator(2), dtype=torch.float64)
    total = 0.0
    for m, ks in product(range(3), product(range(2), repeat=3)):
        log_prob = moves.scene[0, m]
        for i, k in enumerate(ks):
            normal = MultivariateNormal(moves.mean[0, i, m, k], scale_tril=moves.root[0, i, m, k])
            log_prob = log_prob + moves.own[0, i, m, k] + normal.log_prob(x[0, i])
        total += log_prob.exp().item()
    assert head.log_prob(moves, x).item() == pytest.approx(math.log(total), abs=1e-10)


@torch.no_grad()
def test_a_density_of_moves_integrates_to_one_and_never_exceeds_its_bound():
    head = move_head(least=0.2)
    moves = head(features(1, 1))
    steps = torch.arange(-12, 12, 0.05, dtype=torch.float64)
    grid = torch.cartesian_prod(steps, steps).reshape(-1, 1, 2)
    density = head.log_prob(type(moves)(*(p.expand(len(grid), *p.shape[1:]) for p in moves)), grid).exp()
    assert density.sum().item() * 0.05**2 == pytest.approx(1, abs=1e-3)
    assert density.max() < 1 / (2 * math.pi * 0.2**2)


@torch.no_grad()
def test_samples_have_the_mean_and_the_spread_of_the_mixture_and_agents_move_together():
    head, h = move_head(together=4, alone=2), features(1, 2, seed=5)
    moves, count = head(h), 200_000
    many = type(moves)(*(p.expand(count, *p.shape[1:]) for p in moves))
    source = generator(3)
    x = head.sample(
        many, uniform((count, 2, head.noise), source, torch.float64), uniform((count, 1), source, torch.float64)
    )
    weight = (moves.scene[:, None, :, None] + moves.own).exp().unsqueeze(-1)  # [1, agent, m, k, 1]
    mean = (weight * moves.mean).sum((2, 3))
    torch.testing.assert_close(mean, head.mean(moves))
    second = moves.root @ moves.root.mT + moves.mean.unsqueeze(-1) * moves.mean.unsqueeze(-2)
    cov = (weight.unsqueeze(-1) * second).sum((2, 3)) - mean.unsqueeze(-1) * mean.unsqueeze(-2)
    spread = cov.diagonal(dim1=-2, dim2=-1).sqrt()
    assert ((x.mean(0) - mean[0]) / spread[0]).abs().max() < 5 / math.sqrt(count)
    centred = x - x.mean(0)
    found = torch.einsum("nid,nie->ide", centred, centred) / count
    torch.testing.assert_close(found, cov[0], atol=0.05 * float(cov.abs().max()), rtol=0)
    # between agents all that is shared is the scene's component
    given_m = (moves.own.exp().unsqueeze(-1) * moves.mean).sum(3)[0]  # [agent, m, dim]
    shared = moves.scene[0].exp()
    between = torch.einsum("m,md,me->de", shared, given_m[0] - mean[0, 0], given_m[1] - mean[0, 1])
    assert between.abs().max() > 0.05
    across = torch.einsum("nd,ne->de", centred[:, 0], centred[:, 1]) / count
    torch.testing.assert_close(across, between, atol=0.05 * float(cov.abs().max()), rtol=0)


def test_a_quantile_is_where_the_mixture_has_so_much_below_it_and_a_normal_s_own_where_there_is_one():
    source = generator(6)
    weight = torch.rand(50, 4, generator=source, dtype=torch.float64).softmax(-1)
    mean, std = 3 * torch.randn(2, 50, 4, generator=source, dtype=torch.float64)
    std = std.abs() + 0.01
    noise = torch.rand(50, generator=source, dtype=torch.float64)
    x = quantile(weight, mean, std, noise)
    below = (weight * torch.special.ndtr((x.unsqueeze(-1) - mean) / std)).sum(-1)
    torch.testing.assert_close(below, noise, atol=1e-12, rtol=0)
    one = quantile(torch.ones(50, 1, dtype=torch.float64), mean[:, :1], std[:, :1], noise)
    torch.testing.assert_close(one, mean[:, 0] + std[:, 0] * standard_normal(noise))


@torch.no_grad()
def test_nearly_equal_noise_gives_nearly_equal_moves():
    """Without a jump from one of the agent's components to another."""
    head, h = move_head(together=1, alone=5), features(1, 1)
    noise = torch.linspace(0.001, 0.999, 2_000, dtype=torch.float64)
    moves = type(head(h))(*(p.expand(2_000, *p.shape[1:]) for p in head(h)))
    along = torch.stack([noise, torch.full_like(noise, 0.3)], dim=-1).unsqueeze(1)
    x = head.sample(moves, along, noise.new_zeros(2_000, 1))[:, 0]
    assert (x[1:, 0] > x[:-1, 0]).all()
    steps = x.diff(dim=0).norm(dim=-1)
    assert steps[200:-200].max() < 0.1 * (x.amax(0) - x.amin(0)).norm()


@torch.no_grad()
def test_agents_are_independent_where_the_scene_has_one_component():
    head, h = move_head(together=1, alone=3), features(2, 3)
    x = torch.randn(2, 3, 2, generator=generator(2), dtype=torch.float64)
    alone = [head.log_prob(head(h[:, i : i + 1]), x[:, i : i + 1]) for i in range(3)]
    torch.testing.assert_close(head.log_prob(head(h), x), sum(alone))


@torch.no_grad()
def test_an_absent_agent_changes_no_density_of_moves():
    head, h = move_head(), features(2, 4)
    x = torch.randn(2, 4, 2, generator=generator(2), dtype=torch.float64)
    present = torch.tensor([[True, True, False, True], [True, False, False, True]])
    for scene in range(2):
        there = present[scene]
        alone = head.log_prob(head(h[scene : scene + 1, there]), x[scene : scene + 1, there])
        found = head.log_prob(head(h, present), x, present)[scene]
        torch.testing.assert_close(found, alone[0])


@torch.no_grad()
@pytest.mark.parametrize("relative", [True, False])
@pytest.mark.parametrize(("ordered", "within"), [(True, 2), (True, 0), (False, 2)])
@pytest.mark.parametrize("last", [[0, 3, 2], [3, 3, 3]])  # 3: none yet
def test_probabilities_of_all_joint_symbols_sum_to_one(ordered, within, relative, last):
    head, h = symbols(3, ordered, within, relative), features(1, 3).expand(27, -1, -1)
    now = torch.tensor(list(product(range(3), repeat=3)))
    log_prob = head.log_prob(h, torch.tensor([last]).expand(27, -1), now).sum(dim=-1)
    assert log_prob.exp().sum().item() == pytest.approx(1, abs=1e-12)
    assert log_prob.std() > 0.01


@torch.no_grad()
def test_symbols_are_drawn_as_often_as_they_are_likely():
    count, head = 60_000, symbols(2)
    h, last = features(1, 3), torch.tensor([[0, 1, 1]])
    drawn = head.sample(
        h.expand(count, -1, -1), last.expand(count, -1), uniform((count, 3, 1), generator(3), torch.float64)
    )
    now = torch.tensor(list(product(range(2), repeat=3)))
    meant = head.log_prob(h.expand(8, -1, -1), last.expand(8, -1), now).sum(dim=-1).exp()
    found = torch.bincount(drawn @ torch.tensor([4, 2, 1]), minlength=8) / count
    assert ((found - meant).abs() < 5 * (meant * (1 - meant) / count).sqrt()).all()


@torch.no_grad()
def test_an_agent_hears_those_before_it_and_none_after_it():
    head, h, last = symbols(5), features(1, 3), torch.tensor([[1, 2, 3]])
    now = torch.tensor([[4, 0, 2]])
    logits = head(h, last, now)
    for changed in range(3):
        other = now.clone()
        other[0, changed] = (now[0, changed] + 1) % 5
        moved = (head(h, last, other) - logits).abs().amax(dim=-1)[0]
        assert (moved[: changed + 1] == 0).all()
        assert (moved[changed + 1 :] > 1e-3).all()
    for agent in range(3):
        torch.testing.assert_close(head(h, last, now, agent=agent), logits[:, agent : agent + 1])


@torch.no_grad()
def test_what_is_forced_is_taken_and_heard():
    head, h, last = symbols(4), features(500, 3), torch.zeros(500, 3).long()
    noise = uniform((500, 3, 1), generator(3), torch.float64)
    free = head.sample(h, last, noise)
    forced = torch.full_like(free, -1)
    forced[:, 1] = (free[:, 1] + 1) % 4
    told = head.sample(h, last, noise, forced=forced)
    assert torch.equal(told[:, 0], free[:, 0]) and torch.equal(told[:, 1], forced[:, 1])
    assert not torch.equal(told[:, 2], free[:, 2])


@torch.no_grad()
def test_an_absent_agent_is_not_heard():
    head, h = symbols(4), features(2, 3)
    last, now = torch.tensor([[1, 2, 3], [0, 1, 2]]), torch.tensor([[3, 2, 1], [1, 1, 0]])
    present = torch.tensor([[True, False, True]]).expand(2, -1)
    found = head.log_prob(h, last, now, present)
    kept = [0, 2]
    torch.testing.assert_close(found[:, kept], head.log_prob(h[:, kept], last[:, kept], now[:, kept]))
    assert (found[:, 1] == 0).all()
