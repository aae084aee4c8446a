"""The rows of a selection as a store of embeddings, which every command takes.

It is made as ``ingest`` makes one: in ``OUT.partial``, renamed when it is complete, and gone on with after a kill.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamcurate.embeddings.job import FORMAT
from streamcurate.embeddings.partial import Partial
from streamcurate.embeddings.sources import open_sources
from streamcurate.embeddings.store import PARTIAL_SUFFIX, as_embeddings
from streamcurate.embeddings.unfinished import Progress
from streamcurate.embeddings.writer import StoreWriter, default_chunk_rows
from streamcurate.errors import InputError, StoreError
from streamcurate.objects import is_url
from streamcurate.runs.digest import Digest
from streamcurate.sampling.output import Options
from streamcurate.sampling.selection import COPIES_NAME, ROWS_NAME, Selection
from streamcurate.storage import SequentialWriter, create_array

Int64 = NDArray[np.int64]

# Rows read together: whole chunks would be held beside the chunk that is written.
_READ_BYTES = 8 << 20
_READ_ROWS = 1 << 16
_COUNTS_CHUNK_ROWS = 1 << 20


def check_absent(path: str | os.PathLike[str]) -> None:
    """Refuse a place for a store where something lies.

    Raises
    ------
    InputError
        Saying so.
    """
    if not os.fspath(path):
        raise InputError("'': no place for a store; name the store to make, such as curated.zarr")
    if is_url(path):
        raise InputError(f"{path}: curated stores are written to a disk; name a path there and copy the store")
    if os.path.lexists(path):
        raise InputError(f"{path}: already exists, and a store is never replaced; remove it or choose another place")


def write_store(selection: Selection, path: str | os.PathLike[str], options: Options) -> None:
    """Copy distinct rows, their ids, numbers and copies; see :meth:`Selection.to_zarr`."""
    target = os.path.join(os.fspath(path), "").rstrip(os.sep)
    check_absent(target)
    source = _source(selection, options.embeddings)
    chunk_rows = default_chunk_rows(source.dims, source.dtype)
    note: dict[str, Any] = {
        "format": FORMAT,
        "identity": {
            "selection": _digest(selection),
            "store": [source.name, source.fingerprint],
            # The tree knows its own store; any other might be changed between a kill and the same call.
            "given": None if options.embeddings is None else _states(source),
            "tree": getattr(selection.tree, "digest", None),
        },
        "chunk_rows": chunk_rows,
    }
    with Partial(target + PARTIAL_SUFFIX) as partial:
        ours = not partial.job
        try:
            if partial.begin(note):
                options.listener.note(f"{partial.place}: what lay there cannot be gone on with; starting over")
            ours = True
            check_absent(target)  # nobody has finished it between the look above and the lock
            _copy(selection, source, partial, chunk_rows, target, options)
            partial.finish(target)
        except InputError:
            if ours:
                partial.remove()
            raise


def _copy(selection: Selection, source: Any, partial: Partial, chunk_rows: int, target: str, options: Options) -> None:
    rows, total = selection.unique_rows, len(selection.unique_rows)
    kind = None if source.ids is None else np.dtype(np.int64 if source.ids.dtype.kind in "iu" else object)
    # Ids come as NumPy strings, as readers give them.
    text = None if kind is None or kind.kind == "i" else np.dtypes.StringDType()
    with StoreWriter(partial, total, source.dims, source.dtype, kind, chunk_rows) as writer:
        begun = writer.progress.stored
        partial.check_space((total - begun) * source.dims * source.dtype.itemsize)
        options.listener.started(f"write {os.path.basename(target)}", total - begun)
        step = max(1, min(_READ_BYTES // (source.dims * source.dtype.itemsize), _READ_ROWS))
        for start in range(begun, total, step):
            wanted = rows[start : start + step]
            values = source.take(wanted)
            ids = None if kind is None else source.take_ids(wanted)
            writer.append(
                values,
                ids if ids is None or text is None else np.asarray(ids, dtype=text),
                _behind(start),
            )
            options.listener.advanced(len(wanted), values.nbytes)
        for name, counts in ((ROWS_NAME, rows), (COPIES_NAME, selection.copies)):
            chunk = min(_COUNTS_CHUNK_ROWS, total)
            array = create_array(os.path.join(partial.store, name), (total,), np.int64, chunk, overwrite=True)
            with SequentialWriter(array) as appended:
                appended.append(counts)
        writer.finish(_attributes(selection, source.name, kind))
    options.listener.finished()


def _behind(start: int) -> Callable[[int], Progress]:
    """Where the next row lies behind so many of a batch."""
    return lambda taken: Progress(row=start + taken)


def _source(selection: Selection, given: Any) -> Any:
    """Where the rows are read."""
    noted = selection.tree.source
    if given is None:
        found = selection.tree.embeddings()
        if found is None:
            place = noted.get("path") or "the array that was clustered"
            raise StoreError(
                f"{place}: is gone, and the embeddings of the drawn rows with it; put it back, give the embeddings "
                "(embeddings=), or write row numbers (.npy)"
            )
        return found
    source = as_embeddings(given)
    rows = selection.tree.levels[0].stored_labels.rows
    if source.rows != rows:
        raise InputError(
            f"{source.name}: has {source.rows:,} rows, and the tree in {selection.tree.path} is of {rows:,}; give the "
            "embeddings it was built from"
        )
    return source


def _states(source: Any) -> list[Any]:
    return [list(stamp) for reader in open_sources(source) for stamp in reader.stamps()]


def _digest(selection: Selection) -> str:
    return Digest().add(selection.unique_rows).add(selection.copies).hexdigest()


def _attributes(selection: Selection, name: str, ids: np.dtype[Any] | None) -> dict[str, Any]:
    """What the store says of itself, but for the fingerprint."""
    tree = selection.tree
    return {
        "format": FORMAT,
        "ids": None if ids is None else "int64" if ids.kind == "i" else "string",
        "selection": {
            "run": os.path.abspath(tree.path) if not is_url(tree.path) else tree.path,
            "digest": getattr(tree, "digest", None),
            "store": name,
            "rows": len(selection),
            "unique": len(selection.unique_rows),
            "strategy": selection.strategy,
            "multiplier": selection.multiplier,
            "seed": selection.seed,
            "eligible": selection.eligible,
            **({"allocation": dict(selection.allocation)} if selection.allocation else {}),
        },
    }
