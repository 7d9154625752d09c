"""A policy as two files: `policy.json`, architecture and what its agents are; `policy-HASH.safetensors`, its weights.

The JSON is written last and names the weights by their sha256: at every moment, a kill included, the folder holds the
old policy or the new one. Neither can run code: the architecture is a `NetConfig`, whose words are of a fixed table.
"""

import re
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor, nn

from understudy.core import config as settings
from understudy.core.errors import RunError
from understudy.core.files import TEMPORARY, sha256, to_json, write_atomically
from understudy.core.random import generator
from understudy.core.types import EnvSpec
from understudy.nets.policy import AgentPolicy, NetConfig, build_policy

VERSION = 1


def save_policy(policy: AgentPolicy, folder: Path | str) -> None:
    """Write `policy` into `folder`, in the place of one that is there. Raises RunError where it cannot be written."""
    told = {
        "version": VERSION,
        "net": settings.to_dict(policy.config),
        "spec": settings.to_dict(policy.spec.to_json()),
    }
    write_module("policy", policy, told, Path(folder))


def load_policy(folder: Path | str) -> AgentPolicy:
    """The policy that `save_policy` wrote into `folder`.

    Raises:
        RunError: there is none, it is damaged, or of a newer format.
    """
    folder = Path(folder)
    path = folder / "policy.json"
    if not path.exists():
        raise RunError(f"{folder} holds no policy: {path.name} is not there. A run writes it when its training stops.")
    told = settings.read(path)
    if told.get("version") != VERSION:
        raise RunError(f"{path} is of format {settings.say(told.get('version'))}, and this understudy reads {VERSION}.")
    try:
        weights = read_weights("policy", told, folder)
        net = settings.from_dict(NetConfig, told["net"], str(path))
        policy = build_policy(net, EnvSpec.from_json(told["spec"]), generator(0, "weights that are replaced"))
        policy.load_state_dict(weights)
    except (OSError, KeyError, TypeError, ValueError, RuntimeError, MemoryError) as error:
        if isinstance(error, RunError):
            raise
        raise RunError(f"{path}: no policy can be made of it: {' '.join(str(error).split())}. {_AGAIN}") from None
    return policy


_AGAIN = "The command that trained the run writes it anew from its last checkpoint."


def write_module(kind: str, module: nn.Module, told: dict[str, Any], folder: Path) -> None:
    """Weights as `KIND-HASH.safetensors`, then `KIND.json`: what is `told`, and which weights. Older ones go."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in module.state_dict().items()}
    data = safetensors.torch.save(weights)
    named = _named(kind, sha256(data))
    write_atomically(folder / named, data)
    write_atomically(folder / f"{kind}.json", to_json({**told, "weights": sha256(data)}, indent=1))
    ours = re.compile(rf"{kind}(-[0-9a-f]{{16}})?\.safetensors|\.{kind}[-.].*\{TEMPORARY}")
    for path in folder.iterdir():
        if ours.fullmatch(path.name) and path.name != named:  # the weights that were, and what a kill left
            path.unlink(missing_ok=True)


def read_weights(kind: str, told: dict[str, Any], folder: Path) -> dict[str, Tensor]:
    """The weights that `KIND.json` names. Raises RunError where they are others."""
    beside = folder / _named(kind, told["weights"])
    if not beside.exists():
        beside = folder / f"{kind}.safetensors"  # as earlier versions called it
    data = beside.read_bytes()
    if sha256(data) != told["weights"]:
        raise RunError(f"{beside} is damaged: its sha256 is not the one in {kind}.json. {_AGAIN}")
    return safetensors.torch.load(data)


def _named(kind: str, weights: str) -> str:
    """The file of the weights of that sha256."""
    if not re.fullmatch("[0-9a-f]{64}", weights):
        raise ValueError(f"weights: {settings.say(weights)} is no sha256")
    return f"{kind}-{weights[:16]}.safetensors"
