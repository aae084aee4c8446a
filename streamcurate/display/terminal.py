"""Progress on a terminal: a few live lines, gone when the work is done; what is worth keeping scrolls above them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, TextIO

from streamcurate.display import heartbeat
from streamcurate.display.lines import State, barred, details_of, live_lines, text_bar

if TYPE_CHECKING:
    import rich.console
    import rich.live

# Redrawn so often, whatever happens: drawing costs about half a millisecond.
_SECONDS_BETWEEN_FRAMES = 0.25
# With nothing to show for so many frames the terminal is given back until there is something again.
_IDLE_FRAMES = 4
_BAR_OF_A_PASS = 16


def is_terminal(stream: TextIO) -> bool:
    """Whether lines on it can be redrawn."""
    try:
        return stream.isatty() and os.environ.get("TERM", "") not in ("", "dumb")
    except ValueError:  # closed
        return False


class Terminal:
    """Live lines on a terminal.

    Parameters
    ----------
    stream : text file
        A terminal.
    state : State
    showing : callable
        A context in which nobody changes the state, and whether anything is shown.
    """

    has_table = False

    def __init__(self, stream: TextIO, state: State, showing: heartbeat.Showing) -> None:
        self._stream, self._state, self._showing = stream, state, showing
        self._live: rich.live.Live | None = None
        self._console: rich.console.Console | None = None
        self._idle = 0

    def begins(self) -> None:
        """A pass has begun."""
        self.changed()

    def changed(self) -> None:
        """There is something new to show: the next frame will."""
        if self._live is None:
            self._start()

    def ends(self) -> None:
        """A pass ends."""

    def idle(self) -> None:
        """It is gone: at once, so that what a command prints next does not share the line."""
        self.refresh()

    def line(self, text: str) -> None:
        """Show a line that stays, above the live ones."""
        if self._live is not None:
            self._live.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            print(text, file=self._stream, flush=True)

    def close(self) -> None:
        """Give the terminal back. Once is enough; more does no harm."""
        live, self._live = self._live, None
        if live is not None:
            live.stop()

    def refresh(self) -> None:
        """Draw a frame."""
        if self._live is not None:
            self._live.refresh()

    def _start(self) -> None:
        import rich.console
        import rich.live

        if self._console is None:
            self._console = rich.console.Console(file=self._stream, force_terminal=True)
        self._live = rich.live.Live(
            console=self._console,
            get_renderable=self._frame,
            # Frames are drawn by a thread of our own, which takes the lock that the state is changed under.
            auto_refresh=False,
            transient=True,
            # Results go to standard output, whatever is shown here.
            redirect_stdout=False,
        )
        self._idle = 0
        self._live.start()
        live = self._live

        def draw() -> bool:
            if self._live is not live:
                return False
            self._idle = 0 if self._shows_something else self._idle + 1
            if self._idle >= _IDLE_FRAMES:
                # Hidden cursors and such do not outlive the work, even of who never closes.
                self.close()
                return False
            live.refresh()
            return True

        heartbeat.start(_SECONDS_BETWEEN_FRAMES, self._showing, draw)

    @property
    def _shows_something(self) -> bool:
        return self._state.reading is not None or self._state.under_way

    def _frame(self) -> rich.console.Group:
        import rich.console
        import rich.text

        assert self._console is not None
        width = self._console.width
        lines = []
        if self._state.under_way:
            lines += live_lines(self._state, width, self._bar)
        if (reading := self._state.reading) is not None:
            share = min(reading.done / reading.rows, 1.0) if reading.rows else 1.0
            detail = details_of(reading, self._state.clock())
            # The share, and then what there is room for.
            line = barred(reading.name, share, detail.split(", ")[1:], width, self._short_bar)
            lines.append(line)
        return rich.console.Group(*(self._coloured(line) for line in lines))

    def _bar(self, share: float, columns: int) -> str:
        bar = text_bar(share, columns)
        if self._console is None or self._console.options.ascii_only:
            return bar
        return bar.replace("=", "━").replace("-", "─")

    def _short_bar(self, share: float, columns: int) -> str:
        return self._bar(share, min(columns, _BAR_OF_A_PASS))

    def _coloured(self, line: str) -> rich.text.Text:
        """With the bar in colour and what is less important dimmed; a console without colours leaves both out."""
        import rich.text

        text = rich.text.Text(line, no_wrap=True, overflow="ellipsis")
        text.highlight_regex("[━]+", "green")
        text.highlight_regex("[─]+", "dim")
        if not line.startswith(" "):
            text.highlight_regex(r"^level \d+( of \d+)?", "bold")
        return text
