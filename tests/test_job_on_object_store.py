"""The main job by its commands, from and to an object store that fails: the same tree and files as on a local disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dask
import numpy as np
import pyarrow.parquet as pq
import pytest

import streamcurate as sc
from streamcurate.cli.main import main

pytest_plugins = ["object_store"]

ROWS, DIMS, SHARD = 6_000, 24, 850
LEVELS = """
metric: l2
seed: 5
levels:
  - {clusters: 60, iterations: 4, resampling: {steps: 1, rows_per_cluster: 20}}
  - {clusters: 12, iterations: 4, resampling: {steps: 2, rows_per_cluster: 3}}
"""


def command(*arguments: object) -> None:
    assert main([str(argument) for argument in arguments]) == 0, arguments


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> Path:
    """Shards of rows, and their ids."""
    folder = tmp_path_factory.mktemp("sources")
    generator = np.random.default_rng(3)
    centres = generator.standard_normal((40, DIMS)) * 3
    rows = (centres[generator.integers(0, 40, ROWS)] + generator.standard_normal((ROWS, DIMS))).astype(np.float16)
    for number, start in enumerate(range(0, ROWS, SHARD)):
        np.save(folder / f"part-{number}.npy", rows[start : start + SHARD])
    (folder / "ids.txt").write_text("".join(f"img_{row:05d}\n" for row in range(ROWS)))
    (folder / "levels.yaml").write_text(LEVELS)
    return folder


def whole_job(sources: str, levels: Path, place: str, *options: str) -> str:
    """Ingest, cluster, sample, assign; the digest."""
    command(
        "ingest", f"{sources}/part-*.npy", f"{place}/emb.zarr", "--ids", f"{sources}/ids.txt",
        "--rows-per-chunk", 500, "--quiet",
    )  # fmt: skip
    command("cluster", f"{place}/emb.zarr", f"{place}/run", "--config", levels, "--quiet", *options)
    for name in ("curated.parquet", "curated.npy", "curated.txt"):
        command("sample", f"{place}/run", "--size", 700, "--out", f"{place}/{name}", "--quiet")
    command("assign", f"{place}/run", f"{place}/emb.zarr", "--out", f"{place}/labels.zarr", "--quiet", *options)
    tree = sc.open_tree(f"{place}/run")
    assert tree.digest is not None
    return tree.digest


@pytest.fixture(scope="module")
def local(sources, tmp_path_factory) -> tuple[Path, str]:
    place = tmp_path_factory.mktemp("local")
    return place, whole_job(str(sources), sources / "levels.yaml", str(place))


def fill(bucket: Any, sources: Path) -> None:
    for path in sources.iterdir():
        bucket.put(f"in/{path.name}", path.read_bytes())


def contents(bucket: Any, prefix: str) -> dict[str, bytes]:
    return {name.removeprefix(prefix): bucket.get(name) for name in bucket.objects(prefix)}


@pytest.mark.parametrize("options", [(), ("--workers", "2")], ids=["here", "workers"])
def test_main_job(object_store, sources, local, tmp_path, monkeypatch, options):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    fill(object_store, sources)
    faults = object_store.faults(0.05, seed=8)
    # Processes forked from a server that another test started would not see this test's environment.
    with dask.config.set({"distributed.worker.multiprocessing-method": "spawn"}):
        digest = whole_job(object_store.url("in"), sources / "levels.yaml", object_store.url("out"), *options)
    object_store.reset()
    place, expected = local
    assert digest == expected
    assert sum(faults.counts.values()) > 10
    for name in ("curated.npy", "curated.txt"):
        assert object_store.get(f"out/{name}") == (place / name).read_bytes()
    (tmp_path / "got.parquet").write_bytes(object_store.get("out/curated.parquet"))
    assert pq.read_table(tmp_path / "got.parquet").equals(pq.read_table(place / "curated.parquet"))
    for folder in ("emb.zarr", "run/tree.zarr", "labels.zarr"):
        there = contents(object_store, f"out/{folder}/")
        here = {str(path.relative_to(place / folder)): path for path in (place / folder).rglob("*") if path.is_file()}
        assert set(there) == set(here)
        for name, data in there.items():
            if not name.endswith("zarr.json"):  # which name the sources
                assert data == here[name].read_bytes(), name
    kept = {name.partition("/")[2].partition("/")[0] for name in object_store.objects("out/")}
    assert kept == {"emb.zarr", "run", "curated.parquet", "curated.npy", "curated.txt", "labels.zarr"}
    assert object_store.uploads() == 0
