"""How a selection is written."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from streamcurate.files import placed_file
from streamcurate.sampling.metadata import Metadata
from streamcurate.streaming.progress import ProgressListener, Silent

__all__ = ["Options", "placed_file"]


@dataclass(frozen=True)
class Options:
    """How a selection is written.

    Attributes
    ----------
    metadata : Metadata or None
        Columns to write beside each row, or one by which rows are called.
    shard_digits : int or None
        Leading characters of a key that name its shard, for key lists by shard.
    memory_limit : int or None
        Bytes this process may use; None takes half of what is available.
    scratch : path or None
        A folder for what does not fit into memory.
    listener : ProgressListener
    embeddings : Any
        Where the rows are read for a new store; by default the store the tree was built from.
    """

    metadata: Metadata | None = None
    shard_digits: int | None = None
    memory_limit: int | None = None
    scratch: str | os.PathLike[str] | None = None
    listener: ProgressListener = Silent()  # noqa: RUF009 - it holds nothing
    embeddings: Any = None
