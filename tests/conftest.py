"""What all tests share: one thread (on a busy machine several wait for each other), and the recordings' folder."""

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
