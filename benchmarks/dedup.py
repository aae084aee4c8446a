"""Near-duplicates: beside brute force by FAISS and an in-memory SemDeDup, and out of core under a memory limit.

    python benchmarks/dedup.py                          # 2,000,000 × 128 under 1 GiB, and the peers on 200,000 of them
    python benchmarks/dedup.py --data FOLDER            # the peers on FOLDER/embeddings.npy too, at 0.95, 0.9 and 0.8
    python benchmarks/dedup.py --rows 100000 --peer-rows 20000

The synthetic rows are those of `synthetic.py`, of which `--planted` are replaced by near-copies of others: noise of a
tenth of their norm, cosine about 0.995 to the original and 0.99 to another copy of it, while unrelated rows of one
component lie around 0.8. So at 0.95 what is planted is all there is to find.

- streamcurate: the whole of `dedup` from the store on disk: the clusters it makes for itself, all pairs that could be
  duplicates, components, and files written.
- FAISS range search: `IndexFlatIP.range_search` of all rows in slabs over all rows in memory, every pair; components by
  SciPy. float32, so that pairs within rounding of the threshold may differ: rows that do are counted.
- SemDeDup: FAISS k-means in memory (about 1,000 rows a cluster, 20 iterations), then all pairs inside each cluster in
  float32 by NumPy. Pairs across clusters are never seen: `found` says how many rows with a duplicate it knows of.

All on the processors this process may use, one after the other in one run; medians of `--rounds` for the small sets.
Recall and peak memory of the large set are of the command in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from process_memory import mebibytes, run_measured, working_folder
from reporting import conclude, parser, table
from synthetic import Mixture

import streamcurate as sc
from streamcurate.storage import create_array, create_group
from streamcurate.streaming.budget import available_threads, parse_bytes

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "package_summaries"
NOISE = 0.1
CHUNK_BYTES = 32 << 20
SLAB_ROWS = 4096
BLOCK_ROWS = 1 << 17
SEMDEDUP_ROWS = 1000


def planted_rows(rows: int, dims: int, planted: int, seed: int) -> tuple[NDArray[np.float16], NDArray[np.int64]]:
    """Rows, and the original of each: its own number where it is none's copy."""
    values = np.empty((rows, dims), dtype=np.float16)
    mixture = Mixture(dims, seed)
    for start in range(0, rows, BLOCK_ROWS):
        values[start : start + BLOCK_ROWS] = mixture.rows(start, min(start + BLOCK_ROWS, rows))
    random = np.random.default_rng(seed)
    copies = np.sort(random.choice(rows, planted, replace=False))
    originals = np.setdiff1d(np.arange(rows), copies)
    original = np.arange(rows)
    original[copies] = random.choice(originals, planted)
    for start in range(0, planted, BLOCK_ROWS):
        part = copies[start : start + BLOCK_ROWS]
        of = values[original[part]].astype(np.float32)
        noise = random.standard_normal(of.shape, dtype=np.float32)
        noise *= NOISE * np.linalg.norm(of, axis=1, keepdims=True) / np.linalg.norm(noise, axis=1, keepdims=True)
        values[part] = (of + noise).astype(np.float16)
    return values, original


def write_store(path: Path, values: NDArray[Any]) -> None:
    create_group(path, {"format": 1})
    chunk_rows = max(CHUNK_BYTES // values[:1].nbytes, 1)
    array = create_array(path / "embeddings", values.shape, values.dtype, chunk_rows)
    for start in range(0, len(values), chunk_rows):
        array.write(start, values[start : start + chunk_rows])


# -- whose duplicates are whose: the lowest row of each row's component ------------------------------------------------


def components_of(found: Path, rows: int) -> NDArray[np.int64]:
    """From the folder that `dedup` wrote."""
    component = np.arange(rows)
    listed = pq.read_table(found / "duplicates.parquet", columns=["row", "component"])
    component[listed["row"].to_numpy()] = listed["component"].to_numpy()
    return component


def joined(rows: int, left: NDArray[np.int64], right: NDArray[np.int64]) -> NDArray[np.int64]:
    """From pairs."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(left), dtype=np.int8), (left, right)), shape=(rows, rows))
    _, labels = connected_components(graph, directed=False)
    lowest = np.full(labels.max() + 1, rows, dtype=np.int64)
    np.minimum.at(lowest, labels, np.arange(rows))
    return lowest[labels]


def unit(values: NDArray[Any]) -> NDArray[np.float32]:
    wide = values.astype(np.float32)
    return wide / np.linalg.norm(wide, axis=1, keepdims=True)


def faiss_search(values: NDArray[Any], threshold: float) -> NDArray[np.int64]:
    """Every pair, by brute force in float32."""
    import faiss

    faiss.omp_set_num_threads(available_threads())
    vectors = unit(values)
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    lefts, rights = [], []
    for start in range(0, len(vectors), SLAB_ROWS):
        edges, _, found = index.range_search(vectors[start : start + SLAB_ROWS], threshold)
        left = np.repeat(np.arange(len(edges) - 1) + start, np.diff(edges.astype(np.int64)))
        keep = found > left
        lefts.append(left[keep])
        rights.append(found[keep])
    return joined(len(vectors), np.concatenate(lefts), np.concatenate(rights))


def semdedup(values: NDArray[Any], threshold: float) -> NDArray[np.int64]:
    """Pairs inside the clusters of one flat k-means."""
    import faiss

    faiss.omp_set_num_threads(available_threads())
    vectors = unit(values)
    clusters = max(len(vectors) // SEMDEDUP_ROWS, 2)
    kmeans = faiss.Kmeans(vectors.shape[1], clusters, niter=20, seed=0, spherical=True)
    kmeans.train(vectors)
    labels = kmeans.index.search(vectors, 1)[1][:, 0]
    order = np.argsort(labels, kind="stable")
    lefts, rights = [], []
    for members in np.split(order, np.flatnonzero(np.diff(labels[order])) + 1):
        for start in range(0, len(members), SLAB_ROWS):  # a cluster may be a tenth of all rows
            mine = members[start : start + SLAB_ROWS]
            left, right = np.nonzero(vectors[mine] @ vectors[members].T >= threshold)
            keep = right > left + start
            lefts.append(mine[left[keep]])
            rights.append(members[right[keep]])
    return joined(len(vectors), np.concatenate(lefts), np.concatenate(rights))


def ours(store: Path, out: Path, threshold: float, rows: int) -> NDArray[np.int64]:
    """The whole call, from the store on disk."""
    sc.dedup(store, out, cosine=threshold)
    return components_of(out, rows)


def warm_up(folder: Path) -> None:
    """Have every kernel compiled before the clock starts, for both kinds of sets."""
    for dims in (384, 128):
        values, _ = planted_rows(6000, dims, 300, 1)
        write_store(folder / "warm-up.zarr", values)
        ours(folder / "warm-up.zarr", folder / "warm-up", 0.95, len(values))
        shutil.rmtree(folder / "warm-up.zarr")
        shutil.rmtree(folder / "warm-up")


# -- the two parts -----------------------------------------------------------------------------------------------------


def beside_peers(name: str, values: NDArray[Any], threshold: float, folder: Path, rounds: int) -> dict[str, Any]:
    store = folder / "peers.zarr"
    write_store(store, values)
    rows = len(values)
    calls: dict[str, Callable[[int], NDArray[np.int64]]] = {
        "streamcurate": lambda turn: ours(store, folder / f"peers-{turn}", threshold, rows),
        "FAISS range search": lambda turn: faiss_search(values, threshold),
        "SemDeDup in memory": lambda turn: semdedup(values, threshold),
    }
    seconds: dict[str, list[float]] = {one: [] for one in calls}
    found: dict[str, NDArray[np.int64]] = {}
    for turn in range(rounds):
        for one, call in calls.items():
            began = time.perf_counter()
            found[one] = call(turn)
            seconds[one].append(time.perf_counter() - began)
    shutil.rmtree(store)
    for turn in range(rounds):
        shutil.rmtree(folder / f"peers-{turn}")
    mine = found["streamcurate"]
    duplicated = np.flatnonzero(np.bincount(mine, minlength=rows)[mine] > 1)
    result: dict[str, Any] = {"set": name, "rows": rows, "dims": values.shape[1], "cosine": threshold}
    result["duplicates"] = len(duplicated)
    result["seconds"] = {one: round(statistics.median(times), 2) for one, times in seconds.items()}
    faiss_found = found["FAISS range search"]
    result["differs_from_faiss"] = int(np.count_nonzero(mine != faiss_found))
    own = found["SemDeDup in memory"]
    known = np.bincount(own, minlength=rows)[own] > 1
    result["semdedup_found"] = float(known[duplicated].mean()) if len(duplicated) else 1.0
    return result


def out_of_core(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    values, original = planted_rows(options.rows, options.dims, options.planted, options.seed)
    store, out = folder / "planted.zarr", folder / "planted"
    write_store(store, values)
    del values
    measured = run_measured(
        ["dedup", store, out, "--cosine", 0.95, "--memory-limit", options.memory_limit, "--quiet"], folder
    )
    summary = json.loads((out / "dedup.json").read_text())
    component = components_of(out, options.rows)
    copies = np.flatnonzero(original != np.arange(options.rows))
    recall = float(np.mean(component[copies] == component[original[copies]]))
    kept = np.load(out / "keep.npy")
    size = np.bincount(component, minlength=options.rows)[component]
    foreign = int(np.count_nonzero((size > 1) & (np.bincount(original, minlength=options.rows)[original] == 1)))
    return {
        "rows": options.rows,
        "dims": options.dims,
        "planted": options.planted,
        "recall": recall,
        "rows_listed_without_planted_copies": foreign,
        "removed": int(len(kept) - kept.sum()),
        "summary": {key: summary[key] for key in ("rows", "kept", "removed", "components") if key in summary},
        **measured.described(),
    }


def main() -> None:
    options = arguments()
    limit = parse_bytes(options.memory_limit)
    needed = 12 * options.rows * options.dims
    with working_folder("dedup", options.folder, needed) as folder:
        warm_up(folder)
        compared = []
        if (file := options.data / "embeddings.npy").exists():
            texts = np.load(file)
            compared += [
                beside_peers("text embeddings", texts, cosine, folder, options.rounds) for cosine in (0.95, 0.9, 0.8)
            ]
        planted, _ = planted_rows(options.peer_rows, options.dims, options.peer_rows // 20, options.seed)
        compared.append(beside_peers("synthetic, planted", planted, 0.95, folder, 1))
        del planted
        large = out_of_core(options, folder)
    names = list(compared[0]["seconds"])
    lines = [
        [
            f"{one['set']}, {one['rows']:,} × {one['dims']}",
            one["cosine"],
            f"{one['duplicates']:,}",
            *(f"{one['seconds'][name]:,.1f}" for name in names),
            one["differs_from_faiss"],
            f"{one['semdedup_found']:.1%}",
        ]
        for one in compared
    ]
    head = ["rows", "cosine", "with duplicates", *(f"{name}, s" for name in names), "differ", "SemDeDup found"]
    print("\n" + table(head, lines))
    print(
        f"\n{large['rows']:,} × {large['dims']} with {large['planted']:,} planted copies, limit "
        f"{mebibytes(limit)} MiB: {large['seconds']:,.0f} s, peak {mebibytes(large['driver_peak_bytes'])} MiB, scratch "
        f"and result {mebibytes(large['disk_peak_bytes'])} MiB with the store, recall {large['recall']:.6f}, "
        f"{large['rows_listed_without_planted_copies']} other rows listed"
    )
    conclude(
        "dedup",
        {"peers": compared, "out_of_core": {"memory_limit": limit, **large}},
        {
            "recall of what was planted is 1": large["recall"] == 1.0,
            "peak below the limit": large["driver_peak_bytes"] < limit,
            "as fast as FAISS range search": all(
                one["seconds"]["streamcurate"] <= one["seconds"]["FAISS range search"] for one in compared
            ),
        },
        options.json,
    )


def arguments() -> argparse.Namespace:
    made = parser(__doc__)
    made.add_argument("--rows", type=int, default=2_000_000)
    made.add_argument("--dims", type=int, default=128)
    made.add_argument("--planted", type=int, help="near-copies among them (default a twentieth)")
    made.add_argument("--peer-rows", type=int, default=200_000)
    made.add_argument("--rounds", type=int, default=3, help="of the comparison on text embeddings (default 3)")
    made.add_argument("--memory-limit", default="1GiB")
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--data", type=Path, default=DATA, metavar="FOLDER", help="holds embeddings.npy")
    made.add_argument("--folder", type=Path, help="where stores are written; the system's temporary folder by default")
    options = made.parse_args()
    if options.planted is None:
        options.planted = options.rows // 20
    return options


if __name__ == "__main__":
    main()
