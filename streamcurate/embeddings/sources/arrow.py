"""Arrow arrays of lists and of ids as NumPy arrays. Imports pyarrow; loaded only where such data is read."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from streamcurate.embeddings.sources.base import INTEGER, TEXT
from streamcurate.embeddings.sources.bfloat16 import widen
from streamcurate.errors import DataError, InputError

# Arrow has no such type of its own; Lance keeps the two bytes of each value under this name.
_BFLOAT16 = "lance.bfloat16"
_WANTED = "lists of float16, bfloat16, float32 or float64"


def plain(type_: Any) -> Any:
    """The type that an extension type is stored as, where rows of it are vectors; any other type as it is."""
    if isinstance(type_, pa.FixedShapeTensorType) and len(type_.shape) == 1:
        return type_.storage_type
    return type_


def is_list(type_: Any) -> bool:
    """Whether an Arrow type is a list, large list or fixed-size list."""
    return bool(pa.types.is_list(type_) or pa.types.is_large_list(type_) or pa.types.is_fixed_size_list(type_))


def is_list_of_floats(type_: Any) -> bool:
    """Whether an Arrow type is a list, large list or fixed-size list of floating-point values."""
    type_ = plain(type_)
    return is_list(type_) and (pa.types.is_floating(type_.value_type) or _are_bfloat16(type_))


def value_dtype(type_: Any) -> np.dtype[Any]:
    """NumPy dtype that a list type's values are read as: bfloat16 as float32."""
    type_ = plain(type_)
    dtype: np.dtype[Any] = np.dtype(np.float32 if _are_bfloat16(type_) else type_.value_type.to_pandas_dtype())
    return dtype


def _are_bfloat16(type_: Any) -> bool:
    """Whether the values of a list type are bfloat16, be the extension type registered with pyarrow or not."""
    value = type_.value_type
    if isinstance(value, pa.BaseExtensionType):
        return bool(value.extension_name == _BFLOAT16)
    named = (type_.value_field.metadata or {}).get(b"ARROW:extension:name", b"")
    return bool(named == _BFLOAT16.encode() and pa.types.is_fixed_size_binary(value) and value.byte_width == 2)


def field(path: str, schema: Any, column: str) -> Any:
    """The field of a column.

    Raises
    ------
    InputError
        There is none, or several of that name.
    """
    count = schema.names.count(column)
    if not count:
        raise InputError(f"{path}: no column {column!r}; it has {', '.join(map(repr, schema.names))}")
    if count > 1:
        raise InputError(f"{path}: {count} columns have the name {column!r}; give them names of their own")
    return schema.field(column)


def choose(path: str, schema: Any, column: str | None) -> str:
    """Name of the column that holds the embeddings: the one asked for, or the only one that can be meant.

    Raises
    ------
    InputError
        No column holds lists of floats, several do, or the one asked for does not.
    """
    candidates = [field.name for field in schema if is_list_of_floats(field.type)]
    if column is not None:
        type_ = field(path, schema, column).type
        if not is_list_of_floats(type_):
            listed = ", ".join(map(repr, candidates))
            fix = f"choose with --column one of {listed}" if candidates else "no column of this file does"
            raise InputError(f"{path}: column {column!r} holds {type_}, not {_WANTED}{_nested(type_)}; {fix}")
        return column
    if len(candidates) == 1:
        return str(field(path, schema, candidates[0]).name)
    if candidates:
        listed = ", ".join(map(repr, candidates))
        raise InputError(f"{path}: several columns hold lists of floats; choose with --column one of {listed}")
    columns = ", ".join(f"{field.name!r} ({field.type}){_nested(field.type)}" for field in schema)
    raise InputError(f"{path}: no column holds {_WANTED}; it has {columns or 'no columns at all'}")


def _nested(type_: Any) -> str:
    """What to say of rows that are matrices."""
    if isinstance(type_, pa.BaseExtensionType):
        type_ = type_.storage_type
        nested = True
    else:
        nested = is_list(type_) and is_list(type_.value_type)
    while is_list(type_):
        type_ = type_.value_type
    return " (one vector a row is needed: flatten or pool them first)" if nested and pa.types.is_floating(type_) else ""


def matrix(lists: Any, dims: int, where: str, first_row: int) -> NDArray[Any]:
    """The rows of an Arrow array of lists, whatever slice of a larger array it is.

    Parameters
    ----------
    lists : pyarrow list, large list or fixed-size list array
    dims : int
        Length that every list must have.
    where : str
        How messages call the column.
    first_row : int
        Row number of the first list, for messages.

    Returns
    -------
    ndarray, shape (len(lists), dims)
        Nulls, of rows and of single values, are NaN. May share memory with ``lists``.

    Raises
    ------
    DataError
        A list of another length.
    """
    if isinstance(lists, pa.ExtensionArray):
        lists = lists.storage
    present = None
    if lists.null_count:
        present = lists.is_valid().to_numpy(zero_copy_only=False)
        lists = lists.drop_null()
    if not pa.types.is_fixed_size_list(lists.type):
        lengths = np.diff(lists.offsets.to_numpy(zero_copy_only=True))
        if present is not None:
            spread = np.zeros(len(present), dtype=lengths.dtype)
            spread[present] = lengths
            lengths = spread
        check_lengths(lengths, dims, where, first_row, present)
    # flatten honours the slice's offsets, which .values does not; nulls, whose space it leaves out, are gone.
    values = lists.flatten()
    dtype = value_dtype(lists.type)
    if isinstance(values, pa.ExtensionArray):
        values = values.storage
    stored = np.dtype(np.uint16) if _are_bfloat16(lists.type) else dtype
    flat = np.frombuffer(values.buffers()[1] or b"", dtype=stored)[values.offset : values.offset + len(values)]
    if stored != dtype:
        flat = widen(flat)
    if values.null_count:
        flat = flat.copy()
        flat[~values.is_valid().to_numpy(zero_copy_only=False)] = np.nan
    rows = flat.reshape(-1, dims)
    if present is None:
        return rows
    filled = np.full((len(present), dims), np.nan, dtype=dtype)
    filled[present] = rows
    return filled


def check_lengths(
    lengths: NDArray[Any], dims: int, where: str, first_row: int, present: NDArray[np.bool_] | None
) -> None:
    """Refuse lists of another length.

    Parameters
    ----------
    lengths : ndarray of int, shape (rows,)
    dims : int
    where : str
    first_row : int
        Row number of the first list.
    present : ndarray of bool, shape (rows,), or None
        False where a row is null, whose length is of no meaning.

    Raises
    ------
    DataError
    """
    wrong = np.flatnonzero(lengths != dims if present is None else (lengths != dims) & present)
    if len(wrong):
        row = int(wrong[0])
        raise DataError(
            f"{where}: row {first_row + row} has {int(lengths[row])} values, and the rows before it have {dims}; "
            "all rows of an embedding have one length"
        )


def first_length(arrays: Iterable[Any], where: str) -> int:
    """Length of the first list that is not null, looked for in one array of lists after the other; 0 without any rows.

    Raises
    ------
    DataError
        There are rows, and all are null.
    """
    empty = True
    for lists in arrays:
        empty = empty and not len(lists)
        present = lists.drop_null()
        if len(present):
            return len(present[0])
    if not empty:
        raise DataError(f"{where}: every row is null; choose another column")
    return 0


def ids_dtype(type_: Any, where: str) -> np.dtype[Any]:
    """``TEXT`` or ``INTEGER`` for an Arrow type of ids.

    Raises
    ------
    InputError
        Neither strings nor integers.
    """
    if pa.types.is_dictionary(type_):
        type_ = type_.value_type
    if pa.types.is_integer(type_):
        return INTEGER
    if pa.types.is_string(type_) or pa.types.is_large_string(type_) or pa.types.is_string_view(type_):
        return TEXT
    raise InputError(f"{where}: holds {type_}, and ids are strings or integers; choose another column")


def ids(array: Any, where: str, first_row: int) -> NDArray[Any]:
    """Ids of an Arrow array as int64 or NumPy strings.

    Raises
    ------
    DataError
        A null, text that is not UTF-8, or an integer beyond int64.
    """
    # A dictionary may hold a null, which only its rows decoded show.
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if array.null_count:
        row = int(np.flatnonzero(~array.is_valid().to_numpy(zero_copy_only=False))[0])
        raise DataError(f"{where}: row {first_row + row} has no id (null); every row needs one")
    if ids_dtype(array.type, where) == TEXT:
        try:
            return np.asarray(array.to_numpy(zero_copy_only=False), dtype=TEXT)
        except pa.ArrowException as error:
            rows = f"rows {first_row} to {first_row + len(array) - 1}"
            raise DataError(f"{where}: ids in {rows} are not UTF-8 ({error}); write them as UTF-8") from error
    try:
        return np.asarray(pc.cast(array, pa.int64()).to_numpy(zero_copy_only=False))
    except pa.ArrowInvalid as error:
        raise DataError(f"{where}: ids beyond 64-bit signed integers ({error}); use strings") from error
