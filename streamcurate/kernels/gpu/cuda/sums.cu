// Exact sums by cluster: integers added atomically, whose order cannot matter; kernels/cpu/sums.py has the pieces.
//
// Rows come as segments of ``listed``, each of one cluster: a thread adds one coordinate of a segment's rows by itself
// and then to the cluster's limbs, so that there is one atomic operation a segment and not one a row.

// ``limbs`` is (pieces, touched, some): columns first_dim to first_dim + some of every touched cluster.
// ``magic`` holds 1.5 2^52 quanta, ``scales`` the inverse quanta, lowest limb first.
template <typename Row>
static __device__ __forceinline__ void add_segment(
    const Row* rows, const double* norms, long long unit, long long dims, long long first_dim, long long some,
    const int* listed, const int* starts, const int* slots, long long segments, long long touched, const double* magic,
    const double* scales, long long pieces, unsigned long long* limbs) {
    long long place = thread_number();
    if (place >= segments * some) return;
    long long segment = place / some, t = place % some;
    unsigned long long* total = limbs + slots[segment] * some + t;
    long long sums[2] = {0, 0};
    for (int p = starts[segment]; p < starts[segment + 1]; p++) {
        long long i = listed[p];
        double x = coordinate(rows, i * dims + first_dim + t, unit, norm_of(norms, i, unit));
        for (long long limb = pieces - 1; limb >= 0; limb--) {
            double piece = pieces == 1 ? x : __dsub_rn(__dadd_rn(x, magic[limb]), magic[limb]);
            long long digit = (long long)__dmul_rn(piece, scales[limb]);
            if (limb == 0) {
                sums[0] += digit;
            } else if (limb == 1) {
                sums[1] += digit;
            } else if (digit != 0) {
                atomicAdd(total + limb * touched * some, (unsigned long long)digit);
            }
            x = __dsub_rn(x, piece);
        }
    }
    if (sums[0] != 0) atomicAdd(total, (unsigned long long)sums[0]);
    if (sums[1] != 0) atomicAdd(total + touched * some, (unsigned long long)sums[1]);
}

#define SUM_KERNEL(Row, suffix)                                                                                       \
    extern "C" __global__ void add_segments_##suffix(                                                                 \
        const Row* rows, const double* norms, long long unit, long long dims, long long first_dim, long long some,    \
        const int* listed, const int* starts, const int* slots, long long segments, long long touched,                \
        const double* magic, const double* scales, long long pieces, unsigned long long* limbs) {                     \
        add_segment(                                                                                                  \
            rows, norms, unit, dims, first_dim, some, listed, starts, slots, segments, touched, magic, scales,        \
            pieces, limbs);                                                                                           \
    }

SUM_KERNEL(float, float32)
SUM_KERNEL(Half, float16)

// A block's sums onto those of all clusters: total[limb, ids[t], j] += part[limb, t, j].
extern "C" __global__ void add_limbs(
    const long long* part, const long long* ids, long long pieces, long long touched, long long clusters,
    long long dims, long long* total) {
    long long place = thread_number();
    if (place >= pieces * touched * dims) return;
    long long j = place % dims, t = place / dims % touched, limb = place / dims / touched;
    total[(limb * clusters + ids[t]) * dims + j] += part[place];
}
