"""Where to compute: in this process, on the workers of a client, or on this machine's GPUs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from streamcurate import kernels
from streamcurate.embeddings.store import Embeddings, laid_down
from streamcurate.errors import ConfigError
from streamcurate.streaming import Executor, MemoryBudget, ProgressListener, SerialExecutor


def check_device(client: Any, device: str) -> None:
    """Refuse a device that is not there.

    Raises
    ------
    ConfigError
        No such kind of device.
    InputError
        What computing on a GPU needs is missing.
    """
    if device not in ("auto", "cpu", "gpu"):
        raise ConfigError(f"device is {device!r}; it must be auto, cpu or gpu")
    if client is None:  # with one, the workers say what is missing there
        kernels.get_backend(device)


def distributed(client: Any, device: str) -> bool:
    """Whether other processes compute, so that files must lie where they see them."""
    return client is not None or device == "gpu"


@contextmanager
def executor_for(
    client: Any,
    budget: MemoryBudget,
    listener: ProgressListener,
    scratch: Path,
    folders: list[Path],
    store: Embeddings,
    device: str,
    threads: int | None,
) -> Iterator[tuple[Executor, Embeddings]]:
    """The executor that a user's choice means, and the embeddings in a form it can read.

    Parameters
    ----------
    client : distributed.Client or None
    budget : MemoryBudget
    listener : ProgressListener
    scratch : Path
        Where processes exchange files; it must exist where they do.
    folders : list of Path
        Further folders that every process must see.
    store : Embeddings
    device : "auto", "cpu" or "gpu"
    threads : int or None
    """
    if not distributed(client, device):
        with SerialExecutor(budget, listener) as serial:
            yield serial, store
        return
    from streamcurate.streaming.dask import DaskExecutor, connect

    store = laid_down(store, scratch / "embeddings")
    with ExitStack() as stack:
        if client is None:
            client = stack.enter_context(connect(device="gpu", memory_limit=budget.limit, note=listener.note))
        kind = "gpu" if device == "gpu" else "cpu"
        executor = DaskExecutor(client, budget, listener, scratch, folders, store, kind, threads)
        yield stack.enter_context(executor), store
