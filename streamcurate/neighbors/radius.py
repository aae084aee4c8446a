"""How near two rows must be: a least cosine similarity, or a largest Euclidean distance."""

from __future__ import annotations

import math
from dataclasses import dataclass

from streamcurate.errors import ConfigError
from streamcurate.kernels import Metric

# Beyond this its square is no float64.
_LONGEST = 1e150
_LEAST = math.ulp(0.0)


@dataclass(frozen=True)
class Radius:
    """A threshold as a user gives it.

    Attributes
    ----------
    metric : "l2" or "cosine"
    threshold : float
        The Euclidean distance, or the cosine similarity.
    """

    metric: Metric
    threshold: float

    @classmethod
    def of(cls, cosine: object, l2: object) -> Radius:
        """From the two options, of which exactly one is given.

        Raises
        ------
        ConfigError
            Both or neither, or out of range.
        """
        if (cosine is None) == (l2 is None):
            raise ConfigError(
                "cosine and l2: give exactly one of them, the least cosine similarity (--cosine 0.95) or the largest "
                "Euclidean distance (--l2 0.3)"
            )
        if l2 is None:
            return cls("cosine", _number("cosine", cosine, _LEAST, 1, "a number above 0, up to 1"))
        return cls("l2", _number("l2", l2, 0, _LONGEST, f"a number from 0, which asks for copies, to {_LONGEST:g}"))

    @property
    def limit(self) -> float:
        """The same as a bound on the squared distance: of unit vectors, for cosine."""
        return 2 * (1 - self.threshold) if self.metric == "cosine" else self.threshold * self.threshold

    def told(self) -> str:
        """In words."""
        if self.metric == "cosine":
            return f"cosine similarity {self.threshold:g} or more"
        return f"Euclidean distance {self.threshold:g} or less"


def _number(key: str, value: object, least: float, most: float, allowed: str) -> float:
    number = math.nan
    if not isinstance(value, bool):
        try:
            number = float(value)  # type: ignore[arg-type]
        except (TypeError, ValueError, OverflowError):
            number = math.nan
    if not least <= number <= most:
        raise ConfigError(f"{key}: {value!r} is not allowed; it must be {allowed}")
    return number + 0.0  # of -0.0 it makes 0.0
