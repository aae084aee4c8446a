"""The data of the speed benchmark: real text embeddings, synthetic rows that resemble them, and a worst case.

Real: `embeddings.npy` of a folder given by the user, float16, unit norm (20,000 × 384 text embeddings here).

Clustered: rows shaped after those. Of the real ones was measured (covariance of all rows; residuals of a 1,000-means):
their mean has squared norm 0.121; the leading 8, 32, 64, 128, 192 of 384 eigenvalues hold 0.185, 0.409, 0.577, 0.782,
0.900 of the variance, those of the residuals 0.103, 0.296, 0.475, 0.718, 0.869; a 200-, 1,000- and 2,000-means leaves
0.746, 0.646, 0.586 of the variance. The law: eigenvalue number i of d is proportional to i^-a exp(-3.7 (i / d)²), with
a = 0.6 for what is between clusters and 0.3 for what is within them, in a random orthogonal basis. A row is the common
mean, a group's centre (100 of them; 0.18 of the variance), a component's within it (4,000; 0.22), and noise (0.52 times
a factor of its component: log-normal, spread 0.3), scaled to unit norm; component i has a share of rows proportional
to i^-0.8. 20,000 rows made so have leading shares 0.188, 0.422, 0.600, 0.809, 0.920, leave 0.702, 0.609, 0.552, and
prune alike: of all pairs of a row and one of 1,000 centroids, a bound from the leading 64, 96, 128 principal
coordinates and the norm of the rest leaves 8.1, 2.0, 0.55 % open, where the real rows leave 7.7, 1.6, 0.45 %; of 2,000
centroids 4.7, 1.0, 0.27 % against 5.0, 0.9, 0.21 %. At other d the law is stretched with i / d: there were no real rows
to measure.

Isotropic: normal numbers scaled to unit norm, which no bound prunes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

GROUPS, COMPONENTS, EXPONENT = 100, 4000, 0.8
BETWEEN, WITHIN, CUT = 0.6, 0.3, 3.7
MEAN, GROUP, COMPONENT, NOISE = 0.12, 0.18, 0.22, 0.52
UNEVENNESS = 0.3
_BLOCK = 1 << 13


@dataclass(frozen=True)
class Case:
    """One data set and number of clusters.

    Attributes
    ----------
    kind : "real", "clustered" or "isotropic"
    rows, dims, clusters : int
        Of "real", ``rows`` is the most that are taken, 0 for all.
    dtype : "float16" or "float32"
        In which the rows are stored; both dtypes hold the same values of them.
    everyone : bool
        Whether slow or differing peers take part as well, in one round.
    """

    kind: str
    rows: int
    dims: int
    clusters: int
    dtype: str
    everyone: bool = False

    @property
    def name(self) -> str:
        """As options and tables name it."""
        return f"{self.kind}-{self.dims}-{self.clusters}"

    @property
    def flop(self) -> float:
        """Of one iteration by brute force: 2 n k d."""
        return 2.0 * self.rows * self.clusters * self.dims


def eigenvalues(dims: int, exponent: float) -> NDArray[np.float64]:
    """The law, adding up to one."""
    number = np.arange(1, dims + 1)
    shares = number**-exponent * np.exp(-CUT * (number / dims) ** 2)
    found: NDArray[np.float64] = shares / shares.sum()
    return found


def make_rows(case: Case, folder: Path | None = None, seed: int = 0) -> NDArray[Any]:
    """The rows of a case, shape (rows, dims).

    Raises
    ------
    FileNotFoundError
        The real ones are not there.
    """
    if case.kind == "real":
        return real_rows(folder)[: case.rows or None].astype(case.dtype, copy=False)
    generator = np.random.default_rng([seed, case.dims])
    make = clustered_rows if case.kind == "clustered" else isotropic_rows
    return make(case.rows, case.dims, generator).astype(case.dtype)


def real_rows(folder: Path | None) -> NDArray[Any]:
    """All of `embeddings.npy`."""
    if folder is None or not (folder / "embeddings.npy").exists():
        raise FileNotFoundError("no embeddings.npy; name its folder with --data")
    rows: NDArray[Any] = np.load(folder / "embeddings.npy")
    return rows


def clustered_rows(rows: int, dims: int, generator: np.random.Generator) -> NDArray[np.float32]:
    """The mixture of this file's description."""
    between = np.sqrt(eigenvalues(dims, BETWEEN)).astype(np.float32)
    within = np.sqrt(NOISE * eigenvalues(dims, WITHIN)).astype(np.float32)
    basis = np.linalg.qr(generator.standard_normal((dims, dims)))[0].astype(np.float32)
    groups = generator.standard_normal((GROUPS, dims), dtype=np.float32) * between * np.float32(GROUP**0.5)
    centres = generator.standard_normal((COMPONENTS, dims), dtype=np.float32) * between * np.float32(COMPONENT**0.5)
    centres += groups[generator.integers(0, GROUPS, COMPONENTS)]
    # All means lie along the direction of least variance: in no one's way.
    centres[:, -1] += MEAN**0.5
    factors = np.exp(UNEVENNESS * generator.standard_normal(COMPONENTS) - UNEVENNESS**2).astype(np.float32)
    weights = np.arange(1, COMPONENTS + 1) ** -EXPONENT
    own = generator.choice(COMPONENTS, rows, p=weights / weights.sum())
    found = np.empty((rows, dims), dtype=np.float32)
    for start in range(0, rows, _BLOCK):
        which = own[start : start + _BLOCK]
        block = generator.standard_normal((len(which), dims), dtype=np.float32) * within * factors[which, None]
        block += centres[which]
        found[start : start + len(which)] = _unit(block @ basis)
    return found


def isotropic_rows(rows: int, dims: int, generator: np.random.Generator) -> NDArray[np.float32]:
    """Directions drawn evenly."""
    return _unit(generator.standard_normal((rows, dims), dtype=np.float32))


def _unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    rows /= np.sqrt(np.einsum("ij,ij->i", rows, rows))[:, None]
    return rows
