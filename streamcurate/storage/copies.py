"""Whole folders of arrays on their way to an object store and back."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from streamcurate import objects
from streamcurate.errors import ObjectError
from streamcurate.files import write_file

# Files on their way at a time, and the bytes they may take together: most are chunks of 4 to 8 MiB, some of 64.
_AT_ONCE = 8
_BYTES = 64 << 20


def send_folder(
    folder: Path, url: str, leave_out: Collection[str] = (), between: Callable[[], None] = lambda: None
) -> None:
    """Put all files of a folder below a URL, make sure that they are there in their lengths, remove all else there.

    Parameters
    ----------
    folder : Path
    url : str
    leave_out : collection of str
        Names, as below the folder, of files that are not sent.
    between : callable
        Called every few files.

    Raises
    ------
    ObjectError
        The store does not take one, or does not hold what it took.
    """
    sizes = {path.relative_to(folder).as_posix(): path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    for name in leave_out:
        sizes.pop(name, None)

    def send(name: str) -> None:
        objects.write(objects.join(url, name), (folder / name).read_bytes())

    for names in _together(sizes):
        list(objects.side_by_side(send, names))
        between()
    there = {found.url.removeprefix(f"{url}/"): found.size for found in objects.listing(url)}
    for name, size in sizes.items():
        if there.get(name) != size:
            raise ObjectError(
                f"{objects.join(url, name)}: holds {there.get(name, 0):,} bytes instead of {size:,} after it was "
                "written; give the same command again"
            )
    for name in there.keys() - sizes.keys():  # of a process that was killed, in chunks of another size, say
        objects.delete(objects.join(url, name))


def fetch_folder(url: str, folder: Path) -> None:
    """Write all objects below a URL into a folder.

    Raises
    ------
    ObjectError
        There are none, or the store does not give one.
    """
    sizes = {found.url.removeprefix(f"{url}/"): found.size for found in objects.listing(url)}
    if not sizes:
        raise ObjectError(f"{url}: holds nothing; the run there is damaged: restore it, or begin one elsewhere")

    def fetch(name: str) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_file(folder / name, objects.read(objects.join(url, name)))

    for names in _together(sizes):
        list(objects.side_by_side(fetch, names))


def _together(sizes: dict[str, int]) -> Iterator[list[str]]:
    """Names in order, so many at a time as may be on their way."""
    names: list[str] = []
    held = 0
    for name in sorted(sizes):
        if names and (len(names) == _AT_ONCE or held + sizes[name] > _BYTES):
            yield names
            names, held = [], 0
        names.append(name)
        held += sizes[name]
    if names:
        yield names
