"""The peers, each through its public interface, told to do the same work: as many full passes, over all rows.

None is part of the package's requirements; which are installed is found out at run time.
"""

from __future__ import annotations

import time
import warnings
from contextlib import nullcontext
from importlib import metadata
from importlib.util import find_spec
from typing import Any

import numpy as np

from speed.contestants import Clock, Contestant, Ours, Problem, Solution
from speed.stamps import logged, printed, printed_natively

# FAISS and SuperKMeans quietly take a sample above this many rows a centroid.
_NO_SAMPLING = 10**9


class Faiss:
    """Its Clustering with a flat index."""

    name = "FAISS"
    package = "faiss-cpu"
    module = "faiss"
    same_start = True
    lloyd = True
    main = True
    note = "max_points_per_centroid raised: it would sample above 256 rows a centroid"

    def solve(self, problem: Problem) -> Solution:
        """Solve it, timed."""
        import faiss

        faiss.omp_set_num_threads(problem.threads)
        clock = Clock()
        found = faiss.Kmeans(
            problem.dims,
            problem.clusters,
            niter=problem.iterations,
            max_points_per_centroid=_NO_SAMPLING,
            min_points_per_centroid=1,
        )
        found.train(problem.single, init_centroids=problem.start)
        fit = clock.lap()
        labels = found.index.search(problem.single, 1)[1][:, 0]
        label = clock.lap()
        seconds = np.diff([each["time"] for each in found.iteration_stats], prepend=0.0)
        return Solution(found.centroids, labels, fit[0], label[0], seconds.tolist(), fit[1] + label[1])


class ScikitLearn:
    """KMeans, algorithm lloyd."""

    name = "scikit-learn"
    package = "scikit-learn"
    module = "sklearn"
    same_start = True
    lloyd = True
    main = True
    note = "its fit gives the labels, by one pass more"

    def solve(self, problem: Problem) -> Solution:
        """Solve it, timed."""
        from sklearn.cluster import KMeans

        made = KMeans(
            problem.clusters, init=problem.start, n_init=1, max_iter=problem.iterations, tol=0, verbose=1, copy_x=True
        )
        with warnings.catch_warnings(), printed() as said:
            warnings.simplefilter("ignore")  # that it did not converge
            clock = Clock()
            made.fit(problem.single)
            fit = clock.lap()
        # The line before the first iteration's says that the beginning is made.
        began = next((when for when, line in said.lines if "Initialization complete" in line), None)
        seconds = said.between("Iteration ", began)
        return Solution(made.cluster_centers_, made.labels_, fit[0], 0.0, seconds, fit[1])


class MiniBatch:
    """scikit-learn's MiniBatchKMeans: as many steps as make so many passes over the rows."""

    name = "scikit-learn MiniBatch"
    package = "scikit-learn"
    module = "sklearn"
    same_start = True
    lloyd = False
    main = False
    note = "an iteration is as many batches of 1,024 as hold all rows; approximate"

    def solve(self, problem: Problem) -> Solution:
        """Solve it, timed."""
        from sklearn.cluster import MiniBatchKMeans

        made = MiniBatchKMeans(
            problem.clusters,
            init=problem.start,
            n_init=1,
            max_iter=problem.iterations,
            tol=0,
            max_no_improvement=None,
            compute_labels=False,
            random_state=0,
        )
        clock = Clock()
        made.fit(problem.single)
        fit = clock.lap()
        labels = made.predict(problem.single)
        label = clock.lap()
        return Solution(
            made.cluster_centers_, labels, fit[0], label[0], [fit[0] / problem.iterations], fit[1] + label[1]
        )


class Super:
    """SuperKMeans on float32."""

    package = "superkmeans"
    module = "superkmeans"
    same_start = False

    def __init__(self, name: str, note: str, main: bool = False, lloyd: bool = True, **options: Any) -> None:
        self.name, self.note, self.main, self.lloyd, self._options = name, note, main, lloyd, options

    def solve(self, problem: Problem) -> Solution:
        """Solve it, timed."""
        from superkmeans import SuperKMeans

        made = SuperKMeans(
            problem.clusters,
            problem.dims,
            **{"hierarchical": False, **self._options},
            iters=problem.iterations,
            sampling_fraction=1.0,
            max_points_per_cluster=_NO_SAMPLING,
            early_termination=False,
            n_threads=problem.threads,
            verbose=self.lloyd,
        )
        with printed_natively() if self.lloyd else nullcontext() as said:
            clock = Clock()
            centroids = made.train(problem.single)
            fit = clock.lap()
        seconds = [] if said is None else said.between("Iteration ", _last_before(said.lines, "Iteration "))
        clock.lap()
        with printed_natively():  # where it did not prune, it says that it cannot here
            labels = made.assign_training_points(problem.single, centroids)
            label = clock.lap()
        return Solution(centroids, labels.astype(np.int64), fit[0], label[0], seconds, fit[1] + label[1])


def _last_before(lines: list[tuple[float, str]], mark: str) -> float | None:
    """When the last line before the first with a mark came."""
    last = None
    for when, line in lines:
        if mark in line:
            return last
        last = when
    return None


class DaskMl:
    """dask-ml's KMeans over an in-memory Dask array, a block a thread."""

    name = "dask-ml"
    package = "dask-ml"
    module = "dask_ml"
    same_start = True
    lloyd = True
    main = False
    note = "one BLAS thread a block, without which it is slower; its fit makes one pass more for the inertia"

    def solve(self, problem: Problem) -> Solution:
        """Solve it, timed."""
        import dask
        import dask.array
        from dask_ml.cluster import KMeans
        from threadpoolctl import threadpool_limits

        made = KMeans(problem.clusters, init=problem.start, max_iter=problem.iterations, tol=0)
        block = -(-len(problem.rows) // problem.threads)
        with (
            warnings.catch_warnings(),
            threadpool_limits(1),
            dask.config.set(scheduler="threads", num_workers=problem.threads),
            logged("dask_ml.cluster.k_means") as said,
        ):
            warnings.simplefilter("ignore")
            clock, began = Clock(), time.monotonic()
            made.fit(dask.array.from_array(problem.single, chunks=(block, problem.dims)))
            fit = clock.lap()
            labels = made.labels_.compute()
            label = clock.lap()
        starts = [when for when, line in said.lines if "Starting Lloyd loop" in line]
        seconds = said.between("Finished Lloyd loop", starts[0] if starts else began)
        return Solution(made.cluster_centers_, labels, fit[0], label[0], seconds, fit[1] + label[1])


class Fast:
    """fastkmeans, PyTorch on the CPU."""

    name = "fastkmeans"
    package = "fastkmeans"
    module = "fastkmeans"
    same_start = False
    lloyd = True
    main = False
    note = "PyTorch on the CPU; begins with rows of its own"

    def solve(self, problem: Problem) -> Solution:
        """Solve it, timed."""
        import torch
        from fastkmeans import FastKMeans

        torch.set_num_threads(problem.threads)
        made = FastKMeans(problem.dims, problem.clusters, niter=problem.iterations, tol=-1.0, gpu=False, verbose=True)
        with printed() as said:
            clock, began = Clock(), time.monotonic()
            made.train(problem.single)
            fit = clock.lap()
        labels = made.predict(problem.single)
        label = clock.lap()
        seconds = said.between("Iteration ", began)
        return Solution(made.centroids, labels, fit[0], label[0], seconds, fit[1] + label[1])


def contestants() -> list[Contestant]:
    """Everyone, ours first."""
    return [
        Ours(),
        Faiss(),
        ScikitLearn(),
        Super("SuperKMeans", "float32 with pruning; begins with rows of its own", main=True),
        Super("SuperKMeans BLAS", "float32 without pruning; begins with rows of its own", use_blas_only=True),
        Super(
            "SuperKMeans hierarchical",
            "two levels with 3 and 5 passes, its default; begins with rows of its own; approximate",
            lloyd=False,
            hierarchical=True,
        ),
        MiniBatch(),
        DaskMl(),
        Fast(),
    ]


def missing(contestant: Contestant) -> str | None:
    """Why one cannot take part here; None where it can."""
    module = getattr(contestant, "module", None)
    if module is not None and find_spec(module) is None:
        return f"{contestant.package} is not installed"
    return None


def versions(taking_part: list[Contestant]) -> dict[str, str]:
    """Of the packages that take part."""
    packages = sorted({one.package for one in taking_part})
    if "fastkmeans" in packages:
        packages.append("torch")
    return {package: metadata.version(package) for package in packages}
