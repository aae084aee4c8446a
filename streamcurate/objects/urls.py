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
_ONE_SLASH = re.compile(rf"^({'|'.join(SCHEMES)}):/(?!/)", re.IGNORECASE)
# In these the name before an @ is that of the container.
_WITH_CONTAINER = ("abfs", "abfss")


def is_url(path: Any) -> bool:
    """Whether a path names an object of a store, or a folder of objects.

    Raises
    ------
    InputError
        It has a scheme that is not known, holds a password, or lacks a slash.
    """
    if not isinstance(path, str | os.PathLike):
        return False
    place = os.fspath(path)
    if not isinstance(place, str):
        return False
    found = _URL.match(place)
    if found is None:
        _refuse_one_slash(place)
        return False
    refuse_secrets(place)
    if found[1].lower() not in SCHEMES:
        known = ", ".join(f"{name}://" for name in SCHEMES)
        raise InputError(f"{path}: {found[1]}:// is not known; give a path, or a URL of {known}")
    return True


def _refuse_one_slash(place: str) -> None:
    """Refuse ``s3:/bucket``, which nobody means as a path, unless there is such a folder."""
    found = _ONE_SLASH.match(place)
    if found is not None and not os.path.isdir(f"{found[1]}:"):
        url = f"{found[1]}://{place[found.end() :]}"
        refuse_secrets(url)
        raise InputError(f"{place}: one slash behind {found[1]}:, a URL has two; did you mean {url}?")


def refuse_secrets(url: str) -> None:
    """Refuse a URL that holds credentials: it would be noted in stores and runs, and shown. The secret is not.

    Raises
    ------
    InputError
        It does.
    """
    scheme, _, rest = url.partition("://")
    if "@" not in rest:
        return
    host = rest.partition("/")[0]
    if "@" in host:
        secret = scheme.lower() not in _WITH_CONTAINER or ":" in host.rpartition("@")[0]
    else:  # keys of S3 may hold a slash; what is no port behind a colon is the beginning of one
        secret = re.search(r":(?!\d*$)", host.rpartition("]")[2]) is not None
    if secret:
        place = rest.rpartition("@")[2] if "@" not in host else host.rpartition("@")[2]
        fix = (
            "; web servers are read without any"
            if is_web(url)
            else ", and set them in the environment (AWS_*, GOOGLE_*, AZURE_*)"
        )
        raise InputError(f"{scheme}://...@{place.partition('/')[0]}: a URL with credentials in it; leave them out{fix}")


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
        There is no bucket, or a password.
    """
    refuse_secrets(url)
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
