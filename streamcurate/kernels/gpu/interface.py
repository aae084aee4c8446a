"""What this room asks of a device: memory, copies, one matrix product, and launches of the kernels in cuda/.

The functions of this room know this interface and no library: device.py implements it with CuPy, the tests with the
same kernels compiled for the host.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, Protocol

from streamcurate.kernels.metric import Array

DeviceArray = Any
"""An array in a device's memory: it has shape, dtype, nbytes and a length; a slice of rows is a view."""


class Device(Protocol):
    """One device. All calls but the first three happen inside :meth:`session`."""

    @property
    def name(self) -> str:
        """What the maker calls it."""

    @property
    def total_bytes(self) -> int:
        """All its memory."""

    def session(self) -> AbstractContextManager[None]:
        """The device for this thread alone, until left: so that memory in use is that of one call."""

    def free_bytes(self) -> int:
        """Memory that can be allocated now."""

    def holds(self, array: Any) -> bool:
        """Whether the array lies on the device."""

    def empty(self, shape: tuple[int, ...], dtype: Any) -> DeviceArray:
        """An uninitialised C-contiguous array; InputError where it does not fit."""

    def zeros(self, shape: tuple[int, ...], dtype: Any) -> DeviceArray:
        """The same, all bits zero."""

    def upload(self, array: Array) -> DeviceArray:
        """A copy on the device."""

    def download(self, array: DeviceArray) -> Array:
        """A copy on the host."""

    def product(self, left: DeviceArray, right: DeviceArray, out: DeviceArray) -> None:
        """out = left right^T for float32 (m, e), (n, e) and (m, n).

        Each result is a sum of the e products, rounded to float32 (or better) after each operation, in any order, with
        or without fused multiply-adds; operands are used with all their bits.
        """

    def launch(self, kernel: str, count: int, *arguments: DeviceArray | int | float) -> None:
        """Run ``count`` threads of a kernel; integers are passed as 64-bit integers, floats as float64."""

    def close(self) -> None:
        """Give memory kept for later calls back."""
