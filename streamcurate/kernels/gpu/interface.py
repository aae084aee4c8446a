"""What this room asks of a device: memory, copies, matrix products, and launches of the kernels in cuda/.

The functions of this room know this interface and no library: device.py implements it with CuPy, the tests with the
same kernels compiled for the host.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, Protocol

from streamcurate.kernels.metric import Array

DeviceArray = Any
"""An array in a device's memory: it has shape, dtype, nbytes and a length; a slice of rows is a view."""

FUSED, HALF, SINGLE = "fused", "half", "single"
"""The ways to scores: float16 on tensor cores with the search in the same kernel, float16 matrix products of the
device's library, float32 matrix products. Every device has the last; it takes the rows the others leave."""

THREADS = 256
"""Of a block, but for the fused kernel's: THREADS of cuda/rows.cu."""


class Device(Protocol):
    """One device. Calls below :meth:`holds` happen inside :meth:`session`, unless they say otherwise."""

    @property
    def name(self) -> str:
        """What the maker calls it."""

    @property
    def total_bytes(self) -> int:
        """All its memory."""

    @property
    def cache_bytes(self) -> int:
        """Its last cache before memory."""

    @property
    def routes(self) -> tuple[str, ...]:
        """What it can do of FUSED, HALF and SINGLE, in this order."""

    def session(self) -> AbstractContextManager[None]:
        """The device for this thread alone, until left: so that memory in use is that of one call.

        All that was begun is done when it is left, so what was allocated may be used by anyone.
        """

    def free_bytes(self) -> int:
        """Memory that can be allocated now."""

    def holds(self, array: Any) -> bool:
        """Whether the array lies on the device."""

    def upload(self, array: Array) -> DeviceArray:
        """A copy on the device, complete on return. Also outside a session: while another thread has one, too."""

    def empty(self, shape: tuple[int, ...], dtype: Any) -> DeviceArray:
        """An uninitialised C-contiguous array; InputError where it does not fit."""

    def zeros(self, shape: tuple[int, ...], dtype: Any) -> DeviceArray:
        """The same, all bits zero."""

    def download(self, array: DeviceArray) -> Array:
        """A copy on the host."""

    def product(self, left: DeviceArray, right: DeviceArray, out: DeviceArray) -> None:
        """out = left right^T for (m, e), (n, e) and (m, n), all float32; or float16 operands and a float32 result.

        float32: each result is a sum of the e products, rounded to float32 (or better) after each operation, in any
        order, with or without fused multiply-adds; operands are used with all their bits. float16: as bound.py says.
        """

    def launch(self, kernel: str, count: int, *arguments: DeviceArray | int | float) -> None:
        """Run ``count`` threads of a kernel; integers are passed as 64-bit integers, floats as float64."""

    def blocks(self, items: int, items_a_block: int) -> int:
        """Threads to launch of a kernel whose blocks take so many items each. Also outside a session."""

    def fused_screen(self, blocks: int, shared_bytes: int, *arguments: DeviceArray | int | float) -> None:
        """Run the kernel of cuda/fused.cu: blocks of 384 threads with so much shared memory."""

    def synchronize(self) -> None:
        """Wait for all that was begun."""

    def close(self) -> None:
        """Give memory kept for later calls back."""
