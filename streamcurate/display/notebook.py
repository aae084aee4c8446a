"""Progress in a notebook: one output that is replaced as the work goes on, of plain HTML, and a table at the end.

No widgets and no scripts, so that it shows wherever outputs show; colours are those of the page around it.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterable
from html import escape
from typing import TYPE_CHECKING, Any

from streamcurate.display.lines import (
    Reading,
    State,
    content_words,
    details_of,
    doing_words,
    duration,
    finished_words,
    inertia_words,
    left,
    level_words,
    one_line,
    pass_words,
    step_words,
)

if TYPE_CHECKING:
    from streamcurate.runs.progress import LevelProgress, RunProgress

_SECONDS_BETWEEN_UPDATES = 0.25
_MOST_NOTES = 50
_WIDTH, _HEIGHT = 120, 22
_LONG_FIT = 4


def in_notebook() -> bool:
    """Whether this process is a notebook's kernel."""
    if "IPython" not in sys.modules:
        return False
    from IPython import get_ipython

    shell = get_ipython()  # type: ignore[no-untyped-call,unused-ignore]
    return shell is not None and hasattr(shell, "kernel")


class Notebook:
    """One output of the cell, updated at most four times a second.

    Parameters
    ----------
    state : State
    """

    has_table = True

    def __init__(self, state: State) -> None:
        self._state = state
        self._handle: Any = None
        self._last = float("-inf")
        self._showed: Reading | None = None
        self._notes: deque[str] = deque(maxlen=_MOST_NOTES)

    def begins(self) -> None:
        """A pass has begun."""
        self.changed()

    def changed(self) -> None:
        """There is something new to show."""
        if self._state.clock() - self._last >= _SECONDS_BETWEEN_UPDATES:
            self._show()

    def ends(self) -> None:
        """A pass ends."""

    def idle(self) -> None:
        """It is gone; so it must be from the page, if it was there."""
        if self._showed is not None:
            self._show()

    def line(self, text: str) -> None:
        """Show a line that stays."""
        self._notes.append(text)
        self._show()

    def close(self) -> None:
        """Leave what is to stay. The next work has an output of its own."""
        if self._handle is not None or self._state.run is not None:
            self._show()
        self._handle, self._last, self._showed = None, float("-inf"), None
        self._notes.clear()

    def _show(self) -> None:
        from IPython.display import display

        self._last, self._showed = self._state.clock(), self._state.reading
        content = {"text/html": page(self._state, self._notes), "text/plain": plain_text(self._state, self._notes)}
        if self._handle is None:
            self._handle = display(content, raw=True, display_id=True)  # type: ignore[no-untyped-call,unused-ignore]
        else:
            self._handle.update(content, raw=True)


def plain_text(state: State, notes: Iterable[str] = ()) -> str:
    """For places that show no HTML."""
    run, lines = state.run, []
    if run is not None:
        done = [level for _, level in sorted(run.levels.items()) if level.finished is not None]
        lines += [finished_words(level, run.spent.get(level.number)) for level in done]
    lines += notes
    if state.under_way:
        lines.append(one_line(state))
    if state.reading is not None:
        lines.append(f"{state.reading.name}: {details_of(state.reading, state.clock())}")
    return "\n".join(lines)


def page(state: State, notes: Iterable[str] = ()) -> str:
    """The HTML of a state, and of what was said."""
    parts = []
    run = state.run
    if run is not None:
        parts.append(_table(run))
    if run is not None and state.under_way:
        parts.append(_under_way(state, run))
    if (reading := state.reading) is not None:
        share = min(reading.done / reading.rows, 1.0) if reading.rows else 1.0
        parts.append(_line([reading.name], 0, share, details_of(reading, state.clock())))
    parts += [f'<div style="opacity:.75">{escape(text)}</div>' for text in notes]
    return (
        '<div style="font-family:system-ui,sans-serif;font-size:13px;line-height:1.6;color:inherit">'
        f"{''.join(parts)}</div>"
    )


def _under_way(state: State, run: RunProgress) -> str:
    waited, estimate = state.waited, state.seconds_left
    plan = run.current.plan
    first = [level_words(run), content_words(plan), f"{duration(run.seconds + waited)} so far"]
    if estimate is not None:
        first.append(left(estimate))
    lines = [_line([f"<b>{escape(first[0] or '')}</b>", *(escape(part) for part in first[1:] if part)], 0, marked=True)]
    second = [part for part in (step_words(run), doing_words(run, waited), *inertia_words(run)) if part]
    if second:
        lines.append(_line(second, 1))
    name, share, told = pass_words(run, waited)
    if name:
        lines.append(
            _line([name], 2, share, ", ".join([*([f"{int(100 * share)} %"] if share is not None else []), *told]))
        )
    return "".join(lines)


def _line(parts: list[str], depth: int, share: float | None = None, beside: str = "", *, marked: bool = False) -> str:
    words = ", ".join(part if marked else escape(part) for part in parts)
    bar = "" if share is None else _bar(share)
    rest = escape(beside) if share is not None or not beside else f", {escape(beside)}"
    return f'<div style="padding-left:{1.2 * depth:g}em">{words}{bar}{rest}</div>'


def _bar(share: float) -> str:
    return (
        '<span style="display:inline-block;vertical-align:middle;width:10em;height:.6em;margin:0 .6em;'
        'border:1px solid currentColor;border-radius:2px;overflow:hidden">'
        f'<span style="display:block;width:{100 * share:.1f}%;height:100%;background:currentColor;opacity:.6"></span>'
        "</span>"
    )


def _table(run: RunProgress) -> str:
    """The levels so far: what they came to, and how their inertia fell."""
    told = [level for number, level in sorted(run.levels.items()) if level.finished is not None]
    if not told:
        return ""
    cell = 'style="text-align:right;padding:0 .8em;color:inherit"'
    head = "".join(f"<th {cell}>{name}</th>" for name in _HEAD)
    rows = "".join(
        f"<tr>{''.join(f'<td {cell}>{text}</td>' for text in _row(level, run.spent.get(level.number, 0.0)))}</tr>"
        for level in told
    )
    return (
        '<table style="border-collapse:collapse;background:none;color:inherit;font:inherit;margin:.2em 0">'
        f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    )


_HEAD = ("level", "points", "clusters", "passes", "inertia", "seconds", "inertia, pass by pass")


def _row(level: LevelProgress, seconds: float) -> list[str]:
    finished = level.finished
    assert finished is not None
    return [
        f"{level.number}",
        f"{finished.rows:,}",
        f"{finished.clusters:,}",
        f"{level.iterations:,}" if level.iterations else "–",
        f"{finished.inertia:.4g}",
        f"{seconds:,.1f}",
        sparkline(level),
    ]


def sparkline(level: LevelProgress) -> str:
    """The inertia of each fit of a level, one fit behind the other and each on a scale of its own, as SVG.

    Long fits begin with their second pass: what the first gains, behind the seeding, would flatten all that follows.
    """
    fits = [[each.inertia for each in level.fits[step].iterations] for step in sorted(level.fits)]
    fits = [fit[1:] if len(fit) > _LONG_FIT else fit for fit in fits if len(fit) > 1]
    if not fits:
        return "–"
    passes = sum(len(fit) for fit in fits)
    step = _WIDTH / max(passes - 1, 1)
    lines, at = [], 0
    for number, fit in enumerate(fits):
        points = " ".join(
            f"{(at + index) * step:.1f},{2 + (_HEIGHT - 4) * (max(fit) - value) / ((max(fit) - min(fit)) or 1):.1f}"
            for index, value in enumerate(fit)
        )
        at += len(fit)
        # The first fit, and the resampling steps behind it.
        lines.append(f'<polyline points="{points}" opacity="{1 if not number else 0.55}"/>')
    return (
        f'<svg width="{_WIDTH}" height="{_HEIGHT}" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        'style="vertical-align:middle" fill="none" stroke="currentColor" stroke-width="1.5">'
        f"<title>Inertia of level {level.number}, pass by pass</title>{''.join(lines)}</svg>"
    )
