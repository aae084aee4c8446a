"""Placing files: the one way anything durable comes into being.

A file appears under its name complete or not at all: written to a temporary name beside it, flushed to the device,
renamed, and the folder entry flushed too. At a URL it is one completed PUT.
"""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, cast

import xxhash

from streamcurate import objects
from streamcurate.errors import DiskFullError, InputError

TEMPORARY_SUFFIX = ".writing"

_FULL = {errno.ENOSPC, errno.EDQUOT}


@contextmanager
def disk_errors(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn "no space left" and "quota exceeded" into a :class:`DiskFullError` that names the place."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise DiskFullError(
            f"{path}: no space left on the device ({free_bytes(path):,} bytes free); "
            "free some space or choose another place, then give the same command again"
        ) from error


def free_bytes(path: str | os.PathLike[str]) -> int:
    """Bytes free on the file system that holds ``path`` (or would hold it)."""
    place = Path(path).absolute()
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free


def working_folder(address: str, kind: str, scratch: str | os.PathLike[str] | None = None) -> Path:
    """The folder of this machine in which something is made that belongs elsewhere; the same for the same address.

    Parameters
    ----------
    address : str
        Where it belongs.
    kind : str
        What it is, for the folder's name.
    scratch : path, optional
        Where to make the folder. By default below ``TMPDIR``, else in ``/var/tmp``: that outlives a restart, and is no
        part of the memory, as ``/tmp`` often is.
    """
    own = f"streamcurate-{kind}-{os.getuid()}-{xxhash.xxh3_64_hexdigest(os.fsencode(address))}"
    if scratch is None:
        lasting = "/var/tmp" if os.access("/var/tmp", os.W_OK) else tempfile.gettempdir()
        scratch = os.environ.get("TMPDIR") or lasting
    return Path(scratch).absolute() / own


def check_scratch(scratch: str | os.PathLike[str] | None) -> None:
    """Refuse a URL where a folder for intermediate arrays is asked for.

    Raises
    ------
    InputError
    """
    if objects.is_url(scratch):
        raise InputError(f"{scratch}: scratch cannot lie at a URL; give a folder of this machine (--scratch DIR)")


def sync_folder(path: str | os.PathLike[str]) -> None:
    """Flush a folder's entries to the device, so that a rename in it survives a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_file(path: str | os.PathLike[str], data: bytes | memoryview, *, durable: bool = True) -> None:
    """Write ``data`` to ``path`` so that the file is there complete or not at all.

    Parameters
    ----------
    path : path
        The file; its folder must exist. An existing file is replaced. Or the URL of an object.
    data : bytes-like
        The whole content.
    durable : bool
        Flush file and folder to the device. False for scratch that is rebuilt when it is bad.

    Raises
    ------
    DiskFullError
        The device is full; nothing is left behind.
    """
    target = os.fspath(path)
    if objects.is_url(target):
        objects.write(target, data)
        return
    # The process id keeps two processes from writing the same temporary file.
    temporary = f"{target}.{os.getpid()}{TEMPORARY_SUFFIX}"
    with disk_errors(target):
        try:
            with open(temporary, "wb") as file:
                file.write(data)
                if durable:
                    file.flush()
                    os.fsync(file.fileno())
            os.replace(temporary, target)
        except BaseException:
            _remove_quietly(temporary)
            raise
        if durable:
            sync_folder(os.path.dirname(target) or ".")


@contextmanager
def placed_file(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """A file written under a temporary name beside ``path``, flushed to the device and renamed at the end."""
    target = os.fspath(path)
    if objects.is_url(target):
        with objects.Upload(target) as upload:
            sent = _SentFile(upload)
            yield cast("IO[bytes]", sent)
            sent.flush()
        return
    temporary = f"{target}.{os.getpid()}{TEMPORARY_SUFFIX}"
    with disk_errors(target):
        try:
            file = open(temporary, "wb")  # noqa: SIM115 - closed below, before the rename
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError) as error:
            raise InputError(
                f"{path}: cannot be written there ({error.strerror}); choose another place, or create its folder"
            ) from error
        try:
            with file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            if os.path.isdir(target):
                raise InputError(f"{path}: a folder lies there; name a file")
            os.replace(temporary, target)
        except BaseException:
            os.unlink(temporary)
            raise
        sync_folder(os.path.dirname(target) or ".")


class _SentFile(io.BufferedIOBase):
    """An upload, as libraries write to it; that it is complete, whoever opened the upload says."""

    def __init__(self, upload: objects.Upload) -> None:
        super().__init__()
        self._upload, self._position = upload, 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        size = memoryview(data).nbytes
        if size:
            self._upload.write(data)
        self._position += size
        return size

    def tell(self) -> int:
        return self._position


def write_json(path: str | os.PathLike[str], value: Any, *, durable: bool = True) -> None:
    """Write ``value`` as indented JSON, complete or not at all."""
    write_file(path, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode(), durable=durable)


def move_folder(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> None:
    """Rename a finished folder to its place on the same file system, durably. ``target`` must not exist."""
    with disk_errors(target):
        os.rename(source, target)
        sync_folder(os.path.dirname(os.path.abspath(target)))


def _remove_quietly(path: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(path)
