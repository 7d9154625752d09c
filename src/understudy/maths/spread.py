"""Chance shared out among several samples: each by itself as random as ever, all together better spread.

Of K independent futures some lie near each other while much of what may come is met by none. Here the K series of
uniform numbers belong together,

    z = Phi^-1(noise),   c = V z  over the frames,   c <- Phi^-1(strata),   noise <- Phi(V^T c),

where the rows of V are the ways in which a chain of changes of step moves somebody, the farthest first: the right
singular vectors of A[t, s] = t - s + 1, s <= t (a change at frame s has moved one so many times by frame t). V is
orthogonal and every coefficient stays standard normal, so each of the K series is still independent and uniform. The
first coefficient of all numbers of an agent is a shifted lattice in as many dimensions, whose points keep apart; of
every other the K values lie one in each of K equally likely strata (a Latin hypercube).

Sources: Moskowitz & Caflisch 1996 (paths from few numbers that matter, for quasi-Monte Carlo); McKay et al. 1979 (Latin
hypercubes); Cranley & Patterson 1976 (random shifts of a lattice). The lattice is (k / K, k g, k g^2 ..) with g the
root of x^d = 1 / (1 + x) between 0 and 1, for d = 1 the golden ratio's inverse.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from understudy.core.random import uniform
from understudy.maths.heads import standard_normal


def shared_out(
    noise: Float[Tensor, "past sample time agent draw"], chance: torch.Generator
) -> Float[Tensor, "past sample time agent draw"]:
    """Noise like `noise`, its samples spread. Agents, like pasts, are shared out independently of each other."""
    pasts, samples, frames, agents, draws = noise.shape
    if samples < 2 or not frames or not draws:
        return noise
    shape = (pasts, samples, frames, agents, draws)
    turn = uniform(shape, chance, noise.dtype).argsort(dim=1)
    strata = (turn + noise) / samples
    who = uniform((pasts, samples, agents), chance, noise.dtype).argsort(dim=1).unsqueeze(-1)  # whose point of it
    shift = uniform((pasts, 1, agents, draws), chance, noise.dtype)
    strata[:, :, 0] = (who * _steps(samples, draws, noise) + shift) % 1
    mixed = torch.einsum("ct,psc...->pst...", _ways(frames).to(noise), standard_normal(strata))
    return torch.special.ndtr(mixed).clamp(0, 1 - torch.finfo(noise.dtype).eps / 2)


def _steps(samples: int, draws: int, like: Tensor) -> Float[Tensor, "draw"]:
    """From one point of the lattice to the next."""
    g = 0.5
    for _ in range(64):  # a contraction
        g = (1 / (1 + g)) ** (1 / max(draws - 1, 1))
    return torch.tensor([1 / samples] + [g**k for k in range(1, draws)]).to(like)


def _ways(frames: int) -> Float[Tensor, "way time"]:
    t = torch.arange(frames, dtype=torch.float64)
    return torch.linalg.svd((t.unsqueeze(-1) - t + 1).clamp(min=0)).Vh
