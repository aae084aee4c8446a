"""A thread that shows that time passes while nothing else happens."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager

Showing = Callable[[], AbstractContextManager[bool]]
"""A context in which nobody changes the state; it says whether anything is shown."""


def start(seconds: float, showing: Showing, step: Callable[[], bool]) -> None:
    """Call ``step`` so many seconds apart, until it says no or nothing is shown any more.

    It does not keep the process alive.
    """

    def run() -> None:
        pause = threading.Event()
        while True:
            pause.wait(seconds)
            with showing() as shown:
                if not shown or not step():
                    return

    threading.Thread(target=run, name="progress", daemon=True).start()
