"""Work whose result is a folder or a few files: where it is done, what of it is done, and how it gets into place."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from streamcurate import objects
from streamcurate.errors import InputError, RunError
from streamcurate.files import check_scratch, move_folder, working_folder
from streamcurate.runs.checkpoints import CHECKPOINTS_NAME, Checkpoints
from streamcurate.runs.lock import LOCK_NAME
from streamcurate.runs.workfolder import JOB_NAME, PLACES_NAME, WorkFolder
from streamcurate.storage.copies import send_folder
from streamcurate.version import __version__

PARTIAL_SUFFIX = ".partial"
_RESULT, _SCRATCH = "result", "scratch"
_OURS = {JOB_NAME, CHECKPOINTS_NAME, _RESULT, _SCRATCH, PLACES_NAME, LOCK_NAME}


class UnfinishedWork:
    """``OUT.partial``, locked inside ``with``; the work of a result at a URL is done in a folder of this machine.

    What is left when ``with`` ends is what the same command goes on with.

    Parameters
    ----------
    out : path
        Where the result is to lie: a path, or a URL.
    kind : str
        The command: "dedup".
    scratch : path, optional
        Folder for intermediate files, and for all that is unfinished of a result at a URL.

    Attributes
    ----------
    out : str
    folder : Path
        Of all that is unfinished.
    scratch : Path
        For what is made again when it is lost. It exists inside ``with``, after :meth:`begin`.
    checkpoints : Checkpoints
    result : Path
        Folder in which the result is put together; exists after :meth:`begin`.

    Raises
    ------
    InputError
        The folder cannot be made, or something else lies in its place.
    RunError
        Another process is at it.
    """

    def __init__(self, out: str | os.PathLike[str], kind: str, scratch: str | os.PathLike[str] | None = None) -> None:
        check_scratch(scratch)
        self.out, self._kind = os.fspath(out).rstrip("/"), kind
        self._url = objects.is_url(self.out)
        if not self._url and os.path.basename(self.out) in ("", os.curdir, os.pardir):
            raise InputError(f"{os.fspath(out)!r}: is no place for the result of {kind}; give the path of a new one")
        address = self.out if self._url else os.path.abspath(self.out)
        working = working_folder(address, kind, scratch)
        self.folder = working if self._url else Path(self.out + PARTIAL_SUFFIX).absolute()
        self.scratch = self.folder / _SCRATCH if scratch is None or self._url else working
        self.checkpoints = Checkpoints(self.folder / CHECKPOINTS_NAME)
        self.result = self.folder / _RESULT
        self._work = WorkFolder(self.folder)

    def __enter__(self) -> UnfinishedWork:
        parent = self.folder.parent
        if self._url:
            parent.mkdir(parents=True, exist_ok=True)
        elif not parent.is_dir():
            raise InputError(f"{self.folder}: the folder {parent} does not exist; make it first")
        self._work.make_and_lock()
        if strangers := self._work.names() - _OURS:
            self._work.release()
            raise InputError(
                f"{self.folder}: in the way, and not an unfinished {self._kind} (it holds {sorted(strangers)[0]!r}); "
                "move it or choose another place"
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            # Where nothing is done there is nothing to go on with.
            if error is not None and self.folder.exists() and not self.anything_finished:
                self._remove()
        finally:
            self._work.release()

    @property
    def anything_finished(self) -> bool:
        """Whether a step is done that would have to be done again."""
        return any(self.checkpoints.folder.glob("*.json"))

    def begin(self, identity: Mapping[str, Any]) -> str | None:
        """Adopt what lies there if it is the same work. Before any process works there.

        Parameters
        ----------
        identity : mapping of JSON values
            All that the result depends on; the engine's version is added.

        Returns
        -------
        str or None
            What became of that which lay there, in words.

        Raises
        ------
        RunError
            It is other work, and steps of it are finished; without any it is replaced.
        """
        wanted = {"format": 1, "kind": self._kind, "engine": __version__, **identity}
        earlier = self._work.job()
        other = None if earlier is None else difference(earlier, wanted)
        said = None
        if other is not None and self.anything_finished:
            raise RunError(
                f"{self.folder}: holds an unfinished {self._kind} with {other}; the command that began it goes on with "
                f"it; to begin anew, remove the folder {self.folder}"
            )
        if earlier is not None and other is None and self.anything_finished:
            said = f"{self.folder}: going on with what is done"
        else:
            self._work.clear(self.scratch)
        self._work.note_scratch(self.scratch)
        try:
            self.scratch.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{self.scratch}: cannot be made ({error.strerror}); choose another --scratch") from error
        self.result.mkdir(exist_ok=True)
        self._work.write_job(wanted)
        return said

    def finish(self, last: str) -> None:
        """Put the folder ``result`` in its place, complete or not at all, and remove the rest.

        Parameters
        ----------
        last : str
            The file of it without which the result is not there: at a URL it is sent when all others are there.

        Raises
        ------
        InputError
            Something lies there by now.
        """
        if objects.exists(objects.join(self.out, last) if self._url else self.out):
            raise InputError(f"{self.out}: already exists; choose another place or remove it first")
        if self._url:
            send_folder(self.result, self.out, [last])
            objects.write(objects.join(self.out, last), (self.result / last).read_bytes())
        else:
            move_folder(self.result, self.out)
        self._remove()

    def discard(self) -> None:
        """Remove everything: the result lies where it belongs."""
        self._remove()

    def _remove(self) -> None:
        self._work.clear(self.scratch)
        self._work.remove()


def difference(earlier: Mapping[str, Any], wanted: Mapping[str, Any]) -> str | None:
    """How work begun before differs, in words; None where it does not."""
    for key in [*wanted, *(earlier.keys() - wanted.keys())]:
        before, now = earlier.get(key), wanted.get(key)
        if before != now:
            return f"{key.replace('_', ' ')} {_shown(before)} instead of {_shown(now)}"
    return None


def _shown(value: object) -> str:
    return "none" if value is None else repr(value) if isinstance(value, str) else str(value)
