"""A C++ source of ours, with the headers beside it, compiled on this machine for it at its first use, and kept.

What is kept is code that will run, so it is loaded only from where nobody else can write, and only with the digest that
was noted when it was built.
"""

import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from torch import Tensor
from torch.autograd import forward_ad

FLAGS = (
    "-O3",
    "-march=native",
    "-ffp-contract=fast",
    "-fno-math-errno",
    "-fopenmp",
    "-shared",
    "-fPIC",
    "-std=c++17",
    "-Wno-psabi",
)
DIGEST = hashlib.sha256().digest_size  # bytes at the end of a file that is kept: the digest of all before
PATIENCE = 120  # seconds for the compiler


class Unavailable(Exception):
    """Why there is no such library here."""


def library(source: Path, *flags: str) -> ctypes.CDLL:
    """What `source` compiles to, loaded; `flags` stand behind those of all.

    It is kept in the folder `understudy` of XDG_CACHE_HOME (~/.cache), or in UNDERSTUDY_CACHE, under a name made of the
    source, the flags, the compiler and the processor: whichever changes, it is built anew. Several processes may build
    at once. Where that folder cannot be written, or others can write there too, it is built for this process alone.

    Raises:
        Unavailable: no compiler, another system than Linux, or the compiler refuses.
    """
    if sys.platform != "linux":
        raise Unavailable(f"it was made for Linux, and this is {sys.platform}")
    compiler = _compiler()
    name = f"{source.stem}-{_name(source, compiler, flags)}.so"
    folder = Path(os.environ.get("UNDERSTUDY_CACHE") or _cache())
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _expect_ours(folder)
        kept = folder / name
        if not _sound(kept):
            with tempfile.TemporaryDirectory(dir=folder) as private:
                os.replace(_build(source, compiler, flags, Path(private)), kept)
        return ctypes.CDLL(str(kept))
    except OSError:  # not to be written, not to be trusted, or not to be loaded
        with tempfile.TemporaryDirectory() as private:
            try:
                return ctypes.CDLL(str(_build(source, compiler, flags, Path(private))))  # once loaded the file may go
            except OSError as error:
                raise Unavailable(str(error)) from error


def watched(x: Tensor) -> str | None:
    """Why torch must see what is done to `x`, so that nothing compiled may do it unseen. None: it need not."""
    if type(x) is not Tensor or torch._C._functorch.peek_interpreter_stack() or forward_ad._current_level >= 0:
        return "a transform of torch.func, or another kind of tensor"
    if torch._C._len_torch_dispatch_stack():
        return "a mode of torch's dispatcher"
    return None


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "understudy"


def _compiler() -> list[str]:
    named = shlex.split(os.environ.get("CXX", ""))
    for command in [named] if named else [["c++"], ["g++"], ["clang++"]]:
        if found := shutil.which(command[0]):
            return [found, *command[1:]]
    raise Unavailable("there is no C++ compiler: install g++, or name one in CXX")


def _name(source: Path, compiler: list[str], flags: tuple[str, ...]) -> str:
    """The digest of all that the result depends on."""
    version = subprocess.run([*compiler, "--version"], capture_output=True, timeout=PATIENCE, check=False).stdout
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    processor = sorted({line for line in lines if line.startswith(("flags", "Features", "model name", "CPU part"))})
    texts = [path.read_text() for path in (source, *sorted(source.parent.glob("*.h")))]
    parts = [*texts, *FLAGS, *flags, *compiler, version.decode(errors="replace"), platform.machine(), *processor]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


def _build(source: Path, compiler: list[str], flags: tuple[str, ...], folder: Path) -> Path:
    """The library in the private `folder`, with its digest at the end (which a loader does not mind)."""
    built = folder / "built.so"
    command = [*compiler, *FLAGS, *flags, str(source), "-o", str(built)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"{compiler[0]} could not be run: {error}") from error
    if done.returncode:
        raise Unavailable(f"{compiler[0]} refused it: {(done.stderr.strip() or 'no reason given').splitlines()[-1]}")
    content = built.read_bytes()
    built.write_bytes(content + hashlib.sha256(content).digest())
    built.chmod(0o700)
    return built


def _sound(path: Path) -> bool:
    """It is there, ours alone, and as it was built. A file cut short would end the process that loads it."""
    try:
        _expect_alone(path.lstat(), stat.S_ISREG, path)
        content = path.read_bytes()
    except OSError:
        return False
    return hashlib.sha256(content[:-DIGEST]).digest() == content[-DIGEST:]


def _expect_ours(folder: Path) -> None:
    """Raises PermissionError where somebody else could put a file into `folder`, or another folder in its place."""
    folder = folder.resolve()
    _expect_alone(folder.stat(), stat.S_ISDIR, folder)
    for parent in folder.parents:
        found = parent.stat()
        shared = found.st_mode & stat.S_IWOTH or (found.st_mode & stat.S_IWGRP and found.st_gid != os.getegid())
        if found.st_uid not in (0, os.getuid()) or (shared and not found.st_mode & stat.S_ISVTX):
            raise PermissionError(f"{parent} can be written by others")


def _expect_alone(found: os.stat_result, kind: object, path: Path) -> None:
    if not kind(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):  # type: ignore[operator]
        raise PermissionError(f"{path} is not ours alone")
