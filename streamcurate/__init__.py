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
    from streamcurate.curated import Tree, assign, cluster, explain, extend, open_labels, open_tree, sample
    from streamcurate.display.progress import Progress
    from streamcurate.display.watching import watch
    from streamcurate.embeddings.ingest import ingest
    from streamcurate.embeddings.store import Embeddings, as_embeddings, open_embeddings
    from streamcurate.errors import DegenerateTreeWarning, InputError, StreamcurateError
    from streamcurate.neighbors.duplicates import Duplicates, open_duplicates
    from streamcurate.neighbors.excluded import Excluded
    from streamcurate.neighbors.retrieved import Retrieved
    from streamcurate.pipeline.dedup import dedup
    from streamcurate.pipeline.mixture import Mixture, mix
    from streamcurate.pipeline.plan import plan
    from streamcurate.pipeline.retrieve import exclude, retrieve
    from streamcurate.pipeline.row_lists import CombinedRows, combine_rows
    from streamcurate.planning.plan import Plan
    from streamcurate.reports import Report, report
    from streamcurate.sampling import Explanation, Selection
    from streamcurate.streaming import ProgressListener

_HOMES = {
    "as_embeddings": "embeddings",
    "assign": "curated",
    "cluster": "curated",
    "combine_rows": "pipeline.row_lists",
    "CombinedRows": "pipeline.row_lists",
    "Config": "config",
    "dedup": "pipeline.dedup",
    "DegenerateTreeWarning": "errors",
    "Duplicates": "neighbors.duplicates",
    "Embeddings": "embeddings",
    "exclude": "pipeline.retrieve",
    "Excluded": "neighbors.excluded",
    "explain": "curated",
    "Explanation": "sampling",
    "extend": "curated",
    "ingest": "embeddings",
    "InputError": "errors",
    "Level": "config",
    "mix": "pipeline.mixture",
    "Mixture": "pipeline.mixture",
    "open_duplicates": "neighbors.duplicates",
    "open_embeddings": "embeddings",
    "open_labels": "curated",
    "open_tree": "curated",
    "Plan": "planning.plan",
    "plan": "pipeline.plan",
    "Progress": "display.progress",
    "ProgressListener": "streaming",
    "Report": "reports",
    "report": "reports",
    "Resampling": "config",
    "retrieve": "pipeline.retrieve",
    "Retrieved": "neighbors.retrieved",
    "sample": "curated",
    "Selection": "sampling",
    "StreamcurateError": "errors",
    "Tree": "curated",
    "watch": "display.watching",
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
    "CombinedRows",
    "Config",
    "DegenerateTreeWarning",
    "Duplicates",
    "Embeddings",
    "Excluded",
    "Explanation",
    "InputError",
    "Level",
    "Mixture",
    "Plan",
    "Progress",
    "ProgressListener",
    "Report",
    "Resampling",
    "Retrieved",
    "Selection",
    "StreamcurateError",
    "Tree",
    "__version__",
    "as_embeddings",
    "assign",
    "cluster",
    "combine_rows",
    "dedup",
    "exclude",
    "explain",
    "extend",
    "ingest",
    "mix",
    "open_duplicates",
    "open_embeddings",
    "open_labels",
    "open_tree",
    "plan",
    "report",
    "retrieve",
    "sample",
    "watch",
]
