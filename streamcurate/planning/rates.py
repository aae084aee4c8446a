"""How fast work goes: rates measured on this machine, kept in a file, or those of named hardware."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from streamcurate.errors import InputError
from streamcurate.files import placed_file

_FORMAT = 1
_MAY_BE_ZERO = {"again", "label_again", "pass_seconds", "level_seconds", "start_seconds"}
_SMALLEST = 1e-12


@dataclass(frozen=True)
class Rate:
    """A number and where it comes from: ``measured``, ``published`` or ``assumed``."""

    value: float
    unit: str
    origin: str
    source: str


@dataclass(frozen=True)
class FitRates:
    """How one kind of fit goes.

    Attributes
    ----------
    search : float
        FLOP/s of a pass that searches from nothing, 2 n k d over its time.
    label : float
        The same of a pass that only labels.
    again : float
        Time of an iteration that knows the labels before, as a share of one that does not: their mean.
    label_again : float
        The same share for the labels pass that follows the iterations.
    seeding : float
        Points times clusters times dims, over the seconds of seeding.
    iterations : float
        Expected until the tolerance is reached.
    pass_seconds : float
        Of a pass whatever its rows.
    """

    search: float
    label: float
    again: float
    label_again: float
    seeding: float
    iterations: float
    pass_seconds: float = 0.0


@dataclass(frozen=True)
class LevelRates:
    """Of one level.

    Attributes
    ----------
    first : FitRates
    resampled : FitRates or None
        Of the fits on resampled points.
    splits : float or None
        Rows/s of the fits within coarse clusters.
    statistics : float
        Bytes/s of the statistics pass.
    """

    first: FitRates
    resampled: FitRates | None
    splits: float | None
    statistics: float


@dataclass(frozen=True)
class Rates:
    """Of a machine, and of the levels of a configuration on it.

    Attributes
    ----------
    origin : str
        ``measured`` or ``assumed``.
    source : str
        Where and how.
    read, read_again : float
        Bytes/s of the store when it is read first, and later.
    write : float
        Bytes/s to the run's disk, flushed.
    take : float
        Scattered rows/s.
    members : float
        Rows/s sorted into members.
    digest : float
        Bytes/s.
    level_seconds, start_seconds : float
        What a level, and starting up, take whatever the rows.
    levels : tuple of LevelRates
    """

    origin: str
    source: str
    read: float
    read_again: float
    write: float
    take: float
    members: float
    digest: float
    level_seconds: float
    start_seconds: float
    levels: tuple[LevelRates, ...]

    def to_mapping(self) -> dict[str, Any]:
        """Plain values that JSON can hold."""
        return asdict(self)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write them for :func:`load_rates`."""
        content = json.dumps({"format": _FORMAT, "rates": self.to_mapping()}, indent=2, allow_nan=False)
        with placed_file(path) as file:
            file.write(f"{content}\n".encode())


def load_rates(path: str | os.PathLike[str], levels: int) -> Rates:
    """Rates that :meth:`Rates.save` wrote.

    Parameters
    ----------
    path : path
    levels : int
        Of the configuration they are wanted for.

    Raises
    ------
    InputError
        No such file, no rates, or those of a configuration with another number of levels.
    """
    try:
        content = json.loads(Path(path).read_bytes())
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); give a file that --calibrate wrote") from None
    except ValueError as error:
        raise InputError(f"{path}: is no JSON ({error}); give a file that --calibrate wrote") from None
    try:
        if content["format"] != _FORMAT:
            raise ValueError(f"format {content['format']}, not {_FORMAT}")
        values = content["rates"]
        found = _made(Rates, values | {"levels": tuple(_level(level) for level in values["levels"])})
        assert isinstance(found, Rates)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: holds no rates of this version ({error}); measure again with --calibrate") from None
    if len(found.levels) != levels:
        raise InputError(
            f"{path}: rates of {len(found.levels)} levels, and the configuration has {levels}; "
            "measure again with --calibrate"
        )
    return found


def _level(values: Mapping[str, Any]) -> LevelRates:
    resampled = values["resampled"]
    fits = {
        "first": _made(FitRates, values["first"]),
        "resampled": None if resampled is None else _made(FitRates, resampled),
    }
    found = _made(LevelRates, dict(values) | fits)
    assert isinstance(found, LevelRates)
    return found


def _made(kind: type[Any], values: Mapping[str, Any]) -> Any:
    unknown = set(values) - {field.name for field in fields(kind)}
    if unknown:
        raise ValueError(f"unknown key {sorted(unknown)[0]}")
    for field in fields(kind):
        value = values[field.name]
        if field.type == "float":
            least = 0.0 if field.name in _MAY_BE_ZERO else _SMALLEST
            if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value < math.inf:
                raise ValueError(f"{field.name} is {value!r}")
    return kind(**values)
