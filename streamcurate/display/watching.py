"""A run that another process makes, watched by its log: in another terminal, on another host, in a notebook."""

from __future__ import annotations

import json
import os
import socket
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from streamcurate.display.lines import State, duration, finished_words, live_lines, text_bar
from streamcurate.display.progress import Progress
from streamcurate.errors import RunError
from streamcurate.files import working_folder
from streamcurate.objects import contents, is_url, join
from streamcurate.runs.events import EVENTS_NAME, Event
from streamcurate.runs.follow import FollowedLog
from streamcurate.runs.lock import LOCK_NAME, writer_of
from streamcurate.runs.manifest import Manifest
from streamcurate.runs.progress import RunProgress, moved_share

_SECONDS_BETWEEN_LOOKS = 1.0
_WIDTH_OF_TEXT = 116
# A lock that was taken on another host may not be seen from here. Its log falls silent while a fit is seeded, though
# rarely for longer.
_SECONDS_OF_SILENCE = 600.0


@dataclass(frozen=True)
class Look:
    """What a run has come to.

    Attributes
    ----------
    run : str
        As it was named.
    status : str
        ``waiting`` (begun, without a log so far), ``running``, ``finished``, ``stopped`` (by a signal or an error),
        ``gone`` (its process was killed), or ``elsewhere`` (built for a URL on another machine).
    progress : RunProgress
    command : str
        That makes such a run.
    writer : str or None
        The process, in words.
    ago : float
        Seconds since the last event.
    folder : Path or None
        Where its log grows.
    """

    run: str
    status: str
    progress: RunProgress
    command: str
    writer: str | None = None
    ago: float = 0.0
    folder: Path | None = None

    @property
    def outcome(self) -> str:
        """How it stands, in a sentence."""
        run = self.progress
        again = f"give the same {self.command} command again to go on"
        if self.status == "finished":
            # The last process alone knows how long it measured the rows, before there was a log.
            own = run.ended.seconds if run.ended is not None else 0.0
            return f"finished in {duration(max(own, run.seconds))}"
        if self.status == "waiting":
            return f"has no log yet; {self.writer} reads the rows"
        if self.status == "stopped":
            reason = run.interrupted.reason if run.interrupted is not None else "unknown"
            return f"was stopped at level {run.level} ({reason}); {again}"
        if self.status == "gone":
            return f"its process is gone, at level {run.level}; {again}"
        if self.status == "elsewhere":
            return "is built on another machine, where its log lies; this was published with the last finished level"
        if self.writer is not None:
            return f"under way, {self.writer}"
        return f"under way, as it seems: its lock cannot be seen from here, the last event is {duration(self.ago)} old"


def watch(run: str | os.PathLike[str], *, progress: Progress | None = None) -> None:
    """Show the progress of a run that another process makes, until it ends.

    Parameters
    ----------
    run : path or URL
        The run directory, on this machine or on a file system that both share. Nothing is written there.
    progress : Progress, optional
        Where to show it; by default the terminal, the cell of a notebook, or standard error.

    Raises
    ------
    RunError
        There is no run; or it was stopped, or its process is gone: the message says how to go on. Or it is built for a
        URL on another machine, where its log lies.

    Examples
    --------
    >>> import numpy as np
    >>> import tempfile
    >>> import streamcurate as sc
    >>> folder = tempfile.mkdtemp()
    >>> rows = np.random.default_rng(0).standard_normal((500, 8)).astype(np.float32)
    >>> tree = sc.cluster(rows, f"{folder}/run", levels="20,4")
    >>> sc.watch(f"{folder}/run", progress=sc.Progress(quiet=True))
    """
    with progress or Progress() as shown:
        _Watcher(run).follow(shown)


def look(run: str | os.PathLike[str]) -> Look:
    """What a run has come to by now.

    Raises
    ------
    RunError
        There is no run.
    """
    return _Watcher(run).look()


class _Watcher:
    """Follows one run.

    Attributes
    ----------
    folder : Path or None
        Where its log grows; None where that is on another machine.
    progress : RunProgress
    new : list of Event
        What the last look brought.
    anew : bool
        Whether those belong to another run, begun in the same place.
    """

    def __init__(self, run: str | os.PathLike[str]) -> None:
        self.run = os.fspath(run)
        self.folder = _folder_of(self.run)
        self.log = None if self.folder is None else FollowedLog(self.folder / EVENTS_NAME)
        self.progress = RunProgress()
        self.new: list[Event] = []
        self.anew = False
        self._heard = 0

    def look(self) -> Look:
        """Read what is new, and say how the run stands."""
        if self.folder is not None and is_url(self.run) and not (self.folder / LOCK_NAME).exists():
            # The working folder of a run at a URL goes when all of it is published.
            self.folder = self.log = None
        writer = None if self.folder is None else writer_of(self.folder)
        # After looking for the writer: one that ends in between has noted how.
        if self.log is not None:
            self.new, self.anew = self.log.read()
        else:
            published = _published_events(self.run)
            self.anew = len(published) < self._heard
            self.new = published if self.anew else published[self._heard :]
        if self.anew:
            self.progress, self._heard = RunProgress(), 0
        self._heard += len(self.new)
        for event in self.new:
            self.progress.apply(event)
        run, complete, command = self.progress, False, "cluster"
        place = self.run if self.folder is None else os.fspath(self.folder)
        if Manifest.exists(place) or (writer is None and run.began is None):
            manifest = Manifest.read(place)  # or says that there is no run
            complete, command = manifest.complete, manifest.command
        ago = max(time.time() - run.now, 0.0) if run.began is not None else 0.0
        return Look(self.run, self._status(writer, complete, ago), run, command, writer, ago, self.folder)

    def _status(self, writer: str | None, complete: bool, ago: float) -> str:
        run = self.progress
        if run.ended is not None or complete:
            return "finished"
        if self.folder is None:
            return "elsewhere"
        if writer is not None:
            return "running" if run.began is not None else "waiting"
        if run.interrupted is not None:
            return "stopped"
        return "running" if ago < _SECONDS_OF_SILENCE and _of_another_host(self.folder) else "gone"

    def follow(self, shown: Progress) -> None:
        """Show it until it ends."""
        now = self.look()
        if now.status == "elsewhere":
            raise RunError(
                f"{self.run}: is built on another machine, where its log lies until a level is finished; watch it "
                "there, or see what is published with streamcurate watch --once"
            )
        if now.status == "waiting":
            shown.note(f"{self.run}: {now.outcome}")
        shown.caught_up(RunProgress.of(self.new), now.ago)
        while now.status in ("running", "waiting"):
            time.sleep(_SECONDS_BETWEEN_LOOKS)
            now = self.look()
            if self.anew:
                shown.caught_up(RunProgress.of(self.new), now.ago)
            else:
                for event in self.new:
                    shown.followed(event)
            shown.waited()
        shown.close()
        if now.status != "finished":
            raise RunError(f"{self.run}: {now.outcome}")


def _folder_of(run: str) -> Path | None:
    """Where the log of a run grows; None where that is another machine, and where a URL's run is finished."""
    if not is_url(run):
        return Path(run)
    folder = working_folder(run.rstrip("/"), "run")
    return folder if (folder / LOCK_NAME).exists() else None


def _published_events(url: str) -> list[Event]:
    content = contents(join(url, EVENTS_NAME))
    if content is None:
        return []
    with tempfile.TemporaryDirectory(prefix="streamcurate-watch-") as folder:
        path = Path(folder) / EVENTS_NAME
        path.write_bytes(content)
        return FollowedLog(path).read()[0]


def _of_another_host(folder: Path) -> bool:
    """Whether the last process that wrote a run did so on another host."""
    try:
        return bool(json.loads((folder / LOCK_NAME).read_bytes())["host"] != socket.gethostname())
    except (OSError, ValueError, KeyError, TypeError):
        return False


# -- as text and as values ---------------------------------------------------------------------------------------------


def summary(now: Look) -> list[str]:
    """How a run stands, as lines."""
    run = now.progress
    lines = [f"{now.run}: {now.outcome}"]
    for number, level in sorted(run.levels.items()):
        if level.finished is not None:
            lines.append(f"  {finished_words(level, run.spent.get(number))}")
    if now.status in ("running", "elsewhere") and run.began is not None:
        state = State(time.monotonic)
        state.take_over(run, now.ago)
        lines += [f"  {line}" for line in live_lines(state, _WIDTH_OF_TEXT, text_bar)]
    return lines + [f"  warning: {text}" for text in run.warnings]


def as_mapping(now: Look) -> dict[str, Any]:
    """How a run stands, as JSON values: shares of 1, seconds, times in UTC; null where nothing is known."""
    run = now.progress
    fit, reading = run.fit, run.reading
    state = State(time.monotonic)
    state.take_over(run, now.ago)
    estimate = state.seconds_left if now.status == "running" else None
    last = None if fit is None else fit.last
    return {
        "run": now.run,
        "status": now.status,
        "writer": now.writer,
        "began": run.began,
        "seconds": run.seconds + (now.ago if now.status == "running" else 0.0),
        "seconds_since_last_event": now.ago if run.began is not None else None,
        "seconds_left": None if estimate is None else estimate.seconds,
        "seconds_left_at_most": None if estimate is None else estimate.most,
        "resumed": run.resumed,
        "level": run.level if now.status != "finished" else None,
        "levels": [_level_mapping(run, number) for number in sorted(run.levels)],
        "stage": run.stage,
        "step": None if fit is None else fit.step,
        "iteration": None if last is None else last.iteration,
        "inertia": None if last is None else last.inertia,
        "inertia_change": None if fit is None else fit.change,
        "moved_share": None if last is None else moved_share(last),
        "pass": None
        if reading is None
        else {
            "name": reading.name,
            "done": reading.done,
            "rows": reading.rows,
            "bytes": reading.bytes,
            "seconds": reading.seconds,
        },
        "warnings": run.warnings,
    }


def _level_mapping(run: RunProgress, number: int) -> dict[str, Any]:
    level = run.levels[number]
    plan, finished = level.plan, level.finished
    points = finished.rows if finished is not None else None if plan is None else plan.points
    clusters = finished.clusters if finished is not None else None if plan is None else plan.clusters
    return {
        "level": number,
        "finished": finished is not None,
        "points": points,
        "clusters": clusters,
        "steps": None if plan is None else plan.steps,
        "iterations": None if plan is None else plan.iterations,
        "passes": level.iterations,
        "inertia": level.inertia,
        "seconds": run.spent.get(number, 0.0),
    }
