"""The tree a user holds: what ``cluster`` gives and ``open_tree`` opens, with ``sample`` and ``assign`` as methods."""

from __future__ import annotations

import os
import shutil
import warnings
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from streamcurate import pipeline
from streamcurate.clustering.assign import Assignment, assign_rows
from streamcurate.embeddings.store import as_embeddings
from streamcurate.errors import DegenerateTreeWarning, InputError
from streamcurate.pipeline.executors import check_device, distributed, executor_for
from streamcurate.sampling import Selection
from streamcurate.sampling import sample as draw
from streamcurate.streaming import MemoryBudget, ProgressListener, Silent, parse_bytes
from streamcurate.tree import Tree as StoredTree
from streamcurate.tree import open_tree as open_stored_tree


class Tree(StoredTree):
    """A finished hierarchy.

    ``tree.levels[0].centroids``, ``.labels``, ``.distances``, ``.members`` and ``.offsets`` are Zarr arrays;
    :class:`~streamcurate.tree.Level` says what they hold.
    """

    def sample(
        self, size: int, strategy: str = "random", multiplier: int = 1, seed: int = 0, include: Any = None
    ) -> Selection:
        """Draw a balanced sample; see :func:`sample`."""
        return sample(self, size, strategy=strategy, multiplier=multiplier, seed=seed, include=include)

    def assign(self, embeddings: Any, out: str | os.PathLike[str], **options: Any) -> Assignment:
        """Label new rows; see :func:`assign`."""
        return assign(self, embeddings, out, **options)


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
) -> Selection:
    """Draw a balanced sample from a finished tree.

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
        An earlier draw, kept and topped up to ``size``.

    Returns
    -------
    Selection

    Raises
    ------
    InputError
        An argument out of range, or more rows than the tree can give.
    """
    held = tree if isinstance(tree, StoredTree) else open_tree(tree)
    return draw(held, size, strategy, multiplier, seed, include)


def assign(
    tree: StoredTree | str | os.PathLike[str],
    embeddings: Any,
    out: str | os.PathLike[str],
    *,
    memory_limit: int | str | None = None,
    threads: int | None = None,
    device: str = "auto",
    client: Any = None,
    progress: ProgressListener | None = None,
) -> Assignment:
    """Label new rows with the frozen centroids of a tree.

    Parameters
    ----------
    tree : Tree or path
    embeddings : Embeddings, path, or NumPy, CuPy, Dask or Zarr array
        Of the tree's dims.
    out : path
        A Zarr group made here: ``level-1/labels``, ``level-1/distances``, ``level-2/labels``, ...
    memory_limit, threads, device, client, progress
        As for ``cluster``.

    Returns
    -------
    Assignment

    Raises
    ------
    InputError
        Other dims, bad rows, or a destination that exists.
    """
    check_device(client, device)
    held = tree if isinstance(tree, StoredTree) else open_tree(tree)
    limit = parse_bytes(memory_limit) if isinstance(memory_limit, str) else memory_limit
    store, listener = as_embeddings(embeddings), progress or Silent()
    with ExitStack() as stack:
        scratch = Path(f"{os.fspath(out)}.scratch").absolute()
        if distributed(client, device):
            stack.callback(shutil.rmtree, scratch, ignore_errors=True)
            try:
                scratch.mkdir(exist_ok=True)
            except OSError as error:
                raise InputError(f"{scratch}: cannot be made ({error.strerror}); choose another place") from error
        executor, rows = stack.enter_context(
            executor_for(client, MemoryBudget.of(limit, threads), listener, scratch, [], store, device, threads)
        )
        return assign_rows(held, rows, out, executor)
