"""The CUDA source, and how it is compiled."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

# rows.cu first: the others use what it defines; screen.cu before fused.cu.
FILES = (
    "rows.cu", "prepare.cu", "halves.cu", "screen.cu", "fused.cu", "settle.cu", "sums.cu", "statistics.cu",
    "integers.cu",
)  # fmt: skip

OPTIONS = ("--std=c++17", "--fmad=false", "--ftz=false", "--prec-div=true", "--prec-sqrt=true")
"""No contraction to fused multiply-adds, no flushing to zero: every operation is the one the source names."""

FUSED_CAPABILITY = 90
"""fused.cu is written for this compute capability alone, and compiled with what is peculiar to it (sm_90a)."""


@cache
def cuda_source() -> str:
    """All kernels as one source."""
    folder = files(__package__).joinpath("cuda")
    return "\n".join(folder.joinpath(name).read_text(encoding="utf-8") for name in FILES)


def architecture(capability: int) -> str:
    """The target for a device of this compute capability."""
    return f"sm_{capability}a" if capability == FUSED_CAPABILITY else f"sm_{capability}"
