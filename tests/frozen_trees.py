"""Trees made by brute force from given centroids: every label by the formula over all pairs, members by one sort."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from oracles import formula

from streamcurate.config import Config, Level
from streamcurate.curated import Tree, open_tree
from streamcurate.embeddings.fingerprint import fingerprint, unit_digests_of, unit_rows
from streamcurate.embeddings.snapshot import SNAPSHOT_NAME, Snapshot, stamps_of
from streamcurate.embeddings.store import open_embeddings
from streamcurate.runs import LevelRecord, Manifest, Sizes, StoreRecord, SubsetRecord, combine_digests
from streamcurate.storage import SequentialWriter, StoredArray, create_array, create_group
from streamcurate.tree import TREE_NAME, LevelWriter, level_digest, level_name
from streamcurate.tree import Level as StoredLevel


@dataclass(frozen=True)
class Centroids:
    """Of one level; with ``coarse``, those of cluster c are ``values[offsets[c]:offsets[c + 1]]``."""

    values: np.ndarray
    coarse: np.ndarray | None = None
    offsets: np.ndarray | None = None

    def nearest(self, points: np.ndarray, metric: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Labels, stored distances and formula values."""
        values = formula(points, self.values, metric)
        if self.coarse is not None:
            owner = np.repeat(np.arange(len(self.coarse)), np.diff(self.offsets))
            values[formula(points, self.coarse, metric).argmin(axis=1)[:, None] != owner[None]] = np.inf
        labels, best = values.argmin(axis=1).astype(np.int32), values.min(axis=1)
        labels[np.isinf(best)], best[np.isinf(best)] = -1, np.nan
        return labels, (np.sqrt(best) if metric == "l2" else best / 2).astype(np.float32), best


def unit(values: np.ndarray) -> np.ndarray:
    """Rows of length 1."""
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)


def store_of(place: Path, values: np.ndarray, ids: np.ndarray | None = None, chunk: int = 32) -> Path:
    """A store with small chunks."""
    create_group(place)
    create_array(place / "embeddings", values.shape, values.dtype, chunk).write(0, values)
    if ids is not None:
        kind = np.int64 if ids.dtype.kind in "iu" else str
        create_array(place / "ids", ids.shape, kind, chunk).write(0, ids if kind is np.int64 else ids.astype("T"))
    return place


def build(
    run: Path, store: Path, levels: list[Centroids], metric: str = "l2", outside: np.ndarray | None = None
) -> Tree:
    """A finished run over a store, whose rows ``outside`` are in no cluster."""
    embeddings = open_embeddings(store)
    points = embeddings.read(0, embeddings.rows)
    counts = np.ones(len(points), dtype=bool)
    if outside is not None:
        counts[outside] = False
    run.mkdir()
    create_group(run / TREE_NAME)
    records = []
    for number, centroids in enumerate(levels, start=1):
        labels = np.full(len(points), -1, dtype=np.int32)
        distances, values = np.full(len(points), np.nan, dtype=np.float32), np.full(len(points), np.nan)
        labels[counts], distances[counts], values[counts] = centroids.nearest(points[counts], metric)
        inside = np.flatnonzero(labels >= 0)
        sizes = np.bincount(labels[inside], minlength=len(centroids.values))
        folder = run / TREE_NAME / level_name(number)
        writer = LevelWriter(folder, len(points), points.shape[1])
        members = inside[np.lexsort((inside, distances[inside], labels[inside]))]
        fill(writer.labels(), labels)
        fill(writer.distances(), distances)
        fill(writer.centroids(len(centroids.values)), centroids.values)
        fill(writer.members(len(members)), members)
        writer.write_offsets(sizes)
        if centroids.coarse is not None:
            fill(writer.centroids(len(centroids.coarse), "coarse_centroids"), centroids.coarse)
            writer.write_offsets(np.diff(centroids.offsets), "coarse_offsets")
        inertia = float(values[inside].sum()) / (2 if metric == "cosine" else 1)
        shape = Sizes(int(sizes.min()), float(np.median(sizes)), int(sizes.max()))
        digest = level_digest(StoredLevel(folder, number))
        records.append(
            LevelRecord(len(sizes), len(members), inertia, int((sizes == 0).sum()), shape, "random", 1, digest)
        )
        points, counts = centroids.values, sizes > 0
    snapshot = snapshot_of(store)
    snapshot.write(run / SNAPSHOT_NAME)
    shape = (embeddings.rows, embeddings.dims, embeddings.dtype.name, snapshot.fingerprint, embeddings.ids is not None)
    config = Config(tuple(Level(len(level.values)) for level in levels), metric=metric)
    subset = None if outside is None else SubsetRecord("rows.npy", embeddings.rows - len(outside), "77")
    manifest = Manifest.begin(config, StoreRecord(str(store), *shape), subset)
    for record in records:
        manifest = manifest.with_level(record)
    manifest.finished(combine_digests(record.digest for record in records)).write(run)
    return open_tree(run)


def snapshot_of(store: Path) -> Snapshot:
    """Of a store as it is."""
    embeddings = open_embeddings(store)
    units = range(-(-embeddings.rows // unit_rows(embeddings.dims, embeddings.dtype)))
    found = Snapshot.of(embeddings, unit_digests_of(embeddings, units), stamps_of(embeddings))
    assert found.fingerprint == fingerprint(embeddings.shape, embeddings.dtype, found.digests)
    return found


def fill(array: StoredArray, values: np.ndarray) -> None:
    """Write all of an array."""
    with SequentialWriter(array) as writer:
        writer.append(values)
