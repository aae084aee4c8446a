"""A tree at rest: the finished levels of a run directory."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamcurate.embeddings.joined import join_embeddings
from streamcurate.embeddings.snapshot import SNAPSHOT_NAME, Snapshot
from streamcurate.embeddings.store import Embeddings, open_embeddings
from streamcurate.errors import InputError, RunError, StoreError
from streamcurate.objects import exists, join
from streamcurate.runs.digest import Digest
from streamcurate.runs.manifest import Manifest
from streamcurate.runs.records import NoveltyRecord, StoreRecord
from streamcurate.storage import StoredArray, node_kind, open_array
from streamcurate.tree.level import Level, level_name

TREE_NAME = "tree.zarr"
_DIGEST_BYTES = 16 << 20


def snapshot_name(number: int) -> str:
    """File of the snapshot of a tree's store, of its first one for 0: ``store.json``, ``store-2.json``, ..."""
    return SNAPSHOT_NAME if number == 0 else f"store-{number + 1}.json"


class Tree:
    """The levels of a run, lowest first, and what they were built from.

    Attributes
    ----------
    path : str
        The run directory, or its URL.
    manifest : Manifest
        Of the run: configuration, store, versions, figures of each level.
    levels : list of Level
        The finished ones.
    """

    def __init__(self, path: str | os.PathLike[str], manifest: Manifest) -> None:
        self.path = os.fspath(path)
        self.manifest = manifest
        self.kept: object = None
        folder = join(path, TREE_NAME)
        self.levels = [
            Level(join(folder, level_name(number + 1)), number + 1) for number in range(len(manifest.levels))
        ]

    def keep_alive(self, kept: object) -> None:
        """Keep an object for as long as the tree, a level or an array of it is in use: the folder they lie in, say."""
        self.kept = kept
        for level in self.levels:
            level.kept = kept

    def __repr__(self) -> str:
        clusters = ", ".join(f"{record.clusters:,}" for record in self.manifest.levels)
        return f"Tree({self.path!r}: {self.manifest.store.rows:,} rows, levels [{clusters}])"

    @property
    def metric(self) -> str:
        """``l2`` or ``cosine``."""
        return self.manifest.metric

    @property
    def seed(self) -> int:
        """The seed of the run."""
        return self.manifest.seed

    @property
    def source(self) -> dict[str, Any]:
        """The store the tree was built from: path, rows, dims, dtype, fingerprint, ids.

        Of an extended tree: all stores taken together, under the path of the first.
        """
        return asdict(self.manifest.store)

    @property
    def complete(self) -> bool:
        """Whether every level asked for is there."""
        return self.manifest.complete

    @property
    def digest(self) -> str | None:
        """Equal digests mean equal trees; None until complete."""
        return self.manifest.digest

    @property
    def novelty(self) -> NoveltyRecord | None:
        """Of an extended tree: how many of the last store's rows lie far out (``novelty.share``); else None."""
        return None if self.manifest.extension is None else self.manifest.extension.novelty

    @property
    def warnings(self) -> list[str]:
        """What the run found worth a warning."""
        return [text for record in self.manifest.levels for text in record.warnings]

    def embeddings(self) -> Embeddings | None:
        """The rows of the tree: the store it was built from, of an extended tree all stores one after the other.

        Returns
        -------
        Embeddings or None
            None where a store is gone or was an array in memory.

        Raises
        ------
        InputError
            A store lies there, but of another shape or with other values.
        """
        found = []
        for number, store in enumerate(self.manifest.stores):
            if not store.path or not exists(store.path):
                return None
            found.append(self._open_store(number, store))
        return found[0] if len(found) == 1 else join_embeddings(found)

    def _open_store(self, number: int, store: StoreRecord) -> Embeddings:
        found = open_embeddings(store.path)
        if (found.rows, found.dims) != (store.rows, store.dims):
            raise InputError(
                f"{store.path}: has {found.rows:,} rows of {found.dims} dims, the tree in {self.path} was built from "
                f"{store.rows:,} of {store.dims}; put the store back that it was built from"
            )
        snapshot = Snapshot.read(join(self.path, snapshot_name(number)))
        if snapshot is not None:
            snapshot.spot_check(found)
        return found

    def check(self) -> None:
        """Make sure, without reading them, that all arrays of the finished levels are there in their shapes.

        Raises
        ------
        StoreError
            One is missing or has another shape.
        """
        points = self.manifest.store.rows
        for level, record in zip(self.levels, self.manifest.levels, strict=True):
            _check_level(level, points, record.clusters, record.rows)
            points = record.clusters

    def rows_under(self) -> list[NDArray[np.int64]]:
        """Rows of the store under each cluster, a level at a time; int64 (clusters,) each."""
        under: list[NDArray[np.int64]] = []
        for level in self.levels:
            under.append(rows_under(level, under[-1] if under else None))
        return under


def rows_under(level: Level, below: NDArray[np.int64] | None) -> NDArray[np.int64]:
    """Rows of the store under each cluster of a level, from those under the clusters below (None: level 1)."""
    if below is None:
        return level.sizes()
    labels = level.stored_labels.read(0, level.points)
    total = np.zeros(level.clusters, dtype=np.int64)
    np.add.at(total, labels[labels >= 0], below[labels >= 0])
    return total


def open_tree(path: str | os.PathLike[str]) -> Tree:
    """Open the tree of a run directory.

    Raises
    ------
    RunError
        No run lies there, or it is unfinished.
    """
    manifest = Manifest.read(path)
    if not manifest.complete:
        raise RunError(
            f"{path}: the run is unfinished ({len(manifest.levels)} of {len(manifest.config['levels'])} levels); "
            f"give its streamcurate {manifest.command} command again to finish it"
        )
    tree = Tree(path, manifest)
    tree.check()
    return tree


def _check_level(level: Level, points: int, clusters: int, members: int) -> None:
    """Make sure that the arrays of a level are there in their shapes.

    Raises
    ------
    StoreError
        One is missing or has another shape.
    """
    wanted = {
        "centroids": (clusters, None),
        "labels": (points,),
        "distances": (points,),
        "members": (members,),
        "offsets": (clusters + 1,),
    }
    for name, shape in wanted.items():
        place = join(level.folder, name)
        found = open_array(place).shape if node_kind(place) == "array" else None
        if found is None or any(one != other for one, other in zip(found, shape, strict=True) if other is not None):
            state = "is missing" if found is None else f"has the shape {found} instead of {shape}"
            raise StoreError(f"{place}: {state}: the tree is damaged; restore it, or build it again in another folder")


def level_digest(level: Level) -> str:
    """Digest of a level: centroids, labels, members, offsets."""
    digest = Digest()
    for array in (level.stored_centroids, level.stored_labels, level.stored_members, level.stored_offsets):
        add_array(digest, array)
    return digest.hexdigest()


def add_array(digest: Digest, array: StoredArray) -> None:
    """Take a stored array into a digest, a piece in memory at a time."""
    digest.begin(array.shape, array.dtype)
    step = max(_DIGEST_BYTES // max(array.row_bytes, 1), 1)
    for start in range(0, array.rows, step):
        digest.update(array.read(start, min(start + step, array.rows)))
