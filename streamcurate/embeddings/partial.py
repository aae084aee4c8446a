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
from dataclasses import asdict
from types import TracebackType
from typing import Any

from streamcurate.embeddings.store import ARRAY_NAME, IDS_NAME, PARTIAL_SUFFIX
from streamcurate.embeddings.unfinished import STATE_NAMES, Arrays, Layout, Progress, refuse_other
from streamcurate.errors import DiskFullError, InputError, RunError
from streamcurate.files import TEMPORARY_SUFFIX, disk_errors, free_bytes, move_folder, write_json
from streamcurate.runs.lock import LOCK_NAME, RunLock
from streamcurate.storage import (
    create_array,
    create_group,
    open_array,
    remove_leftovers,
    set_rows,
    sync_metadata,
    update_group_attributes,
)

_JOB, _PROGRESS, _DIGESTS, _STORE = STATE_NAMES[0], "progress.json", "digests", "store"
# The writer before us may finish and remove the folder while we look, but not time and again.
_ROUNDS = 100
_OURS = {_JOB, _PROGRESS, _DIGESTS, _STORE, LOCK_NAME}


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
        self.place, self._target = folder, folder.removesuffix(PARTIAL_SUFFIX)
        self.store = os.path.join(folder, _STORE)
        self._lock = RunLock(folder)

    def __enter__(self) -> Partial:
        parent = os.path.dirname(os.path.abspath(self.place))
        if not os.path.isdir(parent):
            raise InputError(f"{self.place}: the folder {parent} does not exist; make it first")
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
        for _ in range(_ROUNDS):
            self._make()
            try:
                strangers = {name for name in os.listdir(self.place) if not name.endswith(TEMPORARY_SUFFIX)} - _OURS
                if strangers:
                    raise InputError(
                        f"{self.place}: in the way, and not an unfinished ingest (it holds {sorted(strangers)[0]!r}); "
                        "move it or choose another destination"
                    )
                self._lock.acquire()
            except RunError as error:
                if isinstance(error.__cause__, FileNotFoundError):  # removed between the two
                    continue
                reason = str(error).partition(";")[0]
                raise RunError(f"{reason}; wait for it to end, stop it, or choose another destination") from error
            except FileNotFoundError as error:
                if os.path.islink(self.place):
                    raise InputError(
                        f"{self.place}: a link to nothing ({os.readlink(self.place)}); remove it or choose another "
                        "destination"
                    ) from error
                continue  # the writer before us has just finished and removed the folder
            except OSError as error:
                raise InputError(f"{self.place}: cannot be used ({error.strerror}); choose another place") from error
            # Whoever finishes removes the folder while holding its lock: a lock on a removed file is worth nothing.
            if self._lock.in_place:
                return
            self._lock.release()
        raise InputError(f"{self.place}: vanishes again and again as soon as it is made; choose another place")

    def _make(self) -> None:
        """Make the folder where there is none."""
        try:
            with disk_errors(self.place), suppress(FileExistsError):
                os.mkdir(self.place)
        except OSError as error:
            # Also "no such file", where the parent is there: file systems such as /proc take no folders.
            raise InputError(f"{self.place}: cannot be made ({error.strerror}); choose another place") from error

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
                    if ours and os.listdir(self.place) == [LOCK_NAME]:
                        os.unlink(lock)
                finally:
                    os.close(descriptor)
            os.rmdir(self.place)  # fails where anything else lies in it

    def exists(self) -> bool:
        """Whether there is such a folder."""
        return os.path.isdir(self.place)

    def begin(self, job: dict[str, Any]) -> bool:
        """Adopt what lies there if it is of the same job, else clear it; whether what was cleared was damaged."""
        earlier = self._read(_JOB)
        if earlier is not None and earlier.get("identity") == job["identity"]:
            return False
        if earlier is not None:
            refuse_other(self.place, self._target, earlier, job, self.progress.stored)
        damaged = earlier is None and os.path.exists(self.store)
        self.clear()
        write_json(self._path(_JOB), job)
        return damaged

    @property
    def job(self) -> dict[str, Any]:
        """What is ingested."""
        return self._read(_JOB) or {}

    @property
    def progress(self) -> Progress:
        """How far it is; the beginning where nothing is safely written."""
        try:
            return Progress(**self._read(_PROGRESS) or {})
        except TypeError:  # damaged
            return Progress()

    def digests(self, units: int) -> bytes | None:
        """Digests of the first ``units`` units, None where they are not all there."""
        try:
            with open(self._path(_DIGESTS), "rb") as file:
                found = file.read(16 * units)
        except FileNotFoundError:
            found = b""
        return found if len(found) == 16 * units else None

    def commit(self, progress: Progress, units: int, new_digests: bytes) -> None:
        """Note, durably, that the files up to ``progress`` are written."""
        with disk_errors(self.place):
            descriptor = os.open(self._path(_DIGESTS), os.O_WRONLY | os.O_CREAT, 0o666)
            try:
                # Whatever a killed writer left behind the units that count is overwritten.
                os.pwrite(descriptor, new_digests, 16 * units)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        write_json(self._path(_PROGRESS), asdict(progress))

    def alive(self) -> None:
        """Nothing to do: the lock says it."""

    def require(self) -> None:
        """Nothing to do: nobody else gets the lock."""

    def check_space(self, needed: int) -> None:
        """Refuse what the device has no room for."""
        free = free_bytes(self.place)
        if needed > free:
            raise DiskFullError(
                f"{self._target}: needs {needed:,} more bytes, and {free:,} are free on its device; "
                "free some space or choose another place"
            )

    # -- the store under way -----------------------------------------------------------------------------------------

    def create(self, layout: Layout) -> Arrays:
        """Begin the store from its first row."""
        if os.path.isdir(self.store):
            shutil.rmtree(self.store)
        create_group(self.store)
        shape = layout.shape
        rows, shard_rows = layout.chunk_rows, layout.shard_rows
        create_array(self._array(ARRAY_NAME), shape, layout.dtype, rows, shard_rows=shard_rows)
        if layout.ids is not None:
            create_array(self._array(IDS_NAME), shape[:1], layout.ids, layout.ids_chunk_rows)
        return self._open(layout.ids is not None)

    def reopen(self, layout: Layout) -> Arrays | None:
        """The store as far as it is; None where a noted file is absent or truncated."""
        try:
            remove_leftovers(self.store)
            arrays = self._open(layout.ids is not None)
            array = arrays.embeddings
            files = range(self.progress.stored // layout.file_rows)
            if array.chunk_rows != layout.file_rows:
                return None
            whole = layout.file_bytes
            return None if any(array.stamp(file)[0] != whole for file in files) else arrays
        except (InputError, OSError):
            return None

    def cut(self, rows: int) -> Arrays:
        """Set the length of the arrays."""
        with_ids = os.path.isdir(self._array(IDS_NAME))
        for array in self._open(with_ids):
            if array is not None and array.rows != rows:
                set_rows(array.path, rows)
        return self._open(with_ids)

    def seal(self, attributes: dict[str, Any]) -> None:
        """Add what the store says of itself."""
        update_group_attributes(self.store, attributes)
        sync_metadata(self.store)

    def _open(self, with_ids: bool) -> Arrays:
        array = open_array(self._array(ARRAY_NAME), writable=True)
        return Arrays(array, open_array(self._array(IDS_NAME), writable=True) if with_ids else None)

    def _array(self, name: str) -> str:
        return os.path.join(self.store, name)

    # -- the end -----------------------------------------------------------------------------------------------------

    def clear(self) -> None:
        """Remove everything but the lock.

        The progress goes first and the job last: whatever a kill in between leaves is adopted by its own job only, and
        as not even begun.
        """
        others = {*os.listdir(self.place)} - {_PROGRESS, _JOB, LOCK_NAME}
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
            os.rmdir(self.place)

    def _path(self, name: str) -> str:
        return os.path.join(self.place, name)

    def _read(self, name: str) -> dict[str, Any] | None:
        try:
            with open(self._path(name), encoding="utf-8") as file:
                value = json.load(file)
        except (FileNotFoundError, ValueError):
            return None
        return value if isinstance(value, dict) else None


def _remove(path: str) -> None:
    if os.path.isdir(path):
        shutil.rmtree(path)
    elif os.path.lexists(path):
        os.unlink(path)
