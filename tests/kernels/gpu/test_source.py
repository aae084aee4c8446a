"""The CUDA source compiles for the devices it is for, and says nothing that lets a compiler change bits."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from streamcurate.kernels.gpu import prepare
from streamcurate.kernels.gpu.source import OPTIONS, cuda_source


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


def test_groups_are_as_long_as_the_kernels_take_them():
    assert re.findall(r"#define GROUP (\d+)", cuda_source()) == [str(prepare.GROUP)]
