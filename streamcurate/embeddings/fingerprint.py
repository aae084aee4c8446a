"""The fingerprint of a matrix of embeddings: what it holds, however it is chunked, stored or named.

Rows are cut into units, a power of two of rows of at most 4 MiB. Each unit has a digest, so that a few units can be
checked again without reading the rest; the fingerprint is a digest of shape, dtype and all unit digests.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import xxhash
from numpy.typing import DTypeLike, NDArray

from streamcurate.streaming.source import RowSource

# Small against every block that is read anyway, large enough that a digest is a millionth of what it stands for.
UNIT_BYTES = 4 << 20
_DIGEST_BYTES = 16


def unit_rows(dims: int, dtype: DTypeLike) -> int:
    """Rows of one unit: the largest power of two of at most 4 MiB, at least one row."""
    fitting = UNIT_BYTES // (dims * np.dtype(dtype).itemsize)
    return 1 << max(fitting.bit_length() - 1, 0)


def unit_digest(rows: NDArray[Any]) -> str:
    """XXH3-128 of the rows' little-endian bytes in C order, 32 hexadecimal digits."""
    return xxhash.xxh3_128_hexdigest(_little_endian(rows))


def fingerprint(shape: tuple[int, int], dtype: DTypeLike, unit_digests: Iterable[str]) -> str:
    """Fingerprint of a matrix from the digests of all its units in order, 32 hexadecimal digits."""
    return _combine(shape, dtype, b"".join(map(bytes.fromhex, unit_digests)))


def unit_digests_of(source: RowSource, units: Iterable[int]) -> list[str]:
    """Digests of chosen units of a source, read again.

    Raises
    ------
    IndexError
        There is no such unit.
    """
    step = unit_rows(source.dims, source.dtype)
    digests = []
    for unit in units:
        start = unit * step
        if not 0 <= start < source.rows:
            raise IndexError(f"{source.name}: unit {unit} of {-(-source.rows // step)}")
        digests.append(unit_digest(source.read(start, min(start + step, source.rows))))
    return digests


class FingerprintBuilder:
    """Fingerprints rows that arrive in order, in pieces of any size.

    Parameters
    ----------
    dims : int
    dtype : dtype
    known : bytes
        Digests of leading whole units, 16 bytes each, as ``whole_units`` gave them: the work goes on behind them.
    """

    def __init__(self, dims: int, dtype: DTypeLike, known: bytes = b"") -> None:
        self.dims, self.dtype = dims, np.dtype(dtype)
        self.unit_rows = unit_rows(dims, dtype)
        # Sixteen bytes a unit: text would take five times as much, and there are millions of units in ten terabytes.
        self._digests = bytearray(known)
        self._hash = xxhash.xxh3_128()
        self._pending = 0

    @property
    def rows(self) -> int:
        """Rows seen, those of known units included."""
        return len(self._digests) // _DIGEST_BYTES * self.unit_rows + self._pending

    def whole_units(self, first: int = 0) -> bytes:
        """Digests of the whole units seen, from unit ``first`` on, 16 bytes each."""
        return bytes(self._digests[first * _DIGEST_BYTES :])

    @property
    def digests(self) -> list[str]:
        """Digests of all units, an unfinished last one included."""
        digests = self._all()
        return [digests[i : i + _DIGEST_BYTES].hex() for i in range(0, len(digests), _DIGEST_BYTES)]

    def update(self, rows: NDArray[Any]) -> None:
        """Take the next rows, shape (m, dims)."""
        position = 0
        while position < len(rows):
            piece = rows[position : position + self.unit_rows - self._pending]
            self._hash.update(_little_endian(np.asarray(piece, dtype=self.dtype)))
            self._pending += len(piece)
            position += len(piece)
            if self._pending == self.unit_rows:
                self._digests += self._hash.digest()
                self._hash.reset()
                self._pending = 0

    def result(self) -> str:
        """Fingerprint of the rows seen."""
        return _combine((self.rows, self.dims), self.dtype, self._all())

    def _all(self) -> bytes:
        return bytes(self._digests) + (self._hash.digest() if self._pending else b"")


def _combine(shape: tuple[int, int], dtype: DTypeLike, digests: bytes) -> str:
    header = f"embeddings {shape[0]} {shape[1]} {np.dtype(dtype).newbyteorder('<').str}\n"
    return xxhash.xxh3_128_hexdigest(header.encode() + digests)


def _little_endian(rows: NDArray[Any]) -> memoryview:
    rows = np.ascontiguousarray(rows, dtype=rows.dtype.newbyteorder("<"))
    # As plain bytes: the buffer protocol knows no cast from float16.
    return rows.reshape(-1).view(np.uint8).data
