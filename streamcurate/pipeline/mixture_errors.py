"""What a mixture says of errors in its parts: where they are, in the words of the file that asked for them."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from streamcurate.config.mixture import DRAW_OPTIONS, RETRIEVE_OPTIONS
from streamcurate.errors import DataError, InputError
from streamcurate.neighbors.unfinished import UnfinishedWork
from streamcurate.objects import is_url

_OPTION = re.compile(r"--([a-z0-9]+(?:-[a-z0-9]+)*)")


@contextmanager
def in_part(prefix: str) -> Iterator[None]:
    """Begin the messages of what a user can mend with the place it is about; the kind of error stays."""
    with _retold(lambda message: f"{prefix}{_OPTION.sub(_key, message)}"):
        yield


@contextmanager
def looked_for(place: Any) -> Iterator[None]:
    """Say of a path where nothing lies where it was looked for."""
    try:
        yield
    except InputError as error:
        if not isinstance(place, (str, os.PathLike)) or is_url(place) or os.path.exists(place):
            raise
        raise InputError(
            f"{os.fspath(place)}: no such file or folder (looked for at {os.path.abspath(place)}); check the path: "
            "paths are relative to the working directory"
        ) from error


@contextmanager
def renamed(path: Path, kind: str, words: str) -> Iterator[None]:
    """Have messages call rows by what they are instead of by the file they lie in.

    Parameters
    ----------
    path : Path
        The file.
    kind : str
        What its rows are called: "rows".
    words : str
        The same, at length: "rows of run/ that no earlier part took".
    """

    def tell(message: str) -> str:
        return message.replace(f"rows of {path}", words).replace(f"{path}: ", f"the {kind}: ").replace(str(path), words)

    with _retold(tell):
        yield


@contextmanager
def keeping(work: UnfinishedWork) -> Iterator[None]:
    """End messages with what is kept, where something is."""

    def tell(message: str) -> str:
        if not work.anything_finished:
            return message
        return (
            f"{message} (parts that are done are kept in {work.folder}, and the same command goes on with them, also "
            "with a mended file; to drop them, remove that folder)"
        )

    with _retold(tell):
        yield


@contextmanager
def _retold(tell: Callable[[str], str]) -> Iterator[None]:
    try:
        yield
    except InputError as error:
        message = tell(str(error))
        if message == str(error):
            raise
        try:
            told = type(error)(message)
        except TypeError:  # one with more to it than its message
            told = DataError(message)
        raise told from error


def _key(option: re.Match[str]) -> str:
    """An option of the command line as the key of a part."""
    name = option[1].replace("-", "_")
    return name if name in (*DRAW_OPTIONS, *RETRIEVE_OPTIONS) else option[0]
