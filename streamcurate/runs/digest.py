"""Digests of arrays that do not depend on machine, block size or library version."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash


class Digest:
    """xxh3_128 over a sequence of arrays, each as a header (dtype, shape) and its values in C order, little-endian.

    Large arrays are taken block by block; only the blocks are in memory.

    Examples
    --------
    >>> whole, parts = Digest(), Digest()
    >>> _ = whole.add(np.arange(6).reshape(3, 2))
    >>> _ = parts.begin((3, 2), np.int64).update([[0, 1]]).update([[2, 3], [4, 5]])
    >>> whole.hexdigest() == parts.hexdigest()
    True
    """

    def __init__(self) -> None:
        self._state = xxhash.xxh3_128()
        self._dtype: np.dtype[Any] = np.dtype(np.int64)
        self._missing = 0

    def add(self, array: npt.ArrayLike) -> Digest:
        """Take in one whole array."""
        values = np.asarray(array)
        return self.begin(values.shape, values.dtype).update(values)

    def begin(self, shape: Sequence[int], dtype: npt.DTypeLike) -> Digest:
        """Begin an array of this shape and dtype; its values follow in C order with :meth:`update`.

        Raises
        ------
        ValueError
            The array before is not complete, or the dtype is one of objects or records.
        """
        self._complete()
        self._dtype = np.dtype(dtype).newbyteorder("<")
        if self._dtype.hasobject or self._dtype.fields:
            raise ValueError(f"no digest of dtype {self._dtype}")
        self._missing = math.prod(shape)
        # The trailing newline keeps header and values apart, whatever they hold.
        self._state.update(f"{self._dtype.str} {'x'.join(map(str, shape))}\n".encode())
        return self

    def update(self, block: npt.ArrayLike) -> Digest:
        """Take in the next values of the array begun.

        Raises
        ------
        ValueError
            More values than the shape has, or another dtype.
        """
        values = np.asarray(block)
        if values.dtype.newbyteorder("<") != self._dtype:
            raise ValueError(f"a block of dtype {values.dtype} in an array of {self._dtype}")
        if values.size > self._missing:
            raise ValueError(f"{values.size} values where {self._missing} are missing")
        self._missing -= values.size
        if values.size:
            contiguous = np.ascontiguousarray(values, dtype=self._dtype)
            self._state.update(contiguous.reshape(-1).view(np.uint8).data)
        return self

    def hexdigest(self) -> str:
        """The digest so far: 32 hexadecimal digits."""
        self._complete()
        return self._state.hexdigest()

    def _complete(self) -> None:
        if self._missing:
            raise ValueError(f"{self._missing} values of the last array are missing")


def combine_digests(digests: Iterable[str]) -> str:
    """One digest of several, in their order."""
    return xxhash.xxh3_128("\n".join(digests).encode()).hexdigest()
