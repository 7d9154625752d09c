"""Who is told the way back pays for errors once, not for ever; nobody is asked more than was allowed."""

import math
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch

from understudy import api
from understudy.algorithms import bc, dagger
from understudy.core.errors import ConfigError, DemosError, EnvError, RunError
from understudy.core.random import generator
from understudy.core.symmetry import elsewhere
from understudy.core.types import Segment, View
from understudy.demos import Demos, Episode
from understudy.envs import tabular
from understudy.nets import NetConfig, build_policy
from understudy.rollout import Scripted, choosing, play, record
from understudy.runs.loop import Habits, describe

QUIET = Habits(show=False, threads=1)
TABLE = NetConfig(layers=0)  # on the one-hot states of tabular games: a table
CLONE = bc.Config(net=TABLE, rate=0.1, weight_decay=0.0, held_out=0.0, limit=60, batch=64)


def learn(env, demos=None, expert=None, rounds=4, seed=0, **settings):
    settings = {"clone": CLONE, "envs": 8, "steps": 40} | settings
    config = dagger.Config(rounds=rounds, **settings)
    return api.train(dagger, demos, env, config=config, seed=seed, habits=QUIET, expert=expert)


def chances(policy, states):
    """[state, agent, move], of a game whose agents see the state as one-hot numbers."""
    agents = policy.spec.agents
    view = View(torch.eye(states).reshape(states, 1, 1, states).expand(-1, -1, agents, -1))
    params, _ = policy.params(view, torch.zeros(states, 1, agents, dtype=torch.long))
    return params.squeeze(1).softmax(-1)


# ---- answers known on paper


def way_back(agents=1, horizon=50):
    """`slip_chain` where another move leads back from off the path than keeps one on it: it cannot be guessed."""
    game = tabular.slip_chain(agents, horizon)
    back, play = game.transition.clone(), game.play.clone()
    back[1] = game.transition[1].flip(0)  # all moves 1 lead on, all else stays off
    play[1] = game.play[1].flip(0)
    reward = torch.stack([torch.stack([row[0], row[1].flip(0)]) for row in game.reward])
    return replace(game, transition=back, play=play, reward=reward)


def cost(e, r, horizon):
    """Of who errs with e on the path and returns with r: see `tabular.slip_chain`."""
    k, c = 1 - e - r, e / (e + r)
    return c * (horizon - k * (1 - k**horizon) / (1 - k))


FEW = replace(CLONE, limit=20)  # gradient steps: some error stays


@pytest.mark.parametrize("horizon", [10, 50])
def test_errors_cost_a_clone_their_square_and_who_was_told_the_way_back_their_number(horizon):
    """Towards e H^2 / 2, and e H: both learners' returns are those of the closed form for how they err."""
    game = way_back(horizon=horizon)
    demos = api.record(game, episodes=40)
    found = {}
    for name, policy in (
        ("clone", bc.clone(FEW, demos, generator(0))),
        ("told", learn(game, demos, clone=FEW, steps=10).policy),
    ):
        chance = chances(policy, 2)[:, 0]
        e, r = chance[0, 1].item(), chance[1, 1].item()
        played = play(game, policy, 1000, generator(1))
        returns = played.rewards.sum(1)
        assert -returns.mean().item() == pytest.approx(
            cost(e, r, horizon), abs=5 * (horizon * cost(e, r, horizon) / 1000) ** 0.5
        )
        found[name] = e, r, cost(e, r, horizon)
    e, r, clone = found["clone"]
    assert e < 0.1 and r < 0.1, "where nobody went nobody learnt to return"
    assert 4 * e * horizon < clone < e * horizon * (horizon + 1) / 2
    e, r, told = found["told"]
    assert e < 0.1 and r > 0.9
    assert told < 1.2 * e * horizon


def off_path(horizon=10):
    """`on_off` with a second agent who moves 1 where it is seen, for nothing, and 0 where the first would gain."""
    game = tabular.on_off(horizon)
    play = torch.zeros_like(game.play)
    play[:2, 1] = 1  # (0, 1)
    play[2, 0] = 1  # (0, 0)
    return replace(game, play=play)


def gain_of_deviating(policy, horizon):
    """What the first agent would be paid at most: it goes to state 2, where each move 1 of the second pays 1."""
    return (horizon - 1) * chances(policy, 3)[2, 1, 1].item()


def test_asked_where_one_agent_deviates_it_leaves_nobody_a_gain():
    """The expert's regret is 0. A clone's is H - 1, and so it stays where only the path is asked about."""
    game = off_path()
    demos = api.record(game, episodes=20)
    assert gain_of_deviating(learn(game, demos, rounds=2, steps=20).policy, 10) > 8.5
    assert gain_of_deviating(learn(game, demos, deviations=0.5, steps=20).policy, 10) < 0.3


def test_from_nothing_the_expert_plays_the_first_round():
    game = tabular.crossing()
    run = learn(game, envs=4)
    assert run.metrics[-1]["beta"] == pytest.approx(1 / 4), "a mean over four rounds: the first is the expert's"
    returns = play(game, run.policy, 200, generator(1)).rewards.sum(1)
    assert returns.mean() > 95


# ---- memory


@dataclass(frozen=True)
class Recall:
    """A bit is shown at the first step alone; whoever says it at the last is paid 1."""

    steps: int = 4
    asked: list = field(default_factory=list, compare=False)

    @property
    def spec(self):
        return tabular.EnvSpec(agents=2, obs=3, action=tabular.Discrete(2), horizon=self.steps, reset_noise=2)

    def reset(self, noise):
        return torch.stack([(noise > 0.5).float(), torch.zeros_like(noise)], dim=-1)  # [env, agent, bit and age]

    def observe(self, state):
        bit, age = state.unbind(-1)
        return torch.stack([bit * (age == 0), (1 - bit) * (age == 0), age], dim=-1)

    def step(self, state, actions, noise):
        bit, age = state.unbind(-1)
        right = (actions == bit) & (age == self.steps - 1)
        return torch.stack([bit, age + 1], dim=-1), right.float(), torch.zeros(len(state), dtype=torch.bool)

    def whole(self, state):
        return state[..., 0]


def reminder(env, view, noise):
    env.asked.append(len(view.obs))
    return view.whole.long()


@pytest.mark.parametrize(("net", "right"), [(NetConfig(hidden=16), 0.5), (NetConfig(hidden=16, body="gru"), 1.0)])
def test_a_learner_with_memory_learns_what_an_expert_knows_from_earlier(net, right):
    game = Recall()
    clone = replace(CLONE, net=net, window=3, burn_in=1, rate=1e-2, batch=192)
    run = learn(game, expert=reminder, rounds=4, clone=clone, envs=32, steps=80)
    returns = play(game, run.policy, 400, generator(1)).rewards.sum(1)
    assert returns.mean().item() == pytest.approx(right, abs=0.12 if right < 1 else 0.03)


def test_windows_show_every_step_alike_often_and_never_two_episodes():
    lengths, window = [1, 2, 7, 3], 3
    starts = torch.cat([torch.arange(n) == 0 for n in lengths])
    episode = torch.repeat_interleave(torch.arange(4), torch.tensor(lengths))
    steps = len(starts)
    yes = torch.ones(steps, 1, dtype=torch.bool)
    number = torch.arange(steps)
    told = dagger.Told(number.reshape(-1, 1, 1).float(), yes.unsqueeze(-1), yes, number.unsqueeze(-1), yes, starts)
    part = dagger._drawn(told, 60_000, window, generator(0))
    valid, drawn = part.told[..., 0], part.actions[..., 0]
    seen = drawn[valid]
    share = torch.bincount(seen, minlength=steps) / len(seen)
    torch.testing.assert_close(share, torch.full((steps,), 1 / steps), atol=5 * (steps * 150_000) ** -0.5, rtol=0)
    assert ((episode[drawn] == episode[drawn[:, :1]]) | ~valid).all()
    assert (part.starts == (starts[drawn] & valid)).all()


def test_what_was_told_is_seen_from_every_side():
    """A walker told at one place alone what to do knows it at the places that a turn or a mirror makes of it."""
    env = api.make_env("simple", horizon=1)
    one = torch.tensor([[[0.0, 0.0, 1.0, 0.2]]])  # the landmark lies towards +x, and the expert walks there
    yes = torch.ones(1, 1, dtype=torch.bool)
    told = dagger.Told(one, torch.ones(1, 1, 5, dtype=torch.bool), yes, torch.tensor([[2]]), yes, yes[:, 0])
    towards = {(1, 0): 2, (-1, 0): 1, (0, 1): 4, (0, -1): 3}
    found = set()
    for seed in range(60):
        seen = elsewhere(env.symmetries(), dagger._as_segment(told), generator(seed))
        x, y = seen.obs[0, 0, 2:].round().int().tolist()
        assert seen.actions.item() == towards[x, y]
        found.add(tuple(seen.obs.flatten().tolist()))
    assert len(found) == 8


@pytest.mark.parametrize("seed", range(5))
def test_the_loss_and_its_gradient_are_those_of_a_slow_twin_of_what_was_told(seed):
    """- mean of log softmax at the expert's move, over the agents and steps that it spoke of; float64."""
    game = tabular.slip_chain(agents=2)
    policy = build_policy(TABLE, game.spec, generator(seed)).double()
    source = generator(seed, "steps")
    seen = torch.randint(2, (6, 4), generator=source)
    obs = torch.nn.functional.one_hot(seen, 2).double().unsqueeze(2).expand(-1, -1, 2, -1)
    moves = torch.randint(2, (6, 4, 2), generator=source)
    told = torch.rand(6, 4, 2, generator=source) < 0.5
    loss = bc.clone_loss(policy, Segment(View(obs), moves), CLONE, generator(0), told)
    loss.backward()
    weight, bias = (x.detach().numpy() for x in (policy.outs[0].weight, policy.outs[0].bias))
    slow, gradient = 0.0, np.zeros_like(weight)
    for e, t, i in told.nonzero().tolist():
        x = obs[e, t, i].numpy()
        logits = weight[i] @ x + bias[i]
        p = np.exp(logits) / np.exp(logits).sum()
        slow -= math.log(p[moves[e, t, i]]) / int(told.sum())
        gradient[i] += np.outer(p - np.eye(2)[moves[e, t, i]], x) / int(told.sum())
    assert loss.item() == pytest.approx(slow, abs=1e-8)
    np.testing.assert_allclose(policy.outs[0].weight.grad.numpy(), gradient, atol=1e-8)


# ---- who is asked, where, and how often


def asking(game, learner, share=0.0, budget=math.inf, **settings):
    config = dagger.Config(clone=replace(CLONE, net=learner.config), **settings)
    return dagger.Asking(config, api.queried(game), learner, share, budget)


def table_policy(game, logits):
    """A policy of a tabular game with these logits, [state, agent, move]."""
    policy = build_policy(TABLE, game.spec, generator(0))
    policy.outs[0].weight.data.copy_(logits.permute(1, 2, 0))
    return policy


@pytest.mark.parametrize("query", ["joint", "agent"])
@pytest.mark.parametrize("budget", [1, 7, 30])
def test_a_budget_is_spent_to_the_last_answer_and_no_further(query, budget):
    game = tabular.slip_chain(agents=2, horizon=5)
    run = learn(game, query=query, budget=budget, rounds=2, envs=3)
    spent = budget - budget % 2 if query == "joint" else budget  # a team of two is asked about as a whole
    assert run.state.queries == spent == int(run.state.told.told.sum())


def test_each_step_of_each_episode_is_asked_about_once_and_forced_moves_never():
    game = tabular.matching_pennies(repeats=5)
    assert learn(game, rounds=3, envs=4).state.queries == 3 * 4 * 5 * 2
    walk = api.make_env("speaker_listener", horizon=4)  # the speaker's moves beyond its own are barred
    played = play(walk, api.expert_of(walk), 2, generator(0))
    assert learn(walk, rounds=1, envs=2, clone=bc.Config()).state.queries == int(choosing(played).sum())


def test_recordings_count_by_the_choices_that_they_hold():
    """As what was told does: absence, forced moves and episodes without weight are no evidence."""
    spec = tabular.matching_pennies().spec
    there, legal = torch.ones(5, 2, dtype=torch.bool), torch.ones(5, 2, 2, dtype=torch.bool)
    there[:2, 1], legal[1:4, 0, 1] = False, False  # one is away for two steps of four, the other forced in three
    episode = Episode(torch.zeros(5, 2, spec.obs), torch.zeros(4, 2).long(), present=there, legal=legal)
    demos = Demos.from_episodes(spec, [replace(episode, weight=w) for w in (1.0, 0.0, 0.5)])
    game = api.queried(tabular.matching_pennies())
    learner = dagger.init(dagger.Config(clone=CLONE), demos, game, generator(0))
    assert learner.recorded == 1.5 * (2 + 1)


@pytest.mark.parametrize("query", ["joint", "agent"])
def test_only_who_does_not_know_is_asked_about_or_the_whole_team(query):
    """The first agent is sure everywhere, the second in state 0 alone; entropies are log 2 and nearly 0."""
    game = way_back(agents=2, horizon=6)
    logits = torch.zeros(2, 2, 2)
    logits[:, 0, 0], logits[0, 1, 0] = 20.0, 20.0
    policy = table_policy(game, logits)
    asks = asking(game, policy, gate="entropy", threshold=0.5, query=query)
    state = torch.tensor([0, 1, 0])
    view = View(torch.eye(2)[state].unsqueeze(1).expand(-1, 2, -1))
    asks.act(view, asks.start(3), torch.rand(3, 2, asks.noise, generator=generator(1)))
    (_, told), *_ = asks.said
    about = [[False, False], [query == "joint", True], [False, False]]
    assert told.tolist() == about


def test_doubt_is_what_it_says():
    game = tabular.slip_chain(agents=1)
    logits = torch.tensor([[[0.0, math.log(3.0)]], [[0.0, 0.0]]])
    policy, view = table_policy(game, logits), View(torch.eye(2).unsqueeze(1))
    moves = torch.zeros(2, 1, dtype=torch.long)
    entropy = dagger.doubt(policy, "entropy", view, moves, policy.start(2))
    quarter = -0.25 * math.log(0.25) - 0.75 * math.log(0.75)
    torch.testing.assert_close(entropy, torch.tensor([[quarter], [math.log(2)]]))
    surprise = dagger.doubt(policy, "surprise", view, moves, policy.start(2))
    torch.testing.assert_close(surprise, torch.tensor([[math.log(4)], [math.log(2)]]))
    pair = build_policy(replace(TABLE, members=2), game.spec, generator(0))
    for out, sign in zip(pair.outs, (1.0, -1.0), strict=True):  # sure of opposite moves in state 0, unsure in 1
        out.weight.data.copy_(sign * torch.tensor([[[30.0, 0.0], [-30.0, 0.0]]]))
    apart = dagger.doubt(pair, "disagreement", view, moves, pair.start(2))
    torch.testing.assert_close(apart, torch.tensor([[math.log(2)], [0.0]]), atol=1e-5, rtol=0)


def test_an_expert_without_memory_is_called_only_where_it_is_due():
    game = Recall()
    learn(game, expert=reminder, rounds=1, envs=3, budget=1)
    assert not game.asked
    learn(game, expert=reminder, rounds=1, envs=3, budget=4)
    assert sum(game.asked) == 2, "two envs of two agents"


def test_mixed_play_is_the_experts_and_the_learners_in_their_shares():
    game = tabular.slip_chain(agents=2, horizon=200)
    never = torch.zeros(2, 2, 2)
    never[..., 1] = 30.0  # always the move that the expert never makes
    for mixing, both in (("joint", 0.3), ("agent", 0.09)):
        asks = asking(game, table_policy(game, never), share=0.3, mixing=mixing)
        moves = play(game, asks, 50, generator(2)).actions
        expert = moves == 0
        assert expert.float().mean().item() == pytest.approx(0.3, abs=5 * (0.21 / 1e4) ** 0.5)
        assert expert.all(-1).float().mean().item() == pytest.approx(both, abs=5 * (both * (1 - both) / 1e4) ** 0.5)


def test_one_agent_at_a_time_deviates_for_a_whole_episode():
    game = tabular.slip_chain(agents=3, horizon=20)
    never = torch.zeros(2, 3, 2)
    never[..., 0] = 30.0
    asks = asking(game, table_policy(game, never), deviations=0.6)
    moves = play(game, asks, 400, generator(3), envs=400).actions
    deviates = (moves == 1).any(dim=1)  # [episode, agent]
    assert (deviates.sum(-1) <= 1).all()
    share = deviates.float().mean(0)
    assert share.sum().item() == pytest.approx(0.6, abs=5 * (0.24 / 400) ** 0.5)
    torch.testing.assert_close(share, torch.full((3,), 0.2), atol=5 * (0.16 / 400) ** 0.5, rtol=0)


@pytest.mark.parametrize(
    ("beta", "number", "share"), [("never", 0, 0.0), ("exponential", 3, 0.125), ("linear", 3, 0.25)]
)
def test_the_experts_share_falls_as_it_was_set(beta, number, share):
    config = dagger.Config(beta=beta, rounds=4)
    assert dagger.beta(config, number, begins=False) == share
    assert dagger.beta(config, 0, begins=True) == 1.0


# ---- the expert that is handed in


def test_a_function_a_policy_and_a_folder_are_asked_alike(tmp_path):
    game = tabular.slip_chain(horizon=5)
    policy = bc.clone(CLONE, api.record(game, episodes=20), generator(0))
    api.save_policy(policy, tmp_path)

    def by_hand(env, view, noise):
        return torch.zeros(view.obs.shape[:2], dtype=torch.long)

    runs = [learn(game, expert=who, rounds=1) for who in (by_hand, Scripted(game, by_hand))]
    assert torch.equal(runs[0].state.told.actions, runs[1].state.told.actions)
    runs = [learn(game, expert=who, rounds=1) for who in (policy, tmp_path, str(tmp_path))]
    assert all(torch.equal(runs[0].state.told.actions, run.state.told.actions) for run in runs)


def test_an_env_with_an_expert_offers_what_the_env_offers():
    with_masks, without = api.make_env("speaker_listener"), Recall()
    for env in (with_masks, without):
        both = api.queried(env, reminder)
        for name in ("legal", "whole", "present", "draw", "restart", "copies", "symmetries"):
            assert hasattr(both, name) == hasattr(env, name), name
        assert both.spec == env.spec
        assert describe(both) == describe(env) | {"expert": f"{__name__}.reminder"}
    same = record(api.queried(with_masks), api.expert_of(with_masks), 3, generator(0))
    assert same.fingerprint() == record(with_masks, api.expert_of(with_masks), 3, generator(0)).fingerprint()


def test_a_run_tells_whom_it_asked_and_goes_on_only_with_the_same(tmp_path):
    game = api.make_env("navigation", agents=1, horizon=5)

    def still(env, view, noise):
        return torch.zeros(view.obs.shape[:2], dtype=torch.long)

    quick = {"clone": {"limit": 2, "net": {"hidden": 8}}, "envs": 2, "steps": 1}
    api.train("dagger", None, game, config=quick, updates=1, folder=tmp_path, habits=QUIET)
    assert '"understudy.envs.particles_experts.expert"' in (tmp_path / "run.json").read_text()
    assert api.env_of(tmp_path) == game
    with pytest.raises(RunError, match=r"env.expert: .*particles_experts.expert. before, .*test_dagger"):
        api.train("dagger", None, game, config=quick, updates=2, folder=tmp_path, habits=QUIET, expert=still)
    api.train("dagger", None, game, config=quick, updates=2, folder=tmp_path, habits=QUIET)


# ---- refusals


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rounds": 0}, "rounds: got 0"),
        ({"decay": 1.5}, "decay: got 1.5"),
        ({"deviations": -0.1}, "deviations: got -0.1"),
        ({"budget": -1}, "budget: got -1"),
        ({"threshold": math.nan}, "threshold: got nan"),
        ({"gate": "disagreement"}, "one network cannot disagree with itself"),
        ({"clone": bc.Config(net=NetConfig(own_action=True))}, "clone.net.own_action"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        dagger.Config(**settings)


def test_neither_recordings_nor_answers_leave_nothing_to_learn_from():
    with pytest.raises(ConfigError, match="budget: 0 and no recordings"):
        learn(tabular.slip_chain(agents=2, horizon=5), budget=0)


def test_who_cannot_be_asked_is_refused():
    with pytest.raises(ConfigError, match="asks an expert in an env, and there is none"):
        dagger.init(dagger.Config(), None, None, generator(0))
    with pytest.raises(ConfigError, match="asks an expert in the env"):
        dagger.init(dagger.Config(), None, tabular.slip_chain(), generator(0))
    with pytest.raises(EnvError, match="ships no expert"):
        learn(Recall())
    with pytest.raises(ConfigError, match="bc asks nobody"):
        api.train("bc", api.record(tabular.chicken(), episodes=4), expert=reminder, updates=1)
    game = tabular.slip_chain()
    other = build_policy(TABLE, tabular.chicken().spec, generator(0))
    with pytest.raises(DemosError, match="the policy of chicken does not fit"):
        learn(game, expert=other)
