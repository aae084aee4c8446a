"""How the bytes of an array lie in its files, as far as it matters for reading them safely."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import zarr
from zarr.codecs import BytesCodec, ShardingCodec

# Offset in a shard's index of a chunk that is not there (Zarr v3, codec sharding_indexed, "Binary shard format").
_ABSENT = np.uint64(2**64 - 1)


def is_raw(array: zarr.Array[Any], column_chunks: tuple[int, ...]) -> bool:
    """Whether a chunk's file holds the rows' own bytes: no codec but little-endian, C order, columns unchunked."""
    dtype = array.dtype
    if dtype.kind not in "iufb" or any(count != 1 for count in column_chunks):
        return False
    if any(width != size for width, size in zip((array.shards or array.chunks)[1:], array.shape[1:], strict=True)):
        return False
    metadata = array.metadata
    if metadata.zarr_format == 2:
        plain = not metadata.filters and metadata.compressor is None and metadata.order == "C"
        return plain and dtype.newbyteorder("=") == dtype
    codecs = metadata.codecs
    if len(codecs) != 1 or not isinstance(codecs[0], BytesCodec):
        return False
    return dtype.itemsize == 1 or (codecs[0].endian is not None and codecs[0].endian.value == "little")


def shard_fault(array: zarr.Array[Any], file: str, rows: int, column: tuple[int, ...]) -> str | None:
    """What keeps a shard from being read safely; None where nothing does, or the array has no shards.

    Zarr reads chunks that are missing inside a shard as zeros, so the shard's index is looked at first.

    Parameters
    ----------
    array : zarr.Array
    file : str
        The shard.
    rows : int
        Rows of the array in it.
    column : tuple of int
        Which shard it is along the other axes.
    """
    codecs: tuple[Any, ...] = getattr(array.metadata, "codecs", ())
    if not any(isinstance(codec, ShardingCodec) for codec in codecs):
        return None
    outer = codecs[0]
    if len(codecs) != 1 or array.shards is None or any(isinstance(codec, ShardingCodec) for codec in outer.codecs):
        return "has shards inside other codecs, where missing chunks cannot be told from zeros"
    inner = array.chunks
    counts = [-(-size // width) for size, width in zip(array.shards, inner, strict=True)]
    entries = int(np.prod(counts))
    length = entries * 16 + (4 if len(outer.index_codecs) > 1 else 0)
    with open(file, "rb") as shard:
        size = os.fstat(shard.fileno()).st_size
        if size < length:
            return f"is truncated: it holds {size:,} bytes, and its index alone {length:,}"
        shard.seek(size - length if outer.index_location.value == "end" else 0)
        index = np.frombuffer(shard.read(entries * 16), dtype="<u8").reshape(*counts, 2)
    needed = [-(-rows // inner[0])]
    for axis, position in enumerate(column, start=1):
        width = min(array.shape[axis] - position * array.shards[axis], array.shards[axis])
        needed.append(-(-width // inner[axis]))
    if (index[tuple(slice(count) for count in needed)][..., 0] == _ABSENT).any():
        return "lacks some of its chunks (chunks of zeros must be written too: write_empty_chunks)"
    return None
