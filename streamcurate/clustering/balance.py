"""Levels that came out lopsided: said, with what to change."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# A node is called dominant from this share of all rows and this multiple of an even share on, so that two or three
# clusters of a small top level are not.
_DOMINANT_SHARE = 0.25
_DOMINANT_MULTIPLE = 8
_SINGLETON_SHARE = 0.5


def warnings_of(level: int, rows: NDArray[np.int64], sizes: NDArray[np.int64]) -> tuple[str, ...]:
    """What is wrong with a level's balance, in words.

    Parameters
    ----------
    level : int
    rows : ndarray of int64, shape (clusters,)
        Rows of the store under each cluster.
    sizes : ndarray of int64, shape (clusters,)
        Points of the level below in each cluster.
    """
    found = []
    total, used = int(rows.sum()), int(np.count_nonzero(rows))
    if used > 1:
        largest = int(rows.max())
        if largest >= _DOMINANT_SHARE * total and largest * used >= _DOMINANT_MULTIPLE * total:
            found.append(
                f"level {level} is degenerate: its largest cluster holds {largest:,} of {total:,} rows "
                f"({largest / total:.0%}), {largest * used / total:.0f} times an even share; no resampling, "
                "more rows kept per cluster when resampling, or leaving the level out gives a more even tree"
            )
        single = int(np.count_nonzero(rows == 1))
        if single > _SINGLETON_SHARE * used:
            found.append(
                f"level {level} is degenerate: {single:,} of {used:,} clusters hold a single row; "
                "keep more rows per cluster when resampling, or choose fewer clusters"
            )
    empty = len(sizes) - int(np.count_nonzero(sizes))
    if empty:
        found.append(
            f"level {level}: {empty:,} of {len(sizes):,} clusters are empty (fewer distinct points than clusters)"
        )
    return tuple(found)
