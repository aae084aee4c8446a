"""Embeddings at rest: the store, the readers of foreign formats, and ingest."""
