"""The error bound itself: every score of every route is as near to the formula as it says, for every pair."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nearest_cases import gaussian, lattice, mixed, neighbours, offset, repeated, tiny
from tensor_core_emulation import rough_product, tensor_product

from streamcurate import kernels
from streamcurate.kernels.gpu import prepare, screen
from streamcurate.kernels.gpu.blocks import whole
from streamcurate.kernels.gpu.bound import half_kappa
from streamcurate.kernels.gpu.interface import HALF, SINGLE


def _subnormal(rng, rows, clusters, dims):
    # float16 rows and columns many of whose coordinates are subnormal, beside a large one.
    x, c = rng.standard_normal((rows, dims)) * 2.0**-17, rng.standard_normal((clusters, dims)) * 2.0**-16
    x[:, 0], c[:, 0] = 1.0, 1.5
    return x, c


def _large(rng, rows, clusters, dims):
    return rng.uniform(-6e4, 6e4, (rows, dims)), rng.uniform(-6e4, 6e4, (clusters, dims))


SCENES = [gaussian, repeated, lattice, neighbours, offset, mixed, tiny, _subnormal, _large]


def exact_square(x, c):
    return float(sum((Fraction(float(a)) - Fraction(float(b))) ** 2 for a, b in zip(x, c, strict=True)))


@pytest.mark.parametrize("scene", SCENES)
@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 2**32), dims=st.sampled_from([1, 7, 8, 33]), dtype=st.sampled_from([np.float16, np.float32]),
    metric=st.sampled_from(["l2", "cosine"]), route=st.sampled_from([HALF, SINGLE]), rough=st.booleans(),
)  # fmt: skip
def test_scores_are_within_it(make_host_device, scene, seed, dims, dtype, metric, route, rough):
    rows, clusters = 6, 20
    x, c = scene(np.random.default_rng(seed), rows, clusters, dims)
    limit = float(np.finfo(dtype).max)
    x = np.clip(x, -limit, limit).astype(dtype)
    c = np.clip(c, -3e38, 3e38).astype(np.float32)
    device = make_host_device(rough=rough)
    prepared = prepare.prepare_centroids(device, c, metric)
    seen = {}

    def launch(kernel, count, *arguments):
        if kernel == "screen":
            seen["scores"] = arguments[0]._array.reshape(-1, rows).T.copy()
        type(device).launch(device, kernel, count, *arguments)

    device.launch = launch
    with device.session():
        layout = prepare.layout_of(device, prepared, route, x.dtype)
        tile = whole(device, x, metric)
        shape = screen.shape_of(route, dims, clusters, 0, 2**20, 2**20)
        none = device.upload(np.full(rows, -1, np.int32)), device.upload(np.zeros(rows))
        bounds = screen.screen(device, tile, prepared, layout, shape, *none)
        reach, slack, gain, wild = (
            device.download(array) for array in (bounds.reach, bounds.slack, bounds.gain, bounds.wild)
        )
        norms, order, limits, residuals, origin = (
            device.download(array)
            for array in (layout.norms, layout.order, layout.bounds, layout.residuals, layout.origin)
        )
    product, norm, formula, little = layout.terms
    both = np.meshgrid(np.arange(rows), np.arange(clusters), indexing="ij")
    values = kernels.squared_distances_of_pairs(x, both[0].ravel(), c, both[1].ravel(), metric)
    values = values.reshape(rows, clusters)
    x = x.astype(np.float64)
    if metric == "cosine":
        squared = np.zeros(rows)
        for j in range(dims):
            squared += x[:, j] * x[:, j]
        x = x / np.where(squared == 0, 1, np.sqrt(squared))[:, None]
    for i in np.flatnonzero(wild == 0):
        own = exact_square(x[i], origin) * layout.scale**2
        for column, cluster in enumerate(order):
            if cluster < 0:
                continue
            score = float(
                np.float32(np.float64(seen["scores"][i, column]) * np.float64(gain[i]) + np.float64(norms[column]))
            )
            a, r, b, s = reach[i], slack[i], limits[column // prepare.GROUP], residuals[column // prepare.GROUP]
            error = product * a * b + norm * b * b + formula * (a + b) ** 2 + little * (1 + a + b) + 2 * (a * s + r * b)
            wanted = values[i, cluster] * layout.scale**2 - own
            # Each of the two numbers just taken is float64, and rounded.
            assert abs(score - wanted) <= error + 2.0**-50 * (abs(wanted) + own), (score, wanted, error)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32), dims=st.integers(1, 300), addends=st.sampled_from([2, 4, 8, 16]), spread=st.booleans()
)
def test_kappa_covers_what_hardware_cuts_off(seed, dims, addends, spread):
    rng = np.random.default_rng(seed)
    # Of one sign every addition cuts off towards zero, and the errors add up.
    x, w = rng.uniform(1, 2, (8, dims)), rng.uniform(1, 2, (9, dims))
    if spread:
        x *= np.exp2(rng.integers(-12, 12, dims))
    x, w = x.astype(np.float16), w.astype(np.float16)
    exact = x.astype(np.float64) @ w.astype(np.float64).T
    error = np.abs(tensor_product(x, w, addends) - exact)
    assert (error <= half_kappa(dims) * exact).all()
    sizes = np.linalg.norm(x.astype(np.float64), axis=1)[:, None] * np.linalg.norm(w.astype(np.float64), axis=1)
    assert (np.abs(rough_product(x, w) - exact) <= half_kappa(dims) * sizes).all()
    assert (np.abs(rough_product(x, w) - exact) > 0.9 * (half_kappa(dims) - 2.0**-22) * sizes).all()


@pytest.mark.parametrize("addends", [2, 4, 8, 16])
def test_kappa_covers_products_that_are_cut_off_whole(addends):
    x = np.full((1, 500), 1.411 * 2.0**-12)
    x[0, 0] = 1.0
    x = x.astype(np.float16)
    exact = (x.astype(np.float64) ** 2).sum()
    error = exact - tensor_product(x, x, addends)[0, 0]
    assert 490 * 2.0**-23 < error <= half_kappa(500) * exact


def test_rows_are_shifted_where_that_narrows_the_bound(make_host_device):
    rng = np.random.default_rng(0)
    device = make_host_device()
    c = rng.standard_normal((300, 48)).astype(np.float32)
    for shift, exact in ((0.0, True), (0.5, True), (2.0, False), (100.0, False)):
        prepared = prepare.prepare_centroids(device, c + np.float32(shift), "l2")
        with device.session():
            assert prepare.layout_of(device, prepared, HALF, np.dtype(np.float16)).exact is exact
            assert not prepare.layout_of(device, prepared, HALF, np.dtype(np.float32)).exact
            assert not prepare.layout_of(device, prepared, SINGLE, np.dtype(np.float16)).exact


@pytest.mark.parametrize("pieces", range(1, 40))
def test_panels_fit_in_shared_memory(pieces):
    stages, resident, bytes_taken = screen.fused_stages(pieces)
    assert 3 <= stages <= 6
    assert bytes_taken <= 227 * 1024 - 1024
    assert resident == (pieces <= 8)
