import json

import pytest

from understudy.api import make_env, record
from understudy.core.errors import DemosError
from understudy.demos.check import check, show
from understudy.demos.demos import About, Demos
from understudy.demos.store import _checksum


@pytest.mark.parametrize("number", [-5, 10**8, float("inf")])
def test_an_index_whose_next_shard_has_no_name_is_refused_before_it_is_written(tmp_path, number):
    record(make_env("matching_pennies"), episodes=2).save(tmp_path / "set")
    path = tmp_path / "set" / "index.json"
    data = json.loads(path.read_text()) | {"number": number}
    del data["sha256"]
    signed = data | {"sha256": _checksum(data) if number != float("inf") else ""}
    path.write_text(json.dumps(signed).replace("Infinity", "1e999"))
    with pytest.raises(DemosError, match="does not read as an index"):
        Demos.load(tmp_path / "set")
    assert [found.kind for found in check(tmp_path / "set")] == ["index"]


def test_what_a_file_says_of_itself_cannot_steer_the_terminal(tmp_path):
    demos = record(make_env("matching_pennies"), episodes=2)
    Demos.from_episodes(demos.spec, list(demos), About(title="\x1b[2Jgone\r\x07")).save(tmp_path / "set")
    said = show(tmp_path / "set")
    assert r"\x1b[2Jgone\r\x07: 2 episodes" in said and "\x1b" not in said
