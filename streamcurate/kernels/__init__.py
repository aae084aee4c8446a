"""Arithmetic on one block of rows: arrays in, arrays out; no input or output, no configuration.

Everything here gives the same bits for any tiling, any number of threads and any order of combination. The names
below are the CPU's; :func:`get_backend` returns the same functions as a :class:`Backend`, for callers that compute
where the device says. Importing this package imports no compiler: the first call of a function does.

Every call is single-threaded and releases the interpreter lock, so that callers run blocks side by side in threads;
the caller limits BLAS to one thread.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from streamcurate.kernels.backend import Backend, get_backend
from streamcurate.kernels.metric import METRICS, Metric

if TYPE_CHECKING:
    from streamcurate.kernels.cpu.farthest import farthest
    from streamcurate.kernels.cpu.formula import distance_of, squared_distances_of_pairs
    from streamcurate.kernels.cpu.nearest import nearest, nearest_workspace_bytes
    from streamcurate.kernels.cpu.nearest_rows import (
        keys_of_values,
        nearest_rows,
        nearest_rows_workspace_bytes,
        screen_seeds,
        unusable_rows,
        values_of_keys,
    )
    from streamcurate.kernels.cpu.pairs import (
        SEARCHES,
        PairCounts,
        group_roots,
        pair_workspace_bytes,
        pairs_compiled,
        row_pair_distances,
        unite_pairs,
    )
    from streamcurate.kernels.cpu.pairs_rows import PairAxes, PairRows, pair_axes, pair_row_bytes, prepare_pair_rows
    from streamcurate.kernels.cpu.prepare import (
        centroid_shifts,
        moved_centroids_bytes,
        prepare_centroids,
        prepared_centroids_bytes,
    )
    from streamcurate.kernels.cpu.quantise import quantise, quantised_distances
    from streamcurate.kernels.cpu.random import philox4x32, random_below, random_bits
    from streamcurate.kernels.cpu.relabel import relabel
    from streamcurate.kernels.cpu.rows import formula_rows
    from streamcurate.kernels.cpu.selection import keys_of_distances, smallest_per_cluster
    from streamcurate.kernels.cpu.statistics import statistics
    from streamcurate.kernels.cpu.sums import cluster_sums, mean_centroids
    from streamcurate.kernels.cpu.unite import settle_groups, unite_edges
    from streamcurate.kernels.exact_total import ExactTotal
    from streamcurate.kernels.farthest_rows import FarthestRows
    from streamcurate.kernels.fixed_point import FixedPoint
    from streamcurate.kernels.nearest_selection import NearestSelection
    from streamcurate.kernels.prepared_centroids import PreparedCentroids
    from streamcurate.kernels.row_statistics import Statistics
    from streamcurate.kernels.seeding import Quantiser, SeedingSpace, seeding_space
    from streamcurate.kernels.sums_partial import ClusterSums

_HOMES = {
    "farthest": "cpu.farthest",
    "distance_of": "cpu.formula",
    "formula_rows": "cpu.rows",
    "squared_distances_of_pairs": "cpu.formula",
    "nearest": "cpu.nearest",
    "nearest_workspace_bytes": "cpu.nearest",
    "keys_of_values": "cpu.nearest_rows",
    "nearest_rows": "cpu.nearest_rows",
    "nearest_rows_workspace_bytes": "cpu.nearest_rows",
    "screen_seeds": "cpu.nearest_rows",
    "unusable_rows": "cpu.nearest_rows",
    "values_of_keys": "cpu.nearest_rows",
    "PairAxes": "cpu.pairs_rows",
    "PairCounts": "cpu.pairs",
    "SEARCHES": "cpu.pairs",
    "PairRows": "cpu.pairs_rows",
    "group_roots": "cpu.pairs",
    "pair_axes": "cpu.pairs_rows",
    "pair_row_bytes": "cpu.pairs_rows",
    "pair_workspace_bytes": "cpu.pairs",
    "pairs_compiled": "cpu.pairs",
    "prepare_pair_rows": "cpu.pairs_rows",
    "row_pair_distances": "cpu.pairs",
    "unite_pairs": "cpu.pairs",
    "centroid_shifts": "cpu.prepare",
    "moved_centroids_bytes": "cpu.prepare",
    "prepare_centroids": "cpu.prepare",
    "prepared_centroids_bytes": "cpu.prepare",
    "relabel": "cpu.relabel",
    "quantise": "cpu.quantise",
    "quantised_distances": "cpu.quantise",
    "philox4x32": "cpu.random",
    "random_below": "cpu.random",
    "random_bits": "cpu.random",
    "keys_of_distances": "cpu.selection",
    "smallest_per_cluster": "cpu.selection",
    "statistics": "cpu.statistics",
    "cluster_sums": "cpu.sums",
    "mean_centroids": "cpu.sums",
    "settle_groups": "cpu.unite",
    "unite_edges": "cpu.unite",
    "ExactTotal": "exact_total",
    "FarthestRows": "farthest_rows",
    "FixedPoint": "fixed_point",
    "NearestSelection": "nearest_selection",
    "PreparedCentroids": "prepared_centroids",
    "Statistics": "row_statistics",
    "Quantiser": "seeding",
    "SeedingSpace": "seeding",
    "seeding_space": "seeding",
    "ClusterSums": "sums_partial",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


__all__ = [
    "METRICS",
    "SEARCHES",
    "Backend",
    "ClusterSums",
    "ExactTotal",
    "FarthestRows",
    "FixedPoint",
    "Metric",
    "NearestSelection",
    "PairAxes",
    "PairCounts",
    "PairRows",
    "PreparedCentroids",
    "Quantiser",
    "SeedingSpace",
    "Statistics",
    "centroid_shifts",
    "cluster_sums",
    "distance_of",
    "farthest",
    "formula_rows",
    "get_backend",
    "group_roots",
    "keys_of_distances",
    "keys_of_values",
    "mean_centroids",
    "moved_centroids_bytes",
    "nearest",
    "nearest_rows",
    "nearest_rows_workspace_bytes",
    "nearest_workspace_bytes",
    "pair_axes",
    "pair_row_bytes",
    "pair_workspace_bytes",
    "pairs_compiled",
    "philox4x32",
    "prepare_centroids",
    "prepare_pair_rows",
    "prepared_centroids_bytes",
    "quantise",
    "quantised_distances",
    "random_below",
    "random_bits",
    "relabel",
    "row_pair_distances",
    "screen_seeds",
    "seeding_space",
    "settle_groups",
    "smallest_per_cluster",
    "squared_distances_of_pairs",
    "statistics",
    "unite_edges",
    "unite_pairs",
    "unusable_rows",
    "values_of_keys",
]
