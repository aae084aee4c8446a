"""What a worker process checks before it works for a run, and when it stops."""

from __future__ import annotations

import dataclasses
import pickle
from pathlib import Path

import numpy as np
import pytest

from streamcurate.errors import RunError
from streamcurate.pipeline.folder import make_run_folder
from streamcurate.storage import create_array
from streamcurate.streaming import StoredRows, tasks
from streamcurate.streaming.tasks import Session, SupersededError, leave, perform, sample_digest


def rows(place: Path, seed: int = 0, count: int = 50) -> StoredRows:
    array = create_array(place, (count, 3), np.float32, 20, overwrite=True)
    array.write(0, np.random.default_rng(seed).standard_normal((count, 3)).astype(np.float32))
    return StoredRows(array)


@pytest.fixture
def session(tmp_path):
    for name in ("run", "scratch"):
        (tmp_path / name).mkdir()
    made = begin(tmp_path)
    yield made
    leave(made.nonce)
    made.end()


def begin(folder: Path) -> Session:
    return Session.begin([folder / "run", folder / "scratch"], rows(folder / "rows"), 1 << 30, 1, False, "cpu")


def work(process):
    """A task."""
    return process.session.nonce


def test_nothing_differs_at_home(session):
    assert session.differences() == []
    assert perform(session, pickle.dumps(work)).value == session.nonce


@pytest.mark.parametrize(
    ("name", "there"), [("streamcurate", "0.0.1"), ("numpy", "1.99"), ("Python", "3.99"), ("distributed", "1")]
)
def test_other_versions(session, monkeypatch, name, there):
    here = dict(session.versions)[name]
    monkeypatch.setattr(tasks, "versions", lambda device: {**dict(session.versions), name: there})
    assert session.differences() == [f"{name} is {there} there and {here} here"]
    with pytest.raises(RunError, match=f"{name} is {there} there and .* here; every worker needs the same versions"):
        perform(session, pickle.dumps(work))


def test_a_library_that_is_missing(session, monkeypatch):
    def missing(device):
        raise ModuleNotFoundError("No module named 'numba'")

    monkeypatch.setattr(tasks, "versions", missing)
    assert session.differences() == ["ModuleNotFoundError: No module named 'numba'"]


def test_other_folders(session, tmp_path):
    (tmp_path / "run").rename(tmp_path / "moved")
    assert session.differences() == [f"{tmp_path / 'run'} does not exist there"]
    (tmp_path / "run").mkdir()
    assert session.differences() == [f"{tmp_path / 'run'} is another folder there"]


def test_other_rows(session, tmp_path):
    name = session.store_name
    rows(tmp_path / "rows", seed=1)
    assert session.differences() == [f"{name} holds other rows there"]
    (tmp_path / "rows" / "c" / "0" / "0").unlink()
    (found,) = session.differences()
    assert found.startswith(f"{name} cannot be read there (")


def test_the_sample_tells_rows_and_shapes_apart(tmp_path):
    source = rows(tmp_path / "a")
    assert sample_digest(source) == sample_digest(rows(tmp_path / "b"))
    others = [rows(tmp_path / "c", seed=2), rows(tmp_path / "d", count=49)]
    assert len({sample_digest(other) for other in [source, *others]}) == 3


def test_a_session_that_has_ended(session):
    assert perform(session, pickle.dumps(work)).value == session.nonce
    session.end()
    with pytest.raises(SupersededError, match="is over"):
        perform(session, pickle.dumps(work))
    leave(session.nonce)
    with pytest.raises(SupersededError, match="is another folder there"):
        perform(session, pickle.dumps(work))
    assert isinstance(pickle.loads(pickle.dumps(SupersededError("over"))), RunError)


def test_a_new_driver_ends_the_sessions_before(session, tmp_path):
    later = begin(tmp_path)
    assert later.differences() == []
    assert not session.alive
    assert later.alive
    later.end()
    assert not [path for name in ("run", "scratch") for path in (tmp_path / name).iterdir()]


def test_a_worker_changes_sides(session, tmp_path):
    """Two runs share a worker: it works for each in turn."""
    for name in ("other/run", "other/scratch"):
        (tmp_path / name).mkdir(parents=True)
    other = begin(tmp_path / "other")
    for each in (session, other, session, other):
        assert perform(each, pickle.dumps(work)).value == each.nonce
    leave(session.nonce)  # not whose turn it is: nothing happens
    assert tasks._current is not None
    leave(other.nonce)
    assert tasks._current is None
    other.end()


def test_leaving_does_not_wait_for_a_long_task(session, monkeypatch):
    """What it holds is given back when the next session comes."""
    assert perform(session, pickle.dumps(work)).value == session.nonce
    monkeypatch.setattr(tasks, "_LEAVE_SECONDS", 0.01)
    process = tasks._current
    with process.turn:
        leave(session.nonce)
        assert tasks._current is process
    leave(session.nonce)
    assert tasks._current is None


def test_a_process_keeps_the_last_state_and_what_was_made_of_it(session, tmp_path):
    from streamcurate.streaming.exchange import Exchange

    exchange = Exchange(tmp_path / "exchange")
    first, second = (exchange.put({"centroids": np.full(3, value)}) for value in (1.0, 2.0))
    made = []

    class Work:
        def prepare(self, state, backend):
            made.append(float(state["centroids"][0]))
            return made[-1]

    process = tasks.Process(session)
    try:
        for token, reference in (("a", first), ("a", first), ("b", first), ("c", second), ("c", second)):
            assert process.ready(token, Work(), reference) == (2.0 if token == "c" else 1.0)
        assert made == [1.0, 1.0, 2.0]
        assert process.state(None) == {}
    finally:
        process.close()


def test_a_kill_before_the_run_has_begun_is_no_hindrance(tmp_path):
    """The mark of a session that was never ended lies in a run directory without a manifest."""
    run = tmp_path / "run"
    run.mkdir()
    (tmp_path / "scratch").mkdir()
    session = begin(tmp_path)
    assert len(list(run.iterdir())) == 1
    assert make_run_folder(run) is False
    session.end()


def test_a_device_that_is_missing(session, monkeypatch):
    def missing(device):
        raise RunError("device gpu: CuPy is not installed")

    monkeypatch.setattr(tasks, "get_backend", missing)
    monkeypatch.setattr(tasks, "versions", lambda device: dict(session.versions))
    there = dataclasses.replace(session, device="gpu")
    assert there.differences() == ["device gpu: CuPy is not installed"]
