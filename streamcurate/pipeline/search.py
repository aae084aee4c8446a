"""A search by examples, from what a user names to what the rooms below work on."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from streamcurate.clustering.assign import stamps_digest
from streamcurate.embeddings.fingerprint import FingerprintBuilder
from streamcurate.embeddings.rowlist import open_list
from streamcurate.embeddings.store import Embeddings, as_embeddings
from streamcurate.embeddings.subset import Subset, read_subset
from streamcurate.errors import ChangedStoreError, DataError, InputError, StoreError
from streamcurate.kernels import Metric
from streamcurate.neighbors.examples.nearest_seeds import FaultyRowsError, Search
from streamcurate.neighbors.examples.seeds import Seeds, check_seeds
from streamcurate.neighbors.examples.stages import Stages
from streamcurate.neighbors.unfinished import UnfinishedWork
from streamcurate.pipeline.executors import check_device, executor_for
from streamcurate.pipeline.rows import SourceRows
from streamcurate.runs.checkpoints import Checkpoints
from streamcurate.runs.digest import combine_digests
from streamcurate.sampling.scratch import scratch_folder
from streamcurate.storage import SequentialWriter, StoredArray, create_array
from streamcurate.streaming import Executor, MemoryBudget, ProgressListener
from streamcurate.tree import Tree

_MASK_CHUNK_ROWS = 1 << 20
_READ_BYTES = 8 << 20
_FIX = "drop them when ingesting (--on-bad-row drop), or leave them out with --subset"
_ZERO_FIX = "give a radius --l2, or leave them out with --subset"


@dataclass(frozen=True)
class Computing:
    """Where and with how much memory to compute, as a user says."""

    budget: MemoryBudget
    scratch: str | os.PathLike[str] | None
    threads: int | None
    device: str
    client: Any
    listener: ProgressListener


@dataclass(frozen=True)
class Looking:
    """A search that can begin.

    Attributes
    ----------
    search : Search
    seeds : Seeds
    count : int
        Rows looked at.
    stamps : tuple of (Embeddings, str or None)
        Rows and seeds, each with the digest of the files that hold them, as they were when it began.
    """

    search: Search
    seeds: Seeds
    count: int
    stamps: tuple[tuple[Embeddings, str | None], ...]

    def check_unchanged(self) -> None:
        """Refuse a store whose files changed while it was read.

        Raises
        ------
        ChangedStoreError
        """
        for embeddings, before in self.stamps:
            if stamps_digest(embeddings) != before:
                raise ChangedStoreError(
                    f"{embeddings.name}: changed while it was read; give the command again once nobody writes to it"
                )


@contextmanager
def looking(
    kind: str,
    rows: SourceRows,
    examples: Any,
    metric: Metric,
    limit: float | None,
    asked: Mapping[str, Any],
    out: str | None,
    subset: Any,
    computing: Computing,
) -> Iterator[Looking]:
    """Open everything that a search needs; what it finished is kept beside ``out`` where an error ends it.

    Parameters
    ----------
    kind : "retrieve" or "exclude"
    rows : SourceRows
    examples : anything that holds embeddings
    metric : "l2" or "cosine"
    limit : float or None
        The largest value of the formula that counts.
    asked : mapping of JSON values
        Further options that the result depends on.
    out : str or None
        The file to be made, beside which unfinished work lies; None for a result in memory.
    subset : as for ``cluster``
    computing : Computing

    Raises
    ------
    InputError
        Other dims, bad rows, a changed store, or unfinished work of another kind.
    """
    check_device(computing.client, computing.device)
    called = "seed" if kind == "retrieve" else "unwanted example"
    given = _opened(examples, rows, called)
    before = stamps_digest(rows.embeddings)
    stamps = (rows.embeddings, before), (given, stamps_digest(given))
    seeds = check_seeds(given, rows.embeddings, metric, computing.budget, called)
    with ExitStack() as stack:
        work: UnfinishedWork | None = None
        checkpoints: Checkpoints | None = None
        if out is None:
            scratch = Path(stack.enter_context(scratch_folder(kind, computing.scratch)))
            folders = [scratch]
        else:
            work = stack.enter_context(UnfinishedWork(out, kind, computing.scratch))
            identity = {
                "source": rows.name,
                "seeds" if kind == "retrieve" else "unwanted": seeds.embeddings.name,
                **asked,
            }
            if (state := work.begin(identity)) is not None:
                computing.listener.note(state)
            scratch, folders, checkpoints = work.scratch, [work.folder], work.checkpoints
        listed = None
        if subset is not None:
            ids, memory = rows.embeddings.ids, computing.budget.usable // 2
            listed = read_subset(subset, rows.embeddings.rows, scratch, memory, ids, computing.listener)
        stages = Stages(computing.listener)
        entered = executor_for(
            computing.client,
            computing.budget,
            stages,
            scratch,
            folders,
            rows.embeddings,
            computing.device,
            computing.threads,
        )
        executor, store = stack.enter_context(entered)
        mask, count = _mask(rows, listed, scratch, executor)
        fingerprint = ""
        if checkpoints is not None:
            content = _content(rows, before, executor)
            fingerprint = combine_digests(
                [content, seeds.digest, listed.digest if listed else "", metric, str(limit), str(count)]
            )
        search = Search(store, mask, executor, scratch, checkpoints, fingerprint, stages)
        try:
            yield Looking(search, seeds, count, stamps)
        except (FaultyRowsError, DataError, ChangedStoreError) as error:
            if work is not None:  # whoever mends this has other rows then, or another file
                work.discard()
            if isinstance(error, FaultyRowsError):
                error.faults.refuse(rows.embeddings, metric, _FIX, _ZERO_FIX)
            raise
        if work is not None:
            work.discard()


def _opened(examples: Any, rows: SourceRows, called: str) -> Embeddings:
    """Examples as embeddings; of a list of rows it is said how to make some of it."""
    try:
        return as_embeddings(examples)
    except InputError as error:
        if not isinstance(examples, (str, os.PathLike)) or not _is_list(examples):
            raise
        place = os.fspath(examples)
        part = f"{{name: examples, rows: {place}, of: {rows.name}}}"
        raise InputError(
            f"{place}: a list of rows, and {called}s are embeddings; make a store of these rows first: write the line "
            f"'parts: [{part}]' into examples.yaml and give streamcurate mix examples.yaml --out examples.zarr; where "
            "the rows are those of another store, name that one there"
        ) from error


def _is_list(path: str | os.PathLike[str]) -> bool:
    try:
        open_list(path, True, "list", "the list")
    except (InputError, StoreError):
        return False
    return True


def _content(rows: SourceRows, stamps: str | None, executor: Executor) -> str:
    """What tells rows from other rows: the files they lie in, or what they hold."""
    own = rows.embeddings
    known = (
        [] if rows.tree is None else [str(rows.tree.digest), *(one.fingerprint for one in rows.tree.manifest.stores)]
    )
    if stamps is not None or known:
        return combine_digests([*known, stamps or ""])
    builder = FingerprintBuilder(own.dims, own.dtype)
    step = max(_READ_BYTES // (own.dims * own.dtype.itemsize), 1)
    executor.progress.started("compare rows", own.rows)
    for start in range(0, own.rows, step):
        values = own.read(start, min(start + step, own.rows))
        builder.update(values)
        executor.progress.advanced(len(values), values.nbytes)
    executor.progress.finished()
    return builder.result()


def _mask(rows: SourceRows, subset: Subset | None, scratch: Path, executor: Executor) -> tuple[StoredArray | None, int]:
    """Which rows are looked at, and how many: those of the subset, of a tree only the rows it was built on."""
    own = None if subset is None else subset.mask
    if rows.tree is None or _holds_all(rows.tree):
        return own, rows.embeddings.rows if subset is None else subset.rows
    labels = rows.tree.levels[0].stored_labels
    mask = create_array(
        scratch / "looked-at", (labels.rows,), np.uint8, _MASK_CHUNK_ROWS, durable=False, overwrite=True
    )
    count = 0
    executor.progress.started("rows of the tree", labels.rows)
    with SequentialWriter(mask) as writer:
        for start in range(0, labels.rows, _MASK_CHUNK_ROWS):
            stop = min(start + _MASK_CHUNK_ROWS, labels.rows)
            inside = labels.read(start, stop) >= 0
            if own is not None:
                inside &= own.read(start, stop) != 0
            count += int(np.count_nonzero(inside))
            writer.append(inside.astype(np.uint8))
            executor.progress.advanced(stop - start, 4 * (stop - start))
    executor.progress.finished()
    return mask, count


def _holds_all(tree: Tree) -> bool:
    return tree.levels[0].stored_members.rows == tree.levels[0].points
