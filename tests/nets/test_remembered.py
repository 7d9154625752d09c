"""Policies that read what they remember: what reaches whom, and what is forgotten."""

import pytest
import torch

from understudy.core.errors import ConfigError
from understudy.core.random import generator, uniform
from understudy.core.tree import tree_put
from understudy.core.types import Discrete, EnvSpec, View
from understudy.nets import NetConfig, build_policy


def made(body, **settings):
    spec = EnvSpec(agents=3, obs=5, action=Discrete(4))
    policy = build_policy(NetConfig(body=body, hidden=16, layers=1, **settings), spec, generator(0))
    for out in policy.outs:
        out.weight.data.mul_(50)
    return policy.double()


def logits(policy, obs, starts=None):
    actions = torch.zeros(obs.shape[:3], dtype=torch.long)
    with torch.no_grad():
        return policy.params(View(obs), actions, starts=starts)[0]


def moved(policy, agent, time, length=6):
    """Whose logits, and when, change with what `agent` sees at `time`: Bool[time agent]."""
    obs = torch.randn(1, length, 3, 5, dtype=torch.float64, generator=generator(1))
    other = obs.clone()
    other[:, time, agent] += 1.0
    return (logits(policy, obs) - logits(policy, other)).abs().amax(dim=(0, 3)) > 1e-9


def test_who_acts_by_itself_knows_its_own_past_and_a_scene_everybodys():
    alone, together = moved(made("history"), 1, 2), moved(made("scene"), 1, 2)
    assert torch.equal(alone[:, 1], torch.arange(6) >= 2) and not alone[:, [0, 2]].any()
    assert torch.equal(together, (torch.arange(6) >= 2).unsqueeze(-1).expand(-1, 3))


def test_an_episode_that_begins_anew_beside_others_knows_nothing_of_the_one_before():
    policy, begins = made("scene"), 4
    obs = torch.randn(3, 8, 3, 5, dtype=torch.float64, generator=generator(2))
    starts = torch.zeros(3, 8, dtype=torch.bool)
    starts[:, 0] = starts[1, begins] = True
    found = logits(policy, obs, starts)
    torch.testing.assert_close(found[1:2, begins:], logits(policy, obs[1:2, begins:]))
    torch.testing.assert_close(found[[0, 2]], logits(policy, obs[[0, 2]]))
    noise, memory = uniform((8, 3, 3, 1), generator(3), torch.float64), policy.start(3)
    with torch.no_grad():
        for t in range(8):
            if t == begins:
                memory = tree_put(memory, torch.tensor([1]), policy.start(1))
            actions, memory = policy.act(View(obs[:, t]), memory, noise[t])
            assert torch.equal(actions, policy.head.sample(found[:, t], noise[t]))


@pytest.mark.parametrize("body", ["history", "scene"])
@pytest.mark.parametrize("share", ["inner_dropout", "input_dropout"])
def test_what_is_hidden_is_hidden_from_the_learner_alone_and_from_each_member_by_itself(body, share):
    policy = made(body, members=2, **{share: 0.5})
    policy.bodies[1].load_state_dict(policy.bodies[0].state_dict())
    policy.outs[1].load_state_dict(policy.outs[0].state_dict())
    obs, actions = torch.randn(2, 5, 3, 5, dtype=torch.float64, generator=generator(1)), torch.zeros(2, 5, 3).long()
    (one, other), _ = policy.of_members(View(obs), actions, chance=generator(4))
    assert (one - other).abs().max() > 1e-3, "each member loses other features"
    (again, _), _ = policy.of_members(View(obs), actions, chance=generator(4))
    assert torch.equal(one, again), "the same chance hides the same"
    (one, other), _ = policy.of_members(View(obs), actions)
    assert torch.equal(one, other), "nothing is hidden without chance"


def test_only_what_is_read_after_remembering_can_be_hidden_inside():
    with pytest.raises(ConfigError, match="inner_dropout: got"):
        NetConfig(body="gru", inner_dropout=0.5)
    with pytest.raises(ConfigError, match="hidden: got 18"):
        NetConfig(body="scene", hidden=18)
