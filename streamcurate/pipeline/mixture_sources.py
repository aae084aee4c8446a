"""The sources of a mixture: which stores their rows lie in, which of these are taken, and what states they are in."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamcurate.embeddings.rowsets import MergedRows, NumberFile
from streamcurate.embeddings.store import Embeddings, open_embeddings
from streamcurate.errors import InputError
from streamcurate.objects import is_url, status
from streamcurate.pipeline.rows import open_rows
from streamcurate.runs.digest import Digest, combine_digests
from streamcurate.tree import Tree

Int64 = NDArray[np.int64]


@dataclass(frozen=True)
class Source:
    """Rows as a part of a mixture names them.

    Attributes
    ----------
    name : str
        As it was given.
    tree : Tree or None
    embeddings : Embeddings
        Of an extended tree, the rows of all its stores.
    stores : tuple of str
        Paths of the stores, one after the other.
    keys : tuple of int
        Numbers of these stores: equal ones hold the same rows.
    starts : tuple of int
        First row of each store, and the number of all rows at the end.
    state : str
        Changes when the rows, or the tree, do.
    """

    name: str
    tree: Tree | None
    embeddings: Embeddings
    stores: tuple[str, ...]
    keys: tuple[int, ...]
    starts: tuple[int, ...]
    state: str


class Sources:
    """Opens sources, each once, and tells which of their stores are the same: of one path, or of one fingerprint."""

    def __init__(self) -> None:
        self._found: dict[str, Source] = {}
        self._paths: dict[str, int] = {}
        self._fingerprints: dict[str, int] = {}

    def open(self, place: str) -> Source:
        """The rows that lie at a path.

        Raises
        ------
        InputError
            Neither a finished run whose rows are there, nor a store.
        """
        if place not in self._found:
            self._found[place] = self._open(place)
        return self._found[place]

    def _open(self, place: str) -> Source:
        found = open_rows(place)
        if found.tree is None:
            fingerprint = found.embeddings.fingerprint
            stores = [(found.embeddings, fingerprint)]
            state = fingerprint or _stamps(found.embeddings)
        else:
            records = found.tree.manifest.stores
            stores = [(open_embeddings(record.path), record.fingerprint or None) for record in records]
            state = str(found.tree.digest)
        keys = tuple(self._key(store, fingerprint) for store, fingerprint in stores)
        starts = np.cumsum([0, *(store.rows for store, _ in stores)]).tolist()
        paths = tuple(str(store.description()["path"]) for store, _ in stores)
        return Source(place, found.tree, found.embeddings, paths, keys, tuple(starts), state)

    def _key(self, store: Embeddings, fingerprint: str | None) -> int:
        place = store.path or store.name
        place = place if store.array is None else store.array.path
        path = place if is_url(place) else os.path.realpath(place)
        fresh = len(self._paths) + len(self._fingerprints)
        known = self._paths.get(path, self._fingerprints.get(fingerprint or "", fresh))
        self._paths[path] = known
        if fingerprint is not None:
            self._fingerprints.setdefault(fingerprint, known)
        return known


@dataclass
class TakenRows:
    """Rows of stores that some part has, or that none may have."""

    _of: dict[int, list[tuple[NumberFile, int, int]]] = field(default_factory=dict)
    _names: dict[int, list[str]] = field(default_factory=dict)

    def add(self, source: Source, rows: NumberFile, name: str) -> None:
        """Take note of ascending rows of a source, under a name that tells what they are."""
        for number, key in enumerate(source.keys):
            span = source.starts[number], source.starts[number + 1]
            self._of.setdefault(key, []).append((rows, *span))
            self._names.setdefault(key, []).append(f"{name} from {span[0]} to {span[1]}")

    def keys(self, source: Source) -> list[list[str]]:
        """Names of what was noted of each store of the source."""
        return [self._names.get(key, []) for key in source.keys]

    def touches(self, source: Source) -> bool:
        """Whether rows of any store of the source were noted."""
        return any(key in self._of for key in source.keys)

    def pieces(self, source: Source) -> Iterator[Int64]:
        """Those of the source's rows that were noted, ascending."""
        for number, key in enumerate(source.keys):
            streams = [_shifted(*entry, source.starts[number]) for entry in self._of.get(key, [])]
            yield from MergedRows("union", streams).pieces()


def _shifted(rows: NumberFile, low: int, high: int, start: int) -> Iterator[Int64]:
    """Rows from ``low`` to below ``high``, numbered from ``start``."""
    for piece in rows.between(low, high):
        yield piece + (start - low)


def all_rows(rows: int, step: int = 1 << 18) -> Iterator[Int64]:
    """Every row number."""
    for start in range(0, rows, step):
        yield np.arange(start, min(start + step, rows), dtype=np.int64)


# -- states ------------------------------------------------------------------------------------------------------------


def _stamps(embeddings: Embeddings) -> str:
    arrays = [array for array in (embeddings.array, embeddings.ids) if array is not None]
    return Digest().add(np.array([stamp for array in arrays for stamp in array.stamps()], dtype=np.int64)).hexdigest()


def state_of(value: Any) -> Any:
    """What tells a list, or another value of an option, from what it is another time; JSON values.

    Raises
    ------
    InputError
        A value that has no state.
    """
    if isinstance(value, os.PathLike) or (isinstance(value, str) and os.path.splitext(value)[1]):
        return _file_state(os.fspath(value))
    if hasattr(value, "unique_rows"):
        copies = getattr(value, "copies", None)
        return (
            _digest(value.unique_rows) if copies is None else combine_digests(map(_digest, (value.unique_rows, copies)))
        )
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return _digest(value)
    if isinstance(value, Mapping):
        return {str(key): state_of(entry) for key, entry in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return Digest().add(np.frombuffer(repr(list(value)).encode(), dtype=np.uint8)).hexdigest()
    try:
        json.dumps(value)
    except TypeError:
        raise InputError(
            f"{value!r}: a {type(value).__name__} is no value of an option; give a path or numbers"
        ) from None
    return value


def _digest(values: Any) -> str:
    array = np.asarray(values)
    if array.dtype.kind in "OUT":
        texts = json.dumps([str(text) for text in array.tolist()])
        return Digest().add(np.frombuffer(texts.encode(), dtype=np.uint8)).hexdigest()
    return Digest().add(array).hexdigest()


def _file_state(path: str) -> list[Any]:
    """Path, size and time of a file; what is not there, the reader of the file will say."""
    if is_url(path):
        found = status(path)
        return [path] if found is None else [path, found.size, found.state]
    try:
        stat = os.stat(path)
    except OSError:
        return [os.path.abspath(path)]
    return [os.path.abspath(path), stat.st_size, stat.st_mtime_ns]
