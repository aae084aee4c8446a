"""Cutting a pass into tasks: ranges of rows, long enough that handing them out costs nothing, short enough to share."""

from __future__ import annotations

# A task takes 0.2 to 1 ms of a Dask scheduler: at two seconds a thousandth. What is lost with a worker is as long.
TASK_SECONDS = 2.0
# The first tasks of a pass are sized by guess, and should be short if the guess is wrong.
_FIRST_SECONDS = 0.5
_GUESSED_OPERATIONS_A_SECOND = 2e10
_GUESSED_BYTES_A_SECOND = 5e8
_GROWTH = 4
# Towards the end of a pass tasks get shorter, so that no worker waits long for the last one.
_SHARE_OF_THE_REST = 3
# Not where each task's sums go through files: then as few as keep all workers busy.
_TASKS_A_WORKER = 2
# Sums too large for messages are written and read again: so many bytes may go with a second of computing.
_SUMS_BYTES_A_SECOND = 1e8


class Ranges:
    """The tasks of a pass, cut as it goes on from how long those before took.

    Parameters
    ----------
    rows : int
    granule : int
        Ranges begin at multiples of so many rows: whole chunks of every output.
    row_bytes, row_operations : int
        Of the pass.
    sums_bytes : int
        Of a partial result that goes through files; 0 where it is small.
    """

    def __init__(self, rows: int, granule: int, row_bytes: int, row_operations: int, sums_bytes: int = 0) -> None:
        self.rows, self.granule = rows, max(granule, 1)
        row_seconds = row_operations / _GUESSED_OPERATIONS_A_SECOND + row_bytes / _GUESSED_BYTES_A_SECOND
        self._seconds = max(TASK_SECONDS, sums_bytes / _SUMS_BYTES_A_SECOND)
        first = _FIRST_SECONDS if not sums_bytes else self._seconds
        self._size = first / max(row_seconds, 1e-12)
        self._sums = sums_bytes > 0
        self._cut = 0

    def next(self, workers: int) -> tuple[int, int] | None:
        """The next range for one of so many workers, None at the end."""
        left = self.rows - self._cut
        if left <= 0:
            return None
        workers = max(workers, 1)
        if self._sums:
            wanted = min(self._size, self.rows / (_TASKS_A_WORKER * workers) + 1)
        else:
            wanted = min(self._size, left / (_SHARE_OF_THE_REST * workers) + 1)
        granules = max(round(wanted / self.granule), 1)
        start = self._cut
        self._cut = min(start + granules * self.granule, self.rows)
        return start, self._cut

    def took(self, rows: int, seconds: float) -> None:
        """A range of so many rows took so long."""
        fitting = rows * self._seconds / max(seconds, 1e-3)
        self._size = min(fitting, self._size * _GROWTH)
