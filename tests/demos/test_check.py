import math

import pytest
import torch

from tests.demos.common import ABOUT, CONTINUOUS, DISCRETE, demos, episode
from understudy.core.errors import DemosError
from understudy.core.types import EnvSpec, MultiDiscrete
from understudy.demos import Demos, Episode, store
from understudy.demos.check import check, fix, show
from understudy.demos.episode import findings


def found(change, number: int = 1, *, full: bool = True) -> list[tuple]:
    """(kind, episode, agent, step) of what is found in an otherwise sound episode of 8 steps."""
    made = episode(number, 8, full=full)
    change(made)
    spec = DISCRETE if full else CONTINUOUS
    return [(f.kind, f.episode, f.agent, f.step) for f in findings(spec, made, number)]


def put(name: str, place: tuple, value):
    def change(e: Episode) -> None:
        getattr(e, name)[place] = value

    return change


def let(**values):
    return lambda e: [setattr(e, name, value) for name, value in values.items()]


def cut(name: str, stop: int):
    return lambda e: setattr(e, name, getattr(e, name)[:stop])


DEFECTS = {
    "obs nan": (put("obs", (3, 1, 2), math.nan), ("finite", 1, 1, 3)),
    "obs inf in the last moment": (put("obs", (8, 0, 0), math.inf), ("finite", 1, 0, 8)),
    "reward nan": (put("rewards", (5, 0), math.nan), ("finite", 1, 0, 5)),
    "whole nan": (put("whole", (2, 1), math.nan), ("finite", 1, None, 2)),
    "time nan": (put("times", (8,), math.nan), ("finite", 1, None, 8)),
    "time backwards": (put("times", (4,), 0.05), ("times", 1, None, 3)),
    "time stands still": (put("times", (4,), 0.1 * 3), ("times", 1, None, 3)),
    "action too large": (put("actions", (6, 1), 4), ("range", 1, 1, 6)),
    "action negative": (put("actions", (0, 0), -1), ("range", 1, 0, 0)),
    "action illegal": (lambda e: put("legal", (2, 1, e.actions[2, 1]), False)(e), ("legal", 1, 1, 2)),
    "a step too few of actions": (cut("actions", 7), ("length", 1, None, 8)),
    "a moment too few of obs": (cut("obs", 8), ("length", 1, None, 8)),
    "rewards too short": (cut("rewards", 3), ("length", 1, None, 3)),
    "no step": (lambda e: [cut("actions", 0)(e), cut("obs", 1)(e)], ("empty", 1, None, None)),
    "an agent missing": (lambda e: let(obs=e.obs[:, :1])(e), ("shape", 1, None, None)),
    "obs wider": (let(obs=torch.zeros(9, 2, 4)), ("shape", 1, None, None)),
    "axes turned": (lambda e: let(actions=e.actions.T)(e), ("shape", 1, None, None)),
    "a label of another shape": (let(labels={"goal": torch.zeros(8, 3)}), ("shape", 1, None, None)),
    "a label too short": (let(labels={"goal": torch.zeros(7, 2)}), ("length", 1, None, 7)),
    "a label nan": (let(labels={"goal": torch.full((8, 2), math.nan)}), ("finite", 1, 0, 0)),
    "actions of floats": (lambda e: let(actions=e.actions.float())(e), ("dtype", 1, None, None)),
    "obs of whole numbers": (lambda e: let(obs=e.obs.long())(e), ("dtype", 1, None, None)),
    "times of half the width": (lambda e: let(times=e.times.float())(e), ("dtype", 1, None, None)),
    "masks of numbers": (lambda e: let(present=e.present.long())(e), ("dtype", 1, None, None)),
    "weight negative": (let(weight=-1.0), ("info", 1, None, None)),
    "info nan": (let(info={"score": math.nan}), ("info", 1, None, None)),
    "info a list": (let(info={"scores": [1, 2]}), ("info", 1, None, None)),
}


@pytest.mark.parametrize("name", DEFECTS)
def test_every_defect_is_named_with_its_place(name):
    change, place = DEFECTS[name]
    assert place in found(change)
    assert not found(lambda e: None)


def test_a_continuous_action_must_lie_within_its_bounds():
    assert found(put("actions", (2, 1, 0), 5.5), full=False) == [("range", 1, 1, 2)]
    assert not found(put("actions", (2, 1, 0), 5.0 + 1e-7), full=False)


def test_each_part_of_an_action_has_its_own_range_and_mask():
    spec = EnvSpec(agents=1, obs=1, action=MultiDiscrete((3, 2)))
    made = Episode(
        torch.zeros(3, 1, 1), torch.tensor([[[2, 1]], [[0, 0]]]), legal=torch.ones(3, 1, 5, dtype=torch.bool)
    )
    assert not list(findings(spec, made, 0))
    made.legal[1, 0, 3] = False  # move 0 of the second part
    assert [(f.kind, f.step) for f in findings(spec, made, 0)] == [("legal", 1)]
    made.actions[0, 0] = torch.tensor([1, 2])
    assert [(f.kind, f.step) for f in findings(spec, made, 0)] == [("range", 0)]


def test_who_is_not_there_does_nothing_illegal():
    def leaves(e: Episode) -> None:
        e.present[4:, 1] = False
        e.legal[4:, 1] = False

    assert not found(leaves)


def test_an_episode_that_does_not_fit_is_refused_at_the_border():
    bad = episode(1, 8)
    bad.obs[3, 1, 2] = math.nan
    with pytest.raises(DemosError, match=r"episode 1, agent 1, step 3: obs is not a finite number\."):
        Demos.from_episodes(DISCRETE, [episode(0, 3), bad])
    odd = episode(1, 8)
    odd.obs = odd.obs.double()
    with pytest.raises(DemosError, match=r"episode 1: obs is of float64 \[2, 3\] a row, and in the others of float32"):
        Demos.from_episodes(DISCRETE, [episode(0, 3), odd])


def test_a_sound_set_has_no_findings(tmp_path):
    demos([7, 1, 12, 30]).save(tmp_path / "set")
    assert check(tmp_path / "set") == []


def test_gaps_and_doubles_are_found_and_kept(tmp_path):
    episodes = [episode(0, 8), episode(1, 8), episode(0, 8)]
    episodes[1].times[5:] += 0.1
    episodes[2].name = "again"
    store.save(tmp_path / "set", DISCRETE, episodes)
    places = [(f.kind, f.episode, f.step) for f in check(tmp_path / "set")]
    assert places == [("gap", 1, 4), ("duplicate", 2, None)]
    assert fix(tmp_path / "set", tmp_path / "new") == ["3 of 3 episodes were saved"]


def test_of_a_damaged_shard_only_the_damaged_episode_is_left_behind(tmp_path):
    made = demos([7, 5, 12, 30])
    made.save(tmp_path / "set")
    path = tmp_path / "set" / "shard-00000000.arrow"
    text = bytearray(path.read_bytes())
    place = text.find(made[2].obs.numpy().tobytes())
    text[place + 40] ^= 1
    path.write_bytes(text)
    with pytest.raises(DemosError, match="checksum"):
        Demos.load(tmp_path / "set")
    assert [(f.kind, f.episode) for f in check(tmp_path / "set")] == [("shard", None), ("content", 2)]
    said = fix(tmp_path / "set", tmp_path / "new")
    assert said[-1] == "3 of 4 episodes were saved" and "left behind: episode 2" in said[1]
    assert check(tmp_path / "new") == []
    assert Demos.load(tmp_path / "new").fingerprint() == made.select([0, 1, 3]).fingerprint()


@pytest.mark.parametrize("damage", ["missing", "cut", "index missing", "index cut", "index changed"])
def test_what_is_lost_is_named_and_the_rest_is_saved(tmp_path, monkeypatch, damage):
    monkeypatch.setattr(store, "SHARD_BYTES", 1)
    made = demos([7, 5, 12])
    folder = tmp_path / "set"
    made.save(folder)
    path = folder / ("index.json" if "index" in damage else "shard-00000001.arrow")
    text = path.read_bytes()
    if "missing" in damage:
        path.unlink()
    else:
        path.write_bytes(
            text[: len(text) // 2] if "cut" in damage else text.replace(b'"weight": [1.0', b'"weight": [9.0')
        )
    with pytest.raises(DemosError):
        Demos.load(folder)
    assert check(folder)
    kept = [0, 1, 2] if "index" in damage else [0, 2]
    said = fix(folder, tmp_path / "new")
    assert said[-1] == f"{len(kept)} of 3 episodes were saved"
    assert Demos.load(tmp_path / "new").fingerprint() == made.select(kept).fingerprint()
    assert Demos.load(tmp_path / "new").about == ABOUT


def test_unsound_values_behind_a_sound_checksum_are_found(tmp_path, monkeypatch):
    """As a tool of another making might write them."""
    made = demos([7, 5])
    made[1].legal[2, 0, made[1].actions[2, 0]] = False
    with monkeypatch.context() as unwatched:
        unwatched.setattr(store, "findings", lambda *_: iter(()))
        made.save(tmp_path / "set")
    assert [(f.kind, f.episode, f.agent, f.step) for f in check(tmp_path / "set")] == [("legal", 1, 0, 2)]
    assert fix(tmp_path / "set", tmp_path / "new")[-1] == "1 of 2 episodes were saved"


def test_nothing_to_save_is_an_error(tmp_path):
    with pytest.raises(DemosError, match="not one episode can be saved"):
        fix(tmp_path, tmp_path / "new")
    assert check(tmp_path)[0].kind == "index"


def test_a_summary_tells_what_is_there(tmp_path):
    demos([7, 5]).save(tmp_path / "set")
    said = show(tmp_path / "set")
    assert "made up: 2 episodes, 12 steps" in said and "licence: CC0" in said
    returns = torch.tensor([sum(t + 0.5 for t in range(n)) for n in (7, 5)])
    assert f"return of agent_0: {returns.mean():.3f}, standard deviation {returns.std(correction=0):.3f}" in said
