"""Charts as inline SVG: lines, steps and marks on two axes. Colours come from the page's style."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from streamcurate.reports.markup import Names, escaped, number

# In the units of the drawing, which a phone shows one to one.
WIDTH, HEIGHT = 400, 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 50, 12, 10, 42


@dataclass(frozen=True)
class Axis:
    """One axis of a chart.

    Attributes
    ----------
    label : str
    low, high : float
        Its ends; logarithms where it is logarithmic.
    ticks : sequence of (float, str)
        Places and what stands there.
    """

    label: str
    low: float
    high: float
    ticks: Sequence[tuple[float, str]]


@dataclass(frozen=True)
class Series:
    """Points to be joined.

    Attributes
    ----------
    kind : str
        The class that gives its colour.
    points : sequence of (float, float)
    filled : bool
        Down to the axis.
    dots : bool
        Every point is marked.
    """

    kind: str
    points: Sequence[tuple[float, float]]
    filled: bool = False
    dots: bool = False


def linear_axis(label: str, low: float, high: float, *, percent: bool = False, most: int = 5) -> Axis:
    """An axis with round numbers on it.

    Examples
    --------
    >>> [text for _, text in linear_axis("", 0, 1, percent=True).ticks]
    ['0', '20', '40', '60', '80', '100']
    """
    if not high > low:
        high = low + (abs(low) or 1.0)
    step = _round_step((high - low) / most)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    values = [index * step for index in range(first, last + 1)]
    return Axis(label, low, high, [(value, number(round(100 * value, 9) if percent else value)) for value in values])


def _round_step(step: float) -> float:
    size = 10.0 ** math.floor(math.log10(step))
    return next(factor * size for factor in (1, 2, 5, 10) if factor * size >= step * (1 - 1e-9))


def chart(names: Names, title: str, description: str, across: Axis, up: Axis, series: Sequence[Series]) -> str:
    """A chart with grid lines, axes and series.

    Parameters
    ----------
    names : Names
        Of the page.
    title, description : str
        For those who hear the page.
    across, up : Axis
    series : sequence of Series
        The last lies on top.
    """
    parts = []
    for value, text in up.ticks:
        y = _place(value, up, HEIGHT - _BOTTOM, _TOP)
        parts.append(f'<path class="grid" d="M{_LEFT} {y}H{WIDTH - _RIGHT}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{_near(y, 4)}" text-anchor="end">{escaped(text)}</text>')
    for value, text in across.ticks:
        x = _place(value, across, _LEFT, WIDTH - _RIGHT)
        parts.append(f'<path class="tick" d="M{x} {HEIGHT - _BOTTOM}v5"/>')
        parts.append(f'<text x="{x}" y="{HEIGHT - _BOTTOM + 18}" text-anchor="middle">{escaped(text)}</text>')
    parts.append(f'<path class="axis" d="M{_LEFT} {HEIGHT - _BOTTOM}H{WIDTH - _RIGHT}"/>')
    middle = (_LEFT + WIDTH - _RIGHT) / 2
    parts.append(f'<text x="{middle:g}" y="{HEIGHT - 5}" text-anchor="middle">{escaped(across.label)}</text>')
    half = (_TOP + HEIGHT - _BOTTOM) / 2
    parts.append(
        f'<text x="12" y="{half:g}" text-anchor="middle" transform="rotate(-90 12 {half:g})">{escaped(up.label)}</text>'
    )
    for each in series:
        parts += _series(each, across, up)
    return svg(names, title, description, WIDTH, HEIGHT, "\n".join(parts))


def _series(series: Series, across: Axis, up: Axis) -> list[str]:
    places = [
        (_place(x, across, _LEFT, WIDTH - _RIGHT), _place(y, up, HEIGHT - _BOTTOM, _TOP)) for x, y in series.points
    ]
    if not places:
        return []
    path = "M" + "L".join(f"{x} {y}" for x, y in places)
    parts = []
    if series.filled:
        base = HEIGHT - _BOTTOM
        parts.append(f'<path class="area {series.kind}" d="{path}V{base}H{places[0][0]}Z"/>')
    parts.append(f'<path class="line {series.kind}" d="{path}"/>')
    if series.dots or len(places) == 1:
        parts += [f'<circle class="dot {series.kind}" cx="{x}" cy="{y}" r="2.5"/>' for x, y in places]
    return parts


def _place(value: float, axis: Axis, start: float, stop: float) -> str:
    share = (value - axis.low) / (axis.high - axis.low)
    return f"{start + (stop - start) * min(max(share, 0.0), 1.0):.1f}".removesuffix(".0")


def _near(place: str, by: float) -> str:
    return f"{float(place) + by:.1f}".removesuffix(".0")


def stairs(edges: Sequence[float], heights: Sequence[float]) -> list[tuple[float, float]]:
    """The outline of bars between edges."""
    points = [(edges[0], 0.0)]
    for left, right, height in zip(edges, edges[1:], heights, strict=False):
        points += [(left, height), (right, height)]
    return [*points, (edges[-1], 0.0)]


def svg(names: Names, title: str, description: str, width: int, height: int, content: str) -> str:
    """A drawing with a title and a description."""
    own, about = names.new("picture"), names.new("about")
    heard = f'<title id="{own}">{escaped(title)}</title>\n<desc id="{about}">{escaped(description)}</desc>'
    size = f"0 0 {width} {height}"
    return f'<svg viewBox="{size}" role="img" aria-labelledby="{own} {about}">\n{heard}\n{content}\n</svg>'


# -- marks on lines from 0 to 100 % ------------------------------------------------------------------------------------

_LINE = 46


@dataclass(frozen=True)
class Mark:
    """A value on a line: a circle, a diamond or a square.

    Attributes
    ----------
    kind : str
        Class, which gives the colour too: pool, random or draw.
    share : float
        0 to 1.
    """

    kind: str
    share: float


def strips(names: Names, title: str, description: str, lines: Sequence[tuple[str, str, Sequence[Mark]]]) -> str:
    """Lines from 0 to 100 %, each with its name, what stands at its end, and marks."""
    parts = []
    for index, (name, text, marks) in enumerate(lines):
        top = index * _LINE
        y = top + 30
        parts.append(f'<text x="2" y="{top + 14}" class="name">{escaped(name)}</text>')
        parts.append(f'<text x="{WIDTH - 2}" y="{top + 14}" text-anchor="end">{escaped(text)}</text>')
        parts.append(f'<path class="rail" d="M8 {y}H{WIDTH - 8}"/>')
        for mark in marks:
            x = 8 + (WIDTH - 16) * min(max(mark.share, 0.0), 1.0)
            parts.append(f'<path class="mark {mark.kind}" d="{_shape(mark.kind, x, y)}"/>')
    bottom = len(lines) * _LINE
    for share, anchor in ((0, "start"), (50, "middle"), (100, "end")):
        x = 8 + (WIDTH - 16) * share / 100
        parts.append(f'<text x="{x:g}" y="{bottom + 8}" text-anchor="{anchor}">{share} %</text>')
    return svg(names, title, description, WIDTH, bottom + 14, "\n".join(parts))


def _shape(kind: str, x: float, y: float) -> str:
    if kind == "random":
        return f"M{x:.1f} {y - 7:g}l6 7l-6 7l-6 -7z"
    if kind == "draw":
        return f"M{x - 5:.1f} {y - 5:g}h10v10h-10z"
    # A ring around what may lie on it.
    return f"M{x - 7:.1f} {y:g}a7 7 0 1 0 14 0a7 7 0 1 0 -14 0z"
