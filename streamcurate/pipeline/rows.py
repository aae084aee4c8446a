"""What a user names as rows: a finished tree, or embeddings without one."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from streamcurate.embeddings.store import Embeddings, as_embeddings
from streamcurate.errors import StoreError
from streamcurate.objects import exists, join
from streamcurate.runs.manifest import MANIFEST_NAME
from streamcurate.tree import Tree, open_tree


@dataclass(frozen=True)
class SourceRows:
    """Rows, and the tree over them where there is one.

    Attributes
    ----------
    tree : Tree or None
    embeddings : Embeddings
        Of an extended tree, the rows of all its stores.
    """

    tree: Tree | None
    embeddings: Embeddings

    @property
    def name(self) -> str:
        """How messages call them: the run directory or the store."""
        return self.embeddings.name if self.tree is None else self.tree.path


def open_rows(source: Any) -> SourceRows:
    """Open what a user named.

    Parameters
    ----------
    source : Tree, Embeddings, path or URL of a run directory or of a store, or array

    Raises
    ------
    RunError
        The run is unfinished.
    StoreError
        The rows that the tree was built from are gone.
    InputError
        Nothing lies there, or something else.
    """
    tree = source if isinstance(source, Tree) else None
    if isinstance(source, (str, os.PathLike)) and exists(join(source, MANIFEST_NAME)):
        tree = open_tree(source)
    if tree is None:
        return SourceRows(None, as_embeddings(source))
    embeddings = tree.embeddings()
    if embeddings is None:
        place = ", ".join(store.path for store in tree.manifest.stores if store.path) or "an array in memory"
        raise StoreError(
            f"{tree.path}: the rows it was built from are not there any more ({place}); put the store back where it "
            "was, or give the same cluster command with its new place, which notes it"
        )
    return SourceRows(tree, embeddings)
