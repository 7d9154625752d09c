import pytest
import torch

from understudy import api
from understudy.algorithms import blades
from understudy.core.errors import ConfigError, EnvError
from understudy.core.random import generator
from understudy.envs import tabular
from understudy.maths.games import game_of
from understudy.nets import NetConfig, build_policy
from understudy.rollout import Queried

QUIET = api.Habits(show=False)


@pytest.mark.parametrize(("deviations", "guarded"), [("swap", True), ("external", False)])
def test_asking_off_the_path_takes_the_regret_away_that_cloning_leaves(deviations, guarded):
    """S1: value gap 0 and regret gap 9 without; who asks there has neither."""
    env = tabular.on_off(10, guarded)
    demos = api.record(env, episodes=32)
    config = {"deviations": deviations, "rounds": 20, "rate": 0.1}
    run = api.train("blades", demos, env, config=config, habits=QUIET)
    found = api.regret(run, env, deviations=deviations)
    assert run.metrics[-1]["known"] == 3
    assert abs(found["value gap"].value) < 1e-3 and found["regret gap"].value < 0.05


def test_it_finds_every_state_that_a_deviation_leads_to_without_a_recording():
    env = tabular.thicket()
    run = api.train("blades", None, env, config={"rounds": 10, "steps": 40, "rate": 0.1}, habits=QUIET)
    assert run.state.told.sum(-1).gt(0).all()
    assert api.regret(run, env)["regret gap"].value < 2  # of 19


def test_answers_are_the_experts_and_are_asked_where_deviations_lead():
    env = tabular.chicken()
    asked = Queried(env, api.expert_of(env), "its own")
    told = blades.ask(asked, game_of(env), torch.ones(1, dtype=torch.float64), 3000, generator(0))
    assert told.sum() == 3000 and told[0, 0] == 0
    assert (told[0, 1:] / 3000 - 1 / 3).abs().max() < 5 * (2 / 9 / 3000) ** 0.5  # five standard errors
    unlike = tabular.matrix_game(torch.rand(3, 2, 4, 3, generator=generator(1)))
    asked = Queried(unlike, build_policy(NetConfig(hidden=4), unlike.spec, generator(2)), "a net")
    told = blades.ask(asked, game_of(unlike), torch.ones(1, dtype=torch.float64), 500, generator(3))
    assert told.sum() == 500 and told.shape == (1, 24)
    visits = torch.tensor([0.0, 1.0, 3.0], dtype=torch.float64)
    path = tabular.on_off()
    told = blades.ask(Queried(path, api.expert_of(path), "its own"), game_of(path), visits, 4000, generator(4))
    assert told[0].sum() == 0 and abs(told[2].sum() / 4000 - 0.75) < 5 * (3 / 16 / 4000) ** 0.5


def test_recordings_are_answers_too():
    env = tabular.on_off(10)
    asked = Queried(env, api.expert_of(env), "its own")
    state = blades.init(blades.Config(), api.record(env, episodes=7), asked, generator(0))
    assert state.told.sum(-1).tolist() == [7, 63, 0]


def test_an_expert_who_can_be_asked_is_needed():
    env = tabular.on_off()
    with pytest.raises(ConfigError, match="hand in one"):
        blades.init(blades.Config(), None, env, generator(0))
    forgetful = build_policy(NetConfig(body="gru", hidden=4), env.spec, generator(0))
    with pytest.raises(EnvError, match="single states"):
        blades.init(blades.Config(), None, Queried(env, forgetful, "a net"), generator(0))
    for wrong in ({"asked": 0}, {"rate": 0.0}, {"discount": -0.5}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            blades.Config(**wrong)
