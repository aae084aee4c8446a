"""Integer potentials of k-means++: what each trial centre would leave."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from streamcurate.kernels.jit import compiled


@compiled
def trial_totals(
    distances: NDArray[np.int64], potentials: NDArray[np.int64], weights: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Sum over the rows of weight * min(potential, distance to the trial), for each trial.

    Parameters
    ----------
    distances : ndarray of int64, shape (trials, n)
    potentials : ndarray of int64, shape (n,)
    weights : ndarray of int64, shape (n,) or (0,)
        Empty: every row weighs one.

    Returns
    -------
    ndarray of int64, shape (trials,)
    """
    trials, rows = distances.shape
    totals = np.zeros(trials, dtype=np.int64)
    weighted = weights.size > 0
    for trial in range(trials):
        total = np.int64(0)
        line = distances[trial]
        if weighted:
            for row in range(rows):
                total += weights[row] * min(potentials[row], line[row])
        else:
            for row in range(rows):
                total += min(potentials[row], line[row])
        totals[trial] = total
    return totals
