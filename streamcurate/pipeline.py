"""Building a tree: the order of the stages, what is kept of each, and going on where an earlier process stopped."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from streamcurate import kernels
from streamcurate.clustering.balance import warnings_of
from streamcurate.clustering.hierarchy import build_level, check_usable, measure
from streamcurate.clustering.surroundings import Surroundings
from streamcurate.config import Config, Level, parse_levels
from streamcurate.embeddings.fingerprint import unit_rows
from streamcurate.embeddings.snapshot import SNAPSHOT_NAME, Snapshot, stamps_of
from streamcurate.embeddings.store import Embeddings, as_embeddings
from streamcurate.embeddings.subset import Subset, read_subset
from streamcurate.errors import ConfigError, DataError, InputError, RunError
from streamcurate.files import TEMPORARY_SUFFIX, move_folder, write_file
from streamcurate.kernels import Statistics
from streamcurate.planning.model import check_levels
from streamcurate.runs import (
    Checkpoints,
    Event,
    EventLog,
    Interrupted,
    LevelFinished,
    LevelRecord,
    Manifest,
    Resumed,
    RunFinished,
    RunLock,
    RunStarted,
    Sizes,
    StageFinished,
    StageStarted,
    StoreRecord,
    SubsetRecord,
    Warned,
    check_resumable,
    combine_digests,
    differences,
    levels_in_common,
)
from streamcurate.runs.events import EVENTS_NAME
from streamcurate.storage import create_array, create_group, node_kind
from streamcurate.streaming import MemoryBudget, Points, ProgressListener, SerialExecutor, Silent, StoredRows
from streamcurate.tree import TREE_NAME, LevelWriter, Tree, level_digest, level_name, open_tree, rows_under
from streamcurate.version import __version__

_CHECKPOINTS = "checkpoints"
_BUILDING = "building"
_SCRATCH = "scratch"
_SCRATCH_PLACES = ".scratch"
_MASK_CHUNK_ROWS = 1 << 20


def cluster(
    embeddings: Any,
    run: str | os.PathLike[str] | None = None,
    *,
    levels: Sequence[Level | int] | str | None = None,
    config: Config | str | os.PathLike[str] | None = None,
    metric: str | None = None,
    seed: int | None = None,
    subset: str | os.PathLike[str] | NDArray[Any] | None = None,
    memory_limit: int | None = None,
    scratch: str | os.PathLike[str] | None = None,
    device: str = "auto",
    threads: int | None = None,
    prefetch: bool = True,
    client: Any = None,
    reuse: str | os.PathLike[str] | None = None,
    progress: ProgressListener | None = None,
) -> Tree:
    """Build the hierarchy of clusters over embeddings; the same call again goes on where it stopped.

    Hierarchical k-means with resampling (arXiv:2405.15613, section 3): k-means over the rows, then over its centroids,
    and so on. The tree depends on the rows, levels, metric, seed and subset alone: memory limit, threads, block
    sizes, interruptions change nothing in it.

    Parameters
    ----------
    embeddings : Embeddings, path, or NumPy, CuPy, Dask or Zarr array
        float16 or float32, shape (rows, dims).
    run : path, optional
        The run directory, made if need be. Without one the tree lives in a temporary folder as long as the object.
    levels : sequence of Level or int, or str, optional
        From the rows upwards; ``"5000,1000"`` is two levels without resampling.
    config : Config or path, optional
        Instead of ``levels``: a configuration, or a YAML file of one (ours or the authors' flat format).
    metric : "l2" or "cosine", optional
        Overrides the configuration's. Default l2.
    seed : int, optional
        Overrides the configuration's. Default 0.
    subset : path of an .npy file, or ndarray, optional
        Row numbers, or a mask, of the rows to use. Others get label -1.
    memory_limit : int, optional
        Bytes this process may use, the interpreter included; by default half of what is available.
    scratch : path, optional
        Folder for intermediate arrays; by default inside the run directory.
    device : "auto", "cpu" or "gpu"
    threads : int, optional
        Blocks computed at a time; by default one for each processor.
    prefetch : bool
        Read the next block while computing this one.
    client : dask.distributed.Client, optional
        Not in this version.
    reuse : path, optional
        Another run of the same store, whose identical leading levels are taken over.
    progress : ProgressListener, optional

    Returns
    -------
    Tree

    Raises
    ------
    InputError
        Anything the caller can mend: configuration, rows, store, run directory, memory, disk.
    """
    if client is not None:
        raise InputError("client: this version computes in one process; leave client out")
    kernels.get_backend(device)
    resolved = resolve_config(levels, config, metric, seed, subset)
    listener = progress or Silent()
    store = as_embeddings(embeddings)
    budget = MemoryBudget.of(memory_limit, threads, prefetch)
    check_levels(resolved, store.rows, store.dims, store.dtype, budget, store.name)
    temporary = None
    if run is None:
        temporary = _TemporaryFolder()
        run = temporary.path
    place = Path(run)
    created = _make_run_folder(place)
    try:
        with RunLock(place), SerialExecutor(budget, listener) as executor:
            chosen = subset if subset is not None else resolved.subset
            job = _Job(place, store, resolved, chosen, executor, listener, scratch)
            try:
                tree = job.finish(reuse)
            except InputError:
                job.forget_unless_begun()
                raise
    except InputError:
        if created and not Manifest.exists(place):
            shutil.rmtree(place, ignore_errors=True)
        raise
    if temporary is not None:
        tree.keep_alive = temporary
    return tree


def resolve_config(
    levels: Sequence[Level | int] | str | None,
    config: Config | str | os.PathLike[str] | None,
    metric: str | None,
    seed: int | None,
    subset: str | os.PathLike[str] | NDArray[Any] | None,
) -> Config:
    """The configuration that levels, or a file, and the overriding options make.

    Raises
    ------
    ConfigError
        Both or neither of levels and config, or a value out of range.
    """
    if (levels is None) == (config is None):
        raise ConfigError("levels and config: give exactly one of them (--levels 5000,1000 or --config levels.yaml)")
    if levels is not None:
        parsed = parse_levels(levels) if isinstance(levels, str) else levels
        resolved = Config(tuple(Level(level) if isinstance(level, int) else level for level in parsed))
    else:
        assert config is not None
        resolved = config if isinstance(config, Config) else Config.from_file(config)
    if metric is not None:
        resolved = replace(resolved, metric=metric)
    if seed is not None:
        resolved = replace(resolved, seed=seed)
    if subset is not None:
        resolved = replace(resolved, subset="array in memory" if isinstance(subset, np.ndarray) else os.fspath(subset))
    return resolved


def _make_run_folder(place: Path) -> bool:
    """Make the run directory; True where it was not there. Refuse a folder that holds something else."""
    if place.is_dir():
        foreign = [
            entry.name
            for entry in place.iterdir()
            if entry.name
            not in {".lock", EVENTS_NAME, SNAPSHOT_NAME, _CHECKPOINTS, _SCRATCH, _SCRATCH_PLACES, TREE_NAME}
            # Half a file, left there by a process that was killed before the run began.
            and not entry.name.endswith(TEMPORARY_SUFFIX)
        ]
        if foreign and not Manifest.exists(place):
            raise RunError(
                f"{place}: is no run directory and not empty (it holds {sorted(foreign)[0]}); choose a new folder"
            )
        return False
    try:
        place.mkdir(parents=True)
    except OSError as error:
        raise RunError(f"{place}: cannot be made ({error.strerror}); choose another run directory") from error
    return True


class _Job:
    """One process's work on a run directory, whose lock it holds."""

    def __init__(
        self,
        run: Path,
        store: Embeddings,
        config: Config,
        subset: str | os.PathLike[str] | NDArray[Any] | None,
        executor: SerialExecutor,
        listener: ProgressListener,
        scratch: str | os.PathLike[str] | None,
    ) -> None:
        self.run, self.store, self.config = run, store, config
        self.executor, self.listener = executor, listener
        self.chosen = subset
        self.scratch = _scratch_folder(run, scratch)
        self.checkpoints = Checkpoints(run / _CHECKPOINTS)

    def finish(self, reuse: str | os.PathLike[str] | None) -> Tree:
        """Do whatever is left."""
        began = time.monotonic()
        earlier = Manifest.read(self.run) if Manifest.exists(self.run) else None
        if earlier is not None:
            check_resumable(earlier, self.run)
        self._note_scratch()
        subset = self._read_subset()
        statistics = None
        snapshot = Snapshot.read(self.run / SNAPSHOT_NAME) if earlier is not None else None
        borrowed: Manifest | None = None
        if snapshot is not None:
            snapshot = snapshot.check(self.store)
            # Killed while it took levels over, it goes on doing so; a run to take from that is gone by now is no loss.
            if reuse is not None and earlier is not None and not earlier.complete and Manifest.exists(reuse):
                borrowed = open_tree(reuse).manifest
        elif reuse is not None and earlier is None:
            borrowed = open_tree(reuse).manifest
            other = Snapshot.read(Path(reuse) / SNAPSHOT_NAME)
            snapshot = other.check(self.store) if other is not None else None
        if snapshot is None:
            statistics, snapshot = self._measure(subset)
        wanted = self._manifest(snapshot, subset)
        if borrowed is not None and earlier is None and not levels_in_common(borrowed, wanted):
            raise RunError(
                f"{reuse}: shares no level with this run ({'; '.join(differences(borrowed, wanted)) or 'none'}); "
                "leave --reuse out"
            )
        if earlier is not None and (changes := differences(earlier, wanted)):
            raise RunError(
                f"{self.run}: was begun with other settings: {'; '.join(changes)}; "
                "give the settings it was begun with, or choose another run directory"
            )
        if earlier is not None and earlier.complete:
            self._clean()
            self.listener.note(f"{self.run}: finished already, nothing to do")
            return Tree(self.run, earlier)
        with EventLog(self.run / EVENTS_NAME) as log:
            emit = self._emitter(log)
            try:
                manifest = earlier or self._begin(wanted, snapshot, emit)
                if earlier is not None:
                    emit(Resumed(engine=__version__, level=len(earlier.levels) + 1))
                if borrowed is not None and reuse is not None:
                    manifest = self._take_over(manifest, borrowed, reuse)
                manifest = self._build_levels(manifest, statistics, subset, emit)
                digest = combine_digests(record.digest for record in manifest.levels)
                manifest = manifest.finished(digest)
                manifest.write(self.run)
                emit(RunFinished(digest=digest, seconds=time.monotonic() - began))
            except BaseException as error:
                emit(Interrupted(reason=type(error).__name__))
                raise
        self._clean()
        return Tree(self.run, manifest)

    # -- before the first level --------------------------------------------------------------------------------------

    def _read_subset(self) -> Subset | None:
        if self.chosen is None:
            return None
        subset = read_subset(self.chosen, self.store.rows, self.scratch, self.executor.budget.usable // 2)
        if subset.rows < (clusters := self.config.levels[0].clusters):
            raise DataError(
                f"levels[0].clusters: {clusters:,} clusters from the {subset.rows:,} rows of {subset.path}; "
                f"choose at most {subset.rows:,}"
            )
        return subset

    def _measure(self, subset: Subset | None) -> tuple[Statistics, Snapshot]:
        """One pass over all rows: statistics of those that count, checksums of all."""
        stamps = stamps_of(self.store)
        around = self._around(1, lambda event: None)
        units = unit_rows(self.store.dims, self.store.dtype)
        statistics, digests = measure(self._rows(subset), around, units)
        self._check_usable(statistics)
        return statistics, Snapshot.of(self.store, digests, stamps)

    def _check_usable(self, statistics: Statistics) -> None:
        first = statistics.first_bad_row if statistics.bad_rows else statistics.first_zero_row
        identify = ""
        if first >= 0 and (ids := self.store.take_ids(np.array([first], dtype=np.int64))) is not None:
            identify = f', id "{ids[0]}"'
        check_usable(statistics, self.store.name, self.config.metric, identify)

    def _rows(self, subset: Subset | None) -> Points:
        if subset is None:
            return Points.all_of(self.store)
        return Points(self.store, subset.rows, subset.mask)

    def _manifest(self, snapshot: Snapshot, subset: Subset | None) -> Manifest:
        description = self.store.description()
        record = StoreRecord(
            path=description["path"] or "",
            rows=self.store.rows,
            dims=self.store.dims,
            dtype=self.store.dtype.name,
            fingerprint=snapshot.fingerprint,
            ids=self.store.ids is not None,
        )
        chosen = None if subset is None else SubsetRecord(subset.path, subset.rows, subset.digest)
        return Manifest.begin(self.config, record, chosen)

    def _begin(self, manifest: Manifest, snapshot: Snapshot, emit: Callable[[Event], None]) -> Manifest:
        if node_kind(self.run / TREE_NAME) is None:
            create_group(self.run / TREE_NAME)
        snapshot.write(self.run / SNAPSHOT_NAME)
        manifest.write(self.run)
        emit(RunStarted(engine=__version__, store=self.store.name))
        return manifest

    def _take_over(self, manifest: Manifest, borrowed: Manifest, reuse: str | os.PathLike[str]) -> Manifest:
        """Copy the leading levels of another run that this one has not finished itself."""
        first, count = len(manifest.levels), levels_in_common(borrowed, manifest)
        for index in range(first, count):
            building = self.run / _BUILDING / level_name(index + 1)
            shutil.rmtree(building, ignore_errors=True)
            shutil.copytree(Path(reuse) / TREE_NAME / level_name(index + 1), building)
            self._place(index + 1)
            manifest = manifest.with_level(borrowed.levels[index])
            manifest.write(self.run)
        if count > first:
            self.listener.note(f"{count - first} of {len(self.config.levels)} levels taken over from {reuse}")
        return manifest

    # -- levels ------------------------------------------------------------------------------------------------------

    def _build_levels(
        self, manifest: Manifest, statistics: Statistics | None, subset: Subset | None, emit: Callable[[Event], None]
    ) -> Manifest:
        below: NDArray[np.int64] | None = None
        for index, level in enumerate(self.config.levels):
            tree = Tree(self.run, manifest)
            if index:
                below = rows_under(tree.levels[index - 1], below)
            if index < len(manifest.levels):
                continue
            around = self._around(index + 1, emit)
            if index == 0:
                points = self._rows(subset)
            else:
                points = self._clusters(tree, index)
                statistics = None
            if statistics is None:
                emit(StageStarted(stage="statistics", level=index + 1))
                statistics, _ = measure(points, around)
                if index == 0:
                    self._check_usable(statistics)
                emit(StageFinished(stage="statistics", level=index + 1, rows=points.count))
            manifest = manifest.with_level(self._build(points, statistics, level, around, below))
            manifest.write(self.run)
        return manifest

    def _build(
        self,
        points: Points,
        statistics: Statistics,
        level: Level,
        around: Surroundings,
        below: NDArray[np.int64] | None,
    ) -> LevelRecord:
        number = around.level
        building = self.run / _BUILDING / level_name(number)
        shutil.rmtree(building, ignore_errors=True)
        # Left there by a process that was killed before it could say so in the manifest.
        shutil.rmtree(self.run / TREE_NAME / level_name(number), ignore_errors=True)
        built = build_level(
            points, statistics, level, around, LevelWriter(building, points.source.rows, points.source.dims)
        )
        self._place(number)
        placed = Tree(self.run, Manifest.read(self.run)).path
        from streamcurate.tree import Level as TreeLevel

        stored = TreeLevel(Path(placed) / TREE_NAME / level_name(number), number)
        warnings = built.warnings + warnings_of(number, rows_under(stored, below), built.sizes)
        record = LevelRecord(
            clusters=len(built.sizes),
            rows=int(built.sizes.sum()),
            inertia=built.inertia,
            empty=int(np.count_nonzero(built.sizes == 0)),
            sizes=Sizes(int(built.sizes.min()), float(np.median(built.sizes)), int(built.sizes.max())),
            seeding=built.seeding,
            iterations=built.iterations,
            digest=level_digest(stored),
            warnings=warnings,
        )
        for text in warnings:
            around.emit(Warned(text=text, level=number))
        around.emit(
            LevelFinished(
                level=number,
                clusters=record.clusters,
                rows=record.rows,
                inertia=record.inertia,
                empty=record.empty,
                digest=record.digest,
            )
        )
        return record

    def _place(self, number: int) -> None:
        target = self.run / TREE_NAME / level_name(number)
        shutil.rmtree(target, ignore_errors=True)
        move_folder(self.run / _BUILDING / level_name(number), target)

    def _clusters(self, tree: Tree, index: int) -> Points:
        """The clusters of the level below that hold something, as points."""
        level = tree.levels[index - 1]
        sizes = level.sizes()
        source = StoredRows(level.stored_centroids)
        count = int(np.count_nonzero(sizes))
        wanted = self.config.levels[index].clusters
        if count < wanted:
            raise DataError(
                f"levels[{index}].clusters: {wanted:,} clusters from the {count:,} clusters of level {index} that hold "
                f"points; choose at most {count:,}"
            )
        if count == len(sizes):
            return Points.all_of(source)
        path = self.scratch / level_name(index + 1) / "mask"
        path.parent.mkdir(parents=True, exist_ok=True)
        mask = create_array(path, (len(sizes),), np.uint8, _MASK_CHUNK_ROWS, durable=False, overwrite=True)
        mask.write(0, (sizes > 0).astype(np.uint8))
        return Points(source, count, mask)

    # -- surroundings ------------------------------------------------------------------------------------------------

    def _around(self, level: int, emit: Callable[[Event], None]) -> Surroundings:
        metric = kernels_metric(self.config.metric)
        return Surroundings(self.executor, metric, self.config.seed, self.scratch, self.checkpoints, emit, level)

    def _emitter(self, log: EventLog) -> Callable[[Event], None]:
        def emit(event: Event) -> None:
            log.append(event)
            if (text := spoken(event)) is not None:
                self.listener.note(text)

        return emit

    def _note_scratch(self) -> None:
        """Remember every place scratch was ever put, so that the one who finishes can clear them all."""
        places = self.run / _SCRATCH_PLACES
        known = places.read_text().splitlines() if places.exists() else []
        if os.fspath(self.scratch) not in known:
            write_file(places, ("\n".join([*known, os.fspath(self.scratch)]) + "\n").encode())
        try:
            self.scratch.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{self.scratch}: cannot be made ({error.strerror}); choose another --scratch") from error

    def forget_unless_begun(self) -> None:
        """Leave nothing of a run that was refused before it began."""
        if not Manifest.exists(self.run):
            self._clean()
            (self.run / SNAPSHOT_NAME).unlink(missing_ok=True)

    def _clean(self) -> None:
        places = self.run / _SCRATCH_PLACES
        for place in places.read_text().splitlines() if places.exists() else []:
            shutil.rmtree(place, ignore_errors=True)
        for name in (_CHECKPOINTS, _BUILDING):
            shutil.rmtree(self.run / name, ignore_errors=True)
        for left in self.run.glob(f"*{TEMPORARY_SUFFIX}"):
            left.unlink(missing_ok=True)
        places.unlink(missing_ok=True)


class _TemporaryFolder:
    """A folder that goes with the object, or with the process."""

    def __init__(self) -> None:
        self.path = tempfile.mkdtemp(prefix="streamcurate-")
        weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)


def _scratch_folder(run: Path, scratch: str | os.PathLike[str] | None) -> Path:
    if scratch is None:
        return run.absolute() / _SCRATCH
    base = Path(scratch)
    if base.exists() and not base.is_dir():
        raise InputError(f"{scratch}: is a file; give a folder for scratch")
    # Several runs may share a scratch folder.
    return base.absolute() / f"streamcurate-{xxhash.xxh3_64_hexdigest(os.fsencode(run.resolve()))}"


def kernels_metric(metric: str) -> kernels.Metric:
    """A configuration's metric, which has been checked, as the kernels' type."""
    return "cosine" if metric == "cosine" else "l2"


def spoken(event: Event) -> str | None:
    """What of an event is worth a line to a watching person."""
    if isinstance(event, Warned):
        return f"warning: {event.text}"
    if isinstance(event, LevelFinished):
        return (
            f"level {event.level}: {event.rows:,} points in {event.clusters:,} clusters, inertia {event.inertia:,.6g}"
            + (f", {event.empty:,} empty" if event.empty else "")
        )
    if isinstance(event, Resumed):
        return f"going on at level {event.level}"
    return None
