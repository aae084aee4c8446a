"""Rows in order of their cluster, for few and for many clusters."""

from __future__ import annotations

import numpy as np
import pytest

from streamcurate.kernels.cpu.grouping import group_by_label


@pytest.mark.parametrize("clusters", [3, 2**16 - 1, 2**16, 2**31 - 1])
def test_rows_are_grouped_in_order(clusters):
    rng = np.random.default_rng(0)
    some = np.array([-1, 0, 1, clusters - 1], np.int32)
    labels = some[rng.integers(4, size=50)]
    ids, starts, order = group_by_label(labels, clusters)
    assert ids.tolist() == [0, 1, clusters - 1]
    for cluster, start, stop in zip(ids, starts[:-1], starts[1:], strict=True):
        assert order[start:stop].tolist() == np.flatnonzero(labels == cluster).tolist()
    assert starts[-1] == len(order) == np.count_nonzero(labels >= 0)


def test_no_rows_make_no_groups():
    for labels in (np.empty(0, np.int32), np.full(4, -1, np.int32)):
        ids, starts, order = group_by_label(labels, 5)
        assert (ids.tolist(), starts.tolist(), order.tolist()) == ([], [0], [])
