"""Candidates for pairs of rows within a distance from FAISS's flat index, decided like all others."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

from streamcurate.errors import InputError
from streamcurate.kernels.cpu.pairs_rows import PairRows, shifted_rows
from streamcurate.kernels.cpu.pairs_scan import scan_list
from streamcurate.kernels.cpu.pairs_search import Join, not_below, scan_by_products
from streamcurate.kernels.metric import Float32

_UNIT = 2.0**-24
# FAISS 1.15 takes a matrix product from some 300 rows of a query on, four times faster than without (9 against 40 ns
# a pair at 384 dims). What a call may find, all pairs of a slice and a tile at the worst, bounds both from above.
_ROWS = 512
_COLUMNS = 1024


def require_faiss() -> Any:
    """The module ``faiss``; InputError where it is not installed."""
    try:
        return importlib.import_module("faiss")
    except ImportError as error:
        raise InputError(
            f"search: faiss needs FAISS, which is not installed ({error}); "
            "install it with: pip install -e '.[faiss]', or choose search: auto"
        ) from error


def faiss_bytes(dims: int) -> int:
    """Bytes that :func:`scan_by_faiss` takes: a tile of columns, shifted rows, and what a call may find."""
    return 16 * dims * _COLUMNS + 36 * 3 * _ROWS // 2 * _COLUMNS + 2**22


def scan_by_faiss(join: Join) -> None:
    """Unite the pairs within the limit that a range search finds at a radius made larger by its rounding.

    FAISS computes |r'|^2 + |s'|^2 - 2 r'.s' of the shifted float32 rows r', s' of cpu/pairs_search.py (or sums squares
    of differences, for few rows). r' and s' err by 1.001 u a and 1.001 u b; each sum of d terms, in any order, by
    gamma_(d+1) of its absolute terms; three more operations by 3 u. With a b <= (a^2 + b^2) / 2 all that is less than
    4.2 gamma_(d+10) (a^2 + b^2), and underflow is as in the products of leading coordinates.
    """
    faiss = require_faiss()
    if join.all_united():
        return
    left, right = join.left, join.right
    held = np.isfinite(left.lengths).all() and np.isfinite(right.lengths).all()
    if not held or not join.bound < 2.0**100:  # float32 cannot tell: the other search leaves these to the formula
        scan_by_products(join)
        return
    faiss.omp_set_num_threads(1)  # of the calling thread
    dims = left.dims
    gamma = (dims + 10) * _UNIT / (1 - (dims + 10) * _UNIT)
    squares = float(left.reach.max()) ** 2 + float(right.reach.max()) ** 2
    radius = not_below(join.bound + 4.21 * gamma * squares + dims * 2.0**-99 * (1 + squares))
    for first in range(0, right.count, _COLUMNS):
        last = min(first + _COLUMNS, right.count)
        index = faiss.IndexFlatL2(dims)
        index.add(_shifted(right, slice(first, last)))
        rows_in_all = last if join.within else left.count
        slices = max(1, round(rows_in_all / _ROWS))
        for part in range(slices):
            start, stop = part * rows_in_all // slices, (part + 1) * rows_in_all // slices
            bounds, _, found = index.range_search(_shifted(left, slice(start, stop)), float(radius))
            rows = start + np.repeat(np.arange(stop - start, dtype=np.int64), np.diff(bounds.astype(np.int64)))
            scan_list(
                rows, first + found.astype(np.int64), join.within,
                left.rows, left.norms, left.factors, right.rows, right.norms, right.factors,
                join.unit, join.cut, join.limit, join.offset, join.groups, join.forest, join.tally,
            )  # fmt: skip
            if join.all_united():
                return


def _shifted(side: PairRows, part: slice) -> Float32:
    return shifted_rows(side.rows[part], side.metric, side.axes)[0]
