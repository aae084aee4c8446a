"""What a user asks ``cluster`` for: options and arguments made one configuration, one folder, one executor."""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from streamcurate.config import Config, Level, parse_levels
from streamcurate.embeddings.store import as_embeddings
from streamcurate.errors import ConfigError
from streamcurate.pipeline.executors import check_device, distributed, executor_for
from streamcurate.pipeline.folder import opened_run
from streamcurate.pipeline.job import Job
from streamcurate.planning.model import check_levels
from streamcurate.streaming import MemoryBudget, ProgressListener, Silent
from streamcurate.tree import Tree


def cluster(
    embeddings: Any,
    run: str | os.PathLike[str] | None = None,
    *,
    levels: Sequence[Level | int] | int | str | None = None,
    config: Config | str | os.PathLike[str] | None = None,
    metric: str | None = None,
    seed: int | None = None,
    subset: Any = None,
    memory_limit: int | str | None = None,
    scratch: str | os.PathLike[str] | None = None,
    device: str = "auto",
    threads: int | None = None,
    prefetch: bool = True,
    client: Any = None,
    reuse: str | os.PathLike[str] | None = None,
    progress: ProgressListener | None = None,
) -> Tree:
    """Build the hierarchy of clusters over embeddings; the same call again goes on where it stopped.

    Hierarchical k-means with resampling (arXiv:2405.15613, section 3): k-means over the rows, then over its centroids,
    and so on. The tree depends on the rows, levels, metric, seed and subset alone: memory limit, threads, block
    sizes, interruptions change nothing in it.

    Parameters
    ----------
    embeddings : Embeddings, path, or NumPy, CuPy, Dask or Zarr array
        float16 or float32, shape (rows, dims).
    run : path, optional
        The run directory, made if need be; or a URL such as ``s3://bucket/run``, to which each level is published when
        it is finished. Without one the tree lives in a temporary folder as long as the object.
    levels : sequence of Level or int, or str, optional
        From the rows upwards; ``"5000,1000"`` is two levels without resampling.
    config : Config or path, optional
        Instead of ``levels``: a configuration, or a YAML file of one (ours or the authors' flat format).
    metric : "l2" or "cosine", optional
        Overrides the configuration's. Default l2.
    seed : int, optional
        Overrides the configuration's. Default 0.
    subset : path, ndarray, sequence or Selection, optional
        The rows to use: their numbers, a mask, or their ids; or a file of them (.npy, .txt, .csv, .parquet). Others get
        label -1.
    memory_limit : int or str, optional
        Bytes this process, and each worker, may use, the interpreter included, as a number or like ``"4GiB"``; by
        default half of what is available.
    scratch : path, optional
        Folder for intermediate arrays; by default inside the run directory. A run at a URL is built there, by default
        where temporary files go.
    device : "auto", "cpu" or "gpu"
        With gpu, one Dask worker for each GPU. auto is the CPU in this version.
    threads : int, optional
        Blocks each process computes at a time; by default one for each processor, or Dask thread of a worker.
    prefetch : bool
        Read the next block while computing this one.
    client : dask.distributed.Client, optional
        Workers to compute on: they need the same versions, and the store, the run directory and the scratch folder
        under the same paths. Without one this process computes, or with device gpu a cluster of this machine's GPUs.
    reuse : path, optional
        Another run of the same store, whose identical leading levels are taken over.
    progress : ProgressListener, optional
        An object whose methods ``started(name, rows)``, ``advanced(rows, bytes)``, ``finished()`` and ``note(text)``
        are called as passes begin, go on and end; one that has ``happened(event)`` as well is handed the events of
        the run's log instead of its passes.

    Returns
    -------
    Tree

    Raises
    ------
    InputError
        Anything the caller can mend: configuration, rows, store, run directory, memory, disk.
    """
    check_device(client, device)
    resolved = resolve_config(levels, config, metric, seed, subset)
    listener = progress or Silent()
    store = as_embeddings(embeddings)
    budget = MemoryBudget.of(memory_limit, threads, prefetch)
    check_levels(resolved, store.rows, store.dims, store.dtype, budget, store.name)
    temporary = None
    if run is None:
        temporary = _TemporaryFolder()
        run = temporary.path
    chosen = subset if subset is not None else resolved.subset
    with opened_run(run, scratch, listener, distributed(client, device)) as folder:
        folders = (folder.scratch, [folder.path])
        with executor_for(client, budget, listener, *folders, store, device, threads) as (executor, rows):
            tree = Job(folder, rows, resolved, chosen, executor, listener).finish(reuse)
    if temporary is not None:
        tree.keep_alive(temporary)
    return tree


def resolve_config(
    levels: Sequence[Level | int] | int | str | None,
    config: Config | str | os.PathLike[str] | None,
    metric: str | None,
    seed: int | None,
    subset: Any,
) -> Config:
    """The configuration that levels, or a file, and the overriding options make.

    Raises
    ------
    ConfigError
        Both or neither of levels and config, or a value out of range.
    """
    if (levels is None) == (config is None):
        raise ConfigError("levels and config: give exactly one of them (--levels 5000,1000 or --config levels.yaml)")
    if levels is not None:
        parsed = parse_levels(levels) if isinstance(levels, str) else levels
        listed = [parsed] if isinstance(parsed, Level | int | np.integer) else parsed
        resolved = Config(tuple(listed))  # type: ignore[arg-type]  # whole numbers become levels there
    else:
        assert config is not None
        resolved = config if isinstance(config, Config) else Config.from_file(config)
    if metric is not None:
        resolved = replace(resolved, metric=metric)
    if seed is not None:
        resolved = replace(resolved, seed=seed)
    if subset is not None:
        named = os.fspath(subset) if isinstance(subset, str | os.PathLike) else "array in memory"
        resolved = replace(resolved, subset=named)
    return resolved


class _TemporaryFolder:
    """A folder that goes with the object, or with the process."""

    def __init__(self) -> None:
        self.path = tempfile.mkdtemp(prefix="streamcurate-")
        weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)
