"""Probes with known answers, put to every discriminator form of `magail` and `maairl`.

What a judge can see (two conventions that the demonstrators agree on), whether it learns from pairs that happened (rows
put together wrongly), and whether what it pays says when to finish. Where a form is blind by its nature the answer is
that of a blind judge, and is asserted as exactly as the others.
"""

import math
from dataclasses import replace
from itertools import product
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F

from understudy.algorithms import adversary, maairl, magail, ppo
from understudy.core.random import generator
from understudy.core.types import Continuous, EnvSpec, View
from understudy.demos import Demos, Episode
from understudy.envs import tabular
from understudy.maths.adversarial import discriminator_loss
from understudy.maths.returns import discounted
from understudy.nets import NetConfig
from understudy.nets.discriminators import Judge, JudgeConfig
from understudy.rollout import play

LOG2 = math.log(2)
SEEN = {2: 0.477386, 3: 0.374890, 4: 0.312752}  # log 2 - JSD of K conventions and as many independent choices
SURE = 0.98  # how likely the learner of `maairl` finds the demonstrators' move


def slow(value):
    return pytest.param(value, marks=pytest.mark.slow)


class Form(NamedTuple):
    """What a discriminator is."""

    method: str
    sees: str
    state_only: bool
    share: str

    def judge(self, hidden=16):
        return JudgeConfig(self.sees, self.state_only, self.share, hidden, layers=1)


# in tabular games each agent is a role of its own, so "role" is "none"; of a team there is one judge, whoever shares
FORMS = [
    Form(method, sees, state_only, share)
    for method, sees, state_only, share in product(
        ("magail", "maairl"), ("own", "actions", "joint", "team"), (False, True), ("role", "all")
    )
    if not (sees == "actions" and state_only) and not (sees == "team" and share == "all")
]


def named(form):
    return "-".join([form.method, form.sees, *["state"] * form.state_only, form.share])


every_form = pytest.mark.parametrize("form", FORMS, ids=named)


def game(states, choices, agents):
    """The state is drawn anew in each step, whatever is done: a game to be recorded in by hand."""
    joints = choices**agents
    transition = torch.full((states, joints, states), 1 / states, dtype=torch.float64)
    start = torch.full((states,), 1 / states, dtype=torch.float64)
    reward = torch.zeros(agents, states, joints, dtype=torch.float64)
    return tabular.MarkovGame(transition, reward, start, (choices,) * agents, title="by hand")


def recorded(env, states, moves):
    """One long episode through `states`, one more than the joint actions in `moves`: nothing is left to chance."""
    seen = torch.eye(len(env.start))[states].unsqueeze(1).expand(-1, len(env.choices), -1)
    return Demos.from_episodes(env.spec, [Episode(seen, moves, truncated=True)])


def rounds(states, choices, agents):
    """Steps in which every state follows every other one as often, beside every joint action as often.

    The states `[time + 1]`, and the joint actions `[time, agent]`.
    """
    cycle = torch.tensor({1: [0], 2: [0, 0, 1, 1], 3: [0, 0, 1, 1, 2, 2, 0, 2, 1]}[states])
    joints = torch.cartesian_prod(*[torch.arange(choices)] * agents).reshape(-1, agents)
    times = 1 + 512 // (len(cycle) * len(joints))
    moves = joints.repeat_interleave(len(cycle), 0).repeat(times, 1)
    return torch.cat([cycle.repeat(len(joints) * times), cycle[:1]]), moves


def loss_of_the_best(form, env, theirs, ours, policy=None):
    """Each agent's loss when the discriminator has learnt to tell `ours` from `theirs`, and its logits of `ours`.

    Args:
        policy: logits of the learner's moves in each state, `[state, choice]`; None: all alike.
    """
    module = {"magail": magail, "maairl": maairl}[form.method]
    steps = 50 if form.state_only or form.sees == "own" else 70  # to tell two actions from one takes longer
    learner = ppo.Config(envs=4, segment=2, net=NetConfig(layers=0), value_hidden=8)
    config = module.Config(
        start="fresh", batch=128, judge_rate=0.15, penalty=0.0, judge=form.judge(), learner=learner,
        **({"contrast": 0.0} if module is maairl else {}),
    )  # fmt: skip
    draws = generator(0, "probe")
    demos, played = recorded(env, *theirs), recorded(env, *ours).padded()
    state = module.init(config, demos, env, draws)
    for out in state.policy.outs:
        out.bias.data.zero_()
        out.weight.data[:] = 0.0 if policy is None else policy
    nowhere = torch.tensor(0.0)
    if module is maairl:
        with torch.no_grad():
            likely = state.policy.log_prob(played.view, played.actions)
        played = replace(played, labels={"log_prob": likely})
    pool = adversary.side_of(played, nowhere, played.actions.numel(), draws)
    slower = torch.optim.lr_scheduler.LinearLR(state.judge_optimizer, 1.0, 0.05, steps)
    for _ in range(steps):
        if module is maairl:
            maairl.discriminate(config, state, demos, pool, nowhere, draws)
        else:
            magail.discriminate(config, state, demos, pool, draws)
        slower.step()
    shown = demos.batch(0, demos.steps, 0)
    with torch.no_grad():
        if module is magail:
            logits = [state.judge(side.view, side.actions) for side in (shown, pool.steps)]
        else:
            sides = (maairl._scored(state.policy, shown), pool.steps)
            logits = [state.shaped(x) - maairl._of_judged(config, x.labels["log_prob"], x) for x in sides]
        losses = [discriminator_loss(*(x[:, [i]] for x in logits)).item() for i in range(env.spec.agents)]
    return losses, logits[1], pool.steps.actions


# ---- what is seen


@pytest.mark.parametrize("conventions", [2, slow(3), slow(4)])
@every_form
def test_who_sees_all_actions_tells_agreement_from_chance_and_nobody_else_does(form, conventions):
    """The demonstrators agree; the learners choose as each of them does, by themselves."""
    env = game(1, conventions, 2)
    states, independent = rounds(1, conventions, 2)
    agreeing = independent[:, [0, 0]]
    losses, logits, actions = loss_of_the_best(form, env, (states, agreeing), (states, independent))
    sighted = form.sees != "own" and not form.state_only
    assert losses == pytest.approx([SEEN[conventions] if sighted else LOG2] * 2, abs=0.015)
    agreed = actions[:, 0] == actions[:, 1]
    assert logits[agreed].sigmoid().mean().item() == pytest.approx(
        conventions / (conventions + 1) if sighted else 0.5, abs=0.03
    )
    assert logits[~agreed].sigmoid().mean().item() == pytest.approx(0.0 if sighted else 0.5, abs=0.03)


# ---- pairs that happened


def following(choices):
    """Logits of one who does as the state says with probability SURE."""
    return math.log(SURE * (choices - 1) / (1 - SURE)) * torch.eye(choices)


def shared(choices, mismatched, other=None):
    """Loss of an agent whose rows hold a share `mismatched`, where f is one number for all states and actions.

    Its discriminator is f - log pi, so that pi shows what f cannot see. `other`: the share in the rows of another agent
    with whom f is shared: it is the best for both together.
    """
    f = torch.linspace(-8, 8, 160_001, dtype=torch.float64)
    match, miss = (f - math.log(p) for p in (SURE, (1 - SURE) / (choices - 1)))

    def loss(share):
        return 0.5 * (F.softplus(-match) + (1 - share) * F.softplus(match) + share * F.softplus(miss))

    best = (loss(mismatched) + loss(mismatched if other is None else other)).argmin()
    return loss(mismatched)[best].item()


@pytest.mark.parametrize("choices", [2, slow(3)])
@pytest.mark.parametrize("form", [f for f in FORMS if f.share == "role"], ids=named)
def test_steps_of_one_who_does_as_the_demonstrators_cannot_be_told_and_pairs_that_never_happened_can(form, choices):
    env, (states, anything) = game(choices, choices, 1), rounds(choices, choices, 1)
    theirs = states, states[:-1].unsqueeze(-1)
    aligned, *_ = loss_of_the_best(form, env, theirs, theirs, following(choices))
    assert aligned == pytest.approx([LOG2], abs=0.01)
    told, *_ = loss_of_the_best(form, env, theirs, (states, anything), following(choices))
    if not form.state_only:
        assert told == pytest.approx([SEEN[choices]], abs=0.015)
    elif form.method == "magail":
        assert told == pytest.approx([LOG2], abs=0.005)
    else:
        blind = shared(choices, 1 - 1 / choices)
        assert blind > 1.3  # what its judge cannot see its policy finds unlikely: worse than guessing
        assert told == pytest.approx([blind], abs=0.02)


@pytest.mark.parametrize("sees", ["own", "actions", "joint", "team"])
def test_rows_put_together_wrongly_are_all_but_certain_where_actions_are_real_numbers(sees):
    """Who does a = o: of pairs drawn by chance almost none is one that happened, so the loss nears 0."""
    spec = EnvSpec(agents=2, obs=1, action=Continuous(1), horizon=9)
    obs = torch.rand(2048, 2, 1, generator=generator(1)) * 2 - 1
    for actions, certain in ((obs, False), (obs[torch.randperm(2048, generator=generator(2))], True)):
        judge = Judge(JudgeConfig(sees, hidden=32), spec, generator(0))
        judge.observe(View(obs), obs)
        seek = torch.optim.Adam(judge.parameters(), lr=0.02)
        for _ in range(150):
            seek.zero_grad()
            loss = discriminator_loss(judge(View(obs), obs), judge(View(obs), actions))
            loss.backward()
            seek.step()
        assert loss.item() < 0.15 if certain else loss.item() == pytest.approx(LOG2, abs=0.001)


@every_form
def test_another_agents_rows_are_noticed_by_who_sees_them_or_shares_its_judge_with_their_agent(form):
    """The second agent's actions are moved to other steps; asked is the first agent's discriminator."""
    env, (states, moves) = game(2, 2, 2), rounds(2, 2, 2)
    right = states[:-1]
    theirs, ours = ((states, torch.stack([right, second], dim=-1)) for second in (right, moves[:, 1]))
    (first, _), *_ = loss_of_the_best(form, env, theirs, ours, following(2))
    one_for_both = form.sees == "own" and form.share == "all"
    if not form.state_only:
        pooled = 0.5 * (math.log1p(3 / 4) + math.log1p(4 / 3))  # 3/4 of both agents' rows are pairs that happened
        expected = {"own": pooled if one_for_both else LOG2}.get(form.sees, SEEN[2])
    elif form.method == "magail":
        expected = LOG2
    elif form.sees == "team":
        expected = shared(2, 0.5)  # pi is everybody's: what is unlikely of another is told too
    else:
        expected = shared(2, 0.0, 0.5) if one_for_both else LOG2
    assert first == pytest.approx(expected, abs=0.015)


# ---- when to finish


def exits(horizon=4):
    """Two teams of one. The first may stay (move 0) or end the game for both (1); the second's moves do nothing."""
    transition = torch.zeros(2, 4, 2, dtype=torch.float64)
    transition[0, :2, 0] = transition[0, 2:, 1] = transition[1, :, 1] = 1
    reward = torch.zeros(2, 2, 4, dtype=torch.float64)
    reward[1, 0] = 1
    over, start = torch.tensor([False, True]), torch.tensor([1.0, 0.0], dtype=torch.float64)
    return tabular.MarkovGame(transition, reward, start, (2, 2), horizon, over, title="exits")


def standing(form, **settings):
    """A learner of all moves alike, episodes of its play, its env and what `init` made of it."""
    module = {"magail": magail, "maairl": maairl}[form.method]
    env = exits()
    learner = ppo.Config(envs=4, segment=2, net=NetConfig(layers=0), value_hidden=8)
    config = module.Config(start="fresh", judge=form.judge(), learner=learner, **settings)
    staying = recorded(env, torch.zeros(5, dtype=torch.long), torch.zeros(4, 2, dtype=torch.long))
    state = module.init(config, staying, env, generator(0))
    for out in state.policy.outs:
        out.weight.data.zero_(), out.bias.data.zero_()
    return config, state, play(env, state.policy, 100, generator(1))


def knowing_nothing(module):
    for weight in module.parameters():
        weight.data.zero_()


def worth(rewards, played, paid, discount):
    """What each episode is worth at its start, time limits no ends: `[episode, agent]`."""
    after = torch.where(played.terminated, 0.0, paid / (1 - discount)).unsqueeze(-1).expand_as(rewards)
    return discounted(rewards * played.valid.unsqueeze(-1), played.ended, after, discount)[:, 0]


def of_length(played, paid, discount):
    """What episodes are worth that pay `paid` a step until the game is over, and nothing then."""
    steps = played.valid.sum(1)
    over = (played.terminated & played.valid).any(1)
    return (paid * (1 - torch.where(over, discount**steps, 0.0)) / (1 - discount)).unsqueeze(-1).expand(-1, 2)


@pytest.mark.parametrize("reward", ["softplus", "logD", "logit", "tanh"])
@pytest.mark.parametrize("form", [f for f in FORMS if f.method == "magail"], ids=named)
def test_a_discriminator_that_knows_nothing_says_nothing_about_when_to_finish(form, reward):
    """D is 1/2. With absorbing states all is worth the same; without, log 2 pays for staying, -log 2 for leaving."""
    config, state, played = standing(form, reward=reward)
    knowing_nothing(state.judge)
    half, discount = torch.tensor(0.5), config.learner.discount
    paid = {"softplus": LOG2, "logD": -LOG2}.get(reward, 0.0)
    rewards = magail.rewards_of(config, state.judge, played, half, half)
    always = torch.full((100, 2), paid / (1 - discount))
    torch.testing.assert_close(worth(rewards, played, paid, discount), always, atol=1e-4, rtol=1e-4)
    without = replace(config, absorbing=False)
    biased = magail.rewards_of(without, state.judge, played, half, half)
    by_length = of_length(played, paid, discount)
    torch.testing.assert_close(worth(biased, played, paid, discount), by_length, atol=1e-4, rtol=1e-4)
    longest, shortest = by_length[played.valid.sum(1) == 4].mean(), by_length[played.valid.sum(1) == 1].mean()
    assert math.copysign(1, longest - shortest) == math.copysign(1, paid) or longest == shortest == paid == 0


@pytest.mark.parametrize("reward", ["softplus", "logD", "logit", "tanh"])
def test_who_imagines_the_others_actions_is_paid_alike_for_finishing_early_and_late(reward):
    config, state, played = standing(Form("magail", "actions", False, "role"), reward=reward, opponents=True)
    knowing_nothing(state.judge)
    half, discount = torch.tensor(0.5), config.learner.discount
    imagined = state.opponents.imagine(played.view, played.actions, generator(2))
    rewards = magail.rewards_of(config, state.judge, played, half, half, imagined)
    paid = {"softplus": LOG2, "logD": -LOG2}.get(reward, 0.0)
    always = torch.full((100, 2), paid / (1 - discount))
    torch.testing.assert_close(worth(rewards, played, paid, discount), always, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("reward", ["softplus", "logD", "logit", "tanh"])
@pytest.mark.parametrize("absorbing", [True, False])
def test_of_two_teams_who_are_judged_alike_neither_is_paid_whatever_the_form(reward, absorbing):
    config, state, played = standing(Form("magail", "own", False, "role"), reward=reward, zero_sum=True)
    knowing_nothing(state.judge)
    half = torch.tensor(0.5)
    rewards = magail.rewards_of(replace(config, absorbing=absorbing), state.judge, played, half, half)
    torch.testing.assert_close(rewards, torch.zeros_like(rewards))


@pytest.mark.parametrize("pays", ["level", "ratio", "shaped", "reward"])
@pytest.mark.parametrize("form", [f for f in FORMS if f.method == "maairl"], ids=named)
def test_a_learned_reward_that_knows_nothing_says_when_to_finish_only_where_entropy_is_not_paid(form, pays):
    """D is 1/2 where f = log pi, log 1/2 of each agent here: a step pays 0 with entropy, and for leaving without."""
    config, state, played = standing(form, pays=pays)
    knowing_nothing(state.shaped)
    known = -LOG2 * (2 if form.sees == "team" else 1)
    state.shaped.reward.net.last.bias.data[:] = known
    params, _ = state.policy.params(played.view, played.actions)
    with torch.no_grad():
        paid = maairl.pay_of(config, state, played, state.shaped(played), params, generator(2))
    each, discount = (0.0 if pays in ("level", "ratio") else known), config.learner.discount
    by_length = of_length(played, each, discount)
    torch.testing.assert_close(worth(paid, played, each, discount), by_length, atol=1e-4, rtol=1e-4)


# ---- what is expected of others


def test_whom_another_agrees_with_does_not_move_a_reward_of_imagined_actions():
    """Agreement is paid to who sees what the other did; who imagines it is paid what it expects, whatever it did."""
    env = game(1, 2, 2)
    form = Form("magail", "actions", False, "role")
    states, moves = rounds(1, 2, 2)
    config = magail.Config(
        start="fresh", opponents=True, batch=128, judge_rate=0.15, penalty=0.0, judge=form.judge(),
        learner=ppo.Config(envs=4, segment=2, net=NetConfig(layers=0), value_hidden=8),
    )  # fmt: skip
    draws, demos = generator(0, "probe"), recorded(env, states, moves[:, [0, 0]])
    state = magail.init(config, demos, env, draws)
    played = recorded(env, torch.zeros(2065, dtype=torch.long), moves.repeat(4, 1)).padded()
    pool, half = adversary.side_of(played, torch.tensor(0.0), 2000, draws), torch.tensor(0.5)
    for _ in range(60):
        magail.discriminate(config, state, demos, pool, draws)
    magail._expect(replace(config, judge_steps=60), state, pool, draws)
    agreed = played.actions[..., 0] == played.actions[..., 1]
    gaps = []
    for imagined in (None, state.opponents.imagine(played.view, played.actions, draws)):
        paid = magail.rewards_of(config, state.judge, played, half, half, imagined)
        gaps.append((paid[agreed].mean(0) - paid[~agreed].mean(0)).tolist())
    assert min(gaps[0]) > 2.0
    assert gaps[1] == pytest.approx([0.0, 0.0], abs=0.5)  # five standard errors of 2,000 draws are 0.35


# ---- where learners and demonstrators agree


@pytest.mark.parametrize("sees", ["own", "joint", "team"])
def test_where_play_is_as_demonstrated_nobody_is_paid_by_the_theory_however_unlike_the_agents_are(sees):
    """One agent plays evenly, the other nine times in ten the second move; both sides are the same steps."""
    env = game(1, 2, 2)
    _, moves = rounds(1, 2, 2)
    often = torch.cat([moves] + [moves[moves[:, 1] == 1]] * 8)  # (1, 1, 9, 9) in 20 of the joint actions
    sides = torch.zeros(len(often) + 1, dtype=torch.long), often
    unlike = torch.tensor([[[0.5, 0.5]], [[0.1, 0.9]]]).log().transpose(1, 2)
    losses, logits, _ = loss_of_the_best(Form("maairl", sees, False, "role"), env, sides, sides, unlike)
    assert losses == pytest.approx([LOG2, LOG2], abs=0.005)
    assert logits.abs().max().item() < 0.15
