"""``streamcurate extend`` as it is typed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from frozen_trees import store_of

import streamcurate as sc
from streamcurate.cli.main import main
from streamcurate.curated import open_tree
from streamcurate.runs import Manifest


def rows(count: int, dims: int = 4) -> np.ndarray:
    return np.random.default_rng(count).standard_normal((count, dims)).astype(np.float32)


@pytest.fixture
def run(tmp_path) -> str:
    store = store_of(tmp_path / "a.zarr", rows(100), np.arange(100))
    sc.cluster(store, tmp_path / "run", levels=[10, 2])
    return str(tmp_path / "run")


@pytest.fixture
def new(tmp_path) -> str:
    return str(store_of(tmp_path / "b.zarr", rows(70) + np.float32(0.5), np.arange(70) + 500))


def test_from_rows_to_a_draw(run, new, tmp_path, capsys):
    out = str(tmp_path / "more")
    assert main(["extend", run, new, out, "--threads", "1", "--quiet"]) == 0
    said, warned = capsys.readouterr()
    tree = open_tree(out)
    lines = said.splitlines()
    assert lines[0] == f"{out}: 170 rows of 2 stores, digest {tree.digest}"
    assert lines[1] == tree.manifest.extension.novelty.told()
    assert len(warned.splitlines()) == len(tree.warnings)
    assert main(["sample", out, "--size", "120", "--out", str(tmp_path / "ids.txt")]) == 0
    ids = [int(line) for line in (tmp_path / "ids.txt").read_text().split()]
    assert len(set(ids)) == 120
    assert min(ids) < 100
    assert max(ids) >= 500
    capsys.readouterr()
    # The same line again has nothing to do.
    assert main(["extend", run, new, out, "--json"]) == 0
    said, noted = capsys.readouterr()
    assert "finished already, nothing to do" in noted
    found = json.loads(said)
    novelty = found.pop("novelty")
    assert found == {"rows": 170, "stores": 2, "digest": tree.digest, "out": out, "warnings": tree.warnings}
    assert novelty["share"] == novelty["novel"] / 70


def test_inspect(run, new, tmp_path, capsys):
    out = str(tmp_path / "more")
    assert main(["extend", run, new, out]) == 0
    capsys.readouterr()
    assert main(["inspect", out, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["kind"], found["complete"], found["digest"]) == ("run", True, open_tree(out).digest)
    assert [store["rows"] for store in found["extension"]["stores"]] == [100, 70]
    assert found["stores"] == [{"path": store["path"], "rows": store["rows"]} for store in found["extension"]["stores"]]
    assert found["extension"]["run"] == run
    assert found["extension"]["novelty"]["rows"] == 70
    assert found["levels"][0]["rows"] == 170
    assert main(["inspect", out]) == 0
    lines = [line.split(maxsplit=2) for line in capsys.readouterr().out.splitlines()]
    stores = [line for line in lines if line[0] == "store"]
    assert [line[1] for line in stores] == ["1", "2"]
    assert stores[1][2] == f"{new}: 70 rows of 4 dimensions, float32"
    assert any(line[:2] == ["extends", f"{run},"] for line in lines)
    manifest = Manifest.read(out)
    Manifest.begin_extension(manifest, manifest.extension).write(out)
    assert main(["inspect", out]) == 0
    assert "give the same extend command again to go on" in capsys.readouterr().out
    assert main(["inspect", run, "--json"]) == 0
    assert "extension" not in json.loads(capsys.readouterr().out)


def test_refusals(run, new, tmp_path, capsys):
    wide = str(store_of(tmp_path / "wide.zarr", rows(9, 6)))
    bad = rows(50)
    bad[44, 1] = -np.inf
    spoilt = str(store_of(tmp_path / "bad.zarr", bad, np.arange(50)))
    cut = store_of(tmp_path / "cut.zarr", rows(70), np.arange(70))
    (cut / "embeddings" / "c" / "1" / "0").write_bytes(b"short")
    out = str(tmp_path / "more")
    before = sorted(tmp_path.rglob("*"))
    for arguments, said in (
        ([str(tmp_path / "gone"), new, out], "no run directory"),
        ([run, str(tmp_path / "gone.zarr"), out], "no such file or folder"),
        ([run, wide, out], "has 6 dims, the tree in"),
        ([run, spoilt, out], 'first: row 44, id "44"'),
        ([run, str(cut), out], "chunk 1 (rows 32 to 63) is truncated"),
        ([run, new, run], "is a run that cluster made"),
        ([run, new, new], "is no run directory and not empty"),
        ([run, new], "OUT"),
        ([run, new, out, "--memory-limit", "1MiB"], "smallest supported"),
        ([run, new, out, "--scratch", str(tmp_path / "wide.zarr" / "zarr.json")], "is a file"),
    ):
        assert main(["extend", *arguments]) == 2
        told = capsys.readouterr()
        assert said in told.err
        assert (told.out, len(told.err.splitlines()[-1:])) == ("", 1)
        assert sorted(tmp_path.rglob("*")) == before, arguments


def test_cluster_is_refused_in_an_extended_run(run, new, tmp_path, capsys):
    out = str(tmp_path / "more")
    assert main(["extend", run, new, out]) == 0
    digest, files = open_tree(out).digest, sorted(Path(out).rglob("*"))
    assert main(["cluster", new, out, "--levels", "10,2"]) == 2
    assert f"is the run {run} extended by more rows" in capsys.readouterr().err
    assert open_tree(out).digest == digest
    assert sorted(Path(out).rglob("*")) == files
