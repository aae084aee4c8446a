"""What lies in the top clusters: the rows nearest to their centroids, and what is known of these."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamcurate.errors import StoreError
from streamcurate.reports.thumbnails import Images, Pictures, cell_text
from streamcurate.sampling import Hierarchy, Selection
from streamcurate.sampling.lines import metadata_columns
from streamcurate.sampling.metadata import Metadata
from streamcurate.tree import Tree

Int64 = NDArray[np.int64]

# With so many the page stays below 5 MB, whatever texts and thumbnails hold: a character may take six as markup.
MOST_CLUSTERS, ROWS_EACH = 60, 6
_LONGEST_ID, _LONGEST_TEXTS = 100, 600


@dataclass(frozen=True)
class Exemplar:
    """A row near the middle of a cluster.

    Attributes
    ----------
    row : int
    id : str or None
    distance : float
        To the centroid of its cluster of level 1.
    drawn : int
        Copies of it in the draw.
    texts : tuple of (str, str)
        Columns of the metadata and what they hold.
    picture : str or None
        A data: URI.
    """

    row: int
    id: str | None
    distance: float
    drawn: int
    texts: tuple[tuple[str, str], ...]
    picture: str | None


@dataclass(frozen=True)
class Exemplars:
    """Rows of some top clusters.

    Attributes
    ----------
    clusters : tuple of int
        The largest first.
    rows : tuple of tuple of Exemplar
        For each.
    of : int
        Top clusters that hold rows.
    missing_pictures : int
        Images that are not there or cannot be read.
    trouble : str or None
        Why there are no ids.
    """

    clusters: tuple[int, ...]
    rows: tuple[tuple[Exemplar, ...], ...]
    of: int
    missing_pictures: int
    trouble: str | None


def choose_clusters(sizes: Int64, most: int = MOST_CLUSTERS) -> list[int]:
    """Clusters to show, the largest first: all, or the largest half and others evenly spread over the order by size."""
    order = np.lexsort((np.arange(len(sizes)), -sizes))[: int(np.count_nonzero(sizes))]
    if len(order) <= most:
        return [int(cluster) for cluster in order]
    largest = most // 2
    others = np.linspace(largest, len(order) - 1, most - largest).round().astype(np.int64)
    return [int(cluster) for cluster in order[np.append(np.arange(largest), others)]]


def nearest_rows(tree: Tree, hierarchy: Hierarchy, cluster: int, count: int) -> list[int]:
    """Rows near the centroid of a top cluster, nearest first.

    Stored distances are those of a row to its cluster of level 1, of that to its own, and so on: the way leads from
    the centroid to the nearest clusters below it, each of which gives the same number of rows as far as it can.
    """
    return _down(tree, hierarchy, hierarchy.depth, cluster, count)


def _down(tree: Tree, hierarchy: Hierarchy, level: int, cluster: int, count: int) -> list[int]:
    if level == 1:
        start, stop = (int(edge) for edge in hierarchy.leaf_offsets[cluster : cluster + 2])
        found = tree.levels[0].stored_members.read(start, min(stop, start + count))
        return [int(row) for row in found]
    members, offsets = hierarchy.uppers[level - 2]
    children = members[offsets[cluster] : offsets[cluster + 1]][:count]
    if not len(children):
        return []
    each = -(-count // len(children))
    given = [_down(tree, hierarchy, level - 1, int(child), each) for child in children]
    if sum(map(len, given)) < count:  # some are smaller than that: the others may give more
        given = [_down(tree, hierarchy, level - 1, int(child), count) for child in children]
    rounds = (rows[turn] for turn in range(count) for rows in given if turn < len(rows))
    return [row for row, _ in zip(rounds, range(count), strict=False)]


def find_exemplars(
    tree: Tree,
    hierarchy: Hierarchy,
    drawn: tuple[Int64, Int64],
    metadata: Metadata | None,
    images: Images | None,
    scratch: Any,
) -> Exemplars:
    """Look up the rows to show of each top cluster, with ids, texts and thumbnails.

    Parameters
    ----------
    tree : Tree
    hierarchy : Hierarchy
    drawn : (rows, copies)
        The draw.
    metadata : Metadata or None
    images : Images or None
    scratch : path or None
        For metadata by key.
    """
    sizes = hierarchy.totals(hierarchy.sizes)[-1]
    clusters = choose_clusters(sizes)
    chosen = [nearest_rows(tree, hierarchy, cluster, ROWS_EACH) for cluster in clusters]
    rows = np.unique(np.array([row for each in chosen for row in each], dtype=np.int64))
    shown = Selection(rows, np.ones_like(rows), "closest", 1, tree.seed, tree)
    distances = tree.levels[0].stored_distances.take(rows)
    ids, trouble = _ids(shown)
    texts, cells = _texts(shown, metadata, images, scratch)
    copies = _copies(rows, *drawn)
    with Pictures(images) as pictures:
        found = {
            int(row): Exemplar(
                row=int(row),
                id=None if ids is None else cell_text(ids[at], _LONGEST_ID),
                distance=float(distances[at]),
                drawn=int(copies[at]),
                texts=texts[at],
                picture=pictures.of(cells[at], None if ids is None else str(ids[at])),
            )
            for at, row in enumerate(rows)
        }
        missing = pictures.missing
    filled = int(np.count_nonzero(sizes))
    return Exemplars(
        tuple(clusters), tuple(tuple(found[row] for row in each) for each in chosen), filled, missing, trouble
    )


def _ids(shown: Selection) -> tuple[NDArray[Any] | None, str | None]:
    try:
        return shown.unique_ids, None
    except StoreError as error:  # the store is gone: row numbers are left
        return None, str(error)


def _texts(
    shown: Selection, metadata: Metadata | None, images: Images | None, scratch: Any
) -> tuple[list[tuple[tuple[str, str], ...]], list[Any]]:
    """What the columns hold beside each row, and the cell of the image's column."""
    count = len(shown.unique_rows)
    if metadata is None:
        return [()] * count, [None] * count
    texts: list[tuple[tuple[str, str], ...]] = []
    cells: list[Any] = []
    column = None if images is None else images.column
    with metadata_columns(shown, metadata, scratch) as columns:
        assert columns is not None
        for start in range(0, count, ROWS_EACH * 8):
            table, _ = columns.take(start, min(start + ROWS_EACH * 8, count))
            for line in table.to_pylist():
                cells.append(None if column is None else line[column])
                texts.append(_line(line, metadata.columns, column))
    return texts, cells


def _line(line: dict[str, Any], names: Sequence[str], image: str | None) -> tuple[tuple[str, str], ...]:
    """Texts of a row until they are long enough; how many columns are left out then."""
    found: list[tuple[str, str]] = []
    length = 0
    wanted = [name for name in names if name != image]
    for at, name in enumerate(wanted):
        text = cell_text(line[name])
        length += len(name) + len(text)
        if length > _LONGEST_TEXTS:
            found.append((f"… {len(wanted) - at:,} columns more", "not shown"))
            break
        found.append((name, text))
    return tuple(found)


def _copies(rows: Int64, drawn: Int64, copies: Int64) -> Int64:
    place = np.minimum(np.searchsorted(drawn, rows), len(drawn) - 1)
    return np.where(drawn[place] == rows, copies[place], 0)
