"""The log of a run read while it is being written, by another process or on another host."""

from __future__ import annotations

import os
from pathlib import Path

from streamcurate.runs.events import Event, decode_known


class FollowedLog:
    """Gives what was added to a log since it was last asked.

    A line that is still being written waits until it is whole. What another version of streamcurate noted, or a power
    cut left, is passed over: a watcher needs what it understands.

    Parameters
    ----------
    path : path
        ``events.jsonl``; it need not be there yet.

    Attributes
    ----------
    skipped : int
        Lines that were passed over.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.skipped = 0
        self._file: tuple[int, int] | None = None
        self._read = 0

    def read(self) -> tuple[list[Event], bool]:
        """New events, oldest first, and whether they belong to another file: a run begun anew in the same place."""
        try:
            # Opened anew each time: a network file system shows what others wrote to whoever opens the file.
            with self.path.open("rb") as file:
                status = os.fstat(file.fileno())
                own = status.st_dev, status.st_ino
                anew = self._file is not None and own != self._file
                if anew:
                    self._read = 0
                # A torn line that a later process cut off, or less of it: what is whole is never cut.
                self._read = min(self._read, status.st_size)
                self._file = own
                file.seek(self._read)
                content = file.read()
        except FileNotFoundError:
            return [], False
        whole = content[: content.rfind(b"\n") + 1]
        self._read += len(whole)
        events = []
        for line in whole.split(b"\n")[:-1]:
            event = decode_known(line)
            if event is None:
                self.skipped += 1
            else:
                events.append(event)
        return events, anew
