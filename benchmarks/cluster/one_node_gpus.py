"""Build a hierarchy of clusters on the GPUs of one machine, one Dask worker for each.

    python one_node_gpus.py            # builds; the same line goes on where it stopped

On all GPUs, this is what the command line does without a script:

    streamcurate cluster embeddings.zarr run/ --config levels.yaml --device gpu       # --workers 2: on two of them

Copy this file and edit the marked lines to choose the GPUs or the size of their memory pools. Needs CuPy and dask-cuda
(`pip install 'streamcurate[cuda12]'` or `[cuda13]`).
"""

from __future__ import annotations

import os
import sys
from typing import Any

import streamcurate as sc

# ---- edit --------------------------------------------------------------------------------------------------
STORE = "embeddings.zarr"
RUN = "run"
LEVELS = "levels.yaml"
# Such as [0, 1]; None: all that CUDA_VISIBLE_DEVICES names, or else all there are.
GPUS: list[int] | None = None
# Share of each GPU's memory for the pool that CuPy allocates from; the rest is for CUDA and its libraries.
POOL = 0.85
# Memory on the host of each worker, and of this process.
MEMORY_GIB = 32
# For what little Dask writes: a local disk.
SCRATCH = os.environ.get("TMPDIR", "/tmp")
# ---- leave the rest ----------------------------------------------------------------------------------------


def main() -> None:
    try:
        from dask_cuda import LocalCUDACluster
    except ImportError as error:
        print(f"error: {error}; pip install 'streamcurate[cuda12]' or 'streamcurate[cuda13]'", file=sys.stderr)
        sys.exit(2)
    import dask
    from distributed import Client

    # streamcurate plans what each worker holds; Dask is not to spill, pause or kill on top of that.
    dask.config.set({f"distributed.worker.memory.{name}": False for name in ("target", "spill", "pause", "terminate")})
    with (
        LocalCUDACluster(
            CUDA_VISIBLE_DEVICES=GPUS,
            rmm_pool_size=POOL,
            rmm_allocator_external_lib_list=["cupy"],
            memory_limit=f"{MEMORY_GIB}GiB",
            local_directory=SCRATCH,
            # Loopback only: nobody outside this machine can reach the workers or the dashboard.
            host="127.0.0.1",
            protocol="tcp://",
            dashboard_address="127.0.0.1:8787",
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        print(f"dashboard {cluster.dashboard_link}", flush=True)
        try:
            tree = build(client)
        except sc.InputError as error:
            print(f"error: {error}", file=sys.stderr)
            sys.exit(2)
        print(f"{RUN}: digest {tree.digest}")


def build(client: Any) -> Any:
    """The tree, on the client's workers."""
    return sc.cluster(
        STORE,
        RUN,
        config=LEVELS,
        client=client,
        device="gpu",
        memory_limit=f"{MEMORY_GIB}GiB",
        progress=Lines(),
    )


class Lines:
    """Prints what the run tells: a line a pass."""

    def started(self, name: str, rows: int) -> None:
        print(f"{name}: {rows:,} rows", flush=True)

    def advanced(self, rows: int, bytes: int) -> None: ...

    def finished(self) -> None: ...

    def note(self, text: str) -> None:
        print(text, flush=True)


if __name__ == "__main__":
    main()
