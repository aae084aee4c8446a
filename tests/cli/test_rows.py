"""``streamcurate rows`` as it is typed."""

from __future__ import annotations

import json

import numpy as np
import pytest

from streamcurate.cli.main import main


@pytest.fixture
def lists(tmp_path, monkeypatch):
    """``a.npy`` 0 to 5, ``b.npy`` 4 to 7, and a store of ten rows with ids."""
    from frozen_trees import store_of

    monkeypatch.chdir(tmp_path)
    np.save("a.npy", np.arange(6))
    np.save("b.npy", np.arange(4, 8))
    store_of(tmp_path / "emb.zarr", np.ones((10, 2), dtype=np.float32), np.array([f"id {row}" for row in range(10)]))
    (tmp_path / "ids.txt").write_text("id 9\nid 4\n")
    return tmp_path


def test_says_what_was_combined(lists, capsys):
    assert main(["rows", "difference", "a.npy", "b.npy", "--out", "left.npy"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "a.npy: 6 rows",
        "b.npy: 4 rows",
        "left.npy: 4 rows, the difference",
    ]
    assert np.load("left.npy").tolist() == [0, 1, 2, 3]
    assert sorted(path.name for path in lists.iterdir()) == ["a.npy", "b.npy", "emb.zarr", "ids.txt", "left.npy"]


def test_ids_and_masks_of_a_store(lists, capsys):
    assert main(["rows", "union", "b.npy", "ids.txt", "--of", "emb.zarr", "--out", "all.csv", "--json"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out) == {
        "how": "union",
        "lists": [{"name": "b.npy", "rows": 4}, {"name": "ids.txt", "rows": 2}],
        "rows": 5,
        "out": "all.csv",
    }
    assert said.err == ""
    expected = "".join(f'{row},"id {row}"\n' for row in (4, 5, 6, 7, 9))
    assert (lists / "all.csv").read_text() == '"row","id"\n' + expected
    assert main(["rows", "intersection", "a.npy", "all.csv", "--of", "emb.zarr", "--out", "m.npy", "--mask"]) == 0
    assert np.flatnonzero(np.load("m.npy")).tolist() == [4, 5]


def test_one_list_takes_another_form(lists, capsys):
    assert main(["rows", "union", "ids.txt", "--of", "emb.zarr", "--out", "rows.npy"]) == 0
    assert capsys.readouterr().out.splitlines() == ["ids.txt: 2 rows", "rows.npy: 2 rows"]
    assert main(["rows", "difference", "emb.zarr", "a.npy", "b.npy", "ids.txt", "--out", "left.npy"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "left.npy: 1 row, the difference"
    assert np.load("left.npy").tolist() == [8]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["union", "a.npy", "ids.txt", "--out", "out.npy"], "of ids, name the store or the run with --of"),
        (["union", "a.npy", "absent.npy", "--out", "out.npy"], "absent.npy: no such file"),
        (["union", "a.npy", "b.npy", "--out", "out.json"], "its suffix is '.json'"),
        (["union", "a.npy", "b.npy", "--out", "out.npy", "--mask"], "name the store or the run with --of"),
        (["xor", "a.npy", "b.npy", "--out", "out.npy"], "'xor'"),
    ],
)
def test_what_cannot_be_ends_in_2(lists, capsys, arguments, told):
    before = sorted(lists.iterdir())
    assert main(["rows", *arguments]) == 2
    said = capsys.readouterr()
    assert told in said.err
    assert said.out == ""
    assert sorted(lists.iterdir()) == before
