"""Echoes of earlier moments: what loops compute, nothing ahead of its time, and a refrain that nobody was taught."""

import math

import pytest
import torch

from understudy.core.random import generator
from understudy.demos.tracks import Clips
from understudy.nets.echo import Echo
from understudy.nets.scene import CausalSceneNet, SceneNet, SceneShape
from understudy.nets.trunk import TrunkConfig

SCENES, EARLIER, FRAMES, AGENTS, SYMBOLS, WIDTH, LONGEST, WINDOW = 2, 3, 6, 3, 2, 8, 3, 5


def echo(social: bool = True) -> Echo:
    made = Echo(WIDTH, LONGEST, WINDOW, social, generator(0)).double()
    for k, each in enumerate(made.parameters()):
        each.data = torch.randn(each.shape, generator=generator(k), dtype=torch.float64)
    return made


def moments(frames=FRAMES):
    chance = generator(1)
    h = torch.randn(SCENES, frames, AGENTS, WIDTH, generator=chance, dtype=torch.float64)
    logits = torch.randn(SCENES, frames, AGENTS, SYMBOLS, generator=chance, dtype=torch.float64)
    sung = torch.randint(SYMBOLS, (SCENES, EARLIER + frames, AGENTS), generator=chance)
    sung[1, 2, 1] = sung[1, 6, 1] = SYMBOLS  # who was not there
    return h, logits, sung[:, :EARLIER], sung[:, EARLIER:]


def twin(made: Echo, h, logits, earlier, now, ordered):
    whole = torch.cat([earlier, now], 1).tolist()
    found = torch.zeros_like(logits)
    for n in range(SCENES):
        for t in range(h.shape[1]):
            here, song = EARLIER + t, whole[n]
            for i in range(AGENTS):
                places, scores = [None], [made.new(h[n, t, i])[0]]
                for s in range(max(0, here - WINDOW), here):
                    if song[s][i] == SYMBOLS:
                        continue

                    def run(alike, s=s, here=here, song=song):
                        k = 0
                        while k < LONGEST and s - k >= 1 and alike(song[s - k - 1], song[here - k - 1]):
                            k += 1
                        return k

                    score = made.own[run(lambda a, b, i=i: a[i] == b[i])]
                    if made.social:
                        score = score + made.run[run(lambda a, b: a == b)]
                    if ordered:
                        same = sum(song[s][j] == song[here][j] for j in range(i))
                        score = score + made.agree[0] * same + made.agree[1] * (i - same)
                    places.append(s)
                    scores.append(score)
                weights = torch.stack(scores).softmax(0)
                p = logits[n, t, i].softmax(0) * weights[0]
                for s, w in zip(places[1:], weights[1:], strict=True):
                    p[song[s][i]] += w
                found[n, t, i] = p.log()
    return found


@torch.no_grad()
@pytest.mark.parametrize(("social", "ordered"), [(True, True), (True, False), (False, False)])
@pytest.mark.parametrize("frames", [FRAMES, 2 * WINDOW + 3])  # at once, and block by block
def test_it_computes_what_loops_compute(social, ordered, frames):
    made, (h, logits, earlier, now) = echo(social), moments(frames)
    found = made(h, logits, earlier, now, torch.arange(AGENTS), ordered)
    torch.testing.assert_close(found, twin(made, h, logits, earlier, now, ordered), atol=1e-12, rtol=0)
    torch.testing.assert_close(found.exp().sum(-1), torch.ones_like(found[..., 0]), atol=1e-12, rtol=0)


@torch.no_grad()
def test_of_one_agent_at_one_moment_it_says_the_same():
    made, (h, logits, earlier, now) = echo(), moments()
    found = made(h, logits, earlier, now, torch.arange(AGENTS), True)
    for t in range(FRAMES):
        past = torch.cat([earlier, now[:, :t]], 1)
        for i in range(AGENTS):
            one = torch.tensor([i])
            alone = made(h[:, t : t + 1, one], logits[:, t : t + 1, one], past, now[:, t : t + 1], one, True)
            torch.testing.assert_close(alone, found[:, t : t + 1, one], atol=1e-12, rtol=0)


def singer(echo: int) -> CausalSceneNet:
    trunk = TrunkConfig(hidden=16, layers=1, heads=2, pair=4, window=64)
    shape = SceneShape(0, 12, (0, 1), (0, 0))
    return CausalSceneNet(SceneNet(trunk, echo=echo), shape, generator(0)).double()


@torch.no_grad()
def test_a_refrain_is_expected_by_a_model_that_has_learnt_nothing():
    tune = torch.randint(12, (20, 12, 2), generator=generator(2))
    twice = torch.cat([tune, tune], 1)
    clips = Clips(twice, torch.ones_like(twice, dtype=torch.bool))
    nats = -singer(8)(clips).frames
    assert nats[:, :12].mean() > 0.8 * 2 * math.log(12)
    assert nats[:, 15:].mean() < 0.5 * nats[:, :12].mean()
    assert -singer(0)(clips).frames[:, 15:].mean() > 0.8 * 2 * math.log(12)


def test_how_much_an_echo_counts_is_learnt():
    tune = torch.randint(12, (8, 10, 2), generator=generator(3))
    twice = torch.cat([tune, tune], 1)
    clips, net = Clips(twice, torch.ones_like(twice, dtype=torch.bool)), singer(8)
    before = -net(clips).frames.mean()
    before.backward()
    for each in (net.head.echo.run, net.head.echo.own, net.head.echo.agree, net.head.echo.new.bias):
        assert each.grad.abs().sum() > 0
    with torch.no_grad():
        for each in net.head.echo.parameters():
            each -= 0.1 * each.grad / each.grad.norm().clamp(min=1e-12)
        assert -net(clips).frames.mean() < before


@torch.no_grad()
def test_a_piece_is_sung_the_same_with_a_memory_and_without():
    net, past = singer(4), torch.randint(12, (3, 5, 2), generator=generator(4))
    begun = Clips(past, torch.ones_like(past, dtype=torch.bool))
    noise = net.noise(3, 6, 2, generator(5))
    made = net.sample(begun, noise)
    for t in range(6):
        before = Clips(made.values[:, : 5 + t], made.present[:, : 5 + t])
        one = net.sample(before, noise._replace(agents=noise.agents[:, t : t + 1], scene=noise.scene[:, t : t + 1]))
        assert torch.equal(one.values[:, -1], made.values[:, 5 + t])


@torch.no_grad()
def test_an_echo_is_drawn_as_often_as_it_is_likely():
    net, count = singer(4), 20_000
    past = torch.tensor([[[1, 2], [3, 4], [1, 2]]])
    begun = Clips(past.expand(count, -1, -1), torch.ones(count, 3, 2, dtype=torch.bool))
    drawn = net.sample(begun, net.noise(count, 1, 2, generator(6))).values[:, -1]
    whole = torch.cat([past, torch.tensor([[[3, 4]]])], 1)
    likely = net(Clips(whole, torch.ones_like(whole, dtype=torch.bool))).frames[0, -1].exp()
    found = (drawn == torch.tensor([3, 4])).all(-1).double().mean()
    assert likely > 0.01 and abs(found - likely) < 5 * math.sqrt(likely / count)


@torch.no_grad()
def test_a_piece_cut_from_further_on_echoes_its_first_frame_as_a_sample_does():
    net = singer(4)
    whole = torch.tensor([[[1, 2], [3, 4], [1, 2], [3, 4]]])
    start, there = torch.tensor([5]), torch.ones(1, 4, 2, dtype=torch.bool)
    begun = Clips(whole[:, :3], there[:, :3], start=start)
    seen = net._look(Clips(whole, there, start=start))
    h = net._features(seen, None, None, None)[:, -1:]
    alone = net.head(h, seen.last[:, -1:], whole[:, -1:], there[:, -1:], earlier=begun.values)
    torch.testing.assert_close(net.logits(Clips(whole, there, start=start))[:, -1:], alone)
