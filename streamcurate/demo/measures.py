"""How even a choice of rows is."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def shares(counts: ArrayLike) -> NDArray[np.float64]:
    """Counts as shares of their sum.

    Parameters
    ----------
    counts : array of shape (groups,)
        None negative, not all 0.

    Returns
    -------
    ndarray of float64, shape (groups,)
    """
    values = np.asarray(counts, dtype=np.float64)
    return np.asarray(values / values.sum())


def divergence(counts: ArrayLike) -> float:
    """Kullback-Leibler divergence of the groups' shares from even shares, in nats.

    Σ pᵢ ln(pᵢ g) over g groups: 0 where all groups have the same share, ln g where one has everything.

    Parameters
    ----------
    counts : array of shape (groups,)
        Rows of each group, the groups without any included.

    Examples
    --------
    >>> divergence([5, 5]), round(divergence([10, 0]), 4)
    (0.0, 0.6931)
    """
    share = shares(counts)
    held = share[share > 0]
    return float((held * np.log(held * len(share))).sum())
