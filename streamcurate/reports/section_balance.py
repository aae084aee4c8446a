"""Sections about balance: measures against a random draw, and cluster sizes level by level."""

from __future__ import annotations

import math
from collections.abc import Callable

from streamcurate.reports.charts import Axis, Mark, Series, chart, linear_axis, stairs, strips
from streamcurate.reports.findings import Findings, LevelFindings
from streamcurate.reports.markup import (
    Names,
    counted,
    details,
    escaped,
    figure,
    legend,
    number,
    percent,
    table,
    with_spread,
)
from streamcurate.reports.measures import Balance

THREE = legend((("pool", "pool"), ("random", "at random"), ("draw", "draw")))
_MARKS = legend((("round", "pool"), ("diamond", "at random"), ("draw", "draw")))

# What is measured: name, field, how it is written.
_MEASURES: tuple[tuple[str, str, Callable[[float], str]], ...] = (
    ("effective number of clusters", "effective", lambda value: number(round(value, 1))),
    ("entropy (nats)", "entropy", lambda value: f"{value:.3f}"),
    ("KL to even shares (nats)", "divergence", lambda value: f"{value:.3f}"),
    ("Gini coefficient", "gini", lambda value: f"{value:.3f}"),
    ("largest cluster", "largest", percent),
    ("clusters reached", "reached", percent),
    ("rows from clusters of one row", "singletons", percent),
)

_DEFINITIONS = """<p>With <i>p</i> the shares of the rows that lie in each cluster, over the <i>k</i> clusters that hold
any row of the tree, copies counted:</p>
<ul>
<li><b>entropy</b> is H = −Σ p ln p; <b>KL to even shares</b> is ln k − H, 0 where all clusters have the same share;
the <b>effective number of clusters</b> is exp H: so many clusters of equal size would be as even;</li>
<li>the <b>Gini coefficient</b> is half the mean difference of two clusters over their mean: 0 where all are equal,
nearly 1 where one has everything;</li>
<li><b>largest cluster</b> is its share of the rows; <b>clusters reached</b> is the share of the clusters with at least
one row; <b>rows from clusters of one row</b> is the share of the rows that are alone in their cluster in the
tree.</li>
</ul>
<p>A draw at random takes every row of the tree with the same chance, as many as the draw; ± is the standard deviation
over several.</p>"""


def balance_section(names: Names, found: Findings) -> str:
    """Measures of the lowest and the top level."""
    shown = [found.levels[0]] if len(found.levels) == 1 else [found.levels[-1], found.levels[0]]
    figures = "".join(_glance(names, level, found) for level in shown)
    tables = "".join(
        f'<div class="card">{_measures(level, found, level_name(level, found))}</div>\n' for level in shown
    )
    sentences = "".join(f"<p>{escaped(_verdict(level, found))}</p>" for level in shown)
    return (
        f"{sentences}\n"
        f'<div class="pair">{figures}</div>\n<div class="pair">{tables}</div>\n'
        f"{details('What the measures mean', _DEFINITIONS)}"
    )


def level_name(level: LevelFindings, found: Findings) -> str:
    """``level 2, the top``."""
    if len(found.levels) == 1:
        return "level 1"
    return f"level {level.level}" + (", the top" if level.level == len(found.levels) else "")


def _verdict(level: LevelFindings, found: Findings) -> str:
    """What the effective number of clusters says, against what chance alone gives."""
    random, spread = level.random_figure("effective")
    ours = level.draw.effective
    name = f"{level_name(level, found)[:1].upper()}{level_name(level, found)[1:]}:"
    counts = (
        f"{number(round(ours, 1))} effective clusters of {level.pool.clusters:,}, {number(round(random, 1))} at random"
    )
    if abs(ours - random) <= max(3 * spread, 0.005 * random):
        return f"{name} the draw is about as even as one at random ({counts})."
    return f"{name} the draw is {'more' if ours > random else 'less'} even than one at random ({counts})."


def _glance(names: Names, level: LevelFindings, found: Findings) -> str:
    def line(name: str, of: Callable[[Balance], float]) -> tuple[str, str, list[Mark]]:
        values = (of(level.pool), of(level.random[0]), of(level.draw))
        marks = [Mark(kind, value) for kind, value in zip(("pool", "random", "draw"), values, strict=True)]
        return name, f"draw {percent(values[2])}", marks

    lines = [
        line("effective clusters, of all", lambda each: each.effective / each.clusters),
        line("entropy, of its maximum", _evenness),
        line("evenness, 1 − Gini", lambda each: 1 - each.gini),
        line("clusters reached", lambda each: each.reached),
        line("largest cluster", lambda each: each.largest),
    ]
    picture = strips(
        names,
        f"Balance over {level_name(level, found)}",
        "Five measures from 0 to 100 %, each for the pool, a draw at random and the draw; the table holds the numbers.",
        lines,
    )
    heading = f"{level_name(level, found)}: {counted(level.pool.clusters, 'cluster')} with rows"
    return figure(heading[:1].upper() + heading[1:], picture, _MARKS, "", "")


def _evenness(each: Balance) -> float:
    return each.entropy / math.log(each.clusters) if each.clusters > 1 else 1.0


def _measures(level: LevelFindings, found: Findings, name: str) -> str:
    rows = []
    for label, field, shown in _MEASURES:
        mean, spread = level.random_figure(field)
        around = with_spread(mean, spread, percent=shown is percent) if spread else shown(mean)
        rows.append([label, shown(getattr(level.pool, field)), around, shown(getattr(level.draw, field))])
    return table(name[:1].upper() + name[1:], ["measure", "pool", "at random", "draw"], rows, shown=True)


def sizes_section(names: Names, found: Findings) -> str:
    """For every level, the distribution of rows over its clusters."""
    parts = [
        "<p>Left, how many clusters hold how many rows, as multiples of an even share: a perfectly even draw would be "
        "one bar at 1. Right, the Lorenz curve: which share of the rows the smallest clusters hold together; the "
        "closer to the diagonal, the more even.</p>"
    ]
    for level in reversed(found.levels):
        badge = ' <span class="badge">degenerate</span>' if level.degenerate else ""
        name = level_name(level, found)
        parts.append(f"<h3>{name[:1].upper()}{name[1:]}{badge}</h3>\n<p>{escaped(_said(level))}</p>")
        parts += [f'<p class="note">{escaped(text[:1].upper() + text[1:])}.</p>' for text in level.warnings]
        parts.append(f'<div class="pair">{_histogram(names, level)}{_lorenz(names, level)}</div>')
    return "\n".join(parts)


def _said(level: LevelFindings) -> str:
    empty = f", {level.empty:,} of them empty" if level.empty else ""
    single = f"; {counted(level.singletons, 'cluster')} of a single row" if level.singletons else ""
    return (
        f"{counted(level.clusters, 'cluster')}{empty}; rows under a cluster: {number(level.smallest)} to "
        f"{number(level.largest)}, median {number(level.median)}{single}."
    )


def _histogram(names: Names, level: LevelFindings) -> str:
    edges = level.histograms[0].edges
    places = [math.log2(edge) for edge in edges.tolist()]
    none = [each.none for each in level.histograms]
    gap, wide = 0.75, 1.0
    low = places[0]
    left = low - gap - wide if any(none) else low
    across = Axis(
        "rows of a cluster, in even shares", left, places[-1], _ticks(places, left if any(none) else None, wide)
    )
    highest = max(max(float(each.shares.max()), each.none) for each in level.histograms)
    up = linear_axis("% of the clusters", 0, 1.06 * highest, percent=True)
    series = []
    for kind, each in zip(("pool", "random", "draw"), level.histograms, strict=True):
        series.append(Series(kind, stairs(places, each.shares.tolist()), filled=kind == "pool"))
        if each.none:
            series.append(Series(kind, stairs([left, left + wide], [each.none]), filled=kind == "pool"))
    title = f"Clusters of level {level.level} by their rows"
    picture = chart(names, title, "Histograms for the pool, a draw at random and the draw.", across, up, series)
    rows = []
    if any(none):
        rows.append(["no row", *(percent(value) for value in none)])
    for index in range(len(edges) - 1):
        shares = [float(each.shares[index]) for each in level.histograms]
        if any(shares):
            rows.append(
                [f"{number(edges[index])} to {number(edges[index + 1])}", *(percent(share) for share in shares)]
            )
    numbers = table(title, ["in even shares", "pool", "at random", "draw"], rows)
    return figure("Cluster sizes", picture, THREE, "", numbers)


def _ticks(places: list[float], none: float | None, wide: float) -> list[tuple[float, str]]:
    first, last = math.ceil(places[0]), math.floor(places[-1])
    step = max(1, -(-(last - first) // 6))
    # Multiples of the step, so that 1 is always among them.
    values = [value for value in range(first, last + 1) if value % step == 0]
    ticks = [(float(value), f"{2**value:,}" if value >= 0 else f"1/{2**-value:,}") for value in values]
    if none is None:
        return ticks
    middle = none + wide / 2
    # Both labels are to be read.
    free = middle + 0.16 * (places[-1] - none)
    return [(middle, "none"), *(tick for tick in ticks if tick[0] >= free)]


def _lorenz(names: Names, level: LevelFindings) -> str:
    share = [index / (len(level.lorenz[0]) - 1) for index in range(len(level.lorenz[0]))]
    axis = linear_axis("% of the clusters, smallest first", 0, 1, percent=True)
    series = [Series("even", [(0, 0), (1, 1)])]
    series += [
        Series(kind, list(zip(share, values.tolist(), strict=True)))
        for kind, values in zip(("pool", "random", "draw"), level.lorenz, strict=True)
    ]
    title = f"Lorenz curves of level {level.level}"
    up = linear_axis("% of the rows", 0, 1, percent=True)
    picture = chart(names, title, "One curve each for the pool, a draw at random and the draw.", axis, up, series)
    rows = [
        [percent(share[index]), *(percent(float(values[index])) for values in level.lorenz)]
        for index in range(10, len(share) - 1, 10)
    ]
    numbers = table(title, ["smallest clusters", "pool", "at random", "draw"], rows)
    four = legend((("pool", "pool"), ("random", "at random"), ("draw", "draw"), ("even", "even")))
    return figure("Lorenz curve", picture, four, "", numbers)
