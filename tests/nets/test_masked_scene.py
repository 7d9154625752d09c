"""Filling in: what is known stays, what is hidden reaches nothing, and the first guess is the line between."""

from dataclasses import replace

import pytest
import torch

from understudy.core.errors import ConfigError, ShapeError
from understudy.core.random import generator
from understudy.demos.tracks import Clips
from understudy.nets.masked_scene import MaskedSceneNet, first_guess
from understudy.nets.scene import SceneNet, SceneShape
from understudy.nets.trunk import TrunkConfig

NET = SceneNet(TrunkConfig(hidden=16, layers=2, heads=2, pair=4, window=9))


def net(symbols=0, agents=3):
    shape = SceneShape(
        0 if symbols else 2, symbols, (0,) * agents if not symbols else tuple(range(agents)), (0,) * agents
    )
    return MaskedSceneNet(NET, shape, 9, generator(0)).double()


def walks(scenes=4, seed=1):
    return Clips(
        torch.randn(scenes, 9, 3, 2, generator=generator(seed), dtype=torch.float64).cumsum(1),
        torch.rand(scenes, 9, 3, generator=generator(seed)) < 0.9,
    )


def songs(scenes=4, symbols=5, seed=1):
    values = torch.randint(symbols, (scenes, 9, 3), generator=generator(seed))
    return Clips(values, torch.ones_like(values, dtype=torch.bool))


def told(clips, seed=2):
    return clips.present & (torch.rand(clips.present.shape, generator=generator(seed)) < 0.5)


def test_the_first_guess_is_a_line_between_and_goes_on_from_the_last_step():
    x = torch.tensor([0.0, 1.0, 9.0, 9.0, 4.0, 9.0, 9.0])
    values = torch.stack([x, -x], dim=-1)[None, :, None].expand(1, 7, 3, 2).clone()
    known = torch.zeros(1, 7, 3, dtype=torch.bool)
    known[0, [0, 1, 4], 0] = True
    known[0, 1, 1] = True
    guess = first_guess(values, known)
    assert guess.place[0, :, 0, 0].tolist() == [0, 1, 2, 3, 4, 4, 4]  # frame 3 is not known, so it stands from 4 on
    assert guess.place[0, :, 1, 0].tolist() == [1] * 7
    assert guess.gap[0, :, 0].tolist() == [0, 0, 1, 1, 0, 1, 2] and guess.gap[0, :, 1].tolist() == [1, 0, 1, 2, 3, 4, 5]
    assert guess.place[0, :, 2, 0].tolist() == pytest.approx([6 / 4] * 7) and (guess.gap[0, :, 2] == 7).all()
    known[0, 3, 0] = True  # 9, then 4: five to the left, on and on
    assert first_guess(values, known).place[0, 4:, 0, 0].tolist() == [4, -1, -6]
    known[0, :3, 0] = False
    assert first_guess(values, known).place[0, :4, 0, 0].tolist() == [24, 19, 14, 9]


@torch.no_grad()
@pytest.mark.parametrize("made", ["walks", "songs"])
def test_what_is_known_stays_and_what_was_hidden_reaches_nothing(made):
    model, clips = (net(), walks()) if made == "walks" else (net(5), songs())
    known = told(clips)
    noise = model.noise(4, 9, 3, generator(3))
    filled = model.fill(clips, known, noise, 4)
    hidden = clips.present & ~known
    assert torch.equal(filled[~hidden], clips.values[~hidden])
    other = replace(clips, values=torch.where(_like(hidden, clips.values), (clips.values + 2) % 5, clips.values))
    torch.testing.assert_close(model.fill(other, known, noise, 4)[hidden], filled[hidden])
    again = model.fill(clips, known, model.noise(4, 9, 3, generator(4)), 4)
    assert not torch.equal(again[hidden], filled[hidden])
    if made == "songs":
        assert filled.min() >= 0 and filled.max() < 5


def _like(mask, x):
    return mask.unsqueeze(-1) if x.dim() == 4 else mask


@torch.no_grad()
def test_filling_in_symbols_one_by_one_follows_the_chain_of_their_distributions():
    """Two hidden symbols: pairs come as often as the mean over both orders of p(first) p(second given it)."""
    model, count = net(2, 1), 10_000
    values = torch.tensor([[1, 0, 0, 1]])[..., None]
    known = torch.tensor([[True, False, False, True]])[..., None]
    clips = Clips(values, torch.ones_like(known))
    meant = torch.zeros(2, 2, dtype=torch.float64)
    p = model.logits(clips, known).softmax(-1)[0, 1:3, 0]  # [place, symbol]
    for first in (0, 1):
        for s in (0, 1):
            told_ = known.clone()
            told_[0, 1 + first] = True
            put = values.clone()
            put[0, 1 + first] = s
            q = model.logits(Clips(put, clips.present), told_).softmax(-1)[0, 2 - first, 0]
            row = 0.5 * p[first, s] * q
            meant += torch.stack([row, torch.zeros_like(row)]).roll(s, 0) if first == 0 else 0
            meant += torch.stack([row, torch.zeros_like(row)]).roll(s, 0).T if first == 1 else 0
    many = Clips(values.expand(count, -1, -1), clips.present.expand(count, -1, -1))
    drawn = model.fill(many, known.expand(count, -1, -1), model.noise(count, 4, 1, generator(5)), 2)
    found = torch.bincount(drawn[:, 1:3, 0] @ torch.tensor([2, 1]), minlength=4) / count
    assert meant.sum().item() == pytest.approx(1)
    assert ((found - meant.flatten()).abs() < 5 * (meant.flatten() / count).sqrt()).all()


@torch.no_grad()
def test_permuted_agents_are_filled_in_alike():
    model, clips = net(), walks()
    known, noise, order = told(clips), model.noise(4, 9, 3, generator(3)), torch.tensor([2, 0, 1])
    meant = model.fill(clips, known, noise, 3)[:, :, order]
    permuted = Clips(clips.values[:, :, order], clips.present[:, :, order])
    torch.testing.assert_close(model.fill(permuted, known[:, :, order], noise[:, :, order], 3), meant)


def test_more_than_was_learnt_is_refused():
    model, clips = net(), walks()
    long = Clips(clips.values.repeat(1, 2, 1, 1), clips.present.repeat(1, 2, 1))
    with pytest.raises(ShapeError, match=r"18 frames.*learnt from 9"):
        model.fill(long, long.present, model.noise(4, 18, 3, generator(0)))
    with pytest.raises(ConfigError, match="steps"):
        model.fill(clips, clips.present, model.noise(4, 9, 3, generator(0)), 0)
