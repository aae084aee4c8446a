"""What ``run.json`` is made of: records, as plain JSON values and back."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

# From here on the centroids do not fit new rows.
_NOVEL_SHARE = 0.05
_FEWEST_NOVEL = 5


@dataclass(frozen=True)
class Sizes:
    """How many points the clusters of a level hold."""

    min: int
    median: float
    max: int


@dataclass(frozen=True)
class LevelRecord:
    """A finished level.

    Parameters
    ----------
    clusters, rows : int
        Clusters, and the points that were clustered.
    inertia : float
        Sum over points of the squared distance to the own centroid (cosine: of 1 - cos).
    empty : int
        Clusters without points.
    sizes : Sizes
    seeding : str
        The method that was used, where ``auto`` was asked for too.
    iterations : int
        Lloyd passes of the last fit.
    digest : str
        Over centroids, labels, members and offsets.
    warnings : tuple of str
    """

    clusters: int
    rows: int
    inertia: float
    empty: int
    sizes: Sizes
    seeding: str
    iterations: int
    digest: str
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class StoreRecord:
    """The rows that were clustered: where they lay, their shape, the fingerprint of their content, whether with ids."""

    path: str
    rows: int
    dims: int
    dtype: str
    fingerprint: str
    ids: bool = False


@dataclass(frozen=True)
class SubsetRecord:
    """The rows of the store that were used, where not all were."""

    path: str
    rows: int
    digest: str


@dataclass(frozen=True)
class NoveltyRecord:
    """How far new rows lie from the centroids they were labelled with.

    Parameters
    ----------
    percentile : int
    threshold : float
        That percentile of the distances of the rows that the centroids were fitted to.
    rows : int
        New rows.
    novel : int
        Those farther from their centroid.
    outside : int
        Those in no cluster: nearest to a coarse cluster that was never split, for it had no rows.
    """

    percentile: int
    threshold: float
    rows: int
    novel: int
    outside: int

    @property
    def share(self) -> float:
        """Of the new rows, how many are novel."""
        return self.novel / self.rows if self.rows else 0.0

    def warning(self, name: str) -> str | None:
        """What to say of rows called ``name`` that the centroids no longer fit; None where there is nothing to say.

        That is where more than 5 % of the rows are novel; fewer than 5 rows tell nothing, for by chance 1 % are.
        """
        if self.novel < _FEWEST_NOVEL or self.share <= _NOVEL_SHARE:
            return None
        return (
            f"{self.share:.0%} of the rows of {name} lie farther out than {self.percentile} % of the rows the tree was "
            "built from; cluster anew"
        )

    def told(self) -> str:
        """In words."""
        outside = f"; {self.outside:,} are in no cluster" if self.outside else ""
        return (
            f"novelty {self.share:.2%}: {self.novel:,} of {self.rows:,} new rows are farther from their centroid than "
            f"{self.threshold:.6g}, the {self.percentile}th percentile of the rows the tree was built from{outside}"
        )


@dataclass(frozen=True)
class ExtensionRecord:
    """What a run was extended from.

    Parameters
    ----------
    run, digest : str
        The run whose centroids these are, and its digest.
    stores : tuple of StoreRecord
        All stores, in the order of their rows.
    novelty : NoveltyRecord or None
        Of the last store's rows; None until level 1 is finished.
    """

    run: str
    digest: str
    stores: tuple[StoreRecord, ...]
    novelty: NoveltyRecord | None = None


class Unreadable(Exception):  # noqa: N818 (carries a key, never leaves this room)
    """The key that is missing or of the wrong kind."""


class Reader:
    """A mapping out of a file, whose values are checked as they are taken."""

    def __init__(self, mapping: object, where: str) -> None:
        if not isinstance(mapping, Mapping):
            raise Unreadable(where.rstrip(".") or "everything")
        self.mapping: Mapping[str, Any] = mapping
        self.where = where

    def value(self, key: str) -> Any:
        """Whatever stands there."""
        if key not in self.mapping:
            raise Unreadable(self.where + key)
        return self.mapping[key]

    def of(self, key: str, kind: type[T]) -> T:
        """A value of one kind."""
        value = self.value(key)
        if kind is float and type(value) is int:
            value = float(value)
        # Not isinstance: a bool is no int here.
        if type(value) is not kind:
            raise Unreadable(self.where + key)
        return value

    def list(self, key: str) -> list[Any]:
        """A list of whatever."""
        return self.of(key, list)

    def reader(self, key: str) -> Reader:
        """A mapping inside."""
        return Reader(self.value(key), f"{self.where}{key}.")


T = TypeVar("T")
_TYPES: dict[str, type] = {"int": int, "float": float, "str": str, "bool": bool}


def record_of(kind: type[T], reader: Reader) -> T:
    """A record of plain fields."""
    fields = dataclasses.fields(kind)  # type: ignore[arg-type]
    return kind(**{one.name: reader.of(one.name, _TYPES[str(one.type)]) for one in fields})


def level_of(reader: Reader) -> LevelRecord:
    """The record of a level."""
    simple = {one.name: _TYPES.get(str(one.type)) for one in dataclasses.fields(LevelRecord)}
    return LevelRecord(
        **{name: reader.of(name, kind) for name, kind in simple.items() if kind is not None},
        sizes=record_of(Sizes, reader.reader("sizes")),
        warnings=tuple(str(text) for text in reader.list("warnings")),
    )


def extension_of(reader: Reader) -> ExtensionRecord:
    """The record of an extended run."""
    stores = (Reader(store, f"{reader.where}stores[{i}].") for i, store in enumerate(reader.list("stores")))
    novelty = reader.value("novelty")
    return ExtensionRecord(
        run=reader.of("run", str),
        digest=reader.of("digest", str),
        stores=tuple(record_of(StoreRecord, store) for store in stores),
        novelty=None if novelty is None else record_of(NoveltyRecord, reader.reader("novelty")),
    )


def plain_extension(record: ExtensionRecord) -> dict[str, Any]:
    """The record of an extended run as JSON values."""
    return {
        "run": record.run,
        "digest": record.digest,
        "stores": [plain(store) for store in record.stores],
        "novelty": None if record.novelty is None else plain(record.novelty),
    }


def plain(record: Any) -> dict[str, Any]:
    """A record's fields as JSON's own types; counts often come as NumPy integers."""
    values = {one.name: getattr(record, one.name) for one in dataclasses.fields(record)}
    kinds = {one.name: _TYPES.get(str(one.type)) for one in dataclasses.fields(record)}
    return {name: value if (kind := kinds[name]) is None else kind(value) for name, value in values.items()}
