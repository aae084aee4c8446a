"""``streamcurate assign`` as it is typed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import streamcurate as sc
from streamcurate.cli.main import main
from streamcurate.storage import create_array, create_group, open_array


def store_of(place: Path, values: np.ndarray) -> Path:
    create_group(place)
    create_array(place / "embeddings", values.shape, values.dtype, 32).write(0, values)
    return place


def rows(count: int, dims: int = 4) -> np.ndarray:
    return np.random.default_rng(count).standard_normal((count, dims)).astype(np.float32)


@pytest.fixture
def run(tmp_path) -> Path:
    sc.cluster(rows(100), tmp_path / "run", levels=[10, 2])
    return tmp_path / "run"


def test_labels_new_rows(run, tmp_path, capsys):
    new = store_of(tmp_path / "new.zarr", rows(70))
    out = tmp_path / "labels.zarr"
    assert main(["assign", str(run), str(new), "--out", str(out), "--threads", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{out}: 70 rows labelled at 2 levels"
    assert lines[1].startswith("novelty ")
    assert lines[1].endswith("the 99th percentile of the rows the tree was built from")
    assert len(lines) == 2
    expected = sc.assign(run, rows(70), tmp_path / "library.zarr")
    np.testing.assert_array_equal(open_array(out / "level-2" / "labels").read(0, 70), expected.labels(2)[:])


def test_as_json(run, tmp_path, capsys):
    new = store_of(tmp_path / "new.zarr", rows(70) + 5)
    out = tmp_path / "labels.zarr"
    assert main(["assign", str(run), str(new), "--out", str(out), "--json", "--scratch", str(tmp_path / "s")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["rows"], found["levels"], found["out"]) == (70, 2, str(out))
    (warning,) = found["warnings"]
    assert warning.endswith("lie farther out than 99 % of the rows the tree was built from; cluster anew")
    novelty = found["novelty"]
    assert novelty["share"] == novelty["novel"] / 70 > 0.9
    assert sum(one["rows"] for one in novelty["clusters"]["most_rows"]) == 70
    assert main(["inspect", str(out)]) == 0
    assert f"novelty {novelty['share']:.2%}: " in capsys.readouterr().out
    assert main(["inspect", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["novelty"] == novelty
    # The same line again has nothing to do.
    assert main(["assign", str(run), str(new), "--out", str(out), "--json"]) == 0
    said, noted = capsys.readouterr()
    assert json.loads(said) == found
    assert "finished already, nothing to do" in noted
    assert f"warning: {warning}" in noted


def test_labels_of_one_level(tmp_path, capsys):
    sc.cluster(rows(100), tmp_path / "run", levels=[10])
    store_of(tmp_path / "new.zarr", rows(70))
    assert main(["assign", *(str(tmp_path / name) for name in ("run", "new.zarr")), "--out", str(tmp_path / "l")]) == 0
    assert "70 rows labelled at 1 level\n" in capsys.readouterr().out


def refusal(tmp_path: Path, capsys: Any, arguments: list[Any]) -> str:
    before = sorted(tmp_path.rglob("*"))
    assert main([str(argument) for argument in arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1, err
    assert sorted(tmp_path.rglob("*")) == before
    return err


def test_refusals(run, tmp_path, capsys):
    new = store_of(tmp_path / "new.zarr", rows(70))
    wide = store_of(tmp_path / "wide.zarr", rows(9, 6))
    bad = rows(50)
    bad[44, 1] = -np.inf
    spoilt = store_of(tmp_path / "bad.zarr", bad)
    cut = store_of(tmp_path / "cut.zarr", rows(70))
    (cut / "embeddings" / "c" / "1" / "0").write_bytes(b"short")
    out = ["--out", tmp_path / "labels.zarr"]
    for arguments, said in (
        ([tmp_path / "gone", new, *out], "no run directory"),
        ([new, new, *out], "no run directory"),
        ([run, tmp_path / "gone.zarr", *out], "no such file or folder"),
        ([run, wide, *out], "has 6 dims, the tree in"),
        ([run, spoilt, *out], "first: row 44"),
        ([run, cut, *out], "chunk 1 (rows 32 to 63) is truncated"),
        ([run, new, "--out", new], "already exists"),
        ([run, new, "--out", tmp_path / "no" / "labels.zarr"], "no such folder"),
        ([run, new], "--out"),
        ([run, new, *out, "--memory-limit", "1MiB"], "smallest supported"),
    ):
        assert said in refusal(tmp_path, capsys, ["assign", *arguments])
