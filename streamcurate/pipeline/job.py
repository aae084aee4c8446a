"""One process's work on a run: what an earlier one did is taken over, the rest is done."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamcurate.clustering.approximate import require_faiss
from streamcurate.clustering.balance import warnings_of
from streamcurate.clustering.hierarchy import build_level, check_usable, measure
from streamcurate.clustering.surroundings import Surroundings
from streamcurate.config import Config, Level
from streamcurate.embeddings.fingerprint import unit_rows
from streamcurate.embeddings.snapshot import SNAPSHOT_NAME, Snapshot, stamps_of
from streamcurate.embeddings.store import Embeddings
from streamcurate.embeddings.subset import Subset, read_subset
from streamcurate.errors import DataError, RunError
from streamcurate.kernels import Metric, Statistics
from streamcurate.objects import join
from streamcurate.pipeline.folder import RunFolder
from streamcurate.pipeline.log import RunLog, logged
from streamcurate.runs import (
    Event,
    LevelFinished,
    LevelPlanned,
    LevelRecord,
    LevelStarted,
    Manifest,
    Resumed,
    RunFinished,
    RunStarted,
    Sizes,
    StoreRecord,
    SubsetRecord,
    Warned,
    check_resumable,
    differences,
    levels_in_common,
)
from streamcurate.runs.machine import this_machine
from streamcurate.storage import create_array, create_group, node_kind
from streamcurate.streaming import Executor, PassReport, Points, ProgressListener, StoredRows
from streamcurate.tree import LevelWriter, Tree, level_digest, level_name, open_tree, rows_under
from streamcurate.version import __version__

_MASK_CHUNK_ROWS = 1 << 20


class Job:
    """One process's work on a run directory, whose lock it holds."""

    def __init__(
        self,
        folder: RunFolder,
        store: Embeddings,
        config: Config,
        subset: Any,
        executor: Executor,
        listener: ProgressListener,
    ) -> None:
        self.folder, self.run = folder, folder.path
        self.store, self.config = store, config
        self.executor, self.listener = executor, listener
        self.chosen = subset

    def finish(self, reuse: str | os.PathLike[str] | None) -> Tree:
        """Do whatever is left."""
        for index, level in enumerate(self.config.levels):
            if level.search == "faiss":  # said now, not after hours of fitting
                require_faiss(f"levels[{index}]")
        began = time.monotonic()
        before: list[PassReport] = []  # of passes made before there is a log
        self.executor.on_pass = before.append
        earlier = Manifest.read(self.run) if Manifest.exists(self.run) else None
        if earlier is not None:
            check_resumable(earlier, self.run)
        self.folder.prepare_scratch()
        subset = self._read_subset()
        statistics = None
        snapshot = Snapshot.read(self.run / SNAPSHOT_NAME) if earlier is not None else None
        borrowed: Manifest | None = None
        if snapshot is not None:
            snapshot = snapshot.check(self.store).check_ids(self.store)
            # Killed while it took levels over, it goes on doing so; a run to take from that is gone by now is no loss.
            if reuse is not None and earlier is not None and not earlier.complete and Manifest.exists(reuse):
                borrowed = open_tree(reuse).manifest
        elif reuse is not None and earlier is None:
            borrowed = open_tree(reuse).manifest
            other = Snapshot.read(join(reuse, SNAPSHOT_NAME))
            snapshot = other.check(self.store).with_ids_of(self.store) if other is not None else None
        if snapshot is None:
            statistics, snapshot = self._measure(subset)
        wanted = self._manifest(snapshot, subset)
        if borrowed is not None and reuse is not None:
            self._check_reused(borrowed, earlier or wanted, reuse)
        if earlier is not None and (changes := differences(earlier, wanted)):
            raise RunError(
                f"{self.folder.name}: was begun with other settings: {'; '.join(changes)}; "
                "give the settings it was begun with, or choose another run directory"
            )
        if earlier is not None and earlier.store.path != wanted.store.path:
            # The same rows in another place: a run and its store were moved.
            earlier = replace(earlier, store=wanted.store)
            snapshot.write(self.run / SNAPSHOT_NAME)
            earlier.write(self.run)
        if earlier is not None and earlier.complete:
            self.listener.note(f"{self.folder.name}: finished already, nothing to do")
            return self.folder.conclude(earlier)
        with logged(self.run, self.listener, self.executor) as log:
            manifest = earlier or self._begin(wanted, snapshot, log.emit)
            if earlier is not None:
                if node_kind(self.folder.tree) is None or not (self.run / SNAPSHOT_NAME).exists():
                    self._lay_out(snapshot)  # of a run at a URL no more than the manifest may have been published
                log.emit(Resumed(engine=__version__, level=len(earlier.levels) + 1, machine=this_machine()))
            points = self._rows(subset).count
            self._tell_plan(manifest, points, log.emit)
            for report in before:
                log.took(report)
            if borrowed is not None and reuse is not None:
                manifest, own = self._take_over(manifest, borrowed, reuse), manifest
                if manifest is not own:  # how many clusters those levels have is known now
                    self._tell_plan(manifest, points, log.emit)
            manifest = self._build_levels(manifest, statistics, subset, log)
            manifest = self.folder.finish(manifest)
            log.emit(RunFinished(digest=manifest.digest or "", seconds=time.monotonic() - began))
        return self.folder.conclude(manifest)

    # -- before the first level --------------------------------------------------------------------------------------

    def _read_subset(self) -> Subset | None:
        if self.chosen is None:
            return None
        memory = self.executor.budget.usable // 2
        scratch, ids = self.folder.scratch, self.store.ids
        subset = read_subset(self.chosen, self.store.rows, scratch, memory, ids, self.listener)
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

    def _tell_plan(self, manifest: Manifest, points: int, emit: Callable[[Event], None]) -> None:
        """Say what every level is to do; how many points those above an unfinished one get is not known: at most."""
        for index, level in enumerate(self.config.levels):
            record = manifest.levels[index] if index < len(manifest.levels) else None
            resampling = level.resampling
            emit(
                LevelPlanned(
                    level=index + 1,
                    levels=len(self.config.levels),
                    points=points if record is None else record.rows,
                    dims=self.store.dims,
                    clusters=level.clusters,
                    iterations=level.iterations,
                    splits=level.splits,
                    steps=0 if resampling is None else resampling.steps,
                    rows_per_cluster=0 if resampling is None else resampling.rows_per_cluster,
                    tolerance=level.tolerance,
                )
            )
            points = min(level.most_clusters, points) if record is None else record.clusters - record.empty

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
        self._lay_out(snapshot)
        self.folder.record(manifest)
        emit(RunStarted(engine=__version__, store=self.store.name, machine=this_machine()))
        return manifest

    def _lay_out(self, snapshot: Snapshot) -> None:
        if node_kind(self.folder.tree) is None:
            create_group(self.folder.tree)
        snapshot.write(self.run / SNAPSHOT_NAME)

    def _check_reused(self, borrowed: Manifest, manifest: Manifest, reuse: str | os.PathLike[str]) -> None:
        """Refuse a run that has nothing to take over, or whose levels are not what its manifest says."""
        first, count = len(manifest.levels), levels_in_common(borrowed, manifest)
        if not first and not count:
            differing = differences(borrowed, manifest)
            named = "; ".join(differing[:3]) + (f" and {len(differing) - 3} more" if len(differing) > 3 else "")
            raise RunError(f"{reuse}: shares no level with this run ({named or 'none'}); leave --reuse out")
        for level, record in zip(Tree(reuse, borrowed).levels[first:count], borrowed.levels[first:count], strict=True):
            if level_digest(level) != record.digest:
                raise RunError(
                    f"{reuse}: level {level.number} is damaged: its arrays are not those the run finished with; "
                    "leave --reuse out, or build that run again"
                )

    def _take_over(self, manifest: Manifest, borrowed: Manifest, reuse: str | os.PathLike[str]) -> Manifest:
        """Copy the leading levels of another run that this one has not finished itself."""
        first, count = len(manifest.levels), levels_in_common(borrowed, manifest)
        for index in range(first, count):
            self.folder.copy(index + 1, Tree(reuse, borrowed).levels[index])
            manifest = manifest.with_level(borrowed.levels[index])
            self.folder.record(manifest)
        if count > first:
            self.listener.note(f"{count - first} of {len(self.config.levels)} levels taken over from {reuse}")
        return manifest

    # -- levels ------------------------------------------------------------------------------------------------------

    def _build_levels(
        self, manifest: Manifest, statistics: Statistics | None, subset: Subset | None, log: RunLog
    ) -> Manifest:
        below: NDArray[np.int64] | None = None
        for index, level in enumerate(self.config.levels):
            tree = Tree(self.run, manifest)
            if index:
                below = rows_under(tree.levels[index - 1], below)
            if index < len(manifest.levels):
                continue
            log.level = index + 1
            log.emit(LevelStarted(level=index + 1))
            around = self._around(index + 1, log.emit)
            if index == 0:
                points = self._rows(subset)
            else:
                points = self._clusters(tree, index)
                statistics = None
            if statistics is None:
                with around.stage("statistics", points.count):
                    statistics, _ = measure(points, around)
                    if index == 0:
                        self._check_usable(statistics)
            manifest = manifest.with_level(self._build(points, statistics, level, around, below))
            self.folder.record(manifest)
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
        source = points.source
        operations = 2 * source.dims * level.clusters
        writer = LevelWriter(self.folder.building(number), source.rows, source.dims, operations)
        built = build_level(points, statistics, level, around, writer)
        stored = self.folder.place(number)
        uneven = warnings_of(number, rows_under(stored, below), built.sizes)
        record = LevelRecord(
            clusters=len(built.sizes),
            rows=int(built.sizes.sum()),
            inertia=built.inertia,
            empty=int(np.count_nonzero(built.sizes == 0)),
            sizes=Sizes(int(built.sizes.min()), float(np.median(built.sizes)), int(built.sizes.max())),
            seeding=built.seeding,
            iterations=built.iterations,
            digest=level_digest(stored),
            warnings=built.warnings + uneven,
        )
        for text in uneven:
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
        path = self.folder.scratch / level_name(index + 1) / "mask"
        path.parent.mkdir(parents=True, exist_ok=True)
        mask = create_array(path, (len(sizes),), np.uint8, _MASK_CHUNK_ROWS, durable=False, overwrite=True)
        mask.write(0, (sizes > 0).astype(np.uint8))
        return Points(source, count, mask)

    # -- surroundings ------------------------------------------------------------------------------------------------

    def _around(self, level: int, emit: Callable[[Event], None]) -> Surroundings:
        metric: Metric = "cosine" if self.config.metric == "cosine" else "l2"
        return Surroundings(
            self.executor, metric, self.config.seed, self.folder.scratch, self.folder.checkpoints, emit, level
        )
