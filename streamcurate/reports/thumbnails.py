"""Small pictures of rows, as data: URIs, and their texts cut to a length."""

from __future__ import annotations

import base64
import io
import os
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from streamcurate.errors import ConfigError, InputError
from streamcurate.objects import is_url, join, open_file, parent
from streamcurate.sampling.metadata import Metadata

# Pixels of the longer side; bytes of one file that are read, and of one thumbnail that go into the page.
_SIDE = 96
_MOST_FILE_BYTES = 64 << 20
_MOST_BYTES = 5_000
_QUALITIES = (80, 60, 40, 20)
_SUFFIXES = ("", ".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp")
_LONGEST_TEXT = 240
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")


@dataclass(frozen=True)
class Images:
    """Where the images of rows are: in a column of the metadata, or in a folder, named by the rows' ids.

    Attributes
    ----------
    column : str or None
        Holds paths, or the files themselves.
    folder : str
        Of the files; paths of the column are relative to it.
    """

    column: str | None
    folder: str


def find_images(images: str | os.PathLike[str] | None, metadata: Metadata | None, with_ids: bool) -> Images | None:
    """What a user means by a folder or a column.

    Raises
    ------
    ConfigError
        Neither, or a folder without ids.
    InputError
        Pillow is not installed.
    """
    if images is None:
        return None
    place = os.fspath(images)
    try:
        import PIL.Image  # noqa: F401
    except ImportError:
        raise InputError(
            f"images {place!r}: thumbnails are made by Pillow, which is not installed; pip install pillow, or leave "
            "--images out"
        ) from None
    if metadata is not None and place in metadata.columns:
        return Images(
            place, parent(metadata.files[0]) if is_url(metadata.files[0]) else os.path.dirname(metadata.files[0])
        )
    if not is_url(place) and not os.path.isdir(place):
        columns = "no metadata is given" if metadata is None else f"the metadata has {', '.join(metadata.columns)}"
        raise ConfigError(
            f"images {place!r}: neither a folder nor a column of the metadata ({columns}); name a folder of files "
            "called by the rows' ids, or a column (--metadata, --columns) that holds their paths"
        )
    if not with_ids:
        raise ConfigError(
            f"images {place!r}: the files of a folder are found by the rows' ids, and the store has none; name a "
            "column of the metadata that holds their paths"
        )
    return Images(None, place)


class Pictures:
    """Thumbnails, one after the other; what cannot be read is counted and left out."""

    def __init__(self, images: Images | None) -> None:
        self._images = images
        self.missing = 0

    def __enter__(self) -> Pictures:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def of(self, cell: Any, name: str | None) -> str | None:
        """The thumbnail of a row as a data: URI, None without one.

        Parameters
        ----------
        cell : object
            What the column holds: a path, bytes, or a mapping with ``bytes`` and ``path`` as ``datasets`` has it.
        name : str or None
            The id.
        """
        if self._images is None:
            return None
        found = None
        try:
            data = self._bytes(cell, name)
            found = None if data is None else thumbnail(data)
        except (OSError, ValueError, InputError):
            pass
        self.missing += found is None
        return found

    def _bytes(self, cell: Any, name: str | None) -> bytes | None:
        assert self._images is not None
        if isinstance(cell, dict):
            cell = cell.get("bytes") or cell.get("path")
        if isinstance(cell, (bytes, bytearray)):
            return bytes(cell)
        wanted = cell if self._images.column is not None else name
        if not isinstance(wanted, str) or not wanted:
            return None
        place = wanted if is_url(wanted) else join(self._images.folder, wanted)
        for suffix in ("",) if self._images.column is not None else _SUFFIXES:
            if is_url(place) or os.path.isfile(place + suffix):
                with open_file(place + suffix) as file:
                    return bytes(file.read(_MOST_FILE_BYTES))
        return None


def thumbnail(data: bytes) -> str | None:
    """An image file as a data: URI of a small one; None for what is no image, or would not get small enough.

    Raises
    ------
    OSError, ValueError
        What Pillow says of files it cannot read.
    """
    import warnings

    import PIL.Image

    with warnings.catch_warnings():
        # An image that unpacks to far more than it seems is not unpacked.
        warnings.simplefilter("error", PIL.Image.DecompressionBombWarning)
        try:
            with PIL.Image.open(io.BytesIO(data), formats=_FORMATS) as image:
                image.draft("RGB", (2 * _SIDE, 2 * _SIDE))
                image.thumbnail((_SIDE, _SIDE))
                small = image.convert("RGBA")
        except (PIL.Image.DecompressionBombWarning, PIL.Image.DecompressionBombError, SyntaxError) as error:
            raise ValueError(str(error)) from error
    canvas = PIL.Image.new("RGB", small.size, "white")
    canvas.paste(small, mask=small)
    for kind, options in (("png", {}), *(("jpeg", {"quality": quality}) for quality in _QUALITIES)):
        buffer = io.BytesIO()
        canvas.save(buffer, kind, **options)
        if len(buffer.getvalue()) <= _MOST_BYTES:
            return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
    return None


def cell_text(value: Any, longest: int = _LONGEST_TEXT) -> str:
    """What a cell holds, cut to a length that fits a page.

    Examples
    --------
    >>> cell_text("a  caption\\nof two lines"), cell_text(None), cell_text(b"abc")
    ('a caption of two lines', '', '3 bytes')
    """
    if value is None:
        return ""
    if isinstance(value, (bytes, bytearray)):
        return f"{len(value):,} bytes"
    text = " ".join(str(value).split())
    return text if len(text) <= longest else text[: longest - 1] + "…"
