"""What a model of scenes must be better than: walking straight on, and counting what followed what.

They are fitted in closed form, and are measured by the same functions on the same frames as any other
(`evaluation.scenes`).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from understudy.core.errors import DemosError
from understudy.demos.tracks import Clips, TrackSet
from understudy.nets.scene import Likelihood


@dataclass(frozen=True)
class Straight:
    """Everybody goes on as in the last step, but for independent normal changes, alike in all directions.

    x_t ~ Normal(x_{t-1} + (x_{t-1} - x_{t-2}), change^2),  after an agent's first frame Normal(x_{t-1}, move^2)
    """

    change: float  # root mean square of a number of the second difference, per unit of length
    move: float  # of the first difference

    @staticmethod
    def fit(tracks: TrackSet) -> "Straight":
        """The scales that make `tracks` likeliest. Raises DemosError where nobody moves twice in them."""
        clips = tracks.clips(3, stride=1)
        step = clips.values[:, 1:] - clips.values[:, :-1]
        there = clips.present[:, 1:] & clips.present[:, :-1]
        both = there.all(dim=1)
        if not both.any():
            raise DemosError("tracks: nobody is there for three frames, so nobody goes straight on.")
        change = (step[:, 1] - step[:, 0])[both].double()
        move = step[there].double()
        return Straight(math.sqrt(change.square().mean()), math.sqrt(move.square().mean()))

    def __call__(self, scenes: Clips) -> Likelihood:
        """How likely what was recorded is; who counts is as in `nets.scene.CausalSceneNet`."""
        values, present = scenes.values, scenes.present
        step, there = values[:, 1:] - values[:, :-1], present[:, 1:] & present[:, :-1]
        before = torch.cat([torch.zeros_like(step[:, :1]), step[:, :-1]], dim=1)
        known = torch.cat([torch.zeros_like(there[:, :1]), there[:, :-1]], dim=1)
        std = torch.where(known, self.change, self.move).to(values.dtype)
        off = (step - torch.where(known.unsqueeze(-1), before, 0.0)) / std.unsqueeze(-1)
        each = -0.5 * off.square().sum(dim=-1) - values.shape[-1] * (std.log() + 0.5 * math.log(2 * math.pi))
        frames = each.where(there, 0.0).sum(dim=-1)
        first = torch.zeros_like(frames[:, :1])
        counted = torch.cat([torch.zeros_like(there[:, :1]), there], dim=1)
        return Likelihood(
            torch.cat([first, frames], dim=1), counted, torch.zeros_like(counted[..., 0], dtype=values.dtype)
        )

    @staticmethod
    def predict(values: Float[Tensor, "scene time agent dim"], frames: int) -> Float[Tensor, "scene frame agent dim"]:
        """Where everybody is in the frames to come who goes on as in the last step of `values`."""
        step = values[:, -1:] - values[:, -2:-1]
        return values[:, -1:] + step * torch.arange(1, frames + 1, device=values.device)[:, None, None]


@dataclass(frozen=True)
class Counts:
    """How often each voice's symbol followed its last one, and went with that of one other voice in the same frame.

    p(s | last, other) = (n(last, other, s) + c p(s | last)) / (n(last, other) + c),
    p(s | last)        = (n(last, s) + c p(s)) / (n(last) + c),     p(s) = (n(s) + c / S) / (n + c)
    """

    by_other: Float[Tensor, "voice last other symbol"]  # probabilities
    others: tuple[int, ...]  # of each voice: whom it is told, itself: nobody
    symbols: int

    @staticmethod
    def fit(tracks: TrackSet, others: Sequence[int] | None = None, c: float = 4.0) -> "Counts":
        """Counts of `tracks`.

        Args:
            others: for each voice one whose symbol of the frame it is told; None, or itself: none. Following them must
                lead round to nobody.
            c: how many counts what is known from less is worth.
        """
        spec = tracks.spec
        voices, symbols = spec.agents, spec.symbols
        told = tuple(range(voices)) if others is None else tuple(others)
        _expect_order(told)
        last = torch.full_like(tracks.values, symbols)
        last[1:] = torch.where(tracks.present[:-1], tracks.values[:-1], symbols)
        last[tracks.ends - tracks.lengths] = symbols
        made = []
        for voice in range(voices):
            there = tracks.present[:, voice] & tracks.present[:, told[voice]]
            other = torch.zeros_like(last[:, voice]) if told[voice] == voice else tracks.values[:, told[voice]]
            index = (last[:, voice] * symbols + other) * symbols + tracks.values[:, voice]
            count = torch.bincount(index[there], minlength=(symbols + 1) * symbols * symbols).double()
            count = count.reshape(symbols + 1, symbols, symbols)
            alone = count.sum(dim=(0, 1))
            p = (alone + c / symbols) / (alone.sum() + c)
            p = (count.sum(dim=1) + c * p) / (count.sum(dim=(1, 2)).unsqueeze(-1) + c)
            if told[voice] == voice:
                made.append(p.unsqueeze(1).expand(-1, symbols, -1))
            else:
                made.append((count + c * p.unsqueeze(1)) / (count.sum(dim=-1, keepdim=True) + c))
        return Counts(torch.stack(made), told, symbols)

    def __call__(self, scenes: Clips) -> Likelihood:
        """How likely what was recorded is; who counts is as in `nets.scene.CausalSceneNet`."""
        last = torch.full_like(scenes.values, self.symbols)
        last[:, 1:] = torch.where(scenes.present[:, :-1], scenes.values[:, :-1], self.symbols)
        counted = scenes.present.clone()
        if scenes.start is not None:
            counted[:, 0] &= (scenes.start == 0).unsqueeze(-1)
        voice = torch.arange(scenes.values.shape[-1])
        each = self.by_other[voice, last, scenes.values[..., list(self.others)], scenes.values].log()
        frames = each.where(counted, 0.0).sum(dim=-1).float()
        return Likelihood(frames, counted, torch.zeros_like(frames))


def _expect_order(others: tuple[int, ...]) -> None:
    """Raises DemosError where voices are told in a circle: their probabilities would not multiply to a joint one."""
    for voice in range(len(others)):
        at = voice
        for _ in others:
            at = others[at]
        if others[at] != at:
            raise DemosError(f"others: {others} tell in a circle. One voice must be told nobody: itself in its place.")
