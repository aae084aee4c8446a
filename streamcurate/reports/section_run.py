"""Sections about the run: how its fits converged, how long it took, what it was asked to do."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any, TypeVar

from streamcurate.reports.charts import Axis, Series, chart, linear_axis
from streamcurate.reports.findings import Findings
from streamcurate.reports.history import FitHistory, LevelHistory
from streamcurate.reports.markup import (
    Names,
    Raw,
    counted,
    details,
    escaped,
    figure,
    legend,
    number,
    percent,
    seconds,
    table,
)
from streamcurate.streaming import format_bytes

T = TypeVar("T")

# Shades for resampling steps, from the first to the last.
_SHADES = 5
# Fits of a level that are shown, and passes of a fit that are drawn.
_MOST_FITS, _MOST_PASSES = 40, 150
# Of the shares of points that moved: one in a million.
_LEAST_DECADE = -6


def convergence_section(names: Names, found: Findings) -> str:
    """Inertia pass by pass, for every level and step."""
    history = found.history
    if history.trouble is not None:
        return f"<p>Not known: {escaped(history.trouble)}.</p>"
    told = [level for level in history.levels if level.fits]
    if not told:
        return "<p>The log tells of no fit: the levels were taken over from another run, or extended.</p>"
    lead = (
        "<p>Inertia, the sum of squared distances to the own centroid, at each Lloyd pass, in per cent of the fit's "
        "first pass. The first fit is over all points of the level, the resampling steps over those kept of each "
        "cluster, so that only the course of each can be compared, not its height. Below it the share of the points "
        "that changed their cluster since the pass before.</p>"
    )
    charts = "".join(_convergence(names, level) for level in told)
    silent = [str(level.level) for level in found.levels if level.level not in {each.level for each in told}]
    rest = f"<p>Of level {', '.join(silent)} the log tells nothing: taken over from another run.</p>" if silent else ""
    return f'{lead}\n<div class="pair">{charts}</div>\n{rest}'


def _convergence(names: Names, level: LevelHistory) -> str:
    fits = _thinned(level.fits, _MOST_FITS)
    last = max(len(fit.inertias) for fit in fits)
    series, low = [], 1.0
    for index, fit in enumerate(fits):
        begin = fit.inertias[0]
        shares = [inertia / begin if begin else 1.0 for inertia in fit.inertias]
        low = min(low, *shares)
        points = [(float(number), share) for number, share in enumerate(shares, start=1)]
        series.append(Series(_shade(index, fits), _thinned(points, _MOST_PASSES), dots=len(points) <= 12))
    series.reverse()  # the first fit on top
    across = linear_axis("Lloyd pass", 1, max(last, 2))
    across = type(across)(across.label, across.low, across.high, [t for t in across.ticks if float(t[0]).is_integer()])
    room = max(1 - low, 0.02)
    up = linear_axis("% of the first", max(low - 0.06 * room, 0), 1 + 0.02 * room, percent=True)
    title = f"Inertia of level {level.level}"
    picture = chart(names, title, "One falling line for each fit.", across, up, series) + _moved(
        names, level.level, fits, across
    )
    rows = [
        [
            "first fit" if not fit.step else f"step {fit.step}",
            fit.seeding or "–",
            str(len(fit.inertias)),
            number(fit.inertias[0]),
            number(fit.inertias[-1]),
            percent(fit.moved[-1]) if fit.moved and fit.moved[-1] is not None else "–",
            f"{fit.refilled:,}",
        ]
        for fit in fits
    ]
    note = f"Shown are {len(fits):,} of {len(level.fits):,} fits." if len(fits) < len(level.fits) else ""
    head = ["fit", "seeding", "passes", "inertia at first", "at last", "moved at last", "refilled"]
    return figure(f"Level {level.level}", picture, _legend(fits), note, table(title, head, rows))


def _moved(names: Names, level: int, fits: Sequence[FitHistory], across: Axis) -> str:
    """Shares of points that moved, on a logarithmic axis; nothing where the log does not tell them."""
    shares = [
        [(float(number), share) for number, share in enumerate(fit.moved, start=1) if share is not None] for fit in fits
    ]
    known = [share for own in shares for _, share in own if share > 0]
    if not known:
        return ""
    least, most = max(math.floor(math.log10(min(known))), _LEAST_DECADE), max(math.ceil(math.log10(max(known))), -1)
    decades = range(min(least, most - 1), most + 1)
    ticks = [(float(decade), number(10.0 ** (decade + 2))) for decade in decades]
    bottom = decades[0]
    if any(share == 0 for own in shares for _, share in own):
        bottom -= 1
        ticks.append((float(bottom), "0"))
    up = Axis("% that moved", bottom, most, ticks)
    series = [
        Series(
            _shade(index, fits),
            _thinned([(x, math.log10(max(share, 10.0**bottom))) for x, share in own], _MOST_PASSES),
            dots=len(own) <= 12,
        )
        for index, own in enumerate(shares)
    ]
    series.reverse()
    return chart(names, f"Points of level {level} that moved", "One line for each fit.", across, up, series)


def _thinned(items: Sequence[T], most: int) -> Sequence[T]:
    """Some of the items, evenly spread, the first and the last among them."""
    if len(items) <= most:
        return items
    return [items[at * (len(items) - 1) // (most - 1)] for at in range(most)]


def _shade(index: int, fits: Sequence[FitHistory]) -> str:
    if not fits[index].step:
        return "s0"
    return f"s{1 + (fits[index].step - 1) * _SHADES // max(fits[-1].step, 1)}"


def _legend(fits: Sequence[FitHistory]) -> str:
    entries = [("s0", "first fit")] if not fits[0].step else []
    steps = [fit.step for fit in fits if fit.step]
    if steps:
        entries.append((_shade(len(fits) - len(steps), fits), f"step {steps[0]}"))
        if len(steps) > 1:
            entries.append((_shade(len(fits) - 1, fits), f"to step {steps[-1]}"))
    return legend(entries)


def run_section(names: Names, found: Findings) -> str:
    """Store, configuration, versions, times."""
    manifest, history = found.tree.manifest, found.history
    facts: list[tuple[str, object]] = [("run", found.tree.path), ("digest", manifest.digest or "–")]
    for number_, store in enumerate(manifest.stores, start=1):
        label = "store" if len(manifest.stores) == 1 else f"store {number_}"
        facts.append(
            (
                label,
                f"{store.path or 'an array in memory'}: {store.rows:,} rows of {store.dims:,} dims, {store.dtype}",
            )
        )
        facts.append((f"{label}, fingerprint", store.fingerprint))
    if manifest.subset is not None:
        facts.append(("subset", f"{manifest.subset.path}: {counted(manifest.subset.rows, 'row')}"))
    facts += [("metric", manifest.metric), ("seed", str(manifest.seed))]
    if manifest.extension is not None:
        facts.append(("extends", f"{manifest.extension.run}, digest {manifest.extension.digest}"))
        if manifest.extension.novelty is not None:
            facts.append(("novelty", manifest.extension.novelty.told()))
    versions = ", ".join(f"{name} {version}" for name, version in manifest.versions.items())
    facts += [("made by", f"streamcurate {manifest.engine} ({versions})"), ("made at", manifest.created)]
    if history.trouble is None:
        stops = "" if not history.resumed else f", gone on with {counted(history.resumed, 'time')}"
        facts.append(("took", f"{seconds(history.seconds)} of work{stops}"))
        where = (
            f"{counted(history.tasks, 'task')} handed to workers"
            if history.tasks
            else "one process, as far as the log tells"
        )
        facts.append(("computed by", where))
    facts.append(("led from", "; ".join(history.machines) or "a machine that the log does not name"))
    rows = "".join(f"<tr><th scope=row>{escaped(name)}</th><td>{escaped(value)}</td></tr>" for name, value in facts)
    config = details(
        "Configuration, with all defaults",
        f"<pre>{escaped(json.dumps(dict(manifest.config), indent=2, default=str))}</pre>",
    )
    return (
        f'<div class="card scroll"><table class="facts"><caption class="unseen">The run</caption><tbody>{rows}</tbody>'
        f"</table></div>\n<h3>Levels</h3>\n{_levels(found)}\n{config}"
    )


def _levels(found: Findings) -> str:
    manifest, history = found.tree.manifest, found.history
    told = {level.level: level for level in history.levels}
    longest = max((level.seconds for level in told.values()), default=0.0) or 1.0
    rows: list[list[object]] = []
    for index, (record, asked) in enumerate(zip(manifest.levels, manifest.config["levels"], strict=False), start=1):
        known = told.get(index)
        width = 0.0 if known is None else 100 * known.seconds / longest
        bar = Raw(f'<span class="track"><span class="bar" style="width:{width:.0f}%"></span></span>')
        rows.append(
            [
                f"level {index}",
                f"{record.clusters:,}",
                f"{record.rows:,}",
                _asked(asked),
                record.seeding,
                number(record.inertia),
                "–" if known is None else seconds(known.seconds),
                "–" if known is None or not known.bytes else format_bytes(known.bytes),
                "" if known is None else bar,
            ]
        )
    head = ["level", "clusters", "points", "asked for", "seeding", "inertia", "took", "read", "time"]
    split = [
        f"level {level.level}: seeding {percent(level.seeding_seconds / level.seconds)}, Lloyd passes "
        f"{percent(level.lloyd_seconds / level.seconds)}"
        for level in told.values()
        if level.seconds > 0
    ]
    note = f"Of the time of {'; '.join(split)}; the rest is labels, sizes, and reading and writing."
    note = f'<p class="note">{escaped(note)}</p>'
    return f'<div class="card">{table("Levels of the run", head, rows)}{note if split else ""}</div>'


def _asked(level: Any) -> str:
    """What is not the default of a level, in words."""
    said = []
    if (again := level.get("resampling")) is not None:
        said.append(f"{counted(again['steps'], 'resampling step')} of {again['rows_per_cluster']} {again['strategy']}")
    if level.get("splits", 1) > 1:
        said.append(f"{level['splits']:,} splits")
    if level.get("algorithm", "lloyd") != "lloyd":
        said.append(str(level["algorithm"]))
    if level.get("fit_rows") is not None:
        said.append(f"fitted on {level['fit_rows']:,} rows")
    return ", ".join(said) or "–"
