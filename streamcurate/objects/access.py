"""Reading, writing, listing and removing objects."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator
from typing import Any

from streamcurate.errors import ObjectError
from streamcurate.objects.client import (
    AbsentError,
    NoBucketError,
    Status,
    answered,
    known,
    library,
    open_store,
    status,
    status_of,
    tried,
)
from streamcurate.objects.conditional import replace
from streamcurate.objects.streams import PIECE_BYTES, fill
from streamcurate.objects.uploads import putting
from streamcurate.objects.urls import folder_of_pattern, is_url, is_web, pattern_expression, split

# Longer ones go up in parts, each of which is repeated by itself; the object appears when all have come.
_LONGEST_PUT_BYTES = 32 << 20
PART_BYTES = 16 << 20
PARTS_AT_ONCE = 4
# As many as S3 removes by one request.
_DELETED_AT_ONCE = 1000


def read(url: str) -> bytes:
    """The bytes of a whole object.

    Raises
    ------
    ObjectError
        There is none, or the store does not give it.
    """
    store, key = open_store(url)

    def attempt() -> bytes:
        got = library().get(store, key)
        size = int(got.meta["size"])
        if size <= PIECE_BYTES:
            data = bytes(got.bytes())
            if len(data) != size:
                raise OSError(f"{len(data):,} bytes came instead of {size:,}")
            return data
        del got  # what is long comes in pieces, each of which is repeated by itself
        whole = bytearray(size)
        fill(url, [(0, memoryview(whole))], length=size)
        return bytes(whole)

    return tried(url, lambda: answered(attempt))


def read_range(url: str, start: int, stop: int) -> memoryview:
    """Bytes ``start`` to ``stop`` of an object, neither more nor fewer.

    Raises
    ------
    ObjectError
        There is none, it is shorter, or the store does not give it.
    """
    data = memoryview(bytearray(max(stop - start, 0)))
    if len(data):
        fill(url, [(start, data)])
    return data.toreadonly()


def write(url: str, data: bytes | bytearray | memoryview) -> None:
    """Put an object, complete or not at all; one that is there is replaced.

    Raises
    ------
    ObjectError
        The store does not take it.
    """
    refuse_web(url, "be written to")
    view = memoryview(data).cast("B")
    store, key = open_store(url, len(view))
    parts = len(view) > _LONGEST_PUT_BYTES
    options: dict[str, Any] = {"use_multipart": parts}
    if parts:
        options |= {"chunk_size": PART_BYTES, "max_concurrency": PARTS_AT_ONCE}
    tried(url, lambda: putting(lambda: library().put(store, key, view, **options)))


def create(url: str, data: bytes) -> bool:
    """Put an object where there is none; False where there is another already.

    One that holds these very bytes counts as put: it may have come by this request, repeated when its answer was lost.
    """
    return replace(url, data, None) is not None


def delete(url: str) -> None:
    """Remove an object; one that is not there is no error."""
    refuse_web(url, "remove files")
    store, key = open_store(url)
    tried(url, lambda: known(lambda: library().delete(store, key)))


def delete_many(urls: Iterable[str]) -> None:
    """Remove objects of one bucket, many by a request."""
    names = list(urls)
    if not names:
        return
    refuse_web(names[0], "remove files")
    store, _ = open_store(names[0])
    for start in range(0, len(names), _DELETED_AT_ONCE):
        some = names[start : start + _DELETED_AT_ONCE]
        keys = [open_store(url)[1] for url in some]
        try:
            tried(names[start], lambda keys=keys: library().delete(store, keys))  # type: ignore[misc]
        except AbsentError:  # which ends it where a store removes them one by one
            for url in some:
                delete(url)


def delete_all(url: str) -> None:
    """Remove every object below a URL."""
    some: list[str] = []
    for found in listing(url):
        some.append(found.url)
        if len(some) == _DELETED_AT_ONCE:
            delete_many(some)
            some = []
    delete_many(some)


def listing(url: str) -> Iterator[Status]:
    """Every object below a URL, whatever its depth, in the order in which the store lists them (by name).

    Raises
    ------
    ObjectError
        The store cannot list (plain web servers cannot).
    """
    refuse_web(url, "list its files")
    store, key = open_store(url)
    prefix = f"{key.rstrip('/')}/" if key.strip("/") else None
    base = split(url)[0]
    last: str | None = None
    while True:
        # A page at a time, and behind the last name where one breaks off: lists are long.
        batches = library().list(store, prefix=prefix, offset=last)
        try:
            while True:
                batch = answered(lambda batches=batches: next(iter(batches), None))  # type: ignore[misc]
                if batch is None:
                    return
                for meta in batch:
                    if last is None or meta["path"] > last:
                        last = meta["path"]
                    if meta["path"] == key.rstrip("/"):  # what consoles make for a folder is not anything in it
                        continue
                    yield status_of(f"{base}/{meta['path']}", meta)
        except (library().exceptions.BaseError, OSError) as error:
            failed: list[Exception] = [error]

            def again(failed: list[Exception] = failed, after: str | None = last) -> None:
                if failed:  # the error that has come already is the first try
                    raise failed.pop()
                next(iter(library().list(store, prefix=prefix, offset=after)), None)

            tried(url, again)


def names(url: str) -> tuple[list[str], list[Status]]:
    """What lies directly below a URL: the names of folders, and the objects."""
    refuse_web(url, "list its files")
    store, key = open_store(url)
    prefix = f"{key.rstrip('/')}/" if key.strip("/") else None
    found = tried(url, lambda: answered(lambda: library().list_with_delimiter(store, prefix=prefix)))
    base = split(url)[0]
    folders = [str(folder).rstrip("/").rpartition("/")[2] for folder in found["common_prefixes"]]
    return sorted(folders), [status_of(f"{base}/{meta['path']}", meta) for meta in found["objects"]]


def exists(place: str | os.PathLike[str]) -> bool:
    """Whether there is a file, a folder, an object, or a prefix with objects."""
    if not is_url(place):
        return os.path.exists(place)
    url = os.fspath(place).rstrip("/")
    if split(url)[1] and status(url) is not None:
        return True
    return not is_web(url) and next(listing(url), None) is not None


def match(pattern: str) -> list[str]:
    """URLs of the objects that a pattern matches; ``**`` stands for any folders, ``*`` for part of a name."""
    if not glob.has_magic(pattern):
        return [pattern]
    wanted = pattern_expression(pattern)
    return [found.url for found in listing(folder_of_pattern(pattern)) if wanted.fullmatch(found.url)]


def contents(place: str | os.PathLike[str]) -> bytes | None:
    """The bytes of a file or an object; None where there is none."""
    if is_url(place):
        try:
            return read(os.fspath(place))
        except NoBucketError:
            raise
        except AbsentError:
            return None
    try:
        with open(place, "rb") as file:
            return file.read()
    except (FileNotFoundError, NotADirectoryError):
        return None


def refuse_web(url: str, what: str) -> None:
    """Refuse what plain web servers cannot do."""
    if is_web(url):
        raise ObjectError(f"{url}: a web server cannot {what}; name single files to read, or use an object store")
