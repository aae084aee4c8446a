"""Before and after, drawn. Matplotlib is imported here and nowhere else."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from streamcurate.demo.measures import shares

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from streamcurate.demo.curation import Curated

_DOTS_PER_INCH = 110
_BEFORE, _RANDOM, _AFTER = "#b0b7c3", "#d97706", "#2563eb"
_RINGS = ("#2563eb", "#dc2626", "#059669", "#d97706", "#7c3aed")
_SIDE = 8  # pixels of an image
_COLUMNS = 10  # images in a line


def draw_picture(curated: Curated) -> bytes:
    """The picture of a pool, as the content of a PNG file."""
    figure = make_figure(curated)
    FigureCanvasAgg(figure)
    content = io.BytesIO()
    # Nothing of the day or the library, so that the same demo writes the same file.
    figure.savefig(content, format="png", dpi=_DOTS_PER_INCH, metadata={"Software": None})
    return content.getvalue()


def make_figure(curated: Curated) -> Figure:
    """The picture of a pool before it is drawn."""
    return _rings(curated) if curated.pool.name == "rings" else _digits(curated)


def _rings(curated: Curated) -> Figure:
    pool = curated.pool
    figure = Figure(figsize=(10.5, 2.5), layout="constrained")
    panels = (
        (None, f"{len(pool.rows):,} points", curated.before, 0.6),
        (curated.at_random, f"{pool.size:,} at random", curated.random, 5),
        (curated.selection.rows, f"{pool.size:,} drawn by streamcurate", curated.after, 5),
    )
    colours = np.array(_RINGS)
    # One scale, whatever the outermost points of a draw.
    beside = figure.subplots(1, 3, sharex=True, sharey=True)
    for axes, (rows, title, value, size) in zip(beside, panels, strict=True):
        points = pool.rows if rows is None else pool.rows[rows]
        groups = pool.groups if rows is None else pool.groups[rows]
        axes.scatter(points[:, 0], points[:, 1], s=size, c=colours[groups], linewidths=0)
        axes.set_title(f"{title}, KL {value:.3f}", fontsize=10)
        axes.set_aspect("equal")
        axes.axis("off")
    return figure


def _digits(curated: Curated) -> Figure:
    pool = curated.pool
    figure = Figure(figsize=(10.5, 3.4), layout="constrained")
    bars, random, balanced = figure.subplots(1, 3, width_ratios=[1.3, 1, 1])
    series = (
        (None, _BEFORE, f"all {len(pool.rows)}, KL {curated.before:.3f}"),
        (curated.at_random, _RANDOM, f"{pool.size} at random, KL {curated.random:.3f}"),
        (curated.selection.rows, _AFTER, f"{pool.size} drawn by streamcurate, KL {curated.after:.3f}"),
    )
    places, width = np.arange(len(pool.group_names)), 0.27
    for number, (rows, colour, label) in enumerate(series, start=-1):
        bars.bar(places + number * width, shares(pool.counts(rows)), width, color=colour, label=label)
    bars.axhline(1 / len(places), color="black", linewidth=0.8, linestyle=":")
    bars.set_xticks(places, pool.group_names)
    bars.set_ylabel("share")
    bars.set_xlabel("digit")
    bars.legend(frameon=False, fontsize=9)
    bars.spines[["top", "right"]].set_visible(False)
    _grid(random, pool.rows, pool.groups, curated.at_random)
    random.set_title(f"{pool.size} at random, KL {curated.random:.3f}", fontsize=10)
    _grid(balanced, pool.rows, pool.groups, curated.selection.rows)
    balanced.set_title(f"{pool.size} drawn by streamcurate, KL {curated.after:.3f}", fontsize=10)
    return figure


def _grid(axes: Axes, images: NDArray[np.float32], groups: NDArray[np.int64], rows: NDArray[np.int64]) -> None:
    """The images of the rows, sorted by group."""
    ordered = rows[np.argsort(groups[rows], kind="stable")]
    lines = -(-len(ordered) // _COLUMNS)
    canvas = np.zeros((lines * (_SIDE + 1), _COLUMNS * (_SIDE + 1)), dtype=np.float32)
    for number, row in enumerate(ordered):
        top, left = number // _COLUMNS * (_SIDE + 1), number % _COLUMNS * (_SIDE + 1)
        canvas[top : top + _SIDE, left : left + _SIDE] = images[row].reshape(_SIDE, _SIDE)
    axes.imshow(canvas, cmap="gray_r", interpolation="nearest")
    axes.axis("off")
