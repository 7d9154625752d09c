"""Where a run computes: the device, the threads, and whether the same bits come out again."""

import os
import platform
from typing import Literal

import torch

from understudy.core.errors import ConfigError

Device = Literal["auto", "cpu", "cuda"]


def choose(name: Device | str = "auto") -> torch.device:
    """The device called `name`; `auto` is CUDA where there is a GPU, else the CPU. ConfigError where it is missing."""
    there = torch.cuda.is_available()
    if name == "auto":
        return torch.device("cuda" if there else "cpu")
    if name.split(":")[0] not in ("cpu", "cuda"):
        raise ConfigError(f"device: got {name!r}; it is `auto`, `cpu` or `cuda`.")
    if name.startswith("cuda") and not there:
        raise ConfigError(f"device: {name!r} was asked for, but torch sees no GPU here. Use `auto` or `cpu`.")
    return torch.device(name)


def set_threads(threads: int) -> None:
    """Compute with so many CPU threads. Sums are split by thread: another number may give other last bits."""
    if threads < 1:
        raise ConfigError(f"threads: got {threads}, but it takes one to compute.")
    torch.set_num_threads(threads)


def deterministic(on: bool = True) -> None:
    """Have torch refuse operations whose bits change from run to run. A CPU needs it not; on a GPU it costs speed."""
    if on:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it at its first use
    torch.use_deterministic_algorithms(on)


def describe(device: torch.device) -> dict[str, str | int]:
    """What bits depend on besides the seed: kept with each run."""
    kind = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {"device": str(device), "kind": kind, "threads": torch.get_num_threads(), "system": platform.platform()}
