"""The boids' benchmark: its program tells flocks apart, its ceiling is one, and a short run tells all its figures."""

from dataclasses import replace

import pytest
import torch

from understudy import bench_boids
from understudy.algorithms.scene_baselines import Straight
from understudy.core.random import generator
from understudy.nets.vrnn import FAMILIES

TINY = replace(
    bench_boids.SMALL,
    train=12,
    test=8,
    ours={"net": {"trunk": {"hidden": 8, "layers": 1, "heads": 2, "pair": 4}}, "length": 50, "limit": 2, "steps": 2},
    recurrent={"length": 50, "batch": 4, "limit": 2, "steps": 2},
    nets={kind: {"hidden": 8, "memory": 8, "latent": 2, "goal_memory": 4} for kind in FAMILIES},
)


def test_a_program_tells_flocks_from_those_who_keep_apart():
    """Of flights by the rules alone; those that are turned midway are told by their last frames."""
    right = bench_boids.sure(1024)
    assert right["kept"] > 0.99 and right["told"] > 0.99
    assert 0.9 < right["turned"] < right["kept"]


def test_nobody_is_likelier_than_the_noise():
    """A flight that stands still, but for the noise, by one who knows where."""
    still = bench_boids.NOISE * torch.randn(400, 49, 8, 2, dtype=torch.float64, generator=generator(0))
    known = torch.distributions.Normal(0.0, bench_boids.NOISE).log_prob(still).sum(dim=(1, 2, 3)).mean()
    assert bench_boids.ceiling() == pytest.approx(known.item(), rel=1e-3)
    test = bench_boids.seen(64, 2)
    assert Straight.fit(test)(test.clips(50)).frames.sum(dim=1).mean() < bench_boids.ceiling()


def test_flights_are_seen_with_noise_and_both_labels():
    tracks = bench_boids.seen(16, 0)
    off = tracks.values - bench_boids.flocks(16, 0).values
    assert off.std().item() == pytest.approx(0.01, rel=0.05)
    assert torch.equal(tracks.labels["mine"][:, 3], tracks.labels["friendly"])
    assert torch.equal(tracks.values, bench_boids.seen(16, 0).values)


def test_the_figures_are_told_and_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(bench_boids, "SAMPLES", 2)
    monkeypatch.setattr(bench_boids, "sure", lambda: dict.fromkeys(("kept", "told", "turned"), 1.0))
    (table,) = bench_boids.boids(tmp_path, 1, 1, None, name="boids", size=TINY).tables
    rows = {row[0]: dict(zip(table.columns, row, strict=True)) for row in table.rows}
    assert set(rows) == {"straight on", *bench_boids.MODELS, "the rules"}
    for model in ("ours", "macro_vrnn", "macro_shared_vrnn"):
        assert 0 <= rows[model]["asked"].value <= 1 and 0 <= rows[model]["turned"].value <= 1
    for model in ("ours, untold", "vrnn_indep", "vrae_mi"):
        assert rows[model]["asked"] == "" and 0 <= rows[model]["kept"].value <= 1
    assert rows["rnn_gauss"]["bound of 1"].value == pytest.approx(rows["rnn_gauss"]["bound of 2"].value)
    assert len(list(tmp_path.rglob("figures.json"))) == len(bench_boids.MODELS)
    monkeypatch.setattr(bench_boids, "_learnt", None)  # what was found is read again
    assert bench_boids.boids(tmp_path, 1, 1, None, name="boids", size=TINY).tables == [table]
