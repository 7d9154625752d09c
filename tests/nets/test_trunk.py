"""The trunk: what it computes, who sees whom, and that going on frame by frame is the same as all at once."""

import math

import pytest
import torch
import torch.nn.functional as F

from understudy.core.errors import ConfigError
from understudy.core.random import generator
from understudy.nets.trunk import Dropout, Table, Trunk, TrunkConfig

SCENES, FRAMES, AGENTS, PAIR = 3, 9, 4, 5
SMALL = TrunkConfig(hidden=16, layers=2, heads=2, pair=PAIR, window=4)


def trunk(config=SMALL, causal=True):
    return Trunk(config, generator(0), causal).double()


def inputs(frames=FRAMES, seed=1):
    source = generator(seed)
    x = torch.randn(SCENES, frames, AGENTS, SMALL.hidden, generator=source, dtype=torch.float64)
    pairs = torch.randn(SCENES, frames, AGENTS, AGENTS, PAIR, generator=source, dtype=torch.float64)
    return x, pairs, torch.rand(SCENES, frames, AGENTS, generator=source) < 0.7


def twin(net: Trunk, x, pairs, present):
    """The same by loops, one agent and one moment at a time. x: [time, agent, hidden] of one scene."""
    frames, agents, width = x.shape
    heads, window = net.config.heads, net.config.window
    part = width // heads

    def turned(v, t):
        speed = [10_000.0 ** (-2 * k / part) for k in range(part // 2)]
        out = v.clone()
        for k, s in enumerate(speed):
            a, b = v[k], v[k + part // 2]
            out[k] = a * math.cos(t * s) - b * math.sin(t * s)
            out[k + part // 2] = a * math.sin(t * s) + b * math.cos(t * s)
        return out

    for block in net.blocks:
        parts = block.time_in(block.norm(x)).reshape(frames, agents, 3, heads, part)
        added = torch.zeros_like(x)
        for i in range(agents):
            for t in range(frames):
                seen = [s for s in range(max(0, t - window + 1), t + 1) if s == t or present[s, i]]
                mixed = []
                for h in range(heads):
                    query = turned(parts[t, i, 0, h], t)
                    logits = torch.stack([query @ turned(parts[s, i, 1, h], s) / math.sqrt(part) for s in seen])
                    mixed.append(sum(w * parts[s, i, 2, h] for w, s in zip(logits.softmax(0), seen, strict=True)))
                added[t, i] = block.time_out(torch.cat(mixed))
        x = x + added
        hear = block.agents
        parts = hear.gather(hear.norm(x)).reshape(frames, agents, 3, heads, part)
        added = torch.zeros_like(x)
        for t in range(frames):
            for i in range(agents):
                seen = [j for j in range(agents) if j == i or present[t, j]]
                mixed, told = [], []
                for h in range(heads):
                    logits = torch.stack(
                        [
                            parts[t, i, 0, h] @ parts[t, j, 1, h] / math.sqrt(part) + hear.bias(pairs[t, i, j])[h]
                            for j in seen
                        ]
                    ).softmax(0)
                    mixed.append(sum(w * parts[t, j, 2, h] for w, j in zip(logits, seen, strict=True)))
                    told.append(sum(w * pairs[t, i, j] for w, j in zip(logits, seen, strict=True)))
                added[t, i] = hear.give(torch.cat(mixed)) + hear.told(torch.cat(told))
        x = x + added
        x = x + hear.feed.narrow(F.gelu(hear.feed.wide(hear.feed.norm(x))))
    return net.norm(x)


@torch.no_grad()
def test_it_computes_what_loops_over_agents_and_moments_compute():
    net, (x, pairs, present) = trunk(), inputs()
    found = net(x, pairs, present)
    for scene in range(SCENES):
        torch.testing.assert_close(found[scene], twin(net, x[scene], pairs[scene], present[scene]), atol=1e-10, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("first", [1, 3, 6])  # fewer and more frames than the window holds
@pytest.mark.parametrize("missing", [False, True])
def test_frame_by_frame_with_a_memory_is_the_same_as_all_at_once(first, missing):
    net, (x, pairs, present) = trunk(), inputs()
    there = present if missing else None
    meant = net(x, pairs, there)
    memory = net.start(SCENES, AGENTS, FRAMES)
    found = []
    for begin, end in [(0, first), *((t, t + 1) for t in range(first, FRAMES))]:
        now = None if there is None else there[:, begin:end]
        found.append(net(x[:, begin:end], pairs[:, begin:end], now, memory))
    assert memory.keys.shape[-2] == SMALL.window  # memory is of the window, however long the scene
    torch.testing.assert_close(torch.cat(found, dim=1), meant, atol=1e-10, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("missing", [False, True])
def test_long_scenes_are_attended_to_block_by_block_with_the_same_outcome(causal, missing, monkeypatch):
    net, (x, pairs, present) = trunk(causal=causal), inputs(frames=19)
    there = present if missing else None
    found = net(x, pairs, there)
    monkeypatch.setattr(Trunk, "_earlier", lambda self, times, *known: [self._seen(times, times, *known)])
    torch.testing.assert_close(found, net(x, pairs, there), atol=1e-10, rtol=0)


def test_what_is_attended_to_grows_with_the_frames_and_not_with_their_square():
    net, frames = trunk(), (20, 40, 80)
    pairs = [sum(mask.numel() for mask in net._earlier(torch.arange(count), None)) for count in frames]
    assert pairs[1] - pairs[0] == 20 * 2 * SMALL.window
    assert pairs[2] - pairs[1] == 40 * 2 * SMALL.window


@torch.no_grad()
def test_permuted_agents_give_permuted_features():
    net, (x, pairs, present) = trunk(), inputs()
    order = torch.tensor([2, 0, 3, 1])
    found = net(x[:, :, order], pairs[:, :, order][:, :, :, order], present[:, :, order])
    torch.testing.assert_close(found, net(x, pairs, present)[:, :, order], atol=1e-10, rtol=0)


@torch.no_grad()
def test_who_is_absent_reaches_nobody():
    net, (x, pairs, present) = trunk(), inputs()
    other = torch.where(present.unsqueeze(-1), x, x + 5)
    gone = (~present).unsqueeze(-2).unsqueeze(-1)  # of the agent looked at
    found = net(other, torch.where(gone, pairs - 3, pairs), present)
    torch.testing.assert_close(found[present], net(x, pairs, present)[present], atol=1e-10, rtol=0)
    assert (found[~present] - net(x, pairs, present)[~present]).abs().max() > 0.1


@torch.no_grad()
@pytest.mark.parametrize("causal", [True, False])
def test_the_future_reaches_the_past_only_where_all_times_see_each_other(causal):
    net, (x, pairs, present) = trunk(causal=causal), inputs()
    later = x.clone()
    later[:, 5, :, 0] += 1  # not all features alike: a norm would take that away
    moved = (net(later, pairs, present) - net(x, pairs, present)).abs().amax(dim=(0, 2, 3))
    assert moved[5] > 0.1 and moved[6:].min() > 0
    assert bool((moved[:5] == 0).all()) == causal


@torch.no_grad()
def test_only_differences_of_time_matter():
    net, (x, pairs, present) = trunk(), inputs()
    source = generator(7)
    before = torch.randn(SCENES, 3, AGENTS, SMALL.hidden, generator=source, dtype=torch.float64)
    nobody = torch.zeros(SCENES, 3, AGENTS, dtype=torch.bool)
    late = net(torch.cat([before, x], 1), torch.cat([pairs[:, :3], pairs], 1), torch.cat([nobody, present], 1))
    torch.testing.assert_close(late[:, 3:], net(x, pairs, present), atol=1e-10, rtol=0)


def test_dropout_is_drawn_from_the_generator_alone_and_keeps_the_mean():
    config = TrunkConfig(hidden=16, layers=1, heads=2, pair=PAIR, dropout=0.3)
    net, (x, pairs, present) = trunk(config), inputs()
    once, again = (net(x, pairs, present, chance=generator(3)) for _ in range(2))
    torch.testing.assert_close(once, again, atol=0, rtol=0)
    assert not torch.equal(once, net(x, pairs, present))
    ones = torch.ones(20_000, 1, 1, 16, dtype=torch.float64)
    mean = Dropout(0.3)(ones, generator(4)).mean()
    assert abs(mean - 1) < 5 * math.sqrt(0.3 / 0.7 / ones.numel())


def test_widths_that_cannot_be_turned_are_refused_with_one_that_can():
    with pytest.raises(ConfigError, match=r"hidden, heads: got 20 and 4.*such as 16"):
        TrunkConfig(hidden=20, heads=4)
    with pytest.raises(ConfigError, match="dropout"):
        TrunkConfig(dropout=1.0)


def test_a_memory_takes_many_frames_only_at_first():
    net, (x, pairs, _) = trunk(), inputs()
    memory = net.start(SCENES, AGENTS, FRAMES)
    with torch.no_grad():
        net(x[:, :3], pairs[:, :3], None, memory)
        with pytest.raises(ValueError, match="one frame at a time"):
            net(x[:, 3:5], pairs[:, 3:5], None, memory)


def test_rows_a_period_apart_share_what_they_learn():
    rows = Table(7, 3, generator(0), period=3)
    rows()[1].sum().backward()
    assert rows.shared.grad[1].tolist() == [1, 1, 1] and rows.each.grad.sum() == 3
    torch.testing.assert_close(rows()[6] - rows.each[6], rows()[0] - rows.each[0])
    assert Table(7, 3, generator(0))().shape == (7, 3)
