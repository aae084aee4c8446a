"""Ingest: what comes out is what went in, row by row; what is refused is refused whole."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import dask.array as da
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from streamcurate.embeddings import fingerprint
from streamcurate.embeddings.fingerprint import FingerprintBuilder
from streamcurate.embeddings.ingest import ingest
from streamcurate.embeddings.sources import base, idfiles
from streamcurate.embeddings.store import open_embeddings
from streamcurate.embeddings.writer import default_chunk_rows, ids_chunk_rows
from streamcurate.errors import ConfigError, DataError, DiskFullError, InputError, MemoryLimitError, RunError
from streamcurate.runs.lock import RunLock


def matrix(rows: int, dims: int = 4, dtype: str = "float32", seed: int = 0) -> np.ndarray:
    return np.random.default_rng(rows + seed).standard_normal((rows, dims)).astype(dtype)


class Listener:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.total = self.rows = 0

    def started(self, name: str, rows: int) -> None:
        self.total = rows

    def advanced(self, rows: int, bytes: int) -> None:
        self.rows += rows

    def finished(self) -> None:
        assert self.rows == self.total

    def note(self, text: str) -> None:
        self.notes.append(text)


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@settings(max_examples=40)
@given(
    sizes=st.lists(st.integers(0, 30), min_size=1, max_size=4).filter(sum),
    kinds=st.lists(st.sampled_from(["C", "F", "parquet", "zarr", "array", "dask"]), min_size=4, max_size=4),
    dtypes=st.lists(st.sampled_from(["float16", "float32", "float64"]), min_size=4, max_size=4),
    bad=st.sets(st.integers(0, 119), max_size=10),
    rows_per_chunk=st.one_of(st.none(), st.integers(1, 50)),
    ids=st.sampled_from([None, "txt", "npy"]),
    block_bytes=st.integers(1, 500),
)
def test_any_sources_into_one_store(tmp_path_factory, sizes, kinds, dtypes, bad, rows_per_chunk, ids, block_bytes):
    folder = tmp_path_factory.mktemp("in")
    sources, parts = [], []
    for number, (rows, kind, dtype) in enumerate(zip(sizes, kinds, dtypes, strict=False)):
        values = matrix(rows, 4, dtype, seed=number)
        for row in bad:
            if sum(sizes[:number]) <= row < sum(sizes[: number + 1]):
                values[row - sum(sizes[:number]), row % 4] = (np.nan, np.inf)[row % 2]
        parts.append(values)
        name = str(folder / f"s{number}.{kind}")
        if kind in "CF":
            np.save(name + ".npy", np.asarray(values, order=kind))
            sources.append(name + ".npy")
        elif kind == "parquet":
            flat = pa.array(values.reshape(-1), from_pandas=False)
            pq.write_table(pa.table({"e": pa.FixedSizeListArray.from_arrays(flat, 4)}), name, row_group_size=7)
            sources.append(name)
        elif kind == "zarr" and rows:
            zarr.create_array(
                name, shape=values.shape, dtype=dtype, chunks=(5, 4), config={"write_empty_chunks": True}
            )[...] = values
            sources.append(name)
        else:
            sources.append(da.from_array(values, chunks=(6, 4)) if kind == "dask" and rows else values)
    half = all(part.dtype == np.float16 for part in parts if len(part))
    everything = np.concatenate([part.astype(np.float32) for part in parts])
    good = np.flatnonzero(np.isfinite(everything).all(axis=1))
    names = None if ids is None else np.array([f"n{i}" for i in range(len(everything))])
    if ids == "npy":
        names = np.arange(len(everything)) + 2**40
        np.save(folder / "ids.npy", names)
    elif ids == "txt":
        (folder / "ids.txt").write_text("\n".join(names))
    ids_file = None if ids is None else folder / f"ids.{ids}"
    out = folder / "out.zarr"
    listener = Listener()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(base, "BLOCK_BYTES", block_bytes)
        options = {"rows_per_chunk": rows_per_chunk, "ids": ids_file, "progress": listener}
        if len(good) < len(everything):
            with pytest.raises(DataError, match=r"\(first: row "):
                ingest(sources, out, **options | {"progress": None})
            assert not list(folder.glob("out*"))
            if not len(good):
                with pytest.raises(DataError, match="no row is left"):
                    ingest(sources, out, on_bad_row="drop", **options)
                assert not list(folder.glob("out*"))
                return
        store = ingest(sources, out, on_bad_row="drop", **options)
    assert not (folder / "out.zarr.partial").exists()
    assert store.dtype == (np.float16 if half else np.float32)
    expected = everything[good].astype(store.dtype)
    assert store.read(0, store.rows).tobytes() == expected.tobytes()
    if ids is None:
        assert store.ids is None
    else:
        assert store.take_ids(np.arange(store.rows)).tolist() == names[good].tolist()
    assert store.attributes["rows_dropped"] == len(everything) - len(good)
    assert any("dropped" in note for note in listener.notes) == (len(good) < len(everything))
    builder = FingerprintBuilder(4, store.dtype)
    builder.update(expected)
    assert store.fingerprint == builder.result()
    # Plain Zarr, nothing of ours needed.
    assert zarr.open_array(out / "embeddings", mode="r")[...].tobytes() == expected.tobytes()


def test_columns_and_ids_of_parquet(tmp_path):
    values = matrix(9)
    column = pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), 4)
    for part in (0, 1):
        columns = {"e": column, "f": column, "name": [f"{part}-{i}" for i in range(9)]}
        pq.write_table(pa.table(columns), tmp_path / f"p{part}.parquet")
    store = ingest(f"{tmp_path}/p*.parquet", tmp_path / "e.zarr", column="f", ids="name", rows_per_chunk=5)
    expected = [f"{part}-{i}" for part in (0, 1) for i in range(9)]
    assert store.take_ids(np.arange(18)).tolist() == expected
    again = ingest(store, tmp_path / "f.zarr", rows_per_chunk=7)
    assert again.take_ids(np.arange(18)).tolist() == expected
    assert again.fingerprint == store.fingerprint
    assert again.chunk_rows == 7


def test_bad_rows_are_counted_and_the_first_is_named(tmp_path):
    a, b, c = matrix(50, seed=1), matrix(50, seed=2), matrix(50, seed=3)
    b[[17, 30, 31], [0, 1, 3]] = np.nan, np.inf, -np.inf
    c[2] = np.nan
    for name, values in (("a", a), ("b", b), ("c", c)):
        np.save(tmp_path / f"{name}.npy", values)
    (tmp_path / "ids.txt").write_text("".join(f"img_{i}\n" for i in range(150)))
    with pytest.raises(DataError) as error:
        ingest(f"{tmp_path}/?.npy", tmp_path / "e.zarr", ids=tmp_path / "ids.txt", rows_per_chunk=8)
    assert str(error.value) == (
        f'{tmp_path}/b.npy: 3 rows hold NaN or Inf (first: row 17, id "img_67"), '
        "and 1 more bad row in 1 other source; drop them with --on-bad-row drop"
    )
    assert left_in(tmp_path) == ["a.npy", "b.npy", "c.npy", "ids.txt"]


def test_values_beyond_float16(tmp_path):
    values = matrix(10)
    values[4, 1] = 70_000
    with pytest.raises(DataError, match=r"1 row holds values beyond float16 .*row 4.*--dtype float32, or drop"):
        ingest(values, tmp_path / "e.zarr", dtype="float16")
    store = ingest(values, tmp_path / "e.zarr", dtype="float16", on_bad_row="drop")
    np.testing.assert_array_equal(store.read(0, 9), np.delete(values, 4, axis=0).astype(np.float16))


def test_rows_of_norm_zero_under_cosine(tmp_path):
    values = matrix(10)
    values[3] = 0
    assert ingest(values, tmp_path / "l2.zarr").rows == 10
    with pytest.raises(DataError, match=r"1 row has norm 0, which cosine cannot use \(first: row 3\)"):
        ingest(values, tmp_path / "cosine.zarr", metric="cosine")


def test_nulls_are_bad_rows(tmp_path):
    rows = [[1.0, 2.0], None, [3.0, None], [4.0, 5.0]]
    pq.write_table(pa.table({"e": pa.array(rows, pa.list_(pa.float32()))}), tmp_path / "x.parquet")
    with pytest.raises(DataError, match=r"2 rows hold NaN, Inf or null \(first: row 1\)"):
        ingest(tmp_path / "x.parquet", tmp_path / "e.zarr")
    store = ingest(tmp_path / "x.parquet", tmp_path / "e.zarr", on_bad_row="drop")
    assert store.read(0, 2).tolist() == [[1, 2], [4, 5]]


def test_sources_that_do_not_fit_together(tmp_path):
    np.save(tmp_path / "a.npy", matrix(5, 4))
    np.save(tmp_path / "b.npy", matrix(5, 6))
    with pytest.raises(DataError, match=r"b.npy: rows of 6 dimensions, and .*a.npy has 4"):
        ingest([tmp_path / "a.npy", tmp_path / "b.npy"], tmp_path / "e.zarr")
    column = pa.FixedSizeListArray.from_arrays(pa.array(matrix(5).reshape(-1)), 4)
    pq.write_table(pa.table({"e": column, "i": range(5)}), tmp_path / "i.parquet")
    pq.write_table(pa.table({"e": column, "i": list("abcde")}), tmp_path / "s.parquet")
    with pytest.raises(DataError, match=r"s.parquet: ids of strings, and .*i.parquet: integer ids"):
        ingest([tmp_path / "i.parquet", tmp_path / "s.parquet"], tmp_path / "e.zarr", ids="i")
    (tmp_path / "three.txt").write_text("a\nb\nc\n")
    with pytest.raises(InputError, match=r"holds 3 ids, and the sources hold 5 rows"):
        ingest(tmp_path / "a.npy", tmp_path / "e.zarr", ids=tmp_path / "three.txt")
    np.save(tmp_path / "none.npy", matrix(0))
    with pytest.raises(DataError, match=r"none.npy: no rows; nothing to ingest"):
        ingest(tmp_path / "none.npy", tmp_path / "e.zarr")
    assert not list(tmp_path.glob("e.zarr*"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "float64"}, "dtype float64: stores are float16 or float32"),
        ({"dtype": "nonsense"}, "dtype nonsense"),
        ({"on_bad_row": "keep"}, "on-bad-row 'keep': either error or drop"),
        ({"metric": "dot"}, "metric 'dot'"),
        ({"rows_per_chunk": 0}, "rows-per-chunk 0: at least 1"),
    ],
)
def test_options_are_checked(tmp_path, options, message):
    with pytest.raises(ConfigError, match=message):
        ingest(matrix(5), tmp_path / "e.zarr", **options)


def test_a_finished_store_is_left_alone(tmp_path):
    np.save(tmp_path / "a.npy", matrix(5))
    np.save(tmp_path / "b.npy", matrix(6))
    out = tmp_path / "e.zarr"
    ingest(tmp_path / "a.npy", out)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    listener = Listener()
    assert ingest(tmp_path / "a.npy", f"{out}/", progress=listener).rows == 5
    assert "nothing to do" in listener.notes[0]
    cases = [
        ({"sources": tmp_path / "b.npy"}, r"made from other sources \(.*a.npy\)"),
        ({"sources": [tmp_path / "a.npy", tmp_path / "b.npy"]}, r"made from other sources \(1 files, now 2\)"),
        (
            {"sources": tmp_path / "a.npy", "dtype": "float16"},
            r"exists, made with other options \(dtype: none before, float16 now\); remove",
        ),
    ]
    for options, message in cases:
        with pytest.raises(InputError, match=message):
            ingest(out=out, **options)
    np.save(tmp_path / "a.npy", matrix(5, seed=9))
    with pytest.raises(InputError, match=r"made from .*a.npy as it was before it changed"):
        ingest(tmp_path / "a.npy", out)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before
    assert left_in(tmp_path) == ["a.npy", "b.npy", "e.zarr"]


def test_a_destination_that_is_something_else(tmp_path):
    np.save(tmp_path / "a.npy", matrix(5))
    np.save(tmp_path / "b.npy", matrix(5))
    (tmp_path / "folder").mkdir()
    zarr.create_group(tmp_path / "g.zarr")
    for name in ("b.npy", "folder", "g.zarr"):
        with pytest.raises(InputError, match=rf"{name}: already exists, and was not made by ingest"):
            ingest(tmp_path / "a.npy", tmp_path / name)
    with pytest.raises(InputError, match="does not exist; make it first"):
        ingest(tmp_path / "a.npy", tmp_path / "absent" / "e.zarr")
    stranger = tmp_path / "e.zarr.partial"
    stranger.mkdir()
    (stranger / "thesis.tex").write_text("x")
    with pytest.raises(InputError, match=r"in the way, and not an unfinished ingest \(it holds 'thesis.tex'\)"):
        ingest(tmp_path / "a.npy", tmp_path / "e.zarr")
    assert (stranger / "thesis.tex").exists()


class Killed(BaseException):
    """Stands for a process that ends here: nothing after it runs."""


class KillAfter(Listener):
    """Ends the ingest after some blocks."""

    def __init__(self, blocks: int) -> None:
        super().__init__()
        self.blocks = blocks

    def advanced(self, rows: int, bytes: int) -> None:
        super().advanced(rows, bytes)
        self.blocks -= 1
        if self.blocks < 0:
            raise Killed


def begin(folder: Path, blocks: int, monkeypatch, **options):
    """Ingest 60 rows of two files in blocks of 5 rows and chunks of 8, stopped after so many blocks."""
    monkeypatch.setattr(base, "BLOCK_BYTES", 80)
    for name, seed in (("a", 1), ("b", 2)):
        if not (folder / f"{name}.npy").exists():
            values = matrix(30, seed=seed)
            values[7] = np.nan
            np.save(folder / f"{name}.npy", values)
    (folder / "ids.txt").exists() or (folder / "ids.txt").write_text("".join(f"n{i}\n" for i in range(60)))
    settings = {"rows_per_chunk": 8, "ids": folder / "ids.txt", "on_bad_row": "drop"} | options
    with pytest.raises(Killed):
        ingest(f"{folder}/?.npy", folder / "e.zarr", progress=KillAfter(blocks), **settings)
    return settings


@pytest.mark.parametrize("blocks", range(12))
def test_goes_on_where_it_stopped(tmp_path, monkeypatch, blocks):
    # Fingerprint units of 4 and of 16 rows: smaller and larger than a chunk of 8.
    monkeypatch.setattr(fingerprint, "UNIT_BYTES", (64, 256)[blocks % 2])
    settings = begin(tmp_path, blocks, monkeypatch)
    leftover = tmp_path / "e.zarr.partial" / "store" / "embeddings" / "c" / "0.1.writing"
    leftover.parent.mkdir(exist_ok=True)
    leftover.touch()
    assert open_partial(tmp_path)["rows"] == (5 * (blocks + 1) - (blocks >= 1) - (blocks >= 7)) // 8 * 8
    reads: list[int] = []
    listener = Listener()
    listener.advanced = lambda rows, bytes: (reads.append(rows), setattr(listener, "rows", listener.rows + rows))
    store = ingest(f"{tmp_path}/?.npy", tmp_path / "e.zarr", progress=listener, **settings)
    expected = np.concatenate([np.delete(np.load(tmp_path / f"{name}.npy"), 7, axis=0) for name in "ab"])
    np.testing.assert_array_equal(store.read(0, store.rows), expected)
    names = [f"n{i}" for i in range(60) if i not in (7, 37)]
    assert store.take_ids(np.arange(58)).tolist() == names
    assert store.attributes["rows_dropped"] == 2
    # No more is read again than what was not yet in a finished chunk.
    assert sum(reads) <= 60 - 5 * blocks + 8 + 2
    undisturbed = ingest(f"{tmp_path}/?.npy", tmp_path / "other.zarr", **settings)
    assert undisturbed.fingerprint == store.fingerprint
    same = {path.relative_to(tmp_path / "e.zarr"): path.read_bytes() for path in (tmp_path / "e.zarr").rglob("*/c/*/*")}
    for path, data in same.items():
        assert (tmp_path / "other.zarr" / path).read_bytes() == data
    assert len(same) == 8
    assert not list((tmp_path / "e.zarr").rglob("*.writing"))


def open_partial(folder: Path) -> dict[str, int]:
    progress = folder / "e.zarr.partial" / "progress.json"
    return {"rows": json.loads(progress.read_text())["stored"] if progress.exists() else 0}


def test_unfinished_work_of_other_sources_or_options_is_not_thrown_away(tmp_path, monkeypatch):
    settings = begin(tmp_path, 7, monkeypatch)
    before = open_partial(tmp_path)
    others = settings | {"dtype": "float16", "on_bad_row": "error"}
    with pytest.raises(
        RunError,
        match=r"e\.zarr\.partial: holds 32 rows of an unfinished store with other options \(dtype: none before, "
        r"float16 now; on-bad-row: drop before, error now\); the earlier command goes on .*remove \S+\.partial,",
    ):
        ingest(f"{tmp_path}/?.npy", tmp_path / "e.zarr", **others)
    np.save(tmp_path / "c.npy", matrix(60))
    with pytest.raises(RunError, match="of an unfinished store from other sources"):
        ingest(tmp_path / "c.npy", tmp_path / "e.zarr", **settings)
    assert open_partial(tmp_path) == before
    listener = Listener()
    ingest([tmp_path / "a.npy", tmp_path / "b.npy"], tmp_path / "e.zarr", progress=listener, **settings)
    assert "going on behind row 32" in listener.notes[0]


def test_unfinished_work_that_has_stored_nothing_is_replaced(tmp_path, monkeypatch):
    settings = begin(tmp_path, 0, monkeypatch)
    assert open_partial(tmp_path)["rows"] == 0
    listener = Listener()
    store = ingest(f"{tmp_path}/?.npy", tmp_path / "e.zarr", progress=listener, **settings | {"dtype": "float16"})
    assert store.dtype == np.float16
    assert not [note for note in listener.notes if "over" in note]


def test_unfinished_work_without_its_job_is_started_over(tmp_path, monkeypatch):
    settings = begin(tmp_path, 7, monkeypatch)
    (tmp_path / "e.zarr.partial" / "job.json").write_text("{")
    listener = Listener()
    ingest(f"{tmp_path}/?.npy", tmp_path / "e.zarr", progress=listener, **settings)
    assert "cannot be gone on with; starting over" in listener.notes[0]


@pytest.mark.parametrize("out", ["", "/"])
def test_no_destination(tmp_path, monkeypatch, out):
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", matrix(3))
    with pytest.raises(InputError, match=f"'{out}': no place for a store"):
        ingest("x.npy", out)
    assert left_in(tmp_path) == ["x.npy"]


def test_a_destination_that_cannot_be_made(tmp_path):
    np.save(tmp_path / "x.npy", matrix(3))
    for name in ("n" * 250, "n" * 300):
        with pytest.raises(InputError, match=r"cannot be made \(File name too long\); choose another place"):
            ingest(tmp_path / "x.npy", tmp_path / name)
    (tmp_path / "e.zarr.partial").symlink_to(tmp_path / "gone")
    with pytest.raises(InputError, match=r"e\.zarr\.partial: a link to nothing \(.*gone\); remove it"):
        ingest(tmp_path / "x.npy", tmp_path / "e.zarr")
    assert left_in(tmp_path) == ["e.zarr.partial", "x.npy"]


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="a file system that takes no folders")
def test_a_file_system_that_takes_no_folders(tmp_path):
    np.save(tmp_path / "x.npy", matrix(3))
    with pytest.raises(InputError, match=r"/proc/foo\.zarr\.partial: cannot be made"):
        ingest(tmp_path / "x.npy", "/proc/foo.zarr")


def test_a_folder_that_vanishes_again_and_again(tmp_path, monkeypatch):
    np.save(tmp_path / "x.npy", matrix(3))
    monkeypatch.setattr(os, "mkdir", lambda path: None)
    with pytest.raises(InputError, match="vanishes again and again"):
        ingest(tmp_path / "x.npy", tmp_path / "e.zarr")


@pytest.mark.parametrize(("bad", "said"), [(1, "dropped 1 bad row of 9"), (2, "dropped 2 bad rows of 9")])
def test_how_many_rows_were_dropped(tmp_path, bad, said):
    values = matrix(9)
    values[:bad] = np.nan
    np.save(tmp_path / "x.npy", values)
    listener = Listener()
    ingest(tmp_path / "x.npy", tmp_path / "e.zarr", on_bad_row="drop", progress=listener)
    assert listener.notes[-1].startswith(said)


def test_ids_that_may_not_be_read(tmp_path, monkeypatch):
    np.save(tmp_path / "x.npy", matrix(3))
    np.save(tmp_path / "ids.npy", np.arange(3))

    def refused(path):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(idfiles, "read_header", refused)
    with pytest.raises(InputError, match=r"ids\.npy: cannot be read \(Permission denied\); check its permissions"):
        ingest(tmp_path / "x.npy", tmp_path / "e.zarr", ids=tmp_path / "ids.npy")


@pytest.mark.parametrize("damage", ["chunk", "digests", "array", "progress", "short chunk"])
def test_unfinished_work_that_was_damaged_is_done_again(tmp_path, monkeypatch, damage):
    # Units smaller than a chunk: otherwise all that is stored is read again to go on with its fingerprint.
    monkeypatch.setattr(fingerprint, "UNIT_BYTES", 64)
    settings = begin(tmp_path, 7, monkeypatch)
    partial = tmp_path / "e.zarr.partial"
    match damage:
        case "chunk":
            (partial / "store" / "embeddings" / "c" / "1" / "0").unlink()
        case "short chunk":
            os.truncate(partial / "store" / "embeddings" / "c" / "2" / "0", 5)
        case "digests":
            (partial / "digests").unlink()
        case "array":
            (partial / "store" / "ids" / "zarr.json").unlink()
        case "progress":
            (partial / "progress.json").write_text("{")
    store = ingest(f"{tmp_path}/?.npy", tmp_path / "e.zarr", **settings)
    expected = np.concatenate([np.delete(np.load(tmp_path / f"{name}.npy"), 7, axis=0) for name in "ab"])
    np.testing.assert_array_equal(store.read(0, store.rows), expected)


def test_what_a_kill_after_the_renaming_left_is_removed(tmp_path, monkeypatch):
    settings = begin(tmp_path, 5, monkeypatch)
    (tmp_path / "e.zarr.partial").rename(tmp_path / "kept")
    ingest(f"{tmp_path}/?.npy", tmp_path / "e.zarr", **settings)
    (tmp_path / "kept").rename(tmp_path / "e.zarr.partial")
    ingest(f"{tmp_path}/?.npy", tmp_path / "e.zarr", **settings)
    assert left_in(tmp_path) == ["a.npy", "b.npy", "e.zarr", "ids.txt"]


def test_two_at_once(tmp_path, monkeypatch):
    settings = begin(tmp_path, 5, monkeypatch)
    with RunLock(tmp_path / "e.zarr.partial"), pytest.raises(RunError, match="is being written by process"):
        ingest(f"{tmp_path}/?.npy", tmp_path / "e.zarr", **settings)
    # The loser took nothing away from the winner.
    assert open_partial(tmp_path)["rows"] > 0


def test_an_error_in_another_command_leaves_unfinished_work(tmp_path, monkeypatch):
    begin(tmp_path, 5, monkeypatch)
    with pytest.raises(InputError, match="no such file"):
        ingest(tmp_path / "typo.npy", tmp_path / "e.zarr")
    assert open_partial(tmp_path)["rows"] > 0


def test_a_source_changed_while_it_is_read(tmp_path):
    np.save(tmp_path / "a.npy", matrix(10))

    class Meddler(Listener):
        def advanced(self, rows: int, bytes: int) -> None:
            os.utime(tmp_path / "a.npy", ns=(1, 1))

        def finished(self) -> None: ...

    with pytest.raises(DataError, match="was changed while it was read"):
        ingest(tmp_path / "a.npy", tmp_path / "e.zarr", progress=Meddler())
    assert left_in(tmp_path) == ["a.npy"]


def test_a_disk_too_small_is_told_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=100))
    with pytest.raises(DiskFullError, match="needs 160 more bytes, and 100 are free"):
        ingest(matrix(10), tmp_path / "e.zarr")
    assert left_in(tmp_path) == []


def test_a_disk_that_fills_up_leaves_nothing(tmp_path, monkeypatch):
    written = []
    write = os.write

    def full_after_three(descriptor: int, data: memoryview) -> int:
        written.append(len(data))
        if len(written) > 3:
            raise OSError(28, "No space left on device")
        return write(descriptor, data)

    monkeypatch.setattr(os, "write", full_after_three)
    with pytest.raises(DiskFullError, match="no space left on the device"):
        ingest(matrix(50), tmp_path / "e.zarr", rows_per_chunk=10)
    assert left_in(tmp_path) == []


def full_disk(*_: object) -> None:
    raise OSError(28, "No space left on device")


def test_a_disk_too_full_for_the_lock_leaves_nothing(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full_disk)
        with pytest.raises(DiskFullError, match="no space left on the device"):
            ingest(matrix(50), tmp_path / "e.zarr")
    assert left_in(tmp_path) == []
    assert ingest(matrix(50), tmp_path / "e.zarr").rows == 50


def test_a_disk_too_full_for_the_lock_takes_nothing_from_others(tmp_path, monkeypatch):
    settings = begin(tmp_path, 5, monkeypatch)
    rows = open_partial(tmp_path)["rows"]
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full_disk)
        with pytest.raises(DiskFullError, match="no space left on the device"):
            ingest(f"{tmp_path}/?.npy", tmp_path / "e.zarr", **settings)
    assert open_partial(tmp_path)["rows"] == rows > 0
    # Locked by another process that has written nothing yet.
    (tmp_path / "f.zarr.partial").mkdir()
    with RunLock(tmp_path / "f.zarr.partial"), pytest.raises(RunError, match="is being written by process"):
        ingest(matrix(5), tmp_path / "f.zarr")
    assert left_in(tmp_path / "f.zarr.partial") == [".lock"]


def test_open_zarr_groups_are_sources(tmp_path):
    group = zarr.create_group(tmp_path / "g")
    group.create_array("vectors", data=matrix(7))
    group.create_array("others", data=matrix(7, 5))
    store = ingest(group, tmp_path / "e.zarr", column="vectors")
    np.testing.assert_array_equal(store.read(0, 7), matrix(7))


def test_l2_is_the_same_as_no_metric(tmp_path):
    np.save(tmp_path / "a.npy", matrix(5))
    ingest(tmp_path / "a.npy", tmp_path / "e.zarr")
    listener = Listener()
    ingest(tmp_path / "a.npy", tmp_path / "e.zarr", metric="l2", progress=listener)
    assert "nothing to do" in listener.notes[0]
    with pytest.raises(InputError, match=r"with other options \(metric: none before, cosine now\)"):
        ingest(tmp_path / "a.npy", tmp_path / "e.zarr", metric="cosine")


def test_a_memory_limit_refuses_chunks_that_do_not_fit(tmp_path):
    values = da.zeros((10**7, 64), dtype="f4", chunks=(1000, 64))
    with pytest.raises(MemoryLimitError, match=r"--rows-per-chunk"):
        ingest(values, tmp_path / "e.zarr", rows_per_chunk=10**7, memory_limit="1GiB")
    assert ingest(matrix(10), tmp_path / "e.zarr", memory_limit="512MiB").rows == 10


@given(dims=st.integers(1, 5000), dtype=st.sampled_from(["float16", "float32"]))
def test_default_chunks(dims, dtype):
    dtype = np.dtype(dtype)
    rows = default_chunk_rows(dims, dtype)
    assert 16 << 20 <= rows * dims * dtype.itemsize <= 128 << 20
    assert rows % FingerprintBuilder(dims, dtype).unit_rows == 0
    assert rows % ids_chunk_rows(rows) == 0
    assert ids_chunk_rows(rows) <= 65536


def test_the_store_opened_again(tmp_path):
    store = ingest(matrix(10, dtype="float16"), tmp_path / "e.zarr")
    again = open_embeddings(tmp_path / "e.zarr")
    assert again.description() == store.description()
    assert again.fingerprint == store.fingerprint
    assert again.dtype == np.float16
    metadata = json.loads((tmp_path / "e.zarr" / "embeddings" / "zarr.json").read_text())
    assert [codec["name"] for codec in metadata["codecs"]] == ["bytes"]
