"""Scenes beside clones in kitchens: what the table says of known figures, and one short run."""

from dataclasses import replace

import pytest

from understudy import bench_cook_scenes
from understudy.bench_cook_scenes import FIGURES, cooks_scenes
from understudy.cooking import likeness as cooking_likeness
from understudy.cooking import settings


def test_scenes_stand_beside_the_clone_and_the_lonely_of_the_same_seed(tmp_path, monkeypatch):
    """Seeds differ by 10, a scene costs 2 nats less than the clone and a cook who is told less 1 more."""

    def known(task, folder, minutes):
        body, seed = task
        value = 10.0 * seed + {"gru": 0.0, "scene": -2.0, "history": 1.0}[body]
        return {"cramped_room": dict.fromkeys(FIGURES, value)}

    monkeypatch.setattr(bench_cook_scenes, "LAYOUTS", ("cramped_room",))
    monkeypatch.setattr(bench_cook_scenes, "_cook", known)
    (table,) = cooks_scenes(tmp_path, seeds=3, workers=1, minutes=None).tables
    rows = {row[1]: row[2:] for row in table.rows}
    assert list(rows) == ["gru", "history", "scene", "history less gru", "scene less gru"]
    assert [cell.value for cell in rows["scene"]] == [8.0] * len(FIGURES)
    assert all(cell.value == cell.low == cell.high == -2.0 for cell in rows["scene less gru"])
    assert all(cell.value == 1.0 for cell in rows["history less gru"])


def test_scene_and_history_learn_alike_but_for_whom_they_hear():
    apart, scene = bench_cook_scenes.cloning("history"), bench_cook_scenes.cloning("scene")
    assert scene.net.has_past and scene.net.body == "scene"
    assert replace(scene, net=replace(scene.net, body="history")) == apart
    assert bench_cook_scenes.cloning("gru") == settings(members=2)


@pytest.mark.slow
def test_a_short_run_finds_all_figures_and_reads_them_again(tmp_path, monkeypatch):
    small = bench_cook_scenes.cloning("scene")
    small = replace(small, net=replace(small.net, hidden=16, members=1), batch=400, limit=2, steps=2)
    monkeypatch.setattr(bench_cook_scenes, "LAYOUTS", ("cramped_room",))
    monkeypatch.setattr(bench_cook_scenes, "EPISODES", 2)
    monkeypatch.setattr(bench_cook_scenes, "cloning", lambda body: small)
    monkeypatch.setattr(bench_cook_scenes, "likeness", lambda *of: cooking_likeness(*of, horizon=60))
    found = bench_cook_scenes._cook(("scene", 0), tmp_path, None)
    assert set(found["cramped_room"]) == set(FIGURES) and 0 < found["cramped_room"]["nats"] < 4
    assert bench_cook_scenes._cook(("scene", 0), tmp_path, None) == found
