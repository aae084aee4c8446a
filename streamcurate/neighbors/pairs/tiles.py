"""Tiles: runs of cells that are held in memory together, at rest in scratch with their row numbers."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from streamcurate.errors import StoreError
from streamcurate.files import write_file
from streamcurate.neighbors.pairs.bounds import Float32, Float64, Geometry, own_products
from streamcurate.runs.digest import Digest
from streamcurate.storage import StoredArray
from streamcurate.streaming import State

Int64 = NDArray[np.int64]


@dataclass(frozen=True)
class TileTable:
    """All cells and tiles: arrays with an entry for each, a few dozen bytes a cell.

    Attributes
    ----------
    edges : ndarray of int64, shape (cells + 1,)
        Rows before each cell, in the order of the cells.
    tiles : ndarray of int64, shape (tiles + 1,)
        Cells before each tile.
    reach, spread : ndarray of float64, shape (cells,)
        Upper bounds of the norms of a cell's points, and of their distances from its centre.
    examples : ndarray of int64, shape (cells,)
        A row of each cell.
    files : ndarray of int64, shape (tiles, 2)
        Of each tile its bucket, and the first of its rows there.
    names : ndarray of uint64, shape (buckets,)
        By which the buckets' files are called.
    checksums : ndarray of uint64, shape (tiles,)
    """

    edges: Int64
    tiles: Int64
    reach: Float64
    spread: Float64
    examples: Int64
    files: Int64
    names: NDArray[np.uint64]
    checksums: NDArray[np.uint64]

    @property
    def cells(self) -> int:
        """How many cells there are."""
        return len(self.edges) - 1

    @property
    def count(self) -> int:
        """How many tiles there are."""
        return len(self.tiles) - 1

    @property
    def rows(self) -> int:
        """Rows in all tiles."""
        return int(self.edges[-1])

    @cached_property
    def tile_of_cell(self) -> Int64:
        """The tile of each cell."""
        return np.repeat(np.arange(self.count, dtype=np.int64), np.diff(self.tiles))

    def tile_rows(self) -> Int64:
        """Rows of each tile."""
        return np.diff(self.edges[self.tiles])

    def state(self) -> dict[str, NDArray[Any]]:
        """The arrays by name, as they travel to other processes."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def of(cls, state: State) -> TileTable:
        """What :meth:`state` gave."""
        return cls(**{field.name: state[field.name] for field in fields(cls)})

    def digest(self) -> str:
        """Equal digests: the same rows in the same tiles and cells."""
        digest = Digest()
        for field in fields(self):
            digest.add(getattr(self, field.name))
        return digest.hexdigest()


@dataclass(frozen=True)
class GroupedRows:
    """The rows in the order of the cells.

    Attributes
    ----------
    folder : Path
    dims : int
    dtype : dtype
    centres : StoredArray
        float32 (cells, dims), relative to the geometry's origin.
    geometry : Geometry
    """

    folder: Path
    dims: int
    dtype: np.dtype[Any]
    centres: StoredArray
    geometry: Geometry

    def tile(self, number: int, table: TileTable) -> TileRows:
        """Read one tile.

        Raises
        ------
        StoreError
            Its file is gone or damaged.
        """
        first, last = int(table.tiles[number]), int(table.tiles[number + 1])
        rows = int(table.edges[last] - table.edges[first])
        bucket, begin = table.files[number].tolist()
        name = int(table.names[bucket])
        path = bucket_path(self.folder, bucket, name, "values")
        values = _read(path, self.dtype, rows, self.dims, begin)
        numbers = _read(bucket_path(self.folder, bucket, name, "numbers"), np.dtype(np.int64), rows, 1, begin)[:, 0]
        if tile_checksum(values, numbers) != int(table.checksums[number]):
            raise _damaged(path)
        centres = self.centres.read(first, last)
        return TileRows(number, first, table.edges[first : last + 1] - table.edges[first], values, numbers, centres)


@dataclass(frozen=True)
class TileRows:
    """A tile in memory.

    Attributes
    ----------
    number : int
    first_cell : int
    edges : ndarray of int64, shape (cells + 1,)
        Cell i holds the rows edges[i] to edges[i + 1].
    values : ndarray, shape (rows, dims)
        As stored.
    numbers : ndarray of int64, shape (rows,)
        Row numbers of the store.
    centres : ndarray of float32, shape (cells, dims)
    """

    number: int
    first_cell: int
    edges: Int64
    values: NDArray[Any]
    numbers: Int64
    centres: Float32

    @property
    def rows(self) -> int:
        """How many rows."""
        return len(self.numbers)

    @property
    def cells(self) -> slice:
        """Its cells among all."""
        return slice(self.first_cell, self.first_cell + len(self.centres))

    def without_values(self) -> TileRows:
        """The same without the rows themselves, which have been made ready by then."""
        return replace(self, values=self.values[:0])

    def measured(self, geometry: Geometry) -> tuple[Float32, Float32]:
        """Its points, and their products with the centres of their cells."""
        points = geometry.points(self.values)
        return points, own_products(points, self.edges, self.centres)


def tile_checksum(values: NDArray[Any], numbers: Int64) -> int:
    """Checksum of a tile at rest."""
    digest = xxhash.xxh3_64(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data)
    digest.update(np.ascontiguousarray(numbers).view(np.uint8).data)
    return digest.intdigest()


def bucket_path(folder: Path, bucket: int, name: int, kind: str) -> Path:
    """File of a bucket: its ``values``, its row ``numbers``, or the ``centres`` of its cells."""
    return folder / f"bucket-{bucket}-{name:016x}.{kind}"


def write_bucket(folder: Path, bucket: int, name: int, **parts: NDArray[Any]) -> None:
    """Write a bucket's files, one for each kind of part, complete or not at all."""
    for kind, part in parts.items():
        data = np.ascontiguousarray(part).reshape(-1).view(np.uint8).data
        write_file(bucket_path(folder, bucket, name, kind), data, durable=False)


def _read(path: Path, dtype: np.dtype[Any], rows: int, width: int, first: int) -> NDArray[Any]:
    try:
        found = np.fromfile(path, dtype, rows * width, offset=first * width * dtype.itemsize)
    except FileNotFoundError:
        raise _damaged(path) from None
    if len(found) != rows * width:
        raise _damaged(path)
    return found.reshape(rows, width)


def _damaged(path: Path) -> StoreError:
    return StoreError(f"{path}: scratch is gone or damaged; give the same command again to rebuild it")
