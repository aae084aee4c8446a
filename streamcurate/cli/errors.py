"""What the user sees when something goes wrong, and the exit status that goes with it."""

from __future__ import annotations

import errno
import os
import sys

import click

from streamcurate.errors import InputError

USAGE = 2
INTERRUPTED = 130
TERMINATED = 143

_FULL = {errno.ENOSPC, errno.EDQUOT}


def explain(error: Exception) -> str | None:
    """The message for an error that the user can mend, in one line; None for any other error."""
    if isinstance(error, InputError):
        return str(error)
    if isinstance(error, click.ClickException):
        message = error.format_message()
        context = error.ctx if isinstance(error, click.UsageError) else None
        return f"{message} See '{context.command_path} --help'." if context is not None else message
    if isinstance(error, OSError) and error.errno in _FULL:
        place = f"{error.filename}: " if error.filename else ""
        return f"{place}no space left on the device; free some space, then give the same command again"
    return None


def complain(message: str) -> None:
    """Print an error to standard error. That it may be closed or full is not worth a second error."""
    _tell(f"streamcurate: error: {message}")


def announce(message: str) -> None:
    """Print a remark that is no error to standard error."""
    _tell(f"streamcurate: {message}")


def hide_broken_pipe() -> None:
    """Let the interpreter's last flush go nowhere: the reader of standard output has gone, as ``head`` does."""
    sink = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(sink, sys.stdout.fileno())
    except (OSError, ValueError):
        # No file stands behind standard output, so nothing will be flushed to one.
        pass
    finally:
        os.close(sink)


def _tell(line: str) -> None:
    try:
        print(line, file=sys.stderr, flush=True)
    except (OSError, ValueError):
        return
