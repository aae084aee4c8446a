"""The names of the random streams: every draw is keyed by (seed, level, step, purpose, further numbers).

The numbers are part of what makes a tree reproducible: changing one changes every tree.
"""

from __future__ import annotations

from enum import IntEnum


class Purpose(IntEnum):
    """What a random draw decides."""

    FIT_ROWS = 1
    RANDOM_SEEDS = 2
    PLUS_PLUS = 3
    OVERSAMPLING = 4
    RESAMPLING = 5
    MINI_BATCH = 6
    SPLIT = 7
    RECALL = 8


def stream(level: int, step: int, purpose: Purpose, *further: int) -> tuple[int, ...]:
    """The key of one stream."""
    return (level, step, int(purpose), *further)
