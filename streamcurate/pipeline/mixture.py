"""``mix``: rows from several sources in one export, each with where it comes from."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamcurate.config.checks import whole_number
from streamcurate.config.mixture import MixtureConfig, Part
from streamcurate.embeddings.rowlist import open_list
from streamcurate.errors import CapacityError, ConfigError, InputError
from streamcurate.neighbors.examples.seed_clusters import check_level
from streamcurate.neighbors.examples.wanted import wanted
from streamcurate.neighbors.row_files import check_destination
from streamcurate.neighbors.unfinished import UnfinishedWork
from streamcurate.objects import open_file
from streamcurate.pipeline.executors import check_device
from streamcurate.pipeline.mixture_errors import in_part, keeping, looked_for
from streamcurate.pipeline.mixture_parts import MOST_ROWS, TakenPart, Taking
from streamcurate.pipeline.mixture_sources import Source, Sources
from streamcurate.sampling import STRATEGIES, make_allocation
from streamcurate.sampling.draw import check_strategy
from streamcurate.sampling.mixed import SUFFIXES, MixedPart, check_sources, suffix_of, write_mixture
from streamcurate.sampling.store import check_absent
from streamcurate.sampling.words import counted
from streamcurate.streaming import MemoryBudget, ProgressListener, Silent

Int64 = NDArray[np.int64]


@dataclass(frozen=True)
class MixturePart:
    """What one part of a mixture gave.

    Attributes
    ----------
    name : str
    kind : {"draw", "retrieve", "all", "rows"}
    source : str
        The run or store, as the file names it.
    asked : int or None
        Rows asked for, copies counted; None where the part gives what it has.
    given : int
        Rows given, copies counted.
    distinct : int
        Rows given, each once.
    passed_over : int
        Rows of a whole store or a list that were left out: excluded, or taken by another part.
    """

    name: str
    kind: str
    source: str
    asked: int | None
    given: int
    distinct: int
    passed_over: int


@dataclass(frozen=True, repr=False)
class Mixture:
    """A mixture that was written.

    Attributes
    ----------
    out : str
    seed : int
    parts : tuple of MixturePart
        In the order of the file.
    notes : tuple of str
        Where a part made up for another, and where an exclusion concerns none.
    """

    out: str
    seed: int
    parts: tuple[MixturePart, ...]
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        """Rows, copies counted."""
        return sum(part.given for part in self.parts)

    def __repr__(self) -> str:
        return f"Mixture({counted(len(self), 'row')} of {counted(len(self.parts), 'part')}, {self.out})"

    @property
    def distinct(self) -> int:
        """Lines: the rows of each part, each once."""
        return sum(part.distinct for part in self.parts)

    def rows(self, part: str) -> Int64:
        """The rows of a part, by their numbers in their stores, read from the file.

        Returns
        -------
        ndarray of int64, shape (distinct,)
            In the order of the file: by store, where the source has several, and ascending.

        Raises
        ------
        InputError
            No such part, or a file of ids alone.
        """
        names = [each.name for each in self.parts]
        if part not in names:
            raise InputError(f"{part!r}: no part of {self.out}; it has {', '.join(names)}")
        if suffix_of(self.out) == ".txt":
            raise InputError(f"{self.out}: holds ids alone; write .parquet to read rows back")
        place = names.index(part)
        start = sum(each.distinct for each in self.parts[:place])
        stop, rows, position = start + self.parts[place].distinct, list[Int64](), 0
        for piece in _row_column(self.out):
            low, high = max(start - position, 0), min(stop - position, len(piece))
            if low < high:
                rows.append(piece[low:high])
            position += len(piece)
        return np.concatenate([np.empty(0, dtype=np.int64), *rows])

    def to_mapping(self) -> dict[str, Any]:
        """As plain values that JSON can hold."""
        return {
            "rows": len(self),
            "distinct": self.distinct,
            "seed": self.seed,
            "parts": [asdict(part) for part in self.parts],
            "notes": list(self.notes),
            "out": self.out,
        }


def mix(
    config: MixtureConfig | Mapping[str, Any] | str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    seed: int | None = None,
    memory_limit: int | str | None = None,
    scratch: str | os.PathLike[str] | None = None,
    threads: int | None = None,
    device: str = "auto",
    client: Any = None,
    progress: ProgressListener | None = None,
) -> Mixture:
    """Draw from several sources into one export.

    Parts take their rows in the order of the file, those with a share after all others, since a share is of what the
    others leave of ``size``. A row of a store is given by the first part that takes it; later parts draw around it,
    unless they say ``repeat: true``. The same file, seed and data give the same bytes, wherever it is computed.

    Parameters
    ----------
    config : path of a YAML file, or a mapping of what it holds
        See the README. Paths are relative to the working directory.
    out : path or URL
        .parquet, .csv or .jsonl: a line for each distinct row of each part, in the order of the file, with ``part``,
        ``source`` (the store's path), ``row`` (its number there), ``id`` (where there are ids) and ``copies``; .txt:
        ids, repeated per copy; .zarr: a new store of these rows, with arrays ``part``, ``source``, ``row``, ``copies``.
        An existing file is replaced, an existing .zarr refused. Unfinished parts lie in ``out.partial``; the same call
        goes on with them.
    seed : int, optional
        In place of the file's.
    memory_limit, threads, device, client, progress
        As for ``cluster``.
    scratch : path, optional
        Folder for intermediate files; by default beside ``out``.

    Returns
    -------
    Mixture

    Raises
    ------
    InputError
        Something in the file is wrong or cannot be had; the message names part and key.
    """
    check_device(client, device)
    if not isinstance(config, MixtureConfig):
        read = MixtureConfig.from_mapping if isinstance(config, Mapping) else MixtureConfig.from_file
        config = read(config)  # type: ignore[arg-type]  # a mapping, or a path
    if seed is not None:
        config = replace(config, seed=whole_number("seed", seed, 0, 2**64 - 1))
    place, listener = os.fspath(out), progress or Silent()
    if suffix_of(place) == ".zarr":
        check_absent(place)
    check_destination(place, SUFFIXES, "a mixture")
    budget = MemoryBudget.of(memory_limit, threads)
    sources = Sources()
    check_sources(place, _checked_sources(config, sources))
    with UnfinishedWork(place, "mixture", scratch) as work:
        # Every part is kept under what it depends on, so that whatever the file says, none is taken for another.
        if (state := work.begin({"holds": "parts of mixtures"})) is not None:
            listener.note(state)
        computing = {"memory_limit": budget.limit, "threads": threads, "device": device, "client": client}
        taking = Taking(config, sources, work, budget, listener, computing | {"scratch": scratch})
        with keeping(work):
            taking.exclude()
            taken, notes = _taken(config, taking, listener)
            notes = [*_idle(config, sources, listener), *notes]
            parts = [
                _mixed(part, sources.open(part.source), rows) for part, rows in zip(config.parts, taken, strict=True)
            ]
            said = {"seed": config.seed, "size": sum(rows.found for rows in taken)}
            write_mixture(parts, place, work.result, budget.usable // 2, listener, **said)
        work.discard()
    given = [
        MixturePart(part.name, part.kind, part.source, rows.asked, rows.found, rows.rows.count, rows.passed_over)
        for part, rows in zip(config.parts, taken, strict=True)
    ]
    return Mixture(place, config.seed, tuple(given), tuple(notes))


def _checked_sources(config: MixtureConfig, sources: Sources) -> list[Any]:
    """Open all that the parts name, before any work is done; the embeddings of each."""
    found = []
    for number, part in enumerate(config.parts):
        with in_part(f"{config.origin}: parts[{number}] ({part.name}): "):
            with in_part(f"{'of' if part.kind == 'rows' else part.kind}: "), looked_for(part.source):
                source = sources.open(part.source)
            if part.kind == "draw" and source.tree is None:
                raise ConfigError(
                    f"draw: {part.source} is a store, and balanced draws are from runs; cluster it, or take all of it "
                    "(all), or the rows near seeds (retrieve)"
                )
            if part.seeds is not None:
                with in_part("seeds: "), looked_for(part.seeds):
                    seeds = sources.open(part.seeds).embeddings
                if seeds.dims != source.embeddings.dims:
                    raise InputError(
                        f"seeds: {part.seeds} has {seeds.dims} dims, {part.source} has {source.embeddings.dims}; give "
                        "embeddings of the same model"
                    )
            lists = {"rows": part.listed, **{key: part.options.get(key) for key in ("eligible", "subset")}}
            _check_lists(lists, source)
            _check_options(part, source)
            found.append(source.embeddings)
    for number, exclusion in enumerate(config.exclude):
        with in_part(f"{config.origin}: exclude[{number}]: "):
            with in_part("of: "), looked_for(exclusion.of):
                source = sources.open(exclusion.of)
            _check_lists({"rows": exclusion.rows}, source)
    return found


def _check_lists(lists: Mapping[str, Any], source: Source) -> None:
    """Refuse what is no list of rows."""
    for key, chosen in lists.items():
        if chosen is not None:
            with in_part(f"{key}: "), looked_for(chosen):
                open_list(chosen, source.embeddings.ids is not None, "the list", key)


def _check_options(part: Part, source: Source) -> None:
    """Refuse what a draw or a retrieval would refuse only when the parts before it are computed."""
    options = dict(part.options)
    if part.kind == "draw":
        others = ("strategy", "multiplier", "seed", "include", "eligible")
        check_strategy(options.get("strategy", STRATEGIES[0]))
        with looked_for(options.get("weights")):
            make_allocation(**{name: value for name, value in options.items() if name not in others})
    elif part.kind == "retrieve":
        unsaid = dict.fromkeys(("cosine", "l2", "nearest", "per_seed", "per_cluster", "metric"))
        said: dict[str, Any] = {**unsaid, "least_seeds": 1, "level": 1, **options}
        said.pop("subset", None)
        asked = wanted(**said, tree_metric=None if source.tree is None else source.tree.metric)
        if source.tree is not None:
            check_level(source.tree, asked.level)


def _taken(config: MixtureConfig, taking: Taking, listener: ProgressListener) -> tuple[list[TakenPart], list[str]]:
    """What each part takes, and notes on parts that made up for others."""
    taken: dict[int, TakenPart] = {}
    extra: dict[str, int] = {}
    shares: dict[int, int] | None = None
    notes = []
    for number in config.order():
        part, asked = config.parts[number], config.parts[number].size
        if part.share is not None:
            if shares is None:
                shares = _shares(config, taken)
            asked = shares[number]
        if asked is not None:
            asked += extra.get(part.name, 0)
        taken[number] = found = taking.take(number, asked)
        if part.short is not None and asked is not None and found.found < asked:
            missing = asked - found.found
            extra[part.short] = extra.get(part.short, 0) + missing
            notes.append(
                f"{part.name}: {found.found:,} of the {asked:,} rows asked for were found; {part.short} gives the "
                f"other {missing:,}"
            )
            listener.note(notes[-1])
    total = sum(found.found for found in taken.values())
    if config.size is not None and total != config.size:
        raise InputError(
            f"{config.origin}: size: {config.size:,}, and the parts give {total:,}: none has a share, which would give "
            "the rest; leave the size out, or give a part a share"
        )
    if total > MOST_ROWS:
        raise InputError(
            f"{config.origin}: the parts give {total:,} rows, copies counted; at most {MOST_ROWS:,} can be written: "
            "give fewer copies of some"
        )
    return [taken[number] for number in range(len(taken))], notes


def _idle(config: MixtureConfig, sources: Sources, listener: ProgressListener) -> Iterator[str]:
    """Exclusions that concern no part, most likely by mistake."""
    keys = {key for part in config.parts for key in sources.open(part.source).keys}
    for number, exclusion in enumerate(config.exclude):
        if not keys & set(sources.open(exclusion.of).keys):
            note = f"exclude[{number}]: no part takes rows of {exclusion.of}, so that it excludes nothing"
            listener.note(note)
            yield note


def _shares(config: MixtureConfig, taken: Mapping[int, TakenPart]) -> dict[int, int]:
    """The rows of the parts with a share, of what the others leave."""
    assert config.size is not None  # the configuration saw to it
    fixed = sum(found.found for found in taken.values())
    left = max(config.size - fixed, 0)
    shares = config.shares(left)
    if empty := [number for number, rows in shares.items() if not rows]:
        part = config.parts[empty[0]]
        others = f"the parts without a share give {counted(fixed, 'row')}, and size is {config.size:,}"
        why = f"its share of the other {left:,} rounds to no row" if left else "nothing is left for it"
        raise CapacityError(
            f"{config.origin}: parts[{empty[0]}] ({part.name}): share: {why}: {others}; raise size, "
            "have other parts give less, or leave this part out"
        )
    return shares


def _mixed(part: Part, source: Source, taken: TakenPart) -> MixedPart:
    return MixedPart(part.name, source.embeddings, source.stores, source.starts[:-1], taken.rows, taken.copies)


def _row_column(path: str) -> Iterator[Int64]:
    """The column ``row`` of an export, in pieces."""
    suffix = suffix_of(path)
    if suffix == ".zarr":
        from streamcurate.storage import open_array

        array = open_array(os.path.join(path, "row"))
        for start in range(0, array.rows, array.chunk_rows):
            yield array.read(start, min(start + array.chunk_rows, array.rows))
        return
    if suffix == ".jsonl":
        import json

        with open_file(path) as file:
            for line in file:
                yield np.array([json.loads(line)["row"]], dtype=np.int64)
        return
    for piece in open_list(path, False, option="the file").pieces():
        yield np.asarray(piece, dtype=np.int64)
