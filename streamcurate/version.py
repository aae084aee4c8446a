"""The version of streamcurate, in the one place that everything else reads it from."""

from __future__ import annotations

__version__ = "0.1.0"
