"""Images of a recording are recordings of the same game; what was recorded stands among them."""

import pytest
import torch

from understudy import api
from understudy.algorithms import bc
from understudy.core.errors import DemosError
from understudy.core.random import generator
from understudy.core.symmetry import count, element
from understudy.core.types import EnvSpec, MultiDiscrete
from understudy.demos import Demos
from understudy.demos.augment import augmented, image_of
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
    gaps = []
    for some in (demos.select(range(3)), augmented(demos.select(range(3)), env.symmetries(), images=8)):
        clone = bc.clone(config, some, generator(0))
        gaps.append(float(score(clone, turned).mean))
    assert gaps[1] > gaps[0] + 0.1, "three episodes say more with their images"


def test_what_cannot_be_meant_is_refused():
    demos = api.record(api.make_env("simple"), episodes=1)
    with pytest.raises(DemosError, match="images: got 0"):
        augmented(demos, (), images=0)
    many = Demos.from_episodes(EnvSpec(agents=1, obs=1, action=MultiDiscrete((2, 2))), [])
    with pytest.raises(DemosError, match="several parts"):
        augmented(many, ())
