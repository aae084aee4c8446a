"""The explanation of a draw as text for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from streamcurate.sampling.words import allocation_words, counted

if TYPE_CHECKING:
    from streamcurate.sampling.explain import Explanation

# Children shown at either end of a table.
_ENDS = 5
_LEGEND = (
    "How to read it: a cluster shares what it gives evenly among those under it (by their weights, if they have any);",
    "where one can give less than that, the others give the rest; what is left over then is one row each for some.",
)


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
        yield _row(explanation.row, explanation.leaf)
    yield from _LEGEND


def _draw(draw: Mapping[str, Any]) -> Iterator[str]:
    said = "; ".join(allocation_words(draw["allocation"]))
    among = "" if draw["eligible"] is None else f" ({draw['eligible']:,} eligible)"
    most = counted(draw["capacity"], "row")
    yield (
        f"{draw['run']}: {draw['size']:,} of at most {most}{among}; {said}; {draw['strategy']}, "
        f"multiplier {draw['multiplier']}, seed {draw['seed']}"
    )
    for taken in draw["taken"]:
        if taken["rows"]:
            yield f"  {counted(taken['rows'], 'row')} fewer can be drawn because of {taken['option']}"
    if draw["earlier"]:
        yield f"  {draw['earlier']:,} of them {_be(draw['earlier'])} kept from the earlier draw"


def _family(step: Mapping[str, Any]) -> Iterator[str]:
    parent, level = step["parent"], step["level"]
    who = "the root" if parent is None else f"cluster {parent['cluster']} of level {parent['level']}"
    yield f"{who} gives {counted(step['quota'], 'row')}, from {counted(step['children'], 'cluster')} of level {level}"
    outliers = step.get("outliers")
    held = outliers is not None and outliers["held_down"]
    full = f" ({step['full']:,} {'does' if step['full'] == 1 else 'do'})" if step["full"] else ""
    others = [
        f"{step[name]:,} {one if step[name] == 1 else many}"
        for name, one, many in (
            ("capped", "stops at its cap", "stop at their cap"),
            ("raised", "must give more", "must give more"),
            ("nothing", "is made to give nothing", "are made to give nothing"),
            ("empty", "is empty", "are empty"),
        )
        if step[name]
    ]
    aside = " (outliers apart)" if held else ""
    yield "; ".join([f"  {_filled('each cluster', step)}{full}{aside}", *others])
    if step["remainder"]:
        yield f"  {_left_over(step)} clusters, chosen by the seed"
    if outliers is not None and outliers["children"]:
        count = counted(outliers["children"], "outlier")
        if not held:
            yield f"  {count}: together {counted(outliers['quota'], 'row')}, of the {outliers['most']:,} they may give"
        else:
            more = f"; {_left_over(outliers)}" if outliers["remainder"] else ""
            yield (
                f"  {count} would give {outliers['free']:,} together and may give {outliers['most']:,}; held down to "
                f"{outliers['quota']:,}: {_filled('each', {**step, **outliers})}{more}"
            )
    child = step.get("child")
    if child is None:
        return
    marks = [counted(child["rows"], "row")]
    if step["weighted"]:
        marks.append(f"weight {child['weight']:.6g}")
    marks.append(f"can give {child['capacity']:,} ({child['capacity_from']})")
    if child["least"]:
        marks.append(f"must give {child['least']:,} ({child['least_from']})")
    if child["outlier"]:
        marks.append("an outlier")
    more = f" ({child['quota'] - 1:,} and one left over)" if child["one_more"] else ""
    yield f"  → cluster {child['cluster']}: {', '.join(marks)}: gives {child['quota']:,}{more}"


def _left_over(filled: Mapping[str, Any]) -> str:
    return (
        f"{counted(filled['remainder'], 'row')} left over: one each to {filled['remainder']:,} of {filled['takers']:,}"
    )


def _filled(who: str, filled: Mapping[str, Any]) -> str:
    water = filled["water"]
    if filled["weighted"]:  # the level is the last before the next step, which is the number that is shown
        return f"{who} gives just below {_number(water)} x its weight, rounded down, or all it can"
    return f"{who} gives {counted(water, 'row')}{', or all it can' if water else ''}"


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
    rows = counted(leaf["rows"], "row")
    yield f"cluster {leaf['cluster']} of level 1 gives {counted(leaf['quota'], 'row')}, from {rows}"
    if leaf["earlier"]:
        yield f"  {leaf['earlier']:,} of them {_be(leaf['earlier'])} kept from the earlier draw"
    each = f"each row {_times(leaf['base'])}" if leaf["base"] else ""
    if not leaf["once_more"]:
        none = f"no {'other ' if leaf['earlier'] else ''}row is drawn"
        yield f"  {f'{each}, and nothing is left over' if each else none}"
        return
    how = {
        "random": f"chosen by the seed, each with a chance of {100 * leaf['chance']:.3g} %",
        "closest": "those closest to the centroid",
        "furthest": "those furthest from the centroid",
    }[leaf["strategy"]]
    some, among = f"{leaf['once_more']:,} of", counted(leaf["candidates"], "row")
    if each:
        yield f"  {each}, {some} {among} once more: {how}"
    else:
        yield f"  {some} {'the other ' if leaf['earlier'] else ''}{among}: {how}"


def _row(row: Mapping[str, Any], leaf: Mapping[str, Any] | None) -> str:
    name = f"row {row['row']}" if row["id"] is None else f"row {row['row']} ({row['id']})"
    place = "is not eligible" if row["rank"] is None else f"is number {row['rank']:,} by distance from the centroid"
    chosen = leaf is not None and leaf["strategy"] == "random" and leaf["once_more"]
    drawn = f"drawn {_times(row['copies'])}" if row["copies"] else "not drawn"
    return f"  {name} {place}: {'with this seed it is ' if chosen else ''}{drawn}"


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count:,} times"


def _be(count: int) -> str:
    return "is" if count == 1 else "are"


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.6g}"
