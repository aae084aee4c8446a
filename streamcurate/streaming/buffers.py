"""Memory that the blocks of a pass are read into, used again once nobody can see what it held.

Fresh memory for every block costs page faults and a trip past the caches; algorithms, on the other hand, may keep a
block as long as they like, or views of it in a partial result. So a buffer is given out again only when its reference
count proves that it is nobody's: every array made from it, however far removed, and every memory view of one, holds a
reference to it or to an array that does.
"""

from __future__ import annotations

import math
import sys
import threading
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

_probe = [object()]
# What getrefcount gives for something that only a list refers to.
_UNSEEN = sys.getrefcount(_probe[0])
# Without the interpreter's lock counts are split among threads, and what getrefcount gives proves nothing.
_COUNTS_ARE_EXACT = sys.implementation.name == "cpython" and getattr(sys, "_is_gil_enabled", lambda: True)()


class Allocator(Protocol):
    """Gives uninitialised arrays, as ``numpy.empty`` does."""

    def __call__(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]: ...


def fresh(shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """New memory."""
    return np.empty(shape, dtype=dtype)


class BlockBuffers:
    """An allocator whose arrays' memory is used again as soon as nothing refers to it; safe from several threads.

    It never holds more buffers than were in use at one time. They are freed with it, or with the last array made of
    them.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._buffers: list[NDArray[np.uint8]] = []

    def __call__(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        nbytes = math.prod(shape) * dtype.itemsize
        if not _COUNTS_ARE_EXACT or not nbytes:
            return fresh(shape, dtype)
        with self._lock:
            place = None
            for position in range(len(self._buffers)):
                if sys.getrefcount(self._buffers[position]) == _UNSEEN:
                    place = position
                    if self._buffers[position].nbytes >= nbytes:
                        break
            if place is None:
                place = len(self._buffers)
                self._buffers.append(np.empty(nbytes, dtype=np.uint8))
            elif self._buffers[place].nbytes < nbytes:
                self._buffers[place] = np.empty(nbytes, dtype=np.uint8)
            # A view, and as such a reference, before the lock is left.
            return self._buffers[place][:nbytes].view(dtype).reshape(shape)
