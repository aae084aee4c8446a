"""One level of a tree at rest."""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamcurate.objects import join
from streamcurate.storage import StoredArray, create_array, create_group, node_kind, open_array

# Most entries in a chunk of row- and cluster-aligned arrays: 1 Mi are 4 to 8 MiB, cheap to hold while they fill.
ALIGNED_CHUNK_ROWS = 1 << 20
# A chunk is the least a worker computes and writes: there should be enough of them to share, none should take minutes
# (on two cores 2^42 operations are under one), and they should not be files of a few bytes.
_SHARES = 16
_CHUNK_OPERATIONS = 1 << 42
_FEWEST_OF_LONG = 1 << 16
_FEWEST = 1 << 14
_CENTROID_CHUNK_BYTES = 64 << 20


def aligned_chunk_rows(rows: int, row_operations: int = 0) -> int:
    """Rows of a chunk of a row-aligned array that a pass writes: a power of two, or ``ALIGNED_CHUNK_ROWS``.

    Parameters
    ----------
    rows : int
        Of the array.
    row_operations : int
        Arithmetic operations the pass makes for a row.
    """
    long = max(_CHUNK_OPERATIONS // max(row_operations, 1), _FEWEST_OF_LONG)
    wanted = max(min(rows // _SHARES, long), _FEWEST)
    return min(1 << (wanted.bit_length() - 1), ALIGNED_CHUNK_ROWS)


def level_name(number: int) -> str:
    """``level-1`` and so on: the group of a level."""
    return f"level-{number}"


class Level:
    """A finished level: which cluster each point of the level below belongs to.

    Its points are the rows of the store (level 1) or the clusters of the level below. The arrays without prefix are
    read-only Zarr arrays; those called ``stored_`` are the checked readers streamcurate itself uses.

    Attributes
    ----------
    folder : str
        The level's Zarr group: a path or a URL.
    number : int
        1 for the level over the rows.
    clusters : int
    points : int
        Rows of the store, or clusters of the level below, empty ones and those outside the subset included.
    """

    def __init__(self, folder: str | os.PathLike[str], number: int) -> None:
        self.folder = os.fspath(folder)
        self.number = number
        self.kept: object = None

    def __repr__(self) -> str:
        return f"Level({self.number}: {self.points:,} points in {self.clusters:,} clusters)"

    @property
    def clusters(self) -> int:
        """Number of clusters, empty ones included."""
        return self.stored_centroids.rows

    @property
    def points(self) -> int:
        """Number of points of the level below."""
        return self.stored_labels.rows

    @cached_property
    def stored_centroids(self) -> StoredArray:
        """float32 (clusters, dims)."""
        return self._open("centroids")

    @cached_property
    def stored_labels(self) -> StoredArray:
        """int32 (points,); -1 where a point is in no cluster."""
        return self._open("labels")

    @cached_property
    def stored_distances(self) -> StoredArray:
        """float32 (points,): Euclidean, or 1 - cos, to the own centroid; NaN where the label is -1."""
        return self._open("distances")

    @cached_property
    def stored_members(self) -> StoredArray:
        """int64: point numbers ordered by (cluster, distance, point)."""
        return self._open("members")

    @cached_property
    def stored_offsets(self) -> StoredArray:
        """int64 (clusters + 1,): cluster j's members are ``members[offsets[j]:offsets[j + 1]]``."""
        return self._open("offsets")

    @cached_property
    def stored_coarse_centroids(self) -> StoredArray | None:
        """float32 (coarse clusters, dims) of a level with splits, else None."""
        return self._open("coarse_centroids") if node_kind(join(self.folder, "coarse_centroids")) else None

    @cached_property
    def stored_coarse_offsets(self) -> StoredArray | None:
        """int64 (coarse clusters + 1,) into the centroids, of a level with splits, else None."""
        return self._open("coarse_offsets") if node_kind(join(self.folder, "coarse_offsets")) else None

    @property
    def coarse_centroids(self) -> Any:
        """Zarr array, float32 (coarse clusters, dims), of a level with splits, else None."""
        stored = self.stored_coarse_centroids
        return None if stored is None else stored.zarr

    @property
    def coarse_offsets(self) -> Any:
        """Zarr array, int64 (coarse clusters + 1,) into the centroids, of a level with splits, else None."""
        stored = self.stored_coarse_offsets
        return None if stored is None else stored.zarr

    @property
    def centroids(self) -> Any:
        """Zarr array, float32 (clusters, dims)."""
        return self.stored_centroids.zarr

    @property
    def labels(self) -> Any:
        """Zarr array, int32 (points,)."""
        return self.stored_labels.zarr

    @property
    def distances(self) -> Any:
        """Zarr array, float32 (points,)."""
        return self.stored_distances.zarr

    @property
    def members(self) -> Any:
        """Zarr array, int64 (points that are in a cluster,)."""
        return self.stored_members.zarr

    @property
    def offsets(self) -> Any:
        """Zarr array, int64 (clusters + 1,)."""
        return self.stored_offsets.zarr

    def sizes(self) -> NDArray[np.int64]:
        """Members of each cluster, int64 (clusters,)."""
        return np.diff(self.stored_offsets.read(0, self.clusters + 1))

    def _open(self, name: str) -> StoredArray:
        array = open_array(join(self.folder, name))
        # A Zarr array outlives its level in expressions such as cluster(...).levels[0].centroids[:].
        object.__setattr__(array.zarr, "_kept", self.kept)
        return array


class LevelWriter:
    """The arrays of a level under construction, in a folder that is renamed into the tree when it is whole.

    Parameters
    ----------
    folder : Path
        Where to build; made here if need be.
    points : int
        Length of the row-aligned arrays.
    dims : int
    row_operations : int
        Arithmetic operations that finding a point's label takes.
    """

    def __init__(self, folder: Path, points: int, dims: int, row_operations: int = 0) -> None:
        self.folder = folder
        self._points, self._dims = points, dims
        self._chunk_rows = aligned_chunk_rows(points, row_operations)
        if node_kind(folder) is None:
            folder.parent.mkdir(parents=True, exist_ok=True)
            create_group(folder)

    def labels(self) -> StoredArray:
        """A new ``labels`` array."""
        return self._aligned("labels", np.int32)

    def distances(self) -> StoredArray:
        """A new ``distances`` array."""
        return self._aligned("distances", np.float32)

    def members(self, count: int) -> StoredArray:
        """A new ``members`` array."""
        return create_array(self.folder / "members", (count,), np.int64, ALIGNED_CHUNK_ROWS, overwrite=True)

    def centroids(self, clusters: int, name: str = "centroids") -> StoredArray:
        """A new array of centroids."""
        rows = max(_CENTROID_CHUNK_BYTES // (4 * self._dims), 1)
        return create_array(self.folder / name, (clusters, self._dims), np.float32, rows, overwrite=True)

    def write_offsets(self, sizes: NDArray[np.int64], name: str = "offsets") -> None:
        """Store the running sums of ``sizes`` as ``name``."""
        offsets = np.zeros(len(sizes) + 1, dtype=np.int64)
        np.cumsum(sizes, out=offsets[1:])
        array = create_array(self.folder / name, offsets.shape, np.int64, ALIGNED_CHUNK_ROWS, overwrite=True)
        array.write(0, offsets)

    def stored(self, name: str) -> StoredArray:
        """One of the arrays, to be read again."""
        return open_array(self.folder / name)

    def _aligned(self, name: str, dtype: type) -> StoredArray:
        return create_array(self.folder / name, (self._points,), dtype, self._chunk_rows, overwrite=True)
