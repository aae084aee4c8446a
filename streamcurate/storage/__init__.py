"""Arrays at rest: the only room that knows Zarr.

Reading never returns what is not there: an absent or truncated chunk is an error, not zeros.
"""

from streamcurate.storage.append import SequentialWriter
from streamcurate.storage.arrays import StoredArray, create_array, local_path, open_array, set_rows
from streamcurate.storage.groups import (
    create_group,
    list_arrays,
    node_kind,
    open_group_attributes,
    remove_leftovers,
    sync_metadata,
    update_group_attributes,
)

__all__ = [
    "SequentialWriter",
    "StoredArray",
    "create_array",
    "create_group",
    "list_arrays",
    "local_path",
    "node_kind",
    "open_array",
    "open_group_attributes",
    "remove_leftovers",
    "set_rows",
    "sync_metadata",
    "update_group_attributes",
]
