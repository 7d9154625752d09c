"""Causal models of scenes: likelihoods that sum to one, samples that follow them, and what must not reach what."""

import math
from dataclasses import replace
from itertools import product

import pytest
import torch

from understudy.core.errors import ConfigError, ShapeError
from understudy.core.random import generator
from understudy.core.tree import tree_map
from understudy.demos.tracks import Clips
from understudy.nets.scene import CausalSceneNet, Label, Noise, SceneNet, SceneShape
from understudy.nets.trunk import TrunkConfig

TRUNK = TrunkConfig(hidden=16, layers=2, heads=2, pair=4, window=6)
NET = SceneNet(TRUNK)
TURNED = SceneNet(TRUNK, recent=3, turned=True)
AIM, MOOD, BEAT = Label("aim", 3, True), Label("mood", 2, False), Label("beat", 4, False)


def moving(agents=3, config=NET, goals=(), kinds=(0, 0, 0, 0), teams=(0, 0, 1, 1)):
    shape = SceneShape(2, 0, kinds[:agents], teams[:agents], goals)
    net = CausalSceneNet(config, shape, generator(0)).double()
    net.fit(walks(agents=agents))
    return net


def singing(symbols=5, agents=3, goals=(), given=(), config=NET):
    shape = SceneShape(0, symbols, tuple(range(agents)), (0,) * agents, goals, given)
    return CausalSceneNet(config, shape, generator(0)).double()


def walks(scenes=4, frames=8, agents=3, seed=1, missing=0.0):
    source = generator(seed)
    step = torch.randn(scenes, 1, agents, 2, generator=source) + 0.3 * torch.randn(
        scenes, frames, agents, 2, generator=source
    )
    present = torch.rand(scenes, frames, agents, generator=source) >= missing
    labels = {
        "aim": torch.randint(-1, 3, (scenes, frames, agents), generator=source),
        "mood": torch.randint(-1, 2, (scenes, frames), generator=source),
    }
    return Clips(step.cumsum(1).double(), present, labels)


def songs(scenes=4, frames=8, agents=3, symbols=5, seed=1, missing=0.0):
    source = generator(seed)
    values = torch.randint(symbols, (scenes, frames, agents), generator=source)
    present = torch.rand(scenes, frames, agents, generator=source) >= missing
    labels = {
        "aim": torch.randint(-1, 3, (scenes, frames, agents), generator=source),
        "mood": torch.randint(-1, 2, (scenes, frames), generator=source),
        "beat": torch.arange(frames).expand(scenes, -1) % 4,
    }
    return Clips(values, present, labels)


def part(clips, begin, end):
    cut = {k: v[:, begin:end] for k, v in clips.labels.items()}
    return replace(clips, values=clips.values[:, begin:end], present=clips.present[:, begin:end], labels=cut)


def cut(noise, begin, end):
    return Noise(noise.agents[:, begin:end], noise.scene[:, begin:end])


@torch.no_grad()
def test_probabilities_of_all_small_scenes_sum_to_one():
    """Two agents, three frames, two symbols: sixty-four scenes."""
    net = singing(symbols=2, agents=2)
    values = torch.tensor(list(product(range(2), repeat=6))).reshape(64, 3, 2)
    found = net(Clips(values, torch.ones_like(values, dtype=torch.bool)))
    assert found.frames.sum(1).exp().sum().item() == pytest.approx(1, abs=1e-10)
    assert found.counted.all()


@torch.no_grad()
def test_probabilities_of_all_goals_and_scenes_sum_to_one():
    """Goals of one agent and of the scene beside what it does: the joint distribution is a distribution."""
    net = singing(symbols=2, agents=1, goals=(replace(AIM, classes=2), MOOD))
    every = torch.tensor(list(product(range(2), repeat=6))).reshape(64, 2, 3)  # [scene, time, what]
    labels = {"aim": every[..., 1:2], "mood": every[..., 2]}
    found = net(Clips(every[..., :1], torch.ones_like(every[..., :1], dtype=torch.bool), labels))
    assert (found.frames + found.goals).sum(1).exp().sum().item() == pytest.approx(1, abs=1e-10)
    untold = net(Clips(every[..., :1], torch.ones_like(every[..., :1], dtype=torch.bool)))
    assert (untold.goals == 0).all()


@torch.no_grad()
def test_scenes_are_sampled_as_often_as_they_are_likely():
    net, count = singing(symbols=2, agents=2), 40_000
    nothing = Clips(torch.zeros(count, 0, 2, dtype=torch.long), torch.ones(count, 0, 2, dtype=torch.bool))
    drawn = net.sample(nothing, net.noise(count, 2, 2, generator(3)))
    values = torch.tensor(list(product(range(2), repeat=4))).reshape(16, 2, 2)
    meant = net(Clips(values, torch.ones_like(values, dtype=torch.bool))).frames.sum(1).exp()
    found = torch.bincount(drawn.values.flatten(1) @ torch.tensor([8, 4, 2, 1]), minlength=16) / count
    assert ((found - meant).abs() < 5 * (meant * (1 - meant) / count).sqrt()).all()


@torch.no_grad()
@pytest.mark.parametrize("made", ["moving", "turned", "singing"])
@pytest.mark.parametrize("missing", [0.0, 0.4])
def test_sampling_with_a_memory_is_sampling_each_frame_from_the_whole_past(made, missing):
    """Longer than the window, so that the memory's oldest frames are overwritten."""
    config = replace(TURNED, absolute=True) if made == "turned" else NET
    singer = singing(goals=(AIM, MOOD), given=(BEAT,))
    net = singer if made == "singing" else moving(goals=(AIM, MOOD), config=config)
    clips = songs(missing=missing) if made == "singing" else walks(missing=missing)
    past, noise = part(clips, 0, 5), net.noise(4, 7, 3, generator(2))
    beat = {"beat": torch.arange(5, 12).expand(4, -1) % 4}
    together = net.sample(past, noise, given=beat)
    alone = past
    for n in range(7):
        now = {"beat": beat["beat"][:, n : n + 1]}
        alone = net.sample(alone, cut(noise, n, n + 1), given=now)
    torch.testing.assert_close(together.values, alone.values, atol=1e-9, rtol=0)
    assert torch.equal(together.present, alone.present)
    for name in together.labels:
        assert torch.equal(together.labels[name], alone.labels[name])


@torch.no_grad()
@pytest.mark.parametrize("made", ["moving", "turned", "singing"])
def test_values_of_the_absent_and_of_the_future_reach_nobody(made):
    net = singing() if made == "singing" else moving(config=TURNED if made == "turned" else NET)
    clips = songs(missing=0.4) if made == "singing" else walks(missing=0.4)
    found = net(clips)
    gone = ~clips.present
    gone = gone if made == "singing" else gone.unsqueeze(-1)
    filled = replace(clips, values=torch.where(gone, (clips.values + 3) % 5, clips.values))
    torch.testing.assert_close(net(filled).frames, found.frames, atol=1e-9, rtol=0)
    later = clips.values.clone()
    later[:, 5:] = (later[:, 5:] + 1) % 5
    moved = (net(replace(clips, values=later)).frames - found.frames).abs()
    assert (moved[:, :5] == 0).all() and moved[:, 5:].sum() > 0


@torch.no_grad()
def test_who_and_when_is_counted():
    present = torch.ones(1, 5, 2, dtype=torch.bool)
    present[0, 2, 0] = present[0, 4, 1] = False
    walk = replace(walks(1, 5, 2), present=present)
    counted = moving(2)(walk).counted[0]
    # of positions: from the second frame of an appearance on
    assert counted[:, 0].tolist() == [False, True, False, False, True]
    assert counted[:, 1].tolist() == [False, True, True, True, False]
    song = replace(songs(1, 5, 2), present=present)
    assert torch.equal(singing(agents=2)(song).counted, present)
    cut_from_a_piece = singing(agents=2)(replace(song, start=torch.tensor([3]))).counted
    assert not cut_from_a_piece[0, 0].any() and torch.equal(cut_from_a_piece[:, 1:], present[:, 1:])


@torch.no_grad()
def test_permuted_agents_have_the_same_likelihood_and_a_moved_scene_too():
    net, clips = moving(4, kinds=(0, 0, 1, 1)), walks(agents=4, missing=0.2)
    meant = net(clips).frames
    order = torch.tensor([3, 0, 1, 2])
    permuted = Clips(clips.values[:, :, order], clips.present[:, :, order], slots=order.expand(4, -1))
    torch.testing.assert_close(net(permuted).frames, meant, atol=1e-9, rtol=0)
    unnamed = net(Clips(permuted.values, permuted.present)).frames  # as if they were others: teams differ
    assert (unnamed - meant).abs().max() > 1e-3
    elsewhere = replace(clips, values=clips.values + torch.tensor([100.0, -30.0], dtype=torch.float64))
    torch.testing.assert_close(net(elsewhere).frames, meant, atol=1e-7, rtol=0)
    absolute = moving(4, SceneNet(TRUNK, absolute=True))
    assert (absolute(elsewhere).frames - absolute(clips).frames).abs().max() > 1e-3


def about_the_origin(values, angle):
    cos, sin = math.cos(angle), math.sin(angle)
    return values @ torch.tensor([[cos, sin], [-sin, cos]], dtype=values.dtype)


@torch.no_grad()
def test_seen_from_where_each_is_heading_a_turned_scene_is_as_likely_and_goes_on_turned():
    net, clips = moving(config=TURNED), walks()
    around = replace(clips, values=about_the_origin(clips.values, 1.0))
    torch.testing.assert_close(net(around).frames[:, 2:], net(clips).frames[:, 2:], atol=1e-9, rtol=0)
    noise = net.noise(4, 6, 3, generator(2))
    made, turned = net.sample(clips, noise).values[:, 8:], net.sample(around, noise).values[:, 8:]
    torch.testing.assert_close(turned, about_the_origin(made, 1.0), atol=1e-9, rtol=0)
    plain = moving()
    assert (plain(around).frames - plain(clips).frames).abs().max() > 1e-3
    somewhere = moving(config=replace(TURNED, absolute=True))  # who knows where on the field it is may tell
    assert (somewhere(around).frames - somewhere(clips).frames).abs().max() > 1e-3


@torch.no_grad()
def test_recent_steps_are_shown_and_none_from_before_a_gap():
    net = moving(1, SceneNet(replace(TRUNK, window=1), recent=3))  # no other memory
    values = walks(1, 6, 1).values.clone()
    other = values.clone()
    other[0, 1] += 5.0  # two steps before the latest three that frame 5 is told of
    there = torch.ones(1, 6, 1, dtype=torch.bool)
    last = [net(Clips(x, there)).frames[0, 5] for x in (values, other)]
    assert last[0] != last[1]
    other[0, 1], other[0, 0] = values[0, 1], values[0, 0] + 5.0
    assert net(Clips(other, there)).frames[0, 5] == last[0]
    there[0, 3] = False
    other[0, 2] += 5.0
    assert net(Clips(other, there)).frames[0, 5] == net(Clips(values, there)).frames[0, 5]


@torch.no_grad()
def test_a_change_of_unit_changes_a_density_by_the_logarithm_of_the_unit():
    clips = walks()
    in_metres, in_feet = moving(), moving()
    feet = replace(clips, values=clips.values / 0.3048)
    in_metres.fit(clips)
    in_feet.fit(feet)
    found = in_metres(clips)
    numbers = 2 * found.counted.sum(-1).double()
    torch.testing.assert_close(in_feet(feet).frames, found.frames + numbers * math.log(0.3048), atol=1e-8, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("made", ["moving", "singing"])
def test_a_goal_that_is_set_changes_nothing_before_it_and_something_after(made):
    net = moving(goals=(AIM, MOOD)) if made == "moving" else singing(goals=(AIM, MOOD))
    if made == "singing":
        net.head.score.each *= 200  # fresh weights hardly care what they are told
    past = part(walks(64) if made == "moving" else songs(64), 0, 3)
    noise = net.noise(64, 8, 3, generator(2))
    free = net.sample(past, noise)
    wish = torch.full((64, 8, 3), -1)
    wish[:, 4:, 1] = (free.labels["aim"][:, 7:, 1] + 1) % 3  # from the fifth frame to come
    steered = net.sample(past, noise, goals={"aim": wish})
    assert torch.equal(steered.values[:, : 3 + 4], free.values[:, : 3 + 4])
    assert torch.equal(steered.labels["aim"][:, :7], free.labels["aim"][:, :7])
    assert torch.equal(steered.labels["aim"][:, 7:, 1], wish[:, 4:, 1])
    assert not torch.equal(steered.values[:, 7, 1], free.values[:, 7, 1])  # the agent itself, at once
    assert not torch.equal(steered.values[:, 8:, 0], free.values[:, 8:, 0])  # the others answer


@torch.no_grad()
def test_an_agent_may_be_replaced_by_a_recording_or_by_a_player():
    net, clips = moving(), walks(frames=10)
    past, noise = part(clips, 0, 3), net.noise(4, 7, 3, generator(2))
    forced = torch.full((4, 7, 3, 2), torch.nan, dtype=torch.float64)
    forced[:, :, 1] = clips.values[:, 3:, 1]
    ghost = net.sample(past, noise, forced=forced)
    torch.testing.assert_close(ghost.values[:, :, 1], clips.values[:, :, 1])
    asked = []

    def recorded(values, present):
        asked.append(values.shape[1])
        return clips.values[:, values.shape[1], 1]

    played = net.sample(past, noise, players={1: recorded})
    assert asked == list(range(3, 10))
    torch.testing.assert_close(played.values, ghost.values)
    free = net.sample(past, noise).values
    torch.testing.assert_close(ghost.values[:, 3, [0, 2]], free[:, 3, [0, 2]])  # nobody knew yet
    assert (ghost.values[:, 4:, 0] - free[:, 4:, 0]).abs().max() > 1e-3


@torch.no_grad()
def test_a_player_of_symbols_is_heard_at_once_by_those_after_it():
    net = singing()
    net.head.score.each *= 20  # fresh weights hardly care what they hear
    past, noise = part(songs(64), 0, 3), net.noise(64, 1, 3, generator(2))
    free = net.sample(past, noise).values[:, 3]
    played = net.sample(past, noise, players={1: lambda values, present: (free[:, 1] + 1) % 5}).values[:, 3]
    assert torch.equal(played[:, 0], free[:, 0]) and torch.equal(played[:, 1], (free[:, 1] + 1) % 5)
    assert not torch.equal(played[:, 2], free[:, 2])


@torch.no_grad()
def test_scenes_side_by_side_do_not_touch_each_other():
    net, clips = moving(goals=(AIM,)), walks(missing=0.3)
    noise = net.noise(4, 5, 3, generator(2))
    together = net.sample(clips, noise)
    for s in range(4):
        alone = net.sample(tree_map(lambda x, s=s: x[s : s + 1], clips), Noise(*(x[s : s + 1] for x in noise)))
        torch.testing.assert_close(alone.values[0], together.values[s], atol=1e-9, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("made", ["moving", "singing"])
def test_agents_without_company_are_as_likely_together_as_each_alone(made):
    config = SceneNet(replace(TRUNK, social=False))
    net = moving(2, config) if made == "moving" else singing(agents=2, config=config)
    clips = walks(agents=2) if made == "moving" else songs(agents=2)
    each = [replace(clips, present=clips.present & (torch.arange(2) == i)) for i in range(2)]
    torch.testing.assert_close(net(clips).frames, sum(net(one).frames for one in each))
    social = moving(2) if made == "moving" else singing(agents=2)
    assert (social(clips).frames - sum(social(one).frames for one in each)).abs().max() > 1e-3


def test_goals_are_kept_from_a_share_of_the_agents():
    net, clips = moving(goals=(AIM, MOOD), config=SceneNet(TRUNK, goal_dropout=1.0)), walks()
    untold = net(replace(clips, labels={}))
    hidden = net(clips, generator(0))
    torch.testing.assert_close(hidden.frames, untold.frames)
    assert (hidden.goals != 0).any()  # they are still what is to be guessed


@torch.no_grad()
@pytest.mark.parametrize("made", ["moving", "singing"])
def test_the_past_is_blurred_while_learning_alone(made):
    config = SceneNet(TRUNK, blur=0.5)
    net = moving(config=config) if made == "moving" else singing(config=config)
    clips = walks() if made == "moving" else songs()
    clear, blurred, again = net(clips), net(clips, generator(1)), net(clips, generator(1))
    assert torch.equal(blurred.frames, again.frames) and not torch.equal(blurred.frames, clear.frames)
    assert torch.equal(blurred.counted, clear.counted)


def test_what_cannot_be_sampled_is_refused():
    net, clips = moving(goals=(AIM,)), walks()
    with pytest.raises(ShapeError, match="past: a scene of positions goes on from a frame"):
        net.sample(part(clips, 0, 0), net.noise(4, 2, 3, generator(0)))
    with pytest.raises(ShapeError, match=r"aim: expected \[4, 2, 3\].*got \[4, 3\]"):
        net.sample(clips, net.noise(4, 2, 3, generator(0)), goals={"aim": torch.zeros(4, 3)})
    with pytest.raises(ConfigError, match="aim: got 3; it is from 0 to 2"):
        net.sample(clips, net.noise(4, 2, 3, generator(0)), goals={"aim": torch.full((4, 2, 3), 3)})
    singer = singing(given=(BEAT,))
    with pytest.raises(ConfigError, match="must be told `beat` of the 2 frames to come"):
        singer.sample(songs(), singer.noise(4, 2, 3, generator(0)))
    with pytest.raises(ConfigError, match="least_std"):
        SceneNet(least_std=0.0)
    with pytest.raises(ConfigError, match="goal_dropout"):
        SceneNet(goal_dropout=1.5)
