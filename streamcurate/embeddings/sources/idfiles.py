"""Files of ids, one for each row: TXT, NPY, Parquet and CSV."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from streamcurate import objects
from streamcurate.embeddings.sources.base import INTEGER, TEXT, Stamp, is_file, open_binary
from streamcurate.embeddings.sources.npy import read_header
from streamcurate.embeddings.sources.places import suffix_of
from streamcurate.embeddings.sources.raw import Header, fill
from streamcurate.errors import DataError, InputError

SUFFIXES = (".txt", ".npy", ".parquet", ".csv")
_BATCH = 1 << 16
# A NumPy string takes four bytes for each letter of the longest.
_BATCH_BYTES = 8 << 20
# What a batch of ids as text, or the pages of a column of them, takes.
READ_OVERHEAD_BYTES = 32 << 20


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


def open_ids(path: str, rows: int, column: str | None = None, holder: str = "the sources hold") -> IdsFile:
    """Open a file with one id for each of ``rows`` rows.

    Parameters
    ----------
    path : str
    rows : int
    column : str, optional
        Of a Parquet file; not needed where there is only one.
    holder : str
        What has the rows, and the verb, for messages.

    Raises
    ------
    InputError
        Missing, of an unknown format, without such a column, or not as many ids as rows.
    """
    try:
        return _opened(path, rows, column, holder)
    except PermissionError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error


def _opened(path: str, rows: int, column: str | None, holder: str) -> IdsFile:
    if not is_file(path):
        raise InputError(f"{path}: no such file of ids; check the path")
    suffix = suffix_of(path)
    if column is not None and suffix != ".parquet":
        raise InputError(f"{path}: has no columns, only Parquet has; leave out ':{column}'")
    ids: IdsFile
    match suffix:
        case ".txt":
            ids = _TextIds(path)
        case ".npy":
            ids = _NpyIds(path)
        case ".parquet":
            ids = ParquetIds(path, column)
        case ".csv":
            ids = _CsvIds(path, rows)
        case _:
            raise InputError(f"{path}: files of ids are {', '.join(SUFFIXES)}, not {suffix or 'without a suffix'}")
    if (count := ids.count()) != rows:
        raise InputError(f"{path}: holds {count} ids, and {holder} {rows} rows; one id for each row is needed")
    return ids


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


def plain(values: NDArray[Any], where: str) -> NDArray[Any]:
    """Ids of a NumPy array of strings, UTF-8 bytes or integers as int64 or NumPy's variable-width strings."""
    if values.dtype.kind == "S":
        try:
            values = np.char.decode(values, "utf-8")
        except UnicodeDecodeError as error:
            raise DataError(f"{where}: holds ids that are not UTF-8 ({error}); save them as strings") from error
    if values.dtype.kind == "u" and values.size and values.max() > np.iinfo(np.int64).max:
        raise DataError(f"{where}: ids beyond 64-bit signed integers; use strings")
    return values.astype(INTEGER if values.dtype.kind in "iu" else TEXT)


def check_ids_array(header: Header, where: str) -> np.dtype[Any]:
    """``TEXT`` or ``INTEGER`` for an array of ids.

    Raises
    ------
    InputError
        Neither strings nor integers, or not one-dimensional.
    """
    if len(header.shape) != 1 or header.bfloat16 or header.dtype.kind not in "USiu":
        dtype = "bfloat16" if header.bfloat16 else header.dtype
        raise InputError(f"{where}: shape {header.shape} of {dtype}; ids are strings or integers in one dimension")
    return INTEGER if header.dtype.kind in "iu" else TEXT


def batch_rows(itemsize: int) -> int:
    """Ids of a NumPy array to be read at once."""
    return max(1, min(_BATCH, _BATCH_BYTES // max(itemsize, 1)))


class _TextIds:
    """One id a line, UTF-8."""

    dtype: np.dtype[Any] = TEXT

    def __init__(self, path: str) -> None:
        self.path = path

    def count(self) -> int:
        with objects.open_file(self.path) as file:
            return sum(1 for _ in file)

    def batches(self, start: int) -> Iterator[NDArray[Any]]:
        with objects.open_file(self.path) as file:
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
        self.dtype = check_ids_array(self._header, path)

    def count(self) -> int:
        return self._header.shape[0]

    def batches(self, start: int) -> Iterator[NDArray[Any]]:
        dtype = self._header.dtype
        step = batch_rows(dtype.itemsize)
        with open_binary(self.path) as file:
            for first in range(start, self.count(), step):
                values = np.empty(min(step, self.count() - first), dtype=dtype)
                if dtype.itemsize:
                    fill(file, self._header.offset + first * dtype.itemsize, values, self.path)
                yield plain(values, self.path)


class ParquetIds:
    """A column of a Parquet file: the one that is named, or the only one."""

    def __init__(self, path: str, column: str | None = None) -> None:
        from streamcurate.embeddings.sources import arrow
        from streamcurate.embeddings.sources.parquet import open_file

        self.path = path
        with open_file(path) as file:
            self._rows = int(file.metadata.num_rows)
            schema = file.schema_arrow
            names = ", ".join(map(repr, schema.names))
            if column is None and len(schema) != 1:
                raise InputError(
                    f"{path}: a file of ids has a single column; this one has {names}; name one behind the path, "
                    f"'{path}:COLUMN'"
                )
            if column is not None and schema.names.count(column) != 1:
                raise InputError(f"{path}: no column {column!r}; it has {names}")
            self._column = schema.names[0] if column is None else column
            type_ = schema.field(self._column).type
            where = path if column is None else f"{path}: column {column!r}"
            self.dtype: np.dtype[Any] = arrow.ids_dtype(type_, where)

    def count(self) -> int:
        return self._rows

    def batches(self, start: int) -> Iterator[NDArray[Any]]:
        from streamcurate.embeddings.sources import arrow
        from streamcurate.embeddings.sources.parquet import batches, open_file

        row = 0
        with open_file(self.path) as file:
            for batch in batches(file, self.path, batch_size=_BATCH, columns=[self._column]):
                if row + len(batch) > start:
                    skipped = max(start - row, 0)
                    yield arrow.ids(batch.column(self._column).slice(skipped), self.path, row + skipped)
                row += len(batch)


class _CsvIds:
    """A single column, with or without a header line: which of the two, the number of rows tells. Always strings.

    An empty line would be passed over by the parser, and a header with it be taken for an id.
    """

    dtype: np.dtype[Any] = TEXT

    def __init__(self, path: str, rows: int) -> None:
        self.path = path
        lines = sum(len(batch) for batch in self._read())
        if empty := sum(len(batch) for batch in self._read(empty_lines=True)) - lines:
            raise DataError(
                f'{path}: {empty} of its lines are empty; remove them, or write an id that is empty as "" in quotes'
            )
        self._header = int(lines == rows + 1)
        self._count = lines - self._header
        if self._header and rows:
            name = str(next(self._read())[0])
            # 0 is what pandas writes above a column without a name.
            if name.isdecimal() and name != "0":
                raise InputError(
                    f"{path}: holds {lines} ids, of which the first, {name}, is no name of a column, for {rows} rows; "
                    'one id for each row is needed; a header is a line "id"'
                )

    def count(self) -> int:
        return self._count

    def batches(self, start: int) -> Iterator[NDArray[Any]]:
        row = -self._header
        for batch in self._read():
            skipped = max(start - row, 0)
            if skipped < len(batch):
                yield batch[skipped:]
            row += len(batch)

    def _read(self, empty_lines: bool = False) -> Iterator[NDArray[Any]]:
        import pyarrow as pa
        from pyarrow import csv

        from streamcurate.embeddings.sources import arrow

        if not Stamp.of(self.path).bytes:  # which Arrow takes for an error
            return
        try:
            with (
                objects.open_file(self.path) as file,
                csv.open_csv(
                    file,
                    read_options=csv.ReadOptions(column_names=["id"]),
                    parse_options=csv.ParseOptions(newlines_in_values=True, ignore_empty_lines=not empty_lines),
                    convert_options=csv.ConvertOptions(column_types={"id": pa.string()}, strings_can_be_null=False),
                ) as reader,
            ):
                for batch in reader:
                    yield arrow.ids(batch.column(0), self.path, 0)
        except pa.ArrowInvalid as error:
            raise InputError(f"{self.path}: not a CSV file of a single column ({error})") from error
