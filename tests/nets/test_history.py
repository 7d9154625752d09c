"""Policies with the trunk of scene models: what reaches whom, and how far back."""

import torch

from understudy.core.random import generator, uniform
from understudy.core.tree import tree_put
from understudy.core.types import Discrete, EnvSpec, View
from understudy.nets import NetConfig, build_policy, history


def made(body, **settings):
    spec = EnvSpec(agents=3, obs=5, action=Discrete(4))
    policy = build_policy(NetConfig(body=body, hidden=16, layers=2, **settings), spec, generator(0))
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


def test_who_acts_by_itself_knows_its_own_past_and_a_scene_everybodys(monkeypatch):
    alone, together = moved(made("history"), 1, 2), moved(made("scene"), 1, 2)
    assert torch.equal(alone[:, 1], torch.arange(6) >= 2) and not alone[:, [0, 2]].any()
    assert torch.equal(together, (torch.arange(6) >= 2).unsqueeze(-1).expand(-1, 3))


def test_what_is_further_back_than_its_reach_is_forgotten(monkeypatch):
    """Each of two blocks reaches two frames back; played on and on, what was kept is as far as that."""
    monkeypatch.setattr(history, "REACH", 3)
    policy = made("history")
    assert moved(policy, 1, 0)[:, 1].tolist() == [True, True, True, True, True, False]
    obs = torch.randn(2, 9, 3, 5, dtype=torch.float64, generator=generator(2))
    noise, memory = uniform((9, 2, 3, 1), generator(3), torch.float64), policy.start(2)
    whole = policy.head.sample(logits(policy, obs), noise.transpose(0, 1))
    with torch.no_grad():
        for t in range(9):
            actions, memory = policy.act(View(obs[:, t]), memory, noise[t])
            assert torch.equal(actions, whole[:, t])


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
