"""Rows that make trouble in the processes that read them. Worker processes import this module by its name."""

from __future__ import annotations

import errno
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np

from streamcurate.streaming import RowSource


class Misbehaving:
    """A row source that misbehaves in every process but the one that made it.

    Parameters
    ----------
    source : RowSource
        Where the rows come from; it travels.
    folder : Path
        Remembers how often there was trouble: one file each time.
    row : int
        Reads of this row are the ones that make trouble.
    trouble : "raise", "die", or None
        Raise an OSError, or kill the process.
    times : int
        How often; then the row can be read.
    seconds : float
        How long every read takes but for the few rows of a session's greeting.
    """

    def __init__(
        self,
        source: RowSource,
        folder: Path,
        row: int = -1,
        trouble: str | None = None,
        times: int = 1 << 30,
        seconds: float = 0.0,
    ) -> None:
        self.source, self.folder, self.row = source, folder, row
        self.trouble, self.times, self.seconds = trouble, times, seconds
        self.home = os.getpid()
        self.name, self.rows, self.dims, self.dtype = source.name, source.rows, source.dims, source.dtype
        self.chunk_rows, self.read_overhead_bytes = source.chunk_rows, source.read_overhead_bytes
        self.travels = True

    @property
    def troubles(self) -> int:
        """How often there was trouble so far."""
        return len(list(self.folder.glob("trouble-*")))

    def read(self, start: int, stop: int) -> np.ndarray[Any, Any]:
        if os.getpid() == self.home:
            return self.source.read(start, stop)
        if stop - start > 16:
            time.sleep(self.seconds)
        if start <= self.row < stop and self.trouble is not None and self.troubles < self.times:
            (self.folder / f"trouble-{os.getpid()}-{time.monotonic_ns()}").touch()
            if self.trouble == "die":
                os.kill(os.getpid(), signal.SIGKILL)
            raise OSError(errno.EIO, "Input/output error")
        return self.source.read(start, stop)

    def take(self, rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return self.source.take(rows)
