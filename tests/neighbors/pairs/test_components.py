"""Components out of core are those of a search through the graph."""

from __future__ import annotations

import json
import tempfile
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamcurate.errors import StoreError
from streamcurate.neighbors.pairs import components
from streamcurate.neighbors.pairs.components import Components, find_components, range_rows
from streamcurate.neighbors.pairs.edges import EdgeFile, write_edges, write_pairs


def searched(pairs: list[tuple[int, int]]) -> dict[int, int]:
    """Component of every row that has an edge, by walking the graph from its lowest rows."""
    beside: dict[int, set[int]] = {}
    for one, other in pairs:
        beside.setdefault(one, set()).add(other)
        beside.setdefault(other, set()).add(one)
    found: dict[int, int] = {}
    for row in sorted(beside):
        if row in found:
            continue
        waiting = [row]
        while waiting:
            here = waiting.pop()
            if here not in found:
                found[here] = row
                waiting.extend(beside[here])
    return found


def write(folder: Path, pairs: list[tuple[int, int]], files: int) -> list[EdgeFile]:
    ordered = np.array([(max(pair), min(pair)) for pair in pairs], dtype=np.int64).reshape(-1, 2)
    return [write_edges(folder / f"edges-{number}.bin", ordered[number::files]) for number in range(files)]


def check(folder: Path, pairs: list[tuple[int, int]], rows: int, span: int | None, files: int = 1) -> Components:
    found = find_components(
        write(folder, pairs, files), rows, folder / "out.bin", folder / "scratch", 1 << 20, span=span
    )
    records = np.concatenate([np.empty((0, 2), np.int64), *found.records.blocks()])
    wanted = searched(pairs)
    assert records.tolist() == [[row, wanted[row]] for row in sorted(wanted)]
    assert found.count == len(set(wanted.values()))
    return found


@st.composite
def graphs(draw: st.DrawFn) -> tuple[int, list[tuple[int, int]]]:
    rows = draw(st.integers(2, 60))
    row = st.integers(0, rows - 1)
    pairs = draw(st.lists(st.tuples(row, row).filter(lambda pair: pair[0] != pair[1]), max_size=80))
    return rows, pairs


@settings(max_examples=80, deadline=None)
@given(graphs(), st.integers(1, 64), st.integers(1, 3))
def test_random_graphs(graph, span, files):
    rows, pairs = graph
    with tempfile.TemporaryDirectory() as folder:
        check(Path(folder), pairs, rows, span, files)


ROWS = 200
ORDER = np.random.default_rng(7).permutation(ROWS).tolist()
SHAPES = {
    "path": [(row, row + 1) for row in range(ROWS - 1)],
    "shuffled path": [(ORDER[place], ORDER[place + 1]) for place in range(ROWS - 1)],
    "zigzag": [(row, ROWS - 1 - row) for row in range(ROWS // 2)]
    + [(row + 1, ROWS - 1 - row) for row in range(ROWS // 2 - 1)],
    "star at the lowest": [(0, row) for row in range(1, ROWS)],
    "star at the highest": [(ROWS - 1, row) for row in range(ROWS - 1)],
    "star in the middle": [(90, row) for row in range(ROWS) if row != 90],
    "clique": [(one, other) for one in range(0, ROWS, 5) for other in range(0, one, 5)],
    "two sides": [(one, other) for one in range(0, 100, 9) for other in range(100, ROWS, 9)],
    "pairs": [(row, row + 100) for row in range(100)],
    "nothing": [],
}


@pytest.mark.parametrize("span", [1, 17, 200])
@pytest.mark.parametrize("shape", SHAPES)
def test_shapes(shape, span, tmp_path):
    check(tmp_path, SHAPES[shape], ROWS, span)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["edges-0.bin", "out.bin", "scratch"]
    assert list((tmp_path / "scratch").iterdir()) == []


def test_the_file_depends_on_neither_ranges_nor_order(tmp_path):
    pairs = SHAPES["shuffled path"] + SHAPES["clique"]
    checksums = set()
    for span, order in ((1, 1), (13, -1), (200, 1), (7, -1)):
        checksums.add(check(tmp_path, pairs[::order], ROWS, span, files=2).records.checksum)
    assert len(checksums) == 1


def test_values_travel(tmp_path):
    found = check(tmp_path, SHAPES["pairs"], ROWS, None)
    assert Components.from_values(json.loads(json.dumps(found.to_values())), tmp_path) == found


def test_ranges_fit_into_memory():
    for rows in (1, 10, 10**6, 10**10):
        for memory in (1 << 20, 1 << 28):
            span = range_rows(rows, memory, 24)
            assert 24 * span <= memory
            assert -(-rows // span) * span < rows + -(-rows // span)  # none much shorter than the others


def test_rows_far_apart_cost_nothing(tmp_path):
    """Ten billion rows, of which a few have edges; ranges without any are passed over."""
    rows = 10**10
    far = np.sort(np.random.default_rng(3).integers(0, rows, 40))
    check(tmp_path, [(int(far[0]), int(row)) for row in far[1:]], rows, 1 << 14)


def test_memory_does_not_grow_with_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(components, "_BLOCK", 1 << 12)
    random = np.random.default_rng(1)
    peaks = []
    for number, rows in enumerate((1 << 14, 1 << 17)):
        pairs = (random.permutation(rows).reshape(-1, 2) for _ in range(1))
        ordered = (
            np.stack([part.max(axis=1), part.min(axis=1)], axis=1)[start : start + 1000]
            for part in pairs
            for start in range(0, rows // 2, 1000)
        )
        files = [write_pairs(tmp_path / f"edges-{number}.bin", ordered)]
        monkeypatch.setattr(EdgeFile.blocks, "__defaults__", (1000,))
        tracemalloc.start()
        found = find_components(files, rows, tmp_path / "out.bin", tmp_path / "scratch", 1 << 20, span=1 << 12)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert found.count == rows // 2
    assert peaks[1] < 1.5 * peaks[0]


@pytest.mark.parametrize("place", [40, 46, 47])
def test_damaged_edges_are_told(place, tmp_path):
    """Even where they would name a row far outside."""
    (file,) = write(tmp_path, SHAPES["path"], 1)
    content = bytearray((tmp_path / "edges-0.bin").read_bytes())
    content[place] ^= 0x41
    (tmp_path / "edges-0.bin").write_bytes(content)
    for span in (50, 500):
        with pytest.raises(StoreError, match="scratch is gone or damaged"):
            find_components([file], ROWS, tmp_path / "out.bin", tmp_path / "scratch", 1 << 20, span=span)
        assert not (tmp_path / "out.bin").exists()
