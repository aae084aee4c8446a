"""Every notebook, executed from top to bottom: its own checks hold, it warns of nothing and leaves nothing behind."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

jupytext = pytest.importorskip("jupytext")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
QUICK = "quickstart"
# Figures drawn by each, all of them with an output of their own.
FIGURES = {"quickstart": 3, "paper": 2, "text_embeddings": 1, "cluster": 0, "choosing_levels": 4}

pytestmark = pytest.mark.skipif(not NOTEBOOKS.is_dir(), reason="the source distribution holds no notebooks")


def read(name: str):
    return jupytext.read(NOTEBOOKS / f"{name}.md")


def test_every_notebook_is_known() -> None:
    assert {path.stem for path in NOTEBOOKS.glob("*.md")} - {"README"} == set(FIGURES)


@pytest.mark.parametrize("name", FIGURES)
def test_code_is_clean_and_checks_are_there(name: str) -> None:
    code = [cell for cell in read(name).cells if cell.cell_type == "code"]
    checks = [cell for cell in code if "check" in cell.metadata.get("tags", [])]
    assert len(checks) >= 2
    assert all("assert" in cell.source for cell in checks)
    text = "\n\n".join(cell.source for cell in code)
    ruff = [sys.executable, "-m", "ruff", "check", "--quiet", "--stdin-filename", str(NOTEBOOKS / f"{name}.py")]
    found = subprocess.run([*ruff, "-"], input=text, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout + found.stderr


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "name", [name if name == QUICK else pytest.param(name, marks=pytest.mark.slow) for name in FIGURES]
)
def test_notebook_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    temporary, folder = tmp_path / "temporary", tmp_path / "folder"
    temporary.mkdir()
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.delenv("STREAMCURATE_DATA", raising=False)
    # Pictures become outputs, whatever the environment of the tests says.
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    notebook = read(name)
    # A cell that fails raises here, with the cell and its traceback.
    nbclient.NotebookClient(
        notebook, timeout=540, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    ).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert [output.text for output in outputs if output.output_type == "stream" and output.name == "stderr"] == []
    assert sum("image/png" in output.get("data", {}) for output in outputs) == FIGURES[name]
    assert sorted(temporary.iterdir()) == []
    assert sorted(folder.iterdir()) == []
