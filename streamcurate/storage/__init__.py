"""Arrays at rest: the only room that knows Zarr.

Reading never returns what is not there: an absent or truncated chunk is an error, not zeros.
"""

from streamcurate.storage.append import SequentialWriter
from streamcurate.storage.arrays import StoredArray
from streamcurate.storage.groups import (
    create_group,
    group_metadata,
    list_arrays,
    node_kind,
    open_group_attributes,
    remove_leftovers,
    sync_metadata,
    update_group_attributes,
)
from streamcurate.storage.opening import (
    array_metadata,
    create_array,
    local_path,
    open_array,
    set_rows,
    unannounced_array,
    with_rows,
)
from streamcurate.storage.shards import ShardWriter

__all__ = [
    "SequentialWriter",
    "ShardWriter",
    "StoredArray",
    "array_metadata",
    "create_array",
    "create_group",
    "group_metadata",
    "list_arrays",
    "local_path",
    "node_kind",
    "open_array",
    "open_group_attributes",
    "remove_leftovers",
    "set_rows",
    "sync_metadata",
    "unannounced_array",
    "update_group_attributes",
    "with_rows",
]
