"""The files of an array, wherever they lie: what an array needs of a place, and how a local folder gives it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any, NamedTuple, Protocol, TypeVar

from streamcurate.errors import StoreError
from streamcurate.files import TEMPORARY_SUFFIX, disk_errors, sync_folder

# Where bytes begin in a file, and the memory they go to.
Piece = tuple[int, memoryview]
_READ_BYTES = 8 << 20
_GIVEN = TypeVar("_GIVEN")


class State(NamedTuple):
    """What tells one state of a file from another."""

    size: int
    changed: int


class UnexpectedLengthError(Exception):
    """A file is longer or shorter than it has to be; ``found`` where it is known how long."""

    def __init__(self, found: int | None) -> None:
        super().__init__(found)
        self.found = found


class Stream(Protocol):
    """A file that is written front to back: there when it is closed, or not at all."""

    def write(self, data: memoryview) -> None: ...
    def close(self) -> None:
        """Complete the file."""

    def abort(self) -> None:
        """Leave nothing of it."""


class ChunkFiles(Protocol):
    """The files of one array, by their names below it. What is absent raises ``FileNotFoundError``."""

    # Memory that reading takes beside what is read into.
    overhead_bytes: int
    # Wanted rows in a range of this length are read by one request, wanted or not what lies between them.
    take_bytes: int
    # A file of up to this length is read by one request; longer ones in pieces.
    piece_bytes: int
    # What a request of few bytes costs as much as.
    request_bytes: int

    def place(self, name: str) -> str:
        """Path or URL of a file, as messages name it."""

    def read(self, name: str, pieces: Sequence[Piece], length: int | None = None) -> State:
        """Fill memory from one file, which has to be of a length where one is given.

        Raises
        ------
        UnexpectedLengthError
            It is not of this length, or ends before a piece does.
        """

    def state(self, name: str) -> State | None:
        """State of a file, None where there is none."""

    def states(self, names: Sequence[str]) -> Iterable[State | None]:
        """States of many files."""

    def blocks(self, name: str) -> Iterator[memoryview | bytes]:
        """The bytes of a file, front to back."""

    def write(self, name: str, data: memoryview, length: int) -> None:
        """Write a file, complete or not at all, with zeros behind the data up to a length."""

    def stream(self, name: str) -> Stream:
        """Begin a file that is too long to be held in memory."""

    def each(self, work: Callable[[_GIVEN], None], items: Iterable[_GIVEN]) -> None:
        """Call a function with each item, side by side where waiting is what takes the time."""


class LocalFiles:
    """Files in a folder: written to a temporary name, flushed, renamed."""

    overhead_bytes = 0
    take_bytes = 8 << 20
    piece_bytes = 8 << 20
    # A page, and the call.
    request_bytes = 4096

    def __init__(self, folder: str, *, durable: bool = True) -> None:
        self.folder = folder
        self._durable = durable

    def place(self, name: str) -> str:
        """Path of a file."""
        return os.path.join(self.folder, name)

    def read(self, name: str, pieces: Sequence[Piece], length: int | None = None) -> State:
        """Fill memory from one file."""
        try:
            descriptor = os.open(self.place(name), os.O_RDONLY)
        except PermissionError as error:
            raise self._refused(name, error) from error
        try:
            status = os.fstat(descriptor)
            if length is not None and status.st_size != length:
                raise UnexpectedLengthError(status.st_size)
            for offset, view in pieces:
                while len(view):
                    count = os.preadv(descriptor, [view], offset)
                    if count == 0:  # too short, or shrunk since it was opened
                        raise UnexpectedLengthError(os.fstat(descriptor).st_size)
                    view, offset = view[count:], offset + count
            return State(status.st_size, status.st_mtime_ns)
        finally:
            os.close(descriptor)

    def state(self, name: str) -> State | None:
        """State of a file, None where there is none."""
        try:
            status = os.stat(self.place(name))
        except FileNotFoundError:
            return None
        except PermissionError as error:
            raise self._refused(name, error) from error
        return State(status.st_size, status.st_mtime_ns)

    def states(self, names: Sequence[str]) -> Iterable[State | None]:
        """States of many files."""
        return map(self.state, names)

    def blocks(self, name: str) -> Iterator[bytes]:
        """The bytes of a file, front to back."""
        try:
            with open(self.place(name), "rb") as file:
                while block := file.read(_READ_BYTES):
                    yield block
        except PermissionError as error:
            raise self._refused(name, error) from error

    def _refused(self, name: str, error: OSError) -> StoreError:
        return StoreError(f"{self.place(name)}: cannot be read ({error.strerror}); check its permissions")

    def write(self, name: str, data: memoryview, length: int) -> None:
        """Write a file, complete or not at all, with zeros behind the data up to a length."""
        stream = self.stream(name)
        try:
            stream.write(data)
            stream.close(length)
        except BaseException:
            stream.abort()
            raise

    def stream(self, name: str) -> LocalStream:
        """Begin a file that is too long to be held in memory."""
        return LocalStream(self.folder, self.place(name), self._durable)

    def each(self, work: Callable[[_GIVEN], None], items: Iterable[_GIVEN]) -> None:
        """Call a function with each item."""
        for item in items:
            work(item)


class LocalStream:
    """A local file under a temporary name until it is complete."""

    def __init__(self, folder: str, file: str, durable: bool) -> None:
        self._file, self._durable = file, durable
        self._temporary = f"{file}.{os.getpid()}{TEMPORARY_SUFFIX}"
        with disk_errors(file):
            if not os.path.isdir(inner := os.path.dirname(file)):
                if not os.path.isdir(folder):  # an orphan of a run that has moved on must not make it again
                    raise StoreError(f"{folder}: is gone; another process removed it while it was being written")
                os.makedirs(inner, exist_ok=True)
            self._descriptor: int | None = os.open(self._temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)

    def __enter__(self) -> LocalStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    def write(self, data: memoryview) -> None:
        """Add bytes."""
        assert self._descriptor is not None
        with disk_errors(self._file):
            while len(data):
                data = data[os.write(self._descriptor, data) :]

    def close(self, length: int | None = None) -> None:
        """Complete the file, with zeros up to a length where one is given."""
        assert self._descriptor is not None
        with disk_errors(self._file):
            if length is not None:
                os.ftruncate(self._descriptor, length)
            if self._durable:
                os.fsync(self._descriptor)
            self._shut()
            os.replace(self._temporary, self._file)
            if self._durable:
                sync_folder(os.path.dirname(self._file))

    def abort(self) -> None:
        """Leave nothing of it."""
        self._shut()
        if os.path.exists(self._temporary):
            os.unlink(self._temporary)

    def _shut(self) -> None:
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            os.close(descriptor)


def bytes_of(values: Any) -> memoryview:
    """The bytes of a C-contiguous array; empty arrays have no buffer to cast."""
    return values.data.cast("B") if values.size else memoryview(b"")
