"""Sections about single rows: distances to the nearest drawn row, and maps."""

from __future__ import annotations

import numpy as np

from streamcurate.reports.charts import Series, chart, linear_axis
from streamcurate.reports.coverage import Coverage
from streamcurate.reports.findings import Findings, MapFindings
from streamcurate.reports.hexagons import SHADES, hexagon_map, shades
from streamcurate.reports.markup import Names, counted, escaped, figure, legend, number, percent, table, with_spread

_TWO = legend((("random", "at random"), ("draw", "draw")))
_CURVE, _SHOWN = 121, 0.99


def coverage_section(names: Names, found: Findings) -> str:
    """Distances from rows of the pool to the nearest drawn row."""
    ours = found.coverage
    if ours is None:
        return f"<p>Not measured: {escaped(found.without_store or '')}.</p>"
    metric = "1 − cos" if found.tree.metric == "cosine" else "Euclidean distance"
    all_rows = found.pool_measured == found.rows
    which = (
        f"all {found.rows:,} rows of the pool"
        if all_rows
        else (f"{found.pool_measured:,} of the {found.rows:,} rows of the pool, drawn with the same chance each")
    )
    among = (
        f"all {counted(ours.drawn, 'drawn row')}"
        if ours.looked_at == ours.drawn
        else (
            f"{ours.looked_at:,} of the {ours.drawn:,} drawn rows, so that each distance is an upper bound, for both "
            "draws alike"
        )
    )
    others = found.random_coverage
    note = f"Measured for {which}; the nearest was sought among {among}. A row that is drawn lies at 0. " + (
        f"At random: mean of {len(others)} draws." if len(others) > 1 else "At random: one draw."
    )
    rows = []
    for name, label in (("mean", "mean"), ("median", "median"), ("p95", "95 %"), ("max", "largest")):
        values = [each.figures[name] for each in others]
        mean, spread = float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
        rows.append([label, with_spread(mean, spread) if spread else number(mean), number(ours.figures[name])])
    numbers = table(f"{metric} to the nearest drawn row", [metric, "at random", "draw"], rows, shown=True)
    return (
        f"<p>{escaped(_verdict(ours, others[0]))}</p>\n"
        f'<div class="pair">{_curves(names, ours, others[0], metric)}<div class="card">{numbers}'
        f'<p class="note">{escaped(note)}</p></div></div>'
    )


def _verdict(ours: Coverage, random: Coverage) -> str:
    def word(name: str) -> str:
        one, other = ours.figures[name], random.figures[name]
        if not other and one:
            return "farther"
        if abs(one - other) <= 0.005 * max(one, other):
            return "as far"
        change = f"{100 * abs(one / other - 1):.0f} %"
        return f"{change} {'nearer' if one < other else 'farther'}"

    return (
        f"Against a draw at random, the nearest drawn row is {word('median')} for the middle row of the pool, "
        f"{word('p95')} for the row that 95 % lie below, and {word('max')} for the farthest. A balanced draw takes "
        "from where rows are many and gives to where they are few."
    )


def _curves(names: Names, ours: Coverage, random: Coverage, metric: str) -> str:
    both = [each.distances.astype(np.float64) for each in (random, ours)]
    # The tails are long: they are left to the numbers.
    high = 1.1 * float(max(np.quantile(values, _SHOWN) for values in both)) or 1.0
    across = linear_axis(f"{metric} to the nearest drawn row", 0, high)
    up = linear_axis("% of the pool", 0, 1, percent=True)
    places = np.linspace(0, high, _CURVE)
    series = [
        Series(kind, list(zip(places.tolist(), np.searchsorted(values, places, "right") / len(values), strict=True)))
        for kind, values in zip(("random", "draw"), both, strict=True)
    ]
    title = "Share of the pool within a distance of the nearest drawn row"
    picture = chart(names, title, "Rising curves for a draw at random and the draw.", across, up, series)
    rows = [
        [percent(share), *(number(float(np.quantile(values, share))) for values in both)]
        for share in (0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999, 1.0)
    ]
    numbers = table(title, ["of the pool", "at random", "draw"], rows)
    return figure("Share of the pool within a distance", picture, _TWO, "", numbers)


def map_section(names: Names, found: Findings) -> str:
    """Maps of the pool, a random draw, and the draw."""
    across = found.map
    if across is None:
        return f"<p>Not drawn: {escaped(found.without_store or '')}.</p>"
    first, second = across.axes.explained
    directions = ", of their directions from the origin" if found.tree.metric == "cosine" else ""
    lead = (
        f"<p>The two principal axes of {across.sampled:,} rows of the pool{directions}: the first explains "
        f"{percent(first)} of their variance, the second {percent(second)}."
        + (" What is far apart may lie close together here." if first + second < 0.5 else "")
        + " A shade is the share of a map's rows in a hexagon, on the same scale for all three.</p>"
    )
    edges = shades(across.shares)
    heads = ("Pool", "At random", "Draw")
    maps = "".join(_map(names, across, index, heads[index], edges) for index in range(3))
    scale = "".join(f'<i class="q{shade + 1}"></i>' for shade in range(SHADES))
    highest = max(float(shares.max()) for shares in across.shares)
    return (
        f'{lead}\n<p class="shades"><span>{percent(edges[0])}</span><span aria-hidden="true">{scale}</span>'
        f"<span>{percent(highest)} of the rows in a hexagon (logarithmic)</span></p>\n"
        f'<div class="trio">{maps}</div>'
    )


def _map(names: Names, across: MapFindings, index: int, head: str, edges: list[float]) -> str:
    shares = across.shares[index]
    filled = shares[shares > 0]
    title = f"{head}: density along two principal axes"
    description = f"{len(filled):,} hexagons hold rows; the fullest holds {percent(float(shares.max()))} of them."
    picture = hexagon_map(names, title, description, across.frame, shares, edges)
    outside = f"; {percent(across.outside[index])} outside the frame" if across.outside[index] else ""
    sample = "a sample of " if across.rows[index] < across.of[index] else ""
    note = f"{sample}{counted(across.rows[index], 'row')}{outside}."
    note = note[:1].upper() + note[1:]
    ordered = np.sort(filled)[::-1]
    # How many of the fullest hexagons hold a share of the rows.
    within = np.cumsum(ordered)
    rows = [
        [
            f"{share:.0%} of the rows in the frame",
            f"{int(np.searchsorted(within, share * within[-1] * (1 - 1e-12))) + 1:,}",
        ]
        for share in (0.1, 0.25, 0.5, 0.75, 0.9, 1.0)
    ]
    numbers = table(title, ["are in the fullest", "hexagons"], rows) if len(filled) else ""
    return figure(head, picture, "", escaped(note), numbers)
