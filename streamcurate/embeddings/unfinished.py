"""What an unfinished ingest is, wherever it lies: a store under way, a note of the job, and how far it is."""

from __future__ import annotations

from dataclasses import dataclass
from types import TracebackType
from typing import Any, NamedTuple, Protocol, Self

import numpy as np

from streamcurate.errors import RunError
from streamcurate.objects import is_url
from streamcurate.storage import StoredArray

# Either of them tells an unfinished ingest: on a disk, and in an object store.
STATE_NAMES = ("job.json", "state.json")


@dataclass(frozen=True)
class Progress:
    """How far an ingest is.

    Attributes
    ----------
    stored : int
        Rows in chunks (in shards, where there are some) that are safely written.
    source, row : int
        Where the next row is read: number of the source, row inside it.
    dropped : int
        Bad rows left out before that place.
    """

    stored: int = 0
    source: int = 0
    row: int = 0
    dropped: int = 0

    @property
    def read(self) -> int:
        """Rows read, all sources together."""
        return self.stored + self.dropped


@dataclass(frozen=True)
class Layout:
    """The arrays of a store that is to be made.

    Attributes
    ----------
    shape : tuple of int
        Of the embeddings; more rows than come where their number is not known.
    dtype : dtype
    chunk_rows : int
    shard_rows : int or None
        Rows of a file of several chunks.
    ids : type or None
        ``str``, ``numpy.int64``, or none.
    ids_chunk_rows : int
    """

    shape: tuple[int, int]
    dtype: np.dtype[Any]
    chunk_rows: int
    shard_rows: int | None
    ids: type | None
    ids_chunk_rows: int

    @property
    def file_rows(self) -> int:
        """Rows of the embeddings that lie in one file."""
        return self.shard_rows or self.chunk_rows

    @property
    def file_bytes(self) -> int:
        """Size of a whole file of embeddings."""
        bytes = self.file_rows * self.shape[1] * self.dtype.itemsize
        # Offset and length of every chunk, and a checksum (Zarr v3, codec sharding_indexed).
        return bytes if self.shard_rows is None else bytes + 16 * (self.shard_rows // self.chunk_rows) + 4


class Arrays(NamedTuple):
    """The arrays of a store under way, to be written."""

    embeddings: StoredArray
    ids: StoredArray | None


class Unfinished(Protocol):
    """An unfinished ingest, claimed by this process from ``with`` to its end.

    Attributes
    ----------
    place : str
        Where its state lies, for messages.
    """

    place: str

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def exists(self) -> bool:
        """Whether anything lies there; claimed or not."""
        ...

    def begin(self, job: dict[str, Any]) -> bool:
        """Adopt what lies there if it is of the same job, else clear it; whether what was cleared was damaged.

        Parameters
        ----------
        job : dict
            JSON values; ``job["identity"]`` is what makes two jobs the same.

        Raises
        ------
        RunError
            Rows of another job are stored there.
        """
        ...

    @property
    def job(self) -> dict[str, Any]:
        """What is ingested; empty where nothing was begun."""
        ...

    @property
    def progress(self) -> Progress:
        """How far it is; the beginning where nothing is safely written."""
        ...

    def digests(self, units: int) -> bytes | None:
        """Digests of the first ``units`` fingerprint units, 16 bytes each; None where they are not all there."""
        ...

    def create(self, layout: Layout) -> Arrays:
        """Begin the store from its first row."""
        ...

    def reopen(self, layout: Layout) -> Arrays | None:
        """The store as far as it is; None where a file that was noted is not there as it was written."""
        ...

    def commit(self, progress: Progress, units: int, new_digests: bytes) -> None:
        """Note, durably, that the files up to ``progress`` are written.

        Parameters
        ----------
        progress : Progress
        units : int
            Fingerprint units noted before.
        new_digests : bytes
            Digests of the units finished since, 16 bytes each.
        """
        ...

    def alive(self) -> None:
        """Told again and again while nothing is committed, for the others that wait for this process to end."""
        ...

    def require(self) -> None:
        """About to write a file: refuse where this process, thought dead, was replaced by another."""
        ...

    def cut(self, rows: int) -> Arrays:
        """All rows have come: set the length of the arrays, before the last of them are written."""
        ...

    def seal(self, attributes: dict[str, Any]) -> None:
        """Every row is written: add what the store says of itself."""
        ...

    def finish(self, out: str) -> None:
        """Have the sealed store stand at its place, and remove the rest."""
        ...

    def remove(self) -> None:
        """Remove everything that this ingest wrote."""
        ...

    def check_space(self, needed: int) -> None:
        """Refuse what does not fit there."""
        ...


def refuse_other(place: str, target: str, earlier: dict[str, Any], now: dict[str, Any], stored: int) -> None:
    """Refuse to throw away rows that another job has stored; a job that has stored none may be replaced.

    Parameters
    ----------
    place, target : str
        Where the state lies, and where the store will.
    earlier, now : dict
        The jobs, as they note themselves.
    stored : int
        Rows of the earlier one that are safely written.

    Raises
    ------
    RunError
        Saying in what the jobs differ.
    """
    if not stored:
        return
    # Removing the state of a store at a URL leaves chunks that nobody would own.
    remains = f"{place} and {target}" if is_url(place) else place
    raise RunError(
        f"{place}: holds {stored:,} rows of an unfinished store {_difference(earlier, now)}; the earlier command goes "
        f"on with it; to begin anew, remove {remains}, or choose another destination"
    )


def _difference(earlier: dict[str, Any], now: dict[str, Any]) -> str:
    """In what two jobs differ, as far as they say."""
    before, after = earlier.get("identity"), now["identity"]
    if not isinstance(before, dict) or before.keys() != after.keys():
        return "of another command"
    options, others = before.get("options"), after.get("options")
    if not isinstance(options, dict) or not isinstance(others, dict):
        return "of another selection, or of other embeddings"
    differing = [
        f"{key.replace('_', '-')}: {_shown(options.get(key))} before, {_shown(others.get(key))} now"
        for key in {**others, **options}
        if options.get(key) != others.get(key)
    ]
    if differing:
        return f"with other options ({'; '.join(differing)})"
    return "from other sources, or from these as they were before they changed"


def _shown(value: Any) -> str:
    return "none" if value is None else str(value)
