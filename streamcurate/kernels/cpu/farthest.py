"""The rows with the largest values of one block."""

from __future__ import annotations

from streamcurate.kernels.farthest_rows import FarthestRows
from streamcurate.kernels.metric import Float64, Int64


def farthest(values: Float64, rows: Int64, count: int) -> FarthestRows:
    """The ``count`` rows with the largest values, ties to the lowest row.

    Parameters
    ----------
    values : (m,) float64
        Formula values, for example; not NaN.
    rows : (m,) int64
        Row numbers.
    count : int

    Returns
    -------
    FarthestRows

    Notes
    -----
    Up to 9 bytes a row of work, and 32 for each row at or above the smallest value kept.
    """
    return FarthestRows.of(values, rows, count)
