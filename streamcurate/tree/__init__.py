"""Trees at rest: reading and writing levels."""

from streamcurate.tree.level import Level, LevelWriter, level_name
from streamcurate.tree.tree import TREE_NAME, Tree, add_array, level_digest, open_tree, rows_under, snapshot_name

__all__ = [
    "TREE_NAME",
    "Level",
    "LevelWriter",
    "Tree",
    "add_array",
    "level_digest",
    "level_name",
    "open_tree",
    "rows_under",
    "snapshot_name",
]
