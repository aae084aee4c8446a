"""The folder of an unfinished ``assign``: who writes it, what it is about, and what of it is done."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from streamcurate import objects
from streamcurate.embeddings.claim import Claim
from streamcurate.embeddings.snapshot import SNAPSHOT_NAME, Snapshot
from streamcurate.embeddings.store import IDS_NAME, Embeddings
from streamcurate.errors import ChangedStoreError, InputError, RunError, StoreError
from streamcurate.files import check_scratch, move_folder, working_folder
from streamcurate.runs.checkpoints import CHECKPOINTS_NAME, Checkpoints
from streamcurate.runs.lock import LOCK_NAME
from streamcurate.runs.workfolder import JOB_NAME, PLACES_NAME, WorkFolder
from streamcurate.storage import node_kind, open_group_attributes
from streamcurate.storage.copies import send_folder
from streamcurate.tree import Tree
from streamcurate.version import __version__

PARTIAL_SUFFIX = ".partial"
KIND = "labels"
_STORE, _SCRATCH = "store", "scratch"
_METADATA, _CLAIM = "zarr.json", "claim.json"
_OURS = {JOB_NAME, _STORE, _SCRATCH, CHECKPOINTS_NAME, SNAPSHOT_NAME, PLACES_NAME, LOCK_NAME}


class LabelsExistError(InputError):
    """Something lies where labels are to be made: these very labels, perhaps."""


class UnfinishedLabels:
    """``labels.zarr.partial``, locked inside ``with``; labels for a URL are made in a folder of this machine.

    What is left when ``with`` ends is what the same command goes on with.

    Parameters
    ----------
    out : path
        Where the labels are to lie: a folder, or a URL.
    scratch : path, optional
        Folder for intermediate arrays, and for all that is unfinished of labels for a URL.

    Attributes
    ----------
    out : str
    scratch : Path
    checkpoints : Checkpoints
    snapshot : Snapshot or None
        Of the rows, where there is something to go on with.

    Raises
    ------
    LabelsExistError
        Something lies there already.
    InputError
        It cannot be made.
    RunError
        Another process is at it.
    """

    def __init__(self, out: str | os.PathLike[str], scratch: str | os.PathLike[str] | None = None) -> None:
        check_scratch(scratch)
        self.out = os.fspath(out).rstrip("/")
        self._url = objects.is_url(self.out)
        working = working_folder(self._address, "labels", scratch)
        self.folder = working if self._url else Path(self.out + PARTIAL_SUFFIX).absolute()
        self.scratch = self.folder / _SCRATCH if scratch is None or self._url else working
        self.checkpoints = Checkpoints(self.folder / CHECKPOINTS_NAME)
        self.snapshot: Snapshot | None = None
        self._work = WorkFolder(self.folder)

    @property
    def _address(self) -> str:
        return self.out if self._url else os.path.abspath(self.out)

    @property
    def _claim(self) -> str:
        return objects.join(self.out + PARTIAL_SUFFIX, _CLAIM)

    @property
    def store(self) -> Path:
        """Where the labels are put together."""
        return self.folder / _STORE

    def __enter__(self) -> UnfinishedLabels:
        self._refuse_existing()
        parent = self.folder.parent
        if self._url:
            parent.mkdir(parents=True, exist_ok=True)
        elif not parent.exists():
            raise InputError(f"{parent}: no such folder; make it first, or choose another place")
        self._work.make_and_lock()
        try:
            self._refuse_strangers()
            self._make_scratch()
        except OSError as error:
            if self._work.job() is None:  # nothing was begun
                self.clear()
                self._work.remove()
            self._work.release()
            raise InputError(f"{self.scratch}: cannot be made ({error.strerror}); choose another place") from error
        except BaseException:
            self._work.release()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Where nothing was begun, or what was asked for cannot be, there is nothing to go on with.
        refused = isinstance(error, InputError) and not self._anything_finished
        if error is not None and self.folder.exists() and (refused or not (self.folder / SNAPSHOT_NAME).exists()):
            self.clear()
            self._work.remove()
        self._work.release()

    @property
    def _anything_finished(self) -> bool:
        return self.checkpoints.load("new/segment-0") is not None

    def begin(self, tree: Tree, rows: Embeddings) -> str | None:
        """Adopt what lies there if it is about the same tree and rows. Before any process works there.

        Parameters
        ----------
        tree : Tree
        rows : Embeddings

        Returns
        -------
        str or None
            What became of that which lay there, in words.

        Raises
        ------
        RunError
            It is about another tree or other rows, and labels of some are finished; without any it is replaced.
        StoreError
            The rows cannot be read.
        """
        earlier, wanted = self._work.job(), _job_of(tree, rows)
        other = None
        if earlier is not None:
            other = _difference(earlier, wanted)
            if other is None and (snapshot := Snapshot.read(self.folder / SNAPSHOT_NAME)) is not None:
                try:
                    self.snapshot = snapshot.check(rows).check_ids(rows)
                except StoreError as error:
                    if not isinstance(error, ChangedStoreError) and self._anything_finished:  # it cannot be read
                        raise
                    other = _other_rows(earlier, wanted)
                else:
                    self.snapshot.write(self.folder / SNAPSHOT_NAME)
                    self._work.write_job(wanted)  # tree and rows may have been moved
                    return f"{self.folder}: going on with what is done"
            if other is not None and self._anything_finished:
                with suppress(OSError):  # made for nothing, where it is empty
                    self.scratch.rmdir()
                raise RunError(
                    f"{self.folder}: holds unfinished labels {other}; the command that began them goes on "
                    f"with them; to begin anew, remove the folder {self.folder}"
                )
        self.clear()
        self._make_scratch()
        self._work.write_job(wanted)
        return None if other is None else f"{self.folder}: held labels {other}, none of them finished; begun anew"

    def note(self, snapshot: Snapshot) -> None:
        """Note what the rows hold, so that their labels can be gone on with."""
        snapshot.write(self.folder / SNAPSHOT_NAME)

    def finish(self) -> None:
        """Put the labels in their place, complete or not at all, and remove the rest."""
        if self._url:
            self._send()
        else:
            move_folder(self.store, self.out)
        self.clear()
        self._work.remove()

    def _make_scratch(self) -> None:
        self._work.note_scratch(self.scratch)
        self.scratch.mkdir(parents=True, exist_ok=True)

    def clear(self) -> None:
        """Remove everything but the lock."""
        self._work.clear(self.scratch)

    def _send(self) -> None:
        """Put all objects where no other process does the same meanwhile."""
        claim = Claim(self._claim, self.out)
        claim.take()
        try:
            if objects.exists(objects.join(self.out, _METADATA)):
                raise self._exists()
            self._send_claimed(claim)
        finally:
            with suppress(InputError):  # the next finds out that this process is gone
                claim.release(None)

    def _send_claimed(self, claim: Claim) -> None:
        """Put all objects, the group's own metadata last: without it there are no labels."""
        send_folder(self.store, self.out, [_METADATA], lambda: claim.say({}) if claim.silent else None)
        claim.require({})
        if not objects.create(objects.join(self.out, _METADATA), (self.store / _METADATA).read_bytes()):
            raise self._exists()

    def _refuse_existing(self) -> None:
        if self._url and not objects.exists(objects.join(self.out, _METADATA)):
            # What a killed process sent is not there until the group's metadata is.
            foreign = (found.url.removeprefix(f"{self.out}/") for found in objects.listing(self.out))
            if all(name.startswith(("level-", f"{IDS_NAME}/")) for name in foreign):
                return
        elif not objects.exists(self.out):
            return
        # An assign never begins where its labels are: what lies beside them is left of the one that made them.
        if self._work.job() is not None:
            with suppress(InputError), self._work:
                self.clear()
                self._work.remove()
                if self._url:
                    objects.delete(self._claim)
        raise self._exists()

    def _exists(self) -> LabelsExistError:
        return LabelsExistError(f"{self.out}: already exists; choose another place or remove it first")

    def _refuse_strangers(self) -> None:
        names = self._work.names()
        if node_kind(self.folder) == "group" and open_group_attributes(self.folder).get("kind") == KIND:
            return  # begun by an earlier version
        if strangers := names - _OURS:
            raise InputError(
                f"{self.folder}: in the way, and not an unfinished assign (it holds {sorted(strangers)[0]!r}); "
                "move it or choose another place"
            )


def _job_of(tree: Tree, rows: Embeddings) -> dict[str, Any]:
    """What is labelled, and by what."""
    job = {"format": 1, "kind": KIND, "engine": __version__, "tree": str(tree.digest), "run": tree.path}
    return job | {"embeddings": rows.description()["path"] or rows.name}


def _difference(earlier: dict[str, Any], wanted: dict[str, Any]) -> str | None:
    """How labels begun before differ in all but their rows, in words; None where they do not."""
    if earlier.get("tree") != wanted["tree"]:
        run = earlier.get("run", "another tree")
        return f"by {run} of digest {earlier.get('tree')}, not by {wanted['run']} of digest {wanted['tree']}"
    if any(earlier.get(key) != wanted[key] for key in ("format", "kind", "engine")):
        return f"begun by streamcurate {earlier.get('engine')}; this is {wanted['engine']}, whose results may differ"
    return None


def _other_rows(earlier: dict[str, Any], wanted: dict[str, Any]) -> str:
    before, now = earlier.get("embeddings", "other rows"), wanted["embeddings"]
    return f"of other rows than {now} holds now" if before == now else f"of {before}, not of {now}"
