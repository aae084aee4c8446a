"""The benchmark of ingest: its files hold the rows, its peers read all of them, its ratios are what they say."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from streamcurate.embeddings.sources import open_sources

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture
def rates(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    if not BENCHMARKS.is_dir():
        pytest.skip("the source distribution holds no benchmarks")
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("ingest_rates")


def test_every_file_holds_the_rows(rates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates, "GROUP_ROWS", 30)
    values = np.random.default_rng(1).standard_normal((100, 6), dtype=np.float32)
    for format_ in rates.FORMATS:
        if format_.name == "safetensors":
            pytest.importorskip("safetensors")
        path = tmp_path / format_.file
        format_.write(path, values)
        (reader,) = open_sources(path)
        assert np.concatenate([block for block, _ in reader.blocks(0)]).tobytes() == values.tobytes()
        for peer in format_.peers:
            peer(path)
        rates.copied(path, tmp_path / "copy")
        assert (tmp_path / "copy").read_bytes() == path.read_bytes()


def test_ratios_are_medians_of_rounds(rates) -> None:
    found = rates.rates([1.0, 2.0, 4.0], [2.0, 2.0, 2.0], 1000, 4_000_000_000)
    assert found == {"rows_per_second": 500, "gb_per_second": 2.0, "peer_gb_per_second": 2.0, "ratio": 1.0}


def test_it_runs(rates, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    json_file = tmp_path / "out.json"
    given = ["--rows", "500", "--dims", "8", "--rounds", "1", "--only", "arrow file", "--json", str(json_file)]
    rates.run(rates.options(given), tmp_path)
    result = json.loads(json_file.read_text())
    assert list(result["files"]) == ["arrow file"]
    assert result["files"]["arrow file"]["ingest"]["rows_per_second"] > 0
    assert 0 < result["files"]["arrow file"]["peak_bytes"] < result["limit_bytes"]
    assert "arrow file: read at 0.5 of its peer at least" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == [json_file]
