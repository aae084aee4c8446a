"""Progress as plain lines: in logs, where more of them would bury the rest."""

from __future__ import annotations

from typing import TextIO

from streamcurate.display import heartbeat
from streamcurate.display.lines import State, details_of, one_line

# Fewest seconds between lines. Of long work they become rarer: each tells of a twentieth of it, but nobody waits longer
# than five minutes for a sign of life.
SECONDS_BETWEEN_LINES, SHARE_BETWEEN_LINES, MOST_BETWEEN_LINES = 10.0, 0.05, 300.0
_SECONDS_BETWEEN_BEATS = 2.0


class PlainLines:
    """Prints a line now and then, each of which needs no other.

    Parameters
    ----------
    stream : text file
    state : State
    showing : callable
        See :mod:`streamcurate.display.heartbeat`.
    interval : float
        Fewest seconds between two.
    """

    has_table = False

    def __init__(
        self, stream: TextIO, state: State, showing: heartbeat.Showing, interval: float = SECONDS_BETWEEN_LINES
    ) -> None:
        self._stream, self._state, self._showing, self._interval = stream, state, showing, interval
        self._beats = False
        self._began = self._last = state.clock()

    def begins(self) -> None:
        """A pass has begun, of which there is nothing to tell yet."""

    def changed(self) -> None:
        """There is something new to show."""
        if self._state.under_way and not self._beats:
            self._beats = True
            heartbeat.start(_SECONDS_BETWEEN_BEATS, self._showing, self._beat)
        self._now_and_then()

    def _beat(self) -> bool:
        """A sign of life while a run does what tells nothing, such as seeding."""
        self._beats = self._state.under_way
        if self._beats:
            self._now_and_then()
        return self._beats

    def _now_and_then(self) -> None:
        now = self._state.clock()
        growing = min(SHARE_BETWEEN_LINES * (now - self._began), MOST_BETWEEN_LINES)
        if now - self._last < max(self._interval, growing):
            return
        reading = self._state.reading
        if reading is not None:
            text = f"{reading.name}: {reading.done:,} of {reading.rows:,} rows, {details_of(reading, now)}"
        elif self._state.under_way:
            text = one_line(self._state)
        else:
            return
        self._last = now
        self.line(text)

    def ends(self) -> None:
        """A pass ends: how far it came may be worth a line."""
        self.changed()

    def idle(self) -> None:
        """It is gone."""

    def line(self, text: str) -> None:
        """Show a line that stays."""
        print(text, file=self._stream, flush=True)

    def close(self) -> None:
        """Lines that are printed stay."""
