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
_BEFORE, _AFTER = "#b0b7c3", "#2563eb"
_RINGS = ("#2563eb", "#dc2626", "#059669", "#d97706", "#7c3aed")
_SIDE = 8  # pixels of an image
_COLUMNS = 10  # images in a line


def draw_picture(curated: Curated) -> bytes:
    """The picture of a pool, as the content of a PNG file."""
    figure = _rings(curated) if curated.pool.name == "rings" else _digits(curated)
    FigureCanvasAgg(figure)
    content = io.BytesIO()
    # Nothing of the day or the library, so that the same demo writes the same file.
    figure.savefig(content, format="png", dpi=_DOTS_PER_INCH, metadata={"Software": None})
    return content.getvalue()


def _rings(curated: Curated) -> Figure:
    pool = curated.pool
    figure = Figure(figsize=(10.5, 2.5), layout="constrained")
    panels = (
        (None, f"{len(pool.rows):,} points", curated.before, 0.6),
        (curated.at_random, f"{pool.size:,} at random", curated.random, 2.5),
        (curated.selection.rows, f"{pool.size:,} drawn by streamcurate", curated.after, 2.5),
    )
    colours = np.array(_RINGS)
    for axes, (rows, title, value, size) in zip(figure.subplots(1, 3), panels, strict=True):
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
    before, after = shares(pool.counts()), shares(pool.counts(curated.selection.rows))
    place, width = np.arange(len(before)), 0.4
    bars.bar(place - width / 2, before, width, color=_BEFORE, label=f"{len(pool.rows)} images, KL {curated.before:.3f}")
    bars.bar(place + width / 2, after, width, color=_AFTER, label=f"{pool.size} drawn, KL {curated.after:.3f}")
    bars.axhline(1 / len(before), color="black", linewidth=0.8, linestyle=":")
    bars.set_xticks(place, pool.group_names)
    bars.set_ylabel("share")
    bars.set_xlabel("digit")
    bars.legend(frameon=False, fontsize=9)
    bars.spines[["top", "right"]].set_visible(False)
    _grid(random, pool.rows, pool.groups, curated.at_random)
    random.set_title(f"{pool.size} at random, KL {curated.random:.3f}", fontsize=10)
    _grid(balanced, pool.rows, pool.groups, curated.selection.rows)
    balanced.set_title(f"{pool.size} drawn by streamcurate", fontsize=10)
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
