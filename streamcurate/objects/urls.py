"""URLs and paths as text."""

from __future__ import annotations

import fnmatch
import glob
import os
import re
from typing import Any

from streamcurate.errors import InputError

SCHEMES = ("s3", "s3a", "gs", "az", "abfs", "abfss", "http", "https")
_URL = re.compile(r"^([a-z][a-z0-9+.-]*)://", re.IGNORECASE)


def is_url(path: Any) -> bool:
    """Whether a path names an object of a store, or a folder of objects.

    Raises
    ------
    InputError
        It has a scheme that is not known.
    """
    if not isinstance(path, str | os.PathLike):
        return False
    found = _URL.match(os.fspath(path)) if isinstance(os.fspath(path), str) else None
    if found is None:
        return False
    if found[1].lower() not in SCHEMES:
        known = ", ".join(f"{name}://" for name in SCHEMES)
        raise InputError(f"{path}: {found[1]}:// is not known; give a path, or a URL of {known}")
    return True


def is_web(url: str | os.PathLike[str]) -> bool:
    """Whether a URL leads to a plain web server, which can neither list nor be written to."""
    return os.fspath(url).lower().startswith(("http://", "https://"))


def join(base: str | os.PathLike[str], *names: str) -> str:
    """A place below another: a URL below a URL, a path below a path."""
    place = os.fspath(base)
    return "/".join([place.rstrip("/"), *names]) if is_url(place) else os.path.join(place, *names)


def base_name(path: str | os.PathLike[str]) -> str:
    """The last name of a path or URL."""
    return os.path.basename(os.fspath(path).rstrip("/"))


def parent(path: str | os.PathLike[str]) -> str:
    """The folder a path or URL lies in; a bucket is its own."""
    place = os.fspath(path)
    if not is_url(place):
        return os.path.dirname(os.path.abspath(place))
    base, key = split(place.rstrip("/"))
    return "/".join(filter(None, (base, key.rpartition("/")[0])))


def split(url: str) -> tuple[str, str]:
    """Scheme and bucket (or server), and the name of the object in it.

    Raises
    ------
    InputError
        There is no bucket.
    """
    scheme, _, rest = url.partition("://")
    # Not urlsplit: '?' and '#' are letters of object names.
    bucket, _, key = rest.partition("/")
    if not bucket:
        raise InputError(f"{url}: names no bucket; a URL is {scheme}://bucket/name")
    return f"{scheme.lower()}://{bucket}", key


def folder_of_pattern(pattern: str) -> str:
    """The URL before the first name of a pattern that holds a wildcard.

    Raises
    ------
    InputError
        The wildcard is in the bucket's name.
    """
    scheme, _, rest = pattern.partition("://")
    names = rest.split("/")
    plain = next(number for number, name in enumerate(names) if glob.has_magic(name))
    if not plain:
        raise InputError(f"{pattern}: a pattern in the name of the bucket; name the bucket")
    return f"{scheme}://{'/'.join(names[:plain])}"


def pattern_expression(pattern: str) -> re.Pattern[str]:
    """Regular expression of a glob pattern: ``**`` stands for any folders, ``*`` and ``?`` cross no slash."""
    pieces = []
    for piece in re.split(r"(\*\*/?)", pattern):
        if piece.startswith("**"):
            pieces.append("(?:.*/)?" if piece.endswith("/") else ".*")
        else:
            pieces += [_letters(part) for part in re.split(r"(\[[^\]]+\]|[*?])", piece)]
    return re.compile("".join(pieces), re.DOTALL)


def _letters(part: str) -> str:
    if part in ("*", "?"):
        return "[^/]*" if part == "*" else "[^/]"
    if part.startswith("[") and part.endswith("]"):
        return fnmatch.translate(part).removeprefix("(?s:").removesuffix(r")\Z")
    return re.escape(part)
