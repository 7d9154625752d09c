"""A policy as two files: `policy.json`, architecture and what its agents are, and `policy.safetensors`, its weights.

Neither can run code: the architecture is a `NetConfig`, whose words are those of a fixed table.
"""

from pathlib import Path

import safetensors.torch

from understudy.core import config as settings
from understudy.core.errors import RunError, UnderstudyError
from understudy.core.files import sha256, to_json, write_atomically
from understudy.core.random import generator
from understudy.core.types import EnvSpec
from understudy.nets.policy import AgentPolicy, NetConfig, build_policy

VERSION = 1


def save_policy(policy: AgentPolicy, folder: Path | str) -> None:
    """Write `policy` into `folder`, the JSON last. Raises RunError on a full disk."""
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
    write_atomically(folder / "policy.safetensors", data)
    write_atomically(folder / "policy.json", to_json(told, indent=1))


def load_policy(folder: Path | str) -> AgentPolicy:
    """The policy that `save_policy` wrote into `folder`.

    Raises:
        RunError: there is none, it is damaged, or of a newer format.
    """
    folder = Path(folder)
    path, beside = folder / "policy.json", folder / "policy.safetensors"
    if not path.exists():
        raise RunError(f"{folder} holds no policy: {path.name} is not there. A run writes it when its training stops.")
    told = settings.read(path)
    if told.get("version") != VERSION:
        raise RunError(f"{path} is of format {told.get('version')}, and this understudy reads {VERSION}.")
    try:
        data = beside.read_bytes()
        if sha256(data) != told["weights"]:
            raise RunError(f"{beside} is damaged: its sha256 is not the one in {path.name}.")
        net = settings.from_dict(NetConfig, told["net"], str(path))
        policy = build_policy(net, EnvSpec.from_json(told["spec"]), generator(0, "weights that are replaced"))
        policy.load_state_dict(safetensors.torch.load(data))
    except (OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
        if isinstance(error, UnderstudyError):
            raise
        raise RunError(f"{path}: no policy can be made of it: {' '.join(str(error).split())}") from None
    return policy
