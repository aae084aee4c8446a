"""What all tests share."""

from __future__ import annotations

import os

import hypothesis
import pytest

# Before anything imports pyplot: no test opens a window.
os.environ.setdefault("MPLBACKEND", "Agg")

# A slow machine is no failure, and what CI finds must be found again on the next run.
hypothesis.settings.register_profile("streamcurate", deadline=None, derandomize="CI" in os.environ)
hypothesis.settings.load_profile("streamcurate")


@pytest.fixture
def gpus() -> None:
    """Skips where no Dask-CUDA worker could work."""
    from streamcurate.errors import InputError
    from streamcurate.kernels import get_backend

    pytest.importorskip("dask_cuda")
    try:
        get_backend("gpu")
    except InputError as error:
        pytest.skip(str(error))
