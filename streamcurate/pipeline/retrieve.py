"""What ``retrieve`` and ``exclude`` do: rows near examples, listed or left out."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamcurate.embeddings.checks import suffix_of
from streamcurate.errors import CapacityError, ConfigError
from streamcurate.neighbors.examples.found import Found, everywhere, find, staying
from streamcurate.neighbors.examples.nearest_seeds import find_nearest
from streamcurate.neighbors.examples.seed_clusters import check_level
from streamcurate.neighbors.examples.wanted import Wanted, check_reachable, wanted
from streamcurate.neighbors.excluded import Excluded
from streamcurate.neighbors.radius import Radius
from streamcurate.neighbors.retrieved import Retrieved
from streamcurate.neighbors.row_files import Columns, check_destination, write_near, write_row_mask, write_rows
from streamcurate.pipeline.rows import SourceRows, open_rows
from streamcurate.pipeline.search import Computing, Looking, looking
from streamcurate.streaming import MemoryBudget, ProgressListener, Silent

_HELD_BYTES = 20  # of a row found: its number, its seed's, the distance
_MASK_BYTES = 2  # of a row of a mask while its pieces are joined
_FIX = "write a file (out=...), which is streamed"


@dataclass(frozen=True)
class RetrievedFile:
    """A list of retrieved rows that was written.

    Attributes
    ----------
    path : str
    rows : int
        How many it lists.
    looked_at : int
        Among how many they were found.
    seeds : int
    clusters : int or None
        That held seeds enough, where rows were taken from clusters.
    wanted : Wanted
    """

    path: str
    rows: int
    looked_at: int
    seeds: int
    clusters: int | None
    wanted: Wanted


def retrieve(
    source: Any,
    seeds: Any,
    out: str | os.PathLike[str] | None = None,
    *,
    cosine: float | None = None,
    l2: float | None = None,
    nearest: int | None = None,
    per_seed: int | None = None,
    per_cluster: int | None = None,
    least_seeds: int = 1,
    level: int = 1,
    subset: Any = None,
    metric: str | None = None,
    memory_limit: int | str | None = None,
    scratch: str | os.PathLike[str] | None = None,
    threads: int | None = None,
    device: str = "auto",
    client: Any = None,
    progress: ProgressListener | None = None,
) -> Retrieved:
    """Find the rows near a set of seeds: within a radius, the nearest, or both at once.

    A seed takes the part of a centroid: its distance to a row is what ``assign`` would give (float32, of unit length
    under cosine). Equally near rows are taken in the order of their numbers. A seed that is itself a row is found too.

    Parameters
    ----------
    source : Tree, Embeddings, path or URL of a run directory or of a store, or array
        The rows; of a tree those that it was built on.
    seeds : Embeddings, path, URL or array
        Of the same dims.
    out : path or URL, optional
        Also write the rows to a file: .parquet or .csv (row, id, seed, seed_id, distance), .npy (row numbers) or .txt
        (ids, else row numbers). The same call again goes on where it stopped. A file there is replaced.
    cosine, l2 : float, optional
        Only rows whose cosine similarity to a seed is at least, or whose Euclidean distance is at most this.
    nearest : int, optional
        The so many rows nearest to any seed.
    per_seed : int, optional
        Of each seed its so many nearest rows. A row that is near several is listed once, with its nearest seed.
    per_cluster : int, optional
        Of each cluster that holds seeds the so many rows nearest to any seed; ``source`` is a tree then.
    least_seeds, level : int
        How many seeds a cluster must hold to give rows, and of which level the clusters are.
    subset : path, array, sequence or Selection, optional
        Look at these rows alone, as for ``cluster``.
    metric : "l2" or "cosine", optional
        By default that of the radius, else of the tree, else cosine.
    memory_limit, threads, device, client, progress
        As for ``cluster``. Lists by seed are made by the CPU on every device.
    scratch : path, optional
        Folder for intermediate arrays, 12 to 15 bytes a row; by default beside ``out``, else that for temporary files.

    Returns
    -------
    Retrieved

    Raises
    ------
    InputError
        Nothing asked for, or options that contradict each other; other dims; bad rows or seeds; a destination that
        cannot be written.
    """
    with _retrieving(
        source,
        seeds,
        out,
        cosine=cosine,
        l2=l2,
        nearest=nearest,
        per_seed=per_seed,
        per_cluster=per_cluster,
        least_seeds=least_seeds,
        level=level,
        subset=subset,
        metric=metric,
        computing=_computing(memory_limit, scratch, threads, device, client, progress),
    ) as result:
        result.check_fits(_FIX if out is None else "use the command, which holds nothing of it")
        if out is not None:
            result.write(out)
        return result.held()


def retrieve_to(
    out: str | os.PathLike[str],
    source: Any,
    seeds: Any,
    *,
    memory_limit: int | str | None = None,
    scratch: str | os.PathLike[str] | None = None,
    threads: int | None = None,
    device: str = "auto",
    client: Any = None,
    progress: ProgressListener | None = None,
    **asked: Any,
) -> RetrievedFile:
    """As :func:`retrieve`, to a file alone: what is found may be larger than the memory."""
    computing = _computing(memory_limit, scratch, threads, device, client, progress)
    with _retrieving(source, seeds, out, computing=computing, **asked) as result:
        result.write(out)
        look = result.look
        return RetrievedFile(
            os.fspath(out), result.count, look.count, look.seeds.rows, result.found.clusters, result.asked
        )


@dataclass(frozen=True)
class _Result:
    """What was found, while its scratch is there."""

    found: Found
    count: int
    rows: SourceRows
    look: Looking
    asked: Wanted
    computing: Computing

    def write(self, out: str | os.PathLike[str]) -> None:
        columns = Columns(self.rows.embeddings, self.look.seeds.embeddings, "seed")
        write_near(out, self.found.pieces(), self.count, columns, self.computing.listener)

    def check_fits(self, fix: str) -> None:
        _check_fits(self.computing.budget, self.rows, self.count, fix)

    def held(self) -> Retrieved:
        return _held(self.found, self.count, self.rows, self.look, "seed")


@contextmanager
def _retrieving(
    source: Any,
    seeds: Any,
    out: str | os.PathLike[str] | None,
    *,
    computing: Computing,
    cosine: float | None = None,
    l2: float | None = None,
    nearest: int | None = None,
    per_seed: int | None = None,
    per_cluster: int | None = None,
    least_seeds: int = 1,
    level: int = 1,
    subset: Any = None,
    metric: str | None = None,
) -> Iterator[_Result]:
    """Find what is asked for."""
    place = None if out is None else os.fspath(out)
    if place is not None:
        check_destination(place)
    rows = open_rows(source)
    tree_metric = None if rows.tree is None else rows.tree.metric
    asked = wanted(cosine, l2, nearest, per_seed, per_cluster, least_seeds, level, metric, tree_metric)
    if rows.tree is not None:
        check_level(rows.tree, asked.level)
    options = {**asked.to_mapping(), "subset": None if subset is None else _named(subset)}
    with looking("retrieve", rows, seeds, asked.metric, asked.limit, options, place, subset, computing) as look:
        if asked.radius is None:
            _check_quotas(asked, rows, look)
        found = find(look.search, look.seeds, asked, rows.tree)
        look.check_unchanged()
        yield _Result(found, found.count(), rows, look, asked, computing)


def _check_quotas(asked: Wanted, rows: SourceRows, look: Looking) -> None:
    """Refuse more rows than there are."""
    for name, value in (("--nearest", asked.nearest), ("--per-seed", asked.per_seed)):
        if value is not None and value > look.count:
            raise CapacityError(
                f"{name} {value:,}: more rows than are looked at of {rows.name}, which are {look.count:,}; ask for at "
                f"most {look.count:,}"
            )


def exclude(
    source: Any,
    unwanted: Any,
    out: str | os.PathLike[str] | None = None,
    *,
    removed: str | os.PathLike[str] | None = None,
    cosine: float | None = None,
    l2: float | None = None,
    subset: Any = None,
    memory_limit: int | str | None = None,
    scratch: str | os.PathLike[str] | None = None,
    threads: int | None = None,
    device: str = "auto",
    client: Any = None,
    progress: ProgressListener | None = None,
) -> Excluded:
    """Find the rows that are near no unwanted example.

    Parameters
    ----------
    source : Tree, Embeddings, path or URL of a run directory or of a store, or array
        The rows; of a tree those that it was built on.
    unwanted : Embeddings, path, URL or array
        Of the same dims. An example takes the part of a centroid, as the seeds of :func:`retrieve` do.
    out : path or URL, optional
        Write the rows that stay: .npy (a mask, one boolean for each row of the source), .parquet or .csv (row, id) or
        .txt (ids, else row numbers). The same call again goes on where it stopped. A file there is replaced.
    removed : path or URL, optional
        Write the rows that do not: .parquet or .csv (row, id, unwanted, unwanted_id, distance), .npy (row numbers) or
        .txt.
    cosine, l2 : float
        One of them: rows go whose cosine similarity to an example is at least, or whose Euclidean distance is at most
        this.
    subset : path, array, sequence or Selection, optional
        Look at these rows alone; others neither stay nor go.
    memory_limit, scratch, threads, device, client, progress
        As for :func:`retrieve`.

    Returns
    -------
    Excluded
        Where no file was asked for, it holds the mask, one byte a row, and the rows removed.

    Raises
    ------
    InputError
        As for :func:`retrieve`.
    """
    computing = _computing(memory_limit, scratch, threads, device, client, progress)
    places = [os.fspath(place) for place in (out, removed) if place is not None]
    for place in places:
        check_destination(place)
    if len(set(map(os.path.abspath, places))) < len(places):
        raise ConfigError(f"{places[0]}: for the rows that stay and for those removed; name two files")
    rows = open_rows(source)
    radius = check_reachable(Radius.of(cosine, l2))
    if not places:
        total = rows.embeddings.rows
        computing.budget.require(_MASK_BYTES * total, f"{rows.name}: a mask of {total:,} rows", _FIX)
    named = None if subset is None else _named(subset)
    options = {"metric": radius.metric, radius.metric: radius.threshold, "subset": named}
    first = places[0] if places else None
    with looking("exclude", rows, unwanted, radius.metric, radius.limit, options, first, subset, computing) as look:
        distances = find_nearest(look.search, look.seeds, radius.limit)
        look.check_unchanged()
        found = Found(distances, everywhere, radius.metric)
        gone, total = found.count(), rows.embeddings.rows
        stays = look.count - gone
        mask = look.search.mask
        if removed is not None:
            columns = Columns(rows.embeddings, look.seeds.embeddings, "unwanted")
            write_near(removed, found.pieces(), gone, columns, computing.listener)
        left = _numbers(staying(distances, mask))
        if out is not None and suffix_of(out) == ".npy":
            write_row_mask(out, left, stays, total, computing.listener)
        elif out is not None:
            write_rows(out, left, stays, rows.embeddings, computing.listener)
        if places:
            path, removed_path = (None if one is None else os.fspath(one) for one in (out, removed))
            return Excluded(stays, gone, total, path, removed_path)
        _check_fits(computing.budget, rows, gone, _FIX)
        whole = np.concatenate(list(staying(distances, mask)))
        return Excluded(stays, gone, total, near=_held(found, gone, rows, look, "unwanted"), _mask=whole)


def _numbers(masks: Iterator[NDArray[np.bool_]]) -> Iterator[NDArray[np.int64]]:
    start = 0
    for mask in masks:
        yield np.flatnonzero(mask) + start
        start += len(mask)


def _check_fits(budget: MemoryBudget, rows: SourceRows, count: int, fix: str) -> None:
    """Refuse to hold so many rows found."""
    budget.require(_HELD_BYTES * count, f"{rows.name}: a list of {count:,} rows", fix)


def _held(found: Found, count: int, rows: SourceRows, look: Looking, called: str) -> Retrieved:
    """All that was found, in memory."""
    result = Retrieved(
        np.empty(count, dtype=np.int64),
        np.empty(count, dtype=np.int64),
        np.empty(count, dtype=np.float32),
        found.metric,
        rows.embeddings,
        look.seeds.embeddings,
        called,
    )
    position = 0
    for near in found.pieces():
        here = slice(position, position + len(near.rows))
        result.rows[here], result.seeds[here], result.distances[here] = near.rows, near.examples, near.distances
        position = here.stop
    return result


def _named(subset: Any) -> str:
    return os.fspath(subset) if isinstance(subset, (str, os.PathLike)) else type(subset).__name__


def _computing(
    memory_limit: int | str | None,
    scratch: str | os.PathLike[str] | None,
    threads: int | None,
    device: str,
    client: Any,
    progress: ProgressListener | None,
) -> Computing:
    return Computing(MemoryBudget.of(memory_limit, threads), scratch, threads, device, client, progress or Silent())
