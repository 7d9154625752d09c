"""Tables of docs/speed.md. Processor time of one thread, the two sides of a pair taking turns.

PYTHONPATH=src python benchmarks/fused.py networks          # one network forward, and forward and backward
PYTHONPATH=src python benchmarks/fused.py products          # the matrix products inside them alone, by torch
PYTHONPATH=src python benchmarks/fused.py slopes            # a gradient penalty, learnt from
PYTHONPATH=src python benchmarks/fused.py steps             # whole gradient steps of bc
PYTHONPATH=src python benchmarks/fused.py learning          # ppo, magail and maairl
"""

import os
import sys
from functools import partial
from statistics import median
from time import process_time

import torch

from understudy import api
from understudy.algorithms import bc
from understudy.core.random import generator
from understudy.core.types import Discrete, EnvSpec
from understudy.demos import Demos, Episode
from understudy.maths.adversarial import slope_penalty, slopes
from understudy.nets import AgentMLP, NetConfig, fused

SHAPES = [(18, 64, 5), (64, 64, 64), (23, 128, 1), (128, 128, 128), (64, 256, 5)]  # inputs, width, outputs
ROWS = (768, 1536, 12288)
LEARNING = [("ppo", "spread"), ("magail", "navigation"), ("maairl", "navigation")]
WARM, TURNS = 11, 8  # updates: ten of warm-up, in which discriminators learn eagerly, and one; then those that count


def seconds(work) -> float:
    start = process_time()
    work()
    return process_time() - start


def paired(one, other, turns) -> tuple[float, float]:
    """Median seconds of processor time of each, taking turns."""
    one(), other()
    both = [(seconds(one), seconds(other)) for _ in range(turns)]
    return median(a for a, _ in both), median(b for _, b in both)


def products() -> None:
    print("| product | GFLOP/s |\n|---|---|")
    for width in (64, 128, 256):
        print(f"| 1,536 x {width} by {width} x {width} | {_product(width):.0f} |")


def _product(width) -> float:
    left, right, out = torch.randn(1536, width), torch.randn(width, width), torch.empty(1536, width)
    work = partial(torch.mm, left, right, out=out)
    took = median(seconds(lambda: [work() for _ in range(20)]) / 20 for _ in range(30))
    return 2e-9 * left.numel() * width / took


def steps() -> None:
    """18 numbers seen, two hidden layers, 5 moves; 100,000 drawn samples."""
    source, spec = generator(0), EnvSpec(agents=1, obs=18, action=Discrete(5))
    drawn = [
        (torch.randn(26, 1, 18, generator=source), torch.randint(5, (25, 1), generator=source)) for _ in range(4000)
    ]
    demos = Demos.from_episodes(spec, [Episode(*each) for each in drawn])
    print("| width | batch | torch, GFLOP/s | at once | | a product alone | share |\n" + "|---" * 7 + "|")
    for width in (64, 256):
        for batch in (256, 4096, 16384):
            sides = [_cloner(demos, width, batch, on) for on in ("0", "1")]
            plain, ours = paired(*sides, turns=4)
            alone = _product(width)
            inputs, outputs = 18 * width, 5 * width
            samples = 20 * demos.steps / demos.batches_per_epoch(batch)
            floating = 2e-9 * samples * (2 * inputs + 3 * (width * width + outputs))
            rates = floating / plain, floating / ours
            cells = [
                *(f"{rate:.0f}" for rate in rates),
                f"{plain / ours:.1f} x",
                f"{alone:.0f}",
                f"{rates[1] / alone:.2f}",
            ]
            print(f"| {width} | {batch:,} | " + " | ".join(cells) + " |", flush=True)


def _cloner(demos, width, batch, on):
    """Twenty gradient steps of `bc`."""
    source = generator(0)
    config = bc.Config(NetConfig(hidden=width), batch=batch, steps=20, limit=2**60, held_out=0.0)
    state = bc.init(config, demos, None, source)

    def work():
        os.environ["UNDERSTUDY_FUSED"] = on
        bc.update(config, state, demos, None, source)

    return work


def networks() -> None:
    print("| inputs, widths, outputs | rows | forward: torch | fused | | both: torch | fused | |\n" + "|---" * 8 + "|")
    for inputs, width, outputs in SHAPES:
        for rows in ROWS:
            net = AgentMLP(inputs, outputs, (0,), generator(0), hidden=width)
            x, pull = torch.randn(rows, 1, inputs), torch.randn(rows, 1, outputs)
            macs = inputs * width + width * width + width * outputs
            flops = 2 * rows * macs, 2 * rows * (3 * macs - inputs * width)  # nobody asks for the inputs' gradient
            cells = [f"{inputs}, {width}, {width}, {outputs}", f"{rows:,}"]
            for work, floating in zip(_passes(net, x, pull), flops, strict=True):
                many = max(1, int(1e9 / floating))
                plain, ours = paired(
                    lambda work=work, many=many: [work("0") for _ in range(many)],
                    lambda work=work, many=many: [work("1") for _ in range(many)],
                    turns=9,
                )
                cells += [f"{1e-9 * floating * many / t:.0f}" for t in (plain, ours)] + [f"{plain / ours:.1f} x"]
            print("| " + " | ".join(cells) + " |")


def _passes(net, x, pull):
    def forward(on):
        os.environ["UNDERSTUDY_FUSED"] = on
        with torch.no_grad():
            net(x)

    def both(on):
        os.environ["UNDERSTUDY_FUSED"] = on
        net(x).backward(pull)

    return forward, both


def slopes_learnt_from() -> None:
    net, x = AgentMLP(23, 1, (0,), generator(0), hidden=128), torch.randn(512, 3, 23)

    def work(on):
        os.environ["UNDERSTUDY_FUSED"] = on
        slope_penalty(slopes(lambda x: net(x).squeeze(-1), x), 0.0).backward()

    plain, ours = paired(lambda: work("0"), lambda: work("1"), turns=40)
    print(f"23, 128, 128, 1; 512 steps of 3 agents: torch {1e3 * plain:.1f} ms, fused {1e3 * ours:.1f} ms, ", end="")
    print(f"{plain / ours:.1f} x")


def learning() -> None:
    print("| algorithm | env | torch | fused | |\n|---|---|---|---|---|")
    for name, game in LEARNING:
        env, algorithm = api.make_env(game), api.algorithm_named(name)
        demos = None if name == "ppo" else api.record(env, episodes=200)
        config = algorithm.Config() if name == "ppo" else algorithm.Config(start="fresh")
        learner = config if name == "ppo" else config.learner
        sides = [_learner(algorithm, config, demos, env, on) for on in ("0", "1")]
        plain, ours = paired(*sides, turns=TURNS)
        steps = learner.envs * learner.segment
        print(f"| {name} | {game} | {steps / plain:,.0f} | {steps / ours:,.0f} | {plain / ours:.2f} x |")


def _learner(algorithm, config, demos, env, on):
    """One update of a learner that is past its warm-up."""
    source = generator(0, "fused")
    state = algorithm.init(config, demos, env, source)

    def work():
        os.environ["UNDERSTUDY_FUSED"] = on
        algorithm.update(config, state, demos, env, source)

    for _ in range(WARM):
        work()
    return work


if __name__ == "__main__":
    torch.set_num_threads(1)
    if fused.status() != "in use":
        sys.exit(f"there is nothing to compare: {fused.status()}")
    tables = {
        "networks": networks,
        "products": products,
        "slopes": slopes_learnt_from,
        "steps": steps,
        "learning": learning,
    }
    tables[sys.argv[1]]()
