"""Work under way: gone on with, refused, begun anew, put in place."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from streamcurate.errors import InputError, RunError
from streamcurate.neighbors.unfinished import UnfinishedWork

IDENTITY = {"threshold": 0.9, "keep": "first"}


def interrupted(place: Path, done: bool, scratch: Path | None = None) -> None:
    with UnfinishedWork(place, "dedup", scratch) as work:
        work.begin(IDENTITY)
        (work.scratch / "pieces").write_bytes(b"x")
        if done:
            work.checkpoints.save("step", {"found": np.arange(3)})
        raise KeyboardInterrupt


def begun(place: Path, *, done: bool, scratch: Path | None = None) -> None:
    with pytest.raises(KeyboardInterrupt):
        interrupted(place, done, scratch)


def test_the_same_work_goes_on(tmp_path: Path) -> None:
    begun(tmp_path / "out", done=True)
    with UnfinishedWork(tmp_path / "out", "dedup") as work:
        said = work.begin(IDENTITY)
        assert said is not None
        assert "going on" in said
        assert work.checkpoints.load("step") is not None
        assert (work.scratch / "pieces").read_bytes() == b"x"


def test_nothing_is_left_where_nothing_was_done(tmp_path: Path) -> None:
    begun(tmp_path / "out", done=False)
    assert os.listdir(tmp_path) == []


def test_finished_steps_of_other_work_are_not_thrown_away(tmp_path: Path) -> None:
    begun(tmp_path / "out", done=True)
    with (
        pytest.raises(RunError, match=r"with threshold 0\.9 instead of 0\.8; .* remove the folder"),
        UnfinishedWork(tmp_path / "out", "dedup") as work,
    ):
        work.begin(IDENTITY | {"threshold": 0.8})
    with UnfinishedWork(tmp_path / "out", "dedup") as work:
        assert work.begin(IDENTITY) is not None


def test_other_work_without_finished_steps_is_replaced(tmp_path: Path) -> None:
    place = tmp_path / "out.partial"
    place.mkdir()
    (place / "job.json").write_text("{}")
    (place / "scratch").mkdir()
    (place / "scratch" / "old").write_bytes(b"")
    with UnfinishedWork(tmp_path / "out", "dedup") as work:
        assert work.begin(IDENTITY) is None
        assert list(work.scratch.iterdir()) == []


def test_the_result_appears_whole(tmp_path: Path) -> None:
    with UnfinishedWork(tmp_path / "out", "dedup") as work:
        work.begin(IDENTITY)
        (work.result / "dedup.json").write_text("{}")
        work.finish("dedup.json")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (tmp_path / "out" / "dedup.json").read_text() == "{}"


def test_what_came_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    with UnfinishedWork(tmp_path / "out", "dedup") as work:
        work.begin(IDENTITY)
        work.checkpoints.save("step", {})
        (tmp_path / "out").mkdir()
        with pytest.raises(InputError, match="already exists"):
            work.finish("dedup.json")
    assert (tmp_path / "out.partial" / "job.json").exists()


def test_two_at_once_are_refused(tmp_path: Path) -> None:
    with (
        UnfinishedWork(tmp_path / "out", "dedup"),
        pytest.raises(RunError, match="is being written by process"),
        UnfinishedWork(tmp_path / "out", "dedup"),
    ):
        pass


def test_strangers_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "out.partial").mkdir()
    (tmp_path / "out.partial" / "photo.jpg").write_bytes(b"mine")
    with pytest.raises(InputError, match=r"not an unfinished dedup \(it holds 'photo.jpg'\)"):
        UnfinishedWork(tmp_path / "out", "dedup").__enter__()
    assert (tmp_path / "out.partial" / "photo.jpg").read_bytes() == b"mine"


@pytest.mark.parametrize("place", ["", "/", ".", ".."])
def test_no_place_for_a_result(place: str) -> None:
    with pytest.raises(InputError, match="is no place for the result of dedup"):
        UnfinishedWork(place, "dedup")


def test_scratch_elsewhere_is_cleared_too(tmp_path: Path) -> None:
    (tmp_path / "scratch").mkdir()
    with UnfinishedWork(tmp_path / "out", "dedup", tmp_path / "scratch") as work:
        work.begin(IDENTITY)
        assert work.scratch.parent == tmp_path / "scratch"
        (work.result / "dedup.json").write_text("{}")
        work.finish("dedup.json")
    assert list((tmp_path / "scratch").iterdir()) == []


def test_scratch_that_was_elsewhere_is_cleared_too(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        begun(tmp_path / "out", done=True, scratch=tmp_path / name)
    with UnfinishedWork(tmp_path / "out", "dedup") as work:
        assert work.begin(IDENTITY) is not None
        work.discard()
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["one", "two"]
