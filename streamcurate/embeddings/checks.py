"""What any array of embeddings must be, wherever it comes from."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from streamcurate.errors import InputError


def check_floating(dtype: np.dtype[Any], where: str) -> np.dtype[Any]:
    """The native form of a dtype embeddings may come in.

    Raises
    ------
    InputError
        It is not float16, float32 or float64.
    """
    native = dtype.newbyteorder("=") if dtype.kind == "f" else dtype
    if native not in (np.float16, np.float32, np.float64):
        raise InputError(
            f"{where}: holds {dtype.name}, and embeddings are float16, float32 or float64; convert the values first"
        )
    return native


def check_matrix(shape: tuple[int, ...], where: str) -> None:
    """Refuse what is not a matrix with one row an embedding.

    Raises
    ------
    InputError
        Other than two dimensions, or rows of length 0.
    """
    if len(shape) != 2:
        raise InputError(
            f"{where}: an array of {len(shape)} dimensions, shape {shape}; embeddings are two-dimensional, one row each"
        )
    if shape[0] and not shape[1]:
        raise InputError(f"{where}: shape {shape}: the rows are empty; embeddings need at least one dimension")


def suffix_of(path: str | os.PathLike[str]) -> str:
    """Lower-case suffix of a path, with its dot."""
    return Path(path).suffix.lower()
