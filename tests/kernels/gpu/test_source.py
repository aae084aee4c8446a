"""The CUDA source compiles for the devices it is for, and says nothing that lets a compiler change bits."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from streamcurate.kernels.gpu import interface, prepare, screen
from streamcurate.kernels.gpu.source import OPTIONS, architecture, cuda_source


@pytest.mark.parametrize("architecture", ["compute_80,code=sm_80", "compute_90a,code=sm_90a"])
def test_it_compiles_without_a_warning(tmp_path, architecture):
    compiler = shutil.which("nvcc")
    if compiler is None:
        pytest.skip("no nvcc")
    source = tmp_path / "kernels.cu"
    source.write_text(cuda_source())
    options = ["-std=c++17", "-fmad=false", f"-gencode=arch={architecture}", "-Werror", "all-warnings", "-cubin"]
    done = subprocess.run(
        [compiler, *options, "-o", tmp_path / "kernels.cubin", source], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "kernels.cubin").stat().st_size > 0


def test_options_forbid_contraction():
    assert "--fmad=false" in OPTIONS
    assert not any("fast" in option for option in OPTIONS)


def test_targets():
    assert [architecture(capability) for capability in (80, 90, 120)] == ["sm_80", "sm_90a", "sm_120"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("GROUP", prepare.GROUP), ("PANEL_ROWS", prepare.PANEL_ROWS), ("PANEL_COLUMNS", prepare.PANEL_COLUMNS),
        ("THREADS", interface.THREADS), ("MOST_STAGES", screen._MOST_STAGES),
        ("PER_THREAD", prepare.LARGEST_COLUMNS // prepare.GROUP // (interface.THREADS // 32)),
    ],
)  # fmt: skip
def test_sizes_are_as_the_kernels_take_them(name, value):
    assert re.findall(rf"#define {name} (\d+)", cuda_source()) == [str(value)]
