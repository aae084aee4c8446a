"""Where and how a selection is written: options, and files that are complete under their name or not there at all."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any, cast

from streamcurate import objects
from streamcurate.errors import InputError
from streamcurate.files import TEMPORARY_SUFFIX, disk_errors, sync_folder
from streamcurate.sampling.metadata import Metadata
from streamcurate.streaming.progress import ProgressListener, Silent


@dataclass(frozen=True)
class Options:
    """How a selection is written.

    Attributes
    ----------
    metadata : Metadata or None
        Columns to write beside each row, or one by which rows are called.
    shard_digits : int or None
        Leading characters of a key that name its shard, for key lists by shard.
    memory_limit : int or None
        Bytes this process may use; None takes half of what is available.
    scratch : path or None
        A folder for what does not fit into memory.
    listener : ProgressListener
    embeddings : Any
        Where the rows are read for a new store; by default the store the tree was built from.
    """

    metadata: Metadata | None = None
    shard_digits: int | None = None
    memory_limit: int | None = None
    scratch: str | os.PathLike[str] | None = None
    listener: ProgressListener = Silent()  # noqa: RUF009 - it holds nothing
    embeddings: Any = None


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
