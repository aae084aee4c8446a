"""The folder of work that is not finished yet: made, locked, cleared, and removed with its lock last."""

from __future__ import annotations

import json
import os
import shutil
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from streamcurate.errors import InputError, RunError
from streamcurate.files import TEMPORARY_SUFFIX, write_file, write_json
from streamcurate.runs.lock import LOCK_NAME, RunLock

JOB_NAME = "job.json"
# Where scratch ever was, a line each.
PLACES_NAME = ".scratch"
# The writer before us may finish and remove the folder while we look, but not time and again.
_ROUNDS = 100


class WorkFolder:
    """A folder that one process at a time works in, and that is gone when the work is done.

    ``job.json`` says what the work is; a folder without it holds nothing worth keeping.

    Parameters
    ----------
    path : Path
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = RunLock(path)

    def make_and_lock(self) -> None:
        """Make the folder where there is none, and take its lock.

        Raises
        ------
        InputError
            It cannot be made.
        RunError
            Another process is at it.
        """
        for _ in range(_ROUNDS):
            try:
                self.path.mkdir(exist_ok=True)
                self._lock.acquire()
            except RunError as error:
                # The writer before us has just finished and removed the folder.
                if not isinstance(error.__cause__, FileNotFoundError):
                    raise
                continue
            except OSError as error:
                raise InputError(f"{self.path}: cannot be made ({error.strerror}); choose another place") from error
            # Whoever finishes removes the folder while holding its lock: a lock on a removed file is worth nothing.
            if self._lock.in_place:
                return
            self._lock.release()
        raise InputError(f"{self.path}: vanishes again and again as soon as it is made; choose another place")

    def __enter__(self) -> WorkFolder:
        self.make_and_lock()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def release(self) -> None:
        """Give the lock back."""
        self._lock.release()

    def names(self) -> set[str]:
        """What lies in it, but for files half written."""
        return {name for name in os.listdir(self.path) if not name.endswith(TEMPORARY_SUFFIX)}

    def job(self) -> dict[str, Any] | None:
        """What the work is; None where nothing says so."""
        try:
            value = json.loads((self.path / JOB_NAME).read_bytes())
        except (FileNotFoundError, ValueError):
            return None
        return value if isinstance(value, dict) else None

    def write_job(self, job: dict[str, Any]) -> None:
        """Say what the work is."""
        write_json(self.path / JOB_NAME, job)

    def note_scratch(self, scratch: Path) -> None:
        """Remember where scratch lies, before it does: work that goes on with scratch elsewhere clears it all."""
        known = self._scratch_places()
        if scratch not in known:
            write_file(self.path / PLACES_NAME, "".join(f"{place}\n" for place in [*known, scratch]).encode())

    def _scratch_places(self) -> list[Path]:
        places = self.path / PLACES_NAME
        return [Path(line) for line in places.read_text().splitlines()] if places.exists() else []

    def clear(self, scratch: Path | None = None) -> None:
        """Remove everything but the lock, scratch too, wherever it ever was; first what says that there is something.

        Parameters
        ----------
        scratch : Path, optional
            Where it is now, noted or not.
        """
        (self.path / JOB_NAME).unlink(missing_ok=True)
        for place in {*self._scratch_places(), *([] if scratch is None else [scratch])}:
            shutil.rmtree(place, ignore_errors=True)
        for entry in list(self.path.iterdir()):
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry, ignore_errors=True)
            elif entry.name != LOCK_NAME:
                entry.unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove the folder, its lock last."""
        (self.path / LOCK_NAME).unlink(missing_ok=True)
        with suppress(OSError):  # another process has come to look already, and will find the work done
            self.path.rmdir()
