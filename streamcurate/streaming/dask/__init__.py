"""Passes on a Dask cluster. The only room that knows ``distributed``; importing it imports that."""

from streamcurate.streaming.dask.connection import connect
from streamcurate.streaming.dask.executor import DaskExecutor

__all__ = ["DaskExecutor", "connect"]
