"""Labels by an approximate index over the centroids (FAISS), for those who ask for it: never the default.

At hundreds of thousands of centroids of many dims an exact labels pass costs what a pass of Lloyd's algorithm does; an
inverted file visits a share of the centroids that falls with their number. What it gives is not exact, so it is
measured: the exact labels of rows drawn at random are compared with those it gave, and the share that agrees is told
with the level. Distances are the formula's values for the centroids chosen.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamcurate import kernels
from streamcurate.clustering.centroids import Centroids, whole
from streamcurate.clustering.labelling import label_points
from streamcurate.clustering.passes import Columns, Labelled, LabelPass, Searching
from streamcurate.clustering.sample_rows import gather, sampled_rows
from streamcurate.clustering.streams import Purpose
from streamcurate.clustering.surroundings import Measured, Surroundings
from streamcurate.errors import InputError
from streamcurate.kernels import Backend
from streamcurate.storage import StoredArray, create_array
from streamcurate.streaming import Block, Cost, Output, Points, State, StoredRows

RECALL_ROWS = 10_000
# Lists for each root of the centroids, and lists visited for a row.
_LISTS_A_ROOT = 2
_VISITED = 64
# From so many centroids and dims on, lists hold 2 bits a coordinate (product quantisation), scanned in registers, and
# the formula decides between more candidates. Measured at 384 dims with 64 lists visited: 3 to 8 times faster than
# lists of whole vectors; with 16,000 text embeddings as centroids it found the nearest for 97 % of rows, as those did;
# with 100,000 of a mixture that is isotropic around its components for 94 %, where those found all.
_QUANTISED_CENTROIDS, _QUANTISED_DIMS = 4096, 64
_CANDIDATES, _MORE_CANDIDATES = 4, 64
# The index is trained on so many centroids a list, in so many iterations, with a seed of its own.
_TRAINED = 64
_ITERATIONS = 8
_SEED = 1234
_ROWS_AT_A_TIME = 1 << 12


def require_faiss(where: str) -> Any:
    """The module ``faiss``.

    Raises
    ------
    InputError
        It is not installed.
    """
    try:
        return importlib.import_module("faiss")
    except ImportError as error:
        raise InputError(
            f"{where}: search: faiss needs FAISS, which is not installed ({error}); "
            "install it with: pip install 'streamcurate[faiss]', or choose search: exact"
        ) from error


class Index:
    """An inverted file over centroids.

    Training, filling and searching take one thread, so that the same centroids give the same answers in every process
    of a machine (FAISS's own matrix products obey the same setting); several threads may search at a time.

    Parameters
    ----------
    centroids : ndarray of float32, shape (clusters, dims)
    metric : "l2" or "cosine"
    """

    def __init__(self, centroids: NDArray[np.float32], metric: str) -> None:
        self._faiss = require_faiss("labels")
        self._faiss.omp_set_num_threads(1)
        self.centroids, self.metric = np.ascontiguousarray(centroids, dtype=np.float32), metric
        clusters, dims = self.centroids.shape
        lists = lists_of(clusters)
        quantised = clusters >= _QUANTISED_CENTROIDS and dims >= _QUANTISED_DIMS and dims % 2 == 0
        self._candidates = min(_MORE_CANDIDATES if quantised else _CANDIDATES, clusters)
        self._index = self._faiss.index_factory(dims, f"IVF{lists}," + (f"PQ{dims // 2}x4fs" if quantised else "Flat"))
        self._index.cp.niter, self._index.cp.seed = _ITERATIONS, _SEED
        self._index.cp.min_points_per_centroid, self._index.cp.max_points_per_centroid = 1, _TRAINED
        self._index.train(self.centroids)
        self._index.add(self.centroids)
        self._index.nprobe = min(_VISITED, lists)

    def nearest(self, rows: NDArray[Any]) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
        """Probably the nearest centroid of each row, and the formula's value for it.

        Of the candidates that the index finds the one with the smallest value is taken, ties to the lowest cluster.
        """
        self._faiss.omp_set_num_threads(1)  # of the calling thread
        labels = np.empty(len(rows), dtype=np.int32)
        values = np.empty(len(rows), dtype=np.float64)
        candidates = self._candidates
        for start in range(0, len(rows), _ROWS_AT_A_TIME):
            part = rows[start : start + _ROWS_AT_A_TIME]
            exact = kernels.formula_rows(part, self.metric).astype(np.float32)
            _, found = self._index.search(exact, candidates)
            found[:, 0] = np.where(found[:, 0] < 0, 0, found[:, 0])  # nothing in the lists visited
            which = np.where(found < 0, found[:, :1], found)
            row = np.repeat(np.arange(len(part)), candidates)
            value = kernels.squared_distances_of_pairs(part, row, self.centroids, which.ravel(), self.metric)
            value = value.reshape(which.shape)
            least = value.min(axis=1)
            best = np.where(value == least[:, None], which, len(self.centroids)).min(axis=1)
            labels[start : start + len(part)], values[start : start + len(part)] = best, least
        return labels, values


def lists_of(clusters: int) -> int:
    """Lists of the inverted file over so many centroids."""
    return max(1, min(_LISTS_A_ROOT * math.isqrt(clusters), clusters // 8))


def index_cost(clusters: int, dims: int) -> Cost:
    """Of a pass that asks an index: the centroids as given and as it holds them, and once more while it is trained."""
    lists = lists_of(clusters)
    return Cost(
        fixed_bytes=clusters * (12 * dims + 32) + 4 * dims * lists,
        thread_bytes=_ROWS_AT_A_TIME * (12 * dims + 64 * _MORE_CANDIDATES) + (4 << 20),
        row_bytes=16,
        row_operations=2 * dims * (lists + _VISITED * (clusters // lists)),
    )


class _Ready(NamedTuple):
    backend: Backend
    asked: Index


@dataclass(frozen=True)
class ApproximateLabelPass(LabelPass):
    """A labels pass that asks the index."""

    def cost(self, dims: int, dtype: np.dtype[Any]) -> Cost:
        """That of the index, and of what a labels pass keeps of known labels."""
        kept = LabelPass.cost(replace(self, known=True), dims, dtype)
        index = index_cost(self.clusters, dims)
        return replace(
            index,
            fixed_bytes=kept.fixed_bytes + index.fixed_bytes,
            thread_bytes=kept.thread_bytes + index.thread_bytes,
            row_bytes=kept.row_bytes + index.row_bytes,
        )

    def prepare(self, state: State, backend: Backend) -> Any:
        """The index."""
        return _Ready(backend, Index(state["centroids"], self.metric))

    def chunk(self, block: Block, columns: Columns, ready: Any) -> tuple[Labelled, Columns]:
        """Labels and distances of one block."""
        found = ready.asked.nearest(block.values)
        return super().chunk(block, found, Searching(ready.backend, None))


def label_approximately(
    measured: Measured, centroids: Centroids, work: LabelPass, around: Surroundings, outputs: Sequence[Output]
) -> tuple[Labelled, str]:
    """Run a labels pass with the index, and measure its recall.

    Parameters
    ----------
    measured, centroids, work, around, outputs
        As for :func:`label_points`; the labels are the first of the outputs.

    Returns
    -------
    labelled : Labelled
    warning : str
        What the user should know of the labels.

    Raises
    ------
    InputError
        FAISS is not installed.
    MemoryLimitError
        The centroids do not fit into memory together with the index.
    """
    level = f"level {around.level}"
    require_faiss(level)
    source = measured.points.source
    asked = ApproximateLabelPass(**{field.name: getattr(work, field.name) for field in fields(work)})
    needed = asked.cost(source.dims, source.dtype).fixed_bytes
    fix = "choose search: exact, which takes them tile by tile"
    around.executor.budget.require(needed, f"{level}: the index of {centroids.rows:,} centroids", fix)
    labelled = around.executor.run(asked, measured.points, {"centroids": whole(centroids)}, outputs=outputs)
    recall, rows = measured_recall(measured, centroids, outputs[0].array, around)
    return labelled, told(level, recall, rows)


def told(what: str, recall: float, rows: int) -> str:
    """The sentence that reports recall."""
    return (
        f"{what}: labels by FAISS are approximate: {recall:.2%} of {rows:,} rows drawn at random have their exact "
        "nearest centroid; search: exact gives all of them"
    )


def measured_recall(
    measured: Measured, centroids: Centroids, labels: StoredArray, around: Surroundings
) -> tuple[float, int]:
    """The share of rows drawn at random whose label is exact, and how many were drawn."""
    rows = sampled_rows(measured.points, min(RECALL_ROWS, measured.points.count), Purpose.RECALL, around)
    folder = around.scratch / around.name / "recall"
    blocks = (rows[start : start + _ROWS_AT_A_TIME] for start in range(0, len(rows), _ROWS_AT_A_TIME))
    sample = StoredRows(gather(measured.points.source, blocks, len(rows), folder / "rows"))
    exact = create_array(folder / "labels", (len(rows),), np.int32, max(len(rows), 1), durable=False, overwrite=True)
    work = LabelPass(around.metric, measured.inertia, centroids.rows, writes=("labels",), name="recall")
    label_points(measured.part(Points.all_of(sample)), centroids, work, around, (Output(exact, -1),))
    agree = np.count_nonzero(exact.read(0, len(rows)) == labels.take(rows))
    return float(agree) / max(len(rows), 1), len(rows)
