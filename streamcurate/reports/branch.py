"""Quotas down a branch: what every cluster on the way gives, by the code that draws."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from streamcurate.errors import ConfigError, InputError
from streamcurate.reports.drawn import Drawn
from streamcurate.sampling import Hierarchy, explain
from streamcurate.tree import Tree


@dataclass(frozen=True)
class Node:
    """A cluster on the branch.

    Attributes
    ----------
    level, cluster : int
    siblings : int
        Clusters of its parent, itself included.
    rows : int
        Under it.
    drawn : int
        Of them, copies counted.
    """

    level: int
    cluster: int
    siblings: int
    rows: int
    drawn: int


@dataclass(frozen=True)
class Branch:
    """The way from the root to a cluster.

    Attributes
    ----------
    nodes : tuple of Node
        From the top down.
    chosen : str
        Which branch it is.
    steps : tuple of mappings, or None
        How each quota comes about, as ``Explanation.branch`` has it; None where it is not known how was drawn, or
        where that would give other numbers.
    text : str or None
        The explanation in words.
    """

    nodes: tuple[Node, ...]
    chosen: str
    steps: tuple[Mapping[str, Any], ...] | None
    text: str | None


def parse_branch(text: str | int | tuple[int, int] | None) -> int | tuple[int, int] | None:
    """A row, or a level and a cluster as ``2:17``; None for the default.

    Raises
    ------
    ConfigError
        Neither.

    Examples
    --------
    >>> parse_branch("12"), parse_branch("2:17")
    (12, (2, 17))
    """
    if text is None or isinstance(text, (int, np.integer)):
        return None if text is None else int(text)
    if isinstance(text, tuple) and len(text) == 2:
        return int(text[0]), int(text[1])
    level, colon, number = str(text).partition(":")
    if level.isdecimal() and (number.isdecimal() if colon else True):
        return (int(level), int(number)) if colon else int(level)
    raise ConfigError(f"branch {text!r}: give a row, or a level and the number of a cluster in it, such as 2:17")


def follow(
    tree: Tree, hierarchy: Hierarchy, draw: Drawn, wanted: int | tuple[int, int] | None, means: Mapping[str, Any]
) -> Branch:
    """The branch to a row or a cluster, by default, level by level, the largest that gives any row.

    Parameters
    ----------
    tree : Tree
    hierarchy : Hierarchy
    draw : Drawn
    wanted : int, (int, int) or None
        A row, or a level and a cluster.
    means : mapping
        ``memory_limit``, ``scratch`` and ``progress``.

    Raises
    ------
    InputError
        No such row or cluster, or it holds no rows.
    """
    sizes = hierarchy.totals(hierarchy.sizes)
    if wanted is None:
        path = _largest(hierarchy, sizes, draw)
        chosen = "down to the largest cluster that gives any row, level by level"
        target: dict[str, Any] = {"cluster": (1, path[-1])}
    elif isinstance(wanted, tuple):
        path = _to_cluster(tree, hierarchy, sizes, *wanted)
        chosen, target = f"down to cluster {wanted[1]:,} of level {wanted[0]}", {"cluster": wanted}
    else:
        path = _to_row(tree, hierarchy, wanted)
        chosen, target = f"down to row {wanted:,}", {"row": wanted}
    nodes = []
    for depth, cluster in enumerate(path):
        level = hierarchy.depth - depth
        if depth == 0:
            siblings = hierarchy.clusters(level)
        else:
            offsets = hierarchy.uppers[level - 1][1]
            siblings = int(offsets[path[depth - 1] + 1] - offsets[path[depth - 1]])
        nodes.append(
            Node(level, cluster, siblings, int(sizes[level - 1][cluster]), int(draw.counts[level - 1][cluster]))
        )
    steps, text = _explained(tree, draw, target, nodes, means)
    return Branch(tuple(nodes), chosen, steps, text)


def _explained(
    tree: Tree, draw: Drawn, target: Mapping[str, Any], nodes: list[Node], means: Mapping[str, Any]
) -> tuple[tuple[Mapping[str, Any], ...] | None, str | None]:
    """How the quotas come about, where the draw is known and these are its numbers."""
    if draw.options is None:
        return None, None
    try:
        explanation = explain(tree, **draw.options, **target, **means)
    except InputError:  # options of a draw made elsewhere, such as a file of weights that is gone
        return None, None
    steps = explanation.branch[: len(nodes)]
    if any(step["child"]["quota"] != node.drawn for step, node in zip(steps, nodes, strict=False)):
        return None, None
    return tuple(steps), str(explanation)


def _largest(hierarchy: Hierarchy, sizes: list[Any], draw: Drawn) -> list[int]:
    path: list[int] = []
    for level in range(hierarchy.depth, 0, -1):
        if path:
            members, offsets = hierarchy.uppers[level - 1]
            children = members[offsets[path[-1]] : offsets[path[-1] + 1]]
        else:
            children = np.arange(hierarchy.clusters(level))
        giving = np.where(draw.counts[level - 1][children] > 0, sizes[level - 1][children], -1)
        path.append(int(children[np.argmax(giving)]))
    return path


def _to_row(tree: Tree, hierarchy: Hierarchy, row: int) -> list[int]:
    labels = tree.levels[0].stored_labels
    if not 0 <= row < labels.rows:
        raise InputError(f"branch: row {row} is not in {tree.path}, whose rows are 0 to {labels.rows - 1}; name one")
    leaf = int(labels.take(np.array([row], dtype=np.int64))[0])
    if leaf < 0:
        raise InputError(f"branch: row {row} lies in no cluster of {tree.path}; name a row of the tree")
    return _upwards(tree, 1, leaf)


def _to_cluster(tree: Tree, hierarchy: Hierarchy, sizes: list[Any], level: int, cluster: int) -> list[int]:
    if not 1 <= level <= hierarchy.depth:
        raise InputError(f"branch: level {level} is not in {tree.path}, whose levels are 1 to {hierarchy.depth}")
    if not 0 <= cluster < hierarchy.clusters(level):
        raise InputError(
            f"branch: cluster {cluster} is not in level {level} of {tree.path}, whose clusters are 0 to "
            f"{hierarchy.clusters(level) - 1}; name one"
        )
    if not sizes[level - 1][cluster]:
        raise InputError(f"branch: cluster {cluster} of level {level} is empty; name one that holds rows")
    return _upwards(tree, level, cluster)


def _upwards(tree: Tree, level: int, cluster: int) -> list[int]:
    path = [cluster]
    for upper in tree.levels[level:]:
        path.append(int(upper.stored_labels.take(np.array([path[-1]], dtype=np.int64))[0]))
    return path[::-1]
