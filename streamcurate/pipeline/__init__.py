"""Building a tree: what is asked for, the run directory, the order of the stages, resuming and reusing."""

from streamcurate.pipeline.request import cluster, resolve_config

__all__ = ["cluster", "resolve_config"]
