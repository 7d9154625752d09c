import math

import numpy as np
import pytest
import torch
from torch.distributions import Categorical as TorchCategorical
from torch.distributions import Independent, MixtureSameFamily, Normal, kl_divergence

from understudy.core.errors import ConfigError
from understudy.core.random import generator, uniform
from understudy.core.types import Continuous, Discrete, MultiDiscrete
from understudy.maths.heads import (
    Categorical,
    Gaussian,
    Mixture,
    MultiCategorical,
    SquashedGaussian,
    make_head,
    standard_normal,
)

HEADS = [Categorical(4), MultiCategorical((3, 2)), Gaussian(2), SquashedGaussian(2, -1.0, 3.0), Mixture(2, 3)]


def params_of(head, *batch, seed=0, dtype=torch.float64):
    return torch.randn(*batch, head.params, generator=generator(seed), dtype=dtype)


@pytest.mark.parametrize("head", HEADS, ids=lambda h: type(h).__name__)
def test_a_sample_does_not_hang_on_its_company_and_follows_the_noise(head):
    params, noise = params_of(head, 7, 3), uniform((7, 3, head.noise), generator(1), torch.float64)
    together = head.sample(params, noise)
    for row in range(7):
        torch.testing.assert_close(head.sample(params[row], noise[row]), together[row])
    assert head.log_prob(params, together).shape == (7, 3) == head.entropy(params).shape
    assert (head.kl(params, params).abs() < 1e-12).all()
    assert (head.kl(params, params_of(head, 7, 3, seed=5)) > 0).all()


def test_a_categorical_is_drawn_as_often_as_it_says():
    draws, logits = 40_000, torch.tensor([0.3, -1.0, 2.0, 0.0])
    actions = Categorical(4).sample(logits.expand(draws, 4), uniform((draws, 1), generator(2)))
    chances = logits.softmax(-1)
    error = (actions.bincount(minlength=4) / draws - chances).abs()
    assert (error < 5 * (chances * (1 - chances) / draws).sqrt()).all()  # five standard errors


def test_an_illegal_move_is_never_drawn_not_even_by_the_last_number_below_one():
    head, logits = Categorical(4), torch.tensor([0.0, 9.0, 0.0, 9.0])
    legal = torch.tensor([True, False, True, False])
    noise = torch.cat([uniform((9_999, 1), generator(3)), torch.tensor([[1 - 2.0**-24]])])
    drawn = head.sample(logits.expand(10_000, 4), noise, legal.expand(10_000, 4))
    assert set(drawn.tolist()) == {0, 2}
    assert head.entropy(logits, legal).item() == pytest.approx(math.log(2))
    assert head.log_prob(logits, torch.tensor(2), legal).item() == pytest.approx(-math.log(2))
    assert head.entropy(logits, torch.zeros(4, dtype=torch.bool)).item() == pytest.approx(math.log(4))


@pytest.mark.parametrize("head", [Gaussian(2), Mixture(2, 3)], ids=lambda h: type(h).__name__)
def test_continuous_densities_equal_those_of_torch_distributions(head):
    params, value = params_of(head, 50), torch.randn(50, 2, generator=generator(9), dtype=torch.float64)
    if isinstance(head, Gaussian):
        theirs = Independent(Normal(params[:, :2], params[:, 2:].exp()), 1)
        torch.testing.assert_close(head.entropy(params), theirs.entropy())
        other = params_of(head, 50, seed=4)
        expected = kl_divergence(theirs, Independent(Normal(other[:, :2], other[:, 2:].exp()), 1))
        torch.testing.assert_close(head.kl(params, other), expected)
    else:
        rest = params[:, 3:].reshape(50, 3, 4)
        each = Independent(Normal(rest[..., :2], rest[..., 2:].exp()), 1)
        theirs = MixtureSameFamily(TorchCategorical(logits=params[:, :3]), each)
    torch.testing.assert_close(head.log_prob(params, value), theirs.log_prob(value))


def test_a_squashed_density_integrates_to_one_and_stays_in_its_bounds():
    head, params = SquashedGaussian(1, -1.0, 3.0), torch.tensor([0.4, -0.7], dtype=torch.float64)
    grid = torch.linspace(-1, 3, 400_001, dtype=torch.float64)[1:-1].unsqueeze(-1)
    mass = head.log_prob(params.expand(len(grid), 2), grid).exp().sum() * (4 / 400_000)
    assert mass.item() == pytest.approx(1, abs=1e-6)
    drawn = head.sample(params.float().expand(20_000, 2), uniform((20_000, 1), generator(1)))
    assert drawn.min() > -1
    assert drawn.max() < 3
    assert torch.isfinite(head.log_prob(params.float(), torch.tensor([3.0])))


@pytest.mark.parametrize("head", [Gaussian(2), SquashedGaussian(2, 0.0, 1.0), Mixture(2, 3)], ids=str)
def test_samples_have_the_entropy_of_their_density(head):
    """Mean of -log p over samples is the entropy: equal for a Gaussian, below the stated bound for a mixture."""
    draws = 40_000
    params = params_of(head, seed=3).expand(draws, head.params)
    surprise = -head.log_prob(params, head.sample(params, uniform((draws, head.noise), generator(5), torch.float64)))
    margin = 5 * surprise.std().item() / math.sqrt(draws)
    if isinstance(head, Gaussian):
        assert abs(surprise.mean() - head.entropy(params[0])) < margin
    elif isinstance(head, Mixture):
        assert surprise.mean() < head.entropy(params[0]) + margin


def test_uniform_noise_becomes_standard_normal():
    z = standard_normal(uniform((40_000,), generator(8)))
    assert abs(z.mean()) < 5 / math.sqrt(40_000)
    assert abs(z.var() - 1) < 5 * math.sqrt(2 / 40_000)
    assert torch.isfinite(standard_normal(torch.tensor([0.0, 1 - 2.0**-24]))).all()
    np.testing.assert_allclose(standard_normal(torch.tensor([0.975], dtype=torch.float64)), 1.959964, atol=1e-5)


def test_multi_categorical_is_a_product_of_categoricals():
    head, params = MultiCategorical((3, 2)), params_of(MultiCategorical((3, 2)), 20)
    actions = torch.stack([torch.arange(20) % 3, torch.arange(20) % 2], dim=-1)
    a, b = TorchCategorical(logits=params[:, :3]), TorchCategorical(logits=params[:, 3:])
    torch.testing.assert_close(head.log_prob(params, actions), a.log_prob(actions[:, 0]) + b.log_prob(actions[:, 1]))
    torch.testing.assert_close(head.entropy(params), a.entropy() + b.entropy())


def test_heads_that_do_not_fit_the_actions_are_refused():
    assert make_head(Discrete(3)) == Categorical(3)
    assert make_head(MultiDiscrete((3, 2))) == MultiCategorical((3, 2))
    with pytest.raises(ConfigError, match="continuous"):
        make_head(Discrete(3), "gaussian")
    with pytest.raises(ConfigError, match="finite bounds"):
        make_head(Continuous(1, -math.inf, math.inf), "squashed")
    with pytest.raises(ConfigError, match="Did you mean `mixture`"):
        make_head(Continuous(1), "mixtur")
