"""Sections about single clusters: quotas down a branch, and what lies in the top clusters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from streamcurate.reports.exemplars import Exemplar
from streamcurate.reports.findings import Findings
from streamcurate.reports.markup import Names, counted, details, escaped, number, percent, table

_PEEK = 90
# Clusters that are open from the beginning, unless there are pictures to see; and those that are listed.
_OPEN, _FIRST = 3, 12


def branch_section(names: Names, found: Findings) -> str:
    """What every cluster on a branch gives."""
    branch, draw = found.branch, found.draw
    rows: list[list[object]] = [["all", "", f"{found.rows:,}", f"{draw.size:,}", percent(draw.size / found.rows)]]
    for node in branch.nodes:
        share = percent(node.drawn / node.rows) if node.rows else "–"
        name = f"level {node.level}, cluster {node.cluster:,}"
        rows.append([name, f"{node.siblings:,}", f"{node.rows:,}", f"{node.drawn:,}", share])
    numbers = table("Clusters on the branch", ["cluster", "among", "rows", "gives", "of its rows"], rows)
    lead = f"<p>From the root {escaped(branch.chosen)}.</p>"
    if branch.steps is None:
        why = "<p>It is not known how this draw was made, so that only what was drawn is shown.</p>"
        return f'{lead}\n<div class="card">{numbers}</div>\n{why}'
    steps = "".join(f"<li>{_step(step)}</li>" for step in branch.steps)
    text = details(
        "The same in words, as <code>streamcurate explain</code> says it", f"<pre>{escaped(branch.text)}</pre>"
    )
    return f'{lead}\n<div class="card">{numbers}</div>\n<ol>{steps}</ol>\n{text}'


def _step(step: Mapping[str, Any]) -> str:
    parent = step["parent"]
    who = "The root" if parent is None else f"Cluster {parent['cluster']:,} of level {parent['level']}"
    water = number(step["water"])
    each = f"c = {water} times its weight" if step["weighted"] else f"up to {water}"
    said = f"{who} shares {step['quota']:,} among {counted(step['children'], 'cluster')}: {each} from each"
    if not step["water"] and step["remainder"]:
        said = f"{who} gives {step['quota']:,}, fewer than it has clusters: one each from {step['remainder']:,} of "
        said += f"{step['takers']:,}, chosen by the seed"
    elif step["remainder"]:
        said += f"; {step['remainder']:,} left over go one each to as many of {step['takers']:,}, chosen by the seed"
    if step["full"]:
        said += f"; {step['full']:,} of them hold no more than they give"
    child = step.get("child")
    if child is not None:
        said += f". Cluster {child['cluster']:,} can give {child['capacity']:,} and gives {child['quota']:,}"
    return escaped(f"{said}.")


def exemplars_section(names: Names, found: Findings) -> str:
    """Rows near the middle of top clusters."""
    shown = found.exemplars
    top = found.levels[-1].level
    sizes, drawn = found.top_sizes, found.draw.counts[-1]
    which = (
        f"all {counted(shown.of, 'cluster')} of level {top} that hold rows"
        if len(shown.clusters) == shown.of
        else f"{len(shown.clusters):,} of the {shown.of:,} clusters of level {top} that hold rows: the largest "
        f"{len(shown.clusters) // 2:,}, and others evenly spread over the order by size"
    )
    trouble = [] if shown.trouble is None else [f"Ids are not shown: {shown.trouble}."]
    if shown.missing_pictures:
        trouble.append(f"{counted(shown.missing_pictures, 'image')} could not be read, or made small enough.")
    parts = [
        f"<p>Shown are {which}, the largest first, each with rows near its centroid: down from the centroid to the "
        "nearest cluster of every level, by the stored distances.</p>",
        *(f'<p class="note">{escaped(text)}</p>' for text in trouble),
    ]
    clusters: list[str] = []
    opened = _FIRST if any(row.picture for rows in shown.rows for row in rows) else _OPEN
    for place, (cluster, rows) in enumerate(zip(shown.clusters, shown.rows, strict=True)):
        size, gives = int(sizes[cluster]), int(drawn[cluster])
        peek = " · ".join(_short(row) for row in rows[:3])
        summary = (
            f"<b>Cluster {cluster:,}</b><span>{counted(size, 'row')} ({percent(size / found.rows)}), gives {gives:,} "
            f'({percent(gives / found.draw.size)} of the draw)</span><span class="peek">{escaped(peek)}</span>'
        )
        items = "".join(_row(row) for row in rows)
        clusters.append(details(summary, f'<ul class="rows">{items}</ul>', opened=place < opened, kind="cluster"))
    parts += clusters[:_FIRST]
    if rest := clusters[_FIRST:]:
        parts.append(details(f"{counted(len(rest), 'cluster')} more", "\n".join(rest)))
    return "\n".join(parts)


def _short(row: Exemplar) -> str:
    texts = [text for _, text in row.texts if text]
    said = texts[0] if texts else row.id or f"row {row.row}"
    return said if len(said) <= _PEEK else said[: _PEEK - 1] + "…"


def _row(row: Exemplar) -> str:
    name = f"row {row.row:,}" if row.id is None else row.id
    picture = "" if row.picture is None else f'<img src="{row.picture}" alt="{escaped(name)}">'
    texts = "".join(f"<dt>{escaped(column)}</dt><dd>{escaped(text)}</dd>" for column, text in row.texts if text)
    drawn = ""
    if row.drawn:
        drawn = f', <span class="picked">drawn{f" {row.drawn:,} times" if row.drawn > 1 else ""}</span>'
    where = "" if row.id is None else f"row {row.row:,}, "
    said = f"<b>{escaped(name)}</b><span class=soft>{where}distance {number(row.distance)}{drawn}</span>"
    return f"<li>{picture}<div>{said}{f'<dl>{texts}</dl>' if texts else ''}</div></li>"
