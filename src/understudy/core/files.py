"""Files that survive a kill, a power cut and a full disk: readers see the old content or the new, never a mixture."""

import contextlib
import errno
import hashlib
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from understudy.core.errors import RunError, UnderstudyError

TEMPORARY = ".part"  # ends the name of a file that is not finished: whoever finds one after a kill may delete it


def write_atomically(path: Path, data: bytes, error: type[UnderstudyError] = RunError) -> None:
    """Put `data` at `path` at once: a temporary file in the same folder, fsync, rename, fsync of the folder.

    Where it fails nothing is left behind, and what stood at `path` stands there still.

    Raises:
        error: the disk is full or the folder cannot be written; says how many bytes were needed.
    """
    temporary = path.with_name(path.name + TEMPORARY)
    try:
        _write(temporary, data)
        os.replace(temporary, path)
        fsync_folder(path.parent)
    except OSError as failure:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise refusal(path, failure, len(data), error) from failure


def _write(path: Path, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def fsync_folder(folder: Path) -> None:
    """Make renames and removals in `folder` durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def refusal(path: Path, failure: OSError, needed: int, error: type[UnderstudyError]) -> UnderstudyError:
    """What to raise where `needed` bytes could not be written to `path`."""
    why = failure.strerror or str(failure)
    if failure.errno in (errno.ENOSPC, errno.EDQUOT):
        why = f"the disk is full ({why}). Free some space and start the same call again: what was saved before is whole"
    return error(f"{path}: {needed:,} bytes could not be written: {why}.")


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


def sha256(data: bytes) -> str:
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
