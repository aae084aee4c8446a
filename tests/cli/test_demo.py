"""What the demo prints, and where."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from streamcurate.cli.main import main
from streamcurate.demo import digits


@pytest.fixture
def only_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The smaller of the two pools; both together are the slow test below."""
    monkeypatch.setattr("streamcurate.demo.POOLS", (digits,))


@pytest.mark.usefixtures("only_digits")
def test_prints_the_numbers_that_it_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", str(tmp_path / "demo"), "--quiet"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    figures = json.loads((tmp_path / "demo" / "demo.json").read_text())["figures"]["digits"]
    value = figures["divergence"]
    assert value["before"] == pytest.approx(0.589, abs=5e-4)
    assert value["after"] < 0.3
    assert f"KL to even shares {value['before']:.3f} → {value['after']:.3f}" in out
    assert [int(word) for word in _line(out, "100 balanced").split()[2:12]] == figures["counts"]["after"]
    assert str(tmp_path / "demo" / "digits.png") in out
    assert (tmp_path / "demo" / "digits.png").exists()


@pytest.mark.usefixtures("only_digits")
def test_the_same_command_again_has_little_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", str(tmp_path / "demo")]) == 0
    first = capsys.readouterr().out
    assert main(["demo", str(tmp_path / "demo")]) == 0
    again, err = capsys.readouterr()
    assert "nothing to do" in err
    assert _line(again, "100 balanced") == _line(first, "100 balanced")


@pytest.mark.usefixtures("only_digits")
def test_the_folder_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["demo", "--quiet"]) == 0
    assert {path.name for path in (tmp_path / "streamcurate-demo").iterdir()} == {"demo.json", "digits", "digits.png"}


def test_another_folder_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "thesis.txt").touch()
    assert main(["demo", str(tmp_path)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "is not empty and no folder of an earlier demo" in err


def test_the_commands_it_suggests_exist(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("streamcurate.demo.POOLS", (digits,))
        assert main(["demo", str(tmp_path / "demo"), "--quiet"]) == 0
    out = capsys.readouterr().out
    tried = out[out.index("Try\n") : out.index("Then")].splitlines()[1:]
    assert len(tried) == 3
    for line in tried:
        program, *arguments = line.split()
        assert program == "streamcurate"
        # The digits are fewer than the rings, for which the suggestions are made.
        arguments = ["30" if argument in ("200", "300") else argument for argument in arguments]
        assert main(arguments) == 0, line


@pytest.mark.slow
def test_both_pools(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", str(tmp_path / "demo")]) == 0
    out = capsys.readouterr().out
    assert "five rings: KL to even shares 0.773 → 0.0" in out
    assert {path.name for path in (tmp_path / "demo").iterdir()} == {
        "demo.json", "rings", "rings.png", "digits", "digits.png",
    }  # fmt: skip


def _line(out: str, label: str) -> str:
    return next(line for line in out.splitlines() if line.strip().startswith(label))
