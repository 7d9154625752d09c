"""A policy as two files: `policy.json`, architecture and what its agents are; `policy-HASH.safetensors`, its weights.

The JSON is written last and names the weights by their sha256: at every moment, a kill included, the folder holds the
old policy or the new one. Neither can run code: the architecture is a `NetConfig`, whose words are of a fixed table.
"""

import re
from pathlib import Path

import safetensors.torch

from understudy.core import config as settings
from understudy.core.errors import RunError
from understudy.core.files import TEMPORARY, sha256, to_json, write_atomically
from understudy.core.random import generator
from understudy.core.types import EnvSpec
from understudy.nets.policy import AgentPolicy, NetConfig, build_policy

VERSION = 1
OURS = re.compile(rf"policy(-[0-9a-f]{{16}})?\.safetensors|\.policy[-.].*\{TEMPORARY}")


def save_policy(policy: AgentPolicy, folder: Path | str) -> None:
    """Write `policy` into `folder`, in the place of one that is there. Raises RunError where it cannot be written."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: tensor.detach().cpu().clone() for name, tensor in policy.state_dict().items()}
    data = safetensors.torch.save({name: tensor.contiguous() for name, tensor in weights.items()})
    told = {
        "version": VERSION,
        "net": settings.to_dict(policy.config),
        "spec": settings.to_dict(policy.spec.to_json()),
        "weights": sha256(data),
    }
    named = _named(told["weights"])
    write_atomically(folder / named, data)
    write_atomically(folder / "policy.json", to_json(told, indent=1))
    for path in folder.iterdir():
        if OURS.fullmatch(path.name) and path.name != named:  # the weights that were, and what a kill left
            path.unlink(missing_ok=True)


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
        beside = folder / _named(told["weights"])
        if not beside.exists():
            beside = folder / "policy.safetensors"  # as earlier versions called it
        data = beside.read_bytes()
        if sha256(data) != told["weights"]:
            raise RunError(f"{beside} is damaged: its sha256 is not the one in {path.name}. {_AGAIN}")
        net = settings.from_dict(NetConfig, told["net"], str(path))
        policy = build_policy(net, EnvSpec.from_json(told["spec"]), generator(0, "weights that are replaced"))
        policy.load_state_dict(safetensors.torch.load(data))
    except (OSError, KeyError, TypeError, ValueError, RuntimeError, MemoryError) as error:
        if isinstance(error, RunError):
            raise
        raise RunError(f"{path}: no policy can be made of it: {' '.join(str(error).split())}. {_AGAIN}") from None
    return policy


_AGAIN = "The command that trained the run writes it anew from its last checkpoint."


def _named(weights: str) -> str:
    """The file of the weights of that sha256."""
    if not re.fullmatch("[0-9a-f]{64}", weights):
        raise ValueError(f"weights: {settings.say(weights)} is no sha256")
    return f"policy-{weights[:16]}.safetensors"
