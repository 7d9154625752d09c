import io
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from understudy.core.errors import ConfigError, MissingExtra, RunError
from understudy.runs import devices, log
from understudy.runs.log import Averages, Lines, Screen, column, duration, last_values, read_lines, table

ROWS = [{"update": 10, "loss": 2.0, "held": None}, {"update": 15, "held": 3.0}, {"update": 20, "loss": 1.23456}]


@given(st.lists(st.dictionaries(st.text(), st.none() | st.integers() | st.text() | st.floats(allow_nan=False))))
def test_lines_come_back(tmp_path_factory, records):
    records = [{k: v for k, v in r.items() if v not in (float("inf"), -float("inf"))} for r in records]
    path = tmp_path_factory.mktemp("lines") / "x.jsonl"
    lines = Lines(path)
    for record in records:
        lines.write(record)
    lines.close()
    assert read_lines(path) == records
    assert lines.position == path.stat().st_size


def test_a_line_that_a_kill_cut_off_is_left_out_and_written_over(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text('{"a": 1}\n{"a": 2')
    assert read_lines(path) == [{"a": 1}]
    Lines(path).write({"a": 3})
    assert read_lines(path) == [{"a": 1}, {"a": 3}]


def test_lines_go_back_to_where_a_checkpoint_was_made(tmp_path):
    lines = Lines(tmp_path / "x.jsonl")
    lines.write({"a": 1})
    position = lines.sync()
    lines.write({"a": 2})
    Lines(lines.path, keep=position).write({"a": 3})
    assert read_lines(lines.path) == [{"a": 1}, {"a": 3}]


def test_a_line_that_is_no_record_is_named(tmp_path):
    (tmp_path / "x.jsonl").write_text('{"a": 1}\n[2]\n{"a": 3}\n')
    with pytest.raises(RunError, match=r"x.jsonl, line 2 is no record: b'\[2\]'"):
        read_lines(tmp_path / "x.jsonl")
    assert read_lines(tmp_path / "none.jsonl") == []


def test_what_json_has_no_word_for_becomes_null(tmp_path):
    lines = Lines(tmp_path / "x.jsonl")
    lines.write({"nan": float("nan"), "inf": float("inf"), "one": 1.0})
    assert read_lines(lines.path) == [{"nan": None, "inf": None, "one": 1.0}]


@given(st.lists(st.floats(-1e6, 1e6) | st.just(float("nan")), min_size=1, max_size=9))
def test_averages_are_means_of_what_was_told(values):
    averages = Averages()
    for value in values:
        averages.add({"x": torch.tensor(value), "n": torch.tensor([2])})
    told = [torch.tensor(v).double().item() for v in values if v == v]
    row = averages.take()
    assert row["n"] == 2 and averages.take() == {}
    assert row["x"] == (pytest.approx(sum(told) / len(told), abs=1e-6) if told else None)


def test_rows_are_read_as_curves_and_as_a_table():
    assert last_values(ROWS) == {"update": 20, "loss": 1.23456, "held": 3.0}
    assert column(ROWS, "loss") == ([10, 20], [2.0, 1.23456])
    assert column(ROWS, "held") == ([15], [3.0])
    assert table(ROWS) == [("update", "20"), ("loss", "1.235"), ("held", "3")]


def test_durations_read_like_a_clock():
    assert [duration(s) for s in (0.0, 59.4, 61.0, 3662.0, -5.0)] == ["00:00", "00:59", "01:01", "1:01:02", "00:00"]


@pytest.fixture
def clock(monkeypatch):
    time = [100.0]
    monkeypatch.setattr(log.time, "monotonic", lambda: time[0])
    return time


def test_without_a_terminal_a_plain_line_comes_now_and_then_with_the_time_left(clock, capsys):
    with Screen("toy", updates=100, seconds=None, shown=True) as screen:
        for update in range(20, 61):
            clock[0] += 1
            screen.show(update, {"update": update, "loss": 0.5, "held": None})
        screen.show(61, {}, last=True)
    first, *_, last = capsys.readouterr().err.splitlines()
    assert first == "toy: update 30/100 · loss 0.5 · 01:17 left", "11 s for 10 updates, and 70 to go"
    assert last == "toy: update 61/100 · 00:39 left"


def test_what_comes_before_the_first_update_is_said_and_no_forecast_counts_it(clock, capsys):
    with Screen("toy", updates=40, seconds=None, shown=True) as screen:
        with screen.before("making ready"):
            clock[0] += 1000
        screen.show(10, {})
        clock[0] += 20
        screen.show(20, {})
    assert capsys.readouterr().err == "toy: making ready\ntoy: update 10/40\ntoy: update 20/40 · 00:40 left\n"


def test_the_time_left_is_that_of_the_budget_that_ends_first(clock, capsys):
    with Screen("toy", updates=None, seconds=60.0, shown=True) as screen:
        screen.show(1, {})
        clock[0] += 45
        screen.show(2, {})
    assert capsys.readouterr().err == "toy: update 2 · 00:15 left\n"


def test_a_terminal_gets_a_bar_and_silence_is_kept_where_asked_for(monkeypatch, capsys):
    with Screen("toy", updates=4, seconds=None, shown=False) as screen:
        screen.show(1, {"loss": 1.0}, last=True)
    assert capsys.readouterr().err == ""

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with Screen("toy", updates=4, seconds=None, shown=True) as screen:
        screen.show(1, {"loss": 1.0})
        screen.show(4, {"loss": 0.25}, last=True)
    assert "update 4/4 · loss 0.25" in terminal.getvalue()


def test_tensorboard_is_an_extra(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(MissingExtra, match=r"understudy\[tensorboard\]"):
        log.tensorboard(tmp_path, 0)


def test_a_device_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert devices.choose("auto") == devices.choose("cpu") == torch.device("cpu")
    with pytest.raises(ConfigError, match="torch sees no GPU here"):
        devices.choose("cuda:1")
    with pytest.raises(ConfigError, match="got 'tpu'"):
        devices.choose("tpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert devices.choose("auto") == torch.device("cuda") and devices.choose("cuda:1") == torch.device("cuda:1")


def test_threads_and_determinism_are_set():
    before = torch.get_num_threads()
    devices.set_threads(1)
    assert torch.get_num_threads() == 1 and devices.describe(torch.device("cpu"))["threads"] == 1
    devices.set_threads(before)
    with pytest.raises(ConfigError, match="threads: got 0"):
        devices.set_threads(0)
    devices.deterministic()
    assert torch.are_deterministic_algorithms_enabled()
    devices.deterministic(False)
    assert not torch.are_deterministic_algorithms_enabled()
