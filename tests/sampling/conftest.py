"""A tree in memory: what a draw reads of a tree, without files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray


class MemoryArray:
    """An array that notes how much of it was read, and in how large pieces."""

    def __init__(self, values: NDArray[Any]) -> None:
        self.values = values
        self.dtype = values.dtype
        self.path = "emb.zarr/ids"
        self.rows = len(values)
        self.largest_read = 0
        self.total_read = 0

    def read(self, start: int, stop: int) -> NDArray[Any]:
        assert 0 <= start <= stop <= self.rows
        return self._note(self.values[start:stop])

    def take(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        assert (np.diff(rows) > 0).all()
        assert not len(rows) or 0 <= rows[0] <= rows[-1] < self.rows
        return self._note(self.values[rows])

    def _note(self, values: NDArray[Any]) -> NDArray[Any]:
        self.largest_read = max(self.largest_read, len(values))
        self.total_read += len(values)
        return values.copy()


class MemoryLevel:
    """Members and offsets made from labels and distances."""

    def __init__(self, labels: Sequence[int], clusters: int, distances: Sequence[float] | None = None) -> None:
        label = np.asarray(labels, dtype=np.int32)
        distance = np.zeros(len(label), dtype=np.float32) if distances is None else np.asarray(distances, np.float32)
        inside = np.flatnonzero(label >= 0)
        members = inside[np.lexsort((inside, distance[inside], label[inside]))]
        offsets = np.append(0, np.cumsum(np.bincount(label[inside], minlength=clusters)))
        self.clusters = clusters
        self.stored_labels = MemoryArray(label)
        self.stored_distances = MemoryArray(np.where(label >= 0, distance, np.float32(np.nan)))
        self.stored_members = MemoryArray(members.astype(np.int64))
        self.stored_offsets = MemoryArray(offsets.astype(np.int64))


class MemoryIds:
    """A store in memory: ids, and embeddings that tell their rows."""

    name, dims, dtype, fingerprint = "emb.zarr", 2, np.dtype(np.float32), "f" * 32

    def __init__(self, ids: NDArray[Any] | None) -> None:
        self.ids = None if ids is None else MemoryArray(ids)

    def take_ids(self, rows: NDArray[np.int64]) -> NDArray[Any] | None:
        return None if self.ids is None else self.ids.values[rows]

    def take(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        assert (np.diff(rows) > 0).all()
        return np.stack([rows, -rows], axis=1).astype(np.float32)


@dataclass
class MemoryTree:
    levels: list[MemoryLevel]
    path: str = "run"
    complete: bool = True
    source: Mapping[str, Any] = field(default_factory=lambda: {"path": "emb.zarr", "ids": False})
    store: MemoryIds | None = field(default_factory=lambda: MemoryIds(None))

    def embeddings(self) -> MemoryIds | None:
        return self.store


MakeTree = Callable[..., MemoryTree]


@pytest.fixture(scope="session")
def make_tree() -> MakeTree:
    """``make_tree(labels of level 1, labels of level 2, ..., clusters=[k1, k2, ...], distances=..., ids=...)``.

    A cluster without members has label -1 at the level above, as in a stored tree.
    """

    def make(
        *labels: Sequence[int],
        clusters: Sequence[int] | None = None,
        distances: Sequence[float] | None = None,
        ids: NDArray[Any] | None = None,
    ) -> MemoryTree:
        levels: list[MemoryLevel] = []
        for number, label in enumerate(labels):
            values = np.array(label, dtype=np.int32)
            if levels:
                values[np.diff(levels[-1].stored_offsets.values) == 0] = -1
            k = clusters[number] if clusters else int(values.max()) + 1
            levels.append(MemoryLevel(values, k, distances if number == 0 else None))
        return MemoryTree(levels, source={"path": "emb.zarr", "ids": ids is not None}, store=MemoryIds(ids))

    return make


@pytest.fixture(scope="session")
def random_tree(make_tree: MakeTree) -> Callable[..., MemoryTree]:
    """``random_tree(seed, rows, [k1, k2, ...])``: uneven clusters, some empty, some rows outside, tied distances."""

    def make(seed: int, rows: int, clusters: Sequence[int], **options: Any) -> MemoryTree:
        generator = np.random.default_rng(seed)
        labels, points = [], rows
        for number, k in enumerate(clusters):
            weights = generator.pareto(0.7, k) + 1e-3
            label = generator.choice(k, points, p=weights / weights.sum())
            if number == 0:
                label[generator.random(points) < 0.1] = -1
                label[0] = 0  # at least one row
            labels.append(label)
            points = k
        distances = generator.integers(0, 4, rows) / 4
        return make_tree(*labels, clusters=clusters, distances=distances, **options)

    return make
