"""Earlier draws, read back so that a new one keeps and tops them up."""

from __future__ import annotations

import csv
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamcurate.errors import InputError
from streamcurate.sampling.draw import Included
from streamcurate.sampling.hierarchy import RowArray
from streamcurate.sampling.selection import Selection

Int64 = NDArray[np.int64]

# Labels looked up together.
_BATCH = 1 << 20


def read_included(include: Any, labels: RowArray, tree_path: str) -> Included:
    """Rows, copies and leaves of an earlier draw.

    Parameters
    ----------
    include : Selection, path or array of int64
        A path ends in ``.parquet``, ``.npy`` or ``.csv``; an array holds one row number for each copy.
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
        rows, copies = _read_file(Path(include), name)
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


def _read_file(path: Path, name: str) -> tuple[Int64, Int64]:
    if not path.is_file():
        raise InputError(f"{name}: no such file; check the path")
    suffix = path.suffix.lower()
    if suffix == ".npy":
        try:
            values = np.load(path, allow_pickle=False)
        except (ValueError, EOFError, OSError) as error:
            raise InputError(f"{name}: not a readable .npy file ({error}); draw it again") from error
        return _one_each(values, name)
    if suffix == ".parquet":
        return _read_table(_open_parquet(path, name), name)
    if suffix == ".csv":
        return _read_table(_open_csv(path, name), name)
    hint = "; a .txt file holds ids, which do not lead back to rows" if suffix == ".txt" else ""
    raise InputError(f"{name}: an earlier draw is read from .parquet, .npy or .csv{hint}")


def _open_parquet(path: Path, name: str) -> Any:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            return file.read(columns=_columns(file.schema_arrow.names, name))
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(f"{name}: not a readable Parquet file ({error}); draw it again") from error


def _open_csv(path: Path, name: str) -> Any:
    import pyarrow
    import pyarrow.csv

    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            header = next(csv.reader(file), [])
        return pyarrow.csv.read_csv(
            path,
            parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),  # ids may hold any
            convert_options=pyarrow.csv.ConvertOptions(
                include_columns=_columns(header, name),
                column_types={"row": pyarrow.int64(), "copies": pyarrow.int64()},
            ),
        )
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{name}: not a readable CSV file ({error}); draw it again") from error


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
