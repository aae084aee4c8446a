"""Speed of reading files of embeddings, and of ingest, beside the formats' own libraries and plain reads.

    python benchmarks/ingest_rates.py                          # 100,000 × 768 float32 (0.3 GB) in seven files
    python benchmarks/ingest_rates.py --rows 400000 --folder /scratch --json ingest_rates.json

Reading: all blocks of the reader that `ingest` uses, taken and dropped, beside
- npy, safetensors: plain `readinto` of the file, piece by piece into one buffer of a block's size;
- parquet: pyarrow's own scans of the column, `iter_batches` and the threaded dataset scanner, whichever is faster;
- arrow: pyarrow's own iteration over the record batches of the memory-mapped file, adding up the bytes of the column's
  values, for mapping alone touches none. Our blocks are the bytes, copied to memory: they are not added up as well.
Ingest: the whole of it, every row checked, hashed and written durably, beside a plain copy of the file by as large
pieces, with fsync.

The files are in the page cache on both sides; random values, so that nothing is compressible. Ours and theirs run in
turn, `--rounds` times; ratios are medians of each round's. Peak memory is that of `ingest` in a process of its own,
under the smallest limit.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
from reporting import conclude, parser, table

from streamcurate.embeddings import ingest
from streamcurate.embeddings.sources import open_sources
from streamcurate.embeddings.sources.base import BLOCK_BYTES
from streamcurate.streaming.budget import SMALLEST_LIMIT

NPY_GOAL, COLUMN_GOAL = 0.8, 0.5
# Batches as the library datasets writes them, and as Feather is written.
STREAM_ROWS, FILE_ROWS = 1000, 1 << 16
GROUP_ROWS = 8192


class Format(NamedTuple):
    """A file, and how others read it; `goal` is the ratio to reach."""

    name: str
    file: str
    write: Callable[[Path, np.ndarray], None]
    peers: list[Callable[[Path], None]]
    goal: float | None


def options(given: list[str] | None = None) -> argparse.Namespace:
    made = parser(__doc__)
    made.add_argument("--rows", type=int, default=100_000)
    made.add_argument("--dims", type=int, default=768)
    made.add_argument("--rounds", type=int, default=5)
    made.add_argument("--only", nargs="+", metavar="NAME", help="some of the files")
    made.add_argument("--folder", type=Path, help="where the files are written, and removed afterwards")
    made.add_argument("--peak", nargs=2, metavar=("FILE", "STORE"), help=argparse.SUPPRESS)
    return made.parse_args(given)


# -- files -------------------------------------------------------------------------------------------------------------


def listed(values: np.ndarray) -> pa.Table:
    """Rows as lists."""
    rows, dims = values.shape
    flat = pa.array(values.reshape(-1))
    offsets = np.arange(rows + 1, dtype=np.int64) * dims
    if offsets[-1] < 1 << 31:
        return pa.table({"embedding": pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), flat)})
    return pa.table({"embedding": pa.LargeListArray.from_arrays(pa.array(offsets), flat)})


def fixed(values: np.ndarray) -> pa.Table:
    """Rows as lists of a fixed size."""
    return pa.table({"embedding": pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])})


def write_ipc(path: Path, made: pa.Table, open_: Any, rows: int) -> None:
    with open_(str(path), made.schema) as writer:
        writer.write_table(made, max_chunksize=rows)


def write_safetensors(path: Path, values: np.ndarray) -> None:
    from safetensors.numpy import save_file

    save_file({"embedding": values}, str(path))


# -- how others read them ----------------------------------------------------------------------------------------------


def plainly(path: Path) -> None:
    buffer = bytearray(BLOCK_BYTES)
    with open(path, "rb", buffering=0) as file:
        while file.readinto(buffer):
            pass


def iterated(path: Path) -> None:
    with pq.ParquetFile(path) as file:
        for _ in file.iter_batches(columns=["embedding"]):
            pass


def scanned(path: Path) -> None:
    for _ in pyarrow.dataset.dataset(path, format="parquet").scanner(columns=["embedding"]).to_batches():
        pass


def mapped_batches(path: Path) -> None:
    with pa.memory_map(str(path)) as file:
        if path.suffix == ".arrow":
            opened = pa.ipc.open_file(file)
            batches: Iterator[Any] = (opened.get_batch(number) for number in range(opened.num_record_batches))
        else:
            batches = iter(pa.ipc.open_stream(file))
        for batch in batches:
            values = batch.column("embedding").flatten().to_numpy(zero_copy_only=True)
            int(values.view(np.uint32).sum(dtype=np.uint64))


def copied(path: Path, target: Path) -> None:
    buffer = bytearray(BLOCK_BYTES)
    with open(path, "rb", buffering=0) as file, open(target, "wb", buffering=0) as out:
        while count := file.readinto(buffer):
            out.write(memoryview(buffer)[:count])
        os.fsync(out.fileno())


FORMATS = [
    Format("npy", "x.npy", lambda path, values: np.save(path, values), [plainly], NPY_GOAL),
    Format("safetensors", "x.safetensors", write_safetensors, [plainly], None),
    Format(
        "parquet, lists",
        "x.parquet",
        lambda path, values: pq.write_table(listed(values), path),
        [iterated, scanned],
        COLUMN_GOAL,
    ),
    Format(
        "parquet, row groups",
        "groups.parquet",
        lambda path, values: pq.write_table(listed(values), path, row_group_size=GROUP_ROWS),
        [iterated, scanned],
        COLUMN_GOAL,
    ),
    Format(
        "parquet, fixed size",
        "fixed.parquet",
        lambda path, values: pq.write_table(fixed(values), path, row_group_size=GROUP_ROWS),
        [iterated, scanned],
        COLUMN_GOAL,
    ),
    Format(
        "arrow stream",
        "x.ipc",
        lambda path, values: write_ipc(path, listed(values), pa.ipc.new_stream, STREAM_ROWS),
        [mapped_batches],
        COLUMN_GOAL,
    ),
    Format(
        "arrow file",
        "x.arrow",
        lambda path, values: write_ipc(path, fixed(values), pa.ipc.new_file, FILE_ROWS),
        [mapped_batches],
        COLUMN_GOAL,
    ),
]


# -- measuring ---------------------------------------------------------------------------------------------------------


def blocks(path: Path) -> int:
    """Rows of all blocks, which are dropped."""
    (reader,) = open_sources(path)
    return sum(len(values) for values, _ in reader.blocks(0))


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def rates(ours: list[float], theirs: list[float], rows: int, size: int) -> dict[str, float]:
    """Medians: rows and GB a second of ours, GB a second of theirs, and of each round's ratio."""
    taken = statistics.median(ours)
    return {
        "rows_per_second": round(rows / taken),
        "gb_per_second": round(size / taken / 1e9, 2),
        "peer_gb_per_second": round(size / statistics.median(theirs) / 1e9, 2),
        "ratio": round(statistics.median(other / one for one, other in zip(ours, theirs, strict=True)), 3),
    }


@contextmanager
def gone_afterwards(path: Path) -> Iterator[Path]:
    try:
        yield path
    finally:
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def measure(format_: Format, path: Path, rows: int, size: int, rounds: int) -> dict[str, Any]:
    """Rates of one file."""
    folder = path.parent
    reading: tuple[list[float], list[float]] = ([], [])
    whole: tuple[list[float], list[float]] = ([], [])
    if blocks(path) != rows:
        raise RuntimeError(f"{path}: not all rows were read")
    for peer in format_.peers:
        peer(path)
    for _ in range(rounds):
        reading[0].append(seconds(lambda: blocks(path)))
        reading[1].append(min(seconds(lambda peer=peer: peer(path)) for peer in format_.peers))
        with gone_afterwards(folder / "made.zarr") as store:
            whole[0].append(seconds(lambda store=store: ingest(path, store)))
        with gone_afterwards(folder / "copy") as copy:
            whole[1].append(seconds(lambda copy=copy: copied(path, copy)))
    with gone_afterwards(folder / "made.zarr") as store:
        child = [sys.executable, __file__, "--peak", str(path), str(store)]
        peak = int(subprocess.run(child, check=True, capture_output=True, text=True).stdout)
    return {
        "reading": rates(*reading, rows, size),
        "ingest": rates(*whole, rows, size),
        "peak_bytes": peak,
    }


def peak(path: str, store: str) -> None:
    """In a process of its own: ingest under the smallest limit."""
    ingest(path, store, memory_limit=SMALLEST_LIMIT)
    # Not getrusage: its peak is inherited from the process that started this one.
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    print(int(line.split()[1]) * 1024)


def run(arguments: argparse.Namespace, folder: Path) -> None:
    """Write, measure and remove one file after the other; print a table and the goals."""
    rows, dims = arguments.rows, arguments.dims
    values = np.random.default_rng(0).standard_normal((rows, dims), dtype=np.float32)
    size = values.nbytes
    chosen = [format_ for format_ in FORMATS if arguments.only is None or format_.name in arguments.only]
    files: dict[str, dict[str, Any]] = {}
    for format_ in chosen:
        with gone_afterwards(folder / format_.file) as path:
            try:
                format_.write(path, values)
            except ImportError as error:
                print(f"{format_.name}: left out ({error})")
                continue
            files[format_.name] = measure(format_, path, rows, size, arguments.rounds)
    head = ["GB/s", "reading", "peer", "ratio", "ingest", "copy", "ratio", "rows/s", "peak MiB"]
    lines = []
    for name, found in files.items():
        reading, whole = found["reading"], found["ingest"]
        lines.append(
            [
                name,
                *(reading[key] for key in ("gb_per_second", "peer_gb_per_second", "ratio")),
                *(whole[key] for key in ("gb_per_second", "peer_gb_per_second", "ratio")),
                f"{whole['rows_per_second']:,}",
                found["peak_bytes"] >> 20,
            ]
        )
    print(f"{rows:,} × {dims} float32, {size / 1e9:.2f} GB in each file, all in the page cache\n")
    print(table(head, lines))
    goals = {
        f"{format_.name}: read at {format_.goal} of its peer at least": files[format_.name]["reading"]["ratio"]
        >= format_.goal
        for format_ in chosen
        if format_.goal is not None and format_.name in files
    }
    goals["peak memory of every ingest below the smallest limit"] = all(
        found["peak_bytes"] < SMALLEST_LIMIT for found in files.values()
    )
    result = {"rows": rows, "dims": dims, "bytes": size, "limit_bytes": SMALLEST_LIMIT, "files": files}
    conclude("ingest_rates", result, goals, arguments.json)


def main() -> None:
    arguments = options()
    if arguments.peak:
        peak(*arguments.peak)
        return
    with tempfile.TemporaryDirectory(prefix="ingest-rates-", dir=arguments.folder) as folder:
        run(arguments, Path(folder))


if __name__ == "__main__":
    main()
