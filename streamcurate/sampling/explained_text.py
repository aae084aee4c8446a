"""The explanation of a draw as text for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from streamcurate.sampling.explain import Explanation

# Children shown at either end of a table.
_ENDS = 5


def text(explanation: Explanation) -> str:
    """All that people need to follow a branch, without what is usual."""
    return "\n".join(_lines(explanation))


def _lines(explanation: Explanation) -> Iterator[str]:
    yield from _draw(explanation.draw)
    for step in explanation.branch:
        yield from _family(step)
    if explanation.table is not None:
        yield from _table(explanation.table)
    if explanation.leaf is not None:
        yield from _leaf(explanation.leaf)
    if explanation.row is not None:
        yield _row(explanation.row)


def _draw(draw: Mapping[str, Any]) -> Iterator[str]:
    options = dict(draw["allocation"])
    said = ", ".join([options.pop("allocation"), *(f"{name} {value}" for name, value in options.items())])
    among = "" if draw["eligible"] is None else f" ({draw['eligible']:,} eligible)"
    yield (
        f"{draw['run']}: {draw['size']:,} of at most {draw['capacity']:,} rows{among}; {said}; {draw['strategy']}, "
        f"multiplier {draw['multiplier']}, seed {draw['seed']}"
    )
    for taken in draw["taken"]:
        yield f"  {taken['option']} takes {taken['rows']:,} rows away"
    if draw["earlier"]:
        yield f"  {draw['earlier']:,} of them are kept from the earlier draw"


def _family(step: Mapping[str, Any]) -> Iterator[str]:
    parent, level = step["parent"], step["level"]
    who = "the root" if parent is None else f"cluster {parent['cluster']} of level {parent['level']}"
    yield f"{who} gives {step['quota']:,}, from {_count(step['children'], 'cluster')} of level {level}"
    water = f"at c = {_number(step['water'])}: from each"
    if step["weighted"]:  # c is the last level before the next step, which is the number that is shown
        water = f"just below c = {_number(step['water'])}: ⌊c · weight⌋ from each"
    counts = [
        f"{step[name]:,} {one if step[name] == 1 else many}"
        for name, one, many in (
            ("empty", "empty", "empty"),
            ("nothing", "made to give nothing", "made to give nothing"),
            ("full", "gives all it can", "give all they can"),
            ("capped", "at its cap", "at their cap"),
            ("raised", "raised to its least", "raised to their least"),
        )
        if step[name]
    ]
    yield f"  water {water}" + (f"; {', '.join(counts)}" if counts else "")
    if step["remainder"]:
        over = f"{step['remainder']:,} left over"
        yield f"  {over}: one more each, by the seed, for as many of {_count(step['takers'], 'child', 'children')}"
    outliers = step.get("outliers")
    if outliers is not None and outliers["children"]:
        held = ""
        if outliers["held_down"]:
            over = (
                f", and {outliers['remainder']:,} of {outliers['takers']:,} one more" if outliers["remainder"] else ""
            )
            held = f": held down to {outliers['quota']:,} (c = {_number(outliers['water'])}{over})"
        count = _count(outliers["children"], "outlier")
        yield f"  {count} would give {outliers['free']:,}; their share is {outliers['most']:,}{held}"
    child = step.get("child")
    if child is None:
        return
    marks = [f"{child['rows']:,} rows"]
    if step["weighted"]:
        marks.append(f"weight {child['weight']:.6g}")
    marks.append(f"can give {child['capacity']:,} ({child['capacity_from']})")
    if child["least"]:
        marks.append(f"must give {child['least']:,} ({child['least_from']})")
    if child["outlier"]:
        marks.append("an outlier")
    more = f" ({child['quota'] - 1:,} and one more)" if child["one_more"] else ""
    yield f"  → cluster {child['cluster']}: {', '.join(marks)}: gives {child['quota']:,}{more}"


def _table(table: Mapping[str, Any]) -> Iterator[str]:
    children, count = table["children"], table["count"]
    yield f"  {'cluster':>12}  {'rows':>14}  {'can give':>14}  {'gives':>14}"
    shown = len(children) if len(children) <= 2 * _ENDS + 1 else _ENDS
    for child in children[:shown]:
        yield _table_line(child)
    if shown < len(children):
        last = children[-_ENDS:] if len(children) == count else []
        yield f"  {'...':>12}  ({count - shown - len(last):,} more)"
        for child in last:
            yield _table_line(child)


def _table_line(child: Mapping[str, Any]) -> str:
    return f"  {child['cluster']:>12}  {child['rows']:>14,}  {child['capacity']:>14,}  {child['quota']:>14,}"


def _leaf(leaf: Mapping[str, Any]) -> Iterator[str]:
    yield f"cluster {leaf['cluster']} of level 1 gives {leaf['quota']:,}, from {_count(leaf['rows'], 'row')}"
    if leaf["earlier"]:
        yield f"  {leaf['earlier']:,} of them are kept from the earlier draw"
    times = "no row before the remainder" if not leaf["base"] else f"each row {_times(leaf['base'])}"
    if not leaf["once_more"]:
        yield f"  {times}, and nothing is left over"
        return
    how = {
        "random": f"by the seed (a chance of {100 * leaf['chance']:.3g} %)",
        "closest": "those closest to the centroid",
        "furthest": "those furthest from the centroid",
    }[leaf["strategy"]]
    yield f"  {times}; {leaf['once_more']:,} of {leaf['candidates']:,} once more: {how}"


def _row(row: Mapping[str, Any]) -> str:
    name = f"row {row['row']}" if row["id"] is None else f"row {row['row']} ({row['id']})"
    place = "is not eligible" if row["rank"] is None else f"is number {row['rank']:,} by distance from the centroid"
    drawn = f"drawn {_times(row['copies'])}" if row["copies"] else "not drawn"
    return f"  {name} {place}: {drawn}"


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count:,} times"


def _count(count: int, word: str, words: str | None = None) -> str:
    return f"{count:,} {word}" if count == 1 else f"{count:,} {words or word + 's'}"


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.6g}"
