"""When something was said: some peers tell of their iterations only by printing or logging a line after each."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from itertools import pairwise

# Reads lines and gives back when each came; in a process of its own, as the peer holds this one's interpreter lock.
_READER = """
import sys, time
for line in iter(sys.stdin.buffer.readline, b""):
    sys.stdout.buffer.write(f"{time.monotonic():.6f} ".encode() + line.rstrip(b"\\n") + b"\\n")
"""


class Stamps:
    """Lines, and when they came (seconds of the monotonic clock)."""

    def __init__(self) -> None:
        self.lines: list[tuple[float, str]] = []
        self._rest = ""

    def write(self, text: str) -> int:
        """As a text file takes it."""
        *whole, self._rest = (self._rest + text).split("\n")
        self.lines += [(time.monotonic(), line) for line in whole]
        return len(text)

    def flush(self) -> None:
        """Nothing is held back."""

    def between(self, mark: str, began: float | None = None) -> list[float]:
        """Seconds between lines with a mark; from ``began``, where given, to the first."""
        times = [when for when, line in self.lines if mark in line]
        if began is not None:
            times.insert(0, began)
        return [later - earlier for earlier, later in pairwise(times)]


@contextmanager
def printed() -> Iterator[Stamps]:
    """What Python code prints meanwhile."""
    stamps = Stamps()
    with redirect_stdout(stamps):  # type: ignore[type-var]
        yield stamps


@contextmanager
def logged(name: str) -> Iterator[Stamps]:
    """What a logger is told meanwhile."""
    stamps = Stamps()
    handler = logging.Handler()
    handler.emit = lambda record: stamps.lines.append((time.monotonic(), record.getMessage()))  # type: ignore[method-assign]
    logger = logging.getLogger(name)
    before = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield stamps
    finally:
        logger.removeHandler(handler)
        logger.level, logger.propagate = before


@contextmanager
def printed_natively() -> Iterator[Stamps]:
    """What compiled code writes to standard output meanwhile; complete once the block is left."""
    stamps = Stamps()
    sys.stdout.flush()
    before = os.dup(1)
    reader = subprocess.Popen([sys.executable, "-S", "-c", _READER], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert reader.stdin is not None
    try:
        os.dup2(reader.stdin.fileno(), 1)
        reader.stdin.close()
        yield stamps
    finally:
        sys.stdout.flush()
        os.dup2(before, 1)
        os.close(before)
        assert reader.stdout is not None
        for line in reader.stdout.read().decode().splitlines():
            when, _, text = line.partition(" ")
            stamps.lines.append((float(when), text))
        reader.stdout.close()
        reader.wait()
