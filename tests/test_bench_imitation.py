"""The published tables: who plays whom, what is read back rather than learnt again, and what stands in the report."""

import pytest
import torch

from understudy import api, bench_imitation
from understudy.core.files import to_json
from understudy.core.random import generator
from understudy.evaluation.metrics import returns
from understudy.rollout import play


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    for name, few in (("DEMONSTRATIONS", 6), ("EPISODES", 4), ("ANCHORED", 40)):
        monkeypatch.setattr(bench_imitation, name, few)


def test_in_keep_away_each_side_meets_the_expert_of_the_other():
    """Random play in the seeker's seat loses against the expert; in the adversary's it lets the expert win."""
    env = api.make_env("keep_away")
    random = bench_imitation.Uniform(env.spec)
    sides = bench_imitation._pairings(env, random)
    seeker = {who: returns(play(env, policy, 600, generator(0)))[:, 1].mean().item() for who, policy in sides.items()}
    experts = returns(play(env, api.expert_of(env), 600, generator(0)))[:, 1].mean().item()
    assert seeker["against expert"] < experts - 5
    assert (
        seeker["expert against"] > experts + 0.3
    )  # it hardly matters: the expert adversary costs the seeker about half a point
    assert list(bench_imitation._pairings(api.make_env("navigation"), random)) == ["together"]


def test_plays_of_expert_and_random_are_side_by_side():
    env = api.make_env("navigation")
    mixed = bench_imitation._mixed(env)
    assert len(mixed.obs) == 8
    assert returns(mixed)[:4].mean() > returns(mixed)[4:].mean() + 100


def test_figures_that_were_found_in_as_much_time_are_read_and_the_tables_tell_them(tmp_path, monkeypatch):
    trained = []

    def no_training(module, *args, folder, **kwargs):
        trained.append((module.__name__.rpartition(".")[2], str(folder)))
        raise RuntimeError("asked to learn")

    found = {}
    for k, method in enumerate(bench_imitation.METHODS):
        figures = {"updates": 10, "together": [-100.0 + 20 * k] * 2}
        figures |= {"expert": [-20.0] * 2, "random": [-120.0] * 2}
        if method in ("magail", "maairl"):
            figures |= {"own play": {name: [0.9, 0.7] for name in bench_imitation.CORRELATIONS}}
        folder = tmp_path / "communication" / method / "seed-0"
        folder.mkdir(parents=True)
        (folder / "figures.json").write_bytes(to_json({"asked": [120, 3.0], "figures": figures}))
    monkeypatch.setitem(bench_imitation.UPDATES, "communication", 120)
    monkeypatch.setattr(api, "train", no_training)
    found = bench_imitation.one_seed(0, tmp_path, 3.0, ("communication",))
    assert not trained
    text = bench_imitation.tables([found, found], ("communication",), "understudy bench").text()
    for shown in ("scripted expert", "symmetric bc", "-80", "0.4", "maairl", "-40", "0.8"):
        assert shown in text
    with pytest.raises(RuntimeError, match="asked to learn"):
        bench_imitation.one_seed(0, tmp_path, 4.0, ("communication",))
    assert trained == [("bc", str(tmp_path / "communication" / "bc" / "seed-0"))]


@pytest.mark.slow
def test_a_short_run_writes_all_figures_and_a_reward(tmp_path):
    found = bench_imitation.one_seed(0, tmp_path, 0.02, ("keep_away",))
    assert set(found) == {f"keep_away/{method}" for method in bench_imitation.METHODS}
    figures = found["keep_away/maairl"]
    assert set(figures["own play"]) == set(bench_imitation.CORRELATIONS)
    assert torch.tensor(figures["expert against"]).isfinite().all()
    assert (tmp_path / "keep_away" / "maairl" / "seed-0" / "reward.json").exists()
