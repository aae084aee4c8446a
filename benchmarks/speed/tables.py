"""From rounds to figures, from figures to tables."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any

from speed.contestants import Solution
from speed.rows import Case

GOALS = {"FAISS": 2.5, "scikit-learn": 3.0, "SuperKMeans": 1.3}
FIT_GOAL = 3.0
RATE_GOAL = 2.0
HEAD = (
    "",
    "s / iteration",
    "GFLOP/s",
    "of sgemm",
    "× ours",
    "fit s",
    "with labels s",
    "× ours",
    "CPU × ours",
    "labels equal",
    "inertia, of ours",
    "peak MiB",
    "beyond rows MiB",
)


def figures(case: Case, rounds: list[tuple[float, dict[str, Solution]]], ours: str) -> dict[str, dict[str, Any]]:
    """Medians over the rounds for each contestant.

    Parameters
    ----------
    case : Case
        With the number of rows there were.
    rounds : list of (sgemm, solutions)
        FLOP/s of the machine's product in that round, and what each contestant made of it.
    ours : str
        To whom ratios refer.
    """
    names = list(dict.fromkeys(name for _, found in rounds for name in found))
    return {name: _figures(case, rounds, name, ours) for name in names}


def _figures(case: Case, rounds: list[tuple[float, dict[str, Solution]]], name: str, ours: str) -> dict[str, Any]:
    part = [(rate, found[name], found.get(ours)) for rate, found in rounds if name in found]
    solutions = [solution for _, solution, _ in part]
    described: dict[str, Any] = {
        "rounds": len(part),
        "fit_seconds": median(one.fit_seconds for one in solutions),
        "label_seconds": median(one.label_seconds for one in solutions),
        "processor_seconds": median(one.processor_seconds for one in solutions),
        "iterations": len(solutions[0].iteration_seconds),
        "iteration_seconds": [[round(each, 5) for each in one.iteration_seconds] for one in solutions],
    }
    timed = all(one.iteration_seconds for one in solutions)
    if timed:
        seconds = [median(one.iteration_seconds) for one in solutions]
        described["seconds_per_iteration"] = median(seconds)
        described["gflops"] = case.flop / median(seconds) / 1e9
        described["of_sgemm"] = median(case.flop / own / rate for own, (rate, _, _) in zip(seconds, part, strict=True))
    pairs = [(own, mine) for _, own, mine in part if mine is not None]
    if pairs:
        described["ratio_fit"] = median(own.fit_seconds / mine.fit_seconds for own, mine in pairs)
        described["ratio_fit_and_labels"] = median(
            (own.fit_seconds + own.label_seconds) / (mine.fit_seconds + mine.label_seconds) for own, mine in pairs
        )
        described["ratio_processor"] = median(own.processor_seconds / mine.processor_seconds for own, mine in pairs)
        if timed:
            described["ratio"] = median(
                median(own.iteration_seconds) / median(mine.iteration_seconds) for own, mine in pairs
            )
    return described


def cells(name: str, found: dict[str, Any]) -> list[str]:
    """One line of the table; what there is none of stays empty."""

    def shown(key: str, form: str) -> str:
        return "" if found.get(key) is None else format(found[key], form)

    memory = found.get("memory") or {}
    return [
        name,
        shown("seconds_per_iteration", ".3f"),
        shown("gflops", ",.0f"),
        shown("of_sgemm", ".2f"),
        shown("ratio", ".2f"),
        shown("fit_seconds", ".2f"),
        f"{found['fit_seconds'] + found['label_seconds']:.2f}",
        shown("ratio_fit_and_labels", ".2f"),
        shown("ratio_processor", ".2f"),
        shown("labels_equal", ".2%"),
        shown("inertia_of_ours", ".4f"),
        *(f"{memory[key] / (1 << 20):,.0f}" if key in memory else "" for key in ("peak_bytes", "beyond_rows_bytes")),
    ]


def goals(case: Case, found: dict[str, dict[str, Any]], ours: str) -> dict[str, bool]:
    """The goals of one case; they are about many clusters of data that has clusters."""
    mine = found.get(ours, {})
    met = {f"{case.name}: all labels equal brute force": mine.get("labels_equal") == 1.0}
    if case.kind == "isotropic" or case.clusters < 4000 or case.dims < 384:
        return met
    for peer, least in GOALS.items():
        if "ratio" in found.get(peer, {}):
            met[f"{case.name}: iterations at least {least} × {peer}"] = found[peer]["ratio"] >= least
    if "of_sgemm" in mine:
        met[f"{case.name}: at least {RATE_GOAL:.0f} × the machine's sgemm"] = mine["of_sgemm"] >= RATE_GOAL
    if "ratio_fit" in found.get("FAISS", {}):
        enough = found["FAISS"]["ratio_fit"] >= FIT_GOAL and found["FAISS"].get("inertia_of_ours", 1.0) >= 1 - 1e-6
        met[f"{case.name}: fit at least {FIT_GOAL:.0f} × FAISS at equal or lower inertia"] = enough
    return met


def disk_lines(found: dict[str, Any]) -> list[str]:
    """What `disk.measure` found, in words."""
    compute, read = found["compute_bound"], found["read_bound"]
    lines = []
    for state, share in compute["share_of_memory_speed"].items():
        seconds = compute["seconds_per_iteration"]
        lines.append(
            f"{compute['rows']:,} × {found['dims']} {found['dtype']}, k = {compute['clusters']:,}, {_state(state)}: "
            f"{seconds[state]:.3f} s an iteration from disk, {seconds['memory']:.3f} s in memory: "
            f"{share:.3f} of the in-memory speed"
        )
    for state, share in read["share_of_readinto"].items():
        lines.append(
            f"{read['rows']:,} × {found['dims']} {found['dtype']} ({read['bytes'] / 1e9:.2f} GB), "
            f"k = {read['clusters']:,}, {_state(state)}: {read['gb_per_second'][state]:.2f} GB/s, plain readinto "
            f"{read['readinto_gb_per_second'][state]:.2f} GB/s: {share:.3f} of it"
        )
    return lines


def disk_goals(found: dict[str, Any]) -> dict[str, bool]:
    """The goals of reading from disk."""
    met = {}
    for state, share in found["compute_bound"]["share_of_memory_speed"].items():
        met[f"from disk, compute-bound, {_state(state)}: at least 0.9 × the in-memory speed"] = share >= 0.9
    for state, share in found["read_bound"]["share_of_readinto"].items():
        met[f"from disk, I/O-bound, {_state(state)}: at least 0.85 × plain readinto"] = share >= 0.85
    return met


def _state(state: str) -> str:
    return "file cache dropped before every pass" if state == "cold" else "file cache left alone"


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, the first column to the left."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" + "---:|" * (len(head) - 1)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])
