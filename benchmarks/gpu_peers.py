"""What gpu_suite.py times beside ours: PyTorch and, where installed, flash-kmeans, on the same rows on the device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

TILE = 2**15  # rows of one product, so that its result fits as well

Calls = dict[str, Callable[[], Any]]


def torch_calls(rows: NDArray[Any], centroids: NDArray[np.float32]) -> Calls:
    """Products alone, and products with argmin, in float32 (TF32 off), TF32 and float16; empty without PyTorch."""
    try:
        import torch
    except ImportError:
        return {}
    calls: Calls = {}
    for name, kind, tf32 in (
        ("float32", torch.float32, False), ("TF32", torch.float32, True), ("float16", torch.float16, False),
    ):  # fmt: skip
        x = torch.from_numpy(rows).cuda().to(kind)
        c = torch.from_numpy(centroids).cuda().to(kind)
        norms = (c.float() ** 2).sum(dim=1).to(kind)
        out = torch.empty((min(TILE, len(x)), len(c)), dtype=kind, device="cuda")

        def product(x: Any = x, c: Any = c, out: Any = out, tf32: bool = tf32) -> None:
            torch.backends.cuda.matmul.allow_tf32 = tf32
            for start in range(0, len(x), TILE):
                part = x[start : start + TILE]
                torch.mm(part, c.T, out=out[: len(part)])

        def assign(x: Any = x, c: Any = c, norms: Any = norms, out: Any = out, tf32: bool = tf32) -> Any:
            torch.backends.cuda.matmul.allow_tf32 = tf32
            labels = torch.empty(len(x), dtype=torch.int64, device="cuda")
            for start in range(0, len(x), TILE):
                part = x[start : start + TILE]
                scores = torch.addmm(norms, part, c.T, alpha=-2, out=out[: len(part)])
                torch.argmin(scores, dim=1, out=labels[start : start + TILE])
            return labels

        if name != "TF32":
            calls[f"torch product {name}"] = product
        calls[f"torch product and argmin {name}"] = assign
    return calls


def flash_calls(rows: NDArray[Any], centroids: NDArray[np.float32]) -> Calls:
    """flash-kmeans' labelling in float16; empty without it."""
    try:
        import torch
        from flash_kmeans import FlashKMeans
    except ImportError:
        return {}
    x = torch.from_numpy(rows).cuda().half()
    model = FlashKMeans(d=rows.shape[1], k=len(centroids), dtype=torch.float16)
    # What train() leaves behind.
    model.centroids_b = torch.from_numpy(centroids).cuda().half().unsqueeze(0)
    model._batch_size = None
    return {"flash-kmeans float16": lambda: model.predict(x)}


def cublas_rate(seconds_of: Callable[[Callable[[], Any]], float]) -> float | None:
    """TFLOP/s of an 8192 x 8192 x 8192 float16 product by cuBLAS on random data; None without PyTorch."""
    try:
        import torch
    except ImportError:
        return None
    size = 8192
    a, b = (torch.randn(size, size, device="cuda", dtype=torch.float16) for _ in range(2))
    out = torch.empty_like(a)

    def several() -> None:
        for _ in range(10):
            torch.mm(a, b, out=out)

    return 10 * 2.0 * size**3 / seconds_of(several) / 1e12


def release() -> None:
    """Give the memory of finished calls back."""
    try:
        import torch
    except ImportError:
        return
    torch.cuda.empty_cache()
