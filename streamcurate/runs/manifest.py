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
from typing import Any

from streamcurate.config import Config
from streamcurate.errors import RunError
from streamcurate.files import write_json
from streamcurate.objects import contents, exists, is_url, join
from streamcurate.runs.digest import combine_digests
from streamcurate.runs.records import (
    ExtensionRecord,
    LevelRecord,
    NoveltyRecord,
    Reader,
    StoreRecord,
    SubsetRecord,
    Unreadable,
    extension_of,
    level_of,
    plain,
    plain_extension,
    record_of,
)
from streamcurate.version import __version__

MANIFEST_NAME = "run.json"
FORMAT_VERSION = 2
# What does not need the newer format is written in the older, which every version reads.
_PLAIN_FORMAT = 1


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
        All rows; of an extended run the stores taken together, under the path of the first.
    subset : SubsetRecord or None
    levels : tuple of LevelRecord
        The finished ones, lowest first.
    complete : bool
        Whether all levels are finished.
    digest : str or None
        Over the levels' digests; None until complete.
    extension : ExtensionRecord or None
        Of an extended run.
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
    extension: ExtensionRecord | None = None
    engine: str = __version__
    created: str = field(default_factory=_now)
    versions: Mapping[str, str] = field(default_factory=current_versions)
    format_version: int = _PLAIN_FORMAT

    @classmethod
    def begin(cls, config: Config, store: StoreRecord, subset: SubsetRecord | None = None) -> Manifest:
        """The manifest of a run in which nothing is finished yet."""
        return cls(config.to_mapping(), store, subset)

    @classmethod
    def begin_extension(cls, of: Manifest, extension: ExtensionRecord) -> Manifest:
        """The manifest of a run that extends another and in which nothing is finished yet.

        Raises
        ------
        ValueError
            The stores differ in their dims.
        """
        stores = extension.stores
        if len({store.dims for store in stores}) != 1:
            raise ValueError("stores of different dims")
        together = StoreRecord(
            path=stores[0].path,
            rows=sum(store.rows for store in stores),
            dims=stores[0].dims,
            dtype=max((store.dtype for store in stores), key=("float16", "float32", "float64").index),
            fingerprint=combine_digests(store.fingerprint for store in stores),
            ids=all(store.ids for store in stores),
        )
        return cls(of.config, together, of.subset, extension=extension, format_version=FORMAT_VERSION)

    @property
    def metric(self) -> str:
        """The metric the run was asked for."""
        return str(self.config["metric"])

    @property
    def seed(self) -> int:
        """The seed the run was asked for."""
        return int(self.config["seed"])

    @property
    def stores(self) -> tuple[StoreRecord, ...]:
        """Every store by itself, in the order of their rows; one unless the run was extended."""
        return (self.store,) if self.extension is None else self.extension.stores

    @property
    def command(self) -> str:
        """The command that makes such a run."""
        return "cluster" if self.extension is None else "extend"

    def with_novelty(self, novelty: NoveltyRecord) -> Manifest:
        """The same extended run, its new rows labelled."""
        assert self.extension is not None
        return dataclasses.replace(self, extension=dataclasses.replace(self.extension, novelty=novelty))

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
        path = join(run, MANIFEST_NAME)
        try:
            content = contents(path)
            if content is None:
                if not is_url(run) and not os.path.exists(run):
                    raise RunError(f"{run}: is no run directory, there is no such file or folder; check the path")
                raise RunError(
                    f"{run}: is no run directory (no {MANIFEST_NAME} in it); give one that streamcurate cluster made"
                )
            mapping = json.loads(content)
        except ValueError as error:
            raise RunError(f"{path}: is no JSON ({error}); restore the file, or begin a new run elsewhere") from error
        except OSError as error:
            raise RunError(f"{path}: cannot be read ({error.strerror}); make it readable") from error
        return cls.from_mapping(mapping, path)

    @staticmethod
    def exists(run: str | os.PathLike[str]) -> bool:
        """Whether a directory, or a URL, holds a run, finished or not."""
        return exists(join(run, MANIFEST_NAME))

    def to_mapping(self) -> dict[str, Any]:
        """The content of ``run.json`` as plain values."""
        extension = {} if self.extension is None else {"extension": plain_extension(self.extension)}
        return {
            "format_version": self.format_version,
            "engine": self.engine,
            "created": self.created,
            "complete": self.complete,
            "digest": self.digest,
            "seed": self.seed,
            "config": dict(self.config),
            "store": plain(self.store),
            "subset": None if self.subset is None else plain(self.subset),
            **extension,
            "versions": dict(self.versions),
            "levels": [
                {**plain(level), "sizes": plain(level.sizes), "warnings": list(level.warnings)} for level in self.levels
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
            top = Reader(mapping, "")
            if not isinstance(version, int) or version < 1:
                raise Unreadable("format_version")
            subset = top.value("subset")
            return cls(
                config=top.reader("config").mapping,
                store=record_of(StoreRecord, top.reader("store")),
                subset=None if subset is None else record_of(SubsetRecord, top.reader("subset")),
                levels=tuple(level_of(Reader(level, f"levels[{i}].")) for i, level in enumerate(top.list("levels"))),
                complete=top.of("complete", bool),
                digest=None if top.value("digest") is None else top.of("digest", str),
                extension=extension_of(top.reader("extension")) if "extension" in top.mapping else None,
                engine=top.of("engine", str),
                created=top.of("created", str),
                versions=top.reader("versions").mapping,
                format_version=version,
            )
        except Unreadable as error:
            raise RunError(
                f"{origin}: {error} is missing or unreadable; restore the file, or begin a new run elsewhere"
            ) from None


def check_resumable(manifest: Manifest, run: str | os.PathLike[str]) -> None:
    """Refuse to go on clustering in an extended run, or in a half-finished one of another engine version.

    A finished run passes: it is readable for good.

    Raises
    ------
    RunError
        The run was made by ``extend``, or is half-finished and another version began it.
    """
    if manifest.extension is not None:
        raise RunError(
            f"{run}: is the run {manifest.extension.run} extended by more rows, whose centroids stay as they are; "
            "give cluster another run directory"
        )
    check_engine(manifest, run)


def check_engine(manifest: Manifest, run: str | os.PathLike[str]) -> None:
    """Refuse to go on with a half-finished run of another engine version.

    Raises
    ------
    RunError
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
    store, subset, extension = manifest.store, manifest.subset, manifest.extension
    return {
        "metric": manifest.config["metric"],
        "seed": manifest.config["seed"],
        "levels": manifest.config["levels"],
        "store": {key: getattr(store, key) for key in ("rows", "dims", "dtype", "fingerprint")},
        "subset": None if subset is None else {"rows": subset.rows, "digest": subset.digest},
        # Stores of the same rows, cut elsewhere, are not the same: ids and order are bound to them.
        "extends": None if extension is None else extension.digest,
        "stores": None if extension is None else [store.fingerprint for store in extension.stores],
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
