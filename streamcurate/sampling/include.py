"""Earlier draws, read back so that a new one keeps and tops them up."""

from __future__ import annotations

import csv
import io
import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamcurate.embeddings.checks import suffix_of
from streamcurate.errors import InputError
from streamcurate.objects import exists, join, open_file
from streamcurate.sampling.draw import Included
from streamcurate.sampling.hierarchy import RowArray
from streamcurate.sampling.selection import COPIES_NAME, ROWS_NAME, Selection
from streamcurate.storage import list_arrays, open_array

Int64 = NDArray[np.int64]

# Labels looked up together.
_BATCH = 1 << 20


def read_included(include: Any, labels: RowArray, tree_path: str) -> Included:
    """Rows, copies and leaves of an earlier draw.

    Parameters
    ----------
    include : Selection, path or array of int64
        A path or URL ends in ``.parquet``, ``.npy``, ``.csv``, ``.arrow`` or ``.zarr``; an array holds one row number
        for each copy.
    labels : RowArray of int32
        Level 1's labels.
    tree_path : str
        How messages call the tree.

    Raises
    ------
    InputError
        The draw cannot be read, or a row of it is not in the tree.
    """
    if isinstance(include, Selection):
        name, rows, copies = "the earlier draw", include.unique_rows, include.copies
    elif isinstance(include, (str, os.PathLike)):
        name = os.fspath(include)
        rows, copies = _read_file(name)
    else:
        name, values = "the earlier draw", np.asarray(include)
        rows, copies = _one_each(values, name)
    rows, copies = _distinct(rows, copies)
    if not len(rows):
        return Included(rows, copies, rows)
    if rows[0] < 0 or rows[-1] >= labels.rows:
        outside = int(rows[0] if rows[0] < 0 else rows[np.searchsorted(rows, labels.rows)])
        raise InputError(
            f"{name}: row {outside} is not in {tree_path}, whose rows are 0 to {labels.rows - 1}; "
            "include a draw from a tree of the same store"
        )
    leaves = np.empty(len(rows), dtype=np.int64)
    for start in range(0, len(rows), _BATCH):
        leaves[start : start + _BATCH] = labels.take(rows[start : start + _BATCH])
    if (leaves < 0).any():
        raise InputError(
            f"{name}: row {int(rows[np.argmax(leaves < 0)])} lies outside the subset that {tree_path} was built on; "
            "leave such rows out, or include a draw from a tree of the same subset"
        )
    return Included(rows, copies, leaves)


def _read_file(path: str) -> tuple[Int64, Int64]:
    if not exists(path):
        raise InputError(f"{path}: no such file; check the path")
    suffix = suffix_of(path.rstrip("/"))
    if suffix == ".npy":
        try:
            with open_file(path) as file:
                values = np.load(file, allow_pickle=False)
        except (ValueError, EOFError, OSError, MemoryError) as error:  # a header may claim any length
            raise InputError(f"{path}: not a readable .npy file ({error}); draw it again") from error
        return _one_each(values, path)
    if suffix == ".parquet":
        return _read_table(_open_parquet(path), path)
    if suffix == ".csv":
        return _read_table(_open_csv(path), path)
    if suffix == ".arrow":
        return _one_each(_read_index(path), path)
    if suffix == ".zarr":
        return _read_store(path)
    hint = "; a .txt file holds ids, which do not lead back to rows" if suffix == ".txt" else ""
    raise InputError(f"{path}: an earlier draw is read from .parquet, .npy, .csv, .arrow or .zarr{hint}")


def _open_parquet(path: str) -> Any:
    import pyarrow
    import pyarrow.parquet

    try:
        with open_file(path) as source, pyarrow.parquet.ParquetFile(source) as file:
            return file.read(columns=_columns(file.schema_arrow.names, path))
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(f"{path}: not a readable Parquet file ({error}); draw it again") from error


def _open_csv(path: str) -> Any:
    import pyarrow
    import pyarrow.csv

    try:
        with open_file(path) as file, io.TextIOWrapper(file, "utf-8-sig", newline="") as text:
            header = next(csv.reader(text), [])
        with open_file(path) as file:
            return pyarrow.csv.read_csv(
                file,
                parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),  # ids may hold any
                convert_options=pyarrow.csv.ConvertOptions(
                    include_columns=_columns(header, path),
                    column_types={"row": pyarrow.int64(), "copies": pyarrow.int64()},
                ),
            )
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not a readable CSV file ({error}); draw it again") from error


def _read_index(path: str) -> NDArray[Any]:
    """The one column of an index of ``datasets``."""
    import pyarrow

    try:
        with open_file(path) as file, pyarrow.ipc.open_stream(file) as stream:
            table = stream.read_all()
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(f"{path}: not a readable Arrow stream ({error}); draw it again") from error
    if table.column_names != ["indices"]:
        raise InputError(f"{path}: an index has one column, 'indices', and this has {table.column_names}")
    values: NDArray[Any] = table["indices"].to_numpy()
    return values


def _read_store(path: str) -> tuple[Int64, Int64]:
    """Rows and copies of a curated store."""
    arrays = list_arrays(path)
    if ROWS_NAME not in arrays or COPIES_NAME not in arrays:
        held = ", ".join(map(repr, arrays)) or "no arrays"
        raise InputError(
            f"{path}: not a store that sample wrote: it has {held}, and no '{ROWS_NAME}' and '{COPIES_NAME}'"
        )
    rows, copies = (open_array(join(path, name)) for name in (ROWS_NAME, COPIES_NAME))
    return rows.read(0, rows.rows), copies.read(0, copies.rows)


def _columns(found: list[str], name: str) -> list[str]:
    if "row" not in found:
        raise InputError(f"{name}: no column 'row', which holds an earlier draw's row numbers; it has {found}")
    return ["row", "copies"] if "copies" in found else ["row"]


def _read_table(table: Any, name: str) -> tuple[Int64, Int64]:
    for column in table.column_names:
        if table[column].null_count:
            raise InputError(
                f"{name}: {table[column].null_count} values of column {column!r} are missing; mend the file"
            )
    rows = _whole_numbers(table["row"].to_numpy(), name)
    copies = _whole_numbers(table["copies"].to_numpy(), name) if "copies" in table.column_names else np.ones_like(rows)
    if (copies < 1).any():
        first = int(np.argmax(copies < 1))
        raise InputError(
            f"{name}: row {int(rows[first])} has {int(copies[first])} copies; mend the file, 1 is the least"
        )
    # Beyond this the sum would not fit an int64, and no draw is as large.
    if copies.sum(dtype=np.float64) > 2.0**62:
        raise InputError(f"{name}: its copies add up to more than 2**62; mend the file")
    return rows, copies


def _one_each(values: NDArray[Any], name: str) -> tuple[Int64, Int64]:
    rows = _whole_numbers(values, name)
    return rows, np.ones_like(rows)


def _whole_numbers(values: NDArray[Any], name: str) -> Int64:
    if values.ndim != 1 or (values.dtype.kind not in "iu" and values.size):
        raise InputError(
            f"{name}: holds {values.dtype} of shape {values.shape}; row numbers are needed, "
            "whole numbers in one dimension"
        )
    return values.astype(np.int64)


def _distinct(rows: Int64, copies: Int64) -> tuple[Int64, Int64]:
    if not len(rows):
        return rows, copies
    order = np.argsort(rows, kind="stable")
    rows, copies = rows[order], copies[order]
    starts = np.flatnonzero(np.append(True, np.diff(rows) != 0))
    return rows[starts], np.add.reduceat(copies, starts)
