"""How time and memory grow with agents, envs, demonstrations and steps in a row: docs/growth.md and its picture.

PYTHONPATH=src python benchmarks/growth.py --plot docs/growth.png        # all of it; needs 4 GB of disk for a while
PYTHONPATH=src python benchmarks/growth.py --only agents --share 0.5     # of each curve the smaller half of the sizes

Every point is measured in a process of its own, of one thread: processor time of one piece of work, after one that is
not counted, and the most memory that the process had of its own (mapped files, which the system may drop at any time,
left out) beyond what it had when it was forked. Rounds go through all sizes of a curve, one after another. An exponent
is the slope of a line through the logarithms of all rounds, with Student's interval: of time at the larger half of the
sizes, of memory at all that need 5 MB more than the smallest, and of what they need more.
"""

import argparse
import json
import math
import multiprocessing
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from time import process_time

import torch
from scipy import stats

from understudy.algorithms import bc, ppo
from understudy.core.random import generator, uniform
from understudy.core.types import Discrete, EnvSpec
from understudy.demos import Demos, Episode, store
from understudy.demos.tracks import Clips
from understudy.envs.particles import Spread
from understudy.envs.particles_scenario import lay, of_others, offsets, parts
from understudy.nets import NetConfig, build_policy
from understudy.nets.scene import CausalSceneNet, SceneNet, SceneShape
from understudy.nets.trunk import TrunkConfig
from understudy.rollout import Uniform, begin, collect, record

LEAST, MOST = 0.3, 2000  # seconds that are timed at least, and pieces of work at most
QUIET = 5.0  # megabytes that are nothing: no exponent is fitted to them
SMALL = EnvSpec(agents=2, obs=2, action=Discrete(5))  # 32 bytes a step
EPISODE = 1000  # steps
BATCH = 1000  # joint steps
FOLDER = Path()  # of the demonstrations
Work = Callable[[], object]


@dataclass(frozen=True)
class Curve:
    """`make(size)` gives a piece of work, and how many units of `unit` it is."""

    axis: str
    title: str
    unit: str
    sizes: tuple[int, ...]
    make: Callable[[int], tuple[Work, float]]
    once: bool = False  # the first piece of work is timed, and no other


# ---- agents: the same game with more players


class Near(Spread):
    """Spread, of which each sees itself, two landmarks and the next two others, however many there are."""

    def make_world(self):
        return replace(super().make_world(), sees=(12,) * self.agents)

    def observe(self, state):
        s = parts(state)
        others = offsets(s.agents, of_others(s.agents)[:, : min(2, self.agents - 1)])
        others = torch.cat([others, others], dim=1)[:, :4]
        return lay(torch.cat([s.velocity, s.agents, offsets(s.agents, s.landmarks[:2]), others], dim=1))


def stepping(agents):
    return _steps(Spread(agents=agents), envs=64, steps=8)


def learning(agents):
    return _learning(Spread(agents=agents), envs=8, segment=8)


def learning_near(agents):
    return _learning(Near(agents=agents), envs=8, segment=8)


def cloning(agents):
    return _cloning(Spread(agents=agents), batch=64)


def cloning_near(agents):
    return _cloning(Near(agents=agents), batch=64)


def _steps(env, envs, steps):
    """Steps with observations, moves drawn beforehand."""
    source = generator(0)
    moves = torch.randint(5, (steps, envs, env.spec.agents), generator=source)
    noise, state = torch.empty(envs, 0), env.reset(uniform((envs, env.spec.reset_noise), source))

    def work():
        now = state
        for t in range(steps):
            now, _, _ = env.step(now, moves[t], noise)
            env.observe(now)

    return torch.no_grad()(work), envs * steps


def _learning(env, envs, segment):
    source, config = generator(0), ppo.Config(envs=envs, segment=segment, central=False)
    state = ppo.init(config, None, env, source)
    return lambda: ppo.update(config, state, None, env, source), envs * segment


def _cloning(env, batch):
    source, config = generator(0), bc.Config(batch=batch, steps=4, held_out=0)
    demos = record(env, Uniform(env.spec), episodes=8, generator=source)
    state = bc.init(config, demos, env, source)
    return lambda: bc.update(config, state, demos, env, source), batch * config.steps


# ---- envs: the same game more often side by side


def stepping_envs(envs):
    return _steps(Spread(), envs, steps=8)[0], 8


def collecting(envs):
    env, source = Spread(), generator(0)
    policy = build_policy(NetConfig(), env.spec, source)
    live = begin(env, policy, envs, source)
    return lambda: collect(env, policy, live, 8, source), 8


def learning_envs(envs):
    return _learning(Spread(), envs, segment=8)[0], 8


# ---- demonstrations: longer recordings, memory-mapped


def recordings(steps) -> Iterator[Episode]:
    source = generator(0)
    for _ in range(steps // EPISODE):
        obs = torch.randn(EPISODE + 1, SMALL.agents, SMALL.obs, generator=source)
        yield Episode(obs, torch.randint(5, (EPISODE, SMALL.agents), generator=source))


def writing(steps):
    store.save(FOLDER / "first", SMALL, recordings(EPISODE), replace=True)
    return lambda: store.save(FOLDER / str(steps), SMALL, recordings(steps), replace=True), 1


def opening(steps):
    return lambda: _opened(steps), 1


def naming(steps):
    demos = _opened(steps)
    return demos.fingerprint, 1


def drawing(steps):
    demos, batches = _opened(steps), iter(range(10**9))
    return lambda: [demos.batch(next(batches), BATCH, seed=0) for _ in range(100)], 100


def beginning(steps):
    demos, config = _opened(steps), bc.Config(batch=BATCH)
    return lambda: bc.init(config, demos, None, generator(0)), 1


def cloning_mapped(steps):
    demos, source, config = _opened(steps), generator(0), bc.Config(batch=BATCH, limit=10**9)
    state = bc.init(config, demos, None, source)
    return lambda: bc.update(config, state, demos, None, source), config.steps


def _opened(steps):
    return Demos.load(FOLDER / str(steps), verify=False, memory=0)


# ---- steps in a row


def recurrent(steps):
    """A gradient step of a recurrent clone on 8 windows."""
    source, env = generator(0), Spread(horizon=steps)
    config = bc.Config(net=NetConfig(body="gru"), batch=8 * steps, window=steps, steps=1, held_out=0)
    demos = record(env, Uniform(env.spec), episodes=8, generator=source)
    state = bc.init(config, demos, env, source)
    return lambda: bc.update(config, state, demos, env, source), 1


def _scene(steps):
    net = CausalSceneNet(SceneNet(trunk=TrunkConfig(hidden=48, layers=2)), SceneShape(2, 0, (0,), (0,)), generator(0))
    walks = torch.randn(1, steps, 3, 2, generator=generator(1)).cumsum(dim=1)
    clips = Clips(walks, torch.ones(1, steps, 3, dtype=torch.bool))
    net.fit(clips)
    return net, clips


def likelihood(steps):
    net, clips = _scene(steps)
    return lambda: net(clips).frames.sum().backward(), 1


def sampling(steps):
    net, clips = _scene(steps)
    past = Clips(clips.values[:, :1], clips.present[:, :1])
    return lambda: net.sample(past, net.noise(1, steps, 3, generator(2))), 1


def _powers(base, first, last):
    return tuple(base**k for k in range(first, last + 1))


CURVES = [
    Curve("agents", "steps of spread", "env-step", _powers(2, 1, 8), stepping),
    Curve("agents", "ppo, each sees all", "env-step", _powers(2, 1, 8), learning),
    Curve("agents", "bc, each sees all", "env-step", _powers(2, 1, 8), cloning),
    Curve("agents", "ppo, each sees two others", "env-step", _powers(2, 1, 8), learning_near),
    Curve("agents", "bc, each sees two others", "env-step", _powers(2, 1, 8), cloning_near),
    Curve("envs", "steps of spread", "step of all", _powers(4, 0, 8), stepping_envs),
    Curve("envs", "collect", "step of all", _powers(4, 0, 8), collecting),
    Curve("envs", "ppo", "step of all", _powers(4, 1, 7), learning_envs),
    Curve("steps recorded", "write", "set", _powers(10, 3, 8), writing, once=True),
    Curve("steps recorded", "open", "set", _powers(10, 3, 8), opening),
    Curve("steps recorded", "fingerprint", "set", _powers(10, 3, 8), naming, once=True),
    Curve("steps recorded", "begin bc", "set", _powers(10, 3, 8), beginning),
    Curve("steps recorded", "draw a minibatch", "minibatch", _powers(10, 3, 8), drawing),
    Curve("steps recorded", "bc", "gradient step", _powers(10, 3, 8), cloning_mapped),
    Curve("steps in a row", "bc of a gru", "gradient step", _powers(2, 4, 11), recurrent),
    Curve("steps in a row", "scene, learn from", "scene", _powers(2, 5, 12), likelihood),
    Curve("steps in a row", "scene, sample", "scene", _powers(2, 5, 10), sampling),
]


# ---- a point


def measured(curve, size):
    """Seconds of a unit, and megabytes, found in a fork of this process."""
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()
    process = context.Process(target=_measure, args=(curve, size, there))
    process.start()
    there.close()
    try:
        return here.recv()
    except EOFError:
        return None  # it was killed: for want of memory
    finally:
        process.join()


def _measure(curve, size, answer):
    before, most, over = _own_megabytes(), [0.0], threading.Event()

    def watch():
        while not over.wait(0.01):
            most[0] = max(most[0], _own_megabytes())

    watcher = threading.Thread(target=watch)
    watcher.start()
    work, units = curve.make(size)
    if not curve.once:
        work()
    count, began = 0, process_time()
    while count == 0 or (not curve.once and count < MOST and process_time() - began < LEAST):
        work()
        count += 1
    seconds = (process_time() - began) / count
    over.set()
    watcher.join()
    answer.send((seconds / units, max(most[0], _own_megabytes()) - before))


def _own_megabytes():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon:")) / 1000


# ---- all points


def exponent(points):
    """Slope of log y over log x, and half of its 95 % interval; None where there are fewer than three sizes."""
    if len({x for x, _ in points}) < 3:
        return None
    fit = stats.linregress([math.log(x) for x, _ in points], [math.log(y) for _, y in points])
    return fit.slope, fit.stderr * stats.t.ppf(0.975, len(points) - 2)


def larger(points):
    """Those of the larger half of the sizes."""
    sizes = sorted({x for x, _ in points})
    return [(x, y) for x, y in points if x >= sizes[(len(sizes) - 1) // 2]]


def middles(points):
    """The median at each size."""
    by_size = {}
    for x, y in points:
        by_size.setdefault(x, []).append(y)
    return {x: median(by_size[x]) for x in sorted(by_size)}


def told(points, unit, grown):
    """From the smallest to the largest size, and the exponent of what has `grown`."""
    first, *_, last = middles(points).values()
    found = exponent(grown)
    return [f"{unit(first)} to {unit(last)}", f"{found[0]:.2f} ± {found[1]:.2f}" if found else "-"]


def beyond(points):
    """Megabytes beyond those of the smallest size, at all sizes where there are any to speak of."""
    least = next(iter(middles(points).values()))
    return [(x, y - least) for x, y in points if y - least > QUIET]


def seconds(y):
    for size, name in ((1, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if y >= size:
            return f"{y / size:.3g} {name}"
    return f"{1e6 * y:.2g} µs"


def plot(found, path):
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    axes = list(dict.fromkeys(curve.axis for curve, _ in found))
    figure, panels = pyplot.subplots(2, len(axes), figsize=(4 * len(axes), 7), squeeze=False)
    for column, axis in enumerate(axes):
        for row, (name, index) in enumerate((("seconds a unit", 1), ("megabytes", 2))):
            panel = panels[row, column]
            for curve, points in found:
                if curve.axis == axis:
                    sizes = sorted({p[0] for p in points})
                    middle = [median(p[index] for p in points if p[0] == size) for size in sizes]
                    panel.plot(sizes, middle, marker=".", label=curve.title)
            panel.set(xscale="log", yscale="log", xlabel=axis, ylabel=name)
            panel.grid(alpha=0.3)
            panel.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=56)


def main():
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    axes = list(dict.fromkeys(curve.axis for curve in CURVES))
    asked.add_argument("--only", nargs="+", default=axes, choices=axes)
    asked.add_argument("--rounds", type=int, default=3)
    asked.add_argument("--share", type=float, default=1.0, help="of the sizes, from the smallest on")
    asked.add_argument("--folder", type=Path, help="where recordings are put for a while; None: the system's")
    asked.add_argument("--plot", type=Path)
    asked.add_argument("--points", type=Path, help="JSON of all points; curves that it holds are not measured again")
    given = asked.parse_args()
    global FOLDER
    FOLDER = Path(tempfile.mkdtemp(dir=given.folder))
    kept = json.loads(given.points.read_text()) if given.points and given.points.exists() else {}
    found = []
    try:
        print("| | unit | sizes | time of a unit | exponent | memory, MB | exponent |\n" + "|---" * 7 + "|")
        for curve in (c for c in CURVES if c.axis in given.only):
            sizes, name = curve.sizes[: max(2, round(given.share * len(curve.sizes)))], f"{curve.axis}: {curve.title}"
            if name not in kept:
                rounds = [size for _ in range(1 if curve.title == "write" else given.rounds) for size in sizes]
                kept[name] = [(size, *point) for size in rounds if (point := measured(curve, size))]
                if given.points:
                    given.points.write_text(json.dumps(kept))
            points = kept[name]
            found.append((curve, points))
            time, memory = [(x, y) for x, y, _ in points], [(x, z) for x, _, z in points]
            cells = [curve.title, curve.unit, f"{points[0][0]:,} to {max(p[0] for p in points):,} {curve.axis}"]
            cells += told(time, seconds, larger(time)) + told(memory, "{:,.0f}".format, beyond(memory))
            print("| " + " | ".join(cells) + " |", flush=True)
    finally:
        shutil.rmtree(FOLDER)
    if given.plot:
        plot(found, given.plot)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
