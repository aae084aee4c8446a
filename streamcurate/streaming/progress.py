"""What a long job tells whoever watches it."""

from __future__ import annotations

from typing import Protocol


class ProgressListener(Protocol):
    """Receives the progress of passes, as the command line's display does."""

    def started(self, name: str, rows: int) -> None:
        """A pass over ``rows`` rows begins."""

    def advanced(self, rows: int, bytes: int) -> None:
        """So many more rows, of so many bytes, are done."""

    def finished(self) -> None:
        """The pass has ended."""

    def note(self, text: str) -> None:
        """Something worth a line: a stage, a choice, a warning."""


class Silent:
    """Listens to nothing."""

    def started(self, name: str, rows: int) -> None: ...
    def advanced(self, rows: int, bytes: int) -> None: ...
    def finished(self) -> None: ...
    def note(self, text: str) -> None: ...
