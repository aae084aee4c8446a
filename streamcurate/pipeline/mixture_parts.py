"""How the parts of a mixture take their rows."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from streamcurate.config.mixture import MixtureConfig, Part
from streamcurate.embeddings.rowsets import MergedRows, NumberFile, ordered, write_mask, write_numbers
from streamcurate.errors import ConfigError, InputError
from streamcurate.neighbors.unfinished import UnfinishedWork
from streamcurate.pipeline.mixture_errors import in_part, renamed
from streamcurate.pipeline.mixture_sources import Source, Sources, TakenRows, all_rows, state_of
from streamcurate.pipeline.retrieve import retrieve_to
from streamcurate.sampling import sample
from streamcurate.sampling.words import counted
from streamcurate.streaming import MemoryBudget, ProgressListener
from streamcurate.streaming.shuffle import SortedRecords

Int64 = NDArray[np.int64]

_BATCH = 1 << 16
# Of a mixture, copies counted: more cannot be counted in int64.
MOST_ROWS = 2**62


@dataclass(frozen=True)
class TakenPart:
    """What a part took.

    Attributes
    ----------
    asked : int or None
        Rows asked for, copies counted; None where it gives what it has.
    found : int
        Copies counted, what it gives.
    rows : NumberFile
    copies : NumberFile or int
    passed_over : int
        Rows of a whole store or a list that were left out: excluded, or another part's.
    """

    asked: int | None
    found: int
    rows: NumberFile
    copies: NumberFile | int
    passed_over: int = 0

    def to_values(self) -> dict[str, Any]:
        """What JSON can hold."""
        copies = self.copies if isinstance(self.copies, int) else self.copies.to_values()
        return {"asked": self.asked, "found": self.found, "passed_over": self.passed_over} | {
            "rows": self.rows.to_values(),
            "copies": copies,
        }

    @classmethod
    def from_values(cls, values: dict[str, Any], folder: Path) -> TakenPart | None:
        """What :meth:`to_values` gave; None where a file is gone or damaged."""
        rows, copies = NumberFile.from_values(values["rows"], folder), values["copies"]
        copies = copies if isinstance(copies, int) else NumberFile.from_values(copies, folder)
        if not rows.intact() or not (isinstance(copies, int) or copies.intact()):
            return None
        return cls(values["asked"], values["found"], rows, copies, values["passed_over"])


@dataclass
class Taking:
    """Takes the rows of one part after the other.

    Attributes
    ----------
    config : MixtureConfig
    sources : Sources
    work : UnfinishedWork
        Begun.
    budget : MemoryBudget
    listener : ProgressListener
    computing : dict
        Where to compute, as ``retrieve`` takes it.
    """

    config: MixtureConfig
    sources: Sources
    work: UnfinishedWork
    budget: MemoryBudget
    listener: ProgressListener
    computing: dict[str, Any]
    _excluded: TakenRows = field(default_factory=TakenRows)
    _taken: TakenRows = field(default_factory=TakenRows)

    def exclude(self) -> None:
        """Read the lists of rows that nobody may take."""
        for number, exclusion in enumerate(self.config.exclude):
            with in_part(f"{self.config.origin}: exclude[{number}]: "):
                source = self.sources.open(exclusion.of)
                with self._listed(exclusion.rows, source, f"exclude[{number}]") as pieces:
                    rows = write_numbers(self.work.scratch / f"exclude-{number}.npy", pieces)
                self._excluded.add(source, rows, rows.checksum)

    def take(self, number: int, asked: int | None) -> TakenPart:
        """The rows of a part, computed or as an interrupted call left them.

        Parameters
        ----------
        number : int
        asked : int or None

        Raises
        ------
        InputError
            It cannot give what is asked for; the message names the part.
        """
        part = self.config.parts[number]
        with in_part(f"{self.config.origin}: parts[{number}] ({part.name}): "):
            source = self.sources.open(part.source)
            key = self._key(part, source, asked)
            kept = self.work.checkpoints.load(key)
            taken = None if kept is None else TakenPart.from_values(kept[1], self.work.result)
            if taken is None:
                self.listener.note(f"{part.name}: {_told(part, asked)}")
                taken = _TAKERS[part.kind](self, key, part, source, asked)
                if not taken.found:
                    raise InputError(f"gives no row of {source.name}; leave the part out, or ask for others")
                self.work.checkpoints.save(key, {}, taken.to_values())
            if asked is not None and taken.found < asked and part.short is None:
                raise InputError(
                    f"{asked:,} rows are asked for, and {taken.found:,} are found; ask for fewer, look farther (a "
                    "larger radius or quota), or name a part with draw that is drawn larger instead (short: NAME)"
                )
            self._taken.add(source, taken.rows, key)
        return taken

    def _key(self, part: Part, source: Source, asked: int | None) -> str:
        """Of all that the part's rows depend on. What is kept is found by it, whatever else the file says by now."""
        seeds = None if part.seeds is None else self.sources.open(part.seeds).state
        seed = self.config.seed if part.kind == "draw" else None
        what = [part.kind, source.state, asked, seed, part.copies, seeds, state_of(part.listed)]
        options = {name: state_of(value) for name, value in sorted(part.options.items())}
        avoided = [rows.keys(source) for rows in self._avoided(part, source)]
        said = json.dumps([*what, options, avoided], sort_keys=True)
        return f"part-{xxhash.xxh3_128_hexdigest(said.encode())}"

    # -- what may be taken -------------------------------------------------------------------------------------------

    def _avoided(self, part: Part, source: Source) -> list[TakenRows]:
        """Rows of the source that the part may not take, where there may be some."""
        return [
            rows
            for rows in ([self._excluded] if part.repeat else [self._excluded, self._taken])
            if rows.touches(source)
        ]

    def _left(self, part: Part, source: Source, pieces: Iterator[Int64]) -> Iterator[Int64]:
        """Of some rows of the source those that the part may take."""
        avoided = [rows.pieces(source) for rows in self._avoided(part, source)]
        return MergedRows("difference", [pieces, *avoided]).pieces() if avoided else pieces

    def _among(self, key: str) -> Path:
        return self.work.result / f"{key}-among.npy"

    def _own_words(
        self, key: str, part: Part, source: Source, chosen: Any, option: str
    ) -> AbstractContextManager[None]:
        """Messages speak of the candidates by what they are, not by the file that they lie in."""
        without = []
        if self._excluded.touches(source):
            without.append("that are not excluded")
        if self._taken.touches(source) and not part.repeat:
            without.append("that no earlier part took")
        kind = "rows" if chosen is None else f"{option} rows"
        return renamed(self._among(key), kind, f"{kind} of {source.name} {' and '.join(without)}")

    def _candidates(self, key: str, part: Part, source: Source, chosen: Any, option: str) -> Any:
        """The rows a draw or a retrieval is among: those of the option, without what the part may not take."""
        if not self._avoided(part, source):
            return chosen
        path = self._among(key)
        if path.exists():  # complete, as all files of that name
            return os.fspath(path)
        if chosen is None:
            count = write_mask(path, source.embeddings.rows, self._left(part, source, all_rows(source.embeddings.rows)))
        else:
            with self._listed(chosen, source, option) as pieces:
                count = write_numbers(path, self._left(part, source, pieces)).count
        if not count:
            what = source.name if chosen is None else f"the {option} rows"
            raise InputError(
                f"no row of {what} is left: all are excluded, or taken by parts that come before; leave the part out, "
                "or let it take such rows, too (repeat: true)"
            )
        return os.fspath(path)

    @contextmanager
    def _listed(self, chosen: Any, source: Source, name: str, repeats: bool = True) -> Iterator[Iterator[Int64]]:
        options: dict[str, Any] = {"ids": source.embeddings.ids, "name": name, "repeats": repeats, "option": name}
        memory = self.budget.usable // 2
        place = self.work.scratch / "list-sort"
        with ordered(chosen, source.embeddings.rows, place, memory, listener=self.listener, **options) as pieces:
            yield pieces

    # -- the kinds of parts ------------------------------------------------------------------------------------------

    def _draw(self, key: str, part: Part, source: Source, asked: int | None) -> TakenPart:
        assert asked is not None  # the configuration saw to it
        if source.tree is None:
            raise ConfigError(
                f"draw: {source.name} is a store, and balanced draws are from runs; cluster it, or take all of it (all)"
            )
        options = {"seed": self.config.seed, **part.options}
        chosen = options.pop("eligible", None)
        eligible = self._candidates(key, part, source, chosen, "eligible")
        with self._own_words(key, part, source, chosen, "eligible"):
            drawn = sample(
                source.tree,
                asked,
                eligible=eligible,
                memory_limit=self.budget.limit,
                scratch=self.work.scratch,
                progress=self.listener,
                **options,
            )
        if "include" in options:
            self._check_included(part, source, drawn.unique_rows)
        rows, copies = (
            write_numbers(self.work.result / f"{key}-{name}.npy", _cut(values))
            for name, values in (("rows", drawn.unique_rows), ("copies", drawn.copies))
        )
        return TakenPart(asked, len(drawn), rows, copies)

    def _check_included(self, part: Part, source: Source, drawn: Int64) -> None:
        """Rows of an earlier draw stay whether they are eligible or not; whether they are free is seen only here."""
        for avoided in self._avoided(part, source):
            for piece in MergedRows("intersection", [_cut(drawn), avoided.pieces(source)]).pieces():
                raise InputError(
                    f"include: row {piece[0]} of {source.name} is in the earlier draw, and is excluded or taken by a "
                    "part that comes before; put this part first, take such rows out of the earlier draw, or let it "
                    "take them all the same (repeat: true)"
                )

    def _retrieve(self, key: str, part: Part, source: Source, asked: int | None) -> TakenPart:
        options = dict(part.options)
        chosen = options.pop("subset", None)
        subset = self._candidates(key, part, source, chosen, "subset")
        place = self.work.result / f"{key}-retrieved.parquet"
        begun = f"{key}/begun"
        # So that what a kill leaves of the retrieval is gone on with.
        self.work.checkpoints.save(begun, {}, {})
        try:
            if not place.exists():
                given = source.tree if source.tree is not None else source.embeddings
                options |= {"subset": subset, "progress": self.listener, **self.computing}
                with self._own_words(key, part, source, chosen, "subset"):
                    retrieve_to(place, given, part.seeds, **options)
        except InputError:
            if not any(self.work.result.glob(f"{place.name}*")):
                self.work.checkpoints.discard(begun)
            raise
        taken = write_numbers(self.work.result / f"{key}-rows.npy", self._nearest(place, asked))
        return TakenPart(asked, taken.count, taken, 1)

    def _nearest(self, place: Path, asked: int | None) -> Iterator[Int64]:
        """Retrieved rows, ascending; where too many were, the nearest of them, of equally near ones the first."""
        import pyarrow.parquet

        with pyarrow.parquet.ParquetFile(place) as file:
            found = int(file.metadata.num_rows)
        if asked is None or found <= asked:
            return (rows for rows, _ in _retrieved(place))
        return self._first(place, asked)

    def _first(self, place: Path, count: int) -> Iterator[Int64]:
        memory = self.budget.usable // 4
        with ExitStack() as stack:
            near = SortedRecords(self.work.scratch / "near-sort", memory)
            stack.callback(near.close)
            for rows, distances in _retrieved(place):
                # The bits of floats that are not negative are ordered as the floats are; abs: −0.0 is 0.0.
                near.add(np.abs(distances).view(np.uint32).astype(np.uint64), rows)
            chosen = SortedRecords(self.work.scratch / "chosen-sort", memory)
            stack.callback(chosen.close)
            for records in near.blocks():
                rows = np.sort(records["row"][:count])
                count -= len(rows)
                chosen.add(rows.astype(np.uint64), rows)
                if not count:
                    break
            for records in chosen.blocks():
                yield np.ascontiguousarray(records["row"])

    def _all(self, key: str, part: Part, source: Source, asked: int | None) -> TakenPart:
        total = source.embeddings.rows
        rows = self._left(part, source, all_rows(total))
        return self._whole(key, part, total, rows)

    def _rows(self, key: str, part: Part, source: Source, asked: int | None) -> TakenPart:
        with self._listed(part.listed, source, "rows", repeats=False) as pieces:
            counted = _Counted(pieces)
            taken = self._whole(key, part, 0, self._left(part, source, counted.pieces()))
        return TakenPart(None, taken.found, taken.rows, taken.copies, counted.rows - taken.rows.count)

    def _whole(self, key: str, part: Part, total: int, pieces: Iterator[Int64]) -> TakenPart:
        rows = write_numbers(self.work.result / f"{key}-rows.npy", pieces)
        if rows.count * part.copies > MOST_ROWS:
            raise InputError(
                f"copies: {part.copies:,} of each of {rows.count:,} rows are too many; at most "
                f"{MOST_ROWS // rows.count:,}"
            )
        return TakenPart(None, rows.count * part.copies, rows, part.copies, max(total - rows.count, 0))


_TAKERS = {"draw": Taking._draw, "retrieve": Taking._retrieve, "all": Taking._all, "rows": Taking._rows}


def _told(part: Part, asked: int | None) -> str:
    rows = "all rows" if asked is None else counted(asked, "row")
    what = {"draw": "drawn from", "retrieve": "near seeds in", "all": "of", "rows": "of a list of"}[part.kind]
    return f"{rows} {what} {part.source}"


class _Counted:
    """Pieces, and how many rows they hold."""

    def __init__(self, pieces: Iterator[Int64]) -> None:
        self._pieces, self.rows = pieces, 0

    def pieces(self) -> Iterator[Int64]:
        for piece in self._pieces:
            self.rows += len(piece)
            yield piece


def _cut(values: Int64) -> Iterator[Int64]:
    for start in range(0, len(values), _BATCH):
        yield values[start : start + _BATCH]


def _retrieved(place: Path) -> Iterator[tuple[Int64, NDArray[np.float32]]]:
    """Rows and distances of a file that ``retrieve`` wrote, rows ascending."""
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(place) as file:
        for batch in file.iter_batches(_BATCH, columns=["row", "distance"]):
            rows = batch.column("row").to_numpy()
            yield rows, np.ascontiguousarray(batch.column("distance").to_numpy(zero_copy_only=False), dtype=np.float32)
