import os

import pytest


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(request, monkeypatch):
    """No test here cuts the power (one pretends to), so fast ones need not wait for every flush."""
    if "slow" not in request.keywords:
        monkeypatch.setattr(os, "fsync", lambda file: None)
