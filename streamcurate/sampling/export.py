"""Selections as files: streamed in batches, complete under their name or not there at all."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from streamcurate.errors import DataError, InputError
from streamcurate.files import TEMPORARY_SUFFIX, disk_errors, sync_folder
from streamcurate.sampling.selection import BATCH, Selection

Writer = Callable[[Selection, "str | os.PathLike[str]"], None]


def writer_for(path: str | os.PathLike[str]) -> Writer:
    """The function that writes the format ``path``'s suffix names.

    Raises
    ------
    InputError
        Another suffix.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in WRITERS:
        found = f"its suffix is {suffix!r}" if suffix else "it has no suffix"
        raise InputError(f"{path}: {found}; a selection is written as {', '.join(WRITERS)}")
    return WRITERS[suffix]


def write_as(selection: Selection, path: str | os.PathLike[str], suffix: str) -> None:
    """Write the format of ``suffix`` to a path with that suffix or none.

    Raises
    ------
    InputError
        ``path`` has another suffix, or cannot be written there.
    """
    write = WRITERS[suffix]
    found = Path(path).suffix
    if found and writer_for(path) is not write:
        raise InputError(
            f"{path}: its suffix is {found!r}, to_{suffix[1:]} writes {suffix}; "
            "name the file so, or use save, which goes by the suffix"
        )
    write(selection, path)


def check_destination(path: str | os.PathLike[str]) -> None:
    """Refuse a place that cannot be written to, before any work is done.

    Raises
    ------
    InputError
        Unknown suffix, no such folder, a folder in its place, or no permission.
    """
    writer_for(path)
    target = Path(path)
    if target.is_dir():
        raise InputError(f"{path}: a folder lies there; name a file")
    if not target.absolute().parent.is_dir():
        raise InputError(f"{path}: the folder {target.absolute().parent} does not exist; create it first")
    if not os.access(target.absolute().parent, os.W_OK):
        raise InputError(f"{path}: no permission to write into {target.absolute().parent}; choose another place")


def write_parquet(selection: Selection, path: str | os.PathLike[str]) -> None:
    """One line per distinct row; see :meth:`Selection.to_parquet`."""
    import pyarrow.parquet

    batches = _record_batches(selection)
    first = next(batches)
    with placed_file(path) as file, pyarrow.parquet.ParquetWriter(file, first.schema) as writer:
        writer.write_batch(first)
        for batch in batches:
            writer.write_batch(batch)


def write_csv(selection: Selection, path: str | os.PathLike[str]) -> None:
    """One line per distinct row; see :meth:`Selection.to_csv`."""
    import pyarrow

    with placed_file(path) as file:
        for number, batch in enumerate(_record_batches(selection)):
            text = io.StringIO(newline="")
            lines = csv.writer(text, lineterminator="\n")
            if number == 0:
                lines.writerow(batch.schema.names)
            columns = [
                # As text straight from float32: 0.1, not 0.10000000149.
                (column.cast(pyarrow.string()) if pyarrow.types.is_floating(column.type) else column).to_pylist()
                for column in batch.columns
            ]
            lines.writerows(zip(*columns, strict=True))
            file.write(text.getvalue().encode())


def write_npy(selection: Selection, path: str | os.PathLike[str]) -> None:
    """Row numbers repeated per copy; see :meth:`Selection.to_npy`."""
    header = {"descr": "<i8", "fortran_order": False, "shape": (len(selection),)}
    with placed_file(path) as file:
        np.lib.format.write_array_header_1_0(file, header)
        for rows, copies in _pieces(selection):
            file.write(np.repeat(rows, copies).astype("<i8", copy=False).tobytes())


def write_txt(selection: Selection, path: str | os.PathLike[str]) -> None:
    """One id or row number a line; see :meth:`Selection.to_txt`."""
    take = selection.id_reader()
    with placed_file(path) as file:
        for rows, copies in _pieces(selection):
            names = [str(name) for name in (rows if take is None else take(rows)).tolist()]
            for row, name in zip(rows, names, strict=True):
                # What Python's and most other readers take for the end of a line.
                if "\n" in name or "\r" in name:
                    raise DataError(
                        f"{path}: the id of row {row} contains a line break ({name!r}), one id a line cannot hold it; "
                        "write .parquet or .csv"
                    )
            file.write("".join((name + "\n") * count for name, count in zip(names, copies, strict=True)).encode())


WRITERS: dict[str, Writer] = {
    ".parquet": write_parquet,
    ".npy": write_npy,
    ".csv": write_csv,
    ".txt": write_txt,
}


@contextmanager
def placed_file(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """A file written under a temporary name beside ``path``, flushed to the device and renamed at the end."""
    target = os.fspath(path)
    temporary = f"{target}.{os.getpid()}{TEMPORARY_SUFFIX}"
    with disk_errors(target):
        try:
            file = open(temporary, "wb")  # noqa: SIM115 - closed below, before the rename
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError) as error:
            raise InputError(
                f"{path}: cannot be written there ({error.strerror}); choose another place, or create its folder"
            ) from error
        try:
            with file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            if os.path.isdir(target):
                raise InputError(f"{path}: a folder lies there; name a file")
            os.replace(temporary, target)
        except BaseException:
            os.unlink(temporary)
            raise
        sync_folder(os.path.dirname(target) or ".")


def _pieces(selection: Selection) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Rows and copies in batches of so many lines: a row drawn a million times is spread over several."""
    ends = np.cumsum(selection.copies)
    total = len(selection)
    for start in range(0, total, BATCH):
        stop = min(start + BATCH, total)
        low, high = np.searchsorted(ends, [start, stop - 1], side="right")
        here = slice(int(low), int(high) + 1)
        copies = np.minimum(ends[here], stop) - np.maximum(ends[here] - selection.copies[here], start)
        yield selection.unique_rows[here], copies


def _record_batches(selection: Selection) -> Iterator[Any]:
    import pyarrow

    take = selection.id_reader()
    for start in range(0, len(selection.unique_rows), BATCH):
        rows = selection.unique_rows[start : start + BATCH]
        labels, distances = selection.lookup(start, start + BATCH)
        columns: dict[str, Any] = {"row": pyarrow.array(rows)}
        if take is not None:
            columns["id"] = _id_column(take(rows))
        for level, label in enumerate(labels, start=1):
            columns[f"label_{level}"] = pyarrow.array(label)
        columns["distance"] = pyarrow.array(distances)
        columns["copies"] = pyarrow.array(selection.copies[start : start + BATCH])
        yield pyarrow.record_batch(columns)


def _id_column(ids: NDArray[Any]) -> Any:
    import pyarrow

    if ids.dtype.kind in "iu":
        return pyarrow.array(ids.astype(np.int64))
    return pyarrow.array([str(name) for name in ids.tolist()], type=pyarrow.string())
