"""Exact search of many centroids at few dims: a tree of boxes instead of a score for every pair.

Centroids are cut in halves at the median of their widest coordinate, three times from one node of the tree to its
eight children, down to leaves of some dozens; every node knows the boxes around its children's centroids. A row goes
to the nearest box first and leaves out every box that lies farther than the best centroid so far.

Derivation
----------
The bound needs no margin. For a box [l, h] let b be the formula's sum, over coordinates from left to right in one
float64 accumulator, of fl(l_j - x_j)^2 where x_j < l_j, of fl(x_j - h_j)^2 where x_j > h_j, and of 0 between. For
any centroid c in the box, |x_j - c_j| is at least that difference in exact arithmetic, and rounding, squaring a
magnitude and adding are all monotone: step by step, b is never above the formula's own value of c. So b > best proves
that no centroid in the box wins or ties; boxes with b = best are visited, since a tie may have the lower number.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from streamcurate.kernels.cpu.rows import formula_rows
from streamcurate.kernels.jit import compiled
from streamcurate.kernels.metric import (
    Array,
    Float32,
    Float64,
    Int32,
    Int64,
    as_centroids,
    as_rows,
    check_metric,
)

_CHILDREN = 8  # of a node; the loops over them run on whole vector registers
_CUTS = 3
# Most centroids of a leaf: values side by side cost little, a visit to a node much (measured 12 to 96: 48 is the
# fastest or within a tenth of it from 2 to 10 dims, 24 up to 2 times slower; 96 gained nothing more).
_LEAF = 48
_ROW_TILE_BYTES = 1 << 20
# Where this beats scoring all pairs by 1.3 times or more on isotropic data, the worst case (measured on one thread
# with 300 to 100,000 clusters, preparation not counted): at up to so many dims, so many clusters.
_WORTHWHILE = ((3, 256), (4, 512), (6, 2048), (8, 16384), (10, 65536))


@dataclass(frozen=True)
class GroupedCentroids:
    """Centroids in a tree of boxes; made once per pass by :func:`prepare`, shared by all threads.

    Node 0 is the root and nodes 8 n + 1 to 8 n + 8 are the children of node n; after the inner nodes come the leaves.

    Attributes
    ----------
    metric : "l2" or "cosine"
    centroids : (k, d) float32
        The stored centroids (the caller's array where it is C-contiguous).
    inner : int
        Number of inner nodes.
    boxes : (inner nodes, 2, d, 8) float32
        Lowest and highest coordinates of the centroids of each node's children.
    members : (leaves, d, width) float32
        The leaves' centroids, coordinate by coordinate, padded with infinity.
    numbers : (leaves, width) int32
        Their clusters, -1 for padding.
    """

    metric: str
    centroids: Float32
    inner: int
    boxes: Float32
    members: Float32
    numbers: Int32

    @property
    def clusters(self) -> int:
        """Number of centroids, k."""
        return int(self.centroids.shape[0])

    @property
    def dims(self) -> int:
        """Number of coordinates, d."""
        return int(self.centroids.shape[1])

    @property
    def nbytes(self) -> int:
        """Bytes held beside the caller's centroids."""
        return int(self.boxes.nbytes + self.members.nbytes + self.numbers.nbytes)


def worthwhile(clusters: int, dims: int) -> bool:
    """Whether :func:`nearest` is the faster search, whatever the data. Clustered data gain from fewer clusters on."""
    return any(dims <= most and clusters >= fewest for most, fewest in _WORTHWHILE)


def _levels(clusters: int) -> int:
    """Inner nodes from the root to a leaf."""
    levels = 0
    while clusters > _LEAF << (_CUTS * levels):
        levels += 1
    return levels


def grouped_bytes(clusters: int, dims: int) -> int:
    """Bytes :func:`prepare` adds to those of the centroids, its own work included."""
    leaves = 1 << (_CUTS * _levels(clusters))
    width = -(-clusters // leaves)
    boxes = 2 * 4 * dims * (2 * leaves + _CHILDREN * (leaves // (_CHILDREN - 1) + 1))
    return boxes + leaves * width * (4 * dims + 4) + 12 * clusters


@compiled
def _select(keys: Float32, order: Int64, first: int, last: int, middle: int) -> None:
    # Hoare's selection: afterwards order[first:middle] have keys no larger than order[middle:last].
    low, high = first, last - 1
    while low < high:
        a, b, c = keys[order[low]], keys[order[(low + high) // 2]], keys[order[high]]
        pivot = max(min(a, b), min(max(a, b), c))
        i, j = low, high
        while i <= j:
            while keys[order[i]] < pivot:
                i += 1
            while keys[order[j]] > pivot:
                j -= 1
            if i <= j:
                order[i], order[j] = order[j], order[i]
                i += 1
                j -= 1
        if middle <= j:
            high = j
        elif middle >= i:
            low = i
        else:
            return


@compiled
def _halve(centroids: Float32, cuts: int, order: Int64, keys: Float32, boxes: Float32) -> None:
    # ``boxes`` in the order of a binary tree: node 1 is the root, 2 n and 2 n + 1 are the halves of node n.
    clusters, dims = centroids.shape
    for depth in range(cuts + 1):
        for place in range(1 << depth):
            first, last = (clusters * place) >> depth, (clusters * (place + 1)) >> depth
            node = (1 << depth) + place
            for j in range(dims):
                boxes[node, 0, j], boxes[node, 1, j] = np.inf, -np.inf
            for p in range(first, last):
                c = order[p]
                for j in range(dims):
                    value = centroids[c, j]
                    boxes[node, 0, j] = min(boxes[node, 0, j], value)
                    boxes[node, 1, j] = max(boxes[node, 1, j], value)
            if depth == cuts:
                continue
            widest = 0
            width = -1.0
            for j in range(dims):
                extent = np.float64(boxes[node, 1, j]) - np.float64(boxes[node, 0, j])
                if extent > width:
                    widest, width = j, extent
            for p in range(first, last):
                keys[order[p]] = centroids[order[p], widest]
            _select(keys, order, first, last, (clusters * (2 * place + 1)) >> (depth + 1))


@compiled
def _fill(centroids: Float32, cuts: int, order: Int64, members: Float32, numbers: Int32) -> None:
    clusters, dims = centroids.shape
    for leaf in range(1 << cuts):
        first, last = (clusters * leaf) >> cuts, (clusters * (leaf + 1)) >> cuts
        for p in range(first, last):
            numbers[leaf, p - first] = order[p]
            for j in range(dims):
                members[leaf, j, p - first] = centroids[order[p], j]


@compiled
def _widen(halves: Float32, levels: int, boxes: Float32) -> None:
    # Every third level of the binary tree, the boxes of a node's children side by side.
    dims = halves.shape[2]
    inner = 0
    for level in range(levels):
        for node in range(1 << (3 * level), 2 << (3 * level)):
            for side in range(2):
                for j in range(dims):
                    for child in range(8):
                        boxes[inner, side, j, child] = halves[8 * node + child, side, j]
            inner += 1


def prepare(centroids: Float32, metric: str) -> GroupedCentroids:
    """Put centroids into a tree for :func:`nearest`.

    Parameters
    ----------
    centroids : (k, d) float32, finite
        For "cosine" the stored unit centroids. Not copied: leave it alone while the result is in use.
    metric : "l2" or "cosine"

    Returns
    -------
    GroupedCentroids

    Raises
    ------
    ValueError
        No centroids, another dtype or shape, or an unknown metric.
    """
    check_metric(metric)
    centroids = as_centroids(centroids)
    clusters, dims = centroids.shape
    if clusters == 0 or dims == 0:
        raise ValueError(f"centroids have shape {centroids.shape}; at least one centroid of one dim is needed")
    levels = _levels(clusters)
    cuts = _CUTS * levels
    leaves = 1 << cuts
    width = -(-clusters // leaves)
    order = np.arange(clusters, dtype=np.int64)
    halves = np.empty((2 * leaves, 2, dims), dtype=np.float32)
    _halve(centroids, cuts, order, np.empty(clusters, dtype=np.float32), halves)
    inner = (leaves - 1) // (_CHILDREN - 1)
    boxes = np.empty((inner, 2, dims, _CHILDREN), dtype=np.float32)
    _widen(halves, levels, boxes)
    members = np.full((leaves, dims, width), np.inf, dtype=np.float32)
    numbers = np.full((leaves, width), -1, dtype=np.int32)
    _fill(centroids, cuts, order, members, numbers)
    return GroupedCentroids(metric, centroids, inner, boxes, members, numbers)


@compiled
def _search(
    rows: Array,
    centroids: Float32,
    hints: Int32,
    boxes: Float32,
    members: Float32,
    numbers: Int32,
    labels: Int32,
    values: Float64,
    first_cluster: int,
    waiting: Int64,
    bounds: Float64,
    sums: Float64,
) -> None:
    count, dims = rows.shape
    inner, children, width = boxes.shape[0], boxes.shape[3], numbers.shape[1]
    for i in range(count):
        best, label = values[i], labels[i]
        if len(hints) and hints[i] >= 0:
            s = 0.0
            for j in range(dims):
                a = np.float64(rows[i, j]) - np.float64(centroids[hints[i], j])
                s += a * a
            number = hints[i] + first_cluster
            if label < 0 or s < best or (s == best and number < label):
                best, label = np.float64(s), number
        node, depth = 0, 0
        while True:
            # One loop over all lanes for each coordinate, and none that asks questions: these run on vector registers.
            x = np.float64(rows[i, 0])
            if node >= inner:
                leaf = node - inner
                for c in range(width):
                    a = x - np.float64(members[leaf, 0, c])
                    sums[c] = a * a
                for j in range(1, dims):
                    x = np.float64(rows[i, j])
                    for c in range(width):
                        a = x - np.float64(members[leaf, j, c])
                        sums[c] += a * a
                least = np.inf
                for c in range(width):
                    least = sums[c] if sums[c] < least else least
                if least <= best:
                    for c in range(width):
                        number = numbers[leaf, c] + first_cluster
                        if sums[c] == least and numbers[leaf, c] >= 0 and (label < 0 or least < best or number < label):
                            best, label = least, number
            else:
                for c in range(children):
                    sums[c] = 0.0
                for j in range(dims):
                    x = np.float64(rows[i, j])
                    for c in range(children):
                        a = np.float64(boxes[node, 0, j, c]) - x
                        b = x - np.float64(boxes[node, 1, j, c])
                        b = a if a > b else b
                        sums[c] += b * b if b > 0.0 else 0.0
                begin = depth
                for c in range(children):
                    if sums[c] <= best:  # the nearest comes last, to be taken first
                        place = depth
                        while place > begin and bounds[place - 1] < sums[c]:
                            bounds[place], waiting[place] = bounds[place - 1], waiting[place - 1]
                            place -= 1
                        bounds[place], waiting[place] = sums[c], 8 * node + 1 + c
                        depth += 1
            while depth > 0 and bounds[depth - 1] > best:
                depth -= 1
            if depth == 0:
                break
            depth -= 1
            node = waiting[depth]
        values[i], labels[i] = best, label


def nearest(
    rows: Array,
    grouped: GroupedCentroids,
    previous: tuple[Int32, Float64] | None = None,
    first_cluster: int = 0,
    hints: Int32 | None = None,
) -> tuple[Int32, Float64]:
    """The nearest centroid of each row: argmin of the formula's value, ties to the lowest cluster.

    Parameters
    ----------
    rows : (m, d) float16 or float32, finite
    grouped : GroupedCentroids
        All centroids, or a slice of them.
    previous : (labels, values), optional
        The answer over other slices; the result is the answer over those and this one, whatever the order of slices.
        Label -1 means none yet.
    first_cluster : int
        The number of the slice's first centroid.
    hints : (m,) int32, optional
        For each row a centroid of this slice (from 0) that is probably near, -1 for none: it is looked at first.

    Returns
    -------
    labels : (m,) int32
    values : (m,) float64
        The formula's value for that pair (see cpu/formula.py).
    """
    rows = as_rows(rows)
    if rows.shape[1] != grouped.dims:
        raise ValueError(f"rows have {rows.shape[1]} dims, the centroids {grouped.dims}")
    labels = np.full(len(rows), -1, dtype=np.int32)
    values = np.full(len(rows), np.inf, dtype=np.float64)
    if previous is not None:
        labels[:] = previous[0]
        values[:] = np.where(labels < 0, np.inf, previous[1])
    first = np.empty(0, dtype=np.int32) if hints is None else hints
    deepest = _CHILDREN * (_levels(grouped.clusters) + 1)
    waiting, bounds = np.empty(deepest, dtype=np.int64), np.empty(deepest, dtype=np.float64)
    sums = np.empty(max(grouped.numbers.shape[1], _CHILDREN), dtype=np.float64)
    step = max(1, _ROW_TILE_BYTES // (8 * grouped.dims))
    for start in range(0, len(rows), step):
        part = slice(start, min(start + step, len(rows)))
        _search(
            formula_rows(rows[part], grouped.metric), grouped.centroids, first[part], grouped.boxes, grouped.members,
            grouped.numbers, labels[part], values[part], first_cluster, waiting, bounds, sums,
        )  # fmt: skip
    return labels, values
