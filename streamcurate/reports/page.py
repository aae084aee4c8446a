"""The page: sections in their order, one string, nothing from elsewhere."""

from __future__ import annotations

from importlib.resources import files

from streamcurate.reports.findings import Findings, LevelFindings
from streamcurate.reports.markup import Names, counted, escaped, number, percent
from streamcurate.reports.section_balance import balance_section, sizes_section
from streamcurate.reports.section_clusters import branch_section, exemplars_section
from streamcurate.reports.section_rows import coverage_section, map_section
from streamcurate.reports.section_run import convergence_section, run_section
from streamcurate.version import __version__

# (id, heading): the sections, in their order.
SECTIONS = (
    ("balance", "How even the draw is"),
    ("sizes", "Cluster sizes, level by level"),
    ("coverage", "How well the draw covers the pool"),
    ("map", "Where the rows lie"),
    ("branch", "Quotas down a branch"),
    ("clusters", "What is in the top clusters"),
    ("convergence", "How the fits converged"),
    ("run", "What ran"),
)


def page(found: Findings) -> bytes:
    """The whole page as UTF-8."""
    names = Names()
    contents = {
        "balance": balance_section(names, found),
        "sizes": sizes_section(names, found),
        "coverage": coverage_section(names, found),
        "map": map_section(names, found),
        "branch": branch_section(names, found),
        "clusters": exemplars_section(names, found),
        "convergence": convergence_section(names, found),
        "run": run_section(names, found),
    }
    links = "".join(f'<li><a href="#{name}">{escaped(heading)}</a></li>' for name, heading in SECTIONS)
    sections = "\n".join(
        f'<section aria-labelledby="{name}">\n<h2 id="{names.new(name)}">{escaped(heading)}</h2>\n{contents[name]}\n'
        "</section>"
        for name, heading in SECTIONS
    )
    style = (files("streamcurate") / "reports" / "style.css").read_text(encoding="utf-8")
    title = f"Report on {found.tree.path}"
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="generator" content="streamcurate {escaped(__version__)}">
<title>{escaped(title)}</title>
<style>
{style}</style>
</head>
<body>
<a class="skip" href="#main">Skip to the contents</a>
<header>
<h1>{escaped(title)}</h1>
{_lead(found)}
<nav aria-label="Sections"><ul>{links}</ul></nav>
</header>
<main id="{names.new("main")}">
{_warnings(names, found)}
{_tiles(found)}
{sections}
</main>
<footer>
<p>Written by streamcurate {escaped(__version__)} from the run itself. Everything on this page is in this one file.</p>
</footer>
</body>
</html>
""".encode()


def _lead(found: Findings) -> str:
    levels = ", ".join(f"{level.clusters:,}" for level in found.levels)
    share = percent(found.draw.size / found.rows)
    distinct = len(found.draw.rows)
    copies = "" if distinct == found.draw.size else f", {distinct:,} distinct"
    return (
        f'<p class="lead">{found.rows:,} rows in {counted(len(found.levels), "level")} of clusters ({levels}); '
        f"a draw of {counted(found.draw.size, 'row')} ({share}{copies}).</p>\n"
        f'<p class="soft">The draw: {escaped(found.draw.name)}. It is compared with the pool, which is all rows of the '
        f"tree, and with {counted(found.random_count, 'draw')} of the same size at random.</p>"
    )


def _warnings(names: Names, found: Findings) -> str:
    if not found.warnings:
        return ""
    items = "".join(f"<li>{escaped(_sentence(text))}</li>" for text in found.warnings)
    own = names.new("warnings")
    heading = "A warning" if len(found.warnings) == 1 else f"{len(found.warnings):,} warnings"
    return f'<section class="warnings" aria-labelledby="{own}"><h2 id="{own}">{heading}</h2><ul>{items}</ul></section>'


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _tiles(found: Findings) -> str:
    bottom, top = found.levels[0], found.levels[-1]
    tiles = [_effective(bottom)]
    if top is not bottom:
        tiles.append(_effective(top))
    least, _ = top.random_figure("largest")
    tiles.append(
        (
            percent(top.draw.largest),
            f"of the draw from the largest cluster of level {top.level}; {percent(least)} at random",
        )
    )
    if found.coverage is not None and found.random_coverage:
        ours, random = found.coverage.figures["p95"], found.random_coverage[0].figures["p95"]
        tiles.append(
            (number(ours), f"is the distance within which 95 % of the pool has a drawn row; {number(random)} at random")
        )
    items = "".join(
        f'<li class="card tile"><b>{escaped(value)}</b><span>{escaped(said)}</span></li>' for value, said in tiles
    )
    return f'<ul class="tiles" aria-label="At a glance">{items}</ul>'


def _effective(level: LevelFindings) -> tuple[str, str]:
    random, _ = level.random_figure("effective")
    return (
        number(round(level.draw.effective, 1 if level.draw.effective < 100 else 0)),
        f"effective clusters of level {level.level}, of {level.pool.clusters:,}; "
        f"{number(round(random, 1 if random < 100 else 0))} at random",
    )
