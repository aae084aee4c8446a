"""Sums given away to be added slice by slice come back as the sums they were."""

from __future__ import annotations

import numpy as np
import pytest

from streamcurate import kernels
from streamcurate.clustering.iteration import AssignPass, SumPass
from streamcurate.kernels import get_backend
from streamcurate.streaming import Block
from streamcurate.streaming.exchange import StoredSums, add_slices


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("slice_rows", [1, 3, 7, 100])
def test_slices_of_stored_sums_are_the_sums(tmp_path, dtype, slice_rows):
    generator = np.random.default_rng(3)
    rows = generator.standard_normal((240, 5)).astype(dtype)
    centroids = generator.standard_normal((7, 5)).astype(np.float32)
    centroids[4] = 1000  # nearest to no row: a cluster that no part touches
    statistics = kernels.statistics(rows, "l2")
    from streamcurate.clustering.surroundings import Measured
    from streamcurate.streaming import MemoryRows, Points

    measured = Measured.of(Points.all_of(MemoryRows(rows)), statistics, "l2")
    work = AssignPass("l2", measured.fixed_point, measured.inertia, 7)
    ready = work.prepare({"centroids": centroids}, get_backend())
    parts = []
    for start in range(0, 240, 60):
        part = rows[start : start + 60]
        parts.append(work.chunk(Block(start, start + 60, np.arange(start, start + 60), part, part), (), ready)[0])
    stored, rest = [], None
    for number, part in enumerate(parts):
        light, arrays = work.detach(part)
        assert sum(array.nbytes for array in arrays.values()) == work.sums_bytes(5)
        stored.append(StoredSums.write(tmp_path / f"{number}.bin", arrays, slice_rows))
        rest = light if rest is None else work.combine(rest, light)
    whole = parts[0]
    for part in parts[1:]:
        whole = work.combine(whole, part)
    expected = work.finalize(whole)
    assert rest is not None
    counts, means = [], []
    for number, first in enumerate(range(0, 7, slice_rows)):
        last = min(first + slice_rows, 7)
        found = work.finalize(work.attach(rest, add_slices(stored, number), first, last))
        counts.append(found.sums.counts)
        means.append(kernels.mean_centroids(found.sums, "l2", centroids[first:last]))
        assert found.inertia.value() == expected.inertia.value()
        np.testing.assert_array_equal(found.farthest.rows, expected.farthest.rows)
    np.testing.assert_array_equal(np.concatenate(counts), expected.sums.counts)
    assert expected.sums.counts[4] == 0
    assert np.concatenate(means).tobytes() == kernels.mean_centroids(expected.sums, "l2", centroids).tobytes()


def test_a_sum_pass_gives_its_sums_away_too():
    rows = np.eye(4, dtype=np.float32)
    statistics = kernels.statistics(rows, "l2")
    fixed_point, inertia = statistics.fixed_point("l2"), kernels.ExactTotal.scale(1.0, 4)
    work = SumPass("l2", fixed_point, inertia, clusters=2, first=1, farthest=1)
    columns = (np.array([0, 1, 2, 2], dtype=np.int32), np.array([0.5, 0.25, 0.5, 0.5]))
    part, _ = work.chunk(Block(0, 4, np.arange(4), rows, rows), columns, work.prepare({}, get_backend()))
    rest, arrays = work.detach(part)
    assert rest.sums.clusters == 0
    np.testing.assert_array_equal(arrays["counts"][:, 0], [1, 2])
    again = work.finalize(work.attach(rest, arrays, 0, 2))
    np.testing.assert_array_equal(again.sums.limbs, work.finalize(part).sums.limbs)
