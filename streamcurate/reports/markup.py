"""HTML by hand: escaping, tables, figures, and numbers as people read them."""

from __future__ import annotations

import html
import math
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field


def escaped(text: object) -> str:
    """Text for a page: markup and quotes escaped; what could not be seen, or could turn the line round, as its code."""
    shown = []
    for character in str(text):
        # Controls, marks of direction, lone surrogates: none of them has a place in a page.
        hidden = unicodedata.category(character) in ("Cc", "Cf", "Cs") and character not in "\t\n"
        shown.append(f"\\u{ord(character):04x}" if hidden else character)
    return html.escape("".join(shown), quote=True)


@dataclass
class Names:
    """Ids of a page's elements, each given once."""

    given: dict[str, int] = field(default_factory=dict)

    def new(self, name: str) -> str:
        """An id that begins with ``name``."""
        self.given[name] = self.given.get(name, 0) + 1
        return name if self.given[name] == 1 else f"{name}-{self.given[name]}"


Cell = object


def table(
    caption: str, head: Sequence[str], rows: Iterable[Sequence[Cell]], *, numbers: bool = True, shown: bool = False
) -> str:
    """A table whose first column names its rows.

    Parameters
    ----------
    caption : str
    head : sequence of str
    rows : iterable of sequences
        Cells are escaped, but for :class:`Raw`.
    numbers : bool
        All columns but the first are set to the right.
    shown : bool
        The caption can be seen; else it is for those who hear the page.
    """
    kind = ' class="n"' if numbers else ""
    lines = [
        f'<div class="scroll"><table{kind}><caption{"" if shown else " class=unseen"}>{escaped(caption)}</caption>',
        f"<thead><tr>{''.join(f'<th scope=col>{escaped(name)}</th>' for name in head)}</tr></thead><tbody>",
    ]
    for first, *others in rows:
        cells = "".join(f"<td>{_cell(cell)}</td>" for cell in others)
        lines.append(f"<tr><th scope=row>{_cell(first)}</th>{cells}</tr>")
    lines.append("</tbody></table></div>")
    return "\n".join(lines)


class Raw(str):
    """Text that is markup already."""


def _cell(cell: Cell) -> str:
    return cell if isinstance(cell, Raw) else escaped(cell)


def details(summary: str, content: str, *, opened: bool = False, kind: str = "") -> str:
    """What is folded away until it is asked for."""
    marks = f"{' open' if opened else ''}{f' class={kind}' if kind else ''}"
    return f"<details{marks}><summary>{summary}</summary>\n{content}\n</details>"


def figure(heading: str, picture: str, legend: str, note: str, alternative: str, *, kind: str = "") -> str:
    """A picture with its heading, its legend, what there is to say of it, and its numbers in a table."""
    said = f'<p class="note">{note}</p>' if note else ""
    folded = details("Numbers", alternative) if alternative else ""
    return (
        f'<figure class="card {kind}"><figcaption>{escaped(heading)}</figcaption>\n{legend}{picture}\n{said}{folded}'
        "</figure>"
    )


def legend(entries: Sequence[tuple[str, str]]) -> str:
    """Names of series beside their colours: (class, name)."""
    keys = "".join(f'<span class="key"><i class="{kind}"></i>{escaped(name)}</span>' for kind, name in entries)
    return f'<p class="legend">{keys}</p>'


def number(value: float) -> str:
    """Four significant digits at most, thousands set apart.

    Examples
    --------
    >>> number(12345.6), number(0.0123456), number(3), number(1.5e-9), number(2.0)
    ('12,346', '0.01235', '3', '1.5e-09', '2')
    """
    if not math.isfinite(value):
        return "–"
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    if abs(value) >= 1000:
        return f"{value:,.0f}" if abs(value) < 1e9 else f"{value:.4g}"
    return f"{value:.4g}"


# No line breaks between a number and its sign.
_SPACE = "\u00a0"


def percent(share: float) -> str:
    """A share of 1.

    Examples
    --------
    >>> [percent(share).replace("\\u00a0", " ") for share in (1.0, 0.1234, 0.00012, 0.0, 0.99996)]
    ['100 %', '12.3 %', '0.012 %', '0 %', '>99.9 %']
    """
    value = 100 * share
    if value in (0.0, 100.0):
        text = f"{value:.0f}"
    elif 99.9 < value < 100:
        text = ">99.9"
    elif value > 100:
        text = f"{value:,.0f}"
    else:
        text = f"{value:.1f}" if value >= 1 else f"{value:.2g}"
    return f"{text}{_SPACE}%"


def with_spread(mean: float, spread: float, *, percent: bool = False) -> str:
    """A mean and its standard deviation, with two digits of the latter.

    Examples
    --------
    >>> pairs = ((418.03, 8.34, False), (0.6604, 0.00753, False), (0.527, 0.0098, True))
    >>> [with_spread(mean, spread, percent=share).replace("\\u00a0", " ") for mean, spread, share in pairs]
    ['418.0 ± 8.3', '0.6604 ± 0.0075', '52.70 ± 0.98 %']
    """
    if percent:
        return f"{with_spread(100 * mean, 100 * spread)}{_SPACE}%"
    digits = min(max(1 - math.floor(math.log10(spread)), 0), 8) if spread > 0 else 3
    return f"{mean:,.{digits}f} ±{_SPACE}{spread:,.{digits}f}"


def seconds(value: float) -> str:
    """A time for people.

    Examples
    --------
    >>> seconds(0.1234), seconds(12.34), seconds(125), seconds(7300)
    ('0.12 s', '12.3 s', '2 min 05 s', '2 h 01 min')
    """
    if value < 10:
        return f"{value:.2f} s"
    if value < 60:
        return f"{value:.1f} s"
    whole = round(value)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def counted(count: int, word: str) -> str:
    """``1 row``, ``2 rows``."""
    return f"{count:,} {word}" if count == 1 else f"{count:,} {word}s"
