"""Why a draw takes what it takes: the quotas of a branch, from the root down, worked out by the code that draws."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamcurate.embeddings.idlookup import rows_of_ids
from streamcurate.embeddings.rowlist import open_list
from streamcurate.errors import ConfigError, DataError, InputError
from streamcurate.sampling.draw import leaf_levels
from streamcurate.sampling.hierarchy import SampledTree
from streamcurate.sampling.nodes import Shares
from streamcurate.sampling.prepare import Prepared
from streamcurate.sampling.weights import OfCluster

Int64 = NDArray[np.int64]

# Children listed of the last parent, those that give most first.
TABLE_LENGTH = 10_000
# Members looked through together.
_BATCH = 1 << 18


@dataclass(frozen=True, repr=False)
class Explanation:
    """How the quotas of a draw come about; printed, it is text for people.

    Attributes
    ----------
    draw : mapping
        The draw: ``run``, ``size``, ``capacity``, ``rows``, ``strategy``, ``multiplier``, ``seed``, ``allocation``.
    branch : tuple of mappings
        From the root down: each parent with its quota, how its children are filled, and the ``child`` on the branch.
    table : mapping or None
        Where the branch ends above the rows, the children of its last parent: ``level``, ``count`` and ``children``,
        those that give most first (10,000 of them at most).
    leaf : mapping or None
        The cluster of level 1 at the end of the branch, and how its quota falls on its rows.
    row : mapping or None
        The row asked for, and its copies in the draw.
    """

    draw: Mapping[str, Any]
    branch: tuple[Mapping[str, Any], ...]
    table: Mapping[str, Any] | None
    leaf: Mapping[str, Any] | None
    row: Mapping[str, Any] | None

    def to_dict(self) -> dict[str, Any]:
        """All of it, as JSON has it."""
        return {
            "draw": self.draw,
            "branch": list(self.branch),
            "table": self.table,
            "leaf": self.leaf,
            "row": self.row,
        }

    def __str__(self) -> str:
        from streamcurate.sampling.explained_text import text

        return text(self)

    __repr__ = __str__


def explain_branch(draw: Prepared, row: Any, id: Any, cluster: Any) -> Explanation:
    """Explain a prepared draw; see :func:`streamcurate.sampling.explain`."""
    if sum(given is not None for given in (row, id, cluster)) > 1:
        raise ConfigError("row, id and cluster: each names a branch; give one of them")
    if id is not None:
        row = _row_of(draw, id)
    target: tuple[int, int] | None = None
    if row is not None:
        row, target = _leaf_of(draw.tree, row)
    elif cluster is not None:
        target = _checked_cluster(draw, cluster)
    path = [] if target is None else _ancestors(draw.tree, *target)
    quotas_of = dict(draw.quotas())
    branch, table = [], None
    parent, quota = 0, draw.size
    hierarchy, leaves = draw.hierarchy, draw.hierarchy.clusters(1)
    under = hierarchy.totals(hierarchy.sizes)
    kept = hierarchy.totals(draw.included.lower(leaves) + draw.fixed.lower(leaves))
    for level in range(hierarchy.depth, 0, -1):
        shares = draw.nodes.share(level, np.array([quota], dtype=np.int64), parent)
        family = _Family(draw, level, parent, quota, shares, under[level - 1], kept[level - 1])
        step = family.describe()
        if not path:
            branch.append(step)
            table = family.table()
            break
        child = path.pop(0)
        step["child"] = family.child(child)
        branch.append(step)
        parent, quota = child, int(quotas_of[level][child])
    leaf = found = None
    if target is not None and target[0] == 1:
        leaf, found = _leaf(draw, target[1], int(quotas_of[1][target[1]]), row, id)
    said = {
        "run": draw.tree.path,
        "size": draw.size,
        "capacity": draw.nodes.capacity,
        "taken": [{"option": option, "rows": rows} for option, rows in draw.nodes.taken],
        "rows": hierarchy.rows,
        "eligible": draw.eligible,
        "earlier": draw.included.size + draw.fixed.size,
        "strategy": draw.strategy,
        "multiplier": draw.multiplier,
        "seed": draw.seed,
        "allocation": {"allocation": draw.allocation.name, **draw.allocation.options},
    }
    return Explanation(said, tuple(branch), table, leaf, found)


@dataclass(frozen=True)
class _Family:
    """A parent, and its children at ``level``."""

    draw: Prepared
    level: int
    parent: int
    quota: int
    shares: Shares
    under: Int64
    kept: Int64

    @property
    def quotas(self) -> Int64:
        return self.shares.filled.quotas

    def of_children(self, values: list[Any] | None, default: Any) -> NDArray[Any]:
        """One entry for each child, of a list that begins with level 1."""
        values_here = None if values is None else values[self.level - 1]
        if values_here is None:
            return np.full(len(self.shares.children), default)
        found: NDArray[Any] = values_here[self.shares.children]
        return found

    def describe(self) -> dict[str, Any]:
        """The parent, its quota, and how its children are filled."""
        nodes, quotas = self.draw.nodes, self.quotas
        capacities = self.of_children(nodes.capacities, 0)
        nothing, lower = self.of_children(nodes.nothing, False), self.of_children(nodes.lower, 0)
        water = self._water()
        weights, said = self.draw.allocation.weights, None
        if weights is not None and self.level in weights.levels:
            said = weights.levels[self.level].dense("caps", self.draw.hierarchy.clusters(self.level))
        caps = np.full(len(quotas), -1) if said is None else said[self.shares.children]
        at_top = self.level == self.draw.hierarchy.depth
        filled = self.shares.filled
        step: dict[str, Any] = {
            "parent": None if at_top else {"level": self.level + 1, "cluster": self.parent},
            "quota": self.quota,
            "level": self.level,
            "children": len(quotas),
            "empty": int((self._sizes() == 0).sum()),
            "nothing": int(nothing.sum()),
            "capped": int(((caps >= 0) & (quotas == caps) & ~nothing).sum()),
            "full": int(((capacities <= water) & (capacities > 0)).sum()),
            "raised": int(((quotas == lower) & (lower > water)).sum()),
            "weighted": nodes.weights[self.level - 1] is not None,
            "water": filled.levels[0].item(),
            "remainder": int(filled.remainders[0]),
            "takers": int(filled.takers[0]),
        }
        if nodes.outliers is not None:
            together, outliers = self.shares.outliers, self.of_children(nodes.outliers, False)
            held = self._held()
            step["outliers"] = {
                "children": int(outliers.sum()),
                "free": 0 if self.shares.outliers_free is None else int(self.shares.outliers_free[0]),
                "most": int(nodes.most_of_outliers(np.array([self.quota], dtype=np.int64))[0]),
                "quota": int(quotas[outliers].sum()),
                "held_down": held,
                "water": together.levels[0].item() if held and together is not None else None,
                "remainder": int(together.remainders[0]) if held and together is not None else None,
                "takers": int(together.takers[0]) if held and together is not None else None,
            }
        return step

    def child(self, cluster: int) -> dict[str, Any]:
        """The child on the branch."""
        return self._child(int(np.flatnonzero(self.shares.children == cluster)[0]))

    def table(self) -> dict[str, Any]:
        """The children, those that give most first."""
        order = np.lexsort((self.shares.children, -self.quotas))
        listed = order[:TABLE_LENGTH].tolist()
        sizes, quotas = self._sizes(), self.quotas
        capacities = self.of_children(self.draw.nodes.capacities, 0)
        rows = [
            {
                "cluster": int(self.shares.children[at]),
                "rows": int(sizes[at]),
                "capacity": int(capacities[at]),
                "quota": int(quotas[at]),
            }
            for at in listed
        ]
        return {"level": self.level, "count": len(order), "children": rows}

    def _child(self, at: int) -> dict[str, Any]:
        nodes, cluster = self.draw.nodes, int(self.shares.children[at])
        quota, lower = int(self.quotas[at]), int(self.of_children(nodes.lower, 0)[at])
        capacity = int(self.of_children(nodes.capacities, 0)[at])
        base = max(min(int(self._water()[at]), capacity), lower)
        return {
            "cluster": cluster,
            "rows": int(self._sizes()[at]),
            "weight": float(self.of_children(nodes.weights, 1.0)[at]),
            "capacity": capacity,
            "capacity_from": self._capacity_from(at, capacity),
            "least": lower,
            "least_from": self._least_from(cluster, lower),
            "outlier": bool(self.of_children(nodes.outliers, False)[at]),
            "quota": quota,
            "one_more": quota > base,
        }

    def _held(self) -> bool:
        together, free = self.shares.outliers, self.shares.outliers_free
        return together is not None and free is not None and int(together.quotas[0]) < int(free[0])

    def _water(self) -> Int64:
        """c, or ⌊c · weight⌋, of every child, outliers that are held down by their own c."""
        nodes = self.draw.nodes
        levels = np.full(len(self.quotas), self.shares.filled.levels[0])
        if self._held() and self.shares.outliers is not None:
            levels[self.of_children(nodes.outliers, False)] = self.shares.outliers.levels[0]
        if nodes.weights[self.level - 1] is None:
            return levels
        given = np.floor(levels * self.of_children(nodes.weights, 1.0))
        water: Int64 = np.minimum(given, 2.0**62).astype(np.int64)
        return water

    def _sizes(self) -> Int64:
        """Rows under each child, those included that give nothing."""
        found: Int64 = self.under[self.shares.children]
        return found

    def _capacity_from(self, at: int, capacity: int) -> str:
        nodes, allocation, cluster = self.draw.nodes, self.draw.allocation, int(self.shares.children[at])
        size, said = int(self._sizes()[at]), self._said(cluster)
        if not size:
            return "it is empty"
        if nodes.nothing is not None and nodes.nothing[self.level - 1][cluster]:
            if self.level == allocation.least_rows_level and size < allocation.least_rows:
                return f"fewer than {allocation.least_rows:,} rows (least_rows)"
            if said is not None and (said.weight == 0 or said.cap == 0):
                return f"{'weight' if said.weight == 0 else 'cap'} 0 ({said.place})"
            return "it lies under a cluster that gives nothing"
        if said is not None and 0 <= said.cap <= capacity < self._held_below(cluster):
            return f"cap {said.cap:,} ({said.place})"
        if self.level == 1:
            return "its rows" if self.draw.multiplier == 1 else f"its rows, each up to {self.draw.multiplier} times"
        return "what the clusters under it can give"

    def _held_below(self, cluster: int) -> int:
        if self.level == 1:
            return int(self.draw.hierarchy.sizes[cluster]) * self.draw.multiplier
        members, offsets = self.draw.hierarchy.uppers[self.level - 2]
        below = members[offsets[cluster] : offsets[cluster + 1]]
        return int(self.draw.nodes.capacities[self.level - 2][below].sum())

    def _said(self, cluster: int) -> OfCluster | None:
        weights = self.draw.allocation.weights
        return None if weights is None else weights.of(self.level, cluster)

    def _least_from(self, cluster: int, lower: int) -> str | None:
        if not lower:
            return None
        if lower == self.kept[cluster]:
            return "earlier rows"
        said = self._said(cluster)
        if said is not None and said.least >= lower:
            return f"least {said.least:,} ({said.place})"
        return "the leasts of the clusters under it"


def _leaf(
    draw: Prepared, leaf: int, quota: int, row: int | None, id: Any
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """How the quota of a cluster of level 1 falls on its rows; and on one of them."""
    offsets = draw.hierarchy.leaf_offsets
    start, stop = int(offsets[leaf]), int(offsets[leaf + 1])
    here, fixed = (part.part(part.leaves == leaf) for part in (draw.included, draw.fixed))
    level, extra = (
        int(values[0])
        for values in leaf_levels(
            np.array([stop - start]),
            np.array([quota - fixed.size]),
            type(here)(here.rows, here.copies, np.zeros_like(here.leaves)),
        )
    )
    candidates = stop - start - int((here.copies > level).sum())
    said = {
        "cluster": leaf,
        "rows": stop - start,
        "quota": quota,
        "earlier": here.size + fixed.size,
        "base": level,
        "once_more": extra,
        "candidates": candidates,
        "chance": extra / candidates if candidates else 0.0,
        "strategy": draw.strategy,
    }
    if row is None:
        return said, None
    rows, copies = draw.rows(leaf)
    place = int(np.searchsorted(rows, row))
    rank = None
    for first in range(start, stop, _BATCH):
        at = np.flatnonzero(draw.members.read(first, min(first + _BATCH, stop)) == row)
        if len(at):
            rank = first + int(at[0]) - start + 1
    return said, {
        "row": row,
        "id": None if id is None else str(id),
        "eligible": rank is not None,
        "rank": rank,
        "copies": int(copies[place]) if place < len(rows) and rows[place] == row else 0,
    }


def _row_of(draw: Prepared, id: Any) -> int:
    store = draw.tree.embeddings()
    if store is None or store.ids is None:
        raise InputError(
            f"id: {id!r} cannot be looked up: the store of {draw.tree.path} has no ids, or is gone; give a row"
        )
    try:
        listed = open_list([str(id)], True, "id", "--id")
        rows = next(rows_of_ids(listed, store.ids, draw.memory, listener=draw.listener))
    except DataError as error:
        raise InputError(
            f"id: {str(id)!r} is not among the ids of {store.ids.path}; check it, or give a row"
        ) from error
    draw.listener.finished()  # the ids behind the first that fits are not read
    return int(rows[0])


def _leaf_of(tree: SampledTree, row: Any) -> tuple[int, tuple[int, int]]:
    labels = tree.levels[0].stored_labels
    if isinstance(row, (bool, np.bool_)) or not isinstance(row, (int, np.integer)) or not 0 <= row < labels.rows:
        raise InputError(f"row: {row!r} is not in {tree.path}, whose rows are 0 to {labels.rows - 1}")
    leaf = int(labels.take(np.array([row], dtype=np.int64))[0])
    if leaf < 0:
        raise InputError(f"row: {row} lies outside the subset that {tree.path} was built on, and is never drawn")
    return int(row), (1, leaf)


def _checked_cluster(draw: Prepared, cluster: Any) -> tuple[int, int]:
    try:
        level, number = (operator.index(part) for part in cluster)
    except (TypeError, ValueError):
        raise ConfigError(
            f"cluster: {cluster!r} is no cluster; give its level and its number, such as (1, 17)"
        ) from None
    depth = draw.hierarchy.depth
    if not 1 <= level <= depth:
        raise InputError(f"cluster: level {level} does not exist; the levels are 1 to {depth}, 1 above the rows")
    clusters = draw.hierarchy.clusters(level)
    if not 0 <= number < clusters:
        raise InputError(f"cluster: level {level} has no cluster {number}; its clusters are 0 to {clusters - 1}")
    return level, number


def _ancestors(tree: SampledTree, level: int, cluster: int) -> list[int]:
    """The clusters from the top level down to this one."""
    path = [cluster]
    for above in tree.levels[level:]:
        parent = int(above.stored_labels.take(np.array([path[0]], dtype=np.int64))[0])
        if parent < 0:
            raise InputError(
                f"cluster: cluster {cluster} of level {level} is empty: no row lies under it, and it gives nothing"
            )
        path.insert(0, parent)
    return path
