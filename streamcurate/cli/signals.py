"""Stopping cleanly: Ctrl-C and SIGTERM unwind the command, which then says how to go on."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import click

_HINT = "streamcurate.resume_hint"


class Terminated(BaseException):
    """SIGTERM arrived. Like :class:`KeyboardInterrupt` no ``except Exception`` holds it up."""


class Stopped(Exception):  # noqa: N818 (a clean stop is no error)
    """A command was stopped by a signal and has unwound.

    Parameters
    ----------
    exit_code : int
        130 for Ctrl-C, 143 for SIGTERM.
    hint : str or None
        How to go on.
    """

    def __init__(self, exit_code: int, hint: str | None) -> None:
        super().__init__(exit_code, hint)
        self.exit_code = exit_code
        self.hint = hint


def set_resume_hint(text: str) -> None:
    """Say what the user is told should the running command be stopped from now on.

    Examples
    --------
    In a command: ``set_resume_hint("finished parts are kept in run/; give the same command again to go on")``.
    """
    click.get_current_context().meta[_HINT] = text


def resume_hint(context: click.Context) -> str | None:
    """What :func:`set_resume_hint` left, if anything."""
    hint: str | None = context.meta.get(_HINT)
    return hint


@contextmanager
def termination() -> Iterator[None]:
    """Turn SIGTERM into :class:`Terminated` inside. Only the main thread may ask for it; elsewhere nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        # Batch systems send it to every process of a group, often more than once: the first one counts, and what
        # follows must not interrupt the unwinding.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise Terminated

    previous = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
