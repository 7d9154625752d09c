"""Ours: updates of `ppo` on spread, with what is common to all sides and our defaults for the rest."""

import torch
from serving import serve

from understudy import api
from understudy.algorithms import ppo
from understudy.core.random import generator
from understudy.nets import NetConfig


def prepare(envs, segment, compile=False, threads=1):
    torch.set_num_threads(threads)
    env, source = api.make_env("spread"), generator(0)
    if compile:
        env = api.compiled(env)
    shape = NetConfig(hidden=64, layers=2, activation="tanh", share="all")
    config = ppo.Config(envs, segment, passes=4, minibatches=4, central=False, net=shape, value_hidden=64)
    state = ppo.init(config, None, env, source)

    def work():
        told = ppo.update(config, state, None, env, source)
        return envs * segment, env.spec.horizon * float(told["reward"])

    return work


if __name__ == "__main__":
    serve(prepare)
