import pytest
import torch

from understudy import api
from understudy.algorithms import malice
from understudy.core.errors import ConfigError, DemosError, EnvError
from understudy.core.random import generator
from understudy.demos.tables import count_table
from understudy.envs import tabular
from understudy.maths import games
from understudy.maths.games import game_of
from understudy.nets import NetConfig

QUIET = api.Habits(show=False)


def slow_loss(log_play, told, visits):
    """Over recorded steps one by one: rho(s) * -log pi(a|s), rho the ratio of the shares of steps in a state."""
    steps = [(s, j) for s in range(len(told)) for j in range(told.shape[1]) for _ in range(int(told[s, j]))]
    covered = {s for s, _ in steps}
    visited = sum(float(visits[s]) for s in covered)
    total = 0.0
    for s, j in steps:
        rho = (float(visits[s]) / visited) / (sum(float(x) for x in told[s]) / len(steps))
        total -= rho * float(log_play[s, j])
    return total / len(steps)


@pytest.mark.parametrize("seed", range(3))
def test_states_weigh_as_they_are_visited_however_often_recorded(seed):
    source = generator(seed)
    told = torch.randint(0, 4, (5, 6), generator=source).double()
    told[2] = 0  # never recorded
    visits = torch.rand(5, generator=source, dtype=torch.float64)
    logits = torch.randn(5, 6, generator=source, dtype=torch.float64).requires_grad_()
    loss = games.visited_loss(logits.log_softmax(-1), told, visits)
    assert loss.item() == pytest.approx(slow_loss(logits.detach().log_softmax(-1), told, visits), abs=1e-12)
    (gradient,) = torch.autograd.grad(loss, logits)
    for place in ((0, 1), (2, 3), (4, 5)):
        step = torch.zeros_like(logits)
        step[place] = 1e-6
        apart = [slow_loss((logits.detach() + sign * step).log_softmax(-1), told, visits) for sign in (1, -1)]
        assert gradient[place].item() == pytest.approx((apart[0] - apart[1]) / 2e-6, abs=1e-8)
    assert (gradient[2] == 0).all()
    assert games.visited_loss(logits.log_softmax(-1), told, torch.eye(5)[2].double()) == 0  # nothing to learn there


def test_unlikeness_is_the_divergence_from_what_was_counted():
    told = torch.tensor([[3.0, 1.0], [0.0, 2.0], [0.0, 0.0]], dtype=torch.float64)
    play = torch.tensor([[0.75, 0.25], [0.5, 0.5], [0.9, 0.1]], dtype=torch.float64)
    found = games.unlikeness(told, play.log())
    torch.testing.assert_close(found, torch.tensor([0.0, 0.6931471805599453, 0.0], dtype=torch.float64))


def test_the_worst_case_is_what_the_worst_deviation_meets():
    env = tabular.on_off(10)
    game, even = game_of(env), torch.full((3, 4), 0.25, dtype=torch.float64)
    off = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
    worst, visits = games.worst_case(game, even, off)  # whoever leaves at once is off the path for 9 steps of 10
    assert worst == 9 and visits.tolist() == [1, 0, 9]
    worst, visits = games.worst_case(game, env.play, 1 - off, "external")  # obeying does not meet it
    assert worst == 10 and visits.tolist() == [1, 9, 0]


@pytest.mark.slow
def test_a_clone_weighed_anew_has_less_regret_where_recordings_are_rare_and_the_net_is_small():
    """One step of 200 slips off the path; three hidden units cannot serve all states alike."""
    env = tabular.thicket(slip=0.005)
    demos = api.record(env, episodes=500)
    config = malice.Config(rounds=20, net=NetConfig(layers=1, hidden=3))
    weighed = api.train("malice", demos, env, config=config, habits=QUIET)
    clone, told = malice.init(config, demos, env, generator(0, "init")), count_table(demos, game_of(env)).sum(0)
    for _ in range(config.rounds * config.steps):
        log_play = malice.log_table(clone.policy, env.choices, env.spec.obs)
        loss = games.visited_loss(log_play, told, told.sum(-1))  # as often as recorded: cloning
        malice.ppo.descend(clone.optimizer, loss, config.max_grad_norm)
    assert weighed.metrics[-1]["uncovered"] == 0
    assert api.regret(weighed, env)["regret gap"].value < 0.5 * api.regret(clone.policy, env)["regret gap"].value


def test_what_no_recording_covers_is_told():
    env = tabular.on_off(10, guarded=True)
    run = api.train("malice", api.record(env, episodes=8), env, config={"rounds": 6}, habits=QUIET)
    assert run.metrics[-1]["uncovered"] == pytest.approx(0.9)  # 9 steps of 10 can be spent off the path
    found = api.regret(run, env)
    assert abs(found["value gap"].value) < 0.05 and found["regret gap"].value > 4


def test_what_it_cannot_do_without_is_asked_for():
    env = tabular.on_off()
    demos = api.record(env, episodes=2)
    with pytest.raises(DemosError, match="give it demos and env"):
        malice.init(malice.Config(), None, env, generator(0))
    with pytest.raises(EnvError, match="has no tables"):
        api.train("malice", demos, _Untold(env), updates=1, habits=QUIET)
    with pytest.raises(EnvError, match="remembers"):
        api.train("malice", demos, env, config={"net": {"body": "gru"}}, updates=1, habits=QUIET)
    for wrong in ({"rounds": 0}, {"rate": 0.0}, {"discount": 1.5}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            malice.Config(**wrong)


class _Untold:
    """A game that keeps its tables to itself."""

    def __init__(self, env):
        self.spec, self.reset, self.observe, self.step = env.spec, env.reset, env.observe, env.step
