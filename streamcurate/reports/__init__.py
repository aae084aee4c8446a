"""Reports: one page that shows what a run did to its rows, in one file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from streamcurate.errors import InputError
from streamcurate.files import check_scratch, write_file
from streamcurate.objects import is_url, refuse_web
from streamcurate.reports.branch import parse_branch
from streamcurate.reports.findings import Findings, Wanted, check_metadata, find_out, has_ids
from streamcurate.reports.page import page
from streamcurate.reports.thumbnails import find_images
from streamcurate.sampling import make_options
from streamcurate.streaming import MemoryBudget, ProgressListener, Silent
from streamcurate.tree import Tree, open_tree

__all__ = ["Report", "report"]

_SUFFIXES = (".html", ".htm")


@dataclass(frozen=True)
class Report:
    """A report that was written.

    Attributes
    ----------
    path : str
    bytes : int
    figures : mapping
        The numbers on the page, as JSON holds them.
    """

    path: str
    bytes: int
    figures: Mapping[str, Any]


def report(
    tree: Tree | str | os.PathLike[str],
    out: str | os.PathLike[str],
    selection: Any = None,
    size: int | None = None,
    *,
    branch: int | str | tuple[int, int] | None = None,
    metadata: Any = None,
    metadata_key: str | None = None,
    columns: Any = None,
    images: str | os.PathLike[str] | None = None,
    memory_limit: int | str | None = None,
    scratch: str | os.PathLike[str] | None = None,
    threads: int | None = None,
    progress: ProgressListener | None = None,
    **draw: Any,
) -> Report:
    """Write one self-contained HTML page about a finished tree and a draw from it.

    The same tree and arguments give the same bytes.

    Parameters
    ----------
    tree : Tree or path
    out : path or URL
        Ends in ``.html``. An existing file is replaced.
    selection : Selection, path (.parquet, .npy, .csv, .arrow, .zarr) or array of row numbers, optional
        The draw the page is about.
    size : int, optional
        Rows to draw where there is no selection: by default a tenth of the rows, at most a million.
    branch : int, str or (int, int), optional
        Down to which row, or which cluster (level and number, ``"2:17"``), quotas are explained; by default to the
        largest cluster of every level.
    metadata : path, glob pattern, or a list of these, optional
        Parquet files whose columns are shown of exemplars. Row i of the store is row i of all files, unless there is
        a key.
    metadata_key : str, optional
        The column that holds the ids.
    columns : sequence of str, or names with commas between, optional
        Which columns; all by default.
    images : path or str, optional
        A folder of images called by the rows' ids, or a column of the metadata that holds their paths or bytes.
        Thumbnails need Pillow.
    memory_limit : int or str, optional
        Bytes this process may use; by default half of what is available.
    scratch : path, optional
        Folder for metadata that is put into order; by default the system's for temporary files.
    threads : int, optional
        Blocks computed at a time; by default one a processor.
    progress : ProgressListener, optional
    **draw
        Options of the draw, as for :func:`streamcurate.sample`: ``strategy``, ``multiplier``, ``seed``, ``include``,
        ``eligible``, ``allocation`` and those beside it.

    Returns
    -------
    Report

    Raises
    ------
    InputError
        The run is unfinished, the selection is of another tree, the metadata does not fit, or the page cannot be
        written there.
    """
    target = os.fspath(out)
    check_destination(target)
    check_scratch(scratch)
    held = tree if isinstance(tree, Tree) else open_tree(tree)
    budget = MemoryBudget.of(memory_limit, threads)
    options = make_options(metadata=metadata, metadata_key=metadata_key, columns=columns)
    check_metadata(held, options.metadata)
    wanted = Wanted(
        selection=selection,
        size=size,
        options=draw,
        branch=parse_branch(branch),
        metadata=options.metadata,
        images=find_images(images, options.metadata, images is not None and has_ids(held)),
        scratch=scratch,
    )
    found = find_out(held, wanted, budget, progress or Silent())
    content = page(found)
    write_file(target, content)
    return Report(target, len(content), figures_of(found))


def check_destination(path: str) -> None:
    """Refuse a place that cannot be written to, before any work is done.

    Raises
    ------
    InputError
        Another suffix, no such folder, a folder in its place, or no permission.
    """
    if not path.lower().endswith(_SUFFIXES):
        raise InputError(f"{path}: a report is a page; name a file that ends in .html")
    if is_url(path):
        refuse_web(path, "be written to")
        return
    folder = Path(path).absolute().parent
    if Path(path).is_dir():
        raise InputError(f"{path}: a folder lies there; name a file")
    if not folder.is_dir():
        raise InputError(f"{path}: the folder {folder} does not exist; create it first")
    if not os.access(folder, os.W_OK):
        raise InputError(f"{path}: no permission to write into {folder}; choose another place")


def figures_of(found: Findings) -> dict[str, Any]:
    """The numbers on the page as plain values."""
    levels = [
        {
            "level": level.level,
            "clusters": level.clusters,
            "empty": level.empty,
            "singletons": level.singletons,
            "degenerate": level.degenerate,
            "pool": asdict(level.pool),
            "random": {name: level.random_figure(name) for name in asdict(level.pool)},
            "draw": asdict(level.draw),
        }
        for level in found.levels
    ]
    coverage = None
    if found.coverage is not None:
        coverage = {
            "pool_rows": found.pool_measured,
            "exact": found.pool_measured == found.rows and found.coverage.looked_at == found.coverage.drawn,
            "looked_at": found.coverage.looked_at,
            "draw": found.coverage.figures,
            "random": [each.figures for each in found.random_coverage],
        }
    return {
        "run": found.tree.path,
        "digest": found.tree.digest,
        "rows": found.rows,
        "drawn": found.draw.size,
        "unique": len(found.draw.rows),
        "random_draws": found.random_count,
        "levels": levels,
        "coverage": coverage,
        "explained_variance": None if found.map is None else list(found.map.axes.explained),
        "warnings": found.warnings,
    }
