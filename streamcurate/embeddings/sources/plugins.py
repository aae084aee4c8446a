"""Readers that other packages bring, found by the entry points ``streamcurate.sources``.

The name of an entry point is the suffix it reads (``".foo"``), its value a function ``open_reader(path, column, ids)``
or a module that holds one. What such a reader gives is checked, block by block: rows that are lost or cut in somebody
else's code must not go unnoticed.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import numpy as np

from streamcurate.embeddings.sources.base import INTEGER, TEXT, Block, SourceReader, Stamp
from streamcurate.errors import DataError, InputError, StreamcurateError

GROUP = "streamcurate.sources"
_PROPERTIES = ("name", "rows", "dims", "dtype", "ids_dtype", "bad_values", "read_overhead_bytes", "blocks", "stamps")


def suffixes() -> list[str]:
    """Suffixes that other packages read."""
    return sorted({_suffix(point) for point in entry_points(group=GROUP)})


def find(suffix: str) -> EntryPoint | None:
    """The entry point for a suffix.

    Raises
    ------
    InputError
        Several packages bring one.
    """
    found = {point.value: point for point in entry_points(group=GROUP) if _suffix(point) == suffix}
    if len(found) > 1:
        names = ", ".join(sorted(map(_distribution, found.values())))
        raise InputError(f"{suffix} files: several installed packages read them ({names}); uninstall all but one")
    return next(iter(found.values()), None)


def open_reader(point: EntryPoint, path: str, column: str | None, ids: str | None) -> SourceReader:
    """Open one file with another package's reader.

    Raises
    ------
    InputError
        The reader refuses the file, or does not work; the message names the package.
    """
    who = f"{path}: the reader of {_suffix(point)} files in the package {_distribution(point)}"
    try:
        loaded = point.load()
        function = getattr(loaded, "open_reader", loaded)
    except Exception as error:  # whatever importing somebody else's module raises
        raise InputError(f"{who} cannot be loaded ({_say(error)}); update or uninstall the package") from error
    if not callable(function):
        raise InputError(f"{who} is no function, and no module with open_reader; update or uninstall the package")
    try:
        reader = function(path, column, ids)
        return _Checked(reader, who)
    except (StreamcurateError, FileNotFoundError, PermissionError):
        raise
    except Exception as error:
        raise InputError(
            f"{who} failed ({_say(error)}); check the file, or report it to the package's makers"
        ) from error


class _Checked:
    """A reader of another package, held to what readers promise."""

    def __init__(self, reader: Any, who: str) -> None:
        self._who = who
        missing = [name for name in _PROPERTIES if not hasattr(reader, name)]
        if missing:
            raise self._broken(f"gives a {type(reader).__name__} without {', '.join(missing)}")
        self._reader = reader
        self.name = str(reader.name)
        self.rows: int | None = None if reader.rows is None else int(reader.rows)
        self.dims = int(reader.dims)
        self.dtype: np.dtype[Any] = np.dtype(reader.dtype)
        self.ids_dtype: np.dtype[Any] | None = None if reader.ids_dtype is None else np.dtype(reader.ids_dtype)
        self.bad_values = str(reader.bad_values)
        self.read_overhead_bytes = int(reader.read_overhead_bytes)
        if self.dtype not in (np.float16, np.float32, np.float64) or not self.dtype.isnative:
            raise self._broken(f"says its rows are {self.dtype}, not native float16, float32 or float64")
        if self.ids_dtype not in (None, TEXT, INTEGER):
            raise self._broken(f"says its ids are {self.ids_dtype}, not {TEXT} or {INTEGER}")

    def stamps(self) -> list[Stamp]:
        """State of the files."""
        return [Stamp(*stamp) for stamp in self._reader.stamps()]

    def blocks(self, start: int) -> Iterator[Block]:
        """Rows from ``start`` on, each block checked."""
        row = start
        blocks = iter(self._reader.blocks(start))
        while True:
            try:
                block = next(blocks, None)
            except StreamcurateError:
                raise
            except Exception as error:
                raise DataError(f"{self._who} failed behind row {row} ({_say(error)}); check the file") from error
            if block is None:
                break
            values, ids = block
            if not isinstance(values, np.ndarray) or values.dtype != self.dtype or values.ndim != 2:
                raise self._broken(f"gives blocks that are not arrays of {self.dtype} in two dimensions")
            if values.shape[1] != self.dims:
                raise self._broken(f"gives rows of {values.shape[1]} values behind row {row}, and said {self.dims}")
            if self.ids_dtype is None:
                ids = None
            elif not isinstance(ids, np.ndarray) or ids.dtype != self.ids_dtype or ids.shape != values.shape[:1]:
                raise self._broken(f"does not give {len(values)} ids of {self.ids_dtype} with the rows behind {row}")
            row += len(values)
            yield values, ids
        if self.rows is not None and row != self.rows:
            raise self._broken(f"gives {row} rows, and said {self.rows}")

    def _broken(self, what: str) -> DataError:
        return DataError(f"{self._who} {what}; update or uninstall the package")


def _suffix(point: EntryPoint) -> str:
    return point.name.lower()


def _distribution(point: EntryPoint) -> str:
    return "of unknown name" if point.dist is None else f"{point.dist.name} {point.dist.version}"


def _say(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
