"""Ours: gradient steps of `bc` on drawn numbers held in memory, one agent."""

import torch
from serving import serve

from understudy.algorithms import bc
from understudy.core.random import generator
from understudy.core.types import Discrete, EnvSpec
from understudy.demos import About, Demos, Episode
from understudy.nets import NetConfig

EPISODE, STEPS = 25, 20  # steps in an episode, gradient steps in a round


def prepare(batch, width, samples, threads=1):
    torch.set_num_threads(threads)
    source = generator(0)
    spec = EnvSpec(agents=1, obs=18, action=Discrete(5))
    episodes = [
        Episode(torch.randn(EPISODE + 1, 1, 18, generator=source), torch.randint(5, (EPISODE, 1), generator=source))
        for _ in range(samples // EPISODE)
    ]
    demos = Demos.from_episodes(spec, episodes, About(title="drawn"))
    shape = NetConfig(hidden=width, layers=2, activation="tanh")
    config = bc.Config(shape, batch=batch, steps=STEPS, limit=2**60, held_out=0.0)
    state = bc.init(config, demos, None, source)
    each = demos.steps / demos.batches_per_epoch(batch)  # a pass is cut evenly, so batches are somewhat smaller

    def work():
        before = state.position
        told = bc.update(config, state, demos, None, source)
        return (state.position - before) * each, float(told["loss"])

    return work


if __name__ == "__main__":
    serve(prepare)
