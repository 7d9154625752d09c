"""A policy, or a model of scenes, as two files: `NAME.json`, what it is made of; `NAME-HASH.safetensors`, its weights.

The JSON is written last and names the weights by their sha256: at every moment, a kill included, the folder holds the
old net or the new one. Neither can run code: the architecture is settings, whose words are of a fixed table.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import safetensors.torch
from torch import nn

from understudy.core import config as settings
from understudy.core.errors import RunError
from understudy.core.files import TEMPORARY, sha256, to_json, write_atomically
from understudy.core.random import generator
from understudy.core.types import EnvSpec
from understudy.nets.policy import AgentPolicy, NetConfig, build_policy

VERSION = 1
Net = TypeVar("Net", bound=nn.Module)


def save_policy(policy: AgentPolicy, folder: Path | str) -> None:
    """Write `policy` into `folder`, in the place of one that is there. Raises RunError where it cannot be written."""
    told = {"net": settings.to_dict(policy.config), "spec": settings.to_dict(policy.spec.to_json())}
    save_net(policy, folder, "policy", told)


def load_policy(folder: Path | str) -> AgentPolicy:
    """The policy that `save_policy` wrote into `folder`.

    Raises:
        RunError: there is none, it is damaged, or of a newer format.
    """

    def make(told: dict[str, Any], path: str) -> AgentPolicy:
        net = settings.from_dict(NetConfig, told["net"], path)
        return build_policy(net, EnvSpec.from_json(told["spec"]), generator(0, "weights that are replaced"))

    return load_net(folder, "policy", make)


def save_net(net: nn.Module, folder: Path | str, name: str, told: dict[str, Any]) -> None:
    """Write a net's weights, and of what it is made (`told`, plain data), in the place of one of that name."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    weights = {key: tensor.detach().cpu().clone() for key, tensor in net.state_dict().items()}
    data = safetensors.torch.save({key: tensor.contiguous() for key, tensor in weights.items()})
    digest = sha256(data)
    named = _named(name, digest)
    write_atomically(folder / named, data)
    write_atomically(folder / f"{name}.json", to_json({"version": VERSION, **told, "weights": digest}, indent=1))
    ours = re.compile(rf"{name}(-[0-9a-f]{{16}})?\.safetensors|\.{name}[-.].*\{TEMPORARY}")
    for path in folder.iterdir():
        if ours.fullmatch(path.name) and path.name != named:  # the weights that were, and what a kill left
            path.unlink(missing_ok=True)


def load_net(folder: Path | str, name: str, make: Callable[[dict[str, Any], str], Net]) -> Net:
    """The net that `save_net` wrote: `make(told, path)` gives one like it, whose weights are replaced.

    Raises:
        RunError: there is none, it is damaged, or of a newer format.
    """
    folder = Path(folder)
    path = folder / f"{name}.json"
    if not path.exists():
        raise RunError(f"{folder} holds no {name}: {path.name} is not there. A run writes it when its training stops.")
    told = settings.read(path)
    if told.get("version") != VERSION:
        raise RunError(f"{path} is of format {settings.say(told.get('version'))}, and this understudy reads {VERSION}.")
    try:
        beside = folder / _named(name, told["weights"])
        if not beside.exists():
            beside = folder / f"{name}.safetensors"  # as earlier versions called it
        data = beside.read_bytes()
        if sha256(data) != told["weights"]:
            raise RunError(f"{beside} is damaged: its sha256 is not the one in {path.name}. {_AGAIN}")
        net = make(told, str(path))
        net.load_state_dict(safetensors.torch.load(data))
    except (OSError, KeyError, TypeError, ValueError, RuntimeError, MemoryError) as error:
        if isinstance(error, RunError):
            raise
        raise RunError(f"{path}: no {name} can be made of it: {' '.join(str(error).split())}. {_AGAIN}") from None
    return net


_AGAIN = "The command that trained the run writes it anew from its last checkpoint."


def _named(name: str, weights: str) -> str:
    """The file of the weights of that sha256."""
    if not re.fullmatch("[0-9a-f]{64}", weights):
        raise ValueError(f"weights: {settings.say(weights)} is no sha256")
    return f"{name}-{weights[:16]}.safetensors"
