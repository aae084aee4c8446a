"""A likeness of a fit: the engine's own code on a sample of the rows, with as many clusters as a little time allows.

How many iterations a fit takes depends mostly on how many rows there are to a cluster, and hardly on how many clusters:
the likeness keeps the former and gives up the latter. How fast an iteration goes depends on the number of clusters,
which is measured at the real one.
"""

from __future__ import annotations

import math
import time
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamcurate import kernels
from streamcurate.clustering.centroids import centre_vectors
from streamcurate.clustering.fit import fit
from streamcurate.clustering.iteration import AssignPass
from streamcurate.clustering.labelling import label_points
from streamcurate.clustering.passes import LabelPass
from streamcurate.config import Level
from streamcurate.planning.bench import Bench, TimeUpError, Working, measured_rows
from streamcurate.planning.centres import oversampling_seconds, seeding_seconds
from streamcurate.planning.rates import FitRates
from streamcurate.planning.stages import seeding_method
from streamcurate.runs.events import Event, IterationFinished, Seeded
from streamcurate.storage import create_array
from streamcurate.streaming import Output

# Rows to a cluster, at most: iterations hardly depend on more (text embeddings: 16 at 50, 20 at 100).
MOST_ROWS_A_CLUSTER = 100
_FEWEST_CLUSTERS = 24
# Later iterations are timed on so many rows to a cluster, from random seeds.
_PROFILE_ROWS, _PROFILE_ITERATIONS, _PROFILES = 8, 6, 3
# What is no more than so many times as large tells nothing new.
_LARGER = 1.5
_LARGEST_CENTROIDS = 1 << 23
_DIRECT_ROWS, _MOST_DIRECT_ROWS = 1024, 1 << 14
# Rates at so many times the clusters are alike; at any number, within this of each other.
_LIKE_CLUSTERS, _DIRECT_RANGE = 1.5, 2.0
# Of a fit's time: to learn how many iterations, how fast they go, seeding, and the search at the real size.
_LIKENESS_SHARE, _PROFILE_SHARE, _SEEDING_SHARE, _DIRECT_SHARE = 0.25, 0.9, 0.3, 0.05
# Times of seeding at other sizes, per row and centre, differed by no more than a factor of four (64 and 384 dims).
_SEEDING_RANGE = 5.0
# With more rows to a cluster fits take somewhat more iterations (64 dims: 14 at 50, 19 at 200; 22 at 2,000).
_MORE_ROWS_POWER, _MOST_MORE = 0.2, 1.25
# The whole fit is made where it takes no more than this share.
_EXACT_SHARE = 0.8


@dataclass(frozen=True)
class Seen:
    """What a likeness showed.

    Attributes
    ----------
    points, clusters : int
    seeding : float
        Seconds.
    iterations : list of float
        Seconds of each.
    finished : bool
        Whether it ran to its end.
    label, label_again : float
        Seconds of a pass that labels, from nothing and after the iterations.
    centroids : ndarray, shape (clusters, dims)
    kept : ndarray or None
        What resampling would keep.
    """

    points: int
    clusters: int
    seeding: float
    iterations: list[float]
    finished: bool
    label: float
    label_again: float
    centroids: NDArray[np.float32]
    kept: NDArray[Any] | None = None

    @property
    def again(self) -> float:
        """Later iterations as a share of the first, their mean."""
        return float(np.mean(self.iterations[1:])) / self.iterations[0] if len(self.iterations) > 1 else 1.0


def look(rows: NDArray[Any], level: Level, bench: Bench, keep: int = 0, seconds: float = math.inf) -> Seen | None:
    """Fit and label these rows; None where time was up before two iterations were made."""
    events: list[Event] = []
    around = bench.around(events.append)
    measured = measured_rows(rows, bench, around)
    working = Working()
    finished, kept, label, again = False, None, math.nan, math.nan
    centroids = np.empty((0, rows.shape[1]), dtype=np.float32)
    limit = bench.watch.until(time.monotonic() + seconds) if seconds < math.inf else nullcontext()
    with suppress(TimeUpError), limit:
        found = fit(measured, level, around)
        finished = True
        centroids = found.centroids.read(0, level.clusters)
        outputs = [
            Output(create_array(bench.folder / name, (len(rows),), kind, 1 << 20, durable=False, overwrite=True), -1)
            for name, kind in (("labels", np.int32), ("distances", np.float32))
        ]
        work = LabelPass(bench.metric, measured.inertia, level.clusters)
        began = time.monotonic()
        label_points(measured, found.centroids, work, around, outputs, found.kept)
        again = time.monotonic() - began
        if found.kept is not None:
            found.kept.close()
        work = replace(work, keep=keep, writes=())
        began = time.monotonic()
        labelled = label_points(measured, found.centroids, work, around)
        label = time.monotonic() - began
        if labelled.selection is not None:
            chosen, _ = labelled.selection.finalize()
            kept = rows[np.sort(chosen)]
    share = working.share
    seeding = share * sum(event.seconds for event in events if isinstance(event, Seeded))
    iterations = [share * event.seconds for event in events if isinstance(event, IterationFinished)]
    if len(iterations) < min(2, level.iterations) and not finished:
        return None
    again = iterations[-1] if math.isnan(again) else share * again
    label = iterations[0] if math.isnan(label) else share * label
    return Seen(len(rows), level.clusters, seeding, iterations, finished, label, again, centroids, kept)


def fit_rates(
    rows: NDArray[Any],
    points: int,
    level: Level,
    bench: Bench,
    seconds: float,
    keep: int = 0,
    alike: NDArray[Any] | None = None,
) -> tuple[FitRates, Seen]:
    """Rates of a fit of ``level.clusters`` clusters over so many points, from rows like them.

    Parameters
    ----------
    rows : ndarray, shape (m, dims)
        In random order; at most ``points`` of them are used.
    points : int
    level : Level
    bench : Bench
    seconds : float
        To spend, about.
    keep : int
        Rows of each cluster that the likeness is to keep as resampling would.
    alike : ndarray, shape (m, dims), optional
        More rows that seeding is timed on in place of ``rows`` where these are fewer than the points.
    """
    began = time.monotonic()
    dims, wanted = rows.shape[1], level.clusters
    method = seeding_method(level.init, points, wanted, dims)
    plain = replace(level, splits=1, fit_rows=None, resampling=None, search="exact")
    if method != "all rows":
        plain = replace(plain, init=method)
    seen = _largest_likeness(rows, points, plain, bench, seconds, keep)
    exact = seen.clusters == wanted and seen.points == points
    profile = seen if exact else _profile(rows, points, plain, bench, seen, _PROFILE_SHARE * seconds)
    prepare = _prepare_seconds(rows, min(profile.clusters, len(rows)), bench)
    search = _flop(profile.points, profile.clusters, dims) / max(profile.iterations[0] - prepare, 1e-6)
    label = search * profile.iterations[0] / max(profile.label, 1e-6)
    pass_seconds = prepare * wanted / profile.clusters
    if profile.clusters * _LIKE_CLUSTERS < wanted:
        count = int(_DIRECT_SHARE * seconds * search / (2.0 * wanted * dims))
        few = rows[-max(min(count, len(rows), _MOST_DIRECT_ROWS), _DIRECT_ROWS) :]
        faster = _direct(few, rows, wanted, bench) / _direct(few, rows, profile.clusters, bench)
        faster = min(max(faster, 1.0 / _DIRECT_RANGE), _DIRECT_RANGE)
        search, label = search * faster, label * faster
    # All passes over the rows and the choice among candidates grow with their product.
    whole = seen.seeding * _products(points, wanted, 1) / _products(seen.points, seen.clusters, 1)
    if method in ("k-means++", "k-means||") and not exact:
        # Measured at the real number of rows, for whose distances caches are too small; within what can be believed.
        timed = rows if alike is None or len(rows) >= min(points, len(alike)) else alike
        time_it = seeding_seconds if method == "k-means++" else oversampling_seconds
        left = seconds - (time.monotonic() - began)  # the longer, the less there is to foretell
        real_rows = time_it(timed, points, wanted, bench, max(_SEEDING_SHARE * seconds, min(1.0, seconds), left))
        least = 0.0 if method == "k-means||" else whole / _SEEDING_RANGE
        whole = min(max(real_rows, least), whole * _SEEDING_RANGE)
    iterations = float(len(seen.iterations))
    if not seen.finished:  # cut off by the clock, not by the tolerance
        iterations *= 2.0
    elif not exact:
        fuller = (points / wanted) / (seen.points / seen.clusters)
        iterations *= min(max(fuller, 1.0) ** _MORE_ROWS_POWER, _MOST_MORE)
    return (
        FitRates(
            search=search,
            label=label,
            again=min(profile.again, 1.0),
            label_again=min(profile.label_again / profile.iterations[0], 1.0),
            seeding=_products(points, wanted, dims) / max(whole, 1e-4),
            iterations=min(max(iterations, 1.0), float(level.iterations)),
            pass_seconds=pass_seconds,
        ),
        seen,
    )


def seeding_time(rates: FitRates, points: int, clusters: int, dims: int) -> float:
    """Seconds of seeding at these rates."""
    return _products(points, clusters, dims) / rates.seeding


def _largest_likeness(rows: NDArray[Any], points: int, level: Level, bench: Bench, seconds: float, keep: int) -> Seen:
    """Likenesses growing by what the one before took, up to the fit itself where there is time for it."""
    wanted = level.clusters
    ratio = min(points / wanted, MOST_ROWS_A_CLUSTER)
    most = min(wanted, max(int(len(rows) / ratio), 1))
    clusters, count = min(_FEWEST_CLUSTERS, most), 0
    began = time.monotonic()
    best: Seen | None = None
    while True:
        count = count or min(points, len(rows), max(math.ceil(clusters * ratio), clusters))
        # The first and smallest is always finished.
        allowed = math.inf if best is None else max(1.5 * seconds - (time.monotonic() - began), 0.0)
        working = Working()
        found = look(rows[:count], replace(level, clusters=clusters), bench, keep, allowed)
        spent = working.seconds
        if found is not None and (found.finished or best is None):
            best = found
        assert best is not None
        if found is None or not found.finished or (clusters == wanted and count == points):
            return best
        # Larger fits take less for their size, so that this is enough.
        whole = spent * points * wanted / (count * clusters)
        gone = time.monotonic() - began
        if points <= len(rows) and whole + gone < _EXACT_SHARE * seconds:
            clusters, count = wanted, points
            continue
        left = max(_LIKENESS_SHARE * seconds - gone, 0.0)
        larger = min(most, int(clusters * min(math.sqrt(left / max(spent, 1e-3)), 8.0)))
        if larger < 1.4 * clusters:
            return best
        clusters, count = larger, 0


def _profile(rows: NDArray[Any], points: int, level: Level, bench: Bench, seen: Seen, seconds: float) -> Seen:
    """The first iterations at the real number of clusters, or at as many as there is time for.

    Over as many rows as there is time for: the more, the more the later iterations are like those of the fit, and the
    less counts what a pass takes whatever its rows. How many those are, each profile tells for the next.
    """
    most = min(len(rows), points)
    wanted = max(min(level.clusters, len(rows) // _PROFILE_ROWS), seen.clusters)
    each = seen.iterations[0] / (seen.points * seen.clusters)
    passes = 1.0 + (_PROFILE_ITERATIONS - 1) * seen.again + 2.0
    affordable = math.sqrt(seconds / (_PROFILE_ROWS * each * passes))
    clusters = max(min(wanted, int(affordable)), seen.clusters)
    count = min(most, max(_PROFILE_ROWS * clusters, int(seconds / (each * clusters * passes))))
    found, left = seen, seconds
    for _ in range(_PROFILES):
        if count * clusters < _LARGER * found.points * found.clusters:
            break
        short = replace(level, clusters=clusters, init="random", iterations=_PROFILE_ITERATIONS, tolerance=0.0)
        working = Working()
        made = look(rows[:count], short, bench, seconds=3.0 * seconds)
        if made is None:
            break
        found = made
        left -= working.seconds
        affordable = max(left, 0.0) / max(working.seconds, 1e-3) * count * clusters
        clusters = max(min(wanted, int(math.sqrt(affordable / _PROFILE_ROWS))), 1)
        count = min(most, int(affordable / clusters))
    return found


def _direct(few: NDArray[Any], rows: NDArray[Any], clusters: int, bench: Bench) -> float:
    """FLOP/s of a search for a few rows among so many others; beyond a size that of the largest."""
    dims = rows.shape[1]
    clusters = max(min(clusters, len(rows), _LARGEST_CENTROIDS // dims), 1)
    around = bench.around(lambda event: None)
    measured = measured_rows(few, bench, around)
    centroids = centre_vectors(rows[:clusters], bench.metric)
    work = AssignPass(bench.metric, measured.fixed_point, measured.inertia, clusters)
    prepare = _prepare_seconds(rows, clusters, bench)
    working = Working()
    bench.executor.run(work, measured.points, {"centroids": centroids})
    return _flop(len(few), clusters, dims) / max(working.seconds - prepare, 1e-5)


def _prepare_seconds(rows: NDArray[Any], clusters: int, bench: Bench) -> float:
    centroids = centre_vectors(rows[: max(min(clusters, _LARGEST_CENTROIDS // rows.shape[1]), 1)], bench.metric)
    working = Working()
    kernels.prepare_centroids(centroids, bench.metric)
    return working.seconds * clusters / len(centroids)


def _flop(points: int, clusters: int, dims: int) -> float:
    return 2.0 * points * clusters * dims


def _products(points: int, clusters: int, dims: int) -> float:
    """What seeding is measured in, whatever its method."""
    return float(points) * clusters * dims
