"""Ours: steps with observations and new episodes, by the compiled env, the eager one, or kept by `collect`."""

import torch
from serving import serve

from understudy import api
from understudy.compiled import compiled
from understudy.core.random import generator, uniform
from understudy.core.tree import tree_put
from understudy.rollout import Uniform, begin, collect

STEPS = 25


def prepare(game, envs, way, threads=1):
    torch.set_num_threads(threads)
    env, source = api.make_env(game), generator(0)
    if way != "eager":
        env = compiled(env)
    work = _collecting if way == "collect" else _stepping
    return torch.inference_mode()(work(env, envs, source))


def _collecting(env, envs, source):
    policy = Uniform(env.spec)
    live = begin(env, policy, envs, source)

    def work():
        nonlocal live
        _, live = collect(env, policy, live, STEPS, source)
        return STEPS * envs, None

    return work


def _stepping(env, envs, source):
    spec = env.spec
    choices = (uniform((STEPS, envs, spec.agents), source) * torch.tensor(spec.action_sizes)).long()
    with torch.inference_mode():
        state, age = env.reset(uniform((envs, spec.reset_noise), source)), torch.zeros(envs, dtype=torch.long)

    def work():
        nonlocal state, age
        noise = uniform((STEPS, envs, spec.step_noise), source)
        for t in range(STEPS):
            state, _, terminated = env.step(state, choices[t], noise[t])
            seen = env.observe(state)
            age = age + 1
            ended = (terminated | (age >= spec.horizon)).nonzero().squeeze(-1)
            if len(ended):
                begun = env.reset(uniform((len(ended), spec.reset_noise), source))
                state = begun if len(ended) == envs else tree_put(state, ended, begun)
                age, seen = age.index_fill(0, ended, 0), env.observe(state)
        return STEPS * envs, float(seen[0, 0, 0])

    return work


if __name__ == "__main__":
    serve(prepare)
