"""A run at a URL: built in a folder of this machine, published level by level.

An object store has no locks, no renames and no appending, and a run needs all three while it goes on. So it is built as
any run in a working folder, and each finished level is put in place whole before ``run.json`` names it: whoever reads
the URL sees the finished levels or nothing. On another machine the same command goes on behind the last of them.

Two processes that build the same run do each other no harm, for they put the same bytes under the same names; two runs
with different settings cannot begin at one URL, for ``run.json`` is created only where there is none.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import xxhash

from streamcurate import objects
from streamcurate.embeddings.snapshot import SNAPSHOT_NAME
from streamcurate.errors import ObjectError, RunError
from streamcurate.files import write_file
from streamcurate.runs import Manifest, differences
from streamcurate.runs.checkpoints import CHECKPOINTS_NAME
from streamcurate.runs.events import EVENTS_NAME
from streamcurate.runs.manifest import MANIFEST_NAME
from streamcurate.streaming import ProgressListener
from streamcurate.tree import TREE_NAME, level_name, snapshot_name

# What lies beside the levels.
_BESIDE = (f"{TREE_NAME}/zarr.json", SNAPSHOT_NAME, EVENTS_NAME)
# Files on their way at a time, and the bytes they may take together: most are chunks of 4 to 8 MiB, some of 64.
_AT_ONCE = 8
_BYTES = 64 << 20


class Mirror:
    """The place of a run in an object store, and the folder it is built in.

    Parameters
    ----------
    url : str
        Of the run.
    scratch : path, optional
        Where the working folder is made; by default where temporary files go.
    listener : ProgressListener

    Attributes
    ----------
    url : str
    folder : Path
        The working folder: the same for the same URL.
    """

    def __init__(self, url: str, scratch: str | os.PathLike[str] | None, listener: ProgressListener) -> None:
        self.url = url.rstrip("/")
        base = Path(scratch or tempfile.gettempdir()).absolute()
        self.folder = base / f"streamcurate-run-{xxhash.xxh3_64_hexdigest(self.url.encode())}"
        self._listener = listener
        self._published = self._read()

    def _read(self) -> Manifest | None:
        if Manifest.exists(self.url):
            return Manifest.read(self.url)
        foreign = next(objects.listing(self.url), None)
        # What a killed process published of a level, before it could say so.
        if foreign is not None and not self._is_ours(foreign.url):
            raise RunError(
                f"{self.url}: is no run directory and not empty (it holds {foreign.url}); choose another URL"
            )
        return None

    def _is_ours(self, url: str) -> bool:
        name = url.removeprefix(f"{self.url}/")
        return name in _BESIDE or name.startswith((f"{TREE_NAME}/", snapshot_name(1).partition("2")[0]))

    def restore(self) -> None:
        """Bring what is published, and the working folder lacks, into it.

        Raises
        ------
        RunError
            The folder holds another run.
        """
        published = self._published
        if published is None:
            self._listener.note(f"{self.url}: built in {self.folder}; each finished level is published from there")
            return
        here = Manifest.read(self.folder) if Manifest.exists(self.folder) else None
        if here is not None and (changes := differences(here, published)):
            raise RunError(
                f"{self.folder}: holds an unfinished run with other settings than {self.url} ({changes[0]}); remove it"
            )
        if here is not None and (len(here.levels), here.complete) >= (len(published.levels), published.complete):
            return
        for number in range(1 if here is None else len(here.levels) + 1, len(published.levels) + 1):
            if not published.complete:  # of a finished run nothing is left to do
                place = self.folder / TREE_NAME / level_name(number)
                shutil.rmtree(place, ignore_errors=True)
                fetch_folder(objects.join(self.url, TREE_NAME, level_name(number)), place)
                self._listener.note(f"level {number} fetched from {self.url}")
        for name in _beside(published):
            content = objects.contents(objects.join(self.url, name))
            if content is not None:
                (self.folder / name).parent.mkdir(exist_ok=True)
                write_file(self.folder / name, content)

    def publish(self, manifest: Manifest) -> None:
        """Put the finished levels that are not published yet in place, and then a manifest that names them.

        Raises
        ------
        RunError
            Another run was begun at the URL meanwhile.
        ObjectError
            The store does not take it.
        """
        before = self._published
        count = 0 if before is None else len(before.levels)
        if before is not None and before.complete:
            return
        place = objects.join(self.url, MANIFEST_NAME)
        if before is None and not objects.create(place, (self.folder / MANIFEST_NAME).read_bytes()):
            before = Manifest.read(self.url)
            if changes := differences(before, manifest):
                raise RunError(f"{self.url}: another run was begun there ({changes[0]}); choose another URL")
        names = [level_name(number) for number in range(count + 1, len(manifest.levels) + 1)]
        for name in names:
            send_folder(self.folder / TREE_NAME / name, objects.join(self.url, TREE_NAME, name))
        for name in _beside(manifest):
            objects.write(objects.join(self.url, name), (self.folder / name).read_bytes())
        self._published = manifest

    @property
    def idle(self) -> bool:
        """Whether nothing in the working folder is worth keeping: all of it can be fetched again."""
        if not Manifest.exists(self.folder):
            return True
        here, published = Manifest.read(self.folder), self._published
        same = published is not None and len(here.levels) == len(published.levels)
        return same and not (self.folder / CHECKPOINTS_NAME).exists()

    def remove_folder(self) -> None:
        """Remove the working folder of a run that is finished."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _beside(manifest: Manifest) -> list[str]:
    """What lies beside the levels of a run; run.json comes last."""
    further = [snapshot_name(number) for number in range(1, len(manifest.stores))]
    return [*_BESIDE, *further, MANIFEST_NAME]


def send_folder(folder: Path, url: str) -> None:
    """Put all files of a folder below a URL, and make sure that they are there in their lengths."""
    sizes = {path.relative_to(folder).as_posix(): path.stat().st_size for path in folder.rglob("*") if path.is_file()}

    def send(name: str) -> None:
        objects.write(objects.join(url, name), (folder / name).read_bytes())

    _side_by_side(send, sizes)
    there = {found.url.removeprefix(f"{url}/"): found.size for found in objects.listing(url)}
    for name, size in sizes.items():
        if there.get(name) != size:
            raise ObjectError(
                f"{objects.join(url, name)}: holds {there.get(name, 0):,} bytes instead of {size:,} after it was "
                "written; give the same command again"
            )
    for name in there.keys() - sizes.keys():  # of a level that was built with chunks of another size
        objects.delete(objects.join(url, name))


def fetch_folder(url: str, folder: Path) -> None:
    """Write all objects below a URL into a folder."""
    sizes = {found.url.removeprefix(f"{url}/"): found.size for found in objects.listing(url)}
    if not sizes:
        raise ObjectError(f"{url}: holds nothing; the run there is damaged: restore it, or begin one elsewhere")

    def fetch(name: str) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_file(folder / name, objects.read(objects.join(url, name)), durable=False)

    _side_by_side(fetch, sizes)


def _side_by_side(work: Callable[[str], None], sizes: dict[str, int]) -> None:
    """Call a function with each name, so many at a time that they fit the bytes to be held."""
    workers = max(1, min(_AT_ONCE, _BYTES // max(max(sizes.values(), default=1), 1)))
    with ThreadPoolExecutor(workers, thread_name_prefix="streamcurate-objects") as pool:
        try:
            list(pool.map(work, sorted(sizes)))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
