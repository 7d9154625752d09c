"""The recordings that come with the library, as demonstrations of our own environments.

People cooking together (Carroll et al. 2019, arXiv:1910.05789; MIT licence): 76 trials of two people, about 1,200 steps
of 0.15 s each, in five kitchens; players of the test trials are in none of the train trials.

Flocks of boids (Zhan et al. 2019, arXiv:1803.07612), which are generated.
"""

from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import torch
from torch import Tensor

from understudy.core.errors import EnvError
from understudy.core.random import generator
from understudy.core.tree import tree_take
from understudy.demos.augment import image_of
from understudy.demos.demos import About, Demos
from understudy.demos.formats.overcooked import ABOUT, Trial, read_overcooked
from understudy.demos.tracks import TrackSet, TrackSpec
from understudy.envs.boids import Boids, flights
from understudy.envs.kitchen import Kitchen, state_from_arrays
from understudy.envs.kitchen_board import ALIASES, LAYOUTS

COOKING = Path(str(files("understudy") / "data" / "overcooked_human"))
NAMES_OF_2019 = {ours: theirs for theirs, ours in ALIASES.items()}


def people_cooking(kitchen: Kitchen, split: str | None = None, folder: Path | str = COOKING) -> Demos:
    """The recorded pairs of a kitchen, with what its cooks would have perceived.

    The last step's outcome was not recorded: it is played in the kitchen itself, which equals the recordings in all
    other steps.

    Args:
        kitchen: of one of the five recorded layouts, under the rules of 2019.
        split: "train" or "test" (other people); None: both.
    """
    if kitchen.rules != "2019":
        raise EnvError(f"rules: the recordings were made under those of 2019, not {kitchen.rules!r}.")

    def perceived(trial: Trial) -> dict[str, Tensor]:
        state = state_from_arrays(kitchen, trial.positions, trial.facing, trial.held, trial.objects, trial.actions)
        last = tree_take(state, slice(-1, None))
        after, _, _ = kitchen.step(last, trial.actions[-1:], trial.rewards.new_empty(1, 0))
        seen = [torch.cat([look(state), look(after)]) for look in (kitchen.observe, kitchen.whole)]
        return dict(zip(("obs", "whole"), seen, strict=True))

    layout = NAMES_OF_2019.get(kitchen.layout, kitchen.layout)
    about = replace(ABOUT, env={"name": "kitchen", "layout": kitchen.layout, "rules": kitchen.rules})
    return read_overcooked(folder, kitchen.spec, perceived, layout, split, about)


def people_in_all_kitchens(split: str | None = None, mirrored: bool = False, folder: Path | str = COOKING) -> Demos:
    """The recorded pairs of all five kitchens as one set, for one policy: cooks perceive alike everywhere.

    Args:
        mirrored: each episode also with east and west, north and south, and both exchanged, which is as good a
            recording of a kitchen in a mirror. All four have one name, so that they are held out together.
    """
    spec, episodes = None, []
    for layout in LAYOUTS:
        kitchen = Kitchen(layout)
        spec = replace(kitchen.spec, whole=0, title="kitchen")  # the full state is another in each kitchen
        for episode in people_cooking(kitchen, split, folder):
            images = [replace(episode, whole=None)]
            for (mirror,) in kitchen.symmetries() if mirrored else ():
                images += [image_of(image, mirror) for image in images]
            episodes += images
    assert spec is not None
    return Demos.from_episodes(spec, episodes, replace(ABOUT, env={"name": "kitchen", "rules": "2019"}))


def flocks(count: int, seed: int, env: Boids | None = None) -> TrackSet:
    """So many flights of boids as tracks of 50 frames, with the label `friendly` (1 or 0) for each frame.

    Those of the paper are 32,768 to train on and 8,192 to test on, under `Boids(shared_first_step=True)`, which is what
    flies where `env` is None.
    """
    env = env or Boids(shared_first_step=True)
    positions, friendly = flights(env, count, generator(seed, "flocks"))
    spec = TrackSpec(env.spec.agents, clock="step", unit="", names=env.spec.names, roles=env.spec.roles, title="boids")
    labels = {"friendly": friendly.long().unsqueeze(-1).repeat(1, positions.shape[1])}
    about = About(title=f"{count} flights of boids", source="generated", licence="CC0-1.0", notes=f"{env}, seed {seed}")
    return TrackSet.stacked(spec, positions, labels=labels, about=about)
