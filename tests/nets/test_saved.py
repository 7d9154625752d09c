import os
from contextlib import suppress
from functools import partial

import torch

from understudy.core.random import generator
from understudy.core.types import Discrete, EnvSpec
from understudy.nets import NetConfig, build_policy
from understudy.nets.saved import load_policy, save_policy


class Killed(BaseException):
    """A process that is no more: whatever it would do next raises this."""


def test_a_policy_whose_writing_stops_anywhere_is_the_old_or_the_new_one(tmp_path, monkeypatch):
    spec = EnvSpec(agents=2, obs=3, action=Discrete(4))
    old, new = (build_policy(NetConfig(hidden=4), spec, generator(seed)) for seed in (1, 2))
    seen = []
    for stop in range(1, 30):
        folder, calls = tmp_path / str(stop), 0
        save_policy(old, folder)

        def dying(*args, real, stop=stop, **more):
            nonlocal calls
            calls += 1
            if calls >= stop:
                raise Killed
            return real(*args, **more)

        with monkeypatch.context() as patch, suppress(Killed):
            for name in ("open", "write", "fsync", "replace", "unlink"):
                patch.setattr(os, name, partial(dying, real=getattr(os, name)))
            save_policy(new, folder)
        found = weights(load_policy(folder))
        assert found.equal(weights(old)) or found.equal(weights(new))
        seen.append(found.equal(weights(new)))
        save_policy(new, folder)
        assert weights(load_policy(folder)).equal(weights(new))
        assert len(list(folder.iterdir())) == 2, "what was left is cleared away"
        if calls < stop:
            break
    assert seen == sorted(seen) and not seen[0] and seen[-1] and len(seen) > 10


def weights(policy) -> torch.Tensor:
    return torch.cat([value.flatten().double() for value in policy.state_dict().values()])
