"""A draw made ready: what is checked and worked out before quotas are shared, the same for drawing and explaining."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamcurate.errors import CapacityError, ConfigError, InputError, RunError
from streamcurate.files import check_scratch
from streamcurate.sampling.allocations import BALANCED, Allocation
from streamcurate.sampling.draw import NOTHING, Included, check_strategy, draw_rows, with_rows
from streamcurate.sampling.eligible import Eligible, eligible_rows
from streamcurate.sampling.hierarchy import Hierarchy, RowArray, SampledTree, read_hierarchy
from streamcurate.sampling.include import read_included
from streamcurate.sampling.nodes import Nodes, make_nodes
from streamcurate.sampling.words import counted
from streamcurate.streaming.budget import MemoryBudget
from streamcurate.streaming.progress import ProgressListener, Silent

Int64 = NDArray[np.int64]

# Capacities are int64, and sums of them must be as well.
_LARGEST = 2**62
# Measured: rows, copies, and their order while the pieces are put together.
_DRAWN_BYTES = 40
# Offsets, sizes, capacities, quotas, keys and their work space, measured where all clusters have one parent.
_CLUSTER_BYTES = 150
# What other allocations hold beside: rows, weights, bounds and marks, and the work space of weights.
_OPTION_BYTES = 150
# A cluster in a list of weights, measured while it is read.
_LISTED_BYTES = 250
# What an explanation holds beside: the quotas of every level, rows and earlier rows under every cluster.
_EXPLAINED_BYTES = 50


@dataclass(frozen=True)
class Prepared:
    """A draw of which everything is known but the rows.

    Attributes
    ----------
    tree : SampledTree
    size, multiplier, seed : int
    strategy : str
    allocation : Allocation
    nodes : Nodes
        Bounds and weights of the clusters.
    members : RowArray of int64
        The rows that may be drawn, ordered by (leaf, distance, row).
    included : Included
        Rows of the earlier draw that may be drawn once more.
    fixed : Included
        Those that may not: they are not eligible.
    eligible : int or None
        How many rows are eligible, where the draw is restricted.
    budget : MemoryBudget
    held : int
        Bytes that the draw itself takes of it.
    listener : ProgressListener
    """

    tree: SampledTree
    size: int
    multiplier: int
    seed: int
    strategy: str
    allocation: Allocation
    nodes: Nodes
    members: RowArray
    included: Included
    fixed: Included
    eligible: int | None
    budget: MemoryBudget
    held: int
    listener: ProgressListener

    @property
    def memory(self) -> int:
        """Bytes to use beside what the draw takes."""
        return self.budget.usable - self.held

    @property
    def hierarchy(self) -> Hierarchy:
        """Of the rows that may be drawn."""
        return self.nodes.hierarchy

    def quotas(self) -> Iterator[tuple[int, Int64]]:
        """Levels from the top down, and what each of their clusters gives."""
        return self.nodes.quotas(self.size)

    def notes(self) -> tuple[str, ...]:
        """What was asked for and cannot be had."""
        unmet = self.nodes.leasts_unmet
        if not unmet or self.allocation.weights is None:
            return ()
        less = "can give less than its least, and gives all it can"
        if unmet > 1:
            less = "can give less than their least, and give all they can"
        return (f"{self.allocation.weights.name}: {counted(unmet, 'cluster')} {less}; explain shows how much",)

    def rows(self, leaf: int | None = None) -> tuple[Int64, Int64]:
        """The rows drawn, ascending, and their copies; of one cluster of level 1 alone if it is named."""
        quotas = np.empty(0, dtype=np.int64)
        for _, found in self.quotas():
            quotas = found
        included, fixed = self.included, self.fixed
        if leaf is not None:
            count = min(int(quotas[leaf]), int(self.hierarchy.sizes[leaf]) + fixed.size)
            needed = self.held + _DRAWN_BYTES * count
            self.budget.require(
                needed, f"{self.tree.path}: drawing the {count:,} rows of a cluster", "explain a cluster"
            )
            quotas = np.where(np.arange(len(quotas)) == leaf, quotas, 0)
            included, fixed = (part.part(part.leaves == leaf) for part in (included, fixed))
        quotas = quotas - fixed.lower(len(quotas))
        rows, copies = draw_rows(
            self.members,
            self.hierarchy.leaf_offsets,
            quotas,
            strategy=self.strategy,
            seed=self.seed,
            included=included,
            listener=self.listener,
        )
        return with_rows(rows, copies, fixed)


@contextmanager
def prepared(
    tree: SampledTree,
    size: int,
    strategy: str = "random",
    multiplier: int = 1,
    seed: int = 0,
    include: Any = None,
    eligible: Any = None,
    allocation: Allocation = BALANCED,
    memory_limit: int | str | None = None,
    scratch: str | os.PathLike[str] | None = None,
    progress: ProgressListener | None = None,
    explained: bool = False,
) -> Iterator[Prepared]:
    """Check a draw and work out its bounds; what lies on scratch goes at the end.

    Parameters and errors are those of :func:`streamcurate.sampling.sample`; a draw that is only explained does not hold
    its rows.
    """
    check_scratch(scratch)
    size = _whole("size", size, 1, _LARGEST)
    multiplier = _whole("multiplier", multiplier, 1, _LARGEST)
    seed = _whole("seed", seed, 0, 2**64 - 1)
    check_strategy(strategy)
    if not tree.complete:
        raise RunError(f"{tree.path}: not finished yet; give the same cluster command again to finish it, then sample")
    hierarchy = read_hierarchy(tree)
    if hierarchy.rows * multiplier > _LARGEST:
        raise ConfigError(
            f"multiplier: {multiplier} is too large for {hierarchy.rows:,} rows; at most {_LARGEST // hierarchy.rows}"
        )
    budget = MemoryBudget.of(memory_limit, 1)
    cluster_bytes = _CLUSTER_BYTES + (_OPTION_BYTES if allocation.options else 0)
    rows = min(size, hierarchy.rows)
    held = (cluster_bytes + (_EXPLAINED_BYTES if explained else 0)) * hierarchy.clusters(1)
    held += 0 if explained else _DRAWN_BYTES * rows
    held += 0 if allocation.weights is None else _LISTED_BYTES * allocation.weights.count
    budget.require(held, f"{tree.path}: drawing {size:,} rows", "draw fewer rows")
    leaves = tree.levels[0]
    included, fixed = NOTHING if include is None else read_included(include, leaves.stored_labels, tree.path), NOTHING
    if included.size > size:
        raise InputError(
            f"the earlier draw holds {included.size:,} rows, copies counted, more than the {size:,} asked for: "
            "size is the total, the earlier rows included; ask for more, or leave the earlier draw out"
        )
    listener = progress or Silent()
    members: RowArray = leaves.stored_members
    with ExitStack() as stack:
        found, whole = None, hierarchy
        if eligible is not None:
            memory = budget.usable - held
            found = stack.enter_context(eligible_rows(eligible, tree, hierarchy, included, memory, scratch, listener))
            hierarchy, members = found.hierarchy, found.members
            # Earlier rows that are not eligible keep the copies they have, and get no more.
            included, fixed = included.part(found.included), included.part(~found.included)
        nodes = _nodes(tree, whole, hierarchy, found, size, multiplier, seed, included, fixed, allocation)
        yield Prepared(
            tree,
            size,
            multiplier,
            seed,
            strategy,
            allocation,
            nodes,
            members,
            included,
            fixed,
            None if found is None else hierarchy.rows,
            budget,
            held,
            listener,
        )


def _nodes(
    tree: SampledTree,
    whole: Hierarchy,
    hierarchy: Hierarchy,
    eligible: Eligible | None,
    size: int,
    multiplier: int,
    seed: int,
    included: Included,
    fixed: Included,
    allocation: Allocation,
) -> Nodes:
    clusters = hierarchy.clusters(1)
    given = fixed.lower(clusters)
    above = included.above(clusters, multiplier) + given
    capacities = hierarchy.sizes * multiplier + above
    lower = included.lower(clusters) + given if included.size or fixed.size else None
    nodes = make_nodes(hierarchy, capacities, allocation, seed=seed, lower=lower, levels=tree.levels, whole=whole)
    if size > nodes.capacity:
        which = "" if eligible is None else f" of {eligible.name}"
        takers = [(option, rows) for option, rows in nodes.taken if rows]
        taken = "".join(f"; {option} takes {rows:,} away" for option, rows in takers)
        remedies = [f"ask for {nodes.capacity:,} or less"] if nodes.capacity else []
        if takers:
            remedies.append(f"loosen {' or '.join(option for option, _ in takers)}")
        if nodes.capacity:
            remedies.append(f"or raise the multiplier above {multiplier}")
        remedy = ", ".join(remedies)
        raise CapacityError(
            f"{tree.path}: {size:,} rows are asked for, at most {nodes.capacity:,} can be drawn "
            f"({hierarchy.rows:,} rows{which}, each up to {_times(multiplier)}{_beside(int(above.sum()))}{taken}); "
            f"{remedy}"
        )
    if size < nodes.least:  # of earlier rows alone there are no more than that
        name = "the weights" if allocation.weights is None else allocation.weights.name
        raise InputError(
            f"{tree.path}: {size:,} rows are asked for, and the leasts of {name} come to {nodes.least:,}, earlier rows "
            f"included; ask for {nodes.least:,} or more, or lower a least"
        )
    return nodes


def _whole(name: str, value: Any, least: int, most: int) -> int:
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)) or not least <= value <= most:
        raise ConfigError(f"{name}: {value!r} cannot be; give a whole number from {least} to {most}")
    return int(value)


def _times(multiplier: int) -> str:
    return "once" if multiplier == 1 else f"{multiplier} times"


def _beside(above: int) -> str:
    """What rows drawn more often before than they may be now add to the capacity."""
    copies = "1 copy" if above == 1 else f"{above:,} copies"
    return f", and {copies} above that in the earlier draw" if above else ""
