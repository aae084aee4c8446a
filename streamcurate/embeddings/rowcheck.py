"""Which rows can be used: the check every row passes on its way into a store."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

NOT_FINITE = "not finite"
OVERFLOW = "overflow"
ZERO = "zero norm"


def convert(values: NDArray[Any], dtype: np.dtype[Any], cosine: bool) -> tuple[NDArray[Any], dict[str, NDArray[Any]]]:
    """Rows in the store's dtype, and the numbers of those that cannot be used.

    Parameters
    ----------
    values : ndarray, shape (m, d)
    dtype : dtype
        Of the store.
    cosine : bool
        Rows of norm 0 have no direction and cannot be used.

    Returns
    -------
    converted : ndarray of ``dtype``, shape (m, d)
    bad : dict of str to ndarray of int64
        Kind of fault → rows that have it, each row under its first kind only; empty where all rows are good.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        converted = np.ascontiguousarray(values, dtype=dtype)
    bad = {}
    if not np.isfinite(converted).all():
        lost = ~np.isfinite(converted).all(axis=1)
        were_finite = np.isfinite(values).all(axis=1)
        bad = {NOT_FINITE: np.flatnonzero(lost & ~were_finite), OVERFLOW: np.flatnonzero(lost & were_finite)}
    if cosine:
        bad[ZERO] = np.flatnonzero(~converted.any(axis=1))
    return converted, {kind: rows for kind, rows in bad.items() if len(rows)}


@dataclass
class BadRows:
    """Counts bad rows by source and kind, and remembers the first.

    Attributes
    ----------
    dtype : dtype
        Of the store, for messages.
    sources : dict
        Name of a source → kind → count.
    first : tuple or None
        Source, row inside it, and id of the first bad row.
    """

    dtype: np.dtype[Any]
    sources: dict[str, Counter[str]] = field(default_factory=dict)
    first: tuple[int, Any] | None = None
    bad_values: str = "NaN or Inf"

    def add(self, source: str, bad_values: str, start: int, bad: dict[str, NDArray[Any]], ids: Any) -> None:
        """Count the bad rows of a block that begins at row ``start`` of its source."""
        if not bad:
            return
        if self.first is None:
            row = min(int(rows[0]) for rows in bad.values())
            self.first = (start + row, None if ids is None else ids[row])
            self.bad_values = bad_values
        counts = self.sources.setdefault(source, Counter())
        for kind, rows in bad.items():
            counts[kind] += len(rows)

    @property
    def total(self) -> int:
        """Bad rows in all sources."""
        return sum(counts.total() for counts in self.sources.values())

    def __str__(self) -> str:
        """Where, how many and of which kind, the first, and how many in other sources."""
        assert self.first is not None
        name, counts = next(iter(self.sources.items()))
        row, id_ = self.first
        kinds = ", ".join(self._say(kind, count) for kind, count in counts.items())
        said_id = "" if id_ is None else f", id {id_}" if isinstance(id_, (int, np.integer)) else f', id "{id_}"'
        text = f"{name}: {kinds} (first: row {row}{said_id})"
        if len(self.sources) > 1:
            rows, others = self.total - counts.total(), len(self.sources) - 1
            text += f", and {rows:,} more bad row{'s' * (rows != 1)} in {others} other source{'s' * (others != 1)}"
        return text

    @property
    def fix(self) -> str:
        """What the user can do."""
        drop = "drop them with --on-bad-row drop"
        overflows = any(OVERFLOW in counts for counts in self.sources.values())
        return f"ingest with --dtype float32, or {drop}" if overflows and self.dtype == np.float16 else drop

    def _say(self, kind: str, count: int) -> str:
        rows, s = ("row", "s") if count == 1 else ("rows", "")
        match kind:
            case "not finite":
                return f"{count:,} {rows} hold{s} {self.bad_values}"
            case "overflow":
                limit = f"{float(np.finfo(self.dtype).max):g}"
                return f"{count:,} {rows} hold{s} values beyond {self.dtype.name} (largest {limit})"
            case _:
                return f"{count:,} {rows} {'has' if count == 1 else 'have'} norm 0, which cosine cannot use"
