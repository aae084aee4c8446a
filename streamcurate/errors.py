"""The errors streamcurate raises.

Everything a user can cause and mend derives from :class:`InputError`; the command line prints its message without a
traceback and exits with status 2. A message says what was wrong, the value, where, and what to do about it.
"""

from __future__ import annotations


class StreamcurateError(Exception):
    """Base of every error raised on purpose. ``exit_code`` is the command line's exit status."""

    exit_code = 1


class InputError(StreamcurateError):
    """Something the user can mend: wrong input, options, files or surroundings."""

    exit_code = 2


class ConfigError(InputError):
    """An option or a key of a configuration file is unknown, contradictory or out of range."""


class DataError(InputError):
    """Rows that cannot be used: NaN, Inf, zero norm under cosine, changing dimension, too few rows."""


class StoreError(InputError):
    """Data at rest is missing, truncated, corrupt, or changed since a run began."""


class ChangedStoreError(StoreError):
    """Data at rest can be read, and is not what it was when the work on it began."""


class RunError(InputError):
    """A run directory is locked, belongs to another configuration, or cannot be continued."""


class MemoryLimitError(InputError):
    """What was asked for cannot be done within the memory limit."""


class DegenerateTreeWarning(UserWarning):
    """A level came out lopsided, or with empty clusters; the text says how, and what to change."""


class CapacityError(InputError):
    """A sample larger than what the tree can give was asked for."""


class ObjectError(InputError):
    """An object store does not give or take what it was asked for."""


class DiskFullError(InputError):
    """No space is left where something had to be written."""
