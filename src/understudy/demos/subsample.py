"""Fewer steps of the same recordings: how sparse demonstrations are made for comparisons."""

from dataclasses import replace

import torch
from torch import Tensor

from understudy.core.errors import DemosError
from understudy.core.random import generator
from understudy.demos.demos import Demos
from understudy.demos.episode import Episode


def subsampled(demos: Demos, every: int, seed: int) -> Demos:
    """Every `every`-th step of each episode, from an offset drawn by `seed`, each as an episode of that one step.

    A step keeps what it truly led to, and whether the game was over with it. Its past is gone: the set is for learners
    that look at single steps, and where its episodes begin is not where games begin.

    Raises:
        DemosError: `every` is below 1, or longer than an episode.
    """
    if every < 1 or every > int(demos.lengths.min()):
        raise DemosError(f"every: got {every}, but it is 1 or more, and at most the shortest episode's length.")
    source = generator(seed, "subsample")
    kept = []
    for episode in demos:
        first = int(torch.randint(every, (), generator=source))
        kept += [_step(episode, t) for t in range(first, len(episode), every)]
    return Demos.from_episodes(demos.spec, kept, demos.about)


def _step(episode: Episode, t: int) -> Episode:
    """Step `t` alone, with the moments before and after it."""

    def around(column: Tensor | None) -> Tensor | None:
        return None if column is None else column[t : t + 2]

    over = episode.terminated and t == len(episode) - 1
    return replace(
        episode,
        obs=episode.obs[t : t + 2],
        legal=around(episode.legal),
        present=around(episode.present),
        whole=around(episode.whole),
        times=around(episode.times),
        actions=episode.actions[t : t + 1],
        rewards=None if episode.rewards is None else episode.rewards[t : t + 1],
        labels={name: label[t : t + 1] for name, label in episode.labels.items()},
        terminated=over,
        truncated=not over,
    )
