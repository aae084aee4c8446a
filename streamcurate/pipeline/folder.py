"""The run directory while it is being written: its places, its scratch, finished levels put into the tree."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import xxhash

from streamcurate.embeddings.snapshot import SNAPSHOT_NAME
from streamcurate.errors import InputError, RunError
from streamcurate.files import TEMPORARY_SUFFIX, check_scratch, move_folder, write_file
from streamcurate.objects import is_url
from streamcurate.pipeline.mirror import Mirror
from streamcurate.runs import Checkpoints, Manifest, RunLock, combine_digests
from streamcurate.runs.checkpoints import CHECKPOINTS_NAME
from streamcurate.runs.events import EVENTS_NAME
from streamcurate.runs.lock import LOCK_NAME
from streamcurate.storage.copies import fetch_folder
from streamcurate.streaming import ProgressListener
from streamcurate.tree import TREE_NAME, Level, Tree, level_name

_BUILDING = "building"
_SCRATCH = "scratch"
_SCRATCH_PLACES = ".scratch"
# What a run killed before its manifest was written may have left.
_OURS = {LOCK_NAME, EVENTS_NAME, SNAPSHOT_NAME, CHECKPOINTS_NAME, _SCRATCH, _SCRATCH_PLACES, TREE_NAME}


def make_run_folder(place: Path) -> bool:
    """Make the run directory; True where it was not there. Refuse a folder that holds something else."""
    if place.is_dir():
        foreign = [
            entry.name
            for entry in place.iterdir()
            if entry.name not in _OURS
            # Half a file, left there by a process that was killed before the run began.
            and not entry.name.endswith(TEMPORARY_SUFFIX)
        ]
        if foreign and not Manifest.exists(place):
            raise RunError(
                f"{place}: is no run directory and not empty (it holds {sorted(foreign)[0]}); choose a new folder"
            )
        return False
    try:
        place.mkdir(parents=True)
    except OSError as error:
        raise RunError(f"{place}: cannot be made ({error.strerror}); choose another run directory") from error
    return True


class RunFolder:
    """A run directory whose lock is held.

    Parameters
    ----------
    path : Path
        It exists.
    scratch : path, optional
        Folder for intermediate arrays; inside the run directory by default.
    mirror : Mirror, optional
        Where the run is published.

    Attributes
    ----------
    path, scratch : Path
    checkpoints : Checkpoints

    Raises
    ------
    InputError
        ``scratch`` cannot be a folder.
    """

    def __init__(self, path: Path, scratch: str | os.PathLike[str] | None, mirror: Mirror | None = None) -> None:
        self.path = path
        self.mirror = mirror
        # A run that is published from its folder has its scratch there.
        self.scratch = _scratch_folder(path, scratch if mirror is None else None)
        self.checkpoints = Checkpoints(path / CHECKPOINTS_NAME)

    @property
    def name(self) -> str:
        """The run as the user named it: a path or a URL."""
        return os.fspath(self.path) if self.mirror is None else self.mirror.url

    def record(self, manifest: Manifest) -> None:
        """Write the manifest of an unfinished run, and publish the levels it names."""
        manifest.write(self.path)
        if self.mirror is not None:
            self.mirror.publish(manifest)

    def finish(self, manifest: Manifest) -> Manifest:
        """Write the manifest of a run whose levels are all there."""
        finished = manifest.finished(combine_digests(record.digest for record in manifest.levels))
        finished.write(self.path)
        return finished

    def conclude(self, manifest: Manifest) -> Tree:
        """Publish a finished run, and remove all that only an unfinished one needs."""
        if self.mirror is not None:
            self.mirror.publish(manifest)
        tree = Tree(self.name, manifest)
        tree.check()
        self.clean()
        if self.mirror is not None:
            self.mirror.remove_folder()
        return tree

    @property
    def tree(self) -> Path:
        """The group of finished levels."""
        return self.path / TREE_NAME

    def prepare_scratch(self) -> None:
        """Make the scratch folder, remembering every place it ever was, so that who finishes can clear them all."""
        places = self.path / _SCRATCH_PLACES
        known = places.read_text().splitlines() if places.exists() else []
        if os.fspath(self.scratch) not in known:
            write_file(places, ("\n".join([*known, os.fspath(self.scratch)]) + "\n").encode())
        try:
            self.scratch.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{self.scratch}: cannot be made ({error.strerror}); choose another --scratch") from error

    def building(self, number: int) -> Path:
        """Where a level is built, nothing there yet.

        The level is no longer in the tree either: it could only be there if a process was killed before it could say so
        in the manifest.
        """
        building = self.path / _BUILDING / level_name(number)
        for place in (building, self.tree / level_name(number)):
            shutil.rmtree(place, ignore_errors=True)
        return building

    def copy(self, number: int, level: Level) -> None:
        """Put a level of another run into the tree."""
        target = self.building(number)
        if is_url(level.folder):
            fetch_folder(level.folder, target)
        else:
            shutil.copytree(level.folder, target)
            os.sync()
        self.place(number)

    def place(self, number: int) -> Level:
        """Put a level that is built into the tree."""
        target = self.tree / level_name(number)
        move_folder(self.path / _BUILDING / level_name(number), target)
        return Level(target, number)

    def forget_refused(self) -> None:
        """Leave nothing of what was refused before a run began, or beside one that is finished."""
        if not Manifest.exists(self.path):
            self.clean()
            (self.path / SNAPSHOT_NAME).unlink(missing_ok=True)
        elif Manifest.read(self.path).complete:
            self.clean()

    def clean(self) -> None:
        """Remove everything that only an unfinished run needs."""
        places = self.path / _SCRATCH_PLACES
        for place in places.read_text().splitlines() if places.exists() else []:
            shutil.rmtree(place, ignore_errors=True)
        for name in (CHECKPOINTS_NAME, _BUILDING):
            shutil.rmtree(self.path / name, ignore_errors=True)
        for left in self.path.glob(f"*{TEMPORARY_SUFFIX}"):
            left.unlink(missing_ok=True)
        places.unlink(missing_ok=True)


@contextmanager
def opened_run(
    run: str | os.PathLike[str], scratch: str | os.PathLike[str] | None, listener: ProgressListener, shared: bool
) -> Iterator[RunFolder]:
    """The folder of a run to begin or to go on with, locked; nothing of it is left where it is refused at once.

    Parameters
    ----------
    run : path or URL
    scratch : path, optional
    listener : ProgressListener
    shared : bool
        Other processes work in the scratch folder, so that it must be there from the beginning.

    Raises
    ------
    RunError
        The place holds something else, or another process writes it.
    """
    check_scratch(scratch)
    mirror = Mirror(os.fspath(run), scratch, listener) if is_url(run) else None
    place = Path(run) if mirror is None else mirror.folder
    created = make_run_folder(place)
    try:
        with RunLock(place):
            folder = RunFolder(place, scratch, mirror)
            if mirror is not None:
                mirror.restore()
            try:
                if shared:
                    folder.prepare_scratch()
                yield folder
            except InputError:
                folder.forget_refused()
                raise
    except InputError:
        if created and (mirror.idle if mirror is not None else not Manifest.exists(place)):
            shutil.rmtree(place, ignore_errors=True)
        raise


def _scratch_folder(run: Path, scratch: str | os.PathLike[str] | None) -> Path:
    if scratch is None:
        return run.absolute() / _SCRATCH
    base = Path(scratch)
    if base.exists() and not base.is_dir():
        raise InputError(f"{scratch}: is a file; give a folder for scratch")
    # Several runs may share a scratch folder.
    return base.absolute() / f"streamcurate-{xxhash.xxh3_64_hexdigest(os.fsencode(run.resolve()))}"
