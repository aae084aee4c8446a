"""Maps of hexagons as inline SVG: one path for each shade, so that a page holds several."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from streamcurate.reports.charts import svg
from streamcurate.reports.density import Frame
from streamcurate.reports.markup import Names

# Shades of the page's style, and the width of a map in the units of its drawing.
SHADES = 7
_WIDTH = 340


def shades(all_shares: list[NDArray[np.float64]]) -> list[float]:
    """Lower edges of the shades for several maps: equal factors from the smallest share on any of them to the
    largest."""
    filled = np.concatenate([shares[shares > 0] for shares in all_shares])
    if not len(filled):
        return [0.0] * SHADES
    low, high = float(filled.min()), float(filled.max())
    if high <= low:
        return [low] * SHADES
    return [low * (high / low) ** (shade / SHADES) for shade in range(SHADES)]


def hexagon_map(
    names: Names, title: str, description: str, frame: Frame, shares: NDArray[np.float64], edges: list[float]
) -> str:
    """A map of shares of rows.

    Parameters
    ----------
    names : Names
    title, description : str
    frame : Frame
    shares : ndarray of float64, shape (lines, columns + 1)
    edges : list of float
        Of :func:`shades`.
    """
    scale = _WIDTH / frame.width
    radius = frame.radius * scale
    height = math.ceil(frame.height * scale)
    half, quarter = radius * math.sqrt(3) / 2, radius / 2
    paths: list[list[str]] = [[] for _ in range(SHADES)]
    for line, column in np.argwhere(shares > 0).tolist():
        shade = int(np.searchsorted(edges, shares[line, column] * (1 + 1e-12), side="right")) - 1
        x = (column + 0.5 - 0.5 * (line % 2)) * 2 * half
        y = height - line * 1.5 * radius
        # From the top corner round to the right.
        paths[max(shade, 0)].append(f"M{x:.1f} {y - radius:.1f}")
    around = (
        f"l{half:.2f} {quarter:.2f}v{radius:.2f}l{-half:.2f} {quarter:.2f}l{-half:.2f} {-quarter:.2f}v{-radius:.2f}z"
    )
    drawn = "\n".join(
        f'<path class="q{shade + 1}" d="{"".join(start + around for start in starts)}"/>'
        for shade, starts in enumerate(paths)
        if starts
    )
    # Hexagons on the edge reach beyond the frame.
    pad = math.ceil(radius)
    inside = f'<g transform="translate({pad} {pad})">\n{drawn}\n</g>'
    return svg(names, title, description, _WIDTH + 2 * pad, height + 2 * pad, inside)
