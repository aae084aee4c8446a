"""What a mixture is asked to hold: parts, each from a source of its own, and the YAML file that says so."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from streamcurate.config.checks import inside, is_list, kind, known_keys, whole_number
from streamcurate.config.formats import read_yaml
from streamcurate.errors import ConfigError

# What tells the kinds of parts apart, and with it names the source (of a list: the list).
KINDS = ("draw", "retrieve", "all", "rows")
# Passed on to ``sample`` and ``retrieve`` as they are.
DRAW_OPTIONS = (
    "strategy",
    "multiplier",
    "seed",
    "include",
    "eligible",
    "allocation",
    "alpha",
    "least_rows",
    "least_rows_level",
    "weights",
    "outlier_share",
    "outlier_rows",
    "outlier_percentile",
)
RETRIEVE_OPTIONS = (
    "cosine",
    "l2",
    "nearest",
    "per_seed",
    "per_cluster",
    "least_seeds",
    "level",
    "subset",
    "metric",
)
_COMMON = ("name", "repeat")
_KEYS = {
    "draw": (*_COMMON, "draw", "size", "share", *DRAW_OPTIONS),
    "retrieve": (*_COMMON, "retrieve", "seeds", "size", "share", "short", *RETRIEVE_OPTIONS),
    "all": (*_COMMON, "all", "copies"),
    "rows": (*_COMMON, "rows", "of", "copies"),
}
_TOP_KEYS = ("seed", "size", "parts", "exclude")
_MOST = 2**62
_LARGEST_SEED = 2**64 - 1
# Decimals such as 0.333 and 0.667 are not meant more exactly than this.
_SHARES_ADD_UP = Fraction(1, 10**6)


@dataclass(frozen=True)
class Part:
    """One part of a mixture.

    Attributes
    ----------
    name : str
    kind : {"draw", "retrieve", "all", "rows"}
        A balanced draw from a run, the rows near seeds, a whole store, the rows of a list.
    source : str
        The run or store whose rows it takes.
    size : int or None
        Rows asked for, copies counted.
    share : Fraction or None
        Of what the parts without a share leave of the mixture's size.
    copies : int
        Of each row of a whole store or a list.
    repeat : bool
        Whether it may take rows that another part has.
    short : str or None
        Of retrieved rows: the part that is drawn larger where there are too few of them.
    listed : Any
        Of a list: the list.
    seeds : str or None
    options : mapping
        Passed on to ``sample`` or ``retrieve``.
    """

    name: str
    kind: str
    source: str
    size: int | None = None
    share: Fraction | None = None
    copies: int = 1
    repeat: bool = False
    short: str | None = None
    listed: Any = None
    seeds: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def open(self) -> bool:
        """Whether it gives what it has."""
        return self.size is None and self.share is None


@dataclass(frozen=True)
class Exclusion:
    """Rows that no part may take: a list, and the store or run that it is about."""

    rows: Any
    of: str


@dataclass(frozen=True)
class MixtureConfig:
    """A whole mixture.

    Attributes
    ----------
    parts : tuple of Part
    size : int or None
        Rows of the whole, copies counted.
    seed : int
    exclude : tuple of Exclusion
    origin : str
        Where it comes from; messages begin with it.
    """

    parts: tuple[Part, ...]
    size: int | None = None
    seed: int = 0
    exclude: tuple[Exclusion, ...] = ()
    origin: str = "mixture"

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> MixtureConfig:
        """Read a YAML or JSON file.

        Raises
        ------
        ConfigError
            The file is missing or unreadable, or something in it is wrong; the message names part and key.
        """
        return cls.from_mapping(read_yaml(path), os.fspath(path))

    @classmethod
    def from_mapping(cls, mapping: object, origin: str = "mixture") -> MixtureConfig:
        """Check and take over a mapping such as a file holds.

        Parameters
        ----------
        mapping : mapping
            Keys ``parts``, ``size``, ``seed``, ``exclude``. Paths are relative to the working directory; sources may
            also be trees and embeddings that have a path, lists of rows whatever ``subset`` takes.
        origin : str

        Raises
        ------
        ConfigError
            An unknown key (the near miss is named), a missing key, or a value out of range.
        """
        with inside(f"{origin}: "):
            if not isinstance(mapping, Mapping):
                raise ConfigError(f"holds {kind(mapping)}, not keys with values; it needs at least the key parts")
            known_keys(mapping, _TOP_KEYS)
            if mapping.get("parts") is None:
                raise ConfigError(
                    "the key parts is missing; give a list such as [{name: base, draw: run/, size: 1000}]"
                )
            if not is_list(mapping["parts"]) or not mapping["parts"]:
                what = "an empty list" if is_list(mapping["parts"]) else kind(mapping["parts"])
                raise ConfigError(f"parts: holds {what}; begin each part with '- name:'")
            size, seed = mapping.get("size"), mapping.get("seed", 0)
            parts = tuple(_part(f"parts[{index}]", value) for index, value in enumerate(mapping["parts"]))
            config = cls(
                parts,
                None if size is None else whole_number("size", size, 1, _MOST),
                whole_number("seed", seed, 0, _LARGEST_SEED),
                _exclusions(mapping.get("exclude")),
                origin,
            )
            _check_names(parts)
            _check_sizes(config)
            _check_short(config)
        return config

    def order(self) -> list[int]:
        """The parts' numbers in the order in which they take their rows.

        That of the file, those with a share after all others: a share is of what the others leave.
        """
        return sorted(range(len(self.parts)), key=lambda number: (self.parts[number].share is not None, number))

    def shares(self, left: int) -> dict[int, int]:
        """The rows of the parts with a share, by their numbers; they add up to ``left``."""
        numbers = [number for number, part in enumerate(self.parts) if part.share is not None]
        rows = apportion(left, [part.share for part in self.parts if part.share is not None])
        return dict(zip(numbers, rows, strict=True))


def apportion(total: int, shares: Sequence[Fraction]) -> list[int]:
    """Whole numbers in proportion to shares that add up to ``total``, by largest remainders; ties go to the first.

    Examples
    --------
    >>> apportion(10, [Fraction(1, 3), Fraction(1, 3), Fraction(1, 3)])
    [4, 3, 3]
    """
    if not shares:
        return []
    whole = sum(shares)
    exact = [total * share / whole for share in shares]
    rows = [int(value) for value in exact]
    remainders = sorted(range(len(shares)), key=lambda index: (rows[index] - exact[index], index))
    for index in remainders[: total - sum(rows)]:
        rows[index] += 1
    return rows


def _part(where: str, value: object) -> Part:
    if not isinstance(value, Mapping):
        raise ConfigError(f"{where}: holds {kind(value)}, not keys with values; write '- name: base' and 'draw: run/'")
    name = value.get("name")
    with inside(f"{where}{f' ({name})' if isinstance(name, str) else ''}: "):
        found = [key for key in KINDS if value.get(key) is not None]
        if not found:
            known_keys(value, dict.fromkeys(key for keys in _KEYS.values() for key in keys))
            raise ConfigError(
                "says not where its rows come from; give one of draw (a run), retrieve (a run or store, with seeds), "
                "all (a store), rows (a list, with of)"
            )
        if len(found) > 1:
            raise ConfigError(f"{found[0]}: stands beside {found[1]}; a part has one of the two: make two parts of it")
        what = found[0]
        if other := [key for key in value if key not in _KEYS[what] and any(key in keys for keys in _KEYS.values())]:
            raise ConfigError(f"{other[0]}: is not for a part with {what}; {_remedy(other[0], what)}")
        known_keys(value, _KEYS[what])
        if not isinstance(name, str) or not name.strip():
            raise ConfigError(f"name: {'is missing' if name is None else repr(name)}; give the part a name, as text")
        given = {key: entry for key, entry in value.items() if entry is not None}
        if "size" in given and "share" in given:
            raise ConfigError("size: stands beside share; give one of the two")
        if what == "draw" and "size" not in given and "share" not in given:
            raise ConfigError("size: is missing; say how many rows to draw (size), or which part of the whole (share)")
        if "short" in given and "size" not in given and "share" not in given:
            raise ConfigError(
                "short: is for a part with size or share; this one gives all that it finds, so leave it out"
            )
        options = DRAW_OPTIONS if what == "draw" else RETRIEVE_OPTIONS if what == "retrieve" else ()
        listed = what == "rows"
        return Part(
            name=name,
            kind=what,
            source=_place("of" if listed else what, given.get("of") if listed else given[what]),
            size=whole_number("size", given["size"], 1, _MOST) if "size" in given else None,
            share=_share(given["share"]) if "share" in given else None,
            copies=whole_number("copies", given.get("copies", 1), 1, _MOST),
            repeat=_switch("repeat", given.get("repeat", False)),
            short=None if "short" not in given else str(given["short"]),
            listed=given["rows"] if listed else None,
            seeds=_place("seeds", given.get("seeds")) if what == "retrieve" else None,
            options={key: given[key] for key in options if key in given},
        )


def _remedy(key: str, what: str) -> str:
    if key in ("size", "share"):
        return f"'{what}' gives all of its rows: leave {key} out, or cluster the store and draw from the run"
    if key == "copies":
        return "a draw has multiplier" if what == "draw" else "leave it out"
    holders = [holder for holder in KINDS if key in _KEYS[holder]]
    return f"it belongs to {' or '.join(holders)}: leave it out"


def _place(key: str, value: object) -> str:
    """A source as its path."""
    path = value if isinstance(value, (str, os.PathLike)) else getattr(value, "path", None)
    if value is None:
        raise ConfigError(f"{key}: is missing; give the path of a {'run' if key == 'draw' else 'store'}")
    if not isinstance(path, (str, os.PathLike)) or not os.fspath(path):
        raise ConfigError(
            f"{key}: {kind(value) if is_list(value) or isinstance(value, (str, int)) else type(value).__name__} is no "
            "path; give that of a store or a run, and ingest what is in memory first"
        )
    return os.fspath(path)


def _share(value: object) -> Fraction:
    try:
        # A float as its shortest decimal: 0.1 is a tenth.
        if isinstance(value, bool):
            raise ValueError
        found = Fraction(str(value).replace(" ", ""))
        if 0 < found <= 1:
            return found
    except (ValueError, ZeroDivisionError):
        pass
    raise ConfigError(f"share: {value!r} is not allowed; it must be a number above 0 and up to 1, such as 0.25 or 1/3")


def _switch(key: str, value: object) -> bool:
    if isinstance(value, bool):
        return value
    raise ConfigError(f"{key}: {value!r} is not allowed; it must be true or false")


def _exclusions(value: object) -> tuple[Exclusion, ...]:
    if value is None:
        return ()
    if not is_list(value):
        raise ConfigError(f"exclude: holds {kind(value)}, not a list; begin each entry with '- rows:' and 'of:'")
    assert isinstance(value, Sequence)
    return tuple(_exclusion(f"exclude[{index}]", entry) for index, entry in enumerate(value))


def _exclusion(where: str, value: object) -> Exclusion:
    if not isinstance(value, Mapping):
        raise ConfigError(
            f"{where}: holds {kind(value)}; say also which store its rows are of: {{rows: unwanted.npy, of: emb.zarr}}"
        )
    with inside(f"{where}: "):
        known_keys(value, ("rows", "of"))
        if value.get("rows") is None:
            raise ConfigError("rows: is missing; give the list of rows that no part may take")
        return Exclusion(value["rows"], _place("of", value.get("of")))


def _check_names(parts: Sequence[Part]) -> None:
    first: dict[str, int] = {}
    for number, part in enumerate(parts):
        if part.name in first:
            raise ConfigError(
                f"parts[{number}]: name: {part.name!r} is that of parts[{first[part.name]}], too; names tell the rows "
                "of the parts apart, so give each its own"
            )
        first[part.name] = number


def _check_sizes(config: MixtureConfig) -> None:
    shares = [part for part in config.parts if part.share is not None]
    fixed = sum(part.size for part in config.parts if part.size is not None)
    if shares and config.size is None:
        raise ConfigError(
            f"size: is missing, and {shares[0].name} has a share of it; give the rows of the whole mixture"
        )
    if config.size is None:
        return
    if fixed > config.size:
        raise ConfigError(
            f"size: {config.size:,}, and the sizes of the parts alone add up to {fixed:,}; raise size or lower theirs"
        )
    if shares:
        total = sum((part.share for part in shares if part.share is not None), Fraction(0))
        if abs(total - 1) > _SHARES_ADD_UP * len(shares):
            told = " + ".join(f"{float(part.share):g}" for part in shares if part.share is not None)
            would = ", ".join(f"{part.name}: {part.share / total}" for part in shares if part.share is not None)
            raise ConfigError(
                f"share: {told} add up to {float(total):g}, not to 1; shares are of what is left of size when the "
                f"parts without a share are counted (in these proportions: {would})"
            )
        if fixed == config.size:
            raise ConfigError(
                f"share: nothing is left of the {config.size:,} rows for {shares[0].name}: the sizes of the other "
                "parts take them all; raise size"
            )
    elif not any(part.open for part in config.parts) and fixed != config.size:
        raise ConfigError(
            f"size: {config.size:,}, and the sizes of the parts add up to {fixed:,}; leave the size of the whole out, "
            "or give a part a share instead of a size"
        )


def _check_short(config: MixtureConfig) -> None:
    order = config.order()
    names = {part.name: number for number, part in enumerate(config.parts)}
    for number, part in enumerate(config.parts):
        if part.short is None:
            continue
        with inside(f"parts[{number}] ({part.name}): short: "):
            target = names.get(part.short)
            if target is None or config.parts[target].kind != "draw":
                draws = [other.name for other in config.parts if other.kind == "draw"]
                raise ConfigError(
                    f"{part.short!r} is no part with draw; "
                    + (f"name one that is: {', '.join(draws)}" if draws else "there is none: leave it out")
                )
            if order.index(target) < order.index(number):
                raise ConfigError(
                    f"{part.short} takes its rows before {part.name} does, so that it cannot make up for it; "
                    f"put {part.name} before it, and give both a share or both a size"
                )
