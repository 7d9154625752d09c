"""Benchmarks of models of moving crowds: `understudy bench pedestrians` and `understudy bench football`.

Recordings that may not be shipped are read from the benchmark's folder: what is missing is said. What was measured is
kept beside the runs, so the same call goes on where it was stopped.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from understudy import scenes
from understudy.algorithms.scene_baselines import Straight
from understudy.core.errors import DemosError
from understudy.core.random import generator, split_seed
from understudy.core.tree import tree_map
from understudy.demos.formats.sgan import read_sgan
from understudy.demos.formats.skillcorner import read_skillcorner, read_skillcorner_arrays
from understudy.demos.tracks import Clips, Tracks, TrackSet, TrackSpec
from understudy.demos.transforms import drop_leaps, resample, rotate
from understudy.evaluation.report import Cell, Report, Table
from understudy.evaluation.scenes import (
    FEATURES,
    covered,
    displacement_errors,
    diversity,
    in_rows,
    likelihood,
    realism,
    two_sample_auc,
)
from understudy.evaluation.tracks_pictures import pictures
from understudy.evaluation.video import beside, save_video
from understudy.maths.stats import over_seeds
from understudy.nets.masked_scene import first_guess
from understudy.runs.loop import QUIET
from understudy.runs.many import kept, side_by_side

SAMPLES = 20  # futures of each past
AT_ONCE = 2_000  # rows of agents that are sampled side by side: memory, not speed
FIGURES = ("minADE", "minFDE", "minJADE", "minJFDE", "nats")
LIKENESS = (*FEATURES, "realism", "told apart", "diversity", "covered", "if calibrated")
SPLITS = 5  # halves of the windows that a classifier learns from and is asked about: one alone says little
Figures = dict[str, dict[str, float]]

SCENES: Mapping[str, tuple[str, ...]] = {  # held out: files that its test is on
    "eth": ("biwi_eth",),
    "hotel": ("biwi_hotel",),
    "univ": ("students001", "students003"),
    "zara1": ("crowds_zara01",),
    "zara2": ("crowds_zara02",),
}
SEEN, AHEAD = 8, 12  # frames of 0.4 s that are seen, and that are predicted
EVERY = 2  # frames of one step of the model, 0.8 s; where one is between two of its steps is on the line between
WALKS: Mapping[str, Any] = {
    "net": {
        "recent": 3,
        "turned": True,
        "together": 1,
        "alone": 8,
        "least_std": 0.1,
        "blur": 0.2,
        "trunk": {"hidden": 64, "layers": 2},
    },
    "length": (SEEN + AHEAD) // EVERY,
    "batch": 48,
    "agents": 0,
    "crowd": 6,
    "augment": ("mirror",),
    "limit": 800,
    "held_out": 0.0,
}


def pedestrians(
    folder: Path, seeds: int, workers: int, minutes: float | None, held_out: Sequence[str] = tuple(SCENES)
) -> Report:
    """ETH and UCY, leave one scene out: 8 frames of 0.4 s are seen, 12 predicted, the best of 20 joint samples."""
    tasks = [(name, seed) for name in held_out for seed in range(seeds)]
    found = side_by_side(partial(_walk, folder=folder, minutes=minutes), tasks, workers)
    by_scene = {
        name: [each for (scene, _), each in zip(tasks, found, strict=True) if scene == name] for name in held_out
    }
    rows: list[list[Cell]] = []
    for name, mine in by_scene.items():
        for who in mine[0]:
            rows.append([name, who, *(over_seeds([one[who][figure] for one in mine]) for figure in FIGURES)])
    for who in found[0]:
        means = [
            [sum(mine[seed][who][figure] for mine in by_scene.values()) / len(by_scene) for seed in range(seeds)]
            for figure in FIGURES
        ]
        rows.append(["mean of scenes", who, *map(over_seeds, means)])
    caption = (
        f"Metres; the best of {SAMPLES} (straight on: of 1). minADE and minFDE: each pedestrian's own best sample, mean"
        " over pedestrians; minJADE and minJFDE: the sample that is best for all of a window together, mean over "
        "windows. Spread: the samples of a past share out chance among themselves, each by itself is drawn as ever. "
        f"Nats: -log p of a pedestrian's step, in metres, in clips of 20 frames. {seeds} seeds."
    )
    return Report(
        "Pedestrians whom nobody saw before",
        tables=[Table(["scene", "model", *FIGURES], rows, caption)],
        provenance={"command": f"understudy bench pedestrians --seeds {seeds}", "torch": torch.__version__},
    )


def _walk(task: tuple[str, int], folder: Path, minutes: float | None) -> Figures:
    name, seed = task
    where = folder / name / f"seed-{seed}"

    def measured(_: Path) -> dict[str, Any]:
        train, test = pedestrian_parts(folder, name)
        coarse = thinned(train, EVERY)
        learned = scenes.train(coarse, WALKS, minutes=minutes, folder=where, seed=seed, habits=QUIET)
        clips = test.clips(SEEN + AHEAD, stride=1, complete=True, least_present=2, agents=0)
        straight, counted = Straight.fit(coarse), clips.present[:, 0]
        made = _predicted(learned, straight, clips, SEEN, seed, EVERY)
        return _beside_straight(made, learned, straight, clips, counted, SEEN, thinned(test, EVERY), seed, EVERY)

    return kept(where / "figures.json", repr([minutes, WALKS]), measured)


def pedestrian_parts(folder: Path, held_out: str) -> tuple[TrackSet, TrackSet]:
    """All recordings but those of a scene, and those of the scene, as the Social-GAN split has them."""
    if not (folder / "all").is_dir():
        raise DemosError(
            f"{folder}: the folders all, train and val are not there. Put those of the Social-GAN split of ETH and UCY "
            "in their place, as github.com/abduallahmohamed/Social-STGCNN has them under datasets/raw."
        )
    files = SCENES[held_out]
    others = [
        path
        for part in ("train", "val")
        for path in sorted((folder / part).glob("*.txt"))
        if not path.name.startswith(files)
    ]
    return read_sgan(others), read_sgan([folder / "all" / f"{name}.txt" for name in files])


def thinned(tracks: TrackSet, every: int) -> TrackSet:
    """Of each recording `every` ones, with each `every`-th frame from the first on, from the second on .."""

    def change(each: Tracks) -> list[Tracks]:
        return [Tracks(each.values[k::every], each.present[k::every], name=each.name) for k in range(every)]

    return tracks.map(change, replace(tracks.spec, dt=tracks.spec.dt * every))


# --- football --------------------------------------------------------------------------------------------------------

RATE, FASTEST = 0.2, 40.0  # seconds from frame to frame; metres a second above which a sighting is of somebody else
PLAYED, NEXT = 10, 20  # frames that are seen, and that are predicted: 2 s and 4 s
LONG, GAP = 40, slice(10, 30)  # frames of a clip to fill in, and those of them in which somebody is hidden: 4 of 8 s
MATCH: Mapping[str, Any] = {
    "net": {
        "recent": 5,
        "turned": True,
        "together": 4,
        "alone": 4,
        "least_std": 0.02,
        "blur": 0.3,
        "trunk": {"hidden": 64, "layers": 2},
    },
    "length": PLAYED + NEXT,
    "batch": 8,
    "agents": 0,
    "augment": ("mirror",),
    "limit": 800,
    "held_out": 0.0,
}
HOLES: Mapping[str, Any] = {**MATCH, "length": LONG, "batch": 6}
SPEED = 7.0  # metres a second of a player who is sent somewhere
NEAR = 15.0  # metres from it
MOMENTS = 24  # windows in which somebody is sent


def football(folder: Path, seeds: int, workers: int, minutes: float | None) -> Report:
    """A match on television: its first half is learnt from, its second half predicted, filled in, and played on."""
    found = side_by_side(partial(_match, folder=folder, minutes=minutes), range(seeds), workers)

    def rows(part: str) -> list[list[Cell]]:
        return [
            [
                who,
                *(
                    over_seeds([one[part][who][figure] for one in found]) if figures[figure] is not None else ""
                    for figure in figures
                ),
            ]
            for who, figures in found[0][part].items()
        ]

    ahead = (
        f"Metres, players alone; {PLAYED * RATE:g} s are seen and {NEXT * RATE:g} s predicted in {found[0]['windows']} "
        f"windows, whose {found[0]['players']} players are in view throughout. The best of {SAMPLES} (straight on: of "
        "1), for each player by itself and for all of a window together. Nats: -log p of a move of "
        f"{RATE:g} s, in metres, in all that is in view. {seeds} seeds."
    )
    like = (
        "How like players those are who were sampled. The first four: how likely what came is among the samples of its "
        "player (exp of the mean log-probability, of 11 bins), and realism their mean. Told apart: by a small net that "
        f"sees a window's means and deviations of the four, one sample of each (0.5: it guesses; mean of {SPLITS} "
        "splits). Diversity: metres from sample to sample. Covered: how often where a player ended lies, along either "
        f"axis, among the middle four fifths of {SAMPLES} samples, and how often it should."
    )
    holes = (
        f"Metres; a third of the players in view for {LONG * RATE:g} s are hidden in the middle "
        f"{(GAP.stop - GAP.start) * RATE:g} s: mean distance from where they were."
    )
    sent = (
        f"Metres after {NEXT * RATE:g} s, in {MOMENTS} windows: how far others are from where they are with the same "
        "chance when nobody is sent; and of it, along the way on which the player was sent. Near: less than "
        f"{NEAR:g} m from it when it was sent."
    )
    return Report(
        "The second half of a match",
        tables=[
            Table(["model", *FIGURES], rows("ahead"), ahead),
            Table(["model", *LIKENESS], rows("like"), like),
            Table(["filled in by", "mean distance"], rows("holes"), holes),
            Table(["who", "elsewhere by", "along its way"], rows("sent"), sent),
        ],
        provenance={"command": f"understudy bench football --seeds {seeds}", "torch": torch.__version__},
    )


def _match(seed: int, folder: Path, minutes: float | None) -> dict[str, Any]:
    where = folder / f"seed-{seed}"

    def measured(_: Path) -> dict[str, Any]:
        first, second = football_halves(folder)
        learned = scenes.train(first, MATCH, minutes=minutes, folder=where / "causal", seed=seed, habits=QUIET)
        filler = scenes.train_masked(first, HOLES, minutes=minutes, folder=where / "masked", seed=seed, habits=QUIET)
        clips = second.clips(PLAYED + NEXT, complete=True, least_present=2, agents=0)
        players = clips.present[:, 0] & (clips.slots != second.spec.names.index("ball"))
        straight = Straight.fit(first)
        made = _predicted(learned, straight, clips, PLAYED, seed)
        return {
            "windows": int(players.any(dim=1).sum()),
            "players": int(players.sum()),
            "ahead": _beside_straight(made, learned, straight, clips, players, PLAYED, second, seed),
            "like": {who: likeness(each, clips.values[:, PLAYED:], players, seed) for who, each in made.items()},
            "holes": holes_filled(filler, second, seed),
            "sent": sent_elsewhere(learned, second, seed, where / "sent.png"),
        }

    return kept(where / "figures.json", repr([minutes, MATCH, HOLES]), measured)


def football_halves(folder: Path) -> tuple[TrackSet, TrackSet]:
    """Both halves, 5 frames a second, each team on its own side all the time; only ball and keepers have roles."""
    if (tracking := folder / "structured_data.json").exists():
        match = read_skillcorner(tracking, folder / "match_data.json")
    elif list(folder.glob("*.npz")):
        match = read_skillcorner_arrays(folder)
    else:
        raise DemosError(
            f"{folder}: structured_data.json and match_data.json are not there. Put those of a match of "
            "github.com/SkillCorner/opendata in their place (2417 is the one that published figures are of)."
        )
    turned = rotate(match, math.pi, [info["period"] == 2 for info in match.infos])
    steady = resample(drop_leaps(turned, FASTEST), RATE)
    roles = tuple(role if role in ("ball", "GK") else "player" for role in steady.spec.roles)
    steady = replace(steady, spec=replace(steady.spec, roles=roles))
    return steady.select([0]), steady.select([1])


def holes_filled(filler: scenes.Learned, tracks: TrackSet, seed: int, samples: int = 8) -> Figures:
    """Mean distance of hidden players from where they were, by who fills them in."""
    clips = tracks.clips(LONG, complete=True, least_present=4, agents=0)
    players = clips.present[:, 0] & (clips.slots != tracks.spec.names.index("ball"))
    lots = torch.rand(players.shape, generator=generator(seed, "hidden")).masked_fill(~players, torch.inf)
    chosen = players & (lots.argsort(1).argsort(1) < (players.sum(dim=1, keepdim=True) / 3).ceil())
    hidden = torch.zeros_like(clips.present)
    hidden[:, GAP] = chosen.unsqueeze(1)
    known = clips.present & ~hidden
    past = known.clone()
    past[:, GAP.start :] = False
    made = torch.stack(
        [scenes.fill(filler, clips, known, seed=split_seed(seed, n)).values for n in range(samples)]
    )  # [sample, scene, time, agent, dim]
    guesses = {
        "going straight on": first_guess(clips.values, past).place,
        "a line from before to after": first_guess(clips.values, known).place,
        "ours, one sample": made[0],
        f"ours, mean of {samples}": made.mean(dim=0),
    }
    return {
        who: {"distance": float((guess - clips.values).norm(dim=-1)[hidden].mean())} for who, guess in guesses.items()
    }


def sent_elsewhere(learned: scenes.Learned, tracks: TrackSet, seed: int, picture: Path | None) -> Figures:
    """How others answer when the player in their midst runs off to its right, beside the same chance without.

    Args:
        picture: where the last moment of the fullest window is drawn, as it is and with the player sent; None: nowhere.
    """
    clips = tracks.clips(PLAYED + NEXT, complete=True, least_present=2, agents=0)
    fullest = clips.present[:, 0].sum(dim=1).argsort(descending=True, stable=True)[:MOMENTS]
    clips = tree_map(lambda x: x[fullest], clips)
    assert clips.slots is not None  # since agents=0
    past = Clips(clips.values[:, :PLAYED], clips.present[:, :PLAYED], slots=clips.slots)
    ball = clips.slots == tracks.spec.names.index("ball")
    players = clips.present[:, 0] & ~ball
    forced, who, aside = _sent(past.values, players)
    free, sent = (
        scenes.sample(learned, past, NEXT, samples=SAMPLES, seed=seed, forced=each).values for each in (None, forced)
    )
    if picture is not None:
        _drawn(picture, tracks.spec, past, {"as it may go on": free, "one player is sent": sent})
    shift = (sent - free)[:, -1].unflatten(0, (len(past), SAMPLES))  # [scene, sample, agent, dim]
    elsewhere, along = shift.norm(dim=-1).mean(dim=1), (shift * aside[:, None, None]).sum(dim=-1).mean(dim=1)
    now = past.values[:, -1]
    near = (now - torch.take_along_dim(now, who[:, None, None], 1)).norm(dim=-1) < NEAR
    team = learned.net.teams[clips.slots.clamp(min=0)]
    mate = team == team.gather(1, who.unsqueeze(1))
    others = players.scatter(1, who.unsqueeze(1), False)
    groups = {
        "team-mates near": others & mate & near,
        "opponents near": others & ~mate & near,
        "team-mates further off": others & mate & ~near,
        "opponents further off": others & ~mate & ~near,
        "the ball": clips.present[:, 0] & ball,
    }
    return {
        name: {"elsewhere": float(elsewhere[here].mean()), "along": float(along[here].mean())}
        for name, here in groups.items()
        if here.any()
    }


def _sent(
    past: Float[Tensor, "scene time agent dim"], players: Bool[Tensor, "scene agent"]
) -> tuple[Float[Tensor, "scene frame agent dim"], Int[Tensor, "scene"], Float[Tensor, "scene dim"]]:
    """Where to whom is forced (nan: who is free), who that is, and the direction in which it is sent."""
    now = past[:, -1]
    middle = (now * players.unsqueeze(-1)).sum(dim=1, keepdim=True) / players.sum(dim=1)[:, None, None]
    who = (now - middle).norm(dim=-1).masked_fill(~players, torch.inf).argmin(dim=1)
    rows = torch.arange(len(past))
    ahead = now[rows, who] - past[rows, 0, who]
    aside = torch.nn.functional.normalize(torch.stack([ahead[:, 1], -ahead[:, 0]], dim=-1), dim=-1)
    forced = torch.full((len(past), NEXT, *now.shape[1:]), torch.nan)
    ran = SPEED * RATE * torch.arange(1, NEXT + 1).unsqueeze(-1)
    forced[rows, :, who] = now[rows, who].unsqueeze(1) + ran * aside.unsqueeze(1)
    return forced, who, aside


def _drawn(path: Path, spec: TrackSpec, past: Clips, played: Mapping[str, Tensor], count: int = 8) -> None:
    """A picture of `count` futures of the first of the windows under each name, all at their last moment."""
    there = past.present[0, -1]
    slots = past.slots[0][there] if past.slots is not None else there.nonzero().flatten()

    def in_slots(values: Float[Tensor, "time agent dim"]) -> Tracks:
        whole = torch.zeros(len(values), spec.agents, spec.dims)
        whole[:, slots] = values[:, there]
        present = torch.zeros(len(values), spec.agents, dtype=torch.bool)
        present[:, slots] = True
        return Tracks(whole, present)

    shown = [
        (name, pictures(in_slots(past.values[0]), spec, futures=[in_slots(x[PLAYED:]) for x in values[:count]])[-1])
        for name, values in played.items()
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    save_video(path, [beside(shown)], width=1600)


# --- both ------------------------------------------------------------------------------------------------------------


def _predicted(
    learned: scenes.Learned, straight: Straight, clips: Clips, seen: int, seed: int, every: int = 1
) -> dict[str, Float[Tensor, "sample scene time agent dim"]]:
    """What each model says may follow the first `seen` frames."""
    return {
        "straight on": straight.predict(clips.values[:, :seen], clips.values.shape[1] - seen).unsqueeze(0),
        "ours": futures(learned, clips, seen, seed, every=every),
        "ours, spread": futures(learned, clips, seen, seed, spread=True, every=every),
    }


def _beside_straight(
    made: Mapping[str, Tensor],
    learned: scenes.Learned,
    straight: Straight,
    clips: Clips,
    counted: Bool[Tensor, "scene agent"],
    seen: int,
    test: TrackSet,
    seed: int,
    every: int = 1,
) -> Figures:
    """Errors of futures over those who are `counted`, and nats a move of `test`, of both models.

    Args:
        every: of `futures`; `test` has the model's steps.
    """
    came, length = clips.values[:, seen:], clips.values.shape[1] // every
    nats = {
        who: likelihood(model, test, generator(seed, "intervals"), rows=1, agents=0, length=length).per_move.value
        for who, model in (("straight on", straight), ("ours", learned.net))
    }
    measured = {}
    for who, each in made.items():
        errors = displacement_errors(each, came, counted, generator(seed, "intervals"))
        measured[who] = {figure: found.value for figure, found in errors.figures.items()}
        measured[who]["nats"] = nats[who.partition(",")[0]]
    return measured


def likeness(
    made: Float[Tensor, "sample scene time agent dim"],
    came: Float[Tensor, "scene time agent dim"],
    players: Bool[Tensor, "scene agent"],
    seed: int,
) -> dict[str, float | None]:
    """How like those who came the sampled ones are: `LIKENESS`. None: what one sample cannot tell."""
    present = players.unsqueeze(1).expand(came.shape[:-1])
    some = players.any(dim=1)
    real, sampled = (in_rows(x[some], present[some], RATE) for x in (came, made[0]))
    found = [two_sample_auc(real, sampled, generator(seed, "told apart", k)) for k in range(SPLITS)]
    ends = players.unsqueeze(-1).expand(came[:, -1].shape)
    hit, nominal = covered(made[:, :, -1], came[:, -1], ends)
    several = len(made) > 1
    return {
        **realism(made, came, present, RATE),
        "told apart": sum(found) / SPLITS,
        "diversity": diversity(made, players) if several else None,
        "covered": hit if several else None,
        "if calibrated": nominal if several else None,
    }


def futures(
    learned: scenes.Learned, clips: Clips, seen: int, seed: int, spread: bool = False, every: int = 1
) -> Float[Tensor, "sample scene time agent dim"]:
    """What may follow the first `seen` frames, a few windows at a time, each with the agents that it has.

    Args:
        every: frames of one step of the model; between its steps everybody goes in a straight line.
    """
    steps = (clips.values.shape[1] - seen) // every
    made = torch.zeros(SAMPLES, len(clips), steps * every, *clips.values.shape[2:])
    between = torch.arange(1, every + 1)[:, None, None] / every
    shown = slice((seen - 1) % every, seen, every)
    crowd = clips.present[:, 0].sum(dim=1)
    order = crowd.argsort(stable=True)
    begin = 0
    while begin < len(order):
        end = begin + 1
        while end < len(order) and int(crowd[order[end]]) * (end + 1 - begin) * SAMPLES <= AT_ONCE:
            end += 1
        rows, most = order[begin:end], int(crowd[order[end - 1]])
        past = Clips(
            clips.values[rows, shown, :most], clips.present[rows, shown, :most],
            slots=None if clips.slots is None else clips.slots[rows, :most],
        )  # fmt: skip
        chance = split_seed(seed, begin)
        found = scenes.sample(learned, past, steps, samples=SAMPLES, seed=chance, spread=spread).values
        found = found[:, past.values.shape[1] - 1 :].unflatten(0, (len(rows), SAMPLES)).transpose(0, 1)
        last, next_ = found[:, :, :-1].unsqueeze(3), found[:, :, 1:].unsqueeze(3)
        made[:, rows, :, :most] = torch.lerp(last, next_, between).flatten(2, 3)
        begin = end
    return made
