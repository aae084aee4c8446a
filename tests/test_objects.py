"""The door to object stores: right bytes whatever the network does, or an error that says what and where."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from streamcurate import objects
from streamcurate.errors import InputError, ObjectError
from streamcurate.objects import access, client, streams, uploads

pytest_plugins = ["object_store"]

MIB = 1 << 20
# The answer to a question for an object of one byte.
PLAIN = (200, {"Content-Length": "1", "ETag": '"1"', "Last-Modified": "Mon, 01 Jan 2024 00:00:00 GMT"}, b"1")


@pytest.fixture
def impatient(monkeypatch):
    """What fails for good is told soon."""
    monkeypatch.setenv("STREAMCURATE_STORE_PATIENCE", "0.5")


@pytest.fixture
def small_pieces(monkeypatch):
    """Long transfers of few bytes: ranges, parts and what a request hands over; and short waits."""
    monkeypatch.setattr(streams, "PIECE_BYTES", 10_000)
    monkeypatch.setattr(access, "PIECE_BYTES", 10_000)
    monkeypatch.setattr(streams, "_HANDED_BYTES", 1000)
    monkeypatch.setattr(client, "_FIRST_WAIT_SECONDS", 0.01)
    client._bucket.cache_clear()
    yield
    client._bucket.cache_clear()


def some_bytes(count: int) -> bytes:
    return np.random.default_rng(count).bytes(count)


# -- names -------------------------------------------------------------------------------------------------------------


def test_what_is_a_url():
    for url in ("s3://b/x", "gs://b", "az://c/x", "abfss://c@a.dfs.core.windows.net/x", "HTTP://h/x", "https://h/x"):
        assert objects.is_url(url), url
    for path in ("x", "/x/y", "C:\\x", "a//b", "file", 5, None, os.curdir):
        assert not objects.is_url(path), path
    with pytest.raises(InputError, match="ftp:// is not known; give a path, or a URL of s3://"):
        objects.is_url("ftp://h/x")


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("s3://KEY:SECRET@bucket/x.npy", "s3://...@bucket"),
        ("s3://KEY:SEC/RET@bucket/x.npy", "s3://...@bucket"),
        ("s3:/KEY:SECRET@bucket/x.npy", "s3://...@bucket"),
        ("http://u:SECRET@host:80/x.npy", "http://...@host:80"),
        ("https://SECRET@host/a@b", "https://...@host"),
        ("abfss://c:SECRET@a.dfs.core.windows.net/x", r"abfss://...@a.dfs.core.windows.net"),
        ("ftp://u:SECRET@host/x", "ftp://...@host"),
    ],
)
def test_credentials_in_a_url_are_refused_and_not_shown(url, place):
    with pytest.raises(InputError, match="credentials") as error:
        objects.is_url(url)
    assert str(error.value).startswith(f"{place}: a URL with credentials in it; leave them out")
    assert "SEC" not in str(error.value)
    with pytest.raises(InputError, match="credentials"):
        objects.status(url.replace("s3:/K", "s3://K"))


def test_what_is_no_credentials():
    for url in ("s3://b/a@b", "s3://b/k:v@w", "http://h:80/a@b", "http://[::1]:80/a@b", "abfs://c@a.dfs.net/x@y"):
        assert objects.is_url(url), url


def test_one_slash(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"s3:/b/f: one slash behind s3:, a URL has two; did you mean s3://b/f\?"):
        objects.is_url("s3:/b/f")
    (tmp_path / "s3:").mkdir()
    assert not objects.is_url("s3:/b/f")


def test_places():
    assert objects.join("s3://b/x/", "y", "z") == "s3://b/x/y/z"
    assert objects.join("x", "y") == os.path.join("x", "y")
    assert objects.base_name("s3://b/x/y.npy") == objects.base_name("x/y.npy/") == "y.npy"
    assert objects.parent("s3://b/x/y/") == "s3://b/x"
    assert objects.parent("s3://b/x") == objects.parent("s3://b") == "s3://b"
    assert objects.parent("x/y") == os.path.abspath("x")


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.npy", ["a.npy", "b.npy"]),
        ("[a].npy", ["a.npy"]),
        ("[!a].npy", ["b.npy"]),
        ("?.npy", ["a.npy", "b.npy"]),
        ("x/*", ["x/a.npy"]),
        ("**/*.npy", ["a.npy", "b.npy", "x/a.npy", "x/y/c.npy"]),
        ("x/**", ["x/a.npy", "x/y/c.npy"]),
        ("*/a.npy", ["x/a.npy"]),
        ("a.npy", ["a.npy"]),
        ("no*", []),
    ],
)
def test_patterns(object_store, pattern, expected):
    for name in ("a.npy", "b.npy", "bXnpy.txt", "x/a.npy", "x/y/c.npy"):
        object_store.put(name, b"1")
    assert objects.match(object_store.url(pattern)) == [object_store.url(name) for name in expected]


def test_a_pattern_names_its_bucket():
    with pytest.raises(InputError, match="name the bucket"):
        objects.match("s3://buck*/x")
    with pytest.raises(InputError, match="names no bucket"):
        objects.status("s3:///x")


@pytest.mark.parametrize("name", ["a b", "ü/é", "a%20b", "a#b", "a?b", "a+b", "a=b&c"])
def test_names_are_taken_as_they_are(object_store, name):
    objects.write(object_store.url(name), b"1")
    assert object_store.objects() == {name: 1}
    assert [found.url for found in objects.listing(object_store.url())] == [object_store.url(name)]
    assert objects.read(object_store.url(name)) == b"1"


def test_names_that_no_object_has(object_store):
    for name in ("a//b", "./a", "x/../y"):
        with pytest.raises(InputError, match="no name of an object"):
            objects.read(object_store.url(name))


# -- objects -----------------------------------------------------------------------------------------------------------


def test_there_and_back(object_store):
    url, data = object_store.url("x/a"), some_bytes(1000)
    assert objects.status(url) is None
    assert objects.contents(url) is None
    assert not objects.exists(object_store.url("x"))
    objects.write(url, memoryview(data))
    found = objects.status(url)
    assert found is not None
    assert (found.url, found.size) == (url, 1000)
    assert objects.read(url) == objects.contents(url) == data
    assert bytes(objects.read_range(url, 10, 990)) == data[10:990]
    assert objects.exists(url)
    assert objects.exists(object_store.url("x"))
    objects.write(url, data[::-1])
    assert objects.status(url).state != found.state
    assert objects.names(object_store.url()) == (["x"], [])
    objects.delete(url)
    objects.delete(url)  # one that is not there is no error
    assert object_store.objects() == {}


def test_empty_objects(object_store):
    objects.write(object_store.url("a"), b"")
    assert objects.read(object_store.url("a")) == b""
    assert bytes(objects.read_range(object_store.url("a"), 0, 0)) == b""
    with objects.open_file(object_store.url("a")) as file:
        assert file.read() == b""


def test_listing_and_removing_more_than_a_page(object_store, small_pieces, monkeypatch):
    names = [f"x/{number:02d}" for number in range(40)]
    for name in [*names, "y"]:
        object_store.put(name, b"1")
    forward = sys.modules["object_store"]._forward

    def short_pages(port, method, path, *rest):
        return forward(port, method, path + "&max-keys=7" * ("list-type=2" in path), *rest)

    monkeypatch.setattr("object_store._forward", short_pages)
    monkeypatch.setattr(access, "_DELETED_AT_ONCE", 16)
    # A page that breaks off is asked for again, and nothing comes twice.
    faults = object_store.faults(0.3, seed=5, kinds=["cut", "error", "reset"])
    assert [one.url for one in objects.listing(object_store.url("x"))] == [object_store.url(name) for name in names]
    assert faults.counts
    assert len(object_store.requests) > 6
    objects.delete_all(object_store.url("x"))
    assert object_store.objects() == {"y": 1}


def test_conditional_writes(object_store):
    url = object_store.url("claim")
    assert objects.create(url, b"mine")
    assert not objects.create(url, b"yours")
    first = objects.read_found(url)
    assert first is not None
    second = objects.replace(url, b"mine 2", first)
    assert second is not None
    assert objects.replace(url, b"yours", first) is None
    assert objects.read(url) == b"mine 2"
    # An answer that was lost: the request is sent again, and finds what it has put itself.
    lost = iter(["lost", "late error"])
    object_store.faults(when=lambda method, path: next(lost, None) if method == "PUT" else None)
    third = objects.replace(url, b"mine 3", second)
    assert third is not None
    assert next(lost, None) is None
    assert objects.replace(url, b"mine 4", third) is not None


def test_a_conditional_write_to_what_is_gone(object_store, monkeypatch):
    url = object_store.url("claim")
    assert objects.create(url, b"mine")
    found = objects.read_found(url)
    objects.delete(url)
    assert objects.replace(url, b"mine 2", found) is None
    forward = importlib.import_module("object_store")._forward

    def as_amazon(port, method, path, headers, body):
        if method == "PUT" and {name.lower() for name in headers} & {"if-match"}:
            return 404, {}, b"<Error><Code>NoSuchKey</Code></Error>"
        return forward(port, method, path, headers, body)

    monkeypatch.setattr("object_store._forward", as_amazon)
    assert objects.replace(url, b"mine 2", found) is None


def test_removing_many_of_which_one_is_gone(object_store, monkeypatch):
    """Where stores remove objects one by one, the first that is not there ends it."""
    for name in ("x/a", "x/b"):
        object_store.put(name, b"1")
    forward = importlib.import_module("object_store")._forward

    def refuse(port, method, path, headers, body):
        if body.count(b"<Key>") > 1:
            return 404, {}, b"<Error><Code>NoSuchKey</Code></Error>"
        return forward(port, method, path, headers, body)

    monkeypatch.setattr("object_store._forward", refuse)
    objects.delete_many([object_store.url(name) for name in ("x/a", "x/gone", "x/b")])
    assert not object_store.objects()


def test_what_consoles_leave_for_a_folder_is_nothing(object_store):
    object_store.put("x/", b"")
    assert list(objects.listing(object_store.url("x"))) == []
    assert not objects.exists(object_store.url("x"))


# -- faults ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["error", "busy", "late error", "reset", "lost", "cut", "slow"])
def test_every_fault_passes(object_store, small_pieces, kind):
    data = some_bytes(45_000)
    faults = object_store.faults(0.4, seed=1, kinds=[kind], slow=0.01)
    for number in range(2):
        url = object_store.url(f"x{number}")
        objects.write(url, data)
        assert object_store.get(f"x{number}") == data
        assert objects.read(url) == data
        assert bytes(objects.read_range(url, 5, 44_999)) == data[5:44_999]
        with objects.open_file(url) as file:
            file.seek(-100, os.SEEK_END)
            assert file.read() == data[-100:]
    assert faults.counts[kind] >= 4


@pytest.mark.parametrize("kind", ["error", "busy", "reset", "cut"])
def test_what_fails_for_good_is_told_in_time(object_store, impatient, kind):
    object_store.put("a", b"1" * 100)
    object_store.faults(when=lambda method, path: kind)
    begun = time.monotonic()
    with pytest.raises(ObjectError, match=r"s3://test-\w+/a: the store does not answer as it should, tried for \d+ s"):
        objects.read(object_store.url("a"))
    assert time.monotonic() - begun < 30
    assert len(object_store.requests) >= 2


def test_bytes_that_have_come_are_not_sent_again(object_store, monkeypatch):
    monkeypatch.setattr(streams, "_HANDED_BYTES", 4096)
    data = some_bytes(4 * MIB)
    object_store.put("a", data)
    cuts = iter(["cut"])
    object_store.faults(when=lambda method, path: next(cuts, None) if method == "GET" else None)
    assert bytes(objects.read_range(object_store.url("a"), 0, 4 * MIB)) == data
    spans = [int(span.removeprefix("bytes=").partition("-")[0]) for method, _, span in object_store.requests]
    assert spans[0] == 0
    assert max(spans) > MIB


def test_an_answer_that_breaks_off_behind_its_last_byte(object_store, monkeypatch):
    objects.write(object_store.url("a"), bytes(range(100)))
    library, breaks = client.library(), [OSError("reset")]

    class Answer:
        def __init__(self, got):
            self.meta, self.range, self._got = got.meta, got.range, got

        def stream(self, **options):
            yield from self._got.stream(**options)
            if breaks:
                raise breaks.pop()

    class Library:
        def get(self, *arguments, **options):
            return Answer(library.get(*arguments, **options))

    monkeypatch.setattr("streamcurate.objects.streams.library", Library)
    assert objects.read_range(object_store.url("a"), 10, 60) == bytes(range(10, 60))
    assert not breaks


def test_an_answer_that_does_not_come(object_store, monkeypatch):
    """A request has an end, so that one lost packet is no hang."""
    monkeypatch.setattr(client, "SMALL_SECONDS", 0.3)
    client._bucket.cache_clear()
    object_store.put("a", b"1" * 100)
    slow = iter(["slow"])
    object_store.faults(when=lambda method, path: next(slow, None), slow=3)
    begun = time.monotonic()
    assert objects.read(object_store.url("a")) == b"1" * 100
    assert time.monotonic() - begun < 20
    client._bucket.cache_clear()


def test_an_object_that_is_written_anew_meanwhile(object_store, small_pieces, monkeypatch):
    monkeypatch.setattr(streams._OURS, "inside", True, raising=False)  # one request after the other
    object_store.put("a", b"1" * 40_000)
    put = []

    def when(method: str, path: str) -> None:
        if method == "GET" and len(put) == 2:
            object_store.put("a", b"2" * 40_000)
        put.append(path)

    object_store.faults(when=when)
    pieces = [(start, memoryview(bytearray(5000))) for start in range(0, 40_000, 5000)]
    with pytest.raises(ObjectError, match="was written anew while it was being read"):
        objects.fill(object_store.url("a"), pieces)
    with objects.open_file(object_store.url("a")) as file:
        file.read(10)
        object_store.put("a", b"3" * 40_000)
        file.seek(20_000_000)
        file.seek(0)
        with pytest.raises(ObjectError, match="was written anew"):
            file.raw.read(10)


def test_a_file_that_is_written_anew_and_has_no_tag(web_server, monkeypatch):
    forward = importlib.import_module("object_store")._static

    def untagged(*arguments):
        status, headers, data = forward(*arguments)
        return status, {name: value for name, value in headers.items() if name != "ETag"}, data

    monkeypatch.setattr("object_store._static", untagged)
    file = web_server.folder / "a"
    file.write_bytes(b"1" * 100)
    with objects.open_file(web_server.url("a")) as opened:
        assert opened.raw.read(10) == b"1" * 10
        file.write_bytes(b"2" * 100)
        os.utime(file, (1e9, 1e9))
        with pytest.raises(ObjectError, match="was written anew"):
            opened.raw.read(10)


def test_lengths(object_store):
    object_store.put("a", b"1" * 100)
    url, memory = object_store.url("a"), memoryview(bytearray(50))
    for start in (80, 100, 200):
        with pytest.raises(objects.LengthError, match=r"/a: (is shorter|holds 100 bytes)"):
            objects.fill(url, [(start, memory)])
    assert len(object_store.requests) == 4 - 1  # each is told at once
    with pytest.raises(objects.LengthError, match="holds 100 bytes instead of 101") as caught:
        objects.fill(url, [(0, memory)], 101)
    assert caught.value.found == 100


# -- long uploads ------------------------------------------------------------------------------------------------------


def test_long_objects_go_up_in_parts(object_store):
    data = some_bytes(40 * MIB)
    parts: list[str] = []

    def when(method: str, path: str) -> str | None:
        parts.append(path)
        return ["reset", "late error", "lost"][len(parts) % 3] if "partNumber" in path and len(parts) < 6 else None

    object_store.faults(when=when)
    objects.write(object_store.url("a"), data)
    assert object_store.get("a") == data
    assert object_store.uploads() == 0
    assert any("partNumber=3" in path for path in parts)


def test_an_upload_piece_by_piece(object_store, monkeypatch):
    monkeypatch.setattr(uploads, "_PART_BYTES", 5 * MIB)
    data = some_bytes(12 * MIB)
    with objects.Upload(object_store.url("a")) as upload:
        for start in range(0, len(data), 700_000):
            upload.write(data[start : start + 700_000])
        assert object_store.objects() == {}
    assert object_store.get("a") == data
    with objects.Upload(object_store.url("empty")):
        pass
    assert object_store.objects()["empty"] == 0


@pytest.mark.parametrize("request_", ["POST uploads=", "PUT partNumber=1&", "PUT partNumber=3&", "POST uploadId="])
@pytest.mark.parametrize("kind", ["cut", "lost"])
def test_any_answer_of_an_upload_may_be_lost(object_store, monkeypatch, request_, kind):
    monkeypatch.setattr(uploads, "_PART_BYTES", 5 * MIB)
    monkeypatch.setattr(access, "_LONGEST_PUT_BYTES", 5 * MIB)
    monkeypatch.setattr(access, "PART_BYTES", 5 * MIB)
    data = some_bytes(11 * MIB)
    method, query = request_.split()
    for name, put in (("upload", lambda url: _send(url, [data])), ("write", lambda url: objects.write(url, data))):
        left = [kind]

        def when(asked: str, path: str, left: list[str] = left) -> str | None:
            return left.pop() if left and asked == method and query in path else None

        object_store.faults(when=when)
        put(object_store.url(name))
        assert not left
        object_store.reset()
        assert object_store.get(name) == data


def _send(url, pieces):
    with objects.Upload(url) as upload:
        for piece in pieces:
            upload.write(piece)


@pytest.mark.parametrize("end", ["error", "abort", "store"])
def test_half_an_upload_is_nothing(object_store, monkeypatch, impatient, end):
    monkeypatch.setattr(uploads, "_PART_BYTES", 5 * MIB)
    data = some_bytes(6 * MIB)
    if end == "store":
        object_store.faults(when=lambda method, path: "error" if "partNumber=2" in path else None)
        with pytest.raises(ObjectError, match=r"/a: the store does not answer"):
            _send(object_store.url("a"), [data] * 10)
    elif end == "error":
        with pytest.raises(TypeError):
            _send(object_store.url("a"), [data, None])
    else:
        upload = objects.Upload(object_store.url("a"))
        upload.write(data)
        upload.abort()
        upload.abort()
    object_store.reset()
    assert object_store.objects() == {}
    assert object_store.uploads() == 0


# -- what is refused ---------------------------------------------------------------------------------------------------


def test_what_is_not_there(object_store):
    with pytest.raises(objects.AbsentError, match=r"/none: no such object; check the URL"):
        objects.read(object_store.url("none"))
    with pytest.raises(objects.AbsentError, match=r"/none: no such object"):
        objects.open_file(object_store.url("none"))
    for use in (objects.read, objects.contents, lambda url: objects.write(url, b"1"), objects.names, objects.exists):
        with pytest.raises(ObjectError, match=r"s3://no-such-bucket/x: no such bucket \(s3://no-such-bucket\)"):
            use("s3://no-such-bucket/x")
    assert len(object_store.requests) < 10


@pytest.mark.parametrize(
    ("status", "said"),
    [(403, "the store refuses access"), (401, "the store refuses access"), (400, "refuses the request")],
)
def test_what_the_store_refuses_is_told_at_once(web_server, monkeypatch, status, said):
    monkeypatch.setattr("object_store._static", lambda *_: (status, {}, b"<Error><Code>AccessDenied</Code></Error>"))
    with pytest.raises(ObjectError, match=said) as caught:
        objects.read(web_server.url("x"))
    assert web_server.url("x") in str(caught.value)
    assert str(status) in str(caught.value)
    assert len(web_server.requests) == 1


def test_a_wrong_endpoint(object_store, impatient, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    begun = time.monotonic()
    with pytest.raises(ObjectError, match=r"Connection refused\); check the connection and the endpoint"):
        objects.status(object_store.url("x"))
    assert time.monotonic() - begun < 30


@pytest.mark.parametrize(
    "value", ["127.0.0.1:5555", "localhost:5555", "http://", "http://h h", "http://h:port", "ftp://h"]
)
@pytest.mark.parametrize("name", ["AWS_ENDPOINT_URL", "AZURE_STORAGE_ENDPOINT"])
def test_an_endpoint_that_is_no_url(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    with pytest.raises(ObjectError, match=rf"{name}={value}: no URL of a store; set it to one, such as http://127"):
        objects.status("s3://bucket/x")


@pytest.mark.parametrize(
    ("patience", "size", "reading", "seconds", "silence"),
    [
        (60, 0, False, 20, None),
        (60, 8 * MIB, False, 180, None),
        (60, 8 * MIB, True, 180, 30),
        (4, 0, False, 2, None),
        (4, 8 * MIB, False, 12, None),
        (4, 8 * MIB, True, 180, 2),
        (0, 0, True, 1, 1),
    ],
)
def test_no_request_outlasts_the_patience(monkeypatch, patience, size, reading, seconds, silence):
    asked = []
    monkeypatch.setattr(client, "_bucket", lambda base, *options: asked.append(options[:2]))
    monkeypatch.setenv("STREAMCURATE_STORE_PATIENCE", str(patience))
    client.open_store("s3://bucket/x", size, reading=reading)
    assert asked == [(seconds, silence)]


def test_a_store_that_accepts_and_stalls(object_store, monkeypatch):
    monkeypatch.setenv("STREAMCURATE_STORE_PATIENCE", "1")
    monkeypatch.setattr(client, "_LEAST_SECONDS", 0.2)
    object_store.put("a", b"1" * 2 * MIB)
    object_store.faults(when=lambda method, path: "slow", slow=30)
    for ask in (lambda url: objects.status(url), lambda url: objects.read_range(url, 0, 2 * MIB)):
        begun = time.monotonic()
        with pytest.raises(ObjectError, match="the store does not answer as it should"):
            ask(object_store.url("a"))
        assert time.monotonic() - begun < 15


@pytest.fixture
def interrupts():
    """Python's own answer to Ctrl-C, which a library that another test imported replaces."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_an_interruption_does_not_wait_for_an_answer(object_store, interrupts):
    object_store.put("a", b"1")
    url = object_store.url("a")
    for ask in (
        objects.status,
        objects.read,
        objects.read_found,
        lambda url: list(objects.listing(url)),
        objects.names,
    ):
        object_store.faults(when=lambda method, path: "slow", slow=30)
        begun = time.monotonic()
        timer = threading.Timer(0.3, os.kill, [os.getpid(), signal.SIGINT])
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            ask(url)
        timer.join()
        assert time.monotonic() - begun < 20
    object_store.faults()
    assert objects.read(url) == b"1"


def test_patience_is_a_number(object_store, monkeypatch):
    monkeypatch.setenv("STREAMCURATE_STORE_PATIENCE", "long")
    with pytest.raises(InputError, match="STREAMCURATE_STORE_PATIENCE=long: no number of seconds"):
        objects.status(object_store.url("x"))


# -- settings ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("url", ["az://box/x", "abfs://box/x", "abfss://box@acc.dfs.core.windows.net/x", "gs://box/x"])
def test_other_stores_are_set_up(monkeypatch, url):
    pytest.importorskip("obstore")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "acc")
    store, key = client.open_store(url)
    assert key == "x"
    assert "box" in store.config.values()
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_NAME")
    if url.startswith("az"):
        with pytest.raises(ObjectError, match="AZURE_STORAGE_ACCOUNT_NAME names the account"):
            client.open_store(url)


def _noting(signed: list[str]):
    """Answers every question, and notes how it was signed."""

    def forward(port, method, path, headers, body):
        names = {name.lower(): value for name, value in headers.items()}
        signed.append(names.get("authorization", ""))
        return PLAIN

    return forward


def test_without_a_signature(object_store, monkeypatch):
    """Public buckets: no credentials, and none are looked for."""
    object_store.put("a", b"1")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SKIP_SIGNATURE", "true")
    signed: list[str] = []
    monkeypatch.setattr("object_store._forward", _noting(signed))
    assert objects.status(object_store.url("a")).size == 1
    assert signed == [""]


def test_a_profile(object_store, monkeypatch, tmp_path):
    pytest.importorskip("boto3")
    object_store.put("a", b"1")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    (tmp_path / "credentials").write_text("[ours]\naws_access_key_id = key-of-profile\naws_secret_access_key = s\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_PROFILE", "ours")
    signed: list[str] = []
    monkeypatch.setattr("object_store._forward", _noting(signed))
    assert objects.status(object_store.url("a")).size == 1
    assert "key-of-profile" in signed[0]
    monkeypatch.setenv("AWS_PROFILE", "none")
    with pytest.raises(ObjectError, match="AWS_PROFILE=none"):
        objects.status(object_store.url("a"))


@pytest.mark.parametrize(
    ("url", "said"),
    [("s3://b/x", "AWS_SKIP_SIGNATURE=true"), ("gs://b/x", "GOOGLE_APPLICATION_CREDENTIALS"), ("az://b/x", "AZURE_")],
)
def test_without_credentials(url, said):
    """The library looks for those of the machine then, and what it says of that helps nobody."""
    error = OSError("Error performing PUT http://169.254.169.254/latest/api/token - status code: 403 Forbidden")
    for told in (lambda: client.refuse_final(url, error), lambda: _raise(client.failure(url, error, 60))):
        with pytest.raises(ObjectError, match=f"{url}: no credentials in the environment.*{said}"):
            told()


def _raise(error: Exception):
    raise error


def test_without_the_library(tmp_path):
    """Local work never imports it, and a URL says what to install."""
    code = """
import sys
sys.modules["obstore"] = None
from streamcurate import objects, files, storage
files.write_file(sys.argv[1], b"1")
assert objects.contents(sys.argv[1]) == b"1"
try:
    storage.open_array("s3://b/x")
except objects.AbsentError.__base__ as error:
    print(error)
"""
    command = [sys.executable, "-c", code, str(tmp_path / "x")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "URLs of object stores need obstore; pip install 'streamcurate[object-stores]'\n"


# -- web servers -------------------------------------------------------------------------------------------------------


def test_a_web_server(web_server, small_pieces):
    data = some_bytes(25_000)
    (web_server.folder / "a b.bin").write_bytes(data)
    web_server.faults(0.3, seed=2, kinds=["error", "reset", "cut"])
    for name in ("a b.bin", "a%20b.bin"):
        url = web_server.url(name)
        assert objects.read(url) == data
        assert bytes(objects.read_range(url, 7, 24_000)) == data[7:24_000]
        with objects.open_file(url) as file:
            assert file.read() == data
    assert objects.status(web_server.url("none")) is None
    for use in (objects.listing, objects.names, objects.delete_all):
        with pytest.raises(ObjectError, match="a web server cannot list its files"):
            list(use(web_server.url("x")))
    with pytest.raises(ObjectError, match="a web server cannot be written to"):
        objects.write(web_server.url("x"), b"1")
    with pytest.raises(InputError, match="a URL with a query"):
        objects.read(web_server.url("x?token=1"))


def test_a_web_server_without_ranges(web_server, monkeypatch):
    """Small files are read all the same."""
    answer = sys.modules["object_store"]._static
    monkeypatch.setattr("object_store._static", lambda folder, method, path, span: answer(folder, method, path, None))
    (web_server.folder / "a").write_bytes(b"1" * 100)
    assert objects.read(web_server.url("a")) == b"1" * 100
    with pytest.raises(ObjectError, match=r"/a: its server gives files as a whole only"):
        objects.read_range(web_server.url("a"), 5, 10)
    assert len(web_server.requests) == 2
