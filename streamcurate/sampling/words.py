"""Counts and options as people read them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def counted(count: int, word: str, words: str | None = None) -> str:
    """A count and what is counted, one or many.

    Examples
    --------
    >>> counted(1, "row"), counted(2000, "row"), counted(3, "child", "children")
    ('1 row', '2,000 rows', '3 children')
    """
    return f"{count:,} {word}" if count == 1 else f"{count:,} {words or word + 's'}"


def allocation_words(options: Mapping[str, Any]) -> list[str]:
    """The options of an allocation, as :attr:`.Allocation.options` has them, in words.

    Examples
    --------
    >>> allocation_words({"allocation": "power", "alpha": 0.5, "least_rows": 4, "least_rows_level": 1})
    ['power (alpha 0.5)', 'clusters of level 1 with fewer than 4 rows give nothing']
    """
    said = []
    if "allocation" in options:
        alpha = f" (alpha {options['alpha']:g})" if "alpha" in options else ""
        said.append(f"{options['allocation']}{alpha}")
    if "least_rows" in options:
        fewer = f"fewer than {counted(options['least_rows'], 'row')}"
        said.append(f"clusters of level {options['least_rows_level']} with {fewer} give nothing")
    if "weights" in options:
        name = options["weights"]
        said.append("weights of single clusters" if name == "weights" else f"weights of {name}")
    if "outlier_share" in options:
        said.append(
            f"outliers (at most {counted(options['outlier_rows'], 'row')}, farther out than clusters with "
            f"{options['outlier_percentile']:g} % of the rows) give at most {100 * options['outlier_share']:g} % "
            "of what their parent gives"
        )
    return said
