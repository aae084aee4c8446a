"""The command against a tree written to disk by the room that owns the format."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from streamcurate.cli.sample import command
from streamcurate.errors import CapacityError, ConfigError, InputError
from streamcurate.tree.level import Level, LevelWriter, level_name

LABELS = [np.array([0] * 30 + [1] * 5 + [-1] * 3 + [2] * 12), np.array([0, 0, 1])]


class StoredTree:
    path = "run"
    complete = True
    source = {"path": "emb.zarr", "ids": False}  # noqa: RUF012 - never changed

    def __init__(self, levels: list[Level]) -> None:
        self.levels = levels

    def embeddings(self) -> None:
        return None


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StoredTree:
    levels = []
    for number, labels in enumerate(LABELS, start=1):
        folder = tmp_path / level_name(number)
        clusters = int(labels.max()) + 1
        members = np.argsort(np.where(labels < 0, clusters, labels), kind="stable")[: int((labels >= 0).sum())]
        writer = LevelWriter(folder, len(labels), 2)
        writer.labels().write(0, labels.astype(np.int32))
        writer.distances().write(0, np.where(labels >= 0, np.arange(len(labels)) / 8, np.nan).astype(np.float32))
        writer.members(len(members)).write(0, members)
        writer.centroids(clusters).write(0, np.zeros((clusters, 2), dtype=np.float32))
        writer.write_offsets(np.bincount(labels[labels >= 0], minlength=clusters))
        levels.append(Level(folder, number))
    tree = StoredTree(levels)
    monkeypatch.setattr("streamcurate.tree.open_tree", lambda path: tree, raising=False)
    return tree


def run(*arguments: object) -> str:
    result = CliRunner().invoke(command, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.mark.usefixtures("tree")
def test_json_is_one_object_and_the_file_holds_the_draw(tmp_path: Path) -> None:
    out = tmp_path / "curated.npy"
    said = json.loads(run("run", "--size", 12, "--out", out, "--strategy", "closest", "--json"))
    assert said == {"rows": 12, "unique": 12, "strategy": "closest", "multiplier": 1, "out": str(out)}
    # 6 for each top cluster; 3 for each leaf of the first; distances grow with the row.
    assert np.load(out).tolist() == [0, 1, 2, 30, 31, 32, 38, 39, 40, 41, 42, 43]


@pytest.mark.usefixtures("tree")
def test_the_sentence_counts_distinct_rows(tmp_path: Path) -> None:
    out = tmp_path / "curated.csv"
    assert run("run", "--size", 94, "--multiplier", 2, "--seed", 3, "--out", out) == (
        f"{out}: 94 rows (47 distinct), random, seed 3\n"
    )
    assert len(out.read_text().splitlines()) == 48


@pytest.mark.usefixtures("tree")
def test_an_earlier_draw_is_topped_up(tmp_path: Path) -> None:
    run("run", "--size", 5, "--seed", 1, "--out", tmp_path / "earlier.parquet")
    run("run", "--size", 5, "--seed", 1, "--out", tmp_path / "earlier.npy")
    include = ["--include", tmp_path / "earlier.parquet"]
    run("run", "--size", 20, "--seed", 2, "--out", tmp_path / "topped.npy", *include)
    assert set(np.load(tmp_path / "earlier.npy")) < set(np.load(tmp_path / "topped.npy"))


@pytest.mark.usefixtures("tree")
@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        (["--size", 48], CapacityError, "at most 47"),
        (["--size", 0], ConfigError, "size: 0"),
        (["--size", 5, "--multiplier", 0], ConfigError, "multiplier: 0"),
        (["--size", 5, "--seed", -1], ConfigError, "seed: -1"),
        (["--size", 5, "--include", "absent.npy"], InputError, "no such file"),
    ],
)
def test_errors_leave_no_file(tmp_path: Path, arguments: list[object], error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        run("run", "--out", tmp_path / "curated.npy", *arguments)
    assert not (tmp_path / "curated.npy").exists()


def test_a_bad_destination_is_refused_before_the_run_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamcurate.tree.open_tree", lambda path: pytest.fail("opened"), raising=False)
    with pytest.raises(InputError, match="written as"):
        run("run", "--size", 5, "--out", tmp_path / "curated.xlsx")
