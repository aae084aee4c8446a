"""Which rows of the embeddings a run is about: row numbers or a mask, from a file or in memory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamcurate.errors import DataError, InputError
from streamcurate.runs.digest import Digest
from streamcurate.storage import SequentialWriter, StoredArray, create_array
from streamcurate.streaming.shuffle import SortedRecords

_PIECE = 1 << 20
_MASK_CHUNK_ROWS = 1 << 22


@dataclass(frozen=True)
class Subset:
    """The rows chosen.

    Attributes
    ----------
    path : str
        Where they were named.
    mask : StoredArray of uint8, shape (rows of the store,)
    rows : int
        How many are chosen.
    digest : str
        Of their numbers, ascending.
    """

    path: str
    mask: StoredArray
    rows: int
    digest: str


def read_subset(chosen: str | os.PathLike[str] | NDArray[Any], rows: int, folder: Path, memory: int) -> Subset:
    """Turn a list of row numbers, or a mask, into a mask on disk.

    Parameters
    ----------
    chosen : path of an .npy file, or ndarray
        Row numbers (integers, any order, each once), or booleans, one for each row.
    rows : int
        Rows of the store.
    folder : Path
        Where the mask is made.
    memory : int
        Bytes to use.

    Raises
    ------
    InputError
        No such file, or not one-dimensional integers or booleans.
    DataError
        A row number out of range or given twice; no row at all.
    """
    name = "subset" if isinstance(chosen, np.ndarray) else os.fspath(chosen)
    pieces, dtype, length = _pieces(chosen, name)
    folder.mkdir(parents=True, exist_ok=True)
    if dtype.kind == "b":
        if length != rows:
            raise InputError(f"{name}: a mask of {length:,} entries for {rows:,} rows; give one entry for each row")
        pieces = _rows_of_mask(pieces)
    mask = create_array(folder / "subset-mask", (rows,), np.uint8, _MASK_CHUNK_ROWS, durable=False, overwrite=True)
    sorting = SortedRecords(folder / "subset-sort", memory)
    count = 0
    try:
        for piece in pieces:
            low, high = (int(piece.min()), int(piece.max())) if len(piece) else (0, 0)
            if low < 0 or high >= rows:
                wrong = low if low < 0 else high
                raise DataError(
                    f"{name}: row {wrong} is not among the {rows:,} rows (0 to {rows - 1}); correct the list"
                )
            numbers = piece.astype(np.int64)
            sorting.add(numbers.astype(np.uint64), numbers)
            count += len(numbers)
        if not count:
            raise DataError(f"{name}: names no row; leave --subset out to use all rows")
        digest = Digest().begin((count,), np.int64)
        _write_mask(sorting, mask, name, digest)
    finally:
        sorting.close()
    return Subset(name, mask, count, digest.hexdigest())


def _write_mask(sorting: SortedRecords, mask: StoredArray, name: str, digest: Digest) -> None:
    position, previous = 0, -1
    with SequentialWriter(mask) as writer:
        for records in sorting.blocks():
            numbers = np.ascontiguousarray(records["row"])
            twice = np.flatnonzero(np.diff(numbers, prepend=previous) == 0)
            if len(twice):
                raise DataError(f"{name}: names row {int(numbers[twice[0]])} more than once; list each row once")
            digest.update(numbers)
            for start in range(0, len(numbers), _PIECE):
                part = numbers[start : start + _PIECE]
                position = _fill(writer, position, part)
            previous = int(numbers[-1]) if len(numbers) else previous
        while position < mask.rows:
            count = min(_MASK_CHUNK_ROWS, mask.rows - position)
            writer.append(np.zeros(count, dtype=np.uint8))
            position += count


def _fill(writer: SequentialWriter, position: int, numbers: NDArray[np.int64]) -> int:
    """Append the mask from ``position`` to the last of ``numbers``, in bounded pieces."""
    while len(numbers):
        stop = min(int(numbers[-1]) + 1, position + _MASK_CHUNK_ROWS)
        here = numbers[: int(np.searchsorted(numbers, stop))]
        part = np.zeros(stop - position, dtype=np.uint8)
        part[here - position] = 1
        writer.append(part)
        numbers = numbers[len(here) :]
        position = stop
    return position


def _rows_of_mask(pieces: Iterator[NDArray[Any]]) -> Iterator[NDArray[Any]]:
    start = 0
    for piece in pieces:
        yield np.flatnonzero(piece) + start
        start += len(piece)


def _pieces(
    chosen: str | os.PathLike[str] | NDArray[Any], name: str
) -> tuple[Iterator[NDArray[Any]], np.dtype[Any], int]:
    if isinstance(chosen, np.ndarray):
        _check(chosen.dtype, chosen.shape, name)
        array = chosen
        return (array[start : start + _PIECE] for start in range(0, len(array), _PIECE)), array.dtype, len(array)
    try:
        with open(chosen, "rb") as file:
            version = np.lib.format.read_magic(file)
            read_header = (
                np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            )
            shape, _, dtype = read_header(file)
            offset = file.tell()
    except FileNotFoundError:
        raise InputError(f"{name}: no such file; give an .npy file of row numbers, or leave --subset out") from None
    except (ValueError, OSError) as error:
        raise InputError(f"{name}: not a readable .npy file ({error}); save the row numbers with numpy.save") from error
    _check(dtype, shape, name)
    length = int(shape[0])
    if os.path.getsize(chosen) < offset + length * dtype.itemsize:
        raise InputError(f"{name}: truncated: {length:,} row numbers are announced, fewer are there; save it again")
    return _file_pieces(os.fspath(chosen), dtype, length, offset), dtype, length


def _file_pieces(path: str, dtype: np.dtype[Any], length: int, offset: int) -> Iterator[NDArray[Any]]:
    for start in range(0, length, _PIECE):
        count = min(_PIECE, length - start)
        yield np.fromfile(path, dtype, count, offset=offset + start * dtype.itemsize)


def _check(dtype: np.dtype[Any], shape: tuple[int, ...], name: str) -> None:
    if dtype.kind not in "iub" or len(shape) != 1:
        raise InputError(
            f"{name}: holds {dtype} of shape {shape}; a subset is one list of row numbers (integers) or of booleans"
        )
