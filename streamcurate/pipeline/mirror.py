"""A run at a URL: built in a folder of this machine, published level by level.

An object store has no locks, no renames and no appending, and a run needs all three while it goes on. So it is built as
any run in a working folder, and each finished level is put in place whole before ``run.json`` names it: whoever reads
the URL sees the finished levels or nothing. On another machine the same command goes on behind the last of them.

Two processes that build the same run do each other no harm, for they put the same bytes under the same names, and
``run.json`` of the one that is ahead is not replaced; two runs with different settings cannot begin at one URL, for
``run.json`` is created only where there is none.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace

from streamcurate import objects
from streamcurate.embeddings.snapshot import SNAPSHOT_NAME
from streamcurate.errors import RunError
from streamcurate.files import working_folder, write_file
from streamcurate.runs import Manifest, differences
from streamcurate.runs.checkpoints import CHECKPOINTS_NAME
from streamcurate.runs.events import EVENTS_NAME
from streamcurate.runs.manifest import MANIFEST_NAME
from streamcurate.storage.copies import fetch_folder, send_folder
from streamcurate.streaming import ProgressListener
from streamcurate.tree import TREE_NAME, level_name, snapshot_name

# What lies beside the levels.
_BESIDE = (f"{TREE_NAME}/zarr.json", SNAPSHOT_NAME, EVENTS_NAME)


class Mirror:
    """The place of a run in an object store, and the folder it is built in.

    Parameters
    ----------
    url : str
        Of the run.
    scratch : path, optional
        Where the working folder is made; by default where large temporary files go.
    listener : ProgressListener

    Attributes
    ----------
    url : str
    folder : Path
        The working folder: the same for the same URL.
    """

    def __init__(self, url: str, scratch: str | os.PathLike[str] | None, listener: ProgressListener) -> None:
        self.url = url.rstrip("/")
        self.folder = working_folder(self.url, "run", scratch)
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
        # Again: another process may have gone on since, and have removed this very folder when it was done.
        published = self._published = self._read()
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
        for name in (*_beside(published), MANIFEST_NAME):  # which says that the others are there
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
        if self._published is not None and self._published.complete:
            return
        place, content = objects.join(self.url, MANIFEST_NAME), (self.folder / MANIFEST_NAME).read_bytes()
        if self._published is None:
            # Without the levels, which are still to come: an earlier process may have been killed before it got here.
            begun = replace(manifest, levels=(), complete=False, digest=None)
            objects.create(place, json.dumps(begun.to_mapping(), indent=2).encode())
        there = self._there(manifest)
        if there is None or not _is_ahead(there, manifest):
            count = 0 if there is None else len(there.levels)
            for name in (level_name(number) for number in range(count + 1, len(manifest.levels) + 1)):
                send_folder(self.folder / TREE_NAME / name, objects.join(self.url, TREE_NAME, name))
            for name in _beside(manifest):
                objects.write(objects.join(self.url, name), (self.folder / name).read_bytes())
        while True:
            found = objects.read_found(place)
            there = self._there(manifest)
            if there is not None and _is_ahead(there, manifest):
                self._published = there
                return
            if objects.replace(place, content, found) is not None:
                self._published = manifest
                return

    def _there(self, manifest: Manifest) -> Manifest | None:
        """What another process may have published meanwhile of the same run."""
        if not Manifest.exists(self.url):
            return None
        there = Manifest.read(self.url)
        if changes := differences(there, manifest):
            raise RunError(f"{self.url}: another run was begun there ({changes[0]}); choose another URL")
        return there

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
    """What lies beside the levels of a run and run.json."""
    return [*_BESIDE, *(snapshot_name(number) for number in range(1, len(manifest.stores)))]


def _is_ahead(there: Manifest, manifest: Manifest) -> bool:
    """Whether another process of the same run got further, so that its manifest must not be replaced."""
    return there.complete or len(there.levels) > len(manifest.levels)
