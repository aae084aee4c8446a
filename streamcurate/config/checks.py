"""Checks of single values and keys; each raises a :class:`ConfigError` that says what would be right."""

from __future__ import annotations

import difflib
import operator
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from streamcurate.errors import ConfigError


def whole_number(key: str, value: object, lowest: int, highest: int, fix: str = "") -> int:
    """``value`` as an int: ints of any library, and text such as ``100_000``. A bool is none."""
    number: int | None = None
    if isinstance(value, str):
        # At most 30 digits: no key takes more, and Python refuses to read thousands of them.
        if re.fullmatch(r"[+-]?[0-9][0-9_]{,30}", value):
            number = int(value.replace("_", ""))
    elif isinstance(value, float):
        if value.is_integer():
            fix = f"write {int(value)}"
    elif not isinstance(value, bool):
        try:
            number = operator.index(value)  # type: ignore[arg-type]
        except TypeError:
            number = None
    if number is None or not lowest <= number <= highest:
        raise ConfigError(_refusal(key, value, f"a whole number from {lowest:,} to {highest:,}", fix))
    return number


def share(key: str, value: object, fix: str = "") -> float:
    """``value`` as a float from 0 to below 1: numbers of any library, and text such as ``1e-4``."""
    number: float | None = None
    if not isinstance(value, bool):
        try:
            number = float(value)  # type: ignore[arg-type]
        except (TypeError, ValueError, OverflowError):
            number = None
    if number is None or not 0 <= number < 1:
        raise ConfigError(_refusal(key, value, "a number from 0 to below 1", fix))
    return number


def choice(key: str, value: object, allowed: Sequence[str]) -> str:
    """``value`` as one of the ``allowed`` words."""
    if isinstance(value, str) and value in allowed:
        return value
    near = difflib.get_close_matches(str(value).lower(), allowed, 1)
    raise ConfigError(_refusal(key, value, " or ".join(allowed), f"did you mean {near[0]}?" if near else ""))


def known_keys(mapping: Mapping[Any, Any], allowed: Collection[str]) -> None:
    """Refuse a key that is not ``allowed``, naming the near miss."""
    for key in mapping:
        if key not in allowed:
            near = difflib.get_close_matches(str(key), allowed, 1)
            guess = f"did you mean {near[0]}?" if near else f"known keys: {', '.join(allowed)}"
            raise ConfigError(f"{key}: unknown key; {guess}")


def is_list(value: object) -> bool:
    """Whether ``value`` is a list as a file gives it."""
    return isinstance(value, list | tuple)


def kind(value: object) -> str:
    """What ``value`` is, for a message: "nothing", "a list", or the value itself."""
    if value is None:
        return "nothing"
    return "a list" if is_list(value) else repr(value)


@contextmanager
def inside(prefix: str) -> Iterator[None]:
    """Begin the messages of errors raised inside with the place they are about."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"{prefix}{error}") from error


def _refusal(key: str, value: object, allowed: str, fix: str) -> str:
    return f"{key}: {value!r} is not allowed; it must be {allowed}" + (f"; {fix}" if fix else "")
