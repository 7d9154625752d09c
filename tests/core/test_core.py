import pytest
import torch

from understudy.core.errors import ConfigError, DemosError, ShapeError, expect_shape, nearest
from understudy.core.random import generator, split_seed, uniform
from understudy.core.tree import tree_cat, tree_leaves, tree_map, tree_put, tree_select, tree_stack, tree_take
from understudy.core.types import Continuous, Discrete, EnvSpec, MultiDiscrete, Segment, View, legal_size


def test_a_wrong_order_of_axes_is_named():
    with pytest.raises(ShapeError, match=r"actions: expected \[env=32, agent=3, action=2\], got \[3, 32, 2\].*order"):
        expect_shape("actions", torch.zeros(3, 32, 2), "env agent action", env=32, agent=3, action=2)
    expect_shape("actions", torch.zeros(32, 3, 2), "env agent action", env=32, action=2)


def test_the_nearest_name_is_suggested():
    assert "`discriminator_rate`" in nearest("discrimnator_rate", ["rate", "discriminator_rate"])


def test_a_file_cannot_ask_for_more_agents_than_could_be_named():
    with pytest.raises(ConfigError, match="agents: got 1,000,000,000"):  # at once, and not after gigabytes of names
        EnvSpec.from_json({"agents": 10**9, "obs": 3, "action": {"kind": "discrete", "choices": 2}})


def test_seeds_of_different_names_differ_and_repeat():
    assert split_seed(0, "a") == split_seed(0, "a") != split_seed(0, "b") != split_seed(1, "b")
    assert split_seed(0, "a", 1) != split_seed(0, "a1")
    torch.testing.assert_close(uniform((4,), generator(3, "x")), uniform((4,), generator(3, "x")))


def test_trees_of_dataclasses_map_select_put_and_stack():
    view = View(torch.arange(6.0).reshape(3, 2, 1))
    segment = Segment(view, torch.zeros(3, 2, dtype=torch.long), labels={"goal": torch.ones(3, 2)})
    assert [tuple(x.shape) for x in tree_leaves(segment)] == [(3, 2, 1), (3, 2), (3, 2)]
    doubled = tree_map(lambda x: x * 2, segment)
    chosen = tree_select(torch.tensor([True, False, True]), doubled, segment)
    assert chosen.obs[:, 0, 0].tolist() == [0, 2, 8]
    assert tree_put(view, torch.tensor([1]), tree_take(doubled.view, [2])).obs[:, 0, 0].tolist() == [0, 8, 4]
    assert view.obs[1, 0, 0] == 2, "the tree itself stays as it was"
    assert tree_stack([view, view]).obs.shape == (2, 3, 2, 1)
    assert tree_cat([view, view]).obs.shape == (6, 2, 1)


@pytest.mark.parametrize("action", [Discrete(5), MultiDiscrete((3, 2)), Continuous(2, -0.5, 0.5)])
def test_a_spec_survives_its_way_through_json(action):
    spec = EnvSpec(agents=2, obs=4, action=action, horizon=9, roles=("cook", "waiter"), dt=0.15, title="kitchen")
    assert EnvSpec.from_json(spec.to_json()) == spec
    assert spec.names == ("agent_0", "agent_1")
    assert legal_size(action) in (5, 0)


def test_a_spec_that_makes_no_sense_is_refused():
    with pytest.raises(ConfigError, match="names: got 1"):
        EnvSpec(agents=2, obs=1, action=Discrete(2), names=("only",))
    with pytest.raises(DemosError, match="Did you mean `discrete`"):
        EnvSpec.from_json({"agents": 1, "obs": 1, "action": {"kind": "discreet", "choices": 2}})
    with pytest.raises(ConfigError, match="low"):
        Continuous(1, 1.0, -1.0)
