"""More recordings from few: each episode again as it would have been in a symmetric world."""

import torch
from torch import Tensor

from understudy.core.errors import DemosError
from understudy.core.random import generator
from understudy.core.symmetry import Groups, Symmetry, count, element
from understudy.core.types import MultiDiscrete
from understudy.demos.demos import Demos
from understudy.demos.episode import Episode


def augmented(demos: Demos, symmetries: Groups, images: int = 16, seed: int = 0) -> Demos:
    """Each episode, and `images - 1` others of it under symmetries drawn by `seed`; all there are where they are fewer.

    An image is as good a recording as the episode where whoever was recorded minds the symmetry no more than the game
    does. People who prefer their right hand do mind: hold out episodes, and compare.

    All images of an episode have one name, that of the first or its number, so that they are held out together, and
    weigh as much as it did in all.

    Args:
        symmetries: what the env offers, `env.symmetries()`.

    Raises:
        DemosError: no images were asked for, or actions are of several parts.
    """
    if images < 1:
        raise DemosError(f"images: got {images}; 1 is the episode itself, more are its images.")
    if isinstance(demos.spec.action, MultiDiscrete):
        raise DemosError("actions of several parts: their symmetries are not known.")
    every, made = count(symmetries), []
    for number, episode in enumerate(demos):
        chosen = _drawn(every, images, generator(seed, "augmented", number))
        name, weight = episode.name or f"episode {number}", episode.weight / len(chosen)
        for which in chosen:
            image = episode
            for symmetry in element(symmetries, which):
                image = image_of(image, symmetry)
            image.name, image.weight = name, weight
            made.append(image)
    if any(one.whole is None for one in made):
        for one in made:
            one.whole = None  # one set, one kind: what some images lack no episode has
    return Demos.from_episodes(demos.spec, made, demos.about)


def image_of(episode: Episode, symmetry: Symmetry) -> Episode:
    """The episode as it would have been."""

    def each(x: Tensor | None) -> Tensor | None:
        return None if x is None else symmetry.each(x)

    return Episode(
        obs=symmetry.obs(episode.obs),
        actions=symmetry.actions(episode.actions),
        rewards=each(episode.rewards),
        terminated=episode.terminated,
        truncated=episode.truncated,
        legal=None if episode.legal is None else symmetry.legal(episode.legal),
        present=each(episode.present),
        whole=None if episode.whole is None else symmetry.whole(episode.whole),
        times=episode.times,
        labels={name: symmetry.each(x) if x.dim() == 2 else x for name, x in episode.labels.items()},
        name=episode.name,
        weight=episode.weight,
        info=episode.info,
    )


def _drawn(every: int, images: int, source: torch.Generator) -> list[int]:
    """Different numbers below `every`, 0 first."""
    if every <= images:
        return list(range(every))
    if every <= 2**16:
        return [0, *(torch.randperm(every - 1, generator=source)[: images - 1] + 1).tolist()]
    others: dict[int, None] = {}
    while len(others) < images - 1:
        others[int(torch.randint(1, every, (), generator=source))] = None
    return [0, *others]
