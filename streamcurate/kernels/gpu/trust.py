"""What the certificate takes for granted of a device's arithmetic, tried on the device before it is relied on."""

from __future__ import annotations

import numpy as np

from streamcurate.errors import InputError
from streamcurate.kernels.cpu import formula
from streamcurate.kernels.gpu import nearest, pairs, prepare
from streamcurate.kernels.gpu.blocks import MEBIBYTE
from streamcurate.kernels.gpu.bound import half_kappa
from streamcurate.kernels.gpu.choice import RouteChoice
from streamcurate.kernels.gpu.interface import FUSED, HALF, SINGLE, Device
from streamcurate.kernels.metric import Array, Float64

_ROWS, _DIMS = 300, 321  # no multiples of any tile's size
_HALF_DIMS = 1040
_FUSED_WORKSPACE = 64 * MEBIBYTE
# Both of the fused kernel's ways (rows kept in shared memory or not), rows and columns that fill no panel.
_FUSED_SHAPES = ((300, 300, 72), (130, 260, 600))


def check_arithmetic(device: Device) -> None:
    """Try float32 products, and a formula without contraction or flushing to zero.

    TF32, which cuBLAS can be told to use from outside, keeps 11 bits of each operand and misses the bound a
    thousandfold.

    Raises
    ------
    InputError
        The device's arithmetic is another.
    """
    rng = np.random.default_rng(0)
    left, right = (np.zeros((_ROWS, _DIMS), dtype=np.float32) for _ in range(2))
    # Three products that are not zero, far apart: their sum errs by 3 units in the last place at most.
    places = np.array([0, _DIMS // 2, _DIMS - 1])
    left[:, places], right[:, places] = rng.standard_normal((2, _ROWS, 3))
    exact, size = _product_and_size(left, right)
    x, c = (rng.standard_normal((_ROWS, 33)).astype(np.float32) for _ in range(2))
    # float16 subnormals among the rows: widening them must not lose them.
    small = (x * np.float32(2.0**-18)).astype(np.float16)
    both = np.arange(_ROWS)
    wrong = []
    if not (np.abs(_on_device(device, left, right) - exact) <= 3.01 * 2.0**-24 * size).all():
        wrong.append("its float32 matrix products are not of float32 precision (see NVIDIA_TF32_OVERRIDE)")
    for rows, others in ((x, c), (small, c * np.float32(2.0**-18))):
        found = pairs.squared_distances_of_pairs(device, MEBIBYTE, rows, both, others, both, "l2")
        if not np.array_equal(found, formula.squared_distances_of_pairs(rows, both, others, both, "l2")):
            wrong.append("its float64 arithmetic is not the processor's")
            break
    if wrong:
        raise InputError(f"device gpu: {device.name} gives other results: {' and '.join(wrong)}; use --device cpu")


def trusted_routes(device: Device) -> tuple[str, ...]:
    """The device's routes that pass their trials; SINGLE is tried by :func:`check_arithmetic`."""
    tried = {HALF: half_products_hold, FUSED: fused_screen_holds}
    return tuple(route for route in device.routes if route == SINGLE or tried[route](device))


def half_products_hold(device: Device) -> bool:
    """Whether float16 products are within the bound, with sums made to be cut off, and keep subnormals."""
    rng = np.random.default_rng(1)
    shape = (_ROWS, _HALF_DIMS)
    ones = np.ones(shape)
    # Sums of one sign, of which every addition cuts off some; large terms first, last and cancelling; subnormals alone.
    falling = np.exp2(-12.0 * np.arange(_HALF_DIMS) / _HALF_DIMS)
    # After a first product of 1, products just below what is kept beside it: cutting off loses all of every one.
    lost = np.full(shape, 1.411 * 2.0**-12)
    lost[:, 0] = 1.0
    scenes = [
        (lost, lost),
        (rng.standard_normal(shape), rng.standard_normal(shape)),
        (rng.uniform(1, 2, shape), rng.uniform(1, 2, shape)),
        (rng.uniform(1, 2, shape) * falling, rng.uniform(1, 2, shape)),
        (rng.uniform(1, 2, shape) * falling[::-1], rng.uniform(1, 2, shape)),
        (rng.uniform(1, 2, shape) * rng.choice([-1.0, 1.0], shape), ones),
        (rng.integers(1, 1024, shape) * 2.0**-24, ones),
        (rng.integers(1, 1024, shape) * 2.0**-24, rng.integers(1, 1024, shape) * 2.0**-24),
    ]
    for left, right in scenes:
        x, w = left.astype(np.float16), right.astype(np.float16)
        exact, size = _product_and_size(x, w)
        if not (np.abs(_on_device(device, x, w) - exact) <= half_kappa(_HALF_DIMS) * size).all():
            return False
    return True


def fused_screen_holds(device: Device) -> bool:
    """Whether the fused kernel's lists lead to the answers of the float32 route, on rows with ties and near ties."""
    rng = np.random.default_rng(2)
    for count, clusters, dims in _FUSED_SHAPES:
        c = rng.standard_normal((clusters, dims)).astype(np.float32)
        c[1::3] = c[rng.integers(0, clusters, len(c[1::3]))]
        c[2::3] += np.float32(1e-3) * rng.standard_normal((len(c[2::3]), dims)).astype(np.float32)
        rows = c[rng.integers(0, clusters, count)] + np.float32(0.3) * rng.standard_normal((count, dims))
        for x in (rows.astype(np.float16), rows.astype(np.float32)):
            prepared = prepare.prepare_centroids(device, c, "l2")
            choice = RouteChoice((FUSED, SINGLE))
            found = nearest.nearest(device, _FUSED_WORKSPACE, x, prepared, choice=choice)
            wanted = nearest.nearest(device, _FUSED_WORKSPACE, x, prepared, choice=RouteChoice((SINGLE,)))
            same = np.array_equal(found[0], wanted[0]) and np.array_equal(found[1], wanted[1])
            if not same or FUSED not in choice.routes:
                return False
    return True


def _on_device(device: Device, left: Array, right: Array) -> Array:
    with device.session():
        out = device.empty((len(left), len(right)), np.float32)
        device.product(device.upload(left), device.upload(right), out)
        return device.download(out)


def _product_and_size(left: Array, right: Array) -> tuple[Float64, Float64]:
    x, w = left.astype(np.float64), right.astype(np.float64)
    return x @ w.T, np.abs(x) @ np.abs(w).T
