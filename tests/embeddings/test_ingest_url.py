"""Ingest into an object store: what stands there is what a disk would hold, whatever the network does."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from streamcurate import objects
from streamcurate.embeddings import claim, fingerprint, upload
from streamcurate.embeddings.ingest import ingest
from streamcurate.embeddings.sources import base
from streamcurate.embeddings.store import open_embeddings
from streamcurate.errors import DataError, InputError, ObjectError, RunError, StoreError

pytest_plugins = ["object_store"]

ROWS, DIMS, CHUNK_ROWS = 210, 8, 32


@pytest.fixture
def sources(tmp_path) -> Path:
    values = np.random.default_rng(0).standard_normal((ROWS, DIMS)).astype(np.float32)
    values[::97] = np.nan
    np.save(tmp_path / "a.npy", values[:100])
    np.save(tmp_path / "b.npy", values[100:])
    (tmp_path / "ids.txt").write_text("".join(f"img_{row:06d}\n" for row in range(ROWS)))
    return tmp_path


def given(folder: Path, **changes: object) -> dict[str, object]:
    options = {"ids": folder / "ids.txt", "on_bad_row": "drop", "rows_per_chunk": CHUNK_ROWS}
    return {"sources": f"{folder}/?.npy"} | options | changes


def on_disk(store: Path) -> dict[str, bytes]:
    return {str(path.relative_to(store)): path.read_bytes() for path in store.rglob("*") if path.is_file()}


def in_bucket(bucket, store: str = "e.zarr") -> dict[str, bytes]:
    return {name.removeprefix(f"{store}/"): bucket.get(name) for name in bucket.objects(f"{store}/")}


def same(first: dict[str, bytes], second: dict[str, bytes]) -> None:
    """Chunks to the byte, metadata as JSON."""
    assert first.keys() == second.keys()
    for name, data in first.items():
        if name.endswith("zarr.json"):
            assert json.loads(data) == json.loads(second[name]), name
        else:
            assert data == second[name], name


class Killed(BaseException):
    """Stands for a process that ends here: nothing after it runs."""


class Listener:
    """Does something after some blocks."""

    def __init__(self, blocks: int = -1, then=None) -> None:
        self.blocks, self.then = blocks, then
        self.notes: list[str] = []
        self.rows = 0

    def started(self, name: str, rows: int) -> None:
        self.total = rows

    def advanced(self, rows: int, bytes: int) -> None:
        self.rows += rows
        self.blocks -= 1
        if self.blocks == 0:
            self.then()

    def finished(self) -> None: ...

    def note(self, text: str) -> None:
        self.notes.append(text)


def stop() -> None:
    raise Killed


def killed(folder: Path, url: str, blocks: int, monkeypatch, **changes: object) -> dict[str, object]:
    """An ingest in blocks of 20 rows that ends after some of them and gives nothing back."""
    monkeypatch.setattr(base, "BLOCK_BYTES", 20 * DIMS * 4)
    options = given(folder, **changes)
    with monkeypatch.context() as patch:
        patch.setattr(claim.Claim, "release", lambda *_: None)
        with pytest.raises(Killed):
            ingest(out=url, progress=Listener(blocks, stop), **options)
    claim._held.clear()
    return options


@pytest.mark.parametrize(("share", "shard_rows"), [(0, None), (0.05, None), (0.05, 3 * CHUNK_ROWS)])
def test_the_same_store_as_on_a_disk(object_store, sources, share, shard_rows):
    options = given(sources, rows_per_shard=shard_rows)
    ingest(out=sources / "e.zarr", **options)
    lost = [1]  # besides what chance does

    def once(method: str, path: str) -> str | None:
        return "lost" if share and method == "PUT" and "/embeddings/c/1/0" in path and lost and lost.pop() else None

    faults = object_store.faults(share, seed=3, when=once, slow=0.01)
    store = ingest(out=object_store.url("e.zarr"), **options)
    assert (sum(faults.counts.values()) > 0) == (share > 0)
    object_store.reset()
    same(in_bucket(object_store), on_disk(sources / "e.zarr"))
    assert not object_store.objects("e.zarr.partial")
    assert object_store.uploads() == 0
    assert store.rows == ROWS - 3
    assert store.take_ids(np.array([0, 206])).tolist() == ["img_000001", "img_000209"]
    listener = Listener()
    assert ingest(out=object_store.url("e.zarr/"), progress=listener, **options).fingerprint == store.fingerprint
    assert "nothing to do" in listener.notes[0]


@pytest.mark.parametrize(
    ("blocks", "note_bytes", "unit_bytes"),
    [(1, 40, 64), (5, 1 << 16, 4096), (9, 20, 4096), (11, 40, 64)],
)
def test_goes_on_where_it_stopped(object_store, sources, monkeypatch, blocks, note_bytes, unit_bytes):
    # Fingerprint units smaller and larger than a chunk; notes in objects of their own, and in the state.
    monkeypatch.setattr(fingerprint, "UNIT_BYTES", unit_bytes)
    monkeypatch.setattr(upload, "_NOTE_BYTES", note_bytes)
    options = killed(sources, object_store.url("e.zarr"), blocks, monkeypatch)
    safe = json.loads(object_store.get("e.zarr.partial/state.json"))["progress"]["stored"]
    assert safe >= 20 * blocks - CHUNK_ROWS - 3
    notes = [name for name in object_store.objects() if "notes-" in name]
    assert bool(notes) == (note_bytes < 99) or safe <= 64
    with pytest.raises(InputError, match=r"e.zarr: its ingest is unfinished"):
        open_embeddings(object_store.url("e.zarr"))
    listener = Listener()
    store = ingest(out=object_store.url("e.zarr"), progress=listener, **options)
    assert listener.rows <= ROWS - safe
    undisturbed = ingest(out=sources / "e.zarr", **options)
    assert store.fingerprint == undisturbed.fingerprint
    same(in_bucket(object_store), on_disk(sources / "e.zarr"))
    assert not object_store.objects("e.zarr.partial")


def test_unfinished_work_of_other_sources_or_options_is_not_thrown_away(object_store, sources, monkeypatch):
    url = object_store.url("e.zarr")
    options = killed(sources, url, 9, monkeypatch)
    before = in_bucket(object_store)
    np.save(sources / "other.npy", np.ones((ROWS, DIMS), np.float32))
    for changes, said in (
        ({"sources": sources / "other.npy"}, "from other sources"),
        ({"dtype": "float16"}, r"with other options \(dtype: none before, float16 now\)"),
    ):
        with pytest.raises(RunError, match=rf"{said}.*; to begin anew, remove \S+e.zarr.partial and \S+e.zarr, or"):
            ingest(out=url, **options | changes)
    assert in_bucket(object_store) == before
    listener = Listener()
    options["sources"] = [sources / "a.npy", sources / "b.npy"]
    store = ingest(out=url, progress=listener, **options)
    assert "going on behind row" in listener.notes[0]
    assert store.rows == ROWS - 3


def test_unfinished_work_that_has_stored_nothing_is_replaced(object_store, sources, monkeypatch):
    url = object_store.url("e.zarr")
    options = killed(sources, url, 9, monkeypatch)
    state = json.loads(object_store.get("e.zarr.partial/state.json"))
    state |= {"progress": {}, "digests": "", "marks": "", "notes": []}
    object_store.put("e.zarr.partial/state.json", json.dumps(state).encode())
    np.save(sources / "b.npy", np.ones((10, DIMS), np.float32))
    (sources / "ids.txt").write_text("".join(f"{row}\n" for row in range(110)))
    assert ingest(out=url, **options).rows == 110 - 2
    ingest(out=sources / "e.zarr", **options)
    # Nothing of the longer one is left.
    same(in_bucket(object_store), on_disk(sources / "e.zarr"))


@pytest.mark.parametrize(
    ("name", "damage"),
    [("embeddings/c/2/0", "removed"), ("ids/c/3", "changed"), ("state", "changed"), ("notes", "removed")],
)
def test_unfinished_work_that_was_damaged_is_done_again(object_store, sources, monkeypatch, name, damage):
    monkeypatch.setattr(upload, "_NOTE_BYTES", 40)
    options = killed(sources, object_store.url("e.zarr"), 9, monkeypatch)
    if name == "state":
        place = "e.zarr.partial/state.json"
        state = json.loads(object_store.get(place))
        object_store.put(place, json.dumps(state | {"digests": "", "marks": ""}).encode())
    else:
        place = next(each for each in object_store.objects() if name in each)
        if damage == "removed":
            object_store.remove(place)
        else:
            object_store.put(place, bytes(len(object_store.get(place))))
    store = ingest(out=object_store.url("e.zarr"), **options)
    assert store.fingerprint == ingest(out=sources / "e.zarr", **options).fingerprint
    same(in_bucket(object_store), on_disk(sources / "e.zarr"))


def test_what_is_not_ours_is_left_alone(object_store, sources, monkeypatch):
    url = object_store.url("e.zarr")
    object_store.put("e.zarr/embeddings/c/0/0", b"precious")
    with pytest.raises(InputError, match=r"e.zarr: already holds embeddings/c/0/0, which no unfinished ingest wrote"):
        ingest(out=url, **given(sources))
    assert object_store.objects() == {"e.zarr/embeddings/c/0/0": 8}
    object_store.remove("e.zarr/embeddings/c/0/0")
    object_store.put("e.zarr", b"a file")
    with pytest.raises(InputError, match="already exists, and is no store"):
        ingest(out=url, **given(sources))
    object_store.remove("e.zarr")
    object_store.put("e.zarr.partial/thesis.tex", b"")
    with pytest.raises(InputError, match=r"e.zarr.partial: in the way, .*'thesis.tex'"):
        ingest(out=url, **given(sources))
    assert list(object_store.objects()) == ["e.zarr.partial/thesis.tex"]
    object_store.remove("e.zarr.partial/thesis.tex")
    # Beside the chunks of an unfinished ingest: of the same job, and of another, which is cleared.
    options = killed(sources, url, 10, monkeypatch)
    object_store.put("e.zarr/embeddings/c/9/0", b"beyond what was written")
    with pytest.raises(InputError, match=r"already holds embeddings/c/9/0"):
        ingest(out=url, **options)
    state = json.loads(object_store.get("e.zarr.partial/state.json")) | {"progress": {}}
    object_store.put("e.zarr.partial/state.json", json.dumps(state).encode())
    with pytest.raises(InputError, match=r"already holds embeddings/c/9/0"):
        ingest(out=url, **given(sources, dtype="float16"))
    assert list(object_store.objects()) == ["e.zarr/embeddings/c/9/0"]


def test_a_finished_store_of_other_sources_is_refused(object_store, sources):
    url = object_store.url("e.zarr")
    ingest(out=url, **given(sources))
    before = object_store.objects()
    with pytest.raises(InputError, match=r"e.zarr: already exists, .*remove it or choose another"):
        ingest(out=url, **given(sources, dtype="float16"))
    assert object_store.objects() == before


@pytest.mark.parametrize(("come", "shard_rows"), [(10, None), (10, 96), (100, 96)])
def test_a_stream_that_does_not_tell_its_length(object_store, tmp_path, come, shard_rows):
    values = np.random.default_rng(come).standard_normal((come, DIMS)).astype(np.float32)
    table = pa.table({"e": pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), DIMS), "i": range(come)})
    with pa.ipc.new_stream(tmp_path / "a.arrow", table.schema) as stream:
        stream.write_table(table, max_chunksize=7)
    options = {"ids": "i", "rows_per_chunk": CHUNK_ROWS, "rows_per_shard": shard_rows}
    store = ingest(tmp_path / "a.arrow", object_store.url("e.zarr"), **options)
    assert store.read(0, store.rows).tobytes() == values.tobytes()
    ingest(tmp_path / "a.arrow", tmp_path / "e.zarr", **options)
    same(in_bucket(object_store), on_disk(tmp_path / "e.zarr"))


def test_from_an_object_store_into_it(object_store, tmp_path):
    values = np.random.default_rng(1).standard_normal((100, DIMS)).astype(np.float32)
    column = pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), DIMS)
    np.save(tmp_path / "a.npy", values)
    pq.write_table(pa.table({"e": column}), tmp_path / "b.parquet")
    for name in ("a.npy", "b.parquet"):
        object_store.put(f"in/{name}", (tmp_path / name).read_bytes())
    object_store.faults(0.05, seed=2, slow=0.01)
    store = ingest(
        [object_store.url("in/*.npy"), object_store.url("in/b.parquet")],
        object_store.url("e.zarr"),
        rows_per_chunk=CHUNK_ROWS,
    )
    assert store.read(0, 200).tobytes() == values.tobytes() * 2


def test_bad_rows_leave_nothing(object_store, sources):
    with pytest.raises(DataError, match="hold NaN"):
        ingest(out=object_store.url("e.zarr"), **given(sources, on_bad_row="error"))
    assert not object_store.objects()


def test_places_that_can_hold_no_store(sources):
    with pytest.raises(InputError, match="web servers take no stores"):
        ingest(out="http://127.0.0.1:1/e.zarr", **given(sources))
    with pytest.raises(InputError, match="s3://bucket: a whole bucket; name the store in it"):
        ingest(out="s3://bucket/", **given(sources))


def test_what_consoles_leave_for_a_folder_is_nothing(object_store, sources):
    object_store.put("e.zarr/", b"")
    assert ingest(out=object_store.url("e.zarr"), **given(sources)).rows == ROWS - 3


def test_two_at_once(object_store, sources, monkeypatch):
    monkeypatch.setattr(base, "BLOCK_BYTES", 20 * DIMS * 4)
    url = object_store.url("e.zarr")
    told = []

    def second() -> None:
        with pytest.raises(RunError, match=r"e.zarr: is being written by process \d+ on ") as error:
            ingest(out=url, **given(sources))
        told.append(error)

    store = ingest(out=url, progress=Listener(5, second), **given(sources))
    assert len(told) == 1
    assert store.rows == ROWS - 3
    assert not object_store.objects("e.zarr.partial")


@pytest.mark.parametrize("changes", [{}, {"dtype": "float16"}])
def test_a_zombie_is_told_and_mixes_nothing(object_store, sources, monkeypatch, changes):
    """A process thought dead wakes up when another has done its work, or other work, in the same place."""
    monkeypatch.setattr(base, "BLOCK_BYTES", 20 * DIMS * 4)
    url = object_store.url("e.zarr")

    def meanwhile() -> None:
        held = set(claim._held)
        claim._held.clear()
        if changes:  # other work: as the message says, what is there is removed first
            for name in (*object_store.objects("e.zarr/"), *object_store.objects("e.zarr.partial/")):
                object_store.remove(name)
        ingest(out=url, **given(sources, **changes))
        claim._held.update(held)

    with pytest.raises(RunError, match="has taken it over"):
        ingest(out=url, progress=Listener(6, meanwhile), **given(sources))
    ingest(out=sources / "e.zarr", **given(sources, **changes))
    same(in_bucket(object_store), on_disk(sources / "e.zarr"))


def test_a_chunk_that_another_process_wrote_meanwhile_is_found(object_store, sources, monkeypatch):
    monkeypatch.setattr(base, "BLOCK_BYTES", 20 * DIMS * 4)
    url = object_store.url("e.zarr")

    def meddle() -> None:
        object_store.put("e.zarr/embeddings/c/1/0", bytes(CHUNK_ROWS * DIMS * 4))

    with pytest.raises(StoreError, match=r"e.zarr/embeddings/c/1/0: is not as this ingest wrote it"):
        ingest(out=url, progress=Listener(9, meddle), **given(sources))
    assert not object_store.objects()


@pytest.fixture
def impatient(monkeypatch) -> None:
    """Gives up soon on a store that does not answer."""
    monkeypatch.setenv("STREAMCURATE_STORE_PATIENCE", "0.2")


def test_a_store_that_fails_for_good_in_the_middle(object_store, sources, monkeypatch, impatient):
    monkeypatch.setattr(base, "BLOCK_BYTES", 20 * DIMS * 4)
    url = object_store.url("e.zarr")

    def fail() -> None:
        object_store.faults(1.0, kinds=["reset"])

    with pytest.raises(ObjectError, match=r"e.zarr.*; 96 rows are kept in .*e.zarr.partial"):
        ingest(out=url, progress=Listener(5, fail), **given(sources))
    object_store.reset()
    with pytest.raises(InputError, match=r"e.zarr: its ingest is unfinished"):
        open_embeddings(url)
    listener = Listener()
    ingest(out=url, progress=listener, **given(sources))
    assert "going on behind row 96" in listener.notes[0]
    ingest(out=sources / "e.zarr", **given(sources))
    same(in_bucket(object_store), on_disk(sources / "e.zarr"))


def test_sources_that_fail_for_good_in_the_middle(object_store, sources, monkeypatch, impatient):
    monkeypatch.setattr(base, "BLOCK_BYTES", 20 * DIMS * 4)
    (sources / "b.npy").rename(sources / "b")
    object_store.put("b.npy", (sources / "b").read_bytes())
    options = given(sources, sources=[sources / "a.npy", object_store.url("b.npy")])

    def fail() -> None:
        object_store.faults(1.0, kinds=["reset"])

    with pytest.raises(ObjectError, match=r"b\.npy.*; 96 rows are kept in .*e\.zarr\.partial"):
        ingest(out=sources / "e.zarr", progress=Listener(5, fail), **options)
    object_store.reset()
    assert ingest(out=sources / "e.zarr", **options).rows == ROWS - 3


def test_a_store_that_cannot_be_reached(object_store, sources, impatient):
    object_store.faults(1.0, kinds=["reset"])
    with pytest.raises(ObjectError, match=r"e\.zarr"):
        ingest(out=object_store.url("e.zarr"), **given(sources))
    object_store.reset()
    assert not object_store.objects()


def test_requests_that_break_off(object_store, sources):
    """Before they arrive, and after they did: data and metadata."""
    left = {"embeddings/c/4/0": 2, "ids/c/2": 1, "e.zarr/zarr.json": 1, "embeddings/zarr.json": 1}

    def cut(method: str, path: str) -> str | None:
        for name in left:
            if method in ("PUT", "POST") and f"{name}" in path and left[name]:
                left[name] -= 1
                return "lost" if left[name] else "reset"
        return None

    object_store.faults(when=cut)
    ingest(out=object_store.url("e.zarr"), **given(sources))
    object_store.reset()
    assert not any(left.values())
    ingest(out=sources / "e.zarr", **given(sources))
    same(in_bucket(object_store), on_disk(sources / "e.zarr"))


@pytest.mark.parametrize("before", [None, "float16"])
def test_killed_behind_every_request(object_store, tmp_path, monkeypatch, before):
    """From nothing, and on what another ingest left: whatever request is the last, the same call finishes."""
    values = np.random.default_rng(1).standard_normal((40, DIMS)).astype(np.float32)
    np.save(tmp_path / "a.npy", values)
    options = {"sources": tmp_path / "a.npy", "rows_per_chunk": CHUNK_ROWS}
    ingest(out=tmp_path / "e.zarr", **options)
    left = [0]

    def counted(function):
        def call(*given):
            if left[0] <= 0:
                raise Killed
            left[0] -= 1
            result = function(*given)
            if left[0] == 0:
                raise Killed
            return result

        return call

    changing = {name: counted(getattr(objects, name)) for name in ("write", "replace", "delete", "delete_many")}

    def killed_behind(requests: int, url: str, **changes: object) -> bool:
        left[0] = requests
        with monkeypatch.context() as patch:
            for name, function in changing.items():
                patch.setattr(objects, name, function)
            try:
                ingest(out=url, **options | changes)
            except Killed:
                return True
        return False

    requests, finished = 1, False
    while not finished and requests < (8 if before else 99):
        name = f"{requests}.zarr"
        url = object_store.url(name)
        if before:
            assert killed_behind(4, url, dtype=before)
        finished = not killed_behind(requests, url)
        if f"{name}/zarr.json" in object_store.objects(name):
            assert open_embeddings(url).read(0, 40).tobytes() == values.tobytes()
        else:
            with pytest.raises(InputError):
                open_embeddings(url)
        assert ingest(out=url, **options).read(0, 40).tobytes() == values.tobytes()
        same(in_bucket(object_store, name), on_disk(tmp_path / "e.zarr"))
        assert not object_store.objects(f"{name}.partial")
        requests += 1
    assert requests == 8 if before else requests > 9


def start(folder: Path, url: str) -> subprocess.Popen[bytes]:
    options = ["--rows-per-chunk", str(CHUNK_ROWS), "--on-bad-row", "drop", "--quiet", "--ids", f"{folder}/ids.txt"]
    lines = (
        f"import sys; from streamcurate.embeddings.sources import base; base.BLOCK_BYTES = {16 * DIMS * 4}; "
        "from streamcurate.cli.main import main; sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", lines, "ingest", f"{folder}/?.npy", url, *options]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def test_killed_at_random_instants(object_store, sources):
    choose = random.Random(7)
    object_store.faults(0.03, seed=1, slow=0.02)
    url, seen = object_store.url("e.zarr"), []

    def stored() -> int:
        if "e.zarr.partial/state.json" not in object_store.objects("e.zarr.partial"):
            return 0
        return int(json.loads(object_store.get("e.zarr.partial/state.json")).get("progress", {}).get("stored", 0))

    while len(seen) < 3:
        process = start(sources, url)
        aim = stored() + choose.randint(1, 2) * CHUNK_ROWS
        until = time.monotonic() + 60
        while process.poll() is None and stored() < aim and time.monotonic() < until:
            time.sleep(0.002)
        time.sleep(choose.uniform(0, 0.03))
        process.kill()
        process.communicate(timeout=60)
        if object_store.objects("e.zarr/zarr.json"):
            break
        seen.append(stored())
    assert len(seen) == 3
    assert seen == sorted(seen)
    assert seen[-1] >= 2 * CHUNK_ROWS
    last = start(sources, url)
    _, errors = last.communicate(timeout=60)
    assert last.returncode == 0, errors.decode()
    object_store.reset()
    ingest(out=sources / "e.zarr", **given(sources))
    same(in_bucket(object_store), on_disk(sources / "e.zarr"))
    assert not object_store.objects("e.zarr.partial")
