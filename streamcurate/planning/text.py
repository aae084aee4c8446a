"""A plan as people read it."""

from __future__ import annotations

from collections.abc import Sequence

from streamcurate.planning.plan import LevelPlan, Plan, StagePlan
from streamcurate.planning.suggestions import spell_seconds
from streamcurate.streaming import format_bytes

_HEAD = ("", "passes", "read", "written", "TFLOP", "memory", "expected", "at most", "bound by")


def plan_text(plan: Plan) -> str:
    """All of it, in lines."""
    store = plan.store
    used = "" if store.count == store.rows else f", {store.count:,} of them used"
    where = f"{plan.workers} workers" if plan.workers else "one process"
    where = f"{where} of {plan.threads} threads" if plan.on == "this" else plan.on
    lines = [
        f"{store.name}: {store.rows:,} rows{used} of {store.dims} dims, {store.dtype} "
        f"({format_bytes(store.rows * store.row_bytes)}); metric {plan.config.metric}, seed {plan.config.seed}",
        f"on {where}, memory limit {format_bytes(plan.limit)} a process: "
        + ("fits" if plan.refusal is None else f"REFUSED: {plan.refusal}"),
    ]
    for level in plan.levels:
        lines += ["", *_level_lines(level)]
    lines += [
        "",
        f"time     about {spell_seconds(plan.expected)}, at most {spell_seconds(plan.most)} if every fit used all its "
        f"iterations; mostly {plan.bound_by}",
        f"disk     tree {format_bytes(plan.tree_bytes)}, scratch up to {format_bytes(plan.scratch_bytes)}; "
        f"{format_bytes(plan.free_bytes)} are free at {plan.place}",
        *_rate_lines(plan),
    ]
    lines += [f"advice   {one.text}" for one in plan.suggestions]
    return "\n".join(lines)


def _rate_lines(plan: Plan) -> list[str]:
    """Where rates come from: those that nobody has measured one by one."""
    lines = []
    sources = sorted({rate.source for rate in plan.rates.values() if rate.origin == "measured"})
    if plan.on == "this":
        lines += [f"rates    measured: {source}" for source in sources]
    else:
        lines += [f"rates    measured: iterations on {source}" for source in sources]
    for name, rate in plan.rates.items():
        if rate.origin != "measured" and plan.on != "this":
            lines.append(f"rates    {rate.origin}: {name}, {rate.value:.3g} {rate.unit} ({rate.source})")
    return lines or ["rates    assumed"]


def _level_lines(level: LevelPlan) -> list[str]:
    head = (
        f"level {level.number}: {level.points:,} points, {level.clusters:,} clusters, seeding {level.seeding}; "
        f"about {spell_seconds(level.expected)}, at most {spell_seconds(level.most)}"
    )
    return [head, *_table([_cells(one) for one in level.stages])]


def _cells(one: StagePlan) -> tuple[str, ...]:
    stage = one.stage
    each = sum(count.times for count in stage.passes)
    passes = ""
    if each:
        passes = f"{each * one.repeats:,.0f}"
        if one.most_repeats > one.repeats:
            passes += f" of {each * one.most_repeats:,.0f}"
    flop = stage.flop * one.repeats / 1e12
    return (
        one.name, passes, _bytes(stage.read * one.repeats), _bytes(stage.written * one.repeats),
        (f"{flop:,.0f}" if flop >= 10 else f"{flop:.2g}") if flop else "",
        format_bytes(one.memory_bytes), spell_seconds(one.times.expected), spell_seconds(one.times.most),
        one.times.bound_by,
    )  # fmt: skip


def _bytes(count: float) -> str:
    return format_bytes(round(count)) if count else ""


def _table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    cells = [_HEAD, *rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(_HEAD))]
    lines = []
    for row in cells:
        first, *others = (
            f"{cell:<{width}}" if column in (0, len(_HEAD) - 1) else f"{cell:>{width}}"
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        lines.append(("  " + "  ".join([first, *others])).rstrip())
    return lines
