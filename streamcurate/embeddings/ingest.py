"""Ingest: rows of any known source, checked one by one, into a store; bounded in memory, sure to survive a kill."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Literal

import numpy as np
from numpy.typing import DTypeLike, NDArray

from streamcurate.embeddings.job import Job, is_finished, make_job, make_options
from streamcurate.embeddings.partial import Partial
from streamcurate.embeddings.rowcheck import BadRows, convert
from streamcurate.embeddings.sources.idfiles import IdsStream
from streamcurate.embeddings.store import PARTIAL_SUFFIX, Embeddings, open_embeddings
from streamcurate.embeddings.unfinished import Progress, Unfinished
from streamcurate.embeddings.writer import StoreWriter
from streamcurate.errors import DataError, InputError, ObjectError, RunError
from streamcurate.objects import base_name, is_url
from streamcurate.streaming.progress import ProgressListener, Silent


def ingest(
    sources: Any,
    out: str | os.PathLike[str],
    *,
    column: str | None = None,
    ids: str | os.PathLike[str] | None = None,
    dtype: DTypeLike | None = None,
    rows_per_chunk: int | None = None,
    rows_per_shard: int | None = None,
    on_bad_row: Literal["error", "drop"] = "error",
    metric: Literal["l2", "cosine"] | None = None,
    progress: ProgressListener | None = None,
    memory_limit: int | str | None = None,
) -> Embeddings:
    """Copy embeddings into a store, checking every row.

    Works in ``OUT.partial`` and renames it when done; at a URL the store is written in place, and its state into
    ``OUT.partial``: nothing takes it for a store before its metadata is written, last of all. The same call goes on
    after a kill at any instant; on a finished store made from the same sources with the same options it has nothing to
    do.

    Parameters
    ----------
    sources : path, glob pattern, array, or a list of these
        Files (.npy, .npz, Parquet, Arrow, .safetensors, .pt, Lance), folders of files of one format, folders saved by
        Hugging Face ``datasets``, Zarr arrays and groups (paths or open), at URLs too, and NumPy, CuPy and Dask arrays.
        Rows come in the order of the list; files of a pattern or folder in natural order.
    out : path or URL
        The store to make.
    column : str, optional
        Column, array or tensor; not needed where there is only one of floats.
    ids : str, optional
        Column of ids; for .npy files one of ``metadata_N.parquet`` beside ``img_emb_N.npy`` or in ``../metadata``. Or a
        file with one id for each row (.txt, .npy, .csv, .parquet or .parquet:COLUMN), or a pattern or folder (written
        with a slash at its end) of such files, one for each source.
    dtype : float16 or float32, optional
        The sources' own by default: float16 where all are, else float32.
    rows_per_chunk : int, optional
        Chunks of about 64 MiB by default.
    rows_per_shard : int, optional
        Put so many rows, several chunks, into a file: fewer and larger files. By default each chunk is a file.
    on_bad_row : {"error", "drop"}
        What to do with rows that hold NaN or Inf or values beyond ``dtype``.
    metric : {"l2", "cosine"}, optional
        Under "cosine" rows of zeros are bad rows too.
    progress : ProgressListener, optional
    memory_limit : int or str, optional
        Refuse chunks that do not fit.

    Returns
    -------
    Embeddings

    Raises
    ------
    DataError
        Bad rows, sources of different dimensions, damaged files.
    InputError
        Missing or unreadable sources, wrong dimensions or dtype, a destination that exists and is something else.
    DiskFullError
        The store does not fit.
    RunError
        Another process is ingesting to the same place, or rows of other sources or options lie there unfinished.
    """
    listener = progress or Silent()
    target = os.path.join(os.fspath(out), "").rstrip(os.sep)
    if not target:
        raise InputError(f"{os.fspath(out)!r}: no place for a store; name the store to make, such as embeddings.zarr")
    partial = unfinished_at(target)
    options = make_options(column, ids, dtype, rows_per_chunk, on_bad_row, metric, rows_per_shard)
    job = make_job(sources, None if ids is None else os.fspath(ids), target, options, memory_limit)
    if is_finished(target, job):
        _remove_remains(partial, job)
        listener.note(f"{target}: already complete, from the same sources; nothing to do")
        return open_embeddings(target)
    with partial:
        ours = not partial.job
        try:
            if is_finished(target, job):  # by another process, between the look above and the lock
                partial.remove()
                return open_embeddings(target)
            damaged = partial.begin(job.note)
            ours = True
            if damaged:
                listener.note(f"{partial.place}: what lay there cannot be gone on with; starting over")
            _Ingest(job, target, partial, listener).run()
            partial.finish(target)
        except ObjectError as error:
            # Stores that do not answer come back: hours of work are not thrown away for it.
            if ours and not partial.progress.stored:
                with suppress(ObjectError):
                    partial.remove()
                raise
            raise ObjectError(f"{error}; {partial.progress.stored:,} rows are kept in {partial.place}") from error
        except InputError:
            # What another command began is not ours to remove; everything else is of no use to anyone.
            if ours:
                partial.remove()
            raise
    return open_embeddings(target)


def unfinished_at(target: str) -> Unfinished:
    """The unfinished ingest of a store, on a disk or at a URL."""
    place = target + PARTIAL_SUFFIX
    if not is_url(target):
        return Partial(place)
    from streamcurate.embeddings.upload import Upload

    return Upload(target, place)


def _remove_remains(partial: Unfinished, job: Job) -> None:
    """Remove what a kill between the store's completion and the end left of the same ingest."""
    try:
        if not partial.exists():
            return
        with partial:
            if not partial.job or partial.job.get("identity") == job.identity:
                partial.remove()
    except (RunError, InputError):
        pass  # somebody else's, who will see to it


class _Ingest:
    """One ingest under way."""

    def __init__(self, job: Job, target: str, partial: Unfinished, listener: ProgressListener) -> None:
        self._job, self._target, self._partial, self._listener = job, target, partial, listener
        self._bad = BadRows(job.dtype)

    def run(self) -> None:
        job = self._job
        self._check_space()
        chunk_rows = int(self._partial.job["chunk_rows"])
        with StoreWriter(
            self._partial, job.rows, job.dims, job.dtype, job.ids_dtype, chunk_rows, job.shard_rows
        ) as writer:
            begun = writer.progress
            name = f"ingest {base_name(self._target)}"
            if begun.stored:
                self._listener.note(f"{name}: going on behind row {begun.stored:,}")
            self._listener.started(name, 0 if job.rows is None else job.rows - begun.read)
            dropped = begun.dropped
            for source, start, values, ids in self._blocks(begun):
                reader = job.readers[source]
                if values.shape[1] != job.dims:
                    raise DataError(f"{reader.name}: row {start} has {values.shape[1]} values instead of {job.dims}")
                good, bad = convert(values, job.dtype, job.options["metric"] == "cosine")
                self._bad.add(reader.name, reader.bad_values, start, bad, ids)
                if not self._bad.total or job.options["on_bad_row"] == "drop":
                    dropped += self._append(writer, source, start, dropped, good, bad, ids)
                self._partial.alive()
                self._listener.advanced(len(values), values.nbytes)
            self._listener.finished()
            self._conclude(writer, dropped)

    def _blocks(self, begun: Progress) -> Iterator[tuple[int, int, NDArray[Any], NDArray[Any] | None]]:
        """Number of the source, row inside it, values and ids."""
        stream = IdsStream(self._job.ids_file, begun.read) if self._job.ids_file else None
        for source in range(begun.source, len(self._job.readers)):
            row = begun.row if source == begun.source else 0
            reader = self._job.readers[source]
            if reader.rows == 0:
                continue
            for values, ids in reader.blocks(row):
                yield source, row, values, ids if stream is None else stream.next(len(values))
                row += len(values)

    def _append(
        self,
        writer: StoreWriter,
        source: int,
        start: int,
        dropped: int,
        values: NDArray[Any],
        bad: dict[str, NDArray[Any]],
        ids: NDArray[Any] | None,
    ) -> int:
        """Hand the good rows of a block to the writer; how many were dropped."""
        kept: NDArray[np.int64] | None = None
        if bad:
            mask = np.ones(len(values), dtype=bool)
            for rows in bad.values():
                mask[rows] = False
            kept = np.flatnonzero(mask)
            count, values, ids = len(values), values[kept], None if ids is None else ids[kept]
        else:
            count = len(values)

        def after(taken: int) -> Progress:
            behind = taken if kept is None else int(kept[taken - 1]) + 1
            return Progress(0, source, start + behind, dropped + behind - taken)

        writer.append(values, ids if self._job.ids_dtype is not None else None, after)
        return count - len(values)

    def _conclude(self, writer: StoreWriter, dropped: int) -> None:
        for number, reader in enumerate(self._job.readers):
            if reader.stamps() != self._job.stamps[number]:
                raise DataError(f"{reader.name}: was changed while it was read; give the same command again")
        if self._bad.total and self._job.options["on_bad_row"] == "error":
            raise DataError(f"{self._bad}; {self._bad.fix}")
        if not writer.rows:
            raise DataError(f"{self._bad}; no row is left")
        if dropped:
            where = f": {self._bad}" if self._bad.total else ""
            self._listener.note(
                f"dropped {dropped:,} bad row{'s' * (dropped != 1)} of {writer.rows + dropped:,}{where}"
            )
        writer.finish(self._job.attributes(dropped))

    def _check_space(self) -> None:
        if self._job.rows is None:
            return
        left = self._job.rows - self._partial.progress.stored
        self._partial.check_space(left * self._job.dims * self._job.dtype.itemsize)
