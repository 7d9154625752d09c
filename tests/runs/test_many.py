"""Runs in processes: all of them answer in order, and all of them stop."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from understudy.core.errors import RunError
from understudy.runs.many import kept, side_by_side


def square(x):
    return x * x, torch.get_num_threads(), os.getpid()


def die(x):
    os.kill(os.getpid(), signal.SIGKILL)


def test_answers_come_in_order_from_processes_of_one_thread():
    found = side_by_side(square, [3, 1, 2], 2)
    assert [(value, threads) for value, threads, _ in found] == [(9, 1), (1, 1), (4, 1)]
    assert os.getpid() not in {process for *_, process in found}


def test_one_worker_is_this_process():
    assert side_by_side(square, [2], 1)[0][2] == os.getpid()


def test_a_process_that_is_killed_is_told_of():
    with pytest.raises(RunError, match="killed"):
        side_by_side(die, [1], 2)


SLEEPERS = """
import signal, sys, time
from pathlib import Path
from understudy.runs.many import kept, side_by_side

def sleep(place):
    import os
    Path(place).write_text(str(os.getpid()))
    time.sleep(120)

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # tests in the background are started deaf to it
    side_by_side(sleep, sys.argv[1:], 2)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_whoever_waits_takes_the_processes_with_it(number, tmp_path):
    script = tmp_path / "sleepers.py"
    script.write_text(SLEEPERS)
    places = [tmp_path / str(k) for k in range(4)]
    source = str(Path(__file__).parents[2] / "src")
    waiting = subprocess.Popen(
        [sys.executable, str(script), *map(str, places)],
        env=os.environ | {"PYTHONPATH": source},
        stderr=subprocess.DEVNULL,
    )
    end = time.monotonic() + 120
    while sum(place.exists() and place.read_text() != "" for place in places) < 2 and time.monotonic() < end:
        time.sleep(0.1)
    begun = [int(place.read_text()) for place in places if place.exists()]
    assert len(begun) == 2
    waiting.send_signal(number)
    assert waiting.wait(60) != 0
    assert not any(alive(process) for process in begun)
    assert sum(place.exists() for place in places) == 2


SAVERS = """
import signal, sys, time
from pathlib import Path
from understudy.runs.loop import _signals
from understudy.runs.many import side_by_side

def learn(place):
    with _signals() as came:
        Path(place).write_text("learns")
        while not came:
            time.sleep(0.01)
        time.sleep(1)  # what saving may take
        Path(place).write_text("saved")
    raise KeyboardInterrupt

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    side_by_side(learn, sys.argv[1:], 2)
"""


def test_ctrl_c_in_a_terminal_which_all_processes_hear_lets_each_save_itself(tmp_path):
    script = tmp_path / "savers.py"
    script.write_text(SAVERS)
    places = [tmp_path / str(k) for k in range(2)]
    waiting = subprocess.Popen(
        [sys.executable, str(script), *map(str, places)],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2] / "src")},
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    end = time.monotonic() + 120
    while not all(place.exists() and place.read_text() for place in places) and time.monotonic() < end:
        time.sleep(0.1)
    os.killpg(waiting.pid, signal.SIGINT)
    assert waiting.wait(60) != 0
    assert [place.read_text() for place in places] == ["saved", "saved"]


def alive(process):
    for _ in range(100):
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return False
        if Path(f"/proc/{process}/stat").exists() and ") Z " in Path(f"/proc/{process}/stat").read_text():
            return False
        time.sleep(0.1)
    return True


def test_figures_are_kept_for_what_was_asked(tmp_path):
    path, made = tmp_path / "a" / "figures.json", []

    def make(where):
        made.append(where)
        return {"asked": 3.0, "score": len(made)}  # a figure may have any name

    assert kept(path, [1, "x"], make) == {"asked": 3.0, "score": 1}
    assert kept(path, [1, "x"], make) == {"asked": 3.0, "score": 1} and made == [path]
    assert kept(path, [2, "x"], make)["score"] == 2
    assert kept(path, [2, "x"], make)["score"] == 2
