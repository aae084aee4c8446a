"""The pools: rows that lie unevenly in known groups."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import as_file, files

import numpy as np
from numpy.typing import NDArray

from streamcurate.config import Config, Level, Resampling

# Refits of each level: the published figures come from ten fits, the first one counted.
STEPS = 9

RING_COUNTS = (20_000, 200, 1_000, 500, 8_000)
_RING_CENTRES = ((-3.0, 1.3), (0.0, 1.3), (3.0, 1.3), (-1.5, -1.3), (1.5, -1.3))
# Standard deviation of the radius, which is 1.
_RING_WIDTH = 0.06

# Of digit d, max(5, floor(170 × 0.62^d)) images: 444 in all, divergence 0.589.
_LARGEST_DIGIT, _DIGIT_RATIO, _SMALLEST_DIGIT = 170, 0.62, 5


@dataclass(frozen=True, eq=False)
class Pool:
    """Rows to curate, and what they are known to be.

    Attributes
    ----------
    name : str
        Of its folder.
    title : str
        For people.
    rows : ndarray of float32, shape (n, dims)
    ids : tuple of str
        One for each row, or none at all.
    groups : ndarray of int64, shape (n,)
        The group of each row: what a balanced draw should even out, though it never sees it.
    group_names : tuple of str
    group_word : str
        What a group is.
    config : Config
    size : int
        Rows to draw.
    """

    name: str
    title: str
    rows: NDArray[np.float32]
    ids: tuple[str, ...]
    groups: NDArray[np.int64]
    group_names: tuple[str, ...]
    group_word: str
    config: Config
    size: int

    def counts(self, rows: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
        """Rows of each group, among all or among the given ones; int64 (groups,)."""
        groups = self.groups if rows is None else self.groups[rows]
        return np.bincount(groups, minlength=len(self.group_names))


def rings(seed: int = 0) -> Pool:
    """Five rings in the plane, alike but for the number of their points: 20,000, 200, 1,000, 500 and 8,000."""
    # The stream of RandomState is the same in every version of NumPy, so an earlier demo's store stays up to date.
    random = np.random.RandomState(0)
    parts = []
    for count, centre in zip(RING_COUNTS, _RING_CENTRES, strict=True):
        angle = random.uniform(0, 2 * np.pi, count)
        radius = 1 + random.normal(0, _RING_WIDTH, count)
        parts.append(np.stack([np.cos(angle), np.sin(angle)], axis=1) * radius[:, None] + centre)
    return Pool(
        name="rings",
        title="five rings",
        rows=np.concatenate(parts).astype(np.float32),
        ids=(),
        groups=np.repeat(np.arange(len(RING_COUNTS)), RING_COUNTS),
        group_names=tuple(f"ring {number}" for number in range(1, len(RING_COUNTS) + 1)),
        group_word="ring",
        config=Config(
            (Level(1000, resampling=Resampling(STEPS, 15)), Level(300, resampling=Resampling(STEPS, 2))), seed=seed
        ),
        size=1000,
    )


def digits(seed: int = 0) -> Pool:
    """Handwritten digits with a long tail: 170 zeros, 105 ones, ... 5 nines, the first ones in the data set's order."""
    images, labels = load_digits()
    wanted = [max(_SMALLEST_DIGIT, int(_LARGEST_DIGIT * _DIGIT_RATIO**digit)) for digit in range(10)]
    taken = np.sort(np.concatenate([np.flatnonzero(labels == digit)[: wanted[digit]] for digit in range(10)]))
    resampled = ((100, 3), (40, 2), (20, 2))
    return Pool(
        name="digits",
        title="handwritten digits with a long tail",
        rows=images[taken].astype(np.float32),
        ids=tuple(f"image {row:04d}, a {labels[row]}" for row in taken),
        groups=labels[taken],
        group_names=tuple(str(digit) for digit in range(10)),
        group_word="digit",
        config=Config(tuple(Level(k, resampling=Resampling(STEPS, rows)) for k, rows in resampled), seed=seed),
        size=100,
    )


def load_digits() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The handwritten digits that come with the package; ``digits/ATTRIBUTION.md`` says where they come from.

    Returns
    -------
    images : ndarray of uint8, shape (1797, 64)
        8 × 8 pixels, values 0 to 16.
    labels : ndarray of int64, shape (1797,)
    """
    arrays = []
    for name in ("images.npy", "labels.npy"):
        with as_file(files("streamcurate") / "demo" / "digits" / name) as path:
            arrays.append(np.load(path, allow_pickle=False))
    return arrays[0], arrays[1].astype(np.int64)


POOLS: tuple[Callable[[], Pool], ...] = (rings, digits)
