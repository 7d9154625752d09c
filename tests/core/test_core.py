import pytest
import torch

from understudy.core.errors import ConfigError, DemosError, ShapeError, expect_shape, nearest
from understudy.core.files import from_json
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
    with pytest.raises(DemosError, match="agents: got 1,000,000,000"):  # at once, and not after gigabytes of names
        EnvSpec.from_json({"agents": 10**9, "obs": 3, "action": {"kind": "discrete", "choices": 2}})


PLAIN = {"agents": 2, "obs": 3, "action": {"kind": "discrete", "choices": 2}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dt": "x"}, "dt of a spec: expected a number or none, got 'x'"),
        ({"dt": 0}, "dt: got 0.0"),
        ({"dt": -1}, "dt: got -1.0"),
        ({"dt": 10**400}, "dt of a spec: expected a number"),
        ({"agents": 2.0}, "agents of a spec: expected a whole number"),
        ({"agents": True}, "agents of a spec: expected a whole number"),
        ({"names": [1, 2]}, "names of a spec"),
        ({"names": "ab"}, "names of a spec"),
        ({"roles": [["cook"], "cook"]}, "roles of a spec"),
        ({"obs_sizes": [3, 4]}, "obs_sizes: got"),
        ({"action_sizes": [2, -1]}, "action_sizes: got"),
        ({"obs": 10**12}, "obs: got 1,000,000,000,000"),
        ({"whole": -1}, "whole: got -1"),
        ({"horizon": "9"}, "horizon of a spec"),
        ({"tilte": "x"}, "unknown setting `tilte` for a spec. Did you mean `title`?"),
        ({"action": None}, "action: None came"),
        ({"action": {"kind": ["discrete"]}}, "unknown kind of action"),
        ({"action": {"kind": "discrete", "choices": 10**12}}, "choices: got 1,000,000,000,000"),
        ({"action": {"kind": "discrete", "choices": 2.5}}, "choices of an action of kind 'discrete'"),
        ({"action": {"kind": "multi_discrete", "choices": [2, "3"]}}, "choices of an action"),
        ({"action": {"kind": "multi_discrete", "choices": [2**20, 1]}}, "choices of all parts: got 1,048,577"),
        ({"action": {"kind": "continuous", "size": 2, "low": "nan"}}, "low, high: got nan"),
        ({"action": {"kind": "continuous"}}, "`size` must be given"),
    ],
)
def test_a_spec_in_a_file_that_is_none_is_refused_in_one_line(changes, message):
    assert EnvSpec.from_json(PLAIN).agents == 2
    with pytest.raises(DemosError) as refused:
        EnvSpec.from_json(PLAIN | changes)
    assert message in str(refused.value) and "\n" not in str(refused.value)


def test_what_a_message_quotes_neither_floods_nor_steers_the_terminal():
    said = str(DemosError("first: \x1b[2J\x07 \ud800\nsecond: " + "x" * 10**6 + ". Do this."))
    first, second = said.split("\n")
    assert first == r"first: \x1b[2J\x07 \ud800"
    assert len(second) < 1100 and second.endswith("x. Do this.") and " ... " in second
    assert len(nearest("y" * 10**6, ["yes", "no"])) < 50, "and at once"


def test_json_that_readers_could_take_for_two_things_is_refused():
    assert from_json('{"a": [1, {"b": null}]}') == {"a": [1, {"b": None}]}
    for text, said in {'{"a": {"b": 1, "c": 2, "b": 3}}': "'b' is there twice", '{"a": NaN}': "NaN is no JSON"}.items():
        with pytest.raises(ValueError, match=said):
            from_json(text)


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
