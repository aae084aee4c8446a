"""How rows flow: sources, passes over them in bounded memory, executors, and the external shuffle."""

from streamcurate.streaming.budget import BlockPlan, Cost, MemoryBudget, format_bytes, parse_bytes
from streamcurate.streaming.passes import Block, Executor, Output, Pass, PassReport, Points, SlicedPass, State
from streamcurate.streaming.progress import EventListener, ProgressListener, Silent
from streamcurate.streaming.serial import SerialExecutor
from streamcurate.streaming.source import HeldRows, MemoryRows, RowSource, StoredRows

__all__ = [
    "Block",
    "BlockPlan",
    "Cost",
    "EventListener",
    "Executor",
    "HeldRows",
    "MemoryBudget",
    "MemoryRows",
    "Output",
    "Pass",
    "PassReport",
    "Points",
    "ProgressListener",
    "RowSource",
    "SerialExecutor",
    "Silent",
    "SlicedPass",
    "State",
    "StoredRows",
    "format_bytes",
    "parse_bytes",
]
