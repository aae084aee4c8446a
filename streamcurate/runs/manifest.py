"""``run.json``: what a run was asked to do, on which rows, with what, and what is finished."""

from __future__ import annotations

import dataclasses
import functools
import importlib.metadata
import json
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from streamcurate.config import Config
from streamcurate.errors import RunError
from streamcurate.files import write_json
from streamcurate.version import __version__

MANIFEST_NAME = "run.json"
FORMAT_VERSION = 1


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


def current_versions() -> dict[str, str]:
    """The versions of what computes: Python and the libraries that could matter."""
    return dict(_versions())


@functools.cache
def _versions() -> tuple[tuple[str, str], ...]:
    libraries = ("numpy", "zarr", "numba")
    return (
        ("python", platform.python_version()),
        *((name, importlib.metadata.version(name)) for name in libraries),
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass(frozen=True)
class Manifest:
    """The content of ``run.json``.

    Parameters
    ----------
    config : mapping
        :meth:`Config.to_mapping`, defaults filled in.
    store : StoreRecord
    subset : SubsetRecord or None
    levels : tuple of LevelRecord
        The finished ones, lowest first.
    complete : bool
        Whether all levels are finished.
    digest : str or None
        Over the levels' digests; None until complete.
    engine, created, versions, format_version
        The version of streamcurate that began the run, the time (UTC, ISO 8601), the versions of the libraries, and
        that of the file's format.
    """

    config: Mapping[str, Any]
    store: StoreRecord
    subset: SubsetRecord | None = None
    levels: tuple[LevelRecord, ...] = ()
    complete: bool = False
    digest: str | None = None
    engine: str = __version__
    created: str = field(default_factory=_now)
    versions: Mapping[str, str] = field(default_factory=current_versions)
    format_version: int = FORMAT_VERSION

    @classmethod
    def begin(cls, config: Config, store: StoreRecord, subset: SubsetRecord | None = None) -> Manifest:
        """The manifest of a run in which nothing is finished yet."""
        return cls(config.to_mapping(), store, subset)

    @property
    def metric(self) -> str:
        """The metric the run was asked for."""
        return str(self.config["metric"])

    @property
    def seed(self) -> int:
        """The seed the run was asked for."""
        return int(self.config["seed"])

    def with_level(self, level: LevelRecord) -> Manifest:
        """The same with one more finished level."""
        return dataclasses.replace(self, levels=(*self.levels, level))

    def finished(self, digest: str) -> Manifest:
        """The same, complete."""
        return dataclasses.replace(self, complete=True, digest=digest)

    def write(self, run: str | os.PathLike[str], *, durable: bool = True) -> None:
        """Write ``run.json`` into the run directory, complete or not at all."""
        write_json(Path(run) / MANIFEST_NAME, self.to_mapping(), durable=durable)

    @classmethod
    def read(cls, run: str | os.PathLike[str]) -> Manifest:
        """Read ``run.json`` of a run directory.

        Raises
        ------
        RunError
            There is none, it is unreadable, or a newer version of streamcurate wrote it.
        """
        path = Path(run) / MANIFEST_NAME
        try:
            mapping = json.loads(path.read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            raise RunError(
                f"{run}: is no run directory (no {MANIFEST_NAME} in it); give one that streamcurate cluster made"
            ) from None
        except ValueError as error:
            raise RunError(f"{path}: is no JSON ({error}); restore the file, or begin a new run elsewhere") from error
        except OSError as error:
            raise RunError(f"{path}: cannot be read ({error.strerror}); make it readable") from error
        return cls.from_mapping(mapping, str(path))

    @staticmethod
    def exists(run: str | os.PathLike[str]) -> bool:
        """Whether a directory holds a run, finished or not."""
        return (Path(run) / MANIFEST_NAME).exists()

    def to_mapping(self) -> dict[str, Any]:
        """The content of ``run.json`` as plain values."""
        return {
            "format_version": self.format_version,
            "engine": self.engine,
            "created": self.created,
            "complete": self.complete,
            "digest": self.digest,
            "seed": self.seed,
            "config": dict(self.config),
            "store": _plain(self.store),
            "subset": None if self.subset is None else _plain(self.subset),
            "versions": dict(self.versions),
            "levels": [
                {**_plain(level), "sizes": _plain(level.sizes), "warnings": list(level.warnings)}
                for level in self.levels
            ],
        }

    @classmethod
    def from_mapping(cls, mapping: object, origin: str) -> Manifest:
        """Check and take over what ``run.json`` holds.

        Raises
        ------
        RunError
            A newer format, or a value that is missing or of the wrong kind; the message names it.
        """
        version = mapping.get("format_version") if isinstance(mapping, Mapping) else None
        if isinstance(version, int) and version > FORMAT_VERSION:
            raise RunError(
                f"{origin}: format {version} is newer than what this version of streamcurate reads "
                f"(up to {FORMAT_VERSION}); upgrade streamcurate"
            )
        try:
            top = _Reader(mapping, "")
            if not isinstance(version, int) or version < 1:
                raise _Unreadable("format_version")
            subset = top.value("subset")
            return cls(
                config=top.reader("config").mapping,
                store=_record(StoreRecord, top.reader("store")),
                subset=None if subset is None else _record(SubsetRecord, top.reader("subset")),
                levels=tuple(_level(_Reader(level, f"levels[{i}].")) for i, level in enumerate(top.list("levels"))),
                complete=top.of("complete", bool),
                digest=None if top.value("digest") is None else top.of("digest", str),
                engine=top.of("engine", str),
                created=top.of("created", str),
                versions=top.reader("versions").mapping,
                format_version=version,
            )
        except _Unreadable as error:
            raise RunError(
                f"{origin}: {error} is missing or unreadable; restore the file, or begin a new run elsewhere"
            ) from None


def check_resumable(manifest: Manifest, run: str | os.PathLike[str]) -> None:
    """Refuse to go on with a half-finished run of another engine version.

    A finished run passes: it is readable for good.

    Raises
    ------
    RunError
        The run is half-finished and another version began it.
    """
    if not manifest.complete and manifest.engine != __version__:
        raise RunError(
            f"{run}: was begun by streamcurate {manifest.engine} and is half-finished; this is {__version__}, whose "
            f"results may differ; finish it with streamcurate=={manifest.engine}, or begin a new run elsewhere"
        )


def differences(old: Manifest, new: Manifest) -> list[str]:
    """What keeps two manifests from being the same run, one line each; none where they are the same.

    Compared are metric, seed, levels, and the content of store and subset; not where these lie, nor who computed.

    Examples
    --------
    >>> store = StoreRecord("emb.zarr", 1000, 8, "float32", "5c0f")
    >>> old, new = (Manifest.begin(Config.from_mapping({"levels": [{"clusters": k}]}), store) for k in (400, 300))
    >>> differences(old, new)
    ['levels[0].clusters: 400 → 300']
    """
    before, after = _flatten(_identity(old)), _flatten(_identity(new))
    return [
        f"{key}: {_shown(before.get(key))} → {_shown(after.get(key))}"
        for key in dict.fromkeys((*before, *after))
        if before.get(key) != after.get(key)
    ]


def levels_in_common(old: Manifest, new: Manifest) -> int:
    """How many finished levels of ``old`` are those that ``new`` asks for, from the lowest up."""
    before, after = _identity(old), _identity(new)
    asked_before, asked_after = before.pop("levels"), after.pop("levels")
    if before != after:
        return 0
    count = 0
    for _, one, other in zip(old.levels, asked_before, asked_after, strict=False):
        if one != other:
            break
        count += 1
    return count


def _identity(manifest: Manifest) -> dict[str, Any]:
    store, subset = manifest.store, manifest.subset
    return {
        "metric": manifest.config["metric"],
        "seed": manifest.config["seed"],
        "levels": manifest.config["levels"],
        "store": {key: getattr(store, key) for key in ("rows", "dims", "dtype", "fingerprint")},
        "subset": None if subset is None else {"rows": subset.rows, "digest": subset.digest},
    }


def _flatten(value: Any, key: str = "") -> dict[str, Any]:
    if isinstance(value, Mapping):
        parts = [(f"{key}.{name}" if key else str(name), inner) for name, inner in value.items()]
    elif isinstance(value, list | tuple):
        parts = [(f"{key}[{index}]", inner) for index, inner in enumerate(value)]
    else:
        # None is what an absent key compares as.
        return {key: value}
    return {name: inner for part, content in parts for name, inner in _flatten(content, part).items()}


def _shown(value: object) -> str:
    return "none" if value is None else str(value)


# --- Records to plain values and back. ---


class _Unreadable(Exception):  # noqa: N818 (carries a key, never leaves this module)
    """The key that is missing or of the wrong kind."""


class _Reader:
    """A mapping out of a file, whose values are checked as they are taken."""

    def __init__(self, mapping: object, where: str) -> None:
        if not isinstance(mapping, Mapping):
            raise _Unreadable(where.rstrip(".") or "everything")
        self.mapping: Mapping[str, Any] = mapping
        self.where = where

    def value(self, key: str) -> Any:
        if key not in self.mapping:
            raise _Unreadable(self.where + key)
        return self.mapping[key]

    def of(self, key: str, kind: type[T]) -> T:
        value = self.value(key)
        if kind is float and type(value) is int:
            value = float(value)
        # Not isinstance: a bool is no int here.
        if type(value) is not kind:
            raise _Unreadable(self.where + key)
        return value

    def list(self, key: str) -> list[Any]:
        return self.of(key, list)

    def reader(self, key: str) -> _Reader:
        return _Reader(self.value(key), f"{self.where}{key}.")


T = TypeVar("T")
_TYPES: dict[str, type] = {"int": int, "float": float, "str": str, "bool": bool}


def _record(kind: type[T], reader: _Reader) -> T:
    fields = dataclasses.fields(kind)  # type: ignore[arg-type]
    return kind(**{one.name: reader.of(one.name, _TYPES[str(one.type)]) for one in fields})


def _level(reader: _Reader) -> LevelRecord:
    simple = {one.name: _TYPES.get(str(one.type)) for one in dataclasses.fields(LevelRecord)}
    return LevelRecord(
        **{name: reader.of(name, kind) for name, kind in simple.items() if kind is not None},
        sizes=_record(Sizes, reader.reader("sizes")),
        warnings=tuple(str(text) for text in reader.list("warnings")),
    )


def _plain(record: Any) -> dict[str, Any]:
    """A record's fields as JSON's own types; counts often come as NumPy integers."""
    values = {one.name: getattr(record, one.name) for one in dataclasses.fields(record)}
    kinds = {one.name: _TYPES.get(str(one.type)) for one in dataclasses.fields(record)}
    return {name: value if (kind := kinds[name]) is None else kind(value) for name, value in values.items()}
