"""The CUDA source, and how it is compiled."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

# rows.cu first: the others use what it defines.
FILES = ("rows.cu", "prepare.cu", "nearest.cu", "sums.cu", "statistics.cu", "integers.cu")

OPTIONS = ("--std=c++17", "--fmad=false", "--ftz=false", "--prec-div=true", "--prec-sqrt=true")
"""No contraction to fused multiply-adds, no flushing to zero: every operation is the one the source names."""


@cache
def cuda_source() -> str:
    """All kernels as one source."""
    folder = files(__package__).joinpath("cuda")
    return "\n".join(folder.joinpath(name).read_text(encoding="utf-8") for name in FILES)
