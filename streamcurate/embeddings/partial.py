"""An unfinished ingest at rest: a store under way, and a journal of how far it is.

``emb.zarr.partial`` holds ``job.json`` (what is ingested, written once), ``progress.json`` (the last chunk that is
safely on the device, and where in the sources the next row lies), ``digests`` (16 bytes for each fingerprint unit)
and the store itself, which is renamed to its place when it is finished.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from contextlib import suppress
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Any

from streamcurate.errors import InputError, RunError
from streamcurate.files import TEMPORARY_SUFFIX, disk_errors, move_folder, write_json
from streamcurate.runs.lock import LOCK_NAME, RunLock

_JOB, _PROGRESS, _DIGESTS, _STORE = "job.json", "progress.json", "digests", "store"
_OURS = {_JOB, _PROGRESS, _DIGESTS, _STORE, LOCK_NAME}


@dataclass(frozen=True)
class Progress:
    """How far an ingest is.

    Attributes
    ----------
    stored : int
        Rows in chunks that are safely written.
    source, row : int
        Where the next row is read: number of the source, row inside it.
    dropped : int
        Bad rows left out before that place.
    """

    stored: int = 0
    source: int = 0
    row: int = 0
    dropped: int = 0

    @property
    def read(self) -> int:
        """Rows read, all sources together."""
        return self.stored + self.dropped


class Partial:
    """The folder of an unfinished ingest, locked as long as it is open.

    Parameters
    ----------
    folder : str
        Where it lies; made where it does not exist.

    Raises
    ------
    InputError
        Something else lies there, or the place cannot be written.
    RunError
        Another process is ingesting to the same place.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.store = os.path.join(folder, _STORE)
        self._lock = RunLock(folder)

    def __enter__(self) -> Partial:
        parent = os.path.dirname(os.path.abspath(self.folder))
        if not os.path.isdir(parent):
            raise InputError(f"{self.folder}: the folder {parent} does not exist; make it first")
        try:
            self._make_and_lock()
        except InputError:
            self._unmake()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()

    def _make_and_lock(self) -> None:
        while True:
            try:
                with disk_errors(self.folder), suppress(FileExistsError):
                    os.mkdir(self.folder)
                strangers = {name for name in os.listdir(self.folder) if not name.endswith(TEMPORARY_SUFFIX)} - _OURS
                if strangers:
                    raise InputError(
                        f"{self.folder}: in the way, and not an unfinished ingest (it holds {sorted(strangers)[0]!r}); "
                        "move it or choose another destination"
                    )
                self._lock.acquire()
            except RunError as error:
                reason = str(error).partition(";")[0]
                raise RunError(f"{reason}; wait for it to end, stop it, or choose another destination") from error
            except FileNotFoundError:  # the writer before us has just finished and removed the folder
                continue
            except (NotADirectoryError, PermissionError) as error:
                raise InputError(f"{self.folder}: cannot be made ({error.strerror}); choose another place") from error
            # Whoever finishes removes the folder while holding its lock: a lock on a removed file is worth nothing.
            if self._lock_is_in_place():
                return
            self._lock.release()

    def _unmake(self) -> None:
        """Remove a folder that holds nothing but a lock nobody has, as where the device had no room to sign it."""
        lock = self._path(LOCK_NAME)
        with suppress(OSError):
            if os.path.exists(lock):
                descriptor = os.open(lock, os.O_RDWR)
                try:
                    try:
                        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    except (BlockingIOError, PermissionError):  # what flock says where another process has it
                        return
                    except OSError:
                        pass  # no locks on this file system, so nobody has one
                    # Not the lock of somebody who removed this one and made the folder anew.
                    ours = os.path.samestat(os.fstat(descriptor), os.stat(lock))
                    if ours and os.listdir(self.folder) == [LOCK_NAME]:
                        os.unlink(lock)
                finally:
                    os.close(descriptor)
            os.rmdir(self.folder)  # fails where anything else lies in it

    def begin(self, job: dict[str, Any]) -> bool:
        """Adopt what lies there if it is of the same job, else clear it; whether something else was cleared.

        Parameters
        ----------
        job : dict
            JSON values; ``job["identity"]`` is what makes two jobs the same.
        """
        earlier = self._read(_JOB)
        if earlier is not None and earlier.get("identity") == job["identity"]:
            return False
        others = earlier is not None or os.path.exists(self.store)
        self.clear()
        write_json(self._path(_JOB), job)
        return others

    @property
    def job(self) -> dict[str, Any]:
        """What is ingested."""
        return self._read(_JOB) or {}

    def progress(self) -> Progress:
        """How far it is; the beginning where nothing is safely written."""
        values = self._read(_PROGRESS)
        return Progress() if values is None else Progress(**values)

    def digests(self, units: int) -> bytes | None:
        """Digests of the first ``units`` units, None where they are not all there."""
        try:
            with open(self._path(_DIGESTS), "rb") as file:
                found = file.read(16 * units)
        except FileNotFoundError:
            found = b""
        return found if len(found) == 16 * units else None

    def commit(self, progress: Progress, units: int, new_digests: bytes) -> None:
        """Note, durably, that the chunks up to ``progress`` are written.

        Parameters
        ----------
        progress : Progress
        units : int
            Fingerprint units noted before.
        new_digests : bytes
            Digests of the units finished since, 16 bytes each.
        """
        with disk_errors(self.folder):
            descriptor = os.open(self._path(_DIGESTS), os.O_WRONLY | os.O_CREAT, 0o666)
            try:
                # Whatever a killed writer left behind the units that count is overwritten.
                os.pwrite(descriptor, new_digests, 16 * units)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        write_json(self._path(_PROGRESS), asdict(progress))

    def clear(self) -> None:
        """Remove everything but the lock.

        The progress goes first and the job last: whatever a kill in between leaves is adopted by its own job only, and
        as not even begun.
        """
        others = {*os.listdir(self.folder)} - {_PROGRESS, _JOB, LOCK_NAME}
        for name in (_PROGRESS, *others, _JOB):
            _remove(self._path(name))

    def finish(self, out: str) -> None:
        """Move the finished store to its place and remove the rest."""
        move_folder(self.store, out)
        self.remove()

    def remove(self) -> None:
        """Remove the folder, its lock last."""
        self.clear()
        _remove(self._path(LOCK_NAME))
        with suppress(OSError):  # another process has come to look already, and will find the work done
            os.rmdir(self.folder)

    def _path(self, name: str) -> str:
        return os.path.join(self.folder, name)

    def _read(self, name: str) -> dict[str, Any] | None:
        try:
            with open(self._path(name), encoding="utf-8") as file:
                value = json.load(file)
        except (FileNotFoundError, ValueError):
            return None
        return value if isinstance(value, dict) else None

    def _lock_is_in_place(self) -> bool:
        holder = self._read(LOCK_NAME)
        return holder is not None and holder.get("pid") == os.getpid()


def _remove(path: str) -> None:
    if os.path.isdir(path):
        shutil.rmtree(path)
    elif os.path.lexists(path):
        os.unlink(path)
