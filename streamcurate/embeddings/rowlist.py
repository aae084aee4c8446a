"""Lists of rows as users have them: row numbers, masks or ids, in a file or in memory, read a piece at a time.

What a list holds is told by the list and by whether the store has ids, never by its values:

- integers of an .npy file or an array, and a column ``row``, are row numbers; booleans are a mask;
- strings, and the lines or the column of any other list, are ids where the store has ids, else row numbers.

Of a table of row numbers, the columns ``id`` and ``source`` can be read too, to see that it is about this store
(:mod:`streamcurate.embeddings.agreement`).
"""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from streamcurate.embeddings.checks import suffix_of
from streamcurate.errors import DataError, InputError
from streamcurate.objects import exists, open_file

SUFFIXES = (".npy", ".txt", ".csv", ".parquet", ".pq")
_PIECE = 1 << 20
_LINES = 1 << 16
# Of strings in NumPy arrays, which take four bytes for each letter of the longest.
_PIECE_BYTES = 8 << 20

Kind = Literal["rows", "mask", "ids"]
Tables = Iterator[tuple[Any, Mapping[str, Any]]]
_NO_COLUMN = "there is no column 'row' or 'id'"


@dataclass(frozen=True)
class RowList:
    """A list of rows.

    Attributes
    ----------
    name : str
        How messages call it.
    kind : {"rows", "mask", "ids"}
    length : int or None
        Entries; None where only reading tells.
    pieces : callable
        Gives the entries in order, a piece at a time: integer, boolean, or for ids pyarrow arrays of large_string or
        int64.
    header : str or None
        The first line of a CSV file of ids, where it is taken for the name of the column without being ``id``.
    beside : tuple of str
        Further columns that tell whose rows these are: "id", "source".
    tables : callable or None
        Gives the entries and these columns by name, pyarrow arrays of large_string; None where there are none.
    first_line : int
        The number of the first entry's line.
    """

    name: str
    kind: Kind
    length: int | None
    pieces: Callable[[], Iterator[Any]]
    header: str | None = None
    beside: tuple[str, ...] = ()
    tables: Callable[[], Tables] | None = None
    first_line: int = 1


def open_list(chosen: Any, has_ids: bool | None, name: str = "subset", option: str = "--subset") -> RowList:
    """Open a list of rows.

    Parameters
    ----------
    chosen : path, array, sequence, or an object with ``unique_rows`` such as a selection
        A path or URL ends in .npy, .txt, .csv or .parquet.
    has_ids : bool or None
        Whether the rows it is about have ids; None where it is not said which rows these are.
    name : str
        How messages call a list in memory.
    option : str
        How messages call the option that asks for it.

    Raises
    ------
    InputError
        No such file, or no list of rows.
    """
    if isinstance(chosen, (str, os.PathLike)):
        return _from_file(os.fspath(chosen), has_ids, option)
    values = np.asarray(getattr(chosen, "unique_rows", chosen))
    if values.ndim == 1 and not values.size and not isinstance(chosen, np.ndarray):
        values = values.astype(np.int64)  # an empty list has no dtype of its own
    kind = _kind_of(values.dtype, values.shape, has_ids, name)
    if values.dtype.kind == "O" and not all(isinstance(value, str) for value in values):
        raise InputError(f"{name}: holds objects other than strings; give row numbers, a mask, or ids as strings")

    def pieces() -> Iterator[Any]:
        step = _step(kind, values.dtype)
        for start in range(0, len(values), step):
            piece = values[start : start + step]
            yield _texts(piece.astype(object)) if kind == "ids" else piece

    return RowList(name, kind, len(values), pieces)


def _from_file(path: str, has_ids: bool | None, option: str) -> RowList:
    suffix = suffix_of(path)
    if suffix not in SUFFIXES:
        found = f"its suffix is {suffix!r}" if suffix else "it has no suffix"
        raise InputError(f"{path}: {found}; a list of rows is read from {', '.join(SUFFIXES[:4])}")
    if not exists(path):
        raise InputError(
            f"{path}: no such file; give a list of rows ({', '.join(SUFFIXES[:4])}), or leave {option} out"
        )
    if os.path.isdir(path):
        raise InputError(f"{path}: not a readable {suffix} file (a folder); name a file in it")
    if suffix == ".npy":
        return _from_npy(path, has_ids)
    if suffix == ".txt":
        return RowList(path, *_lines_of(path, has_ids))
    if suffix == ".csv":
        return _from_csv(path, has_ids)
    return _from_parquet(path, has_ids)


def _kind_of(dtype: np.dtype[Any], shape: tuple[int, ...], has_ids: bool | None, name: str) -> Kind:
    if len(shape) == 1 and dtype.kind in "iu":
        return "rows"
    if len(shape) == 1 and dtype.kind == "b":
        return "mask"
    if len(shape) != 1 or dtype.kind not in "UTO":
        raise InputError(
            f"{name}: holds {dtype} of shape {shape}; a list of rows is one-dimensional, of row numbers (integers), "
            "of booleans (one for each row) or of ids (strings)"
        )
    if not has_ids:
        raise InputError(f"{name}: holds strings, and {_why_none(has_ids)}; give row numbers, or a mask")
    return "ids"


def _why_none(has_ids: bool | None) -> str:
    return "it is not said of which store" if has_ids is None else "the store has no ids"


def _step(kind: Kind, dtype: np.dtype[Any]) -> int:
    """Entries of one piece: ids are Python strings for a moment."""
    return _PIECE if kind != "ids" else max(1, min(_LINES, _PIECE_BYTES // max(dtype.itemsize, 1)))


# -- .npy --------------------------------------------------------------------------------------------------------------


def _from_npy(path: str, has_ids: bool | None) -> RowList:
    try:
        with open_file(path) as file:
            version = np.lib.format.read_magic(file)
            read_header = (
                np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            )
            shape, _, dtype = read_header(file)
            offset = file.tell()
            size = file.seek(0, os.SEEK_END)
    except (ValueError, OSError) as error:
        raise InputError(f"{path}: not a readable .npy file ({error}); save the row numbers with numpy.save") from error
    if dtype.hasobject:
        raise InputError(f"{path}: holds Python objects, which are never read; save the ids as fixed-length strings")
    kind = _kind_of(dtype, shape, has_ids, path)
    length = int(shape[0])
    if size != offset + length * dtype.itemsize:
        found = "truncated" if size < offset + length * dtype.itemsize else "too long"
        raise InputError(
            f"{path}: {found}: {length:,} entries are announced, {size - offset:,} bytes are there and not "
            f"{length * dtype.itemsize:,}; save again"
        )

    def pieces() -> Iterator[Any]:
        step = _step(kind, dtype)
        with open_file(path) as file:
            file.seek(offset)
            for start in range(0, length, step):
                count = min(step, length - start)
                data = file.read(count * dtype.itemsize)
                if len(data) < count * dtype.itemsize:
                    raise InputError(f"{path}: was cut short while it was read; save again")
                values = np.frombuffer(data, dtype) if dtype.itemsize else np.zeros(count, dtype)
                yield _texts(values.astype(object)) if kind == "ids" else values

    return RowList(path, kind, length, pieces)


# -- .txt --------------------------------------------------------------------------------------------------------------


def _lines_of(path: str, has_ids: bool | None) -> tuple[Kind, int | None, Callable[[], Iterator[Any]]]:
    def pieces() -> Iterator[Any]:
        first, lines = 1, []
        with open_file(path) as file:
            for number, line in enumerate(file, start=1):
                lines.append(_decoded(path, number, line))
                if len(lines) == _LINES:
                    yield _listed(lines, first, path, has_ids)
                    first, lines = number + 1, []
        if lines:
            yield _listed(lines, first, path, has_ids)

    return ("ids" if has_ids else "rows"), None, pieces


def _decoded(path: str, number: int, line: bytes) -> str:
    try:
        text = line.decode("utf-8-sig" if number == 1 else "utf-8").removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: line {number} is not UTF-8 ({error}); convert the file") from error
    if not text:
        raise DataError(f"{path}: line {number} is empty; give one row a line")
    return text


def _listed(entries: list[str], first: int, path: str, has_ids: bool | None) -> Any:
    """Ids, or row numbers; ``first`` is the number of the first line."""
    if has_ids:
        return _texts(np.array(entries, dtype=object))
    numbers = np.empty(len(entries), dtype=np.int64)
    for index, entry in enumerate(entries):
        try:
            # Python also takes 1_0 for a number.
            numbers[index] = int("" if "_" in entry else entry)
        except (ValueError, OverflowError):
            raise DataError(
                f"{path}: line {first + index} is {entry!r}, no row number; {_why_none(has_ids)}, so rows are named "
                "by their numbers"
            ) from None
    return numbers


def _texts(values: NDArray[Any]) -> Any:
    import pyarrow as pa

    return pa.array(values, pa.large_string())


# -- tables ------------------------------------------------------------------------------------------------------------


def _column(names: list[str], path: str) -> str:
    """Which column names the rows: ``row``, else ``id``, else the only one."""
    if {"row", "component", "kept"} <= set(names):
        folder = os.path.dirname(path)
        kept, removed = (os.path.join(folder, name) for name in ("keep.npy", "removed.npy"))
        raise InputError(
            f"{path}: lists all rows that have duplicates, those that are kept with those that are not; give {kept} "
            f"for the rows to go on with, or {removed} for those that are not kept"
        )
    for name in ("row", "id"):
        if names.count(name) > 1:
            raise InputError(f"{path}: {names.count(name)} columns have the name {name!r}; leave one of them")
        if name in names:
            return name
    if len(names) == 1:
        return names[0]
    raise InputError(
        f"{path}: which column names the rows is not clear; call it 'row' (row numbers) or 'id', or give a file of "
        f"that column alone; it has {', '.join(map(repr, names)) or 'none'}"
    )


def _from_csv(path: str, has_ids: bool | None) -> RowList:
    import io

    try:
        with open_file(path) as file, io.TextIOWrapper(file, "utf-8-sig", newline="") as text:
            names = next(csv.reader(text), [])
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not a readable CSV file ({error}); write it again") from error
    column = _column(names, path)
    numbers = column == "row" or not has_ids
    if column not in ("row", "id") and numbers and column.strip().isdecimal():
        raise InputError(f"{path}: its first line is {column!r}, a row number, and should name the column: 'row'")

    beside = _beside(names, column)

    def tables(further: tuple[str, ...] = beside) -> Tables:
        import pyarrow as pa
        from pyarrow import csv as arrow

        types = {column: pa.int64() if numbers else pa.large_string()} | dict.fromkeys(further, pa.large_string())
        try:
            with (
                open_file(path) as file,
                arrow.open_csv(
                    file,
                    parse_options=arrow.ParseOptions(newlines_in_values=True),
                    convert_options=arrow.ConvertOptions(
                        include_columns=[column, *further], column_types=types, strings_can_be_null=False
                    ),
                ) as reader,
            ):
                for batch in reader:
                    found = _checked(batch.column(0), path, column, numbers)
                    yield found, {name: batch.column(name) for name in further}
        except pa.ArrowInvalid as error:
            fix = "mend the file"
            if column == "row":
                fix = "if it holds ids, call the column 'id'"
            elif column != "id":
                fix = f"{_NO_COLUMN}, so that its only one is read as row numbers, since {_why_none(has_ids)}"
            raise InputError(f"{path}: column {column!r} cannot be read ({error}); {fix}") from error

    header = None if numbers or column == "id" else column
    kind: Kind = "rows" if numbers else "ids"
    return RowList(path, kind, None, _entries(tables), header, beside, tables if beside else None, 2)


def _beside(names: list[str], column: str) -> tuple[str, ...]:
    """Columns beside that of row numbers that tell whose rows these are; ``source`` where a mixture was written."""
    if column != "row":
        return ()
    found = ("id", "source") if "part" in names else ("id",)
    return tuple(name for name in found if names.count(name) == 1)


def _entries(tables: Callable[[tuple[str, ...]], Tables]) -> Callable[[], Iterator[Any]]:
    """The entries alone."""

    def pieces() -> Iterator[Any]:
        for entries, _ in tables(()):
            yield entries

    return pieces


def _from_parquet(path: str, has_ids: bool | None) -> RowList:
    import pyarrow as pa

    from streamcurate.embeddings.sources.arrow import ids_dtype
    from streamcurate.embeddings.sources.parquet import open_file as open_parquet

    with open_parquet(path) as file:
        schema, length = file.schema_arrow, int(file.metadata.num_rows)
    column = _column(schema.names, path)
    found = schema.field(column).type
    beside = tuple(name for name in _beside(schema.names, column) if _is_text(schema.field(name).type))
    kind: Kind = "rows" if column == "row" or not has_ids else "ids"
    if pa.types.is_boolean(found) and column not in ("row", "id"):
        kind = "mask"
    elif kind == "rows" and not pa.types.is_integer(found):
        reason = "" if column == "row" else f", and {_why_none(has_ids)}"
        fix = "; if these are ids, call the column 'id'" if column == "row" and _is_text(found) else ""
        raise InputError(f"{path}: column {column!r} holds {found}{reason}; give row numbers (integers){fix}")
    elif kind == "ids":
        ids_dtype(found, f"{path}: column {column!r}")  # strings or integers, or an error

    def tables(further: tuple[str, ...] = beside) -> Tables:
        try:
            with open_parquet(path) as file:
                for batch in file.iter_batches(batch_size=_LINES, columns=[column, *further]):
                    entries = _checked(batch.column(column), path, column, kind == "rows", kind == "mask")
                    yield entries, {name: _as_text(batch.column(name)) for name in further}
        except (pa.ArrowInvalid, pa.ArrowIOError) as error:
            raise DataError(f"{path}: damaged ({error}); copy or write it again") from error

    return RowList(path, kind, length, _entries(tables), None, beside, tables if beside else None)


def _is_text(found: Any) -> bool:
    """Whether a column may hold ids: strings or integers."""
    import pyarrow as pa

    plain = found.value_type if pa.types.is_dictionary(found) else found
    return bool(pa.types.is_integer(plain) or pa.types.is_string(plain) or pa.types.is_large_string(plain))


def _as_text(values: Any) -> Any:
    import pyarrow as pa
    import pyarrow.compute as pc

    return pc.cast(values.dictionary_decode() if pa.types.is_dictionary(values.type) else values, pa.large_string())


def _checked(values: Any, path: str, column: str, numbers: bool, mask: bool = False) -> Any:
    """A column's piece as row numbers, a mask, or ids; a null is none of these."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if values.null_count:
        raise DataError(f"{path}: {values.null_count} values of column {column!r} are missing; mend the file")
    if numbers or mask:
        return values.to_numpy(zero_copy_only=False)
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    return pc.cast(values, pa.int64() if pa.types.is_integer(values.type) else pa.large_string())
