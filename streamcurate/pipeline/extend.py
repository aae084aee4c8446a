"""What ``extend`` does: a finished tree, more rows, and a run directory that holds both."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from streamcurate import objects
from streamcurate.clustering.approximate import told
from streamcurate.clustering.assign import check_dims, is_approximate, threshold_of
from streamcurate.clustering.balance import warnings_of
from streamcurate.clustering.extend import Extended, extend_clusters, extend_rows
from streamcurate.clustering.frozen import FrozenLevel
from streamcurate.clustering.new_rows import LabelledRows, label_new_rows, measure_new, measured_before
from streamcurate.clustering.surroundings import Surroundings
from streamcurate.embeddings.fingerprint import unit_digests_of
from streamcurate.embeddings.joined import check_joinable
from streamcurate.embeddings.snapshot import Snapshot, stamps_of
from streamcurate.embeddings.store import Embeddings, as_embeddings
from streamcurate.errors import InputError, RunError
from streamcurate.files import write_file
from streamcurate.kernels import Statistics
from streamcurate.pipeline.executors import check_device, distributed, executor_for
from streamcurate.pipeline.folder import RunFolder, opened_run
from streamcurate.pipeline.log import RunLog, logged
from streamcurate.runs import (
    Event,
    ExtensionRecord,
    LevelFinished,
    LevelPlanned,
    LevelRecord,
    LevelStarted,
    Manifest,
    NoveltyRecord,
    Resumed,
    RunFinished,
    RunStarted,
    Sizes,
    StoreRecord,
    Warned,
    check_engine,
    differences,
)
from streamcurate.runs.machine import this_machine
from streamcurate.storage import create_group, node_kind
from streamcurate.streaming import Executor, MemoryBudget, PassReport, ProgressListener, Silent
from streamcurate.tree import LevelWriter, Tree, level_digest, open_tree, rows_under, snapshot_name
from streamcurate.version import __version__


def extend(
    tree: Tree | str | os.PathLike[str],
    embeddings: Any,
    out: str | os.PathLike[str],
    *,
    memory_limit: int | str | None = None,
    scratch: str | os.PathLike[str] | None = None,
    device: str = "auto",
    threads: int | None = None,
    client: Any = None,
    progress: ProgressListener | None = None,
) -> Tree:
    """Add the rows of a second store to a finished tree; the same call again goes on where it stopped.

    The centroids stay as they are. Row j of the new store is row n + j of the new tree, where n is the number of rows
    the tree had. The tree itself is not touched: ``out`` is a run directory of its own, from which :func:`sample` draws
    rows of both stores. Both stores stay where they are, and the new tree refers to them.

    Parameters
    ----------
    tree : Tree or path
        A tree, or its run directory; it may have been extended before.
    embeddings : Embeddings, path, or NumPy, CuPy, Dask or Zarr array
        Of the tree's dims, and with ids of the same kind as the tree's store, or like that without. Ids are not
        compared: one that occurs in both stores names a row of each.
    out : path
        The run directory to make.
    memory_limit, scratch, device, threads, client, progress
        As for :func:`cluster`.

    Returns
    -------
    Tree
        Of ``out``. A level's inertia is that of the tree plus that of the new points, and ``novelty`` tells how many of
        the new rows lie farther out than 99 % of those the tree was built from; where more than 5 % do, ``warnings``
        say so.

    Raises
    ------
    InputError
        Other dims, other ids, bad rows, a run directory of something else, or a store that changed meanwhile.
    """
    check_device(client, device)
    base = tree if isinstance(tree, Tree) else open_tree(tree)
    listener = progress or Silent()
    store = as_embeddings(embeddings)
    check_dims(base, store)
    _check_ids(base, store)
    _check_place(base, out, store)
    budget = MemoryBudget.of(memory_limit, threads)
    with opened_run(out, scratch, listener, distributed(client, device)) as folder:
        folders = (folder.scratch, [folder.path])
        with executor_for(client, budget, listener, *folders, store, device, threads) as (executor, rows):
            return _Job(base, folder, rows, store.path, executor, listener).finish()


def _check_ids(base: Tree, store: Embeddings) -> None:
    """Refuse ids that those of the tree's rows could not stand beside."""
    mine = base.embeddings()
    if mine is not None:
        check_joinable([mine, store])
    elif base.manifest.store.ids != (store.ids is not None):
        has = "ids" if base.manifest.store.ids else "no ids"
        raise InputError(
            f"{store.name}: {'has no ids' if base.manifest.store.ids else 'has ids'}, the rows of {base.path} have "
            f"{has}; ids must be in both or in none"
        )


def _check_place(base: Tree, out: str | os.PathLike[str], store: Embeddings) -> None:
    """Refuse a run directory that is not an extension of this tree, or is one by other rows in another place."""
    if not Manifest.exists(out):
        return
    extension = Manifest.read(out).extension
    if extension is None:
        raise RunError(f"{out}: is a run that cluster made; choose another run directory")
    if extension.digest != base.digest:
        raise RunError(
            f"{out}: extends {extension.run} of digest {extension.digest}, not {base.path} of digest {base.digest}; "
            "give the run it was begun with, or choose another run directory"
        )
    noted = extension.stores[-1]
    same_shape = (noted.rows, noted.dims, noted.dtype) == (store.rows, store.dims, store.dtype.name)
    if _lies_elsewhere(noted, store) and not same_shape:
        raise _of_other_rows(out, noted, store)


def _lies_elsewhere(noted: StoreRecord, store: Embeddings) -> bool:
    """Whether embeddings are not at the place of those that a run holds, or one of the two was in memory."""
    return not noted.path or store.description()["path"] != noted.path


def _of_other_rows(out: str | os.PathLike[str], noted: StoreRecord, store: Embeddings) -> RunError:
    return RunError(
        f"{out}: holds the rows of {noted.path or 'an array in memory'}, not of {store.name}; "
        "choose another run directory"
    )


class _Job:
    """One process's work on an extended run, whose lock it holds."""

    def __init__(
        self,
        base: Tree,
        folder: RunFolder,
        store: Embeddings,
        path: str | None,
        executor: Executor,
        listener: ProgressListener,
    ) -> None:
        self.base, self.folder, self.run = base, folder, folder.path
        self.store, self.path = store, path
        self.executor, self.listener = executor, listener

    def finish(self) -> Tree:
        """Do whatever is left."""
        began = time.monotonic()
        before: list[PassReport] = []  # of passes made before there is a log
        self.executor.on_pass = before.append
        earlier = Manifest.read(self.run) if Manifest.exists(self.run) else None
        if earlier is not None:
            check_engine(earlier, self.folder.name)
        self.folder.prepare_scratch()
        around = self._around(1, lambda event: None)
        place = self.run / snapshot_name(len(self.base.manifest.stores))
        snapshot = Snapshot.read(place) if earlier is not None else None
        statistics = None
        if snapshot is not None:
            assert earlier is not None
            snapshot = self._checked(snapshot, earlier.stores[-1])
            statistics = measured_before(snapshot.fingerprint, around)
        else:
            if earlier is None:
                self._check_base()
            statistics, snapshot = measure_new(self.store, around)
        wanted = self._manifest(snapshot)
        if earlier is not None and (changes := differences(earlier, wanted)):
            raise RunError(
                f"{self.folder.name}: was begun with other rows: {'; '.join(changes)}; "
                "give the store it was begun with, or choose another run directory"
            )
        if earlier is not None:
            earlier = self._moved(earlier, wanted, snapshot)
        if earlier is not None and earlier.complete:
            self.listener.note(f"{self.folder.name}: finished already, nothing to do")
            return self.folder.conclude(earlier)
        with logged(self.run, self.listener, self.executor) as log:
            if earlier is None:
                log.emit(RunStarted(engine=__version__, store=self.store.name, machine=this_machine()))
            else:
                log.emit(Resumed(engine=__version__, level=len(earlier.levels) + 1, machine=this_machine()))
            manifest = earlier or wanted
            self._tell_plan(manifest, log.emit)
            for report in before:
                log.took(report)
            self._record(manifest, snapshot)
            manifest = self.folder.finish(self._build_levels(manifest, snapshot, statistics, log))
            log.emit(RunFinished(digest=manifest.digest or "", seconds=time.monotonic() - began))
        return self.folder.conclude(manifest)

    # -- before the first level --------------------------------------------------------------------------------------

    def _checked(self, snapshot: Snapshot, noted: StoreRecord) -> Snapshot:
        """The snapshot of the new rows, with the stamps of now; refuse what are other rows."""
        store = self.store
        if not _lies_elsewhere(noted, store):
            return snapshot.check(store).check_ids(store)
        stamps = stamps_of(store)
        for unit, digest in enumerate(snapshot.digests):
            if unit_digests_of(store, [unit])[0] != digest:
                raise _of_other_rows(self.folder.name, noted, store)
        return replace(snapshot, stamps=stamps).check_ids(store)

    def _moved(self, earlier: Manifest, wanted: Manifest, snapshot: Snapshot) -> Manifest:
        """The manifest with the places where the same rows, and the same run, lie now."""
        assert earlier.extension is not None
        assert wanted.extension is not None
        pairs = zip(earlier.extension.stores, wanted.extension.stores, strict=True)
        # An array in memory is nowhere to look for the rows.
        stores = tuple(replace(old, path=new.path or old.path) for old, new in pairs)
        extension = replace(earlier.extension, run=wanted.extension.run, stores=stores)
        if extension == earlier.extension:
            return earlier
        moved = replace(earlier, store=replace(earlier.store, path=stores[0].path), extension=extension)
        self._copy_snapshots(len(stores) - 1, anew=True)
        if stores[-1] != earlier.extension.stores[-1]:
            snapshot.write(self.run / snapshot_name(len(stores) - 1))
        moved.write(self.run)
        return moved

    def _copy_snapshots(self, count: int, anew: bool) -> None:
        """Take over the base's snapshots of its stores, those that are there already only ``anew``."""
        for number in range(count):
            content = objects.contents(objects.join(self.base.path, snapshot_name(number)))
            if content is not None and (anew or not (self.run / snapshot_name(number)).exists()):
                write_file(self.run / snapshot_name(number), content)

    def _check_base(self) -> None:
        """Make sure that the arrays of the tree are those it was finished with."""
        for level, record in zip(self.base.levels, self.base.manifest.levels, strict=True):
            self.listener.note(f"checking level {level.number} of {self.base.path}")
            if level_digest(level) != record.digest:
                raise RunError(
                    f"{self.base.path}: level {level.number} is damaged: its arrays are not those the run finished "
                    "with; restore the run, or build it again"
                )

    def _manifest(self, snapshot: Snapshot) -> Manifest:
        description = self.store.description()
        record = StoreRecord(
            path=(description["path"] or "") if self.path is not None else "",
            rows=self.store.rows,
            dims=self.store.dims,
            dtype=self.store.dtype.name,
            fingerprint=snapshot.fingerprint,
            ids=self.store.ids is not None,
        )
        run = self.base.path if objects.is_url(self.base.path) else os.path.abspath(self.base.path)
        stores = (*self.base.manifest.stores, record)
        return Manifest.begin_extension(self.base.manifest, ExtensionRecord(run, str(self.base.digest), stores))

    def _record(self, manifest: Manifest, snapshot: Snapshot) -> None:
        """Write the manifest, and beside it a snapshot of every store that a kill kept from being there."""
        if node_kind(self.folder.tree) is None:
            create_group(self.folder.tree)
        manifest.write(self.run)
        last = len(manifest.stores) - 1
        self._copy_snapshots(last, anew=False)
        snapshot.write(self.run / snapshot_name(last))
        self.folder.record(manifest)

    # -- levels ------------------------------------------------------------------------------------------------------

    def _build_levels(
        self, manifest: Manifest, snapshot: Snapshot, statistics: Statistics | None, log: RunLog
    ) -> Manifest:
        under_before = self.base.rows_under()
        under = None
        for index in range(len(self.base.levels)):
            tree = Tree(self.run, manifest)
            if index:
                under = rows_under(tree.levels[index - 1], under)
            if index < len(manifest.levels):
                continue
            log.level = index + 1
            log.emit(LevelStarted(level=index + 1))
            around = self._around(index + 1, log.emit)
            warnings: tuple[str, ...] = ()
            if index == 0:
                if statistics is None:
                    with around.stage("statistics", self.store.rows):
                        statistics, _ = measure_new(self.store, around)
                extended, manifest, warnings = self._first_level(manifest, snapshot, statistics, around)
            else:
                level, approximate = self.base.levels[index], is_approximate(self.base, index + 1)
                extended = extend_clusters(level, tree.levels[index - 1], approximate, around, self._writer(index))
            stored = self.folder.place(index + 1)
            own = self.base.manifest.levels[index]
            uneven = warnings_of(index + 1, rows_under(stored, under), extended.sizes)
            # What was said of the balance is no longer true; all else is.
            of_balance = warnings_of(index + 1, under_before[index], self.base.levels[index].sizes())
            kept = tuple(text for text in own.warnings if text not in of_balance)
            record = LevelRecord(
                clusters=len(extended.sizes),
                rows=int(extended.sizes.sum()),
                inertia=own.inertia + extended.inertia,
                empty=int(np.count_nonzero(extended.sizes == 0)),
                sizes=Sizes(int(extended.sizes.min()), float(np.median(extended.sizes)), int(extended.sizes.max())),
                seeding=own.seeding,
                iterations=own.iterations,
                digest=level_digest(stored),
                warnings=kept + warnings + uneven,
            )
            for text in warnings + uneven:
                log.emit(Warned(text=text, level=index + 1))
            log.emit(
                LevelFinished(
                    level=index + 1,
                    clusters=record.clusters,
                    rows=record.rows,
                    inertia=record.inertia,
                    empty=record.empty,
                    digest=record.digest,
                )
            )
            manifest = manifest.with_level(record)
            self.folder.record(manifest)
        return manifest

    def _tell_plan(self, manifest: Manifest, emit: Callable[[Event], None]) -> None:
        """Say how many points each level labels, at most for those above an unfinished one; nothing is fitted."""
        records = self.base.manifest.levels
        points = records[0].rows + self.store.rows
        for index, own in enumerate(records):
            record = manifest.levels[index] if index < len(manifest.levels) else None
            emit(
                LevelPlanned(
                    level=index + 1,
                    levels=len(records),
                    points=points if record is None else record.rows,
                    dims=self.store.dims,
                    clusters=own.clusters,
                    iterations=0,
                )
            )
            points = own.clusters if record is None else record.clusters - record.empty

    def _first_level(
        self, manifest: Manifest, snapshot: Snapshot, statistics: Statistics, around: Surroundings
    ) -> tuple[Extended, Manifest, tuple[str, ...]]:
        level = self.base.levels[0]
        frozen = FrozenLevel(level, is_approximate(self.base, 1), around)
        threshold = threshold_of(self.base, self.executor)
        with around.stage("labels", self.store.rows):
            labelled = label_new_rows(self.store, statistics, snapshot.fingerprint, frozen, around)
        extended, novelty = extend_rows(level, labelled, threshold, around, self._writer(0))
        manifest = manifest.with_novelty(novelty.record)
        return extended, manifest, self._warnings(manifest, frozen, labelled, novelty.record, around)

    def _warnings(
        self,
        manifest: Manifest,
        frozen: FrozenLevel,
        labelled: LabelledRows,
        novelty: NoveltyRecord,
        around: Surroundings,
    ) -> tuple[str, ...]:
        """What the user should know of the new rows."""
        found = []
        if (far := novelty.warning(self.store.name)) is not None:
            found.append(f"level 1: {far}")
        if frozen.approximate:
            recall, rows = labelled.recall(frozen, around)
            found.append(told(f"level 1, {self.store.name}", recall, rows))
        if novelty.outside:
            found.append(
                f"level 1: {novelty.outside:,} rows of {self.store.name} are in no cluster and cannot be drawn: the "
                "coarse cluster they are nearest to held no rows, and so has no leaves"
            )
        *before, new = manifest.stores
        twice = next((store for store in before if store.fingerprint == new.fingerprint), None)
        if twice is not None:
            found.append(f"level 1: {self.store.name} holds the very rows of {twice.path or 'an earlier store'}")
        return tuple(found)

    def _writer(self, index: int) -> LevelWriter:
        level = self.base.levels[index]
        points = level.points if index else level.points + self.store.rows
        return LevelWriter(self.folder.building(index + 1), points, level.stored_centroids.shape[1])

    # -- surroundings ------------------------------------------------------------------------------------------------

    def _around(self, level: int, emit: Callable[[Event], None]) -> Surroundings:
        metric: Any = self.base.metric
        return Surroundings(
            self.executor, metric, self.base.seed, self.folder.scratch, self.folder.checkpoints, emit, level
        )
