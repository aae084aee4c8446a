"""The tree a user holds: what ``cluster`` gives and ``open_tree`` opens, with ``sample`` and ``assign`` as methods."""

from __future__ import annotations

import os
import warnings
from typing import Any

from streamcurate import pipeline
from streamcurate.clustering.assign import Assignment, assign_rows, check_dims
from streamcurate.clustering.finished import finished_labels
from streamcurate.clustering.finished import open_labels as open_labels
from streamcurate.clustering.unfinished import LabelsExistError, UnfinishedLabels
from streamcurate.embeddings.store import as_embeddings
from streamcurate.errors import DegenerateTreeWarning
from streamcurate.pipeline.executors import check_device, executor_for
from streamcurate.pipeline.extend import extend as pipeline_extend
from streamcurate.reports import Report
from streamcurate.reports import report as write_report
from streamcurate.sampling import Explanation, Selection
from streamcurate.sampling import explain as explain_draw
from streamcurate.sampling import sample as draw
from streamcurate.streaming import MemoryBudget, ProgressListener, Silent
from streamcurate.tree import Tree as StoredTree
from streamcurate.tree import open_tree as open_stored_tree


class Tree(StoredTree):
    """A finished hierarchy.

    ``tree.levels[0].centroids``, ``.labels``, ``.distances``, ``.members`` and ``.offsets`` are Zarr arrays;
    :class:`~streamcurate.tree.Level` says what they hold.
    """

    def sample(
        self,
        size: int,
        strategy: str = "random",
        multiplier: int = 1,
        seed: int = 0,
        include: Any = None,
        eligible: Any = None,
        **options: Any,
    ) -> Selection:
        """Draw a sample; see :func:`streamcurate.sample`."""
        return sample(self, size, strategy, multiplier, seed, include, eligible, **options)

    def explain(self, size: int, **options: Any) -> Explanation:
        """Say how the quotas of a draw come about; see :func:`streamcurate.explain`."""
        return explain(self, size, **options)

    def assign(self, embeddings: Any, out: str | os.PathLike[str], **options: Any) -> Assignment:
        """Label new rows; see :func:`streamcurate.assign`."""
        return assign(self, embeddings, out, **options)

    def extend(self, embeddings: Any, out: str | os.PathLike[str], **options: Any) -> Tree:
        """Add the rows of a second store, in a run directory of its own; see :func:`streamcurate.extend`."""
        return extend(self, embeddings, out, **options)

    def report(
        self, out: str | os.PathLike[str], selection: Any = None, size: int | None = None, **options: Any
    ) -> Report:
        """Write one HTML page about the tree and a draw; see :func:`streamcurate.report`."""
        return write_report(self, out, selection, size, **options)


def cluster(embeddings: Any, run: str | os.PathLike[str] | None = None, **options: Any) -> Tree:
    tree = pipeline.cluster(embeddings, run, **options)
    if options.get("progress") is None:  # who listens has been told
        for text in tree.warnings:
            warnings.warn(text, DegenerateTreeWarning, stacklevel=2)
    return _held(tree)


cluster.__doc__ = pipeline.cluster.__doc__
cluster.__wrapped__ = pipeline.cluster  # type: ignore[attr-defined]  # its signature is what help() shows


def open_tree(path: str | os.PathLike[str]) -> Tree:
    """Open the finished tree of a run directory.

    Parameters
    ----------
    path : path
        The run directory.

    Raises
    ------
    RunError
        No run lies there, or it is unfinished.
    """
    return _held(open_stored_tree(path))


def _held(tree: StoredTree) -> Tree:
    held = Tree(tree.path, tree.manifest)
    held.keep_alive(tree.kept)
    return held


def sample(
    tree: StoredTree | str | os.PathLike[str],
    size: int,
    strategy: str = "random",
    multiplier: int = 1,
    seed: int = 0,
    include: Any = None,
    eligible: Any = None,
    *,
    allocation: str = "balanced",
    alpha: float | None = None,
    least_rows: int | None = None,
    least_rows_level: int | None = None,
    weights: Any = None,
    outlier_share: float | None = None,
    outlier_rows: int | None = None,
    outlier_percentile: float | None = None,
    memory_limit: int | str | None = None,
    scratch: str | os.PathLike[str] | None = None,
    progress: ProgressListener | None = None,
) -> Selection:
    """Draw a sample from a finished tree: balanced, unless the options of the allocation say otherwise.

    These combine: first clusters that give nothing drop out, then caps and leasts bound the others, weights share what
    each gives, and last the outliers are held to their share.

    Parameters
    ----------
    tree : Tree or path
        A tree, or its run directory.
    size : int
        Rows to draw, copies counted.
    strategy : "random", "closest" or "furthest"
        Which rows of a cluster come first.
    multiplier : int
        How often one row may be drawn.
    seed : int
        The same seed gives the same draw.
    include : Selection, path or array of row numbers, optional
        An earlier draw, kept and topped up to ``size``, its rows eligible or not.
    eligible : path, array, sequence or Selection, optional
        Draw among these rows alone, without clustering again: row numbers (integers), a mask (booleans, one for each
        row) or ids (strings), or a file of them (.npy, .txt, .csv, .parquet). Rows outside the tree are passed over.
    allocation : "balanced", "proportional" or "power"
        What the children of a cluster give is in proportion to 1, to the rows under them, or to these rows to the power
        ``alpha``, as far as each holds that much.
    alpha : float, optional
        For ``power``: from 0 (balanced) to 1 (proportional).
    least_rows : int, optional
        Clusters with fewer rows (with ``eligible``: fewer eligible rows) give nothing beside earlier rows.
    least_rows_level : int, optional
        The level of these clusters; 1, that above the rows, by default.
    weights : path (.csv, .parquet), mapping or sequence, optional
        Of single clusters: columns ``level``, ``cluster`` and any of ``weight`` (0 or more; multiplies what a cluster
        gives beside its siblings), ``cap`` (rows it gives at most, copies counted; earlier rows stay) and ``least``
        (rows it gives at least, if it holds them). Also a mapping of (level, cluster) to weights.
    outlier_share : float, optional
        Lone outliers give together at most this share of what their parent gives, as long as others can give the rest.
    outlier_rows : int, optional
        Most rows of the tree under an outlier, eligible or not; 1 by default.
    outlier_percentile : float, optional
        Below the top level, an outlier lies farther from its parent's centroid than the clusters of its level that hold
        this percentage of the rows; 90 by default.
    memory_limit : int or str, optional
        Bytes this process may use, the interpreter included; by default half of what is available. A draw takes about
        40 bytes a row.
    scratch : path, optional
        Folder for what a long list of eligible rows needs; by default the system's for temporary files.
    progress : ProgressListener, optional
        As for ``cluster``.

    Returns
    -------
    Selection

    Raises
    ------
    InputError
        An argument out of range, or more rows than the tree can give.
    """
    held = tree if isinstance(tree, StoredTree) else open_tree(tree)
    return draw(
        held,
        size,
        strategy,
        multiplier,
        seed,
        include,
        eligible,
        allocation=allocation,
        alpha=alpha,
        least_rows=least_rows,
        least_rows_level=least_rows_level,
        weights=weights,
        outlier_share=outlier_share,
        outlier_rows=outlier_rows,
        outlier_percentile=outlier_percentile,
        memory_limit=memory_limit,
        scratch=scratch,
        progress=progress,
    )


def explain(tree: StoredTree | str | os.PathLike[str], size: int, **options: Any) -> Explanation:
    return explain_draw(tree if isinstance(tree, StoredTree) else open_tree(tree), size, **options)


explain.__doc__ = explain_draw.__doc__
explain.__wrapped__ = explain_draw  # type: ignore[attr-defined]  # its signature is what help() shows


def assign(
    tree: StoredTree | str | os.PathLike[str],
    embeddings: Any,
    out: str | os.PathLike[str],
    *,
    memory_limit: int | str | None = None,
    scratch: str | os.PathLike[str] | None = None,
    threads: int | None = None,
    device: str = "auto",
    client: Any = None,
    progress: ProgressListener | None = None,
) -> Assignment:
    """Label new rows with the frozen centroids of a tree; the same call again goes on where it stopped.

    Parameters
    ----------
    tree : Tree or path
    embeddings : Embeddings, path, or NumPy, CuPy, Dask or Zarr array
        Of the tree's dims.
    out : path or URL
        A Zarr group made here: ``level-1/labels``, ``level-1/distances``, ``level-2/labels``, ..., and the rows'
        ``ids`` where they have any.
    scratch : path, optional
        Folder for intermediate arrays; by default beside ``out``, and for a URL where temporary files go.
    memory_limit, threads, device, client, progress
        As for ``cluster``.

    Returns
    -------
    Assignment
        Its ``novelty`` tells how many rows lie farther from their centroid than 99 % of those the tree was built from;
        where more than 5 % do, ``warnings`` say so.

    Raises
    ------
    InputError
        Other dims, bad rows, or a destination that holds anything but these very labels, finished or not.
    """
    check_device(client, device)
    held = tree if isinstance(tree, StoredTree) else open_tree(tree)
    budget = MemoryBudget.of(memory_limit, threads)
    store, listener = as_embeddings(embeddings), progress or Silent()
    check_dims(held, store)
    try:
        with UnfinishedLabels(out, scratch) as work:
            if (state := work.begin(held, store)) is not None:
                listener.note(state)
            folders = (work.scratch, [work.folder])
            with executor_for(client, budget, listener, *folders, store, device, threads) as (executor, rows):
                return assign_rows(held, rows, work, executor)
    except LabelsExistError:
        there = finished_labels(os.fspath(out).rstrip("/"), held, store, listener)
        if there is None:
            raise
        listener.note(f"{there.path}: finished already, nothing to do")
        return there


def extend(
    tree: StoredTree | str | os.PathLike[str], embeddings: Any, out: str | os.PathLike[str], **options: Any
) -> Tree:
    held = tree if isinstance(tree, StoredTree) else open_tree(tree)
    extended = pipeline_extend(held, embeddings, out, **options)
    if options.get("progress") is None:  # who listens has been told
        for text in extended.warnings:
            if text not in held.warnings:
                warnings.warn(text, DegenerateTreeWarning, stacklevel=2)
    return _held(extended)


extend.__doc__ = pipeline_extend.__doc__
extend.__wrapped__ = pipeline_extend  # type: ignore[attr-defined]  # its signature is what help() shows

# What help() and inspect.signature show; of a tree at hand they leave the first parameter out, the tree.
_SHOWN: list[tuple[Any, Any]] = [
    (Tree.sample, sample),
    (Tree.explain, explain_draw),
    (Tree.assign, assign),
    (Tree.extend, pipeline_extend),
    (Tree.report, write_report),
]
for _method, _function in _SHOWN:
    _method.__wrapped__, _method.__doc__ = _function, _function.__doc__
