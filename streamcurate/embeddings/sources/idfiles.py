"""Files of ids, one for each row of all sources together: TXT, NPY, Parquet and CSV with a single column."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from streamcurate.embeddings.checks import suffix_of
from streamcurate.embeddings.sources.base import INTEGER, TEXT, Stamp
from streamcurate.embeddings.sources.npy import fill, read_header
from streamcurate.errors import DataError, InputError

SUFFIXES = (".txt", ".npy", ".parquet", ".csv")
_BATCH = 1 << 16


class IdsFile(Protocol):
    """Ids in a file."""

    path: str

    @property
    def dtype(self) -> np.dtype[Any]:
        """``TEXT`` or ``INTEGER``."""

    def count(self) -> int:
        """Number of ids."""

    def batches(self, start: int) -> Iterator[NDArray[Any]]:
        """Ids from ``start`` on, in order, in pieces."""


def open_ids(path: str, rows: int) -> IdsFile:
    """Open a file with one id for each of ``rows`` rows.

    Raises
    ------
    InputError
        Missing, of an unknown format, not a single column, or not as many ids as rows.
    """
    if not os.path.isfile(path):
        raise InputError(f"{path}: no such file of ids; check the path")
    ids: IdsFile
    match suffix_of(path):
        case ".txt":
            ids = _TextIds(path)
        case ".npy":
            ids = _NpyIds(path)
        case ".parquet":
            ids = _ParquetIds(path)
        case ".csv":
            ids = _CsvIds(path, rows)
        case suffix:
            raise InputError(f"{path}: files of ids are {', '.join(SUFFIXES)}, not {suffix or 'without a suffix'}")
    if (count := ids.count()) != rows:
        raise InputError(f"{path}: holds {count} ids, and the sources hold {rows} rows; one id for each row is needed")
    return ids


def is_ids_file(ids: str) -> bool:
    """Whether ``--ids`` names a file rather than a column."""
    return os.path.isfile(ids) or (suffix_of(ids) in SUFFIXES)


class IdsStream:
    """Hands out the ids of a file in pieces as long as the blocks they belong to."""

    def __init__(self, file: IdsFile, start: int) -> None:
        self._path, self._batches = file.path, file.batches(start)
        self._rest = np.empty(0, dtype=file.dtype)

    def next(self, count: int) -> NDArray[Any]:
        """The next ``count`` ids."""
        pieces, missing = [self._rest[:count]], count - len(self._rest)
        self._rest = self._rest[count:]
        while missing > 0:
            batch = next(self._batches, None)
            if batch is None:
                raise DataError(f"{self._path}: was cut short while it was read; write it again")
            pieces.append(batch[:missing])
            self._rest = batch[missing:]
            missing -= len(pieces[-1])
        return np.concatenate(pieces)


def stamp(file: IdsFile) -> Stamp:
    """State of a file of ids."""
    return Stamp.of(file.path)


class _TextIds:
    """One id a line, UTF-8."""

    dtype: np.dtype[Any] = TEXT

    def __init__(self, path: str) -> None:
        self.path = path

    def count(self) -> int:
        with open(self.path, "rb") as file:
            return sum(1 for _ in file)

    def batches(self, start: int) -> Iterator[NDArray[Any]]:
        with open(self.path, "rb") as file:
            batch: list[str] = []
            for number, line in enumerate(file):
                if number < start:
                    continue
                batch.append(self._decode(line, number))
                if len(batch) == _BATCH:
                    yield np.array(batch, dtype=TEXT)
                    batch = []
            if batch:
                yield np.array(batch, dtype=TEXT)

    def _decode(self, line: bytes, number: int) -> str:
        try:
            text = line.decode("utf-8" if number else "utf-8-sig")
        except UnicodeDecodeError as error:
            raise DataError(f"{self.path}: line {number + 1} is not UTF-8 ({error}); convert the file") from error
        return text.removesuffix("\n").removesuffix("\r")


class _NpyIds:
    """A one-dimensional array of strings or integers."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._header = read_header(path)
        kind = self._header.dtype.kind
        if len(self._header.shape) != 1 or kind not in "USiu":
            raise InputError(
                f"{path}: shape {self._header.shape} of {self._header.dtype}; "
                "ids are strings or integers in one dimension"
            )
        self.dtype: np.dtype[Any] = INTEGER if kind in "iu" else TEXT

    def count(self) -> int:
        return self._header.shape[0]

    def batches(self, start: int) -> Iterator[NDArray[Any]]:
        with open(self.path, "rb", buffering=0) as file:
            for first in range(start, self.count(), _BATCH):
                values = np.empty(min(_BATCH, self.count() - first), dtype=self._header.dtype)
                if values.dtype.itemsize:
                    fill(file, self._header.offset + first * values.dtype.itemsize, values, self.path)
                if values.dtype.kind == "S":
                    values = np.char.decode(values, "utf-8")
                if values.dtype.kind == "u" and values.size and values.max() > np.iinfo(np.int64).max:
                    raise DataError(f"{self.path}: ids beyond 64-bit signed integers; use strings")
                yield values.astype(self.dtype)


class _ParquetIds:
    """The only column of a Parquet file."""

    def __init__(self, path: str) -> None:
        from streamcurate.embeddings.sources import arrow
        from streamcurate.embeddings.sources.parquet import open_file

        self.path = path
        with open_file(path) as file:
            self._rows = int(file.metadata.num_rows)
            if len(file.schema_arrow) != 1:
                names = ", ".join(map(repr, file.schema_arrow.names))
                raise InputError(f"{path}: a file of ids has a single column; this one has {names}")
            self.dtype: np.dtype[Any] = arrow.ids_dtype(file.schema_arrow.field(0).type, path)

    def count(self) -> int:
        return self._rows

    def batches(self, start: int) -> Iterator[NDArray[Any]]:
        from streamcurate.embeddings.sources import arrow
        from streamcurate.embeddings.sources.parquet import open_file

        row = 0
        with open_file(self.path) as file:
            for batch in file.iter_batches(batch_size=_BATCH):
                if row + len(batch) > start:
                    skipped = max(start - row, 0)
                    yield arrow.ids(batch.column(0).slice(skipped), self.path, row + skipped)
                row += len(batch)


class _CsvIds:
    """A single column, with or without a header line: which of the two, the number of rows tells. Always strings."""

    dtype: np.dtype[Any] = TEXT

    def __init__(self, path: str, rows: int) -> None:
        self.path = path
        lines = sum(len(batch) for batch in self._read())
        self._header = int(lines == rows + 1)
        self._count = lines - self._header

    def count(self) -> int:
        return self._count

    def batches(self, start: int) -> Iterator[NDArray[Any]]:
        row = -self._header
        for batch in self._read():
            skipped = max(start - row, 0)
            if skipped < len(batch):
                yield batch[skipped:]
            row += len(batch)

    def _read(self) -> Iterator[NDArray[Any]]:
        import pyarrow as pa
        from pyarrow import csv

        from streamcurate.embeddings.sources import arrow

        try:
            with csv.open_csv(
                self.path,
                read_options=csv.ReadOptions(column_names=["id"]),
                parse_options=csv.ParseOptions(newlines_in_values=True),
                convert_options=csv.ConvertOptions(column_types={"id": pa.string()}, strings_can_be_null=False),
            ) as reader:
                for batch in reader:
                    yield arrow.ids(batch.column(0), self.path, 0)
        except pa.ArrowInvalid as error:
            raise InputError(f"{self.path}: not a CSV file of a single column ({error})") from error
