"""Memory limits, block sizes and block plans."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamcurate.errors import ConfigError, MemoryLimitError
from streamcurate.streaming import BlockPlan, Cost, MemoryBudget, budget, format_bytes, parse_bytes

MIB = 1 << 20


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("4GiB", 4 << 30), ("512MiB", 512 << 20), ("2GB", 2 * 10**9), ("1.5 gib", 3 << 29), ("800m", 800 << 20),
        ("1_000", 1000), ("7", 7), ("3kB", 3000), ("1TiB", 1 << 40), (" 2 GiB ", 2 << 30), ("5b", 5),
    ],
)  # fmt: skip
def test_sizes_as_people_write_them(text, count):
    assert parse_bytes(text) == count


@pytest.mark.parametrize("text", ["", "GiB", "4 GiBs", "four", "1e400", "4,5GiB", "nan", "inf", "--"])
def test_what_is_no_size(text):
    with pytest.raises(ConfigError, match="write it like 4GiB"):
        parse_bytes(text)


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (512 << 20, "512 MiB"), (5 << 40, "5.0 TiB")]
)
def test_sizes_as_people_read_them(count, text):
    assert format_bytes(count) == text


def test_limits_below_the_smallest_are_refused():
    with pytest.raises(ConfigError, match="the smallest supported is 512 MiB"):
        MemoryBudget.of(511 * MIB)
    assert MemoryBudget.of(512 * MIB).usable > 0


def test_the_default_is_half_of_what_is_available(monkeypatch):
    monkeypatch.setattr(budget, "available_bytes", lambda: 6 << 30)
    assert MemoryBudget.of(None).limit == 3 << 30
    monkeypatch.setattr(budget, "available_bytes", lambda: 100 * MIB)
    assert MemoryBudget.of(None).limit == 512 * MIB


def test_the_cgroup_counts(monkeypatch, tmp_path):
    (tmp_path / "memory.max").write_text("3000000\n")
    (tmp_path / "memory.current").write_text("1000000\n")
    original = budget.Path

    def moved(path: str):
        return original(tmp_path / original(path).name)

    monkeypatch.setattr(budget, "Path", moved)
    assert budget.available_bytes() == 2_000_000
    (tmp_path / "memory.max").write_text("max\n")
    assert budget.available_bytes() > 2_000_000
    (tmp_path / "memory.max").write_text("5")
    assert budget.available_bytes() == 0


costs = st.builds(
    Cost,
    fixed_bytes=st.integers(0, 400 * MIB),
    thread_bytes=st.integers(0, 20 * MIB),
    row_bytes=st.integers(0, 20_000),
    row_operations=st.integers(0, 10**7),
)


@given(
    limit=st.integers(512 * MIB, 4096 * MIB),
    threads=st.integers(1, 32),
    prefetch=st.integers(0, 1),
    rows=st.integers(1, 10**9),
    row_bytes=st.integers(0, 16_000),
    overhead=st.integers(0, 100 * MIB),
    cost=costs,
)
def test_blocks_under_way_fit_or_are_refused(limit, threads, prefetch, rows, row_bytes, overhead, cost):
    made = MemoryBudget(limit, threads, prefetch)
    fixed = cost.fixed_bytes + overhead + threads * cost.thread_bytes
    try:
        block = made.block_rows("work", rows, row_bytes, overhead, cost)
    except MemoryLimitError as error:
        # It would not have fitted, and the limit that the message gives is one that does.
        enough = int(str(error).split("--memory-limit ")[1].split("MiB")[0]) * MIB
        assert enough > limit
        assert MemoryBudget(enough, threads, prefetch).block_rows("work", rows, row_bytes, overhead, cost) >= 1
        return
    assert block >= 1
    under_way = (threads + prefetch) * min(block, rows) * (2 * row_bytes + cost.row_bytes)
    assert fixed + under_way <= made.usable


def test_more_memory_never_means_smaller_blocks():
    cost = Cost(row_bytes=4000, fixed_bytes=290 * MIB)
    sizes = [MemoryBudget(limit * MIB, 2).block_rows("work", 10**8, 4000, 0, cost) for limit in (600, 700, 1000, 4000)]
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[-1]


def test_a_share_is_a_share():
    whole = MemoryBudget(1024 * MIB, 4)
    part = whole.share(0.25)
    assert part.threads == 1
    assert part.usable == pytest.approx(whole.usable / 4, rel=1e-6)


def test_a_small_source_is_shared_among_the_threads():
    cost = Cost(row_operations=10**6)
    assert MemoryBudget(1024 * MIB, 4).block_rows("work", 10_000, 400, 0, cost) <= 10_000 // 8 + 1


@given(
    rows=st.integers(1, 5000),
    block=st.integers(1, 6000),
    chunk=st.integers(1, 6000),
    align=st.sampled_from([1, 2, 64, 1024]),
)
def test_plans_cover_every_row_once(rows, block, chunk, align):
    plan = BlockPlan.of(rows, block, chunk, align)
    ranges = list(plan)
    assert len(ranges) == len(plan)
    assert ranges[0][0] == 0
    assert ranges[-1][1] == rows
    assert all(one[1] == other[0] for one, other in itertools.pairwise(ranges))
    assert all(start % align == 0 for start, _ in ranges)
    assert all(stop - start <= max(block, align) for start, stop in ranges)
    if align == 1 and block >= chunk and chunk < rows:
        assert all(start % chunk == 0 for start, _ in ranges)
