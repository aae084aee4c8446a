"""What a long job tells whoever watches it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from streamcurate.runs import Event


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


@runtime_checkable
class EventListener(ProgressListener, Protocol):
    """Receives the events of a run as well, each as it stands in its log, right after it was written there.

    It hears of the run's passes by these events alone: ``started``, ``advanced`` and ``finished`` are not called.
    """

    def happened(self, event: Event) -> None:
        """Something happened."""


class Silent:
    """Listens to nothing."""

    def started(self, name: str, rows: int) -> None: ...
    def advanced(self, rows: int, bytes: int) -> None: ...
    def finished(self) -> None: ...
    def note(self, text: str) -> None: ...
