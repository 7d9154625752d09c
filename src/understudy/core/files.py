"""Files that survive a kill, a power cut and a full disk: readers see the old content or the new, never a mixture."""

import contextlib
import errno
import hashlib
import json
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from understudy.core.errors import RunError

TEMPORARY = ".part"  # ends the name of a file that is not finished: whoever finds one after a kill may delete it


def write_atomically(path: Path, data: bytes | memoryview) -> None:
    """Put `data` at `path` at once: a hidden file in the same folder, fsync, rename, fsync of the folder.

    Where it fails, or is interrupted, nothing is left behind and what stood at `path` stands there still.

    Raises:
        RunError: the disk is full or the folder cannot be written; says how many bytes were needed.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}{TEMPORARY}")  # two processes never write into one
    try:
        try:
            _write(beside, data)
            os.replace(beside, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(beside)
            raise
        fsync_folder(path.parent)
    except OSError as failure:
        raise refusal(path, failure, len(data)) from failure


def _write(path: Path, data: bytes | memoryview) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(file, rest) :]
        os.fsync(file)
    finally:
        os.close(file)


def fsync_folder(folder: Path) -> None:
    """Make renames and removals in `folder` durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def refusal(path: Path, failure: OSError, needed: int = 0) -> RunError:
    """What to raise where something could not be written at `path`; `needed` bytes, where that is known."""
    what, why = f"{needed:,} bytes" if needed else "it", failure.strerror or str(failure)
    if failure.errno in _FULL:
        why = f"the disk is full, or a limit is reached ({why})"
        with contextlib.suppress(OSError):
            what += f" ({shutil.disk_usage(path if path.is_dir() else path.parent).free:,} are free)"
    return RunError(f"{path}: {what} could not be written: {why}. {way_out(failure)}".rstrip())


def way_out(failure: OSError) -> str:
    """What somebody can do whom the system refuses a file; empty where that is not known."""
    return _WAYS_OUT.get(failure.errno, "")


_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FORBIDDEN = "Choose a place that you may write to, or change its permissions."
_WAYS_OUT: dict[int | None, str] = {
    **dict.fromkeys(_FULL, "Make room and do the same again: what was saved before is whole."),
    errno.EACCES: _FORBIDDEN,
    errno.EPERM: _FORBIDDEN,
    errno.EROFS: "Choose a place on another disk: this one is read-only.",
    errno.EEXIST: "A file has that name already: choose another.",
    errno.ENOTDIR: "A part of this path is a file, and should be a folder: choose another.",
    errno.EISDIR: "This is a folder, and should be a file: choose another name.",
    errno.ENOENT: "There is no such file or folder: look for a slip in its name.",
    errno.ENAMETOOLONG: "Choose a shorter name.",
    errno.EIO: "The disk fails: choose another.",
    errno.EMFILE: "Too many files are open: close some, or allow more (ulimit -n).",
}


def to_json(data: Any, indent: int | None = None) -> bytes:
    """Standard JSON, the same bytes for the same data; with `indent` for people to read."""
    return (json.dumps(data, indent=indent, allow_nan=False, ensure_ascii=False) + "\n").encode()


def from_json(text: str | bytes) -> Any:
    """What standard JSON says.

    Raises:
        ValueError: it is no JSON, has NaN or Infinity, or gives one name two values: readers would differ about it.
    """

    def named(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) < len(pairs):
            seen: set[str] = set()
            twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
            raise ValueError(f"{twice!r} is there twice")
        return made

    def refused(word: str) -> None:
        raise ValueError(f"{word} is no JSON")

    return json.loads(text, object_pairs_hook=named, parse_constant=refused)


def sha256(data: bytes | memoryview) -> str:
    return hashlib.sha256(data).hexdigest()


@contextlib.contextmanager
def only_one(folder: Path, doing: str) -> Iterator[None]:
    """Hold `folder` against a second process for as long as the block runs; the kernel lets go when a process dies.

    Raises:
        RunError: another process holds it; says which.
    """
    import fcntl

    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "lock", "a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            raise RunError(f"{folder} is in use: {file.read().strip()}. Stop that, or choose another folder.") from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()} is {doing}\n")
        file.flush()
        yield
