"""Echoes: what sounded when things went like this before may sound again.

Pieces repeat phrases note for note, which a network that has seen few pieces does not learn to notice. So a share of
the probability goes, frame by frame, to what an agent gave at earlier frames s of the same scene, the more of it the
longer the frames before s are those before t:

    p(y_t) = a_0 p_net(y_t) + sum_{s < t} a_s [y_s = y_t]
    a      = softmax(w h_t + b,  A[run_s] + B[own run_s] + C agreeing_s + D differing_s)

run_s is the number of frames in a row before s in which all agents did what they did before t, `own run` the same of
the agent alone (who is absent in both frames did the same); agreeing and differing are how many of those who chose
before it in frame t chose as in frame s, and otherwise. All that is learnt is how much each counts.

Sources: pointer sentinel mixture, Merity et al. 2017, arXiv:1609.07843; contexts by their length: PPM, Cleary & Witten
1984.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from understudy.nets.trunk import linear


class Echo(nn.Module):
    """See the module.

    Args:
        longest: runs are counted up to so many frames.
        window: frames back that are looked at.
        social: False: an agent knows of itself alone.
    """

    def __init__(self, hidden: int, longest: int, window: int, social: bool, generator: torch.Generator):
        super().__init__()
        self.longest, self.window, self.social = longest, window, social
        grows = torch.arange(longest + 1).clamp(max=4).float()
        self.run = nn.Parameter(grows - 4)
        self.own = nn.Parameter(torch.zeros(longest + 1))
        self.agree = nn.Parameter(torch.tensor([0.5, -2.0]))  # for each who chose as then, and for each who did not
        self.new = linear(hidden, 1, generator, 0.0)

    def forward(
        self,
        h: Float[Tensor, "scene time agent hidden"],
        logits: Float[Tensor, "scene time agent symbol"],
        earlier: Int[Tensor, "scene earlier every"],
        now: Int[Tensor, "scene time every"],
        mine: Int[Tensor, "agent"],
        ordered: bool,
        alike: Float[Tensor, "scene time whole every"] | None = None,
    ) -> Float[Tensor, "scene time agent symbol"]:
        """Logits, which are log-probabilities. Of `now`, only what stands before an agent reaches its own.

        Args:
            h, logits: of the agents `mine`.
            earlier: symbols of the frames before those of `h`; as in `now`, what is not below the number of symbols
                stands for nothing.
            ordered: whether within a frame agents know what those before them chose.
            alike: of `self.alike`, where it is known already.
        """
        symbols, frames = logits.shape[-1], h.shape[1]
        if frames > 2 * self.window:  # block by block: the work grows with the frames, not with their square
            known, blocks = torch.cat([earlier, now], dim=1), range(0, frames, self.window)
            cuts = [slice(begin, begin + self.window) for begin in blocks]
            past = [known[:, : earlier.shape[1] + begin] for begin in blocks]
            each = [self(h[:, c], logits[:, c], p, now[:, c], mine, ordered) for c, p in zip(cuts, past, strict=True)]
            return torch.cat(each, dim=1)
        whole = self._whole(earlier, now)
        likely = (self.alike(earlier, now) if alike is None else alike)[..., mine]
        if ordered:
            before = (torch.arange(now.shape[-1], device=now.device) < mine.unsqueeze(-1)).T.to(h.dtype)
            agree = (now.unsqueeze(2) == whole.unsqueeze(1)).to(h.dtype) @ before  # [scene, time, whole, agent]
            likely = likely + self.agree[0] * agree + self.agree[1] * (before.sum(dim=0) - agree)
        given = whole[:, None, :, mine]  # [scene, 1, whole, agent]
        back = torch.arange(frames, device=h.device).unsqueeze(-1) + whole.shape[1] - frames
        back = back - torch.arange(whole.shape[1], device=h.device)
        there = ((back > 0) & (back <= self.window)).unsqueeze(-1) & (given < symbols)
        likely = likely.masked_fill(~there, -torch.inf)
        weight = torch.cat([self.new(h), likely.transpose(-1, -2)], dim=-1).softmax(dim=-1)  # [.., agent, 1 + whole]
        index = given.clamp(max=symbols - 1).expand_as(likely).transpose(-1, -2)
        p = (logits.softmax(dim=-1) * weight[..., :1]).scatter_add(-1, index, weight[..., 1:])
        return p.clamp(min=torch.finfo(p.dtype).tiny).log()

    def alike(
        self, earlier: Int[Tensor, "scene earlier every"], now: Int[Tensor, "scene time every"]
    ) -> Float[Tensor, "scene time whole every"]:
        """How much each earlier frame counts for each agent by the frames before it; a frame itself is not asked."""
        whole, frames = self._whole(earlier, now), now.shape[1]
        same = self._same(whole, frames)  # [scene, longest + time, whole, every]
        if not self.social:
            return self.own[self._runs(same, frames)]
        runs = self._runs(torch.cat([same, same.all(dim=-1, keepdim=True)], dim=-1), frames)
        return self.own[runs[..., :-1]] + self.run[runs[..., -1:]]

    def _whole(self, earlier: Int[Tensor, "scene earlier every"], now: Int[Tensor, "scene time every"]) -> Tensor:
        """All frames that matter to these."""
        return torch.cat([earlier[:, -self.window - self.longest :], now], dim=1)

    def _same(self, whole: Int[Tensor, "scene whole agent"], frames: int) -> Bool[Tensor, "scene row whole agent"]:
        """In which frames each did what it did in the asked ones and in the `longest` before these."""
        first = whole.shape[1] - frames - self.longest
        rows = F.pad(whole[:, max(0, first) :], (0, 0, max(0, -first), 0), value=-1)
        return rows.unsqueeze(2) == whole.unsqueeze(1)

    def _runs(self, same: Bool[Tensor, "scene row whole agent"], frames: int) -> Int[Tensor, "scene time whole agent"]:
        """How many frames in a row before s are those before t."""
        padded = F.pad(same, (0, 0, self.longest, 0))
        still = torch.ones_like(same[:, self.longest :])
        length = torch.zeros_like(still, dtype=torch.long)
        for k in range(1, self.longest + 1):
            begin = self.longest - k
            still = still & padded[:, begin : begin + frames, begin : begin + same.shape[2]]
            length += still
        return length
