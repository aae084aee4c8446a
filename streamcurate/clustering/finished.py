"""Labels of new rows that lie there already: opened again, and told from those of other rows."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from streamcurate import objects
from streamcurate.clustering.assign import Assignment, stamps_digest
from streamcurate.clustering.novelty import StoredNovelty
from streamcurate.clustering.unfinished import KIND, PARTIAL_SUFFIX
from streamcurate.embeddings.fingerprint import FingerprintBuilder
from streamcurate.embeddings.store import IDS_NAME, Embeddings, plain_ids
from streamcurate.errors import InputError, StoreError
from streamcurate.objects import join
from streamcurate.storage import list_arrays, node_kind, open_array, open_group_attributes
from streamcurate.streaming import ProgressListener
from streamcurate.tree import Tree, level_name

_READ_BYTES = 16 << 20
_IDS_ROWS = 1 << 16


def open_labels(path: str | os.PathLike[str]) -> Assignment:
    """Open labels of new rows that :func:`assign` made.

    Parameters
    ----------
    path : path or URL

    Returns
    -------
    Assignment
        What :func:`assign` returned; ``novelty.rows`` and ``novelty.novel`` are counted anew when they are asked for.

    Raises
    ------
    InputError
        Nothing lies there, or no labels of new rows, or unfinished ones.
    StoreError
        An array is missing.
    """
    place = os.fspath(path).rstrip("/")
    attributes = _attributes(place)
    if attributes is None or place.endswith(PARTIAL_SUFFIX):
        raise InputError(_refusal(place))
    levels = 0
    while "labels" in (arrays := list_arrays(join(place, level_name(levels + 1)))):
        rows = int(arrays["labels"][0][0])
        levels += 1
    if not levels:
        raise StoreError(f"{place}: labels of new rows, but without the labels of level 1; assign them again")
    novelty = None
    # Labels made by earlier versions have neither.
    if "novelty" in attributes:
        labels, distances = (open_array(join(place, level_name(1), name)) for name in ("labels", "distances"))
        novelty = StoredNovelty(attributes["novelty"], labels, distances, attributes.get("clusters"))
    return Assignment(place, rows, levels, tuple(attributes.get("warnings", ())), novelty)


def finished_labels(out: str, tree: Tree, embeddings: Embeddings, listener: ProgressListener) -> Assignment | None:
    """The labels at a place, if they are those that this tree gives these very rows; else None.

    Where size and time of the rows' files say nothing, all rows are read.
    """
    attributes = _attributes(out)
    if attributes is None or attributes.get("tree", {}).get("digest") != tree.digest:
        return None
    noted = attributes.get("embeddings", {})
    shape = {key: value for key, value in embeddings.description().items() if key != "path"}
    if any(noted.get(key) != value for key, value in shape.items()) or "fingerprint" not in noted:
        return None
    stamps = stamps_digest(embeddings)
    if stamps is None or stamps != noted.get("stamps"):
        if not _same_ids(out, attributes, embeddings):
            return None
        if fingerprint_of(embeddings, listener) != noted["fingerprint"]:
            return None
    return open_labels(out)


def _attributes(path: str) -> Mapping[str, Any] | None:
    """What labels say of themselves; None where there are none."""
    if node_kind(path) != "group":
        return None
    attributes = open_group_attributes(path)
    return attributes if attributes.get("kind") == KIND else None


def _refusal(place: str) -> str:
    partial = place if place.endswith(PARTIAL_SUFFIX) else place + PARTIAL_SUFFIX
    if not objects.is_url(place) and os.path.isdir(partial) and (place == partial or not os.path.exists(place)):
        return f"{place}: these labels are unfinished; give the same assign command again"
    if not objects.exists(place):
        return f"{place}: no such file or folder; check the path"
    return f"{place}: holds no labels of new rows; give what streamcurate assign made"


def fingerprint_of(embeddings: Embeddings, listener: ProgressListener) -> str:
    """Of the rows as they are."""
    builder = FingerprintBuilder(embeddings.dims, embeddings.dtype)
    row = embeddings.dims * embeddings.dtype.itemsize
    # Whole chunks, unless these are large.
    step = embeddings.chunk_rows if embeddings.chunk_rows * row <= _READ_BYTES else max(_READ_BYTES // row, 1)
    step *= max(_READ_BYTES // (step * row), 1)
    listener.started("compare rows", embeddings.rows)
    for start in range(0, embeddings.rows, step):
        rows = embeddings.read(start, min(start + step, embeddings.rows))
        builder.update(rows)
        listener.advanced(len(rows), rows.nbytes)
    listener.finished()
    return builder.result()


def _same_ids(out: str, attributes: Mapping[str, Any], embeddings: Embeddings) -> bool:
    """Whether the ids beside the labels are those of the rows."""
    if bool(attributes.get("ids")) != (embeddings.ids is not None):
        return False
    if embeddings.ids is None:
        return True
    kept = open_array(join(out, IDS_NAME))
    if (kept.dtype.kind in "iu") != (embeddings.ids.dtype.kind in "iu"):
        return False
    for start in range(0, embeddings.rows, _IDS_ROWS):
        stop = min(start + _IDS_ROWS, embeddings.rows)
        if not np.array_equal(plain_ids(kept.read(start, stop)), plain_ids(embeddings.ids.read(start, stop))):
            return False
    return True
