"""What is asked of a search by examples: radius, quotas, metric."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from streamcurate.config.checks import whole_number
from streamcurate.errors import ConfigError
from streamcurate.kernels import METRICS, Metric
from streamcurate.neighbors.radius import Radius

_MOST = 1 << 40
_QUOTAS = ("nearest", "per_seed", "per_cluster")


def check_reachable(radius: Radius) -> Radius:
    """Refuse a similarity of 1 to examples, whose unit vectors are rounded to float32.

    Raises
    ------
    ConfigError
    """
    if radius.metric == "cosine" and radius.threshold == 1:
        raise ConfigError(
            "cosine: 1; unit vectors of examples are rounded, and not even copies reach it; give 0.999999 for copies"
        )
    return radius


@dataclass(frozen=True)
class Wanted:
    """Which rows are retrieved.

    Attributes
    ----------
    metric : "l2" or "cosine"
    radius : Radius or None
    nearest, per_seed, per_cluster : int or None
        One of them at most.
    least_seeds, level : int
        Of ``per_cluster``.
    """

    metric: Metric
    radius: Radius | None
    nearest: int | None = None
    per_seed: int | None = None
    per_cluster: int | None = None
    least_seeds: int = 1
    level: int = 1

    @property
    def limit(self) -> float | None:
        """The largest value of the formula that counts; None where any does."""
        return None if self.radius is None else self.radius.limit

    def to_mapping(self) -> dict[str, Any]:
        """As JSON values, what was not asked for left out."""
        found: dict[str, Any] = {"metric": self.metric}
        if self.radius is not None:
            found[self.radius.metric] = self.radius.threshold
        found |= {name: getattr(self, name) for name in _QUOTAS if getattr(self, name) is not None}
        if self.per_cluster is not None:
            found |= {"least_seeds": self.least_seeds, "level": self.level}
        return found


def _option(name: str) -> str:
    """An option as it is typed, in which everyone who calls it otherwise knows it again."""
    return f"--{name.replace('_', '-')}"


def wanted(
    cosine: float | None,
    l2: float | None,
    nearest: int | None,
    per_seed: int | None,
    per_cluster: int | None,
    least_seeds: int,
    level: int,
    metric: str | None,
    tree_metric: str | None,
) -> Wanted:
    """What a user asks for, checked as far as that goes without the rows.

    Parameters
    ----------
    cosine, l2, nearest, per_seed, per_cluster, least_seeds, level, metric
        As for ``retrieve``.
    tree_metric : str or None
        Of the tree that is searched, where there is one.

    Raises
    ------
    ConfigError
        Nothing asked for, numbers out of range, or options that contradict each other.
    """
    radius = None if cosine is None and l2 is None else check_reachable(Radius.of(cosine, l2))
    quotas = {"nearest": nearest, "per_seed": per_seed, "per_cluster": per_cluster}
    asked = {name: value for name, value in quotas.items() if value is not None}
    if radius is None and not asked:
        raise ConfigError(
            "which rows to retrieve is not said: give a radius (--cosine T, --l2 R), a quota (--nearest M rows in all, "
            "--per-seed M, --per-cluster M), or a radius and a quota"
        )
    if len(asked) > 1:
        names = " and ".join(f"{_option(name)} {value}" for name, value in asked.items())
        raise ConfigError(f"{names}: quotas of different kinds; give one of them, and unite the results")
    counts = {name: whole_number(_option(name), value, 1, _MOST) for name, value in asked.items()}
    least_seeds, level = (
        whole_number(_option(name), value, 1, _MOST) for name, value in (("least_seeds", least_seeds), ("level", level))
    )
    if per_cluster is None and (least_seeds != 1 or level != 1):
        name, value = ("level", level) if level != 1 else ("least_seeds", least_seeds)
        raise ConfigError(f"{_option(name)} {value}: is for --per-cluster; give that too, or leave it out")
    if per_cluster is not None and tree_metric is None:
        raise ConfigError(
            f"--per-cluster {per_cluster}: an array or a store has no clusters: give the run directory of its tree "
            "(streamcurate cluster)"
        )
    if metric is not None and metric not in METRICS:
        raise ConfigError(f"metric: {metric!r}; it must be l2 or cosine")
    if radius is not None and metric not in (None, radius.metric):
        raise ConfigError(f"metric: {metric}, but the radius is of {radius.metric} ({radius.told()}); leave metric out")
    chosen: Any = radius.metric if radius is not None else metric or tree_metric or "cosine"
    return Wanted(chosen, radius, least_seeds=least_seeds, level=level, **counts)
