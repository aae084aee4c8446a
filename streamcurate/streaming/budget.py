"""How much memory there is, and how large a block may be.

The one place where bytes are compared with the limit; ``plan`` asks the same functions.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from streamcurate.errors import ConfigError, MemoryLimitError

SMALLEST_LIMIT = 512 << 20
# Measured: importing numpy, numba, zarr and compiling the kernels leaves 200 to 230 MiB resident.
_INTERPRETER_BYTES = 230 << 20
# Allocator fragmentation, Python objects, buffers of libraries: a share of the limit no plan counts on.
_SLACK_SHARE = 0.20
# Larger blocks than this gain nothing (the kernels tile inside a block) and cost latency.
_LARGEST_BLOCK_BYTES = 16 << 20
_LARGEST_BLOCK_ROWS = 1 << 16
_SMALLEST_BLOCK_ROWS = 64
# A block of fewer operations than this is cheaper to run than to hand to a thread.
_WORTHWHILE_OPERATIONS = 2e7


def available_bytes() -> int:
    """Memory this process may still take: the smallest of what the machine has free and what the cgroup leaves."""
    import psutil

    free = int(psutil.virtual_memory().available)
    for limit, used in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ):
        try:
            most, now = Path(limit).read_text().strip(), int(Path(used).read_text())
        except (OSError, ValueError):
            continue
        if most.isdigit():
            free = min(free, max(int(most) - now, 0))
    return free


def available_threads() -> int:
    """Processors this process may run on."""
    return max(len(os.sched_getaffinity(0)), 1) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class Cost:
    """What a pass takes, for the block plan.

    Attributes
    ----------
    fixed_bytes : int
        State and accumulated results, held once a process.
    thread_bytes : int
        Work space of one block under way, whatever its size.
    row_bytes : int
        For each row of a block under way, beside the row itself: columns, outputs, partial results.
    row_operations : int
        Arithmetic operations a row, to judge whether sharing a small source among threads pays.
    device_bytes : int
        State held in the memory of a GPU, where one computes.
    """

    fixed_bytes: int = 0
    thread_bytes: int = 0
    row_bytes: int = 0
    row_operations: int = 0
    device_bytes: int = 0


@dataclass(frozen=True)
class MemoryBudget:
    """The memory limit of one process.

    Attributes
    ----------
    limit : int
        Bytes the process may have resident, the interpreter included.
    threads : int
        Blocks computed at a time.
    prefetch : int
        Blocks read ahead.
    held : int
        Bytes already spoken for by what stays in memory across passes.
    device : int or None
        Bytes of a GPU's memory that plans may hand out; None where the CPU computes.
    """

    limit: int
    threads: int
    prefetch: int = 1
    held: int = 0
    device: int | None = None

    @classmethod
    def of(cls, limit: int | str | None, threads: int | None = None, prefetch: bool = True) -> MemoryBudget:
        """A budget from a user's limit, bytes or text such as ``4GiB``; None takes half of what is available.

        Raises
        ------
        ConfigError
            The limit is below 512 MiB, or not understood.
        """
        if limit is None:
            limit = max(available_bytes() // 2, SMALLEST_LIMIT)
        elif isinstance(limit, str):
            limit = parse_bytes(limit)
        if limit < SMALLEST_LIMIT:
            raise ConfigError(
                f"memory limit {format_bytes(limit)}: the smallest supported is {format_bytes(SMALLEST_LIMIT)}"
            )
        return cls(limit, threads or available_threads(), 1 if prefetch else 0)

    @property
    def usable(self) -> int:
        """Bytes that plans may hand out."""
        return int((self.limit - _INTERPRETER_BYTES) * (1 - _SLACK_SHARE)) - self.held

    def share(self, part: float) -> MemoryBudget:
        """A budget of one thread that may use this part of what is usable: for independent work side by side."""
        return replace(self, threads=1, prefetch=0, held=self.held + int(self.usable * (1 - part)))

    def require(self, needed: int, what: str, fix: str) -> None:
        """Refuse what does not fit.

        Raises
        ------
        MemoryLimitError
            Naming both numbers, the limit that would do, and ``fix``.
        """
        if needed > self.usable:
            enough = int((needed + self.held) / (1 - _SLACK_SHARE)) + _INTERPRETER_BYTES
            raise MemoryLimitError(
                f"{what} needs {format_bytes(needed)} of working memory, and the memory limit of "
                f"{format_bytes(self.limit)} leaves {format_bytes(self.usable)}; "
                f"give --memory-limit {-(-enough // (1 << 20))}MiB or more, or {fix}"
            )

    def fits(self, rows: int, row_bytes: int, overhead: int, cost: Cost) -> bool:
        """Whether a pass could run in blocks of so many rows."""
        if self.device is not None and cost.device_bytes > self.device:
            return False
        return self._needed(rows, row_bytes, overhead, cost) <= self.usable

    def _needed(self, rows: int, row_bytes: int, overhead: int, cost: Cost) -> int:
        fixed = cost.fixed_bytes + overhead + self.threads * cost.thread_bytes
        return fixed + (self.threads + self.prefetch) * _each(row_bytes, cost) * rows

    def block_rows(self, name: str, rows: int, row_bytes: int, overhead: int, cost: Cost) -> int:
        """Rows of a block, such that all blocks under way fit.

        Parameters
        ----------
        name : str
            What is planned, for the message.
        rows : int
            Rows to be read in all.
        row_bytes : int
            Bytes of one row as stored (0 where the rows themselves are not read).
        overhead : int
            Bytes the source takes beside the rows read.
        cost : Cost

        Raises
        ------
        MemoryLimitError
            Not even a small block fits.
        """
        smallest = self._needed(min(_SMALLEST_BLOCK_ROWS, max(rows, 1)), row_bytes, overhead, cost)
        self.require(smallest, name, "choose fewer clusters for this level")
        if self.device is not None and cost.device_bytes > self.device:
            raise MemoryLimitError(
                f"{name} needs {format_bytes(cost.device_bytes)} of the GPU's memory, of which plans may use "
                f"{format_bytes(self.device)}; choose fewer clusters for this level, or give --device cpu"
            )
        each = _each(row_bytes, cost)
        fixed = self._needed(0, row_bytes, overhead, cost)
        fitting = (self.usable - fixed) // ((self.threads + self.prefetch) * each)
        block = max(min(fitting, _LARGEST_BLOCK_ROWS, _LARGEST_BLOCK_BYTES // each), _SMALLEST_BLOCK_ROWS)
        if rows * cost.row_operations > _WORTHWHILE_OPERATIONS * self.threads:
            # Two blocks a thread, so that none waits long for the other at the end of a small source.
            block = min(block, max(-(-rows // (2 * self.threads)), _SMALLEST_BLOCK_ROWS))
        return int(block)


def _each(row_bytes: int, cost: Cost) -> int:
    """Bytes of one row under way: held once by its reader, and once more where only some rows of a block count."""
    return 2 * row_bytes + cost.row_bytes + 16


@dataclass(frozen=True)
class BlockPlan:
    """Rows ``start`` to ``stop`` cut into blocks whose edges are multiples of ``align`` and keep to stored chunks."""

    rows: int
    block_rows: int

    @classmethod
    def of(cls, rows: int, block_rows: int, chunk_rows: int, align: int = 1) -> BlockPlan:
        """Fit a block size to the chunks: whole chunks where they are smaller, equal parts of one where larger."""
        if align > 1:
            block_rows = max(block_rows // align, 1) * align
        elif chunk_rows < rows:
            if block_rows >= chunk_rows:
                block_rows = block_rows // chunk_rows * chunk_rows
            else:
                block_rows = -(-chunk_rows // -(-chunk_rows // block_rows))
        return cls(rows, block_rows)

    def __len__(self) -> int:
        return -(-self.rows // self.block_rows)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return self.between(0, self.rows)

    def between(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """The blocks of rows ``start`` to ``stop``."""
        for first in range(start, stop, self.block_rows):
            yield first, min(first + self.block_rows, stop)


def format_bytes(count: int) -> str:
    """``1.5 GiB`` and the like."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(value) < 1024 or unit == "TiB":
            break
        value /= 1024
    return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"


def parse_bytes(text: str) -> int:
    """Bytes from ``4GiB``, ``512MiB``, ``2GB`` or a plain number.

    Raises
    ------
    ConfigError
        It is none of these.
    """
    units = {"": 1, "b": 1, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "tib": 1 << 40}
    units |= {"kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
    cleaned = text.strip().lower().replace("_", "")
    number = cleaned.rstrip("abcdefghijklmnopqrstuvwxyz ")
    try:
        return int(float(number) * units[cleaned[len(number) :].strip()])
    except (KeyError, ValueError, OverflowError):
        raise ConfigError(f"memory size {text!r} is not understood; write it like 4GiB, 800MiB or 2GB") from None
