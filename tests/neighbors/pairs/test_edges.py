"""Edges at rest."""

from __future__ import annotations

import json

import numpy as np
import pytest

from streamcurate.errors import StoreError
from streamcurate.neighbors.pairs.edges import EdgeFile, write_edges, write_pairs


def edges(count: int) -> np.ndarray:
    pairs = np.random.default_rng(count).integers(0, 1 << 40, (count, 2))
    return np.stack([pairs.max(axis=1) + 1, pairs.min(axis=1)], axis=1)


@pytest.mark.parametrize("count", [0, 1, 7, 100])
def test_come_back_in_blocks(count, tmp_path):
    wanted = edges(count)
    file = write_edges(tmp_path / "edges.bin", wanted)
    blocks = list(file.blocks(rows=7))
    assert [len(block) for block in blocks] == [7] * (count // 7) + ([count % 7] if count % 7 else [])
    np.testing.assert_array_equal(np.concatenate([np.empty((0, 2), np.int64), *blocks]), wanted)
    assert file.count == count
    assert file.intact()


def test_written_in_blocks_they_are_the_same_file(tmp_path):
    wanted = edges(50)
    whole = write_edges(tmp_path / "whole.bin", wanted)
    pieces = write_pairs(tmp_path / "pieces.bin", (wanted[start : start + 9] for start in range(0, 50, 9)))
    assert (pieces.count, pieces.checksum) == (whole.count, whole.checksum)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pieces.bin", "whole.bin"]


def test_are_found_again_in_another_folder(tmp_path):
    write_edges(tmp_path / "edges.bin", edges(5))
    values = json.loads(json.dumps(write_edges(tmp_path / "edges.bin", edges(6)).to_values()))
    (tmp_path / "moved").mkdir()
    (tmp_path / "edges.bin").rename(tmp_path / "moved" / "edges.bin")
    found = EdgeFile.from_values(values, tmp_path / "moved")
    np.testing.assert_array_equal(next(found.blocks()), edges(6))


@pytest.mark.parametrize("damage", ["flip", "cut", "longer", "gone"])
def test_damage_is_told(damage, tmp_path):
    path = tmp_path / "edges.bin"
    file = write_edges(path, edges(20))
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[-1] ^= 1
    path.write_bytes({"cut": content[:-16], "longer": content + bytes(16)}.get(damage, content))
    if damage == "gone":
        path.unlink()
    assert not file.intact()
    with pytest.raises(StoreError, match=r"edges\.bin: scratch is gone or damaged"):
        list(file.blocks(rows=8))


def test_an_edge_goes_downwards(tmp_path):
    for wrong in ([[3, 3]], [[2, 1], [4, 5]]):
        with pytest.raises(ValueError, match="from a higher row to a lower one"):
            write_edges(tmp_path / "edges.bin", np.array(wrong))
    assert list(tmp_path.iterdir()) == []
