"""Servers for tests of URLs: S3 in a process of its own and plain files, both behind faults made on purpose.

A test module asks for them by ``pytest_plugins = ["object_store"]`` and takes the fixtures ``object_store`` (a bucket
of its own, the environment set) or ``web_server``. Whether a request is spoilt depends on the seed, on what it is for,
and on how often that was asked for before, not on the order of threads.
"""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
import sys
import time
import urllib.parse
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock, Thread
from typing import Any

import pytest
import xxhash

# What can happen to a request. "reset" comes before it is acted on and "lost" after, as "error" and "late error" do.
FAULTS = ("error", "busy", "late error", "reset", "lost", "cut", "slow")
_SLOW_SECONDS = 0.3
# Dies with the tests, however they end: the pipe on its standard input closes then.
_MOTO = """
import os, sys, threading
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
from moto.server import main
main(["-H", "127.0.0.1", "-p", sys.argv[1]])
"""


class Faults:
    """What is done to requests, and how often it was.

    Parameters
    ----------
    share : float
        Probability that a request is spoilt.
    seed : int
    kinds : sequence of str
        Which of ``FAULTS``, equally often. A cut of what has no body is a reset.
    when : callable, optional
        Given method and path (with its query), the fault of this request, or None to leave it to chance.
    slow : float
        Seconds that a slow answer takes.

    Attributes
    ----------
    counts : Counter
        Faults made, by kind.
    """

    def __init__(
        self,
        share: float = 0.0,
        seed: int = 0,
        kinds: Sequence[str] = FAULTS,
        when: Callable[[str, str], str | None] | None = None,
        slow: float = _SLOW_SECONDS,
    ) -> None:
        unknown = set(kinds) - set(FAULTS)
        assert not unknown, f"no such faults: {unknown}"
        self.share, self.seed, self.kinds, self.when, self.slow = share, seed, tuple(kinds), when, slow
        self.counts: Counter[str] = Counter()
        self._seen: Counter[str] = Counter()
        self._lock = Lock()

    def of(self, method: str, path: str, span: str) -> str | None:
        """The fault of one request."""
        with self._lock:
            kind = self.when(method, path) if self.when else None
            if kind is None and self.share:
                # Names of uploads are random and must not decide.
                name = f"{method} {path.partition('?')[0]} {span}"
                self._seen[name] += 1
                number = xxhash.xxh3_64_intdigest(f"{self.seed} {self._seen[name]} {name}".encode())
                if number % 1_000_003 < self.share * 1_000_003:
                    kind = self.kinds[number // 1_000_003 % len(self.kinds)]
            if kind is not None:
                assert kind in FAULTS, kind
                self.counts[kind] += 1
            return kind


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.faults = Faults()
        self.requests: list[tuple[str, str, str]] = []

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that went away are what these tests are about."""


class _Handler(BaseHTTPRequestHandler):
    """One connection; ``answer`` gives status, headers and body of what is asked."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def answer(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        raise NotImplementedError

    def handle_one(self) -> None:
        body = self._body()
        span = self.headers.get("Range", "")
        self.server.requests.append((self.command, self.path, span))
        fault = self.server.faults.of(self.command, self.path, span)
        if fault == "reset":
            return self._reset()
        if fault in ("error", "busy"):
            return self._send(500 if fault == "error" else 503, {}, b"<Error><Code>SlowDown</Code></Error>")
        status, headers, data = self.answer(body)
        if fault == "slow":
            time.sleep(self.server.faults.slow)
        if fault == "late error":
            return self._send(500, {}, b"<Error><Code>InternalError</Code></Error>")
        if fault == "lost" or (fault == "cut" and not data):
            return self._reset()
        return self._send(status, headers, data, cut=fault == "cut")

    # The names that the base class calls.
    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = handle_one  # noqa: N815

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing is printed."""

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        pieces = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            pieces.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(pieces)

    def _send(self, status: int, headers: dict[str, str], data: bytes, cut: bool = False) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if "Content-Length" not in headers and status not in (204, 304):
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data[: len(data) // 2] if cut else data)
        if cut:
            self.wfile.flush()
            self.close_connection = True

    def _reset(self) -> None:
        self.close_connection = True
        # Zero seconds to linger: the peer sees a reset, not an orderly end.
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        # Not close(): the handler's files hold the socket.
        os.close(self.connection.detach())


class _Running:
    """A server in a thread, its faults and what was asked of it."""

    def __init__(self, handler: type[_Handler]) -> None:
        self._server = _Server(handler)
        self.port = self._server.server_address[1]
        self._thread = Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    @property
    def requests(self) -> list[tuple[str, str, str]]:
        """Method, path and ``Range`` of every request since the last ``faults`` or ``reset``."""
        return self._server.requests

    def faults(self, share: float = 0.0, seed: int = 0, **options: Any) -> Faults:
        """From now on, spoil requests; see :class:`Faults`."""
        self._server.requests = []
        self._server.faults = Faults(share, seed, **options)
        return self._server.faults

    def reset(self) -> None:
        """No faults any more."""
        self.faults()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class ObjectStore:
    """An S3 server of our own, in memory; ``with ObjectStore() as store``."""

    def __enter__(self) -> ObjectStore:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._moto_port = probe.getsockname()[1]
        command = [sys.executable, "-c", _MOTO, str(self._moto_port)]
        self._moto = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        until = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", self._moto_port), timeout=1).close()
                break
            except OSError:
                assert self._moto.poll() is None, "moto's server ended at once"
                assert time.monotonic() < until, "moto's server does not start"
                time.sleep(0.05)
        port = self._moto_port

        class Forward(_Handler):
            def answer(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
                return _forward(port, self.command, self.path, dict(self.headers), body)

        self._proxy = _Running(Forward)
        return self

    def __exit__(self, *_: object) -> None:
        self._proxy.stop()
        self._moto.kill()
        self._moto.communicate()

    def environment(self) -> dict[str, str]:
        """Variables by which this process and others find the server."""
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self._proxy.port}",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def bucket(self, name: str) -> Bucket:
        """A new bucket."""
        status, _, _ = self.direct("PUT", f"/{name}")
        assert status == 200, f"bucket {name}: {status}"
        return Bucket(self, name)

    def direct(self, method: str, path: str, body: bytes = b"") -> tuple[int, dict[str, str], bytes]:
        """A request past the faults."""
        headers = {
            "Content-Length": str(len(body)),
            "Authorization": "AWS4-HMAC-SHA256 Credential=test/x/us-east-1/s3/x",
        }
        return _forward(self._moto_port, method, path, headers, body)

    @property
    def proxy(self) -> _Running:
        """Faults and requests."""
        return self._proxy


class Bucket:
    """A bucket of one test."""

    def __init__(self, store: ObjectStore, name: str) -> None:
        self.store, self.name = store, name
        self.faults, self.reset, self.environment = store.proxy.faults, store.proxy.reset, store.environment

    @property
    def requests(self) -> list[tuple[str, str, str]]:
        """Method, path and ``Range`` of every request since faults were last set."""
        return self.store.proxy.requests

    def url(self, name: str = "") -> str:
        """URL of an object of this bucket."""
        return f"s3://{self.name}/{name}" if name else f"s3://{self.name}"

    def objects(self, prefix: str = "") -> dict[str, int]:
        """Name and size of every object, asked past the faults."""
        import xml.etree.ElementTree as ElementTree

        found: dict[str, int] = {}
        token = ""
        while True:
            query = {"list-type": "2", "prefix": prefix} | ({"continuation-token": token} if token else {})
            _, _, body = self.store.direct("GET", f"/{self.name}?{urllib.parse.urlencode(query)}")
            root = ElementTree.fromstring(body)
            space = root.tag.partition("}")[0] + "}"
            for one in root.iter(f"{space}Contents"):
                found[one.findtext(f"{space}Key", "")] = int(one.findtext(f"{space}Size", "0"))
            token = root.findtext(f"{space}NextContinuationToken") or ""
            if not token:
                return found

    def get(self, name: str) -> bytes:
        """Bytes of an object, asked past the faults."""
        status, _, body = self.store.direct("GET", f"/{self.name}/{urllib.parse.quote(name)}")
        assert status == 200, f"{name}: {status}"
        return body

    def put(self, name: str, data: bytes) -> None:
        """Store an object past the faults."""
        status, _, _ = self.store.direct("PUT", f"/{self.name}/{urllib.parse.quote(name)}", data)
        assert status == 200, f"{name}: {status}"

    def remove(self, name: str) -> None:
        """Remove an object past the faults."""
        self.store.direct("DELETE", f"/{self.name}/{urllib.parse.quote(name)}")

    def uploads(self) -> int:
        """Multipart uploads that were begun and neither completed nor given up."""
        _, _, body = self.store.direct("GET", f"/{self.name}?uploads")
        return body.count(b"<Upload>")


class WebServer:
    """The files of a folder by HTTP, with ranges; no listing, no writing."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

        class Static(_Handler):
            def answer(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
                return _static(folder, self.command, self.path, self.headers.get("Range"))

        self._running = _Running(Static)
        self.faults, self.reset, self.stop = self._running.faults, self._running.reset, self._running.stop

    @property
    def requests(self) -> list[tuple[str, str, str]]:
        """Method, path and ``Range`` of every request since faults were last set."""
        return self._running.requests

    def url(self, name: str = "") -> str:
        """URL of a file in the folder."""
        return f"http://127.0.0.1:{self._running.port}/{name}"


def _forward(
    port: int, method: str, path: str, headers: dict[str, str], body: bytes
) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        kept = {
            name: value for name, value in headers.items() if name.lower() not in ("connection", "transfer-encoding")
        }
        connection.request(method, path, body, kept | {"Content-Length": str(len(body))})
        answer = connection.getresponse()
        data = answer.read()
        dropped = ("connection", "transfer-encoding", "server", "date", "keep-alive")
        return answer.status, {n: v for n, v in answer.getheaders() if n.lower() not in dropped}, data
    finally:
        connection.close()


def _static(folder: Path, method: str, path: str, span: str | None) -> tuple[int, dict[str, str], bytes]:
    place = folder / urllib.parse.unquote(path.partition("?")[0]).lstrip("/")
    if method not in ("GET", "HEAD"):
        return 405, {}, b""
    if not place.is_file():
        return 404, {}, b""
    data, stat = place.read_bytes(), place.stat()
    headers = {
        "Accept-Ranges": "bytes",
        "ETag": f'"{stat.st_mtime_ns:x}-{stat.st_size:x}"',
        "Last-Modified": time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(stat.st_mtime)),
    }
    status = 200
    if span and span.startswith("bytes="):
        first, _, last = span.removeprefix("bytes=").partition("-")
        start = int(first) if first else max(len(data) - int(last), 0)
        stop = min(int(last) + 1, len(data)) if first and last else len(data)
        if start >= len(data):
            return 416, {"Content-Range": f"bytes */{len(data)}"}, b""
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(data)}"
        data, status = data[start:stop], 206
    return status, headers | {"Content-Length": str(len(data))}, data


@pytest.fixture(scope="session")
def object_store_server() -> Iterator[ObjectStore]:
    """One S3 server for all tests of a session."""
    pytest.importorskip("moto.server", reason="moto's server is not installed: pip install 'moto[s3,server]'")
    pytest.importorskip("obstore")
    with ObjectStore() as store:
        yield store


@pytest.fixture
def object_store(
    object_store_server: ObjectStore, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[Bucket]:
    """An empty bucket, no faults, and the environment that leads to it."""
    for name, value in object_store_server.environment().items():
        monkeypatch.setenv(name, value)
    object_store_server.proxy.reset()
    # The same name each time the test runs: names decide which requests are spoilt.
    yield object_store_server.bucket(f"test-{xxhash.xxh3_64_hexdigest(request.node.nodeid.encode())}")
    object_store_server.proxy.reset()


@pytest.fixture
def web_server(tmp_path: Path) -> Iterator[WebServer]:
    """The files under ``tmp_path / "web"`` by HTTP."""
    pytest.importorskip("obstore")
    folder = tmp_path / "web"
    folder.mkdir()
    server = WebServer(folder)
    yield server
    server.stop()
