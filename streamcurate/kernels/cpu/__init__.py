"""The kernels on NumPy and numba. Modules are imported one by one; this package imports none of them."""
