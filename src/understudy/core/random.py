"""Random numbers by name: each purpose has its own generator, so that adding one never moves another.

Nothing in the library draws from a global random state.
"""

import hashlib

import torch
from torch import Tensor


def split_seed(seed: int, *names: str | int) -> int:
    """A seed in [0, 2**63) that is a function of `seed` and `names` alone, the same on every machine."""
    digest = hashlib.sha256("\x1f".join([str(int(seed)), *map(str, names)]).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def generator(seed: int, *names: str | int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator for one purpose, for example `generator(seed, "rollout", rank)`."""
    made = torch.Generator(device=device)
    made.manual_seed(split_seed(seed, *names))
    return made


def uniform(shape: tuple[int, ...], source: torch.Generator, dtype: torch.dtype = torch.float32) -> Tensor:
    """Uniform numbers in [0, 1): the noise that environments and policies are handed."""
    return torch.rand(shape, generator=source, device=source.device, dtype=dtype)
