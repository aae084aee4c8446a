"""The run directory.

``lock``: who writes it; ``manifest``: what it holds; ``events``: what happened; ``checkpoints``: from where to go on;
``digest``: whether two of them are the same.
"""

from __future__ import annotations

from streamcurate.runs.checkpoints import Checkpoints
from streamcurate.runs.digest import Digest, combine_digests
from streamcurate.runs.events import (
    Event,
    EventLog,
    Interrupted,
    IterationFinished,
    LevelFinished,
    PassFinished,
    Resumed,
    RunFinished,
    RunStarted,
    Seeded,
    StageFinished,
    StageStarted,
    Warned,
    read_events,
)
from streamcurate.runs.lock import RunLock
from streamcurate.runs.manifest import (
    LevelRecord,
    Manifest,
    Sizes,
    StoreRecord,
    SubsetRecord,
    check_resumable,
    current_versions,
    differences,
    levels_in_common,
)

__all__ = [
    "Checkpoints",
    "Digest",
    "Event",
    "EventLog",
    "Interrupted",
    "IterationFinished",
    "LevelFinished",
    "LevelRecord",
    "Manifest",
    "PassFinished",
    "Resumed",
    "RunFinished",
    "RunLock",
    "RunStarted",
    "Seeded",
    "Sizes",
    "StageFinished",
    "StageStarted",
    "StoreRecord",
    "SubsetRecord",
    "Warned",
    "check_resumable",
    "combine_digests",
    "current_versions",
    "differences",
    "levels_in_common",
    "read_events",
]
