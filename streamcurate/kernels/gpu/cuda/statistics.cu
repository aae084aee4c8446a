// Ranges, exponents and unusable rows of a block; kernels/cpu/statistics.py has the meaning of each.

template <typename Row>
static __device__ __forceinline__ void usable_row(
    const Row* rows, long long count, long long dims, unsigned char* usable) {
    long long i = thread_number();
    if (i >= count) return;
    unsigned int largest = 0;
    for (long long j = 0; j < dims; j++) {
        unsigned int size = __float_as_uint(widen(rows[i * dims + j])) & 0x7FFFFFFFu;
        largest = size > largest ? size : largest;
    }
    usable[i] = largest < 0x7F800000u ? 1 : 0;
}

// One coordinate of one chunk of rows: least and greatest value (keys of ``ordered``), and the set bits of each
// exponent's mantissas. With unit 1 the ranges are those of the rows divided by their norms, and masks stay as they are.
template <typename Row>
static __device__ __forceinline__ void ranges_of_chunk(
    const Row* rows, const double* norms, long long unit, const unsigned char* usable, long long count, long long dims,
    long long chunk, long long chunks, long long* minimum, long long* maximum, unsigned int* masks) {
    long long place = thread_number();
    if (place >= chunks * dims) return;
    long long j = place % dims, first = place / dims * chunk;
    long long last = first + chunk < count ? first + chunk : count;
    long long least = 0x7FF0000000000000LL, greatest = ordered(-__longlong_as_double(0x7FF0000000000000LL));
    for (long long i = first; i < last; i++) {
        if (!usable[i]) continue;
        long long key = ordered(coordinate(rows, i * dims + j, unit, norm_of(norms, i, unit)));
        least = key < least ? key : least;
        greatest = key > greatest ? key : greatest;
        if (unit) continue;
        unsigned int word = __float_as_uint(widen(rows[i * dims + j]));
        unsigned int exponent = (word >> 23) & 0xFFu;
        unsigned int bits = (word & 0x7FFFFFu) | (exponent != 0 ? 0x800000u : 0u);
        // Most bits are there already; a stale look costs an atomic operation and nothing else.
        if (bits & ~masks[exponent]) atomicOr(masks + exponent, bits);
    }
    atomicMin(minimum + j, least);
    atomicMax(maximum + j, greatest);
}

#define STATISTICS_KERNELS(Row, suffix)                                                                               \
    extern "C" __global__ void usable_rows_##suffix(                                                                  \
        const Row* rows, long long count, long long dims, unsigned char* usable) {                                    \
        usable_row(rows, count, dims, usable);                                                                        \
    }                                                                                                                 \
    extern "C" __global__ void column_ranges_##suffix(                                                                \
        const Row* rows, const double* norms, long long unit, const unsigned char* usable, long long count,           \
        long long dims, long long chunk, long long chunks, long long* minimum, long long* maximum,                    \
        unsigned int* masks) {                                                                                        \
        ranges_of_chunk(rows, norms, unit, usable, count, dims, chunk, chunks, minimum, maximum, masks);              \
    }

STATISTICS_KERNELS(float, float32)
STATISTICS_KERNELS(Half, float16)
