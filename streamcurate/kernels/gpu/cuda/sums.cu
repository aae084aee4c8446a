// Exact sums by cluster: integers added atomically, whose order cannot matter; kernels/cpu/sums.py has the pieces.

// ``limbs`` is (pieces, touched, some): columns first_dim to first_dim + some of every touched cluster.
// ``magic`` holds 1.5 2^52 quanta, ``scales`` the inverse quanta, lowest limb first.
template <typename Row>
static __device__ __forceinline__ void add_coordinate(
    const Row* rows, const double* norms, long long unit, long long count, long long dims, long long first_dim,
    long long some, const int* slots, long long touched, const double* magic, const double* scales, long long pieces,
    unsigned long long* limbs) {
    long long place = thread_number();
    if (place >= count * some) return;
    long long i = place / some, t = place % some;
    long long slot = slots[i];
    if (slot < 0) return;
    double x = coordinate(rows, i * dims + first_dim + t, unit, norm_of(norms, i, unit));
    for (long long limb = pieces - 1; limb >= 0; limb--) {
        double piece = pieces == 1 ? x : __dsub_rn(__dadd_rn(x, magic[limb]), magic[limb]);
        long long digit = (long long)__dmul_rn(piece, scales[limb]);
        if (digit != 0) atomicAdd(limbs + (limb * touched + slot) * some + t, (unsigned long long)digit);
        x = __dsub_rn(x, piece);
    }
}

extern "C" __global__ void add_rows_float32(
    const float* rows, const double* norms, long long unit, long long count, long long dims, long long first_dim,
    long long some, const int* slots, long long touched, const double* magic, const double* scales, long long pieces,
    unsigned long long* limbs) {
    add_coordinate(
        rows, norms, unit, count, dims, first_dim, some, slots, touched, magic, scales, pieces, limbs);
}

extern "C" __global__ void add_rows_float16(
    const Half* rows, const double* norms, long long unit, long long count, long long dims, long long first_dim,
    long long some, const int* slots, long long touched, const double* magic, const double* scales, long long pieces,
    unsigned long long* limbs) {
    add_coordinate(
        rows, norms, unit, count, dims, first_dim, some, slots, touched, magic, scales, pieces, limbs);
}
