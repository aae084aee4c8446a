"""Union-find over positions: each points to a position of its group that is not above it, the lowest one to itself."""

from __future__ import annotations

from streamcurate.kernels.jit import compiled
from streamcurate.kernels.metric import Int64


@compiled
def _unite(parents: Int64, edges: Int64, first: int) -> None:
    for edge in range(len(edges)):
        one, other = edges[edge, 0] - first, edges[edge, 1] - first
        if one < 0 or other < 0:
            continue
        while parents[one] != one:
            parents[one] = parents[parents[one]]
            one = parents[one]
        while parents[other] != other:
            parents[other] = parents[parents[other]]
            other = parents[other]
        # The lower one becomes the root, whatever the sizes: path halving alone keeps the paths short.
        if one < other:
            parents[other] = one
        else:
            parents[one] = other


@compiled
def _settle(parents: Int64) -> None:
    for position in range(len(parents)):
        parents[position] = parents[parents[position]]


def unite_edges(parents: Int64, edges: Int64, first: int = 0) -> None:
    """Unite the groups of the two ends of every edge, in place.

    Parameters
    ----------
    parents : ndarray of int64, shape (m,)
        ``arange(m)`` where nothing is united yet.
    edges : ndarray of int64, shape (e, 2), C-contiguous
        Ends below ``first + m``; an edge with an end below ``first`` is passed over.
    first : int
        The end that means position 0.
    """
    _unite(parents, edges, first)


def settle_groups(parents: Int64) -> None:
    """Let every position point to the lowest one of its group, in place."""
    _settle(parents)
