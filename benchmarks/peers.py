"""Speed of one flat k-means beside every installable peer, on the CPU.

    pip install -e '.[bench]'                            # fastkmeans brings PyTorch: its CPU build is enough
    python benchmarks/peers.py --data FOLDER --json benchmarks/results/peers.json --markdown benchmarks/results/peers.md
    python benchmarks/peers.py --quick                   # small cases, a minute
    python benchmarks/peers.py --cases clustered-768 --contestants streamcurate,FAISS --clusters 1000,8000 --rounds 5

All take part in one process, in rounds (A B C, A B C, ...), on the same rows, with the same first centroids (distinct
rows) where they can be given any, as many passes, as many threads. Before each turn the machine's float32 matrix
product of the same shape is measured through NumPy; the median of a round counts. Peers that are slow, or approximate
by design, take part in the first round of some cases only, unless --contestants names them.

For each: seconds of a whole Lloyd iteration (median of the iterations, as the tool itself tells of them, then of the
rounds); effective GFLOP/s, 2 n k d over that; their share of the machine's product; the ratio of a peer's time to ours
(median of the rounds' own ratios, above 1: ours is faster); the fit from rows and first centroids to the last ones,
without and with labels of all rows, and the ratio of the latter's processor time, which others' work on the machine
disturbs least; the share of 2,000 rows whose label, as the tool gives it, is that of brute force in float64 over the
tool's own centroids; the inertia of its labels and centroids in float64, over ours. Peak memory comes from a process of
its own for each, in the cases that --memory names: resident in all, and beyond what it had with its libraries warm and
the rows loaded (float32 for the peers, as stored for ours).

Then the engine over a store on disk: beside the same rows in memory where computing takes longer, and beside plain
readinto of the same files where reading does.
"""

from __future__ import annotations

import argparse
import gc
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from process_memory import working_folder
from reporting import conclude, machine, parser, table
from speed import disk, memory
from speed.contestants import Contestant, Ours, Problem, Solution
from speed.judge import agreement, inertia, sgemm_rate
from speed.others import contestants, missing, versions
from speed.rows import Case, make_rows
from speed.tables import HEAD, cells, disk_goals, disk_lines, figures, goals, markdown_table
from threadpoolctl import threadpool_info, threadpool_limits

from streamcurate.streaming.budget import available_threads

CASES = (
    Case("real", 0, 384, 1000, "float16", everyone=True),
    Case("real", 0, 384, 4000, "float16", everyone=True),
    Case("clustered", 40_000, 384, 1000, "float16", everyone=True),
    Case("clustered", 60_000, 384, 4000, "float16"),
    Case("clustered", 30_000, 768, 4000, "float32"),
    Case("clustered", 24_000, 1024, 4000, "float16"),
    Case("isotropic", 30_000, 384, 1000, "float32"),
)
QUICK = (
    Case("real", 10_000, 384, 500, "float16", everyone=True),
    Case("clustered", 10_000, 384, 500, "float16", everyone=True),
    Case("clustered", 5_000, 768, 500, "float32"),
    Case("isotropic", 5_000, 384, 500, "float32"),
)
QUICK_DISK = disk.Sizes(rows=10_000, clusters=500, read_rows=100_000, rounds=1)
OURS = Ours.name


def main() -> None:
    options = arguments()
    skipped: dict[str, str] = {}
    taking_part = []
    for one in contestants():
        if options.contestants and one.name not in options.contestants:
            continue
        if (why := missing(one)) is not None:
            skipped[one.name] = why
        else:
            taking_part.append(one)
    results: dict[str, dict[str, Any]] = {}
    met: dict[str, bool] = {}
    memory_left = {"none": 0, "first": 1, "all": 1 << 30}[options.memory]
    for case in chosen_cases(options):
        try:
            rows = make_rows(case, options.data)
        except FileNotFoundError as error:
            skipped[case.name] = str(error)
            continue
        case = replace(case, rows=len(rows), dims=rows.shape[1])
        if case.clusters > len(rows):
            skipped[case.name] = f"{len(rows):,} rows for {case.clusters:,} clusters"
            continue
        found = one_case(case, rows, taking_part, options)
        if memory_left and (options.memory == "all" or is_largest(case, options)):
            memory_left -= 1
            add_memory(found["contestants"], rows, case, options)
        results[case.name] = found
        met |= goals(case, found["contestants"], OURS)
        show(case, found)
    on_disk = None
    if not options.no_disk:
        sizes = QUICK_DISK if options.quick else disk.Sizes()
        with working_folder("peers", options.folder, 3 * 2 * sizes.dims * (sizes.rows + sizes.read_rows)) as folder:
            on_disk = disk.measure(folder, sizes, options.threads)
        met |= disk_goals(on_disk)
        print("\nfrom disk\n\n" + "\n".join(disk_lines(on_disk)))
    for name, why in skipped.items():
        print(f"skipped: {name}: {why}")
    result = {
        "threads": options.threads,
        "rounds": options.rounds,
        "iterations": options.iterations,
        "versions": versions(taking_part),
        "blas": blas(),
        "notes": {one.name: one.note for one in taking_part},
        "skipped": skipped,
        "cases": results,
        "disk": on_disk,
    }
    if options.markdown is not None:
        options.markdown.parent.mkdir(parents=True, exist_ok=True)
        options.markdown.write_text(markdown(result, met))
    conclude("peers", result, met, options.json)


def one_case(
    case: Case, rows: np.ndarray[Any, Any], taking_part: list[Contestant], options: argparse.Namespace
) -> dict[str, Any]:
    """All rounds of one case."""
    chosen = np.sort(np.random.default_rng(case.clusters).choice(len(rows), case.clusters, replace=False))
    problem = Problem(rows, rows[chosen].astype(np.float32), options.iterations, options.threads)
    warm = Problem(rows[:2000], problem.start[:50].copy(), 2, options.threads)
    rounds: list[tuple[float, dict[str, Solution]]] = []
    failed: dict[str, str] = {}
    judged: dict[str, dict[str, float]] = {}
    if not (case.everyone or options.contestants):
        taking_part = [one for one in taking_part if one.main]
    for number in range(options.rounds):
        rates = []
        solutions: dict[str, Solution] = {}
        for one in taking_part:
            if one.name in failed or (number and not one.main):
                continue
            print(f"\r{case.name}: round {number + 1} of {options.rounds}: {one.name:<30}", end="", flush=True)
            try:
                with threadpool_limits(options.threads, user_api="blas"):
                    rates.append(sgemm_rate(problem.single, problem.start))
                    if not number:
                        one.solve(warm)
                    gc.collect()
                    solved = one.solve(problem)
            except Exception as error:  # a peer that cannot is left out, the others go on
                if one.name == OURS:
                    raise
                failed[one.name] = f"{type(error).__name__}: {error}"
                continue
            if not number:
                judged[one.name] = {
                    "labels_equal": agreement(rows, solved.centroids, solved.labels),
                    "inertia": inertia(rows, solved.centroids, solved.labels),
                }
            # Only times are needed from here on.
            solutions[one.name] = replace(solved, centroids=solved.centroids[:0], labels=solved.labels[:0])
        if solutions:
            rounds.append((float(np.median(rates)), solutions))
    print("\r" + " " * 79 + "\r", end="")
    found = figures(case, rounds, OURS)
    for name, one_found in found.items():
        one_found |= judged[name]
        if OURS in judged:
            one_found["inertia_of_ours"] = judged[name]["inertia"] / judged[OURS]["inertia"]
    return {
        "rows": case.rows,
        "dims": case.dims,
        "clusters": case.clusters,
        "dtype": case.dtype,
        "sgemm_gflops": float(np.median([rate for rate, _ in rounds])) / 1e9,
        "failed": failed,
        "contestants": found,
    }


def is_largest(case: Case, options: argparse.Namespace) -> bool:
    """Whether memory is measured here when it is measured once: the largest of the cases with most contestants."""
    largest = max(chosen_cases(options), key=lambda one: (one.everyone, one.rows * one.dims, one.clusters))
    return case.name == largest.name


def add_memory(
    found: dict[str, dict[str, Any]], rows: np.ndarray[Any, Any], case: Case, options: argparse.Namespace
) -> None:
    """Peak memory of everyone in this case; ours from disk as well, which has no time of its own here."""
    with working_folder("peers", options.folder, 4 * rows.nbytes + (64 << 20)) as folder:
        memory.prepare(folder, rows)
        for name in [*found, memory.FROM_DISK] if OURS in found else list(found):
            print(f"\r{case.name}: memory: {name:<30}", end="", flush=True)
            peak = memory.measure(name, folder, case.clusters, options.threads)
            if peak is None:
                continue
            if name == memory.FROM_DISK:
                found[OURS]["memory_from_disk"] = peak
            else:
                found[name]["memory"] = peak
    print("\r" + " " * 79 + "\r", end="")


def title(found: dict[str, Any], name: str) -> str:
    """What a case is."""
    return (
        f"{name}: {found['rows']:,} × {found['dims']} {found['dtype']}, k = {found['clusters']:,}; "
        f"sgemm {found['sgemm_gflops']:,.0f} GFLOP/s"
    )


def notes(found: dict[str, Any]) -> list[str]:
    """What belongs below a case's table."""
    lines = [f"{name} failed: {why}" for name, why in found["failed"].items()]
    most = max(one["iterations"] for one in found["contestants"].values())
    lines += [
        f"{name} ended after {one['iterations']} of {most} iterations: no label changed any more"
        for name, one in found["contestants"].items()
        if 1 < one["iterations"] < most
    ]
    if (peak := found["contestants"].get(OURS, {}).get("memory_from_disk")) is not None:
        lines.append(f"{memory.FROM_DISK}: peak {peak['peak_bytes'] / (1 << 20):,.0f} MiB, no rows held")
    return lines


def show(case: Case, found: dict[str, Any]) -> None:
    """One case on the terminal."""
    print(f"\n{title(found, case.name)}\n")
    print(table(HEAD, [cells(name, one) for name, one in found["contestants"].items()]))
    for line in notes(found):
        print(line)


def markdown(result: dict[str, Any], met: dict[str, bool]) -> str:
    """The whole result as a page."""
    here = machine()
    lines = [
        "# Speed beside the peers, on the CPU",
        "",
        f"`python benchmarks/peers.py`, {time.strftime('%Y-%m-%d', time.gmtime())}; its docstring has the columns.",
        "",
        f"{here['processor']}, {here['cores']} cores, {here['memory_gib']} GiB, load average {here['load_average']} at "
        f"the end; {result['threads']} threads; {result['rounds']} rounds of {result['iterations']} iterations. "
        f"streamcurate {here['streamcurate']}, Python {here['python']}, NumPy {here['libraries']['numpy']}; "
        + ", ".join(f"{name} {version}" for name, version in result["versions"].items() if name != "streamcurate")
        + ".",
        "",
        "BLAS: " + "; ".join(result["blas"]) + ".",
        "",
    ]
    for name, found in result["cases"].items():
        lines += [f"## {title(found, name)}", ""]
        lines += [markdown_table(HEAD, [cells(one, each) for one, each in found["contestants"].items()]), ""]
        lines += [*(f"- {line}" for line in notes(found)), ""]
    if result["disk"] is not None:
        lines += ["## From disk", "", *(f"- {line}" for line in disk_lines(result["disk"])), ""]
    lines += ["## Who takes part", "", *(f"- {name}: {note}." for name, note in result["notes"].items())]
    lines += [f"- {name}: left out, {why}." for name, why in result["skipped"].items()]
    lines += ["", "## Goals", "", *(f"- {'met' if is_met else 'MISSED'}: {goal}" for goal, is_met in met.items())]
    return "\n".join(lines) + "\n"


def blas() -> list[str]:
    """The libraries of matrix products in this process."""
    found = {
        f"{one['internal_api']} {one['version']} ({one.get('architecture', 'unknown')}, {Path(one['filepath']).name})"
        for one in threadpool_info()
        if one["user_api"] == "blas"
    }
    return sorted(found)


def chosen_cases(options: argparse.Namespace) -> list[Case]:
    """The cases that the options name."""
    cases = list(QUICK if options.quick else CASES)
    if options.clusters:
        shapes = list(dict.fromkeys(replace(case, clusters=0) for case in cases))
        cases = [replace(shape, clusters=clusters) for shape in shapes for clusters in options.clusters]
    if options.rows:
        cases = [replace(case, rows=options.rows) for case in cases]
    return [case for case in cases if not options.cases or any(part in case.name for part in options.cases)]


def arguments(line: list[str] | None = None) -> argparse.Namespace:
    made = parser(__doc__)
    made.add_argument("--data", type=Path, metavar="FOLDER", help="with the real rows, embeddings.npy")
    made.add_argument("--quick", action="store_true", help="small cases, one round of five iterations")
    made.add_argument("--cases", type=_names, default=[], metavar="A,B", help="those whose names contain one of these")
    made.add_argument("--contestants", type=_names, default=[], metavar="A,B", help="by their names in the table")
    made.add_argument("--clusters", type=_numbers, default=[], metavar="K1,K2", help="instead of the cases' own")
    made.add_argument("--rows", type=int, help="instead of the cases' own")
    made.add_argument("--rounds", type=int)
    made.add_argument("--iterations", type=int)
    made.add_argument("--threads", type=int, default=available_threads())
    made.add_argument("--memory", choices=("none", "first", "all"), help="where (first: the largest case)")
    made.add_argument("--no-disk", action="store_true", help="leave out the engine over a store on disk")
    made.add_argument("--folder", type=Path, help="for what is written meanwhile, by default the temporary folder")
    made.add_argument("--markdown", type=Path, metavar="FILE", help="also write the tables there")
    options = made.parse_args(line)
    options.rounds = options.rounds or (1 if options.quick else 3)
    options.iterations = options.iterations or (5 if options.quick else 10)
    options.memory = options.memory or ("none" if options.quick else "first")
    return options


def _names(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _numbers(text: str) -> list[int]:
    return [int(part) for part in _names(text)]


if __name__ == "__main__":
    main()
