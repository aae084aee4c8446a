"""What seeding asks of potentials: lower them by centres chosen among drawn candidates, or by many candidates at once.

All of it is integers, so that however it is computed gives the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from streamcurate.kernels.metric import Array, Int32, Int64


def one_after_the_other(function: Callable[[int], None], count: int) -> None:
    """``function`` of 0 to ``count`` - 1."""
    for number in range(count):
        function(number)


@dataclass(frozen=True)
class Means:
    """What potentials may use; none of it changes a result.

    Attributes
    ----------
    clusters, tries : int
        How many centres will be chosen, each among so many candidates.
    spare_bytes : int
        Memory that may be taken beyond what seeding is planned with, if it makes seeding faster.
    threads : int
    spread : callable
        ``spread(function, count)`` calls ``function`` of 0 to ``count`` - 1, in as many threads.
    """

    clusters: int
    tries: int
    spare_bytes: int = 0
    threads: int = 1
    spread: Callable[[Callable[[int], None], int], None] = one_after_the_other


class Trials(Protocol):
    """Potentials of all rows: the squared distance to the nearest centre so far, as integers."""

    def begin(self, row: int) -> None:
        """Make the first centre."""

    def running_sums(self) -> Int64:
        """Running sums of weight times potential, over the rows in their order; (n,) int64."""

    def potentials_of(self, rows: Int64) -> Int64:
        """The potentials of some rows."""

    def choose(self, candidates: Int64, limits: Int64, tries: int, most: int) -> Int64:
        """Make centres of the best of candidates.

        Parameters
        ----------
        candidates : (b,) int64
            Rows, taken in this order. Each one whose potential is above its limit by then is tried; of every ``tries``
            that are, the one that takes most off the weighted sum of potentials (the first of equals) becomes a centre.
        limits : (b,) int64
        tries : int
        most : int
            Centres after which to stop.

        Returns
        -------
        (at most ``most``,) int64
            The new centres. Candidates tried but too few for another centre are forgotten.
        """


class Search(Protocol):
    """Candidates laid out to lower many rows' potentials."""

    def lower(self, encoded: Array, potentials: Int64, nearest: Int32, first: int) -> None:
        """Lower rows' potentials to the smallest of their own and those to the candidates.

        Parameters
        ----------
        encoded : (m, d)
        potentials : (m,) int64
            Changed in place.
        nearest : (m,) int32
            The candidate of each row's potential, changed in place; earlier ones keep what they share.
        first : int
            Number of the first candidate; those before have lower numbers.
        """
