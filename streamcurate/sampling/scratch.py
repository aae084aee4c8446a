"""Folders for what does not fit into memory."""

from __future__ import annotations

import os
import tempfile

from streamcurate.errors import InputError
from streamcurate.files import check_scratch


def scratch_folder(purpose: str, place: str | os.PathLike[str] | None) -> tempfile.TemporaryDirectory[str]:
    """A folder of its own below ``place``, below the system's for temporary files where that is None.

    Raises
    ------
    InputError
        None can be made there.
    """
    check_scratch(place)
    try:
        return tempfile.TemporaryDirectory(prefix=f"streamcurate-{purpose}-", dir=place)
    except OSError as error:
        where = tempfile.gettempdir() if place is None else place
        raise InputError(
            f"{where}: no folder for scratch can be made ({error.strerror}); choose another (--scratch)"
        ) from error
