"""Conditional writes: how writers of one place learn of each other."""

from __future__ import annotations

from typing import Any, NamedTuple

from streamcurate.errors import ObjectError
from streamcurate.objects.client import answered, known, library, open_store, tried
from streamcurate.objects.urls import is_web


class Found(NamedTuple):
    """An object as it was read, or put, and what tells that it is still the same."""

    data: bytes
    version: dict[str, str]


def read_found(url: str) -> Found | None:
    """A small object and its version; None where there is none."""
    store, key = open_store(url)

    def attempt() -> Found:
        got = library().get(store, key)
        data, size = bytes(got.bytes()), int(got.meta["size"])
        if len(data) != size:
            raise OSError(f"{len(data):,} bytes came instead of {size:,}")
        return Found(data, _version(got.meta))

    return tried(url, lambda: answered(lambda: known(attempt)))


def replace(url: str, data: bytes, earlier: Found | None) -> Found | None:
    """Put an object where still stands what was found earlier; None where something else stands by now.

    Parameters
    ----------
    url : str
    data : bytes
        Like nothing that another writer may put: what stands there is recognised by it when an answer was lost.
    earlier : Found or None
        What is to be replaced; None: nothing may be there.

    Raises
    ------
    ObjectError
        The store does not take it.
    """
    if is_web(url):
        raise ObjectError(f"{url}: a web server cannot be written to; use an object store")
    store, key = open_store(url, len(data))
    errors = library().exceptions
    mode: Any = "create" if earlier is None else dict(earlier.version)
    try:
        put = tried(url, lambda: library().put(store, key, data, mode=mode, use_multipart=False))
    except (errors.AlreadyExistsError, errors.PreconditionError):
        # Or it is there by this very request, which was sent again because its answer was lost.
        found = read_found(url)
        return found if found is not None and found.data == data else None
    return Found(data, _version(put))


def _version(meta: Any) -> dict[str, str]:
    """What conditions are made of: S3 and Azure go by the tag, Google by the generation."""
    return {name: meta[name] for name in ("e_tag", "version") if meta.get(name) is not None}
