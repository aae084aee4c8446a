"""The result of a draw: which rows, how often, and what the tree and the store know of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamcurate.errors import StoreError
from streamcurate.sampling.hierarchy import SampledLevel, SampledTree
from streamcurate.sampling.words import counted
from streamcurate.streaming.progress import ProgressListener

Int64 = NDArray[np.int64]

# Of a curated store: the rows' numbers where they come from, and how often each is drawn.
ROWS_NAME, COPIES_NAME = "rows", "copies"
# Rows looked up and written together.
BATCH = 1 << 16


@dataclass(frozen=True, eq=False, repr=False)
class Selection:
    """Rows drawn from a tree.

    Attributes
    ----------
    unique_rows : ndarray of int64, shape (u,)
        Distinct row numbers of the store, ascending.
    copies : ndarray of int64, shape (u,)
        How often each is drawn, 1 or more.
    strategy : str
    multiplier : int
    seed : int
        As they were asked for.
    tree : SampledTree
        Where it was drawn from; labels, distances and ids are looked up there when they are asked for.
    eligible : int or None
        How many rows could be drawn, where the draw was restricted.
    allocation : mapping
        The options of the allocation that were not the default ones, by name; empty for a balanced draw.
    notes : tuple of str
        What was asked for and could not be had.
    """

    unique_rows: Int64
    copies: Int64
    strategy: str
    multiplier: int
    seed: int
    tree: SampledTree
    eligible: int | None = None
    allocation: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    _upper_levels: list[tuple[NDArray[np.int32], NDArray[np.float32]]] = field(default_factory=list, init=False)

    def __len__(self) -> int:
        """Rows drawn, copies counted."""
        return int(self.copies.sum())

    def __repr__(self) -> str:
        said = "".join(f", {name}" + (f" {value}" if value != name else "") for name, value in self.allocation.items())
        rows = counted(len(self), "row")
        return f"Selection({rows}, {len(self.unique_rows):,} distinct, of {self.tree.path}{said})"

    @property
    def rows(self) -> Int64:
        """Row numbers, ascending, repeated per copy; int64, shape (n,)."""
        return np.repeat(self.unique_rows, self.copies)

    @property
    def ids(self) -> NDArray[Any] | None:
        """Ids aligned with :attr:`rows`, None where the store has none.

        Raises
        ------
        StoreError
            The store had ids and is gone.
        """
        unique = self.unique_ids
        return None if unique is None else np.repeat(unique, self.copies)

    @property
    def unique_ids(self) -> NDArray[Any] | None:
        """Ids aligned with :attr:`unique_rows`, None where the store has none."""
        take = self.id_reader()
        return None if take is None else take(self.unique_rows)

    @property
    def labels(self) -> list[NDArray[np.int32]]:
        """The cluster at each level, level 1 first, each aligned with :attr:`unique_rows`."""
        batches = [labels for labels, _ in self._looked_up()]
        return [np.concatenate([batch[level] for batch in batches]) for level in range(len(self.tree.levels))]

    @property
    def distances(self) -> NDArray[np.float32]:
        """Distance to the level-1 centroid (Euclidean, or 1 − cos), aligned with :attr:`unique_rows`."""
        return np.concatenate([distances[0] for _, distances in self._looked_up()])

    def id_reader(self) -> Callable[[Int64], NDArray[Any]] | None:
        """A function from ascending rows to their ids, None where the store has none.

        Raises
        ------
        StoreError
            The store had ids and is gone.
        """
        store = self.tree.embeddings()
        if store is None:
            if self.tree.source.get("ids"):
                place = self.tree.source.get("path") or "the store"
                raise StoreError(
                    f"{place}: is gone, and the ids of the drawn rows with it; put it back, or write .npy (row numbers)"
                )
            return None
        if store.take_ids(self.unique_rows[:1]) is None:
            return None

        def take(rows: Int64) -> NDArray[Any]:
            ids = store.take_ids(rows)
            assert ids is not None  # it had some a moment ago
            return ids

        return take

    def lookup(self, start: int, stop: int) -> tuple[list[NDArray[np.int32]], list[NDArray[np.float32]]]:
        """Labels and distances at every level of ``unique_rows[start:stop]``.

        The distance at level 1 is that of the row to its centroid, at level 2 of that centroid to its own, and so on.
        """
        rows = self.unique_rows[start:stop]
        first = self.tree.levels[0]
        labels = [np.asarray(first.stored_labels.take(rows), dtype=np.int32)]
        distances = [np.asarray(first.stored_distances.take(rows), dtype=np.float32)]
        for upper_labels, upper_distances in self._uppers():
            distances.append(upper_distances[labels[-1]])
            labels.append(upper_labels[labels[-1]])
        return labels, distances

    def to_parquet(self, path: str | os.PathLike[str], **options: Any) -> None:
        """Write one line per distinct row: row, id (where there are ids), label_1 .. label_L, distance,
        distance_2 .. distance_L, copies, and the columns of the metadata.

        ``distance`` is that of the row to its level-1 centroid, ``distance_2`` that of this centroid to its own.

        Parameters
        ----------
        path : path or URL
        metadata, metadata_key, columns, scratch, progress
            See :meth:`save`.

        Raises
        ------
        InputError
            The path has the suffix of another format, or the file cannot be written there.
        """
        self._write_as(path, ".parquet", options)

    def to_csv(self, path: str | os.PathLike[str], **options: Any) -> None:
        """Write the columns of :meth:`to_parquet` with a header line, missing values as nothing; raises as it does."""
        self._write_as(path, ".csv", options)

    def to_npy(self, path: str | os.PathLike[str], **options: Any) -> None:
        """Write :attr:`rows`: int64, ascending, repeated per copy; raises as :meth:`to_parquet` does."""
        self._write_as(path, ".npy", options)

    def to_arrow(self, path: str | os.PathLike[str], **options: Any) -> None:
        """Write :attr:`rows` as an index of Hugging Face ``datasets``: an Arrow stream of one uint64 column.

        ``datasets.Dataset.from_file("data.arrow", indices_filename=path)`` is the curated dataset, and so is
        ``dataset.select(pyarrow.ipc.open_stream(path).read_all()["indices"].to_numpy())``.
        """
        self._write_as(path, ".arrow", options)

    def to_txt(self, path: str | os.PathLike[str], **options: Any) -> None:
        """Write one id a line (the row number where there are no ids), repeated per copy; with metadata, its one
        column instead.

        Raises
        ------
        InputError
            The path has the suffix of another format, or the file cannot be written there.
        DataError
            An id contains a line break.
        """
        self._write_as(path, ".txt", options)

    def to_jsonl(self, path: str | os.PathLike[str], **options: Any) -> None:
        """Write the ids by shard, as WebDataset has them: ``{"shard": "00000", "keys": [...]}`` a line.

        With metadata its one column is the keys, and the shard is the name of the metadata file each comes from; with
        ``shard_digits`` it is the first characters of the key. Keys are repeated per copy. A shard whose rows do not
        lie together in the store has several lines.

        Raises
        ------
        InputError
            As :meth:`to_txt`, or it is not said what the shard of a key is.
        """
        self._write_as(path, ".jsonl", options)

    def to_zarr(self, path: str | os.PathLike[str], **options: Any) -> None:
        """Write the distinct rows as a new store of embeddings, with their ids, which every command takes.

        Beside them the store holds ``rows``, their numbers in the store they come from, and ``copies``, how often each
        is drawn. Unfinished work lies in ``path.partial``; the same call goes on with it.

        Parameters
        ----------
        path : path
            Nothing may lie there.
        embeddings : Embeddings, path or array, optional
            Where the rows are read, where the tree was built from an array in memory.
        progress : ProgressListener, optional

        Raises
        ------
        InputError
            Something lies there, or the store is gone.
        """
        self._write_as(path, ".zarr", options)

    def save(
        self,
        path: str | os.PathLike[str],
        *,
        metadata: Any = None,
        metadata_key: str | None = None,
        columns: Sequence[str] | str | None = None,
        shard_digits: int | None = None,
        embeddings: Any = None,
        memory_limit: int | str | None = None,
        scratch: str | os.PathLike[str] | None = None,
        progress: ProgressListener | None = None,
    ) -> None:
        """Write in the format that the suffix names: .parquet, .csv, .npy, .txt, .jsonl, .arrow or .zarr.

        An existing file is replaced, an existing .zarr refused.

        Parameters
        ----------
        path : path or URL
        metadata : path, glob pattern, or a list of these, optional
            Parquet files whose columns are written beside each row. Row i of the store is row i of all files, unless
            there is a key.
        metadata_key : str, optional
            The column that holds the ids. Such a join takes about 300 bytes a row drawn.
        columns : sequence of str, or names with commas between, optional
            Which columns; all by default.
        shard_digits : int, optional
            For .jsonl: how many of the first characters of a key name its shard.
        embeddings : Embeddings, path or array, optional
            For .zarr: where the rows are read.
        memory_limit : int or str, optional
            Bytes this process may use; by default half of what is available.
        scratch : path, optional
            A folder for metadata that is put into order; by default the system's for temporary files.
        progress : ProgressListener, optional

        Raises
        ------
        InputError
            Another suffix, options that do not go with it, or the file cannot be written there.
        """
        from streamcurate.sampling import export

        options = export.make_options(
            metadata=metadata,
            metadata_key=metadata_key,
            columns=columns,
            shard_digits=shard_digits,
            embeddings=embeddings,
            memory_limit=memory_limit,
            scratch=scratch,
            progress=progress,
        )
        export.write(self, path, options)

    def _write_as(self, path: str | os.PathLike[str], suffix: str, options: dict[str, Any]) -> None:
        from streamcurate.sampling import export

        export.write_as(self, path, suffix, export.make_options(**options))

    def _looked_up(self) -> Iterator[tuple[list[NDArray[np.int32]], list[NDArray[np.float32]]]]:
        for start in range(0, len(self.unique_rows), BATCH):
            yield self.lookup(start, start + BATCH)

    def _uppers(self) -> list[tuple[NDArray[np.int32], NDArray[np.float32]]]:
        """Labels and distances of the levels above the first, read once: 8 bytes for each cluster below."""
        if len(self._upper_levels) != len(self.tree.levels) - 1:
            self._upper_levels[:] = [_whole_level(level) for level in self.tree.levels[1:]]
        return self._upper_levels


def _whole_level(level: SampledLevel) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    labels, distances = level.stored_labels, level.stored_distances
    return (
        np.asarray(labels.read(0, labels.rows), dtype=np.int32),
        np.asarray(distances.read(0, distances.rows), dtype=np.float32),
    )
