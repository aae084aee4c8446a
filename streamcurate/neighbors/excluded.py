"""What is left of rows when those near unwanted examples are taken out."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from streamcurate.errors import InputError
from streamcurate.neighbors.retrieved import Retrieved


@dataclass(frozen=True, eq=False, repr=False)
class Excluded:
    """Rows near no unwanted example, and how many were near one.

    Attributes
    ----------
    kept, removed : int
        How many rows stay, and how many do not.
    rows : int
        Of the source, those outside a subset included.
    path, removed_path : str or None
        Files that were written.
    near : Retrieved or None
        The rows removed, each with the unwanted example nearest to it; None where files were asked for.
    """

    kept: int
    removed: int
    rows: int
    path: str | None = None
    removed_path: str | None = None
    near: Retrieved | None = None
    _mask: NDArray[np.bool_] | None = field(default=None)

    def __repr__(self) -> str:
        place = "" if self.path is None else f", {self.path!r}"
        return f"Excluded({self.kept:,} of {self.rows:,} rows kept, {self.removed:,} removed{place})"

    @property
    def mask(self) -> NDArray[np.bool_]:
        """bool (rows,): the rows that stay.

        Raises
        ------
        InputError
            They were written to a file.
        """
        if self._mask is None:
            read = "leave removed out" if self.path is None else f"read {self.path}"
            raise InputError(f"the rows that stay are not in memory, because files were asked for; {read}")
        return self._mask

    @property
    def unique_rows(self) -> NDArray[np.int64]:
        """Row numbers that stay; by this name, ``eligible`` and ``subset`` take what is left as it is."""
        return np.flatnonzero(self.mask)
