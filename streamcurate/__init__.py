"""Balanced, diverse subsets of billions of embeddings, out of core.

Automatic data curation by hierarchical k-means with resampling and balanced sampling (arXiv:2405.15613), streamed over
chunked Zarr arrays in bounded memory.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from streamcurate.version import __version__

if TYPE_CHECKING:
    from streamcurate.config import Config, Level, Resampling
    from streamcurate.curated import Tree, assign, cluster, extend, open_labels, open_tree, sample
    from streamcurate.embeddings.ingest import ingest
    from streamcurate.embeddings.store import Embeddings, as_embeddings, open_embeddings
    from streamcurate.errors import DegenerateTreeWarning, InputError, StreamcurateError
    from streamcurate.sampling import Selection
    from streamcurate.streaming import ProgressListener

_HOMES = {
    "Config": "config",
    "Embeddings": "embeddings",
    "DegenerateTreeWarning": "errors",
    "InputError": "errors",
    "Level": "config",
    "ProgressListener": "streaming",
    "Resampling": "config",
    "Selection": "sampling",
    "StreamcurateError": "errors",
    "Tree": "curated",
    "as_embeddings": "embeddings",
    "assign": "curated",
    "cluster": "curated",
    "extend": "curated",
    "ingest": "embeddings",
    "open_embeddings": "embeddings",
    "open_labels": "curated",
    "open_tree": "curated",
    "sample": "curated",
}


def __getattr__(name: str) -> Any:
    # Importing the package must stay cheap: the libraries behind these take a second.
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})


__all__ = [
    "Config",
    "DegenerateTreeWarning",
    "Embeddings",
    "InputError",
    "Level",
    "ProgressListener",
    "Resampling",
    "Selection",
    "StreamcurateError",
    "Tree",
    "__version__",
    "as_embeddings",
    "assign",
    "cluster",
    "extend",
    "ingest",
    "open_embeddings",
    "open_labels",
    "open_tree",
    "sample",
]
