"""What a clustering run is asked to do, and the files that say so.

``model`` holds the levels, metric, seed and subset; ``formats`` reads files, our own ``levels.yaml`` and the flat ones
of the method's authors; ``checks`` refuses bad values. Every value is checked where it enters, and a message names the
key, the value, what is allowed, and what to do.
"""

from __future__ import annotations

from streamcurate.config.model import (
    ALGORITHMS,
    METRICS,
    MOST_CLUSTERS,
    SEARCHES,
    SEEDINGS,
    STRATEGIES,
    Config,
    Level,
    Resampling,
    parse_levels,
)

__all__ = [
    "ALGORITHMS",
    "METRICS",
    "MOST_CLUSTERS",
    "SEARCHES",
    "SEEDINGS",
    "STRATEGIES",
    "Config",
    "Level",
    "Resampling",
    "parse_levels",
]
