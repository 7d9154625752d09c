"""Settings that are turned: which, how far, and what is told of the runs."""

from dataclasses import fields, is_dataclass

import pytest

from understudy import api, bench_sensitivity
from understudy.bench_sensitivity import TURNED, said, sensitivity, turned, turns


def leaves(config, before=""):
    for f in fields(config):
        value, name = getattr(config, f.name), before + f.name
        yield from leaves(value, name + ".") if is_dataclass(value) else [(name, value)]


@pytest.mark.parametrize("method", TURNED)
def test_a_turn_changes_the_fields_it_names_by_its_factor_and_no_other(method):
    config = api.algorithm_named(method).Config()
    for what, factor in turns(method)[1:]:
        other = config
        for name in TURNED[method][what]:
            other = turned(other, name, factor)
        changed = {name for (name, was), (_, now) in zip(leaves(config), leaves(other), strict=True) if was != now}
        assert changed == set(TURNED[method][what])
        for name in changed:
            was, now = dict(leaves(config))[name], dict(leaves(other))[name]
            assert type(now) is type(was)
            assert now == pytest.approx(was * factor, abs=0.5 if isinstance(was, int) else 1e-12)


def test_turns_have_names_of_their_own_and_the_defaults_are_the_first():
    for method in TURNED:
        names = [said(*turn) for turn in turns(method)]
        assert names[0] == "defaults"
        assert len(set(names)) == len(names) == 1 + 2 * len(TURNED[method])
    assert said("widths", 0.5) == "widths / 2"
    assert said("learning rates", 3.0) == "learning rates x 3"


def test_the_shares_are_of_runs_at_nine_tenths_and_above(tmp_path, monkeypatch):
    def known(path, *, run, minutes):
        seed, env, method, what, _ = run
        return {"score": 0.95 if method == "iq" or (env == "spread" and not what) else 0.85 + 0.01 * seed}

    monkeypatch.setattr(bench_sensitivity, "_learn", known)
    report = sensitivity(tmp_path, seeds=2, workers=1, minutes=None)
    share = {row[0]: row[2] for row in report.tables[0].rows}
    assert share["iq"] == 1.0
    assert share["magail"] == share["maairl"] == pytest.approx(1 / (3 * len(turns("magail"))))
    by_turn = {(row[0], row[1]): row for row in report.tables[1].rows}
    assert by_turn["magail", "defaults"][-1] == pytest.approx(1 / 3)
    assert by_turn["magail", "widths x 2"][2].value == pytest.approx(0.855)

    def nobody(path, *, run, minutes):
        raise AssertionError(f"{run} learns again")

    monkeypatch.setattr(bench_sensitivity, "_learn", nobody)
    assert sensitivity(tmp_path, seeds=2, workers=1, minutes=None).tables == report.tables
