"""An unfinished ingest at an object store: the store is written in its place, its metadata last of all.

Without the metadata of its group nobody takes what lies there for a store. ``<store>.partial/`` holds nothing but
state: ``state.json``, the claim of the process that writes, with the job and how far it is, and ``notes-*`` with what
has grown too long for it. ``state.json`` is one object, so that job, progress and digests always fit together.
"""

from __future__ import annotations

import base64
import json
import re
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from threading import Thread
from types import TracebackType
from typing import Any

import xxhash

from streamcurate import objects
from streamcurate.embeddings.claim import Claim
from streamcurate.embeddings.store import ARRAY_NAME, IDS_NAME
from streamcurate.embeddings.unfinished import STATE_NAMES, Arrays, Layout, Progress, refuse_other
from streamcurate.errors import InputError, StoreError
from streamcurate.storage import array_metadata, group_metadata, unannounced_array, with_rows

_STATE, _NOTES = STATE_NAMES[1], "notes-"
_METADATA = "zarr.json"
# What the state holds itself of digests and marks, before they go into an object of their own.
_NOTE_BYTES = 64 << 10
_MARK_BYTES = 8
# For so long the claim is tried to be given back when the process is stopped.
_STOPPED_SECONDS = 3.0
_FILE = re.compile(rf"(?:({ARRAY_NAME})/c/(\d+)/0|({IDS_NAME})/c/(\d+))")


@dataclass(frozen=True)
class State:
    """What ``state.json`` says beside the claim.

    Attributes
    ----------
    job : dict
        What is ingested; empty where what was written is of no use any more.
    progress : Progress
    file_rows, ids_rows : int
        Rows of an object of embeddings, of ids.
    reach : int
        Rows whose objects may have been written, noted or not.
    sealing : bool
        Whether metadata of the arrays may have been written.
    notes : tuple of str
        Names of the objects that hold what came before ``digests`` and ``marks``.
    digests : bytes
        Of fingerprint units, 16 bytes each.
    marks : bytes
        Of the objects of every commit, 8 bytes each: first that of embeddings, then those of ids.
    """

    job: dict[str, Any] = field(default_factory=dict)
    progress: Progress = field(default_factory=Progress)
    file_rows: int = 1
    ids_rows: int = 1
    reach: int = 0
    sealing: bool = False
    notes: tuple[str, ...] = ()
    digests: bytes = b""
    marks: bytes = b""

    def value(self) -> dict[str, Any]:
        """As JSON values."""
        text = {name: base64.b64encode(getattr(self, name)).decode() for name in ("digests", "marks")}
        return asdict(self) | {"notes": list(self.notes)} | text

    @classmethod
    def of(cls, value: dict[str, Any]) -> State:
        """From JSON values.

        Raises
        ------
        ValueError, TypeError
            They are not of this version.
        """
        known = {name: value[name] for name in cls.__dataclass_fields__ if name in value}
        if "progress" in known:
            known["progress"] = Progress(**known["progress"])
        known |= {name: base64.b64decode(known[name]) for name in ("digests", "marks") if name in known}
        return cls(**known | {"notes": tuple(known.get("notes", ()))})


class Upload:
    """The objects of an unfinished ingest, claimed as long as it is open.

    Parameters
    ----------
    target : str
        URL of the store.
    place : str
        URL under which the state lies.

    Raises
    ------
    InputError
        Something else lies there.
    RunError
        Another process is ingesting to the same place, or has taken over.
    ObjectError
        The object store does not answer.
    """

    def __init__(self, target: str, place: str) -> None:
        if objects.is_web(target):
            raise InputError(
                f"{target}: web servers take no stores; give a URL of s3://, gs:// or az://, or a path on a disk"
            )
        if "/" not in target.partition("://")[2]:
            raise InputError(f"{target}: a whole bucket; name the store in it, such as {target}/embeddings.zarr")
        self.place, self._target = place, target
        self._claim = Claim(objects.join(place, _STATE), target)
        self._state = State()
        self._layout: Layout | None = None
        self._arrays: Arrays | None = None
        self._rows = 0

    def __enter__(self) -> Upload:
        if objects.status(self._target) is not None:
            raise InputError(f"{self._target}: already exists, and is no store; choose another destination")
        self._refuse_strangers()
        value = self._claim.take()
        try:
            self._state = State.of(value or {})
        except (TypeError, ValueError) as error:
            self._claim.release(value)
            raise InputError(
                f"{self._claim.url}: the state of an ingest of another version ({error}); finish it with that one, or "
                f"remove it and {self._target}"
            ) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A claim that cannot be given back is found out by the next: its process is gone.
        value = self._state.value() if self._state.job or self._state.reach else None
        if kind is None or issubclass(kind, Exception):
            with suppress(InputError):
                self._claim.release(value)
            return

        def release() -> None:
            with suppress(BaseException):
                self._claim.release(value)

        # Stopped, perhaps because the store does not answer: whoever stops a process does not wait for that.
        thread = Thread(target=release, name="streamcurate-release", daemon=True)
        thread.start()
        thread.join(_STOPPED_SECONDS)

    def exists(self) -> bool:
        """Whether there is any state."""
        return objects.status(self._claim.url) is not None

    def begin(self, job: dict[str, Any]) -> bool:
        """Adopt what lies there if it is of the same job, else clear it; whether what was cleared was damaged."""
        same = self._state.job.get("identity") == job["identity"]
        damaged = not self._state.job and self._state.reach > 0
        if not same:
            if self._state.job:
                refuse_other(self.place, self._target, self._state.job, job, self.progress.stored)
            self._clear()
        for found in objects.listing(self._target):
            if not self._is_mine(name := self._name(found.url)):
                raise InputError(
                    f"{self._target}: already holds {name}, which no unfinished ingest wrote; "
                    "remove it or choose another destination"
                )
        if not same:
            self._say(job=job)
        return damaged

    @property
    def job(self) -> dict[str, Any]:
        """What is ingested."""
        return self._state.job

    @property
    def progress(self) -> Progress:
        """How far it is."""
        return self._state.progress

    def digests(self, units: int) -> bytes | None:
        """Digests of the first ``units`` units, None where they are not all there."""
        found = self._noted("digests")
        return found if len(found) == 16 * units else None

    def commit(self, progress: Progress, units: int, new_digests: bytes) -> None:
        """Note, durably, that the files up to ``progress`` are written."""
        assert self._layout is not None
        marks = b""
        for name in _files(self._layout, self.progress.stored, progress.stored):
            found = objects.status(objects.join(self._target, name))
            if found is None:
                raise self._changed(name)
            marks += _mark(found)
        reach = progress.stored + self._layout.file_rows
        digests, marks, notes = self._state.digests + new_digests, self._state.marks + marks, self._state.notes
        if len(digests) + len(marks) >= _NOTE_BYTES:
            notes, digests, marks = (*notes, self._lay_down(digests, marks)), b"", b""
        self._say(progress=progress, reach=reach, notes=notes, digests=digests, marks=marks)

    def alive(self) -> None:
        """Say now and then that this process is alive."""
        if self._claim.silent:
            self._say()

    def require(self) -> None:
        """Be told, before anything is overwritten, where another process has taken over."""
        self._claim.require(self._state.value())

    def check_space(self, needed: int) -> None:
        """Object stores take what they are given."""

    # -- the store under way -----------------------------------------------------------------------------------------

    def create(self, layout: Layout) -> Arrays:
        """Begin the store from its first row."""
        self._say(
            progress=Progress(),
            file_rows=layout.file_rows,
            ids_rows=layout.ids_chunk_rows,
            reach=max(self._state.reach, layout.file_rows),
            notes=(),
            digests=b"",
            marks=b"",
        )
        return self._open(layout)

    def reopen(self, layout: Layout) -> Arrays | None:
        """The store as far as it is; None where a noted object is not there as it was written."""
        if (self._state.file_rows, self._state.ids_rows) != (layout.file_rows, layout.ids_chunk_rows):
            return None
        arrays = self._open(layout)
        return arrays if self._first_changed(layout, self.progress.stored) is None else None

    def cut(self, rows: int) -> Arrays:
        """Set the length of the arrays."""
        assert self._arrays is not None
        array, ids = self._arrays
        self._rows = rows
        self._arrays = Arrays(with_rows(array, rows), None if ids is None else with_rows(ids, rows))
        return self._arrays

    def seal(self, attributes: dict[str, Any]) -> None:
        """See that every object is there as it was written, then announce the arrays, then the store."""
        assert self._layout is not None
        assert self._arrays is not None
        self._say(sealing=True)
        changed = self._first_changed(self._layout, self._rows)
        if changed is not None:
            raise self._changed(changed)
        for name, array in zip((ARRAY_NAME, IDS_NAME), self._arrays, strict=True):
            if array is not None:
                objects.write(objects.join(self._target, name, _METADATA), array_metadata(array))
        self._say()  # and be told by it, should another have taken over
        if objects.replace(objects.join(self._target, _METADATA), group_metadata(attributes), None) is None:
            raise self._changed(_METADATA)

    def finish(self, out: str) -> None:
        """The store stands; remove the state."""
        self._forget()

    def remove(self) -> None:
        """Remove everything that this ingest wrote; a finished store stays."""
        if not self._claim.held:
            return
        self.require()
        if objects.status(objects.join(self._target, _METADATA)) is None:
            self._clear()
        self._forget()

    def _forget(self) -> None:
        self._remove_notes()
        self._claim.release(None)

    def _clear(self) -> None:
        """Remove the objects that the state says were written.

        Job and progress go first: whatever a kill in between leaves is of no job, and is cleared by the next.
        """
        if self._state.reach:
            self._say(job={}, progress=Progress())
            # Listed before anything is removed: pages of a list that shrinks may skip.
            mine = [found.url for found in objects.listing(self._target) if self._is_mine(self._name(found.url))]
            objects.delete_many(mine)
        self._remove_notes()
        self._state = State()

    # -- objects -----------------------------------------------------------------------------------------------------

    def _open(self, layout: Layout) -> Arrays:
        self._layout, self._rows = layout, layout.shape[0]
        url, shape = objects.join(self._target, ARRAY_NAME), layout.shape
        array = unannounced_array(url, shape, layout.dtype, layout.chunk_rows, shard_rows=layout.shard_rows)
        ids = None
        if layout.ids is not None:
            ids = unannounced_array(objects.join(self._target, IDS_NAME), shape[:1], layout.ids, layout.ids_chunk_rows)
        self._arrays = Arrays(array, ids)
        return self._arrays

    def _first_changed(self, layout: Layout, rows: int) -> str | None:
        """The first object of these rows that is absent, or not as it was noted."""
        marks = self._noted("marks")
        # Of every commit: the file of embeddings, then those of ids.
        each = 0 if layout.ids is None else -(-layout.file_rows // layout.ids_chunk_rows)
        seen = bytearray(self.progress.stored // layout.file_rows * (each + 1))
        if len(marks) != _MARK_BYTES * len(seen):
            return _STATE
        awaited = set(_files(layout, self.progress.stored, rows))
        for found in objects.listing(self._target):
            name = self._name(found.url)
            awaited.discard(name)
            place = _FILE.fullmatch(name)
            if place is None:
                continue
            commit, ids = (int(place[2]), 0) if place[1] else divmod(int(place[4]), max(each, 1))
            at = commit * (each + 1) + (0 if place[1] else ids + 1)
            if at < len(seen) and marks[at * _MARK_BYTES : (at + 1) * _MARK_BYTES] == _mark(found):
                seen[at] = 1
        if b"\0" in seen:
            commit, ids = divmod(seen.index(0), each + 1)
            return f"{IDS_NAME}/c/{commit * each + ids - 1}" if ids else f"{ARRAY_NAME}/c/{commit}/0"
        return min(awaited, default=None)

    def _is_mine(self, name: str) -> bool:
        """Whether the state says that this ingest wrote, or was about to write, an object of the store."""
        if name in (f"{ARRAY_NAME}/{_METADATA}", f"{IDS_NAME}/{_METADATA}"):
            return self._state.sealing
        found = _FILE.fullmatch(name)
        if found is None:
            return False
        state = self._state
        start = int(found[2]) * state.file_rows if found[1] else int(found[4]) * state.ids_rows
        return start < state.reach

    def _changed(self, name: str) -> StoreError:
        return StoreError(
            f"{objects.join(self._target, name)}: is not as this ingest wrote it; does another process write or remove "
            "there? See to it, and give the same command again"
        )

    def _name(self, url: str) -> str:
        return url.removeprefix(f"{self._target}/")

    # -- state -------------------------------------------------------------------------------------------------------

    def _say(self, **changes: Any) -> None:
        """Change the state, there first and then here."""
        state = replace(self._state, **changes)
        self._claim.say(state.value())
        self._state = state

    def _lay_down(self, digests: bytes, marks: bytes) -> str:
        """Put digests and marks into an object of their own; its name."""
        note = {"digests": base64.b64encode(digests).decode(), "marks": base64.b64encode(marks).decode()}
        data = json.dumps(note).encode()
        # Named by what it says, so that nobody overwrites what another state speaks of.
        name = f"{_NOTES}{len(self._state.notes):06d}-{xxhash.xxh3_64_hexdigest(data)}"
        objects.write(objects.join(self.place, name), data)
        return name

    def _noted(self, what: str) -> bytes:
        """All digests, or all marks; fewer than there are where a note is lost."""
        found = bytearray()
        for name in self._state.notes:
            with suppress(ValueError, KeyError, TypeError):
                note = json.loads(objects.contents(objects.join(self.place, name)) or b"{}")
                found += base64.b64decode(note[what])
        return bytes(found + getattr(self._state, what))

    def _remove_notes(self) -> None:
        urls = [found.url for found in objects.listing(self.place)]
        objects.delete_many([url for url in urls if objects.base_name(url).startswith(_NOTES)])

    def _refuse_strangers(self) -> None:
        for found in objects.listing(self.place):
            name = found.url.removeprefix(f"{self.place}/")
            if not name.startswith((_STATE, _NOTES)):
                raise InputError(
                    f"{self.place}: in the way, and not an unfinished ingest (it holds {name!r}); "
                    "move it or choose another destination"
                )


def _files(layout: Layout, start: int, stop: int) -> list[str]:
    """Names of the objects that hold rows ``start`` to ``stop``, both ends of files; in the order of their marks."""
    files = [f"{ARRAY_NAME}/c/{i}/0" for i in range(start // layout.file_rows, -(-stop // layout.file_rows))]
    if layout.ids is not None:
        step = layout.ids_chunk_rows
        files += [f"{IDS_NAME}/c/{i}" for i in range(start // step, -(-stop // step))]
    return files


def _mark(found: objects.Status) -> bytes:
    """Eight bytes that tell one state of an object from another, however the store is asked for it."""
    state = f"{found.size} {found.etag or found.modified_ns}"
    return xxhash.xxh3_64_digest(state.encode())
