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
    LevelPlanned,
    LevelStarted,
    PassAdvanced,
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
    Manifest,
    check_engine,
    check_resumable,
    current_versions,
    differences,
    levels_in_common,
)
from streamcurate.runs.records import (
    ExtensionRecord,
    LevelRecord,
    NoveltyRecord,
    Sizes,
    StoreRecord,
    SubsetRecord,
)

__all__ = [
    "Checkpoints",
    "Digest",
    "Event",
    "EventLog",
    "ExtensionRecord",
    "Interrupted",
    "IterationFinished",
    "LevelFinished",
    "LevelPlanned",
    "LevelRecord",
    "LevelStarted",
    "Manifest",
    "NoveltyRecord",
    "PassAdvanced",
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
    "check_engine",
    "check_resumable",
    "combine_digests",
    "current_versions",
    "differences",
    "levels_in_common",
    "read_events",
]
