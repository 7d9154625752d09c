import torch

from understudy.core.random import generator
from understudy.core.types import Discrete, EnvSpec, View
from understudy.nets import Values

SPEC = EnvSpec(agents=3, obs=5, action=Discrete(4))


def test_following_the_returns_changes_no_value():
    values, view = Values(SPEC, generator(0), central=True), View(torch.randn(8, 3, 5, generator=generator(1)))
    before = values(view)
    for scale in (1.0, 300.0, -20.0):
        values.observe_returns(scale * (1 + torch.rand(64, 3, generator=generator(2))))
        torch.testing.assert_close(values(view), before, rtol=1e-4, atol=1e-4)
    assert values.std > 1


def test_returns_seen_first_set_the_unit():
    values = Values(SPEC, generator(0), central=False)
    returns = 50 + 7 * torch.randn(5000, 3, generator=generator(3))
    values.observe_returns(returns)
    torch.testing.assert_close(values.mean, returns.mean())
    torch.testing.assert_close(values.std, returns.std(correction=0))


def test_central_values_see_the_others_and_own_values_do_not():
    view = View(torch.randn(1, 3, 5, generator=generator(1)))
    moved = View(view.obs + torch.tensor([0.0, 0.0, 1.0]).reshape(1, 3, 1))
    for central in (True, False):
        values = Values(SPEC, generator(0), central=central)
        same = torch.isclose(values(view), values(moved))[0, :2]
        assert same.all() if not central else not same.any()
