"""Many runs at a time, each in a process of one thread that shares nothing with the others but the disk."""

import json
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch

from understudy.core.errors import RunError
from understudy.core.files import to_json, write_atomically

Item = TypeVar("Item")
Found = TypeVar("Found")
Figures = TypeVar("Figures")  # what JSON holds as it is
INTERRUPTED = 130


def side_by_side(task: Callable[[Item], Found], items: Sequence[Item], workers: int) -> list[Found]:
    """`task(item)` of every item, in their order; `workers` of them at a time. One: here, one after the other.

    Ctrl-C and SIGTERM stop all of them, and none begins any more: a run that is stopped saves itself first. So it does
    where whoever waits was killed.

    Raises:
        RunError: a process was killed from outside, for example for want of memory.
    """
    if workers == 1:
        return [task(item) for item in items]
    others = set(multiprocessing.active_children())
    spawn = multiprocessing.get_context("spawn")
    with _told_to_stop(), ProcessPoolExecutor(workers, spawn, _begin) as pool:
        waiting = [pool.submit(_until_stopped, task, item) for item in items]
        try:
            return [each.result() for each in waiting]
        except BaseException as error:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in set(multiprocessing.active_children()) - others:
                process.terminate()
            if isinstance(error, BrokenProcessPool):
                raise RunError("a process was killed, perhaps for want of memory. The same call goes on.") from None
            raise


def kept(path: Path, asked: Any, make: Callable[[Path], Figures]) -> Figures:
    """The figures in `path` if they were found for the same `asked`; else those of `make(path)`, which are written."""
    if path.exists():
        before = json.loads(path.read_text())
        if before.get("asked") == asked and "figures" in before:
            return before["figures"]
    path.parent.mkdir(parents=True, exist_ok=True)
    found = make(path)
    write_atomically(path, to_json({"asked": asked, "figures": found}, indent=1))
    return found


def _begin() -> None:
    os.setpgrp()  # Ctrl-C in a terminal goes to its whole group: here it would be a first signal, SIGTERM the second
    torch.set_num_threads(1)
    threading.Thread(target=_stop_with_parent, daemon=True).start()


def _stop_with_parent() -> None:
    """Who was killed could not tell its processes: they would finish what nobody waits for, and then wait for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)


def _until_stopped(task: Callable[[Item], Found], item: Item) -> Found:
    try:
        return task(item)
    except KeyboardInterrupt:
        os._exit(INTERRUPTED)  # or the pool would hand this process the next item


@contextmanager
def _told_to_stop() -> Iterator[None]:
    """SIGTERM is a Ctrl-C, so that who waits for processes does not leave them behind."""
    if threading.current_thread() is not threading.main_thread():
        yield  # Python delivers signals to the main thread alone
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
