"""The rows of a mixture as a store of embeddings, which every command takes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamcurate.embeddings.job import FORMAT
from streamcurate.embeddings.partial import Partial
from streamcurate.embeddings.store import PARTIAL_SUFFIX
from streamcurate.embeddings.unfinished import Progress
from streamcurate.embeddings.writer import StoreWriter, default_chunk_rows
from streamcurate.sampling.mixed import MixedPart, id_type
from streamcurate.sampling.store import check_absent
from streamcurate.storage import SequentialWriter, create_array
from streamcurate.streaming.progress import ProgressListener

Int64 = NDArray[np.int64]

# Rows read together: whole chunks would be held beside the chunk that is written.
_READ_BYTES = 8 << 20
_READ_ROWS = 1 << 16
_COLUMN_CHUNK_ROWS = 1 << 20


def write_store(
    parts: Sequence[MixedPart], path: str, folder: Path, said: dict[str, Any], listener: ProgressListener
) -> None:
    """Copy the rows of all parts, one after the other, with their ids.

    Beside them lie ``part`` and ``source`` (int32: places in the lists of names among the store's attributes), ``row``
    (int64: the number in the source) and ``copies`` (int64).

    Parameters
    ----------
    parts : sequence of MixedPart
        Of equal dims; all with ids, or none.
    path : str
        Nothing lies there.
    folder : Path
        Where the store is put together, and gone on with after a kill.
    said : dict
        What it says of itself.
    listener : ProgressListener
    """
    target = os.path.join(path, "").rstrip(os.sep)
    check_absent(target)  # nobody has made it meanwhile
    dims = parts[0].embeddings.dims
    dtype = np.result_type(*(part.embeddings.dtype for part in parts))
    sources = list(dict.fromkeys(store for part in parts for store in part.stores))
    chunk_rows = default_chunk_rows(dims, dtype)
    copies = [part.copies if isinstance(part.copies, int) else part.copies.checksum for part in parts]
    identity = {"rows": [part.rows.checksum for part in parts], "copies": copies, "sources": sources}
    with Partial(str(folder / f"store{PARTIAL_SUFFIX}")) as partial:
        if partial.begin({"format": FORMAT, "identity": identity, "chunk_rows": chunk_rows}):
            listener.note(f"{partial.place}: what lay there cannot be gone on with; starting over")
        with _writer(partial, parts, dims, dtype, chunk_rows) as writer:
            _copy(parts, writer, dtype, partial, os.path.basename(target), listener)
            _columns(parts, sources, Path(partial.store))
            kind = id_type(parts)
            noted = {"parts": [part.name for part in parts], "sources": sources}
            attributes = {"format": FORMAT, "ids": None if kind is None else _ID_NAMES[kind]}
            writer.finish(attributes | {"mixture": {**said, **noted}})
        partial.finish(target)


_ID_NAMES = {"integers": "int64", "strings": "string"}


def _writer(
    partial: Partial, parts: Sequence[MixedPart], dims: int, dtype: np.dtype[Any], chunk_rows: int
) -> StoreWriter:
    kind = id_type(parts)
    ids = None if kind is None else np.dtype(np.int64 if kind == "integers" else object)
    return StoreWriter(partial, sum(part.rows.count for part in parts), dims, dtype, ids, chunk_rows)


def _copy(
    parts: Sequence[MixedPart],
    writer: StoreWriter,
    dtype: np.dtype[Any],
    partial: Partial,
    name: str,
    listener: ProgressListener,
) -> None:
    total, begun = sum(part.rows.count for part in parts), writer.progress.stored
    kind, dims = id_type(parts), parts[0].embeddings.dims
    partial.check_space((total - begun) * dims * dtype.itemsize)
    listener.started(f"write {name}", total - begun)
    step = max(1, min(_READ_BYTES // (dims * dtype.itemsize), _READ_ROWS))
    line = begun
    for part, start in _from(parts, begun):
        for lines in part.lines(start, step):
            values = part.embeddings.take(lines.rows).astype(dtype, copy=False)
            ids = None if kind is None else lines.ids()
            if ids is not None and kind == "strings":
                # Ids come as NumPy strings, as readers give them.
                ids = np.array([str(each) for each in ids.tolist()], dtype=np.dtypes.StringDType())
            writer.append(values, ids, _behind(line))
            line += len(lines.rows)
            listener.advanced(len(lines.rows), values.nbytes)
    listener.finished()


def _from(parts: Sequence[MixedPart], line: int) -> Iterator[tuple[MixedPart, int]]:
    """The parts from a line on, and where each begins."""
    for part in parts:
        if line < part.rows.count:
            yield part, line
        line = max(line - part.rows.count, 0)


def _behind(line: int) -> Callable[[int], Progress]:
    """Where the next row lies behind so many of a batch."""
    return lambda taken: Progress(row=line + taken)


def _columns(parts: Sequence[MixedPart], sources: Sequence[str], store: Path) -> None:
    """The arrays that say where each row comes from."""
    total = sum(part.rows.count for part in parts)
    for name, dtype in (("part", np.int32), ("source", np.int32), ("row", np.int64), ("copies", np.int64)):
        chunk = min(_COLUMN_CHUNK_ROWS, total)
        array = create_array(store / name, (total,), dtype, chunk, overwrite=True)
        with SequentialWriter(array) as writer:
            for number, part in enumerate(parts):
                codes = np.array([sources.index(place) for place in part.stores], dtype=np.int32)
                for lines in part.lines():
                    at, own = part.located(lines.rows)
                    here = np.full(len(own), number, dtype=np.int32)
                    column: dict[str, NDArray[Any]] = {"part": here, "source": codes[at], "row": own}
                    writer.append(column.get(name, lines.copies))
