"""bfloat16 values: the upper half of a float32, which NumPy has no dtype for."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def widen(bits: NDArray[Any]) -> NDArray[np.float32]:
    """The same values as float32, exactly.

    Parameters
    ----------
    bits : ndarray of a two-byte dtype, native byte order
        The stored patterns.

    Returns
    -------
    ndarray of float32, of the same shape
    """
    return (bits.view(np.uint16).astype(np.uint32) << np.uint32(16)).view(np.float32)
