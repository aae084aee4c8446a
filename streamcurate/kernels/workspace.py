"""Work buffers that a thread keeps from call to call.

Allocating and freeing megabytes for each tile makes the C allocator's heap grow in fragments; a buffer that stays is
counted once. A thread's buffers are freed with the thread.
"""

from __future__ import annotations

import math
import threading
from typing import Any

import numpy as np

from streamcurate.kernels.metric import Array


class _Buffers(threading.local):
    def __init__(self) -> None:
        self.by_name: dict[str, Array] = {}


_buffers = _Buffers()
_ALIGNMENT = 64  # a cache line, and the widest vector register


def work_array(name: str, shape: tuple[int, ...], dtype: Any) -> Array:
    """An uninitialised array in this thread's buffer ``name``; the next call with that name uses the same memory.

    The buffer grows to the largest shape asked for so far, so a name belongs to one purpose of bounded size.
    """
    kind = np.dtype(dtype)
    nbytes = math.prod(shape) * kind.itemsize
    buffer = _buffers.by_name.get(name)
    if buffer is None or buffer.nbytes < nbytes:
        _buffers.by_name.pop(name, None)
        whole = np.empty(nbytes + _ALIGNMENT, dtype=np.uint8)
        start = -whole.ctypes.data % _ALIGNMENT
        buffer = whole[start : start + nbytes]
        _buffers.by_name[name] = buffer
    array: Array = buffer[:nbytes].view(kind).reshape(shape)
    return array
