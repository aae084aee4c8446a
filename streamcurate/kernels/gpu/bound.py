"""How far a score of this room can be from the formula: the bound behind the certificate, for every route.

Derivation
----------
As in kernels/cpu/nearest.py: o is an origin, t a power of two, x the row as the formula sees it (for cosine the
float64 unit row), c_j the stored centroid, r = t (x - o), q_j = t (c_j - o) in exact arithmetic, u = 2^-24, and

    S_j = |q_j|^2 - 2 r.q_j = t^2 |x - c_j|^2 - |r|^2        orders the centroids as the exact distance does.

The device computes s_j = fl(n_j + g G_j) with n_j = float32(|q_j|^2), G_j a matrix product of rounded rows x' and
rounded columns w_j, and g ("gain") a float32 number of the row.

*Operands.* A row is known as x' with r' = g x' and |r - r'| <= rho ("slack"); a column as w_j = -2 q'_j with
|q_j - q'_j| <= sigma_j ("residual"). Both are measured in float64 when the operands are made, so they are small where
rounding happens to lose little. With |r| <= a, |q_j| <= b_j:

    |(-2 r.q_j) - (-2 r'.q'_j)| <= 2 |r| |q_j - q'_j| + 2 |r - r'| |q'_j| <= 2 a sigma_j + 2 rho (b_j + sigma_j).

* float16 rows, as they are: o = 0 and x' = x, the stored bits, so rho = 0 (cosine: what the float64 rounding of the
  unit row moves, 2^-50 a). Subtracting an origin would make them inexact; g = t, or t / |x| for cosine. Only the
  centroids' rounding errs: |x.c - x.c'| <= |x| |c - c'|.
* rows shifted: o is the centroids' mean, x' = float16(T r) with T = 1 / g a power of two of the row's own, which
  brings its largest coordinate to [2^13, 2^14): nothing overflows, and what falls among the subnormals is below 2^-38
  of the largest coordinate. Both operands err, but in proportion to |x - o| and |c - o| instead of |x| and |c|. Let R
  be the root mean square of |c - o|, and rows be spread as the centroids are: with one operand rounded the bound is in
  proportion to |o|^2 + R^2, with two it is to 2 R^2. So float16 rows are shifted where |o|^2 > R^2, and float32 rows,
  which must be rounded anyway, always.
* float32 operands (the route "single"): rho = sigma_j = 0 here, their rounding being part of the product's term below.

Columns are scaled by t so that the largest coordinate of a q lies in [1, 2): float16 holds -2 q without overflow, and
what it loses among its subnormals is part of the measured sigma_j.

*Product.* |G_j - x'.w_j| <= kappa |x'| |w_j|.

* float32, any order of additions, with or without fused multiply-adds: kappa = gamma_(d+4), which includes the
  rounding of both operands (kernels/cpu/nearest.py, items 1 and 2).
* float16 on tensor cores, added in float32: the products of two float16 are exact (22 bits, no under- or overflow).
  The hardware adds K of them and the accumulator at once: it aligns all to the largest and cuts off below 24 bits (or
  more), so each of K + 1 addends errs by less than 2^-23 M, M the largest of them, and cuts the result once more.
  M <= sum |x'_i w_i| <= |x'| |w_j|. With d / K such steps the error is below (d / K) (K + 2) 2^-23 |x'| |w_j|. By
  published measurements K is 4 or more on every device; no vendor promises any of it. kappa = 2 (d + 16) 2^-23 holds
  for every K >= 2, and for float32 additions of partial sums, and is tried on the device before it is trusted
  (trust.py). float16 subnormals count as what they are, which is tried as well.

*Rounding.* g is off by at most 1.01 u relatively (float32 of t / |x|; else exact), n_j by 1.01 u b_j^2, and the last
operation by u |s_j|. With A = a + rho, B_j = b_j + sigma_j these add at most 2.1 u 2 A B_j + 3 u B_j^2.

*Formula.* The formula's own value F_j errs from |x - c_j|^2 by at most (d + 2) 2^-53 relatively, e = (d + 4) 2^-53.

Together, with w = d 2^-120 covering all underflow,

    E_j = 2 A sigma_j + 2 rho B_j + 2.002 (kappa + 3 u) A B_j + 3 u B_j^2 + e (A + B_j)^2 + w (1 + A + B_j)
    |s_j - (t^2 F_j - |r|^2)| <= E_j

and s_j - E_j > min_l (s_l + E_l) proves F_j > F_l for some l: j neither wins nor ties. All other j go through the
formula. E is enlarged by a thousandth for the float64 rounding of the bounds themselves, and taken with the largest
B and sigma of a group of columns. Rows with a > 2^60, or a gain float32 cannot hold, go through the formula with all
centroids.
"""

from __future__ import annotations

FARTHEST = 2.0**60
"""The largest reach of a row that is screened."""

LARGEST_DIMS = 2**20
"""Up to here kappa is below 0.26 and float64 norms err by less than 1e-9, as the derivation takes for granted."""

_UNIT = 2.0**-24


def single_kappa(dims: int) -> float:
    """Relative error of a float32 product and of the rounding of its operands: gamma_(d+4)."""
    return (dims + 4) * _UNIT / (1 - (dims + 4) * _UNIT)


def half_kappa(dims: int) -> float:
    """Relative error of a product of float16 on tensor cores."""
    return 2 * (dims + 16) * 2.0**-23


def error_terms(dims: int, half: bool) -> tuple[float, float, float, float]:
    """The factors of A B, B^2, (A + B)^2 and (1 + A + B) in E."""
    product = half_kappa(dims) + 3 * _UNIT if half else single_kappa(dims)
    terms = (2.002 * product, 3 * _UNIT, (dims + 4) * 2.0**-53, dims * 2.0**-120)
    return tuple(1.001 * term for term in terms)  # type: ignore[return-value]
