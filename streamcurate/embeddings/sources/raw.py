"""A matrix that lies in a file as plain bytes, in C or Fortran order, any byte order: what NPY and safetensors are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamcurate import objects
from streamcurate.embeddings.checks import check_floating
from streamcurate.embeddings.sources.base import block_rows, open_binary, request_bytes
from streamcurate.embeddings.sources.bfloat16 import widen
from streamcurate.errors import DataError
from streamcurate.streaming.buffers import BlockBuffers

# In Fortran order every column is a read of its own; four times as many rows make those four times as long. From an
# object store, requests side by side bring what one alone does not.
_BLOCKS_AT_ONCE = 4
# Rows and columns whose values stay in the processor's cache.
_TILE = (256, 64)


class Header(NamedTuple):
    """What an array in a file is, and where its values begin.

    With ``bfloat16``, ``dtype`` is the unsigned integer that holds the bits.
    """

    dtype: np.dtype[Any]
    fortran_order: bool
    shape: tuple[int, ...]
    offset: int
    bfloat16: bool = False

    @property
    def nbytes(self) -> int:
        """Bytes of all values."""
        return self.dtype.itemsize * int(np.prod(self.shape, dtype=object))

    @property
    def by_columns(self) -> bool:
        """Whether the values of a row lie apart."""
        return self.fortran_order and min(self.shape) > 1

    @property
    def given_itemsize(self) -> int:
        """Bytes of a value as it is given."""
        return 4 if self.bfloat16 else self.dtype.itemsize

    def floating(self, where: str) -> np.dtype[Any]:
        """What the values are given as: float16, float32 or float64.

        Raises
        ------
        InputError
            They are no such numbers.
        """
        return np.dtype(np.float32) if self.bfloat16 else check_floating(self.dtype, where)

    def native(self, values: NDArray[Any]) -> NDArray[Any]:
        """Values as they were stored in native byte order, bfloat16 as float32; may use the same memory again."""
        if not values.dtype.isnative:
            values = values.byteswap(inplace=True).view(values.dtype.newbyteorder("="))
        return widen(values) if self.bfloat16 else values


def read_overhead_bytes(path: str, header: Header) -> int:
    """Memory that :func:`read_blocks` takes beside the blocks."""
    if not header.nbytes:
        return 0
    block = _block_rows(header) * header.shape[1] * header.given_itemsize
    read_at_once = block * _at_once(path, header)
    # bfloat16: the bits, and what widening takes. Else: a block that is still in use keeps all that was read with it.
    return (
        (2 * block if header.bfloat16 else 0)
        + (read_at_once if header.by_columns else 2 * (read_at_once - block))
        + request_bytes(path)
    )


def read_blocks(path: str, header: Header, start: int) -> Iterator[NDArray[Any]]:
    """The rows of a matrix from ``start`` on, in native byte order and C order."""
    rows, dims = header.shape
    step = _block_rows(header)
    read_at_once = step * _at_once(path, header)
    # Fresh memory for every block would cost as much in page faults as reading it does.
    buffers = BlockBuffers()
    with _opened(path) as read:
        for first in range(start, rows, read_at_once):
            count = min(read_at_once, rows - first)
            if header.by_columns:
                columns = buffers((dims, count), header.dtype)
                places = (header.offset + (column * rows + first) * columns.itemsize for column in range(dims))
                read(list(zip(places, columns, strict=True)))
                for offset in range(0, count, step):
                    piece = columns[:, offset : offset + step].T
                    values = buffers(piece.shape, header.dtype)
                    _copy_in_tiles(piece, values)
                    yield header.native(values)
                # Or its memory could not be used for the next ones.
                del columns, piece
            else:
                values = buffers((count, dims), header.dtype)
                read([(header.offset + first * dims * values.itemsize, values)])
                for offset in range(0, count, step):
                    yield header.native(values[offset : offset + step])


def _copy_in_tiles(transposed: NDArray[Any], out: NDArray[Any]) -> None:
    """Copy what lies column by column to where it lies row by row: eight times as fast as at one go."""
    rows, columns = _TILE
    for row in range(0, out.shape[0], rows):
        for column in range(0, out.shape[1], columns):
            tile = np.s_[row : row + rows, column : column + columns]
            out[tile] = transposed[tile]


def _block_rows(header: Header) -> int:
    return block_rows(header.shape[1], np.dtype(np.float32) if header.bfloat16 else header.dtype)


def _at_once(path: str, header: Header) -> int:
    """Blocks to read at once."""
    return _BLOCKS_AT_ONCE if header.by_columns or objects.is_url(path) else 1


_Pieces = Sequence[tuple[int, NDArray[Any]]]


@contextmanager
def _opened(path: str) -> Iterator[Callable[[_Pieces], None]]:
    """What reads pieces of a file, each from its place on."""
    if objects.is_url(path):
        yield lambda pieces: _fill_from_store(path, pieces)
        return
    with open_binary(path) as file:

        def read(pieces: _Pieces) -> None:
            for offset, values in pieces:
                fill(file, offset, values, path)

        yield read


def _fill_from_store(url: str, pieces: _Pieces) -> None:
    """Fill arrays by requests side by side."""
    views = [(offset, _bytes_of(values)) for offset, values in pieces]
    objects.fill(url, [(offset, view) for offset, view in views if len(view)])


def _bytes_of(values: NDArray[Any]) -> memoryview:
    return values.reshape(-1).view(np.uint8).data


def fill(file: BinaryIO, offset: int, out: NDArray[Any], name: str) -> None:
    """Fill a contiguous array with a file's bytes from ``offset`` on.

    Raises
    ------
    DataError
        The file ends before.
    """
    view = _bytes_of(out)
    file.seek(offset)
    while len(view):
        count = file.readinto(view)  # type: ignore[attr-defined]
        if not count:
            raise DataError(f"{name}: was cut short while it was read; write it again")
        view = view[count:]
