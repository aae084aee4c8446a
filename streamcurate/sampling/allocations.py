"""Allocations: by which rule, and within which bounds, every parent of a tree shares its quota among its children.

The options act in this order:

1. Clusters of a level with fewer than ``least_rows`` rows give nothing, nor does what lies below them; so do clusters
   whose weight or cap is 0. Their rows do not count as rows under the nodes above. Rows of an earlier draw stay.
2. A cap lowers what a cluster can give, and with it what its parents can.
3. A least raises what a cluster must give, as far as it holds that much, and with it what its parents must.
4. The weight of a child is 1 (balanced), its rows (proportional) or its rows to the power ``alpha`` (power), times its
   weight from the file.
5. From the root down every parent is filled by these weights within these bounds (:func:`.quotas.fill`).
6. With ``outlier_share`` the outliers among a parent's children (:mod:`.outliers`) then give together at most that
   share of its quota, rounded down, as long as the other children can give the rest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from streamcurate.errors import ConfigError
from streamcurate.sampling.weights import ClusterWeights, read_weights

ALLOCATIONS = ("balanced", "proportional", "power")

_LARGEST = 2**62


@dataclass(frozen=True)
class Allocation:
    """How quotas are shared; :func:`make_allocation` makes and checks one.

    Attributes
    ----------
    name : str
        One of :data:`ALLOCATIONS`.
    alpha : float
        Exponent of the rows under a child: 0 for balanced, 1 for proportional.
    least_rows : int
        Clusters with fewer rows give nothing.
    least_rows_level : int
        The level of these clusters.
    weights : ClusterWeights or None
        Of single clusters.
    outlier_share : float or None
        Most that the outliers of a parent give together, as a share of its quota.
    outlier_rows : int
        Most rows of an outlier.
    outlier_percentile : float
        An outlier is farther from its parent than clusters with so many per cent of the rows.
    """

    name: str = "balanced"
    alpha: float = 0.0
    least_rows: int = 0
    least_rows_level: int = 1
    weights: ClusterWeights | None = None
    outlier_share: float | None = None
    outlier_rows: int = 1
    outlier_percentile: float = 90.0

    @property
    def options(self) -> dict[str, Any]:
        """The options that are not the default ones, by name, as they are written to JSON."""
        said: dict[str, Any] = {}
        if self.name != "balanced":
            said["allocation"] = self.name
        if self.name == "power":
            said["alpha"] = self.alpha
        if self.least_rows:
            said |= {"least_rows": self.least_rows, "least_rows_level": self.least_rows_level}
        if self.weights is not None:
            said["weights"] = self.weights.name
        if self.outlier_share is not None:
            said |= {
                "outlier_share": self.outlier_share,
                "outlier_rows": self.outlier_rows,
                "outlier_percentile": self.outlier_percentile,
            }
        return said


def make_allocation(
    allocation: str = "balanced",
    alpha: float | None = None,
    least_rows: int | None = None,
    least_rows_level: int | None = None,
    weights: Any = None,
    outlier_share: float | None = None,
    outlier_rows: int | None = None,
    outlier_percentile: float | None = None,
) -> Allocation:
    """Check the options of an allocation and read its weights; :func:`streamcurate.sampling.sample` says what they are.

    Raises
    ------
    ConfigError
        An option is unknown, out of range, or says nothing without another.
    InputError
        The weights cannot be read.
    """
    if allocation not in ALLOCATIONS:
        raise ConfigError(f"allocation: {allocation!r} is unknown; known: {', '.join(ALLOCATIONS)}")
    if allocation == "power" and alpha is None:
        raise ConfigError("allocation: 'power' needs alpha, a number from 0 (balanced) to 1 (proportional)")
    if allocation != "power" and alpha is not None:
        raise ConfigError(f"alpha: {alpha} says nothing to the allocation {allocation!r}; choose 'power', or leave it")
    for name, value, other, there in (
        ("least_rows_level", least_rows_level, "least_rows", least_rows),
        ("outlier_rows", outlier_rows, "outlier_share", outlier_share),
        ("outlier_percentile", outlier_percentile, "outlier_share", outlier_share),
    ):
        if value is not None and there is None:
            raise ConfigError(f"{name}: {value} says nothing without {other}; give both")
    alphas = {"balanced": 0.0, "proportional": 1.0}
    return Allocation(
        allocation,
        alphas[allocation] if alpha is None else _number("alpha", alpha, 0, 1),
        0 if least_rows is None else _count("least_rows", least_rows),
        1 if least_rows_level is None else _count("least_rows_level", least_rows_level),
        None if weights is None else read_weights(weights),
        None if outlier_share is None else _number("outlier_share", outlier_share, 0, 1),
        1 if outlier_rows is None else _count("outlier_rows", outlier_rows),
        90.0 if outlier_percentile is None else _number("outlier_percentile", outlier_percentile, 0, 100),
    )


BALANCED = Allocation()


def _count(name: str, value: Any) -> int:
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)) or not 1 <= value <= _LARGEST:
        raise ConfigError(f"{name}: {value!r} cannot be; give a whole number from 1 to {_LARGEST}")
    return int(value)


def _number(name: str, value: Any, least: float, most: float) -> float:
    numbers = (int, float, np.integer, np.floating)
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, numbers) or not least <= value <= most:
        raise ConfigError(f"{name}: {value!r} cannot be; give a number from {least} to {most}")
    return float(value)
