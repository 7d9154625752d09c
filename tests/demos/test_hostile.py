import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.demos.common import demos
from understudy.api import make_env, record
from understudy.core.errors import DemosError
from understudy.demos import store
from understudy.demos.check import check, show
from understudy.demos.demos import About, Demos


def forge(folder: Path, old: str, new: str) -> None:
    """Change a text in the index of a set, with a checksum that fits."""
    path = folder / store.INDEX
    body = path.read_bytes()[: -store.END]
    assert old.encode() in body
    body = body.replace(old.encode(), new.encode(), 1)
    path.write_bytes(body + store._seal(body))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"number": 1, "sch', '"number": -5, "sch'),
        ('"number": 1, "sch', '"number": 100000000, "sch'),
        ('"number": 1, "sch', '"number": 1e999, "sch'),
        ('"number": 1, "sch', '"number": 1.5, "sch'),
        ('"number": 1, "sch', '"number": 1, "number": 1, "sch'),
        ('"title": "made up"', '"title": "made up", "title": "another"'),
        ('"title": "made up"', '"title": 7'),
        ('"units": {"obs": "m"', '"units": {"obs": 3'),
        ('"dt": 0.1', '"dt": NaN'),
        ('"dt": 0.1', '"dt": "x"'),
        ('"dt": 0.1', f'"dt": "{"x" * 2**20}"'),
        ('"choices": 4', '"choices": 1000000000000'),
        ('"names": ["agent_0", "agent_1"]', '"names": [1, 2]'),
        ('"weight": [1.0', '"weight": [1e308'),
        ('"schema": 2', '"schema": [2]'),
    ],
)
def test_a_forged_index_is_refused_in_one_short_line(tmp_path, old, new):
    demos([3, 4]).save(tmp_path / "set")
    forge(tmp_path / "set", old, new)
    with pytest.raises(DemosError) as refused:
        Demos.load(tmp_path / "set")
    said = str(refused.value)
    assert "\n" not in said and len(said) < 1100
    if "schema" not in old:
        assert "does not read as an index" in said
        assert check(tmp_path / "set")[0].kind == "index"


def test_what_a_file_says_of_itself_cannot_steer_the_terminal(tmp_path):
    demos = record(make_env("matching_pennies"), episodes=2)
    Demos.from_episodes(demos.spec, list(demos), About(title="\x1b[2Jgone\r\x07")).save(tmp_path / "set")
    said = show(tmp_path / "set")
    assert r"\x1b[2Jgone\r\x07: 2 episodes" in said and "\x1b" not in said


def test_names_of_strangers_are_shown_short_and_without_codes(tmp_path):
    made = demos([3, 4])
    evil = "\x1b]0;gone\x07" + "n" * 2**20
    made = Demos(replace(made.spec, names=(evil, "b"), roles=(evil, "c")), About(title=evil), made._blocks, made._table)
    made.save(tmp_path / "set")
    lines = show(tmp_path / "set").split("\n")
    forge(tmp_path / "set", '"number": 1, "sch', f'"{json.dumps(evil)[1:-1]}": 1, "sch')
    for line in (*lines, *(str(finding) for finding in check(tmp_path / "set"))):
        assert line.isprintable() and len(line) < 1100
