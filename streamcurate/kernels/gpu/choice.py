"""Which route a search takes: the fastest on this device, measured on the first rows of each kind."""

from __future__ import annotations

from collections.abc import Hashable

TRIAL_ROWS = 2**14
"""Rows of one measurement: enough to fill any GPU."""

_TRIALS = 2  # of each route; the first one also pays for what is made once


class RouteChoice:
    """Seconds a row of each route, by kind of search; whatever is chosen, the results are the same.

    A measurement answers its rows for good, so no work is lost. Callers hold the device's session.

    Parameters
    ----------
    routes : tuple of str
        What there is, the one to take unmeasured first.
    """

    def __init__(self, routes: tuple[str, ...]) -> None:
        self._routes = routes
        self._seconds: dict[Hashable, dict[str, list[float]]] = {}

    @property
    def routes(self) -> tuple[str, ...]:
        """What can still be chosen."""
        return self._routes

    def settled(self, kind: Hashable) -> str | None:
        """The fastest route, or None while one is not measured."""
        if len(self._routes) == 1:
            return self._routes[0]
        if self.untried(kind) is not None:
            return None
        taken = self._seconds[kind]
        return min(self._routes, key=lambda route: min(taken[route]))

    def untried(self, kind: Hashable) -> str | None:
        """A route to measure; None where all are."""
        taken = self._seconds.get(kind, {})
        return next((route for route in self._routes if len(taken.get(route, ())) < _TRIALS), None)

    def record(self, kind: Hashable, route: str, seconds_per_row: float) -> None:
        """One measurement."""
        self._seconds.setdefault(kind, {}).setdefault(route, []).append(seconds_per_row)

    def forbid(self, route: str) -> None:
        """Never take a route again: it failed."""
        self._routes = tuple(other for other in self._routes if other != route)

    def measured(self) -> dict[Hashable, dict[str, float]]:
        """Seconds a row, the best of each route."""
        return {
            kind: {route: min(seconds) for route, seconds in taken.items()} for kind, taken in self._seconds.items()
        }
