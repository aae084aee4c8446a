"""What all tests share."""

from __future__ import annotations

import os

import hypothesis
import pytest

# Before anything imports pyplot: no test opens a window.
os.environ.setdefault("MPLBACKEND", "Agg")

# Before anything imports NumPy, for the processes that tests start as well: where pytest runs in several processes, the
# threads of NumPy's and SciPy's products only wait for each other. Results depend on no number of threads, and tests
# that say one set it themselves.
if "PYTEST_XDIST_WORKER" in os.environ:
    for _name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(_name, "1")

# No test cuts the power: what fsync is for cannot be seen, and waiting for the device is most of what small runs do. A
# test that wants to know of a call, or to have it fail, puts its own in place; processes that tests start do wait.
os.fsync = lambda descriptor: None

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
