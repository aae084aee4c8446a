"""What a store held when a run began: checksums of its rows, and the stamps of its files, to tell a change cheaply."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, replace

from streamcurate import objects
from streamcurate.embeddings.fingerprint import fingerprint, unit_digests_of, unit_rows
from streamcurate.embeddings.store import Embeddings
from streamcurate.errors import ChangedStoreError, RunError
from streamcurate.files import write_json

SNAPSHOT_NAME = "store.json"
# Units of 4 MiB read where a store's files look changed, the first and the last among them.
_SAMPLES = 16


@dataclass(frozen=True)
class Snapshot:
    """Checksums of every unit of rows, and size and time of every stored chunk.

    Attributes
    ----------
    shape : (rows, dims)
    dtype : str
    digests : tuple of str
        One for each unit of rows (see ``embeddings/fingerprint.py``).
    stamps : tuple of (bytes, modification time in ns, or what tells one state of an object from another)
        One for each stored chunk; none for an array in memory.
    id_digests, id_stamps : tuple
        Checksum, and size and time, of each stored chunk of the ids; none where there are no ids.
    """

    shape: tuple[int, int]
    dtype: str
    digests: tuple[str, ...]
    stamps: tuple[tuple[int, int], ...]
    id_digests: tuple[str, ...] = ()
    id_stamps: tuple[tuple[int, int], ...] = ()

    @classmethod
    def of(cls, embeddings: Embeddings, digests: list[str], stamps: tuple[tuple[int, int], ...]) -> Snapshot:
        """A snapshot from the checksums that a pass took; the stamps must have been read before that pass."""
        shape = (embeddings.rows, embeddings.dims)
        return cls(shape, embeddings.dtype.name, tuple(digests), stamps).with_ids_of(embeddings)

    def with_ids_of(self, embeddings: Embeddings) -> Snapshot:
        """The same values, with the ids as they are now."""
        stamps = _id_stamps(embeddings)
        digests = tuple(_id_digest(embeddings, chunk) for chunk in range(len(stamps)))
        return replace(self, id_digests=digests, id_stamps=stamps)

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the whole content."""
        return fingerprint(self.shape, self.dtype, self.digests)

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write as JSON, complete or not at all."""
        write_json(path, asdict(self))

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Snapshot | None:
        """Read back; None where there is none.

        Raises
        ------
        RunError
            The file is no snapshot.
        """
        try:
            content = objects.contents(path)
            if content is None:
                return None
            value = json.loads(content)
            rows, dims = value["shape"]
            stamps = tuple((int(size), int(time)) for size, time in value["stamps"])
            id_stamps = tuple((int(size), int(time)) for size, time in value["id_stamps"])
            digests, id_digests = tuple(value["digests"]), tuple(value["id_digests"])
            return cls((int(rows), int(dims)), str(value["dtype"]), digests, stamps, id_digests, id_stamps)
        except (ValueError, KeyError, TypeError) as error:
            raise RunError(f"{path}: unreadable ({error}); restore the file, or begin a new run elsewhere") from error

    def check(self, embeddings: Embeddings) -> Snapshot:
        """Make sure that the embeddings still are what they were; chunks whose size or time changed are read again.

        Returns
        -------
        Snapshot
            With the stamps of now.

        Raises
        ------
        StoreError
            The content changed, or a chunk is gone.
        """
        shape = (embeddings.rows, embeddings.dims)
        if shape != self.shape or embeddings.dtype.name != self.dtype:
            raise ChangedStoreError(
                f"{embeddings.name}: changed since the run began: {self.shape[0]:,} x {self.shape[1]} {self.dtype} "
                f"then, {shape[0]:,} x {shape[1]} {embeddings.dtype.name} now; put the store back, or begin a new run "
                "elsewhere"
            )
        now = stamps_of(embeddings)
        step = unit_rows(embeddings.dims, embeddings.dtype)
        units: set[int] = set()
        if len(now) == len(self.stamps) and now:
            for chunk, (before, after) in enumerate(zip(self.stamps, now, strict=True)):
                if before != after:
                    start = chunk * embeddings.chunk_rows
                    stop = min(start + embeddings.chunk_rows, embeddings.rows)
                    units.update(range(start // step, -(-stop // step)))
        else:
            units.update(range(len(self.digests)))
        self._compare(embeddings, sorted(units))
        return replace(self, stamps=now)

    def check_ids(self, embeddings: Embeddings, most: int | None = None) -> Snapshot:
        """Make sure that the ids still are what they were, as :meth:`check` does for the values.

        Parameters
        ----------
        embeddings : Embeddings
        most : int, optional
            Read no more than so many of the chunks that look changed.

        Raises
        ------
        StoreError
            Ids changed, or are gone.
        """
        if not self.id_stamps:  # ids given to rows that had none contradict nothing
            return self.with_ids_of(embeddings) if most is None else self
        now = _id_stamps(embeddings)
        if len(now) != len(self.id_stamps):
            raise ChangedStoreError(
                f"{embeddings.name}: its ids changed since the run began ({len(self.id_stamps)} chunks then, "
                f"{len(now)} now); put them back, or begin a new run elsewhere"
            )
        touched = [chunk for chunk, stamp in enumerate(now) if stamp != self.id_stamps[chunk]]
        for chunk in touched[:most]:
            if _id_digest(embeddings, chunk) != self.id_digests[chunk]:
                raise ChangedStoreError(
                    f"{embeddings.name}: its ids changed since the run began (chunk {chunk}); "
                    "put them back, or begin a new run elsewhere"
                )
        return replace(self, id_stamps=now)

    def spot_check(self, embeddings: Embeddings) -> None:
        """Make sure at little cost that these are the embeddings: where files differ in size or time, read samples.

        Raises
        ------
        StoreError
            A sample differs.
        """
        if stamps_of(embeddings) != self.stamps:
            count = len(self.digests)
            self._compare(embeddings, sorted({index * (count - 1) // _SAMPLES for index in range(_SAMPLES + 1)}))
        self.check_ids(embeddings, _SAMPLES)

    def _compare(self, embeddings: Embeddings, units: list[int]) -> None:
        step = unit_rows(embeddings.dims, embeddings.dtype)
        for unit in units:
            if unit_digests_of(embeddings, [unit])[0] != self.digests[unit]:
                first, last = unit * step, min((unit + 1) * step, embeddings.rows) - 1
                height = embeddings.chunk_rows
                chunks = range(first // height, last // height + 1)
                # A unit may span several chunks: the one to name is one whose file is not what it was.
                now = stamps_of(embeddings) if len(chunks) > 1 else ()
                differ = (one for one in chunks if one < len(now) and now[one : one + 1] != self.stamps[one : one + 1])
                if (chunk := next(differ, None)) is not None:
                    first, last = max(first, chunk * height), min(last, (chunk + 1) * height - 1)
                raise ChangedStoreError(
                    f"{embeddings.name}: changed since the run began: rows {first} to {last} "
                    f"(chunk {first // height}) hold other values now; "
                    "put the store back, or begin a new run elsewhere"
                )


def _id_stamps(embeddings: Embeddings) -> tuple[tuple[int, int], ...]:
    return () if embeddings.ids is None else tuple(embeddings.ids.stamps())


def _id_digest(embeddings: Embeddings, chunk: int) -> str:
    assert embeddings.ids is not None
    return embeddings.ids.stored_digest(chunk)


def stamps_of(embeddings: Embeddings) -> tuple[tuple[int, int], ...]:
    """Size and time of every stored chunk; empty for an array in memory."""
    return tuple(embeddings.array.stamps()) if embeddings.array is not None else ()
