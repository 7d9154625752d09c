"""Clones beside what play makes of them: what the table says of known figures, and one short run in a kitchen."""

import pytest

from understudy import bench_cooks
from understudy.algorithms import bc
from understudy.bench_cooks import FIGURES, METHODS, cooks
from understudy.nets import NetConfig


def test_methods_stand_beside_the_clone_of_the_same_seed(tmp_path, monkeypatch):
    """Seeds differ by 10 and magail adds 2 to each: the difference has no spread though the figures have."""

    def known(seed, folder, minutes):
        figures = {"bc": 0.0, "magail": 2.0, "iq": -1.0}
        return {"cramped_room": {m: dict.fromkeys(FIGURES, 10 * seed + figures[m]) for m in METHODS}}

    monkeypatch.setattr(bench_cooks, "LAYOUTS", ("cramped_room",))
    monkeypatch.setattr(bench_cooks, "_one_seed", known)
    (table,) = cooks(tmp_path, seeds=3, workers=1, minutes=None).tables
    rows = {row[1]: row[2:] for row in table.rows}
    assert list(rows) == [*METHODS, "magail less bc", "iq less bc"]
    assert [cell.value for cell in rows["magail"]] == [12.0] * len(FIGURES)
    assert all(cell.value == 2.0 and cell.low == cell.high == 2.0 for cell in rows["magail less bc"])
    assert all(cell.value == -1.0 for cell in rows["iq less bc"])
    assert rows["bc"][0].high > 20


@pytest.mark.slow
def test_a_short_run_finds_all_figures_and_reads_them_again(tmp_path, monkeypatch):
    monkeypatch.setattr(bench_cooks, "LAYOUTS", ("cramped_room",))
    monkeypatch.setattr(bench_cooks, "HORIZON", 100)
    monkeypatch.setattr(bench_cooks, "EPISODES", 4)
    monkeypatch.setattr(bench_cooks, "_cloning", lambda: bc.Config(net=NetConfig(hidden=16, dropout=0.5), limit=20))
    found = bench_cooks._one_seed(0, tmp_path, 0.02)["cramped_room"]
    assert set(found) == set(METHODS)
    for figures in found.values():
        assert set(FIGURES) <= set(figures)
        assert 0 < figures["nats"] < 4
    assert bench_cooks._one_seed(0, tmp_path, 0.02)["cramped_room"] == found
