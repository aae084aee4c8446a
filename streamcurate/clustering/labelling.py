"""The nearest centroid of every point, whether all centroids fit in memory or only tiles of them do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from streamcurate.clustering.centroids import Centroids, has_room, tile_edges, whole
from streamcurate.clustering.kept_labels import KeptLabels
from streamcurate.clustering.passes import Labelled, LabelPass, TilePass
from streamcurate.clustering.surroundings import Measured, Surroundings
from streamcurate.storage import StoredArray, create_array
from streamcurate.streaming import Output, State
from streamcurate.tree.level import aligned_chunk_rows


def label_points(
    measured: Measured,
    centroids: Centroids,
    work: LabelPass,
    around: Surroundings,
    outputs: Sequence[Output] = (),
    kept: KeptLabels | None = None,
) -> Labelled:
    """Run a labels pass with these centroids.

    Parameters
    ----------
    measured : Measured
    centroids : Centroids
    work : LabelPass
        What is wanted; its ``outputs`` are those of the pass.
    around : Surroundings
    outputs : sequence of Output
    kept : KeptLabels, optional
        What the iteration left from which these centroids follow.
    """
    executor, points = around.executor, measured.points
    source = points.source
    edges = tile_edges(
        centroids.rows, measured, around, lambda tile: replace(work, clusters=tile).cost(source.dims, source.dtype)
    )
    if len(edges) == 2:
        state: State = {"centroids": whole(centroids)}
        known = kept.for_labels(work) if kept is not None else None
        if known is not None and has_room(known[0], measured, around):
            return executor.run(known[0], points, {**state, **known[1]}, columns=known[2], outputs=outputs)
        return executor.run(work, points, state, outputs=outputs)
    columns = label_by_tiles(measured, centroids, edges, around)
    return executor.run(replace(work, known=True), points, {}, columns=columns, outputs=outputs)


def label_by_tiles(
    measured: Measured,
    centroids: Centroids,
    edges: Sequence[int],
    around: Surroundings,
    kept: StoredArray | None = None,
) -> tuple[StoredArray, StoredArray]:
    """Labels int32 and formula values float64 of every point in scratch, one pass over the points for each tile.

    Each pass compares with the best of the tiles before; the arrays are used in turn, since a pass cannot write what
    it reads. Labels of an earlier call that are ``kept`` stay as they are.
    """
    points = measured.points
    folder = around.scratch / around.name / "tiles"
    folder.mkdir(parents=True, exist_ok=True)
    chunk = aligned_chunk_rows(points.source.rows, 2 * points.source.dims * (edges[1] - edges[0]))
    columns: tuple[StoredArray, ...] = ()
    names = [f"labels-{number}" for number in range(3)]
    if kept is not None:
        names.remove(Path(kept.path).name)
    for tile in range(len(edges) - 1):
        first, last = edges[tile], edges[tile + 1]
        outputs = tuple(
            create_array(folder / name, (points.source.rows,), dtype, chunk, durable=False, overwrite=True)
            for name, dtype in ((names[tile % 2], np.int32), (f"values-{tile % 2}", np.float64))
        )
        work = TilePass(around.metric, last - first, first, name=f"labels, tile {tile + 1} of {len(edges) - 1}")
        state = {"centroids": centroids.read(first, last)}
        around.executor.run(
            work, points, state, columns=columns, outputs=(Output(outputs[0], -1), Output(outputs[1], np.nan))
        )
        columns = outputs
    return columns[0], columns[1]
