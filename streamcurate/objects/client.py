"""Requests to a store: the library that makes them, and what is done when they fail."""

from __future__ import annotations

import os
import random
import re
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from datetime import timedelta
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar
from urllib.parse import unquote

import xxhash

from streamcurate.errors import InputError, ObjectError
from streamcurate.objects.settings import check_endpoints, profile
from streamcurate.objects.urls import is_web, split

PATIENCE_VARIABLE = "STREAMCURATE_STORE_PATIENCE"
_PATIENCE_SECONDS = 60.0
# A request whose answer is lost on the way must not hang for ever, and one of many MiB over a slow line must not be cut
# off: 32 MiB in 180 seconds are 190 kB/s.
SMALL_SECONDS, LARGE_SECONDS = 20.0, 180.0
SMALL_BYTES = 1 << 20
_CONNECT_SECONDS = 10.0
# Whoever has less patience than this for a request that stalls waits for less long; but no request is cut off at once.
_LEAST_SECONDS = 1.0
# The library repeats a request by itself, a part of a long upload too; beyond, and where a body breaks off, it is
# repeated here.
_LIBRARY_RETRIES, _MOST_RETRIES = 3, 100
_FIRST_WAIT_SECONDS, _LONGEST_WAIT_SECONDS = 0.1, 10.0
_SETTINGS = ("AWS_", "AZURE_", "GOOGLE_", "HTTP", "http", "ALL_PROXY", "NO_PROXY", PATIENCE_VARIABLE)
_STATUS = re.compile(r"status code: (\d{3})")
# 409 is what S3 says of conditional requests that meet.
_PASSING = {408, 409, 425, 429}
_OUTCOMES = TypeVar("_OUTCOMES")


class AbsentError(ObjectError):
    """There is no such object."""


class NoBucketError(AbsentError):
    """There is not even the bucket."""


class LengthError(ObjectError):
    """An object is shorter or longer than it has to be; ``found`` is its length."""

    def __init__(self, message: str, found: int | None = None) -> None:
        super().__init__(message)
        self.found = found


class ChangedError(ObjectError):
    """An object was written anew while it was being read."""


class PassingError(OSError):
    """What another try may mend, whatever it says."""


class Status(NamedTuple):
    """What tells one state of an object from another."""

    url: str
    size: int
    etag: str | None
    modified_ns: int

    @property
    def state(self) -> int:
        """A number that changes when the object is written again."""
        return self.modified_ns if self.etag is None else xxhash.xxh3_64_intdigest(self.etag.encode()) >> 1


def status_of(url: str, meta: Any) -> Status:
    """What the library says of an object."""
    tag = meta.get("e_tag")
    # With quotation marks or without: Azure gives both for the same object.
    tag = None if tag is None else tag.removeprefix("W/").strip('"')
    return Status(url, int(meta["size"]), tag, int(meta["last_modified"].timestamp() * 1e9))


def status(url: str) -> Status | None:
    """Size and state of an object; None where there is none."""
    store, key = open_store(url)
    meta = tried(url, lambda: answered(lambda: known(lambda: library().head(store, key))))
    return None if meta is None else status_of(url, meta)


@lru_cache(maxsize=1)
def library() -> Any:
    """The library behind all this, imported when the first URL is used."""
    try:
        import obstore
    except ImportError as error:
        raise ObjectError("URLs of object stores need obstore; pip install 'streamcurate[object-stores]'") from error
    return obstore


def patience() -> float:
    """For how many seconds a failing request is tried again."""
    text = os.environ.get(PATIENCE_VARIABLE)
    try:
        seconds = _PATIENCE_SECONDS if text is None else float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= 86_400:
        raise InputError(f"{PATIENCE_VARIABLE}={text}: no number of seconds from 0 to 86400; set it, or unset it")
    return seconds


def open_store(url: str, size: int = 0, *, once: bool = False, reading: bool = False) -> tuple[Any, str]:
    """The library's store of a URL's bucket, or web server, and the name of the object in it.

    Parameters
    ----------
    url : str
    size : int
        Bytes that one request is to carry.
    once : bool
        What is sent cannot be sent again from here: all the patience is the library's.
    reading : bool
        Bytes come, one piece soon after the other: a stall is noticed before the whole request takes too long.
    """
    base, key = split(url)
    if is_web(url):
        if "?" in key or "#" in key:
            raise InputError(f"{url}: a URL with a query; a file of a web server is named by its path alone")
        key = unquote(key)
    # Whoever changes the environment means it.
    settings = tuple(sorted(item for item in os.environ.items() if item[0].startswith(_SETTINGS)))
    # Two tries within the patience; of what is long to send, which is nowhere seen to progress, as much more as takes.
    waited = patience()
    stall = max(waited / 2, _LEAST_SECONDS)
    seconds = min(SMALL_SECONDS, stall)
    if size > SMALL_BYTES:
        seconds = LARGE_SECONDS if reading else min(LARGE_SECONDS, 6 * stall)
    silence = min(stall, seconds) if reading else None
    return _bucket(base, seconds, silence, once, settings, os.getpid()), key


@lru_cache(maxsize=64)
def _bucket(
    base: str,
    seconds: float,
    silence: float | None,
    once: bool,
    _settings: tuple[tuple[str, str], ...],
    _process: int,
) -> Any:
    obstore = library()
    check_endpoints()
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL", "")
    waited = patience()
    options: dict[str, Any] = {
        "client_options": {
            "timeout": timedelta(seconds=seconds),
            "connect_timeout": timedelta(seconds=min(_CONNECT_SECONDS, max(waited, 0.5))),
        },
        "retry_config": {
            "max_retries": _MOST_RETRIES if once else _LIBRARY_RETRIES,
            "backoff": {
                "init_backoff": timedelta(seconds=_FIRST_WAIT_SECONDS),
                "max_backoff": timedelta(seconds=_LONGEST_WAIT_SECONDS),
                "base": 2,
            },
            # The whole patience is several of its tries.
            "retry_timeout": timedelta(seconds=max(waited if once else waited / 3, 0.1)),
        },
    }
    if silence is not None:
        options["client_options"]["read_timeout"] = timedelta(seconds=silence)
    if base.startswith("http://") or endpoint.startswith("http://"):
        options["client_options"]["allow_http"] = True
    try:
        if is_web(base):
            return obstore.store.HTTPStore.from_url(base, **options)
        if base.startswith(("s3://", "s3a://")):
            options |= profile()
        return obstore.store.from_url(base, **options)
    except (obstore.exceptions.BaseError, ValueError) as error:
        hint = " (AZURE_STORAGE_ACCOUNT_NAME names the account)" if "Account must be specified" in str(error) else ""
        raise ObjectError(
            f"{base}: cannot be reached as set up here ({said(error)}){hint}; check the URL and the variables of the "
            "environment that hold credentials and endpoint"
        ) from error


def tried(url: str, attempt: Callable[[], _OUTCOMES]) -> _OUTCOMES:
    """The outcome of a request, tried again after what may pass.

    Raises
    ------
    AbsentError
        There is no such object or bucket.
    ObjectError
        The store refuses, or does not answer in time.
    """
    errors = library().exceptions
    begun, number, waited = time.monotonic(), 0, patience()
    while True:
        number += 1
        try:
            return attempt()
        except (errors.AlreadyExistsError, errors.PreconditionError, errors.NotModifiedError):
            raise
        except (errors.BaseError, OSError, ValueError) as error:
            refuse_final(url, error)
            # Twice at least: what took longer than the patience may have been one lost packet.
            if number >= 2 and time.monotonic() - begun >= waited:
                raise failure(url, error, time.monotonic() - begun) from error
            pause(number)


def answered(ask: Callable[[], _OUTCOMES]) -> _OUTCOMES:
    """The outcome of a request that changes nothing and fills no memory of others, so that it may be left alone.

    The library hears of no signal before it has its answer. So that Ctrl-C is not held up, the main thread has another
    one wait for it.
    """
    if threading.current_thread() is not threading.main_thread():
        return ask()
    outcome: Future[_OUTCOMES] = Future()

    def work() -> None:
        try:
            outcome.set_result(ask())
        except BaseException as error:
            outcome.set_exception(error)

    threading.Thread(target=work, name="streamcurate-request", daemon=True).start()
    return outcome.result()


def pause(number: int) -> None:
    """Wait before the next try; not all workers for the same time."""
    longest = min(_LONGEST_WAIT_SECONDS, max(patience(), 0.1))
    time.sleep(min(_FIRST_WAIT_SECONDS * 2**number, longest) * random.uniform(0.5, 1))


def failure(url: str, error: BaseException, seconds: float) -> ObjectError:
    """The error of a request that was tried for so long."""
    if _wants_credentials(error):
        return _without_credentials(url)
    return ObjectError(
        f"{url}: the store does not answer as it should, tried for {seconds:.0f} s ({said(error)}); check the "
        "connection and the endpoint, and give the same command again"
    )


def refuse_final(url: str, error: BaseException) -> None:
    """Raise where trying again is of no use.

    Raises
    ------
    AbsentError
        There is no such object or bucket.
    ObjectError
        The store refuses.
    InputError
        The URL is none.
    """
    errors = library().exceptions
    if isinstance(error, PassingError):
        return
    if isinstance(error, FileNotFoundError):
        raise absent(url, error) from error
    if isinstance(error, (errors.PermissionDeniedError, errors.UnauthenticatedError)):
        raise ObjectError(
            f"{url}: the store refuses access ({said(error)}); check the credentials in the environment, and the URL: "
            "some stores say this of what does not exist"
        ) from error
    if isinstance(error, errors.NotSupportedError):
        if "range" in str(error).lower():
            raise ObjectError(
                f"{url}: its server gives files as a whole only, no ranges of bytes; serve it by one that does "
                "(nginx, Apache, an object store), or copy the file to this machine"
            ) from error
        raise ObjectError(f"{url}: the store cannot do that ({said(error)})") from error
    if isinstance(error, ValueError):  # how the library refuses a name
        raise InputError(f"{url}: no name of an object ({said(error)}); check the URL") from error
    text = said(error)
    found = _STATUS.search(str(error))
    code = int(found[1]) if found else 0
    if code == 404:
        raise absent(url, error) from error
    if code == 416:
        raise LengthError(f"{url}: is shorter than it was or should be; restore it, or make it again") from error
    if 400 <= code < 500 and _wants_credentials(error):
        raise _without_credentials(url) from error
    if "incorrectly configured region" in text or code in (301, 307):
        raise ObjectError(f"{url}: the bucket is in another region ({text}); set AWS_REGION to it") from error
    if 400 <= code < 500 and code not in _PASSING and "RequestTimeout" not in text:
        raise ObjectError(f"{url}: the store refuses the request ({text}); check the URL and the settings") from error
    if "builder error" in text or "invalid URL" in text.lower():
        raise ObjectError(f"{url}: cannot be asked for ({text}); check the endpoint in the environment") from error


def _wants_credentials(error: BaseException) -> bool:
    """Whether it was the machine's own credentials that could not be had: asked for where no others are set."""
    return any(place in str(error) for place in ("169.254.169.254", "metadata.google.internal"))


def _without_credentials(url: str) -> ObjectError:
    scheme = url.partition("://")[0].lower()
    if scheme == "gs":
        hint = "GOOGLE_APPLICATION_CREDENTIALS, or GOOGLE_SKIP_SIGNATURE=true for public data"
    elif scheme.startswith("s3"):
        hint = (
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE where boto3 is installed, or "
            "AWS_SKIP_SIGNATURE=true for public data"
        )
    else:
        hint = "AZURE_STORAGE_ACCOUNT_KEY or AZURE_STORAGE_SAS_KEY, or AZURE_SKIP_SIGNATURE=true for public data"
    return ObjectError(f"{url}: no credentials in the environment, and none of the machine's own; set {hint}")


def absent(url: str, error: BaseException | None = None) -> AbsentError:
    """The error of what is not there."""
    if error is not None and of_bucket(error):
        return NoBucketError(f"{url}: no such bucket ({split(url)[0]}); check the URL, or make the bucket first")
    return AbsentError(f"{url}: no such object; check the URL")


def of_bucket(error: BaseException) -> bool:
    """Whether it is the bucket that is not there."""
    return any(code in str(error) for code in ("NoSuchBucket", "ContainerNotFound", "bucket does not exist"))


def known(attempt: Callable[[], _OUTCOMES]) -> _OUTCOMES | None:
    """None for what is not there; an error all the same where the bucket is not."""
    try:
        return attempt()
    except FileNotFoundError as error:
        if of_bucket(error):
            raise
        return None


def said(error: BaseException) -> str:
    """What the library says, without its dump of structures; of that, the cause of a broken connection."""
    text, _, structures = str(error).partition("\n\nDebug source")
    # Of an answer in XML, the two lines meant for people.
    found = [re.search(rf"<{tag}>([^<]*)</{tag}>", text) for tag in ("Code", "Message")]
    said = [one[1] for one in found if one and one[1]]
    text = text.partition("<?xml")[0].partition("<Error>")[0].strip().rstrip(":").replace("\n", " ")[:300]
    if text.endswith(("error sending request", "body error")):
        said += re.findall(r'(?:message|error): "([^"]+)"', structures)[-1:] or ["timed out"] * (
            "TimedOut" in structures
        )
    return ": ".join([text, *said])
