"""What a worker process does: check that it belongs to the run, then one task after the other.

Nothing here knows how tasks travel; a task is a small frozen data class that is called with the process's
:class:`Process`.
"""

from __future__ import annotations

import os
import pickle
import platform
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from streamcurate.errors import RunError
from streamcurate.files import TEMPORARY_SUFFIX
from streamcurate.kernels.backend import Backend, get_backend
from streamcurate.storage import StoredArray
from streamcurate.streaming.budget import MemoryBudget
from streamcurate.streaming.exchange import StateReference, StoredSums, add_slices
from streamcurate.streaming.passes import Output, Pass, Points, SlicedPass
from streamcurate.streaming.serial import SerialExecutor
from streamcurate.streaming.source import RowSource
from streamcurate.version import __version__

SAME_EVERYWHERE = (
    "every worker needs the same versions, and the store, the run directory and the scratch folder under the same paths"
)
# Like half a file, it is nobody's once its process is gone: whoever comes next may remove it.
_SESSION_NAME = ".session-{}" + TEMPORARY_SUFFIX
_SAMPLED_ROWS = 16
# A pass stops at its next block once its session is over; the fit of a bucket goes on to its end.
_LEAVE_SECONDS = 5.0
_LIBRARIES = ("numpy", "numba", "zarr", "dask", "distributed")


def versions(device: str) -> dict[str, str]:
    """Versions that must agree between the processes of one run."""
    found = {"streamcurate": __version__, "Python": ".".join(platform.python_version_tuple()[:2])}
    for name in _LIBRARIES:
        found[name] = metadata.version(name)
    if device == "gpu":
        import importlib

        found["cupy"] = importlib.import_module("streamcurate.kernels.gpu.device").cupy_version()
    return found


def sample_digest(source: RowSource) -> str:
    """Digest of a source's shape and of its first and last rows: enough to tell two files of one name apart."""
    digest = xxhash.xxh3_128(f"{source.rows}x{source.dims} {source.dtype.str}".encode())
    count = min(_SAMPLED_ROWS, source.rows)
    for start in (0, source.rows - count):
        digest.update(np.ascontiguousarray(source.read(start, start + count)).view(np.uint8).reshape(-1).data)
    return digest.hexdigest()


@dataclass(frozen=True)
class Session:
    """One driver process's claim on workers.

    Attributes
    ----------
    nonce : str
    folders : tuple of str
        The run and its scratch; a file named by the nonce lies in each for as long as the session lives.
    store : bytes
        Pickle of the store's row source, which stays closed until the folders have been found.
    store_name, store_digest : str
    versions : tuple of (name, version)
    limit : int
        Bytes a worker process may use.
    threads : int
        Blocks a worker computes at a time.
    prefetch : bool
    device : "cpu" or "gpu"
    """

    nonce: str
    folders: tuple[str, ...]
    store: bytes
    store_name: str
    store_digest: str
    versions: tuple[tuple[str, str], ...]
    limit: int
    threads: int
    prefetch: bool
    device: str

    @classmethod
    def begin(
        cls, folders: list[Path], store: RowSource, limit: int, threads: int, prefetch: bool, device: str
    ) -> Session:
        """Claim the folders; sessions of processes that are gone end by that."""
        nonce = os.urandom(8).hex()
        for folder in folders:
            for left in folder.glob(_SESSION_NAME.format("*")):
                left.unlink(missing_ok=True)
            (folder / _SESSION_NAME.format(nonce)).touch()
        return cls(
            nonce,
            tuple(os.path.abspath(folder) for folder in folders),
            pickle.dumps(store),
            store.name,
            sample_digest(store),
            tuple(versions(device).items()),
            limit,
            threads,
            prefetch,
            device,
        )

    def end(self) -> None:
        """Give the folders up: what a worker still does for this session is written nowhere any more."""
        for folder in self.folders:
            self._mark(folder).unlink(missing_ok=True)

    @property
    def alive(self) -> bool:
        """Whether the session still holds its folders."""
        return self._mark(self.folders[-1]).exists()

    def _mark(self, folder: str) -> Path:
        return Path(folder, _SESSION_NAME.format(self.nonce))

    def differences(self) -> list[str]:
        """What keeps this process from working for the session, in words."""
        found = []
        try:
            mine = versions(self.device)
        except Exception as error:  # a library that is missing here
            return [f"{type(error).__name__}: {error}"]
        for name, wanted in self.versions:
            if mine.get(name) != wanted:
                found.append(f"{name} is {mine.get(name, 'missing')} there and {wanted} here")
        for folder in self.folders:
            if not os.path.isdir(folder):
                found.append(f"{folder} does not exist there")
            elif not self._mark(folder).exists():
                found.append(f"{folder} is another folder there")
        if found:
            return found
        try:
            if sample_digest(pickle.loads(self.store)) != self.store_digest:
                found.append(f"{self.store_name} holds other rows there")
        except Exception as error:
            found.append(f"{self.store_name} cannot be read there ({error})")
        if self.device == "gpu":
            try:
                get_backend("gpu")
            except Exception as error:
                found.append(str(error))
        return found


class ForeignWorkerError(RunError):
    """This process cannot work for the session: other versions, or other files under the same paths."""


class SupersededError(ForeignWorkerError):
    """The session has ended, the driver is gone or another one has taken the run over; or so it looks from here."""


@dataclass(frozen=True)
class Outcome:
    """What a task gave, and the seconds it took."""

    value: Any
    seconds: float


class Process:
    """This process, at work for one session."""

    def __init__(self, session: Session) -> None:
        differing = session.differences()
        if differing:
            # Whether the run is over, or this host sees another folder, cannot be told from here; a driver that still
            # listens is told the latter.
            kind = ForeignWorkerError if session.alive else SupersededError
            raise kind(f"Dask worker on {platform.node()}: {'; '.join(differing)}; {SAME_EVERYWHERE}")
        self.session = session
        self.turn = threading.Lock()
        backend: Backend = get_backend(session.device)
        budget = MemoryBudget(session.limit, session.threads, 1 if session.prefetch else 0)
        self.executor = SerialExecutor(budget, backend=backend)
        self._state: tuple[StateReference, dict[str, NDArray[Any]]] | None = None
        self._ready: tuple[str, Any] | None = None

    def check_alive(self) -> None:
        """Stop work for a driver that is gone.

        Raises
        ------
        SupersededError
        """
        if not self.session.alive:
            raise SupersededError("the run this worker works for is over")

    def state(self, reference: StateReference | None) -> Mapping[str, NDArray[Any]]:
        """The arrays of a state; the last one is kept."""
        if reference is None:
            return {}
        if self._state is None or self._state[0] != reference:
            self._state = self._ready = None  # let go before the next one comes
            self._state = (reference, reference.load())
        return self._state[1]

    def ready(self, token: str, work: Pass[Any, Any, Any], reference: StateReference | None) -> Any:
        """What ``work.prepare`` makes of a state; that of the last pass is kept."""
        if self._ready is None or self._ready[0] != token:
            self._ready = None
            self._ready = (token, work.prepare(self.state(reference), self.executor.backend))
        return self._ready[1]

    def close(self) -> None:
        """Give threads and memory back."""
        self._state = self._ready = None
        self.executor.close()


_current: Process | None = None
_entering = threading.Lock()


def perform(session: Session, task: bytes) -> Outcome:
    """Do one task: what travels.

    Parameters
    ----------
    session : Session
    task : bytes
        Pickle of a callable of a :class:`Process`; opened only when this process is known to see the run's files.
    """
    global _current
    with _entering:
        if _current is None or _current.session != session:
            if _current is not None:
                with _current.turn:
                    _current.close()
                    _current = None
            _current = Process(session)
        process = _current
    # One task at a time, however many threads the worker has: the task uses all of them, and the memory is planned so.
    with process.turn:
        process.check_alive()
        began = time.monotonic()
        work: Callable[[Process], Any] = pickle.loads(task)
        value = work(process)
        return Outcome(value, time.monotonic() - began)


def leave(nonce: str) -> None:
    """Forget a session that has ended; where a long task is still at it, the next session to come will do so."""
    global _current
    with _entering:
        if _current is None or _current.session.nonce != nonce:
            return
        process = _current
        if process.turn.acquire(timeout=_LEAVE_SECONDS):
            process.close()
            _current = None
            process.turn.release()


@dataclass(frozen=True)
class PassTask:
    """A range of rows of a pass.

    ``token`` names the pass; ``sums``, where given, is the file to which large arrays of the partial result go, with
    ``slice_rows`` rows under one checksum.
    """

    token: str
    work: Pass[Any, Any, Any]
    points: Points
    state: StateReference | None
    bounds: tuple[int, int]
    columns: tuple[StoredArray, ...]
    outputs: tuple[Output, ...]
    align: int
    sums: str | None = None
    slice_rows: int = 0

    def __call__(self, process: Process) -> Any:
        ready = process.ready(self.token, self.work, self.state)
        plan = process.executor.plan(self.work, self.points, self.columns, self.align)
        total = process.executor.part(
            self.work,
            self.points,
            ready,
            plan,
            self.bounds,
            self.columns,
            self.outputs,
            lambda rows: process.check_alive(),
        )
        if self.sums is None or total is None:
            return total
        work: SlicedPass[Any, Any, Any] = self.work  # type: ignore[assignment]  # only those are given a file
        rest, arrays = work.detach(total)
        # The process in the name: a task may be done twice, and each result names its own file.
        place = Path(f"{self.sums}-{os.getpid()}-{time.monotonic_ns()}.bin")
        return rest, StoredSums.write(place, arrays, self.slice_rows)


@dataclass(frozen=True)
class SliceTask:
    """Add up one slice of the sums of many tasks."""

    stored: tuple[StoredSums, ...]
    number: int

    def __call__(self, process: Process) -> dict[str, NDArray[np.int64]]:
        return add_slices(self.stored, self.number)


@dataclass(frozen=True)
class MapTask:
    """One item of an independent map."""

    function: Callable[[Any, Any, SerialExecutor], Any]
    item: Any
    state: StateReference | None

    def __call__(self, process: Process) -> Any:
        return self.function(self.item, process.state(self.state), process.executor)
