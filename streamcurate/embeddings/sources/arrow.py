"""Arrow arrays of lists and of ids as NumPy arrays. Imports pyarrow; loaded only where such data is read."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from streamcurate.embeddings.sources.base import INTEGER, TEXT
from streamcurate.errors import DataError, InputError


def is_list_of_floats(type_: Any) -> bool:
    """Whether an Arrow type is a list, large list or fixed-size list of floating-point values."""
    listed = pa.types.is_list(type_) or pa.types.is_large_list(type_) or pa.types.is_fixed_size_list(type_)
    return bool(listed and pa.types.is_floating(type_.value_type))


def value_dtype(type_: Any) -> np.dtype[Any]:
    """NumPy dtype of a list type's values."""
    dtype: np.dtype[Any] = np.dtype(type_.value_type.to_pandas_dtype())
    return dtype


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
    present = None
    if lists.null_count:
        present = lists.is_valid().to_numpy(zero_copy_only=False)
        lists = lists.drop_null()
    if not pa.types.is_fixed_size_list(lists.type):
        _check_lengths(lists, dims, where, first_row, present)
    # flatten honours the slice's offsets, which .values does not; nulls, whose space it leaves out, are gone.
    values = lists.flatten()
    dtype = value_dtype(lists.type)
    if values.null_count:
        holes = ~values.is_valid().to_numpy(zero_copy_only=False)
        flat = np.frombuffer(values.buffers()[1], dtype=dtype)[values.offset : values.offset + len(values)].copy()
        flat[holes] = np.nan
    else:
        flat = values.to_numpy(zero_copy_only=True)
    rows = flat.reshape(-1, dims)
    if present is None:
        return rows
    filled = np.full((len(present), dims), np.nan, dtype=dtype)
    filled[present] = rows
    return filled


def _check_lengths(lists: Any, dims: int, where: str, first_row: int, present: NDArray[Any] | None) -> None:
    lengths = np.diff(lists.offsets.to_numpy(zero_copy_only=True))
    wrong = np.flatnonzero(lengths != dims)
    if len(wrong):
        row = int(wrong[0] if present is None else np.flatnonzero(present)[wrong[0]])
        raise DataError(
            f"{where}: row {first_row + row} has {int(lengths[wrong[0]])} values, and the rows before it have {dims}; "
            "all rows of an embedding have one length"
        )


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
        A null, or an integer beyond int64.
    """
    if array.null_count:
        row = int(np.flatnonzero(~array.is_valid().to_numpy(zero_copy_only=False))[0])
        raise DataError(f"{where}: row {first_row + row} has no id (null); every row needs one")
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if ids_dtype(array.type, where) == TEXT:
        return np.asarray(array.to_numpy(zero_copy_only=False), dtype=TEXT)
    try:
        return np.asarray(pc.cast(array, pa.int64()).to_numpy(zero_copy_only=False))
    except pa.ArrowInvalid as error:
        raise DataError(f"{where}: ids beyond 64-bit signed integers ({error}); use strings") from error
