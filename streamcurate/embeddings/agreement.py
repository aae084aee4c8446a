"""Whether a table of row numbers is about this store: what its other columns say."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamcurate.embeddings.rowlist import RowList
from streamcurate.errors import DataError, StoreError
from streamcurate.storage import StoredArray

# Rows in order read the store's ids once; of others each piece may read them all, and so only a few are compared.
_COMPARED_ANYWAY = 1 << 20
_FEW = 64


class Agreement:
    """Compares a list's columns ``id`` and ``source`` with the store, piece by piece.

    Parameters
    ----------
    listed : RowList
        Of row numbers.
    ids : StoredArray, or a function that gives it, optional
        The store's.
    """

    def __init__(self, listed: RowList, ids: StoredArray | Callable[[], StoredArray] | None) -> None:
        self._name, self._line = listed.name, listed.first_line
        self._ids: StoredArray | None = None
        if ids is not None and "id" in listed.beside:
            try:
                self._ids = ids() if callable(ids) else ids
            except StoreError:  # gone, and not needed to know the rows
                self._ids = None
        self._source: str | None = None
        self._highest = -1
        self._compared = 0

    def check(self, rows: NDArray[np.int64], beside: Mapping[str, Any]) -> None:
        """Refuse rows of another store.

        Parameters
        ----------
        rows : ndarray of int64, shape (m,)
            Of the store, in the list's order.
        beside : mapping of str to pyarrow array of large_string
            Further columns by their names.

        Raises
        ------
        DataError
            Naming the first line that disagrees.
        """
        if "source" in beside:
            self._check_source(beside["source"])
        if self._ids is not None and len(rows):
            self._check_ids(rows, beside["id"])
        self._line += len(rows)

    def _check_source(self, sources: Any) -> None:
        for source in sources.unique().to_pylist():
            if self._source is not None and source != self._source:
                raise DataError(
                    f"{self._name}: lists rows of several stores ({self._source!r} and {source!r} in column 'source'), "
                    "as mix writes them, and a row number means another row in each; keep the lines of one source"
                )
            self._source = source

    def _check_ids(self, rows: NDArray[np.int64], ids: Any) -> None:
        in_order = int(rows[0]) >= self._highest and bool((np.diff(rows) >= 0).all())
        self._highest = max(self._highest, int(rows.max()))
        if not in_order and self._compared >= _COMPARED_ANYWAY:
            rows, ids = rows[:_FEW], ids[:_FEW]
        self._compared += len(rows)
        assert self._ids is not None  # asked before
        distinct, places = np.unique(rows, return_inverse=True)
        stored = self._ids.take(distinct).astype(object)[places]
        for index, (own, listed) in enumerate(zip(stored.tolist(), ids.to_pylist(), strict=True)):
            # None, and nothing in a CSV file: of parts without ids, a mixture leaves them out.
            if listed and str(own) != listed:
                raise DataError(
                    f'{self._name}: line {self._line + index} names row {rows[index]} and id "{listed}", and the id of '
                    f'that row is "{own}"; the list is of another store, or of another version of this one: name its '
                    "rows by 'id' alone, or make it anew"
                )
