"""The rows with the largest values, as a partial that combines in any order."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from streamcurate.kernels.metric import Float64, Int64


@dataclass(frozen=True)
class FarthestRows:
    """Up to ``count`` rows with the largest values, in order of (value descending, row ascending).

    Attributes
    ----------
    count : int
        The most rows kept.
    values : (f,) float64
    rows : (f,) int64
    """

    count: int
    values: Float64
    rows: Int64

    @property
    def nbytes(self) -> int:
        """Bytes held: 16 a row."""
        return int(self.values.nbytes + self.rows.nbytes)

    @classmethod
    def of(cls, values: Float64, rows: Int64, count: int) -> FarthestRows:
        """The ``count`` rows with the largest values, ties to the lowest row (see :func:`farthest`)."""
        if values.shape != rows.shape or values.ndim != 1:
            raise ValueError(f"values and rows have shapes {values.shape} and {rows.shape}")
        if count < 0:
            raise ValueError(f"count is {count}; it must not be negative")
        if 0 < count < len(values):
            # Only rows at or above the count-th largest value are sorted; ties at it stay in until then.
            threshold = np.partition(values, len(values) - count)[len(values) - count]
            keep = np.flatnonzero(values >= threshold)
            values, rows = values[keep], rows[keep]
        order = np.lexsort((rows, -values))[:count]
        return cls(count, values[order].astype(np.float64), rows[order].astype(np.int64))

    def combine(self, other: FarthestRows) -> FarthestRows:
        """The farthest of both."""
        if self.count != other.count:
            raise ValueError(f"the farthest {self.count} and the farthest {other.count} rows cannot be combined")
        values = np.concatenate([self.values, other.values])
        return FarthestRows.of(values, np.concatenate([self.rows, other.rows]), self.count)
