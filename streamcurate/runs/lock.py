"""One run directory, one writer: a lock that dies with its process."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import weakref
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType

from streamcurate.errors import RunError
from streamcurate.files import disk_errors

LOCK_NAME = ".lock"


class RunLock:
    """The right to write a run directory, held from ``with`` to its end or to the end of the process.

    The lock is the kernel's (``flock`` on ``.lock`` in the directory), so a killed process leaves nothing to clean up.
    The file itself stays, for removing it would let two writers lock two different files. What it says is for messages.

    Parameters
    ----------
    run : path
        The run directory; it must exist.

    Raises
    ------
    RunError
        Another process writes the directory, or the directory cannot be locked.
    """

    def __init__(self, run: str | os.PathLike[str]) -> None:
        self.run = Path(run)
        self._descriptor: int | None = None

    def __enter__(self) -> RunLock:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def acquire(self) -> None:
        """Take the lock; where another process holds it, say so at once instead of waiting."""
        if self._descriptor is not None:
            raise ValueError(f"{self.run}: this lock is held already")
        path = self.run / LOCK_NAME
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise RunError(
                f"{self.run}: cannot be written ({error.strerror}); choose a run directory that can be"
            ) from error
        try:
            self._lock(descriptor)
            holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": _now()}
            with disk_errors(path):
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, json.dumps(holder).encode(), 0)
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        _held.add(self)

    @property
    def in_place(self) -> bool:
        """Whether it is held, and the file that is locked is the one that others find."""
        if self._descriptor is None:
            return False
        try:
            return os.path.samestat(os.fstat(self._descriptor), os.stat(self.run / LOCK_NAME))
        except FileNotFoundError:
            return False

    def release(self) -> None:
        """Give the lock back. Once is enough; more does no harm."""
        descriptor = self._forget()
        if descriptor is not None:
            # Unlocked, not just closed: a child forked a moment ago may not have closed its copy yet.
            fcntl.flock(descriptor, fcntl.LOCK_UN)
            os.close(descriptor)

    def _forget(self) -> int | None:
        _held.discard(self)
        descriptor, self._descriptor = self._descriptor, None
        return descriptor

    def _lock(self, descriptor: int) -> None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                raise RunError(
                    f"{self.run}: is being written by {_holder(descriptor)}; "
                    "wait for it to end, or stop it, or write to another place"
                ) from error
            raise RunError(
                f"{self.run}: its file system gives no locks ({error.strerror}), so a second writer would go "
                "unnoticed; choose a run directory on a local disk"
            ) from error


def writer_of(run: str | os.PathLike[str]) -> str | None:
    """The living process that writes a run directory, in words; None where there is none. Nothing is written."""
    try:
        descriptor = os.open(Path(run) / LOCK_NAME, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        # Shared, so that two who look do not take each other for the writer; given back on closing, at once.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        # Other errors: a file system without locks, which has no writer either.
        return _holder(descriptor) if error.errno in (errno.EWOULDBLOCK, errno.EACCES) else None
    finally:
        os.close(descriptor)
    return None


def _holder(descriptor: int) -> str:
    try:
        holder = json.loads(os.pread(descriptor, 4096, 0))
        return f"process {holder['pid']} on {holder['host']} (since {holder['since']})"
    except (ValueError, KeyError, TypeError):
        # Between taking the lock and signing it.
        return "another process"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


# A forked child shares its parent's locks and would keep them when the parent dies: the child lets go at once. Closing
# its copy leaves the parent's lock alone.
_held: weakref.WeakSet[RunLock] = weakref.WeakSet()


def _let_go_in_child() -> None:
    for lock in list(_held):
        descriptor = lock._forget()
        if descriptor is not None:
            os.close(descriptor)


os.register_at_fork(after_in_child=_let_go_in_child)
