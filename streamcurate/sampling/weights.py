"""What a user says of single clusters: weights, caps and leasts, from a file or from Python."""

from __future__ import annotations

import csv
import difflib
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamcurate.embeddings.checks import suffix_of
from streamcurate.errors import ConfigError, InputError
from streamcurate.objects import exists, open_file
from streamcurate.sampling.hierarchy import Hierarchy
from streamcurate.sampling.weighted import LARGEST_WEIGHT, SMALLEST_WEIGHT

Int64 = NDArray[np.int64]
Float64 = NDArray[np.float64]

_KEYS = ("level", "cluster")
_VALUES = ("weight", "cap", "least")
_LARGEST = 2**62


@dataclass(frozen=True)
class OfCluster:
    """What is said of one cluster, and where: its weight (or NaN), its cap and its least (or -1)."""

    place: str
    weight: float
    cap: int
    least: int


@dataclass(frozen=True)
class LevelWeights:
    """What is said of the clusters of one level.

    Attributes
    ----------
    lines : ndarray of int64, shape (m,)
        Where each is said.
    clusters : ndarray of int64, shape (m,)
        Distinct.
    weights : ndarray of float64, shape (m,)
        NaN where nothing is said.
    caps, leasts : ndarray of int64, shape (m,)
        -1 where nothing is said.
    """

    lines: Int64
    clusters: Int64
    weights: Float64
    caps: Int64
    leasts: Int64

    @property
    def nothing(self) -> NDArray[np.bool_]:
        """Which of them give nothing: a weight or a cap of 0."""
        marks: NDArray[np.bool_] = (self.weights == 0) | (self.caps == 0)
        return marks

    def dense(self, name: str, clusters: int) -> Int64:
        """``caps`` or ``leasts`` of all clusters of the level."""
        values = np.full(clusters, -1, dtype=np.int64)
        values[self.clusters] = getattr(self, name)
        return values

    def dense_weights(self, clusters: int) -> Float64:
        """Weights of all clusters of the level, 1 where nothing is said."""
        values = np.ones(clusters)
        said = ~np.isnan(self.weights) & (self.weights > 0)
        values[self.clusters[said]] = self.weights[said]
        return values


@dataclass(frozen=True)
class ClusterWeights:
    """Weights, caps and leasts by level.

    Attributes
    ----------
    name : str
        How messages call where they come from.
    levels : mapping of int to LevelWeights
    in_file : bool
        Whether ``lines`` are those of a file; else positions in what was given.
    """

    name: str
    levels: Mapping[int, LevelWeights]
    in_file: bool

    @property
    def count(self) -> int:
        """Clusters of which something is said."""
        return sum(len(said.lines) for said in self.levels.values())

    def place(self, line: int) -> str:
        """``weights.csv: line 7``."""
        return f"{self.name}: {'line' if self.in_file else 'entry'} {line}"

    def of(self, level: int, cluster: int) -> OfCluster | None:
        """What is said of a cluster."""
        said = self.levels.get(level)
        found = np.flatnonzero(said.clusters == cluster) if said is not None else np.empty(0, dtype=np.int64)
        if said is None or not len(found):
            return None
        at = int(found[0])
        place = self.place(int(said.lines[at]))
        return OfCluster(place, float(said.weights[at]), int(said.caps[at]), int(said.leasts[at]))

    def check(self, hierarchy: Hierarchy) -> None:
        """Raise InputError where a level or a cluster does not exist."""
        for level, said in self.levels.items():
            if not 1 <= level <= hierarchy.depth:
                raise InputError(
                    f"{self.place(int(said.lines[0]))}: level {level} does not exist; the levels are 1 to "
                    f"{hierarchy.depth}, 1 above the rows"
                )
            clusters = hierarchy.clusters(level)
            bad = (said.clusters < 0) | (said.clusters >= clusters)
            if bad.any():
                at = int(np.argmax(bad))
                raise InputError(
                    f"{self.place(int(said.lines[at]))}: level {level} has no cluster {int(said.clusters[at])}; its "
                    f"clusters are 0 to {clusters - 1}"
                )


def read_weights(weights: Any) -> ClusterWeights:
    """Read weights, caps and leasts.

    Parameters
    ----------
    weights : path, mapping or sequence
        A .csv or .parquet file, or a mapping of columns, with the columns ``level``, ``cluster`` and any of ``weight``,
        ``cap`` and ``least``; a sequence of mappings with these keys; or a mapping of (level, cluster) to weights.
        Empty and missing values say nothing.

    Raises
    ------
    InputError
        It cannot be read, a column is missing or unknown, a value cannot be, or a cluster is named twice.
    """
    if isinstance(weights, ClusterWeights):
        return weights
    if isinstance(weights, (str, os.PathLike)):
        name, in_file = os.fspath(weights), True
        table, lines = _read_file(name)
    else:
        name, in_file = "weights", False
        table = _from_python(weights)
        lines = np.arange(1, table.num_rows + 1, dtype=np.int64)
    _check_columns(table.column_names, name)
    found = ClusterWeights(name, {}, in_file)
    level, cluster = (_whole_numbers(table[key], key, lines, found, needed=True) for key in _KEYS)
    absent = np.full(len(lines), -1, dtype=np.int64)
    columns = set(table.column_names)
    weight = _weights(table["weight"], lines, found) if "weight" in columns else np.full(len(lines), np.nan)
    cap = _whole_numbers(table["cap"], "cap", lines, found) if "cap" in columns else absent
    least = _whole_numbers(table["least"], "least", lines, found) if "least" in columns else absent
    _check_least(weight, cap, least, lines, found)
    order = np.lexsort((lines, cluster, level))
    twice = (np.diff(level[order]) == 0) & (np.diff(cluster[order]) == 0)
    if twice.any():
        one, other = order[np.argmax(twice)], order[np.argmax(twice) + 1]
        raise InputError(
            f"{found.place(int(lines[other]))}: cluster {int(cluster[other])} of level {int(level[other])} is named "
            f"already in {'line' if in_file else 'entry'} {int(lines[one])}; name each once"
        )
    levels = {}
    for number in np.unique(level).tolist():
        here = np.flatnonzero(level == number)
        levels[number] = LevelWeights(lines[here], cluster[here], weight[here], cap[here], least[here])
    return ClusterWeights(name, levels, in_file)


def _check_columns(names: Sequence[str], name: str) -> None:
    if missing := [key for key in _KEYS if key not in names]:
        raise InputError(
            f"{name}: no column {missing[0]!r}; the columns are level, cluster and any of weight, cap and least, and "
            f"it has {', '.join(names) or 'none'}"
        )
    for column in names:
        if column not in (*_KEYS, *_VALUES):
            near = difflib.get_close_matches(column, _VALUES, 1)
            hint = f"did you mean {near[0]!r}?" if near else "leave it out"
            raise InputError(f"{name}: column {column!r} is unknown; {hint}")
    if not set(_VALUES) & set(names):
        raise InputError(f"{name}: none of the columns weight, cap and least is there, so it says nothing; add one")
    if len(set(names)) < len(names):
        raise InputError(f"{name}: a column is there twice ({', '.join(names)}); leave one out")


def _check_least(weight: Float64, cap: Int64, least: Int64, lines: Int64, found: ClusterWeights) -> None:
    most = np.where(weight == 0, 0, np.where(cap < 0, _LARGEST, cap))
    if (least > most).any():
        at = int(np.argmax(least > most))
        limit = "a weight of 0 gives nothing" if weight[at] == 0 else f"its cap is {int(cap[at])}"
        raise InputError(f"{found.place(int(lines[at]))}: least {int(least[at])} cannot be met: {limit}; mend one")


def _weights(column: Any, lines: Int64, found: ClusterWeights) -> Float64:
    import pyarrow.compute as pc

    values, absent = _numbers(column, "weight", lines, found)
    said = np.asarray(pc.fill_null(values, 1.0), dtype=np.float64)
    with np.errstate(invalid="ignore"):
        bad = ~((said == 0) | ((said >= SMALLEST_WEIGHT) & (said <= LARGEST_WEIGHT)))
    if bad.any():
        at = int(np.argmax(bad))
        raise InputError(
            f"{found.place(int(lines[at]))}: weight {said[at]:g} cannot be; give 0 or a number from "
            f"{SMALLEST_WEIGHT:g} to {LARGEST_WEIGHT:g}"
        )
    return np.where(absent, np.nan, said)


def _whole_numbers(column: Any, name: str, lines: Int64, found: ClusterWeights, needed: bool = False) -> Int64:
    """A column of whole numbers, 0 or more; -1 where there is none."""
    import pyarrow as pa
    import pyarrow.compute as pc

    values, absent = _numbers(column, name, lines, found)
    if needed and absent.any():
        at = int(lines[np.argmax(absent)])
        raise InputError(f"{found.place(at)}: {name} is missing; say which cluster is meant")
    if pa.types.is_floating(values.type):  # a column of a spreadsheet with gaps
        said = np.asarray(pc.fill_null(values, 0.0), dtype=np.float64)
        bad = ~((said >= 0) & (said <= float(2**53)) & (said == np.floor(said)))
    else:
        said = np.asarray(pc.fill_null(values, 0))
        bad = (said < 0) | (said > _LARGEST)
    if bad.any():
        at = int(np.argmax(bad))
        raise InputError(
            f"{found.place(int(lines[at]))}: {name} {said[at]} cannot be; give a whole number from 0 to {_LARGEST}"
        )
    return np.where(absent, -1, said.astype(np.int64))


def _numbers(column: Any, name: str, lines: Int64, found: ClusterWeights) -> tuple[Any, NDArray[np.bool_]]:
    """A column as Arrow integers or floats, and where it has no value."""
    import pyarrow as pa
    import pyarrow.compute as pc

    values = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    wanted = pa.float64() if name == "weight" else pa.int64()
    if pa.types.is_string(values.type):  # of a CSV file: parsed here, where the line is known
        text = pc.utf8_trim_whitespace(values)
        values = pc.if_else(pc.equal(text, ""), pa.scalar(None, pa.string()), text)
        try:
            values = pc.cast(values, wanted)
        except pa.ArrowInvalid:
            _find_bad_text(values, name, wanted, lines, found)
    elif pa.types.is_null(values.type):
        values = pc.cast(values, wanted)
    elif name == "weight" and (pa.types.is_integer(values.type) or pa.types.is_floating(values.type)):
        values = pc.cast(values, wanted, safe=False)
    elif not (pa.types.is_integer(values.type) or pa.types.is_floating(values.type)):
        raise InputError(f"{found.name}: column {name!r} holds {values.type}; numbers are needed")
    return values, np.asarray(pc.is_null(values))


def _find_bad_text(values: Any, name: str, wanted: Any, lines: Int64, found: ClusterWeights) -> None:
    import pyarrow as pa
    import pyarrow.compute as pc

    for line, value in zip(lines.tolist(), values, strict=True):
        try:
            pc.cast(value, wanted)
        except pa.ArrowInvalid:
            kind = "number" if name == "weight" else "whole number"
            raise InputError(f"{found.place(line)}: {name} {value.as_py()!r} is no {kind}") from None


def _read_file(name: str) -> tuple[Any, Int64]:
    """The table, and the line of each of its rows (in a Parquet file, its number)."""
    import pyarrow
    import pyarrow.csv
    import pyarrow.parquet

    if not exists(name):
        raise InputError(f"{name}: no such file; check the path")
    suffix = suffix_of(name)
    if suffix not in (".csv", ".parquet"):
        raise InputError(f"{name}: weights of clusters are read from .csv or .parquet")
    try:
        with open_file(name) as file:
            if suffix == ".parquet":
                table = pyarrow.parquet.read_table(file)
                return table, np.arange(1, table.num_rows + 1, dtype=np.int64)
            content = file.read()
        # As text: numbers are parsed where the line of a bad one can be told.
        texts = {column: pyarrow.string() for column in (*_KEYS, *_VALUES)}
        options = pyarrow.csv.ConvertOptions(column_types=texts, strings_can_be_null=False)
        table = pyarrow.csv.read_csv(pyarrow.BufferReader(content), convert_options=options)
        lines = np.arange(2, table.num_rows + 2, dtype=np.int64)
        if content.count(b"\n") > table.num_rows + 1:  # empty lines were passed over, or a value goes over several
            lines = np.array(_first_lines(content)[1:], dtype=np.int64)
    except (pyarrow.ArrowException, csv.Error, OSError) as error:
        raise InputError(f"{name}: not a readable {suffix[1:].upper()} file ({error}); mend the file") from error
    return table, lines


def _first_lines(content: bytes) -> list[int]:
    """The line on which each record of a CSV file begins; empty lines are none."""
    lines, before = [], 0
    reader = csv.reader(io.StringIO(content.decode(errors="replace"), newline=""))
    for record in reader:
        if record:
            lines.append(before + 1)
        before = reader.line_num
    return lines


def _from_python(weights: Any) -> Any:
    import pyarrow as pa

    try:
        if isinstance(weights, pa.Table):
            return weights
        if isinstance(weights, Mapping) and not all(isinstance(key, str) for key in weights):
            pairs = list(weights)
            return pa.table(
                {
                    "level": [level for level, _ in pairs],
                    "cluster": [cluster for _, cluster in pairs],
                    "weight": pa.array(list(weights.values()), pa.float64()),
                }
            )
        if isinstance(weights, Mapping) or hasattr(weights, "columns"):  # columns, also those of a data frame
            return pa.table({name: pa.array(weights[name]) for name in weights})
        entries = list(weights)
        names: list[str] = list(dict.fromkeys(name for entry in entries for name in entry))
        return pa.table({name: pa.array([entry.get(name) for entry in entries]) for name in names})
    except (pa.ArrowException, TypeError, ValueError, OverflowError, AttributeError, KeyError) as error:
        raise ConfigError(
            f"weights: {error}; give a file, columns level, cluster and weight, cap or least, or a mapping of (level, "
            "cluster) to weights"
        ) from error
