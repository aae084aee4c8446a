"""Arrays at URLs: their chunks as objects, and a Zarr store for whatever goes through Zarr's own codecs.

Both go through :mod:`streamcurate.objects`, so that every request is repeated, checked for its length and told of in
the same way. Zarr's own stores would hand an answer that broke off, or a refused request, to the codecs or the caller.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from typing import Any, Literal, TypeVar

from zarr.abc.store import (
    ByteRequest,
    OffsetByteRequest,
    RangeByteRequest,
    Store,
    SuffixByteRequest,
)
from zarr.core.buffer import Buffer, BufferPrototype

from streamcurate import objects
from streamcurate.storage.chunkfiles import Piece, State, UnexpectedLengthError

_BLOCK_BYTES = 8 << 20
_GIVEN = TypeVar("_GIVEN")
METADATA_NAME = "zarr.json"


class ObjectFiles:
    """The chunks of an array as objects below a URL."""

    overhead_bytes = objects.READ_OVERHEAD_BYTES
    # What comes in the time that a request takes to be answered at all.
    take_bytes = 1 << 20
    piece_bytes = objects.PIECE_BYTES
    request_bytes = 1 << 20

    def __init__(self, url: str) -> None:
        self.url = url

    def place(self, name: str) -> str:
        """URL of an object."""
        return objects.join(self.url, name)

    def read(self, name: str, pieces: Sequence[Piece], length: int | None = None) -> State:
        """Fill memory from one object."""
        try:
            return _state(objects.fill(self.place(name), pieces, length))
        except objects.AbsentError as error:
            raise FileNotFoundError(str(error)) from error
        except objects.LengthError as error:
            raise UnexpectedLengthError(error.found) from error

    def state(self, name: str) -> State | None:
        """State of an object, None where there is none."""
        found = objects.status(self.place(name))
        return None if found is None else _state(found)

    def states(self, names: Sequence[str]) -> Iterable[State | None]:
        """States of many objects."""
        if objects.is_web(self.url):
            yield from objects.side_by_side(self.state, names)
            return
        # By one listing, which tells of a thousand objects at a time.
        found = {one.url[len(self.url) + 1 :]: _state(one) for one in objects.listing(self.url)}
        yield from map(found.get, names)

    def blocks(self, name: str) -> Iterator[memoryview]:
        """The bytes of an object, front to back."""
        before = self.state(name)
        if before is None:
            raise FileNotFoundError(self.place(name))
        for start in range(0, before.size, _BLOCK_BYTES):
            block = memoryview(bytearray(min(_BLOCK_BYTES, before.size - start)))
            if self.read(name, [(start, block)], before.size) != before:
                raise objects.ChangedError(f"{self.place(name)}: was written anew while it was being read")
            yield block

    def write(self, name: str, data: memoryview, length: int) -> None:
        """Put an object, with zeros behind the data up to a length."""
        if len(data) < length:
            whole = bytearray(length)
            whole[: len(data)] = data
            data = memoryview(whole)
        objects.write(self.place(name), data)

    def stream(self, name: str) -> objects.Upload:
        """Begin an object that is too long to be held in memory."""
        return objects.Upload(self.place(name))

    def each(self, work: Callable[[_GIVEN], None], items: Iterable[_GIVEN]) -> None:
        """Call a function with each item, side by side."""
        for _ in objects.side_by_side(work, items):
            pass


def _state(status: objects.Status) -> State:
    return State(status.size, status.state)


class UrlStore(Store):
    """A Zarr store of the objects below a URL.

    Parameters
    ----------
    url : str
    read_only : bool
    withheld : dict, optional
        Metadata, by name, that is kept here and not written: nobody takes the objects for an array yet.
    seen : dict, optional
        Metadata that was read a moment ago, and is not asked for again.
    """

    def __init__(
        self,
        url: str,
        *,
        read_only: bool = False,
        withheld: dict[str, bytes] | None = None,
        seen: dict[str, bytes] | None = None,
    ) -> None:
        super().__init__(read_only=read_only or objects.is_web(url))
        self.url = url.rstrip("/")
        self._kept = withheld
        self._seen = dict(seen or {})

    def __eq__(self, other: object) -> bool:
        return isinstance(other, UrlStore) and (self.url, self.read_only) == (other.url, other.read_only)

    def __hash__(self) -> int:
        return hash((self.url, self.read_only))

    def __str__(self) -> str:
        return self.url

    def __repr__(self) -> str:
        return f"UrlStore({self.url!r})"

    def with_read_only(self, read_only: bool = False) -> UrlStore:
        """The same place, to be written to or not."""
        return UrlStore(self.url, read_only=read_only, withheld=self._kept, seen=self._seen)

    @property
    def supports_writes(self) -> bool:
        """Whether objects can be written."""
        return not objects.is_web(self.url)

    @property
    def supports_deletes(self) -> bool:
        """Whether objects can be removed."""
        return not objects.is_web(self.url)

    @property
    def supports_listing(self) -> bool:
        """Whether there is a way to learn what there is."""
        return not objects.is_web(self.url)

    @property
    def supports_partial_writes(self) -> Literal[False]:
        """Objects are written whole."""
        return False

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        """Bytes of an object, None where there is none."""
        data = await asyncio.to_thread(self._get, key, byte_range)
        return None if data is None else prototype.buffer.from_bytes(data)

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        """Bytes of several objects."""
        return list(await asyncio.gather(*(self.get(key, prototype, span) for key, span in key_ranges)))

    async def exists(self, key: str) -> bool:
        """Whether there is such an object."""
        if self._kept is not None and _is_metadata(key):
            return key in self._kept
        return await asyncio.to_thread(objects.status, self._url(key)) is not None

    async def set(self, key: str, value: Buffer) -> None:
        """Put an object."""
        self._check_writable()
        self._seen.pop(key, None)
        data = value.to_bytes()
        if self._kept is not None and _is_metadata(key):
            self._kept[key] = data
        else:
            await asyncio.to_thread(objects.write, self._url(key), data)

    async def set_partial_values(self, key_start_values: Iterable[tuple[str, int, bytes]]) -> None:
        """Refused: objects are written whole."""
        raise NotImplementedError

    async def delete(self, key: str) -> None:
        """Remove an object."""
        self._check_writable()
        self._seen.pop(key, None)
        if self._kept is not None and _is_metadata(key):
            self._kept.pop(key, None)
        else:
            await asyncio.to_thread(objects.delete, self._url(key))

    async def delete_dir(self, prefix: str) -> None:
        """Remove all objects below a place."""
        self._check_writable()
        await asyncio.to_thread(objects.delete_all, self._url(prefix))

    async def list(self) -> AsyncIterator[str]:
        """Names of all objects."""
        async for name in self.list_prefix(""):
            yield name

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        """Names of the objects that begin so."""
        folder = prefix.rpartition("/")[0]
        found = objects.listing(self._url(folder))
        while (one := await asyncio.to_thread(next, found, None)) is not None:
            name = one.url.removeprefix(f"{self.url}/")
            if name.startswith(prefix):
                yield name

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """Names directly in a place."""
        folders, found = await asyncio.to_thread(objects.names, self._url(prefix.rstrip("/")))
        for name in folders:
            yield name
        for one in found:
            yield objects.base_name(one.url)

    def _url(self, key: str) -> str:
        return objects.join(self.url, key) if key else self.url

    def _get(self, key: str, span: ByteRequest | None) -> bytes | memoryview | None:
        if self._kept is not None and _is_metadata(key):
            return self._kept.get(key)
        if span is None and key in self._seen:
            return self._seen.pop(key)  # once: later on it may be another
        url = self._url(key)
        try:
            if span is None:
                return objects.contents(url)
            if isinstance(span, RangeByteRequest):
                return bytes(objects.read_range(url, span.start, span.end))
            status = objects.status(url)
            if status is None:
                return None
            if isinstance(span, OffsetByteRequest):
                start = span.offset
            else:
                assert isinstance(span, SuffixByteRequest)
                start = max(status.size - span.suffix, 0)
            return bytes(objects.read_range(url, start, status.size))
        except objects.AbsentError:
            return None


def _is_metadata(key: str) -> bool:
    return key.rpartition("/")[2] == METADATA_NAME


def zarr_store(path: str, *, writable: bool = False, seen: dict[str, bytes] | None = None) -> Any:
    """What Zarr takes for a place: a path as it is, a URL as a store of ours."""
    if not objects.is_url(path):
        return path
    if writable:
        objects.refuse_web(path, "be written to")
    return UrlStore(path, read_only=not writable, seen=seen)
