"""Embeddings at rest: the store, the readers of foreign formats, and ingest."""

from streamcurate.embeddings.ingest import ingest
from streamcurate.embeddings.store import Embeddings, as_embeddings, open_embeddings

__all__ = ["Embeddings", "as_embeddings", "ingest", "open_embeddings"]
