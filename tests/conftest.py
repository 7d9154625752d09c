"""What all tests share: one thread (several would fight over the cores of a busy machine), and the folder of recordings (tests that need it skip, saying so, without it)."""

from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)
DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of real recordings beside the repository."""
    if not DATA.is_dir():
        pytest.skip(f"the recordings are not here: {DATA}")
    return DATA
