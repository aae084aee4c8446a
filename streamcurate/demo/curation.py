"""One pool's way from a file to a draw and a picture, with every step on disk as a user would have it."""

from __future__ import annotations

import io
import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml
from numpy.typing import NDArray

from streamcurate.curated import Tree, cluster
from streamcurate.demo.measures import divergence
from streamcurate.demo.pools import Pool
from streamcurate.embeddings.ingest import ingest
from streamcurate.errors import InputError
from streamcurate.files import disk_errors, write_file, write_json
from streamcurate.sampling import Selection
from streamcurate.streaming import ProgressListener
from streamcurate.version import __version__

MARKER = "demo.json"
_DRAW_SEED = 0


@dataclass(frozen=True, eq=False)
class Curated:
    """What became of a pool.

    Attributes
    ----------
    pool : Pool
    tree : Tree
    selection : Selection
        The balanced draw.
    at_random : ndarray of int64, shape (size,)
        As many rows drawn evenly from all, for comparison.
    folder : Path
        Holds the sources, ``emb.zarr``, ``levels.yaml``, ``run`` and ``curated.parquet``.
    picture : Path
    seconds : float
        From ingest to draw.
    """

    pool: Pool
    tree: Tree
    selection: Selection
    at_random: NDArray[np.int64]
    folder: Path
    picture: Path
    seconds: float

    @property
    def before(self) -> float:
        """Divergence of the groups' shares from even ones in the whole pool."""
        return divergence(self.pool.counts())

    @property
    def random(self) -> float:
        """The same among as many rows drawn at random."""
        return divergence(self.pool.counts(self.at_random))

    @property
    def after(self) -> float:
        """The same in the balanced draw."""
        return divergence(self.pool.counts(self.selection.rows))

    def figures(self) -> dict[str, object]:
        """The numbers, as plain values that JSON can hold."""
        return {
            "rows": len(self.pool.rows),
            "drawn": len(self.selection),
            "divergence": {"before": self.before, "random": self.random, "after": self.after},
            "counts": {
                "before": self.pool.counts().tolist(),
                "random": self.pool.counts(self.at_random).tolist(),
                "after": self.pool.counts(self.selection.rows).tolist(),
            },
            "digest": self.tree.digest,
        }


def prepare_folder(folder: str | os.PathLike[str]) -> Path:
    """Make the folder of a demo, or find that of an earlier one.

    Raises
    ------
    InputError
        Something else lies there, or it cannot be made.
    """
    place = Path(folder)
    try:
        if place.is_dir() and not (place / MARKER).exists() and any(place.iterdir()):
            raise InputError(
                f"{folder}: is not empty and no folder of an earlier demo; name a new folder, streamcurate demo FOLDER"
            )
        with disk_errors(place):
            place.mkdir(parents=True, exist_ok=True)
            if not (place / MARKER).exists():
                write_json(place / MARKER, {"version": __version__})
    except (FileExistsError, NotADirectoryError, PermissionError) as error:
        raise InputError(
            f"{folder}: cannot be made a folder ({error.strerror}); name another one, streamcurate demo FOLDER"
        ) from error
    return place


def curate(pool: Pool, place: Path, progress: ProgressListener | None = None) -> Curated:
    """Ingest, cluster, sample and draw a picture. What an earlier call left is gone on with.

    Parameters
    ----------
    pool : Pool
    place : Path
        The demo's folder, as :func:`prepare_folder` gives it.
    progress : ProgressListener, optional

    Raises
    ------
    InputError
        Anything the caller can mend.
    """
    from streamcurate.demo.pictures import draw_picture

    began = time.monotonic()
    folder = place / pool.name
    with disk_errors(folder):
        folder.mkdir(exist_ok=True)
    _write_sources(pool, folder)
    store = ingest(
        folder / "embeddings.npy",
        folder / "emb.zarr",
        ids=folder / "ids.txt" if pool.ids else None,
        progress=progress,
    )
    tree = cluster(store, folder / "run", config=folder / "levels.yaml", progress=progress)
    selection = tree.sample(pool.size, seed=_DRAW_SEED)
    selection.save(folder / "curated.parquet")
    seconds = time.monotonic() - began
    # RandomState: the same rows in every version of NumPy.
    at_random = np.sort(np.random.RandomState(_DRAW_SEED).permutation(len(pool.rows))[: pool.size])
    picture = place / f"{pool.name}.png"
    curated = Curated(pool, tree, selection, at_random, folder, picture, seconds)
    write_file(picture, draw_picture(curated))
    return curated


def _write_sources(pool: Pool, folder: Path) -> None:
    array = io.BytesIO()
    np.save(array, pool.rows, allow_pickle=False)
    _write_if_new(folder / "embeddings.npy", array.getvalue())
    if pool.ids:
        _write_if_new(folder / "ids.txt", ("\n".join(pool.ids) + "\n").encode())
    _write_if_new(folder / "levels.yaml", levels_file(pool).encode())


def levels_file(pool: Pool) -> str:
    """The pool's configuration as ``levels.yaml`` would say it, values that are defaults left out."""
    lines = [f"metric: {pool.config.metric}", f"seed: {pool.config.seed}", "levels:"]
    for level in pool.config.levels:
        lines.append(f"  - clusters: {level.clusters}")
        if (again := level.resampling) is not None:
            chosen = {"steps": again.steps, "rows_per_cluster": again.rows_per_cluster, "strategy": again.strategy}
            lines.append(f"    resampling: {yaml.safe_dump(chosen, default_flow_style=True, sort_keys=False).strip()}")
    return "\n".join(lines) + "\n"


def _write_if_new(path: Path, content: bytes) -> None:
    # A file written again would look changed to the store made from it.
    if not path.exists() or path.read_bytes() != content:
        write_file(path, content)
