"""What stages take: on this machine by measured rates, on named hardware by assumed ones."""

from __future__ import annotations

from dataclasses import dataclass

from streamcurate.planning.hardware import Hardware
from streamcurate.planning.likeness import seeding_time
from streamcurate.planning.rates import FitRates, LevelRates, Rate, Rates
from streamcurate.planning.stages import Stage
from streamcurate.streaming.ranges import Ranges
from streamcurate.tree.level import aligned_chunk_rows

PARTS = ("compute", "reading", "writing", "sums", "driver")
# A task is so many blocks; where it writes labels, so many of their chunks.
_BLOCK_ROWS, _BLOCK_BYTES = 1 << 16, 16 << 20
_WRITES_LABELS = ("labels", "split labels", "members")
_LABELS = ("resampling", "labels", "coarse labels")


@dataclass(frozen=True)
class Times:
    """Seconds of a stage, all its repetitions together.

    Attributes
    ----------
    expected, most : float
        With the iterations that are expected, and with all that are allowed.
    parts : dict of float
        Of the expected: compute, reading, writing, sums, driver. Some overlap.
    """

    expected: float
    most: float
    parts: dict[str, float]

    @property
    def bound_by(self) -> str:
        """The largest part."""
        return max(PARTS, key=lambda part: self.parts[part])


@dataclass(frozen=True)
class Place:
    """How a level's stages read on this machine.

    Attributes
    ----------
    first_read : bool
        Nothing has read the points before.
    cached : bool
        They stay in memory between passes, the system's cache included.
    threads : int
    """

    first_read: bool
    cached: bool
    threads: int


def expected_iterations(stage: Stage, rates: LevelRates) -> float:
    """Iterations of each fit of a stage."""
    if stage.iterations == 1:
        return 1.0
    return min(_fit_rates(stage, rates).iterations, float(stage.iterations))


def price_here(stage: Stage, rates: Rates, level: int, place: Place) -> Times:
    """Times of a stage of level ``level`` (0 first) on the machine the rates were measured on."""
    own = rates.levels[level]
    fits = _fit_rates(stage, own)
    iterations = expected_iterations(stage, own)
    parts = dict.fromkeys(PARTS, 0.0)
    compute, driver = _work(stage, own, fits, rates, iterations)
    more, _ = _work(stage, own, fits, rates, float(stage.iterations))
    # What is written on the way is not flushed; what stays is.
    flushed = 8.0 * stage.points if stage.name == "labels" else 0.0
    repeats = stage.fits * iterations
    parts["compute"], parts["driver"] = stage.fits * compute, stage.fits * driver
    cold = (stage.name == "statistics" and place.first_read) or not place.cached
    parts["reading"] = repeats * stage.read / (rates.read if cold else rates.read_again)
    parts["writing"] = repeats * ((stage.written - flushed) / rates.read_again + flushed / rates.write)
    if stage.name in ("members", "digest", "sample rows", "gather", "seeding"):
        # Measured as a whole, what is read and written included.
        parts["reading"] = parts["writing"] = 0.0
    scale = stage.iterations / iterations
    # Whoever computes copies what is read, too, where that is quick to come by.
    copying = 0.0 if cold else parts["reading"] / place.threads
    busy = parts["compute"] + copying
    waited = max(busy, parts["reading"] if cold else 0.0, parts["writing"])
    most = max(stage.fits * more + copying * scale, waited * (scale if waited > busy else 1.0))
    return Times(waited + parts["driver"], most + parts["driver"], parts)


def _fit_rates(stage: Stage, rates: LevelRates) -> FitRates:
    return rates.resampled if stage.resampled and rates.resampled is not None else rates.first


def _work(stage: Stage, level: LevelRates, fits: FitRates, rates: Rates, iterations: float) -> tuple[float, float]:
    """Seconds of computing, and of what the driver does alone, for one fit of a stage."""
    if stage.name == "statistics":
        return stage.points * stage.row_bytes / level.statistics, 0.0
    if stage.name in ("sample rows", "gather"):
        return stage.points / rates.take + stage.written / rates.read_again, 0.0
    if stage.name == "seeding":
        chosen = stage.clusters / rates.take
        if not stage.flop:
            return chosen, 0.0
        return seeding_time(fits, stage.points, stage.clusters, stage.dims) + chosen, 0.0
    if stage.name == "warm-up":
        return stage.flop / fits.search, 0.0
    if stage.name == "iterations":
        once = stage.flop / fits.search
        share = fits.again if stage.kept else 1.0
        searches = once * (1.0 + share * max(iterations - 1.0, 0.0))
        return searches + stage.tiles * fits.pass_seconds * iterations, 0.0
    if stage.name == "sums":
        return iterations * stage.read / level.statistics, 0.0
    if stage.name in _LABELS:
        once = fits.label_again * stage.flop / fits.search if stage.kept else stage.flop / fits.label
        return once + stage.tiles * fits.pass_seconds, 0.0
    if stage.name == "regroup":
        return stage.written / rates.write, 0.0
    if stage.name == "split fits":
        return stage.points / (level.splits or rates.members), 0.0
    if stage.name == "split labels":
        return 0.0, stage.points / rates.members
    if stage.name == "members":
        return 0.0, stage.points / rates.members + rates.level_seconds
    return 0.0, stage.read / rates.digest


def price_on(stage: Stage, hardware: Hardware, rates: LevelRates | None = None) -> Times:
    """Times of a stage on named hardware; iterations and pruning as measured, else all iterations in full."""
    iterations = float(stage.iterations) if rates is None else expected_iterations(stage, rates)
    seconds, parts = price_once(stage, hardware.workers, hardware.nodes, hardware.rates)
    share, most_share = 1.0, 1.0
    if rates is not None and stage.kept and not hardware.gpu and stage.name == "iterations":
        again = _fit_rates(stage, rates).again
        share = (1.0 + again * (iterations - 1.0)) / iterations
        most_share = (1.0 + again * (stage.iterations - 1.0)) / stage.iterations
    compute = parts["compute"]
    found = {name: value * stage.fits * iterations for name, value in parts.items()}
    found["compute"] *= share
    rest = seconds - parts["driver"]
    bounds = [max(compute * one, rest if compute < rest else 0.0) + parts["driver"] for one in (share, most_share)]
    return Times(stage.fits * iterations * bounds[0], stage.times * bounds[1], found)


def price_once(stage: Stage, workers: int, nodes: int, rates: dict[str, Rate]) -> tuple[float, dict[str, float]]:
    """Seconds of a stage done once on so many workers, and its parts.

    Computing and storage overlap, so that it takes the longer of the two; what the driver does by itself is added.
    """
    if stage.name == "digest":  # the driver alone
        parts = dict.fromkeys(PARTS, 0.0) | {"driver": stage.read / rates["digest"].value}
        return parts["driver"], parts
    tiles = stage.tiles
    tasks = count_tasks(stage, workers, nodes, rates)
    # A source of few blocks does not occupy all.
    compute = stage.flop / (min(workers, tasks) * rates["nearest"].value)
    # Every task's sums are written by the worker that made them and read by the one that adds them.
    touched = min(stage.points / tasks / stage.sums_clusters, 1.0)
    bandwidth = nodes * rates["storage"].value
    parts = {
        "compute": compute,
        "reading": stage.read / bandwidth,
        "writing": stage.written / bandwidth,
        "sums": tiles * 2.0 * tasks * stage.sums_bytes * touched / bandwidth,
        "driver": stage.driver_records / rates["merge"].value + tiles * tasks * rates["task"].value,
    }
    storage = parts["reading"] + parts["writing"] + parts["sums"]
    return max(compute, storage) + parts["driver"], parts


def count_tasks(stage: Stage, workers: int, nodes: int, rates: dict[str, Rate]) -> int:
    """Tasks of one pass, as the engine cuts them."""
    block = min(_BLOCK_ROWS, _BLOCK_BYTES // (2 * stage.row_bytes + 1))
    operations = int(stage.flop / stage.tiles / stage.points)
    granule = aligned_chunk_rows(stage.points, operations) if stage.name in _WRITES_LABELS else block
    ranges = Ranges(stage.points, granule, stage.row_bytes, operations, stage.sums_bytes)
    share = rates["storage"].value * nodes / workers
    row_seconds = max(operations / rates["nearest"].value, stage.read / stage.tiles / stage.points / share)
    count = 0
    while (piece := ranges.next(workers)) is not None:
        ranges.took(piece[1] - piece[0], (piece[1] - piece[0]) * row_seconds)
        count += 1
    return count
