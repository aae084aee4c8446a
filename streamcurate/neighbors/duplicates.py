"""Near-duplicates at rest: which rows to keep, which rows belong together, and what was found."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamcurate.embeddings.rowlist import open_list
from streamcurate.errors import InputError, StoreError
from streamcurate.files import write_json
from streamcurate.neighbors.pairs.keep import Counts
from streamcurate.neighbors.unfinished import PARTIAL_SUFFIX
from streamcurate.objects import contents, exists, join

Int64 = NDArray[np.int64]
TakeIds = Callable[[Int64], "NDArray[Any] | None"]

KIND = "dedup"
SUMMARY_NAME, MASK_NAME, REMOVED_NAME = "dedup.json", "keep.npy", "removed.npy"
ROWS_NAME, SKIPPED_NAME = "duplicates.parquet", "skipped.parquet"
_FORMAT = 1
# What is read of dedup.json.
_NOTED = {"identity", "fingerprint", "stamps", "rows", "kept", "removed", "components", "sizes", "largest", "metric"}
_NOTED |= {"threshold", "keep", "pairs", "cells", "warnings"}


@dataclass(frozen=True)
class LargestComponent:
    """One of the largest components.

    Attributes
    ----------
    component : int
        Its lowest row, after which it is called.
    size : int
        Rows in it.
    kept : int
        The row that is kept.
    id : str, int or None
        Of the row that is kept, where the rows have ids.
    """

    component: int
    size: int
    kept: int
    id: str | int | None = None


@dataclass(frozen=True)
class Duplicates:
    """What ``dedup`` found. Given as ``subset`` or ``eligible`` it stands for the rows that are kept.

    Attributes
    ----------
    path : str
        The folder, or its URL.
    rows : int
        Rows looked at: those of the store, or of the subset.
    kept, removed : int
        Of those; together they are ``rows``.
    components : int
        Groups of rows that are duplicates of each other, directly or through others; a row alone is none.
    sizes : dict of int to int
        How many components there are of each number of rows.
    largest : tuple of LargestComponent
        The hundred largest, largest first.
    metric : "l2" or "cosine"
    threshold : float
        Least cosine similarity, or largest Euclidean distance, of two duplicates.
    keep : "closest", "first" or "random"
    warnings : tuple of str
    summary : mapping
        All of ``dedup.json``.
    """

    path: str
    rows: int
    kept: int
    removed: int
    components: int
    sizes: Mapping[int, int]
    largest: tuple[LargestComponent, ...]
    metric: str
    threshold: float
    keep: str
    warnings: tuple[str, ...]
    summary: Mapping[str, Any]

    def __repr__(self) -> str:
        state = "" if self.complete else ", not all that are possible were compared"
        return (
            f"Duplicates({self.path!r}: {self.kept:,} of {self.rows:,} rows kept, {self.removed:,} removed, "
            f"{self.components:,} components{state})"
        )

    def __fspath__(self) -> str:
        return self.mask

    @property
    def mask(self) -> str:
        """``keep.npy``: a boolean for each row of the store, false where it is removed or was not looked at."""
        return join(self.path, MASK_NAME)

    @property
    def removed_rows(self) -> str:
        """``removed.npy``: row numbers of what is removed, ascending."""
        return join(self.path, REMOVED_NAME)

    @property
    def table(self) -> str:
        """``duplicates.parquet``: a line for each row that has duplicates, kept or removed, in the order of rows."""
        return join(self.path, ROWS_NAME)

    @property
    def complete(self) -> bool:
        """Whether every pair of rows was compared, or is certified to be farther apart than the threshold."""
        return not self.summary["cells"]["skipped"]

    def rows_kept(self) -> Iterator[Int64]:
        """Row numbers of what is kept, ascending, a piece in memory at a time."""
        start = 0
        for piece in open_list(self.mask, has_ids=False).pieces():
            yield np.flatnonzero(piece) + start
            start += len(piece)

    def told(self) -> list[str]:
        """The outcome in words, a line each."""
        lines = [
            f"{self.rows:,} rows: {self.kept:,} kept, {self.removed:,} removed as duplicates of those "
            f"({share(self.removed, self.rows)})"
        ]
        if self.components:
            shown = ", ".join(f"{count:,} of {name}" for name, count in _binned(self.sizes))
            lines.append(f"{self.components:,} components: {shown} rows")
            if (first := self.largest[0]).size > 2:
                named = "" if first.id is None else f' (id "{first.id}")'
                lines.append(f"the largest, {first.size:,} rows, keeps row {first.kept}{named}")
        pairs, cells = self.summary["pairs"], self.summary["cells"]
        compared = f"{share(pairs['covered'], pairs['possible'])} of all pairs of rows were compared"
        if self.complete:
            proved = "" if pairs["covered"] == pairs["possible"] else ", bounds prove all others farther apart"
            lines.append(f"no duplicate is missed: {compared}{proved}")
        else:
            lines.append(
                f"{compared}; {cells['skipped']:,} pairs of cells that may hold duplicates were not ({SKIPPED_NAME}), "
                "bounds prove all others farther apart"
            )
        lines.append(
            f"{MASK_NAME} is a mask of the rows that are kept, {REMOVED_NAME} lists those removed, {ROWS_NAME} tells "
            "which belong together"
        )
        return lines


def share(part: int, whole: int) -> str:
    """A percentage with as many digits as tell something."""
    percent = 100 * part / max(whole, 1)
    return f"{percent:.1f} %" if percent >= 1 or not part else f"{percent:.2g} %"


def _binned(sizes: Mapping[int, int]) -> list[tuple[str, int]]:
    """Sizes 2, 3, then ranges between powers of two: name and components of those there are."""
    bins: dict[tuple[int, int], int] = {}
    for size, count in sizes.items():
        low = 1 << (size.bit_length() - 1)
        key = (size, size) if size < 4 else (low, 2 * low - 1)
        bins[key] = bins.get(key, 0) + count
    return [(f"{low:,}" if low == high else f"{low:,}-{high:,}", count) for (low, high), count in sorted(bins.items())]


def open_duplicates(path: str | os.PathLike[str]) -> Duplicates:
    """Open what ``dedup`` made.

    Parameters
    ----------
    path : path or URL
        The folder.

    Raises
    ------
    InputError
        Nothing lies there, or something else, or an unfinished dedup.
    """
    place = path.path if isinstance(path, Duplicates) else os.fspath(path).rstrip("/")
    summary = read_summary(place)
    if summary is None:
        partial = place if place.endswith(PARTIAL_SUFFIX) else place + PARTIAL_SUFFIX
        if exists(partial):
            raise InputError(f"{place}: this dedup is unfinished ({partial}); give the same dedup command again")
        found = "holds no dedup.json; give the folder that streamcurate dedup made"
        raise InputError(f"{place}: {found if exists(place) else 'no such folder; check the path'}")
    for name in (MASK_NAME, REMOVED_NAME, ROWS_NAME):
        if not exists(join(place, name)):
            raise StoreError(f"{join(place, name)}: is missing; restore it, or give the dedup command anew elsewhere")
    return Duplicates(
        place,
        summary["rows"],
        summary["kept"],
        summary["removed"],
        summary["components"],
        {size: count for size, count in summary["sizes"]},
        tuple(LargestComponent(**one) for one in summary["largest"]),
        summary["metric"],
        summary["threshold"],
        summary["keep"],
        tuple(summary["warnings"]),
        summary,
    )


def read_summary(path: str) -> dict[str, Any] | None:
    """``dedup.json`` of a finished dedup; None where there is none.

    Raises
    ------
    StoreError
        It is damaged.
    """
    place = join(path, SUMMARY_NAME)
    content = contents(place)
    if content is None:
        return None
    try:
        value = json.loads(content)
        if (value["kind"], value["format"]) != (KIND, _FORMAT):
            raise ValueError(f"kind is {value['kind']!r} of format {value['format']!r}")
        if missing := _NOTED - value.keys():
            raise ValueError(f"{min(missing)!r} is missing")
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{place}: unreadable ({error}); restore it, or choose another place") from error
    found: dict[str, Any] = value
    return found


def write_summary(folder: Path, summary: Mapping[str, Any]) -> None:
    """Write ``dedup.json``; the rest of the folder is there by then."""
    write_json(folder / SUMMARY_NAME, {"format": _FORMAT, "kind": KIND, **summary})


def summary_of_sizes(counts: Counts, take_ids: TakeIds | None) -> dict[str, Any]:
    """Sizes and the largest components, as ``dedup.json`` holds them."""
    kept = np.array([one.kept for one in counts.largest], dtype=np.int64)
    ids = None if take_ids is None or not len(kept) else take_ids(kept)
    named = [None] * len(kept) if ids is None else ids.tolist()
    largest = [
        {"component": one.component, "size": one.size, "kept": one.kept, "id": name}
        for one, name in zip(counts.largest, named, strict=True)
    ]
    return {
        "components": sum(counts.sizes.values()),
        "sizes": [[size, count] for size, count in counts.sizes.items()],
        "largest": largest,
    }
