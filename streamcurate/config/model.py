"""The configuration itself: levels, resampling, and the whole of a run."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from numbers import Real
from typing import Any

from streamcurate.config.checks import choice, inside, is_list, kind, known_keys, share, whole_number
from streamcurate.config.formats import flat_to_own, is_flat, read_yaml
from streamcurate.errors import ConfigError

METRICS = ("l2", "cosine")
STRATEGIES = ("closest", "random")
SEEDINGS = ("auto", "k-means++", "k-means||", "random")
ALGORITHMS = ("lloyd", "minibatch")
SEARCHES = ("exact", "faiss")

# Labels are stored as int32.
MOST_CLUSTERS = 2**31 - 1
_MOST_ROWS = 2**63 - 1
# The seed is one 64-bit key of the random generator.
_LARGEST_SEED = 2**64 - 1

_LEVEL_KEYS = ("clusters", "splits", "iterations", "tolerance", "init", "algorithm", "fit_rows", "resampling", "search")
_RESAMPLING_KEYS = ("steps", "rows_per_cluster", "strategy")
_CONFIG_KEYS = ("metric", "seed", "subset", "levels")


@dataclass(frozen=True)
class Resampling:
    """Resampled fits of one level: keep some points of each cluster, fit again on them, label all points.

    Parameters
    ----------
    steps : int
        How often, after the first fit.
    rows_per_cluster : int
        Points kept of each cluster.
    strategy : {"closest", "random"}
        Which points: the nearest to the centroid, or random ones.

    Raises
    ------
    ConfigError
        A value is out of range.
    """

    steps: int
    rows_per_cluster: int
    strategy: str = "closest"

    def __post_init__(self) -> None:
        _set(
            self,
            "steps",
            whole_number("steps", self.steps, 1, MOST_CLUSTERS, "for no resampling leave the key resampling out"),
        )
        _set(self, "rows_per_cluster", whole_number("rows_per_cluster", self.rows_per_cluster, 1, MOST_CLUSTERS))
        choice("strategy", self.strategy, STRATEGIES)


@dataclass(frozen=True)
class Level:
    """One level of the hierarchy.

    Parameters
    ----------
    clusters : int
        Clusters of the fit (before splits).
    splits : int
        Split each cluster into up to so many afterwards; 1 is none.
    iterations : int
        Most Lloyd passes of one fit.
    tolerance : float
        Stop when the relative gain in inertia falls below this; 0 runs until no label changes.
    init : {"auto", "k-means++", "k-means||", "random"}
        Seeding.
    algorithm : {"lloyd", "minibatch"}
        Lloyd passes alone, or after a mini-batch warm-up.
    fit_rows : int or None
        Fit on a uniform sample of so many points, then label all of them.
    resampling : Resampling or None
        Resampled fits after the first one.
    search : {"exact", "faiss"}
        How final labels are found: exactly, or by an approximate index over the centroids, whose recall is measured
        and reported. For very many clusters; needs the extra ``faiss``.

    Raises
    ------
    ConfigError
        A value is out of range.

    Examples
    --------
    >>> Level(5000, resampling=Resampling(steps=9, rows_per_cluster=10)).most_clusters
    5000
    >>> Level(100, splits=20).most_clusters
    2000
    """

    clusters: int
    splits: int = 1
    iterations: int = 50
    tolerance: float = 1e-4
    init: str = "auto"
    algorithm: str = "lloyd"
    fit_rows: int | None = None
    resampling: Resampling | None = None
    search: str = "exact"

    def __post_init__(self) -> None:
        _set(self, "clusters", whole_number("clusters", self.clusters, 1, MOST_CLUSTERS))
        _set(self, "splits", whole_number("splits", self.splits, 1, MOST_CLUSTERS, "1 is no splits"))
        _set(self, "iterations", whole_number("iterations", self.iterations, 1, MOST_CLUSTERS))
        _set(self, "tolerance", share("tolerance", self.tolerance, "0 runs until no label changes"))
        choice("init", self.init, SEEDINGS)
        choice("algorithm", self.algorithm, ALGORITHMS)
        choice("search", self.search, SEARCHES)
        if self.search != "exact" and self.splits > 1:
            raise ConfigError(
                f"search: {self.search} with {self.splits:,} splits; a row of a level with splits is compared with the "
                "leaves of its own cluster alone, which needs no index: leave search out"
            )
        if self.fit_rows is not None:
            fix = "a fit needs at least as many rows as clusters; null fits on all rows"
            _set(self, "fit_rows", whole_number("fit_rows", self.fit_rows, self.clusters, _MOST_ROWS, fix))
        resampling: object = self.resampling
        if resampling is not None and not isinstance(resampling, Resampling):
            raise ConfigError(
                f"resampling: {resampling!r} is no resampling; "
                "give Resampling(steps=..., rows_per_cluster=...), or None for none"
            )
        if self.most_clusters > MOST_CLUSTERS:
            raise ConfigError(
                f"splits: {self.splits:,} splits of {self.clusters:,} clusters make up to {self.most_clusters:,}; "
                f"at most {MOST_CLUSTERS:,} can be numbered; lower one of the two"
            )

    @property
    def most_clusters(self) -> int:
        """The most clusters the level can end with, its splits included."""
        return self.clusters * self.splits


@dataclass(frozen=True)
class Config:
    """Everything that a run is asked to do, defaults filled in.

    Parameters
    ----------
    levels : sequence of Level
        From the rows upwards; each with fewer clusters than the one below gives. A whole number of any library stands
        for ``Level(clusters)``.
    metric : {"l2", "cosine"}
    seed : int
        From 0 to 2**64 - 1.
    subset : str or None
        NPY file with the row numbers to use; None uses all rows. A relative path is taken relative to the working
        directory of the run, not to the file that names it.
    notes : tuple of str
        What the reader of a file should tell the user. No part of equality or of :meth:`identity`.

    Raises
    ------
    ConfigError
        A value is out of range, or the levels do not shrink.

    Examples
    --------
    >>> config = Config((Level(100), Level(10)), seed=7)
    >>> Config.from_mapping(config.to_mapping()) == config
    True
    """

    levels: tuple[Level, ...]
    metric: str = "l2"
    seed: int = 0
    subset: str | None = None
    notes: tuple[str, ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        choice("metric", self.metric, METRICS)
        _set(self, "seed", whole_number("seed", self.seed, 0, _LARGEST_SEED))
        subset: object = self.subset
        if subset is not None:
            if not isinstance(subset, str | os.PathLike) or not os.fspath(subset):
                raise ConfigError(
                    f"subset: {subset!r} is no path; give an .npy file of row numbers, or null for all rows"
                )
            _set(self, "subset", os.fspath(subset))
        levels: Any = self.levels
        if not is_list(levels):
            raise ConfigError(
                f"levels: {levels!r} is no list of levels; give one, lowest level first, e.g. [5000, 1000]"
            )
        if not levels:
            raise ConfigError("levels: the list is empty; give at least one level, lowest first, e.g. [5000, 1000]")
        levels = tuple(_plain_level(f"levels[{index}]", level) for index, level in enumerate(levels))
        for index, level in enumerate(levels):
            if not isinstance(level, Level):
                raise ConfigError(f"levels[{index}]: {level!r} is no level; give Level(clusters)")
        for index in range(1, len(levels)):
            below, above = levels[index - 1], levels[index]
            if above.most_clusters >= below.most_clusters:
                raise ConfigError(
                    f"levels[{index}].clusters: {_count(above)} over the {_count(below)} of levels[{index - 1}]; "
                    "a level must have fewer clusters than the one below it gives; list the levels from the largest "
                    "number of clusters to the smallest"
                )
        _set(self, "levels", levels)

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> Config:
        """Read a configuration file, YAML or JSON, in our format or the flat one of the method's authors.

        Raises
        ------
        ConfigError
            The file is missing or unreadable, or something in it is wrong; the message names the place.
        """
        return cls.from_mapping(read_yaml(path), str(path))

    @classmethod
    def from_mapping(cls, mapping: object, origin: str = "configuration") -> Config:
        """Check and take over a mapping such as a configuration file holds.

        Parameters
        ----------
        mapping : mapping
            Keys ``metric``, ``seed``, ``subset``, ``levels``; or those of the flat format. A level is a mapping, or
            just its number of clusters. A relative path of a subset is taken relative to the working directory.
        origin : str
            Where the mapping comes from; messages begin with it.

        Raises
        ------
        ConfigError
            An unknown key (the near miss is named), a missing key, or a value out of range.
        """
        with inside(f"{origin}: "):
            if not isinstance(mapping, Mapping):
                raise ConfigError(f"holds {kind(mapping)}, not keys with values; it needs at least the key levels")
            notes: tuple[str, ...] = ()
            if is_flat(mapping):
                mapping, notes = flat_to_own(mapping)
            known_keys(mapping, _CONFIG_KEYS)
            if "levels" not in mapping:
                raise ConfigError("the key levels is missing; give a list such as [{clusters: 1000}, {clusters: 100}]")
            if not is_list(mapping["levels"]):
                raise ConfigError(
                    f"levels: holds {kind(mapping['levels'])}, not a list; write [5000, 1000], "
                    "or begin each level with '- clusters:'"
                )
            levels = tuple(_level(f"levels[{index}]", value) for index, value in enumerate(mapping["levels"]))
            options = {key: mapping[key] for key in ("metric", "seed", "subset") if key in mapping}
            return cls(levels, notes=notes, **options)

    def to_mapping(self) -> dict[str, Any]:
        """The whole configuration, defaults filled in, as plain values that JSON can hold."""
        return {
            "metric": self.metric,
            "seed": self.seed,
            "subset": self.subset,
            "levels": [_level_mapping(level) for level in self.levels],
        }

    def identity(self) -> dict[str, Any]:
        """What defines a run besides its rows: metric, seed and levels.

        The subset is no part of it, since a path says little: the run's manifest compares the content of the subset and
        of the store.
        """
        return {key: value for key, value in self.to_mapping().items() if key != "subset"}


def parse_levels(text: str) -> tuple[Level, ...]:
    """Levels from their short form on the command line.

    Raises
    ------
    ConfigError
        A part is no number of clusters.

    Examples
    --------
    >>> [level.clusters for level in parse_levels("5_000,1000")]
    [5000, 1000]
    """
    with inside(f"levels {text!r}: "):
        return tuple(
            Level(whole_number("clusters", part.strip(), 1, MOST_CLUSTERS, "write 5000,1000"))
            for part in text.split(",")
        )


def _plain_level(where: str, value: object) -> object:
    """A number of clusters as the level it stands for; anything else as it is."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return value
    with inside(f"{where}."):
        return Level(value)  # type: ignore[arg-type]  # what is no whole number is refused there


def _level(where: str, value: object) -> Level:
    value = _plain_level(where, value)
    if isinstance(value, Level):
        return value
    if not isinstance(value, Mapping):
        raise ConfigError(
            f"{where}: holds {kind(value)}, neither keys with values nor a number of clusters; "
            "write 'clusters: 1000', or just 1000"
        )
    with inside(f"{where}."):
        known_keys(value, _LEVEL_KEYS)
        if "clusters" not in value:
            raise ConfigError("clusters: is missing; give the number of clusters of this level")
        options = dict(value)
        resampling = options.get("resampling")
        if resampling is not None:
            if not isinstance(resampling, Mapping):
                raise ConfigError(
                    f"resampling: holds {kind(resampling)}; write {{steps: 9, rows_per_cluster: 5}}, or null for none"
                )
            with inside("resampling."):
                known_keys(resampling, _RESAMPLING_KEYS)
                for key in ("steps", "rows_per_cluster"):
                    if key not in resampling:
                        raise ConfigError(f"{key}: is missing; write {{steps: 9, rows_per_cluster: 5}}")
                options["resampling"] = Resampling(**resampling)
        return Level(**options)


def _level_mapping(level: Level) -> dict[str, Any]:
    mapping = asdict(level)
    if level.search == "exact":  # so that a run is still the same run for versions that know no other search
        del mapping["search"]
    return mapping


def _set(instance: object, name: str, value: object) -> None:
    object.__setattr__(instance, name, value)


def _count(level: Level) -> str:
    return f"{level.most_clusters:,} clusters" + (
        f" ({level.clusters:,} × {level.splits:,})" if level.splits > 1 else ""
    )
