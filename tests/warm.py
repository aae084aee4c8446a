"""Imported before workers are forked: what each of them would else import and load anew."""

from __future__ import annotations

import distributed  # noqa: F401 (workers are its processes)
import numpy as np

import streamcurate.streaming.dask
import streamcurate.streaming.tasks  # noqa: F401
from streamcurate.kernels import get_backend

# The first compiled call of a process reads all of numba's registries.
get_backend("cpu").statistics(np.zeros((2, 2), np.float16))
