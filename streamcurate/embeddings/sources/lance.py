"""Lance datasets, by the optional library pylance: one version of them, in the order of their rows."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyarrow as pa

from streamcurate import objects
from streamcurate.embeddings.checks import check_floating, check_matrix
from streamcurate.embeddings.sources import arrow
from streamcurate.embeddings.sources.base import Block, Stamp, block_rows
from streamcurate.errors import DataError, InputError

# Lance's threads and what they hold beside a block; measured: 67 MiB for files of one and of many fragments.
_OVERHEAD_BYTES = 64 << 20
# Lists looked at together, until one is not null.
_LOOK_ROWS = 1024
_MANIFESTS = ("{0:020d}.manifest", "{1}.manifest")


class LanceReader:
    """Rows of one column of a dataset, with the ids of another, as its newest version is when it is opened."""

    bad_values = "NaN, Inf or null"
    read_overhead_bytes = _OVERHEAD_BYTES

    def __init__(self, path: str, column: str | None = None, ids: str | None = None) -> None:
        self.name = path
        if not objects.exists(path):
            raise InputError(f"{path}: no such dataset; check the path")
        with self._said():
            self._dataset = _library(path).dataset(path, storage_options=_storage_options(path))
            self.version = int(self._dataset.version)
            self.rows = int(self._dataset.count_rows())
            schema = self._dataset.schema
        self._column = arrow.choose(path, schema, column)
        type_ = arrow.plain(schema.field(self._column).type)
        self._where = f"{path}: column {self._column!r}"
        self.dtype = check_floating(arrow.value_dtype(type_), self._where)
        self._ids = ids
        self.ids_dtype: np.dtype[Any] | None = None
        if ids is not None:
            self.ids_dtype = arrow.ids_dtype(arrow.field(path, schema, ids).type, f"{path}: column {ids!r}")
        if pa.types.is_fixed_size_list(type_):
            self.dims = int(type_.list_size)
        else:
            parts = (part for start in range(0, self.rows, _LOOK_ROWS) for part in self._batches(start, _LOOK_ROWS))
            self.dims = arrow.first_length((part.column(0) for part in parts), self._where)
        check_matrix((self.rows, self.dims), self._where)

    def stamps(self) -> list[Stamp]:
        """State of the version's manifest, which names all its files; versions written later are others."""
        for form in _MANIFESTS:
            place = objects.join(self.name, "_versions", form.format((1 << 64) - 1 - self.version, self.version))
            if objects.exists(place):
                return [Stamp.of(place)]
        raise DataError(f"{self.name}: version {self.version} is gone; give the same command again")

    def blocks(self, start: int) -> Iterator[Block]:
        """Rows from ``start`` on."""
        step = block_rows(self.dims, self.dtype)
        for first in range(start, self.rows, step):
            row = first
            for batch in self._batches(first, step):
                values = arrow.matrix(batch.column(self._column), self.dims, self._where, row)
                ids = None
                if self._ids is not None:
                    ids = arrow.ids(batch.column(self._ids), f"{self.name}: column {self._ids!r}", row)
                yield values, ids
                row += len(batch)
            if row != min(first + step, self.rows):
                raise DataError(f"{self.name}: Lance gave {row} rows of {self.rows}; give the same command again")

    def _batches(self, start: int, count: int) -> Iterator[Any]:
        """Some rows, by a scan of their own: one scan of everything holds the whole dataset, whatever its options."""
        columns = [self._column] if self._ids is None else [self._column, self._ids]
        with self._said():
            yield from (
                self._dataset.scanner(
                    columns=columns, offset=start, limit=count, batch_size=count, scan_in_order=True
                ).to_batches()
            )

    @contextmanager
    def _said(self) -> Iterator[None]:
        """What Lance says of a dataset it cannot read, without the places in its own code."""
        try:
            yield
        except (OSError, ValueError, RuntimeError, pa.ArrowException) as error:
            said = str(error).partition(", /")[0]
            raise DataError(f"{self.name}: Lance cannot read it ({said}); copy or write it again") from error


def _library(path: str) -> Any:
    try:
        return importlib.import_module("lance")
    except ImportError as error:
        raise InputError(f"{path}: Lance datasets need pylance; pip install 'streamcurate[lance]'") from error


def _storage_options(path: str) -> dict[str, str] | None:
    """What Lance does not take from the environment itself: that an endpoint may be plain HTTP."""
    if not objects.is_url(path):
        return None
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL", "")
    return {"allow_http": "true"} if endpoint.startswith("http://") else None


def open_reader(path: str, column: str | None, ids: str | None) -> LanceReader:
    """Open one dataset."""
    return LanceReader(path.rstrip("/"), column, ids)
