"""The draw a report is about, and draws of the same size at random to compare it with."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamcurate import kernels
from streamcurate.embeddings.checks import suffix_of
from streamcurate.errors import ConfigError, InputError
from streamcurate.objects import open_file
from streamcurate.sampling import Hierarchy, Selection, sample
from streamcurate.sampling.include import read_included
from streamcurate.storage import open_group_attributes
from streamcurate.tree import Tree

Int64 = NDArray[np.int64]

# The size where none is given: a tenth of the rows, and not more than a million.
DEFAULT_SHARE = 10
LARGEST_DEFAULT = 1_000_000
# First word of this room's random streams ("repo" in ASCII).
STREAM = 0x7265706F
RANDOM_DRAW, POOL_SAMPLE, DRAW_SAMPLE = range(3)
# Random draws to compare with; of large draws fewer, which differ little.
_RANDOM_DRAWS, _FEWER_RANDOM_DRAWS = 5, 3
_LARGE_DRAW = 1 << 18
_BATCH = 1 << 18


@dataclass(frozen=True, eq=False)
class Drawn:
    """Rows drawn from a tree.

    Attributes
    ----------
    rows, copies : ndarray of int64, shape (u,)
        Distinct rows, ascending, and how often each is drawn.
    counts : list of ndarray of int64
        Copies drawn from each cluster, level 1 first.
    name : str
        What it is called.
    options : mapping or None
        How it was drawn: what :func:`streamcurate.sampling.sample` was given. None where that is not known.
    """

    rows: Int64
    copies: Int64
    counts: list[Int64]
    name: str
    options: Mapping[str, Any] | None

    @property
    def size(self) -> int:
        """Rows with their copies."""
        return int(self.copies.sum())


def default_size(rows: int) -> int:
    """How many rows to draw where nobody says: a tenth of them, at most a million.

    Examples
    --------
    >>> default_size(444), default_size(10**9)
    (45, 1000000)
    """
    return max(min(-(-rows // DEFAULT_SHARE), LARGEST_DEFAULT), 1)


def take_draw(
    tree: Tree, hierarchy: Hierarchy, selection: Any, size: int | None, options: Mapping[str, Any], **means: Any
) -> Drawn:
    """The draw a user means: one that exists, or a new one.

    Parameters
    ----------
    tree : Tree
    hierarchy : Hierarchy
    selection : Selection, path, array of row numbers, or None
    size : int or None
        Rows to draw where no selection is given.
    options : mapping
        Of the draw, as for :func:`streamcurate.sampling.sample`.
    means : keyword arguments
        ``memory_limit``, ``scratch``, ``progress``.

    Raises
    ------
    InputError
        The selection cannot be read, or is of another tree.
    ConfigError
        Options that say nothing beside a selection.
    """
    if selection is None:
        size = default_size(hierarchy.rows) if size is None else size
        selection = sample(tree, size, **options, **means)
        said = ", ".join(f"{name} {value}" for name, value in selection.allocation.items())
        name = f"drawn for this report ({selection.strategy}, seed {selection.seed}{', ' if said else ''}{said})"
        return _counted(tree, hierarchy, selection.unique_rows, selection.copies, name, {"size": size, **options})
    if size is not None or options:
        given = "size" if size is not None else next(iter(options))
        raise ConfigError(f"{given}: says how to draw, and a selection is given, drawn already; leave one of them out")
    if isinstance(selection, Selection):
        _check_same_tree(tree, selection)
        known: dict[str, Any] | None = None
        if selection.eligible is None:
            known = {
                "size": len(selection),
                "strategy": selection.strategy,
                "multiplier": selection.multiplier,
                "seed": selection.seed,
                **selection.allocation,
            }
        name = f"a selection ({selection.strategy}, seed {selection.seed})"
        return _counted(tree, hierarchy, selection.unique_rows, selection.copies, name, known)
    included = read_included(selection, tree.levels[0].stored_labels, tree.path)
    if not len(included.rows):
        raise InputError(f"{selection}: holds no rows; give a selection that does, or none")
    if isinstance(selection, (str, os.PathLike)):
        _check_file(tree, os.fspath(selection))
    counts = np.zeros(hierarchy.clusters(1), dtype=np.int64)
    np.add.at(counts, included.leaves, included.copies)
    name = os.fspath(selection) if isinstance(selection, (str, os.PathLike)) else "an array of row numbers"
    return Drawn(included.rows, included.copies, hierarchy.totals(counts), name, None)


def random_draws(tree: Tree, hierarchy: Hierarchy, size: int, seed: int) -> list[Drawn]:
    """Draws of the same size, every row of the tree equally likely.

    Rows are drawn once each as long as there are enough; of a draw larger than the tree each row comes ⌊size/n⌋ times,
    and the remainder is drawn.
    """
    found = []
    members, rows = tree.levels[0].stored_members, hierarchy.rows
    base, extra = divmod(size, rows)
    for number in range(_RANDOM_DRAWS if size <= _LARGE_DRAW else _FEWER_RANDOM_DRAWS):
        places = uniform_places(rows, extra, seed, (RANDOM_DRAW, number))
        counts = np.diff(np.searchsorted(places, hierarchy.leaf_offsets)) + base * hierarchy.sizes
        drawn = np.empty(len(places), dtype=np.int64)
        for start in range(0, len(places), _BATCH):
            drawn[start : start + _BATCH] = members.take(places[start : start + _BATCH])
        drawn.sort()
        copies = np.ones(len(drawn), dtype=np.int64)
        if base:
            every = np.sort(np.asarray(members.read(0, rows), dtype=np.int64))
            copies = np.full(rows, base, dtype=np.int64)
            copies[np.searchsorted(every, drawn)] += 1
            drawn = every
        found.append(Drawn(drawn, copies, hierarchy.totals(counts), f"at random, number {number + 1}", None))
    return found


def uniform_places(total: int, wanted: int, seed: int, stream: tuple[int, ...]) -> Int64:
    """Distinct numbers below ``total``, all sets of so many equally likely; ascending, in memory of their number.

    Random numbers are taken one after the other, repeats passed over; of a set of more than half, what it leaves out
    is drawn.
    """
    if wanted >= total:
        return np.arange(total, dtype=np.int64)
    if wanted > total // 2:
        return np.delete(np.arange(total, dtype=np.int64), uniform_places(total, total - wanted, seed, stream))
    found = np.empty(0, dtype=np.int64)
    counter = 0
    while len(found) < wanted:
        count = wanted - len(found)
        count += count // 8 + 16
        bits = kernels.random_bits(seed, (STREAM, *stream), np.arange(counter, counter + count))
        counter += count
        together = np.append(found, (bits % np.uint64(total)).astype(np.int64))
        _, first = np.unique(together, return_index=True)
        found = together[np.sort(first)][:wanted]
    found.sort()
    return found


def _counted(
    tree: Tree, hierarchy: Hierarchy, rows: Int64, copies: Int64, name: str, options: Mapping[str, Any] | None
) -> Drawn:
    counts = np.zeros(hierarchy.clusters(1), dtype=np.int64)
    labels = tree.levels[0].stored_labels
    for start in range(0, len(rows), _BATCH):
        np.add.at(counts, labels.take(rows[start : start + _BATCH]), copies[start : start + _BATCH])
    return Drawn(rows, copies, hierarchy.totals(counts), name, options)


def _check_same_tree(tree: Tree, selection: Selection) -> None:
    other = getattr(selection.tree, "digest", None)
    if other != tree.digest:
        raise InputError(
            f"the selection was drawn from {selection.tree.path} (digest {other}), and the report is about {tree.path} "
            f"(digest {tree.digest}); draw from this tree, or report on that one"
        )


def _check_file(tree: Tree, path: str) -> None:
    """Refuse the file of a draw that says it was drawn from another tree of the same store."""
    suffix = suffix_of(path.rstrip("/"))
    if suffix == ".zarr":
        noted = (open_group_attributes(path).get("selection") or {}).get("digest")
        if noted is not None and noted != tree.digest:
            raise InputError(
                f"{path}: was drawn from a tree with the digest {noted}, and that of {tree.path} is {tree.digest}; "
                "draw from this tree, or report on that one"
            )
    if suffix != ".parquet":
        return
    import pyarrow.parquet

    labels = tree.levels[0].stored_labels
    with open_file(path) as source, pyarrow.parquet.ParquetFile(source) as file:
        if "label_1" not in file.schema_arrow.names:
            return
        for batch in file.iter_batches(_BATCH, columns=["row", "label_1"]):
            rows, noted = (batch.column(name).to_numpy(zero_copy_only=False) for name in ("row", "label_1"))
            order = np.argsort(rows, kind="stable")
            distinct, first = np.unique(rows[order], return_index=True)
            here, there = labels.take(distinct.astype(np.int64)), noted[order][first]
            if (here != there).any():
                at = int(np.argmax(here != there))
                raise InputError(
                    f"{path}: has row {int(distinct[at])} in cluster {int(there[at])} of level 1, and in {tree.path} "
                    f"it is in cluster {int(here[at])}: a selection of another tree; draw from this one, or report "
                    "on that one"
                )
