"""Labels for new rows from a finished tree, whose centroids stay as they are."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamcurate.clustering.approximate import told
from streamcurate.clustering.frozen import FrozenLevel
from streamcurate.clustering.new_rows import LabelledRows, label_new_rows, measure_new, measured_before
from streamcurate.clustering.novelty import Novelty, NoveltyCount, percentile_of
from streamcurate.clustering.surroundings import Surroundings, ignore
from streamcurate.clustering.unfinished import KIND, UnfinishedLabels
from streamcurate.embeddings.snapshot import Snapshot, stamps_of
from streamcurate.embeddings.store import IDS_NAME, Embeddings
from streamcurate.errors import InputError
from streamcurate.objects import join
from streamcurate.runs.digest import combine_digests
from streamcurate.storage import (
    SequentialWriter,
    create_array,
    create_group,
    open_array,
    open_group_attributes,
    sync_metadata,
    update_group_attributes,
)
from streamcurate.streaming import Executor
from streamcurate.tree import Tree, level_name
from streamcurate.tree.level import ALIGNED_CHUNK_ROWS

# Ids are held as text while they are copied.
_IDS_ROWS = 1 << 16


@dataclass(frozen=True)
class Assignment:
    """Labels of new rows at rest.

    Attributes
    ----------
    path : str
        A folder or a URL.
    rows : int
    levels : int
    warnings : tuple of str
        What the user should know of the labels.
    novelty : Novelty or None
        How many of the rows lie farther from their centroids than 99 % of the tree's own; ``novelty.share`` of them.
    """

    path: str
    rows: int
    levels: int
    warnings: tuple[str, ...] = ()
    novelty: Novelty | None = None

    def __repr__(self) -> str:
        novel = "" if self.novelty is None else f", {self.novelty.share:.2%} of them novel"
        levels = "1 level" if self.levels == 1 else f"{self.levels} levels"
        return f"Assignment({self.path!r}: {self.rows:,} rows at {levels}{novel})"

    def labels(self, level: int = 1) -> Any:
        """Zarr array, int32 (rows,): clusters of a level; -1 under a cluster that holds no row of the tree."""
        return self._array(level, "labels")

    def distances(self, level: int = 1) -> Any:
        """Zarr array, float32 (rows,): of the row to its level-1 centroid, of that to its level-2 centroid, ..."""
        return self._array(level, "distances")

    def _array(self, level: int, name: str) -> Any:
        if level not in range(1, self.levels + 1):
            there = "level 1 alone" if self.levels == 1 else f"levels 1 to {self.levels}"
            raise InputError(f"level {level}: {self.path} holds {there}")
        return open_array(join(self.path, level_name(level), name)).zarr

    @property
    def ids(self) -> Any:
        """The rows' ids as they were in their store, a range at a time: ``ids[:3]``; None where it had none."""
        return open_array(join(self.path, IDS_NAME)) if open_group_attributes(self.path).get("ids") else None


def check_dims(tree: Tree, embeddings: Embeddings) -> None:
    """Refuse embeddings of other dims than the tree's.

    Raises
    ------
    InputError
    """
    dims = tree.levels[0].stored_centroids.shape[1]
    if embeddings.dims != dims:
        raise InputError(
            f"{embeddings.name}: has {embeddings.dims} dims, the tree in {tree.path} was built from {dims}; "
            "give embeddings of the same model"
        )


def is_approximate(tree: Tree, level: int) -> bool:
    """Whether a level was labelled by an approximate index."""
    return bool(tree.manifest.config["levels"][level - 1].get("search", "exact") == "faiss")


def threshold_of(tree: Tree, executor: Executor) -> float:
    """The 99th percentile of the level-1 distances of the rows that the centroids were fitted to.

    Those are the rows of the first store; rows that a tree was extended by have no part in it.
    """
    return percentile_of(tree.levels[0].stored_distances, tree.manifest.stores[0].rows, executor)


def assign_rows(tree: Tree, embeddings: Embeddings, work: UnfinishedLabels, executor: Executor) -> Assignment:
    """Label new rows at every level; see ``streamcurate.assign``.

    Parameters
    ----------
    tree : Tree
    embeddings : Embeddings
        Where the executor's processes can read them.
    work : UnfinishedLabels
        Entered and begun.
    executor : Executor
    """
    metric: Any = tree.metric
    around = Surroundings(executor, metric, tree.seed, work.scratch, work.checkpoints, ignore, 1)
    # Labels and distances of the clusters; rows and novel rows of those of level 1.
    held = 8 * sum(level.points for level in tree.levels[1:]) + 16 * tree.levels[0].clusters
    executor.budget.require(held, f"{tree.path}: the clusters of all levels", "use a machine with more memory")
    frozen = FrozenLevel(tree.levels[0], is_approximate(tree, 1), around)
    snapshot = work.snapshot
    statistics = None if snapshot is None else measured_before(snapshot.fingerprint, around)
    if snapshot is None or statistics is None:
        statistics, snapshot = measure_new(embeddings, around)
        work.note(snapshot)
    threshold = threshold_of(tree, executor)
    labelled = label_new_rows(embeddings, statistics, snapshot.fingerprint, frozen, around)
    warnings: tuple[str, ...] = ()
    attributes: dict[str, Any] = {}
    if frozen.approximate:
        recall, rows = labelled.recall(frozen, around)
        warnings = (told(work.out, recall, rows),)
        attributes["search"] = {"index": "faiss", "recall": recall, "rows": rows}
    novelty = _put_together(work.store, tree, labelled, threshold, executor)
    attributes["ids"] = _copy_ids(embeddings, work.store)
    attributes["novelty"] = novelty.to_mapping()
    attributes["clusters"] = tree.levels[0].clusters
    # By which the same command, given again, sees that it is done.
    noted = {"fingerprint": snapshot.fingerprint, "stamps": stamps_digest(embeddings, snapshot)}
    attributes["embeddings"] = embeddings.description() | noted
    if (far := novelty.record.warning(embeddings.name)) is not None:
        warnings += (far,)
    attributes["warnings"] = list(warnings)
    update_group_attributes(work.store, attributes)
    for number in range(1, len(tree.levels) + 1):
        sync_metadata(work.store / level_name(number))
    sync_metadata(work.store)
    work.finish()
    return Assignment(work.out, embeddings.rows, len(tree.levels), warnings, novelty)


def stamps_digest(embeddings: Embeddings, snapshot: Snapshot | None = None) -> str | None:
    """Digest of where embeddings lie and of size and time of their files, as they are or were; None in memory."""
    stamps = stamps_of(embeddings) if snapshot is None else snapshot.stamps
    if not stamps:
        return None
    if snapshot is not None:
        ids = snapshot.id_stamps
    else:
        ids = () if embeddings.ids is None else tuple(embeddings.ids.stamps())
    files = [f"{size} {time}" for size, time in (*stamps, *ids)]
    return combine_digests([str(embeddings.description()["path"]), str(len(stamps)), *files])


def _put_together(place: Path, tree: Tree, labelled: LabelledRows, threshold: float, executor: Executor) -> Novelty:
    """Write the labels of level 1 in one piece, and after them those of every level above."""
    shutil.rmtree(place, ignore_errors=True)
    create_group(place, {"format": 1, "kind": KIND, "tree": {"digest": tree.digest, "path": tree.path}})
    upper = [
        (level.stored_labels.read(0, level.points), level.stored_distances.read(0, level.points))
        for level in tree.levels[1:]
    ]
    seen = NoveltyCount(threshold, tree.levels[0].clusters)
    executor.progress.started("writing labels", labelled.rows)
    with ExitStack() as stack:
        writers = []
        for number in range(1, len(tree.levels) + 1):
            create_group(place / level_name(number))
            for name, dtype in (("labels", np.int32), ("distances", np.float32)):
                array = create_array(place / level_name(number) / name, (labelled.rows,), dtype, ALIGNED_CHUNK_ROWS)
                writers.append(stack.enter_context(SequentialWriter(array)))
        for labels, distances in labelled.blocks():
            seen.add(labels, distances)
            _append(writers, labels, distances, upper)
            executor.progress.advanced(len(labels), 8 * len(labels))
    executor.progress.finished()
    return seen.result()


def _append(
    writers: Sequence[SequentialWriter],
    labels: NDArray[np.int32],
    distances: NDArray[np.float32],
    upper: Sequence[tuple[NDArray[np.int32], NDArray[np.float32]]],
) -> None:
    """Some rows' labels and distances at every level; -1 and NaN above a cluster that is in none."""
    columns: list[NDArray[Any]] = [labels, distances]
    for parents, lengths in upper:
        known = labels >= 0
        at = np.where(known, labels, 0)
        labels = np.where(known, parents[at], np.int32(-1)).astype(np.int32)
        columns += [labels, np.where(known, lengths[at], np.float32(np.nan)).astype(np.float32)]
    for writer, column in zip(writers, columns, strict=True):
        writer.append(column)


def _copy_ids(embeddings: Embeddings, place: Path) -> bool:
    """Put the rows' ids beside their labels; whether there are any."""
    if embeddings.ids is None:
        return False
    kind = np.int64 if embeddings.ids.dtype.kind in "iu" else str
    with SequentialWriter(create_array(place / IDS_NAME, (embeddings.rows,), kind, _IDS_ROWS)) as writer:
        for start in range(0, embeddings.rows, _IDS_ROWS):
            ids = embeddings.ids.read(start, min(start + _IDS_ROWS, embeddings.rows))
            writer.append(ids.astype(np.int64) if kind is np.int64 else ids)
    return True
