"""Ours: updates of an algorithm's defaults on Gymnasium's CartPole."""

import gymnasium
import torch
from serving import serve

from understudy import api
from understudy.core.random import generator
from understudy.envs.adapters import from_gymnasium

BALANCE = torch.tensor([0.5, 1.0, 2.0, 2.0])


def balance(env, view, noise):
    return ((view.obs * BALANCE).sum(dim=-1) > 0).long()


def prepare(algorithm, threads=1):
    torch.set_num_threads(threads)
    module, source = api.algorithm_named(algorithm), generator(0)
    config = module.Config()
    learner = getattr(config, "learner", config)
    env = from_gymnasium(lambda: gymnasium.make("CartPole-v1"), copies=learner.envs)
    demos = None if algorithm == "ppo" else api.record(env, balance, episodes=10, envs=1)
    state = module.init(config, demos, env, source)

    def work():
        told = module.update(config, state, demos, env, source)
        return learner.envs * learner.segment, float(next(iter(told.values())).mean())

    return work


if __name__ == "__main__":
    serve(prepare)
