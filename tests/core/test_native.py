"""A C++ source becomes a library that is kept, and trusted only as it was built."""

import multiprocessing
import os
import shutil
import sys
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from understudy.core import native

COMPILER = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
pytestmark = pytest.mark.skipif(sys.platform != "linux" or COMPILER is None, reason="here nothing is compiled")


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("source") / "twice.cpp"
    path.write_text('extern "C" int twice(int x) { return 2 * x; }\n')
    return path


@pytest.fixture(scope="module")
def built(source, tmp_path_factory) -> Path:
    """A folder with the library in it."""
    folder = tmp_path_factory.mktemp("built") / "cache"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNDERSTUDY_CACHE", str(folder))
        native.library(source)
    return folder


@pytest.fixture
def afresh(monkeypatch, tmp_path):
    """A folder of the test's own, which is not there yet."""
    monkeypatch.setenv("UNDERSTUDY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def works(source: Path) -> bool:
    return native.library(source).twice(21) == 42


def test_it_is_built_once_into_a_folder_of_its_own(source, built, monkeypatch):
    monkeypatch.setenv("UNDERSTUDY_CACHE", str(built))
    (kept,) = built.iterdir()
    assert built.stat().st_mode & 0o777 == 0o700
    before = kept.stat()
    assert works(source)
    assert kept.stat() == before


@pytest.mark.parametrize("damage", ["short", "changed", "foreign", "open", "link"])
def test_what_is_damaged_foreign_or_open_to_others_is_built_anew(source, built, afresh, damage, tmp_path):
    shutil.copytree(built, afresh)
    (kept,) = afresh.iterdir()
    sound = kept.read_bytes()
    if damage == "short":
        kept.write_bytes(sound[: len(sound) // 2])
    elif damage == "changed":
        kept.write_bytes(sound[:5000] + bytes([sound[5000] ^ 1]) + sound[5001:])
    elif damage == "foreign":
        kept.write_bytes(b"\x7fELF of somebody else")
    elif damage == "open":
        kept.chmod(0o722)
    else:
        kept.rename(tmp_path / "elsewhere.so")
        kept.symlink_to(tmp_path / "elsewhere.so")
    assert works(source)
    assert native._sound(kept)
    assert not kept.is_symlink()
    assert kept.stat().st_mode & 0o077 == 0
    assert list(afresh.iterdir()) == [kept]


@pytest.mark.parametrize("mode", [0o500, 0o777, 0o770])
def test_a_folder_that_is_closed_or_open_to_others_is_left_alone(source, afresh, mode):
    afresh.mkdir()
    afresh.chmod(mode)
    if mode == 0o500 and os.geteuid() == 0:
        shutil.rmtree(afresh)
        afresh.write_text("a file stands in the folder's place")  # root may write anywhere else
    assert works(source)
    assert afresh.is_file() or not list(afresh.iterdir())


def test_a_folder_below_one_that_anybody_can_change_is_left_alone(source, afresh, tmp_path):
    afresh.mkdir(mode=0o700)
    tmp_path.chmod(0o777)
    assert works(source)
    assert not list(afresh.iterdir())


def test_processes_that_build_at_once_end_with_one_sound_file(source, afresh):
    with multiprocessing.get_context("fork").Pool(3) as pool:
        assert all(pool.map(works, [source] * 3, chunksize=1))
    (kept,) = afresh.iterdir()
    assert native._sound(kept)


def test_another_source_of_the_same_name_is_another_library(source, afresh, tmp_path):
    other = tmp_path / source.name
    other.write_text('extern "C" int twice(int x) { return 3 * x; }\n')
    assert works(source)
    assert native.library(other).twice(21) == 63
    assert len(list(afresh.iterdir())) == 2


def test_transforms_and_modes_of_torch_must_see_what_is_done():
    found = []
    assert native.watched(torch.ones(3)) is None
    torch.func.vmap(lambda x: found.append(native.watched(x)) or x)(torch.ones(3))
    torch.func.jvp(lambda x: found.append(native.watched(torch.ones(3))) or x, (torch.ones(3),), (torch.ones(3),))
    with FlopCounterMode(display=False):
        found.append(native.watched(torch.ones(3)))
    found.append(native.watched(torch.nn.Parameter(torch.ones(3))))
    assert all(isinstance(reason, str) for reason in found) and len(found) == 4
