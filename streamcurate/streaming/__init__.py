"""How rows flow: sources, passes over them in bounded memory, executors, and the external shuffle."""

from streamcurate.streaming.budget import BlockPlan, Cost, MemoryBudget, format_bytes, parse_bytes
from streamcurate.streaming.passes import Block, Executor, Output, Pass, Points
from streamcurate.streaming.progress import ProgressListener, Silent
from streamcurate.streaming.serial import SerialExecutor
from streamcurate.streaming.source import MemoryRows, RowSource, StoredRows

__all__ = [
    "Block",
    "BlockPlan",
    "Cost",
    "Executor",
    "MemoryBudget",
    "MemoryRows",
    "Output",
    "Pass",
    "Points",
    "ProgressListener",
    "RowSource",
    "SerialExecutor",
    "Silent",
    "StoredRows",
    "format_bytes",
    "parse_bytes",
]
