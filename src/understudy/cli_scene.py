"""`understudy scene read | train | score | sample | steer | impute | show`: whole scenes from the command line."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from understudy.cli_words import parse, value_of

COMMANDS: dict[str, str] = {
    "read": "a file of tracks into a folder of them, at an even rate and with short gaps filled",
    "train": "learn how scenes go on, from tracks; the same command resumes",
    "score": "how likely recorded tracks are under a model",
    "sample": "what may come after the beginnings of recorded tracks",
    "impute": "fill in where agents that appear were not seen",
    "steer": "the same with goals set, beside the same chance without them",
    "show": "a film or a picture of tracks: one recording, two side by side, or many futures over one past",
}


def scene(words: list[str]) -> None:
    """Run one of `COMMANDS`."""
    from understudy.core.errors import ConfigError, nearest

    if not words or words[0] in ("-h", "--help"):
        lines = [f"  {name:8}{told}" for name, told in COMMANDS.items()]
        print("\n".join(["usage: understudy scene COMMAND ...", "", *lines]))
        return
    if words[0] not in COMMANDS:
        raise ConfigError(f"scene: unknown command `{words[0]}`.{nearest(words[0], COMMANDS)}")
    doing: dict[str, Callable[[list[str]], None]] = {
        "read": read,
        "show": show,
        "train": train,
        "score": score,
        "sample": sample,
        "steer": steer,
        "impute": impute,
    }
    doing[words[0]](words[1:])


@dataclass(frozen=True)
class Read:
    """Read a file of tracks into a folder of them. What was left out or mended is said, and kept with them."""

    tracks: Path  # a .csv file with a row for each agent at each time, or any format of `read_tracks`
    out: Path  # a new folder
    format: str = ""  # of the file; told by its ending where not given
    frame: float | None = None  # seconds between frames, where the file counts frames
    unit: str = ""  # of positions: m, cm, ft, px ...; metres where not given
    bounds: str = ""  # of the field, one corner and the opposite one, such as 0,0,105,68
    dt: float | None = None  # seconds between frames afterwards; the recording's own where not given
    max_gap: int = 0  # recorded frames that an agent may be missing for and is put on the line between two sightings
    fastest: float | None = None  # the greatest speed, in units a second: what leaps further is a slip of the file


def read(words: list[str]) -> None:
    given = parse(Read, words, "scene read")
    from understudy.core.errors import ConfigError
    from understudy.demos.formats.tracks import read_tracks, write_tracks
    from understudy.demos.transforms import fill_gaps, resample

    if given.max_gap < 0:
        raise ConfigError(f"max_gap: got {given.max_gap}; it is a number of frames, 0 or more.")
    if given.out.resolve() == given.tracks.resolve():
        raise ConfigError(f"out: {given.out} is the file that is read, and would be written over.")
    low, high = _corners(given.bounds)
    told = {"dt": given.frame, "unit": given.unit, "low": low, "high": high, "fastest": given.fastest}
    tracks = read_tracks(given.tracks, given.format, **{name: x for name, x in told.items() if x not in (None, "", ())})
    tracks = fill_gaps(tracks, given.max_gap) if given.max_gap else tracks
    tracks = tracks if given.dt is None else resample(tracks, given.dt)
    write_tracks(tracks, given.out)
    print(f"{given.out}: {tracks}")
    for omission in tracks.omissions:
        print(f"  {omission}")


@dataclass(frozen=True)
class Show:
    """Draw tracks. With --past and --samples, what was sampled after one past is drawn over it."""

    tracks: Path  # folder of tracks, or a file of a format whose ending is known
    out: Path  # .html (with a slider), .mp4, .gif, or .png for the last moment
    beside: Path | None = None  # other tracks, drawn at the side, such as what was steered beside what was not
    number: int = 0  # of the recording, from 0
    past: int = 0  # frames of it that the next recordings share, such as those of `scene sample`; 0: none
    samples: int = 20  # how many recordings, from `number` on, are drawn over that past, at most
    field: str = ""  # pitch, court, map or roll; told by the tracks where not given
    trail: int = 10  # frames of the way behind an agent
    speed: float = 1.0  # how many times faster than it was
    width: int = 640  # pixels


def show(words: list[str]) -> None:
    given = parse(Show, words, "scene show")
    from understudy.core.errors import ConfigError
    from understudy.demos.formats.tracks import read_tracks
    from understudy.demos.transforms import futures
    from understudy.evaluation.tracks_pictures import animate

    if min(given.past, given.number, given.trail) < 0 or given.samples < 1 or not given.speed > 0 or given.width < 16:
        raise ConfigError(
            "scene show: number, past and trail are 0 or more, samples 1 or more, speed above 0, width 16 or more."
        )
    if given.past and given.beside:
        raise ConfigError("scene show: --past draws many over one past, --beside two at each other's side: not both.")
    sets = {path.stem: read_tracks(path) for path in (given.tracks, given.beside) if path is not None}
    if given.beside is not None and len(sets) == 1:
        raise ConfigError(f"scene show: both are called {given.tracks.stem!r}, and a film could not tell them apart.")
    for name, tracks in sets.items():
        if given.number >= len(tracks):
            raise ConfigError(f"number: got {given.number}, and {name} has {len(tracks)} recordings, from 0 on.")
    tracks = sets[given.tracks.stem]
    shown: Any = {name: each[given.number] for name, each in sets.items()} if given.beside else tracks[given.number]
    ahead: list[Any] = []
    if given.past:
        shown, ahead = futures(tracks, given.number, given.past, given.samples)
    animate(
        given.out, shown, tracks.spec,
        field=given.field, trail=given.trail, futures=ahead, speed=given.speed, width=given.width,
    )  # fmt: skip
    print(f"open {given.out}")


def train(words: list[str]) -> None:
    import tyro

    from understudy import scenes
    from understudy.algorithms.scene import Config
    from understudy.core import config as settings
    from understudy.demos.formats.tracks import read_tracks
    from understudy.runs.loop import Habits

    file = value_of(words, "--config")

    @dataclass(frozen=True)
    class Train:
        """Learn a model of whole scenes from tracks: how they go on, or with --masked what is hidden of them."""

        tracks: Path  # folder of tracks, or a file of a format whose ending is known, such as .csv
        folder: Path  # where the run and the model are kept; the same command resumes
        masked: tyro.conf.FlagCreatePairsOff[bool] = False  # for `scene impute`, not for the others
        config: Path | None = None  # a .toml or .json file with settings; flags overrule it
        updates: int | None = None  # stop after so many
        minutes: float | None = None  # stop after so many
        seed: int = 0
        run: Habits = field(default_factory=Habits)
        settings: Annotated[Config, tyro.conf.arg(name="")] = field(
            default_factory=lambda: Config() if file is None else settings.load(Config, file, f"scene in {file}")
        )

    given = parse(Train, words, "scene train")
    made = (scenes.train_masked if given.masked else scenes.train)(
        read_tracks(given.tracks),
        given.settings,
        updates=given.updates,
        minutes=given.minutes,
        folder=given.folder,
        seed=given.seed,
        habits=given.run,
    )
    print(f"{given.folder}: {made.updates:,} updates in {made.seconds / 60:.1f} minutes")


@dataclass(frozen=True)
class Score:
    """How likely recorded tracks are under a model: -log p in nats, the lower the likelier."""

    folder: Path  # of the run
    tracks: Path  # folder of tracks that it did not learn from
    agents: int | None = None  # rows for those who appear; 0: as many as appear; as slots are where not given
    seed: int = 0  # of the intervals


def score(words: list[str]) -> None:
    given = parse(Score, words, "scene score")
    from understudy import scenes
    from understudy.demos.formats.tracks import read_tracks

    found = scenes.score(scenes.load(given.folder), read_tracks(given.tracks), given.seed, given.agents)
    print(f"{found.per_frame} nats a frame, {found.per_move} nats a move, {found.frames:,} frames")


@dataclass(frozen=True)
class Sample:
    """Sample what may come after the beginnings of recorded tracks; the samples are tracks themselves."""

    folder: Path  # of the run
    tracks: Path  # folder of tracks, whose recordings' first frames are the past
    out: Path  # for what is sampled: a new folder, or a .csv or .mid file
    past: int = 8  # frames of each recording that are seen
    frames: int = 12  # that are sampled after them
    samples: int = 1  # of each past
    seed: int = 0


@dataclass(frozen=True)
class Steer(Sample):
    """Sample with goals set, and the same chance without them: OUT-steered and OUT-free."""

    goal: tuple[str, ...] = ()  # name=value, such as --goal direction=2
    agent: tuple[str, ...] = ()  # for whom, by name; all where not given
    begin: int = 0  # the frame to come from which on the goals hold


def sample(words: list[str]) -> None:
    given = parse(Sample, words, "scene sample")
    print(_sampled(given, {"": {}}))


def steer(words: list[str]) -> None:
    given = parse(Steer, words, "scene steer")
    from understudy.core.errors import ConfigError

    if not given.goal:
        raise ConfigError("scene steer: say which goal, such as --goal direction=2. Without one it is `scene sample`.")
    print(_sampled(given, {"free": {}, "steered": _pairs(given.goal)}))


@dataclass(frozen=True)
class Impute:
    """Fill in, in clips of the length that was learnt, whoever appears in a clip and was not seen in all of it."""

    folder: Path  # of a run with --masked
    tracks: Path  # folder of tracks with gaps
    out: Path  # for the clips: a new folder, or a .csv file
    steps: int = 8  # through the net
    seed: int = 0


def impute(words: list[str]) -> None:
    given = parse(Impute, words, "scene impute")
    from understudy import scenes
    from understudy.demos.formats.tracks import read_tracks, write_tracks

    learned, tracks = scenes.load_masked(given.folder), read_tracks(given.tracks)
    scenes.fit(learned, tracks)
    clips = tracks.clips(learned.net.length)
    made = scenes.fill(learned, clips, seed=given.seed, steps=given.steps)
    write_tracks(scenes.as_tracks(learned, made), given.out)
    hidden, shown = int((made.present & ~clips.present).sum()), int(clips.present.sum())
    print(f"{given.out}: {len(made):,} clips; {hidden:,} places filled in beside {shown:,} recorded")


def _sampled(given: Any, ways: dict[str, dict[str, int]]) -> str:
    """Sample each way into a place of its own; returns what to print."""
    from understudy import scenes
    from understudy.demos.formats.tracks import read_tracks, write_tracks

    learned, tracks = scenes.load(given.folder), read_tracks(given.tracks)
    scenes.fit(learned, tracks)
    past, given_labels = scenes.beginnings(learned, tracks, given.past, given.frames)
    lines = []
    for way, goals in ways.items():
        asked = {
            name: scenes.wish(learned, past, given.frames, name, value, _slots(given.agent, tracks.spec), given.begin)
            for name, value in goals.items()
        }
        made = scenes.sample(
            learned, past, given.frames, samples=given.samples, seed=given.seed, goals=asked, given=given_labels
        )
        out = given.out.with_name(f"{given.out.stem}-{way}{given.out.suffix}") if way else given.out
        write_tracks(scenes.as_tracks(learned, made), out)
        lines.append(f"{out}: {len(made):,} scenes of {made.values.shape[1]} frames, the first {given.past} recorded")
    return "\n".join(lines)


def _corners(bounds: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    from understudy.core.errors import ConfigError

    try:
        told = tuple(float(x) for x in bounds.split(",")) if bounds else ()
    except ValueError:
        told = (0.0,)
    if len(told) % 2 or not all(a < b for a, b in zip(told, told[len(told) // 2 :], strict=False)):
        raise ConfigError(f"bounds: got {bounds!r}; the lowest corner and the highest are meant, such as 0,0,105,68.")
    return told[: len(told) // 2], told[len(told) // 2 :]


def _pairs(goals: tuple[str, ...]) -> dict[str, int]:
    from understudy.core.errors import ConfigError

    found = {}
    for each in goals:
        name, _, value = each.partition("=")
        if not name or not value.isdecimal():
            raise ConfigError(f"goal: got {each!r}; name=value is meant, such as direction=2.")
        found[name] = int(value)
    return found


def _slots(names: tuple[str, ...], spec: Any) -> list[int] | None:
    from understudy.core.errors import ConfigError, nearest

    for name in names:
        if name not in spec.names:
            raise ConfigError(f"agent: nobody is called {name!r}.{nearest(name, spec.names)}")
    return [spec.names.index(name) for name in names] or None
