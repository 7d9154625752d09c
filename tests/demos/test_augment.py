"""Images of a recording are recordings of the same game; what was recorded stands among them."""

from dataclasses import replace

import pytest
import torch

from understudy import api
from understudy.algorithms import bc
from understudy.core.errors import ConfigError, DemosError
from understudy.core.random import generator
from understudy.core.symmetry import WORLDS, count, element, elsewhere, symmetries_of
from understudy.core.tree import tree_map, tree_take
from understudy.core.types import EnvSpec, MultiDiscrete
from understudy.demos import Demos
from understudy.demos.augment import augmented, image_of
from understudy.envs import tabular
from understudy.nets import NetConfig
from understudy.rollout import look, record, score

QUICK = [("spread", {}), ("tag", {}), ("speaker_listener", {}), ("navigation", {}), ("world_comm", {})]
CONTINUOUS = [("spread", {"continuous": True}), ("reference", {"continuous": True})]


@pytest.mark.parametrize(("name", "rules"), QUICK + CONTINUOUS)
def test_the_image_of_a_recording_can_be_played_in_the_game_itself(name, rules):
    """From the image's first state its actions lead to its observations, full states, moves allowed and rewards."""
    env = api.make_env(name, **rules)
    groups = env.symmetries()
    (episode,) = api.record(env, episodes=1, seed=3)
    picks = torch.randint(1, count(groups), (4,), generator=generator(4)).tolist()
    for number in picks:
        image = episode
        for symmetry in element(groups, number):
            image = image_of(image, symmetry)
        state = env.unpack(image.whole[:1])
        for t in range(len(image)):
            seen = look(env, state)
            torch.testing.assert_close(image.obs[t : t + 1], seen.obs, atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(image.whole[t : t + 1], seen.whole, atol=1e-4, rtol=1e-4)
            assert image.legal is None or torch.equal(image.legal[t : t + 1], seen.legal)
            # from the image's own state at each step: rounding must not add up to another touch
            state = env.unpack(image.whole[t : t + 1])
            state, rewards, _ = env.step(state, image.actions[t : t + 1], torch.empty(1, 0))
            torch.testing.assert_close(image.rewards[t : t + 1], rewards, atol=1e-3, rtol=1e-3)


def test_a_games_symmetries_are_all_there_and_each_is_another():
    env = api.make_env("spread")
    groups = env.symmetries()
    assert count(groups) == 4 * 2 * 6 * 6, "turns, mirror, orders of agents, orders of landmarks"
    obs = api.record(env, episodes=1).padded().obs[0, 5]
    images = set()
    for number in range(count(groups)):
        seen = obs
        for symmetry in element(groups, number):
            seen = symmetry.obs(seen)
        images.add(tuple(seen.flatten().mul(1e4).round().int().tolist()))
    assert len(images) == count(groups)
    assert not api.make_env("crypto").symmetries(), "nobody moves, and the goal tells the landmarks apart"


def test_a_turn_turns_back_and_moves_follow_what_is_seen():
    env = api.make_env("simple")
    (quarter, half, _), (mirror,) = env.symmetries()
    obs = torch.tensor([[[1.0, 2.0, 3.0, 4.0]]])  # velocity, offset
    assert quarter.obs(obs).tolist() == [[[-2.0, 1.0, -4.0, 3.0]]]
    assert mirror.obs(obs).tolist() == [[[-1.0, 2.0, -3.0, 4.0]]]
    moves = torch.arange(5).unsqueeze(-1)  # stay, -x, +x, -y, +y
    assert quarter.actions(moves).flatten().tolist() == [0, 3, 4, 2, 1]
    assert mirror.actions(moves).flatten().tolist() == [0, 2, 1, 3, 4]
    assert torch.equal(half.obs(half.obs(obs)), obs)
    numbers = torch.arange(5.0).reshape(1, 5)
    assert api.make_env("simple", continuous=True).symmetries()[0][0].actions(numbers).tolist() == [[0, 4, 3, 1, 2]]


def test_images_share_a_name_and_a_weight_and_are_held_out_together():
    env = api.make_env("spread")
    demos = api.record(env, episodes=6).reweighted([1.0, 2.0, 1.0, 1.0, 0.5, 1.0])
    more = augmented(demos, env.symmetries(), images=5, seed=1)
    assert len(more) == 30 and len(set(more.names)) == 6
    torch.testing.assert_close(more.weights.reshape(6, 5).sum(-1), demos.weights)
    assert torch.equal(more[0].obs, demos[0].obs) and torch.equal(more[25].actions, demos[5].actions)
    assert more.fingerprint() == augmented(demos, env.symmetries(), images=5, seed=1).fingerprint()
    assert more.fingerprint() != augmented(demos, env.symmetries(), images=5, seed=2).fingerprint()
    config = bc.Config(held_out=0.4)
    kept, held = bc._parts(more, config, 0)
    assert not set(kept.names) & set(held.names) and len(held) == 2


def test_no_more_images_are_made_than_there_are():
    env = api.make_env("simple")
    demos = api.record(env, episodes=2)
    assert len(augmented(demos, env.symmetries(), images=100)) == 2 * 8
    assert augmented(demos, (), images=9)[1].obs is not None and len(augmented(demos, (), images=9)) == 2


def test_a_policy_that_minds_no_symmetry_finds_images_as_likely_as_what_was_recorded():
    """Learnt from all images, a clone of many steps is nearly so; learnt from none, it is not."""
    env = api.make_env("simple", horizon=12)
    demos = record(env, api.expert_of(env), 40, generator(5))
    config = bc.Config(net=NetConfig(hidden=32), limit=150, rate=1e-2, batch=256, held_out=0.0)
    turned = augmented(demos, env.symmetries(), images=8).select(range(2, 320, 8))
    few, found = demos.select(range(3)), []
    for some, symmetric in ((few, False), (augmented(few, env.symmetries(), images=8), False), (few, True)):
        clone = bc.clone(replace(config, symmetric=symmetric), some, generator(0), env)
        found.append(float(score(clone, turned).mean))
    assert found[1] > found[0] + 0.1, "three episodes say more with their images"
    assert found[2] > found[0] + 0.1, "and with images drawn for each batch"
    with pytest.raises(ConfigError, match="symmetric: it is the env that knows"):
        bc.clone(replace(config, symmetric=True), few, generator(0))


def test_what_cannot_be_meant_is_refused():
    demos = api.record(api.make_env("simple"), episodes=1)
    with pytest.raises(DemosError, match="images: got 0"):
        augmented(demos, (), images=0)
    many = Demos.from_episodes(EnvSpec(agents=1, obs=1, action=MultiDiscrete((2, 2))), [])
    with pytest.raises(DemosError, match="several parts"):
        augmented(many, ())


@pytest.mark.parametrize(("name", "rules"), [*QUICK, *CONTINUOUS, ("kitchen", {})])
def test_rows_seen_elsewhere_are_those_of_an_image_and_every_image_comes_up(name, rules):
    """Each row is that of one symmetry, in all that it holds; with as many rows as it takes, of each of them."""
    env = api.make_env(name, **({"layout": "cramped_room", "horizon": 9} if name == "kitchen" else rules))
    groups, who = symmetries_of(env), api.Uniform(env.spec)
    episode = next(iter(record(env, who, 1, generator(1))))
    demos = Demos.from_episodes(env.spec, [replace(episode, labels={"who": torch.rand(episode.actions.shape[:2])})])
    part = demos.batch(0, 9, seed=0)
    row = tree_take(part, slice(4, 5))
    rows = tree_map(lambda x: x.expand(4096, *x.shape[1:]), row)
    seen = elsewhere(groups, rows, generator(2))
    images, found = min(count(groups), 40), torch.zeros(4096, dtype=torch.bool)
    for number in range(images):
        view, after, acted, paid, label = row.view.obs, row.next_view.obs, row.actions, row.rewards, row.labels["who"]
        legal = row.view.legal
        for one in element(groups, number):
            view, after, acted, paid, label = (
                one.obs(view), one.obs(after), one.actions(acted), one.each(paid), one.each(label)
            )  # fmt: skip
            legal = None if legal is None else one.legal(legal)
        pairs = [(seen.obs, view), (seen.next_view.obs, after), (seen.actions, acted), (seen.rewards, paid)]
        pairs += [(seen.labels["who"], label)] + ([] if legal is None else [(seen.view.legal, legal)])
        same = torch.stack([(a == b).flatten(1).all(1) for a, b in pairs]).all(0)
        if count(groups) <= WORLDS // 4:  # so that 64 draws find each
            assert same.any(), f"world {number} never came up"
        found |= same
    assert found.all() or images < count(groups)
    assert found.any()


def test_a_run_of_steps_is_seen_in_one_world_and_nothing_changes_where_there_is_none():
    env = api.make_env("spread")
    demos = api.record(env, episodes=3)
    runs = demos.batch(0, 6, seed=0, window=10)
    seen = elsewhere(env.symmetries(), runs, generator(0))
    alone = [tree_map(lambda x, t=t: x[:, t], runs) for t in range(10)]
    for t in range(10):
        torch.testing.assert_close(elsewhere(env.symmetries(), alone[t], generator(0)).obs, seen.obs[:, t])
    assert not torch.equal(seen.obs, runs.obs)
    assert elsewhere((), runs, generator(0)) is runs
    assert symmetries_of(tabular.chicken()) == ()


def test_what_a_game_sees_alike_in_all_worlds_keeps_its_distribution():
    """Uniform starts and uniform moves are no likelier in one world than in another: to see them elsewhere is to draw
    them again. Means and second moments of a thousand steps agree within their own errors."""
    env = api.make_env("spread")
    draws = generator(0)
    part = record(env, api.Uniform(env.spec), 300, draws).batch(0, 7500, seed=0)
    seen = elsewhere(env.symmetries(), part, draws)
    for k in (1, 2):
        a, b = (x.obs.double().pow(k) for x in (part, seen))
        # an episode's 25 steps go together, and so do the rows of 64 worlds
        error = a.std(0) / (300**0.5) + a.std(0) / (WORLDS**0.5)
        assert ((a.mean(0) - b.mean(0)).abs() <= 5 * error + 1e-9).all()
    for move in range(5):
        shares = [(x.actions == move).double().mean(0) for x in (part, seen)]
        assert (shares[0] - shares[1]).abs().max() < 5 * (0.16 / 7500) ** 0.5 * 2 + 0.05
