"""The same functions on an NVIDIA GPU: cuBLAS for the bulk, CUDA kernels for what decides, the CPU's bits."""
