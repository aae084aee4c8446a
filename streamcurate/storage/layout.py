"""How the bytes of an array lie in its files, as far as it matters for reading them safely."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import zarr
from zarr.codecs import BytesCodec, Crc32cCodec, ShardingCodec


@dataclass(frozen=True)
class Layout:
    """What the files of an array hold.

    Attributes
    ----------
    kind : str
        ``raw``: the rows' own bytes. ``shards``: the same in chunks, and an index. ``encoded``: anything else.
    file_shape, chunk_shape : tuple of int
        What a file holds, and what is encoded as one; the same where there are no shards.
    sharded : bool
    index_at_end, index_checksum : bool
        Of shards.
    fault : str or None
        What keeps shards from being read safely at all.
    """

    kind: Literal["raw", "shards", "encoded"]
    file_shape: tuple[int, ...]
    chunk_shape: tuple[int, ...]
    sharded: bool = False
    index_at_end: bool = True
    index_checksum: bool = True
    fault: str | None = None

    @property
    def counts(self) -> tuple[int, ...]:
        """Chunks of a shard along each axis."""
        return tuple(-(-size // width) for size, width in zip(self.file_shape, self.chunk_shape, strict=True))


def layout_of(array: zarr.Array[Any]) -> Layout:
    """The layout of an array's files."""
    file_shape = tuple(max(int(size), 1) for size in array.shards or array.chunks)
    codecs: tuple[Any, ...] = getattr(array.metadata, "codecs", ())
    if any(isinstance(codec, ShardingCodec) for codec in codecs):
        return _sharded(array, file_shape, codecs)
    return Layout("raw" if _is_raw(array, file_shape) else "encoded", file_shape, file_shape)


def _sharded(array: zarr.Array[Any], file_shape: tuple[int, ...], codecs: tuple[Any, ...]) -> Layout:
    outer = codecs[0]
    nested = not isinstance(outer, ShardingCodec) or any(isinstance(codec, ShardingCodec) for codec in outer.codecs)
    if len(codecs) != 1 or array.shards is None or nested:
        fault = "has shards inside other codecs, where missing chunks cannot be told from zeros"
        return Layout("encoded", file_shape, file_shape, sharded=True, fault=fault)
    index = outer.index_codecs
    known = (
        0 < len(index) <= 2
        and isinstance(index[0], BytesCodec)
        and index[0].endian is not None
        and index[0].endian.value == "little"
        and all(isinstance(codec, Crc32cCodec) for codec in index[1:])
    )
    chunk_shape = tuple(max(int(size), 1) for size in array.chunks)
    raw = _plain_numbers(array) and _little(outer.codecs, array.dtype)
    # Zarr writes what reaches beyond the last column too.
    raw = raw and chunk_shape[1:] == file_shape[1:] == tuple(array.shape[1:])
    return Layout(
        "shards" if raw else "encoded",
        file_shape,
        chunk_shape,
        sharded=True,
        index_at_end=str(getattr(outer.index_location, "value", outer.index_location)) == "end",
        index_checksum=len(index) > 1,
        fault=None if known else "has shards with an index in an unknown form",
    )


def _is_raw(array: zarr.Array[Any], file_shape: tuple[int, ...]) -> bool:
    """Whether a file holds the rows' own bytes: no codec but little-endian, C order, columns unchunked."""
    if not _plain_numbers(array) or file_shape[1:] != tuple(array.shape[1:]):
        return False
    metadata = array.metadata
    if metadata.zarr_format == 2:
        plain = not metadata.filters and metadata.compressor is None and metadata.order == "C"
        return plain and array.dtype.newbyteorder("=") == array.dtype
    return _little(metadata.codecs, array.dtype)


def _plain_numbers(array: zarr.Array[Any]) -> bool:
    return array.dtype.kind in "iufb"


def _little(codecs: tuple[Any, ...], dtype: np.dtype[Any]) -> bool:
    if len(codecs) != 1 or not isinstance(codecs[0], BytesCodec):
        return False
    return dtype.itemsize == 1 or (codecs[0].endian is not None and codecs[0].endian.value == "little")
