"""Skill is the share of choices made as others make them; who is careless counts less, and is named."""

from functools import partial

import pytest
import torch

from understudy.algorithms import bc
from understudy.cli import main
from understudy.core.errors import DemosError
from understudy.core.random import generator
from understudy.demos import Demos
from understudy.envs import tabular
from understudy.nets import NetConfig
from understudy.rollout import Scripted, record
from understudy.trust import skills, trust, weighed

TABLE = bc.Config(net=NetConfig(layers=0), rate=0.2, weight_decay=0.0, held_out=0.0, limit=40, batch=256)
STATES, MOVES = 5, 4


def test_a_skill_is_the_likeliest_one():
    """Of n choices that the clone foresees and m that it thinks impossible: (n + 1) / (n + m + 2), chance small."""
    surprise = torch.tensor([0.0, 0.0, 0.0, 200.0]).reshape(1, 4, 1).expand(2, -1, 2)
    chance = torch.full_like(surprise, 30.0)
    found = skills(surprise, chance, torch.ones_like(surprise, dtype=torch.bool), torch.tensor([0, 1]))
    torch.testing.assert_close(found, torch.full((2,), (6 + 1) / (8 + 2)), atol=1e-4, rtol=0)
    counts = torch.ones_like(surprise, dtype=torch.bool)
    counts[1, 3] = False
    torch.testing.assert_close(
        skills(surprise, chance, counts, torch.tensor([0, 1]))[1], torch.tensor(7 / 8), atol=1e-4, rtol=0
    )


def people(careless, episodes=6, horizon=40):
    """Demonstrators of one game who play its only sensible move but for a share of moves made by chance."""
    play = torch.zeros(STATES, MOVES, dtype=torch.float64)
    play[torch.arange(STATES), torch.arange(STATES) % MOVES] = 1
    game = tabular.MarkovGame(
        transition=torch.full((STATES, MOVES, STATES), 1 / STATES, dtype=torch.float64),
        reward=torch.zeros(1, STATES, MOVES, dtype=torch.float64),
        start=torch.full((STATES,), 1 / STATES, dtype=torch.float64),
        choices=(MOVES,),
        horizon=horizon,
        play=play,
    )
    made = []
    for who, share in enumerate(careless):

        def expert(env, view, noise, share=share):
            by_chance = (noise[..., 1] * MOVES).long()
            return torch.where(noise[..., 2] < share, by_chance, tabular.expert(env, view, noise))

        for episode in record(game, Scripted(game, expert), episodes, generator(who)):
            episode.info = {"player": f"p{who}"}
            made.append(episode)
    return Demos.from_episodes(game.spec, made)


def test_everybodys_carelessness_is_found_by_the_others():
    careless = (0.0, 0.05, 0.1, 0.5, 0.8)
    demos = people(careless)
    found = trust(demos, by="player", config=TABLE)
    torch.testing.assert_close(found.skill, 1 - torch.tensor(careless), atol=0.13, rtol=0)
    assert found.skill.argsort(descending=True)[-2:].tolist() == [3, 4]
    weights = found.weights.reshape(5, -1)
    assert (weights == weights[:, :1]).all() and weights.mean() == pytest.approx(1.0)
    assert weights[4, 0] < 0.1 * weights[0, 0]


def test_a_clone_of_the_weighed_errs_less_than_one_of_all():
    demos = people((0.0, 0.0, 0.9, 0.9, 0.9))
    right = people((0.0,), episodes=20)

    def clone_of(some):
        return bc.score(bc.clone(TABLE, some, generator(0)), right).log_prob.exp().mean().item()

    plain = clone_of(demos)
    assert plain == pytest.approx(0.4 + 0.6 * (0.1 + 0.9 / MOVES), abs=0.08)
    assert clone_of(weighed(demos, trust(demos, by="player", config=TABLE))) > plain + 0.2


def test_the_episode_and_step_that_are_unlike_the_rest_are_named(tmp_path, capsys, monkeypatch):
    demos = people((0.02,), episodes=12, horizon=20)
    odd = demos[7]
    odd.actions = odd.actions.clone()
    odd.actions[11:14] = (odd.actions[11:14] + 2) % MOVES
    episodes = list(demos)
    episodes[7] = odd
    demos = Demos.from_episodes(demos.spec, episodes)
    judge = partial(trust, config=TABLE, rounds=1, folds=2)
    found = judge(demos)
    first = found.table(3).rows[0]
    assert first[0] == 7 and first[5] in (11, 12, 13) and first[3] > 3
    assert len(found.table(3).rows) == 3
    demos.save(tmp_path / "demos")
    monkeypatch.setattr("understudy.trust.trust", judge)
    assert main(["demos", "unlike", str(tmp_path / "demos")]) == 0
    heads, *rows = capsys.readouterr().out.splitlines()
    assert heads.split()[:2] == ["episode", "agent"] and rows[0].split()[:2] == ["7", "agent_0"]


def test_who_cannot_be_judged_by_others_is_refused():
    demos = people((0.0,), episodes=2)
    with pytest.raises(DemosError, match="two demonstrators or more, and here are 1"):
        trust(demos, by="player", config=TABLE)
    with pytest.raises(DemosError, match="episode 0 does not say its 'coach'"):
        trust(demos, by="coach", config=TABLE)
    with pytest.raises(DemosError, match="rounds: got 0"):
        trust(demos, rounds=0, config=TABLE)
