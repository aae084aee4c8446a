"""A report of a run at a URL, written to a URL."""

from __future__ import annotations

import pytest

import streamcurate as sc
from streamcurate.errors import InputError
from streamcurate.reports import report

pytest_plugins = ["object_store"]


def test_the_page_is_that_of_a_disk(made, tmp_path, object_store) -> None:
    tree = sc.open_tree(made / "run")
    for path in (made / "run").rglob("*"):
        if path.is_file():
            object_store.put(f"run/{path.relative_to(made / 'run')}", path.read_bytes())
    tree.sample(40).save(tmp_path / "draw.parquet")
    object_store.put("draw.parquet", (tmp_path / "draw.parquet").read_bytes())
    object_store.faults(0.05, seed=1)
    report(tree, tmp_path / "a.html", tmp_path / "draw.parquet")
    report(object_store.url("run"), object_store.url("a.html"), object_store.url("draw.parquet"))
    there, here = object_store.get("a.html").decode(), (tmp_path / "a.html").read_text(encoding="utf-8")
    there = there.replace(object_store.url("run"), str(made / "run"))
    assert there.replace(object_store.url("draw.parquet"), str(tmp_path / "draw.parquet")) == here


def test_a_web_server_takes_no_page(made) -> None:
    with pytest.raises(InputError, match="be written to"):
        report(made / "run", "https://example.org/a.html")
